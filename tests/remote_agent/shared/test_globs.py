"""Patterns with wildcards: what they match, both ways to match, and that none takes long."""

from __future__ import annotations

import fnmatch
import functools
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from launcher.code.files.gitignore import IgnoreRules
from launcher.transports.ssh.host_keys.known_hosts import KnownHosts
from remote_agent.agent.link.output_tree import wanted
from remote_agent.shared import globs
from remote_agent.shared.globs import FOLDERS, Atom, Glob, any_of, host_glob, one, shell_glob
from tests.examples import examples

ATOMS = st.lists(
    st.sampled_from([one("a"), one("b"), one("/"), one("."), Atom("one", "[^/]"), any_of(), any_of("[^/]"), FOLDERS]),
    max_size=8,
)
TEXTS = st.text(alphabet="ab/.", max_size=12)


def naively(atoms: tuple[Atom, ...], text: str) -> bool:
    """The definition of a match, written down directly."""

    @functools.cache
    def match(place: int, at: int) -> bool:
        if place == len(atoms):
            return at == len(text)
        atom = atoms[place]
        if atom.kind == "folders":
            ends = [at] + [end + 1 for end in range(at, len(text)) if text[end] == "/"]
            return any(match(place + 1, end) for end in ends)
        fits = at < len(text) and (text[at] != "/" or atom.characters != "[^/]")
        if atom.kind == "one":
            is_it = fits and (atom.characters in (".", "[^/]") or text[at] == atom.characters[-1])
            return is_it and match(place + 1, at + 1)
        return match(place + 1, at) or (fits and match(place, at + 1))

    return match(0, 0)


@pytest.mark.slow
@settings(max_examples=examples(400), deadline=None)
@given(ATOMS, TEXTS)
@example([FOLDERS, FOLDERS, one("a")], "b/a")
@example([any_of("[^/]"), FOLDERS, any_of()], "/")
@example([FOLDERS], "a/")
def test_both_ways_match_as_defined(atoms: list[Atom], text: str) -> None:
    """As a regular expression, and as a set of states."""
    expected = naively(tuple(atoms), text)
    for limit in (100, -1):
        with mock.patch.object(globs, "_MAX_EXPRESSION", limit):
            assert Glob(atoms).matches(text) is expected, limit


@pytest.mark.parametrize("pattern", ["*a" * 30 + "b", "*" * 50 + "x", "?*" * 30 + "x", "a*" * 200])
@pytest.mark.parametrize("text", ["a" * 3000, "a" * 3000 + "c"])
def test_no_pattern_of_hosts_takes_long(pattern: str, text: str) -> None:
    """Trying every split would take for ever."""
    assert host_glob(pattern).matches(text) is (pattern.endswith("a*") and text.startswith("a"))


@pytest.mark.parametrize(
    "pattern",
    [
        "*a*a*a*a*a*ab",
        "**/a" * 12,
        "*a" * 40 + "b",
        "**/*a*/**/*a*/**/*a*/b",
        "[a]*" * 30 + "b",
        "**/**/**/" * 20 + "z",
    ],
)
def test_no_ignore_pattern_takes_long(pattern: str) -> None:
    """For a deep path with long names."""
    rules = IgnoreRules()
    rules.add("", f"{pattern}\n")
    assert rules.verdict("/".join(["a" * 250] * 15) + "/c") is not True


def test_no_known_hosts_pattern_takes_long() -> None:
    """The file may come from somebody else."""
    known = KnownHosts([("f:1", "*a*a*a*a*a*a*a*a*ab,*.example.org ssh-ed25519 AAAA")])
    assert known.find("a" * 250) == []
    assert len(known.find("a" * 240 + ".example.org")) == 1


def test_only_wildcards_are_special_in_patterns_of_hosts() -> None:
    """Brackets, dots and dollars match themselves. An empty pattern matches an empty name."""
    for pattern, text, expected in [
        ("*.example.org", "gpu1.example.org", True),
        ("*.example.org", "example.org", False),
        ("gpu?", "gpu1", True),
        ("gpu?", "gpu12", False),
        ("[gpu1]:22*", "[gpu1]:2222", True),
        ("[gp]u1", "gu1", False),
        ("gpu$", "gpu", False),
        ("", "", True),
        ("*", "", True),
    ]:
        assert host_glob(pattern).matches(text) is expected, pattern


@settings(max_examples=examples(300), deadline=None)
@given(st.text(alphabet="ab*?[]!-^&\\/", max_size=9), st.text(alphabet="ab[]!-^&\\/", max_size=5))
@example("[]-a]", "]")
@example("[!]a]", "b")
@example("[b-a]", "b")
@example("[!b-a]", "b")
@example("[a-]", "-")
@example("[--a]", "/")
@example("[[a]", "[")
@example("[a", "[a")
@example("[!", "[!")
@example("[^a]", "b")
@example("*", "a\nb")
def test_patterns_of_outputs_mean_what_fnmatch_means(pattern: str, text: str) -> None:
    """Brackets, ranges, and brackets that are no class, in both ways to match."""
    expected = fnmatch.fnmatchcase(text, pattern)
    for limit in (100, -1):
        shell_glob.cache_clear()
        with mock.patch.object(globs, "_MAX_EXPRESSION", limit):
            assert shell_glob(pattern).matches(text) is expected, limit


@pytest.mark.parametrize("pattern", ["*a" * 30 + "b", "[ab]*" * 40 + "x", "?*" * 30 + "x"])
def test_no_pattern_of_outputs_takes_long(pattern: str) -> None:
    """A host matches each file of a job with the user's patterns."""
    assert not wanted("a" * 3000, [pattern])
