"""What is shown is text for people, in a line where it has to be one."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.display.text import clean, error_line, seconds
from tests.launcher.display.happened import error


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b[2J\x1b[Hgone", "gone"),
        ("bell\x07", "bell\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("evil\u202etxt", "evil\\x202etxt"),
        ("tab\tnewline\n", "tab\tnewline\n"),
    ],
)
def test_terminals_get_no_control_characters_from_hosts(raw: str, shown: str) -> None:
    """Escape sequences go, other controls become visible."""
    assert clean(raw) == shown


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (error(), "ZeroDivisionError: division by zero"),
        (error(type="my_app.Odd", message=""), "Odd"),
        (error("killed", type="SIGSEGV", signal=11, message="killed by SIGSEGV"), "killed by SIGSEGV"),
        (error("killed", signal=9, message="out of memory?"), "killed by SIGKILL: out of memory?"),
        (error("exited", exit_code=3, message=""), "exited with code 3"),
        (error("timeout", message="after 30 s"), "timeout: after 30 s"),
        (error("import", type="ImportError", message="no torch"), "import: ImportError: no torch"),
        (error("killed", signal=99, message=""), "killed by signal 99"),
        (None, ""),
    ],
)
def test_an_error_is_one_line(failure: dict[str, Any] | None, line: str) -> None:
    """With its kind if that says more than its type."""
    assert error_line(failure) == line


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.123, "0.12 s"), (75, "75 s"), (130, "2 min 10 s"), (7260, "2 h 01 min"), (3599.9, "1 h 00 min")],
)
def test_durations(value: float | None, text: str) -> None:
    """As people say them."""
    assert seconds(value) == text
