"""`.launcherignore` means the same as to git."""

from __future__ import annotations

import os
import subprocess
from unittest import mock

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from launcher.code.files.gitignore import IgnoreRules
from remote_agent.shared import globs
from tests.examples import examples


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """An empty repository in which to ask git."""
    folder = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", folder], check=True)
    return folder


def by_git(repository, text: str, inner: str, paths: list[str]) -> set[str]:
    """Return the paths that git ignores, with ignore files in the root and in `a`."""
    (repository / ".gitignore").write_text(text)
    (repository / "a").mkdir(exist_ok=True)
    (repository / "a" / ".gitignore").write_text(inner)
    done = subprocess.run(
        ["git", "-C", repository, "check-ignore", "--no-index", "-z", "--stdin"],
        input=b"\0".join(os.fsencode(path) for path in paths),
        capture_output=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return {os.fsdecode(one) for one in done.stdout.split(b"\0") if one}


PATHS = [
    "a",
    "b",
    "ab",
    "a.py",
    "a/b",
    "a/b/c",
    "a/c.py",
    "b/a",
    "b/a/x.py",
    "b/c/a",
    "c/b/a/d",
    "a b",
    "x.pyc",
    "#x",
    "!x",
    "b/[x]",
    "a/b/c/d/e.py",
    "build/x",
    "src/build/x",
    "-",
    "a-b",
    "b/-",
    "é",
    "b\\c",
]
PIECES = [
    "a",
    "b",
    "c",
    "x",
    "*",
    "**",
    "?",
    "/",
    ".py",
    "[ab]",
    "[!a]",
    "[a-c]",
    "\\",
    "!",
    "#",
    " ",
    "build",
    "[]",
    "[]-]",
    "[^b",
    "[[:alpha:]]",
    "-",
    "é",
]
PATTERNS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["as it comes", "walked through"])
@settings(max_examples=examples(80), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(PATTERNS, max_size=4), st.lists(PATTERNS, max_size=2))
@example(["*", "!a"], [])
@example(["a/**", "!a/b"], [])
@example(["**/a", "!/b/a"], ["/b"])
@example(["a/**/e.py"], [])
@example(["/a/*", "!/a/b/"], ["!c.py"])
@example(["a ", "a\\ b "], [])
@example(["build/", "!src/build/"], [])
@example(["***", "!a/"], [])
@example(["**b", "b**"], ["**"])
def test_patterns_mean_what_git_says(repository, way, lines, inner):
    """For any patterns in two folders, the same paths are left out."""
    text, below = "\n".join(lines) + "\n", "\n".join(inner) + "\n"
    rules = IgnoreRules()
    with mock.patch.object(globs, "_MAX_EXPRESSION", globs._MAX_EXPRESSION if way == "as it comes" else -1):
        rules.add("", text)
        rules.add("a", below)
    paths = [path for path in PATHS if path != "a"]
    ours = {path for path in paths if rules.verdict(path)}
    assert ours == by_git(repository, text, below, paths), (text, below)


def test_what_was_taken_back_is_told_from_what_no_pattern_names():
    """Only `!` includes files that git itself ignores."""
    rules = IgnoreRules()
    assert not rules
    rules.add("", "*.log\n!keep.log\n")
    assert rules
    assert rules.takes_back
    assert rules.verdict("x.log") is True
    assert rules.verdict("keep.log") is False
    assert rules.verdict("other") is None
