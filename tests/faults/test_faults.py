"""What still holds when something breaks. Each fault hits a real OpenSSH host in its own namespaces."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import launcher
from benchmarks.proxy import running_proxy
from launcher import events
from launcher.agents import link
from tests.faults.injection import (
    FAULTS,
    FaultyRun,
    control_group,
    fault,
    firewall,
    kill_matching,
    lines,
    load_app,
    open_gate,
    pids_of,
    small_disk,
    through,
)
from tests.gpus import FalseGpus
from tests.hosts.openssh import OpenSshHost, running_openssh_host

pytestmark = [pytest.mark.openssh, pytest.mark.faults]

TABLE = Path(__file__).parent.parent.parent / "docs" / "faults.md"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[OpenSshHost]:
    """A host for this test alone, because it will be broken."""
    with running_openssh_host(tmp_path / "host") as running:
        yield running


@pytest.fixture
def app() -> Any:
    """The application."""
    return load_app()


@pytest.fixture
def quick_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notice a silent link after two seconds instead of twenty."""
    monkeypatch.setattr(link, "HEARTBEAT", 2.0)


def is_unknown(run: FaultyRun) -> bool:
    """Whether the link is known to be gone."""
    return bool(run.of(events.HostUnknown))


def told_of(run: FaultyRun, text: str) -> bool:
    """Whether the user was told."""
    return any(text in one.message for one in run.of(events.Note))


@fault("SSH session killed while jobs run", "jobs go on; reconnected; each result once, nothing run twice")
def test_session_killed(host: OpenSshHost, app: Any, tmp_path: Path) -> None:
    """The host counts as unknown, not as failed, and the link is made again."""
    run = FaultyRun(tmp_path).start(app.gated, 6, [host.spec(slots=2)])
    run.wait_started(2)
    assert host.kill_sessions()
    run.wait_for("the link to be unknown", lambda: is_unknown(run))
    assert not run.of(events.JobReturned)
    open_gate(host)
    run.check_nothing_lost(host, 6)
    assert any(event.reconnected for event in run.of(events.HostReady))


@fault("link flapping 20 times", "as one drop: each result once, nothing run twice")
def test_link_flapping(host: OpenSshHost, app: Any, tmp_path: Path) -> None:
    """Every new link learns from the spool what happened."""
    run = FaultyRun(tmp_path).start(app.gated, 8, [host.spec(slots=2)])
    run.wait_started(1)
    for number in range(20):
        run.wait_for(
            "a link",
            lambda number=number: len(run.of(events.HostReady)) > number or run.returns is not None,  # type: ignore[misc]
        )
        if number == 15:
            open_gate(host)
        if run.returns is not None or not host.kill_sessions():
            break
        run.wait_for(
            "the cut to be seen",
            lambda number=number: len(run.of(events.HostUnknown)) > number or run.returns is not None,  # type: ignore[misc]
        )
    open_gate(host)
    run.check_nothing_lost(host, 8)


@fault(
    "link lost ten times while output files of a running job come",
    "a file here is at any time a beginning of what it is in the end; in the end all is as on the host",
)
def test_links_lost_while_files_come(host: OpenSshHost, app: Any, tmp_path: Path) -> None:
    """What was not confirmed is sent again, at its place."""
    log = tmp_path / "sweep" / "0" / "log"
    seen: list[str] = []
    run = FaultyRun(tmp_path).start(app.logs, 1, [host.spec(slots=1)], sync_outputs=1)
    for number in range(10):
        size = len(seen[-1]) if seen else 0
        run.wait_for("more of the file", lambda size=size: log.exists() and log.stat().st_size > size)  # type: ignore[misc]
        assert host.kill_sessions()
        seen.append(log.read_text(encoding="utf-8"))
        run.wait_for("another link", lambda number=number: len(run.of(events.HostReady)) > number + 1)  # type: ignore[misc]
    open_gate(host)
    (one,) = run.finish()
    assert log.read_text(encoding="utf-8") == one.return_value
    assert all(one.return_value.startswith(text) for text in seen)
    assert sorted(path.name for path in log.parent.iterdir()) == [".hydra", ".launcher", "log", "logs.log"]
    assert not (log.parent / ".launcher" / "synced").exists()


