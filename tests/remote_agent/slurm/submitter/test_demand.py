"""How many allocations a run needs."""

from __future__ import annotations

import pytest

from remote_agent.slurm.submitter.demand import BEYOND, Demand, Limit, ShortJobs, divided


@pytest.mark.parametrize(
    ("jobs", "slots", "free", "coming", "missing", "excess"),
    [
        (20, 1, 0, 0, 20, 0),
        (20, 1, 0, 20, 0, 0),
        (20, 1, 3, 10, 7, 0),
        (21, 2, 0, 0, 11, 0),
        (3, 2, 3, 0, 0, 0),
        (0, 1, 0, 5, 0, 5),
        (4, 1, 0, 4 + BEYOND, 0, 0),
        (4, 1, 0, 5 + BEYOND, 0, 1),
    ],
)
def test_what_is_missing_and_what_nobody_needs(
    jobs: int, slots: int, free: int, coming: int, missing: int, excess: int
) -> None:
    """Two more than are needed may wait, while any job does."""
    demand = Demand(jobs, slots, free, coming)
    assert (demand.missing, demand.excess) == (missing, excess)


def test_classes_share_what_room_there_is() -> None:
    """Those with nothing to ask for have no part."""
    assert divided({"a": 1, "b": 0, "c": 2}, None) == ["a", "c"]
    assert divided({"a": 1, "b": 0, "c": 2}, 1) == ["a"]
    assert divided({"a": 1}, -3) == []


class TestLimit:
    """Slurm lets a user have only so many jobs."""

    def ask(self, limit: Limit, wanted: int, there: int, most: int, now: float) -> tuple[int, list[int]]:
        """Ask as the submitter does. Returns how many there are, and what was asked for."""
        asked = []
        while (count := min(wanted - there, limit.most(100, there, now))) > 0:
            asked.append(count)
            if there + count > most:
                limit.refused(count, there, now)
            else:
                there += count
                limit.taken()
        return there, asked

    def test_all_that_there_is_room_for_is_found_by_halves(self) -> None:
        """Then nothing is asked until there is room, or a while has passed."""
        limit = Limit()
        there, asked = self.ask(limit, 250, 0, 20, 0.0)
        assert there == 20
        assert asked[:4] == [100, 50, 25, 12]
        assert limit.most(100, 20, 1.0) == 0
        assert limit.next(1.0) == 5.0
        assert self.ask(limit, 250, 14, 20, 2.0)[0] == 20
        assert limit.most(100, 20, 4.9) == 0
        assert limit.most(100, 20, 5.0) == 1

    def test_the_pauses_grow_and_more_room_is_found(self) -> None:
        """The user is told once."""
        limit = Limit()
        assert limit.refused(1, 3, 0.0)
        assert limit.most(100, 3, 5.0) == 1
        assert not limit.refused(1, 3, 5.0)
        assert limit.next(5.0) == 15.0
        assert self.ask(limit, 250, 3, 60, 15.0)[0] == 60


def test_short_jobs_are_noticed_once() -> None:
    """A long one ends the watch."""
    short = ShortJobs()
    assert [short.ended(1.0) for _ in range(12)] == [False] * 9 + [True] + [False] * 2
    short = ShortJobs()
    short.ended(61.0)
    assert not any(short.ended(1.0) for _ in range(20))
    assert not short.ended(None)
