"""`launcher attach` and `launcher resume`: resume a run, show its progress, finish it.

Rule: they are one command with two names, because people look for both. If another process drives the run, this one only
watches it, and resumes the run if that process dies before the run has ended.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Annotated, Any

from launcher.cli import arguments
from launcher.cli.parameters import Exit, Option
from launcher.cli.printing import Printing
from launcher.cli.runner import Output, resume_session
from launcher.cli.runner import output as open_output
from launcher.live.output import LiveOutput

if TYPE_CHECKING:
    from launcher.runs.index import Entry

__all__ = ["attach", "resume_run"]

_Detach = Annotated[bool, Option("--detach", help="Exit when the hosts have all remaining jobs.")]
Live = Annotated[
    bool | None,
    Option(
        "--live/--no-live",
        help="Show what unfinished jobs print, from the beginning of their output (default: as the run was started).",
    ),
]
#: Seconds between two reads of a journal that another process writes.
_CHECK_EVERY = 0.3


def attach(
    run: arguments.Run = "last",
    env: arguments.Env = None,
    live: Live = None,
    detach: _Detach = False,
    is_json: arguments.Json = False,
    verbose: arguments.Verbose = False,
    quiet: arguments.Quiet = False,
) -> None:
    """Resume RUN: show its progress, collect its results, and fire its end hook.

    Jobs that have returned do not run again. The command waits for the jobs that hosts have, and runs those that never ran.
    """
    from launcher.runs import index, ownership
    from launcher.runs import status as run_status

    entry = index.find(run)
    with open_output(is_json) as out:
        ownership.check_ours(entry.folder)
        if run_status.driver(entry.folder):
            has_ended = _watch(entry, out, live=live, verbose=verbose, quiet=quiet)
            if not has_ended:
                out.report({"version": arguments.VERSION, "run": entry.run, "detached": True})
                return
        code = resume_run(entry, out, env=arguments.values(env), live=live, detach=detach, verbose=verbose, quiet=quiet)
    raise Exit(code)


def resume_run(
    entry: Entry,
    out: Output,
    *,
    env: dict[str, str] | None = None,
    retry: Any = None,
    live: bool | None = None,
    detach: bool = False,
    verbose: bool = False,
    quiet: bool = False,
) -> int:
    """Drive a run that another process started; return the exit code.

    Args:
        retry: whether to run the job of a JobReturned again.
        live: show what jobs print; None: as when the run was started.
    """
    from launcher.setup.from_journal import load_setup

    setup, record = load_setup(entry.folder, env=env)
    if live is not None:
        setup = dataclasses.replace(setup, options=setup.options.replaced(live=live))
    return resume_session(
        entry,
        setup,
        record,
        lambda session: session.collect(detach=detach),
        out,
        retry=retry,
        is_one_job=setup.mode == "RUN",
        is_live=bool(setup.options.live) and not detach,
        verbose=verbose,
        quiet=quiet,
    )


def _watch(entry: Entry, out: Output, *, live: bool | None, verbose: bool, quiet: bool) -> bool:
    """Show a run that another process drives, until that process has left it. Returns whether it has, or the user has left first."""
    from launcher.display.tally import Tally
    from launcher.runs import record as run_record
    from launcher.runs import status as run_status
    from launcher.runs.journal import JournalReader
    from launcher.terminal.controls import WatchControls
    from launcher.terminal.factory import make_display

    tally = Tally()
    with JournalReader(entry.journal) as reader:
        record = run_record.read(reader)
        is_live = bool(record.options.get("live")) if live is None else live
        prints = Printing(reader) if is_live else None
        after = 0
        for seq, event in reader.events():
            tally(event)
            if prints is not None:
                prints.note(event)
            after = seq
        shown = None
        if record.mode == "RUN":
            out.leave_stdout_to_the_job()
            shown = LiveOutput(sys.stdout, sys.stderr) if is_live else None
        driver = run_status.driver(entry.folder)
        out.people.write(f"another process ({driver}) drives run {entry.run}; this one only shows it\n")
        if is_live and not record.options.get("live"):
            out.people.write(
                "that process gets the output of a job only when the job has ended; 'launcher logs -f RUN#NUM' gets it from the host\n"
            )
        total = reader.planned_jobs()
        controls = WatchControls(entry.folder)
        with make_display(tally, out.people, verbose=verbose, quiet=quiet, total=total, live=shown) as display:
            display.use(controls)
            while True:
                is_driven = bool(run_status.driver(entry.folder))
                for seq, event in reader.events(after):
                    for one in [event] if prints is None else prints.before(event):
                        display(one)
                    after = seq
                for one in [] if prints is None else prints.new():
                    display(one)
                if not is_driven:
                    return True
                if controls.is_left.wait(_CHECK_EVERY):
                    break
        out.people.write(f"run {entry.run} goes on; 'launcher attach {entry.run}' shows it again\n")
    return False
