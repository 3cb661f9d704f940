"""Which display a stream gets: progress on a terminal, else lines."""

from __future__ import annotations

import io
import sys

import pytest

from launcher.display.lines import LineDisplay
from launcher.display.tally import Tally
from launcher.display.text import clean_lines
from launcher.terminal.factory import make_display
from launcher.terminal.live_display import LiveDisplay
from tests.launcher.display.happened import (
    Terminal,
    ready,
)

# -- counting --------------------------------------------------------------------------------------------------------


# -- lines -----------------------------------------------------------------------------------------------------------


# -- what came from elsewhere ----------------------------------------------------------------------------------------


def test_lines_without_an_end() -> None:
    """Output that stops within a line, and empty lines."""
    assert clean_lines("a\n\nb") == ["a", "", "b"]


# -- the end ---------------------------------------------------------------------------------------------------------


# -- the terminal ----------------------------------------------------------------------------------------------------


def test_the_display_fits_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress on a terminal; lines in a pipe, on a dumb terminal, and when quiet."""
    monkeypatch.setenv("TERM", "xterm-256color")
    assert isinstance(make_display(Tally(), Terminal()), LiveDisplay)
    assert isinstance(make_display(Tally(), io.StringIO()), LineDisplay)
    assert isinstance(make_display(Tally(), Terminal(), quiet=True), LineDisplay)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_display(Tally(), Terminal()), LineDisplay)


def test_lines_reach_the_stream_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A log that is followed shows what happens when it happens."""
    with make_display(Tally(), sys.stdout) as display:
        display(ready())
        assert "host gpu1: ready" in capsys.readouterr().out
