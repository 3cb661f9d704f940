"""A real agent whose jobs share processes: what happens to one of them costs no other."""

from __future__ import annotations

import os
import signal

import pytest

from tests.gpus import FalseGpus
from tests.remote_agent.agents import AgentHost, wait_gone, wait_until
from tests.requirements import READS_PROC


@pytest.fixture
def host(new_agent) -> AgentHost:
    """A host with one callback, one slot, and workers."""
    return new_agent(callbacks={"c": ()}, isolation="reuse")


def pids(host: AgentHost, count: int) -> list[int]:
    """The process of each job, in the order of their starts."""
    return [job.pid for job in host.started(count)]


def parent(pid: int) -> int:
    """The zygote of a job's process."""
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def test_jobs_take_turns_in_one_process(host):
    """Each has its hooks, its result and its output, and the log says when its process went on."""
    client = host.connect()
    attempts = [host.job(client, num, do="print", blocks=num) for num in range(4)]
    assert [client.value(attempt) for attempt in attempts] == [0, 1, 2, 3]
    assert len(set(pids(host, 4))) == 1
    assert [len(client.stream(attempt)) for attempt in attempts] == [num * 65536 for num in range(4)]
    assert host.lines("hooks") == [
        f"{line} c {num}{seen}" for num in range(4) for line, seen in (("start", ""), ("end", f" {num} "))
    ]
    assert [line["a"] for line in host.log_lines() if line["r"] == "over"] == attempts


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"do": "signal", "signal": 9}, "killed"),
        pytest.param({"do": "signal", "signal": 11}, "killed", marks=pytest.mark.slow),
        pytest.param({"do": "exit", "code": 0}, "exited", marks=pytest.mark.slow),
    ],
)
def test_a_crash_costs_its_own_job_alone(host, config, kind):
    """Its end hooks fire in an epilogue. The jobs before and after it complete, the latter in another process."""
    client = host.connect()
    attempts = [host.job(client, num, **(config if num == 2 else {})) for num in range(5)]
    assert client.error(attempts[2])["kind"] == kind
    assert [client.value(attempts[num]) for num in (0, 1, 3, 4)] == [0, 1, 3, 4]
    first, second, crashed, *later = pids(host, 5)
    assert first == second == crashed
    assert len(set(later)) == 1
    assert later[0] != first
    assert f"end c 2 2 {kind}" in host.lines("hooks")


@pytest.mark.slow
def test_a_job_that_fails_ends_no_worker(host):
    """An exception of the task is a result like any other."""
    client = host.connect()
    failed, after = host.job(client, 0, do="raise"), host.job(client, 1)
    assert client.error(failed)["type"] == "ValueError"
    assert client.value(after) == 1
    assert len(set(pids(host, 2))) == 1


@pytest.mark.parametrize("why", ["cancelled", pytest.param("timeout", marks=pytest.mark.slow)])
def test_a_job_that_is_ended_ends_its_worker(host, why):
    """Its end hooks fire, and the next job gets another process: what comes for the one cannot reach the other."""
    client = host.connect()
    gate = host.gate("g")
    before = host.job(client, 0)
    ended = host.job(client, 1, do="gate", gate=gate, spec={"timeout": 0.5 if why == "timeout" else None})
    after = host.job(client, 2)
    first, second = pids(host, 2)
    assert first == second
    if why == "cancelled":
        client.send({"t": "cancel", "attempts": [ended]})
    assert client.error(ended)["kind"] == why
    assert (client.value(before), client.value(after)) == (0, 2)
    assert pids(host, 3)[2] != first
    assert f"end c 1 1 {why}" in host.lines("hooks")


@pytest.mark.slow
def test_a_leftover_thread_has_the_shutdown_of_any_job(host):
    """It is named and killed after `shutdown_timeout`. The next job gets another process."""
    client = host.connect()
    hanging = host.job(client, 0, do="thread", spec={"shutdown_timeout": 0.5})
    after = host.job(client, 1)
    assert client.value(hanging) == 0
    cut = client.expect("files_end", attempt=hanging).header["cut"]
    assert any("thread" in one for one in cut["running"])
    assert client.value(after) == 1
    assert len(set(pids(host, 2))) == 2


@pytest.mark.slow
def test_a_worker_that_is_killed_while_it_waits_costs_nothing(host):
    """The next job gets another process."""
    client = host.connect()
    client.result(host.job(client, 0))
    (first,) = pids(host, 1)
    os.kill(first, signal.SIGKILL)
    wait_gone(first, "the worker")
    assert client.value(host.job(client, 1)) == 1
    assert pids(host, 2)[1] != first


@pytest.mark.slow
def test_a_worker_that_is_killed_before_it_has_begun_a_job_costs_nothing(host):
    """The job has not begun, so it starts once more. It runs once."""
    client = host.connect()
    client.result(host.job(client, 0))
    (first,) = pids(host, 1)
    os.kill(first, signal.SIGSTOP)
    given = host.job(client, 1)
    client.expect("started", attempt=given)
    os.kill(first, signal.SIGKILL)
    assert client.value(given) == 1
    assert [job.num for job in host.started(2)] == [0, 1]
    assert host.lines("hooks").count("start c 1") == 1


