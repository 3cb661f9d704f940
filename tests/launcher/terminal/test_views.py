"""Keys and views, without a terminal."""

from __future__ import annotations

from launcher.terminal.views import Command, Views


def pressed(views: Views, keys: list[str], jobs: list[int]) -> list[Command]:
    return [command for key in keys if (command := views.press(key, jobs)) is not None]


def test_the_only_job_is_opened_at_once_and_left_again() -> None:
    """There is nothing to choose."""
    views = Views()
    assert pressed(views, ["o", "escape"], [7]) == [Command("open", 7), Command("close", 7)]
    assert views.now.name == "hosts"


def test_a_job_is_chosen_by_arrows_or_by_its_number() -> None:
    """Arrows stop at both ends; digits jump as soon as they name a job."""
    views = Views()
    assert pressed(views, ["o", "up", "down", "enter"], [1, 2, 30]) == [Command("open", 2)]
    views = Views()
    assert pressed(views, ["o", "3", "0", "enter"], [1, 2, 30]) == [Command("open", 30)]
    views = Views()
    assert pressed(views, ["o", "9", "backspace", "end", "enter"], [1, 2, 30]) == [Command("open", 30)]


def test_nothing_ends_without_a_yes() -> None:
    """A cancel and leaving ask first; any other key is a no, and leads back."""
    views = Views()
    assert pressed(views, ["c", "n"], [7]) == []
    assert views.now.name == "hosts"
    assert pressed(views, ["c", "y"], [7]) == [Command("cancel", 7)]
    assert pressed(views, ["d", "q"], [7]) == []
    assert pressed(views, ["d", "y"], [7]) == [Command("detach")]
    assert views.now.name == "hosts"


def test_to_choose_for_a_cancel_cancels_and_not_opens() -> None:
    """`c` with several jobs asks which one first."""
    views = Views()
    assert pressed(views, ["c", "down", "enter", "y"], [1, 2]) == [Command("cancel", 2)]


def test_a_job_that_has_ended_meanwhile_is_not_acted_on() -> None:
    """The chosen one is gone from the list when the key comes."""
    views = Views()
    pressed(views, ["o", "down"], [1, 2])
    assert pressed(views, ["enter", "c"], [1, 3]) == []


def test_the_next_job_is_chosen_when_the_chosen_one_has_ended() -> None:
    """So there is always a row to act on. A question about it is over, and its output stays, without a cancel."""
    views = Views()
    pressed(views, ["o", "down"], [1, 2, 3])
    views.follow([1, 3])
    assert pressed(views, ["enter"], [1, 3]) == [Command("open", 3)]
    views.follow([1])
    assert (views.now.name, pressed(views, ["c"], [1]), views.now.name) == ("output", [], "output")
    assert pressed(views, ["escape"], [1]) == [Command("close", 3)]
    views.follow([1])
    assert pressed(views, ["c"], [1]) == []
    assert (views.now.name, views.now.num) == ("cancel", 1)
    views.follow([])
    assert views.now.name == "jobs"


def test_q_closes_the_view_from_the_outside_only() -> None:
    """Within a job's output it leads back, as in a pager."""
    views = Views()
    assert pressed(views, ["o", "q"], [7]) == [Command("open", 7), Command("close", 7)]
    assert pressed(views, ["?", "q"], [7]) == []
    assert pressed(views, ["q"], [7]) == [Command("quit")]


def test_output_scrolls_and_follows_again() -> None:
    """Up goes back, down goes on, end follows."""
    views = Views()
    views.page = 5
    pressed(views, ["o", "page up", "up", "down"], [7])
    assert views.now.scroll == 5
    pressed(views, ["end"], [7])
    assert views.now.scroll == 0
    pressed(views, ["down"], [7])
    assert views.now.scroll == 0


def test_without_a_job_there_is_nothing_to_open() -> None:
    """Neither by `o` nor by `c`."""
    views = Views()
    assert pressed(views, ["o", "c", "enter"], []) == []
    assert views.now.name == "hosts"
