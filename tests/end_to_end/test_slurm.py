"""Whole runs on a Slurm cluster: from here, through its login node, as an ordinary user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher import events
from launcher.agents.queries.query import AgentQuery
from launcher.doctor import StepOutcome, examine
from launcher.hosts.host_spec import HostSpec
from launcher.options import LaunchConf
from tests.faults.injection import FaultyRun, lines, load_app, open_gate
from tests.gpus import TOOL, FalseGpus
from tests.hosts.slurm import SlurmCluster, running_cluster
from tests.remote_agent.agents import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

#: Seconds that nothing here takes, however busy the machine is.
_LONG = 400.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[SlurmCluster]:
    """A cluster of four nodes with two CPUs each."""
    with running_cluster(tmp_path / "login") as running:
        yield running


def login(cluster: SlurmCluster, **slurm: Any) -> HostSpec:
    """The cluster as a host of a run."""
    return cluster.login.spec(slurm=slurm)


def allocations(cluster: SlurmCluster) -> list[str]:
    """The states of all Slurm jobs that Slurm remembers."""
    return cluster.ask("squeue -h -r -t all -o %T").split()


def wait_started(run: FaultyRun, count: int) -> None:
    """Wait until this many attempts have begun: each has to start a Python and import the application."""
    run.wait_for(f"{count} attempts", lambda: len(run.of(events.AttemptStarted)) >= count, _LONG)


def check_nothing_left(cluster: SlurmCluster) -> None:
    """Neither a process of ours nor a Slurm job of the run is there when the link is gone."""
    wait_until(
        lambda: not [one for one in cluster.login.processes() if "hydra-remote-launcher" in one], "nothing left", _LONG
    )
    wait_until(lambda: set(allocations(cluster)) <= {"COMPLETED", "CANCELLED", "FAILED"}, "no Slurm job is left", _LONG)


def test_a_sweep_becomes_one_array(cluster: SlurmCluster, tmp_path: Path):
    """Each job runs once, in an allocation of its own, with its hooks. Values, output and files are here, and nothing is left there."""
    run = FaultyRun(tmp_path).start(load_app().quick, 20, [login(cluster)])
    run.finish(_LONG)
    run.check_nothing_lost(cluster.login, 20)
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir() if path.name.isdigit()) == sorted(
        str(num) for num in range(20)
    )
    check_nothing_left(cluster)
    assert len(allocations(cluster)) == 20
    assert len(set(cluster.ask("squeue -h -r -t all -o %F").split())) == 1
    assert lines(cluster.login, "ran")


@pytest.mark.parametrize("options", [{}, {"jobs": "many", "allocations": 2}])
def test_what_has_begun_ends_by_itself(cluster: SlurmCluster, tmp_path: Path, options: dict[str, Any]):
    """So each allocation is COMPLETED for who asks Slurm, also the last one, whose job ends the run; also one that would wait for more jobs."""
    run = FaultyRun(tmp_path).start(load_app().quick, 3, [login(cluster, **options)])
    run.finish(_LONG)
    run.check_nothing_lost(cluster.login, 3)
    check_nothing_left(cluster)
    began = cluster.ask("squeue -h -r -t all -o '%T %N'").splitlines()
    assert {one.split()[0] for one in began if len(one.split()) == 2} == {"COMPLETED"}
    assert {one for one in began if len(one.split()) == 1} <= {"CANCELLED "}


def test_a_request_that_slurm_has_twice_runs_no_job_twice(cluster: SlurmCluster, tmp_path: Path):
    """Slurm takes the request, twice, and its answer is lost. It is found by its name, and the allocations that are too many end by themselves."""
    fake = '#!/bin/sh\ncat >/home/runner/script\n/usr/bin/sbatch "$@" </home/runner/script >/dev/null\n/usr/bin/sbatch "$@" </home/runner/script >/dev/null\nexit 1\n'
    cluster.put_program("sbatch", fake)
    run = FaultyRun(tmp_path).start(load_app().quick, 20, [login(cluster)])
    run.finish(_LONG)
    run.check_nothing_lost(cluster.login, 20)
    assert len(set(cluster.ask("squeue -h -r -t all -o %F").split())) == 2
    check_nothing_left(cluster)


def test_a_submitter_that_dies_between_request_and_answer(cluster: SlurmCluster, tmp_path: Path):
    """The next one finds by its name what Slurm has taken."""
    fake = (
        '#!/bin/sh\ncat >/home/runner/script\n/usr/bin/sbatch "$@" </home/runner/script >/dev/null\n'
        "[ -e /home/runner/died ] || { touch /home/runner/died; kill -KILL $PPID; }\nexit 1\n"
    )
    cluster.put_program("sbatch", fake)
    run = FaultyRun(tmp_path).start(load_app().quick, 8, [login(cluster)])
    run.finish(_LONG)
    run.check_nothing_lost(cluster.login, 8)
    assert run.of(events.HostUnknown), "the link was lost"
    assert len(allocations(cluster)) == 8
    check_nothing_left(cluster)


def test_jobs_are_cancelled_where_they_are(cluster: SlurmCluster, tmp_path: Path):
    """One that runs gets SIGTERM, and its end hooks fire. Those that wait never start, and fire none."""
    run = FaultyRun(tmp_path).start(load_app().gated, 12, [login(cluster)], fail_fast=True)
    wait_started(run, 8)
    wait_until(lambda: lines(cluster.login, "pid.0"), "its process is known", _LONG)
    killed = cluster.login.run(f"kill -KILL {lines(cluster.login, 'pid.0')[0]}")
    assert killed.returncode == 0, killed.stderr
    returns = run.finish(_LONG)
    kinds = [one.error.kind if one.error else "" for one in returns]
    assert kinds[0] == "killed"
    assert kinds[1:] == ["cancelled"] * 11
    ran = lines(cluster.login, "ran")
    hooks = lines(cluster.login, "hooks")
    assert sorted(hooks) == sorted([f"start {num}" for num in ran] + [f"end {num}" for num in ran])
    check_nothing_left(cluster)


def balanced(cluster: SlurmCluster) -> None:
    """Each start hook that fired has its end hook, and none fired twice."""
    hooks = Counter(lines(cluster.login, "hooks"))
    assert set(hooks.values()) == {1}
    assert {one.split()[1] for one in hooks if one.startswith("start")} == {
        one.split()[1] for one in hooks if one.startswith("end")
    }


def test_a_node_that_dies_under_a_job(cluster: SlurmCluster, tmp_path: Path):
    """Its jobs are `node_failed` when Slurm says so, and other allocations fire their end hooks. The others complete."""
    run = FaultyRun(tmp_path).start(load_app().gated, 4, [login(cluster, requeue={})])
    wait_started(run, 4)
    cluster.do("kill-node", "n1")
    open_gate(cluster.login)
    returns = run.finish(timeout=_LONG)
    kinds = sorted(one.error.kind if one.error else "" for one in returns)
    assert kinds == ["", "", "node_failed", "node_failed"]
    balanced(cluster)
    check_nothing_left(cluster)


def test_a_time_limit_reaches_the_job_as_sigterm(cluster: SlurmCluster, tmp_path: Path):
    """Before the time is up, so that its end hooks fire in the same allocation. The kind of the error says it."""
    run = FaultyRun(tmp_path).start(load_app().gated, 2, [login(cluster, time="1")])
    returns = run.finish(timeout=_LONG)
    assert [one.error.kind for one in returns if one.error] == ["time_limit"] * 2
    balanced(cluster)
    check_nothing_left(cluster)


def test_what_slurm_will_never_start_fails_by_name(cluster: SlurmCluster, tmp_path: Path):
    """Slurm takes what is over a limit of the partition, and lets it wait for ever. An absent partition is refused at once."""
    run = FaultyRun(tmp_path).start(load_app().quick, 2, [login(cluster, partition="short", time="10")])
    returns = run.finish(timeout=_LONG)
    assert all("PartitionTimeLimit" in one.error.message for one in returns)
    (tmp_path / "other").mkdir()
    run = FaultyRun(tmp_path / "other").start(load_app().quick, 2, [login(cluster, partition="absent")])
    assert all("invalid partition" in one.error.message.lower() for one in run.finish(_LONG))
    assert lines(cluster.login, "ran") == []
    check_nothing_left(cluster)


def test_more_nodes_than_the_cluster_has_fail_by_name(cluster: SlurmCluster, tmp_path: Path):
    """Only the jobs that need them. The others run, each in an allocation of its own."""
    app = load_app()
    with launcher.Session.open(hosts=[login(cluster)], folder=tmp_path / "out") as session:
        large = session.submit(app.quick, {"num": 0}, resources={"nodes": 9})
        small = session.submit(app.quick, {"num": 1})
        assert small.result(_LONG) == 10
        error = large.job_return(_LONG).error
    assert error is not None
    assert error.kind == "host"
    assert "9 nodes" in error.message
    assert "PartitionConfig" in error.message
    assert lines(cluster.login, "ran") == ["1"]
    check_nothing_left(cluster)


def test_allocations_that_end_before_they_begin_are_not_asked_for_for_ever(cluster: SlurmCluster, tmp_path: Path):
    """After three, the jobs fail, and the error says what Slurm said and where to look."""
    cluster.put_program("sbatch", '#!/bin/sh\ncat >/dev/null\necho "#!/bin/sh\nexit 3" | /usr/bin/sbatch "$@"\n')
    run = FaultyRun(tmp_path).start(load_app().quick, 3, [login(cluster)])
    (message, *_) = {one.error.message for one in run.finish(timeout=_LONG)}
    assert "Slurm says FAILED" in message
    assert "/allocations" in message
    check_nothing_left(cluster)


def test_an_sbatch_that_says_nothing_is_not_asked_for_ever(cluster: SlurmCluster, tmp_path: Path):
    """Nor without a pause. The jobs fail, and the error says what was said, and what to try."""
    cluster.put_program("sbatch", "#!/bin/sh\necho asked >>$HOME/asked\ncat >/dev/null\n")
    run = FaultyRun(tmp_path).start(load_app().quick, 3, [login(cluster)])
    (message,) = {one.error.message for one in run.finish(timeout=_LONG)}
    assert "Slurm was asked 3 times for an allocation" in message
    assert "try sbatch by hand" in message
    assert lines(cluster.login, "asked") == ["asked"] * 3
    check_nothing_left(cluster)


def test_a_sweep_goes_on_without_a_controller(cluster: SlurmCluster, tmp_path: Path):
    """While nobody is connected, nothing of ours runs on the login node, and jobs run on. Another controller collects all of it."""
    app = load_app()
    with launcher.Session.open(hosts=[login(cluster)], folder=tmp_path / "out", callbacks=[app.Witness()]) as session:
        for num in range(12):
            session.submit(app.gated, {"num": num})
        wait_until(lambda: len(lines(cluster.login, "ran")) >= 8, "all slots run", seconds=_LONG)
        session.detach()
    wait_until(
        lambda: not [one for one in cluster.login.processes() if "connect" in one], "the login node is free", _LONG
    )
    open_gate(cluster.login)
    wait_until(lambda: set(allocations(cluster)) <= {"COMPLETED"}, "all allocations end", seconds=_LONG)
    with launcher.Session.resume(tmp_path / "out") as session:
        assert sorted(job.result() for job in session.as_completed()) == [num * 10 for num in range(12)]
    assert Counter(lines(cluster.login, "ran")) == Counter(str(num) for num in range(12))
    balanced(cluster)
    check_nothing_left(cluster)


def test_output_is_shown_while_a_job_runs(cluster: SlurmCluster, tmp_path: Path):
    """It comes from the compute node through the shared disk."""
    run = FaultyRun(tmp_path).start(load_app().talks, 1, [login(cluster)], live=True)
    run.wait_for(
        "its words", lambda: any(b"said before the gate" in one.data for one in run.of(events.OutputArrived)), _LONG
    )
    assert not run.of(events.JobReturned)
    open_gate(cluster.login)
    assert run.finish(_LONG)[0].return_value == 0
    check_nothing_left(cluster)


def test_allocations_for_many_jobs(cluster: SlurmCluster, tmp_path: Path):
    """Four take all jobs, two at a time each, without a step of Slurm's per job. When no job is left they end by themselves."""
    app = load_app()
    host = login(cluster, slots=2, jobs="many", allocations=4, cpus=1, idle=2)
    with launcher.Session.open(hosts=[host], folder=tmp_path / "out", callbacks=[app.Witness()]) as session:
        jobs = [session.submit(app.quick, {"num": num}) for num in range(60)]
        assert [job.result() for job in jobs] == [num * 10 for num in range(60)]
        wait_until(lambda: set(allocations(cluster)) == {"COMPLETED"}, "all allocations end", _LONG)
    assert Counter(lines(cluster.login, "ran")) == Counter(str(num) for num in range(60))
    balanced(cluster)
    assert 1 <= len(allocations(cluster)) <= 4
    check_nothing_left(cluster)


