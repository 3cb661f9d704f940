"""Names that a disk may take for one."""

from __future__ import annotations

import pytest

from launcher.util.same_name import folded


@pytest.mark.parametrize(
    ("one", "other"), [("a/Model", "A/model"), ("caf\u00e9", "cafe\u0301"), ("CAFE\u0301", "caf\u00e9"), ("ﬁ", "FI")]
)
def test_case_and_form_do_not_count(one: str, other: str) -> None:
    """Of letters in any part of a path."""
    assert folded(one) == folded(other)


@pytest.mark.parametrize(("one", "other"), [("a", "b"), ("cafe", "caf\u00e9"), ("a/b", "a_b")])
def test_other_letters_do(one: str, other: str) -> None:
    """An accent among them."""
    assert folded(one) != folded(other)
