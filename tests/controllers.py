"""Controllers as processes of their own, to be killed: starting them, waiting for what they did, taking their runs up.

Rule: a test waits for a file or a journal to say something, with a deadline, and never for time to pass.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from launcher.errors import JournalError, RunError
from launcher.runs import index
from launcher.runs.index import Entry
from launcher.runs.journal import FOLDER, JournalReader

__all__ = ["Controller", "Project", "until", "wait_agents_ended"]

APP = Path(__file__).parent / "apps" / "durable" / "durable_app.py"
ROOT = Path(__file__).parent.parent
T = TypeVar("T")


def until(what: str, look: Callable[[], T], timeout: float = 30.0) -> T:
    """What `look` gives once it is true; fails saying what was waited for."""
    deadline = time.monotonic() + timeout
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s for: {what}")
        threading.Event().wait(0.005)


def wait_agents_ended(state: Path) -> None:
    """Wait until the agents of finished runs change no file of their host any more: the last that each does is to remove its run's folder.

    Args:
        state: the host's state folder: `state` below a `workdir`, or `hydra-remote-launcher` below the user's.
    """
    runs = state / "runs"
    until("the agents to take their spools with them", lambda: not runs.is_dir() or not os.listdir(runs), timeout=120)


class Controller:
    """A controller's process."""

    def __init__(self, project: Project, command: list[str], env: dict[str, str]) -> None:
        self.project = project
        self.log = (project.folder / f"controller-{time.monotonic_ns()}.log").open("w+")
        self.process = subprocess.Popen(
            command,
            cwd=project.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Signal it, and wait for its end; returns its exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def wait(self) -> str:
        """Wait for it to end well; returns what it wrote."""
        status = self.process.wait(120)
        assert status == 0, f"exit status {status}\n{self.output}"
        return self.output

    @property
    def output(self) -> str:
        """What it wrote so far."""
        self.log.seek(0)
        return self.log.read()

    def end(self) -> None:
        """At the end of a test, whatever happened."""
        if self.process.poll() is None:
            self.kill()
        self.log.close()


class Project:
    """An application in a folder of its own, the marks that its jobs leave, and the controllers that drive it.

    Args:
        host_home: the home folder of a host that shares nothing with the controllers, whose own home is `home`.
    """

    def __init__(self, folder: Path, hosts: dict[str, Any] | None = None, host_home: Path | None = None) -> None:
        self.folder = folder
        self._state = os.environ["XDG_STATE_HOME"]
        self.home = folder.parent / "home"
        self.marks = folder / "marks"
        self._marks_asked = str(self.marks)
        self._mark_folders = [self.marks]
        if host_home is not None:
            name = f"marks-{uuid.uuid4().hex}"
            self.home.mkdir()
            self.marks = self.home / name
            self._marks_asked = f"~/{name}"
            self._mark_folders = [self.marks, host_home / name]
        self.run = folder / "run"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / APP.name).write_bytes(APP.read_bytes())
        self.options: dict[str, Any] = {"hosts": ["local/2"]}
        if hosts is not None:
            (folder / "hosts.yaml").write_text(json.dumps(hosts))
            self.options = {"hosts_file": "hosts.yaml"}
        self._controllers: list[Controller] = []

    def start(
        self, jobs: int, config: dict[str, Any] | None = None, env: dict[str, str] | None = None, **options: Any
    ) -> Controller:
        """Start a sweep in a process of its own."""
        asked = {"marks": self._marks_asked, "jobs": jobs, "folder": str(self.run), "config": config or {}}
        return self._add([sys.executable, APP.name, json.dumps({**asked, **self.options, **options})], env or {})

    def command(self, *arguments: str, env: dict[str, str] | None = None) -> Controller:
        """Start the command `launcher` with these arguments."""
        program = "import sys; sys.argv[0] = 'launcher'; from launcher.cli.main import main; main()"
        return self._add([sys.executable, "-c", program, *arguments], env or {})

    def _add(self, command: list[str], env: dict[str, str]) -> Controller:
        controller = Controller(self, command, env)
        self._controllers.append(controller)
        return controller

    def marked(self, kind: str) -> Counter[str]:
        """How many marks of this kind each job left."""
        found: Counter[str] = Counter()
        for folder in self._mark_folders:
            if (folder / kind).is_dir():
                found.update(name.split(".")[0] for name in os.listdir(folder / kind))
        return found

    def texts(self, kind: str) -> list[str]:
        """What the marks of this kind say, in order."""
        folder = self.marks / kind
        names = os.listdir(folder) if folder.is_dir() else []
        return [(folder / name).read_text() for name in sorted(names, key=lambda name: int(name.rpartition(".")[2]))]

    @property
    def entry(self) -> Entry:
        """The run, by its folder."""
        return index.find(self.run)

    def processes(self) -> list[int]:
        """What runs of its controllers, agents and jobs on this machine."""
        return _processes_with(f"XDG_STATE_HOME={self._state}")

    def events(self) -> int:
        """How many events the journal holds; 0 while there is none."""
        try:
            reader = JournalReader(self.run / FOLDER)
        except (RunError, JournalError):
            return 0
        try:
            return int(reader._rows("select count(*) from events")[0][0])
        except JournalError:
            return 0
        finally:
            reader.close()

    def close(self) -> None:
        """End what is left of its controllers, and of the agents and jobs that they started on this machine."""
        for controller in self._controllers:
            controller.end()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _processes_with(variable: str) -> list[int]:
    """Processes that were started with this in their environment, other than this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            environment = path.read_bytes().split(b"\0")
        except OSError:
            continue
        pid = int(path.parent.name)
        if variable.encode() in environment and pid != os.getpid():
            found.append(pid)
    return found
