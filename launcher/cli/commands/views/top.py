"""`launcher top`: what runs now, on hosts and here.

Rule: it changes nothing. A host that does not answer in time is a line.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Annotated, Any

from launcher.cli import arguments, completion, flags
from launcher.cli.parameters import Argument, Option
from launcher.cli.past_hosts import hosts_of_runs, labels

if TYPE_CHECKING:
    from launcher.hosts.host_spec import HostSpec
    from launcher.terminal.top.use import AskedHost, RunsHere

__all__ = ["top"]

_Given = Annotated[
    list[str] | None,
    Argument(
        metavar="[[USER@]HOST[:PORT]]...",
        help="The hosts to ask (default: those of --hosts, else those of your runs that have not ended). This machine is always asked.",
        show_default=False,
        autocompletion=completion.hosts,
    ),
]
_Every = Annotated[int, Option("--every", metavar="SECONDS", min=1, help="Seconds between two looks.")]
#: Seconds that are waited for hosts where everything is shown once.
_PATIENCE = 20.0


@flags.takes_options("hosts_file", "workdir")
def top(hosts: _Given = None, every: _Every = 2, is_json: arguments.Json = False, **given: Any) -> None:
    """Show what runs now on HOSTS and here: runs, slots, queues, jobs and since when, GPUs and memory.

    On a terminal it goes on until `q`. In a pipe and with --json, it shows everything once.
    """
    from launcher.terminal.top.use import AskedHost, RunsHere

    specs = _specs(hosts, given)
    asked = [AskedHost(spec, label) for spec, label in zip(specs, labels(specs), strict=True)]
    here = RunsHere()
    try:
        if is_json or not _is_terminal():
            _show_once(asked, here, is_json=is_json)
        else:
            from launcher.terminal.top.top import show_top

            show_top(asked, here, float(every))
    finally:
        here.close()


def _is_terminal() -> bool:
    import os

    return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")


def _specs(hosts: list[str] | None, given: dict[str, Any]) -> list[HostSpec]:
    """The hosts to ask: this machine first."""
    import dataclasses

    from launcher.hosts import inventory
    from launcher.hosts.host_spec import LOCAL

    here = inventory.parse_host(LOCAL)
    if hosts or given.get("hosts_file"):
        specs = list(inventory.host_specs(None, flags.conf({"hosts": hosts, **given})))
    else:
        specs = [dataclasses.replace(spec, workdir=spec.workdir or given.get("workdir")) for spec in _open_hosts()]
    if not any(spec.is_local for spec in specs):
        specs.insert(0, dataclasses.replace(here, workdir=given.get("workdir")))
    return specs


def _open_hosts() -> list[HostSpec]:
    """The hosts of runs that have not ended, each once."""
    from launcher.runs.status import read_status
    from launcher.terminal.top.use import OPEN

    return hosts_of_runs(lambda entry: read_status(entry).state in OPEN)


def _show_once(hosts: list[AskedHost], here: RunsHere, *, is_json: bool) -> None:
    from launcher.terminal.top.top_rows import top_rows

    is_over = threading.Event()
    for host in hosts:
        # Nobody waits for these for longer: one may hang in a connection.
        asked = (1.0, is_over, lambda: None)
        threading.Thread(target=host.ask_always, args=asked, name=f"top {host.label}", daemon=True).start()
    deadline = time.monotonic() + _PATIENCE
    for host in hosts:
        if not host.has_answered.wait(max(deadline - time.monotonic(), 0.0)):
            host.error = f"no answer in {_PATIENCE:.0f} s"
    runs = here.read()
    is_over.set()
    if is_json:
        arguments.print_json(
            hosts=[one.to_json() for one in hosts],
            runs=[one.to_json() for one in runs.values()],
            problems=here.problems,
        )
        return
    for text, _ in top_rows(hosts, runs, time.time(), here.problems):
        print(text)
