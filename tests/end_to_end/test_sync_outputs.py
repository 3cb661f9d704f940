"""Output files come while their job runs, and are in the end as without that."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import launcher
from benchmarks.cutting import CuttingRelay
from launcher import events
from launcher.demo.server import DemoServer
from launcher.hosts.host_spec import HostSpec
from launcher.results import synced_files
from tests.hosts.openssh import running_openssh_host
from tests.sync_tasks import fails_once, grows, waits, writes_events

#: A defect shows as a wait that does not end.
_PATIENCE = 30.0


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for something that another thread or process brings."""
    deadline = time.monotonic() + _PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.02)
    return found


def reads(path: Path, text: str) -> Callable[[], bool]:
    """Whether a file has this text by now."""
    return lambda: path.exists() and path.read_text() == text


class Gate:
    """Tells a job to go on, over a FIFO."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "gate"
        os.mkfifo(self.path)
        self._fd = -1

    def say(self, line: str) -> None:
        """Say a line. The first one waits until the job listens."""
        if self._fd < 0:
            wait_until(self._open, "a job that listens")
        os.write(self._fd, line.encode())

    def _open(self) -> bool:
        with contextlib.suppress(OSError):
            self._fd = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        return self._fd >= 0

    def close(self) -> None:
        """Say nothing more."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """For one job."""
    made = Gate(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def host() -> Iterator[HostSpec]:
    """A host over SSH."""
    with DemoServer() as server:
        yield HostSpec("demo", "demo", ssh_config=str(server.ssh_config))


def left(folder: Path) -> dict[str, str]:
    """What a job has left here, without what Hydra has written."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".log" and not {".launcher", ".hydra"} & set(path.parts)
    }


def test_files_come_while_the_job_runs(host: HostSpec, gate: Gate, tmp_path: Path) -> None:
    """In their place. In the end there is what the job has in the end."""
    with launcher.Session.open(hosts=[host], folder=tmp_path / "out", sync_outputs="1s") as session:
        job = session.submit(grows, {"gate": str(gate.path)})
        folder = tmp_path / "out" / "0"
        gate.say("one\n")
        wait_until(reads(folder / "log", "one\n"), "the first line")
        with open(folder / "log") as reader:
            assert reader.read() == "one\n"
            gate.say("two\n")
            wait_until(reads(folder / "best", "two\n"), "the rewritten file")
            wait_until(lambda: reader.read() == "two\n", "what was added to the open file")
        assert not job.done()
        gate.say("end\n")
        assert job.result() == "done"
    assert left(folder) == {"log.old": "one\ntwo\n", "best": "two\n", "late/file": "late"}
    assert not (folder / ".launcher" / "synced").exists()


@pytest.mark.slow
def test_patterns_say_what_comes_early(host: HostSpec, gate: Gate, tmp_path: Path) -> None:
    """All else comes in the end."""
    with launcher.Session.open(hosts=[host], folder=tmp_path / "out", sync_outputs=1, sync_only=["l*"]) as session:
        job = session.submit(grows, {"gate": str(gate.path)})
        gate.say("one\n")
        wait_until(reads(tmp_path / "out" / "0" / "log", "one\n"), "the first line")
        assert not (tmp_path / "out" / "0" / "best").exists()
        gate.say("end\n")
        assert job.result() == "done"
    assert left(tmp_path / "out" / "0") == {"log.old": "one\n", "best": "one\n", "late/file": "late"}


@pytest.mark.slow
def test_over_a_link_that_is_lost_it_goes_on(gate: Gate, tmp_path: Path) -> None:
    """The file that a reader has open is not replaced."""
    with DemoServer() as server, CuttingRelay(server.port) as relay:
        known, config = tmp_path / "known_hosts", tmp_path / "ssh_config"
        known.write_text(server.known_hosts.read_text().replace(f":{server.port} ", f":{relay.port} "))
        text = server.ssh_config.read_text().replace(str(server.known_hosts), str(known))
        config.write_text(text.replace(f"Port {server.port}", f"Port {relay.port}"))
        spec = HostSpec("demo", "demo", ssh_config=str(config))
        with launcher.Session.open(hosts=[spec], folder=tmp_path / "out", sync_outputs=1) as session:
            job = session.submit(grows, {"gate": str(gate.path)})
            log = tmp_path / "out" / "0" / "log"
            gate.say("one\n")
            wait_until(reads(log, "one\n"), "the first line")
            inode = log.stat().st_ino
            relay.cut()
            gate.say("two\n")
            wait_until(reads(log, "one\ntwo\n"), "the second line")
            assert log.stat().st_ino == inode
            gate.say("end\n")
            assert job.result() == "done"
    assert left(tmp_path / "out" / "0") == {"log.old": "one\ntwo\n", "best": "two\n", "late/file": "late"}


