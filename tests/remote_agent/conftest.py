"""A real zygote under a real Python, which a small fake agent drives over a socketpair."""

from __future__ import annotations

import contextlib
import copy
import functools
import glob
import os
import pickle
import select
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from hydra.core.utils import setup_globals
from omegaconf import OmegaConf

from launcher.bootstrap import bundle as agent_bundle
from remote_agent.hydra.compat import minimal_hydra_node
from remote_agent.job import JobError
from remote_agent.protocol import wire
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.result_parts import NO_PARTS, ResultParts
from remote_agent.protocol.specs.job import EpilogueSpec, ForkSpec
from remote_agent.shared.descriptors import send_with_fds
from tests.specs import job_spec, zygote_spec

_PATIENCE = 30.0


@functools.cache
def interpreters() -> dict[str, str]:
    """Minor version -> path of a Python for hosts."""
    found = {"{}.{}".format(*sys.version_info[:2]): sys.executable}
    for path in sorted(glob.glob("/root/.pyenv/versions/3.*/bin/python") + glob.glob("/usr/bin/python3.*[0-9]")):
        name = subprocess.run(
            [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        found.setdefault(name, path)
    return found


def other_pythons() -> list[Any]:
    """Parameters for tests that run under several Pythons. Missing Pythons are skipped by name."""
    known = interpreters()
    return [
        pytest.param(
            known.get(name, ""),
            id=name,
            marks=[pytest.mark.pythons]
            + ([] if name in known else [pytest.mark.skip(reason=f"no Python {name} here")]),
        )
        for name in ("3.8", "3.11", "3.13")
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with the argument `python` runs under each of the Pythons."""
    if "python" in metafunc.fixturenames:
        metafunc.parametrize("python", other_pythons())


@dataclass
class Attempt:
    """What the fake agent knows of one attempt."""

    name: str
    sock: socket.socket
    output_dir: Path
    spool: Path
    decoder: wire.Decoder = field(default_factory=wire.Decoder)
    frames: list[wire.Frame] = field(default_factory=list)
    pid: int | None = None
    status: int | None = None
    eof: bool = False
    #: What its worker did after it.
    following: Attempt | None = None

    @property
    def entered(self) -> list[tuple[str, str]]:
        """(hook, callback) in the order in which they were announced."""
        return [(f.header["hook"], f.header["callback"]) for f in self.frames if f.header["t"] == "hook"]

    @property
    def is_idle(self) -> bool:
        """Whether it is over, and its worker waits for another job."""
        return self.frame("idle") is not None

    def frame(self, name: str) -> wire.Frame | None:
        """The first frame of that name."""
        return next((f for f in self.frames if f.header["t"] == name), None)

    @property
    def envelope(self) -> dict[str, Any]:
        """The final envelope."""
        done = self.frame("done")
        assert done is not None, (self.frames, self.stderr)
        return done.header["envelope"]

    @property
    def error(self) -> dict[str, Any]:
        """The final error."""
        error = self.envelope["error"]
        assert error is not None
        return error

    def part(self, name: str = "value") -> Any:
        """A part of the final result, loaded. KeyError if it is missing."""
        done = self.frame("done")
        assert done is not None
        if done.header["parts"].get("same"):
            done = self.frame("outcome")
            assert done is not None
        parts = done.header["parts"]
        data = Path(parts["file"]).read_bytes() if "file" in parts else done.payload
        at = parts[name]
        return pickle.loads(data[at["offset"] : at["offset"] + at["size"]])

    def _stream(self, name: str) -> str:
        return (self.spool / "streams" / f"{self.name}.{name}").read_text(errors="surrogateescape")

    @property
    def stdout(self) -> str:
        """What the job printed."""
        return self._stream("stdout")

    @property
    def stderr(self) -> str:
        """What the job printed to stderr."""
        return self._stream("stderr")

    @property
    def log(self) -> str:
        """The job's own log."""
        return "".join(path.read_text() for path in sorted(self.output_dir.glob("*.log")))

    def file(self, name: str) -> str:
        """A file of the output directory."""
        return (self.output_dir / name).read_text()


class Host:
    """Starts one zygote and gives it jobs, as the agent does."""

    def __init__(self, root: Path, bundle: Path, python: str) -> None:
        self.root = root
        self.code = root / "code"
        self.code.mkdir()
        self.spool = root / "spool"
        (self.spool / "streams").mkdir(parents=True)
        self.bundle = bundle
        self.python = python
        self.sock: socket.socket | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.decoder = wire.Decoder()
        self.attempts: dict[str, Attempt] = {}
        self.frames: list[wire.Frame] = []
        self._count = 0
        self.name = "gpu1"

    def write(self, files: dict[str, str]) -> None:
        """Write files of the application."""
        for name, text in files.items():
            path = self.code / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))

    def start(
        self,
        task: Any,
        callbacks: list[dict[str, Any]] | None = None,
        *,
        environ: dict[str, str] | None = None,
        hydra: Any = None,
        shared: bytes | None = None,
        wait: bool = True,
        **spec: Any,
    ) -> wire.Frame:
        """Start the zygote. Returns its `ready` or `unusable`."""
        ours, theirs = socket.socketpair()
        self.log = self.root / "zygote.log"
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.root), "LANG": "C.UTF-8", **(environ or {})}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [
                    self.python,
                    str(self.bundle / "remote_agent" / "zygote" / "entry.py"),
                    str(theirs.fileno()),
                    str(self.bundle),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                cwd="/",
            )
        theirs.close()
        ours.settimeout(_PATIENCE)
        self.sock = ours
        given = {"code_root": str(self.code), "sys_path": [str(self.code)], "cwd": str(self.code), "host": self.name}
        code = {"hash": "abc", "commit": None, "dirty": False}
        full = zygote_spec(**{**given, "code": code, **spec}).to_json()
        if shared is None:
            shared = cloudpickle.dumps({"task": task, "callbacks": callbacks or [], "hydra": hydra})
        if len(shared) > 1 << 20:
            path = self.root / "shared"
            path.write_bytes(shared)
            full["shared_file"], shared = str(path), b""
        ours.sendall(wire.encode({"t": "prepare", "zygote": "z", "spec": full}, shared))
        if not wait:
            return wire.Frame({})
        return self.wait(lambda: next((f for f in self.frames if f.header["t"] in ("ready", "unusable")), None))

    def payload(
        self, config: Any, overrides: list[str] | None = None, task_name: str = "app", task: Any = None, **node: Any
    ) -> bytes:
        """The payload of a job with a plain config, and a task of its own if it is to have one."""
        hydra = minimal_hydra_node(name=task_name, task_overrides=overrides, **node)
        content = {"config": config, "hydra": hydra, "overrides": overrides or [], "task_name": task_name}
        if task is not None:
            content["task"] = task
        return cloudpickle.dumps(content)

    def submit(
        self,
        config: Any = None,
        *,
        payload: bytes | None = None,
        spec: dict[str, Any] | None = None,
        after: Attempt | None = None,
        **node: Any,
    ) -> Attempt:
        """Hand over a job, without waiting for it; to the worker that did the job `after` which it comes, if that is given."""
        self._count += 1
        number = self._count - 1
        name = f"{number}.1"
        if payload is None:
            node.setdefault("num", number)
            node.setdefault("job_id", f"run1_{number}")
            payload = self.payload({} if config is None else config, **node)
        output_dir = self.spool / "outputs" / str(number)
        given = {"output_dir": str(output_dir), "job_id": f"run1_{number}", **(spec or {})}
        slot_env = {"HYDRA_REMOTE_LAUNCHER_ATTEMPT": f"run1/{name}", **given.pop("slot_env", {})}
        payload_file = ""
        if len(payload) > 1 << 20:
            path = self.root / f"{name}.job"
            path.write_bytes(payload)
            payload_file, payload = str(path), b""
        job = job_spec(number, attempt=1)._replace(**given)
        fork = ForkSpec(job, slot_env, str(self.spool), payload_file, given.pop("cpus", []), given.pop("threads", 0))
        return self._hand_over("fork", name, fork, fork.to_json(), payload, after)

    def _hand_over(
        self, kind: str, name: str, fork: ForkSpec, spec: dict[str, Any], payload: bytes, after: Attempt | None = None
    ) -> Attempt:
        ours, theirs = socket.socketpair()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        streams = [str(self.spool / "streams" / f"{name}.{stream}") for stream in ("stdout", "stderr")]
        fds = [theirs.fileno(), *(os.open(path, flags, 0o600) for path in streams)]
        frame = wire.encode({"t": kind, "attempt": name, "spec": spec}, payload)
        if after is None:
            assert self.sock is not None
            send_with_fds(self.sock, frame, fds)
        else:
            ours.close()
            ours, after.eof = after.sock, True
            send_with_fds(ours, frame, fds[1:])
        theirs.close()
        for fd in fds[1:]:
            os.close(fd)
        attempt = Attempt(name, ours, Path(fork.job.output_dir), self.spool)
        if after is not None:
            attempt.pid, after.following = after.pid, attempt
        attempt.fork = fork  # type: ignore[attr-defined]
        self.attempts[name] = attempt
        return attempt

    def epilogue(self, dead: Attempt, payload: bytes, error: dict[str, Any], **more: Any) -> Attempt:
        """Hand over the epilogue of an attempt that died. Returns it as another attempt."""
        payload_file = self.root / f"{dead.name}.payload"
        payload_file.write_bytes(payload)
        state = dead.frame("state")
        outcome = dead.frame("outcome")
        dead.sock.close()
        came = Envelope.of_failure(JobError.from_json(error), 100.0, 101.5)
        path = self.root / f"{dead.name}.outcome"
        if outcome is not None:
            came = Envelope.from_json(outcome.header["envelope"])
            path.write_bytes(outcome.payload)
        spec = EpilogueSpec(
            fork=dead.fork._replace(payload_file=str(payload_file)),  # type: ignore[attr-defined]
            entered=[[f.header["hook"], f.header["index"]] for f in dead.frames if f.header["t"] == "hook"],
            envelope=came,
            has_outcome=outcome is not None,
            parts=ResultParts.from_json(outcome.header["parts"]) if outcome is not None else NO_PARTS,
            outcome_file=str(path) if outcome is not None and "file" not in outcome.header["parts"] else "",
            state_file=(state.header.get("file") or "") if state else "",
        )._replace(**more)
        return self._hand_over("epilogue", dead.name, spec.fork, spec.to_json(), state.payload if state else b"")

    def run(self, config: Any = None, **kwargs: Any) -> Attempt:
        """Hand over a job, and wait for its end."""
        return self.wait_end(self.submit(config, **kwargs))

    def wait_end(self, attempt: Attempt) -> Attempt:
        """Wait until its process was reported as gone and its socket was read to the end."""
        self.wait(lambda: attempt.status is not None and attempt.eof)
        return attempt

    def wait_over(self, attempt: Attempt) -> Attempt:
        """Wait until it is over: its process has ended, or waits for another job."""
        self.wait(lambda: attempt.is_idle or (attempt.status is not None and attempt.eof))
        return attempt

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Read from the zygote and the jobs until the condition holds. It is checked again and again, even if nothing comes."""
        given_up = time.monotonic() + _PATIENCE
        while True:
            result = condition()
            if result:
                return result
            watched: dict[int, Attempt | None] = {a.sock.fileno(): a for a in self.attempts.values() if not a.eof}
            assert self.sock is not None
            if self.sock.fileno() >= 0:
                watched[self.sock.fileno()] = None
            readable, _, _ = select.select(list(watched), [], [], 0.1)
            if readable:
                given_up = time.monotonic() + _PATIENCE
            assert time.monotonic() < given_up, (
                f"nothing happened for {_PATIENCE} s; zygote's log:\n{self.log.read_text()}"
            )
            for fd in readable:
                attempt = watched[fd]
                if attempt is None:
                    self._read_control()
                else:
                    self._read_job(attempt)

    def _read_control(self) -> None:
        assert self.sock is not None
        data = self.sock.recv(1 << 16)
        if not data:
            self.sock.close()
            raise AssertionError(f"the zygote is gone; its log:\n{self.log.read_text()}")
        for frame in self.decoder.feed(data):
            self.frames.append(frame)
            header = frame.header
            if header["t"] == "forked":
                self.attempts[header["attempt"]].pid = header["pid"]
            elif header["t"] == "exited":
                attempt = self.attempts[header["attempt"]]
                while attempt.following is not None:
                    attempt = attempt.following
                attempt.status = header["status"]

    @staticmethod
    def _read_job(attempt: Attempt) -> None:
        try:
            data = attempt.sock.recv(1 << 18)
        except ConnectionResetError:
            data = b""
        if not data:
            attempt.eof = True
            attempt.sock.close()
            return
        frames = attempt.decoder.feed(data)
        attempt.frames += frames
        if any(frame.header["t"] == "done" for frame in frames):
            with contextlib.suppress(BrokenPipeError):
                attempt.sock.send(wire.encode({"t": "kept"}))

    def stop(self) -> None:
        """End the zygote and whatever it has left."""
        for attempt in self.attempts.values():
            attempt.sock.close()
            if attempt.pid is not None and attempt.status is None:
                try:
                    os.killpg(attempt.pid, 9)
                except OSError:
                    pass
        if self.sock is not None:
            self.sock.close()
        if self.process is not None:
            try:
                self.process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked bundle of this tree."""
    return agent_bundle.unpack(agent_bundle.build_bundle(), tmp_path_factory.mktemp("bundle"))


