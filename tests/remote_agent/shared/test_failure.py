"""How exceptions become text: bounded, encodable, without our frames, whatever the exception does."""

from __future__ import annotations

import pytest

from remote_agent.job import JobError
from remote_agent.job_process.result import shortened
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.wire import encode
from remote_agent.shared.failure import (
    JobTerminated,
    decided_error,
    error_of_exception,
    exit_code_of,
    safe_text,
    traceback_text,
    type_name,
)


class Hostile:
    """Raises whatever it is asked."""

    def __str__(self):
        raise SystemExit(1)

    __repr__ = __str__


def test_text_of_anything():
    """Always text that UTF-8 can hold, never too much of it."""
    assert safe_text("plain") == "plain"
    assert safe_text("\udcff") == "\\udcff"
    assert "whose text is not available: SystemExit" in safe_text(Hostile())
    assert len(safe_text("x" * 10**6)) < 11_000
    assert "990000 characters left out" in safe_text("x" * 10**6)


def test_names_of_types():
    """Whole names; builtins by themselves; a type that lies about its module."""
    assert type_name(1) == "int"
    assert type_name(JobError("exception")) == "remote_agent.JobError"
    assert type_name(type("Odd", (), {"__module__": 3})()) == "Odd"


@pytest.mark.parametrize(
    ("code", "expected"), [(None, 0), (0, 0), (False, 0), (True, 1), (3, 3), (256, 256), ("text", 1), (0.0, 1)]
)
def test_exit_codes(code, expected):
    """What sys.exit was asked for."""
    assert exit_code_of(SystemExit(code)) == expected


def test_kinds():
    """SIGTERM is `killed`, sys.exit is `exited`, anything else what it is said to be."""
    assert error_of_exception(JobTerminated()).signal == 15
    assert error_of_exception(SystemExit(2)).kind == "exited"
    assert error_of_exception(ValueError("x"), "config").kind == "config"


def test_a_chain_that_bites_its_tail():
    """Told once."""
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    text = traceback_text(first)
    assert text.count("ValueError: first") == 1
    assert [cause["message"] for cause in error_of_exception(first).causes] == ["second"]


def test_an_exception_with_a_broken_text():
    """The frames are there all the same."""

    class Broken(Exception):
        def __str__(self):
            raise RuntimeError

    try:
        raise Broken
    except Broken as error:
        text = traceback_text(error)
    assert "raise Broken" in text


def test_a_result_that_tells_too_much_is_cut_to_the_wire():
    """Tracebacks of hundreds of hooks, overrides without end: the job's own error stays."""
    record = {"hook": "on_job_end", "callback": "c", "ok": False, "on_error": "warn"}
    record["error"] = {"type": "E", "message": "m" * 9000, "traceback": "t" * 50_000}
    error = JobError("exception", traceback="t" * 50_000, causes=[{"message": "c" * 9000}] * 20)
    envelope = shortened(Envelope.of_failure(error, hooks=[record] * 300))
    encode({"t": "done", "envelope": envelope.to_json(), "parts": {}})
    assert envelope.error.traceback == "t" * 50_000
    assert len(envelope.hooks) == 300


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (JobError("killed", "SIGTERM", "terminated by SIGTERM", signal=15), "cancelled"),
        (JobError("exception", "MyError"), "cancelled"),
        (
            JobError("exception", "MyError", "SIGTERM came while weights were written"),
            "SIGTERM came while weights were written",
        ),
        (JobError("exited", "SystemExit", "sys.exit(3)", exit_code=3), "sys.exit(3)"),
    ],
)
def test_what_was_decided_names_the_end_and_not_its_message(error, message):
    """What an application says of its end is kept, also where it speaks of the signal; the signal's own words are replaced."""
    decided = decided_error(error, "cancelled", None)
    assert (decided.kind, decided.message) == ("cancelled", message)
    assert (decided.type, decided.exit_code) == (error.type, error.exit_code)
    assert decided_error(error, "timeout", 2.5).message == "timed out after 2.5 s"


def test_what_was_no_end_of_the_application_is_not_renamed():
    """A config that could not be read, say: that the job was cancelled, too, explains nothing."""
    error = JobError("config", message="no such key")
    assert decided_error(error, "cancelled", None) is error
