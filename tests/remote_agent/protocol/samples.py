"""One sample of each object that goes from one process to another, for tests."""

from __future__ import annotations

import json
from typing import Any

from remote_agent.job import JobError, ResourcesUsed
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.result_parts import NO_PARTS, Part
from remote_agent.protocol.specs.job import EpilogueSpec, ForkSpec, JobSpec
from remote_agent.protocol.specs.resources import Resources
from remote_agent.protocol.specs.zygote import ControllerFacts, ZygoteSpec

HOOK = {"hook": "on_job_start", "callback": "c", "ok": True, "error": None, "on_error": "warn"}


ERROR = JobError("killed", "SIGKILL", "killed by SIGKILL", "Traceback ...", signal=9, causes=[{"type": "E"}])


JOB = JobSpec(
    3, 2, "r#3", "z1", "3", 1.5, 10, 20.0, 30.0, ["*.pt"], 1 << 20, 2.0, Resources(1, 4, 1 << 30), [], "ab" * 16
)


USED = ResourcesUsed(1.5, 2.25, 1 << 30, 0.5, 1 << 31, 100, 200)


FAILED = Envelope(
    "FAILED", ERROR, 1.5, 3, 1.5, "app", [HOOK], {"hash": "abc", "dirty": False}, "c", stopped=True, resources_used=USED
)


DONE = Envelope("COMPLETED", None, None, None, None, None, [], {}, None, stopped=False, resources_used=None)


PARTS = NO_PARTS._replace(value=Part(0, 5, "ab"), codec="plain")


FORK = ForkSpec(JOB, {"CUDA_VISIBLE_DEVICES": "GPU-1", "GONE": None}, "/spool", "", [0, 1], 4)


EPILOGUE = EpilogueSpec(FORK, [["on_job_start", 0]], FAILED, False, PARTS, "", "/spool/state")


FACTS = ControllerFacts([3, 11], True, ["f"], "2.3.0", "1.3.2", [3, 9], "3.1.0")


ZYGOTE = ZygoteSpec(
    ["src"], ".", "auto", "my_app", FACTS, ["my_app.py", "x=1"], True, False, "gpu1", {"hash": "a"}, {"TOKEN": "secret"}, ["ml x"],
    "python3.9", "0" * 64, "plain", "1" * 64, True, 0.0, None, "", 0o022,
)  # fmt: skip


def through_json(sample: Any) -> dict[str, Any]:
    """The object as it arrives on the other side."""
    return json.loads(json.dumps(sample.to_json()))


#: As version 0.1's first journals and spools have them.
EARLIER_JOB = (
    '{"num": 1, "job_id": "r#1", "zygote": "z1", "output_dir": "1", "timeout": null, "grace": 10.0, "hook_timeout": 300.0, '
    '"outputs": ["*.pt"], "max_output_bytes": 67108864}'
)


EARLIER_ZYGOTE = (
    '{"sys_path": ["."], "cwd": ".", "isolation": "auto", "main_module": "my_app", "controller": {"python": [3, 11], "by_value": false, '
    '"values": [], "omegaconf": "2.3.0", "hydra": null, "cloudpickle": "3.1.0"}, "argv": ["my_app.py"], "run": "r", "host": "h", '
    '"code": {}, "environ": ["TOKEN"], "setup": [], "python": null, "shared": "'
    + "0" * 64
    + '", "code_blob": "'
    + "1" * 64
    + '"}'
)


EARLIER_ENVELOPE = (
    '{"status": "FAILED", "error": {"kind": "exited", "type": "exit", "message": "m", "exit_code": 3, "causes": []}, "started_at": 1.5, '
    '"ended_at": 2.5, "duration": 1.0, "working_dir": "/w", "output_dir": "/o", "task_name": "app", "overrides": ["x=1"], "hooks": [], '
    '"code": {}, "python": "3.8.18", "pid": 77, "abort": null}'
)
