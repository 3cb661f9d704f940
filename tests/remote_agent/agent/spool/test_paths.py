"""The paths of an attempt's files in the spool."""

from __future__ import annotations

from remote_agent.agent.spool.paths import outputs_root


def test_each_attempt_number_has_its_own_outputs():
    """So that a retry does not find files of the first attempt."""
    assert outputs_root("/s", 1) == "/s/outputs"
    assert outputs_root("/s", 3) == "/s/outputs.3"
