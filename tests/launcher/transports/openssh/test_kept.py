"""Kept connections: `launcher.transports.openssh.kept`."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from launcher.demo.server import DemoServer
from launcher.errors import AuthenticationFailed, HostKeyError, HostUnreachable
from launcher.transports.openssh import kept
from launcher.transports.ssh.route import SshOptions


def test_one_login_is_kept(server: DemoServer, how: SshOptions, runtime_folder: Path) -> None:
    """It is listed, and opening it again logs in no second time. When it is closed, nothing of it is left."""
    opened = kept.open_kept("gpu1", how, 600.0)
    assert kept.is_up(opened.socket)
    assert opened.login == f"demo@127.0.0.1:{server.port}"
    assert kept.open_kept("gpu1", how, 900.0).socket == opened.socket
    assert server.logins == 1
    (listed,) = kept.connections()
    assert (listed.host, listed.kept_for, listed.is_up) == ("gpu1", 600.0, True)
    assert kept.close(opened.socket)
    assert not kept.is_up(opened.socket)
    assert kept.connections() == []
    assert list((runtime_folder / "hydra-remote-launcher" / "ssh").iterdir()) == []


def test_the_folder_is_private(how: SshOptions, runtime_folder: Path) -> None:
    """Whatever the umask is. One that others can use is refused."""
    folder = runtime_folder / "hydra-remote-launcher" / "ssh"
    before = os.umask(0)
    try:
        kept.open_kept("gpu1", how, 60.0)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for one in kept.connections():
        kept.close(one.socket)
    for one in (folder, folder.parent):
        one.chmod(0o755)
        with pytest.raises(HostUnreachable, match="not a folder that only you can use"):
            kept.open_kept("gpu1", how, 60.0)
        one.chmod(0o700)


def test_a_path_that_is_too_long_is_refused(how: SshOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket has at most a hundred bytes for its path; ssh's own message would not say what to do."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    with pytest.raises(HostUnreachable, match="path as long as") as caught:
        kept.open_kept("gpu1", how, 60.0)
    assert "XDG_RUNTIME_DIR" in caught.value.next_step


def test_a_wrong_key_is_refused_in_our_words(server: DemoServer, how: SshOptions) -> None:
    """Also here nothing is softer, whatever ssh's configuration says, and nobody is asked about a key."""
    server.known_hosts.write_text("")
    with server.ssh_config.open("a") as file:
        file.write("  StrictHostKeyChecking no\n")
    with pytest.raises(HostKeyError) as caught:
        kept.open_kept("gpu1", how, 60.0)
    assert "is not known" in caught.value.message
    assert server.host_keys[0].split()[1] in caught.value.next_step
    assert (server.logins, kept.connections()) == (0, [])


def test_a_login_that_fails_leaves_nothing(server: DemoServer, how: SshOptions) -> None:
    """The error has the next step."""
    server.identity.unlink()
    with pytest.raises(AuthenticationFailed) as caught:
        kept.open_kept("gpu1", how, 60.0)
    assert "ssh -v" in caught.value.next_step
    assert kept.connections() == []


def test_a_connection_that_has_died_is_listed_as_gone(server: DemoServer, how: SshOptions) -> None:
    """It can be opened again, over what it has left."""
    opened = kept.open_kept("gpu1", how, 60.0)
    assert kept._ask(opened.socket, "exit")
    Path(opened.socket).touch()
    (listed,) = kept.connections()
    assert not listed.is_up
    assert kept.open_kept("gpu1", how, 60.0).socket == opened.socket
    assert server.logins == 2


def test_a_damaged_record_is_no_connection(how: SshOptions) -> None:
    """And none of a later version is."""
    opened = kept.open_kept("gpu1", how, 60.0)
    path = Path(f"{opened.socket}.json")
    for text in ("", "[]", "{}", '{"version": 2}', '{"version": 1, "host": "gpu1"}'):
        whole = path.read_text()
        path.write_text(text)
        assert kept.connections() == []
        path.write_text(whole)
    assert len(kept.connections()) == 1
