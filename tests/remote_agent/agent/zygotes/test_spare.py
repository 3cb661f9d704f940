"""The zygote that is started ahead of time: it is used if it fits, and otherwise there is no sign of it."""

from __future__ import annotations

import base64
import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cloudpickle
import omegaconf
import pytest

from remote_agent.system.processes import birth
from remote_agent.system.waiting.warm_store import WarmRecord, WarmStore
from tests.remote_agent.agents import AgentHost, Client, wait_gone, wait_until

pytestmark = pytest.mark.slow

_RUNS = itertools.count()
#: A job that says in which process it was forked, and where it has its packages from.
_WHERE = """

def where(cfg):
    import base64, cloudpickle, omegaconf, yaml
    return [os.getppid(), base64.__file__, omegaconf.__file__, yaml.__file__, cloudpickle.__file__]
"""


class SpareHost(AgentHost):
    """A host whose agent starts a spare; the task is `app:where`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        with (self.code / "app.py").open("a") as file:
            file.write(_WHERE)

    def shared(self) -> bytes:
        """What all jobs share."""
        return cloudpickle.dumps({"task": "app:where", "callbacks": [], "hydra": None})

    def spares(self) -> list[int]:
        """Zygotes that were started ahead of time."""
        return [pid for pid in self._running("zygote/entry.py") if _command(pid)[-1:] == ["spare"]]


def _command(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]


@pytest.fixture
def new_host(tmp_path: Path, bundle: Path) -> Iterator[Callable[..., SpareHost]]:
    """Makes hosts, each with its own run."""
    made: list[SpareHost] = []

    def make(spare: str = "") -> SpareHost:
        run = f"s{os.getpid()}-{next(_RUNS)}"
        made.append(SpareHost(tmp_path / f"s{len(made)}", bundle, run=run, spare=spare))
        return made[-1]

    yield make
    for host in made:
        host.stop()


def _greeted(host: SpareHost) -> tuple[Client, int]:
    """A connection whose agent has a spare, and the spare."""
    client = host.connect(prepare=False)
    (spare,) = host.spares()
    return client, spare


def test_a_spare_that_fits_forks_the_jobs(new_host):
    """It ends with the run."""
    host = new_host()
    client, spare = _greeted(host)
    host.prepare(client)
    parent, *_ = client.value(host.job(client, 0))
    assert parent == spare
    client.send({"t": "finish", "keep": False})
    client.wait_over()
    wait_gone(spare, "the spare")


@pytest.mark.parametrize(
    "more",
    [
        {"setup": ["true"]},
        {"environ": {"A": "1"}},
        {"isolation": "spawn"},
        {"python": os.path.realpath(sys.executable)},
    ],
    ids=lambda more: next(iter(more)),
)
def test_a_spare_that_does_not_fit_is_closed(new_host, more):
    """Shell lines, variables, another Python or a fresh process per job: a zygote starts as usual, and no second spare."""
    host = new_host()
    client, spare = _greeted(host)
    if "setup" in more:
        more = {**more, "python": sys.executable}
    host.prepare(client, **more)
    parent, *_ = client.value(host.job(client, 0))
    assert parent != spare
    wait_gone(spare, "the spare")
    assert not host.spares()


@pytest.mark.parametrize("package", ["base64", "omegaconf", "cloudpickle"])
def test_an_application_with_a_module_of_the_same_name_gets_its_own(new_host, package):
    """A module of the standard library, and a package of the jobs, come from the application's folder, as without a spare."""
    host = new_host()
    if package == "base64":
        shutil.copy(base64.__file__, host.code / "base64.py")
    else:
        source = omegaconf if package == "omegaconf" else cloudpickle
        shutil.copytree(Path(source.__file__).parent, host.code / package)
    client, spare = _greeted(host)
    host.prepare(client)
    parent, *files = client.value(host.job(client, 0))
    assert parent != spare
    index = ["base64", "omegaconf", "yaml", "cloudpickle"].index(package)
    assert files[index].startswith(str(host.code))
    assert not client.notes()


@pytest.mark.slow
def test_a_dead_spare_is_replaced(new_host):
    """Before or after it got its spec. Jobs do not notice."""
    host = new_host()
    client, spare = _greeted(host)
    os.kill(spare, signal.SIGKILL)
    wait_until(lambda: not host.spares(), "the spare to be seen as gone")
    host.prepare(client)
    parent, *_ = client.value(host.job(client, 0))
    assert parent != spare

    host = new_host()
    client, spare = _greeted(host)
    os.kill(spare, signal.SIGSTOP)
    host.prepare(client)
    host.job(client, 0)
    os.kill(spare, signal.SIGKILL)
    parent, *_ = client.value("0.1")
    assert parent != spare


def test_a_spare_that_cannot_be_started_does_no_harm(new_host):
    """The zygote reports, once, why its Python does not start."""
    host = new_host(spare="/nowhere/python")
    client = host.connect(prepare=False)
    assert not host.spares()
    host.prepare(client, python="/nowhere/python")
    assert "cannot start /nowhere/python" in client.expect("zygote", state="failed").header["error"]["message"]
    other = new_host(spare="/nowhere/python")
    client = other.connect()
    assert client.value(other.job(client, 0))


@pytest.mark.parametrize(("is_alive", "has_imported"), [(True, True), (True, False), (False, True)])
def test_none_is_started_where_a_warm_interpreter_waits(new_host, is_alive, has_imported):
    """It would take time from the agent for nothing. One that is gone, or still imports, does not count. One that does not fit is a cold start."""
    host = new_host()
    (host.work / "cache").mkdir(parents=True, mode=0o700)
    host.work.chmod(0o700)
    store = WarmStore(str(host.work / "cache"))
    store.make()
    with subprocess.Popen(["sleep", "600"]) as other:
        try:
            record = WarmRecord("other-1", other.pid, birth(other.pid), "other_app", sys.executable, 0.0, 600.0)
            store.write(record)
            if has_imported:
                Path(store.path(record.name, ".sock")).touch()
            if not is_alive:
                other.kill()
                other.wait()
            client = host.connect(prepare=False)
            assert bool(host.spares()) != (is_alive and has_imported)
            host.prepare(client)
            assert client.value(host.job(client, 0))
            client.send({"t": "finish", "keep": False})
            client.wait_over()
        finally:
            other.kill()


def test_a_spare_ends_with_its_agent(new_host):
    """An agent that was killed leaves no spare behind."""
    host = new_host()
    client, spare = _greeted(host)
    host.kill_agent(client)
    wait_gone(spare, "the spare")


def test_a_running_agent_starts_no_second_spare(new_host):
    """A reconnect that asks for a spare finds the agent with its zygote."""
    host = new_host()
    client = host.connect()
    client.result(host.job(client, 0))
    host.connect()
    assert len(host.zygote_pids()) == 1