def test_jobs_get_what_they_need(tmp_path: Path):
    """One array for each distinct need. Jobs that share an allocation have GPUs of their own. What no node has is refused by name."""
    app = load_app()
    with running_cluster(tmp_path / "login", NODES=1, CPUS=4, GPUS=2) as cluster:
        gpus = cluster.login.home / "gpus"
        gpus.write_text("".join(f"gpu {FalseGpus.new_name()} 16384 3\n" for _ in range(2)))
        cluster.put_program("nvidia-smi", TOOL.replace("$FALSE_NVML", "/home/runner/gpus"))
        with launcher.Session.open(hosts=[login(cluster, slots=2, idle=0)], folder=tmp_path / "out") as session:
            ones = [session.submit(app.share, {"num": num}, resources={"gpus": 1, "cpus": 2}) for num in range(2)]
            wait_until(lambda: len(lines(cluster.login, "ran")) == 2, "both run at once", _LONG)
            large = session.submit(app.share, {"num": 2}, resources={"gpus": 2, "cpus": 3})
            absent = session.submit(app.share, {"num": 3}, resources={"gpus": 3})
            error = absent.exception(60)
            open_gate(cluster.login)
            (one, other), all_of_it = [job.result() for job in ones], large.result()
        assert one["SLURM_JOB_ID"] == other["SLURM_JOB_ID"] != all_of_it["SLURM_JOB_ID"]
        names = [line.split()[1] for line in gpus.read_text().splitlines()]
        assert sorted([one["CUDA_VISIBLE_DEVICES"], other["CUDA_VISIBLE_DEVICES"]]) == sorted(names)
        assert sorted(all_of_it["CUDA_VISIBLE_DEVICES"].split(",")) == sorted(names)
        assert [found["OMP_NUM_THREADS"] for found in (one, other, all_of_it)] == ["2", "2", "3"]
        assert "jobs that need 3 GPUs" in str(error)
        assert "Requested node configuration is not available" in str(error)
        # Slurm lists what it refused as one that failed. One that is still leaving when the run ends is cancelled.
        states = allocations(cluster)
        assert (len(states), states.count("FAILED")) == (3, 1)
        check_nothing_left(cluster)


