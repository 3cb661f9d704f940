"""Which display a stream gets: progress on a terminal, else lines."""

from __future__ import annotations

import io
import re
import sys

import pytest

from launcher.display.lines import LineDisplay
from launcher.display.tally import Tally
from launcher.display.text import clean_lines
from launcher.terminal.factory import keyboard, make_display
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


def test_no_colour_where_the_user_wants_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """`NO_COLOR` (no-color.org). The live part stays."""
    monkeypatch.setenv("TERM", "xterm-256color")
    coloured = re.compile(r"\x1b\[[0-9;]*3[0-7]")
    seen = []
    for value in ("", "1"):
        monkeypatch.setenv("NO_COLOR", value)
        stream = Terminal()
        with make_display(Tally(), stream) as display:
            display(ready())
        seen.append(bool(coloured.search(stream.getvalue())))
        assert "gpu1" in stream.getvalue()
    assert seen == [True, False]


def test_keys_are_read_from_a_terminal_of_ours_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from a pipe, a closed stdin, or one without a descriptor."""
    assert keyboard() is None
    for stdin in (None, io.StringIO("q")):
        monkeypatch.setattr(sys, "stdin", stdin)
        assert keyboard() is None


def test_lines_reach_the_stream_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A log that is followed shows what happens when it happens."""
    with make_display(Tally(), sys.stdout) as display:
        display(ready())
        assert "host gpu1: ready" in capsys.readouterr().out
