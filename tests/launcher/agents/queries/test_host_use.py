"""What a host says of what runs there: anything, so that it is checked."""

from __future__ import annotations

import json

import pytest

from launcher.agents.queries.host_use import JobThere, RunThere, read_use
from launcher.hosts.limits import CAPS

RUN = {"run": "r1", "host": "gpu1", "queued": 3, "running": 1, "jobs": [["7.2", 90.0]]}


def test_what_an_agent_says() -> None:
    """How long a job runs is by the host's own clock."""
    use = read_use({"at": 100.0, "cpus": 8, "load": 1.5, "memory": 10, "memory_free": 4, "runs": [RUN]})
    assert (use.cpus, use.load, use.memory, use.memory_free) == (8, 1.5, 10, 4)
    assert use.runs == (RunThere("r1", "gpu1", 3, 1, (JobThere(7, 2, 10.0),)),)
    json.dumps(use.to_json())


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"runs": 1, "at": "x", "cpus": -1, "load": float("nan"), "memory": 1 << 70, "memory_free": True},
        {"runs": [1, None, {}, {"run": 1, "host": "h"}], "load": float("inf")},
        {"runs": {"run": RUN}},
    ],
)
def test_what_is_not_of_the_form_is_left_out(said: dict[str, object]) -> None:
    """And nothing fails."""
    use = read_use(said)
    assert (use.cpus, use.load, use.memory, use.memory_free, use.runs) == (None, None, None, None, ())


@pytest.mark.parametrize("job", [1, [], ["7.2"], ["x.y", 1.0], ["7", 1.0], [f"{'9' * 30}.1", 1.0], ["٣.1", 1.0]])
def test_a_job_that_is_none(job: object) -> None:
    """It is left out, and its run stays."""
    (run,) = read_use({"at": 1.0, "runs": [{**RUN, "jobs": [job]}]}).runs
    assert run.jobs == ()


def test_a_job_without_a_begin() -> None:
    """A clock that was put back makes no negative time."""
    runs = read_use({"at": 1.0, "runs": [{**RUN, "jobs": [["1.1", None], ["2.1", 5.0]]}]}).runs
    assert [job.seconds for job in runs[0].jobs] == [None, 0.0]


def test_too_much_is_cut() -> None:
    """Runs, jobs and names."""
    long = {**RUN, "run": "x" * 5000, "jobs": [["1.1", 0.0]] * 5000}
    runs = read_use({"at": 1.0, "runs": [long] * 5000}).runs
    assert len(runs) == CAPS["runs"].limit
    assert (len(runs[0].jobs), len(runs[0].run)) == (CAPS["jobs_shown"].limit, CAPS["name"].limit)
