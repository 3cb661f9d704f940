"""What a job changes in its process, the next job of the same worker does not find."""

from __future__ import annotations

import pytest

from tests.remote_agent.conftest import Attempt, Host
from tests.remote_agent.zygote import reused_app
from tests.remote_agent.zygote.reused import reused_host

__all__ = ["reused_host"]


@pytest.fixture(scope="module")
def fresh(reused_host: Host) -> Attempt:
    """A job in a fresh process."""
    return reused_host.wait_over(reused_host.submit({}))


@pytest.mark.parametrize("change", [one.__name__ for one in reused_app.CHANGES])
def test_a_job_does_not_find_what_another_has_changed(reused_host: Host, fresh: Attempt, change: str) -> None:
    """It finds what a job in a fresh process finds, in the process of the job that has changed it. Its output is its own."""
    changing = reused_host.wait_over(reused_host.submit({"do": change}))
    assert changing.is_idle, (changing.frames, changing.stderr)
    after = reused_host.wait_over(reused_host.submit({"do": "nothing"}, after=changing))
    assert (changing.envelope["error"], after.envelope["error"]) == (None, None)
    assert after.part()[0] == changing.part()[0]
    assert after.part()[1] == fresh.part()[1]
    assert after.stdout.startswith("printed\n")
    assert after.log.count("logged") == 1
    assert "changed" not in after.log
    assert "logged" not in changing.stdout
