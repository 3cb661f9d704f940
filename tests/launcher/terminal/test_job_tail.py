"""What a job prints, while a user looks at it."""

from __future__ import annotations

import queue

from launcher.errors import UsageError
from launcher.terminal.job_tail import JobTail
from tests.launcher.display.happened import one_job, ready, started, tally_of


class Text:
    """The output of a job that never was."""

    def __init__(self, *said: bytes) -> None:
        self._said = list(said)
        self.problem = ""
        self.closed: queue.Queue[bool] = queue.Queue()

    def read(self) -> dict[str, bytes]:
        if not self._said:
            self.problem = "gpu1 does not answer"
            return {"stdout": b"", "stderr": b""}
        return {"stdout": self._said.pop(0), "stderr": b""}

    def close(self) -> None:
        self.closed.put(True)


def rows_of(tail: JobTail, scroll: int = 0, room: int = 5) -> list[str]:
    tally = tally_of([started(), ready(), *one_job(1)[:3]])
    return [row.plain for row in tail.rows(tally, scroll, room)]


def test_the_last_lines_as_many_as_fit_and_earlier_ones() -> None:
    """Scrolling stops at the first line."""
    tail = JobTail(1, Text, lambda: None)
    tail.take({"stdout": b"".join(b"line %d\n" % num for num in range(10)), "stderr": b""})
    assert rows_of(tail) == ["job 1 (running on gpu1)", "line 6", "line 7", "line 8", "line 9"]
    assert rows_of(tail, scroll=2)[1:] == ["line 4", "line 5", "line 6", "line 7"]
    assert rows_of(tail, scroll=1000)[1:] == ["line 0", "line 1", "line 2", "line 3"]


def test_a_hostile_job_prints_text_alone() -> None:
    """No control character reaches the terminal, and a long line is cut."""
    tail = JobTail(1, Text, lambda: None)
    tail.take({"stdout": b"\x1b[2J\x1b]0;owned\x07\x1b[3;1Hhello\n" + b"x" * 5000 + b"\n", "stderr": b""})
    drawn = rows_of(tail)
    assert "hello" in drawn[1]
    assert not [line for line in drawn if not line.isprintable()]
    assert len(drawn[2]) == 1000


def test_it_reads_in_its_own_thread_and_says_what_is_wrong() -> None:
    """What came before stays. The host is left alone when the user goes back."""
    text, changed = Text(b"a\n", b"b\n"), queue.Queue[bool]()
    tail = JobTail(1, lambda: text, lambda: changed.put(True))
    tail.open()
    while not tail.problem:
        assert changed.get(timeout=20)
    assert rows_of(tail)[1:] == ["a", "b", "gpu1 does not answer"]
    tail.close()
    assert text.closed.get(timeout=20)


def test_output_that_cannot_be_opened() -> None:
    """The reason stands in its place."""
    changed: queue.Queue[bool] = queue.Queue()

    def refuse() -> Text:
        raise UsageError("the run has no job 1")

    tail = JobTail(1, refuse, lambda: changed.put(True))
    tail.open()
    assert changed.get(timeout=20)
    assert rows_of(tail)[1:] == ["the run has no job 1"]
