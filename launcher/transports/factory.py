"""Chooses the transport for a host.

Rule: nothing here waits, and nothing heavy is imported.
"""

from __future__ import annotations

from launcher.inventory import HostSpec
from launcher.transports.base import Transport
from launcher.transports.local import LocalTransport
from launcher.transports.ssh.transport import SshOptions, SshTransport

__all__ = ["begin_transport", "make_transport"]


def make_transport(spec: HostSpec) -> Transport:
    """Return the transport to a host: SSH, unless the host is `local`."""
    if spec.is_local:
        return LocalTransport(spec.name)
    return _ssh(spec)


def begin_transport(spec: HostSpec) -> Transport:
    """Return the transport to a host over SSH, whose connection begins now; see `SshTransport.begin`."""
    transport = _ssh(spec)
    transport.begin()
    return transport


def _ssh(spec: HostSpec) -> SshTransport:
    return SshTransport(
        spec.name,
        SshOptions(
            address=spec.address,
            user=spec.user,
            port=spec.port,
            identity=spec.identity,
            known_hosts=spec.known_hosts,
            config_file=spec.ssh_config,
            fingerprint=spec.fingerprint,
            is_accept_new=spec.host_keys == "accept-new",
        ),
    )
