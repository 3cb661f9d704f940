"""HTML for notebooks: nothing in it is markup but ours."""

from __future__ import annotations

import html.parser

import pytest

from launcher.util.text.html import progress_html, table_html

HOSTILE = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "</td></table><iframe>", "' onload='x", "&lt;b&gt;", "\x1b[2J\x00\u202e\ud800", "A" * 10_000,
]  # fmt: skip


class _Elements(html.parser.HTMLParser):
    """The names of the elements and attributes of a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes.update(name for name, _ in attrs)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_is_markup(text: str) -> None:
    """Wherever it stands. Control characters are gone, and long texts are cut."""
    made = table_html(text, [text], [[text, 1, None]], text) + progress_html(1, 2, text)
    found = _Elements(made)
    assert found.names == {"div", "b", "table", "thead", "tr", "th", "tbody", "td", "progress"}
    assert found.attributes == {"style", "value", "max"}
    assert not any(one in made for one in "\x1b\x00\u202e\ud800")
    assert "A" * 400 not in made
    made.encode()


def test_a_bar_of_no_jobs_is_empty() -> None:
    """It has no jobs yet, and is not full."""
    assert '<progress value="0" max="1">' in progress_html(0, 0, "")
