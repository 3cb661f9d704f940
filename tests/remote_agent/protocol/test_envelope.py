"""All of an envelope is checked, because it decides how a job ended."""

from __future__ import annotations

import pytest

from remote_agent.job import ResourcesUsed
from remote_agent.protocol.envelope import Envelope
from tests.remote_agent.protocol.samples import (
    FAILED,
    through_json,
)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"status": "UNKNOWN"}, "status is 'UNKNOWN'"),
        ({"status": None}, "status"),
        ({"error": None}, "error of a FAILED job"),
        ({"status": "COMPLETED"}, "error of a COMPLETED job"),
        ({"error": {"kind": "none"}}, "kind"),
        ({"error": "text"}, "error"),
        ({"error": {"kind": "killed", "signal": "9"}}, "signal"),
        ({"duration": -1}, "duration is -1"),
        ({"duration": "1"}, "duration"),
        ({"started_at": float("inf")}, "started_at"),
        ({"hooks": [1]}, "hooks"),
        ({"hooks": {}}, "hooks"),
        ({"hooks": [{"hook": "on_job_end", "callback": [], "ok": True}]}, "hook: callback"),
        ({"hooks": [{"hook": None, "callback": "c", "ok": True}]}, "hook: hook"),
        ({"hooks": [{"hook": "on_job_end", "callback": "c", "ok": 1}]}, "hook: ok"),
        ({"hooks": [{"hook": "on_job_end", "callback": "c", "ok": False, "error": {"message": 1}}]}, "hook: error"),
        ({"abort": {}}, "abort"),
        ({"task_name": 3}, "task_name"),
        ({"code": []}, "code"),
        ({"resources_used": [1]}, "resources_used is not an object"),
    ],
)
def test_an_invalid_envelope_is_refused(change, named):
    """It comes from a user's process, and decides how the job ended."""
    with pytest.raises(ValueError, match=named):
        Envelope.from_json({**through_json(FAILED), **change})


@pytest.mark.parametrize(
    "value", [-1, -0.5, True, "5", None, [], {}, float("nan"), float("inf"), 1e300, 10**40, 1 << 61], ids=str
)
@pytest.mark.parametrize("name", ["cpu_seconds", "peak_memory", "gpu_share", "bytes_out"])
def test_a_number_that_cannot_be_true_is_not_known(name, value):
    """What a host says that its job used costs no result, and never becomes 0. All else that it says of it stays."""
    data = {**through_json(FAILED), "resources_used": {name: value, "wall_seconds": 2, "more": "of a later version"}}
    used = Envelope.from_json(data).resources_used
    assert used == ResourcesUsed(wall_seconds=2.0)
    assert Envelope.from_json(data).to_json()["resources_used"] == {"wall_seconds": 2.0}


def test_bytes_are_whole_numbers():
    """Half a byte is none, and 0 is known."""
    used = {**through_json(FAILED), "resources_used": {"peak_memory": 1.5, "bytes_in": 0, "gpu_share": 1}}
    assert Envelope.from_json(used).resources_used == ResourcesUsed(bytes_in=0, gpu_share=1.0)
