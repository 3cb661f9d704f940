"""A table of text: widths, lines that go on, styles."""

from __future__ import annotations

import io

import pytest

from launcher.display.table import Column, print_table, styled

COLUMNS = [Column("job", is_number=True), Column("state"), Column("overrides", may_fold=True)]


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


def test_numbers_stand_to_the_right() -> None:
    """Columns are as wide as their widest cell, and no line ends with spaces."""
    out = io.StringIO()
    print_table(COLUMNS, [(["1", "COMPLETED", ""], ""), (["12", "FAILED", "x=1"], "red")], out)
    assert out.getvalue() == "job  state      overrides\n  1  COMPLETED\n 12  FAILED     x=1\n"


def test_a_file_gets_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the width of the terminal is, a row is one line there."""
    monkeypatch.setenv("COLUMNS", "20")
    out = io.StringIO()
    print_table(COLUMNS, [(["1", "FAILED", "x" * 100 + "\ny"], "")], out)
    assert out.getvalue().splitlines()[1] == f"  1  FAILED  {'x' * 100} y"


def test_a_terminal_gets_all_of_a_long_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on in further lines, and nothing of it is cut."""
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    print_table(COLUMNS, [(["1", "FAILED", "abcdefghij" * 4], "red")], out)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 30
    assert "".join(line[13:] for line in lines[1:]) == "abcdefghij" * 4


def test_wide_characters_take_two_columns() -> None:
    """Characters of East Asian scripts are twice as wide, and marks take no room."""
    out = io.StringIO()
    print_table([Column("a"), Column("b")], [(["日本", "x"], ""), (["e\u0301", "y"], "")], out)
    assert out.getvalue() == "a     b\n日本  x\ne\u0301     y\n"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_styles_are_for_terminals_that_show_them(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, a dumb terminal and a user who wants none get none."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert styled("text", "red", Terminal()) == "\x1b[31mtext\x1b[0m"
    assert styled("text", "", Terminal()) == "text"
    assert styled("text", "red", io.StringIO()) == "text"
    monkeypatch.setenv(name, value)
    assert styled("text", "red", Terminal()) == "text"
