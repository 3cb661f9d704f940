"""HTML for notebooks: tables that stand alone.

Rule: every text is cleaned and escaped here, so nothing that a host wrote is markup. There is no script, no style sheet and no link.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from launcher.util.text.terminal_text import clean_line

__all__ = ["progress_html", "table_html"]

#: Characters of a cell.
_MAX_TEXT = 300
_LEFT = ' style="text-align:left"'


def _text(value: object) -> str:
    line = clean_line(str(value)[: 4 * _MAX_TEXT])
    return html.escape(line if len(line) <= _MAX_TEXT else f"{line[:_MAX_TEXT]}...")


def table_html(caption: str, headers: Sequence[str], rows: Sequence[Sequence[object]], note: str = "") -> str:
    """A table. `note`: a line below it."""
    head = "".join(f"<th{_LEFT}>{_text(name)}</th>" for name in headers)
    body = "".join(f"<tr>{''.join(f'<td{_LEFT}>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    below = f"<div>{_text(note)}</div>" if note else ""
    return (
        f"<div><b>{_text(caption)}</b></div><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"
    )


def progress_html(done: int, total: int, caption: str) -> str:
    """A bar that shows how many of all are done, and a line."""
    return f'<div><progress value="{int(done)}" max="{max(int(total), 1)}"></progress> {_text(caption)}</div>'
