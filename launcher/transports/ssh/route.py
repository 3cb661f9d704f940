"""The route to one host: what the user and ssh's configuration say of it, and the jump hosts on the way.

Rule: nothing is connected here, and what only a login needs is not imported.
"""

from __future__ import annotations

from dataclasses import replace

from launcher.errors import HostUnreachable, UsageError
from launcher.transports.ssh import config
from launcher.transports.ssh.config import SshTarget
from launcher.util.frozen import frozen

__all__ = ["SshOptions", "resolve"]

_MAX_HOPS = 8


@frozen
class SshOptions:
    """How to reach one host, as far as ssh's configuration does not say it.

    Attributes:
        address: host name, address or alias of ~/.ssh/config.
        user, port: override the configuration.
        identity: the path of the only key to offer.
        known_hosts: the path of the only known_hosts file to use, also for jump hosts.
        config_file: read instead of ~/.ssh/config and /etc/ssh/ssh_config.
        fingerprint: of the host's key, `SHA256:...`; overrides known_hosts.
        is_accept_new: add an unknown (never a changed) key to known_hosts.
        connect_timeout: seconds for each step, if ssh's configuration does not set it.
    """

    address: str
    user: str | None = None
    port: int | None = None
    identity: str | None = None
    known_hosts: str | None = None
    config_file: str | None = None
    fingerprint: str | None = None
    is_accept_new: bool = False
    connect_timeout: float = 15.0


def resolve(host: str, options: SshOptions) -> tuple[SshTarget, list[SshTarget]]:
    """Return what ssh's configuration says of the host, and of the jump hosts on the way, the nearest first.

    Raises:
        HostUnreachable: the configuration cannot be used.
    """
    try:
        target = config.resolve(
            options.address, options.user, options.port, config_file=options.config_file, is_any_login=True
        )
        return target, _hops(target, options.config_file)
    except UsageError as error:
        raise HostUnreachable(host, "resolve", str(error), "check the host's name and ~/.ssh/config") from None


def _hops(target: SshTarget, config_file: str | None, seen: tuple[str, ...] = ()) -> list[SshTarget]:
    """Return the jump hosts, the nearest first. The first one's own ProxyJump counts, as in ssh.

    A ProxyJump under `Host *` also applies to the jump host itself, where it is ignored.
    """
    if not target.proxy_jump:
        return []
    if len(seen) >= _MAX_HOPS or target.alias in seen:
        raise UsageError(f"ProxyJump makes a loop: {' -> '.join((*seen, target.alias))}")
    hops: list[SshTarget] = []
    for number, text in enumerate(target.proxy_jump):
        user, address, port = _parse_hop(text)
        if address == target.alias:
            return []
        hop = config.resolve(address, user, port, config_file=config_file, is_any_login=True)
        if number == 0:
            hops.extend(_hops(hop, config_file, (*seen, target.alias)))
        else:
            hop = replace(hop, proxy_command=None)
        hops.append(hop)
    return hops


def _parse_hop(text: str) -> tuple[str | None, str, int | None]:
    user, _, rest = text.removeprefix("ssh://").rpartition("@")
    if ":" in user:
        raise UsageError(f"ProxyJump {text!r}: it must not hold a password")
    if rest.startswith("["):
        address, _, port = rest[1:].partition("]")
        port = port.removeprefix(":")
    elif rest.count(":") == 1:
        address, _, port = rest.partition(":")
    else:
        address, port = rest, ""
    if port and not (port.isascii() and port.isdigit()):
        raise UsageError(f"ProxyJump {text!r}: the port is not a number")
    return user or None, address, int(port) if port else None
