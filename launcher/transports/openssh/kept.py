"""Kept connections: a login that was made once, and stays in the background for many runs (ssh's ControlMaster).

Rule: only a person opens one, with `launcher connect`. A socket that does not belong to this user is not used: whoever
listens there would see all, and could answer for the host.

    <runtime folder>/ssh/<key>        the socket; the key is of where it leads and what the login was to trust
    <runtime folder>/ssh/<key>.json   what `launcher connections` shows of it
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from launcher.errors import AuthenticationFailed, HostUnreachable
from launcher.transports.openssh import command as ssh_command
from launcher.transports.ssh.config import SshTarget
from launcher.transports.ssh.route import SshOptions, resolve
from launcher.util.frozen import frozen
from launcher.util.user_folders import make_user_folder, runtime_folder, write_user_file
from remote_agent.shared.subprocesses import answer_of

__all__ = ["Kept", "close", "connections", "is_up", "kept_hops", "open_kept", "socket_of"]

#: The longest path that a socket can have everywhere, less what ssh appends while it makes one.
_LONGEST = 103 - 17
_VERSION = 1
#: Seconds for ssh to answer about a kept connection; it asks a process on this machine.
_TIMEOUT = 10.0


@frozen
class Kept:
    """A kept connection.

    Attributes:
        host: as the user named it.
        login: where it leads, as `user@host:port`.
        opened: when, in seconds since the epoch.
        kept_for: seconds that it stays after it was last used.
        socket: the path of its socket.
        is_up: it stands.
    """

    host: str
    login: str
    opened: float
    kept_for: float
    socket: str
    is_up: bool = False


def _folder() -> Path:
    return runtime_folder() / "ssh"


def socket_of(options: SshOptions, target: SshTarget) -> Path:
    """Return the path of the socket of a kept connection to a host, whether there is one or not.

    Its name changes with all that says where a login leads and what it trusts.
    """
    said = [
        target.hostname,
        target.port,
        target.user,
        target.proxy_jump,
        target.proxy_command,
        target.host_key_alias,
        options.identity,
        options.known_hosts,
        options.config_file,
        options.fingerprint,
    ]
    return _folder() / hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def is_up(socket: str | os.PathLike[str]) -> bool:
    """Whether a kept connection stands, as far as this machine knows, and belongs to this user."""
    try:
        found = os.lstat(socket)
    except OSError:
        return False
    return stat.S_ISSOCK(found.st_mode) and found.st_uid == os.geteuid() and _ask(socket, "check")


def _ask(socket: str | os.PathLike[str], what: str) -> bool:
    ssh = ssh_command.program()
    if ssh is None:
        return False
    argv = [ssh, "-F", "/dev/null", "-S", os.fspath(socket), "-O", what, "--", "kept"]
    done = answer_of(argv, timeout=_TIMEOUT)
    return done is not None and done.returncode == 0


def open_kept(host: str, options: SshOptions, seconds: float) -> Kept:
    """Log in, and keep the connection. ssh asks its questions in the terminal. A connection that is kept already is returned as it is.

    Args:
        seconds: how long it stays after it was last used.

    Raises:
        HostError: there was no login; ssh has said why in the terminal.
    """
    ssh = ssh_command.program()
    if ssh is None:
        raise HostUnreachable(host, "connect", "there is no `ssh` program on the PATH here", "install one")
    target, hops = resolve(host, options)
    socket = socket_of(options, target)
    _make_folder(host, socket)
    there = _read(Path(f"{socket}.json"))
    if there is not None and there.is_up:
        return there
    kept = Kept(host, f"{target.user}@{target.hostname}:{target.port}", time.time(), seconds, str(socket), is_up=True)
    close(str(socket))
    _log_in(ssh, host, options, target, hops, kept)
    _write(kept)
    return kept


def _make_folder(host: str, socket: Path) -> None:
    if len(os.fsencode(socket)) > _LONGEST:
        raise HostUnreachable(
            host,
            "connect",
            f"a socket cannot have a path as long as {socket}",
            "set XDG_RUNTIME_DIR to a folder of yours with a short path",
        )
    # Whoever could replace the folder above could replace this one.
    for folder in (socket.parent.parent, socket.parent):
        try:
            make_user_folder(folder)
            found = folder.lstat()
        except OSError as error:
            step = "set XDG_RUNTIME_DIR to a folder of yours"
            raise HostUnreachable(host, "connect", f"{folder} cannot be made: {error.strerror}", step) from None
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            why = f"{folder} is not a folder that only you can use"
            raise HostUnreachable(host, "connect", why, "chmod 700, or remove it")


def _log_in(ssh: str, host: str, options: SshOptions, target: SshTarget, hops: Sequence[SshTarget], kept: Kept) -> None:
    sockets = kept_hops(options, hops)
    folder = Path(tempfile.mkdtemp(prefix="launcher-ssh-"))
    try:
        config = ssh_command.write_config(folder, host, options, target, hops, sockets, is_for_person=True)
        argv = ssh_command.own_login(ssh, config, options)
        argv[argv.index("none")] = kept.socket
        settings = ["-o", "ControlMaster=yes", "-o", f"ControlPersist={max(1, round(kept.kept_for))}"]
        # With ControlPersist, -N ends here as soon as the login is over, and the connection goes on in the background.
        done = subprocess.run([*argv, *settings, "-N", "--", options.address], check=False)
        if is_up(kept.socket):
            return
        raise ssh_command.shown_key_error(folder, host, options, target, hops) or AuthenticationFailed(
            host,
            "authenticate",
            f"ssh did not log in as user {target.user!r} (exit status {done.returncode}); it has said why above",
            f"see what `ssh -v {options.address}` says",
        )
    except OSError as error:
        raise HostUnreachable(host, "connect", f"{ssh} cannot be started: {error}", "install it again") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _of_hop(options: SshOptions) -> SshOptions:
    """Return the options of a connection to a jump host by itself."""
    return SshOptions(options.address, known_hosts=options.known_hosts, config_file=options.config_file)


def kept_hops(options: SshOptions, hops: Sequence[SshTarget]) -> dict[str, str]:
    """Return the sockets of kept connections that stand to jump hosts, by alias."""
    found = {hop.alias: socket_of(_of_hop(options), hop) for hop in hops}
    return {alias: str(path) for alias, path in found.items() if is_up(path)}


def close(socket: str) -> bool:
    """End a kept connection, and forget it. Return whether it was there."""
    stood = is_up(socket) and _ask(socket, "exit")
    for path in (socket, f"{socket}.json"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    return stood


def connections() -> list[Kept]:
    """Return the connections that `launcher connect` has opened and that nobody has closed, the oldest first."""
    found = []
    with contextlib.suppress(OSError):
        for path in sorted(_folder().glob("*.json")):
            kept = _read(path)
            if kept is not None:
                found.append(kept)
    return sorted(found, key=lambda one: one.opened)


def _write(kept: Kept) -> None:
    path = Path(f"{kept.socket}.json")
    content = {"version": _VERSION, **{k: v for k, v in asdict(kept).items() if k != "is_up"}}
    write_user_file(path, json.dumps(content).encode())


def _read(path: Path) -> Kept | None:
    try:
        told = json.loads(path.read_text())
        if told.pop("version") != _VERSION:
            return None
        kept = Kept(
            str(told["host"]), str(told["login"]), float(told["opened"]), float(told["kept_for"]), str(path)[:-5]
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return Kept(kept.host, kept.login, kept.opened, kept.kept_for, kept.socket, is_up(kept.socket))
