"""An epilogue fires the missing end hooks of a job that died, with the callbacks' earlier state."""

from __future__ import annotations

import os

import pytest

from tests.remote_agent.job_process.fired import ENDS, STARTS, fired


def _restored(hooked, dead, payload, **more):
    return hooked.wait_end(
        hooked.epilogue(dead, payload, {"kind": "killed", "signal": 9, "message": "killed by SIGKILL"}, **more)
    )


@pytest.mark.parametrize(("act", "status"), [("kill", 9), ("die", 0)])
def test_the_end_hooks_of_a_job_that_died_fire_in_an_epilogue(hooked, act, status):
    """In reverse, in another process, with the callbacks' state after on_job_start, and with the error that killed the job."""
    payload = hooked.payload({"act": act, "do": {"a.end": "trail", "b.end": "show"}})
    dead = hooked.run(payload=payload)
    assert dead.status == status
    assert dead.entered == STARTS
    attempt = _restored(hooked, dead, payload)
    assert attempt.entered == ENDS
    assert attempt.pid != dead.pid
    assert [line for line in attempt.stdout.splitlines() if ".end " in line] == [
        f"{name}.end {attempt.pid}" for name in "cba"
    ]
    assert "trail ['started', 'after']" in attempt.stdout
    assert "killed by SIGKILL" in attempt.stdout
    envelope = attempt.envelope
    assert envelope["status"] == "FAILED"
    assert envelope["error"]["signal"] == 9
    assert (envelope["started_at"], envelope["ended_at"], envelope["duration"]) == (100.0, 101.5, 1.5)
    assert fired(attempt) == [(*one, True) for one in STARTS[1:] + ENDS]
    assert "killed by SIGKILL" in attempt.log
    assert attempt.file(".hydra/config.yaml")


def test_after_a_death_in_a_start_hook_only_entered_callbacks_get_their_end_hook(hooked):
    """The second one's start hook had begun, the third one's had not."""
    payload = hooked.payload({"do": {"b.start": "kill"}})
    dead = hooked.run(payload=payload)
    assert dead.entered == STARTS[:3]
    attempt = _restored(hooked, dead, payload)
    assert attempt.entered == [("on_job_end", name) for name in "eba"]
    assert fired(attempt)[:2] == [("on_job_start", "a", True), ("on_job_start", "b", False)]


def test_a_start_hook_that_raised_before_the_death_is_not_forgotten(hooked):
    """Its record is sent with the callbacks' state."""
    payload = hooked.payload({"act": "kill", "do": {"a.start": "raise"}})
    dead = hooked.run(payload=payload)
    attempt = _restored(hooked, dead, payload)
    assert fired(attempt)[:3] == [
        ("on_job_start", "a", False),
        ("on_job_start", "b", True),
        ("on_job_start", "c", True),
    ]
    assert attempt.envelope["hooks"][0]["error"]["message"] == "a in start"


def test_a_death_in_an_end_hook_keeps_the_outcome_and_repeats_nothing(hooked):
    """The other end hooks fire, and the value stays."""
    payload = hooked.payload({"x": 6, "do": {"b.end": "kill", "a.end": "show"}})
    dead = hooked.run(payload=payload)
    assert dead.entered == [*STARTS, ("on_job_end", "e"), ("on_job_end", "c"), ("on_job_end", "b")]
    attempt = _restored(hooked, dead, payload)
    assert attempt.entered == [("on_job_end", "a")]
    assert attempt.envelope["status"] == "COMPLETED"
    assert attempt.frame("done").header["parts"] == {"same": True}
    assert "JR COMPLETED" in attempt.stdout
    assert attempt.envelope["started_at"] == dead.frame("outcome").header["envelope"]["started_at"]


def test_a_large_outcome_is_kept_too(hooked):
    """In its file. An end hook of the epilogue sees the value and the edited config, and may change them."""
    payload = hooked.payload({"x": 1, "act": "big", "do": {"b.end": "kill", "a.end": "show"}})
    dead = hooked.run(payload=payload)
    attempt = _restored(hooked, dead, payload)
    assert attempt.frame("done").header["parts"] == {"same": True}
    assert "'x': 5" in attempt.stdout
    payload = hooked.payload({"x": 1, "act": "big", "do": {"b.end": "kill", "a.end": "double"}})
    dead = hooked.run(payload=payload)
    attempt = _restored(hooked, dead, payload)
    assert attempt.part() == b"x" * (4 << 20)
    assert attempt.part("cfg").x == 5


def test_a_large_state_is_in_a_file(hooked):
    """The epilogue has everything that a callback collected at the start."""
    payload = hooked.payload({"act": "kill", "do": {"a.start": "heavy", "a.end": "weigh"}})
    dead = hooked.run(payload=payload)
    path = dead.frame("state").header["file"]
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert f"trail [7, {2 << 20}, 5]" in _restored(hooked, dead, payload).stdout


def test_nothing_fires_if_no_end_hook_is_missing(hooked):
    """All end hooks had begun when it died. The outcome becomes final."""
    payload = hooked.payload({"x": 6, "do": {"a.end": "kill"}})
    dead = hooked.run(payload=payload)
    attempt = _restored(hooked, dead, payload)
    assert attempt.entered == []
    assert attempt.envelope["status"] == "COMPLETED"


def test_an_epilogue_that_dies_is_followed_by_another(hooked):
    """Each one has entered one hook before it died. None fires twice."""
    payload = hooked.payload({"act": "kill", "do": {"c.end": "kill"}})
    dead = hooked.run(payload=payload)
    first = _restored(hooked, dead, payload)
    assert first.frame("done") is None
    assert first.entered == [("on_job_end", "e"), ("on_job_end", "c")]
    entered = [["on_job_start", index] for index in range(4)] + [["on_job_end", 3], ["on_job_end", 2]]
    first.frames = dead.frames
    second = _restored(hooked, first, payload, entered=entered)
    assert second.entered == [("on_job_end", "b"), ("on_job_end", "a")]


def test_a_callback_whose_state_cannot_be_saved_is_reported(hooked):
    """A lock cannot be pickled. on_job_end sees the callback as it was before on_job_start, and the log says so."""
    payload = hooked.payload({"act": "kill", "do": {"a.start": "lock", "a.end": "trail", "b.end": "trail"}})
    dead = hooked.run(payload=payload)
    attempt = _restored(hooked, dead, payload)
    assert "trail []" in attempt.stdout
    assert "trail ['started', 'after']" in attempt.stdout
    assert "Callback a could not be saved after on_job_start" in attempt.log
