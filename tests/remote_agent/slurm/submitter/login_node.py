"""A run on a login node without its loop, link and cluster: what asks, what follows, and a Slurm that says what a test tells it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from remote_agent.agent.spool.code.left_files import LeftFiles
from remote_agent.agent.spool.log import LogReader, SpoolLog
from remote_agent.agent.spool.paths import SpoolPaths
from remote_agent.protocol import wire
from remote_agent.slurm.batch.batch import Batch, BatchError, Limits, Listed, Phase, Request
from remote_agent.slurm.batch.batch_slurm import Slurm
from remote_agent.slurm.pool.incarnations import FOLDER, Incarnations
from remote_agent.slurm.pool.pool import Pool
from remote_agent.slurm.shared_disk import turns
from remote_agent.slurm.shared_disk.shared_files import SharedFiles
from remote_agent.slurm.shared_disk.turns import Turn
from remote_agent.slurm.submitter import asking as asking_module
from remote_agent.slurm.submitter.asking import Asking
from remote_agent.slurm.submitter.following import SUBMITTER, Following
from remote_agent.slurm.submitter.submitter_log import SubmitterLog
from remote_agent.system.host import Folders
from tests.specs import job_spec

__all__ = ["FakeSlurm", "LoginNode", "waiting", "wrote"]


def waiting(name: str, job: str = "100", reason: str = "Priority", **more: Any) -> Listed:
    """An allocation that Slurm lists as one that waits."""
    return Listed(job, name, Phase.WAITING, "PENDING", "", reason, "", **more)


class FakeSlurm(Batch):
    """Answers what it is told to. What Slurm's words mean is asked of `Slurm`.

    Attributes:
        answers: what the next requests get: an id, or an error. Later ones get ids from 100 on.
        lists: what is listed, or an error.
        asked: the requests that it got.
        cancelled: the names of each cancel, and whether only those that wait were meant.
    """

    def __init__(self) -> None:
        self.answers: list[str | BatchError] = []
        self.lists: list[Listed] | BatchError = []
        self.asked: list[Request] = []
        self.names: list[list[str]] = []
        self.cancelled: list[tuple[list[str], bool]] = []

    def limits(self) -> Limits:
        """Those that Slurm has if nobody says it, but for the size of an array."""
        return Limits(tasks=4, kill_wait=30.0, remembers=300.0)

    def submit(self, request: Request) -> str:
        """As told."""
        self.asked.append(request)
        answer = self.answers.pop(0) if self.answers else str(99 + len(self.asked))
        if isinstance(answer, BatchError):
            raise answer
        return answer

    def listed(self, names: Any) -> list[Listed]:
        """As told."""
        self.names.append(list(names))
        if isinstance(self.lists, BatchError):
            raise self.lists
        return self.lists

    def is_hopeless(self, reason: str) -> bool:
        """As Slurm does."""
        return Slurm().is_hopeless(reason)

    def cancel(self, names: Any, *, waiting_only: bool = False) -> None:
        """Note it."""
        self.cancelled.append((list(names), waiting_only))

    def warning(self, needs: Any, options: Any) -> float:
        """As Slurm does."""
        return Slurm().warning(needs, options)


class _Asks:
    """The thread for Slurm's programs, which runs when a test says so."""

    def __init__(self) -> None:
        self._work: list[tuple[Callable[[], Any], Callable[[BaseException | None], None] | None]] = []

    def submit(self, work: Callable[[], Any], done: Callable[[BaseException | None], None] | None) -> None:
        """Keep it."""
        self._work.append((work, done))

    def run(self) -> None:
        """Run what was submitted, and what that submits."""
        while self._work:
            work, done = self._work.pop(0)
            error: BaseException | None = None
            try:
                work()
            except BatchError as problem:
                error = problem
            if done is not None:
                done(error)


