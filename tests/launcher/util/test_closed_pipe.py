"""A reader that goes before the end is no error of ours."""

from __future__ import annotations

import os
import sys

import pytest

from launcher.util.closed_pipe import flush_stdout


@pytest.mark.parametrize("is_read", [True, False])
def test_what_nobody_reads_is_dropped(is_read: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, and then everything goes nowhere."""
    read, write = os.pipe()
    with open(write, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        if not is_read:
            os.close(read)
        print("text")
        assert flush_stdout() is is_read
        print("more")
        assert flush_stdout()
    if is_read:
        assert os.read(read, 100) == b"text\nmore\n"
        os.close(read)


def test_there_may_be_no_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program without a terminal has none."""
    monkeypatch.setattr(sys, "stdout", None)
    assert flush_stdout()
