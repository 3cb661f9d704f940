"""What happens to a host whose way was chosen: `launcher.transports.chosen`."""

from __future__ import annotations

import threading

import pytest

from launcher.demo.server import DemoServer
from launcher.errors import AuthenticationFailed, ConnectionLost
from launcher.transports.base import Channel, Way
from launcher.transports.chosen import ChosenTransport
from launcher.transports.openssh import kept
from launcher.transports.ssh.route import SshOptions

_PATIENCE = 30.0


def said(channel: Channel) -> bytes:
    """What a command has printed."""
    read = b""
    while data := channel.recv(1 << 16):
        read += data
    return read


def test_nothing_is_chosen_before_it_is_needed(how: SshOptions) -> None:
    """To make a transport costs nothing."""
    transport = ChosenTransport("gpu1", how, "auto")
    assert transport.way is None
    assert said(transport.open("echo in")) == b"in\n"
    assert transport.way == Way("fabric", "it is the usual way")
    transport.close()


@pytest.mark.slow
def test_a_kept_connection_needs_no_login(server: DemoServer, how: SshOptions) -> None:
    """Many sessions share its one login. Closing the transport does not end it."""
    opened = kept.open_kept("gpu1", how, 60.0)
    for _ in range(3):
        transport = ChosenTransport("gpu1", how, "auto")
        assert said(transport.open("echo in")) == b"in\n"
        assert transport.way == Way("openssh", "a kept connection to the host is open")
        transport.reset()
        transport.close()
    assert server.logins == 1
    assert kept.is_up(opened.socket)


def test_fabric_follows_where_it_could_have_been_chosen(server: DemoServer, how: SshOptions) -> None:
    """When the kept connection is gone, the run goes on by itself. When it is there again, it is used again."""
    opened = kept.open_kept("gpu1", how, 60.0)
    transport = ChosenTransport("gpu1", how, "auto")
    channel = transport.open("echo ready; read line")
    assert channel.recv(6) == b"ready\n"
    assert kept.close(opened.socket)
    with pytest.raises(ConnectionLost):
        channel.recv(1)
    transport.reset()
    assert said(transport.open("echo in")) == b"in\n"
    assert transport.way == Way("fabric", "the kept connection is gone")
    kept.open_kept("gpu1", how, 60.0)
    assert said(transport.open("echo in")) == b"in\n"
    assert transport.way == Way("openssh", "a kept connection to the host is open")
    transport.close()


@pytest.mark.parametrize("line", ["PreferredAuthentications publickey,password", "PKCS11Provider /lib/none.so"])
def test_what_follows_can_do_what_was_asked_for(server: DemoServer, how: SshOptions, line: str) -> None:
    """Where only the program could be chosen, it logs in again by itself."""
    with server.ssh_config.open("a") as file:
        file.write(f"  {line}\n")
    opened = kept.open_kept("gpu1", how, 60.0)
    transport = ChosenTransport("gpu1", how, "auto")
    assert said(transport.open("echo in")) == b"in\n"
    kept.close(opened.socket)
    transport.reset()
    assert said(transport.open("echo in")) == b"in\n"
    follows = "openssh" if "PKCS11" in line else "fabric"
    assert transport.way == Way(follows, "the kept connection is gone")
    transport.close()


@pytest.mark.parametrize("asked", ["auto", "openssh"])
def test_without_a_login_the_error_has_the_command_that_opens_it_again(
    server: DemoServer, how: SshOptions, asked: str
) -> None:
    """It may need what only a person has. As soon as the connection is there again, the next try uses it."""
    opened = kept.open_kept("gpu1", how, 60.0)
    transport = ChosenTransport("gpu1", how, asked)
    transport.open("true")
    kept.close(opened.socket)
    key = server.identity.read_bytes()
    server.identity.unlink()
    for _ in range(2):
        transport.reset()
        with pytest.raises(AuthenticationFailed) as caught:
            transport.open("true")
        assert "the kept connection is gone; `launcher connect gpu1` opens it again" in caught.value.message
        assert "jobs go on" in caught.value.next_step
    server.identity.write_bytes(key)
    server.identity.chmod(0o600)
    kept.open_kept("gpu1", how, 60.0)
    server.identity.unlink()
    assert said(transport.open("echo in")) == b"in\n"
    transport.close()


def test_an_early_choice_begins_only_what_can_stop_before_the_login(server: DemoServer, how: SshOptions) -> None:
    """Over fabric the handshake begins. Over a kept connection there is nothing to begin."""
    transport = ChosenTransport("gpu1", how, "auto")
    transport.begin()
    assert transport.wait_chosen(_PATIENCE) == "fabric"
    assert said(transport.open("echo in")) == b"in\n"
    transport.close()
    kept.open_kept("gpu1", how, 60.0)
    transport = ChosenTransport("gpu1", how, "auto")
    transport.begin()
    assert transport.wait_chosen(_PATIENCE) == "openssh"
    assert said(transport.open("echo in")) == b"in\n"
    transport.close()
    assert server.logins == 2


def test_a_closed_transport_opens_nothing(how: SshOptions) -> None:
    """Also one that is closed while it chooses."""
    transport = ChosenTransport("gpu1", how, "auto")
    transport.begin()
    transport.close()
    with pytest.raises(ConnectionLost):
        transport.open("true")
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead gpu1" and not thread.daemon]
