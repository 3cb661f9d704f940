"""Connections to servers, for tests of the ways to a host."""

from __future__ import annotations

import base64
import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from launcher.demo.server import DemoServer
from launcher.errors import (
    HostError,
)
from launcher.transports.base import Channel
from launcher.transports.ssh.transport import SshOptions, SshTransport
from tests.hosts.openssh import OpenSshHost

PATIENCE = 30.0
#: The test holds for both ways: in it, `SshTransport` is fabric's, and then the one of the `ssh` program.
BOTH_WAYS = pytest.mark.usefixtures("each_way")


def read_all(channel: Channel) -> bytes:
    """Read stdout to its end."""
    said = b""
    while data := channel.recv(1 << 16):
        said += data
    return said


def in_thread(work: Callable[[], object]) -> queue.Queue[object]:
    """Run a function in a thread. The queue gets its result or its exception."""
    results: queue.Queue[object] = queue.Queue()

    def run() -> None:
        try:
            results.put(work())
        except Exception as error:
            results.put(error)

    threading.Thread(target=run, daemon=True).start()
    return results


def options(server: DemoServer | OpenSshHost, **fields: object) -> SshOptions:
    """How to reach a server, with some options changed."""
    alias = server.alias if isinstance(server, DemoServer) else server.name
    return replace(SshOptions(alias, config_file=str(server.ssh_config)), **fields)  # type: ignore[arg-type]


def links() -> list[threading.Thread]:
    """Return the threads of connections."""
    return [thread for thread in threading.enumerate() if type(thread).__module__ == "paramiko.transport"]


def links_left(before: list[threading.Thread]) -> list[threading.Thread]:
    """Return new threads that do not end."""
    threads = [thread for thread in links() if thread not in before]
    for thread in threads:
        thread.join(PATIENCE)
    return [thread for thread in threads if thread.is_alive()]


def refusal(how: SshOptions, host: str = "gpu1") -> HostError:
    """Return the error of an open that fails. It leaves nothing open."""
    before = links()
    transport = SshTransport(host, how)
    with pytest.raises(HostError) as caught:
        transport.open("true")
    transport.close()
    assert caught.value.host.startswith(host)
    assert links_left(before) == []
    return caught.value


def new_key(kind: str = "ed25519") -> tuple[str, bytes]:
    """Make a public host key that no host has: its type and its bytes."""
    import asyncssh

    name = {"ed25519": "ssh-ed25519", "ecdsa": "ecdsa-sha2-nistp256"}[kind]
    public = asyncssh.generate_private_key(name).export_public_key().decode().split()
    return public[0], base64.b64decode(public[1])


@contextlib.contextmanager
def listening(serve: Callable[[socket.socket, int], None]) -> Iterator[int]:
    """Run a TCP server that handles each connection with a function. Yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            number = 0
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=guarded, args=(peer, number), daemon=True).start()
                number += 1

        def guarded(peer: socket.socket, number: int) -> None:
            with peer, contextlib.suppress(OSError):
                serve(peer, number)

        threading.Thread(target=run, daemon=True).start()
        yield listener.getsockname()[1]
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def relay(peer: socket.socket, port: int) -> None:
    """Pass everything on to a port, in both directions, until one side ends."""
    with socket.create_connection(("127.0.0.1", port)) as other:

        def pump(source: socket.socket, target: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(1 << 16):
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=pump, args=(other, peer), daemon=True)
        thread.start()
        pump(peer, other)
        thread.join()
