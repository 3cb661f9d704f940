"""An SSH connection that is begun before anybody asks for it.

Rule: until it is asked for, the host shows its key and that is judged; nothing else goes there. Who we are is said only then
(an agent may ask its user for that), and a ProxyCommand is started only then.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from launcher.errors import ConnectionLost, HostError
from launcher.transports.ssh.connect import SshOptions, connect

if TYPE_CHECKING:
    from launcher.transports.ssh.link import Link

__all__ = ["Preconnection"]

#: Seconds after which a handshake that nobody asked for is dropped: sshd gives a login two minutes, and lets few wait.
_KEPT = 20.0
#: Seconds by which an attempt may be ahead of its being asked for, and still say how things are now.
_FRESH = 2.0


class Preconnection:
    """One host's connection, made in a thread; `result` gives it, once."""

    def __init__(self, host: str, options: SshOptions, stop: threading.Event) -> None:
        self._host = host
        self._options = options
        self._stop = stop
        self._wanted = threading.Event()
        self._chain: list[Link] = []
        self._error: HostError | None = None
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"ahead {host}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._chain = connect(self._host, self._options, self._stop, self._wait_wanted)
        except Exception as error:  # noqa: BLE001 - whoever asks for the connection meets it, or is told here
            if isinstance(error, HostError) and self._wanted.is_set():
                self._error = error
        if self._stop.is_set():
            self._close()

    def _wait_wanted(self) -> bool:
        """Wait until it is asked for; whether that was any time."""
        has_waited = not self._wanted.is_set()
        is_wanted = self._wanted.wait(_KEPT)
        if not is_wanted or self._stop.is_set():
            raise ConnectionLost(self._host, "connect", "nobody asked for the connection")
        return has_waited

    def result(self) -> list[Link]:
        """The connection and those on the way; none where it came to nothing that would hold for another attempt.

        Raises:
            HostError: it has just failed, and would again.
        """
        lead = time.monotonic() - self._began
        self._wanted.set()
        self._thread.join()
        if self._error is not None and lead < _FRESH:
            raise self._error
        return self._chain

    def cancel(self) -> None:
        """Nobody will ask, and `stop` is set. Waits for nothing: what is still under way ends by itself."""
        self._wanted.set()
        self._close()

    def _close(self) -> None:
        for link in reversed(self._chain):
            link.close()
