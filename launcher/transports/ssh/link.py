"""An established connection to a host: paramiko's client, and fabric's Connection around it.

Rule: fabric takes over a connection as soon as the host has a command to start. It is not imported earlier: a login
does not need it, and this process has nothing else to do while the host's login shell starts.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from launcher.transports.ssh.lazy_imports import import_fabric

if TYPE_CHECKING:
    import fabric
    import paramiko

    from launcher.transports.ssh.config import SshTarget

__all__ = ["Link"]

#: Seconds for a host to begin a command. Nothing else ends the wait for a host that is connected but silent.
_BEGIN_TIMEOUT = 30.0
#: Seconds for paramiko's thread to end, if a link is gone but not yet known to be gone.
_GONE_TIMEOUT = 0.5


class Link:
    """See the module's docstring.

    Args:
        client: connected and logged in.
        gateway: the connection that this one goes through.
    """

    def __init__(self, target: SshTarget, client: paramiko.SSHClient, gateway: Link | None = None) -> None:
        transport = client.get_transport()
        assert transport is not None
        self.transport: paramiko.Transport = transport
        self._target = target
        self._client = client
        self._gateway = gateway
        self._connection: fabric.Connection | None = None

    @property
    def is_connected(self) -> bool:
        """Whether the connection is up, as far as is known."""
        return self.transport.is_active()

    def stands(self) -> bool:
        """Like `is_connected`, but after a failure: paramiko wakes the threads that wait before it marks the link as
        gone.
        """
        self.transport.join(_GONE_TIMEOUT)
        return self.transport.is_alive() and self.transport.is_active()

    def open_session(self, command: str) -> paramiko.Channel:
        """Begin a command there. After that, fabric has the connection.

        Raises:
            Exception: the host does not begin it, or the link is gone; whatever paramiko's thread has raised.
        """
        is_first = self._connection is None
        watch = threading.Timer(_BEGIN_TIMEOUT, self.close)
        watch.daemon = True
        watch.start()
        try:
            channel: Any = self.transport.open_session() if is_first else self.connection.create_session()
            channel.exec_command(command)
        finally:
            watch.cancel()
        if is_first:
            self.connection  # noqa: B018  (made now)
        return channel  # type: ignore[no-any-return]

    @property
    def connection(self) -> fabric.Connection:
        """Fabric's Connection."""
        if self._connection is None:
            import_fabric()
            import fabric
            import paramiko

            self._connection = fabric.Connection(
                self._target.hostname,
                user=self._target.user,
                port=self._target.port,
                gateway=self._gateway.connection if self._gateway is not None else False,
                # Lazy, and with its own SSHConfig, so that no file is read, neither fabric's nor ssh's.
                config=fabric.Config(lazy=True, ssh_config=paramiko.SSHConfig()),
                forward_agent=False,
            )
            self._connection.client = self._client
            self._connection.transport = self.transport
        return self._connection

    def close(self) -> None:
        """Close the client itself, because fabric closes only what it believes to be connected, and would leak a
        thread.
        """
        with contextlib.suppress(Exception):  # the connection is broken, and an error changes nothing
            self._client.close()
