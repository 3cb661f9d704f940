"""A host that is not what it should be: in place of a login shell, a program that says what a test wants it to.

    hostile.py SCENARIO SAID        SAID: a file that is made once it does its worst; with a job it waits for SAID.honest first

Rule: it speaks the wire's own encoding, or bytes of its own making, and needs nothing of the agent.
"""

from __future__ import annotations

import enum
import hashlib
import json
import os
import pickle
import select
import sys
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from remote_agent.job import JobError
from remote_agent.protocol import wire
from remote_agent.shared.plain_value import MARK, VERSION, encode

SCENARIOS: dict[str, Callable[[], None]] = {}
DONE = {"status": "COMPLETED", "error": None, "duration": 1.0, "hooks": []}


def scenario(act: Callable[[], None]) -> Callable[[], None]:
    """What it may be told to do."""
    SCENARIOS[act.__name__] = act
    return act


def out(data: bytes) -> None:
    """Say bytes."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def say(header: dict[str, Any], payload: bytes = b"") -> None:
    """Say a message."""
    out(wire.encode(header, payload))


def said() -> None:
    """It has done its worst."""
    Path(sys.argv[2]).touch()


def raw(header: bytes, **fields: int) -> bytes:
    """A frame with a head of any kind."""
    head = {"version": wire.VERSION, "header": len(header), "payload": 0, "crc": zlib.crc32(header), **fields}
    return wire._HEAD.pack(b"RL", *head.values()) + header


class _Controller:
    """What the controller says. Its pings are answered as they come, also while a scenario waits for something else."""

    def __init__(self) -> None:
        self._decoder = wire.Decoder()
        self._headers: deque[dict[str, Any]] = deque()
        self._is_over = False

    def read(self, seconds: float | None = None) -> None:
        """Take what comes within so many seconds; without a limit if none is given."""
        ready, _, _ = select.select([0], [], [], seconds)
        if not ready:
            return
        data = os.read(0, 1 << 18)
        self._is_over = not data
        for frame in self._decoder.feed(data):
            if frame.header["t"] == "ping":
                say({"t": "pong", "n": frame.header["n"]})
            else:
                self._headers.append(frame.header)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            while self._headers:
                yield self._headers.popleft()
            if self._is_over:
                return
            self.read()


CONTROLLER = _Controller()


def wait_for_honest_host() -> None:
    """Wait until the other host has begun, so that each of them has a job."""
    for _ in range(30_000):
        if Path(sys.argv[2] + ".honest").exists():
            return
        CONTROLLER.read(0.01)


def welcome(run: str, known: str = "{}") -> None:
    """Greet as an agent of that run that knows these attempts."""
    names = {"hostname": "h", "boot_id": "b", "python": "3.11.2", "spool": "/nowhere"}
    say({"t": "welcome", "version": wire.VERSION, "run": run, "pid": 1, "slots": 2, **names}, known.encode())
    say({"t": "zygote", "zygote": "z", "state": "ready", "error": None, "python": "3.11.2", "isolation": "fork"})


def serve(work: Callable[[str], None]) -> None:
    """Keep to the protocol but for what is done with a job."""
    out(wire.PREAMBLE)
    for header in CONTROLLER:
        if header["t"] == "hello":
            welcome(header["run"])
        elif header["t"] == "job":
            said()
            wait_for_honest_host()
            work(header["spec"]["attempt_id"])
        elif header["t"] == "finish":
            say({"t": "fatal", "code": "over", "message": "over"})
            return


def start(attempt: str) -> None:
    """A job's process began."""
    say({"t": "started", "attempt": attempt, "slot": 0, "at": 1.0})


def finish(attempt: str, value: bytes = b"") -> None:
    """A job has its result."""
    part = {"offset": 0, "size": len(value), "sha256": hashlib.sha256(value).hexdigest()}
    parts = {"value": part, "codec": "plain"} if value else {}
    say({"t": "final", "attempt": attempt, "envelope": DONE, "parts": parts}, value)


def collected(attempt: str) -> None:
    """All that it left was sent."""
    say({"t": "files_end", "attempt": attempt, "refused": [], "sizes": {}})


# -- before there is an agent ----------------------------------------------------------------------------------------


@scenario
def banner() -> None:
    """A start-up file that prints, and no agent."""
    said()
    out(b"Welcome to the cluster! Maintenance on Sunday.\n")


@scenario
def noise() -> None:
    """Noise without end."""
    said()
    while True:
        out(b"Welcome to the cluster! " * 1000)


