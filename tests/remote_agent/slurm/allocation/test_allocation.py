"""An agent in an allocation: what it takes out of the pool, what it writes down, and when it leaves. Zygote and jobs are the test's."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from remote_agent.agent.spool import log
from remote_agent.agent.zygotes.pool import Prepared
from remote_agent.job import JobError
from remote_agent.protocol.specs.resources import Resources
from remote_agent.shared.report_ring import STOP, has_mark
from remote_agent.slurm.allocation import allocation
from remote_agent.slurm.allocation.allocation import Allocation
from remote_agent.slurm.batch.batch import Batch, BatchError
from remote_agent.slurm.batch.classes import DEFAULT, Lasting
from remote_agent.slurm.pool.incarnations import FOLDER, Fate, Incarnation, Incarnations
from remote_agent.slurm.pool.order import Order
from remote_agent.slurm.pool.pool import Pool, Stop
from remote_agent.slurm.pool.prepared import PREPARED, write_prepared
from remote_agent.slurm.shared_disk.lease import LEASE_ENDED, Lease, LeaseWatch
from remote_agent.slurm.shared_disk.shared_files import SharedFiles
from remote_agent.system import gpus as system_gpus
from remote_agent.system.gpus import Survey
from remote_agent.system.host import Folders
from tests.remote_agent.agents import wait_until
from tests.remote_agent.stepped_agent import SteppedAgent
from tests.specs import job_spec, zygote_spec

LIMITS = {"preempted": 3}
PREPARED_APP = Prepared("z", zygote_spec(), None, "", "/")


class FakeBatch(Batch):
    """Says why it ends an allocation, if it knows."""

    said: tuple[str, str] | None = ("time_limit", "the time is up")

    def __init__(self) -> None:
        #: Jobs that are to be started again.
        self.again: list[str] = []

    def go_again(self, job: str) -> None:
        self.again.append(job)

    def why(self, job: str, restart: int) -> tuple[str, str]:
        assert (job, restart) == ("22", 0)
        if self.said is None:
            raise BatchError("scontrol: exit status 1")
        return self.said


@dataclass
class SteppedAllocation(SteppedAgent):
    """The agent of an allocation in this process, and the run's folder as its submitter sees it."""

    most: int | None = 1
    expects: int = 0
    order: Order = field(default_factory=Order)
    batch: Batch = field(default_factory=FakeBatch)

    def make_agent(self, where: Folders) -> Allocation:
        self.files = SharedFiles(where.spool, "submitter")
        self.files.make_folder(PREPARED)
        self.pool = Pool(self.files, "submitter")
        self.incarnations = Incarnations(self.files)
        self.allocation = Allocation(
            "r1",
            "h",
            where,
            "/bundle",
            0o022,
            "22.0",
            self.order._replace(most=self.most, expects=self.expects, requeue=LIMITS),
            self.batch,
        )
        return self.allocation

    def put(self, *nums: int, grace: float = 10.0) -> None:
        """Put the first attempts at these jobs into the pool."""
        for num in nums:
            spec = job_spec(num=num, attempt=1, grace=grace)
            header = {"t": "job", "spec": spec.to_json(), "payload_blob": None}
            self.pool.put(DEFAULT, spec.attempt_id, header, b"payload")  # type: ignore[arg-type]

    def seen(self) -> Incarnation:
        """What its log says."""
        self.incarnations.advance(0.0)
        (one,) = [one for one in self.incarnations if one.name == "22.0"]
        return one


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., SteppedAllocation]]:
    """Makes one that looks around in each turn."""
    monkeypatch.setattr(allocation, "_LOOK_EVERY", 0.0)
    monkeypatch.setattr(allocation, "_FENCE_EVERY", 0.0)
    made = []

    def new(**more: object) -> SteppedAllocation:
        folder = tmp_path / f"work{len(made)}"
        folder.mkdir(mode=0o700)
        made.append(SteppedAllocation(folder=str(folder), **more))  # type: ignore[arg-type]
        return made[-1]

    yield new
    for one in reversed(made):
        one.close()