@pytest.mark.slow
def test_a_zygote_that_is_killed_costs_no_job(host):
    """The job that a worker does goes on. The worker gets no other one, because nobody would report its end."""
    client = host.connect()
    gate = host.gate("g")
    first, going_on = host.job(client, 0), host.job(client, 1, do="gate", gate=gate)
    (worker,) = set(pids(host, 2))
    zygote = parent(worker)
    os.kill(zygote, signal.SIGKILL)
    wait_gone(zygote, "the zygote")
    after = host.job(client, 2)
    host.open_gate(gate)
    assert [client.value(attempt) for attempt in (first, going_on, after)] == [0, 1, 2]
    wait_gone(worker, "the worker")
    assert pids(host, 3)[2] != worker


@pytest.mark.slow
def test_workers_that_wait_end_with_their_zygote(host):
    """The next job gets a process of the next zygote."""
    client = host.connect()
    client.result(host.job(client, 0))
    (worker,) = pids(host, 1)
    os.kill(parent(worker), signal.SIGKILL)
    wait_gone(worker, "the worker")
    assert client.value(host.job(client, 1)) == 1


@pytest.mark.slow
def test_an_agent_that_is_killed_loses_no_job(host):
    """The next agent knows which of the jobs of a process is over, and which one the process still does. Each runs once."""
    client = host.connect()
    gate = host.gate("g")
    over, running, queued = host.job(client, 0), host.job(client, 1, do="gate", gate=gate), host.job(client, 2)
    client.result(over)
    (worker,) = set(pids(host, 2))
    host.kill_agent(client)
    client.cut()

    again = host.connect()
    assert host.known(again) == {over: "final", running: "running", queued: "queued"}
    again.result(over)
    host.open_gate(gate)
    assert [again.value(attempt) for attempt in (over, running, queued)] == [0, 1, 2]
    wait_gone(worker, "the worker")
    assert sorted(job.num for job in host.started(3)) == [0, 1, 2]
    assert sorted(line for line in host.lines("hooks") if "start" in line) == [f"start c {num}" for num in range(3)]


@pytest.mark.slow
def test_the_timeout_of_an_adopted_job_counts_from_its_own_start(host):
    """Its process is much older: it had another job before."""
    client = host.connect()
    gate = host.gate("g")
    client.result(host.job(client, 0))
    second = host.job(client, 1, do="gate", gate=gate, spec={"timeout": 600.0})
    host.started(2)
    host.kill_agent(client)
    client.cut()
    host.patch = "import remote_agent.agent.jobs.reaper as reaper; reaper.age = lambda pid: 1e6"
    again = host.connect()
    # It fails if nobody waits there any more.
    with open(os.open(host.code / gate, os.O_WRONLY | os.O_NONBLOCK), "w") as file:
        file.write("go")
    assert again.value(second) == 1


@pytest.mark.slow
def test_workers_end_with_the_run(host):
    """No process is left."""
    client = host.connect()
    client.result(host.job(client, 0))
    (worker,) = pids(host, 1)
    client.send({"t": "finish"})
    wait_gone(worker, "the worker")
    client.wait_over()
    wait_until(lambda: not host.processes(), "everything to end")


@pytest.mark.slow
def test_a_worker_whose_end_hangs_ends_with_the_run(host):
    """It is killed, as nothing of a run may be left."""
    with open(host.code / "app.py", "a") as file:
        file.write("\nimport atexit\natexit.register(signal.pause)\n")
    client = host.connect()
    client.result(host.job(client, 0))
    (worker,) = pids(host, 1)
    client.send({"t": "finish"})
    wait_gone(worker, "the worker")


@pytest.mark.slow
def test_a_long_payload_gets_a_new_process(host):
    """A worker would have to take it in pieces."""
    client = host.connect()
    client.result(host.job(client, 0))
    assert client.value(host.job(client, 1, value="x" * 100_000)) == "x" * 100_000
    assert len(set(pids(host, 2))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("gpus", [0, pytest.param(2, marks=READS_PROC)])
def test_a_worker_keeps_its_gpu(host, gpus, tmp_path, monkeypatch):
    """Jobs at the same time have a process each, and later ones the process that had their GPU. The slot's number may be another."""
    FalseGpus.make(tmp_path / "driver", monkeypatch, gpus)
    client = host.connect(hello={"slots": 2, "gpus": gpus})
    gates = [host.gate(f"g{num}") for num in range(2)]
    attempts = [host.job(client, num, do="gpus", gate=gate) for num, gate in enumerate(gates)]
    host.started(2)
    attempts += [host.job(client, num, do="gpus") for num in (2, 3)]
    for gate in gates:
        host.open_gate(gate)
    for attempt in attempts:
        client.value(attempt)
    seen: dict[int, set[str]] = {}
    for job in host.started(4):
        seen.setdefault(job.pid, set()).add(host.gpus_of(job.num))
    assert [len(one) for one in seen.values()] == [1, 1]
    assert len(set.union(*seen.values())) == max(gpus, 1)
