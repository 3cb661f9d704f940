"""The output of a job, made safe for a terminal piece by piece, as it arrives.

Rule: the only control codes that reach the terminal are newline, tab, carriage return, backspace and colours (SGR). The stream may be
cut anywhere: an escape sequence, or a character of several bytes, may arrive in two pieces.

`launcher.util.text.terminal_text` is for whole texts, and removes colours, too.
"""

from __future__ import annotations

import codecs
import re

__all__ = ["TerminalFilter"]

#: Characters of an incomplete sequence that are held back; anything longer is no sequence.
_MOST_HELD = 4096
#: A control string (OSC, DCS, SOS, PM, APC; ECMA-48, 5.6). It ends with its line, so that it cannot hide the lines after it.
_STRING = r"\x1b[\]PX^_][^\x07\x18\x1a\x1b\n]*"
#: Escape sequences (ECMA-48): CSI, control strings, and those of two or more characters. Then the other characters of C0, DEL and
#: C1, and the marks that reverse the direction of text (which can make a line read differently).
_CODES = re.compile(
    rf"\x1b\[[0-?]*[ -/]*[@-~]|{_STRING}(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]"
    "|[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)
#: The beginning of a sequence, at the end of the text so far.
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
        """The text for the terminal, of these bytes and of what was held back before."""
        text = self._held + self._decoder.decode(data)
        self._held = ""
        last = text.rfind("\x1b")
        if last >= 0 and len(text) - last <= _MOST_HELD and _BEGINNING.fullmatch(text, last):
            text, self._held = text[:last], text[last:]
        return _CODES.sub(self._replaced, text)

    def finish(self) -> str:
        """The rest of the text, at the end of the stream. Colours are switched off."""
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