@fault(
    "host given up after output files of its running job have come, and the job runs again on another one",
    "in the end there are the files of that attempt, and nothing of the one before",
)
def test_host_given_up_after_files_came(host: OpenSshHost, app: Any, tmp_path: Path) -> None:
    """The next attempt begins anew, and what came of the one before goes at its end."""
    here = tmp_path / "sweep" / "0"
    with running_openssh_host(tmp_path / "other", "other-host") as other:
        run = FaultyRun(tmp_path).start(
            app.logs,
            1,
            [host.spec(slots=1), other.spec(slots=1)],
            on_host_loss="retry",
            host_loss_timeout=1,
            sync_outputs=1,
        )
        run.wait_for("a file", lambda: list(here.glob("only-on-*")))
        first = run.of(events.JobAssigned)[0].host
        lost, kept = (host, other) if first == host.name else (other, host)
        with firewall(lost):
            lost.kill_sessions()
            run.wait_for("it to be given up", lambda: run.of(events.HostLost), 90)
            run.wait_for("the other attempt", lambda: len(run.of(events.AttemptStarted)) > 1)
            open_gate(kept)
            (one,) = run.finish()
        assert (one.host, one.attempt) == (kept.name, 2)
        assert (here / "log").read_text(encoding="utf-8") == one.return_value
        assert sorted(path.name for path in here.iterdir()) == [".hydra", ".launcher", "log", "logs.log"]


@fault(
    "session stopped (SIGSTOP): the link stands, nobody answers", "found by the heartbeat; reconnected; nothing lost"
)
def test_session_frozen(host: OpenSshHost, app: Any, tmp_path: Path, quick_heartbeat: None) -> None:
    """Only the application's heartbeat notices a stopped sshd."""
    run = FaultyRun(tmp_path).start(app.gated, 4, [host.spec(slots=2)])
    run.wait_started(2)
    host.freeze_sessions()
    run.wait_for("the silence to be found", lambda: is_unknown(run))
    open_gate(host)
    run.check_nothing_lost(host, 4)


@pytest.mark.parametrize("ways", ["both", "towards", "back"])
@fault(
    "link blackholed, both ways and each way alone", "found by the heartbeat; reconnected when it is back; nothing lost"
)
def test_link_blackholed(host: OpenSshHost, app: Any, tmp_path: Path, quick_heartbeat: None, ways: str) -> None:
    """Packets vanish without a reset."""
    run = FaultyRun(tmp_path).start(app.gated, 4, [host.spec(slots=2)])
    run.wait_started(2)
    with firewall(host, towards=ways != "back", back=ways != "towards"):
        run.wait_for("the silence to be found", lambda: is_unknown(run))
        open_gate(host)
    run.check_nothing_lost(host, 4)


@fault("5 % of all packets lost", "slower, nothing else")
def test_packet_loss(host: OpenSshHost, app: Any, tmp_path: Path) -> None:
    """TCP repairs it."""
    with firewall(host, share=0.05):
        FaultyRun(tmp_path).start(app.quick, 30, [host.spec(slots=2)]).check_nothing_lost(host, 30)


@fault("200 ms round trip, and a drop in it", "slower, nothing else")
def test_long_round_trip(host: OpenSshHost, app: Any, tmp_path: Path) -> None:
    """Each byte takes a tenth of a second in each direction."""
    with running_proxy(host.port, 0.1) as proxy:
        run = FaultyRun(tmp_path).start(app.gated, 12, [through(host, proxy.port, tmp_path)])
        run.wait_started(2)
        assert host.kill_sessions()
        run.wait_for("the link to be unknown", lambda: is_unknown(run))
        open_gate(host)
        run.check_nothing_lost(host, 12)
        assert proxy.sent


