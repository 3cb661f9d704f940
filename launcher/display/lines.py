"""Events as lines, one for each event that a user wants to see. A terminal shows the same lines above its progress.

Rule: an error of a hook is shown in full every time. Lines that repeat for many jobs are shown a few times and then counted.
"""

from __future__ import annotations

from collections.abc import Callable

from launcher import events
from launcher.display.base import BaseDisplay
from launcher.display.tally import Tally
from launcher.display.text import (
    about,
    clean,
    clean_line,
    clock,
    count,
    environment_text,
    error_line,
    fetched_text,
    seconds,
    shorten,
    size,
    some,
)
from launcher.live.lines import LineCutter
from launcher.live.output import LiveOutput
from launcher.util.exhaustive import assert_never
from launcher.util.frozen import frozen

__all__ = ["EventLines", "Line", "LineDisplay"]

#: How many completed jobs, and how many failed jobs, get their own line.
SHOWN_ONE_BY_ONE = 50
#: Seconds between two lines that only have counts.
PROGRESS_EVERY = 10.0
#: How many lines of a traceback are shown. A longer one is cut in the middle.
TRACEBACK_LINES = 60


@frozen
class Line:
    """A line and its tone: `plain`, `good`, `bad`, `warning`, `dim`, `output`, `count`."""

    text: str
    tone: str = "plain"


