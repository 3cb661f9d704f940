"""What a record of the log says of its attempt.

Rule: whoever reads a log reads it here: the agent that takes a run up, and those that look into the logs of others.
"""

from typing import Any, Dict, List, Optional

from remote_agent.agent.spool.attempt import Attempt, Recorded
from remote_agent.agent.spool.log import Reference
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.result_parts import ResultParts
from remote_agent.protocol.specs.job import JobSpec

__all__ = ["apply_record", "unknown_spec"]


def unknown_spec(attempt_id: str) -> JobSpec:
    """Make a spec for an attempt whose record of acceptance is damaged.

    It is enough to deliver its result, without its files.
    """
    num, _, attempt = attempt_id.partition(".")
    return JobSpec(
        num=int(num),
        attempt=int(attempt),
        job_id="",
        zygote="",
        output_dir="/",
        timeout=None,
        grace=10.0,
        hook_timeout=300.0,
        shutdown_timeout=300.0,
        outputs=False,
        max_output_bytes=None,
        children_timeout=2.0,
        needs=None,
        earlier=[],
        trace="",
    )


def apply_record(attempt: Attempt, name: str, header: Dict[str, Any], reference: Reference) -> List[Reference]:
    """Apply a record of the log to what is known of its attempt. Returns the records that this one makes unnecessary.

    Raises:
        ValueError: this version cannot read it.
    """
    if name == "accepted":
        attempt.spec = JobSpec.from_json(header["spec"])
        attempt.payload, attempt.payload_blob = reference, header.get("blob")
    elif name in ("claimed", "unclaimed"):
        attempt.boot, attempt.is_claimed = header.get("boot", attempt.boot), name == "claimed"
    elif name == "started":
        attempt.state, attempt.slot, attempt.started_at = "running", header["slot"], header["at"]
        # An earlier version did not write these.
        attempt.gpus, attempt.cpus = header.get("gpus"), header.get("cpus", [])
    elif name in ("forked", "over", "unstarted"):
        _apply_process(attempt, name, header)
    elif name == "crashed":
        attempt.crash, attempt.in_epilogue = Envelope.from_json(header["envelope"]), True
    elif name == "cancel":
        attempt.cancel = header["kind"]
    elif name == "cut":
        attempt.cut = {key: value for key, value in header.items() if key not in ("r", "a")}
    elif name == "report":
        return attempt.add_report(header, reference)
    elif name == "hook":
        attempt.entered.append((header["hook"], header["index"]))
    elif name == "state":
        attempt.state_at, attempt.state_file = reference, header.get("file")
    elif name == "outcome":
        attempt.outcome = _recorded(header, reference)
    elif name == "final":
        if header.get("same") and attempt.outcome is not None:
            attempt.final = _recorded(header, attempt.outcome.reference)
        else:
            attempt.final = _recorded(header, reference)
    return []


def _apply_process(attempt: Attempt, name: str, header: Dict[str, Any]) -> None:
    if name == "forked":
        attempt.pid, attempt.pid_started = header["pid"], header["start"]
        attempt.is_reused = header.get("reused", False)
        return
    attempt.leave_process()
    if name == "unstarted":
        attempt.state, attempt.slot, attempt.gpus = "queued", None, None


def _recorded(header: Dict[str, Any], reference: Optional[Reference]) -> Recorded:
    return Recorded(Envelope.from_json(header["envelope"]), ResultParts.from_json(header.get("parts") or {}), reference)
