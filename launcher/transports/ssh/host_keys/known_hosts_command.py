"""Runs the KnownHostsCommand of ssh's configuration.

Rule: it runs as under ssh (ssh_config(5)): without a shell, by an absolute path, and with an empty standard input. A
command that fails might have revoked a key, so the host is not trusted then.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess

from launcher.errors import HostKeyError
from launcher.transports.ssh.host_keys.known_hosts import KnownHosts

__all__ = ["ask_known_hosts_command"]

#: Seconds. The command may ask a directory service.
_TIMEOUT = 15.0
_SETTING = "KnownHostsCommand"


def ask_known_hosts_command(host: str, command: str, name: str, reason: str, shown: tuple[str, str, str]) -> KnownHosts:
    """Run the command, and return the lines that it prints.

    Args:
        host: as the user named it, for messages.
        command: the tokens that are known beforehand are expanded.
        name: the host's name in known_hosts, `%H`.
        reason: `ORDER`, before the host has shown a key, or `HOSTNAME`; `%I`.
        shown: type, fingerprint and base64 of the key; `%t`, `%f`, `%K`.

    Raises:
        HostKeyError: it cannot be run, or it fails.
    """
    tokens = dict(zip("HItfK%", (name, reason, *shown, "%"), strict=True))
    try:
        argv = [re.sub("%([HItfK%])", lambda match: tokens[match.group(1)], word) for word in shlex.split(command)]
    except ValueError as error:
        raise _failed(host, command, str(error)) from None
    if not argv or not os.path.isabs(argv[0]):
        raise _failed(host, command, "ssh requires an absolute path there")
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise _failed(host, command, f"it did not end within {_TIMEOUT:.0f} s") from None
    except OSError as error:
        raise _failed(host, command, f"it cannot be run: {error.strerror}") from None
    if done.returncode:
        raise _failed(host, command, f"it ended with status {done.returncode}")
    text = done.stdout.decode("utf-8", "surrogateescape")
    return KnownHosts((f"{_SETTING}:{number}", line) for number, line in enumerate(text.split("\n"), 1))


def _failed(host: str, command: str, why: str) -> HostKeyError:
    return HostKeyError(
        host,
        "host key",
        f"{_SETTING} {command[:200]!r} of ssh's configuration: {why}",
        "correct that command; it may be what says that a key is revoked",
    )