#: Before sbatch: refuses what would make more than three jobs of the user, as Slurm does where a QOS says so. Accounting would take ten seconds.
_THREE_JOBS = """#!/bin/sh
for word in "$@"; do case $before in --array) last=${word%%%*}; last=${last##*-} ;; esac; before=$word; done
if [ $(($(squeue -h -r --me | wc -l) + last + 1)) -gt 3 ]; then
    cat >/dev/null
    echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2
    echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)" >&2
    exit 1
fi
echo "$((last + 1))" >>/home/runner/taken
exec /usr/bin/sbatch "$@"
"""


def test_as_many_jobs_as_a_user_may_have(cluster: SlurmCluster, tmp_path: Path):
    """Slurm refuses a request for more as a whole. Fewer are asked for, and more when some have ended."""
    cluster.put_program("sbatch", _THREE_JOBS)
    run = FaultyRun(tmp_path).start(load_app().quick, 7, [login(cluster)])
    run.finish(_LONG)
    run.check_nothing_lost(cluster.login, 7)
    assert any("no room for more allocations now" in one.message for one in run.of(events.Note))
    check_nothing_left(cluster)


def test_more_jobs_than_an_array_has(tmp_path: Path):
    """As many arrays as it takes, and no more. An index is never over the limit."""
    with running_cluster(tmp_path / "login", ARRAY=26) as cluster:
        host = login(cluster)
        run = FaultyRun(tmp_path).start(load_app().quick, 62, [host])
        run.finish(_LONG)
        run.check_nothing_lost(cluster.login, 62)
        assert len(set(cluster.ask("squeue -h -r -t all -o %F").split())) == 3
        assert len(allocations(cluster)) == 62
        check_nothing_left(cluster)


