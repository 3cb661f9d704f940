"""The addresses that a host may get, so that it fetches files itself.

Rule: a host gets an address only if the user allows it, and if nothing about it is secret: no user, password or query in it, and no
credential here for its server or for its index. In doubt the file is sent from here.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from launcher.environments.credentials import GuardedServers
from launcher.environments.lock import Lock
from launcher.util.text.plain_addresses import plain_address

if TYPE_CHECKING:
    from launcher.environments.select import Chosen

__all__ = ["Addresses"]

#: Characters of all addresses of a message.
_MOST = 500_000


class Addresses:
    """The addresses of one host.

    Args:
        allowed: True for every public server; or the beginnings of the addresses that are allowed; empty or False for none.
        lock: the lock of the files.
    """

    def __init__(self, allowed: bool | tuple[str, ...], lock: Lock) -> None:
        self._allowed = allowed
        self._lock = lock

    @property
    def are_named(self) -> bool:
        """Whether the user has named their beginnings."""
        return not isinstance(self._allowed, bool)

    def of(self, files: Iterable[Chosen]) -> dict[str, str]:
        """Return sha256 -> address, for each of these files that a host may fetch. The largest first, and no more than fit into a message."""
        found: dict[str, str] = {}
        count = 0
        for one in sorted(files, key=lambda one: -(one.size or 0)):
            address = self._address(one) if self._allowed and one.is_wheel else None
            count += len(address or "")
            if address is not None and count <= _MOST:
                found[one.sha256] = address
        return found

    def allows(self, url: str) -> bool:
        """Whether a host may be told to ask this address, which needs no credential."""
        parts = plain_address(url)
        if parts is None:
            return False
        if isinstance(self._allowed, bool):
            return self._allowed and parts.scheme == "https"
        return any(_begins_with(parts, prefix) for prefix in self._allowed)

    def _address(self, file: Chosen) -> str | None:
        parts = plain_address(file.url)
        if parts is None or not self.allows(file.url):
            return None
        index = plain_address(file.index) if file.index else parts
        guarded = self._guarded
        if index is None or {parts.hostname, index.hostname} & guarded.names:
            return None
        return parts.geturl() if guarded.is_certain or self.are_named else None

    @functools.cached_property
    def _guarded(self) -> GuardedServers:
        return GuardedServers.of(self._lock)


def _begins_with(parts: SplitResult, prefix: str) -> bool:
    named = urlsplit(prefix)
    if (parts.scheme, parts.hostname, parts.port) != (named.scheme, named.hostname, named.port):
        return False
    path = named.path.rstrip("/")
    return parts.path == path or parts.path.startswith(path + "/")
