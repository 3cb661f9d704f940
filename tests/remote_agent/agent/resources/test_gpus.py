"""GPUs go to one job at a time, of all runs and users of a host."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from remote_agent.agent.jobs import queue
from remote_agent.agent.resources import gpus
from remote_agent.agent.resources.gpus import GpuPool
from remote_agent.protocol import wire
from remote_agent.system import gpu_lease
from remote_agent.system import gpus as system_gpus
from tests.gpus import FalseGpus
from tests.remote_agent.agent.test_agent_machine import spec
from tests.remote_agent.agents import AgentHost, Client, wait_gone, wait_until
from tests.remote_agent.stepped_agent import SteppedAgent
from tests.requirements import READS_PROC, need_files, need_root

pytestmark = READS_PROC

_OTHER_USER = 54321
#: A job that waits says so at once.
_AT_ONCE = "import remote_agent.agent.resources.gpus as gpus; gpus._QUIET = 0.0"


@pytest.fixture
def driver(tmp_path, monkeypatch) -> FalseGpus:
    """A driver with four GPUs."""
    return FalseGpus.make(tmp_path / "driver", monkeypatch, 4)


@pytest.fixture
def new_pool(driver, monkeypatch):
    """Makes the pools of runs, which say at once why a job waits."""
    monkeypatch.setattr(gpus, "_QUIET", 0.0)
    made = []

    def make(run: str = "r1", wish=None) -> GpuPool:
        notes: list[str] = []
        look = _Background()
        pool = GpuPool(run, notes.append, look)
        pool.notes, pool.look = notes, look
        pool.why = pool.choose(wish)
        made.append(pool)
        return pool

    yield make
    for pool in made:
        pool.close()


class _Background:
    """Does work when the test says so, in place of another thread."""

    def __init__(self) -> None:
        self._work: list = []

    def submit(self, work, done) -> None:
        self._work.append((work, done))

    def deliver(self) -> None:
        """Do it."""
        while self._work:
            work, done = self._work.pop()
            work()
            done(None)


def _look_and_take(pool: GpuPool, count: int = 1):
    """Take after a look, as the agent does when the look is over."""
    taken = pool.take(count)
    pool.look.deliver()
    return taken or pool.take(count)


def _squat(gpu: str) -> socket.socket:
    """Somebody else takes the name of a GPU."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("\0hydra-remote-launcher/gpu/" + gpu)
    sock.listen()
    return sock


