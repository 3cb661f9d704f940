"""The queue of a host: which attempts wait, start, or go back to the controller."""

from __future__ import annotations

import json
import os

import pytest

from remote_agent.agent.jobs import queue
from remote_agent.agent.resources import cpus
from remote_agent.agent.resources.gpus import GpuPool
from remote_agent.agent.resources.shares import Shares
from remote_agent.agent.spool.attempt import Attempt
from remote_agent.agent.spool.log import SpoolLog
from remote_agent.agent.spool.records import apply_record
from remote_agent.protocol.constants import THREADS
from remote_agent.shared.room import SizedQueue
from remote_agent.system import gpus as system_gpus
from remote_agent.system.gpus import Gpu, Survey
from tests.remote_agent.agent.test_agent_machine import spec
from tests.remote_agent.stepped_agent import Peer, SteppedAgent
from tests.specs import zygote_spec


@pytest.fixture
def host():
    """An agent with two slots."""
    host = SteppedAgent()
    yield host
    host.close()


def _send(peer: Peer, *numbers: int) -> None:
    for num in numbers:
        peer.say({"t": "job", "spec": spec(attempt_id=f"{num}.1", num=num)}, b"payload")


def _finish_first(host: SteppedAgent) -> None:
    zygote, job = host.jobs()[0]
    job.finish(b"result")
    zygote.ended(job, 0)
    host.settle()


def test_jobs_start_in_order_as_slots_become_free(host):
    """Two slots run two jobs. Each job that ends lets the next one start."""
    peer = host.controller()
    _send(peer, 0, 1, 2, 3)
    host.settle()
    assert host.forks == ["0.1", "1.1"]
    _finish_first(host)
    assert host.forks == ["0.1", "1.1", "2.1"]
    _finish_first(host)
    assert host.forks == ["0.1", "1.1", "2.1", "3.1"]


def test_a_job_that_is_sent_again_waits_once(host):
    """The second message changes nothing."""
    peer = host.controller()
    _send(peer, 0, 1, 2, 2)
    host.settle()
    for _ in range(3):
        _finish_first(host)
    assert host.forks == ["0.1", "1.1", "2.1"]


def test_a_job_that_is_cancelled_while_it_waits_never_starts(host):
    """It has its result at once, with the reason. The next job starts in its place."""
    peer = host.controller()
    _send(peer, 0, 1, 2, 3)
    host.settle()
    peer.say({"t": "cancel", "attempts": ["2.1"], "kind": "cancelled", "why": "not needed"})
    host.settle()
    (final,) = peer.all("final")
    assert (final["attempt"], final["envelope"]["error"]["message"]) == ("2.1", "not needed")
    _finish_first(host)
    assert host.forks == ["0.1", "1.1", "3.1"]


def test_a_disk_that_fails_gives_waiting_jobs_back(host, monkeypatch):
    """Jobs that have not started go back to the controller with the reason, because another host's disk may work."""
    peer = host.controller()
    _send(peer, 0, 1, 2, 3)
    host.settle()

    def fail() -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(host.agent.attempts.log, "flush", fail)
    _send(peer, 4)
    host.settle()
    assert sorted(one["attempt"] for one in peer.all("dropped")) == ["2.1", "3.1", "4.1"]
    assert all("Input/output error" in one["why"] for one in peer.all("dropped"))
    monkeypatch.undo()


@pytest.mark.parametrize("slots", [0, -1, "many", 1 << 20])
def test_an_invalid_number_of_slots_is_refused(host, slots):
    """The error names the field, and the hello replaces no link."""
    peer = host.connect()
    peer.say({"t": "hello", "version": 1, "run": "r1", "controller": "c", "host": "h", "slots": slots})
    host.settle()
    (fatal,) = peer.all("fatal")
    assert (fatal["code"], "slots" in fatal["message"]) == ("field", True)