@pytest.mark.slow
def test_a_disk_that_is_full_here_is_said_once_and_the_end_brings_all(
    host: HostSpec, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job goes on."""
    monkeypatch.setattr(synced_files, "RESERVE", 1 << 62)
    seen: list[events.Event] = []
    with launcher.Session.open(
        hosts=[host], folder=tmp_path / "out", sync_outputs=1, observers=[seen.append]
    ) as session:
        job = session.submit(grows, {"gate": str(gate.path)})
        gate.say("one\n")
        wait_until(lambda: said(seen), "the note")
        gate.say("two\n")
        gate.say("end\n")
        assert job.result() == "done"
    assert left(tmp_path / "out" / "0") == {"log.old": "one\ntwo\n", "best": "two\n", "late/file": "late"}
    (text,) = said(seen)
    assert "No space left on device" in text
    assert "come when each job ends" in text


def said(seen: list[events.Event]) -> list[str]:
    """Messages about files of running jobs."""
    return [text for event in seen if "files of running jobs" in (text := getattr(event, "message", ""))]


@pytest.mark.slow
def test_a_failed_attempt_and_the_next_one(host: HostSpec, tmp_path: Path) -> None:
    """What the first one left stays as without the option, and the second one's files come over it in the end."""
    with launcher.Session.open(hosts=[host], folder=tmp_path / "out", sync_outputs=1, retries=1) as session:
        assert session.submit(fails_once, {}).result() == "done"
    assert left(tmp_path / "out" / "0") == {"log": "attempt 2", "only-1": "attempt 1", "only-2": "attempt 2"}


RUN = """
import sys
sys.argv[0] = "launcher"
from launcher.cli.main import main
main()
"""

APP = """
import os
import launcher


def task(cfg):
    folder = launcher.current_job().output_dir
    for name in ("log", "gone"):
        with open(os.path.join(folder, name), "w") as file:
            file.write(name)
    with open(cfg.gate) as gate:
        gate.read()
    os.remove(os.path.join(folder, "gone"))
    with open(os.path.join(folder, "log"), "a") as file:
        file.write(" more")
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "detached"])
def test_a_run_that_is_taken_up_again_goes_on_and_ends_as_without_it(gate: Gate, tmp_path: Path, how: str) -> None:
    """After kill -9 of its controller, and after it was detached. Also a file that only the controller before had seen goes."""
    (tmp_path / "my_app.py").write_text(APP)
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    command = [sys.executable, "-c", RUN]
    with DemoServer() as server:
        hosts = tmp_path / "hosts.yaml"
        hosts.write_text(json.dumps({"demo": {"address": "demo", "ssh_config": str(server.ssh_config)}}))
        asked = [
            "multirun",
            "my_app.py:task",
            f"gate={gate.path}",
            "--hosts",
            str(hosts),
            "--folder",
            "out",
            "--sync-outputs",
            "1s",
        ]
        process = subprocess.Popen([*command, *asked], cwd=tmp_path, env=env, stdout=subprocess.DEVNULL)
        gone = tmp_path / "out" / "0" / "gone"
        try:
            wait_until(reads(gone, "gone"), "the first files")
        finally:
            process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGHUP)
            process.wait()
        assert gone.exists()
        attach = subprocess.Popen([*command, "attach"], cwd=tmp_path, env=env)
        gate.say("")
        gate.close()
        assert attach.wait(_PATIENCE) == 0
    assert left(tmp_path / "out" / "0") == {"log": "log more"}


@pytest.mark.openssh
@pytest.mark.parametrize("way", ["fabric", "openssh"])
def test_on_a_host_that_shares_nothing(tmp_path: Path, way: str) -> None:
    """A real sshd, by both ways to log in. The job is told to go on by a file there."""
    with running_openssh_host(tmp_path / "host") as host:
        spec = host.spec()
        with launcher.Session.open(hosts=[spec], folder=tmp_path / "out", sync_outputs=1, ssh=way) as session:
            job = session.submit(waits, {})
            log = tmp_path / "out" / "0" / "log"
            wait_until(reads(log, "one\n"), "the first line")
            assert not job.done()
            (host.home / "go").touch()
            job.result()
    assert log.read_text() == "one\ntwo\n"


@pytest.mark.trackers
def test_tensorboard_reads_a_file_of_events_that_grows(host: HostSpec, gate: Gate, tmp_path: Path) -> None:
    """With its own reader, which is opened once: each value while the job runs, and the last one after its end. A record may come in two parts."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    def record(event: Event) -> bytes:
        buffer = io.BytesIO()
        RecordWriter(buffer).write(event.SerializeToString())
        return buffer.getvalue()

    def loss(step: int) -> bytes:
        value = Summary.Value(tag="loss", simple_value=1 / (step + 1))
        return record(Event(wall_time=1.0 + step, step=step, summary=Summary(value=[value])))

    def say(data: bytes) -> None:
        gate.say(base64.b64encode(data).decode() + "\n")

    def steps() -> list[int]:
        reader.Reload()
        return [one.step for one in reader.Scalars("loss")] if "loss" in reader.Tags()["scalars"] else []

    folder = tmp_path / "out" / "0" / "tb"
    with launcher.Session.open(
        hosts=[host], folder=tmp_path / "out", sync_outputs=1, sync_only=["*tfevents*"]
    ) as session:
        job = session.submit(writes_events, {"gate": str(gate.path)})
        say(record(Event(wall_time=0.0, file_version="brain.Event:2")) + loss(0))
        wait_until(folder.exists, "the folder of events")
        reader = EventAccumulator(str(folder))
        wait_until(lambda: steps() == [0], "the first value")
        size = (folder / "events.out.tfevents.1").stat().st_size
        say(loss(1) + loss(2)[:5])
        wait_until(lambda: (folder / "events.out.tfevents.1").stat().st_size > size, "what is new")
        wait_until(lambda: steps() == [0, 1], "the second value")
        say(loss(2)[5:])
        wait_until(lambda: steps() == [0, 1, 2], "the record that came in two parts")
        assert not job.done()
        say(loss(3))
        gate.close()
        job.result()
    assert steps() == [0, 1, 2, 3]
