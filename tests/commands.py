"""Commands of `launcher`, run in the process of a test."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from launcher.cli.main import _main

__all__ = ["Cli"]


class Cli:
    """Runs commands in this process."""

    def __init__(self, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        self._capture = capfdbinary
        self.err = ""

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """What a command wrote to stdout; its exit code must be this."""
        self._capture.readouterr()
        got = _main(list(arguments))
        sys.stdout.flush()
        out, err = self._capture.readouterr()
        self.err = err.decode()
        assert got == code, f"exit code {got}\n{out.decode()}\n{self.err}"
        return out.decode()

    def json(self, *arguments: str, code: int = 0) -> Any:
        """The JSON object that a command wrote."""
        content = json.loads(self(*arguments, "--json", code=code))
        assert content["version"] == 1
        return content