@pytest.mark.parametrize(("lasts", "left"), [(Lasting(3600, 3600), True), (Lasting(3600, 600), False)])
def test_it_takes_a_job_only_if_the_time_that_it_needs_is_left(make, monkeypatch, lasts, left):
    """The first one always. If not, it leaves, and the job is for another one."""
    host = make(most=None, order=Order(lasting=lasts))
    host.put(3, 4)
    write_prepared(host.files, PREPARED_APP)
    host.settle()
    ((zygote, job),) = host.jobs()
    now = allocation.time.monotonic()
    monkeypatch.setattr(allocation.time, "monotonic", lambda: now + 1800)
    job.finish(b"value")
    zygote.ended(job, 0)
    host.settle()
    assert (host.forks, host.seen().left) == (
        (["3.1"], "it has no time left for another job") if left else (["3.1", "4.1"], None)
    )


def test_it_does_one_job_and_leaves(make):
    """The first that waits. Its result, the end of its process and the leave are in the log, in this order."""
    host = make()
    host.put(3, 4)
    write_prepared(host.files, PREPARED_APP)
    host.settle()
    assert host.forks == ["3.1"]
    assert host.pool.takers() == {"3.1": "22.0"}
    ((zygote, job),) = host.jobs()
    job.finish(b"value")
    host.settle()
    assert host.seen().left is None
    assert host.agent.end_mode is None
    zygote.ended(job, 0)
    host.settle()
    one = host.seen()
    final = one.attempts["3.1"].final
    assert final is not None
    assert final.envelope.status == "COMPLETED"
    assert final.reference is not None
    assert one.reader.read(final.reference) == b"value"
    assert one.gone == {"3.1"}
    assert one.left == "it has done its part"
    assert host.forks == ["3.1"]


def test_one_for_many_jobs_takes_the_next_when_a_slot_is_free(make):
    """One at a time for one slot, and it stays when none waits."""
    host = make(most=None)
    host.put(3, 4)
    write_prepared(host.files, PREPARED_APP)
    host.settle()
    assert host.forks == ["3.1"]
    for _ in range(2):
        ((zygote, job),) = host.jobs()
        job.finish(b"value")
        zygote.ended(job, 0)
        host.settle()
    assert host.forks == ["3.1", "4.1"]
    assert host.agent.end_mode is None


@pytest.mark.parametrize(("turn", "left"), [(1, None), (2, "no job waits"), (3, "no job waits")])
def test_one_for_many_jobs_leaves_when_the_run_is_over(make, turn: int, left: str | None):
    """By itself, as soon as it has nothing to do, and not by a cancel. The end that an earlier submitter has said is not its own."""
    host = make(most=None, order=Order(turn=2))
    host.put(3)
    write_prepared(host.files, PREPARED_APP)
    host.pool.end(turn)
    host.settle()
    assert host.seen().left is None, "it still has a job"
    ((zygote, job),) = host.jobs()
    job.finish(b"value")
    zygote.ended(job, 0)
    host.settle()
    assert host.seen().left == left


def test_one_with_slots_takes_as_many_of_its_class(make):
    """Up to so many at once. When Slurm ends it, it takes no more, though a slot is free."""
    host = make(most=None, order=Order(slots=2))
    header = {"t": "job", "spec": job_spec(num=1, attempt=1).to_json(), "payload_blob": None}
    host.pool.put("g1-c1-m0", "1.1", header, b"payload")
    host.put(3, 4, 5)
    write_prepared(host.files, PREPARED_APP)
    host.settle()
    assert host.forks == ["3.1", "4.1"]
    (zygote, job), _ = host.jobs()
    host.allocation.on_signal(signal.SIGTERM, None)
    job.finish(b"value")
    zygote.ended(job, 0)
    host.settle()
    assert host.pool.takers() == {"3.1": "22.0", "4.1": "22.0"}


