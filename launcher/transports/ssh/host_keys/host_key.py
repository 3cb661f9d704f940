"""Checks a host's key before anything of ours is sent.

Rule: the refusal of an unknown key has its fingerprint and the line that would make it known. The refusal of a changed
key has both fingerprints and no such line: a user who gets used to pasting that line verifies nothing any more.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.errors import HostKeyError
from launcher.transports.ssh.config import SshTarget
from launcher.transports.ssh.host_keys.known_hosts import (
    KnownHosts,
    KnownKey,
    Verdict,
    add,
    fingerprint,
    host_name,
    line,
)
from launcher.transports.ssh.host_keys.known_hosts_command import ask_known_hosts_command

if TYPE_CHECKING:
    import paramiko

__all__ = ["HostKeyPolicy"]

_RSA = ("rsa-sha2-512", "rsa-sha2-256")


class HostKeyPolicy:
    """Paramiko's `MissingHostKeyPolicy` for one host.

    Args:
        pin: the key's fingerprint. It overrides known_hosts, but not a revocation.
        is_accept_new: add an unknown key to the first known_hosts file.
    """

    def __init__(self, host: str, target: SshTarget, pin: str | None = None, is_accept_new: bool = False) -> None:
        self._host = host
        self._target = target
        self._pin = pin
        self._is_accept_new = is_accept_new
        self._files = (*target.known_hosts_files, *target.global_known_hosts_files)
        self._files_know = KnownHosts.load(self._files)
        if target.host_key_alias:
            self._names = [target.host_key_alias]
        else:
            # As in OpenSSH, a key that is known for the host without the port is accepted, too.
            self._names = list(dict.fromkeys((host_name(target.hostname, target.port), target.hostname.lower())))

    def preferred(self, key_types: tuple[str, ...]) -> list[str]:
        """Return the key types to ask the host for.

        Those of known keys come first, because another key would look like a change.
        """
        known: list[str] = []
        for name in self._everything("ORDER", ("NONE",) * 3).types(self._names):
            known += _RSA if name == "ssh-rsa" else (name,)
        return [name for name in known if name in key_types] + [name for name in key_types if name not in known]

    def _everything(self, reason: str, key: tuple[str, str, str]) -> KnownHosts:
        """Return the keys from the files and from a KnownHostsCommand."""
        command = self._target.known_hosts_command
        if command is None:
            return self._files_know
        return self._files_know.joined(ask_known_hosts_command(self._host, command, self._names[0], reason, key))

    def missing_host_key(self, client: Any, name: str, key: paramiko.PKey) -> None:
        """Called by paramiko with every host's key, between key exchange and authentication. Paramiko itself knows no
        keys.

        Raises:
            HostKeyError: the key is not to be trusted.
        """
        self.check(key.get_name(), key.asbytes())

    def check(self, key_type: str, key: bytes) -> None:
        """Check that the key is the host's.

        Raises:
            HostKeyError: it is unknown, changed or revoked, or only a certificate authority vouches for it.
        """
        shown = f"{key_type} key {fingerprint(key)}"
        known = self._everything("HOSTNAME", (key_type, fingerprint(key), line("", "", key).split()[-1]))
        verdict, lines = known.judge(self._names, key)
        if verdict is Verdict.REVOKED or self._is_revoked(key):
            where = lines[0].where if verdict is Verdict.REVOKED else str(self._target.revoked_host_keys)
            raise self._error(
                f"the host shows an {shown}, which is revoked ({where})", "do not connect; ask the host's administrator"
            )
        if self._pin is not None:
            self._check_pin(shown, key)
        elif verdict is Verdict.CHANGED:
            raise self._changed(shown, lines)
        elif verdict is Verdict.AUTHORITY:
            raise self._error(
                f"the host shows an {shown}; it is known through a certificate authority ({lines[0].where}), "
                "and host certificates are not supported",
                "get the fingerprint from the host's administrator and pin it with `fingerprint:` for this host",
            )
        elif verdict is Verdict.UNKNOWN:
            self._unknown(key_type, key, shown, known.unreadable)

    def _check_pin(self, shown: str, key: bytes) -> None:
        if fingerprint(key) != self._pin:
            raise self._error(
                f"the host shows an {shown}, but it is pinned to {self._pin}",
                "somebody may be intercepting the connection, or the pin is for another of the host's keys; ask its "
                "administrator",
            )

    def _changed(self, shown: str, lines: list[KnownKey]) -> HostKeyError:
        known = "; ".join(f"{one.type} key {fingerprint(one.key)} ({one.where})" for one in lines)
        return self._error(
            f"the host's key has CHANGED: it shows an {shown}, but the known one is {known}",
            "somebody may be intercepting the connection. Ask the host's administrator; if the key was replaced on "
            "purpose, remove the "
            f"old one (`ssh-keygen -R '{self._names[0]}' -f {lines[0].where.rpartition(':')[0]}`) and connect again",
        )

    def _unknown(self, key_type: str, key: bytes, shown: str, unread: list[str]) -> None:
        entry = line(self._names[0], key_type, key)
        path = self._target.known_hosts_files[0] if self._target.known_hosts_files else "~/.ssh/known_hosts"
        if self._is_accept_new:
            try:
                add(path, entry)
            except OSError as error:
                raise self._error(
                    f"the new key cannot be added to {path}: {error.strerror}", "make that file writable"
                ) from None
            return
        note = f" (what could not be read: {', '.join(unread[:3])})" if unread else ""
        for setting in self._target.not_followed:
            note += f" (ssh's configuration sets {setting}, which is not supported)"
        files = list(dict.fromkeys(self._files))
        files += ["its KnownHostsCommand"] if self._target.known_hosts_command else []
        lack = "do not have it" if len(files) > 1 else "does not have it"
        raise self._error(
            f"the host is not known: it shows an {shown}, and {' and '.join(files) or 'no file'} {lack}{note}",
            "compare the fingerprint with what the host's administrator says "
            "(there: `for f in /etc/ssh/ssh_host_*.pub; do ssh-keygen -lf $f; done`), "
            f"then add this line to {path}:\n{entry}",
        )

    def _is_revoked(self, key: bytes) -> bool:
        path = self._target.revoked_host_keys
        if path is None:
            return False
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise self._error(
                f"RevokedHostKeys {path} cannot be read: {error.strerror}", "make it readable; ssh requires that, too"
            ) from None
        if data.startswith(b"SSHKRL\n\x00"):
            raise self._error(
                f"RevokedHostKeys {path} is a binary revocation list, which is not supported",
                "name a text file of revoked keys instead",
            )
        encoded = line("", "", key).split()[-1].encode()
        return any(encoded in text.split() for text in data.splitlines())

    def _error(self, message: str, next_step: str) -> HostKeyError:
        return HostKeyError(self._host, "host key", message, next_step)
