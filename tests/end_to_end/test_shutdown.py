"""What a job's process writes after its task has returned comes back, wherever the job ran, or is named."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher import events
from launcher.hosts.host_spec import HostSpec
from launcher.runs.journal import FOLDER, JournalReader

_APP = """
import atexit, os, subprocess, threading, time
from concurrent.futures import ThreadPoolExecutor

pool = ThreadPoolExecutor(1)
kept = []


def put(path):
    with open(path, "w") as file:
        file.write("whole")


def task(cfg):
    def late(name):
        time.sleep(0.5)
        put(name)
    threading.Thread(target=late, args=("thread.txt",)).start()
    pool.submit(late, "pool.txt")
    atexit.register(put, "atexit.txt")
    kept.append(open("buffered.txt", "w"))
    kept[0].write("whole")
    if cfg["fails"]:
        raise ValueError("as asked")
    return 1


def hangs(cfg):
    gate = os.path.join(os.getcwd(), "gate")
    os.mkfifo(gate)
    threading.Thread(target=lambda: open(gate).read(), name="uploader").start()
    return 1


def leaves(cfg):
    import subprocess, sys
    subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    return 1


def leaves_a_writer(cfg):
    import sys
    code = (
        "import sys, time; file = open('model.ckpt', 'w'); file.write('first'); file.flush(); print('begun', flush=True)\\n"
        "sys.stdin.read(); time.sleep({}); file.write(' and last')"
    ).format(cfg["seconds"])
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    return 1


def detaches(cfg):
    return subprocess.Popen(["sleep", "600"], start_new_session=True).pid


class Sees(object):
    def __init__(self):
        self.seen = {}

    def on_job_return(self, config, job_return, **kwargs):
        self.seen[job_return.num] = sorted(os.listdir(job_return.output_dir))
"""
_LATE = {"thread.txt", "pool.txt", "atexit.txt", "buffered.txt"}


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A project whose tasks go on in threads after they have returned."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "late_app.py").write_text(_APP)
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    import late_app

    yield late_app
    sys.modules.pop("late_app", None)


def _node(**more: Any) -> dict[str, Any]:
    return {"hydra": {"job": {"chdir": True}}, **more}


def test_the_outputs_of_a_sweep_are_complete(app: Any, any_host: HostSpec) -> None:
    """This holds for completed and failed jobs. `on_job_return` sees the files."""
    sees = app.Sees()
    returns = launcher.multirun(app.task, [_node(fails=False), _node(fails=True)], hosts=[any_host], callbacks=[sees])
    assert [one.status.name for one in returns] == ["COMPLETED", "FAILED"]
    for one in returns:
        assert set(sees.seen[one.num]) >= _LATE
        for name in _LATE:
            assert (Path(one.output_dir) / name).read_text() == "whole"


@pytest.mark.slow
@pytest.mark.parametrize("option", ["shutdown_timeout", "hook_timeout"])
def test_what_is_killed_after_its_result_is_a_warning(app: Any, any_host: HostSpec, option: str) -> None:
    """The warning has the host, the job, what was still running, and the option for more time. The result stays.

    If only the hooks' time was given, it also applies to the shutdown.
    """
    seen: list[events.Event] = []
    (one,) = launcher.multirun(app.hangs, [_node()], hosts=[any_host], observers=[seen.append], **{option: "200ms"})
    assert one.return_value == 1
    (warned,) = [event for event in seen if isinstance(event, events.Warned) and event.source == "shutdown"]
    assert (warned.num, warned.host) == (0, any_host.name)
    assert "still running: thread 'uploader'" in warned.message
    assert "shutdown_timeout" in warned.message


@pytest.mark.slow
def test_a_child_that_nobody_waited_for_is_a_warning(app: Any, any_host: HostSpec) -> None:
    """The warning says which child it was, when it was ended, that it may have had more to write, and what a task must
    do.
    """
    seen: list[events.Event] = []
    (one,) = launcher.multirun(app.leaves, [_node()], hosts=[any_host], observers=[seen.append])
    assert one.return_value == 1
    (warned,) = [event for event in seen if isinstance(event, events.Warned) and event.source == "shutdown"]
    assert re.search(r"killed 2 s after the job ended: process \S+ \(pid \d+\)\. ", warned.message)
    assert "Popen.wait()" in warned.message


@pytest.mark.slow
def test_the_files_that_a_child_was_still_writing_are_named(app: Any, any_host: HostSpec) -> None:
    """Their copies are incomplete, and nothing else would say so."""
    seen: list[events.Event] = []
    (one,) = launcher.multirun(app.leaves_a_writer, [_node(seconds=600)], hosts=[any_host], observers=[seen.append])
    assert (Path(one.output_dir) / "model.ckpt").read_text() == "first"
    (warned,) = [event for event in seen if isinstance(event, events.Warned) and event.source == "shutdown"]
    assert (warned.num, warned.host) == (0, any_host.name)
    assert re.search(r": process \S+ \(pid \d+\)\. Files that may be incomplete: model\.ckpt; ", warned.message)
    assert "children_timeout" in warned.message


@pytest.mark.slow
def test_a_child_has_the_time_that_it_is_given(app: Any, any_host: HostSpec) -> None:
    """With children_timeout the job ends with its child, and the child's files are complete."""
    seen: list[events.Event] = []
    options: dict[str, Any] = {"hosts": [any_host], "observers": [seen.append], "children_timeout": "10m"}
    (one,) = launcher.multirun(app.leaves_a_writer, [_node(seconds=3)], **options)
    assert (Path(one.output_dir) / "model.ckpt").read_text() == "first and last"
    assert not [event for event in seen if isinstance(event, events.Warned)]


