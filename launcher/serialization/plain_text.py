"""A value from a host as a short text for people: of limited length, in one line, without control characters for a
terminal.
"""

from __future__ import annotations

import reprlib
from typing import Any

from launcher.util.text.terminal_text import clean

__all__ = ["plain_text"]

_MAX = 2000


class _Short(reprlib.Repr):
    """Shows the beginning of every container, in its own order."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 8
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdeque = 50
        self.maxstring = self.maxother = 500

    def repr_int(self, value: int, level: int) -> str:
        """Show only the size of a very long number, which Python would not convert to text."""
        return repr(value) if value.bit_length() < 1000 else f"<int of {value.bit_length():,} bits>"

    def repr_dict(self, value: dict[Any, Any], level: int) -> str:
        """Unlike reprlib, do not sort the keys."""
        if not value:
            return "{}"
        if level <= 0:
            return "{...}"
        return "{" + ", ".join(self._pairs(value, level, "{}: {}")) + "}"

    repr_OrderedDict = repr_Counter = repr_dict  # noqa: N815 - reprlib finds them by the type's name

    def repr_ShownRecord(self, value: Any, level: int) -> str:  # noqa: N802 - as above
        """Show it like a dataclass."""
        if level <= 0:
            return f"{value.name}(...)"
        return f"{value.name}({', '.join(self._pairs(value.fields, level, '{}={}', str))})"

    def _pairs(self, value: dict[Any, Any], level: int, form: str, key_text: Any = None) -> list[str]:
        pairs = [
            form.format(key_text(key) if key_text else self.repr1(key, level - 1), self.repr1(item, level - 1))
            for key, item in list(value.items())[: self.maxdict]
        ]
        return [*pairs, "..."] if len(value) > self.maxdict else pairs


def plain_text(value: Any) -> str:
    """Return the text of a value from `read_shown`."""
    text = " ".join(_Short().repr(value)[: 4 * _MAX].split())
    text = clean(text).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _MAX else f"{text[:_MAX]}..."
