"""`launcher retry`: run jobs of a run once more, in the same run.

Rule: a retried job is a further attempt: the earlier ones stay in the journal and in `launcher show`, and the job's
JobReturn becomes the last one's.
"""

from __future__ import annotations

import functools
from typing import Annotated

import typer

from launcher.cli import arguments
from launcher.cli.commands.attach import Live, only, take_up
from launcher.cli.runner import output as open_output
from launcher.errors import UsageError

__all__ = ["retry"]

_Failed = Annotated[bool, typer.Option("--failed", help="Every job that failed, whatever the reason (the default).")]
_Lost = Annotated[bool, typer.Option("--lost", help="Only jobs that were lost with their host.")]
_Kind = Annotated[
    list[str] | None,
    typer.Option(
        "--kind", metavar="KIND", help="Only jobs that failed so: timeout, killed, ...; repeatable.", show_default=False
    ),
]
_Detach = Annotated[bool, typer.Option("--detach", help="Return once the hosts have the jobs.")]


def retry(
    run: arguments.RunOrJob = "last",
    failed: _Failed = False,
    lost: _Lost = False,
    kind: _Kind = None,
    env: arguments.Env = None,
    live: Live = None,
    detach: _Detach = False,
    is_json: arguments.Json = False,
    verbose: arguments.Verbose = False,
    quiet: arguments.Quiet = False,
) -> None:
    """Run the jobs of RUN that failed (or the one job RUN#NUM) once more, and fire the run's end hook again.

    The jobs get the code, the config and the callbacks that they had before.
    """
    from launcher.runs import index, ownership
    from launcher.runs.journal import JournalReader
    from remote_agent.job import ERROR_KINDS

    if failed + lost + bool(kind) > 1:
        raise UsageError("--failed, --lost and --kind: say one of them")
    for one in kind or []:
        if one not in ERROR_KINDS:
            raise UsageError(f"--kind {one}: known are {', '.join(ERROR_KINDS)}")
    reference = index.parse(run)
    nums = None if reference.num is None else frozenset({reference.num})
    kinds = frozenset({"lost"}) if lost else frozenset(kind) if kind else None
    chosen = functools.partial(only, nums=nums, kinds=kinds)
    entry = reference.entry
    ownership.check_ours(entry.folder)
    reader = JournalReader(entry.journal)
    try:
        if not any(chosen(one) for one in reader.all_returned()):
            raise UsageError(f"run {entry.run}: no job to run once more: none of those that were meant has failed")
    finally:
        reader.close()
    with open_output(is_json) as out:
        code = take_up(
            entry, out, env=arguments.values(env), retry=chosen, live=live, detach=detach, verbose=verbose, quiet=quiet
        )
    raise typer.Exit(code)
