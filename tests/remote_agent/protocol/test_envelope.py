"""All of an envelope is checked, because it decides how a job ended."""

from __future__ import annotations

import pytest

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
    ],
)
def test_an_invalid_envelope_is_refused(change, named):
    """It comes from a user's process, and decides how the job ended."""
    with pytest.raises(ValueError, match=named):
        Envelope.from_json({**through_json(FAILED), **change})
