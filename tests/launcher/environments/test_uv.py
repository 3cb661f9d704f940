"""What uv says when it fails is told, without secrets."""

from __future__ import annotations

import sys

import pytest

from launcher.environments import uv as module
from launcher.environments.uv import run_uv, uv_program, without_secrets
from launcher.errors import PackagesError


def test_its_last_lines_are_told() -> None:
    """With what it was to do."""
    with pytest.raises(PackagesError, match=r"a test: `uv --no-such` ended with exit status 2:\n.*no-such"):
        run_uv("a test", ["--no-such"])


def test_urls_lose_their_credentials() -> None:
    """Whatever stands before the @."""
    assert without_secrets("at https://me:pass@index.test/simple, x@y") == "at https://***@index.test/simple, x@y"


def test_without_uv_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "uv", None)
    module.uv_program.cache_clear()
    try:
        with pytest.raises(PackagesError, match=r"hydra-remote-launcher\[environments\]"):
            uv_program()
    finally:
        module.uv_program.cache_clear()