def test_a_job_has_what_its_class_has(make):
    """And not what it says alone: `slurm:` may say the rest."""
    part = Resources(0, 1, 0)
    host = make(order=Order(klass="g0-c1-m5", part=part))
    spec = job_spec(num=1, attempt=1)._replace(needs=Resources(0, 1, 5))
    host.pool.put("g0-c1-m5", "1.1", {"t": "job", "spec": spec.to_json(), "payload_blob": None}, b"payload")
    write_prepared(host.files, PREPARED_APP)
    host.settle()
    assert host.forks == ["1.1"]
    assert host.agent.queue.threads == host.agent.zygotes.threads == 1
    attempt = host.agent.attempts.get("1.1")
    assert attempt.spec.needs is None


@pytest.mark.parametrize(("idle", "left"), [(0.0, "no job waits"), (60.0, None)])
def test_one_for_many_jobs_stays_while_more_may_come(make, idle: float, left: str | None):
    """For so long without a job."""
    host = make(most=None, order=Order(idle=idle))
    host.put(3)
    write_prepared(host.files, PREPARED_APP)
    host.settle()
    ((zygote, job),) = host.jobs()
    job.finish(b"value")
    zygote.ended(job, 0)
    host.settle()
    assert host.seen().left == left


def test_one_that_came_too_late_for_any_job_leaves_at_once(make):
    """It is not needed, whatever it would wait for."""
    host = make(most=None)
    write_prepared(host.files, PREPARED_APP)
    host.settle()
    assert host.seen().left == "no job waits"


def test_nothing_is_taken_before_the_application_is_prepared(make):
    """Who cannot run a job yet must not have it."""
    host = make()
    host.put(3)
    host.settle()
    assert host.pool.takers() == {}
    assert host.agent.end_mode is None
    write_prepared(host.files, PREPARED_APP)
    host.settle()
    assert host.pool.takers() == {"3.1": "22.0"}


@pytest.mark.parametrize(("expects", "left"), [(1, "no job waits"), (2, None)])
def test_one_that_is_not_needed_leaves_at_once(make, expects: int, left: str | None):
    """All that was put in is taken by others. Where a late disk shows less than there is, it waits for the rest."""
    host = make(expects=expects)
    host.put(3)
    assert host.pool.take("3.1")
    write_prepared(host.files, PREPARED_APP)
    host.settle()
    assert host.seen().left == left


def test_gpus_that_slurm_gave_and_nobody_sees_end_it(make, monkeypatch: pytest.MonkeyPatch):
    """It takes nothing, and says why. A word of Slurm's for none is no GPU."""
    monkeypatch.setattr(system_gpus, "survey", lambda: Survey([], "nvml", ""))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "NoDevFiles")
    assert make().agent.end_mode is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    host = make()
    host.put(3)
    write_prepared(host.files, PREPARED_APP)
    host.settle()
    assert host.seen().left == "GPU 1 is asked for, and it has no GPU"
    assert host.forks == []


def test_a_request_ends_a_job_that_runs(make):
    """It is recorded with its kind. Others are not touched."""
    host = make()
    host.put(3)
    write_prepared(host.files, PREPARED_APP)
    host.settle()
    host.pool.stop("4.1", Stop("cancelled", kill=False, why=""))
    host.pool.stop("3.1", Stop("timeout", kill=False, why=""))
    host.settle()
    assert host.seen().attempts["3.1"].cancel == "timeout"


def test_a_request_to_stop_is_passed_on_once(make):
    """The job that runs finds it at its next report. One of another allocation is not touched."""
    host = make()
    host.put(3)
    write_prepared(host.files, PREPARED_APP)
    host.settle()
    for attempt in ("3.1", "4.1"):
        host.pool.ask(attempt)
    host.settle()
    folder = host.allocation.paths.reports(host.allocation.attempts.get("3.1"))
    assert has_mark(folder, STOP)
    os.unlink(os.path.join(folder, STOP))
    host.settle()
    assert not has_mark(folder, STOP)
    assert host.seen().attempts["3.1"].cancel is None
    host.pool.forget("3.1")
    assert host.pool.asked() == ["4.1"]