class EventLines:
    """Makes lines of events for the user. The tally must have counted the event already.

    Args:
        tally: the counts; read here, never changed.
        verbose: show hooks, assignments and starts too.
        hooks: show hooks too.
        quiet: show only problems.
        is_counting: from time to time, add a line with the progress of the run.
        shows_output: show what jobs print, line by line.
        total: the number of jobs, if it is known.
    """

    def __init__(
        self,
        tally: Tally,
        *,
        verbose: bool = False,
        hooks: bool = False,
        quiet: bool = False,
        is_counting: bool = True,
        shows_output: bool = True,
        total: int | None = None,
    ) -> None:
        self._tally = tally
        self._verbose = verbose
        self._is_telling_hooks = hooks or verbose
        self._quiet = quiet
        self._is_counting = is_counting
        self._total = total
        self._counted_at = 0.0
        self._cutter = LineCutter() if shows_output else None
        #: Jobs that were taken over, until their JobReturned comes.
        self._taken: set[int] = set()
        #: Host -> the last shown reason why it gets no jobs, because a host with little room changes its state again and again.
        self._closed: dict[str, str] = {}
        #: Job -> the error of its attempt, until it is known whether another attempt follows.
        self._failed: dict[int, str] = {}
        #: Host -> the last shown state of its environment, and when it was shown.
        self._environments: dict[str, tuple[str, float]] = {}

    def begin_counting(self, at: float) -> None:
        """From now on, also return lines with the progress of the run, and the jobs that complete."""
        self._is_counting, self._counted_at = True, at

    def lines(self, event: events.Event) -> list[Line]:
        """Return the lines to show for an event; often there are none."""
        # Clean them again, because some have names of files and folders, which nobody cleaned.
        told = [Line(clean(line.text), line.tone) for line in self._unended(event) + self._lines_of(event)]
        return [line for line in told if line.tone in ("bad", "warning", "output")] if self._quiet else told

    def _lines_of(self, event: events.Event) -> list[Line]:  # noqa: C901, RET503 - one case for each event; the last does not return
        match event:
            case events.RunStarted():
                return self._on_run_started(event)
            case events.JobAssigned():
                return [Line(f"job {event.num}: to {event.host}", "dim")] if self._verbose else []
            case events.AttemptStarted():
                attempt = f", attempt {event.attempt}" if event.attempt > 1 else ""
                return [Line(f"job {event.num}: started on {event.host}{attempt}", "dim")] if self._verbose else []
            case events.OutputArrived():
                return self._on_output(event)
            case events.AttemptEnded():
                if event.status == "FAILED":
                    self._failed[event.num] = f"FAILED: {shorten(error_line(event.error), 300)}"
                return []
            case events.JobTakenOver():
                self._taken.add(event.num)
                return []
            case events.JobReturned():
                return self._on_job_returned(event)
            case events.JobStopping():
                return [Line(f"job {event.num}: asked to stop early", "dim")] if self._verbose else []
            case events.HookFired():
                return self._on_hook(event)
            case events.Warned():
                return self._on_warning(event)
            case events.Note():
                return [Line(f"note{f' ({event.host})' if event.host else ''}: {clean(event.message)}", "plain")]
            case events.HostReady():
                return self._on_host_ready(event)
            case events.WayChosen():
                # fabric is the usual way, and needs no line.
                is_told = event.way != "fabric" or self._verbose
                return (
                    [Line(f"host {event.host}: reached by {event.way}: {clean(event.why)}", "dim")] if is_told else []
                )
            case events.CodeSent():
                return self._on_code_sent(event)
            case events.EnvironmentChanged():
                return self._on_environment(event)
            case events.EnvironmentReady():
                what = "is built" if event.is_new else "is there already"
                return [
                    Line(
                        f"host {event.host}: environment {event.key[:12]} {what} ({size(event.total)}{fetched_text(event.fetched)})",
                        "dim",
                    )
                ]
            case events.HostUnknown():
                jobs = f"; {count(len(event.jobs), 'job')} unknown since {clock(event.at)}" if event.jobs else ""
                return [Line(f"host {event.host}: link lost ({clean(event.why)}){jobs}; reconnecting", "warning")]
            case events.HostLost():
                jobs = f"; it had {count(len(event.jobs), 'job')}: {some(event.jobs)}" if event.jobs else ""
                return [Line(f"host {event.host}: given up ({clean(event.why)}){jobs}", "bad")]
            case events.HostUnusable():
                return self._on_host_unusable(event)
            case events.RunInterrupt():
                how = (
                    "running jobs are killed" if event.kill else "running jobs are cancelled, and their end hooks fire"
                )
                return [Line(f"stopping: {clean(event.why)}; {how}", "warning")]
            case events.JobRequeued():
                return self._on_job_requeued(event)
            case events.HostClosed():
                return self._on_host_closed(event)
            case events.JobRetried():
                return [Line(f"job {event.num}: runs again; attempt {event.attempt} was {event.status}", "dim")]
            case events.RunResumed():
                self._counted_at = event.at
                return [Line(f"run {event.run} resumed on {_names(event.hosts)}", "dim")]
            case events.RunDetached():
                return [Line(f"detached ({clean(event.why)}): run {event.run} {_goes_on(event)}", "warning")]
            case events.RunDetaching():
                return [
                    Line(f"detaching ({clean(event.why)}): the hosts get every job that still waits here", "warning")
                ]
            case (
                events.HostOpened()
                | events.JobCancelling()
                | events.JobReported()
                | events.JobQueued()
                | events.OutputsUnmatched()
                | events.RunEnded()
            ):
                return []
            case _:
                assert_never(event)

    # -- the run -------------------------------------------------------------------------------------------------

    def _on_run_started(self, event: events.RunStarted) -> list[Line]:
        self._counted_at = event.at
        return [
            Line(
                f"run {event.run} ({event.mode}) on {_names(event.hosts)}; results in {clean_line(event.folder)}", "dim"
            )
        ]

    # -- hosts ---------------------------------------------------------------------------------------------------

    def _on_host_ready(self, event: events.HostReady) -> list[Line]:
        if event.reconnected:
            return [Line(f"host {event.host}: connected again; the state of its jobs is known again", "good")]
        gpus = f", {count(len(event.gpus), 'GPU')}" if event.gpus else ""
        room = "Slurm runs its jobs" if event.is_cluster else count(event.slots, "slot")
        return [
            Line(
                f"host {event.host}: ready, {room}{gpus}, agent on Python {clean(event.python)}",
                "good",
            )
        ]

    def _on_code_sent(self, event: events.CodeSent) -> list[Line]:
        if not event.sent_files:
            return [Line(f"host {event.host}: has the code already ({count(event.files, 'file')})", "dim")]
        sent = f"{event.sent_files:,} of {count(event.files, 'file')}, {size(event.sent_bytes)}"
        return [Line(f"host {event.host}: code sent ({sent})", "dim")]

    def _on_environment(self, event: events.EnvironmentChanged) -> list[Line]:
        state, at = self._environments.get(event.host, ("", 0.0))
        if event.state == state and event.at - at < PROGRESS_EVERY:
            return []
        self._environments[event.host] = (event.state, event.at)
        text = environment_text(event.state, event.done, event.total, event.fetched)
        return [Line(f"host {event.host}: environment: {text}", "dim")]

    def _on_host_unusable(self, event: events.HostUnusable) -> list[Line]:
        first, *rest = clean(event.why).splitlines() or [""]
        told = [Line(f"host {event.host}: cannot be used: {clean(event.phase)}: {first}", "bad")]
        told += [Line(f"    {line}", "bad") for line in rest]
        if event.next_step:
            told.append(Line("    next: " + "\n          ".join(clean(event.next_step).splitlines()), "bad"))
        return told

    def _on_host_closed(self, event: events.HostClosed) -> list[Line]:
        if self._closed.get(event.host) == event.why:
            return []
        self._closed[event.host] = event.why
        later = " until it has room again" if event.may_open else ""
        return [Line(f"host {event.host}: gets no further jobs{later}: {clean(event.why)}", "warning")]

    # -- jobs ----------------------------------------------------------------------------------------------------

    def _on_output(self, event: events.OutputArrived) -> list[Line]:
        if self._cutter is None:
            return []
        return _prefixed(event.num, event.host, self._cutter.feed(event.num, event.stream, event.data))

    def _unended(self, event: events.Event) -> list[Line]:
        """Return the last line of a job's output, if it has no newline."""
        if self._cutter is None or not isinstance(event, (events.JobReturned, events.JobRequeued)):
            return []
        return _prefixed(event.num, event.host, self._cutter.finish(event.num))

    def _on_job_requeued(self, event: events.JobRequeued) -> list[Line]:
        if event.is_taken_back:
            return []
        where = f" on {event.host}" if event.host else ""
        how = self._failed.pop(event.num, f"given up: {shorten(event.why, 300)}")
        return [Line(f"job {event.num}: attempt {event.attempt}{where} {how}; another attempt follows", "warning")]

    def _on_job_returned(self, event: events.JobReturned) -> list[Line]:
        tally = self._tally
        if event.num in self._taken:
            # A note says of all of them together that they were taken over.
            self._taken.remove(event.num)
            return []
        self._failed.pop(event.num, None)
        where = f" on {event.host}" if event.host else ""
        took = f" after {seconds(event.duration)}" if event.duration is not None else ""
        if not (event.host or self._verbose) and (event.error or {}).get("kind") == "cancelled":
            # After Ctrl-C these are all jobs that waited. The summary lists them.
            return []
        if event.status != "COMPLETED" and tally.failed <= SHOWN_ONE_BY_ONE:
            more = " (further failures are counted, not shown)" if tally.failed == SHOWN_ONE_BY_ONE else ""
            failed = f"job {event.num}{where}: FAILED{took}: {shorten(error_line(event.error), 300)}{more}"
            return [Line(failed, "bad"), *self._progress(event.at)]
        told = []
        if event.status == "COMPLETED" and tally.completed <= SHOWN_ONE_BY_ONE and (self._is_counting or self._verbose):
            how = ", stopped early" if event.stopped else ""
            told.append(Line(f"job {event.num}{where}: completed{took}{how}", "plain"))
        return told + self._progress(event.at)

    def _progress(self, at: float) -> list[Line]:
        """Return from time to time a line with the progress, the time so far, the running jobs and the estimated time left."""
        tally = self._tally
        total = max(self._total or 0, tally.total)
        if not self._is_counting or at - self._counted_at < PROGRESS_EVERY or tally.returned >= total:
            return []
        self._counted_at = at
        running = tally.running_jobs
        which = f" ({some(running)})" if running else ""
        parts = [
            f"{tally.completed:,} completed, {tally.failed:,} failed, {len(running):,} running{which}",
            f"{total - tally.returned - len(running):,} waiting",
        ]
        left = tally.seconds_left(at, total)
        times = f"; {seconds(tally.elapsed(at))} elapsed" + (f", about {about(left)} left" if left is not None else "")
        return [Line(f"so far: {', '.join(parts)}{times}", "count")]

    # -- hooks ---------------------------------------------------------------------------------------------------

    def _on_hook(self, event: events.HookFired) -> list[Line]:
        if not self._is_telling_hooks:
            return []
        where = event.host if event.side == "host" else "controller"
        whose = f", job {event.num}" if event.num is not None else ""
        return [
            Line(
                f"hook {event.hook} of {clean(event.callback)} ({where}{whose}){'' if event.ok else ': it raised'}",
                "dim",
            )
        ]

    def _on_warning(self, event: events.Warned) -> list[Line]:
        whose = [f"job {event.num}"] if event.num is not None else []
        whose += [f"on {event.host}"] if event.host else []
        where = f" ({' '.join(whose)})" if whose else ""
        told = [Line(f"warning: {clean(event.source)}{where}: {clean(event.message)}", "warning")]
        return told + [Line(f"    {line}", "warning") for line in cut(clean(event.traceback).rstrip().splitlines())]


