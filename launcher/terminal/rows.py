"""The rows of the live part: one for each host, one for the run, one for each job to choose from, and the tail of what a job prints.

Rule: a row is one line of the terminal and is cut at its edge. All text of hosts and jobs goes through `clean_line`.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from launcher import events
from launcher.display.estimate import run_left
from launcher.display.tally import HostTally, Tally
from launcher.display.text import about, clean_line, clock, report_text, shorten, whole_seconds

__all__ = ["host_rows", "job_rows", "key_row", "question", "row", "run_row", "shown_jobs"]

_STATES = {
    "connecting": "cyan",
    "ready": "green",
    "unknown": "yellow",
    "closed": "yellow",
    "lost": "bold red",
    "unusable": "bold red",
}
#: A terminal with fewer columns gets rows without counts of jobs that wait or have ended.
_NARROW = 78
_BAR = 24
#: How many waiting jobs there are to choose from.
_MOST_WAITING = 200
#: How many jobs of a host are named.
_NAMED = 4


def row(*parts: str | tuple[str, str]) -> Text:
    """Make a row of text and (text, style)."""
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


# -- hosts -------------------------------------------------------------------------------------------------------------


def host_rows(tally: Tally, now: float, width: int, room: int, *, has_jobs: bool = True) -> list[Text]:
    """Return a row for each host. If there are more than fit, those with problems come first, and the rest is counted."""
    every = list(tally.hosts.values())
    hosts = every
    if len(every) > room:
        place = {host.name: number for number, host in enumerate(every)}
        hosts = sorted(every, key=lambda host: host.state == "ready")[: max(room - 1, 1)]
        hosts.sort(key=lambda host: place[host.name])
    cells = [_cells(host, width, has_jobs=has_jobs) for host in hosts]
    widths = [max(len(text) for text, _ in column) for column in zip(*cells, strict=True)]
    rows = []
    for host, told in zip(hosts, cells, strict=True):
        parts = [(text.ljust(size) + "  ", style) for (text, style), size in zip(told, widths, strict=True) if size]
        rows.append(row(*parts, (_detail(host, tally, now), "dim")))
    if len(hosts) < len(every):
        rows.append(row((f"... and {len(every) - len(hosts)} more hosts", "dim")))
    return rows


def running_of(host: HostTally) -> str:
    """How many jobs it runs, and of how many at once; empty if it is not ready."""
    if not host.slots:
        return ""
    return f"{host.running} running" if host.is_cluster else f"{host.running}/{host.slots} running"


def _cells(host: HostTally, width: int, *, has_jobs: bool) -> list[tuple[str, str]]:
    state = host.state + (f" since {clock(host.unknown_since)}" if host.unknown_since is not None else "")
    cells = [(clean_line(host.name), "bold"), (state, _STATES[host.state])]
    if has_jobs:
        cells.append((running_of(host), ""))
    if has_jobs and width >= _NARROW:
        cells += [
            (f"{host.queued} queued", "dim"),
            (f"{host.completed:,} done", ""),
            (f"{host.failed:,} failed", "red" if host.failed else "dim"),
        ]
    return cells


def _detail(host: HostTally, tally: Tally, now: float) -> str:
    if host.state in ("lost", "unusable", "closed", "unknown"):
        return shorten(host.detail, 500)
    told = [_running(host, tally, now)] if host.running_jobs else [host.environment]
    if host.queued and host.queue_reason:
        told.append(f"{host.queued} in the queue: {shorten(host.queue_reason, 100)}")
    return "; ".join(one for one in told if one)


def _running(host: HostTally, tally: Tally, now: float) -> str:
    """What runs on a host, for how long, how long that takes, and the latest report."""
    nums = list(host.running_jobs)
    times = {num: now - since for num, since in host.running_jobs.items()}
    latest = max((tally.reports[num] for num in nums if num in tally.reports), key=lambda one: one.at, default=None)
    report = "" if latest is None else _report(latest)
    if len(nums) == 1:
        text = f"job {nums[0]}"
        if nums[0] in tally.overrides:
            text += f" {shorten(' '.join(tally.overrides[nums[0]]), 60)}"
        return f"{text} {_time(times[nums[0]], tally)}" + (f"; {report}" if report else "")
    text = "jobs " + ", ".join(f"{num} ({whole_seconds(max(times[num], 0.0))})" for num in nums[:_NAMED])
    if len(nums) > _NAMED:
        text += f" and {len(nums) - _NAMED} more"
    typical = tally.durations.typical
    if typical is not None:
        text += f" of about {about(typical)}"
    return text + (f"; {latest.num}: {report}" if latest is not None else "")


def _time(elapsed: float, tally: Tally) -> str:
    """How long a job runs, and how long jobs take, if there is a base for that."""
    text = whole_seconds(max(elapsed, 0.0))
    typical, longest = tally.durations.typical, tally.durations.longest
    if typical is None or longest is None:
        return text
    if elapsed > longest and elapsed >= 1:
        return f"{text}, longer than those before (up to {about(longest)})"
    return f"{text} of about {about(typical)}"


def _report(event: events.JobReported) -> str:
    try:
        report = event.report
    except ValueError:
        return ""
    return clean_line(report_text(report.step, report.values))


# -- the run -----------------------------------------------------------------------------------------------------------


def run_row(tally: Tally, now: float, total: int, width: int) -> Text:
    """Return the row of the run: how much of it is done, how long it takes, and when it will probably end."""
    share = min(tally.returned / total, 1.0) if total else 0.0
    filled = round(share * _BAR)
    left = run_left(tally, now, total)
    parts: list[str | tuple[str, str]] = [("stopping  " if tally.interrupted else "run  ", "bold")]
    if width >= _NARROW:
        parts += [("━" * filled, "green"), ("━" * (_BAR - filled), "dim"), "  "]
    parts += [f"{tally.returned:,}/{total:,}  ", (f"{tally.failed:,} failed  ", "bold red" if tally.failed else "dim")]
    parts.append((f"{tally.waiting:,} waiting here  ", "dim"))
    parts.append(whole_seconds(tally.elapsed(now)))
    if left is not None:
        parts.append((f"  about {about(left)} left, until {clock(now + left)}", "dim"))
    return row(*parts)


def key_row(text: str, problem: str = "") -> Text:
    """Return the last row: which keys there are, or what is wrong."""
    return row((problem, "yellow")) if problem else row((text, "dim"))


# -- jobs --------------------------------------------------------------------------------------------------------------


def shown_jobs(tally: Tally) -> list[int]:
    """Return the numbers of the jobs that run, and then of those that wait, as far as anybody would look."""
    running = [num for host in tally.hosts.values() for num in host.running_jobs]
    return running + tally.waiting_jobs(_MOST_WAITING)


def job_rows(tally: Tally, jobs: Sequence[int], chosen: int, now: float, room: int) -> list[Text]:
    """Return rows of jobs around the chosen one."""
    since = {num: (host.name, at) for host in tally.hosts.values() for num, at in host.running_jobs.items()}
    place = jobs.index(chosen) if chosen in jobs else 0
    first = min(max(place - room // 2, 0), max(len(jobs) - room, 0))
    rows = []
    for num in jobs[first : first + room]:
        place_of, host = tally.place_of(num)
        overrides = shorten(" ".join(tally.overrides.get(num, ())), 60)
        if num in since:
            told = f"{clean_line(since[num][0])}  {_time(now - since[num][1], tally)}"
            if num in tally.reports:
                told += f"  {_report(tally.reports[num])}"
        else:
            told = f"{clean_line(host)}  {place_of}" if host else "waiting here"
        mark, style = ("> ", "bold") if num == chosen else ("  ", "")
        rows.append(row((f"{mark}job {num}  {overrides}  ", style), (told, "dim")))
    return rows


def question(name: str, num: int) -> str:
    """Return what a view asks."""
    if name == "cancel":
        return f"cancel job {num}? its end hooks fire. y: yes, any other key: no"
    return "leave the run? it goes on, and 'launcher attach' collects it. y: yes, any other key: no"
