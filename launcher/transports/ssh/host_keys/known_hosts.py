"""Reads known_hosts files as OpenSSH does, and judges the key that a host shows.

Rule: no decision is weaker than OpenSSH's with `StrictHostKeyChecking yes`. If the two could differ, this one refuses.
Source: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT. A file is read once, line by line, in linear time.

    [@revoked|@cert-authority] patterns key-type base64-key [comment]

This is stricter than OpenSSH in one point: a host that is known by one type of key, and shows only another, is
*changed* and not new. If it cannot show the known key, the user must not be offered a line to add.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import hmac
import os
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path

from launcher.util.frozen import frozen
from remote_agent.shared.disk import sync_fd
from remote_agent.shared.globs import host_glob

__all__ = ["KnownHosts", "KnownKey", "Verdict", "add", "fingerprint", "host_name", "line"]

_DEFAULT_PORT = 22
_MARKERS = ("@revoked", "@cert-authority")


class Verdict(Enum):
    """The verdict on a host's key."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"
    AUTHORITY = "authority"
    """This key is unknown; a certificate authority vouches for the host, which is not supported."""


@frozen
class KnownKey:
    """One line that is about a host.

    Attributes:
        marker: `@revoked`, `@cert-authority` or nothing.
        type: the key's type, such as `ssh-ed25519`.
        key: the public key as it is on the wire.
        where: `file:line`.
    """

    marker: str
    type: str
    key: bytes
    where: str


def fingerprint(key: bytes) -> str:
    """Return a key's fingerprint as `ssh-keygen -l` prints it: `SHA256:` and 43 characters."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).rstrip(b"=").decode()


def host_name(host: str, port: int) -> str:
    """Return the name of a host and port in known_hosts."""
    host = host.lower()
    return host if port == _DEFAULT_PORT else f"[{host}]:{port}"


def line(name: str, key_type: str, key: bytes) -> str:
    """Return the line that makes a key known."""
    return f"{name} {key_type} {base64.b64encode(key).decode()}"


class KnownHosts:
    """The lines of several files. A file that does not exist counts as empty.

    Attributes:
        unreadable: `file:line` of lines that are not entries, and files that cannot be read, for messages.
    """

    def __init__(self, lines: Iterable[tuple[str, str]]) -> None:
        self._entries: list[tuple[str, str, str, str, str]] = []
        self.unreadable: list[str] = []
        for where, text in lines:
            fields = text.split()
            if not fields or fields[0].startswith("#"):
                continue
            marker = ""
            if fields[0].startswith("@"):
                marker = fields.pop(0)
            if len(fields) < 3 or (marker and marker not in _MARKERS):
                self.unreadable.append(where)
                continue
            self._entries.append((marker, fields[0], fields[1], fields[2], where))

    @classmethod
    def load(cls, paths: Sequence[str]) -> KnownHosts:
        """Read the files, in order."""
        lines: list[tuple[str, str]] = []
        failed = []
        for path in paths:
            try:
                text = Path(path).read_bytes().decode("utf-8", "surrogateescape")
            except FileNotFoundError:
                continue
            except OSError as error:
                failed.append(f"{path}: {error.strerror}")
                continue
            lines.extend((f"{path}:{number}", line) for number, line in enumerate(text.split("\n"), 1))
        known = cls(lines)
        known.unreadable.extend(failed)
        return known

    def joined(self, other: KnownHosts) -> KnownHosts:
        """Return the lines of both."""
        both = KnownHosts(())
        both._entries = self._entries + other._entries
        both.unreadable = self.unreadable + other.unreadable
        return both

    def find(self, name: str) -> list[KnownKey]:
        """Return the keys in the lines about this name (see `host_name`), in order."""
        name = name.lower()
        found = []
        for marker, patterns, key_type, encoded, where in self._entries:
            if not _matches(patterns, name):
                continue
            try:
                key = base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError):
                self.unreadable.append(where)
                continue
            found.append(KnownKey(marker, key_type, key, where))
        return found

    def types(self, names: Sequence[str]) -> list[str]:
        """Return the types of the host's known keys.

        They are what to ask it for, so that its other keys do not matter.
        """
        found: list[str] = []
        for name in names:
            for known in self.find(name):
                if not known.marker and known.type not in found:
                    found.append(known.type)
        return found

    def judge(self, names: Sequence[str], key: bytes) -> tuple[Verdict, list[KnownKey]]:
        """Judge the key that a host shows.

        Args:
            names: the host's names, the decisive one first. Under a further name (that without the port) a key can be
                found, as in OpenSSH, but a different one there does not make the host changed.

        Returns:
            The verdict and the lines it rests on.
        """
        found = [self.find(name) for name in names]
        everywhere = [known for keys in found for known in keys]
        revoked = [known for known in everywhere if known.marker == "@revoked" and known.key == key]
        if revoked:
            return Verdict.REVOKED, revoked
        same = [known for known in everywhere if not known.marker and known.key == key]
        if same:
            return Verdict.KNOWN, same
        others = [known for known in found[0] if not known.marker] if found else []
        if others:
            return Verdict.CHANGED, others
        authorities = [known for known in everywhere if known.marker == "@cert-authority"]
        if authorities:
            return Verdict.AUTHORITY, authorities
        return Verdict.UNKNOWN, []


def _matches(patterns: str, name: str) -> bool:
    """Whether a line's first field matches the name: by its hash, or as a list of patterns in which none negates it."""
    if patterns.startswith("|"):
        return _matches_hash(patterns, name)
    is_match = False
    for pattern in patterns.lower().split(","):
        negated = pattern.startswith("!")
        if negated:
            pattern = pattern[1:]
        if pattern and (pattern == name or (("*" in pattern or "?" in pattern) and host_glob(pattern).matches(name))):
            if negated:
                return False
            is_match = True
    return is_match


def _matches_hash(field: str, name: str) -> bool:
    parts = field.split("|")
    if len(parts) != 4 or parts[1] != "1":
        return False
    try:
        salt, digest = base64.b64decode(parts[2], validate=True), base64.b64decode(parts[3], validate=True)
    except (binascii.Error, ValueError):
        return False
    # The file format uses SHA-1. It only hides names, and decides nothing about keys.
    return hmac.compare_digest(hmac.digest(salt, name.encode("utf-8", "surrogateescape"), "sha1"), digest)


def add(path: str, text: str) -> None:
    """Append a line to a known_hosts file. If it does not exist, it is made with its folder, both private.

    Raises:
        OSError: it cannot be written.
    """
    os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = file.seek(0, os.SEEK_END)
        lead = b""
        if size:
            file.seek(size - 1)
            lead = b"" if file.read(1) == b"\n" else b"\n"
        file.write(lead + text.encode() + b"\n")
        file.flush()
        sync_fd(file.fileno())