class TestTakingBack:
    """A controller asks for jobs that wait here, because another host is idle."""

    def test_a_job_that_waits_is_given_back_and_never_starts(self, host):
        """Those that were not asked for run in their order."""
        peer = host.controller()
        _send(peer, 0, 1, 2, 3, 4)
        host.settle()
        peer.say({"t": "take_back", "attempts": ["2.1", "4.1"]})
        host.settle()
        assert [(one["attempt"], one["asked"]) for one in peer.all("dropped")] == [("2.1", True), ("4.1", True)]
        for _ in range(3):
            _finish_first(host)
        assert host.forks == ["0.1", "1.1", "3.1"]

    def test_a_job_that_has_started_stays(self, host):
        """The answer says again that it has started."""
        peer = host.controller()
        _send(peer, 0, 1)
        host.settle()
        peer.say({"t": "take_back", "attempts": ["0.1", "7.1"]})
        host.settle()
        assert peer.all("dropped") == []
        assert [one["attempt"] for one in peer.all("started")] == ["0.1", "1.1", "0.1"]
        _finish_first(host)
        assert [one["attempt"] for one in peer.all("final")] == ["0.1"]

    def test_a_job_that_was_given_back_is_not_known_any_more(self, host):
        """A later welcome does not list it, and neither does what is on the disk."""
        peer = host.controller()
        _send(peer, 0, 1, 2, 3)
        host.settle()
        peer.say({"t": "take_back", "attempts": ["2.1"]})
        host.settle()
        welcome = next(frame for frame in host.controller().frames if frame.header["t"] == "welcome")
        assert json.loads(welcome.payload) == {"0.1": "running", "1.1": "running", "3.1": "queued"}
        records = []
        log = SpoolLog(host.agent.attempts.log.path)
        log.replay(lambda header, reference: records.append((header["r"], header["a"])))
        log.close()
        assert ("acked", "2.1") in records

    def test_the_same_attempt_may_come_back(self, host):
        """An answer that was lost costs nothing: the job is sent again, and starts once."""
        peer = host.controller()
        _send(peer, 0, 1, 2)
        host.settle()
        peer.say({"t": "take_back", "attempts": ["2.1"]})
        host.settle()
        _send(peer, 2)
        _finish_first(host)
        assert host.forks == ["0.1", "1.1", "2.1"]


#: Nobody else on this machine has these.
GPUS = [f"GPU-{os.getpid()}-{name}" for name in "abc"]


@pytest.fixture
def large(monkeypatch):
    """An agent on a host with eight CPUs and three GPUs."""
    monkeypatch.setattr(queue, "usable_cpu_ids", lambda: [2, 3, 4, 5, 6, 7, 8, 9])
    monkeypatch.setattr(queue, "usable_cpus", lambda: 8)
    found = [Gpu(name, "", "", None, None, None) for name in GPUS]
    monkeypatch.setattr(system_gpus, "survey", lambda: Survey(found, "nvml", ""))
    monkeypatch.setattr(cpus, "NAME", f"\0test-{os.getpid()}/cpu/{{}}")
    host = SteppedAgent()
    yield host
    host.close()