@pytest.mark.slow
def test_what_is_ended_with_the_run_is_named(app: Any, any_host: HostSpec) -> None:
    """A process of the last job in its own session is ended with the run, before anybody would look for it.

    A note says so.
    """
    seen: list[events.Event] = []
    (one,) = launcher.multirun(app.detaches, [_node()], hosts=[any_host], observers=[seen.append])
    assert one.error is None
    (note,) = [event for event in seen if isinstance(event, events.Note) and "session of its own" in event.message]
    assert note.host == any_host.name
    assert note.message.startswith(f"job 0: process sleep (pid {one.return_value}) was killed")
    assert "what it wrote after the job is not here" in note.message
    reader = JournalReader(Path(one.output_dir).parent / FOLDER)
    assert note in [event for _, event in reader.events()]
    reader.close()


# -- a tracker that writes its file when the process ends ------------------------------------------------------------

_TRACKED = """
import hydra
from hydra.core.hydra_config import HydraConfig


@hydra.main(version_base=None, config_path=None)
def main(cfg):
    import wandb
    folder = HydraConfig.get().runtime.output_dir
    wandb.init(mode="offline", dir=folder, project="p", settings=wandb.Settings(console="off", x_disable_stats=True))
    for step in range(50):
        wandb.log({"loss": 1.0 / (step + cfg.x)})
    return cfg.x


if __name__ == "__main__":
    main()
"""


def _logged(folder: Path) -> list[str]:
    """Return the losses in the only file of wandb in a folder.

    It is a log in LevelDB's format, with protobuf records.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    data = path.read_bytes()
    at, whole, found, kinds = 7, b"", [], []
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, part = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if part in {1, 4}:
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            kinds.append(record.WhichOneof("record_type"))
            found += [item.value_json for item in record.history.item if "loss" in (item.key, *item.nested_key)]
    assert kinds[-1] == "exit"
    return found


@pytest.fixture
def tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hydra app that logs to wandb, offline, and never calls its `finish`."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "tracked" / "tracked.py"
    path.parent.mkdir()
    path.write_text(_TRACKED)
    return path


def _names(folder: Path) -> list[str]:
    """Return wandb's files, without what differs from run to run, and without its link to a log in the user's cache."""
    (run,) = folder.glob("wandb/offline-run-*")
    name = run.name.rpartition("-")[2]
    return sorted(
        str(path.relative_to(run)).replace(name, "RUN")
        for path in run.rglob("*")
        if path.is_file() and not path.is_symlink()
    )


def _run(path: Path, *arguments: str) -> None:
    done = subprocess.run([sys.executable, path.name, *arguments], cwd=path.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "embedded"])
def test_wandb_leaves_what_it_leaves_under_plain_hydra(
    tracked: Path, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A sweep over SSH and one without a host have the same files with the same records, although wandb writes them at
    exit.
    """
    _run(tracked, "+x=1", f"hydra.run.dir={tmp_path / 'plain'}")
    wanted = _logged(tmp_path / "plain")
    assert len(wanted) == 50
    where = []
    if kind == "embedded":
        server = request.getfixturevalue("demo_server")
        hosts = tmp_path / "hosts.yaml"
        hosts.write_text(f"demo: {{address: {server.alias}, ssh_config: {server.ssh_config}}}\n")
        where = [f"hydra.launcher.hosts_file={hosts}", f"hydra.launcher.python={sys.executable}"]
    sweep = tmp_path / "sweep"
    _run(tracked, "--multirun", "hydra/launcher=remote", *where, "+x=1,2", f"hydra.sweep.dir={sweep}")
    assert _logged(sweep / "0") == wanted
    assert _names(sweep / "0") == _names(tmp_path / "plain")
    assert len(_logged(sweep / "1")) == 50
