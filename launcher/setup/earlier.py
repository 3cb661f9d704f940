"""The earlier runs of a sweep that is continued: which of their jobs have completed with the same config, and so need not run again.

Rule: a job counts by what its task gets (`launcher.config.comparable`), and never by its number or its overrides. Each earlier job is taken over
once. Only journals that are the user's own are read. Nothing of the earlier runs is changed.

    blob continued    {"version": 1, "journals": [{"folder", "run", "secret"}], "kept": [output directories]}

`journals` are those that the run continues, the latest first. They stand beside its own. With `secret`, the next run knows that they are ours.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from launcher import events
from launcher.code.files.snapshot import Snapshot
from launcher.config.comparable import Comparable, comparable
from launcher.errors import JournalError, LauncherError, RunError, UsageError
from launcher.runs import index, ownership
from launcher.runs import record as run_record
from launcher.runs.folder import Claim, Naming
from launcher.runs.journal import FOLDER, JournalReader
from launcher.runs.record import RunRecord
from launcher.runs.status import read_status
from launcher.util.frozen import frozen
from launcher.util.text.ranges import ranges
from launcher.util.text.terminal_text import clean_line

if TYPE_CHECKING:
    from launcher.setup.kinds.run_setup import RunSetup

    S = TypeVar("S", bound=RunSetup)

__all__ = ["EarlierJob", "EarlierJournal", "EarlierRuns", "Match", "continued", "kept_folders"]

VERSION = 1
#: Key of `meta` in a journal -> the number of a job that a hook has failed.
_FAILED_HOOK = "failed_hook/"
#: How many changed files a message names.
_MAX_NAMED = 5
#: (config, overrides) of a job.
Source = tuple[Any, Sequence[str]]


@frozen
class EarlierJournal:
    """The journal of an earlier run. `folder` is its `.launcher`, or what that was renamed to. `last_seq`: its last event."""

    folder: Path
    run: str
    secret: str
    last_seq: int


@frozen
class EarlierJob:
    """A job of an earlier run that has returned.

    Attributes:
        of: the run that ran it, and its number there. A run that continued another one has jobs of that one.
        output_dir: where its files are.
    """

    journal: EarlierJournal
    num: int
    event: events.JobReturned
    of: tuple[str, int]
    output_dir: Path
    key: Comparable

    @property
    def name(self) -> str:
        """The job as users name it."""
        return f"{self.of[0]}#{self.of[1]}"


@frozen
class Match:
    """What of a sweep earlier runs have done.

    Attributes:
        total: the number of its jobs.
        taken: number of a job -> the earlier job with the same config that has completed.
        failed: number of a job that runs -> an earlier one with the same config that has failed.
        left: how many earlier jobs have completed and are not in the sweep, if all of that is known.
        reused: output directories of failed jobs in which the same config runs again.
    """

    total: int
    taken: Mapping[int, EarlierJob]
    failed: Mapping[int, EarlierJob]
    left: int
    reused: frozenset[Path] = frozenset()

    @property
    def notes(self) -> list[str]:
        """What is skipped, and why; what runs, and why."""
        told = []
        if self.taken:
            told.append(
                f"continued: {len(self.taken):,} of {self.total:,} jobs completed before with the same config, and do not run again: "
                f"{ranges(self.taken)}"
            )
        by_kind = defaultdict(list)
        for num, job in self.failed.items():
            by_kind[(job.event.error or {}).get("kind", "exception")].append(num)
        told += [f"continued: failed before ({kind}), and run again: {ranges(nums)}" for kind, nums in by_kind.items()]
        new = self.total - len(self.taken) - len(self.failed)
        if new:
            told.append(f"continued: {new:,} of {self.total:,} jobs have no earlier one with the same config, and run")
        if self.left:
            told.append(
                f"continued: earlier jobs that completed and are not in this sweep: {self.left:,}; their results stay"
            )
        return told

    def other_code(self, setup: RunSetup) -> tuple[list[str], list[str]]:
        """Return what is to be said of jobs whose code differs from that of this run, and of those of which that is not known."""
        now = setup.code.get("hash", "")
        by_code: dict[tuple[str, EarlierJournal], list[int]] = defaultdict(list)
        for num, job in self.taken.items():
            by_code[_code_of(job), job.journal].append(num)
        changed, unknown = [], []
        for (before, journal), nums in by_code.items():
            if before and now and before != now:
                files = _changed_files(journal, before, setup.snapshot)
                changed.append(f"the code has changed since these jobs ran: {ranges(nums)}{files}")
            elif not (before and now):
                unknown += nums
        texts = [
            f"whether the code has changed since these jobs ran is not known, because code that is used in place has no hash: {ranges(unknown)}"
        ]
        return changed, texts if unknown else []


@dataclasses.dataclass(frozen=True, eq=False)
class EarlierRuns:
    """The runs that a run continues.

    Attributes:
        journals: theirs, the latest first; the jobs of a later one count.
        is_whole: whether the sweep is known from the beginning, and is not decided batch by batch.
        used: earlier jobs that were taken over.
    """

    journals: tuple[EarlierJournal, ...]
    is_whole: bool = True
    used: set[tuple[str, int]] = field(default_factory=set)
    _jobs: list[EarlierJob] = field(default_factory=list)

    def claimed(self, claim: Claim) -> EarlierRuns:
        """Return the same runs after the folder was claimed, which has renamed the journal of the latest.

        Raises:
            RunError: it is not as it was any more.
        """
        if not self.journals or self.journals[0].folder.name != FOLDER:
            return self
        latest, *rest = self.journals
        if claim.moved is not None:
            moved = dataclasses.replace(latest, folder=claim.moved)
            if _journal_of(claim.moved) == moved:
                return EarlierRuns((moved, *rest), self.is_whole, self.used)
        raise RunError(
            f"{claim.folder}: another process has changed run {latest.run} there in the meantime; continue it again"
        )

    def to_blob(self, kept: Iterable[Path]) -> bytes:
        """Return what the journal of the run has of them."""
        journals = [{"folder": one.folder.name, "run": one.run, "secret": one.secret} for one in self.journals]
        return json.dumps({"version": VERSION, "journals": journals, "kept": sorted(map(str, kept))}).encode()

    def match(self, setup: RunSetup, first: int, sources: Iterable[Source], task: Any = None) -> Match:
        """Find the earlier job of each source.

        Args:
            first: the number of the first job.
            task: as for `RunSetup.job`.
        """
        done: dict[str, deque[EarlierJob]] = defaultdict(deque)
        broken: dict[str, list[EarlierJob]] = defaultdict(list)
        for job in self.jobs(setup):
            (done if job.event.status == "COMPLETED" else broken)[job.key.digest].append(job)
        setup = dataclasses.replace(setup, kept_folders=frozenset())
        keys, folders = {}, {}
        total = 0
        for num, (config, overrides) in enumerate(sources, first):
            total += 1
            # The task that all jobs share may not be pickled yet, and is no part of what is compared.
            made = setup.job(num, None if task is setup.task else task, config, overrides)
            key = _key(setup, num, made.payload) if made.payload and made.failure is None else None
            if key is not None:
                keys[num], folders[num] = key, made.output_dir
        used = set(self.used)
        taken: dict[int, EarlierJob] = {}

        def take(num: int, key: Comparable, jobs: Iterable[EarlierJob]) -> None:
            found = next((job for job in jobs if job.of not in used and job.key.is_same(key)), None)
            if found is not None:
                taken[num] = found
                used.add(found.of)

        # Equal configs may differ in what their number makes of them, so the number is tried first.
        by_num = {(job.key.digest, job.num): job for jobs in done.values() for job in reversed(jobs)}
        for num, key in keys.items():
            same = by_num.get((key.digest, num))
            take(num, key, [same] if same is not None else [])
        for num, key in keys.items():
            jobs = done[key.digest]
            while jobs and jobs[0].of in used:
                jobs.popleft()
            if num not in taken:
                take(num, key, jobs)
        by_folder = {(job.key.digest, job.output_dir): job for jobs in broken.values() for job in jobs}
        failed: dict[int, EarlierJob] = {}
        reused = set()
        for num, key in keys.items():
            if num not in taken:
                failed.update((num, job) for job in broken[key.digest][:1] if job.key.is_same(key))
                there = by_folder.get((key.digest, folders[num]))
                if there is not None and there.key.is_same(key):
                    failed[num] = there
                    reused.add(folders[num])
        completed = {job.of for job in self._jobs if job.event.status == "COMPLETED"}
        left = len(completed - used) if self.is_whole else 0
        return Match(total, taken, failed, left, frozenset(reused))

    def jobs(self, setup: RunSetup) -> list[EarlierJob]:
        """Return every job that has returned, with what its task got. Of each, the latest journal that has it counts."""
        if not self._jobs:
            known: set[tuple[str, int]] = set()
            for journal in self.journals:
                for job in _jobs_of(setup, journal):
                    if job.of not in known:
                        self._jobs.append(job)
                known.update(job.of for job in self._jobs)
        return self._jobs

    def kept_folders(self) -> frozenset[Path]:
        """Return the output directories of jobs that no other job shares: no new job writes there, unless it is a failed one again."""
        owned: dict[tuple[str, int], Path] = {}
        for journal in self.journals:
            with JournalReader(journal.folder) as reader:
                for _, of, folder in _returned(reader, journal.run):
                    owned.setdefault(of, folder)
        number = Counter(owned.values())
        return frozenset(path for path in number if number[path] == 1)


def continued(setup: S, sources: Iterable[Source] | None, task: Any = None) -> S:
    """Return the setup that continues the sweep in its folder, if that was asked for.

    Args:
        sources: the jobs of the sweep, in order; None if a sweeper decides them during the run.
        task: as for `RunSetup.job`.

    Raises:
        UsageError: it cannot be continued, or the code has changed and must not.
        RunError: the latest run there has not ended, or is not the user's own.
    """
    options = setup.options
    if not options.continue_sweep:
        if options.same_code:
            raise UsageError.of_option(
                "same_code", ": it belongs to a sweep that is continued (--continue, continue_sweep)"
            )
        return setup
    if setup.mode != "MULTIRUN":
        raise UsageError.of_option("continue_sweep", ": it continues a sweep, and this is a run of one job")
    if setup.naming in (Naming.NEW, Naming.MOMENT):
        raise UsageError.of_option(
            "continue_sweep", ": name the folder of the sweep (--folder DIR, folder=, or hydra.sweep.dir=DIR)"
        )
    earlier = EarlierRuns(tuple(_find(setup)), is_whole=sources is not None)
    note = () if earlier.journals else (f"there is no run to continue in {clean_line(setup.folder)}, so all jobs run",)
    setup = dataclasses.replace(setup, naming=Naming.USER, continues=earlier, notes=(*setup.notes, *note))
    if options.same_code:
        _check_code(setup, earlier, sources, task)
    return setup


def _check_code(setup: RunSetup, earlier: EarlierRuns, sources: Iterable[Source] | None, task: Any) -> None:
    if sources is not None:
        match = earlier.match(setup, setup.first_num, sources, task)
    else:
        # Which of them the sweep has is not known yet.
        completed = [job for job in earlier.jobs(setup) if job.event.status == "COMPLETED"]
        match = Match(len(completed), {job.num: job for job in completed}, {}, 0)
    changed, unknown = match.other_code(setup)
    if changed or unknown:
        raise UsageError.of_option(
            "same_code",
            f": {'; '.join([*changed, *unknown])}; undo the change, or leave this option out to take them over as they are, or continue nothing "
            "(another folder) to run all jobs again",
        )


def kept_folders(reader: JournalReader) -> frozenset[Path]:
    """Return the output directories that jobs of a run must not write to, from its journal."""
    data = reader.blob(run_record.CONTINUED)
    return frozenset(map(Path, _read_blob(data, reader.folder)["kept"])) if data else frozenset()


def _read_blob(data: bytes, where: Path) -> dict[str, Any]:
    try:
        content: Any = json.loads(data)
        if content["version"] != VERSION:
            raise JournalError(
                f"{where.parent}: what its run continues is of version {content['version']}; this launcher reads {VERSION}"
            )
        texts = [*content["kept"], *(one[name] for one in content["journals"] for name in ("folder", "run", "secret"))]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("not a text")
    except (LookupError, TypeError, ValueError) as error:
        raise JournalError(f"{where.parent}: what its run continues is damaged in its journal: {error}") from None
    return dict(content)


# -- the journals ----------------------------------------------------------------------------------------------------


def _find(setup: RunSetup) -> Iterator[EarlierJournal]:
    """Yield the journals in the folder of a sweep that are ours, the latest first.

    Raises:
        RunError: the latest run has not ended, or is not the user's own.
        UsageError: it is another kind of run.
    """
    folder = setup.folder
    known: dict[str, str] = {}
    if (folder / FOLDER / "journal.sqlite").exists():
        with JournalReader(folder / FOLDER) as reader:
            has_begun = "setup" in reader.meta()
        if has_begun:
            ownership.check_ours(folder)
            _check_ended(folder)
            yield _checked(setup, folder / FOLDER, known)
    waiting = dict(_renamed(folder))
    while ours := [own for own in waiting if ownership.is_ours_renamed(own, known)]:
        latest = max(ours, key=lambda own: (waiting[own], own))
        del waiting[latest]
        yield _checked(setup, latest, known)


def _renamed(folder: Path) -> Iterator[tuple[Path, float]]:
    """Yield each journal there that a later run has renamed, with the time at which its run began. One that cannot be read is left out."""
    for own in folder.glob(f"{FOLDER}.*"):
        try:
            with JournalReader(own) as reader:
                yield own, reader.number("started", 0)
        except (RunError, JournalError):
            continue


def _checked(setup: RunSetup, own: Path, known: dict[str, str]) -> EarlierJournal:
    """Return a journal of ours. `known` gets the secrets of those that its run continued.

    Raises:
        UsageError: it is of another kind of run.
    """
    with JournalReader(own) as reader:
        record = run_record.read(reader)
        data = reader.blob(run_record.CONTINUED)
    _check_kind(setup, record, own)
    if data:
        known.update((one["run"], one["secret"]) for one in _read_blob(data, own)["journals"])
    return _journal_of(own)


def _journal_of(own: Path) -> EarlierJournal:
    with JournalReader(own) as reader:
        meta = reader.meta()
        return EarlierJournal(own, meta["run"], meta.get(ownership.KEY, ""), reader.last_seq())


def _check_ended(folder: Path) -> None:
    entry = index.find(folder)
    status = read_status(entry)
    if status.state == "running":
        raise RunError(
            f"{clean_line(folder)}: run {entry.run} there is driven by another process ({status.driver}); 'launcher attach {entry.run}' watches it"
        )
    if status.state not in ("completed", "failed", "interrupted"):
        raise RunError(
            f"{clean_line(folder)}: run {entry.run} there has not ended ({status.state}), and its jobs may still run; 'launcher attach {entry.run}' "
            "collects them, and then the sweep can be continued"
        )


def _check_kind(setup: RunSetup, record: RunRecord, own: Path) -> None:
    if (record.mode, record.kind_name, record.task_name) != (setup.mode, setup.kind, setup.task_name):
        raise UsageError.of_option(
            "continue_sweep",
            f": run {record.run} in {clean_line(own.parent)} is not this sweep: it is of {record.task_name} ({record.kind_name}, {record.mode}), and not of "
            f"{setup.task_name} ({setup.kind}, {setup.mode}); name another folder",
        )


# -- their jobs ------------------------------------------------------------------------------------------------------


def _jobs_of(setup: RunSetup, journal: EarlierJournal) -> Iterator[EarlierJob]:
    with JournalReader(journal.folder) as reader:
        for event, of, folder in _returned(reader, journal.run):
            key = _key(setup, event.num, reader.payload(event.num))
            if key is not None:
                yield EarlierJob(journal, event.num, event, of, folder, key)


def _returned(reader: JournalReader, run: str) -> Iterator[tuple[events.JobReturned, tuple[str, int], Path]]:
    """Yield how each job of a journal ended, with the run that ran it, its number there, and its output directory."""
    origin = {
        event.num: (event.of_run, event.of_num)
        for _, event in reader.events_of("job_taken_over")
        if isinstance(event, events.JobTakenOver)
    }
    failed_by_hooks = {key[len(_FAILED_HOOK) :] for key in reader.meta() if key.startswith(_FAILED_HOOK)}
    folders = _output_dirs(reader)
    for event in reader.all_returned():
        if str(event.num) in failed_by_hooks:
            event = dataclasses.replace(event, status="FAILED", error={"kind": "hook"})
        if event.num in folders:
            yield event, origin.get(event.num, (run, event.num)), folders[event.num]


def _key(setup: RunSetup, num: int, payload: bytes) -> Comparable | None:
    """Return what a job's task gets; None if it cannot be compared: a job with a task or arguments of its own, or one that cannot be read."""
    if not payload:
        return None
    try:
        if {"task", "call"} & setup.pickler.loads(payload).keys():
            return None
        return comparable(*setup.own_config(num, payload))
    except Exception:  # noqa: BLE001 - its classes may be gone, or raise anything; then the job runs
        return None


