"""The hosts that a command about what lies on hosts looks at, and asking them. If the user names none, they are those of the runs in the index.

Rule: only a run that is the user's own says where to log in.
"""

from __future__ import annotations

import concurrent.futures
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from launcher.errors import HostError, LauncherError
from launcher.util.text.terminal_text import clean

if TYPE_CHECKING:
    from launcher.agents.queries.query import AgentQuery
    from launcher.hosts.host_spec import HostSpec
    from launcher.runs.index import Entry

__all__ = ["ask", "ask_each", "hosts_of_runs", "hosts_to_ask", "labels"]

_T = TypeVar("_T")


class _Asked(Protocol):
    """A host that a command asks, and what went wrong."""

    spec: HostSpec
    error: str


#: What distinguishes two hosts of one name: the field, its name in the label, and what a missing value means.
_PLACES = {
    "address": ("address", ""),
    "user": ("user", "as ssh chooses it"),
    "port": ("port", "as ssh chooses it"),
    "ssh_config": ("ssh_config", "~/.ssh/config"),
    "workdir": ("workdir", "none: the user's cache and state folders"),
}


def hosts_to_ask(hosts: list[str] | None, hosts_file: str | None, workdir: str | None) -> list[HostSpec]:
    """The hosts that a command looks at, each one once: those that were given, or all that your runs used, and this machine."""
    import dataclasses

    from launcher.hosts import inventory
    from launcher.hosts.host_spec import LOCAL

    given = [inventory.parse_host(one) for one in hosts or []]
    if hosts_file is not None:
        given += inventory.load_hosts_file(hosts_file)
    if not given:
        given = [inventory.parse_host(LOCAL), *hosts_of_runs()]
    return _distinct(dataclasses.replace(spec, workdir=spec.workdir or workdir) for spec in given)


def hosts_of_runs(is_asked_of: Callable[[Entry], bool] = lambda entry: True) -> list[HostSpec]:
    """The hosts of your runs, or of some of them, each one once."""
    from launcher.runs import index, ownership, record
    from launcher.runs.journal import JournalReader

    found: list[HostSpec] = []
    for entry in index.entries():
        # A folder that somebody put in the place of ours must not choose where to log in.
        if not entry.is_there or not ownership.is_ours(entry.folder):
            continue
        try:
            if is_asked_of(entry):
                with JournalReader(entry.journal) as reader:
                    found += record.hosts_of(record.read(reader), {})
        except LauncherError as error:
            print(f"launcher: {clean(error)}", file=sys.stderr)
    return _distinct(found)


def _distinct(specs: Iterable[HostSpec]) -> list[HostSpec]:
    found: dict[tuple[Any, ...], HostSpec] = {}
    for spec in specs:
        found.setdefault((spec.address, spec.user, spec.port, spec.ssh_config, spec.workdir), spec)
    return list(found.values())


def ask_each(question: Callable[[_T], None], hosts: Iterable[_T]) -> None:
    """Ask hosts at once."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(question, hosts))


def ask(host: _Asked, question: Callable[[AgentQuery], _T]) -> _T | None:
    """Return what one host answers; None if it cannot be asked, and then it gets the error."""
    from launcher.agents.queries.query import AgentQuery

    try:
        with AgentQuery(host.spec, "clean") as query:
            return question(query)
    except HostError as error:
        host.error = str(error)
        return None


def labels(specs: list[HostSpec]) -> list[str]:
    """The names of hosts. Hosts with the same name also get what distinguishes them."""
    made = []
    for spec in specs:
        alike = [other for other in specs if other.name == spec.name]
        told = [
            f"{what} {getattr(spec, field) or usual}"
            for field, (what, usual) in _PLACES.items()
            if len({getattr(other, field) for other in alike}) > 1
        ]
        made.append(f"{spec.name} ({', '.join(told)})" if told else spec.name)
    return made