class TestWhichOnes:
    """What the user says of a host, and what the driver shows."""

    def test_all_by_default(self, driver, new_pool):
        """A host without any has none to give, and its jobs see what they would see without us."""
        pool = new_pool()
        assert (pool.uuids, pool.count) == (driver.names, 4)
        driver.write("down")
        pool = new_pool()
        assert (pool.uuids, pool.count, pool.why, pool.are_hidden) == ([], 0, "", False)

    @pytest.mark.parametrize("wish", [0, []])
    def test_none_means_that_jobs_see_none(self, new_pool, wish):
        """Else they would use those of others."""
        pool = new_pool(wish=wish)
        assert (pool.uuids, pool.count, pool.are_hidden) == ([], 0, True)

    def test_a_number_is_any_of_them(self, driver, new_pool):
        """But no more of them at a time."""
        others = [_squat(name) for name in driver.names[:2]]
        pool = new_pool(wish=2)
        assert (pool.count, pool.take(1), pool.take(1), pool.take(1)) == (2, driver.names[2:3], driver.names[3:], None)
        pool.release(driver.names[2:3])
        for sock in others:
            sock.close()
        assert pool.take(1) is not None
        assert pool.take(1) is None

    def test_by_number_by_uuid_and_by_its_beginning(self, driver, new_pool):
        """As CUDA takes it, in the order that the user gave. Nothing counts twice."""
        _, second, third, fourth = driver.names
        pool = new_pool(wish=[3, second, "1", third[:12].lower(), 3])
        assert pool.uuids == [fourth, second, third]

    def test_a_divided_gpu_stands_for_its_instances(self, driver, new_pool):
        """They are given out one by one."""
        whole, one, two = driver.new_name(), driver.new_name("MIG"), driver.new_name("MIG")
        driver.write(f"gpu {whole} 100 1", f"mig {one} 40 1", f"mig {two} 40 1")
        assert new_pool(wish=[whole]).uuids == [one, two]
        pool = new_pool(wish=[two])
        assert (pool.take(1), pool.take(1)) == ([two], None)

    @pytest.mark.parametrize(
        ("wish", "says"),
        [
            (5, "5 of its GPUs are asked for, and it has 0 {0}, 1 {1}, 2 {2}, 3 {3}"),
            ([4], "GPU 4 is asked for, and it has 0 {0}"),
            (["GPU-none"], "GPU GPU-none is asked for, and it has 0 {0}"),
            (["MIG-none"], "GPU MIG-none is asked for"),
            (["GPU-"], "GPU GPU- is asked for, which is not one alone"),
            ([""], "GPU  is asked for"),
            ([-1], "GPU -1 is asked for"),
        ],
    )
    def test_one_that_is_not_there_is_refused_by_name(self, driver, new_pool, wish, says):
        """The message tells what there is."""
        pool = new_pool(wish=wish)
        assert pool.why.startswith(says.format(*driver.names))
        assert pool.count == 0

    def test_a_host_without_a_driver_says_so(self, driver, new_pool):
        """It is the reason why there is none."""
        driver.write("down")
        assert new_pool(wish=1).why == "1 of its GPUs are asked for, and it has no GPU (Driver Not Loaded)"

    def test_a_gpu_that_is_lost_is_not_given_out(self, driver, new_pool):
        """The others keep their numbers."""
        driver.write(driver.lines[0], "lost", driver.lines[1])
        assert new_pool().uuids == driver.names
        assert new_pool(wish=[2]).uuids == driver.names[1:]
        assert "1 that cannot be read" in new_pool(wish=[1]).why
        assert new_pool().notes == ["its GPUs can be read in part only: GPU 1: GPU is lost"]

    @pytest.mark.parametrize("wish", [-1, 1.5, True, "many", "FREE", [True], [1.5], {"a": 1}, 10**9, ["x"] * 20_000])
    def test_what_makes_no_sense_is_refused(self, new_pool, wish):
        """It comes from the other side of the wire."""
        with pytest.raises(wire.ProtocolError, match="gpus are"):
            new_pool(wish=wish)

    def test_jobs_share_them_in_turn(self, driver, new_pool):
        """As many as the user wants. A job that does not share has one that no other job has."""
        pool = new_pool()
        pool.share_among(7)
        taken = [pool.take(1, is_shared=True) for _ in range(5)]
        assert taken == [[driver.names[place]] for place in (0, 1, 2, 3, 0)]
        assert pool.take(1) is None
        pool.release(driver.names[2:3])
        assert pool.take(1) == driver.names[2:3]
        assert [pool.take(1, is_shared=True) for _ in range(3)] == [driver.names[1:2], driver.names[3:], None]

    def test_a_slot_gets_its_gpu_again(self, driver, new_pool):
        """So a process that stays for the next job has the right one."""
        pool = new_pool(wish=2)
        first, second = pool.take(1), pool.take(1)
        pool.release(second)
        pool.release(first)
        assert [pool.take(1), pool.take(1)] == [second, first]


