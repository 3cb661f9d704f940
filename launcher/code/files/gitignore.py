"""gitignore's patterns, for `.launcherignore` and for folders without git.

Rule: patterns mean what they mean to git (https://git-scm.com/docs/gitignore); a property test compares them with `git check-ignore`.
The last pattern that matches decides, `!` includes again, and a file below an ignored folder stays ignored. No pattern takes long
to match (see `globs`).
"""

from __future__ import annotations

import os
import re

from launcher.util.frozen import frozen
from remote_agent.shared.globs import FOLDERS, Atom, Glob, any_of, one

__all__ = ["IgnoreRules"]


@frozen
class _Rule:
    pattern: Glob
    is_negated: bool
    is_for_folders: bool


def _bytewise(text: str) -> str:
    """One character for each byte: to git, `?` matches a byte."""
    return os.fsencode(text).decode("latin-1")


def _parsed(line: str) -> _Rule | None:
    text = line.rstrip("\r\n")
    # Trailing spaces count only after a backslash.
    while text.endswith(" ") and not _is_escaped(text, len(text) - 1):
        text = text[:-1]
    if not text or text.startswith("#"):
        return None
    is_negated = text.startswith("!")
    if is_negated:
        text = text[1:]
    is_for_folders = text.endswith("/")
    if is_for_folders:
        text = text[:-1]
    if not text:
        return None
    is_anchored = "/" in text
    atoms = _atoms(text.removeprefix("/"))
    if atoms is None:
        return None
    return _Rule(Glob(atoms if is_anchored else [FOLDERS, *atoms]), is_negated, is_for_folders)


def _is_escaped(text: str, index: int) -> bool:
    count = 0
    while index - count - 1 >= 0 and text[index - count - 1] == "\\":
        count += 1
    return count % 2 == 1


def _atoms(text: str) -> list[Atom] | None:
    """The parts of a pattern relative to its folder; None if git says that the pattern matches nothing."""
    out: list[Atom] = []
    index = 0
    while index < len(text):
        char = text[index]
        if char == "\\":
            if index + 1 == len(text):
                return None
            out.append(one(text[index + 1]))
            index += 2
        elif char == "*":
            end = index
            while end < len(text) and text[end] == "*":
                end += 1
            parts, index = _stars(text, index, end)
            out += parts
        elif char == "?":
            out.append(Atom("one", "[^/]"))
            index += 1
        elif char == "[":
            made = _bracket(text, index)
            if made is None:
                return None
            part, index = made
            out.append(Atom("one", part))
        else:
            out.append(one(char))
            index += 1
    return out


def _stars(text: str, begin: int, end: int) -> tuple[list[Atom], int]:
    """The meaning of the `*`s from begin to end, and the index after them."""
    starts = begin == 0 or text[begin - 1] == "/"
    if end - begin == 2 and starts:
        if end == len(text):
            return [*([Atom("one", ".")] if begin else []), any_of()], end
        if text[end] == "/":
            return [FOLDERS], end + 1
    return [any_of("[^/]")], end


_CLASSES = {
    "alpha": "a-zA-Z",
    "digit": "0-9",
    "alnum": "a-zA-Z0-9",
    "upper": "A-Z",
    "lower": "a-z",
    "space": " \\t-\\r",
    "blank": " \\t",
    "punct": "!-\\/:-@\\[-`{-~",
    "xdigit": "0-9a-fA-F",
    "print": " -~",
    "graph": "!-~",
    "cntrl": "\\x00-\\x1f\\x7f",
}


def _bracket(text: str, begin: int) -> tuple[str, int] | None:
    """A bracket expression and the index after it; None if it has no end, so that the pattern matches nothing."""
    index = begin + 1
    is_negated = index < len(text) and text[index] in "!^"
    index += is_negated
    items: list[str] = []
    is_first = True
    while True:
        if index >= len(text):
            return None
        char = text[index]
        if char == "]" and not is_first:
            break
        is_first = False
        named = re.match(r"\[:(\w+):\]", text[index:])
        if named:
            if named.group(1) not in _CLASSES:
                return None
            items.append(_CLASSES[named.group(1)])
            index += named.end()
            continue
        first, index = _one(text, index)
        if first is None:
            return None
        if index + 1 < len(text) and text[index] == "-" and text[index + 1] != "]":
            last, index = _one(text, index + 1)
            if last is None:
                return None
            if first <= last:
                items.append(f"{re.escape(first)}-{re.escape(last)}")
            continue
        items.append(re.escape(first))
    inner = "".join(items)
    if is_negated:
        return f"[^/{inner}]", index + 1
    return (f"(?!/)[{inner}]" if inner else "(?!)"), index + 1


def _one(text: str, index: int) -> tuple[str | None, int]:
    if text[index] == "\\":
        return (text[index + 1], index + 2) if index + 1 < len(text) else (None, index)
    return text[index], index + 1


class IgnoreRules:
    """The patterns of one or several ignore files. Each file applies to its own folder."""

    def __init__(self) -> None:
        self._rules: dict[str, list[_Rule]] = {}
        self._folders: dict[str, bool | None] = {"": None}

    def __bool__(self) -> bool:
        return any(self._rules.values())

    @property
    def takes_back(self) -> bool:
        """Some pattern begins with `!`."""
        return any(rule.is_negated for rules in self._rules.values() for rule in rules)

    def add(self, folder: str, text: str) -> None:
        """Add an ignore file's text.

        Args:
            folder: the folder of the file, relative to the root, with `/`; empty for the root.
        """
        rules = [rule for rule in map(_parsed, _bytewise(text).split("\n")) if rule is not None]
        self._rules.setdefault(_bytewise(folder), []).extend(rules)
        self._folders = {"": None}

    def verdict(self, path: str, *, is_folder: bool = False) -> bool | None:
        """True if the path is ignored, False if a `!` includes it again, None if no pattern matches.

        Args:
            path: relative to the root, with `/`.
        """
        path = path if path.isascii() else _bytewise(path)
        parent = path.rpartition("/")[0]
        if self._of_folder(parent):
            return True
        return self._own(path, is_folder=is_folder)

    def _of_folder(self, folder: str) -> bool:
        """Whether the folder, or one above it, is ignored."""
        known = self._folders.get(folder)
        if known is None and folder:
            known = self._of_folder(folder.rpartition("/")[0]) or bool(self._own(folder, is_folder=True))
            self._folders[folder] = known
        return bool(known)

    def _own(self, path: str, *, is_folder: bool) -> bool | None:
        place = path.rpartition("/")[0]
        while True:
            below = path[len(place) + 1 :] if place else path
            for rule in reversed(self._rules.get(place, ())):
                if (is_folder or not rule.is_for_folders) and rule.pattern.matches(below):
                    return not rule.is_negated
            if not place:
                return None
            place = place.rpartition("/")[0]
