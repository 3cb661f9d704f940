"""An agent continues with what an earlier one left, even one of an earlier version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from remote_agent.agent.spool.attempts import Attempts
from remote_agent.agent.spool.log import SpoolLog
from tests.specs import job_spec

ENVELOPE = {"status": "COMPLETED", "error": None, "duration": 1.0, "pid": 5, "python": "3.8.18"}


def taken_up(path: Path, records: list[dict[str, Any]]) -> tuple[Attempts, list[str], list[str], list[str]]:
    """The attempts of a log: which wait, which may have started, and the notes."""
    log = SpoolLog(str(path))
    for record in records:
        log.append(record, b"payload")
    log.flush()
    log.close()
    notes: list[str] = []

    def nothing(*_: Any) -> None: ...

    attempts = Attempts(str(path), "boot", nothing, notes.append, nothing, nothing, nothing, nothing, nothing)
    waiting, doubtful = attempts.replay()
    attempts.stop()
    attempts.close()
    return attempts, [one.id for one in waiting], [one.id for one in doubtful], notes


def accepted(num: int, **more: Any) -> dict[str, Any]:
    """The record of a job that arrived."""
    return {"r": "accepted", "a": f"{num}.1", "spec": {**job_spec(num, attempt=1).to_json(), **more}, "blob": None}


def test_a_spec_without_new_fields_can_be_read(tmp_path):
    """The missing fields get the values that they stood for."""
    first = accepted(0)
    for name in ("shutdown_timeout", "max_output_bytes", "children_timeout"):
        del first["spec"][name]
    attempts, waiting, doubtful, notes = taken_up(tmp_path / "log", [first])
    assert (waiting, doubtful, notes) == (["0.1"], [], [])
    assert attempts.get("0.1").spec == job_spec(0, attempt=1)


def test_a_spec_that_this_version_refuses_does_not_stop_the_agent(tmp_path):
    """Its job does not start, and a note says so. The others are unchanged."""
    _, waiting, doubtful, notes = taken_up(tmp_path / "log", [accepted(0, outputs=5), accepted(1)])
    assert (waiting, doubtful) == (["1.1"], ["0.1"])
    assert notes == ["spool log: a record of job 0.1 cannot be read: job: outputs is 5"]


def test_results_with_unknown_fields_are_delivered(tmp_path):
    """A result without any useful field counts as not recorded."""
    records = [accepted(0), accepted(1)]
    for num, envelope in enumerate((ENVELOPE, {**ENVELOPE, "status": "x"})):
        records.append({"r": "started", "a": f"{num}.1", "slot": num, "at": 1.0})
        records.append({"r": "final", "a": f"{num}.1", "envelope": envelope, "parts": {}, "same": False})
    attempts, waiting, doubtful, notes = taken_up(tmp_path / "log", records)
    assert (waiting, doubtful) == ([], [])
    assert attempts.get("0.1").final[0].duration == 1.0
    assert attempts.get("1.1").final is None
    assert len(notes) == 1
