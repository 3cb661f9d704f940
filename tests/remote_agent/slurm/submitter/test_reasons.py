"""Why allocations wait: what the user hears of it, and what waits in vain."""

from __future__ import annotations

from remote_agent.slurm.batch.batch_slurm import Slurm
from remote_agent.slurm.submitter.reasons import Reasons
from tests.remote_agent.slurm.submitter.login_node import waiting

START = "2026-11-30T17:05:00"


def test_a_reason_is_told_once() -> None:
    """And once more when Slurm says when it expects to start. One that went away is told when it comes back."""
    reasons = Reasons(Slurm().is_hopeless)
    here = [waiting("r", reason="Resources")]
    assert reasons.see(here, 0.0) == (["slurm: allocations wait: Resources"], [])
    assert reasons.see(here, 1.0) == ([], [])
    expected = (
        "slurm: allocations wait: Resources; Slurm expects to start the first at 2026-11-30T17:05:00 by its clock"
    )
    assert reasons.see([waiting("r", reason="Resources", start=START)], 2.0) == ([expected], [])
    assert reasons.see([waiting("r", reason="Resources", start=START)], 3.0) == ([], [])
    assert reasons.see([waiting("r", reason="")], 4.0) == ([], [])
    assert reasons.see(here, 5.0) == (["slurm: allocations wait: Resources"], [])


def test_only_a_reason_that_stays_is_in_vain() -> None:
    """For a minute without a pause. Those that may go away never are."""
    reasons = Reasons(Slurm().is_hopeless)
    here = [waiting("r", reason="PartitionTimeLimit"), waiting("s", reason="Priority")]
    assert reasons.see(here, 0.0)[1] == []
    assert reasons.see(here[1:], 59.0)[1] == []
    assert reasons.see(here, 60.0)[1] == []
    assert reasons.see(here, 119.0)[1] == []
    assert reasons.see(here, 120.0)[1] == ["PartitionTimeLimit"]
