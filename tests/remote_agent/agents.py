"""A real agent with a real zygote, and a controller that sends what a test wants.

Rule: nothing here sleeps: a test waits for a frame, a file, a process's end, each with a deadline.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import re
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle

from remote_agent.hydra.compat import minimal_hydra_node
from remote_agent.protocol import wire
from remote_agent.system.processes import TOKEN

__all__ = ["APP", "SLOW_DISK", "AgentHost", "Client", "Started", "wait_gone", "wait_until"]

#: Seconds until a wait is given up: long, for machines with much else to do.
PATIENCE = 60.0

#: The application: what each job does is in its config. A gate is a FIFO: who reads it waits for who writes it.
APP = """
import json, os, signal, subprocess, sys, threading

HERE = os.path.dirname(os.path.abspath(__file__))


def note(name, text):
    with open(os.path.join(HERE, name), "a") as file:
        file.write(text + "\\n")


def gate(name):
    with open(os.path.join(HERE, name)) as file:
        return file.read()


def task(cfg):
    do = cfg.get("do", "value")
    if do == "stubborn":
        # Before it says that it has started: a test sends SIGTERM from then on.
        signal.signal(signal.SIGTERM, lambda number, frame: note("terms", str(cfg.num)))
    note("started", "{} {}".format(cfg.num, os.getpid()))
    if do == "value":
        return cfg.get("value", cfg.num)
    if do == "gate":
        gate(cfg.gate)
        return cfg.num
    if do == "gpus":
        # In one write, so that who reads it has all of it.
        note("gpus", "{} {}".format(cfg.num, os.environ.get("CUDA_VISIBLE_DEVICES", "unset")))
        return gate(cfg.gate) if cfg.get("gate") else cfg.num
    if do == "raise":
        raise ValueError("as asked")
    if do == "signal":
        os.kill(os.getpid(), cfg.signal)
        gate("never")
    if do == "exit":
        os._exit(cfg.code)
    if do == "hold":
        return len(b"1" * cfg.size)
    if do == "large":
        return bytes(cfg.size)
    if do == "print":
        block = bytes(range(256)) * 256
        for _ in range(cfg.blocks):
            os.write(1, block)
        return cfg.num
    if do == "stubborn":
        while True:
            try:
                gate("never")
            except OSError:
                pass
    if do == "thread":
        threading.Thread(target=gate, args=("never",)).start()
        return cfg.num
    if do == "escape":
        left = subprocess.Popen(
            [sys.executable, "-c", "import os,sys,signal;os.setsid();print(os.getpid(),flush=True);signal.pause()"],
            stdout=subprocess.PIPE,
        )
        note("escaped", left.stdout.readline().decode().strip())
        if cfg.get("then") == "gate":
            gate(cfg.gate)
        return cfg.num
    if do == "nonsense":
        from remote_agent.protocol import wire
        for fd in range(20, 1100):
            try:
                os.fstat(fd)
                os.write(fd, eval(cfg.data, {"wire": wire}))
            except OSError:
                pass
        return cfg.num
    if do == "files":
        for name, size in cfg.files.items():
            path = os.path.join(cfg.out, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(bytes(size))
        return cfg.num
    raise AssertionError(do)


class Hooks:
    def __init__(self, name, trap=None):
        self.name, self.trap, self.seen = name, trap, None

    def on_job_start(self, config, **kwargs):
        self.seen = config.num
        note("hooks", "start {} {}".format(self.name, config.num))

    def on_job_end(self, config, job_return, **kwargs):
        error = job_return.error.kind if job_return.error else ""
        note("hooks", "end {} {} {} {}".format(self.name, config.num, self.seen, error))
        if self.trap == "gate":
            gate("end")
        elif self.trap == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
"""


#: A patch of an agent: its disk takes a long result when this gate is opened.
SLOW_DISK = "import remote_agent.agent.spool.attempts as attempts; attempts.sync_file = lambda path: open({!r}).read()"


def wait_until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Wait until the condition holds. It is checked again and again, for conditions without a sign."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        select.select([], [], [], 0.01)


def wait_gone(pid: int, what: str = "a process", seconds: float = PATIENCE) -> None:
    """Wait until this process has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([fd], [], [], seconds)
        assert ready, f"{what} ({pid}) was still alive after {seconds:.0f} s"
    finally:
        os.close(fd)


def carrying(token: str) -> list[int]:
    """Processes whose environment has a token with this prefix."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if f"{TOKEN}={token}".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def _parent(pid: int) -> int:
    """The parent of a process; 0 if it is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


@dataclass
class Started:
    """A job as the application saw it."""

    num: int
    pid: int


class Client:
    """One connection: the `connect` process and the frames from it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        assert process.stdout is not None
        self._out = process.stdout.fileno()
        #: What came before the preamble, until that was seen.
        self._noise: bytes | None = b""
        self._decoder = wire.Decoder()
        self.frames: list[wire.Frame] = []
        self.is_over = False
        #: Pings are answered.
        self.answers = True

    # -- saying --------------------------------------------------------------------------------------------------

    def send(self, header: dict[str, Any], payload: bytes = b"") -> None:
        """Send a message."""
        self.send_raw(wire.encode(header, payload))

    def send_raw(self, data: bytes) -> None:
        """Send bytes."""
        assert self.process.stdin is not None
        view = memoryview(data)
        stdin = self.process.stdin.fileno()
        while view:
            _, ready, _ = select.select([], [stdin], [], PATIENCE)
            assert ready, f"the agent took nothing for {PATIENCE:.0f} s"
            view = view[os.write(stdin, view[: select.PIPE_BUF]) :]

    # -- hearing -------------------------------------------------------------------------------------------------

    def read(self, seconds: float) -> bool:
        """Read what comes within this many seconds. False if nothing came."""
        if self.is_over:
            return False
        ready, _, _ = select.select([self._out], [], [], seconds)
        if not ready:
            return False
        data = os.read(self._out, 1 << 18)
        if not data:
            self.is_over = True
            return True
        if self._noise is not None:
            self._noise, found, rest = (self._noise + data).partition(wire.PREAMBLE)
            if not found:
                return True
            self._noise, data = None, rest
        for frame in self._decoder.feed(data):
            if frame.header["t"] == "ping" and self.answers:
                # An agent that is killed just now takes no answer.
                with contextlib.suppress(BrokenPipeError):
                    self.send({"t": "pong", "n": frame.header["n"]})
            self.frames.append(frame)
        return True

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
        """Read until the condition holds."""
        deadline = time.monotonic() + seconds
        while True:
            result = condition()
            if result:
                return result
            left = deadline - time.monotonic()
            assert left > 0, f"waited {seconds:.0f} s for {what}; heard: {[f.header for f in self.frames][-20:]}"
            assert not self.is_over, (
                f"the link ended while waiting for {what}; heard: {[f.header for f in self.frames]}"
            )
            self.read(min(left, 0.1))

    def all(self, name: str, **fields: Any) -> list[wire.Frame]:
        """Every frame of that name with these fields."""
        return [
            frame
            for frame in self.frames
            if frame.header["t"] == name and all(frame.header.get(key) == value for key, value in fields.items())
        ]

    def expect(self, name: str, **fields: Any) -> wire.Frame:
        """Wait for the first frame of that name with these fields."""
        return self.wait(lambda: next(iter(self.all(name, **fields)), None), f"{name} {fields}")

    def wait_over(self) -> None:
        """Wait until the agent has closed the link."""
        while not self.is_over:
            assert self.read(PATIENCE), "the link was not closed"

    # -- conveniences --------------------------------------------------------------------------------------------

    def result(self, attempt: str) -> wire.Frame:
        """The final frame of an attempt, with everything that belongs to it."""
        final = self.expect("final", attempt=attempt)
        self.expect("files_end", attempt=attempt)
        return final

    def value(self, attempt: str) -> Any:
        """The value that a job returned."""
        frame = self.result(attempt)
        part = frame.header["parts"]["value"]
        data = frame.payload or b"".join(f.payload for f in self.all("chunk", attempt=attempt, kind="result"))
        return pickle.loads(data[part["offset"] : part["offset"] + part["size"]])

    def error(self, attempt: str) -> dict[str, Any]:
        """The error of an attempt."""
        envelope = self.result(attempt).header["envelope"]
        assert envelope["status"] == "FAILED", envelope
        return envelope["error"]

    def stream(self, attempt: str, stream: str = "stdout") -> bytes:
        """The output that came of a stream."""
        out = bytearray()
        for frame in self.all("output", attempt=attempt, stream=stream):
            offset = frame.header["offset"]
            out[offset : offset + len(frame.payload)] = frame.payload
        return bytes(out)

    def notes(self) -> str:
        """All notes, in the welcome or later."""
        told = [note for frame in self.all("welcome") for note in frame.header.get("notes", [])]
        return "\n".join(told + [frame.header["message"] for frame in self.all("fatal", code="note")])

    def ack(self, *attempts: str) -> None:
        """Acknowledge these attempts."""
        self.send({"t": "ack", "attempts": list(attempts)})

    def cut(self) -> None:
        """Lose the link: the session is killed."""
        self.process.kill()
        self.close()

    def close(self) -> None:
        """Close the link."""
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        self.process.wait(PATIENCE)


@dataclass
class AgentHost:
    """A host of one run: folders, an application, and an agent that starts with the first connection."""

    root: Path
    bundle: Path
    run: str = "r1"
    host: str = "h1"
    patch: str = ""
    #: The Python that the agent starts ahead of time, empty for its own.
    spare: str | None = None
    callbacks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    isolation: str = "fork"
    #: Cache and state; that of another host of the same machine may be given.
    work: Path = Path()
    #: Whose processes these are; None: the test's. The Python of its agent and jobs, and variables of both.
    user: int | None = None
    python: str = sys.executable
    variables: dict[str, str] = field(default_factory=dict)
    clients: list[Client] = field(default_factory=list)
    _shared: bytes = b""

    def __post_init__(self) -> None:
        self.code = self.root / "code"
        self.code.mkdir(parents=True)
        if self.work == Path():
            self.work = self.root / "work"
        (self.code / "app.py").write_text(APP)
        os.mkfifo(self.code / "never")
        if self.user is not None:
            for path in (self.root, self.code, *self.code.iterdir()):
                os.chown(path, self.user, self.user)

    # -- the run -------------------------------------------------------------------------------------------------

    @property
    def spool(self) -> Path:
        """The spool folder, once it is there."""
        return next((self.work / "state" / "runs" / self.run).iterdir())

    def connect(self, *, hello: dict[str, Any] | None = None, prepare: bool = True, go: bool = True) -> Client:
        """Connect, shake hands, prepare the application."""
        client = self.open()
        client.send(
            {
                "t": "hello",
                "version": wire.VERSION,
                "run": self.run,
                "controller": "test",
                "host": self.host,
                "slots": 1,
                **(hello or {}),
            }
        )
        client.expect("welcome")
        if prepare:
            self.prepare(client)
        if go:
            client.send({"t": "go"})
        return client

    def open(self) -> Client:
        """Start a `connect` process, and send nothing."""
        program = f"import sys;sys.path.insert(0,{str(self.bundle)!r})\n{textwrap.dedent(self.patch)}\n"
        program += "from remote_agent.__main__ import main\nsys.exit(main(sys.argv[1:]))"
        role = ["connect", "--run", self.run, "--host", self.host, "--workdir", str(self.work)]
        role += ["--spare", self.spare] if self.spare is not None else []
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("XDG_") and name != TOKEN
        }
        process = subprocess.Popen(
            [self.python, "-I", "-S", "-c", program, *role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env={**environment, "HOME": str(self.root), **self.variables},
            user=self.user,
            group=self.user,
            extra_groups=None if self.user is None else [],
        )
        client = Client(process)
        self.clients.append(client)
        return client

    def prepare(self, client: Client, **more: Any) -> None:
        """Say how to prepare the application."""
        shared = self.shared()
        sha256 = hashlib.sha256(shared).hexdigest()
        client.send({"t": "blob", "sha256": sha256, "size": len(shared), "offset": 0, "scope": "run"}, shared)
        client.send({"t": "prepare", "zygote": "z", "spec": self.zygote_spec(shared=sha256, **more)})

    def shared(self) -> bytes:
        """What all jobs share."""
        if not self._shared:
            callbacks = [
                {
                    "name": name,
                    "spec": {"_target_": "app.Hooks", "name": name, **dict(more)},
                    "pickle": None,
                    "why": "test",
                }
                for name, more in self.callbacks.items()
            ]
            for entry in callbacks:
                entry["on_error"] = None
            self._shared = cloudpickle.dumps({"task": "app:task", "callbacks": callbacks, "hydra": None})
        return self._shared

    def zygote_spec(self, **more: Any) -> dict[str, Any]:
        """A zygote's spec."""
        return {
            "sys_path": [str(self.code)],
            "cwd": str(self.code),
            "isolation": self.isolation,
            "main_module": None,
            "controller": {
                "python": list(sys.version_info[:2]),
                "by_value": False,
                "omegaconf": "2.3.0",
                "hydra": None,
                "cloudpickle": cloudpickle.__version__,
            },
            "argv": ["app"],
            "run": self.run,
            "host": self.host,
            "code": {},
            "environ": {},
            "setup": [],
            "python": self.python,
            **more,
        }

    def payload(self, num: int, **config: Any) -> bytes:
        """A job's config as it is sent."""
        node = minimal_hydra_node(name="app", task_overrides=[], num=num, job_id=f"{self.run}_{num}")
        return cloudpickle.dumps({"config": {"num": num, **config}, "hydra": node, "overrides": [], "task_name": "app"})

    def job(
        self,
        client: Client,
        num: int,
        *,
        attempt: int = 1,
        spec: dict[str, Any] | None = None,
        payload_blob: str | None = None,
        **config: Any,
    ) -> str:
        """Send a job. Returns its attempt. `payload_blob`: its payload was sent before, under this name."""
        name = f"{num}.{attempt}"
        header = {
            "attempt_id": name,
            "num": num,
            "attempt": attempt,
            "job_id": f"{self.run}_{num}",
            "zygote": "z",
            "output_dir": str(num),
            "grace": 5.0,
            **(spec or {}),
        }
        payload = b"" if payload_blob else self.payload(num, **config)
        client.send({"t": "job", "spec": header, "payload_blob": payload_blob}, payload)
        return name

    # -- the application's side ----------------------------------------------------------------------------------

    def gate(self, name: str) -> str:
        """A gate at which jobs may wait."""
        os.mkfifo(self.code / name)
        return name

    def open_gate(self, name: str) -> None:
        """Let the job that waits at the gate go on, when it is there."""
        (self.code / name).write_text("go")

    def lines(self, name: str) -> list[str]:
        """The lines that the application has recorded."""
        path = self.code / name
        return path.read_text().splitlines() if path.exists() else []

    def started(self, count: int = 1) -> list[Started]:
        """Jobs whose application has begun. Waits until there are this many."""
        lines = wait_until(
            lambda: self.lines("started") if len(self.lines("started")) >= count else None, f"{count} jobs to start"
        )
        return [Started(int(line.split()[0]), int(line.split()[1])) for line in lines]

    def gpus_of(self, num: int) -> str:
        """What the job with this number sees of the GPUs, when it has begun: the value of its variable."""
        seen = wait_until(
            lambda: [line.split()[1:] for line in self.lines("gpus") if line.split()[0] == str(num)], f"job {num}"
        )
        return str(*seen[-1])

    # -- processes -----------------------------------------------------------------------------------------------

    @staticmethod
    def agent_pid(client: Client) -> int:
        """The agent's process."""
        return int(client.expect("welcome").header["pid"])

    def zygote_pids(self) -> list[int]:
        """The zygotes' processes: those that lead a session and are neither jobs nor workers that wait."""
        found = [pid for pid in self._running("zygote/entry.py") if self._is_zygote(pid)]
        return [pid for pid in found if _parent(pid) not in found]

    @staticmethod
    def _is_zygote(pid: int) -> bool:
        try:
            return os.readlink(f"/proc/{pid}/fd/1").find("/logs/zygote-") > 0
        except OSError:
            return False

    def _running(self, part: str) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
                if part in command and str(self.bundle) in command and self._is_ours(int(entry.name)):
                    found.append(int(entry.name))
        return found

    def _is_ours(self, pid: int) -> bool:
        return f"HOME={self.root}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")

    def kill_agent(self, client: Client) -> None:
        """Kill the agent with SIGKILL. Jobs and zygote go on."""
        pid = self.agent_pid(client)
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid, "the agent")

    def processes(self) -> list[int]:
        """Everything that runs for this host."""
        return [pid for part in ("zygote/entry.py", "remote_agent.__main__") for pid in self._running(part)]

    def log_lines(self) -> Iterator[dict[str, Any]]:
        """The headers of the spool's log."""
        from remote_agent.agent.spool.log import scan

        return scan(str(self.spool / "log"))

    def stop(self) -> None:
        """End everything that was started."""
        for client in self.clients:
            if client.process.poll() is None:
                client.process.kill()
            client.close()
        for pid in self.processes() + carrying(f"{self.run}/"):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for path in self.work.glob(f"state/runs/{self.run}/*/agent.err"):
            text = path.read_text()
            assert not re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\nTraceback", text, re.MULTILINE), text

    def known(self, client: Client) -> dict[str, str]:
        """The attempts of a welcome."""
        out: dict[str, str] = {}
        for frame in client.all("welcome"):
            out.update(json.loads(frame.payload))
        return out
