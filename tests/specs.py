"""Specs as a test needs them: whole, with what it is about said by it."""

from __future__ import annotations

from typing import Any

from remote_agent.shared.envelope import Envelope
from remote_agent.shared.job_spec import JobSpec

__all__ = ["DONE", "FAILED", "envelope", "job_spec"]

#: As hosts say them, in short.
DONE = {"status": "COMPLETED", "error": None, "duration": 1.0, "hooks": []}
FAILED = {"status": "FAILED", "error": {"kind": "exception", "type": "E", "message": "m"}}


def envelope(**more: Any) -> Envelope:
    """That of a job which completed."""
    return Envelope.from_json({**DONE, **more})


def job_spec(num: int = 0, **more: Any) -> JobSpec:
    """That of a job which is queued."""
    values = {
        "num": num,
        "attempt": 0,
        "job_id": f"r1#{num}",
        "zygote": "z",
        "output_dir": str(num),
        "timeout": None,
        "grace": 10.0,
        "hook_timeout": 300.0,
        "shutdown_timeout": 300.0,
        "outputs": True,
        "max_output_bytes": None,
    }
    return JobSpec(**{**values, **more})
