"""`launcher run` and `launcher multirun`: run an application with overrides on hosts.

Rule: everything that can be refused is refused before anything is sent to a host. Whatever happens afterwards, the summary
is written.
"""

from __future__ import annotations

from typing import Annotated, Any

from launcher.cli import arguments, flags
from launcher.cli.parameters import Argument, CommandName, Exit, Option
from launcher.cli.runner import output as open_output
from launcher.cli.runner import plan_app, run_app

__all__ = ["run"]

_App = Annotated[
    str,
    Argument(
        help="The application: my_app.py, my_app.py:function, package.module or package.module:function.",
        show_default=False,
    ),
]
_Overrides = Annotated[
    list[str] | None,
    Argument(
        metavar="OVERRIDES...",
        help="Overrides in Hydra's grammar: lr=0.1 +new=1 ~gone; in a sweep lr=0.1,0.2 or lr=range(1,5).",
        show_default=False,
    ),
]
_ConfigDir = Annotated[
    str | None,
    Option(
        "--config-dir",
        "-cd",
        metavar="DIR",
        help="A folder that is searched for configs before those of the app.",
        show_default=False,
    ),
]
_ConfigName = Annotated[
    str | None,
    Option(
        "--config-name",
        "-cn",
        metavar="NAME",
        help="The config to compose (default: the one that the app names, else the overrides alone).",
        show_default=False,
    ),
]
_Callback = Annotated[
    list[str] | None,
    Option(
        "--callback",
        metavar="MODULE:CLASS",
        help="A callback that is added after those of the config. Repeatable.",
        show_default=False,
    ),
]
_Folder = Annotated[
    str | None,
    Option(
        "--folder",
        metavar="DIR",
        help="The local folder of the run (default: Hydra's outputs/... or multirun/...).",
        show_default=False,
    ),
]
_Detach = Annotated[
    bool,
    Option("--detach", help="Exit as soon as the hosts have all jobs. `launcher attach` collects the results."),
]
_DryRun = Annotated[
    bool,
    Option(
        "--dry-run",
        help="Check everything, and show what would run where and what would be sent. Nothing is run or sent.",
    ),
]
_Json = Annotated[
    bool,
    Option("--json", help="Print the summary as JSON on stdout; everything else goes to stderr, also what jobs print."),
]
_Verbose = Annotated[bool, Option("--verbose", "-v", help="Also show hooks and starts of jobs.")]
_Quiet = Annotated[bool, Option("--quiet", "-q", help="Show only problems, and the summary at the end.")]


#: Defaults of `launcher run`: they make it like `python my_app.py`.
_ONE_JOB = {"live": True, "max_output_bytes": 4 << 30}


@flags.takes_options()
def run(
    command: CommandName,
    app: _App,
    overrides: _Overrides = None,
    config_dir: _ConfigDir = None,
    config_name: _ConfigName = None,
    callback: _Callback = None,
    folder: _Folder = None,
    detach: _Detach = False,
    dry_run: _DryRun = False,
    sort: arguments.Sort = None,
    is_json: _Json = False,
    verbose: _Verbose = False,
    quiet: _Quiet = False,
    **given: Any,
) -> None:
    """Run APP: `run` runs one job, and `multirun` one job for each combination of OVERRIDES.

    Hydra composes the config of each job. Options can be before or after APP. Everything else after APP is an override. The standard input of a job is empty.
    """
    mode = "RUN" if command == "run" else "MULTIRUN"
    with open_output(is_json) as out:
        options = flags.conf(given)
        from launcher.transports.early_connections import EarlyConnections

        with EarlyConnections() if detach or dry_run else EarlyConnections.begin(None, options) as early:
            from launcher.app_run import prepare_named

            app_run = prepare_named(
                mode,
                app,
                overrides or [],
                options=options,
                usual={name: value for name, value in _ONE_JOB.items() if mode == "RUN" and given[name] is None},
                callbacks=callback or [],
                folder=folder,
                config_dir=config_dir,
                config_name=config_name,
            )
            if detach:
                app_run.check_detachable()
            if dry_run:
                raise Exit(plan_app(app_run, out))
            exit_code = run_app(app_run, out, early=early, detach=detach, sort=sort, verbose=verbose, quiet=quiet)
    from launcher.cli.waiting.leaving import leave

    leave(app_run.setup.options.warm)
    raise Exit(exit_code)
