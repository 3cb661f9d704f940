"""`launcher prepare`: build the environment of packages on hosts, so that the first run there need not wait for it.

Rule: nothing is run: no job, no hook, and no code of the project is sent. The exit code is 0 if every host has its environment, else 3.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from launcher.cli import arguments, completion, flags
from launcher.cli.parameters import Argument, Exit, Option
from launcher.errors import HostError

if TYPE_CHECKING:
    from launcher import events
    from launcher.display.tally import Tally
    from launcher.preparation import PreparedHost

__all__ = ["prepare"]

_Given = Annotated[
    list[str] | None,
    Argument(
        metavar="[[USER@]HOST[:PORT]]...",
        help="The hosts (default: those of --hosts, else this machine).",
        show_default=False,
        autocompletion=completion.hosts,
    ),
]
_Quiet = Annotated[bool, Option("--quiet", "-q", help="Show only problems, and the results at the end.")]


@flags.takes_options(
    "hosts_file", "python", "environment", "extras", "groups", "downloads", "environments_budget", "workdir",
    "accept_new_host_keys", "host_loss_timeout",
    environment="auto",
)  # fmt: skip
def prepare(hosts: _Given = None, is_json: arguments.Json = False, is_quiet: _Quiet = False, **given: Any) -> None:
    """Build the environment of packages on HOSTs, and run nothing.

    `auto` looks in this folder and in those above it, up to the repository's. The exit code is 0 if every host has its
    environment, and 3 if one has not.
    """
    from launcher.cli.runner import output
    from launcher.display.tally import Tally
    from launcher.hosts.inventory import host_specs
    from launcher.preparation import build_environments, locks_for
    from launcher.terminal.factory import make_display
    from launcher.transports.early_connections import EarlyConnections

    options = flags.conf({"hosts": hosts, **given})
    options = options.replaced(environment=options.environment or "auto")
    specs = host_specs(None, options)
    options = dataclasses.replace(options, hosts=(), hosts_file=None)
    with output(is_json) as out:
        locks = locks_for(specs, options, Path.cwd())
        wanted = [spec for spec in specs if spec.name in locks]
        tally = Tally()
        with (
            EarlyConnections.begin(wanted, options) as early,
            make_display(tally, out.people, quiet=is_quiet, total=0) as display,
        ):
            done = build_environments(wanted, options, locks, [_without_run(display, tally)], early)
        without = [spec.name for spec in specs if spec.name not in locks]
        on_nodes = {spec.name for spec in specs if spec.slurm is not None and spec.slurm.get("environments")}
        told = [_line(one, on_nodes=one.host in on_nodes) for one in done]
        for line in [*told, *(f"{name}: gets none" for name in without)]:
            print(line, file=out.people)
        code = 0 if all(one.key for one in done) else HostError.exit_code
        out.report(_json(done, without, tally, code))
    raise Exit(code)


def _without_run(display: Any, tally: Tally) -> Any:
    """An observer that shows what becomes of hosts, and nothing of the run without a job that does it."""
    from launcher import events

    hidden = (
        events.RunStarted, events.RunEnded, events.HostReady, events.CodeSent, events.EnvironmentReady, events.HostUnusable,
    )  # fmt: skip

    def show(event: events.Event) -> None:
        (tally if isinstance(event, hidden) else display)(event)

    return show


def _line(done: PreparedHost, *, on_nodes: bool) -> str:
    from launcher.display.text import clean, fetched_text, size

    if done.key:
        what = "is built" if done.is_new else "is there already"
        # Which nodes have it already, nobody knows here.
        what = "has its files there, and each node builds it" if on_nodes else what
        return f"{done.host}: environment {done.key[:12]} {what} ({size(done.total)}{fetched_text(done.fetched)})"
    text = f"{done.host}: FAILED: {clean(done.phase)}: {clean(done.why)}"
    return text.replace("\n", "\n    ") + (f"\n    next: {clean(done.next_step)}" if done.next_step else "")


def _json(done: list[PreparedHost], without: list[str], tally: Tally, code: int) -> dict[str, Any]:
    hosts = []
    for one in done:
        error = {"phase": one.phase, "why": one.why, "next_step": one.next_step} if not one.key else None
        known = tally.hosts[one.host].environment_steps
        hosts.append({"host": one.host, "environment": known.to_json() if known is not None else None, "error": error})
    hosts += [{"host": name, "environment": None, "error": None} for name in without]
    return {"version": arguments.VERSION, "exit_code": code, "hosts": hosts}
