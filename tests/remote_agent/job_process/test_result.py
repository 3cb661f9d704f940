"""A result comes back whole, or says why it cannot."""

from __future__ import annotations

import os
import sys

import pytest


@pytest.mark.parametrize("what", ["two", "prefixed", "hostile"])
def test_exceptions_that_do_not_survive_the_trip_are_told_as_text(jobs, what):
    """Two arguments, a message made of the argument, a __str__ and __reduce__ that exit."""
    attempt = jobs("raise_", {"what": what})
    assert attempt.error["kind"] == "exception"
    assert (
        attempt.error["type"] == "jobs." + {"two": "TwoArguments", "prefixed": "Prefixed", "hostile": "Hostile"}[what]
    )
    assert attempt.error["traceback"]
    with pytest.raises(KeyError):
        attempt.part()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.11 brought them")
def test_an_exception_group(jobs):
    """All of its exceptions are in the traceback, and it comes back."""
    attempt = jobs("group")
    assert "one" in attempt.error["traceback"]
    assert "two" in attempt.error["traceback"]
    assert type(attempt.part()).__name__ == "ExceptionGroup"


@pytest.mark.parametrize("what", ["generator", "lock", "nested", "exits"])
def test_values_that_cannot_be_pickled(jobs, what):
    """A FAILED job that says what it was; never a lost one."""
    attempt = jobs("value", {"what": what})
    assert attempt.error["kind"] == "unpicklable"
    assert "cannot be pickled" in attempt.error["message"]
    with pytest.raises(KeyError):
        attempt.part()


def test_values_that_can(jobs):
    """A cycle, a lambda (by value), and one so large that it lies in a file of its own."""
    value = jobs("value", {"what": "cycle"}).part()
    assert value[0] is value
    assert jobs("value", {"what": "lambda"}).part()() == 7
    attempt = jobs("value", {"what": "big"})
    parts = attempt.frame("outcome").header["parts"]
    assert parts["file"] == str(jobs.host.spool / "payload" / f"{attempt.name}.result")
    assert os.stat(parts["file"]).st_mode & 0o777 == 0o600
    assert attempt.frame("outcome").payload == b""
    assert attempt.part() == b"x" * (3 << 20)
