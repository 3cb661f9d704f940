"""Text from hosts and jobs, made safe for a terminal or a log.

Rule: text from a host or a job is shown only after `clean`. It is cleaned at two borders, so that no code behind them has to think of
it: where a frame is received (`launcher.agents.receiver`, `launcher.agents.queries.query`), and where a journal is read. A path on a disk, which
may have any name, goes through `clean_line` where it is printed.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

__all__ = ["clean", "clean_all", "clean_line", "clean_lines", "terminal_columns"]

#: CSI, OSC and the two-character escape sequences (ECMA-48), such as colours and cursor moves.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
#: The other characters of C0, DEL and C1; the marks that end a line or reverse the direction of text (which can make a line read
#: differently); and surrogates, which cannot be written at all.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: Any) -> str:
    """Text without escape sequences, and with control characters other than newline and tab made visible."""
    shown = str(text)
    if shown.isprintable():
        return shown
    return _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", _ESCAPES.sub("", shown))


def clean_line(text: Any) -> str:
    """Clean a path or a name, and keep it on one line. A newline in it could begin a line that looks like one of ours."""
    return clean(text).replace("\n", "\\n").replace("\t", "\\t")


def clean_lines(text: str) -> list[str]:
    """The lines of what a job wrote; of a line that it wrote over (a progress bar) what it showed last."""
    return [clean(line.rstrip("\r").rpartition("\r")[2]) for line in text.removesuffix("\n").split("\n")]


def clean_all(value: Any) -> Any:
    """Plain data (from JSON) with every text in it cleaned, keys included."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(key): clean_all(one) for key, one in value.items()}
    if isinstance(value, list):
        return [clean_all(one) for one in value]
    return value


def terminal_columns() -> int:
    """How many columns the terminal has, as `shutil.get_terminal_size` says; to import that takes a quarter as long as Python's start."""
    given = os.environ.get("COLUMNS", "")
    if given.isascii() and given.isdigit() and 0 < int(given) < 1 << 16:
        return int(given)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr]
    except (AttributeError, ValueError, OSError):
        return 80
