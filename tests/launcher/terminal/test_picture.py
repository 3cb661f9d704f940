"""The texts of the live part in docs/looking.md are those that the displays draw now."""

from __future__ import annotations

import time

import pytest

from tests.live_picture import PAGE, written


def test_the_page_shows_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m tests.live_picture` writes them."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    try:
        page = PAGE.read_text(encoding="utf-8")
        assert written(page) == page
    finally:
        monkeypatch.undo()
        time.tzset()