@scenario
def mark() -> None:
    """Bytes that are no frame."""
    said()
    out(wire.PREAMBLE + b"[1] 4711 a background job of .bashrc said this\n")
    threading.Event().wait(60)


@scenario
def version() -> None:
    """A wire of a later version."""
    said()
    out(wire.PREAMBLE + raw(b"{}", version=9))
    threading.Event().wait(60)


@scenario
def length() -> None:
    """A frame of 2 ** 63 bytes."""
    said()
    out(wire.PREAMBLE + raw(b'{"t":"welcome"}', payload=1 << 63))
    threading.Event().wait(60)


@scenario
def other_run() -> None:
    """An agent of somebody else's run."""
    out(wire.PREAMBLE)
    for header in CONTROLLER:
        if header["t"] == "hello":
            said()
            welcome("another-run")


@scenario
def early() -> None:
    """A result before the welcome."""
    out(wire.PREAMBLE)
    said()
    finish("0.1")
    threading.Event().wait(60)


# -- with a job ------------------------------------------------------------------------------------------------------


@scenario
def cut_short() -> None:
    """A result of which the end is missing, each time."""

    def work(attempt: str) -> None:
        start(attempt)
        data = wire.encode({"t": "final", "attempt": attempt, "envelope": DONE}, b"x" * 100)
        out(data[:-50])
        os._exit(0)

    serve(work)


@scenario
def garble() -> None:
    """It knows of its jobs at each link, and then speaks nonsense."""
    known: dict[str, str] = {}
    told = Path(sys.argv[2] + ".known")
    out(wire.PREAMBLE)
    for header in CONTROLLER:
        if header["t"] == "hello":
            welcome(header["run"], told.read_text() if told.exists() else "{}")
            if told.exists():
                out(b"x" * 100)
        elif header["t"] == "job":
            said()
            wait_for_honest_host()
            known[header["spec"]["attempt_id"]] = "running"
            told.write_text(json.dumps(known))
            start(header["spec"]["attempt_id"])
            out(b"x" * 100)


@scenario
def drip() -> None:
    """A result that comes a byte at a time."""

    def work(attempt: str) -> None:
        start(attempt)
        data = wire.encode({"t": "final", "attempt": attempt, "envelope": DONE}, bytes(1 << 20))
        for byte in data:
            out(bytes([byte]))
            threading.Event().wait(0.1)

    serve(work)


@scenario
def deaf() -> None:
    """It asks for answers without end, and reads none."""

    def work(attempt: str) -> None:
        start(attempt)
        while True:
            say({"t": "ping", "n": 1})

    serve(work)


@scenario
def replay() -> None:
    """A result, and another one of the same attempt behind it, and all of it once more."""

    def work(attempt: str) -> None:
        start(attempt)
        for value in ("first", "second"):
            finish(attempt, encode(value))
            collected(attempt)
        start(attempt)

    serve(work)


@scenario
def disorder() -> None:
    """The end mark, then the files, then the result, then the start."""

    def work(attempt: str) -> None:
        collected(attempt)
        say({"t": "files", "attempt": attempt, "items": [["late", 0o644, 1]]}, b"x")
        finish(attempt)
        collected(attempt)
        start(attempt)

    serve(work)


@scenario
def of_others() -> None:
    """Results and files of attempts that it was not given."""

    def work(attempt: str) -> None:
        for num in range(6):
            if f"{num}.1" != attempt:
                finish(f"{num}.1", b"stolen")
                say({"t": "files", "attempt": f"{num}.1", "items": [["stolen", 0o644, 1]]}, b"x")
                collected(f"{num}.1")
        start(attempt)
        finish(attempt)
        collected(attempt)

    serve(work)


_LINKS = ["/tmp", "kept/..", "../../..", "kept/.LAUNCHER/x"]


