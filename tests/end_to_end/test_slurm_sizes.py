"""Jobs of several sizes on a Slurm cluster: of several nodes and tasks, with and without GPUs, of a time of their own."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import launcher
from tests.end_to_end.test_slurm import allocations, balanced, check_nothing_left, login
from tests.faults.injection import FaultyRun, lines, load_app, open_gate
from tests.gpus import TOOL, FalseGpus
from tests.hosts.slurm import SlurmCluster, ports_in_a_row, running_cluster
from tests.remote_agent.agents import wait_until
from tests.requirements import need_programs

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

#: Seconds that nothing here takes, however busy the machine is.
_LONG = 200.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[SlurmCluster]:
    """A cluster of four nodes with two CPUs each."""
    with running_cluster(tmp_path / "login") as running:
        yield running


def step_processes(cluster: SlurmCluster) -> list[str]:
    """Processes of the steps that wait for the gate."""
    return [one for one in cluster.login.processes() if "/gate; do" in one and not one.startswith("srun")]


def test_a_job_of_several_nodes(cluster: SlurmCluster, tmp_path: Path):
    """It runs once, on the first node, and its hooks fire once. What it starts with srun runs on all of them."""
    run = FaultyRun(tmp_path).start(load_app().several, 2, [login(cluster, nodes=2, cpus=2)])
    run.wait_for("steps of both jobs", lambda: lines(cluster.login, "steps").count("step") == 4, _LONG)
    open_gate(cluster.login)
    found = [[line.split() for line in one.return_value] for one in run.finish(_LONG)]
    assert [[rank for _, rank in job] for job in found] == [["0", "1"]] * 2
    assert sorted(node for job in found for node, _ in job) == ["n1", "n2", "n3", "n4"]
    assert set(lines(cluster.login, "variables")) == {"SLURM_NNODES=2 SLURM_PROCID=0"}
    assert sorted(lines(cluster.login, "ran")) == ["0", "1"]
    balanced(cluster)
    assert len(allocations(cluster)) == 2
    check_nothing_left(cluster)


def test_the_example_of_ranks(cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each of four processes on two nodes is there once, and rank 0 hears of all of them."""
    project = tmp_path / "project"
    project.mkdir()
    shutil.copy(Path(__file__).parents[2] / "examples" / "ranks.py", project)
    monkeypatch.syspath_prepend(project)
    train = importlib.import_module("ranks").train
    with ports_in_a_row() as port:
        found = launcher.run(
            train, {"port": port}, host=login(cluster), resources={"nodes": 2, "tasks": 4}, folder=tmp_path / "out"
        ).return_value
    assert [one["rank"] for one in found] == [0, 1, 2, 3]
    assert [one["local"] for one in found] == [0, 1, 0, 1]
    assert len({one["node"] for one in found}) == 2
    check_nothing_left(cluster)


def test_steps_of_a_job_end_with_it(cluster: SlurmCluster, tmp_path: Path):
    """Also where allocations take many jobs, a job of several nodes has one for itself. What it has started elsewhere ends with the job, be it
    cancelled, or its srun killed.
    """
    app = load_app()
    host = login(cluster, jobs="many", idle=0)
    with launcher.Session.open(hosts=[host], folder=tmp_path / "out", callbacks=[app.Witness()]) as session:
        large = session.submit(app.several, {"num": 0}, resources={"nodes": 2, "tasks": 4})
        wait_until(lambda: lines(cluster.login, "steps").count("step") == 4, "its steps run", seconds=_LONG)
        assert len(step_processes(cluster)) == 4
        small = session.submit(app.quick, {"num": 1})
        assert small.result() == 10
        large.cancel()
        assert large.job_return().error.kind == "cancelled"
        wait_until(lambda: not step_processes(cluster), "its steps have ended", seconds=_LONG)
        broken = session.submit(app.several, {"num": 2}, resources={"nodes": 2, "tasks": 2})
        wait_until(lambda: len(step_processes(cluster)) == 2, "its steps run", seconds=_LONG)
        cluster.login.run("pkill -KILL -x srun")
        assert "srun" in str(broken.exception())
        wait_until(lambda: not step_processes(cluster), "its steps have ended", seconds=_LONG)
    (nodes,) = {line.split()[0] for line in lines(cluster.login, "variables")}
    assert nodes == "SLURM_NNODES=2"
    balanced(cluster)
    assert len(allocations(cluster)) == 3
    check_nothing_left(cluster)


def test_a_sweep_over_what_jobs_need(tmp_path: Path):
    """A job with two GPUs and a time of its own beside jobs with one, and with none though `slurm:` has one for each. One array for each need."""
    app = load_app()
    with running_cluster(tmp_path / "login", NODES=1, CPUS=4, GPUS=2) as cluster:
        gpus = cluster.login.home / "gpus"
        gpus.write_text("".join(f"gpu {FalseGpus.new_name()} 16384 3\n" for _ in range(2)))
        cluster.put_program("nvidia-smi", TOOL.replace("$FALSE_NVML", "/home/runner/gpus"))
        names = [line.split()[1] for line in gpus.read_text().splitlines()]
        open_gate(cluster.login)
        host = login(cluster, gpus=1, time="4:00:00")
        sizes = [None, {"gpus": 0}, {"gpus": None}, {"gpus": 2, "time": "10m"}, {"gpus": 1}]
        with launcher.Session.open(hosts=[host], folder=tmp_path / "out") as session:
            jobs = [session.submit(app.share, {"num": num}, resources=size) for num, size in enumerate(sizes)]
            seen = [job.result()["CUDA_VISIBLE_DEVICES"] for job in jobs]
        assert [one.split(",") if one else [] for one in seen[1:4]] == [[], [], names]
        assert {seen[0], seen[4]} <= {*names, "0", "1"}
        assert len(allocations(cluster)) == 5
        assert sorted(cluster.ask("squeue -h -t all -o '%b %l'").splitlines()) == sorted(
            ["N/A 4:00:00", "N/A 4:00:00", "gres:gpu:1 4:00:00", "gres:gpu:1 4:00:00", "gres:gpu:2 10:00"]
        )
        assert len(set(cluster.ask("squeue -h -r -t all -o %F").split())) == 4
        check_nothing_left(cluster)


def test_mpi(cluster: SlurmCluster, tmp_path: Path):
    """`mpirun` in a job of two nodes starts a rank for each task, on both nodes, and they reach each other."""
    need_programs("mpirun")
    # The nodes here have one name and one /dev/shm, so ranks of different nodes must not take that for their own node's.
    config = {"command": ["mpirun", "--mca", "btl", "self,tcp", "--mca", "btl_tcp_if_include", "lo"]}
    found = launcher.run(
        "tests.mpi_task:train", config, host=login(cluster), resources={"nodes": 2, "tasks": 4}, folder=tmp_path / "out"
    ).return_value
    assert [one.partition(" ")[0] for one in found] == ["0/4", "1/4", "2/4", "3/4"]
    assert {one.rpartition(" ")[2] for one in found} == {"1111"}
    assert len({one.split()[2] for one in found}) == 2
    check_nothing_left(cluster)
