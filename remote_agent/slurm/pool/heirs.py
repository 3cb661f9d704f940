"""Hooks that a dead allocation owes: another one inherits the attempt, and fires them.

Rule: the heir copies what the dead allocation's log says of the attempt into its own log, before its agent reads that. For the agent it is an
attempt whose host went down, so the same code as on any host fires the end hooks that have not fired, and no other. An attempt is inherited
by a claim, as a job is, so only one allocation fires its hooks at a time. Only the submitter says what is owed, when the death is certain.

    owed/<attempt>.<n>     {"source": the dead incarnation, "kind", "why": of the error}; the nth time that the hooks of the attempt are owed
"""

import json
import os
import shutil
import time
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from remote_agent.agent.spool.attempt import Attempt, failed_envelope
from remote_agent.agent.spool.log import LogReader, SpoolLog
from remote_agent.agent.spool.paths import SpoolPaths
from remote_agent.agent.spool.records import apply_record, unknown_spec
from remote_agent.job import JobError
from remote_agent.slurm.batch.batch import Batch, BatchError
from remote_agent.slurm.pool.incarnations import (
    FOLDER,
    SETTLE,
    Fate,
    Incarnation,
    holders,
    is_fenced,
    is_incarnation,
    split_claim,
)
from remote_agent.slurm.pool.next_attempts import make_next
from remote_agent.slurm.pool.pool import Pool
from remote_agent.slurm.shared_disk.shared_files import SharedFiles
from remote_agent.system.host import Folders

__all__ = [
    "MAX_HEIRS",
    "OWED",
    "Owed",
    "bury_all",
    "bury_own",
    "inherit",
    "owe",
    "read_owed",
    "settle_dead",
    "take_owed",
    "wait_for_logs",
]

OWED = "owed"
#: How many allocations may die while they fire the end hooks of the same attempt.
MAX_HEIRS = 3
_LOOK_EVERY = 0.5
#: What a log says of an attempt's process, and of what it has of its node, means nothing elsewhere.
_OF_THE_NODE = ("forked", "over", "unstarted", "unclaimed", "gone")


class Owed(NamedTuple):
    """The end hooks of an attempt are owed."""

    source: str
    kind: str
    why: str


def owe(files: SharedFiles, claim: str, owed: Owed) -> None:
    """Say that the hooks of an attempt are owed. `claim`: `<attempt>.<n>`.

    Raises:
        OSError: it is not known whether it is said. It may be said again.
    """
    files.offer(json.dumps(dict(zip(Owed._fields, owed))).encode("ascii"), OWED, claim)


def read_owed(files: SharedFiles, claim: str) -> Optional[Owed]:
    """What is owed; None if it cannot be seen here yet."""
    data = files.read(OWED, claim)
    return None if data is None else Owed(**json.loads(data.decode("ascii")))


def inherit(files: SharedFiles, pool: Pool, paths: SpoolPaths, most: int) -> List[str]:
    """Take over attempts whose hooks are owed, and put what is known of them into the log of `paths`. Returns these attempts.

    Raises:
        OSError: the disk.
    """
    inherited: List[str] = []
    for attempt, owed in take_owed(files, pool, most):
        _copy(files, paths, attempt, owed)
        inherited.append(attempt)
    return inherited


def take_owed(files: SharedFiles, pool: Pool, most: int) -> Iterator[Tuple[str, Owed]]:
    """Take attempts whose hooks are owed, and that nobody has taken for that. Yield each with what is owed.

    Raises:
        OSError: the disk.
    """
    taken = pool.takers()
    count = 0
    for claim in [one for one in sorted(files.names(OWED)) if one not in taken]:
        if count == most:
            return
        owed = read_owed(files, claim)
        if owed is not None and pool.take(claim):
            count += 1
            yield split_claim(claim)[0], owed


def bury_own(
    files: SharedFiles, pool: Pool, incarnation: str, host: str, requeue: Mapping[str, int], ended: Tuple[str, str]
) -> None:
    """Say what earlier starts of the same Slurm job owe, because nobody else may be there to say it. They are dead: this is a later one.

    `ended`: kind of the error, and why. It waits until their logs can hold nothing more. What they took and did not start goes on.

    Raises:
        OSError: the disk.
    """
    dead = [
        Incarnation(name, LogReader(files.path(FOLDER, name, "log")))
        for name in files.names(FOLDER)
        if is_fenced(name, [incarnation])
    ]
    _bury(files, pool, dead, host, requeue, lambda one: ended)