def test_its_log_is_never_rewritten(make, monkeypatch: pytest.MonkeyPatch):
    """Others follow it by the place of what they have read, also when most of it is not needed any more, or the disk is full."""
    monkeypatch.setattr(log, "_COMPACT_FROM", 0)
    host = make()
    host.put(3)
    write_prepared(host.files, PREPARED_APP)
    host.settle()
    attempts = host.allocation.attempts
    attempts.log.forget([attempts.log.append({"r": "note", "text": "x" * 5000})])
    host.settle()
    assert attempts.log.wants_compaction
    assert attempts.log.generation == 0
    seen = host.seen()
    assert seen.has_begun
    assert seen.attempts["3.1"].started_at is not None


def test_the_end_of_the_controllers_lease_cancels_what_runs_and_what_waits(make):
    """What waits never starts. It leaves when its job is over, and takes nothing more."""
    host = make(most=None)
    lease = Lease(host.files)
    lease.grant(60.0, 0.0)
    host.put(3, 4)
    write_prepared(host.files, PREPARED_APP)
    host.settle()
    assert host.forks == ["3.1"]
    os.utime(os.path.join(host.files.root, "lease"), (0, 0))
    host.allocation._lease = LeaseWatch(host.files, os.path.join(host.files.root, FOLDER, "22.0"))
    host.settle()
    assert host.pool.takers() == {"3.1": "22.0", "4.1": "22.0"}
    seen = host.seen()
    assert seen.attempts["3.1"].cancel == "cancelled"
    waited = seen.attempts["4.1"].final.envelope.error
    assert (waited.kind, waited.message) == ("cancelled", LEASE_ENDED)
    ((zygote, job),) = host.jobs()
    job.finish(error=JobError("cancelled"))
    zygote.ended(job, 0)
    host.settle()
    assert host.seen().left == LEASE_ENDED
    assert host.forks == ["3.1"]


@pytest.mark.parametrize(
    ("said", "kind", "why"),
    [
        (("time_limit", "the time is up"), "time_limit", "the time is up"),
        (None, "cancelled", "the allocation was ended from outside"),
    ],
)
def test_the_end_of_the_allocation_ends_what_runs(make, said, kind: str, why: str):
    """For the reason that Slurm gives, if it does. It takes nothing more, and leaves when its job is over."""
    host = make(most=None)
    host.batch.said = said
    host.put(3, 4)
    write_prepared(host.files, PREPARED_APP)
    host.settle()
    host.allocation.on_signal(signal.SIGTERM, None)

    def cancelled() -> str | None:
        host.settle()
        return host.seen().attempts["3.1"].cancel

    assert wait_until(cancelled, "the job is ended") == kind
    ((zygote, job),) = host.jobs()
    job.finish(b"value")
    zygote.ended(job, 0)
    host.settle()
    assert host.seen().left == why
    assert host.forks == ["3.1"]


def test_a_later_start_of_the_same_job_fences_it(make):
    """It takes nothing more, ends what runs, and leaves."""
    host = make(most=None)
    host.put(3)
    write_prepared(host.files, PREPARED_APP)
    host.settle()
    host.files.make_folder(FOLDER, "22.1")
    host.put(4)
    host.settle()
    assert host.seen().attempts["3.1"].cancel == "lost"
    ((zygote, job),) = host.jobs()
    zygote.ended(job, 9)
    host.settle()
    assert host.pool.takers() == {"3.1": "22.0"}


