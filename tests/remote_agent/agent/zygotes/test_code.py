"""Requests for code: what is missing is named once, and the code is laid out when all of it is here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from remote_agent.agent.spool.code.code_tree import Missing
from remote_agent.agent.spool.code.manifest import ManifestError
from remote_agent.agent.zygotes.code import Code
from remote_agent.system.private_files import SpoolError

A, B, ROOT = "a" * 64, "b" * 64, "0" * 64


class Sides:
    """A tree, a background thread and a controller that a test plays."""

    path = "/spool/code"
    is_complete = False

    def __init__(self) -> None:
        self.answers: list[Missing | Exception | None] = []
        self.waiting: list[tuple[Callable[[], Any], Callable[[BaseException | None], None]]] = []
        self.said: list[dict[str, Any]] = []
        self.refused: list[str] = []
        self.changes = 0
        self.code = Code(self, self, self, self.change)  # type: ignore[arg-type]

    def advance(self, root: str) -> Missing | None:
        """Answer as the test says."""
        assert root == ROOT
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def submit(self, work: Callable[[], Any], done: Callable[[BaseException | None], None]) -> None:
        """Take work."""
        self.waiting.append((work, done))

    def say(self, message: dict[str, Any]) -> None:
        """Hear a message."""
        self.said.append(message)

    def refuse(self, code: str, message: str) -> None:
        """Hear a refusal."""
        self.refused.append(message)

    def change(self) -> None:
        """Hear that the code is there, or cannot be."""
        self.changes += 1

    def work(self, *answers: Missing | Exception | None) -> None:
        """Do what waits, with these answers, and what follows of it."""
        self.answers += answers
        while self.waiting:
            work, done = self.waiting.pop(0)
            error: BaseException | None = None
            try:
                work()
            except Exception as problem:
                error = problem
            done(error)
        assert self.answers == []


@pytest.fixture
def sides() -> Sides:
    """Nothing has happened."""
    return Sides()


def test_it_goes_on_when_all_that_was_requested_is_here(sides):
    """The manifest's root, its parts, then the contents."""
    sides.code.request(ROOT)
    sides.work(Missing([ROOT], is_manifest=True))
    assert sides.said == [{"t": "missing", "sha256": [], "manifest": ROOT, "more": False}]
    sides.code.arrived([ROOT])
    sides.work(Missing([A], is_manifest=True))
    assert sides.said[-1] == {"t": "missing", "sha256": [A], "manifest": None, "more": True}
    sides.code.arrived([A])
    sides.work(Missing([A, B], is_manifest=False))
    sides.code.arrived([B])
    assert not sides.waiting
    sides.code.arrived([A])
    assert sides.changes == 0
    sides.work(None)
    assert [one["sha256"] for one in sides.said[2:]] == [[A, B]]
    assert (sides.changes, sides.code.error) == (1, None)


def test_each_request_has_one_answer_that_is_the_last(sides):
    """The controller takes it as the word that all is here, or on its way. Contents that the host has are an empty one."""
    sides.code.request(ROOT)
    sides.work(None)
    sides.code.request(ROOT)
    sides.work(Missing([A], is_manifest=False))
    sides.code.arrived([A])
    sides.work(None)
    assert [(one["sha256"], one["more"]) for one in sides.said] == [([], False), ([A], False)]


def test_a_request_while_the_disk_is_busy_is_answered_after_it(sides):
    """Once."""
    sides.code.request(ROOT)
    sides.code.request(ROOT)
    sides.code.request(ROOT)
    assert len(sides.waiting) == 1
    sides.work(Missing([A], is_manifest=False), Missing([A], is_manifest=False))
    assert len(sides.said) == 1


def test_altered_content_is_requested_again_a_few_times(sides):
    """Then the code has failed."""
    sides.code.request(ROOT)
    for _ in range(3):
        sides.work(SpoolError("altered"), Missing([A], is_manifest=False))
        sides.code.arrived([A])
    assert sides.changes == 0
    sides.work(SpoolError("altered"))
    assert sides.changes == 1
    assert sides.code.reason() == "altered"


def test_a_manifest_that_cannot_be_read_is_refused(sides):
    """At once."""
    sides.code.request(ROOT)
    sides.work(ManifestError("code manifest of version 9"))
    assert sides.refused == ["code manifest of version 9"]
    assert sides.changes == 1


def test_a_full_disk_is_named_and_a_later_request_tries_again(sides):
    """With the folder."""
    sides.code.request(ROOT)
    sides.work(OSError(28, "No space left on device"))
    assert "/spool/code" in sides.code.reason()
    sides.code.request(ROOT)
    assert sides.code.error is None
    sides.work(None)
    assert sides.changes == 2


def test_long_lists_come_in_parts(sides):
    """The last one says that it is the last."""
    names = [f"{number:064}" for number in range(25_000)]
    sides.code.request(ROOT)
    sides.work(Missing(names, is_manifest=False))
    assert [(len(one["sha256"]), one["more"]) for one in sides.said] == [(10_000, True), (10_000, True), (5_000, False)]


def test_content_that_was_not_stored_while_the_tree_was_looked_at_is_not_forgotten(sides):
    """Nothing is asked for then, and whoever waits is told. The next request begins anew, also while that look goes on."""
    full = OSError(28, "No space left on device")
    sides.code.request(ROOT)
    sides.code.fail(full)
    sides.work(Missing([A], is_manifest=False))
    assert (sides.code.error, sides.said, sides.changes) == (full, [], 1)
    sides.code.request(ROOT)
    sides.code.fail(full)
    sides.code.request(ROOT)
    sides.work(Missing([A], is_manifest=False), Missing([A], is_manifest=False))
    assert sides.code.error is None
    assert [one["sha256"] for one in sides.said] == [[A]]
