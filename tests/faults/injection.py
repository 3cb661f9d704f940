"""Faults, and a run that they hit, for all tests of the suite.

Rule: a fault is injected at a known point of the run (an event, a file on the host), never after a time. Every run ends
with the same check: each job has one result, ran once, and fired its hooks.
"""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import launcher
from launcher import events
from launcher.hosts.host_spec import HostSpec
from launcher.results.job_returns import JobReturns
from tests.hosts.openssh import OpenSshHost
from tests.remote_agent.agents import wait_until
from tests.requirements import missing

__all__ = [
    "FAULTS",
    "Fault",
    "FaultyRun",
    "control_group",
    "fault",
    "firewall",
    "kill_matching",
    "small_disk",
    "through",
]

APP = Path(__file__).parent.parent / "apps" / "faulty"
T = TypeVar("T")
_PROJECT = tempfile.TemporaryDirectory(prefix="launcher-faults-")


@dataclass(frozen=True)
class Fault:
    """A row of docs/faults.md."""

    name: str
    invariant: str
    test: str


FAULTS: list[Fault] = []


def fault(name: str, invariant: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a test to the table: what happens, and what still holds."""

    def register(test: Callable[..., None]) -> Callable[..., None]:
        FAULTS.append(Fault(name, invariant, test.__name__))
        return test

    return register


def load_app() -> Any:
    """Import the application from a folder outside this repository, so that nothing else is sent with it."""
    if "faulty" not in sys.modules:
        shutil.copy(APP / "faulty.py", _PROJECT.name)
        sys.path.insert(0, _PROJECT.name)
    import faulty

    return faulty


@dataclass
class FaultyRun:
    """A run in its own thread. The test's thread watches and disturbs it."""

    folder: Path
    seen: list[events.Event] = field(default_factory=list)
    returns: JobReturns | None = None
    error: BaseException | None = None
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _thread: threading.Thread | None = None

    def _observe(self, event: events.Event) -> None:
        with self._changed:
            self.seen.append(event)
            self._changed.notify_all()

    def start(self, task: Any, count: int, hosts: Sequence[HostSpec], **options: Any) -> FaultyRun:
        """Start a run with this many jobs."""
        more = options.pop("config", {})
        callbacks = options.pop("callbacks", [load_app().Witness()])

        def body() -> None:
            try:
                self.returns = launcher.multirun(
                    task,
                    [{"num": num, **more} for num in range(count)],
                    hosts=hosts,
                    callbacks=callbacks,
                    folder=self.folder / "sweep",
                    observers=[self._observe],
                    **options,
                )
            except BaseException as error:
                self.error = error

        self._thread = threading.Thread(target=body, name="run", daemon=True)
        self._thread.start()
        return self

    def of(self, kind: type[T]) -> list[T]:
        """Return the events of a kind so far."""
        with self._changed:
            return [event for event in self.seen if isinstance(event, kind)]

    def wait_for(self, what: str, is_true: Callable[[], Any], timeout: float = 60.0) -> None:
        """Wait until it is true. It is checked after each event, and often in between."""
        deadline = time.monotonic() + timeout
        while not is_true():
            assert time.monotonic() < deadline, f"waited {timeout} s for {what}; seen: {self.seen[-8:]}"
            assert self.error is None, self.error
            with self._changed:
                self._changed.wait(0.02)

    def wait_started(self, count: int) -> None:
        """Wait until this many attempts have begun."""
        self.wait_for(f"{count} attempts", lambda: len(self.of(events.AttemptStarted)) >= count)

    def finish(self, timeout: float = 120.0) -> JobReturns:
        """Wait for the run to end. Returns its JobReturns."""
        assert self._thread is not None
        self._thread.join(timeout)
        assert not self._thread.is_alive(), f"no verdict within {timeout} s; seen: {self.seen[-12:]}"
        if self.error is not None:
            raise self.error
        assert self.returns is not None
        return self.returns

    def check_nothing_lost(self, host: OpenSshHost, count: int) -> None:
        """Check that every job returned once, completed with its value, ran once, and fired its two hooks once."""
        returns = self.finish()
        assert [one.return_value for one in returns] == [num * 10 for num in range(count)]
        returned = Counter(event.num for event in self.of(events.JobReturned))
        assert returned == Counter(range(count)), "each job returns exactly once"
        assert Counter(lines(host, "ran")) == Counter(str(num) for num in range(count)), "each ran exactly once"
        balanced = Counter({f"start {num}": 1 for num in range(count)}) + Counter(
            {f"end {num}": 1 for num in range(count)}
        )
        assert Counter(lines(host, "hooks")) == balanced, "each job's hooks fired exactly once"


def lines(host: OpenSshHost, name: str) -> list[str]:
    """Return what the application wrote on the host."""
    path = host.home / name
    return path.read_text().split("\n")[:-1] if path.exists() else []


def open_gate(host: OpenSshHost) -> None:
    """Let the waiting jobs go on."""
    (host.home / "gate").write_text("")


def pids_of(host: OpenSshHost, role: str) -> list[int]:
    """Return the pids on the host of its `agent`, `zygote` or `job`s."""
    proc = host.path("/proc")
    found = []
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            parent_command = (
                (proc / parent / "cmdline").read_bytes().decode("utf-8", "replace") if parent != "0" else ""
            )
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "zygote/entry.py" in command:
            its_role = "job" if "zygote/entry.py" in parent_command else "zygote"
        elif "hydra-remote-launcher" in command and parent == "1":
            # The `connect` process has the session's sshd for a parent; the agent was left to process 1.
            its_role = "agent"
        else:
            continue
        if its_role == role:
            found.append(int(entry.name))
    return found


def kill_matching(host: OpenSshHost, *, role: str) -> int:
    """Send SIGKILL to its `agent`, `zygote` or `job`s. Returns how many there were."""
    found = pids_of(host, role)
    if found:
        host.run(f"kill -9 {' '.join(map(str, found))}")
    return len(found)


def through(host: OpenSshHost, port: int, folder: Path) -> HostSpec:
    """Return the same host behind another port of this machine, of another listener or a proxy."""
    config, known_hosts = folder / "ssh_config", folder / "known_hosts"
    known_hosts.write_text(host.known_hosts.read_text().replace(f":{host.port} ", f":{port} "))
    text = host.ssh_config.read_text().replace(str(host.known_hosts), str(known_hosts))
    config.write_text(text.replace(f"Port {host.port}", f"Port {port}"))
    return HostSpec(host.name, host.name, slots=2, ssh_config=str(config))


@contextmanager
def control_group(controller: str, old: str, new: str, value: str) -> Iterator[Path]:
    """Make a cgroup of this machine with one limit. Writing to `cgroup.procs` puts processes into it.

    Args:
        old, new: the limit's file under cgroup v1 and v2.
    """
    root = Path("/sys/fs/cgroup")
    is_new = (root / "cgroup.controllers").exists()
    group = (root if is_new else root / controller) / f"launcher-faults-{uuid.uuid4().hex}"
    try:
        group.mkdir()
        (group / (new if is_new else old)).write_text(value)
    except OSError as error:
        missing(f"a cgroup with a limit of {controller}: {error}")
    try:
        yield group
    finally:
        wait_until(lambda: _is_removed(group), "the cgroup to have no process")


def _is_removed(group: Path) -> bool:
    """Who is in it ends with the run; a cgroup that has processes cannot be removed, and they may just have made others."""
    for pid in (group / "cgroup.procs").read_text().split():
        with suppress(OSError):
            (group.parent / "cgroup.procs").write_text(pid)
    try:
        group.rmdir()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


@contextmanager
def firewall(host: OpenSshHost, *, towards: bool = True, back: bool = True, share: float = 1.0) -> Iterator[None]:
    """Drop this share of the packets to the host, from it, or both ways."""
    some = [] if share >= 1 else ["-m", "statistic", "--mode", "random", "--probability", str(share)]
    rules = []
    if towards:
        rules.append(["INPUT", "-i", "lo", "-p", "tcp", "--dport", str(host.port), *some, "-j", "DROP"])
    if back:
        rules.append(["INPUT", "-i", "lo", "-p", "tcp", "--sport", str(host.port), *some, "-j", "DROP"])
    try:
        for rule in rules:
            subprocess.run(["iptables", "-w", "-I", *rule], check=True)
        yield
    finally:
        for rule in rules:
            subprocess.run(["iptables", "-w", "-D", *rule], check=True)


def small_disk(host: OpenSshHost, where: str, options: str) -> None:
    """Mount a small tmpfs of the user's over a folder of the host."""
    done = host.run(
        f"mkdir -p {where} && chown -R {host.uid}:{host.uid} /home/{host.user} && "
        f"mount -t tmpfs -o uid={host.uid},gid={host.uid},mode=0700,{options} small {where}"
    )
    assert done.returncode == 0, done.stderr
