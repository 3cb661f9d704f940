"""`launcher disconnect`: end connections that `launcher connect` has kept."""

from __future__ import annotations

from typing import Annotated

from launcher.cli import completion
from launcher.cli.parameters import Argument, Option
from launcher.errors import UsageError

__all__ = ["disconnect"]

_Hosts = Annotated[
    list[str] | None,
    Argument(
        metavar="[HOST]...",
        help="The hosts, as they were named to `launcher connect`, or as `launcher connections` shows them.",
        show_default=False,
        autocompletion=completion.hosts,
    ),
]
_All = Annotated[bool, Option("--all", help="End all kept connections.")]


def disconnect(hosts: _Hosts = None, is_all: _All = False) -> None:
    """End kept connections to HOSTs. Runs that use them lose their links; their jobs go on."""
    from launcher.transports.openssh import kept

    if bool(hosts) == is_all:
        raise UsageError("name the hosts, or use --all")
    there = kept.connections()
    for name in hosts or [one.socket for one in there]:
        found = [one for one in there if name in (one.host, one.login, one.socket)]
        for one in found:
            stood = kept.close(one.socket)
            print(f"{one.host}: {'disconnected' if stood else 'the connection was gone'} ({one.login})")
        if not found:
            print(f"{name}: there is no kept connection")