class TestTaking:
    """A job gets all of its GPUs, or none."""

    def test_two_runs_share_nothing(self, driver, new_pool):
        """Each has what the other has not."""
        one, two = new_pool("r1"), new_pool("r2")
        assert sorted([*one.take(1), *two.take(2), *one.take(1)]) == sorted(driver.names)
        assert two.take(1) is None

    def test_a_job_that_waits_holds_nothing(self, driver, new_pool):
        """Else two jobs could wait for each other for ever."""
        one, two = new_pool("r1"), new_pool("r2")
        held = one.take(2)
        assert two.take(3) is None
        assert one.take(2) is not None
        one.release(held)
        assert two.take(2) == held

    def test_a_shared_gpu_is_free_when_its_last_job_has_ended(self, driver, new_pool):
        """Within a run jobs may share it, and another run gets it only then."""
        one, two = new_pool("r1", wish=[0]), new_pool("r2", wish=[0])
        one.share_among(2)
        first, second = one.take(1, is_shared=True), one.take(1, is_shared=True)
        one.release(first)
        assert two.take(1) is None
        one.release(second)
        assert two.take(1) == second

    def test_who_is_in_the_way_is_named(self, driver, new_pool):
        """By run and job, process and user; a stranger on the name by its process. The same is not said again."""
        one, two = new_pool("r1"), new_pool("r2")
        held = one.take(2)
        one.descriptors(held[:1], "7.1")
        strange = _squat(driver.names[2])
        me = f"process {os.getpid()} ({gpu_lease.process_name(os.getpid())}) of {gpu_lease.user_of(os.geteuid())}"
        assert two.take(2) is None
        (note,) = two.notes
        assert note.split("; ") == [
            f"a job waits for 2 GPUs: {held[0]} has job 7 of run r1 ({me})",
            f"{held[1]} is about to have a job of run r1 ({me})",
            f"{driver.names[2]} is taken by {me}, which is not a run's",
        ]
        assert two.take(2) is None
        assert len(two.notes) == 1
        strange.close()

    def test_a_run_whose_own_jobs_have_them_says_nothing(self, new_pool):
        """Waiting for those is what a queue is for."""
        pool = new_pool()
        assert pool.take(4) is not None
        assert pool.take(1) is None
        assert pool.notes == []

    def test_a_gpu_that_cannot_be_leased_is_not_given_out(self, driver, new_pool, monkeypatch):
        """The reason is told. It may be gone with the next look."""
        pool = new_pool(wish=[0])

        def refuse(uuid, run):
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(gpu_lease, "take", refuse)
        assert pool.take(1) is None
        assert pool.notes == [f"a job waits for a GPU: {driver.names[0]}: it cannot be leased: Too many open files"]
        monkeypatch.undo()
        assert pool.take(1) == driver.names[:1]

    def test_a_system_without_leases_says_so(self, driver, new_pool, monkeypatch):
        """GPUs are given out all the same."""
        monkeypatch.setattr(gpu_lease, "is_supported", lambda: False)
        pool = new_pool(wish=[0])
        assert pool.notes == ["GPUs cannot be leased on this system, so another run may use the same ones"]
        assert _look_and_take(pool) == pool.retake(driver.names[:1]) == driver.names[:1]

    def test_a_container_says_how_far_leases_reach(self, new_pool, monkeypatch):
        """They hold in one network namespace."""
        monkeypatch.setattr(gpu_lease, "covers_host", lambda: False)
        assert "as in a container" in new_pool().notes[0]
        assert new_pool(wish=0).notes == []


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """The time, which the test moves. A job that waits says so at once."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(gpus.time, "monotonic", lambda: clock.now)
    return clock


class TestOtherPrograms:
    """`gpus: free`: programs that know nothing of leases."""

    def test_a_gpu_without_other_programs_is_free(self, driver, new_pool, clock):
        """No process computes on it, and little of its memory is used: the driver has some itself."""
        first, second, third, fourth = driver.names
        driver.write(
            f"gpu {first} 9000 3",
            "proc 1 300",
            f"gpu {second} 9000 501",
            f"gpu {third} 9000 500",
            f"gpu {fourth} 9000 3",
        )
        pool = new_pool(wish="free")
        assert (pool.count, pool.take(2)) == (4, None)
        assert _look_and_take(pool, 2) == [third, fourth]
        assert pool.take(1) is None

    def test_a_program_that_comes_and_goes(self, driver, new_pool, clock):
        """It is named with its user and its memory. The GPU is looked at again, at last every ten seconds, and is taken when it is free."""
        driver.write(driver.lines[0], f"proc {os.getpid()} 1200")
        pool = new_pool(wish="free")
        assert _look_and_take(pool) is None
        name, user = gpu_lease.process_name(os.getpid()), gpu_lease.user_of(os.geteuid())
        assert pool.notes == [
            f"a job waits for a GPU: {driver.names[0]}: process {os.getpid()} ({name}) of {user} uses 1200 MiB"
        ]
        for _ in range(20):
            clock.now += 10.0
            assert _look_and_take(pool) is None
        driver.write(driver.lines[0])
        clock.now += 9.9
        assert _look_and_take(pool) is None
        clock.now += 0.2
        assert _look_and_take(pool) == driver.names

    @pytest.mark.parametrize("is_another_in_use", [False, True])
    def test_what_another_run_gives_back_is_taken_at_once(self, driver, new_pool, clock, is_another_in_use):
        """However long it had it: the kernel tells that at once, and only programs that do not lease need a look now and then."""
        held, other = driver.names[:2]
        driver.write(driver.lines[0], driver.lines[1], *(["proc 1 1200"] if is_another_in_use else []))
        theirs, pool = new_pool("theirs"), new_pool(wish="free")
        assert theirs.take(1 if is_another_in_use else 2)
        for _ in range(20):
            clock.now += 10.0
            assert _look_and_take(pool) is None
        theirs.release([held, other])
        clock.now += 5.0
        assert _look_and_take(pool) == [held]

    def test_what_was_seen_counts_for_a_moment(self, driver, new_pool, clock):
        """A job that starts later looks again."""
        driver.write(*driver.lines[:2])
        pool = new_pool(wish="free")
        assert _look_and_take(pool) == driver.names[:1]
        driver.write(*driver.lines[:2], "proc 1 -1")
        clock.now += 2.0
        assert _look_and_take(pool) is None
        assert f"{driver.names[1]}: process 1 (" in pool.notes[0]
        assert pool.notes[0].endswith(" uses it")

    def test_a_job_that_has_ended_is_not_in_the_way_of_the_next(self, driver, new_pool, clock):
        """The look while it ran says nothing of the GPU now."""
        driver.write(driver.lines[0])
        pool = new_pool(wish="free")
        held = _look_and_take(pool)
        driver.write(driver.lines[0], "proc 1 1")
        clock.now += 2.0
        assert _look_and_take(pool) is None
        driver.write(driver.lines[0])
        pool.release(held)
        assert _look_and_take(pool) == held

    def test_our_own_process_that_waits_for_a_job_is_not_in_the_way(self, driver, new_pool, clock):
        """Nor is its memory. If the driver does not tell which process that is, it ends."""
        driver.write(f"gpu {driver.names[0]} 9000 2000", "proc 77 2000")
        pool = new_pool(wish="free")
        pool.waiting_processes = lambda: {77}
        assert _look_and_take(pool) == driver.names
        pool.release(driver.names)
        ended = []
        pool.end_waiting = lambda: ended.append(driver.write(f"gpu {driver.names[0]} 9000 3"))
        driver.write(f"gpu {driver.names[0]} 9000 2000")
        assert _look_and_take(pool) is None
        assert ended
        clock.now += 1.1
        assert _look_and_take(pool) == driver.names

    def test_memory_of_a_process_that_is_not_visible_counts(self, driver, new_pool, clock):
        """As where that process is in another container."""
        driver.write(f"gpu {driver.names[0]} 9000 700")
        pool = new_pool(wish="free")
        assert _look_and_take(pool) is None
        assert pool.notes[0].endswith("700 MiB of its memory are used, by a process that is not visible here")

    def test_where_leases_do_not_reach_programs_count_too(self, driver, new_pool, clock, monkeypatch):
        """In a container any GPU that is in use is left alone."""
        monkeypatch.setattr(gpu_lease, "covers_host", lambda: False)
        driver.write(driver.lines[0], "proc 1 1200", driver.lines[1])
        pool = new_pool()
        assert _look_and_take(pool) == driver.names[1:]

    def test_a_host_without_a_gpu_has_no_free_one(self, driver, new_pool):
        """It is no host for the run, rather than one that waits for ever."""
        driver.write("down")
        assert new_pool(wish="free").why == "free GPUs are asked for, and it has no GPU (Driver Not Loaded)"

    def test_a_driver_that_fails_later_is_the_reason_to_wait(self, driver, new_pool, clock):
        """It may come back."""
        driver.write(driver.lines[0])
        pool = new_pool(wish="free")
        names = driver.names
        driver.write("down")
        assert _look_and_take(pool) is None
        assert pool.notes == [f"a job waits for a GPU: {names[0]}: Driver Not Loaded"]

    def test_a_driver_that_tells_no_processes_is_told(self, driver, new_pool, monkeypatch):
        """Memory alone decides then."""
        driver.write(driver.lines[0], f"mig {driver.new_name('MIG')} 40 1")
        monkeypatch.setattr(system_gpus, "_LIBRARY", "libnone.so.1")
        assert "which programs use its GPUs cannot be read" in new_pool(wish="free").notes[0]


@pytest.fixture
def stepped(driver):
    """An agent whose loop the test turns, with four GPUs and a slot for each."""
    host = SteppedAgent()
    yield host
    host.close()


def _greet(host: SteppedAgent, *numbers: int, **hello):
    peer = host.controller(slots=None, **hello)
    for num in numbers:
        peer.say({"t": "job", "spec": spec(attempt_id=f"{num}.1", num=num)}, b"payload")
    host.settle()
    return peer


class TestQueue:
    """An attempt that waits for a GPU, as the queue sees it."""

    def test_it_starts_when_the_gpu_is_free(self, driver, stepped):
        """Others that have room start meanwhile only behind it: the first in the queue is the first to start."""
        sock = _squat(driver.names[0])
        _greet(stepped, 0, 1, gpus=[0])
        assert stepped.forks == []
        sock.close()
        stepped.settle()
        assert stepped.forks == ["0.1"]

    def test_it_is_not_claimed_while_it_waits_for_long(self, driver, stepped, monkeypatch):
        """A claimed attempt is lost if the host loses its power, and this one may wait for days."""
        monkeypatch.setattr(queue, "_LONG", 0.0)
        sock = _squat(driver.names[0])
        _greet(stepped, 0, gpus=[0])
        assert not stepped.agent.attempts.alive("0.1").is_claimed
        sock.close()
        stepped.settle()
        assert stepped.forks == ["0.1"]

    def test_nothing_is_held_for_an_attempt_that_goes(self, driver, stepped, monkeypatch):
        """It was cancelled, given back, or its application cannot be prepared."""
        peer = _greet(stepped, 0, gpus=[0])
        # It runs. The next ones wait for a claim that does not come, with their GPU.
        zygote, job = stepped.jobs()[0]
        monkeypatch.setattr(stepped.agent.attempts, "record_claim", lambda attempt: None)
        job.finish(b"")
        zygote.ended(job, 0)
        peer.say({"t": "job", "spec": spec(attempt_id="1.1", num=1)}, b"payload")
        stepped.settle()
        assert gpu_lease.take(driver.names[0], "r2") is None
        peer.say({"t": "take_back", "attempts": ["1.1"]})
        stepped.settle()
        gpu_lease.take(driver.names[0], "r2").close()
        peer.say({"t": "job", "spec": spec(attempt_id="2.1", num=2)}, b"payload")
        stepped.settle()
        assert gpu_lease.take(driver.names[0], "r2") is None
        peer.say({"t": "cancel", "attempts": ["2.1"], "kind": "cancelled", "why": ""})
        stepped.settle()
        gpu_lease.take(driver.names[0], "r2").close()

    def test_the_agent_holds_a_gpu_as_long_as_its_job_only(self, driver, stepped):
        """Then it is anybody's."""
        _greet(stepped, 0)
        zygote, job = stepped.jobs()[0]
        assert gpu_lease.holders()[driver.names[0]].attempt == "0.1"
        job.finish(b"")
        zygote.ended(job, 0)
        stepped.settle()
        assert not set(driver.names) & set(gpu_lease.holders())

    def test_a_host_that_lacks_them_is_no_host_for_the_run(self, stepped):
        """The welcome says why."""
        peer = _greet(stepped, gpus=[9])
        assert peer.all("welcome")[0]["too_small"].startswith("GPU 9 is asked for, and it has 0 GPU-")

    def test_it_starts_when_a_program_has_left_the_gpu(self, driver, stepped, monkeypatch):
        """With `gpus: free`."""
        monkeypatch.setattr(gpus, "_FIRST_PAUSE", 0.0)
        driver.write(driver.lines[0], "proc 1 1200")
        peer = _greet(stepped, 0, gpus="free")
        assert stepped.forks == []
        driver.write(driver.lines[0])

        def has_started() -> bool:
            stepped.settle()
            return bool(stepped.forks)

        wait_until(has_started, "the job to start")
        assert peer.all("started")

    def test_jobs_of_one_size_have_as_many_as_they_need(self, driver, stepped):
        """As many run as have room."""
        _greet(stepped, 0, 1, 2, needs={"gpus": 2, "cpus": 0, "memory": 0})
        assert stepped.forks == ["0.1", "1.1"]
        assert [len(job.leases) for _, job in stepped.jobs()] == [4, 4]


