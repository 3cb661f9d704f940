"""Specs as a test needs them: whole, with what it is about said by it."""

from __future__ import annotations

import sys
from typing import Any

import cloudpickle

from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.specs.job import JobSpec
from remote_agent.protocol.specs.zygote import ControllerFacts, ZygoteSpec

__all__ = ["DONE", "FAILED", "controller_facts", "envelope", "job_spec", "zygote_spec"]

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
        "children_timeout": 2.0,
        "needs": None,
        "earlier": [],
        "trace": "",
    }
    return JobSpec(**{**values, **more})


def controller_facts(**more: Any) -> ControllerFacts:
    """Those of a controller under this Python, without Hydra."""
    values = {
        "python": list(sys.version_info[:2]),
        "by_value": False,
        "values": [],
        "omegaconf": "2.3.0",
        "hydra": None,
        "family_python": [],
        "cloudpickle": cloudpickle.__version__,
    }
    return ControllerFacts(**{**values, **more})


def zygote_spec(**more: Any) -> ZygoteSpec:
    """How an application of nothing in particular is prepared; `controller` may be in part."""
    values = {
        "sys_path": [],
        "cwd": ".",
        "isolation": "auto",
        "main_module": None,
        "argv": ["app"],
        "argv0_is_absolute": False,
        "main_is_module": False,
        "host": "h",
        "code": {},
        "environ": {},
        "setup": [],
        "python": None,
        "shared": "",
        "values": "cloudpickle",
        "code_blob": None,
        "environment": False,
        "warm": 0.0,
        "code_root": None,
        "shared_file": "",
        "umask": 0o022,
        **more,
        "controller": controller_facts(**more.get("controller", {})),
    }
    return ZygoteSpec(**values)
