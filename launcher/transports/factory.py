"""Which way leads to a host.

Rule: nothing is waited for here, and nothing heavy imported.
"""

from __future__ import annotations

from launcher.inventory import HostSpec
from launcher.transports.base import Transport
from launcher.transports.local import LocalTransport
from launcher.transports.ssh.transport import SshOptions, SshTransport

__all__ = ["begin_transport", "make_transport"]


def make_transport(spec: HostSpec) -> Transport:
    """The way to a host: SSH, but for `local`."""
    if spec.is_local:
        return LocalTransport(spec.name)
    return _ssh(spec)


def begin_transport(spec: HostSpec) -> Transport:
    """The way to a host that is reached over SSH, with a connection that is begun ahead; see `SshTransport.begin`."""
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
