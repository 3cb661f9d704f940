"""The local transport: the same agent, in a subprocess and without SSH.

Rule: the subprocess has its own session, so that Ctrl-C in the terminal reaches it only through us.
"""

from __future__ import annotations

import subprocess

from launcher.errors import AgentError
from launcher.transports.base import Way
from launcher.transports.process_channel import ProcessChannel
from launcher.util.open_files import as_given

__all__ = ["LocalTransport"]


class LocalTransport:
    """This machine, without SSH."""

    def __init__(self, host: str = "local") -> None:
        self.host = host
        self._channels: list[ProcessChannel] = []

    @property
    def way(self) -> Way | None:
        """See `Transport.way`. There is nothing to choose."""
        return None

    def open(self, command: str) -> ProcessChannel:
        """Run a command line with `/bin/sh -c`. See `Transport.open`."""
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", as_given(command)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            raise AgentError(self.host, "start agent", f"/bin/sh cannot be started: {error}") from None
        channel = ProcessChannel(self.host, process)
        self._channels.append(channel)
        return channel

    def reset(self) -> None:
        """See `Transport.reset`."""
        self.close()

    def close(self) -> None:
        """See `Transport.close`."""
        for channel in self._channels:
            channel.close()
        self._channels.clear()
