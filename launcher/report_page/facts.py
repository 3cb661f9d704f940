"""What the report of a run says, as plain data: read from the journal, and computed from what is read.

Rule: nothing is unpickled, and no host is asked. Texts are short and clean, and home folders are left out of them unless the user wants them.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher import events
from launcher.code.files.snapshot import Snapshot
from launcher.display.lines import cut
from launcher.display.tally import signature
from launcher.display.text import clean, error_line, shorten
from launcher.errors import LauncherError
from launcher.runs import record as run_record
from launcher.runs.clocks import offsets_of, times_of
from launcher.runs.index import Entry
from launcher.runs.journal_reader import JournalReader
from launcher.runs.status import JobStatusLine, RunStatus, read_jobs, read_status
from launcher.tables.table import Row, Table, read_rows, sort_rows

__all__ = ["Failure", "Homes", "HostFacts", "ReportFacts", "Span", "read_facts"]

#: How many distinct failures, and how many warnings, the page has.
MAX_FAILURES = 100
MAX_WARNINGS = 50
_FRAME = re.compile(r'^  File "([^"]*)", line (\d+), in (.*)$', re.MULTILINE)
_HOME = re.compile(r"(?<![\w./-])(?:/home/[^/\s:\"']+|/Users/[^/\s:\"']+|/root)(?=[/\s:\"']|$)")
_LONGEST_LINE = 1000


@dataclass(frozen=True)
class Span:
    """One attempt on one slot. Times are seconds since the begin of the run, by the clock of this machine.

    Attributes:
        collected: when its job had returned; None if that was another attempt, or has not happened.
    """

    num: int
    attempt: int
    host: str
    slot: int
    state: str
    start: float
    end: float
    collected: float | None


@dataclass
class HostFacts:
    """One host.

    Attributes:
        offset: by how much its clock is behind ours, in seconds, as measured; None if it started no job.
        gaps: when its link was lost: (begin, end, why), in seconds since the begin of the run.
        busy: seconds in which its slots worked, all slots together.
        open: seconds in which it took jobs, all slots together.
    """

    name: str
    slots: int = 0
    python: str = ""
    gpus: tuple[str, ...] = ()
    state: str = "never ready"
    why: str = ""
    offset: float | None = None
    environment: str = ""
    completed: int = 0
    failed: int = 0
    busy: float = 0.0
    open: float = 0.0
    ready_at: float | None = None
    gaps: list[tuple[float, float, str]] = field(default_factory=list)


@dataclass
class Failure:
    """Failures of one kind, with the same last frames of the traceback. `place` is the line that raised, and `id` stays from run to run."""

    id: str
    title: str
    kind: str
    place: str
    traceback: str
    nums: list[int] = field(default_factory=list)
    hosts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class ReportFacts:
    """All of the report.

    Attributes:
        ordered: the rows in the order of `sort`; those of the table if nothing is sorted by.
        span: seconds from the begin of the run to its end, or to the last event.
        failures: the most frequent first.
        failures_left_out: jobs whose failures are not among them.
        about: what the run was: pairs of a name and a text.
    """

    table: Table
    ordered: list[Row]
    sort: str
    span: float
    hosts: list[HostFacts]
    spans: list[Span]
    failures: list[Failure]
    failures_left_out: int
    warnings: list[tuple[str, int]]
    warnings_left_out: int
    about: list[tuple[str, str]]
    kinds: dict[str, int]

    @property
    def status(self) -> RunStatus:
        """The status of the run."""
        return self.table.status

    @property
    def busy_share(self) -> float | None:
        """The share of the time of open slots in which they worked; None if no slot was open."""
        total = sum(host.open for host in self.hosts)
        return min(1.0, sum(host.busy for host in self.hosts) / total) if total > 0 else None


class Homes:
    """Replaces home folders in texts by `~`, here and on hosts."""

    def __init__(self, *, are_kept: bool) -> None:
        self._are_kept = are_kept
        self._own = os.path.expanduser("~").rstrip("/")

    def __call__(self, text: str) -> str:
        """The text without the names of home folders."""
        if self._are_kept or "/" not in text:
            return text
        if len(self._own) > 1:
            text = re.sub(rf"(?<![\w./-]){re.escape(self._own)}(?=[/\s:\"']|$)", "~", text)
        return _HOME.sub("~", text)


def read_facts(entry: Entry, *, sort: str = "", full_paths: bool = False) -> ReportFacts:
    """Read what the report says.

    Args:
        sort: the column of the best job, as `launcher show --sort` takes it.
        full_paths: leave home folders in texts.

    Raises:
        LauncherError: the run's folder is gone, its journal is damaged, or there is no such column.
    """
    homes = Homes(are_kept=full_paths)
    status = read_status(entry)
    with JournalReader(entry.journal) as reader:
        jobs = read_jobs(reader)
        rows, unread = read_rows(reader, jobs)
        last = reader.last_event_at()
        end = status.ended or last or status.started
        hosts = _hosts(reader, status, end)
        spans = _spans(jobs, hosts, status.started, end)
        _add_work(hosts, spans, jobs, status.started, end)
        failures, left_out = _failures(jobs, homes)
        warnings = _warnings(reader, homes)
        about = _about(reader, status, homes)
    table = Table(status, rows, unread)
    return ReportFacts(
        table=table,
        ordered=sort_rows(rows, sort) if sort else rows,
        sort=sort,
        span=max(end - status.started, 0.0),
        hosts=list(hosts.values()),
        spans=spans,
        failures=failures,
        failures_left_out=left_out,
        warnings=warnings[:MAX_WARNINGS],
        warnings_left_out=len(warnings[MAX_WARNINGS:]),
        about=about,
        kinds=status.kinds,
    )


def _hosts(reader: JournalReader, status: RunStatus, end: float) -> dict[str, HostFacts]:
    hosts = {name: HostFacts(name) for name in status.hosts}

    def host(name: str) -> HostFacts:
        return hosts.setdefault(name, HostFacts(name))

    lost_since: dict[str, tuple[float, str]] = {}

    def found_again(name: str, at: float) -> None:
        if name in lost_since:
            since, why = lost_since.pop(name)
            host(name).gaps.append((since - status.started, at - status.started, shorten(why, 200)))

    for _, event in reader.events_of(
        "host_ready", "host_unknown", "host_lost", "host_unusable", "host_closed", "environment_ready"
    ):
        match event:
            case events.HostReady():
                one = host(event.host)
                one.slots, one.python, one.gpus = max(one.slots, event.slots), event.python, event.gpus
                one.state, one.why = "ready", ""
                one.ready_at = event.at if one.ready_at is None else one.ready_at
                found_again(event.host, event.at)
            case events.HostUnknown():
                host(event.host).state = "link lost"
                lost_since.setdefault(event.host, (event.at, event.why))
            case events.HostLost():
                one = host(event.host)
                one.state, one.why = "given up", shorten(event.why, 300)
                lost_since.setdefault(event.host, (event.at, event.why))
            case events.HostUnusable():
                one = host(event.host)
                one.state, one.why = "unusable", shorten(f"{event.phase}: {event.why}", 300)
            case events.HostClosed():
                one = host(event.host)
                one.state, one.why = "closed", shorten(event.why, 300)
            case events.EnvironmentReady():
                host(event.host).environment = event.key
            case _:
                pass
    for name in list(lost_since):
        found_again(name, end)
    return hosts


def _spans(jobs: list[JobStatusLine], hosts: dict[str, HostFacts], begin: float, end: float) -> list[Span]:
    """The attempts that started, on the clock of this machine."""
    for name, offset in offsets_of(jobs).items():
        hosts.setdefault(name, HostFacts(name)).offset = offset
    spans = []
    for job in jobs:
        for attempt in job.attempts:
            if attempt.started_at is None:
                continue
            host = hosts.get(attempt.host)
            offset = host.offset if host is not None and host.offset is not None else 0.0
            start, over = times_of(attempt, offset, begin, end)
            is_last = attempt is job.attempts[-1]
            collected = job.returned_at - begin if is_last and job.returned_at is not None else None
            spans.append(
                Span(
                    job.num, attempt.attempt, attempt.host, attempt.slot or 0, attempt.state,
                    start - begin, over - begin, collected,
                )
            )  # fmt: skip
    return spans


def _add_work(
    hosts: dict[str, HostFacts], spans: list[Span], jobs: list[JobStatusLine], begin: float, end: float
) -> None:
    for span in spans:
        hosts.setdefault(span.host, HostFacts(span.host)).busy += span.end - span.start
    for host in hosts.values():
        if host.ready_at is not None:
            away = sum(until - since for since, until, _ in host.gaps)
            host.open = max(0.0, end - host.ready_at - away) * host.slots
    for job in jobs:
        if job.state in ("COMPLETED", "FAILED") and job.host in hosts:
            host = hosts[job.host]
            host.completed += job.state == "COMPLETED"
            host.failed += job.state == "FAILED"


def _failures(jobs: list[JobStatusLine], homes: Homes) -> tuple[list[Failure], int]:
    groups: dict[tuple[str, ...], Failure] = {}
    left_out = 0
    for job in jobs:
        if job.state != "FAILED":
            continue
        error = job.error or {}
        key = signature(error)
        group = groups.get(key)
        if group is None:
            if len(groups) >= MAX_FAILURES:
                left_out += 1
                continue
            group = groups[key] = _failure(key, error, homes)
        group.nums.append(job.num)
        group.hosts[job.host or "no host"] += 1
    return sorted(groups.values(), key=lambda one: (-len(one.nums), one.nums[0])), left_out


def _failure(key: tuple[str, ...], error: dict[str, Any], homes: Homes) -> Failure:
    text = str(error.get("traceback") or "")
    frames = _FRAME.findall(text)
    place = f"{frames[-1][0].rpartition('/')[2]}:{frames[-1][1]} in {frames[-1][2]}" if frames else ""
    lines = [clean(line[:_LONGEST_LINE]) for line in cut(text.rstrip().splitlines())]
    return Failure(
        id=hashlib.sha256("\0".join(key).encode("utf-8", "backslashreplace")).hexdigest()[:10],
        title=homes(shorten(error_line(error), 300)),
        kind=str(error.get("kind", "")),
        place=shorten(place, 200),
        traceback=homes("\n".join(lines)),
    )


def _warnings(reader: JournalReader, homes: Homes) -> list[tuple[str, int]]:
    told: Counter[str] = Counter()
    for _, event in reader.events_of("warning"):
        if isinstance(event, events.Warned):
            where = f" on {event.host}" if event.host else ""
            told[homes(shorten(f"{event.source}{where}: {event.message}", 500))] += 1
    return told.most_common()


def _code_of(reader: JournalReader, record: run_record.RunRecord) -> str:
    """Return the hash of the code, as each JobReturn has it; empty if the run sent none, or a newer launcher wrote it."""
    manifest = reader.blob("manifest")
    if record.code is None or manifest is None:
        return ""
    try:
        return Snapshot.of_manifest(Path(record.code["root"]), manifest, "", dirty=False).hash
    except LauncherError:
        return ""


def _about(reader: JournalReader, status: RunStatus, homes: Homes) -> list[tuple[str, str]]:
    about = [("run", status.run), ("task", status.task), ("mode", status.mode)]
    try:
        record = run_record.read(reader)
    except LauncherError:
        record = None  # the run died before it had one
    if record is not None:
        command = shlex.join(["launcher" if not index else one for index, one in enumerate(record.argv)] or ["python"])
        if record.argv and os.path.basename(record.argv[0]) != "launcher":
            command = shlex.join(["python", *record.argv])
        about.append(("command", homes(shorten(command, 2000))))
        about.append(("in folder", homes(shorten(record.cwd, 500))))
        if record.code is not None and record.code["commit"]:
            dirty = ", with changes that were not committed" if record.code["dirty"] else ""
            about.append(("commit", shorten(f"{record.code['commit']}{dirty}", 200)))
        about.append(("Python here", ".".join(map(str, record.python))))
        code = _code_of(reader, record)
        if code:
            about.append(("code", code))
    keys = sorted(
        {event.key for _, event in reader.events_of("environment_ready") if isinstance(event, events.EnvironmentReady)}
    )
    if keys:
        about.append(("environment", shorten(", ".join(key[:12] for key in keys), 300)))
    about.append(("results in", homes(clean(str(status.folder)))))
    hooks = ", ".join(f"{hook} {state}" for hook, state in status.end_hooks.items())
    return [*about, ("end hook", shorten(hooks, 300))] if hooks else about
