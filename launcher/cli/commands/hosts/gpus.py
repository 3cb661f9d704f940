"""`launcher gpus`: who has which GPU of a host, since when, and for which run and job.

Rule: it takes no GPU and ends nothing. What a host says of itself is checked before it is shown.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from launcher.cli import arguments, completion, flags
from launcher.cli.parameters import Argument
from launcher.cli.past_hosts import ask, ask_each, labels
from launcher.errors import LauncherError

if TYPE_CHECKING:
    from launcher.agents.queries.gpus import GpuList
    from launcher.hosts.host_spec import HostSpec

__all__ = ["gpus"]

_Given = Annotated[
    list[str] | None,
    Argument(
        metavar="[[USER@]HOST[:PORT]]...",
        help="The hosts to ask (default: those of --hosts, else this machine).",
        show_default=False,
        autocompletion=completion.hosts,
    ),
]


@dataclass
class _Host:
    """One host, and what it says."""

    spec: HostSpec
    label: str
    found: GpuList | None = None
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        said = self.found.to_json() if self.found is not None else {}
        return {"host": self.spec.name, "label": self.label, **said, "error": self.error or said.get("error") or None}


@flags.takes_options("hosts_file", "workdir")
def gpus(hosts: _Given = None, is_json: arguments.Json = False, **given: Any) -> None:
    """Show who has which GPU on HOSTs, since when, for which run and job, and which other processes use it.

    With a hosts file, it also says which GPUs that file leaves to jobs.
    """
    from launcher.hosts.inventory import host_specs

    specs = list(host_specs(None, flags.conf({"hosts": hosts, **given})))
    found = [_Host(spec, label) for spec, label in zip(specs, labels(specs), strict=True)]
    ask_each(_ask, found)
    if is_json:
        arguments.print_json(hosts=[one.to_json() for one in found])
    else:
        for host in found:
            _print(host)
    if all(one.error for one in found):
        raise LauncherError("no host could be reached; 'launcher doctor HOST' says why, step by step")


def _ask(host: _Host) -> None:
    host.found = ask(host, lambda query: query.gpus(host.spec.gpus))


def _print(host: _Host) -> None:
    from launcher.display.gpus import lines
    from launcher.display.text import clean

    print(f"{host.label}:")
    if host.found is None:
        print("  " + "\n  ".join(clean(host.error).splitlines()))
        return
    for line in lines(host.found, time.time()):
        print(f"  {line}")