class _Controller:
    """What the controller hears, in its order."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.link = SimpleNamespace(outbox=self, live=False, takes_holes=True)

    def say(self, header: Any, payload: bytes = b"") -> None:
        """A short message."""
        self.said.append({**header, "payload": payload})

    def note(self, text: str) -> None:
        """A note for the user."""
        self.notes.append(text)

    def add_source(self, source: Iterator[Any]) -> None:
        """A long one."""
        decoder = wire.Decoder()
        for piece in source:
            for frame in decoder.feed(bytes(piece)):
                self.say(frame.header, frame.payload)


class LoginNode:
    """See the module. `now` is the clock of what asks."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.now = 1000.0
        self.slurm = FakeSlurm()
        self.asks = _Asks()
        self.controller = _Controller()
        self.folder = folder
        self.files = SharedFiles(str(folder), f"{SUBMITTER}1")
        self.files.make_folder("owed")
        where = Folders(str(folder / "cache"), str(folder), str(folder))
        self.paths = SpoolPaths("r1", "h", where, "/bundle", 0o022, "boot")
        self._logs: list[SpoolLog] = []
        self.start(**options)

    def start(self, **options: Any) -> None:
        """Begin, or begin anew after the one before has gone."""
        controller: Any = self.controller
        turn = Turn(self.files)
        self.log = SubmitterLog(turn, lambda: True)
        self._logs.append(self.log.file)
        self.pool = Pool(self.files, f"{SUBMITTER}{turn.number}")
        self.incarnations = Incarnations(self.files)
        background: Any = SimpleNamespace(submit=lambda work, done: None)
        self.left = LeftFiles(os.path.join(self.paths.spool, "code"), self.paths.spool)
        zygotes: Any = SimpleNamespace(left=self.left)
        asks: Any = self.asks
        self.following = Following(
            self.paths, self.files, self.log, self.pool, self.incarnations, zygotes, background, controller
        )
        self.asking = Asking(
            self.paths,
            self.files,
            self.log,
            self.pool,
            self.incarnations,
            self.following,
            self.slurm,
            asks,
            self.controller.note,
            turn.number,
        )
        self.asking.requests.options = options
        self.following.on_need = self.asking.at_once
        self.following.on_next = self.asking.look

    def close(self) -> None:
        """Close what is open."""
        for log in self._logs:
            log.close()

    def patch(self, monkeypatch: Any) -> None:
        """Have what asks see the clock of this, and a submitter that was replaced count as gone."""
        monkeypatch.setattr(turns, "is_alive", lambda pid, born: False)
        monkeypatch.setattr(asking_module, "time", SimpleNamespace(monotonic=lambda: self.now))

    def put(self, *numbers: int, klass: str = "default", attempt: int = 1, is_last: bool = False, **more: Any) -> None:
        """Jobs come from the controller. `is_last`: it says that no other follows the last of them."""
        for number in numbers:
            spec = job_spec(number, attempt=attempt, **more)
            self.pool.put(
                klass,
                spec.attempt_id,
                {"t": "job", "spec": spec.to_json(), "payload_blob": None, "last": False},
                b"payload",
            )
            self.asking.soon(is_last=is_last and number == numbers[-1])

    def passes(self, seconds: float = 0.0) -> None:
        """Time goes by, and what is due is done."""
        self.now += seconds
        self.asking.tick(self.now, is_prepared=True)
        self.asks.run()

    def allocation(self, name: str) -> SpoolLog:
        """The log of an incarnation, to be written by the test."""
        self.files.make_folder(FOLDER, name)
        log = SpoolLog(self.files.path(FOLDER, name, "log"))
        self._logs.append(log)
        return log

    def take(self, name: str, attempt: str) -> None:
        """An allocation takes an attempt."""
        assert Pool(SharedFiles(self.files.root, name), name).take(attempt)

    def said(self, kind: str) -> list[dict[str, Any]]:
        """What the controller has heard of a kind."""
        return [one for one in self.controller.said if one["t"] == kind]

    def ends(self) -> dict[str, str]:
        """Attempt -> kind of the error of the results that the controller has heard."""
        return {one["attempt"]: (one["envelope"]["error"] or {}).get("kind", "") for one in self.said("final")}

    def records(self, name: str) -> list[dict[str, Any]]:
        """The records of a kind in the log of this submitter."""
        self.log.file.flush()
        return [header for header, _ in LogReader(self.log.file.path).advance() if header["r"] == name]


def wrote(log: SpoolLog, name: str, payload: bytes = b"", **fields: Any) -> None:
    """A record in the log of an allocation, on the disk."""
    log.append({"r": name, **fields}, payload)
    log.flush()