@scenario
def files() -> None:
    """Output files with every kind of name and mode."""

    def work(attempt: str) -> None:
        start(attempt)
        finish(attempt)
        names = [
            "good",
            "kept/well",
            "../escaped",
            "a/../../escaped",
            "/tmp/hostile-escaped",
            ".launcher/journal.sqlite",
            "",
            "nul\0byte",
            "n" * 256,
            "d/" * 100 + "deep",
            "good/below",
            "kept",
            "kept/.launcher/journal.sqlite",
        ]
        for name in names:
            say({"t": "files", "attempt": attempt, "items": [[name, 0o644, 1]]}, b"x")
        # Links out, and a file through one that stays within.
        say({"t": "tree", "attempt": attempt, "links": [["link-" + str(at), to] for at, to in enumerate(_LINKS)]})
        say({"t": "tree", "attempt": attempt, "links": [["by", "kept"]], "folders": [["kept", 1]]})
        say({"t": "files", "attempt": attempt, "items": [["by/through", 0o644, 1, 1 << 62]]}, b"x")
        # A link, a device, a program that runs as its owner: what their modes would make of them.
        for kind in ("0120777", "0020666", "0106777"):
            say({"t": "files", "attempt": attempt, "items": [["mode-" + kind, int(kind, 8), 1]]}, b"x")
        say({"t": "chunk", "attempt": attempt, "kind": "file", "path": "huge", "size": 1 << 62, "offset": 0}, b"x")
        say({"t": "chunk", "attempt": attempt, "kind": "file", "path": "gap", "size": 9, "offset": 0}, b"x")
        say({"t": "chunk", "attempt": attempt, "kind": "file", "path": "gap", "size": 9, "offset": 5}, b"x")
        collected(attempt)

    serve(work)


@scenario
def many_files() -> None:
    """More files than the cap."""

    def work(attempt: str) -> None:
        start(attempt)
        finish(attempt)
        for part in range(3):
            items = [[f"f{part}-{number}", 0o644, 0] for number in range(100)]
            say({"t": "files", "attempt": attempt, "items": items})
        collected(attempt)

    serve(work)


