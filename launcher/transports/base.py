"""The seam under which every way to a host fits.

Rule: a transport carries bytes and nothing else. Whatever its library raises becomes a `HostError` here; above this
seam nobody knows fabric, paramiko or subprocess.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Channel", "Transport"]


class Channel(Protocol):
    """A running command on a host: its stdin, stdout and stderr as bytes."""

    def send(self, data: bytes) -> None:
        """Send all of data to the command's stdin. Blocks while the peer does not read.

        Raises:
            ConnectionLost: the channel is gone.
        """

    def recv(self, size: int) -> bytes:
        """Up to size bytes of the command's stdout; empty at its end. Blocks.

        Raises:
            ConnectionLost: the link broke.
        """

    def stderr(self) -> str:
        """The last 64 KiB of what the command wrote to stderr so far, decoded with replacement."""

    def exit_status(self, timeout: float) -> int | None:
        """The command's exit status once stdout has ended, or None where it is not known in time (seconds)."""

    def close(self) -> None:
        """Close the channel; a blocked send or recv in another thread ends. Never raises; may be called twice."""


class Transport(Protocol):
    """A way to one host."""

    host: str

    def open(self, command: str) -> Channel:
        """Run a command line (for the login shell of the user there) and return its channel.

        Connects first where needed; may be called again after a lost link.

        Raises:
            HostError: HostUnreachable, HostKeyError, AuthenticationFailed or AgentError.
        """

    def reset(self) -> None:
        """Drop the connection; the next `open` makes a new one. Never raises.

        For a link that looks alive and is not: a stopped sshd, packets that vanish.
        """

    def close(self) -> None:
        """Drop the connection. Never raises; may be called twice."""