@fault(
    "sshd's listener killed; then the session, too",
    "sessions go on and nobody notices; without a session the host is unknown until it answers again, and nothing is lost",
)
def test_listener_killed(host: OpenSshHost, app: Any, tmp_path: Path) -> None:
    """This kills a second sshd of the host, because the first is its process 1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    listen = f"/usr/sbin/sshd -f /run/host/sshd_config -p {port} -o PidFile=/run/second.pid"
    pid_file = host.path("/run/second.pid")

    def start() -> None:
        assert host.run(listen).returncode == 0
        run.wait_for("the listener", pid_file.exists)

    run = FaultyRun(tmp_path)
    start()
    run.start(app.gated, 8, [through(host, port, tmp_path)])
    run.wait_for("two jobs to run", lambda: lines(host, "pid.0") and lines(host, "pid.1"))
    host.run(f"kill {pid_file.read_text()}")
    run.wait_for("the listener to be gone", lambda: not pid_file.exists())
    # What was printed and what ended still comes: the session needs no listener.
    host.run(f"kill -9 {lines(host, 'pid.0')[0]}")
    run.wait_for("a job to return over the session", lambda: run.of(events.JobReturned))
    assert not is_unknown(run)
    assert host.kill_sessions()
    run.wait_for("the link to be unknown", lambda: is_unknown(run))
    open_gate(host)
    start()
    returns = run.finish()
    assert [one.error.kind if one.error else None for one in returns] == ["killed"] + [None] * 7
    assert Counter(lines(host, "ran")) == Counter(str(num) for num in range(8))


@fault("link reset in mid-result", "the result is sent again, whole; the job is not run again")
def test_reset_in_mid_result(host: OpenSshHost, app: Any, tmp_path: Path) -> None:
    """The half of a large result that has arrived here is dropped."""
    run = FaultyRun(tmp_path).start(app.bulky, 1, [host.spec()], config={"size": 150_000_000})
    results = tmp_path / "sweep" / ".launcher" / "results"
    run.wait_for("half a result", lambda: results.exists() and any(one.stat().st_size for one in results.iterdir()))
    assert host.kill_sessions()
    (returned,) = run.finish()
    assert len(returned.return_value) == 150_000_000
    assert lines(host, "ran") == ["0"]


@fault("agent killed while jobs run", "jobs go on and keep their results; a new agent adopts them; nothing run twice")
def test_agent_killed(host: OpenSshHost, app: Any, tmp_path: Path) -> None:
    """A job without an agent writes its own record."""
    run = FaultyRun(tmp_path).start(app.gated, 4, [host.spec(slots=2)])
    run.wait_started(2)
    run.wait_for("two jobs to run", lambda: len(lines(host, "ran")) == 2)
    assert kill_matching(host, role="agent") == 1
    run.wait_for("the link to be unknown", lambda: is_unknown(run))
    open_gate(host)
    run.check_nothing_lost(host, 4)


@fault("zygote killed while jobs run", "running jobs go on; a new zygote runs the rest; nothing run twice")
def test_zygote_killed(host: OpenSshHost, app: Any, tmp_path: Path) -> None:
    """Jobs do not depend on the process that forked them."""
    run = FaultyRun(tmp_path).start(app.gated, 4, [host.spec(slots=2)])
    run.wait_for("two jobs to run", lambda: len(lines(host, "ran")) == 2)
    assert kill_matching(host, role="zygote") == 1
    open_gate(host)
    run.check_nothing_lost(host, 4)


@fault("job killed (SIGKILL)", "FAILED of kind killed, its end hook fired; the others complete")
def test_job_killed(host: OpenSshHost, app: Any, tmp_path: Path) -> None:
    """The epilogue fires the hooks that the job could not fire."""
    run = FaultyRun(tmp_path).start(app.gated, 2, [host.spec(slots=2)])
    run.wait_for("both to run", lambda: len(lines(host, "ran")) == 2)
    (pid,) = lines(host, "pid.0")
    host.run(f"kill -9 {pid}")
    open_gate(host)
    returns = run.finish()
    assert [one.error.kind if one.error else None for one in returns] == ["killed", None]
    assert Counter(lines(host, "hooks")) == Counter(["start 0", "end 0", "start 1", "end 1"])


@fault(
    "out of memory: the kernel's OOM killer takes a job",
    "FAILED of kind killed by SIGKILL, its end hook fired; the others complete",
)
def test_out_of_memory(host: OpenSshHost, app: Any, tmp_path: Path) -> None:
    """The job is in a cgroup of 64 MB, and needs 2 GB."""
    run = FaultyRun(tmp_path).start(app.hungry, 3, [host.spec(slots=2)])
    run.wait_for("two jobs to run", lambda: lines(host, "pid.0") and lines(host, "pid.1"))
    with control_group("memory", "memory.limit_in_bytes", "memory.max", str(64 << 20)) as group:
        (pid,) = lines(host, "pid.0")
        (group / "cgroup.procs").write_text(str(host.pid_here(int(pid))))
        open_gate(host)
        returns = run.finish()
    assert [one.error.kind if one.error else None for one in returns] == ["killed", None, None]
    assert returns[0].error is not None
    assert returns[0].error.signal == signal.SIGKILL
    assert Counter(lines(host, "hooks")) == Counter(f"{hook} {num}" for hook in ("start", "end") for num in range(3))


@fault(
    "no further process may be made (pid limit)", "jobs that cannot start fail of kind host; those that run complete"
)
def test_pid_limit(host: OpenSshHost, app: Any, tmp_path: Path) -> None:
    """The zygote is in a cgroup that allows no other process."""
    run = FaultyRun(tmp_path).start(app.gated, 4, [host.spec(slots=2)])
    run.wait_for("two jobs to run", lambda: len(lines(host, "ran")) == 2)
    with control_group("pids", "pids.max", "pids.max", "1") as group:
        (zygote,) = pids_of(host, "zygote")
        (group / "cgroup.procs").write_text(str(host.pid_here(zygote)))
        open_gate(host)
        returns = run.finish()
    assert [one.error.kind if one.error else None for one in returns] == [None, None, "host", "host"]
    for one in returns[2:]:
        assert one.error is not None
        assert "no process could be created" in one.error.message
    assert Counter(lines(host, "ran")) == Counter(["0", "1"])
    assert Counter(lines(host, "hooks")) == Counter(["start 0", "end 0", "start 1", "end 1"])


@fault(
    "host power cut, and back",
    "what ran, or was about to run, is lost, and the run says so; its end hooks fire; nothing runs twice",
)
def test_power_cut(host: OpenSshHost, app: Any, tmp_path: Path) -> None:
    """The boot id is new. A job that may have run does not run again unless a retry was asked for."""
    run = FaultyRun(tmp_path).start(app.gated, 8, [host.spec(slots=2)])
    run.wait_for("two jobs to run", lambda: len(lines(host, "ran")) == 2)
    running = set(lines(host, "ran"))
    host.power_cut()
    run.wait_for("the link to be unknown", lambda: is_unknown(run))
    open_gate(host)
    host.start()
    returns = run.finish()
    kinds = {str(one.num): one.error.kind if one.error else None for one in returns}
    assert all(kinds[num] == "lost" for num in running), kinds
    assert set(kinds.values()) == {"lost", None}, kinds
    ran = Counter(lines(host, "ran"))
    assert all(count == 1 for count in ran.values()), ran
    assert all(ran[num] == 1 for num, kind in kinds.items() if kind is None)
    hooks = Counter(lines(host, "hooks"))
    assert all(hooks[f"start {num}"] == hooks[f"end {num}"] == 1 for num in ran), hooks


@fault(
    "host power cut, and back, while jobs have GPUs",
    "no GPU stays taken: the jobs that follow get each of them, and each is one job's",
)
def test_power_cut_with_gpus(app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease is of the kernel that went down; nothing on the disk holds a GPU."""
    driver = FalseGpus.make(tmp_path / "driver", monkeypatch, 2)
    there = "/home/runner/driver"
    setting = f"SetEnv PATH={there}:/usr/bin:/bin LD_LIBRARY_PATH={there} FALSE_NVML={there}/gpus"
    with running_openssh_host(tmp_path / "host", settings=[setting]) as host:
        shutil.copytree(driver.folder, host.home / "driver")
        run = FaultyRun(tmp_path).start(app.on_gpu, 8, [host.spec()])
        run.wait_for("two jobs to run", lambda: len(lines(host, "ran")) == 2)
        host.power_cut()
        run.wait_for("the link to be unknown", lambda: is_unknown(run))
        host.start()
        run.wait_for("two others to run", lambda: len(lines(host, "ran")) == 4)
        gpus = lines(host, "gpus")
        assert sorted(gpus[:2]) == sorted(gpus[2:]) == sorted(driver.names)
        open_gate(host)
        assert {one.error.kind if one.error else None for one in run.finish()} == {"lost", None}