def _output_dirs(reader: JournalReader) -> dict[int, Path]:
    """Return the output directory of each job, as it is if the run's folder was moved."""
    began = reader.last_event("run_started")
    here = reader.folder.parent
    before = Path(began.folder) if isinstance(began, events.RunStarted) else here
    found = {num: Path(path) for num, path in reader.output_dirs().items()}
    return {
        num: here / path.relative_to(before) if path.is_relative_to(before) else path for num, path in found.items()
    }


def _code_of(job: EarlierJob) -> str:
    """Return the hash of the code that the job ran; empty if it is not known."""
    with JournalReader(job.journal.folder) as reader:
        stored = reader.result(job.num, job.event.attempt)
    found = stored.envelope.code.get("hash") if stored is not None else None
    return found if isinstance(found, str) else ""


def _changed_files(journal: EarlierJournal, before: str, now: Snapshot | None) -> str:
    """Name the files that have changed, if the journal has the earlier ones."""
    try:
        with JournalReader(journal.folder) as reader:
            manifest, record = reader.blob("manifest"), run_record.read(reader)
        if now is None or manifest is None or record.code is None:
            return ""
        earlier = Snapshot.of_manifest(Path(record.code["root"]), manifest, "", dirty=False)
        if earlier.hash != before:
            return ""
    except LauncherError:
        return ""
    files = {(file.path, file.sha256, file.mode) for file in now.files} ^ {
        (file.path, file.sha256, file.mode) for file in earlier.files
    }
    names = sorted({path for path, _, _ in files})
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return f" ({', '.join(map(clean_line, names[:_MAX_NAMED]))}{more})" if names else ""
