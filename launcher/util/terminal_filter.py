"""What a job prints, made fit for a terminal piece by piece, as it comes.

Rule: of control codes a terminal gets newline, tab, carriage return, backspace and colours (SGR), and nothing else. It does not
matter where the stream was cut: an escape sequence, or a character of several bytes, may come in two pieces.

`launcher.util.terminal_text` is for whole texts, of which a terminal gets no colour either.
"""

from __future__ import annotations

import codecs
import re

__all__ = ["TerminalFilter"]

#: Characters of a sequence that is not whole yet; a longer one is none.
_MOST_HELD = 4096
#: A control string (OSC, DCS, SOS, PM, APC; ECMA-48, 5.6). It ends with its line, lest it hides what follows.
_STRING = r"\x1b[\]PX^_][^\x07\x18\x1a\x1b\n]*"
#: Escape sequences (ECMA-48): CSI, control strings, and those of two or more characters; then what is left of C0, DEL and C1,
#: and the marks that turn text around (which can make a line read as another).
_CODES = re.compile(
    rf"\x1b\[[0-?]*[ -/]*[@-~]|{_STRING}(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]"
    "|[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)
#: The beginning of one, at the end of what has come.
_BEGINNING = re.compile(rf"\x1b(?:\[[0-?]*[ -/]*|[ -/]+)?|{_STRING}")
_COLOURS = re.compile(r"\x1b\[[0-9;:]{0,100}m")
_RESET = re.compile(r"\x1b\[0*m")


class TerminalFilter:
    """The filter of one stream."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._held = ""
        self._is_coloured = False

    def feed(self, data: bytes) -> str:
        """What a terminal may have of these bytes, and of what was held back before."""
        text = self._held + self._decoder.decode(data)
        self._held = ""
        last = text.rfind("\x1b")
        if last >= 0 and len(text) - last <= _MOST_HELD and _BEGINNING.fullmatch(text, last):
            text, self._held = text[:last], text[last:]
        return _CODES.sub(self._replaced, text)

    def finish(self) -> str:
        """The stream has ended: what a terminal may have yet. Colours are switched off again."""
        rest = self._decoder.decode(b"", final=True)
        self._held = ""
        if self._is_coloured:
            self._is_coloured = False
            rest += "\x1b[0m"
        return rest

    def _replaced(self, match: re.Match[str]) -> str:
        code = match.group()
        if _COLOURS.fullmatch(code):
            self._is_coloured = not _RESET.fullmatch(code)
            return code
        return "" if code[0] == "\x1b" and len(code) > 1 else f"\\x{ord(code):02x}"
