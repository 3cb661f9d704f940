"""An SSH connection that begins before it is needed.

Rule: before it is asked for, only the host's key is received and judged. Authentication waits until then, because an
agent may ask its user for permission. So does the start of a ProxyCommand.
"""

from __future__ import annotations

import threading
import time

from launcher.errors import AuthenticationFailed, ConnectionLost, HostError
from launcher.transports.ssh.config import SshTarget
from launcher.transports.ssh.connect import connect
from launcher.transports.ssh.link import Link
from launcher.transports.ssh.route import SshOptions

__all__ = ["Preconnection"]

#: Seconds after which an unused handshake is dropped: sshd gives a login two minutes, and lets only a few wait.
_KEPT = 20.0
#: Seconds after which the failure of an early attempt is too old to be reported. A refused login has just been refused, so it is never tried again.
_FRESH = 2.0


class Preconnection:
    """One host's connection, made in a thread. `result` returns it, once."""

    def __init__(
        self,
        host: str,
        options: SshOptions,
        stop: threading.Event,
        resolved: tuple[SshTarget, list[SshTarget]] | None = None,
    ) -> None:
        self._host = host
        self._options = options
        self._stop = stop
        self._resolved = resolved
        self._wanted = threading.Event()
        self._chain: list[Link] = []
        self._error: HostError | None = None
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"ahead {host}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._chain = connect(self._host, self._options, self._stop, self._wait_wanted, self._resolved)
        except Exception as error:  # noqa: BLE001 - if it still counts, `result` raises it
            if isinstance(error, HostError) and self._wanted.is_set():
                self._error = error
        if self._stop.is_set():
            self._close()

    def _wait_wanted(self) -> bool:
        """Wait until it is asked for. Returns whether that took any time."""
        has_waited = not self._wanted.is_set()
        is_wanted = self._wanted.wait(_KEPT)
        if not is_wanted or self._stop.is_set():
            raise ConnectionLost(self._host, "connect", "the run did not need the connection")
        return has_waited

    def result(self) -> list[Link]:
        """Return the connections to the jump hosts and the host; empty if another attempt might succeed.

        Raises:
            HostError: it has just failed, and would fail again.
        """
        lead = time.monotonic() - self._began
        self._wanted.set()
        self._thread.join()
        if self._error is not None and (lead < _FRESH or isinstance(self._error, AuthenticationFailed)):
            raise self._error
        return self._chain

    def cancel(self) -> None:
        """Give the connection up; the caller has set `stop`. Does not wait: what is still under way ends by itself."""
        self._wanted.set()
        self._close()

    def _close(self) -> None:
        for link in reversed(self._chain):
            link.close()