class TestSizes:
    """A run says what each job needs, and a job may say it itself."""

    @staticmethod
    def _greet(host: SteppedAgent, **more) -> Peer:
        peer = host.connect()
        peer.say({"t": "hello", "version": 1, "run": "r1", "controller": "c", "host": "h", "slots": None, **more})
        peer.say({"t": "prepare", "zygote": "z", "spec": zygote_spec().to_json()})
        peer.say({"t": "go"})
        host.settle()
        return peer

    @staticmethod
    def _send(peer: Peer, **jobs: dict | None) -> None:
        for num, needs in enumerate(jobs.values()):
            peer.say({"t": "job", "spec": spec(attempt_id=f"{num}.1", num=num, needs=needs)}, b"payload")

    @staticmethod
    def _shares(host: SteppedAgent) -> dict:
        return {one.id: (one.cpus, one.gpus) for one in host.agent.attempts.active()}

    def test_slots_are_what_fits(self, large):
        """Each job gets its CPUs, and no GPU if it asks for none."""
        peer = self._greet(large, needs={"cpus": 3})
        (welcome,) = peer.all("welcome")
        assert (welcome["slots"], welcome["too_small"]) == (2, "")
        _send(peer, 0, 1, 2)
        large.settle()
        assert self._shares(large) == {"0.1": ([2, 3, 4], []), "1.1": ([5, 6, 7], [])}

    def test_a_job_of_another_size_starts_when_there_is_room_for_it(self, large):
        """What it needs decides, and not a number of slots."""
        peer = self._greet(large, needs={"cpus": 1, "gpus": 1})
        self._send(peer, a={"cpus": 6, "gpus": 2}, b=None, c={"cpus": 1}, d={"cpus": 1})
        large.settle()
        assert self._shares(large) == {
            "0.1": ([2, 3, 4, 5, 6, 7], GPUS[:2]),
            "1.1": ([8], GPUS[2:]),
            "2.1": ([9], []),
        }
        _finish_first(large)
        assert self._shares(large)["3.1"] == ([2], [])

    def test_a_large_job_is_not_held_up_by_small_ones(self, large):
        """They pass it only while there is room for all of them beside it."""
        peer = self._greet(large, needs={"cpus": 2})
        self._send(peer, a=None, b={"cpus": 7}, c={"cpus": 1}, d={"cpus": 1})
        large.settle()
        assert large.forks == ["0.1", "2.1"]
        _finish_first(large)
        assert large.forks == ["0.1", "2.1", "1.1"]

    def test_a_job_without_a_size_beside_jobs_with_one_has_a_slot(self, large):
        """In a run that does not say what a job needs: one GPU, and a third of the rest. It is kept to no CPUs."""
        peer = self._greet(large)
        assert peer.all("welcome")[0]["slots"] == 3
        self._send(peer, a=None, b={"cpus": 3, "gpus": 2}, c=None)
        large.settle()
        assert self._shares(large) == {"0.1": ([], GPUS[:1]), "1.1": ([2, 3, 4], GPUS[1:])}
        _finish_first(large)
        assert self._shares(large)["2.1"] == ([], GPUS[:1])

    @pytest.mark.parametrize(("slots", "gpus"), [(2, [0, 1]), (5, [0, 1, 2, 0, 1])])
    def test_more_slots_than_gpus_share_them_in_turn(self, large, slots, gpus):
        """Fewer have their own. A job that asks for GPUs waits until one has no other job."""
        peer = self._greet(large, slots=slots)
        _send(peer, *range(slots + 1))
        large.settle()
        assert [one[1] for one in self._shares(large).values()] == [[GPUS[gpu]] for gpu in gpus]
        peer.say({"t": "job", "spec": spec(attempt_id="9.1", num=9, needs={"gpus": 1, "cpus": 1})}, b"payload")
        while "9.1" not in large.forks:
            _finish_first(large)
        shares = self._shares(large)
        (mine,) = shares.pop("9.1")[1]
        assert all(mine not in others for _, others in shares.values())

    def test_a_job_that_is_too_large_fails_by_name_and_the_others_run(self, large):
        """With what the host has. It holds up nothing."""
        peer = self._greet(large, needs={"cpus": 1})
        self._send(peer, a={"cpus": 9, "gpus": 1}, b=None)
        large.settle()
        (final,) = peer.all("final")
        error = final["envelope"]["error"]
        assert (final["attempt"], error["kind"]) == ("0.1", "host")
        assert error["message"] == "a job needs 1 GPU, 9 CPUs, and it has 8 CPUs"
        assert large.forks == ["1.1"]

    def test_a_run_for_which_the_host_is_too_small_starts_nothing(self, host):
        """The welcome says so, too, and says what there is."""
        peer = self._greet(host, needs={"cpus": 8}, size={"cpus": 4, "memory": 5})
        (welcome,) = peer.all("welcome")
        assert welcome["too_small"] == "a job needs 8 CPUs, and it has 4 CPUs"
        assert welcome["room"]["has"] == {"gpus": 0, "cpus": 4, "memory": 5}
        _send(peer, 0)
        host.settle()
        assert (host.forks, len(peer.all("final"))) == ([], 1)

    def test_threads_of_a_job_of_another_size_follow_its_cpus(self, large, monkeypatch):
        """Unless the user says how many: here for one library, in the login."""
        for name in THREADS:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("MKL_NUM_THREADS", "5")
        peer = self._greet(large, needs={"cpus": 1})
        self._send(peer, a={"cpus": 4}, b=None)
        large.settle()
        specs = [large.agent.running.fork_spec(one, "") for one in large.agent.attempts.active()]
        told = [{name: one.slot_env[name] for name in THREADS if name in one.slot_env} for one in specs]
        assert told == [dict.fromkeys([one for one in THREADS if one != "MKL_NUM_THREADS"], "4"), {}]
        assert specs[0].threads == 1

    def test_an_agent_that_takes_up_the_spool_leaves_jobs_what_they_have(self, large):
        """No GPU and no CPU of a job that still runs goes to another one."""
        peer = self._greet(large, needs={"cpus": 2, "gpus": 1})
        _send(peer, 0)
        large.settle()
        attempt = large.agent.attempts.get("0.1")
        again = Attempt(attempt.spec)
        large.agent.attempts.log.flush()
        log = SpoolLog(large.agent.attempts.log.path)
        log.replay(lambda header, reference: apply_record(again, header["r"], header, reference))
        log.close()
        assert (again.slot, again.gpus, again.cpus) == (0, GPUS[:1], [2, 3])
        pool = GpuPool("r1", lambda text: None, large.agent.background)
        assert pool.choose(None) == ""
        pool.adopt(again.gpus)
        shares = Shares(large.agent.queue.shares.room, pool, cpus.Cpus([2, 3, 4, 5]), is_sized=True)
        shares.restore([again])
        waiting = SizedQueue()
        other = Attempt(attempt.spec._replace(num=1))
        waiting.append(other, None)
        assert shares.reserve([other]) == [other]
        assert shares.take(waiting)
        assert (other.slot, other.gpus, other.cpus) == (1, GPUS[1:2], [4, 5])
        shares.close()
        pool.close()

    def test_needs_that_make_no_sense_are_refused(self, host):
        """The link ends, and names the field."""
        (fatal,) = self._greet(host, needs={"cpus": -1}).all("fatal")
        assert "resources: cpus is -1" in fatal["message"]
