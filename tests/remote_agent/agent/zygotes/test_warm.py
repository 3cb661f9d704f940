"""The agent's end of warm interpreters: what is refused before a run waits for it, and what is left behind."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_agent.agent.cleaning import Cleaning
from remote_agent.agent.zygotes import warm
from remote_agent.agent.zygotes.warm import NO_WARM, WarmInterpreters, key_of, why_none
from remote_agent.protocol import wire
from remote_agent.protocol.specs.warm import WarmSpec
from remote_agent.system.processes import birth, is_alive
from remote_agent.system.waiting.warm_store import WarmRecord, WarmStore
from tests.remote_agent.agents import wait_until
from tests.specs import controller_facts, zygote_spec

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="warm interpreters need Linux")

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C"}
SPEC = zygote_spec(python=sys.executable, warm=60.0, main_module="app")
ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "SUBMITTERS", ())


@pytest.fixture
def store(short_folder: Path) -> Iterator[WarmStore]:
    """The store of a host's cache folder. What waits there in the end is ended."""
    made = WarmStore(str(short_folder))
    made.make()
    yield made
    for record in made.records():
        if record.pid != os.getpid():
            made.end(record)


@pytest.fixture
def interpreters(short_folder: Path, store: WarmStore) -> Iterator[WarmInterpreters]:
    """Those of an agent of that host."""
    made = WarmInterpreters(str(short_folder), str(ROOT))
    yield made
    for process in made.left:
        process.kill()
        process.wait()


def test_what_is_not_the_process_s_own_does_not_change_its_key() -> None:
    """A login's variables, the names of pickled functions, and the code itself are of one run."""
    key = key_of(SPEC, "b", ENVIRONMENT)
    other = SPEC._replace(code={"hash": "x"}, code_blob="1" * 64, shared="2" * 64, host="h2")
    other = other._replace(controller=controller_facts(by_value=True, values=["f"]))
    assert key_of(other, "b", {**ENVIRONMENT, "SSH_TTY": "/dev/pts/1", "XDG_SESSION_ID": "7"}) == key


@pytest.mark.parametrize(
    "changed",
    [
        {"umask": 0o077},
        {"main_module": "other"},
        {"main_is_module": True},
        {"sys_path": ["src"]},
        {"isolation": "fork"},
        {"python": "/bin/sh"},
        {"controller": controller_facts(hydra="1.3.8")},
        {"controller": controller_facts(cloudpickle="9.9")},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_makes_another_process_changes_its_key(changed: dict[str, Any]) -> None:
    """Such a run gets none that was made for this one."""
    assert key_of(SPEC._replace(**changed), "b", ENVIRONMENT) != key_of(SPEC, "b", ENVIRONMENT)


def test_variables_and_the_launcher_change_its_key() -> None:
    """Any package may read any variable while it is imported."""
    keys = {
        key_of(SPEC, "b", ENVIRONMENT),
        key_of(SPEC, "c", ENVIRONMENT),
        key_of(SPEC, "b", {**ENVIRONMENT, "X": "1"}),
    }
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({}, ""),
        ({"SLURM_JOB_ID": "1"}, "allocation"),
        ({"PBS_JOBID": "1"}, "allocation"),
        ({NO_WARM: "1"}, NO_WARM),
        ({"KRB5CCNAME": "KEYRING:session:x"}, "keyring"),
        ({"KRB5CCNAME": "FILE:/tmp/x"}, ""),
    ],
)
def test_some_hosts_have_none(environment: dict[str, str], why: str) -> None:
    """A batch system's job must leave nothing behind; tickets of a login belong to its own processes."""
    assert why in why_none({**ENVIRONMENT, **environment})
    assert bool(why) == bool(why_none({**ENVIRONMENT, **environment}))


