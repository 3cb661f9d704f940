"""Two outcomes of a job are the same, or differ in what is told, or cannot be compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from launcher.errors import ResultNotDecoded
from launcher.reproduce.compare import Comparison, Outcome, compare, outcome_of_job_return
from remote_agent.job import JobError, JobReturn, JobStatus

TRACEBACK = """Traceback (most recent call last):
  File "/a/b/app.py", line 3, in main
    train()
  File "{folder}/app.py", line {line}, in train
    raise ValueError
{type}: {message}
"""


def value(of: Any, digest: str = "") -> Outcome:
    """A job that returned this."""
    return Outcome("COMPLETED", None, digest, lambda: of)


def failed(
    message: str = "no",
    *,
    type: str = "ValueError",
    line: int = 7,
    folder: str = "/x",
    kind: str = "exception",
    **more: Any,
) -> Outcome:
    """A job that raised this in that line."""
    text = TRACEBACK.format(folder=folder, line=line, type=type, message=message)
    return Outcome("FAILED", JobError(kind, type, message, text, **more))


def undecodable() -> Any:
    """What reading a value under `safe` raises, where it is a pickle."""
    raise ResultNotDecoded("it is a pickle")


class Unequal:
    """It can be compared with nothing, and has no repr."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    def __repr__(self) -> str:
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("before", "after", "is_same", "says"),
    [
        (value(1, "ab"), Outcome("COMPLETED", None, "ab", undecodable), True, "byte for byte"),
        (value(1, "ab"), value(1, "cd"), True, "an equal value"),
        (value(1), value(2), False, "the value was 1"),
        (value(np.arange(3)), value(np.arange(3)), True, "an equal value"),
        (value(np.arange(3)), value(np.arange(3) + 1), False, "it is array([1, 2, 3])"),
        (value(Unequal()), value(1), None, "cannot be compared"),
        (value(1), Outcome("COMPLETED", None, "", undecodable), None, "it is a pickle"),
        (value(1), Outcome("COMPLETED", None, "", lambda: 1 // 0), None, "ZeroDivisionError"),
        (value(1), Outcome("COMPLETED"), None, "one of the values is missing"),
        (Outcome("COMPLETED"), Outcome("COMPLETED"), True, "COMPLETED"),
        (value(1), failed(), False, "is FAILED (exception)"),
        (failed(), value(1), False, "was FAILED (exception)"),
        (failed(), failed(folder="/elsewhere"), True, "app.py:7 in train"),
        (failed(type="__main__.Mine"), failed(type="Mine"), True, "app.py:7"),
        (failed(type="builtins.ValueError"), failed(), True, "app.py:7"),
        (failed("one"), failed("other"), True, "the message differs; it was: one"),
        (failed(line=7), failed(line=8), False, "is raised at app.py:8 in train"),
        (failed(), failed(type="TypeError"), False, "TypeError"),
        (failed(), failed(kind="timeout"), False, "(timeout)"),
        (failed(kind="exited", exit_code=1), failed(kind="exited", exit_code=2), False, "exited"),
        (failed(kind="killed", signal=9), failed(kind="killed", signal=9), True, "killed"),
    ],
)
def test_what_is_the_same(before: Outcome, after: Outcome, is_same: bool | None, says: str) -> None:
    """Equal digests mean equal values. A failure is compared by kind, type and line; its folders and its words may differ."""
    comparison = compare(before, after)
    assert comparison.is_same is is_same
    assert says in "\n".join(comparison.lines)


def test_nothing_of_a_host_reaches_a_terminal_as_it_is() -> None:
    """Values and messages may hold anything; a long value is cut."""
    assert Comparison(True, ("\x1b[31mred\x07",)).lines == ("red\\x07",)
    (was, now) = compare(value("x" * 1000), value(Unequal)).lines
    assert len(was) < 400
    assert "Unequal" in now
    assert failed(folder="/\x1b[31m").place == "app.py:7 in train"


@pytest.mark.parametrize(
    ("job_return", "status", "type"),
    [
        (JobReturn(status=JobStatus.COMPLETED, _return_value=3), "COMPLETED", None),
        (JobReturn(status=JobStatus.FAILED, error=JobError("killed", "SIGKILL")), "FAILED", "SIGKILL"),
        (JobReturn(status=JobStatus.FAILED, _return_value=KeyError("k")), "FAILED", "builtins.KeyError"),
    ],
)
def test_the_outcome_in_a_job_return(job_return: Any, status: str, type: str | None) -> None:
    """Ours has an error; in Hydra's, the exception is the value."""
    outcome = outcome_of_job_return(job_return)
    assert outcome.status == status
    assert (outcome.error and outcome.error.type) == type
    if status == "COMPLETED":
        assert outcome.value is not None
        assert outcome.value() == 3
