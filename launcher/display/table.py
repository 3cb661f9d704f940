"""A table of text, for a command that answers at once.

Rule: no cell is cut. On a terminal the columns that may be long share the width, and go on in further lines. rich draws what lives
during a run; to import it takes longer than all else that `launcher runs` does (docs/decisions.md).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TextIO

from launcher.util.frozen import frozen
from launcher.util.text.terminal_text import terminal_columns

__all__ = ["Column", "print_table", "styled"]

_GAP = "  "
_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
#: A column that may go on in further lines has at least so many characters.
_NARROWEST = 8


@frozen
class Column:
    """The name of a column, whether it holds numbers, and whether a cell may go on in further lines."""

    name: str
    is_number: bool = False
    may_fold: bool = False


def styled(text: str, style: str, stream: TextIO) -> str:
    """The text in a style, where the stream is a terminal that shows styles (no-color.org)."""
    is_shown = stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if style and is_shown else text


def print_table(columns: Sequence[Column], rows: Iterable[tuple[Sequence[str], str]], stream: TextIO) -> None:
    """Print a table: rows of cells, each row with its style (`red`, or empty)."""
    known = [([one.replace("\n", " ") for one in cells], style) for cells, style in rows]
    names = [column.name for column in columns]
    widths = [
        max(_width(cells[index]) for cells in [names, *(cells for cells, _ in known)]) for index in range(len(names))
    ]
    if stream.isatty():
        widths = _fitted(widths, columns, terminal_columns())
    for cells, style in [(names, "bold"), *known]:
        pieces = [_pieces(cell, width) for cell, width in zip(cells, widths, strict=True)]
        for line in range(max(len(one) for one in pieces)):
            shown = [
                _padded(one[line] if line < len(one) else "", width, column.is_number)
                for one, width, column in zip(pieces, widths, columns, strict=True)
            ]
            print(styled(_GAP.join(shown).rstrip(), style, stream), file=stream)


def _fitted(widths: list[int], columns: Sequence[Column], room: int) -> list[int]:
    """The widths of columns that fit into the room, as far as columns may fold. The widest of these gives first."""
    fitted = list(widths)
    foldable = [index for index, column in enumerate(columns) if column.may_fold]
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - room
    while over > 0 and foldable:
        widest = max(foldable, key=fitted.__getitem__)
        if fitted[widest] <= _NARROWEST:
            break
        fitted[widest] -= 1
        over -= 1
    return fitted


def _pieces(text: str, width: int) -> list[str]:
    """The text in pieces of at most this width, which together are the text."""
    if _width(text) <= width:
        return [text]
    pieces, piece, used = [], "", 0
    for one in text:
        needed = _width(one)
        if used + needed > width and piece:
            pieces.append(piece)
            piece, used = "", 0
        piece += one
        used += needed
    return [*pieces, piece]


def _width(text: str) -> int:
    """The columns of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF") for one in text)


def _padded(text: str, width: int, to_the_right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if to_the_right else text + space