def test_a_login_node_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is known by the command that submits jobs."""
    monkeypatch.undo()
    (tmp_path / "sbatch").write_text("")
    (tmp_path / "sbatch").chmod(0o755)
    assert "sbatch" in why_none({"PATH": str(tmp_path)})


@contextlib.contextmanager
def _listening(store: WarmStore, key: str) -> Iterator[tuple[socket.socket, WarmRecord]]:
    """Wait like a warm interpreter, in this process."""
    record = WarmRecord(f"{key[:32]}-1", os.getpid(), birth(os.getpid()), "app", "python", time.time(), 60.0)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(store.path(record.name, ".sock"))
        listener.listen(1)
        store.write(record)
        yield listener, record


def test_a_process_that_is_not_that_of_the_record_is_not_talked_to(
    interpreters: WarmInterpreters, store: WarmStore, tmp_path: Path
) -> None:
    """Nothing is sent to whoever listens in its place, and the socket goes."""
    key = key_of(SPEC, str(ROOT), ENVIRONMENT)
    with subprocess.Popen(["sleep", "600"]) as other, _listening(store, key) as (listener, record):
        store.write(record._replace(pid=other.pid, started=birth(other.pid)))
        assert interpreters.adopt(SPEC, ENVIRONMENT, str(tmp_path / "log")) is None
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(100) == b""
        assert other.wait(timeout=60) == -signal.SIGKILL
    assert not store.records()


def test_an_agent_tries_only_one_and_once(interpreters: WarmInterpreters, store: WarmStore, tmp_path: Path) -> None:
    """A zygote that did not fit is followed by a cold one."""
    record = WarmRecord("0" * 32 + "-1", os.getpid(), birth(os.getpid()), "app", "python", time.time(), 60.0)
    store.write(record)
    assert interpreters.adopt(SPEC, ENVIRONMENT, str(tmp_path / "log")) is None
    with _listening(store, key_of(SPEC, str(ROOT), ENVIRONMENT)) as (listener, _):
        assert interpreters.adopt(SPEC, ENVIRONMENT, str(tmp_path / "log")) is None
        assert not select.select([listener], [], [], 0)[0]


@pytest.mark.parametrize(
    "changed", [{"setup": ["true"]}, {"environ": {"A": "1"}}, {"isolation": "spawn"}, {"warm": 0.0}], ids=str
)
def test_such_runs_neither_take_nor_leave_one(
    changed: dict[str, Any], interpreters: WarmInterpreters, store: WarmStore, tmp_path: Path
) -> None:
    """Set-up lines run for each run, and no secret outlives one."""
    spec = SPEC._replace(**changed)
    with _listening(store, key_of(spec, str(ROOT), ENVIRONMENT)) as (listener, record):
        assert interpreters.adopt(spec, ENVIRONMENT, str(tmp_path / "log")) is None
        interpreters.leave(spec, ENVIRONMENT, ["json"], ["json"])
        assert not select.select([listener], [], [], 0)[0]
        assert store.records() == [record]


def test_none_is_left_when_memory_is_short(
    interpreters: WarmInterpreters, store: WarmStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take memory from those who work."""
    monkeypatch.setattr(warm, "free_memory", lambda: 0.19)
    interpreters.leave(SPEC, ENVIRONMENT, ["json"], ["json"])
    assert not store.records()


