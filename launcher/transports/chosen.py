"""The transport to a host whose way is chosen when it is first needed: fabric, or the `ssh` program.

Rule: the choice is made once. When a kept connection ends, fabric follows if it could have been chosen, and else a login
of the `ssh` program. If neither can log in, the error says which command opens the kept connection again, and the next
`open` looks for it. Only the way that is taken is imported.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from launcher.errors import AuthenticationFailed, ConnectionLost, HostError
from launcher.transports.base import Channel, Transport, Way
from launcher.transports.choice import Choice, choose
from launcher.transports.openssh import kept
from launcher.transports.ssh.route import SshOptions

if TYPE_CHECKING:
    from launcher.transports.openssh.transport import OpenSshTransport
    from launcher.transports.ssh.transport import SshTransport

__all__ = ["ChosenTransport"]


class ChosenTransport:
    """A host over SSH.

    Args:
        host: as the user named it, for messages.
        asked: `auto`, `fabric` or `openssh`.
    """

    def __init__(self, host: str, options: SshOptions, asked: str) -> None:
        self.host = host
        self._options = options
        self._asked = asked
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._choosing = threading.Lock()
        self._has_chosen = threading.Event()
        self._choice: Choice | None = None
        #: Over the kept connection; None if none was chosen.
        self._kept: OpenSshTransport | None = None
        #: With a login of its own.
        self._own: SshTransport | OpenSshTransport | None = None
        self._way: Way | None = None

    @property
    def way(self) -> Way | None:
        """See `Transport.way`."""
        return self._way

    def begin(self) -> None:
        """Begin to choose before the first `open`; with fabric, begin to connect. See `SshTransport.begin`.

        The `ssh` program cannot stop between handshake and login, so with it nothing is begun.
        """
        threading.Thread(target=self._begin, name=f"choose {self.host}", daemon=True).start()

    def wait_chosen(self, seconds: float) -> str:
        """Return the name of the way; empty if it is not known within so many seconds, or if there is none."""
        self._has_chosen.wait(seconds)
        return self._choice.name if self._choice is not None else ""

    def open(self, command: str) -> Channel:
        """See `Transport.open`."""
        with self._lock:
            self._check_stop()
            choice = self._chosen()
            if choice.socket is None:
                return self._opened(self._own_login(), command, Way(choice.name, choice.why))
            return self._open_kept(choice, choice.socket, command)

    def reset(self) -> None:
        """See `Transport.reset`."""
        for transport in self._made():
            transport.reset()

    def close(self) -> None:
        """See `Transport.close`."""
        self._stop.set()
        for transport in self._made():
            transport.close()

    def _made(self) -> list[Transport]:
        return [one for one in (self._kept, self._own) if one is not None]

    def _begin(self) -> None:
        try:
            choice = self._chosen()
        except HostError:
            return  # `open` meets it again
        if choice.name == "fabric":
            with self._lock:
                if self._own is None and not self._stop.is_set():
                    self._own = fabric = self._fabric(choice)
                    fabric.begin()
                    if self._stop.is_set():
                        fabric.close()

    def _chosen(self) -> Choice:
        with self._choosing:
            try:
                if self._choice is None:
                    self._choice = choose(self.host, self._options, self._asked)
            finally:
                self._has_chosen.set()
            return self._choice

    def _own_login(self) -> SshTransport | OpenSshTransport:
        """Return the transport with a login of its own; it is made once."""
        if self._own is None:
            choice = self._chosen()
            if choice.name == "fabric" or (choice.socket is not None and choice.may_be_fabric):
                self._own = self._fabric(choice)
            else:
                self._own = self._program(kept_hops=dict(choice.kept_hops))
            if self._stop.is_set():
                self._own.close()
        return self._own

    def _fabric(self, choice: Choice) -> SshTransport:
        from launcher.transports.ssh.transport import SshTransport

        return SshTransport(self.host, self._options, choice.resolved)

    def _program(self, socket: str | None = None, kept_hops: dict[str, str] | None = None) -> OpenSshTransport:
        from launcher.transports.openssh.transport import OpenSshTransport

        return OpenSshTransport(self.host, self._options, socket, kept_hops, kept.is_up)

    def _opened(self, transport: Transport, command: str, way: Way) -> Channel:
        channel = transport.open(command)
        self._way = way
        return channel

    def _open_kept(self, choice: Choice, socket: str, command: str) -> Channel:
        is_first = self._kept is None
        if self._kept is None:
            self._kept = self._program(socket)
            if self._stop.is_set():
                self._kept.close()
        why = "the kept connection is gone"
        if is_first or kept.is_up(socket):
            try:
                return self._opened(self._kept, command, Way("openssh", choice.why))
            except ConnectionLost as error:
                self._check_stop()
                why = error.message
        own = self._own_login()
        try:
            return self._opened(own, command, Way(own.way.name, why))
        except AuthenticationFailed as error:
            again = f"`launcher connect {self.host}` opens it again"
            raise AuthenticationFailed(
                error.host,
                error.phase,
                f"{why}; {again}. Without it: {error.message}",
                f"{again}, and jobs go on meanwhile",
            ) from None

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise ConnectionLost(self.host, "connect", "the transport was closed")