def cut(lines: list[str], limit: int = TRACEBACK_LINES) -> list[str]:
    """Return the lines, without the middle if there are too many."""
    if len(lines) <= limit:
        return lines
    half = limit // 2
    return [*lines[:half], f"... {len(lines) - 2 * half} lines left out ...", *lines[-half:]]


def _names(hosts: tuple[str, ...], limit: int = 8) -> str:
    if not hosts:
        return "no host"
    return ", ".join(hosts[:limit]) + (f" and {len(hosts) - limit} more" if len(hosts) > limit else "")


def _goes_on(event: events.RunDetached) -> str:
    if event.hosts:
        return f"goes on, on {_names(event.hosts)}"
    return f"is not over; go on with it by 'launcher attach {event.run}'"


def _prefixed(num: int, host: str, lines: list[str]) -> list[Line]:
    return [Line(f"[{num} {host}] {line}", "output") for line in lines]


class LineDisplay(BaseDisplay):
    """Plain lines, for a log or a pipe.

    Args:
        write: called with a complete line without its newline.
    """

    def __init__(
        self,
        tally: Tally,
        write: Callable[[str], None],
        *,
        verbose: bool = False,
        hooks: bool = False,
        quiet: bool = False,
        total: int | None = None,
        live: LiveOutput | None = None,
    ) -> None:
        super().__init__(tally, live)
        self._write = write
        self._event_lines = EventLines(
            tally, verbose=verbose, hooks=hooks, quiet=quiet, shows_output=live is None, total=total
        )

    def show(self, event: events.Event) -> None:
        """Write the lines of the event."""
        lines = self._event_lines.lines(event)
        if lines:
            self.write(lambda: self._write_all(lines))

    def _write_all(self, lines: list[Line]) -> None:
        for line in lines:
            self._write(line.text)
