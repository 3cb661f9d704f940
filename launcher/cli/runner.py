"""How a command drives a run: display, session, summary, exit code.

Rule: the summary is written however the run ends. With `--json`, stdout has the summary and nothing else. If the run is a single
job, stdout has what the job prints, and the launcher itself writes to stderr.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from launcher.errors import LauncherError, RunDetached
from launcher.util.closed_pipe import drop, flush_stdout
from launcher.util.text.terminal_text import clean

if TYPE_CHECKING:
    from launcher.app_run import AppRun
    from launcher.display.tally import Tally
    from launcher.events import Event, JobReturned
    from launcher.runs.index import Entry
    from launcher.runs.record import RunRecord
    from launcher.session.session import Observer, ResumedSession, Session
    from launcher.setup.kinds.run_setup import RunSetup
    from launcher.tables.table import Table
    from launcher.transports.early_connections import EarlyConnections

    S = TypeVar("S", bound=Session)

__all__ = ["Output", "exit_code", "output", "plan_app", "resume_session", "run_app", "run_session"]

_FAILED, _NO_HOST = 1, 3
#: To read the values of more jobs than this would keep the user waiting who did not ask for them.
_MAX_READ = 2000


class Output:
    """Where a command writes.

    Attributes:
        people: the stream for people: stdout, or stderr with `--json` and when stdout is for the job.
        report: writes the summary for a machine; does nothing without `--json`.
    """

    def __init__(self, is_json: bool, stdout: TextIO) -> None:
        self.is_json = is_json
        self.people: TextIO = sys.stdout
        self._stdout = stdout
        self.has_reported = False

    def leave_stdout_to_the_job(self) -> None:
        """Write to stderr from now on, because stdout is for the one job of the run. If stderr is closed, nothing is shown."""
        self.people = sys.stderr if sys.stderr is not None else open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115

    def report(self, content: dict[str, Any]) -> None:
        """Write the report as one JSON object."""
        if self.is_json:
            self.has_reported = True
            self._stdout.write(json.dumps(content, indent=2) + "\n")
            self._stdout.flush()

    def print_detached(self, run: str, left_behind: int) -> None:
        """Say that the run goes on without this process."""
        rest = f"; {left_behind:,} jobs wait until then, because no host has them" if left_behind else ""
        self.people.write(
            f"run {run} goes on without this process; 'launcher attach {run}' collects its results{rest}\n"
        )
        self.report({"version": 1, "exit_code": 0, "run": run, "detached": True, "left_behind": left_behind})


@contextlib.contextmanager
def output(is_json: bool) -> Iterator[Output]:
    """With `--json`, everything that would go to stdout (also what a callback prints) goes to stderr, except the report.

    For an error without a report, write one.
    """
    stdout = sys.stdout
    with contextlib.redirect_stdout(sys.stderr) if is_json else contextlib.nullcontext():
        out = Output(is_json, stdout)
        try:
            yield out
        except LauncherError as error:
            if not out.has_reported:
                out.report({"version": 1, "exit_code": error.exit_code, "error": _error_json(error)})
            raise


def run_app(
    app_run: AppRun,
    out: Output,
    *,
    early: EarlyConnections,
    detach: bool = False,
    sort: str | None = None,
    verbose: bool = False,
    quiet: bool = False,
) -> int:
    """Run it, show it, and write the summary; return the exit code.

    Args:
        early: connections that were started before.
        detach: return when the hosts have all jobs; what they print until then is not shown.
        sort: the column by which the summary sorts.

    Raises:
        LauncherError: an error of the session; the summary has been written.
    """
    from launcher.session.session import Session, SessionConf

    def make(observer: Observer) -> Session:
        return Session(app_run.setup, SessionConf([observer], owns_process=True, early=early))

    try:
        return run_session(
            make,
            lambda session: app_run.drive(session, detach),
            out,
            total=app_run.total,
            is_one_job=app_run.setup.mode == "RUN",
            is_live=bool(app_run.setup.options.live) and not detach,
            sort=sort,
            verbose=verbose,
            quiet=quiet,
            no_detach="" if app_run.jobs is not None else "its sweeper needs the results, so the run cannot be left",
        )
    finally:
        app_run.close()


def plan_app(app_run: AppRun, out: Output) -> int:
    """Show what it would do, and do nothing; return the exit code: that of a run whose jobs fail, if some certainly would.

    Raises:
        LauncherError: the run would be refused.
    """
    from launcher.display.dry_run import print_dry_run
    from launcher.setup.dry_run import plan_run

    try:
        plan = plan_run(app_run.setup, None if app_run.jobs is None else app_run.jobs())
    finally:
        app_run.close()
    code = _FAILED if plan.failing else 0
    if not out.is_json:
        print_dry_run(plan, out.people)
    out.report({"version": 1, "exit_code": code, **plan.to_json()})
    return code


def run_session(
    make: Callable[[Observer], S],
    drive: Callable[[S], None],
    out: Output,
    *,
    total: int | None = None,
    history: Iterable[Event] = (),
    is_one_job: bool = False,
    is_live: bool = False,
    sort: str | None = None,
    verbose: bool = False,
    quiet: bool = False,
    no_detach: str = "",
) -> int:
    """Make a session, drive it, show it, and write the summary; return the exit code.

    Args:
        make: makes the session with this observer.
        drive: called in the open session.
        history: earlier events, which the summary counts and the display does not show.
        is_one_job: the run is a single job, so stdout is for the job.
        is_live: show what jobs print.
        sort: the column by which the summary sorts.
        no_detach: why the run cannot be left by a key; empty if it can.

    Raises:
        LauncherError: an error of the session; the summary has been written.
    """
    from launcher.display.summary import print_summary, summary_json
    from launcher.display.tally import Tally
    from launcher.terminal.controls import SessionControls
    from launcher.terminal.factory import make_display

    live = None
    if is_one_job:
        out.leave_stdout_to_the_job()
        if is_live:
            from launcher.live.output import LiveOutput

            live = LiveOutput(sys.stdout, sys.stderr)
    tally = Tally()
    for event in history:
        tally(event)
    error: LauncherError | None = None
    session: S | None = None
    try:
        with make_display(tally, out.people, verbose=verbose, quiet=quiet, total=total, live=live) as display:
            session = make(display)
            session.wait_shown = display.wait_shown
            display.use(SessionControls(session, no_detach))
            # The display shows what a hook raised, so the callbacks need not log it.
            session.callbacks.report = _display_shows_it
            with session:
                drive(session)
    except LauncherError as raised:
        error = raised
    code = exit_code(tally, error)
    if session is not None and session.is_detached and (error is None or isinstance(error, RunDetached)):
        out.print_detached(session.run_id, session.left_behind)
        return 0
    unreached = tuple(session.unreached) if session is not None else ()
    if tally.run:
        try:
            has_shown = live.has_shown if live is not None else lambda text: False
            values, sort = _values(tally, sort, out.people)
            print_summary(tally, out.people, unreached=unreached, has_shown=has_shown, values=values, sort=sort or "")
        except BrokenPipeError:
            drop(out.people)
    flush_stdout()
    out.report(summary_json(tally, exit_code=code, unreached=unreached, error=_error_json(error) if error else None))
    if error is not None:
        raise error
    return code


def resume_session(
    entry: Entry,
    setup: RunSetup,
    record: RunRecord,
    drive: Callable[[ResumedSession], None],
    out: Output,
    *,
    retry: Callable[[JobReturned], bool] | None = None,
    is_one_job: bool = False,
    is_live: bool = False,
    verbose: bool = False,
    quiet: bool = False,
) -> int:
    """Drive a run that another process started, from where its journal ends, in its working folder; return the exit code.

    Args:
        retry: whether to run the job of a JobReturned again.

    Raises:
        LauncherError: as `run_session` does.
    """
    from launcher.runs.journal import JournalReader
    from launcher.session.session import ResumedSession, SessionConf

    # Callbacks may write relative to it.
    if os.path.isdir(record.cwd):
        os.chdir(record.cwd)
    with JournalReader(entry.journal) as reader:
        history = [event for _, event in reader.events()]
        total = reader.planned_jobs()
    return run_session(
        lambda observer: ResumedSession(setup, SessionConf([observer], owns_process=True), record, retry=retry),
        drive,
        out,
        total=total,
        history=history,
        is_one_job=is_one_job,
        is_live=is_live,
        verbose=verbose,
        quiet=quiet,
    )


def _values(tally: Tally, sort: str | None, stream: TextIO) -> tuple[Table | None, str | None]:
    """What came back from the jobs of a run that is over, and the column to sort by if it has it. The journal has all of it."""
    if tally.returned <= 1 or (sort is None and tally.returned > _MAX_READ):
        return None, None
    from launcher.runs import index
    from launcher.tables.table import read_table, sort_rows

    try:
        table = read_table(index.find(tally.folder))
    except LauncherError as error:
        stream.write(f"launcher: values are not shown: {clean(error)}\n")
        return None, None
    try:
        sort_rows(table.rows, sort or "job")
    except LauncherError as error:
        stream.write(f"launcher: {clean(error)}\n")
        sort = None
    return table, sort


def _display_shows_it(record: dict[str, Any]) -> None:
    """Do nothing: the session makes an event of the record, which the display shows."""


def exit_code(tally: Tally, error: LauncherError | None) -> int:
    """The exit code of a run with these counts and this error."""
    if error is not None:
        return error.exit_code
    if tally.has_no_usable_host:
        return _NO_HOST
    return _FAILED if tally.failed else 0


def _error_json(error: LauncherError) -> dict[str, str]:
    return {"type": type(error).__name__, "message": str(error)}