def bury_all(
    files: SharedFiles, pool: Pool, requests: Sequence[str], host: str, requeue: Mapping[str, int], batch: Batch
) -> None:
    """Say what all incarnations of these requests owe, which have ended. `batch` may know why.

    Raises:
        OSError: the disk.
    """
    incarnations = [
        Incarnation(name, LogReader(files.path(FOLDER, name, "log")))
        for name in files.names(FOLDER)
        if is_incarnation(name)
    ]
    for one in incarnations:
        one.advance()
    try:
        listed = {one.job: one for one in batch.listed(requests)}
    except BatchError:
        listed = {}  # a compute node where nobody can ask

    def ended(one: Incarnation) -> Tuple[str, str]:
        found = listed.get(str(one.job))
        if found is None:
            return "lost", "its allocation has ended, and nobody knows why any more"
        why = "the batch system says {} of its allocation {} on {}".format(found.word, found.job, found.node)
        return found.kind or "killed", why

    _bury(files, pool, [one for one in incarnations if one.request in requests], host, requeue, ended)


def _bury(
    files: SharedFiles,
    pool: Pool,
    dead: List[Incarnation],
    host: str,
    requeue: Mapping[str, int],
    ended: Callable[[Incarnation], Tuple[str, str]],
) -> None:
    if dead:
        wait_for_logs(dead, pool)
        settle_dead(files, pool, dead, host, requeue, ended)


def settle_dead(
    files: SharedFiles,
    pool: Pool,
    dead: Sequence[Incarnation],
    host: str,
    requeue: Mapping[str, int],
    ended: Callable[[Incarnation], Tuple[str, str]],
) -> None:
    """Say what dead incarnations owe, whose logs have been read to their end. What they took and did not start goes on. `ended`: kind of the error
    of each, and why.

    Raises:
        OSError: the disk.
    """
    for one in dead:
        for attempt, (rank, taker) in holders(pool.takers()).items():
            fate = one.fate_of(attempt) if taker == one.name else None
            if fate is Fate.UNBEGUN and not rank:
                make_next(pool, attempt, host, "", requeue)
            elif fate is not None and rank < MAX_HEIRS:
                owe(files, "{}.{}".format(attempt, rank + 1), Owed(one.name, *ended(one)))


def wait_for_logs(dead: List[Incarnation], pool: Pool) -> None:
    """Wait until the logs of dead incarnations hold all that they ever will, as far as attempts that they have are concerned."""
    deadline = time.monotonic() + SETTLE
    while True:
        for one in dead:
            one.advance()
        open_ = [
            one
            for attempt, (_, taker) in holders(pool.takers()).items()
            for one in dead
            if one.name == taker and one.left is None and one.fate_of(attempt) is not None
        ]
        if not open_ or time.monotonic() >= deadline:
            return
        time.sleep(_LOOK_EVERY)


def _copy(files: SharedFiles, paths: SpoolPaths, name: str, owed: Owed) -> None:
    source = files.path(FOLDER, owed.source)
    records, attempt = _known(source, name)
    where = Folders(paths.where.cache, source, source)
    its_paths = SpoolPaths(paths.run, paths.host, where, paths.bundle, paths.umask, "")
    for path, own in zip(_files(its_paths, attempt), _files(paths, attempt)):
        _share(path, own)
    log = SpoolLog(os.path.join(paths.spool, "log"))
    try:
        log.replay(lambda header, reference: None)
        for header, payload in records:
            log.append(header, payload)
        if attempt.started_at is None:
            log.append({"r": "started", "a": name, "slot": 0, "at": time.time(), "gpus": None, "cpus": []})
        if attempt.crash is None:
            error = JobError(attempt.cancel or owed.kind, message=owed.why)
            log.append({"r": "crashed", "a": name, "envelope": failed_envelope(attempt, error, time.time()).to_json()})
        log.flush()
        log.sync()
    finally:
        log.close()


def _known(source: str, name: str) -> Tuple[List[Tuple[Dict[str, Any], bytes]], Attempt]:
    """What the log of a dead incarnation says of an attempt, as another one may say it."""
    reader = LogReader(os.path.join(source, "log"))
    attempt = Attempt(unknown_spec(name))
    records = []
    for header, reference in reader.advance():
        if header.get("a") != name or header["r"] in _OF_THE_NODE:
            continue
        apply_record(attempt, header["r"], header, reference)
        if header["r"] == "started":
            header = dict(header, slot=0, gpus=None, cpus=[])
        elif header["r"] == "claimed":
            # Not a start of this machine, so its process is gone.
            header = dict(header, boot=os.path.basename(source))
        records.append((header, reader.read(reference)))
    return records, attempt


def _files(paths: SpoolPaths, attempt: Attempt) -> List[str]:
    """The files and folders that an attempt leaves."""
    own = paths.own_output(attempt)
    return [*paths.streams(attempt).values(), paths.orphan(attempt), *([own] if own is not None else [])]


def _share(path: str, own: str) -> None:
    """Give what is at a path another name. What is there already stays."""
    if os.path.isdir(path):
        shutil.copytree(path, own, symlinks=True, copy_function=_link, dirs_exist_ok=True)
    elif os.path.exists(path) and not os.path.exists(own):
        os.makedirs(os.path.dirname(own), mode=0o700, exist_ok=True)
        _link(path, own)


def _link(path: str, own: str) -> str:
    try:
        os.link(path, own, follow_symlinks=False)
    except OSError:
        shutil.copy2(path, own, follow_symlinks=False)
    return own