def test_jobs_that_wait_run_in_the_next_allocation(tmp_path: Path):
    """The time of an allocation for many jobs is up: those that run end by name, with their hooks. It takes no others, and these run later."""
    with running_cluster(tmp_path / "login", NODES=1) as cluster:
        host = login(cluster, time="1", slots=2, allocations=1, idle=0)
        run = FaultyRun(tmp_path).start(load_app().gated, 4, [host])
        run.wait_for("the time is up", lambda: len(run.of(events.AttemptEnded)) >= 2, _LONG)
        open_gate(cluster.login)
        returns = run.finish(_LONG)
        assert sorted(one.error.kind if one.error else "" for one in returns) == ["", "", "time_limit", "time_limit"]
        assert Counter(lines(cluster.login, "ran")) == Counter("0123")
        balanced(cluster)
        assert len(allocations(cluster)) == 2
        check_nothing_left(cluster)


def test_doctor_runs_one_job_of_slurm(cluster: SlurmCluster):
    """On a node, as a run would; what Slurm refuses is named."""
    steps = list(examine(login(cluster), LaunchConf()))
    assert [step for step in steps if step.outcome is not StepOutcome.OK] == []
    assert {"slurm", "agent", "slots", "environment", "disk", "clock"} <= {step.name for step in steps}
    assert len(allocations(cluster)) == 1
    *_, last = examine(login(cluster, partition="nowhere"), LaunchConf())
    assert last.outcome is StepOutcome.FAILED
    assert "invalid partition" in last.detail
    check_nothing_left(cluster)


