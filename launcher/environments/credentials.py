"""Credentials for indexes: those that this machine uses, and the servers that want some.

Rule: no credential leaves this module but for a request of this machine. What cannot be read counts as a server that may want credentials.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from launcher.environments.lock import Lock, read_toml, texts_of
from launcher.errors import PackagesError

__all__ = ["GuardedServers", "credentials_for"]

#: Variables that name indexes, with credentials in their URLs.
_INDEXES = (
    "UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL",
)  # fmt: skip
#: Variables with which uv shows who it is to servers that no setting names.
_UNNAMED = ("SSL_CLIENT_CERT",)
_OF_INDEX = re.compile(r"UV_INDEX_(.+)_(?:USERNAME|PASSWORD)")
#: An address with what opens it.
_WITH_USER = re.compile(r"\w+://[^/\s@]+@[^/\s\"']+")
_MOST = 1 << 20


def credentials_for(url: str, indexes: Mapping[str, str]) -> tuple[str, str] | None:
    """Return user and password for an address: its own, those of an index of the same host, or those of ~/.netrc."""
    parts = urlsplit(url)
    if parts.username:
        return unquote(parts.username), unquote(parts.password or "")
    for name, address in indexes.items():
        # uv uses these names.
        variable = f"UV_INDEX_{_in_a_variable(name)}"
        user, password = os.environ.get(f"{variable}_USERNAME"), os.environ.get(f"{variable}_PASSWORD")
        if (user or password) and _is_same_host(urlsplit(address), parts):
            return user or "", password or ""
    for variable in _INDEXES:
        for value in os.environ.get(variable, "").split():
            index = urlsplit(value.partition("=")[2] if re.match(r"[\w.-]+=", value) else value)
            if index.username and _is_same_host(index, parts):
                return unquote(index.username), unquote(index.password or "")
    import netrc

    try:
        found = netrc.netrc(os.environ.get("NETRC") or None).authenticators(parts.hostname or "")
    except (OSError, netrc.NetrcParseError):
        return None
    return (found[0], found[2] or "") if found is not None else None


def _in_a_variable(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def _is_same_host(one: SplitResult, other: SplitResult) -> bool:
    return (one.scheme, one.hostname, one.port) == (other.scheme, other.hostname, other.port)


@dataclass(frozen=True)
class GuardedServers:
    """The servers that want credentials, as far as this machine's settings say so.

    Attributes:
        names: the names of these servers.
        is_certain: no other server is known to want some. If not, a keyring, a file that cannot be read, or the like may have credentials for
            any server.
    """

    names: frozenset[str]
    is_certain: bool

    @classmethod
    def of(cls, lock: Lock) -> GuardedServers:
        """Read all settings in which uv, or this program, finds credentials for the indexes of a lock."""
        found = _Settings(lock)
        return cls(frozenset(found.names), found.is_certain)


class _Settings:
    """Collects servers from settings."""

    def __init__(self, lock: Lock) -> None:
        self.names: set[str] = set()
        self.is_certain = not any(os.environ.get(name) for name in _UNNAMED)
        self._indexes = {_in_a_variable(name): address for name, address in lock.indexes}
        folder = Path(lock.name).parent
        self.is_certain &= folder.is_dir()
        # For requirements, uv takes the settings of the next folder above that has some.
        for one in (folder, *folder.parents):
            self._read(one / "uv.toml")
            self._read(one / "pyproject.toml")
        for path in _user_settings():
            self._read(path)
        for path in _stored_credentials():
            self._read(path, is_store=True)
        try:
            for text in texts_of(lock):
                self._add_from(text)
        except PackagesError:
            self.is_certain = False
        self._add_from(" ".join(value for name, value in os.environ.items() if name.startswith(("UV_", "PIP_"))))
        for name, value in os.environ.items():
            self._add_variable(name, value)
        self._read_netrc()

    def _add_variable(self, name: str, value: str) -> None:
        if name == "UV_KEYRING_PROVIDER" and value not in ("", "disabled"):
            self.is_certain = False
        of_index = _OF_INDEX.fullmatch(name)
        if of_index is not None and value:
            address = self._indexes.get(of_index[1])
            if address is None:
                self.is_certain = False
            else:
                self._add(address)

    def _add(self, address: str) -> None:
        try:
            name = urlsplit(address).hostname
        except ValueError:
            name = None
        if name:
            self.names.add(name)
        else:
            self.is_certain = False

    def _add_from(self, text: str) -> None:
        for found in _WITH_USER.findall(text):
            self._add(found)

    def _read(self, path: Path, *, is_store: bool = False) -> None:
        """Read a TOML file of settings, if it is there. `is_store`: uv has credentials for all addresses in it."""
        try:
            with path.open(encoding="utf-8") as file:
                content = read_toml(file.read(_MOST))
        except (FileNotFoundError, NotADirectoryError):
            return
        except (OSError, ValueError):
            self.is_certain = False
            return
        for pattern in _members(content):
            for member in path.parent.glob(pattern):
                self._read(member / "pyproject.toml")
        for table in _tables(content):
            self.is_certain &= table.get("keyring-provider") in (None, "disabled")
            wants = is_store or table.get("authenticate") == "always"
            for value in table.values():
                for text in value if isinstance(value, list) else [value]:
                    if isinstance(text, str):
                        self._add_from(text)
                        if wants and "://" in text:
                            self._add(text)

    def _read_netrc(self) -> None:
        import netrc

        try:
            hosts = netrc.netrc(os.environ.get("NETRC") or None).hosts
        except FileNotFoundError:
            return
        except (OSError, netrc.NetrcParseError):
            self.is_certain = False
            return
        self.names |= {name.lower() for name in hosts}
        self.is_certain &= "default" not in hosts


def _tables(content: Any) -> Iterator[dict[str, Any]]:
    """Yield all tables of a TOML file."""
    if isinstance(content, dict):
        yield content
    for inner in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        yield from _tables(inner)


def _members(content: dict[str, Any]) -> list[str]:
    """The patterns of a workspace's members, which have settings of their own."""
    for key in ("tool", "uv", "workspace"):
        inner = content.get(key)
        content = inner if isinstance(inner, dict) else {}
    members = content.get("members")
    patterns = members if isinstance(members, list) else []
    return [one for one in patterns if isinstance(one, str) and one and not one.startswith("/")]


def _user_settings() -> Iterator[Path]:
    """Yield where uv's settings of the user and of the system may be."""
    if os.environ.get("UV_CONFIG_FILE"):
        yield Path(os.environ["UV_CONFIG_FILE"])
    yield Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "uv" / "uv.toml"
    for folder in (os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":"):
        yield Path(folder) / "uv" / "uv.toml"
    yield Path("/etc/uv/uv.toml")


def _stored_credentials() -> Iterator[Path]:
    """Yield where `uv auth login` keeps what it was given."""
    if os.environ.get("UV_CREDENTIALS_DIR"):
        yield Path(os.environ["UV_CREDENTIALS_DIR"]) / "credentials.toml"
    yield Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "uv/credentials/credentials.toml"