@scenario
def plain() -> None:
    """Plain data that is none: a pickle by that name, counts without end, parts that are nothing, classes of its choice."""
    bad = [
        pickle.dumps({"a": 1}),
        MARK + bytes((VERSION, 1)) + b"L\xff" + (1 << 62).to_bytes(8, "little"),
        MARK + bytes((VERSION, 1)) + b"E\x01" + b"U\x01" * 200_000 + b"N",
        encode(Color.RED),
        encode(object()),
        encode(JobError("exception", "E", "m")),
    ]

    def work(attempt: str) -> None:
        start(attempt)
        data = bad[int(attempt.partition(".")[0]) % len(bad)]
        part = {"offset": 0, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        parts = {"value": part, "plain": None, "cfg": part, "hydra_cfg": None, "codec": "plain", "more": [[]]}
        say({"t": "final", "attempt": attempt, "envelope": DONE, "parts": parts}, data)
        collected(attempt)

    serve(work)


class Color(enum.Enum):
    """Not known to anybody else."""

    RED = 1


@scenario
def pickled() -> None:
    """A value, a config and an exception that make a folder when they are loaded."""

    def work(attempt: str) -> None:
        start(attempt)
        mark_file = json.loads(os.environ["HOSTILE_PICKLE"])
        data = f"cos\nmkdir\n(S'{mark_file}'\ntR.".encode()
        part = {"offset": 0, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        parts = {"value": part, "cfg": part, "hydra_cfg": part}
        envelope: dict[str, Any] = DONE
        if int(attempt.partition(".")[0]) % 2:
            envelope = {**DONE, "status": "FAILED", "error": {"kind": "exception", "type": "E", "message": "m"}}
        say({"t": "final", "attempt": attempt, "envelope": envelope, "parts": parts}, data)
        collected(attempt)

    serve(work)


# -- too much, and of nothing that was asked -------------------------------------------------------------------------

#: A colour, a title, half of a character, a cursor that goes up, a text that runs the other way, lines that are none.
UGLY = "\x1b[31mred\x1b]0;title\x07\ud800\x1b[2A\x9b5m\u202e\r\x85\u2028"


def failed(attempt: str, **more: Any) -> None:
    """A job has failed, with words that a terminal would obey."""
    causes = [{"type": UGLY, "message": UGLY, "relation": UGLY}]
    error = {"kind": "exception", "type": UGLY, "message": UGLY, "traceback": UGLY + "\n" + UGLY, "causes": causes}
    envelope = {**DONE, "status": "FAILED", "error": error, "task_name": UGLY, "code": {UGLY: UGLY}, **more}
    say({"t": "final", "attempt": attempt, "envelope": envelope, "parts": {}})


@scenario
def ugly() -> None:
    """Words that a terminal would obey, wherever a host says any."""

    def work(attempt: str) -> None:
        start(attempt)
        say({"t": "fatal", "code": "note", "message": UGLY})
        say({"t": "output", "attempt": attempt, "stream": "stdout", "offset": 0}, UGLY.encode("utf-8", "surrogatepass"))
        hooks = [
            {
                "hook": hook,
                "callback": callback,
                "ok": False,
                "error": {"type": UGLY, "message": UGLY, "traceback": UGLY},
            }
            for hook in ("on_job_start", UGLY)
            for callback in ("Watch", UGLY)
        ]
        failed(attempt, hooks=hooks)
        say({"t": "files", "attempt": attempt, "items": [["../" + UGLY, 0o644, 1]]}, b"x")
        say({"t": "files_end", "attempt": attempt, "refused": [[UGLY, UGLY]], "sizes": {UGLY: 1}})

    serve(work)


@scenario
def aborts() -> None:
    """The abort of a callback that nobody has sent, and one that may not."""

    def work(attempt: str) -> None:
        start(attempt)
        failed(attempt, abort="Watch" if int(attempt.partition(".")[0]) % 2 else "nobody")
        collected(attempt)

    serve(work)


@scenario
def many_hooks() -> None:
    """As many hooks that raised as fit into a frame."""

    def work(attempt: str) -> None:
        start(attempt)
        hook = {"hook": "on_job_end", "callback": "Watch", "ok": False}
        say({"t": "final", "attempt": attempt, "envelope": {**DONE, "hooks": [hook] * 12_000}})
        collected(attempt)

    serve(work)


@scenario
def gives_back() -> None:
    """Each job comes back at once, and the host opens for it again."""

    def work(attempt: str) -> None:
        say({"t": "dropped", "attempt": attempt, "why": "x" * 100_000})
        say({"t": "opened"})

    serve(work)


@scenario
def drops_and_opens() -> None:
    """Jobs that it never had come back, and it opens and opens."""

    def work(attempt: str) -> None:
        start(attempt)
        for number in range(5000):
            say({"t": "dropped", "attempt": f"{number % 50}.7", "why": f"x{number}" * 100})
            say({"t": "opened"})
            say(
                {"t": "zygote", "zygote": "z", "state": "ready", "error": None, "notes": [str(number)]}
                if number < 500
                else {"t": "opened"}
            )
        failed(attempt)
        collected(attempt)

    serve(work)


@scenario
def begins_files() -> None:
    """Thousands of output files that are never whole."""

    def work(attempt: str) -> None:
        start(attempt)
        finish(attempt)
        for number in range(3000):
            header = {"t": "chunk", "attempt": attempt, "kind": "file", "path": f"f{number}", "size": 2, "offset": 0}
            say(header, b"x")
        collected(attempt)

    serve(work)


@scenario
def begins_results() -> None:
    """A long result of each job, and none is whole."""

    def work(attempt: str) -> None:
        start(attempt)
        for _ in range(1000):
            say({"t": "chunk", "attempt": attempt, "kind": "result", "size": 1 << 30, "offset": 0}, b"x")
        finish(attempt)
        collected(attempt)

    serve(work)


@scenario
def delivers_ours() -> None:
    """A journal of its own making, YAML that names its own modules, and those modules, at every depth."""

    def work(attempt: str) -> None:
        start(attempt)
        failed(attempt)
        mark = json.loads(os.environ["HOSTILE_PICKLE"])
        module = f"import os\nos.makedirs({mark!r}, exist_ok=True)\n\n\ndef main(cfg): ...\n\n\nclass Evil: ...\n"
        hydra = (
            "hydra:\n  callbacks: {evil: {_target_: evil_module.Evil}}\n  output_subdir: ../../escaped\n  job_logging:\n"
            "    version: 1\n    handlers: {evil: {class: evil_module.Evil}}\n    root: {handlers: [evil]}\n"
            "  job: {name: evil_module, num: 0}\n  runtime: {cwd: ., output_dir: .}\n  overrides: {task: []}\n"
        )
        everything = {
            ".launcher/journal.sqlite": "x",
            "deep/.launcher/journal.sqlite": "x",
            "deep/.LAUNCHER/stdout": "x",
            "evil_module.py": module,
            "hydra.py": module,
            "yaml.py": module,
            "sitecustomize.py": module,
            ".hydra/config.yaml": "x: {_target_: evil_module.Evil}\n",
            ".hydra/hydra.yaml": hydra,
            ".hydra/overrides.yaml": "[]\n",
            "config.yaml": "x: 1\n",
            "hydra.yaml": hydra,
        }
        for name, text in everything.items():
            data = text.encode()
            say({"t": "files", "attempt": attempt, "items": [[name, 0o755, len(data)]]}, data)
        collected(attempt)

    serve(work)


if __name__ == "__main__":
    SCENARIOS[sys.argv[1]]()
