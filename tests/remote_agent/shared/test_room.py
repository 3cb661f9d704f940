"""Which jobs of several sizes may start: in their order, and no large one is held up by small ones."""

from __future__ import annotations

import random

import pytest

from remote_agent.shared.room import Admission, SizedQueue


def _queue(*sizes: int) -> SizedQueue[str, int]:
    """Jobs a, b, c, ... with what each needs of one resource."""
    queue: SizedQueue[str, int] = SizedQueue()
    for name, size in zip("abcdefghij", sizes, strict=False):
        queue.append(name, size)
    return queue


def _chosen(admission: Admission, queue: SizedQueue[str, int], most: int | None = None) -> list[str]:
    """Those that start now; they leave the queue."""
    chosen = [name for name, _ in admission.choose(queue, lambda size: (size,), most)]
    for name in chosen:
        queue.remove(name)
    return chosen


class TestQueue:
    """Items in their order, each with a size."""

    def test_items_keep_their_order(self):
        """Whatever their sizes; what is put in front comes first."""
        queue = _queue(1, 2, 1)
        queue.prepend("x", 2)
        queue.prepend("y", 3)
        assert list(queue) == ["y", "x", "a", "b", "c"]
        assert queue.sizes() == [3, 2, 1]
        assert list(queue.of_size(2)) == ["x", "b"]
        places = [queue.place(item) for item in queue]
        assert places == sorted(places)

    def test_an_item_can_be_removed_anywhere(self):
        """A size of which nothing is left is gone."""
        queue = _queue(1, 2, 1)
        queue.remove("b")
        queue.remove("a")
        assert (list(queue), queue.sizes(), len(queue)) == (["c"], [1], 1)
        assert "a" not in queue
        assert queue == _queue_of("c")
        with pytest.raises(KeyError):
            queue.remove("a")


def _queue_of(name: str) -> SizedQueue[str, int]:
    queue: SizedQueue[str, int] = SizedQueue()
    queue.append(name, 1)
    return queue


class TestAdmission:
    """A host with eight of one resource."""

    def test_jobs_start_in_order_while_there_is_room(self):
        """What has room starts; what is too large for the host does not count."""
        admission, queue = Admission((8,)), _queue(4, 9, 2, 2, 1)
        assert _chosen(admission, queue) == ["a", "c", "d"]
        assert (list(queue), admission.used) == (["b", "e"], (8,))

    def test_small_jobs_pass_a_large_one_while_they_have_room_beside_it(self):
        """The large one needs six. Small ones may take two, whoever ran before."""
        admission, queue = Admission((8,)), _queue(4, 6, 1, 1, 1)
        assert _chosen(admission, queue) == ["a", "c", "d"]
        admission.release((4,), 0)
        assert _chosen(admission, queue) == ["b"]

    def test_a_small_job_without_room_beside_the_large_one_waits(self):
        """It would hold the large one up."""
        admission, queue = Admission((8,)), _queue(4, 8, 1)
        assert _chosen(admission, queue) == ["a"]
        admission.release((4,), 0)
        assert _chosen(admission, queue) == ["b"]

    def test_what_has_passed_and_ended_makes_room_for_another_that_passes(self):
        """Only those count that run."""
        admission, queue = Admission((8,)), _queue(4, 6, 2, 2)
        ((_, a), (_, c)) = admission.choose(queue, lambda size: (size,))
        for name in ("a", "c"):
            queue.remove(name)
        assert _chosen(admission, queue) == []
        admission.release((2,), c)
        assert _chosen(admission, queue) == ["d"]
        admission.release((4,), a)
        assert _chosen(admission, queue) == ["b"]

    def test_a_limited_choice_is_the_begin_of_the_whole_one(self):
        """So that a part of it can start now, and the rest later."""
        for seed in range(200):
            rng = random.Random(seed)
            sizes = [rng.randint(1, 9) for _ in range(10)]
            whole = _chosen(Admission((8,)), _queue(*sizes))
            admission, queue = Admission((8,)), _queue(*sizes)
            parts = []
            while one := _chosen(admission, queue, 1):
                parts += one
            assert parts == whole


@pytest.mark.parametrize("seeds", [range(50), pytest.param(range(50, 300), marks=pytest.mark.slow)], ids=str)
def test_no_stream_of_small_jobs_holds_a_large_one_up(seeds):
    """It starts at the latest when all have ended that ran when it became the first. In many histories, with three resources."""
    for seed in seeds:
        rng = random.Random(seed)
        has = tuple(rng.randint(2, 8) for _ in range(3))
        admission = Admission(has)
        queue: SizedQueue[int, tuple[int, ...]] = SizedQueue()
        running: dict[int, tuple[tuple[int, ...], int]] = {}
        before: set[int] = set()
        first: int | None = None
        count = 0
        for _ in range(120):
            while len(queue) < 6:
                queue.append(count, tuple(rng.randint(0, most) for most in has))
                count += 1
            for name, passed in admission.choose(queue, lambda size: size):
                need = next(size for size in queue.sizes() if name in queue.of_size(size))
                queue.remove(name)
                running[name] = need, passed
            used = [sum(need[i] for need, _ in running.values()) for i in range(3)]
            assert all(u <= h for u, h in zip(used, has, strict=True))
            assert tuple(used) == admission.used
            head = next(iter(queue))
            if head != first:
                first, before = head, set(running)
            before &= set(running)
            assert before, "all that ran before it have ended, and it has not started"
            ended = rng.choice(sorted(running))
            admission.release(*running.pop(ended))
