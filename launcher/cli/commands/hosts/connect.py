"""`launcher connect`: log in to hosts once, in the terminal, and keep the connections for runs.

Rule: this is the only command under which ssh may ask something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from launcher.cli import completion, flags
from launcher.cli.parameters import Argument, Option
from launcher.errors import UsageError

if TYPE_CHECKING:
    from launcher.hosts.host_spec import HostSpec

__all__ = ["connect"]

_Hosts = Annotated[
    list[str] | None,
    Argument(
        metavar="[[USER@]HOST[:PORT]]...",
        help="The hosts to log in to (default: those of --hosts).",
        show_default=False,
        autocompletion=completion.hosts,
    ),
]
_For = Annotated[
    str,
    Option("--for", metavar="DURATION", help="How long a connection is kept after a run last used it: 30m, 8h, 1d."),
]


@flags.takes_options("hosts_file", "accept_new_host_keys")
def connect(hosts: _Hosts = None, kept_for: _For = "8h", **given: object) -> None:
    """Log in to HOSTs with the `ssh` program, which asks in this terminal what has to be asked: a password, a one-time
    code, a passphrase, a PIN, a touch. The connections stay in the background, and runs use them without asking.
    """
    from launcher.display.text import seconds
    from launcher.options.checks import parse_duration
    from launcher.transports.factory import ssh_options
    from launcher.transports.openssh.kept import open_kept

    duration = parse_duration(kept_for, "--for")
    options = flags.conf(dict(given))
    for spec in chosen_hosts(hosts, options.hosts_file):
        how = ssh_options(spec)
        if options.accept_new_host_keys:
            import dataclasses

            how = dataclasses.replace(how, is_accept_new=True)
        kept = open_kept(spec.name, how, duration)
        print(
            f"{spec.name}: connected as {kept.login}, until it is unused for {seconds(kept.kept_for)}; "
            f"`launcher disconnect {spec.name}` ends it"
        )


def chosen_hosts(names: list[str] | None, hosts_file: str | None) -> list[HostSpec]:
    """The hosts that a user named, with what the hosts file says of them; without names, all of the file.

    Raises:
        UsageError: there is none, or one is this machine.
    """
    from launcher.hosts.inventory import load_hosts_file, parse_host

    told = {spec.name: spec for spec in load_hosts_file(hosts_file)} if hosts_file else {}
    chosen = [told.get(name) or parse_host(name) for name in names] if names else list(told.values())
    if not chosen:
        raise UsageError("no host was named: name one, or a file of hosts with --hosts")
    for spec in chosen:
        if spec.is_local:
            raise UsageError(f"{spec.name} is this machine, which needs no connection")
    return chosen
