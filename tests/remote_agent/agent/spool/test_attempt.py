"""How an end without a result becomes an error, and what an attempt is told to be."""

import os
import signal

import pytest

from remote_agent.agent.spool.attempt import Attempt, Recorded, error_of_status, failed_envelope
from remote_agent.agent.spool.log import Reference
from remote_agent.job import JobError
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.result_parts import NO_PARTS
from tests.specs import job_spec


@pytest.mark.parametrize(
    ("status", "kind", "type", "says", "number"),
    [
        (signal.SIGKILL, "killed", "SIGKILL", "out of memory?", signal.SIGKILL),
        (signal.SIGSEGV | 0x80, "killed", "SIGSEGV", "killed by SIGSEGV", signal.SIGSEGV),
        (signal.SIGTERM, "killed", "SIGTERM", "killed by SIGTERM", signal.SIGTERM),
        (63, "killed", "signal 63", "killed by signal 63", 63),
        (0 << 8, "exited", "exit", "exit code 0 before the job had a result", None),
        (3 << 8, "exited", "exit", "exit code 3 before the job had a result", None),
        (None, "killed", "", "the job's process is gone", None),
    ],
)
def test_what_an_exit_status_means(status: int | None, kind: str, type: str, says: str, number: int | None) -> None:
    """Exit code 0 is no success either. A core dump does not change the signal."""
    error = error_of_status(status)
    assert (error.kind, error.type, error.signal) == (kind, type, number)
    assert says in error.message
    assert ("out of memory?" in error.message) is (number == signal.SIGKILL)
    assert error.exit_code == (os.WEXITSTATUS(status) if kind == "exited" and status is not None else None)


def test_why_a_status_is_unknown_is_told() -> None:
    """If anybody knows."""
    assert error_of_status(None, "the host went down").message == "the host went down"


def test_the_envelope_of_an_attempt_that_made_none() -> None:
    """It has the hooks that were told, and the time from its start."""
    attempt = Attempt(job_spec(2, attempt=1))
    attempt.started_at = 10.0
    attempt.hooks = [{"hook": "on_job_start"}]
    envelope = failed_envelope(attempt, JobError("killed"), 12.5)
    assert (envelope.status, envelope.duration, envelope.hooks) == ("FAILED", 2.5, attempt.hooks)


@pytest.mark.parametrize(
    ("state", "short", "is_active", "is_over"),
    [
        ("queued", "queued", False, False),
        ("claimed", "running", True, False),
        ("running", "running", True, False),
        ("ending", "running", True, False),
        ("final", "running", False, True),
    ],
)
def test_its_state_as_others_see_it(state: str, short: str, is_active: bool, is_over: bool) -> None:
    """A slot is held until the process is gone. With a result, the controller is told `final` in every state."""
    attempt = Attempt(job_spec(0, attempt=1))
    attempt.state = state
    assert (attempt.short_state(), attempt.is_active, attempt.is_over) == (short, is_active, is_over)
    attempt.final = recorded(0)
    assert attempt.short_state() == "final"


def recorded(offset: int) -> Recorded:
    """A result that lies there in the log."""
    return Recorded(Envelope.of_failure(JobError("killed"), None, None, []), NO_PARTS, reference(offset))


def reference(offset: int) -> Reference:
    """A record of the log."""
    return Reference(offset, 1, 0)


def test_a_log_that_is_rewritten_moves_every_reference() -> None:
    """None of them leads to where the record was."""
    attempt = Attempt(job_spec(0, attempt=1))
    attempt.payload, attempt.state_at = reference(1), None
    attempt.outcome, attempt.final = recorded(2), recorded(3)
    attempt.references = [reference(one) for one in (1, 2, 3)]
    attempt.move({old: reference(old + 100) for old in (1, 2, 3)})
    assert attempt.payload is not None
    assert attempt.outcome is not None
    assert attempt.final is not None
    assert [one.offset for one in attempt.references] == [101, 102, 103]
    assert (attempt.payload.offset, attempt.state_at) == (101, None)
    assert (attempt.outcome.reference.offset, attempt.final.reference.offset) == (102, 103)