@fault(
    "key revoked on the host in mid-run",
    "the host is unknown, with the reason; jobs go on; nothing is lost once the key is back",
)
def test_key_revoked(host: OpenSshHost, app: Any, tmp_path: Path) -> None:
    """A login that is refused now may be accepted later, and the jobs are still there."""
    run = FaultyRun(tmp_path).start(app.gated, 4, [host.spec(slots=2)])
    run.wait_for("two jobs to run", lambda: len(lines(host, "ran")) == 2)
    with host.without_login():
        assert host.kill_sessions()
        run.wait_for("the refusal to be told", lambda: told_of(run, "no key was accepted"))
        assert not run.of(events.JobReturned)
        open_gate(host)
    run.check_nothing_lost(host, 4)


@fault(
    "name of the host not found any more in mid-run",
    "the host is unknown, with the reason; nothing is lost once the name is found again",
)
def test_name_not_found(host: OpenSshHost, app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The controller cannot resolve this one name, as if the name server were gone."""
    is_known = threading.Event()
    is_known.set()
    whole = socket.getaddrinfo

    def getaddrinfo(name: Any, *more: Any, **named: Any) -> Any:
        if name != "gone.example":
            return whole(name, *more, **named)
        if not is_known.is_set():
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return whole("127.0.0.1", *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    host.rename_for_clients("gone.example")
    run = FaultyRun(tmp_path).start(app.gated, 4, [host.spec(slots=2)])
    run.wait_for("two jobs to run", lambda: len(lines(host, "ran")) == 2)
    is_known.clear()
    assert host.kill_sessions()
    run.wait_for("the failure to be told", lambda: told_of(run, "name resolution"))
    assert not run.of(events.JobReturned)
    open_gate(host)
    is_known.set()
    run.check_nothing_lost(host, 4)


@fault("host given up, then back", "its jobs run elsewhere; the late result does not replace the successor's")
def test_host_back_after_it_was_given_up(host: OpenSshHost, app: Any, tmp_path: Path) -> None:
    """Attempt and boot id fence it off."""
    with running_openssh_host(tmp_path / "other", "other-host") as other:
        open_gate(other)
        run = FaultyRun(tmp_path).start(
            app.gated,
            2,
            [host.spec(slots=2), other.spec(slots=1)],
            on_host_loss="retry",
            host_loss_timeout=1,
        )
        run.wait_for("a job on the first host", lambda: len(lines(host, "ran")) >= 1)
        with firewall(host):
            host.kill_sessions()
            run.wait_for("it to be given up", lambda: run.of(events.HostLost), 90)
            returns = run.finish()
        assert [one.return_value for one in returns] == [0, 10]
        assert {one.host for one in returns if one.attempt > 1} == {"other-host"}
        assert Counter(event.num for event in run.of(events.JobReturned)) == Counter([0, 1])


@fault(
    "spool on a full disk, until there is room again",
    "the host takes no job and says why; goes on when it can; nothing lost; with `retries`, also no job whose own files found no room at that moment",
)
def test_spool_on_a_full_disk(host: OpenSshHost, app: Any, tmp_path: Path) -> None:
    """The agent sends its results from memory, gives back jobs that have not started, and starts no more."""
    small_disk(host, f"/home/{host.user}/.local/state", "size=8m")
    run = FaultyRun(tmp_path).start(app.gated, 6, [host.spec(slots=2)], retries={"host": 9})
    run.wait_for("two jobs to run", lambda: len(lines(host, "ran")) == 2)
    filler = f"/home/{host.user}/.local/state/filler"
    host.run(f"cat /dev/zero > {filler}")
    open_gate(host)
    run.wait_for("the host to take no more", lambda: run.of(events.HostClosed))
    assert "spool" in run.of(events.HostClosed)[0].why
    host.run(f"rm {filler}")
    run.check_nothing_lost(host, 6)


@fault(
    "spool on a disk of 64 KiB, 256 KiB, 1 MiB or 8 MiB",
    "all jobs complete, nothing lost; at 64 KiB with `retries`, for a job whose own files found no room at that moment",
)
@pytest.mark.parametrize(("size", "retries"), [("64k", {"host": 9}), ("256k", {}), ("1m", {}), ("8m", {})])
def test_spool_on_a_small_disk(host: OpenSshHost, app: Any, tmp_path: Path, size: str, retries: dict[str, int]) -> None:
    """A little space is enough for a few jobs, because a job's files are removed when its result is acknowledged."""
    small_disk(host, f"/home/{host.user}/.local/state", f"size={size}")
    run = FaultyRun(tmp_path).start(app.quick, 6, [host.spec(slots=2)], retries=retries)
    run.check_nothing_lost(host, 6)


@fault(
    "spool on a disk of 20 KiB, where not one job has room, and room later",
    "the host takes no job and says why; the run waits, and completes when there is room; a job that had begun to be set "
    "up is FAILED of kind `host`, and nothing of it ran",
)
def test_spool_on_a_disk_too_small(host: OpenSshHost, app: Any, tmp_path: Path) -> None:
    """This is the same as with a full disk: the agent waits for space."""
    state = f"/home/{host.user}/.local/state"
    small_disk(host, state, "size=20k")
    run = FaultyRun(tmp_path).start(app.quick, 6, [host.spec(slots=2)], retries={"host": 2})
    run.wait_for("the host to take no job", lambda: run.of(events.HostClosed))
    assert state in run.of(events.HostClosed)[0].why
    assert lines(host, "ran") == []
    host.run(f"mount -o remount,size=8m {state}")
    run.check_nothing_lost(host, 6)


@fault(
    "the same, and never any room",
    "ended by the policy: every job is FAILED of kind `host`, with the disk's error",
)
def test_spool_on_a_disk_that_stays_too_small(host: OpenSshHost, app: Any, tmp_path: Path) -> None:
    """After `host_loss_timeout`, nothing waits for a host that cannot take jobs."""
    small_disk(host, f"/home/{host.user}/.local/state", "size=16k")
    returns = FaultyRun(tmp_path).start(app.quick, 6, [host.spec(slots=2)], host_loss_timeout=1).finish()
    assert lines(host, "ran") == []
    for one in returns:
        assert one.error is not None
        assert one.error.kind == "host"
        assert "No space left" in one.error.message


@fault(
    "cache on a disk that does not take the code, beside another host",
    "the host cannot be used (store), with the disk's error and what to do; its jobs run on the other one",
)
def test_a_cache_that_does_not_take_the_code(
    host: OpenSshHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code is sent once. No job is lost, and the host ends the run."""
    cache = f"/home/{host.user}/.cache"
    small_disk(host, cache, "size=5m")
    project = tmp_path / "project"
    project.mkdir()
    gate = tmp_path / "gate"
    (project / "large_app.py").write_text(
        "import os, time\ndef task(cfg):\n"
        f"    while not os.path.exists({str(gate)!r}): time.sleep(0.02)\n"
        "    return cfg.num\n"
    )
    (project / "large").write_bytes(os.urandom(6 << 20))
    subprocess.run(["git", "init", "--quiet", str(project)], check=True)
    monkeypatch.syspath_prepend(project)
    seen: list[events.Event] = []

    def see(event: events.Event) -> None:
        seen.append(event)
        if isinstance(event, events.HostUnusable):
            # Until then the other host ends none, so that the run does not end before.
            gate.touch()

    returns = launcher.multirun(
        "large_app:task", [{"num": num} for num in range(4)], hosts=[host.spec(slots=2), "local"],
        folder=tmp_path / "out", observers=[see],
    )  # fmt: skip
    assert [one.return_value for one in returns] == [0, 1, 2, 3]
    (unusable,) = [one for one in seen if isinstance(one, events.HostUnusable)]
    assert (unusable.host, unusable.phase) == (host.name, "store")
    assert re.search(f"code: cannot write to {cache}/.*: No space left", unusable.why)
    assert "workdir" in unusable.next_step
    assert not [one for one in seen if isinstance(one, events.HostUnknown)]
    assert not [one for one in seen if isinstance(one, events.Warned)]


@fault(
    "state folder without inodes, at each file that is made there",
    "an error of kind `host` or `lost` that names the folder, or a result; nothing hangs, nothing is unclear",
)
def test_no_inodes(host: OpenSshHost, app: Any, tmp_path: Path) -> None:
    """Any file may be the one that cannot be made. Each try has one more inode, until all jobs complete."""
    state = f"/home/{host.user}/.local/state"
    host.run(f"mkdir -p {state} && chown -R {host.uid}:{host.uid} /home/{host.user}")
    for inodes in itertools.count(2):
        # A disk of its own each time: what the last run left counts, too.
        small_disk(host, state, f"size=20m,nr_inodes={inodes}")
        returns = FaultyRun(tmp_path / f"{inodes}").start(app.quick, 2, [host.spec()]).finish(60)
        host.run(f"umount --lazy {state}")
        for one in returns:
            assert one.error is None or one.error.kind in ("host", "lost"), (inodes, one.error)
            assert one.error is None or "No space left" in one.error.message, (inodes, one.error)
            assert one.error is None or state in one.error.message, (inodes, one.error)
        if all(one.error is None for one in returns):
            break
        assert inodes < 80, "it never was enough"


@fault("state folder read-only", "refused before anything starts, naming the folder and `workdir`")
def test_read_only_state(host: OpenSshHost, app: Any, tmp_path: Path) -> None:
    """The agent cannot write a spool there."""
    small_disk(host, f"/home/{host.user}/.local/state", "size=1m")
    host.run(f"mount -o remount,ro /home/{host.user}/.local/state")
    run = FaultyRun(tmp_path).start(app.quick, 1, [host.spec()])
    (returned,) = run.finish()
    assert returned.error is not None
    assert returned.error.kind == "host"
    (unusable,) = run.of(events.HostUnusable)
    assert "workdir" in unusable.why + unusable.next_step


@fault("hook that hangs", "ended after hook_timeout; the job's result stands; the other ends fire")
def test_hook_that_hangs(host: OpenSshHost, app: Any, tmp_path: Path) -> None:
    """The hook does not keep the slot for ever."""
    run = FaultyRun(tmp_path).start(app.quick, 2, [host.spec()], callbacks=[app.Witness(), app.Hangs()], hook_timeout=1)
    returns = run.finish()
    assert [one.return_value for one in returns] == [0, 10]
    assert Counter(lines(host, "hooks")) == Counter(["start 0", "end 0", "start 1", "end 1"])


@fault("host clock off by a day", "nothing: times are the host's own, durations are monotonic")
def test_host_clock_off(host: OpenSshHost, app: Any, tmp_path: Path) -> None:
    """`faketime` changes the clock of the jobs' processes. The machine's clock stays."""
    library = subprocess.run(
        ["find", "/usr/lib", "-name", "libfaketime.so.1"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert library, "libfaketime is not installed"
    setup = (f"export LD_PRELOAD={library[0]} FAKETIME=-1d DONT_FAKE_MONOTONIC=1",)
    run = FaultyRun(tmp_path).start(app.quick, 3, [host.spec(setup=setup, python="/usr/bin/python3")])
    run.check_nothing_lost(host, 3)
    assert all(0 <= one.duration < 30 for one in run.finish())


@fault("controller's disk full", "dispatch stops and says so; jobs are kept; goes on when there is room")
def test_controller_disk_full(host: OpenSshHost, app: Any, tmp_path: Path) -> None:
    """A failed write of the journal stops dispatch, but crashes nothing."""
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "small", str(sweep)], check=True)
    try:
        run = FaultyRun(tmp_path).start(app.gated, 6, [host.spec(slots=2)])
        run.wait_started(2)
        filler = sweep / "filler"
        with filler.open("wb") as file:
            try:
                while True:
                    os.write(file.fileno(), bytes(4096))
            except OSError:
                pass
        open_gate(host)
        run.wait_for(
            "the journal to stall",
            lambda: [one for one in run.of(events.Warned) if one.source == "journal"] or run.of(events.HostUnknown),
        )
        filler.unlink()
        run.check_nothing_lost(host, 6)
    finally:
        subprocess.run(["umount", "-l", str(sweep)], check=True)


def test_the_table_is_generated_from_these_tests() -> None:
    """docs/faults.md has the texts of these tests. `python -m tests.faults` writes it."""
    from tests.faults.table import table

    assert TABLE.read_text(encoding="utf-8") == table(FAULTS)
