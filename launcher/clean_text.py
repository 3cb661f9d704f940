"""Text from hosts and jobs, made fit for a terminal or a log.

Rule: nothing that a host or a job said is shown before it went through `clean`.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["clean"]

#: CSI, OSC and the two-character escape sequences (ECMA-48): colours and cursor moves of somebody else's terminal.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
#: What is left of C0, DEL and C1, and the marks that turn text around (which can make a line read as another).
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def clean(text: Any) -> str:
    """Text without escape sequences, and with control characters other than newline and tab made visible."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", _ESCAPES.sub("", str(text)))
