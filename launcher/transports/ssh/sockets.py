"""The TCP connection (or the proxy's pipe) under an SSH connection.

Rule: every address of a name is tried, nothing waits without a limit, and a dead link is noticed within half a minute.
Paramiko's own keepalive ignores whether anybody answers, so the kernel has to watch.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from launcher.errors import ConnectionLost, HostUnreachable
from launcher.transports.ssh.config import SshTarget
from launcher.util.open_files import as_given

__all__ = ["EagerSocket", "open_proxy", "open_socket"]

#: The option by which unacknowledged data ends a connection, and after how long: Linux wants milliseconds. macOS wants seconds
#: (TCP_RXT_CONNDROPTIME of its netinet/tcp.h, which Python does not name).
_GIVE_UP, _GIVE_UP_AFTER = (
    (0x80, 20) if sys.platform == "darwin" else (getattr(socket, "TCP_USER_TIMEOUT", None), 20_000)
)
#: Linux: acknowledge received data at once.
_QUICK_ACK = getattr(socket, "TCP_QUICKACK", None)
#: Seconds between the starts of attempts at a name's addresses (RFC 8305, 5: Connection Attempt Delay).
_ATTEMPT_DELAY = 0.25
_GREETING = 256
_FAMILIES = {"any": socket.AF_UNSPEC, "inet": socket.AF_INET, "inet6": socket.AF_INET6}


class EagerSocket(socket.socket):
    """A TCP socket that acknowledges data at once while `is_eager` is set.

    sshd uses Nagle's algorithm until its first exec, so delayed acknowledgements on our side would cost 40 ms. The
    kernel goes back to delaying by itself, so the option is set again after every recv.
    """

    is_eager = False
    #: The first bytes from the host, for the message if they are not an SSH banner.
    greeting = b""

    def recv(self, size: int, flags: int = 0) -> bytes:
        """As `socket.recv`."""
        data = super().recv(size, flags)
        if self.is_eager:
            if _QUICK_ACK is not None:
                self.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
            if len(self.greeting) < _GREETING:
                self.greeting += data[: _GREETING - len(self.greeting)]
        return data


@dataclass
class _Attempts:
    """Attempts that are under way and that have failed, while addresses are tried."""

    pending: dict[EagerSocket, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)

    def fail(self, address: str, number: int) -> None:
        self.failures.append(f"{address}: {os.strerror(number)}")
        self.errors.append(number)


def open_socket(
    host: str,
    target: SshTarget,
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
    stop: threading.Event | None = None,
) -> EagerSocket:
    """Connect to the first of the name's addresses that answers.

    Args:
        stop: set if the connection is not wanted any more.

    Raises:
        HostUnreachable: phases `resolve` and `connect`.
        ConnectionLost: it is not wanted any more.
    """
    addresses = _resolve(host, target)
    deadline = clock() + timeout
    attempts = _Attempts()
    with selectors.DefaultSelector() as selector:
        try:
            while True:
                winner = None
                if addresses:
                    winner = _start(addresses.pop(0), target, attempts, selector)
                left = deadline - clock()
                if winner is None and attempts.pending and left > 0:
                    winner = _wait(attempts, selector, min(left, _ATTEMPT_DELAY))
                if winner is None and stop is not None and stop.is_set():
                    raise ConnectionLost(host, "connect", "the transport was closed")
                if winner is not None:
                    attempts.pending.pop(winner, None)
                    _tune(winner)
                    return winner
                if (not addresses and not attempts.pending) or deadline <= clock():
                    raise _unreachable(host, target, attempts, timeout)
        finally:
            for loser in attempts.pending:
                loser.close()


def _resolve(host: str, target: SshTarget) -> list[tuple[socket.AddressFamily, tuple[object, ...]]]:
    try:
        found = socket.getaddrinfo(
            target.hostname, target.port, _FAMILIES.get(target.address_family, socket.AF_UNSPEC), socket.SOCK_STREAM
        )
    except socket.gaierror as error:
        raise HostUnreachable(
            host,
            "resolve",
            f"the name {target.hostname!r} has no address ({error.strerror})",
            "check the spelling, the network, and HostName in ~/.ssh/config",
        ) from None
    except UnicodeError:
        raise HostUnreachable(
            host, "resolve", f"{target.hostname!r} is not a host name", "check the spelling"
        ) from None
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _start(
    candidate: tuple[socket.AddressFamily, tuple[object, ...]],
    target: SshTarget,
    attempts: _Attempts,
    selector: selectors.BaseSelector,
) -> EagerSocket | None:
    """Begin to connect. Returns the socket if it is connected at once."""
    family, address = candidate
    sock = None
    try:
        sock = EagerSocket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        if target.bind_address:
            sock.bind((target.bind_address, 0))
        number = sock.connect_ex(address)
    except OSError as error:
        number = error.errno or errno.EIO
    if sock is not None and number == 0:
        return sock
    if sock is not None and number == errno.EINPROGRESS:
        attempts.pending[sock] = str(address[0])
        selector.register(sock, selectors.EVENT_WRITE)
        return None
    attempts.fail(str(address[0]), number)
    if sock is not None:
        sock.close()
    return None


def _wait(attempts: _Attempts, selector: selectors.BaseSelector, timeout: float) -> EagerSocket | None:
    ready = {key.fd for key, _ in selector.select(timeout)}
    for sock in [sock for sock in attempts.pending if sock.fileno() in ready]:
        selector.unregister(sock)
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number == 0:
            return sock
        attempts.fail(attempts.pending.pop(sock), number)
        sock.close()
    return None


def _tune(sock: EagerSocket) -> None:
    sock.setblocking(True)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if _GIVE_UP is not None:
        with contextlib.suppress(OSError):  # a system without this option: keepalive and the heartbeat notice it, later
            sock.setsockopt(socket.IPPROTO_TCP, _GIVE_UP, _GIVE_UP_AFTER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.is_eager = True


def _unreachable(host: str, target: SshTarget, attempts: _Attempts, timeout: float) -> HostUnreachable:
    where = f"{target.hostname} port {target.port}"
    tried = attempts.failures + [f"{address}: no answer" for address in attempts.pending.values()]
    detail = "; ".join(tried)
    if not attempts.pending and all(number == errno.ECONNREFUSED for number in attempts.errors):
        return HostUnreachable(
            host,
            "connect",
            f"{where} refused the connection ({detail})",
            "check that sshd runs there and that the port is right",
        )
    if any(number in (errno.ENETUNREACH, errno.EHOSTUNREACH) for number in attempts.errors) and not attempts.pending:
        return HostUnreachable(
            host, "connect", f"no route to {where} ({detail})", "check the network, the VPN, or set ProxyJump"
        )
    return HostUnreachable(
        host,
        "connect",
        f"{where} did not answer within {timeout:.0f} s ({detail})",
        "check that the host is up and that no firewall drops the port",
    )


def open_proxy(host: str, command: str) -> socket.socket:
    """Start a ProxyCommand, and return a socket to its standard input and output. It ends when the socket is closed.

    Raises:
        HostUnreachable: it cannot be started.
    """
    ours, theirs = socket.socketpair()
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", as_given(f"exec {command}")],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            start_new_session=True,
        )
    except OSError as error:
        ours.close()
        raise HostUnreachable(host, "connect", f"ProxyCommand cannot be started: {error.strerror}") from None
    finally:
        theirs.close()
    threading.Thread(target=process.wait, name=f"proxy {process.pid}", daemon=True).start()
    return ours
