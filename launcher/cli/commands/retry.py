"""`launcher retry`: run jobs of a run again, in the same run.

Rule: a retried job is a further attempt. The earlier attempts stay in the journal and in `launcher show`; the job's
JobReturn is that of the last one.
"""

from __future__ import annotations

import functools
from typing import Annotated

from launcher.cli import arguments
from launcher.cli.commands.attach import Live, resume_run
from launcher.cli.parameters import Exit, Option
from launcher.cli.runner import output as open_output
from launcher.errors import UsageError
from launcher.events import JobReturned

__all__ = ["retry"]

_Failed = Annotated[bool, Option("--failed", help="All failed jobs, whatever their error (the default).")]
_Lost = Annotated[bool, Option("--lost", help="Only jobs that were lost with their host.")]
_Kind = Annotated[
    list[str] | None,
    Option(
        "--kind",
        metavar="KIND",
        help="Only jobs with this kind of error: timeout, killed, ... Repeatable.",
        show_default=False,
    ),
]
_Detach = Annotated[bool, Option("--detach", help="Exit when the hosts have the jobs.")]


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
    """Run the failed jobs of RUN (or the one job RUN#NUM) again, and fire the end hook of the run again.

    The jobs get the same code, config and callbacks as before.
    """
    from launcher.runs import index, ownership
    from launcher.runs.journal import JournalReader
    from remote_agent.job import ERROR_KINDS

    if failed + lost + bool(kind) > 1:
        raise UsageError("--failed, --lost and --kind cannot be combined; use one of them")
    for one in kind or []:
        if one not in ERROR_KINDS:
            raise UsageError(f"--kind {one}: the kinds are {', '.join(ERROR_KINDS)}")
    reference = index.parse(run)
    nums = None if reference.num is None else frozenset({reference.num})
    kinds = frozenset({"lost"}) if lost else frozenset(kind) if kind else None
    chosen = functools.partial(_is_chosen, nums=nums, kinds=kinds)
    entry = reference.entry
    ownership.check_ours(entry.folder)
    with JournalReader(entry.journal) as reader:
        if not any(chosen(one) for one in reader.all_returned()):
            raise UsageError(
                f"run {entry.run}: there is nothing to run again, because none of the chosen jobs has failed"
            )
    with open_output(is_json) as out:
        code = resume_run(
            entry, out, env=arguments.values(env), retry=chosen, live=live, detach=detach, verbose=verbose, quiet=quiet
        )
    raise Exit(code)


def _is_chosen(returned: JobReturned, *, nums: frozenset[int] | None, kinds: frozenset[str] | None) -> bool:
    """Whether a job has failed and is one of those that were chosen."""
    if returned.status != "FAILED" or (nums is not None and returned.num not in nums):
        return False
    return kinds is None or (returned.error or {}).get("kind") in kinds
