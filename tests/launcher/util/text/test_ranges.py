"""Numbers of jobs, for people."""

from launcher.util.text.ranges import ranges


def test_numbers_that_follow_each_other_are_one_range() -> None:
    """In any order."""
    assert ranges([8, 0, 1, 2, 5, 6]) == "0-2, 5-6, 8"
    assert ranges([]) == ""


def test_very_many_ranges_are_cut() -> None:
    """The others are counted."""
    assert ranges(range(0, 100, 2)).endswith("36, 38 and 30 more")