def test_none_is_left_on_a_full_disk(
    interpreters: WarmInterpreters, store: WarmStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a process nor a file of it."""
    started = []

    def write(self: WarmStore, record: WarmRecord) -> None:
        started.append(record)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(WarmStore, "write", write)
    interpreters.leave(SPEC, ENVIRONMENT, ["json"], ["json"])
    assert not is_alive(started[0].pid, started[0].started)
    assert os.listdir(store.folder) == []


# -- real ones -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_at_most_two_are_on_a_host(interpreters: WarmInterpreters, store: WarmStore) -> None:
    """One for another app is kept, until there are too many; a new one for the same app replaces the old one at once."""
    first = _left(interpreters, store, "app1")
    second = _left(interpreters, store, "app1")
    assert {one.name for one in store.records()} == {second.name}
    third = _left(interpreters, store, "app2")
    assert {one.name for one in store.records()} == {second.name, third.name}
    fourth = _left(interpreters, store, "app3")
    assert {one.name for one in store.records()} == {third.name, fourth.name}
    assert first.name != second.name


def _left(interpreters: WarmInterpreters, store: WarmStore, app: str) -> WarmRecord:
    """Leave one for an app, and wait until it waits."""
    before = {one.name for one in store.records()}
    interpreters.leave(SPEC._replace(main_module=app), ENVIRONMENT, ["json"], ["json"])
    (new,) = [one for one in store.records() if one.name not in before]
    wait_until(lambda: store.is_waiting(new), "a warm interpreter")
    return new


@pytest.mark.slow
def test_cleaning_lists_those_that_wait_and_ends_them(
    interpreters: WarmInterpreters,
    store: WarmStore,
    short_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing of them stays."""
    monkeypatch.setattr(
        "remote_agent.agent.cleaning.roots", lambda workdir: (str(short_folder), str(tmp_path / "state"))
    )
    record = _left(interpreters, store, "app1")
    cleaning = Cleaning(None)
    (item,) = [one for one in cleaning.items() if one["kind"] == "warm"]
    assert (item["id"], item["application"], item["bytes"] > 1 << 20) == (f"warm/{record.name}", "app1", True)
    assert cleaning.remove([item["id"]], force=False) == {"removed": [item["id"]], "kept": []}
    wait_until(lambda: not is_alive(record.pid, record.started), "its end")
    assert os.listdir(store.folder) == []


@pytest.mark.slow
@pytest.mark.parametrize(("module", "status"), [("hanging", -signal.SIGALRM), ("failing", 1)])
def test_one_whose_import_hangs_or_fails_ends(module: str, status: int, store: WarmStore, tmp_path: Path) -> None:
    """It has some minutes for its imports. Its log says what went wrong."""
    (tmp_path / "hanging.py").write_text("import signal\nsignal.pause()\n")
    (tmp_path / "failing.py").write_text("raise OSError('as asked')\n")
    code = (
        "import socket, sys\n"
        "from remote_agent.zygote import warm\n"
        "warm._IMPORTS = 3.0\n"
        f"warm.become_warm(socket.socket(fileno=int(sys.argv[1])), {str(ROOT)!r})"
    )
    ours, theirs = socket.socketpair()
    with (
        ours,
        subprocess.Popen(
            [sys.executable, "-c", code, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
            stderr=subprocess.PIPE,
        ) as process,
    ):
        theirs.close()
        spec = WarmSpec("k", "k-1", store.folder, 60.0, 0o22, controller_facts(), "app", [module], [module])
        ours.sendall(wire.encode({"t": "warm"}, json.dumps(spec.to_json()).encode()))
        _, said = process.communicate(timeout=120)
    assert process.returncode == status
    assert (b"as asked" in said) == (module == "failing")


@pytest.mark.slow
def test_one_that_nobody_needs_ends(interpreters: WarmInterpreters, store: WarmStore) -> None:
    """Its time is that of the option."""
    interpreters.leave(SPEC._replace(warm=0.2), ENVIRONMENT, ["json"], ["json"])
    wait_until(lambda: not store.records(), "its end")
    assert os.listdir(store.folder) == []


@pytest.mark.slow
def test_one_whose_socket_is_removed_ends(interpreters: WarmInterpreters, store: WarmStore) -> None:
    """Nobody could find it any more."""
    record = _left(interpreters, store, "app1")
    os.unlink(store.path(record.name, ".sock"))
    wait_until(lambda: not store.records(), "its end")


@pytest.mark.parametrize(("free", "why"), [(0.19, "19% of the memory is free, and at least 20% must be"), (0.2, "")])
def test_little_memory_is_told_with_its_numbers(monkeypatch: pytest.MonkeyPatch, free: float, why: str) -> None:
    """What the machine is comes first."""
    monkeypatch.setattr(warm, "free_memory", lambda: free)
    assert warm.why_none_now({"PATH": ""}) == why
    assert "allocation" in warm.why_none_now({"PATH": "", "SLURM_JOB_ID": "1"})
