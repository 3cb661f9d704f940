"""Text from hosts and jobs, made fit for a terminal or a log.

Rule: nothing that a host or a job said is shown before it went through `clean`. There are two borders at which it does, so that nobody
behind them has to think of it: where a frame is taken in (`launcher.agents.receiver`, `launcher.agents.query`), and where a journal is read. What is
said of a place on a disk, which may have any name, goes through `clean_line` where it is printed.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["clean", "clean_all", "clean_line"]

#: CSI, OSC and the two-character escape sequences (ECMA-48): colours and cursor moves of somebody else's terminal.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
#: What is left of C0, DEL and C1, the marks that end a line or turn text around (which can make a line read as another), and halves
#: of a character, which cannot be written at all.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: Any) -> str:
    """Text without escape sequences, and with control characters other than newline and tab made visible."""
    shown = str(text)
    if shown.isprintable():
        return shown
    return _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", _ESCAPES.sub("", shown))


def clean_line(text: Any) -> str:
    """Text as `clean` has it, on one line: a path, or a name, in which a newline would begin a line that looks like one of ours."""
    return clean(text).replace("\n", "\\n").replace("\t", "\\t")


def clean_all(value: Any) -> Any:
    """Plain data (of JSON) with every text in it cleaned, keys, too."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(key): clean_all(one) for key, one in value.items()}
    if isinstance(value, list):
        return [clean_all(one) for one in value]
    return value
