"""The SSH transport, over fabric.

Rule: code above this module does not know fabric or paramiko. A channel says whether the command *ended* or the link
was *lost*. Paramiko shows both as an empty read, but they have different consequences.

Importing this module is cheap. Paramiko is imported by the thread that connects, or before, and fabric by `link`.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from launcher.errors import AgentError, ConnectionLost
from launcher.hosts.limits import limit
from launcher.transports.base import Way
from launcher.transports.ssh.config import SshTarget
from launcher.transports.ssh.connect import connect, word
from launcher.transports.ssh.link import Link
from launcher.transports.ssh.preconnect import Preconnection
from launcher.transports.ssh.route import SshOptions
from launcher.transports.ssh.sockets import EagerSocket

if TYPE_CHECKING:
    import paramiko


__all__ = ["SshChannel", "SshTransport"]

_PHASE = "session"
#: Bytes of one send. Paramiko takes minutes for one call with 160 MB, and half a second for parts of this size.
_CHUNK = 256 << 10
_STDERR_KEPT = limit("stderr")


class SshChannel:
    """A session on a host as a `launcher.transports.base.Channel`."""

    def __init__(self, host: str, channel: paramiko.Channel, sock: Any) -> None:
        self._host = host
        self._channel = channel
        self._socket = sock
        self._kept = bytearray()
        self._lock = threading.Lock()
        self._is_closed = False

    def send(self, data: bytes) -> None:
        """See `Channel.send`."""
        import paramiko

        rest = memoryview(data)
        while rest:
            try:
                self._channel.sendall(bytes(rest[:_CHUNK]))
            except (OSError, EOFError, paramiko.SSHException) as error:
                raise self._lost(error) from None
            rest = rest[_CHUNK:]

    def recv(self, size: int) -> bytes:
        """See `Channel.recv`."""
        import paramiko

        try:
            data = self._channel.recv(size)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise self._lost(error) from None
        if isinstance(self._socket, EagerSocket):
            self._socket.is_eager = False
        self._drain()
        if not data and not self._has_ended():
            raise self._lost()
        return data

    def _has_ended(self) -> bool:
        """Whether the host said that the command's output has ended. If not, the link is gone."""
        if self._is_closed:
            return False
        return bool(self._channel.eof_received or (self._channel.closed and self._channel.get_transport().is_active()))

    def stderr(self) -> str:
        """See `Channel.stderr`."""
        self._drain()
        with self._lock:
            return self._kept.decode("utf-8", "replace")

    def exit_status(self, timeout: float) -> int | None:
        """See `Channel.exit_status`. A command that died of a signal has none."""
        self._channel.status_event.wait(timeout)
        status = self._channel.exit_status
        return status if status >= 0 else None

    def close(self) -> None:
        """See `Channel.close`."""
        self._is_closed = True
        with contextlib.suppress(Exception):  # paramiko may raise anything on a broken transport
            self._channel.close()

    def _drain(self) -> None:
        """Read stderr off the channel, because it shares its window with stdout."""
        with self._lock:
            while self._channel.recv_stderr_ready():
                self._kept += self._channel.recv_stderr(1 << 16)
            del self._kept[:-_STDERR_KEPT]

    def _lost(self, error: Exception | None = None) -> ConnectionLost:
        if self._is_closed:
            return ConnectionLost(self._host, _PHASE, "the channel was closed")
        transport = self._channel.get_transport()
        if transport.is_active():
            return ConnectionLost(self._host, _PHASE, f"the session is gone ({word(error) or 'closed by the host'})")
        why = word(transport.saved_exception) or "closed by the host"
        return ConnectionLost(self._host, _PHASE, f"the connection is gone ({why})")


class SshTransport:
    """A host over SSH. Its one connection is made at the first `open`, and again after it was lost.

    Args:
        resolved: what ssh's configuration says of it, and of the jump hosts, if that was asked a moment ago. It is used once.
    """

    def __init__(
        self, host: str, options: SshOptions, resolved: tuple[SshTarget, list[SshTarget]] | None = None
    ) -> None:
        self.host = host
        self._options = options
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._chain: list[Link] = []
        self._ahead: Preconnection | None = None
        self._resolved = resolved

    @property
    def way(self) -> Way:
        """See `Transport.way`."""
        return Way("fabric", "")

    def begin(self) -> None:
        """Begin to connect before the first `open`. `Preconnection` says what the host is sent until then."""
        self._ahead = Preconnection(self.host, self._options, self._stop, self._take_resolved())

    def open(self, command: str) -> SshChannel:
        """See `Transport.open`."""
        with self._lock:
            if self._stop.is_set():
                raise ConnectionLost(self.host, "connect", "the transport was closed")
            if not self._chain or not self._chain[-1].is_connected:
                self._drop()
                self._chain = self._begun() or connect(
                    self.host, self._options, self._stop, resolved=self._take_resolved()
                )
            if self._stop.is_set():
                self._drop()
                raise ConnectionLost(self.host, "connect", "the transport was closed")
            return self._session(self._chain[-1], command)

    def close(self) -> None:
        """See `Transport.close`."""
        self._stop.set()
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.cancel()
        # Without the lock, so that we do not wait for an open that waits for the host. It ends with its connection.
        self._drop()

    def reset(self) -> None:
        """See `Transport.reset`."""
        self._drop()

    def _take_resolved(self) -> tuple[SshTarget, list[SshTarget]] | None:
        resolved, self._resolved = self._resolved, None
        return resolved

    def _begun(self) -> list[Link]:
        """Return the early connection, if it is still up."""
        ahead, self._ahead = self._ahead, None
        chain = ahead.result() if ahead is not None else []
        if all(link.is_connected for link in chain):
            return chain
        for link in reversed(chain):
            link.close()
        return []

    def _drop(self) -> None:
        chain, self._chain = self._chain, []
        for link in reversed(chain):
            link.close()

    def _session(self, link: Link, command: str) -> SshChannel:
        import paramiko

        try:
            channel = link.open_session(command)
        except paramiko.ChannelException as error:
            raise AgentError(
                self.host,
                _PHASE,
                f"the host refuses a session ({error.text})",
                "it may allow too few sessions for one connection (MaxSessions in its sshd_config), or no commands",
            ) from None
        except Exception as error:  # noqa: BLE001 (paramiko raises here whatever its own thread has met)
            if "Timeout" not in str(error) and link.stands():
                raise AgentError(
                    self.host,
                    _PHASE,
                    f"the host runs no command for this user ({word(error)})",
                    "check the user's shell there, and ForceCommand in its sshd_config",
                ) from None
            raise ConnectionLost(self.host, _PHASE, f"the connection is gone ({word(error)})") from None
        return SshChannel(self.host, channel, link.transport.sock)
