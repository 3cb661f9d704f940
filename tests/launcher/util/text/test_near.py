"""Which names are meant by a word that nobody knows."""

from __future__ import annotations

from launcher.util.text.near import names_like


def test_the_most_alike_comes_first_and_nothing_is_made_up() -> None:
    """As many as were asked for, and none for a word that is like no name."""
    known = ("retries", "retry", "timeout")
    assert names_like("retris", known) == ["retries"]
    assert names_like("retri", known, 2) == ["retries", "retry"]
    assert names_like("qqq", known) == []