@pytest.mark.parametrize(("kind", "follows"), [("preempted", True), ("time_limit", False)])
def test_a_job_that_is_preempted_goes_on(make, kind: str, follows: bool):
    """Its next attempt is in the pool when the allocation has left. What it took and had not started goes on for any such reason."""
    host = make()
    host.batch.said = (kind, "for a reason")
    host.put(3)
    write_prepared(host.files, PREPARED_APP)
    host.settle()
    host.allocation.on_signal(signal.SIGTERM, None)

    def cancelled() -> str | None:
        host.settle()
        return host.seen().attempts["3.1"].cancel

    assert wait_until(cancelled, "the job is ended") == kind
    ((zygote, job),) = host.jobs()
    job.finish(error=JobError("killed", signal=signal.SIGTERM))
    zygote.ended(job, 0)
    host.settle()
    assert host.seen().attempts["3.1"].final.envelope.error.kind == kind
    assert host.pool.all_attempts() == (["3.1", "3.2"] if follows else ["3.1"])
    # Slurm may have warned it, and takes its leave for the end of it.
    assert set(host.batch.again) == ({"22"} if follows else set())


def test_a_result_waits_for_room_on_the_disk(make, monkeypatch):
    """The allocation takes nothing more, and does not leave before the result is on the disk. What it has not begun goes on elsewhere."""
    host = make(most=None)
    host.put(3)
    write_prepared(host.files, PREPARED_APP)
    host.settle()
    ((zygote, job),) = host.jobs()
    host.put(4)
    with monkeypatch.context() as patch:

        def full() -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(host.agent.attempts.log, "flush", full)
        job.finish(b"value")
        zygote.ended(job, 0)
        host.settle()
        assert host.agent.end_mode is None
        assert host.seen().attempts["3.1"].final is None
        host.put(5)
        host.settle()
        assert host.pool.takers() == {"3.1": "22.0", "4.1": "22.0"}
    host.settle()
    one = host.seen()
    assert one.attempts["3.1"].final is not None
    assert one.left.startswith("its disk could not be written (")
    assert host.forks == ["3.1"]
    assert one.fate_of("4.1") is Fate.UNBEGUN
    assert host.pool.waiting(DEFAULT) == ["5.1"]


def test_a_job_beside_a_full_disk_is_told_that_the_time_is_up(make, monkeypatch):
    """It runs on where the disk takes nothing, and Slurm's signal reaches it as before."""
    host = make(most=None, order=Order(slots=2))
    host.put(3, 4)
    write_prepared(host.files, PREPARED_APP)
    host.settle()
    ((zygote, job), _) = host.jobs()

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(host.agent.attempts.log, "flush", full)
    job.finish(b"value")
    zygote.ended(job, 0)
    host.settle()
    host.allocation.on_signal(signal.SIGTERM, None)
    attempt = host.agent.attempts.get("4.1")
    wait_until(lambda: host.settle() or attempt.kill_at is not None, "it has got SIGTERM")
    assert attempt.cancel == "time_limit"


@pytest.mark.parametrize(("kind", "seconds"), [("time_limit", 36), ("preempted", 12), ("cancelled", 12)])
def test_a_job_that_does_not_listen_is_killed_while_there_is_time_for_its_end_hooks(make, kind, seconds):
    """However long its grace period is. Slurm would kill all of the allocation."""
    host = make(order=Order(left=(60.0, 20.0)))
    host.batch.said = (kind, "for a reason")
    host.put(3, grace=1000.0)
    write_prepared(host.files, PREPARED_APP)
    host.settle()
    host.allocation.on_signal(signal.SIGTERM, None)
    host.settle()
    attempt = host.agent.attempts.get("3.1")
    wait_until(lambda: host.settle() or attempt.kill_at is not None, "it has got SIGTERM")
    assert seconds / 2 < attempt.kill_at - allocation.time.monotonic() <= seconds


