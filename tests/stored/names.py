"""Collects the names of ours that stand in what was stored: in pickles, in pickles within them, and in text."""

from __future__ import annotations

import contextlib
import pickletools
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

#: How a pickle begins: PROTO, and from protocol 4 on FRAME.
_PICKLE = re.compile(rb"\x80[\x04\x05]\x95|\x80[\x02\x03][}\](c]")
_OURS = re.compile(rb"(?<![\w./])(?:launcher|remote_agent|hydra_plugins\.hydra_remote_launcher)(?:\.[A-Za-z_]\w*)+")
_PACKAGES = re.compile(r"(?:launcher|remote_agent|hydra_plugins\.hydra_remote_launcher)[.:]")


def names_in_folder(folder: Path) -> tuple[set[str], set[str]]:
    """(`module:name` of each global of ours in a pickle, dotted names of ours anywhere) in all files of a folder."""
    globals_, dotted = set(), set()
    for data in _contents(folder):
        globals_ |= {name for name in names_in(data) if _PACKAGES.match(name)}
        dotted |= {name.decode() for name in _OURS.findall(data)}
    return globals_, dotted


def names_in(data: bytes) -> set[str]:
    """`module:name` of each global in each pickle that begins anywhere in these bytes."""
    found: set[str] = set()
    for match in _PICKLE.finditer(data):
        found.update(_globals(data[match.start() :]))
    return found


def _globals(data: bytes) -> set[str]:
    """The globals of one pickle; none where it is not whole."""
    found: set[str] = set()
    memo: dict[int, object] = {}
    pushed: list[object] = []
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "MEMOIZE":
                memo[len(memo)] = pushed[-1]
            elif opcode.name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = pushed[-1]
            elif opcode.name in ("BINGET", "LONG_BINGET"):
                pushed.append(memo.get(argument))
            elif opcode.name == "STACK_GLOBAL":
                found.add(f"{pushed[-2]}:{pushed[-1]}")
                pushed.append(None)
            elif opcode.name == "GLOBAL":
                found.add(str(argument).replace(" ", ":"))
                pushed.append(None)
            elif opcode.name not in ("PROTO", "FRAME", "MARK"):
                pushed.append(argument if isinstance(argument, str) else None)
    except (ValueError, IndexError):
        return set()
    return found


def _contents(folder: Path) -> Iterator[bytes]:
    """The bytes of each file; of a journal those of each value, for its pages tear them apart."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.is_symlink() or path.name.startswith("journal.sqlite-"):
            continue
        if path.name != "journal.sqlite":
            yield path.read_bytes()
            continue
        with contextlib.closing(sqlite3.connect(path)) as connection:
            for (table,) in connection.execute("select name from sqlite_master where type='table'").fetchall():
                for row in connection.execute(f"select * from {table}"):
                    for value in row:
                        if isinstance(value, (str, bytes)):
                            yield value if isinstance(value, bytes) else value.encode()