def _hold(host: AgentHost, client: Client, num: int, **more) -> str:
    """A job that has its GPUs until its gate is opened. Returns what it sees of them."""
    host.job(client, num, do="gpus", gate=host.gate(f"g{num}"), **more)
    return host.gpus_of(num)


def _connect(host: AgentHost, gpus=1) -> Client:
    return host.connect(hello={"slots": 1, "gpus": gpus})


@pytest.fixture
def runs(driver, new_agent) -> list[AgentHost]:
    """Two runs on the same host, which has one GPU."""
    driver.write(driver.lines[0])
    return [new_agent(patch=_AT_ONCE, callbacks={"c": ()}), new_agent(patch=_AT_ONCE)]


def _waits(client: Client) -> str:
    """Wait until the run says that a job waits. Returns why."""
    client.wait(lambda: "a job waits for a GPU" in client.notes(), "the reason")
    return client.notes()


class TestRuns:
    """Whole agents, with processes that die."""

    @pytest.mark.slow
    def test_two_runs_never_have_the_same_gpu(self, driver, new_agent):
        """Each takes one that the other has not."""
        driver.write(*driver.lines[:2])
        seen = [_hold(run, _connect(run), 0) for run in (new_agent(), new_agent())]
        assert sorted(seen) == sorted(driver.names)

    @pytest.mark.slow
    def test_a_run_waits_for_the_other_and_says_for_whom(self, driver, runs):
        """It goes on by itself when the job has ended."""
        first, second = map(_connect, runs)
        gpu = _hold(runs[0], first, 0)
        runs[1].job(second, 0, do="gpus")
        user = gpu_lease.user_of(os.geteuid())
        (pid,) = [one.pid for one in runs[0].started()]
        assert f"{gpu} has job 0 of run {runs[0].run} (process {pid} (" in _waits(second)
        assert f") of {user})" in second.notes()
        runs[0].open_gate("g0")
        assert runs[1].gpus_of(0) == gpu

    @pytest.mark.slow
    def test_a_job_whose_agent_is_dead_keeps_its_gpu(self, driver, runs):
        """The next agent of the run knows that. When the job has ended, the GPU is free."""
        first, second = map(_connect, runs)
        gpu = _hold(runs[0], first, 0)
        runs[0].kill_agent(first)
        runs[1].job(second, 0, do="gpus")
        assert f"{gpu} has job 0 of run {runs[0].run}" in _waits(second)
        again = _connect(runs[0])
        runs[0].job(again, 1, do="gpus")
        runs[0].open_gate("g0")
        again.result("0.1")
        assert {runs[1].gpus_of(0), runs[0].gpus_of(1)} == {gpu}
        assert len(runs[0].lines("gpus")) == 2

    @pytest.mark.slow
    def test_a_job_whose_zygote_is_dead_keeps_its_gpu(self, driver, runs):
        """And another one that starts meanwhile does not get it."""
        first, second = map(_connect, runs)
        _hold(runs[0], first, 0)
        (zygote,) = runs[0].zygote_pids()
        os.kill(zygote, signal.SIGKILL)
        wait_gone(zygote, "the zygote")
        runs[1].job(second, 0, do="gpus")
        assert "has job 0 of run" in _waits(second)
        runs[0].open_gate("g0")
        assert runs[1].gpus_of(0) == driver.names[0]

    @pytest.mark.slow
    def test_a_job_that_is_killed_has_its_gpu_for_its_end_hooks(self, driver, new_agent):
        """After them it is free."""
        driver.write(driver.lines[0])
        run, other = new_agent(patch=_AT_ONCE, callbacks={"c": ()}), new_agent(patch=_AT_ONCE)
        with open(run.code / "app.py", "a") as file:
            file.write(
                "\nclass Hooks:\n    def __init__(self, name): pass\n    def on_job_end(self, config, job_return, **kwargs):\n"
                "        note('gpus', '9 ' + os.environ['CUDA_VISIBLE_DEVICES'])\n        gate('end')\n"
            )
        run.gate("end")
        client, second = _connect(run), _connect(other)
        gpu = _hold(run, client, 0)
        os.kill(run.started()[0].pid, signal.SIGKILL)
        assert run.gpus_of(9) == gpu
        other.job(second, 0, do="gpus")
        assert f"{gpu} has job 0 of run {run.run}" in _waits(second)
        run.open_gate("end")
        assert client.error("0.1")["kind"] == "killed"
        assert other.gpus_of(0) == gpu

    @pytest.mark.slow
    def test_end_hooks_without_a_gpu_where_another_run_has_taken_it_since(self, driver, runs):
        """Agent and job were killed, so the GPU was free for a moment."""
        with open(runs[0].code / "app.py", "a") as file:
            file.write(
                "\nclass Hooks:\n    def __init__(self, name): pass\n    def on_job_end(self, config, job_return, **kwargs):\n"
                "        note('gpus', '9 (' + os.environ['CUDA_VISIBLE_DEVICES'] + ')')\n"
            )
        first, second = map(_connect, runs)
        gpu = _hold(runs[0], first, 0)
        runs[0].kill_agent(first)
        (pid,) = [one.pid for one in runs[0].started()]
        os.kill(pid, signal.SIGKILL)
        assert _hold(runs[1], second, 0) == gpu
        again = _connect(runs[0])
        assert again.error("0.1")["kind"] == "killed"
        assert runs[0].gpus_of(9) == "()"

    @pytest.mark.slow
    def test_when_everything_is_killed_the_gpu_is_free(self, driver, runs):
        """No file is left to clean up."""
        first, second = map(_connect, runs)
        gpu = _hold(runs[0], first, 0)
        for pid in [runs[0].agent_pid(first), *runs[0].zygote_pids(), runs[0].started()[0].pid]:
            os.kill(pid, signal.SIGKILL)
            wait_gone(pid)
        assert _hold(runs[1], second, 0) == gpu

    @pytest.mark.slow
    def test_a_child_that_outlives_its_job_has_the_gpu(self, driver, new_agent):
        """Also in a session of its own, until it ends or is ended."""
        driver.write(driver.lines[0])
        patch = f"{_AT_ONCE}\nimport remote_agent.agent.jobs.reaper as reaper; reaper.SWEEP_AFTER = 1000.0"
        run, other = new_agent(patch=patch), new_agent(patch=_AT_ONCE)
        with open(run.code / "app.py", "a") as file:
            file.write(
                "\ndef task(cfg):\n    note('gpus', '0 ' + os.environ['CUDA_VISIBLE_DEVICES'])\n    pid = os.fork()\n"
                "    if pid == 0:\n        os.setsid()\n        gate('child')\n        os._exit(0)\n"
            )
        run.gate("child")
        client, second = _connect(run), _connect(other)
        client.result(run.job(client, 0))
        other.job(second, 0, do="gpus")
        assert f"{driver.names[0]} has job 0 of run {run.run}" in _waits(second)
        run.open_gate("child")
        assert other.gpus_of(0) == driver.names[0]

    @pytest.mark.slow
    def test_a_process_that_stays_for_the_next_job_holds_nothing_between_two(self, driver, new_agent):
        """Another run gets the GPU, and the same process does the next job, with the GPU."""
        driver.write(driver.lines[0])
        run, other = new_agent(isolation="reuse", patch=_AT_ONCE), new_agent(patch=_AT_ONCE)
        client, second = _connect(run), _connect(other)
        client.result(run.job(client, 0, do="gpus"))
        gpu = _hold(other, second, 0)
        assert gpu == driver.names[0]
        run.job(client, 1, do="gpus", gate=run.gate("g1"))
        assert f"has job 0 of run {other.run}" in _waits(client)
        other.open_gate("g0")
        assert run.gpus_of(1) == gpu
        assert gpu_lease.holders()[gpu].attempt == "1.1"
        first, again = run.started(2)
        assert first.pid == again.pid
        run.open_gate("g1")
        client.result("1.1")
        assert _hold(other, second, 2) == gpu

    @pytest.mark.slow
    def test_a_run_of_another_user_keeps_off(self, driver, new_agent):
        """Each names the other's user, run and job."""
        need_root()
        python = need_files("/usr/bin/python3")
        driver.write(driver.lines[0])
        run = new_agent(patch=_AT_ONCE)
        folder = Path(tempfile.mkdtemp(prefix="other-user-"))
        folder.chmod(0o755)
        try:
            # Below a folder that this user can reach.
            shutil.copytree(run.bundle, folder / "bundle")
            shutil.copytree(driver.folder, folder / "driver")
            for path in folder.rglob("*"):
                os.chown(path, _OTHER_USER, _OTHER_USER)
            other = AgentHost(
                folder / "root", folder / "bundle", run="theirs", patch=_AT_ONCE, user=_OTHER_USER, python=python,
                variables={"PATH": f"{folder}/driver:{os.environ['PATH']}", "FALSE_NVML": str(folder / "driver/gpus"), "LD_LIBRARY_PATH": str(folder / "driver")},
            )  # fmt: skip
            mine, theirs = _connect(run), _connect(other)
            gpu = _hold(run, mine, 0)
            other.job(theirs, 5, do="gpus", gate=other.gate("g5"))
            assert f"{gpu} has job 0 of run {run.run} (process " in _waits(theirs)
            assert f") of {gpu_lease.user_of(os.geteuid())})" in theirs.notes()
            run.open_gate("g0")
            assert other.gpus_of(5) == gpu
            run.job(mine, 1, do="gpus")
            assert f"{gpu} has job 5 of run theirs (process " in _waits(mine)
            assert f") of user {_OTHER_USER})" in mine.notes()
            other.open_gate("g5")
            assert run.gpus_of(1) == gpu
        finally:
            other.stop()
            wait_until(lambda: not other.processes(), "their processes to end")
            shutil.rmtree(folder)
