"""`launcher reproduce`: run a job again, here or on a host, and say whether it ended the same way.

Rule: the exit code agrees with the last lines: 0 if the outcome is the same (or if there is nothing to compare with and the job
completed), else 1.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

from launcher.cli import arguments, completion, flags
from launcher.cli.parameters import Argument, Exit, Option
from launcher.errors import UsageError
from launcher.util.text.terminal_text import clean, clean_line

if TYPE_CHECKING:
    from launcher.reproduce.reproduce import Reproduction

__all__ = ["reproduce"]

_Target = Annotated[
    str,
    Argument(
        metavar="PATH|RUN#NUM",
        help="The job: RUN#NUM, its output directory, its config.pickle or its job_return.pickle. "
        "A pickle can run any code: name one only if you trust the host that wrote it.",
        autocompletion=completion.jobs,
        show_default=False,
    ),
]
_App = Annotated[
    str | None,
    Option("--app", metavar="APP", help="The application, if no record of the run names it.", show_default=False),
]
_Exact = Annotated[
    bool,
    Option("--exact", help="Use the code and the packages that the run recorded, not the code as it is now."),
]
_Hooks = Annotated[bool, Option("--hooks/--no-hooks", help="Whether the hooks of the job fire, too.")]
_Pdb = Annotated[bool, Option("--pdb", help="Run the job here, in the foreground; if it fails, start the debugger.")]
_Folder = Annotated[
    str | None,
    Option("--folder", metavar="DIR", help="The new output directory (default: outputs/...).", show_default=False),
]


@flags.takes_options("hosts", "hosts_file", "python", "timeout", "results", "allow_types", results="safe")
def reproduce(
    target: _Target,
    app: _App = None,
    env: arguments.Env = None,
    is_exact: _Exact = False,
    hooks: _Hooks = False,
    is_pdb: _Pdb = False,
    folder: _Folder = None,
    is_json: arguments.Json = False,
    verbose: arguments.Verbose = False,
    quiet: arguments.Quiet = False,
    **given: Any,
) -> None:
    """Run a job again, and say whether the outcome is the same: status, value, or exception and line."""
    from launcher.cli.runner import output
    from launcher.transports.early_connections import EarlyConnections

    policy = given["results"] or "safe"
    if is_pdb and (given["hosts"] or given["hosts_file"]):
        raise UsageError("--pdb runs the job on this machine; leave --host and --hosts out")
    options = flags.conf({**given, "results": policy}).replaced(live=not is_json, env=arguments.values(env))
    with output(is_json) as out, EarlyConnections.begin(None, options) as early:
        from launcher.display.tally import Tally
        from launcher.reproduce.reproduce import reproduce as run_again
        from launcher.terminal.factory import make_display

        done = run_again(
            target,
            options,
            app=app,
            folder=folder,
            is_exact=is_exact,
            with_hooks=hooks,
            in_debugger=is_pdb,
            early=early,
            tell=lambda note: print(f"note: {clean(note)}", file=sys.stderr),
            show=lambda: make_display(Tally(), out.people, verbose=verbose, quiet=quiet, total=1),
        )
        code = _print(done, policy)
        out.report(_json(done, code))
    raise Exit(code)


def _print(done: Reproduction, policy: str) -> int:
    comparison = done.comparison
    print(f"\n{clean_line(done.target)}, run again; its output is in {clean_line(done.folder)}")
    if done.environment or done.environment_before:
        print(_environment(done))
    if comparison is None:
        error = f": {done.after.error}" if done.after.error else ""
        print(f"{done.after.status}{clean(error)}; there is nothing to compare it with")
        return 0 if done.after.status == "COMPLETED" else 1
    verdict = {
        True: "the outcome is the same:",
        False: "the outcome is NOT the same:",
        None: "it is unknown whether the outcome is the same:",
    }
    print(verdict[comparison.is_same], *comparison.lines, sep="\n  ")
    if comparison.is_same is None and policy == "safe":
        print("  next: use --allow-type MODULE.CLASS, or --results trusted")
    return 0 if comparison.is_same else 1


def _environment(done: Reproduction) -> str:
    before = done.environment_before
    if not done.environment:
        return f"it ran without the environment that it had ({before[:12]}); --exact uses it"
    key = f"environment {done.environment[:12]}"
    if not before:
        return key
    if done.environment == before:
        return f"{key}, as before"
    return f"{key}; before, it was {before[:12]}: the same packages for another Python or platform"


def _json(done: Reproduction, exit_code: int) -> dict[str, Any]:
    comparison = done.comparison
    return {
        "version": arguments.VERSION,
        "exit_code": exit_code,
        "target": done.target,
        "folder": str(done.folder),
        "status": done.after.status,
        "error": done.after.error.to_json() if done.after.error else None,
        "place": done.after.place,
        "environment": done.environment or None,
        "environment_before": done.environment_before or None,
        "is_same": comparison.is_same if comparison else None,
        "says": list(comparison.lines) if comparison else [],
    }