@pytest.mark.parametrize("is_told", [True, False])
def test_a_death_by_sigterm_is_named_when_it_is_known_why(make, monkeypatch, is_told: bool):
    """Slurm's signal may reach the job before it reaches the agent. If none comes, the job's own word counts a moment later."""
    monkeypatch.setattr(allocation, "_EXPLAIN", 3600.0 if is_told else 0.0)
    monkeypatch.setattr(allocation, "_ANSWER", 3600.0)
    host = make()
    host.batch.said = ("preempted", "another job has preempted its allocation")
    host.put(3)
    write_prepared(host.files, PREPARED_APP)
    host.settle()
    ((zygote, job),) = host.jobs()
    job.finish(error=JobError("killed", signal=signal.SIGTERM, message="terminated by SIGTERM"))
    zygote.ended(job, 0)
    host.settle()
    if is_told:
        assert host.seen().attempts["3.1"].final is None
        host.allocation.on_signal(signal.SIGTERM, None)

    def final():
        host.settle()
        return host.seen().attempts["3.1"].final

    error = wait_until(final, "its end is told").envelope.error
    assert (error.kind, error.message) == (host.batch.said if is_told else ("killed", "terminated by SIGTERM"))
    host.settle()
    assert host.pool.all_attempts() == (["3.1", "3.2"] if is_told else ["3.1"])


#: What a node must build before its jobs are prepared; nobody reads it here.
ON_NODE = PREPARED_APP._replace(node={})


class OnNode:
    """The environments of a node, as the test decides them."""

    def __init__(self) -> None:
        self.wanted: list[Prepared] = []
        self.decided: list[tuple[Prepared, str, bool]] = []
        self.has_failed = self.is_closed = False

    @property
    def is_busy(self) -> bool:
        return bool(self.wanted)

    def want(self, prepared: Prepared) -> None:
        self.wanted.append(prepared)

    def tick(self, now: float) -> list[tuple[Prepared, str, bool]]:
        found, self.decided = self.decided, []
        return found

    def decide(self, lacking: str = "") -> None:
        """It is there, or cannot be had."""
        self.has_failed = bool(lacking)
        self.decided = [(one, lacking, False) for one in self.wanted]
        self.wanted = []

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def on_node(monkeypatch: pytest.MonkeyPatch) -> OnNode:
    """See there."""
    made = OnNode()
    monkeypatch.setattr(allocation, "NodeEnvironments", lambda *arguments: made)
    return made


def test_it_takes_no_job_before_its_node_has_the_environment(make, on_node):
    """Then it goes on as ever."""
    host = make()
    host.put(3)
    write_prepared(host.files, ON_NODE)
    host.settle()
    assert on_node.wanted == [ON_NODE]
    assert "3.1" not in host.pool.takers()
    on_node.decide()
    host.settle()
    ((zygote, job),) = host.jobs()
    job.finish(b"value")
    zygote.ended(job, 0)
    host.settle()
    assert (host.seen().left, on_node.is_closed) == ("it has done its part", True)


def test_it_leaves_while_the_environment_is_built_if_nobody_needs_it(make, on_node, monkeypatch):
    """So a cancel of the run does not wait for a build."""
    monkeypatch.setattr(allocation, "SETTLE", 0.0)
    host = make()
    host.put(3)
    write_prepared(host.files, ON_NODE)
    host.settle()
    assert host.seen().left is None
    assert host.pool.take("3.1")
    host.settle()
    assert (host.seen().left, on_node.is_closed) == ("no job waits", True)


def test_what_slurm_ends_while_the_environment_is_built_leaves_its_jobs_to_others(make, on_node):
    """They were not taken."""
    host = make()
    host.put(3)
    write_prepared(host.files, ON_NODE)
    host.settle()
    host.allocation.on_signal(signal.SIGTERM, None)
    host.settle()
    assert host.seen().left is not None
    assert on_node.is_closed
    assert host.pool.waiting(DEFAULT) == ["3.1"]


def test_a_node_that_cannot_have_the_environment_fails_one_job(make, on_node):
    """With the reason. The others are for another node."""
    host = make(most=None)
    host.put(3, 4)
    write_prepared(host.files, ON_NODE)
    host.settle()
    on_node.decide("environment ab on node n1: no room")
    host.settle()
    error = host.seen().attempts["3.1"].final.envelope.error
    assert (error.kind, error.type, error.message) == (
        "host",
        "EnvironmentFailed",
        "environment ab on node n1: no room",
    )
    assert host.seen().left == "the environment of its jobs cannot be built on its node"
    assert host.pool.waiting(DEFAULT) == ["4.1"]
