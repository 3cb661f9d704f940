"""Makes the transport for a host.

Rule: nothing here waits, and only what a host needs is imported: a run here needs nothing of SSH.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launcher.hosts.host_spec import HostSpec
    from launcher.transports.base import Transport
    from launcher.transports.chosen import ChosenTransport
    from launcher.transports.ssh.route import SshOptions

__all__ = ["begin_transport", "make_transport", "ssh_options"]


def make_transport(spec: HostSpec) -> Transport:
    """Return the transport to a host: SSH, unless the host is `local`."""
    if spec.is_local:
        from launcher.transports.local import LocalTransport

        return LocalTransport(spec.name)
    return _ssh(spec)


def begin_transport(spec: HostSpec) -> ChosenTransport:
    """Return the transport to a host over SSH, whose connection begins now; see `ChosenTransport.begin`."""
    transport = _ssh(spec)
    transport.begin()
    return transport


def ssh_options(spec: HostSpec) -> SshOptions:
    """Return what the user has said of how to log in to a host."""
    from launcher.transports.ssh.route import SshOptions

    return SshOptions(
        address=spec.address,
        user=spec.user,
        port=spec.port,
        identity=spec.identity,
        known_hosts=spec.known_hosts,
        config_file=spec.ssh_config,
        fingerprint=spec.fingerprint,
        is_accept_new=spec.host_keys == "accept-new",
    )


def _ssh(spec: HostSpec) -> ChosenTransport:
    from launcher.transports.chosen import ChosenTransport

    return ChosenTransport(spec.name, ssh_options(spec), spec.ssh or "auto")