def test_a_controller_that_leaves_at_once_has_asked(cluster: SlurmCluster, tmp_path: Path):
    """The allocations of its jobs are asked for, and the jobs run, though nobody is connected."""
    app = load_app()
    open_gate(cluster.login)
    with launcher.Session.open(hosts=[login(cluster)], folder=tmp_path / "out", callbacks=[app.Witness()]) as session:
        for num in range(3):
            session.submit(app.gated, {"num": num})
        session.detach()
    wait_until(lambda: len(lines(cluster.login, "ran")) == 3, "all to run", _LONG)
    with launcher.Session.resume(tmp_path / "out") as session:
        assert sorted(job.result() for job in session.as_completed()) == [0, 10, 20]
    balanced(cluster)
    check_nothing_left(cluster)


def test_a_job_that_runs_is_looked_at_while_nobody_is_connected(cluster: SlurmCluster, tmp_path: Path):
    """Its state and what it has printed, from the files of its allocation."""
    app = load_app()
    with launcher.Session.open(hosts=[login(cluster)], folder=tmp_path / "out") as session:
        session.submit(app.talks, {"num": 0})
        run = session.run_id
        session.detach()

    def look() -> tuple[str, bytes]:
        with AgentQuery(login(cluster), "look", run) as query:
            (state,) = {one["state"] for one in query.attempts().values()}
            return state, query.look("0.1", 0, 0).stdout

    wait_until(lambda: look() == ("running", b"said before the gate\n"), "its words", _LONG)
    open_gate(cluster.login)
    with launcher.Session.resume(tmp_path / "out") as session:
        assert [job.result() for job in session.as_completed()] == [0]
    check_nothing_left(cluster)
