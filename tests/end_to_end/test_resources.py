"""Runs whose jobs say what they need."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher import events
from launcher.errors import ConfigError, InventoryError
from launcher.options import LaunchConf
from launcher.reproduce.reproduce import reproduce
from launcher.runs.journal import JournalReader
from remote_agent.protocol.specs.resources import Resources

_APP = """
import os

def task(cfg):
    affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    return affinity, [os.environ.get(name) for name in names]
"""


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a job sees of its share."""
    (tmp_path / "resources_app.py").write_text(_APP)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    import resources_app

    yield resources_app.task
    import sys

    del sys.modules["resources_app"]


def test_a_job_has_its_cpus_and_as_many_threads(task: Any, tmp_path: Path) -> None:
    """As many jobs run at once as fit."""
    seen: list[Any] = []
    returns = launcher.multirun(task, [{}, {}], resources={"cpus": 1}, folder=tmp_path / "out", observers=[seen.append])
    (ready,) = [one for one in seen if isinstance(one, events.HostReady)]
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    assert ready.slots == (len(usable) if usable else os.cpu_count())
    for one in returns:
        affinity, variables = one.return_value
        assert variables == ["1", "1", ""]
        assert affinity is None or (len(affinity) == 1 and affinity[0] in usable)


@pytest.mark.slow
def test_the_users_number_of_threads_wins(task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may stand in the run's variables, or in those of the host's login."""
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    options = {"resources": {"cpus": 1}, "env": {"OMP_NUM_THREADS": "7"}, "folder": tmp_path / "out"}
    (one,) = launcher.multirun(task, [{}], **options)
    assert one.return_value[1][:2] == ["7", "5"]


@pytest.mark.slow
def test_without_resources_a_job_has_all_of_the_host(task: Any, tmp_path: Path) -> None:
    """Nothing is set."""
    (one,) = launcher.multirun(task, [{}], folder=tmp_path / "out")
    affinity, variables = one.return_value
    assert variables[:2] == [None, None]
    assert affinity is None or affinity == sorted(os.sched_getaffinity(0))


@pytest.mark.slow
def test_a_job_that_no_host_can_have_fails_by_name(task: Any, tmp_path: Path) -> None:
    """The host tells what it has. The message names the host, what is needed, and the next step."""
    seen: list[Any] = []
    options = {"resources": {"cpus": 9999}, "folder": tmp_path / "out", "observers": [seen.append]}
    (one,) = launcher.multirun(task, [{}], **options)
    assert one.status.name == "FAILED"
    assert "local: a job needs 9999 CPUs, and it has " in str(one.error)
    assert "ask for less in `resources`" in str(one.error)
    notes = [one.message for one in seen if isinstance(one, events.Note)]
    assert any("too small for a job" in note and "needs 9999 CPUs" in note for note in notes)


def _opened(tmp_path: Path, hosts: Any = None, **options: Any) -> launcher.Session:
    return launcher.Session.open(hosts=hosts, folder=tmp_path / "out", options=LaunchConf(**options))


def test_a_job_may_say_what_it_needs_itself(task: Any, tmp_path: Path) -> None:
    """What it does not say is the run's. Its CPUs, threads and GPUs are its own."""
    usable = os.cpu_count() if not hasattr(os, "sched_getaffinity") else len(os.sched_getaffinity(0))
    with _opened(tmp_path, [{"name": "local", "cpus": usable}], resources={"cpus": 1}) as session:
        jobs = [session.submit(task, {}, resources=one) for one in (None, {"cpus": usable}, {"memory": "1MiB"}, {})]
        values = [job.result() for job in jobs]
    for (affinity, variables), cpus in zip(values, [1, usable, 1, 1], strict=True):
        assert variables == [str(cpus), str(cpus), ""]
        assert affinity is None or len(affinity) == cpus


@pytest.mark.slow
def test_jobs_that_share_processes_have_their_own_sizes(task: Any, tmp_path: Path) -> None:
    """A process takes only jobs with as many threads as its first one, and runs each on that job's CPUs."""
    usable = os.cpu_count() if not hasattr(os, "sched_getaffinity") else len(os.sched_getaffinity(0))
    sizes = [1, usable, 1, usable, usable, 1]
    with _opened(tmp_path, resources={"cpus": 1}, isolation="reuse") as session:
        values = [session.submit(task, {}, resources={"cpus": one}).result() for one in sizes]
    for (affinity, variables), cpus in zip(values, sizes, strict=True):
        assert variables[:2] == [str(cpus)] * 2
        assert affinity is None or len(affinity) == cpus


@pytest.mark.slow
def test_a_job_with_a_size_in_a_run_without_one(task: Any, tmp_path: Path) -> None:
    """The others have what they have without it."""
    with _opened(tmp_path) as session:
        sized, other = session.submit(task, {}, resources={"cpus": 1}), session.submit(task, {})
        affinity, variables = sized.result()
        assert variables == ["1", "1", ""]
        assert affinity is None or len(affinity) == 1
        assert other.result()[1] == [None, None, os.environ.get("CUDA_VISIBLE_DEVICES")]
        assert next(session.map(task, [{}], resources={"cpus": 1}))[1] == ["1", "1", ""]


@pytest.mark.slow
def test_a_job_that_is_too_large_fails_and_the_others_run(task: Any, tmp_path: Path) -> None:
    """The error names the host with what it has."""
    with _opened(tmp_path) as session:
        large, small = session.submit(task, {}, resources={"cpus": 9999}), session.submit(task, {})
        with pytest.raises(launcher.RemoteJobError, match="local: a job needs 9999 CPUs, and it has "):
            large.result()
        assert small.job_return().status.name == "COMPLETED"


@pytest.mark.slow
def test_a_job_that_makes_no_sense_is_refused_at_its_submission(task: Any, tmp_path: Path) -> None:
    """By name, and the session goes on. So is one that is larger than every host, as far as the user says what they have."""
    with _opened(tmp_path, [{"name": "local", "cpus": 2}]) as session:
        for bad in ({"gpus": 0.5}, {"memory": -1}, {"cpus": 0}, {"gpu": 1}, "gpus=1"):
            with pytest.raises(ConfigError, match=r"^resources"):
                session.submit(task, {}, resources=bad)  # type: ignore[arg-type]
        with pytest.raises(InventoryError, match="local has cpus=2; ask for less"):
            session.submit(task, {}, resources={"cpus": 3})
        assert session.submit(task, {}).num == 0


@pytest.mark.slow
def test_a_job_keeps_its_size_when_it_is_tried_again(task: Any, tmp_path: Path) -> None:
    """The journal has it, for a resumed run, a retry and a reproduction."""
    with _opened(tmp_path) as session:
        session.submit(task, {}, resources={"cpus": 1, "memory": "1MiB"}).result()
    with JournalReader(tmp_path / "out" / ".launcher") as reader:
        job = reader.job(0)
    assert job is not None
    assert job[3].needs == Resources(0, 1, 1 << 20)
    reproduce(str(tmp_path / "out" / "0"), LaunchConf(), folder=tmp_path / "again")
    with JournalReader(tmp_path / "again" / ".launcher") as reader:
        again = reader.job(0)
    assert again is not None
    assert again[3].needs == job[3].needs


def test_a_job_that_is_larger_than_every_host_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    """So far as the user says what the hosts have."""
    hosts = [{"name": "gpu1", "gpus": 2}, {"name": "gpu2", "memory": "8GiB", "gpus": 8}]
    with pytest.raises(InventoryError, match="gpu1 has gpus=2; gpu2 has memory=8589934592; ask for less"):
        launcher.multirun(print, [{}], hosts=hosts, resources={"gpus": 4, "memory": "16GiB"})
    with pytest.raises(InventoryError, match="host gpu1: cpus: 0 is not a number from 1"):
        launcher.multirun(print, [{}], hosts=[{"name": "gpu1", "cpus": 0}])
    with pytest.raises(InventoryError, match="host gpu1: memory: '-8GiB' is not a size"):
        launcher.multirun(print, [{}], hosts=[{"name": "gpu1", "memory": "-8GiB"}])


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ({"gpus": -1}, r"resources\.gpus: -1 is not a whole number from 0 on"),
        ({"nodes": 0}, r"resources\.nodes: 0 is not a whole number from 1 on"),
        ({"nodes": 4, "tasks": 2}, r"resources\.tasks: 2 are fewer than 4 nodes"),
        ({"time": "soon"}, r"resources\.time: 'soon' is not a duration"),
        ({"time": 30}, r"resources\.time: 30 is not a minute or more; write text such as 30m"),
        ({"gpus": 0.5}, r"resources\.gpus: 0.5 is not a whole number"),
        ({"cpus": "1.5"}, r"resources\.cpus: '1.5' is not a whole number"),
        ({"cpus": True}, r"resources\.cpus: True is not a whole number"),
        ({"memory": -1}, r"resources\.memory: -1 is not a size above zero"),
        ({"memory": "8 pounds"}, r"resources\.memory: '8 pounds' is not a size"),
        ({"gpu": 1}, "unknown resource 'gpu'; did you mean 'gpus'"),
        (4, "4 is not a mapping of gpus, cpus, memory"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(resources: Any, says: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigError, match=says):
        LaunchConf(resources=resources)


def test_numbers_of_a_command_line_are_numbers() -> None:
    """There every value is text."""
    conf = LaunchConf(resources={"gpus": "1", "cpus": "4", "memory": "8GiB"})
    assert conf.resources == {"gpus": 1, "cpus": 4, "memory": 8 << 30}
    assert LaunchConf(resources={"nodes": "2", "tasks": "4"}).resources == {"nodes": 2, "tasks": 4}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90m", 5400), ("1:30:00", 5400), ("90:00", 5400), ("1-12:00", 129600), ("1-00:00:30", 86430), (5400, 5400)],
)
def test_a_time_is_a_duration_or_as_slurm_writes_it(text: Any, seconds: int) -> None:
    """In seconds. What is read is read again as the same."""
    conf = LaunchConf(resources={"time": text})
    assert conf.resources == {"time": seconds}
    assert LaunchConf(resources=conf.resources) == conf


def test_a_job_needs_no_fewer_tasks_than_the_run_has_nodes(tmp_path: Path) -> None:
    """What a job does not say is the run's."""
    with (
        launcher.Session.open(hosts=[{"name": "c", "slurm": {}}], folder=tmp_path, resources={"nodes": 4}) as session,
        pytest.raises(ConfigError, match=r"resources\.tasks: 2 are fewer than 4 nodes"),
    ):
        session.submit(print, {}, resources={"tasks": 2})


@pytest.mark.parametrize("resources", [{"nodes": 2}, {"tasks": 2}, {"time": "1h"}])
def test_only_a_cluster_has_nodes_and_time_to_give(tmp_path: Path, resources: Any) -> None:
    """Without one among the hosts, such a job is refused before anything is sent."""
    (name,) = resources
    with pytest.raises(InventoryError, match=f"local has no `{name}` to give, because it is no Slurm cluster"):
        launcher.multirun(print, [{}], hosts=["local"], folder=tmp_path, resources=resources)