def _hosts(folder: Path, bundle: Path) -> Iterator[Callable[..., Host]]:
    made: list[Host] = []

    def make(python: str = sys.executable) -> Host:
        root = folder / f"host{len(made)}"
        root.mkdir()
        made.append(Host(root, bundle, python))
        return made[-1]

    yield make
    for host in made:
        host.stop()


@pytest.fixture
def new_host(tmp_path: Path, bundle: Path) -> Iterator[Callable[..., Host]]:
    """Makes hosts for one test: `new_host()`, `new_host(python)`."""
    yield from _hosts(tmp_path, bundle)


@pytest.fixture(scope="module")
def new_shared_host(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[Callable[..., Host]]:
    """Makes hosts for the tests of one file."""
    yield from _hosts(tmp_path_factory.mktemp("hosts"), bundle)


@pytest.fixture
def host(new_host: Callable[..., Host]) -> Host:
    """A host under the controller's own Python."""
    return new_host()


@pytest.fixture
def singletons():
    """Saves Hydra's singletons with their content, and restores them."""
    state = dict(Singleton._instances)
    repo = copy.deepcopy(ConfigStore.instance().repo)
    yield
    Singleton._instances = state
    ConfigStore.instance().repo = repo
    GlobalHydra.instance().clear()
    OmegaConf.clear_resolver("custom")
    setup_globals()
