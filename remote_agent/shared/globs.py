"""Matches patterns with wildcards, in a time that no pattern can make long.

Rule: it takes at most as many steps as the text's length times the pattern's length. A pattern with few wildcards
becomes a regular expression, which is fast and takes little more than that. With many wildcards, a regular expression
would try every way to split the text among them. So such a pattern is run as a set of states, with all possible matches
so far at once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

__all__ = ["FOLDERS", "Atom", "Glob", "any_of", "host_glob", "one", "shell_glob"]

#: How many wildcards of any length a regular expression may have: with two, it tries at most length squared ways.
_MAX_EXPRESSION = 2


class Atom(NamedTuple):
    """A part of a pattern: `one` or `many` characters of a class (as in `re`), or `folders`: none, or some with their
    `/`.
    """

    kind: Literal["one", "many", "folders"]
    characters: str = ""

    @property
    def expression(self) -> str:
        """The atom as a regular expression."""
        return {"one": self.characters, "many": f"{self.characters}*", "folders": "(?:.*/)?"}[self.kind]


#: `**/`
FOLDERS = Atom("folders")


def one(character: str) -> Atom:
    """Match exactly this character."""
    return Atom("one", re.escape(character))


def any_of(characters: str = ".") -> Atom:
    """Match any number of these characters."""
    return Atom("many", characters)


class Glob:
    """A pattern of these parts."""

    def __init__(self, atoms: Sequence[Atom]) -> None:
        self._atoms: list[Atom] = []
        for atom in atoms:
            # The same wildcard twice in a row is the same as once.
            if atom.kind == "one" or not self._atoms or self._atoms[-1] != atom:
                self._atoms.append(atom)
        wildcards = sum(atom.kind != "one" for atom in self._atoms)
        self._expression: re.Pattern[str] | None = None
        if wildcards <= _MAX_EXPRESSION:
            self._expression = re.compile("".join(atom.expression for atom in self._atoms), re.DOTALL)
        else:
            self._walk = _Walk(self._atoms)

    def matches(self, text: str) -> bool:
        """Whether the pattern matches the whole text."""
        if self._expression is not None:
            return self._expression.fullmatch(text) is not None
        return self._walk.matches(text)


class _Walk:
    """The pattern as a set of states: bit `n` is set if everything before the n-th atom may have been matched.

    `folders` has two states: before it, where it may be skipped, and inside it, which only a `/` ends.
    """

    def __init__(self, atoms: Sequence[Atom]) -> None:
        self._states: list[tuple[str, re.Pattern[str] | None]] = []
        for atom in atoms:
            if atom.kind == "folders":
                self._states += [("before", None), ("inside", None)]
            else:
                self._states.append((atom.kind, re.compile(atom.characters, re.DOTALL)))
        self._end = 1 << len(self._states)
        self._pass_one = self._bits(lambda kind, _: kind == "many")
        self._pass_two = self._bits(lambda kind, _: kind == "before")
        self._steps: dict[str, tuple[int, int, int]] = {}

    def _bits(self, holds: object) -> int:
        assert callable(holds)
        return sum(1 << index for index, state in enumerate(self._states) if holds(*state))

    def matches(self, text: str) -> bool:
        states = self._passed(1)
        for character in text:
            stay, move_one, move_two = self._step(character)
            states = self._passed((states & stay) | (states & move_one) << 1 | (states & move_two) << 2)
            if not states:
                return False
        return bool(states & self._end)

    def _passed(self, states: int) -> int:
        """Add the states after wildcards that may match nothing."""
        while True:
            more = states | (states & self._pass_one) << 1 | (states & self._pass_two) << 2
            if more == states:
                return states
            states = more

    def _step(self, character: str) -> tuple[int, int, int]:
        """Return which states stay, and which advance by one or by two, at this character."""
        made = self._steps.get(character)
        if made is None:
            is_slash = character == "/"

            def fits(characters: re.Pattern[str] | None) -> bool:
                return characters is not None and characters.fullmatch(character) is not None

            made = self._steps[character] = (
                self._bits(lambda kind, chars: kind == "inside" or (kind == "many" and fits(chars))),
                self._bits(
                    lambda kind, chars: (
                        kind == "before" or (kind == "inside" and is_slash) or (kind == "one" and fits(chars))
                    )
                ),
                self._bits(lambda kind, _: kind == "before" and is_slash),
            )
        return made


@lru_cache(maxsize=1024)
def host_glob(pattern: str) -> Glob:
    """Make a pattern of OpenSSH's (ssh_config(5), PATTERNS). Only `*` and `?` are special; `[host]:2222` is a name."""
    special = {"*": any_of(), "?": Atom("one", ".")}
    return Glob([special.get(character) or one(character) for character in pattern])


@lru_cache(maxsize=1024)
def shell_glob(pattern: str) -> Glob:
    """Make a pattern of `fnmatch`'s: `*` also matches `/`, `?` is one character, `[a-z]` one of these, `[!a-z]` any
    other one.
    """
    atoms: list[Atom] = []
    index = 0
    while index < len(pattern):
        character = pattern[index]
        index += 1
        # A `]` in first place is one of the characters.
        end = pattern.find("]", index + 1 + pattern.startswith("!", index)) if character == "[" else -1
        if end >= 0:
            atoms.append(Atom("one", _class_of(pattern[index:end])))
            index = end + 1
        elif character in "*?":
            atoms.append(any_of() if character == "*" else Atom("one", "."))
        else:
            atoms.append(one(character))
    return Glob(atoms)


def _class_of(text: str) -> str:
    """Return the content of brackets as a regular expression for one character. A backward range is empty."""
    is_negated = text.startswith("!")
    text = text[is_negated:]
    members = ""
    index = 0
    while index < len(text):
        if index + 2 < len(text) and text[index + 1] == "-":
            first, last = text[index], text[index + 2]
            members += f"{re.escape(first)}-{re.escape(last)}" if first <= last else ""
            index += 3
        else:
            members += re.escape(text[index])
            index += 1
    if not members:
        return "." if is_negated else "(?!)"
    return f"[{'^' if is_negated else ''}{members}]"
