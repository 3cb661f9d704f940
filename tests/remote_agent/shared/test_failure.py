"""How exceptions become text: bounded, encodable, and without our frames, whatever the exception does."""

from __future__ import annotations

import pytest

from remote_agent.job import JobError
from remote_agent.job_process.pickles.result import shortened
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
    """Raises in every method that is called."""

    def __str__(self):
        raise SystemExit(1)

    __repr__ = __str__


def test_any_value_becomes_a_safe_text():
    """It can be encoded as UTF-8, and is never too long."""
    assert safe_text("plain") == "plain"
    assert safe_text("\udcff") == "\\udcff"
    assert "whose text is not available: SystemExit" in safe_text(Hostile())
    assert len(safe_text("x" * 10**6)) < 11_000
    assert "990000 characters left out" in safe_text("x" * 10**6)


def test_the_name_of_a_type_is_complete():
    """Builtins have no module. A type may lie about its module."""
    assert type_name(1) == "int"
    assert type_name(JobError("exception")) == "remote_agent.JobError"
    assert type_name(type("Odd", (), {"__module__": 3})()) == "Odd"


@pytest.mark.parametrize(
    ("code", "expected"), [(None, 0), (0, 0), (False, 0), (True, 1), (3, 3), (256, 256), ("text", 1), (0.0, 1)]
)
def test_exit_codes_are_those_of_python(code, expected):
    """For whatever sys.exit got."""
    assert exit_code_of(SystemExit(code)) == expected


def test_each_exception_has_its_kind():
    """SIGTERM is `killed`, sys.exit is `exited`, and everything else has the given kind."""
    assert error_of_exception(JobTerminated()).signal == 15
    assert error_of_exception(SystemExit(2)).kind == "exited"
    assert error_of_exception(ValueError("x"), "config").kind == "config"


def test_a_circular_chain_is_shown_once():
    """It does not run for ever."""
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    text = traceback_text(first)
    assert text.count("ValueError: first") == 1
    assert [cause["message"] for cause in error_of_exception(first).causes] == ["second"]


def test_an_exception_with_a_broken_text_has_its_frames():
    """The traceback says why the text is missing."""

    class Broken(Exception):
        def __str__(self):
            raise RuntimeError

    try:
        raise Broken
    except Broken as error:
        text = traceback_text(error)
    assert "raise Broken" in text


def test_a_result_that_is_too_long_for_the_wire_is_shortened():
    """With tracebacks of hundreds of hooks, or endless overrides. The job's own error stays."""
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
def test_a_decided_end_changes_the_kind_and_keeps_the_message(error, message):
    """The application's own message is kept, even if it mentions the signal. Only the signal's message is replaced."""
    decided = decided_error(error, "cancelled", None)
    assert (decided.kind, decided.message) == ("cancelled", message)
    assert (decided.type, decided.exit_code) == (error.type, error.exit_code)
    assert decided_error(error, "timeout", 2.5).message == "timed out after 2.5 s"


def test_a_failure_before_the_application_keeps_its_kind():
    """For example a config that could not be read. That the job was cancelled, too, explains nothing."""
    error = JobError("config", message="no such key")
    assert decided_error(error, "cancelled", None) is error
