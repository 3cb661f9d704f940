"""`launcher cancel`: end a run, or one job of it, wherever its controller is.

Rule: if a controller drives the run, that one gets the request. If there is none, this process resumes the run until the jobs have
ended. The end hooks of a job fire either way.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Annotated

from launcher.cli import arguments
from launcher.cli.parameters import Option
from launcher.cli.runner import Output, resume_session
from launcher.cli.runner import output as open_output
from launcher.errors import RunError, UsageError
from launcher.util.text.terminal_text import clean

if TYPE_CHECKING:
    from launcher.events import JobReturned
    from launcher.runs.index import RunReference
    from launcher.session.session import ResumedSession

__all__ = ["cancel"]

_Kill = Annotated[
    bool,
    Option("--kill", help="Kill the jobs at once with SIGKILL; their end hooks then fire in another process."),
]
_WHY = "cancelled by 'launcher cancel'"
#: Seconds that a controller has to answer a request; also the time to reach a host, in addition to a job's grace.
_PATIENCE = 30.0


def cancel(
    run: arguments.RunOrJob = "last",
    kill: _Kill = False,
    is_json: arguments.Json = False,
    verbose: arguments.Verbose = False,
    quiet: arguments.Quiet = False,
) -> None:
    """Cancel RUN, or the one job RUN#NUM: jobs get SIGTERM, their end hooks fire, and they count as `cancelled`."""
    from launcher.runs import index, ownership
    from launcher.runs import status as run_status

    reference = index.parse(run)
    folder = reference.entry.folder
    with open_output(is_json) as out:
        ownership.check_ours(folder)
        _check(reference)
        if run_status.driver(folder):
            _ask(reference, kill, out)
        else:
            _resume_run(reference, kill, out, verbose=verbose, quiet=quiet)


def _check(reference: RunReference) -> None:
    from launcher.runs.journal import JournalReader
    from launcher.runs.status import read_status

    status = read_status(reference.entry)
    if status.state in ("completed", "failed", "interrupted"):
        raise UsageError(
            f"run {status.run} has ended, so there is nothing to cancel: {status.completed} completed, {status.failed} failed"
        )
    if reference.num is None:
        return
    with JournalReader(reference.entry.journal) as reader:
        if reader.job_without_payload(reference.num) is None:
            raise UsageError(
                f"run {status.run} has no job {reference.num}; 'launcher show {status.run} --all' lists those that it has"
            )
        if reader.returned(reference.num) is not None:
            raise UsageError(
                f"job {reference.num} of run {status.run} has returned already, so there is nothing to cancel; 'launcher show {status.run}#{reference.num}' shows it"
            )


def _ask(reference: RunReference, kill: bool, out: Output) -> None:
    """Ask the controller that drives the run, and wait until it has the request."""
    from launcher import events
    from launcher.runs import cancel_requests
    from launcher.runs import status as run_status
    from launcher.runs.journal import JournalReader

    entry, num = reference.entry, reference.num
    with JournalReader(entry.journal) as reader:
        after = reader.last_seq()
        cancel_requests.ask(entry.folder, cancel_requests.CancelRequest(num, kill, _WHY))
        deadline = time.monotonic() + _PATIENCE
        while True:
            for seq, event in reader.events(after):
                after = seq
                if isinstance(event, (events.RunInterrupt, events.RunEnded)) or (
                    isinstance(event, (events.JobCancelling, events.JobReturned)) and event.num == num
                ):
                    if isinstance(event, events.JobReturned):
                        _check_cancelled(entry.run, event)
                    what = f"run {entry.run}" if num is None else f"job {num} of run {entry.run}"
                    out.people.write(f"{what}: its controller has the request\n")
                    out.report({"version": arguments.VERSION, "run": entry.run, "num": num, "cancelled": True})
                    return
            if time.monotonic() > deadline:
                raise RunError(
                    f"run {entry.run}: its controller ({run_status.driver(entry.folder) or 'it has ended'}) did not answer within "
                    f"{_PATIENCE:.0f} s. The request stays, and is done when the process goes on. If it is stopped, let it go on with "
                    "`kill -CONT PID`. If it has ended, cancel again"
                )
            threading.Event().wait(0.1)


def _resume_run(reference: RunReference, kill: bool, out: Output, *, verbose: bool, quiet: bool) -> None:
    from launcher.runs.journal import JournalReader
    from launcher.setup.from_journal import load_setup

    entry, num = reference.entry, reference.num
    setup, record = load_setup(entry.folder, needs_env=False)

    def drive(session: ResumedSession) -> None:
        if num is None:
            session.cancel_run(_WHY, kill=kill)
        elif not session.cancel_job(num, _PATIENCE + float(setup.options.grace)):
            out.people.write(
                f"job {num}: its host could not be reached, so the job may still run there; when the host can be reached, "
                f"'launcher attach {entry.run}' cancels it\n"
            )

    resume_session(entry, setup, record, drive, out, verbose=verbose, quiet=quiet)
    if num is not None:
        with JournalReader(entry.journal) as reader:
            returned = reader.returned(num)
        if returned is not None:
            _check_cancelled(entry.run, returned)


def _check_cancelled(run: str, returned: JobReturned) -> None:
    """Raise a UsageError if the job had ended by itself before it could be cancelled."""
    kind = (returned.error or {}).get("kind")
    if kind != "cancelled":
        how = returned.status.lower() + (f" ({clean(str(kind))})" if kind else "")
        raise UsageError(f"job {returned.num} of run {run} was not cancelled: it had ended before, {how}")
