"""The interface of every way to a host.

Rule: a transport carries bytes and nothing else. Whatever its library raises becomes a `HostError` here. Code above
this interface does not know fabric, paramiko or subprocess.
"""

from __future__ import annotations

from typing import Protocol

from launcher.util.frozen import frozen

__all__ = ["Channel", "Transport", "Way"]


@frozen
class Way:
    """How a host is reached: `fabric` or `openssh` (the `ssh` program), and why so."""

    name: str
    why: str


class Channel(Protocol):
    """A running command on a host: its stdin, stdout and stderr as bytes."""

    def send(self, data: bytes) -> None:
        """Send all of data to the command's stdin. Blocks while the peer does not read.

        Raises:
            ConnectionLost: the channel is gone.
        """

    def recv(self, size: int) -> bytes:
        """Return up to size bytes of the command's stdout, or none at its end. Blocks.

        Raises:
            ConnectionLost: the link broke.
        """

    def stderr(self) -> str:
        """Return the last 64 KiB of what the command has written to stderr so far, decoded with replacement."""

    def exit_status(self, timeout: float) -> int | None:
        """Return the command's exit status after stdout has ended, or None if it is not known within `timeout` seconds."""

    def close(self) -> None:
        """Close the channel; a blocked send or recv in another thread ends. Never raises; may be called twice."""


class Transport(Protocol):
    """A way to one host."""

    host: str

    @property
    def way(self) -> Way | None:
        """How the host is reached; None if that is not known yet, or was not chosen."""

    def open(self, command: str) -> Channel:
        """Run a command line (for the login shell of the user there) and return its channel.

        Connects first if needed. May be called again after the link was lost.

        Raises:
            HostError: HostUnreachable, HostKeyError, AuthenticationFailed or AgentError.
        """

    def reset(self) -> None:
        """Drop the connection; the next `open` makes a new one. Never raises.

        This is for a link that looks alive but is not, for example because sshd is stopped or packets vanish.
        """

    def close(self) -> None:
        """Drop the connection. Never raises; may be called twice."""
