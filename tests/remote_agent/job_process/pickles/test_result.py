"""A result comes back complete, or says why it cannot."""

from __future__ import annotations

import os
import sys

import pytest


@pytest.mark.parametrize("what", ["two", "prefixed", "hostile"])
def test_exceptions_that_cannot_be_sent_come_as_text(jobs, what):
    """Two arguments, a message made from the argument, a __str__ or __reduce__ that exits."""
    attempt = jobs("raise_", {"what": what})
    assert attempt.error["kind"] == "exception"
    assert (
        attempt.error["type"] == "jobs." + {"two": "TwoArguments", "prefixed": "Prefixed", "hostile": "Hostile"}[what]
    )
    assert attempt.error["traceback"]
    with pytest.raises(KeyError):
        attempt.part()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.11 brought them")
def test_an_exception_group_comes_back(jobs):
    """All of its exceptions are in the traceback."""
    attempt = jobs("group")
    assert "one" in attempt.error["traceback"]
    assert "two" in attempt.error["traceback"]
    assert type(attempt.part()).__name__ == "ExceptionGroup"


@pytest.mark.parametrize("what", ["generator", "lock", "nested", "exits"])
def test_a_value_that_cannot_be_pickled_fails_its_job(jobs, what):
    """The error says what it was. No job is lost."""
    attempt = jobs("value", {"what": what})
    assert attempt.error["kind"] == "unpicklable"
    assert "cannot be pickled" in attempt.error["message"]
    with pytest.raises(KeyError):
        attempt.part()


def test_values_that_can_be_pickled_come_back(jobs):
    """A cycle, a lambda (by value), and a value so large that it has its own file."""
    value = jobs("value", {"what": "cycle"}).part()
    assert value[0] is value
    assert jobs("value", {"what": "lambda"}).part()() == 7
    attempt = jobs("value", {"what": "big"})
    parts = attempt.frame("outcome").header["parts"]
    assert parts["file"] == str(jobs.host.spool / "payload" / f"{attempt.name}.result")
    assert os.stat(parts["file"]).st_mode & 0o777 == 0o600
    assert attempt.frame("outcome").payload == b""
    assert attempt.part() == b"x" * (3 << 20)
