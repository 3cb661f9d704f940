"""Shell lines before a job's Python: they run one by one, in one shell, and an error names its line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from remote_agent.agent.zygotes.setup_lines import failure, script, split, without_marks
from tests.requirements import need_programs

TOKEN = "0123456789abcdef"


def run(setup: list[str], tmp_path: Path, shell: str = "bash") -> tuple[str | None, str, int]:
    """(the text of the error, the output of the command after the lines, the shell's exit status)."""
    log = tmp_path / "it's a log"
    lines = split(setup, shell)
    with log.open("ab") as file:
        done = subprocess.run(
            [shell, "-c", script(lines, TOKEN, str(log), shell, 7), "zygote", "sh", "-c", 'echo "MODE=$MODE"'],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            check=False,
        )
    text = log.read_text()
    told = failure(text, TOKEN, lines, done.returncode, {"TOKEN": "s3cret", "SHORT": "1"})
    return told, without_marks(text), done.returncode


@pytest.mark.parametrize(
    ("setup", "texts"),
    [
        ([], []),
        (["module load cuda", "export A=1"], ["module load cuda", "export A=1"]),
        (["a\nb\n"], ["a", "b"]),
        (["if true", "then", "  echo it\nfi", "echo after"], ["if true\nthen\n  echo it\nfi", "echo after"]),
        (["cat <<E", "fi", "E", "b"], ["cat <<E\nfi\nE", "b"]),
        (["a \\", "  b", "c"], ["a \\\n  b", "c"]),
        (["a |", "b", "echo 'two", "lines'"], ["a |\nb", "echo 'two\nlines'"]),
        (["# a word", "", "a"], ["# a word", "", "a"]),
        (["a", "fi", "b"], ["a", "fi\nb"]),
    ],
)
def test_a_construct_over_several_lines_is_one_line(setup: list[str], texts: list[str]) -> None:
    """As the shell completes it. If the shell never considers it complete, it ends with the last line."""
    assert [line.text for line in split(setup, "bash")] == texts


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_lines_share_one_shell(tmp_path: Path, shell: str) -> None:
    """Variables, functions and folders of one line are there in the next one, and in the command after them."""
    need_programs(shell)
    setup = ["f() { MODE=$1; }", "f 'it'\"'\"'s'", "cd /; export MODE", 'test "$PWD" = /', "echo said"]
    assert run(setup, tmp_path, shell) == (None, "said\nMODE=it's\n", 0)


@pytest.mark.parametrize("shell", ["bash", "dash"])
@pytest.mark.parametrize(
    ("setup", "told"),
    [
        (
            ["true", "echo before >&2", "(echo why >&2; exit 3)", "echo no"],
            "line 3 of 4 ((echo why >&2; exit 3)) ended with exit status 3; it printed:\nwhy",
        ),
        (["true\nfalse\ntrue"], "line 2 of 3 (false) ended with exit status 1, and printed nothing"),
        (["exit 5", "true"], "line 1 of 2 (exit 5) ended the shell with exit status 5, and printed nothing"),
        (["set -e", "false"], "line 2 of 2 (false) ended the shell with exit status 1, and printed nothing"),
        (
            ["if false", "then a", "else false", "fi"],
            "line 1 to 4 of 4 (if false\nthen a\nelse false\nfi) ended with exit status 1, and printed nothing",
        ),
        (["echo s3cret 1; false"], "line 1 of 1 (echo *** 1; false) ended with exit status 1; it printed:\n*** 1"),
    ],
)
def test_the_line_that_fails_is_named_and_is_the_last(tmp_path: Path, shell: str, setup: list[str], told: str) -> None:
    """Its number, its text, how it ended and its output, without the values of the jobs' variables."""
    need_programs(shell)
    said, printed, status = run(setup, tmp_path, shell)
    assert said == f"set-up {told}"
    assert "MODE=" not in printed, "the command behind the lines does not run"
    assert status != 0


def test_a_command_that_is_not_found_is_named(tmp_path: Path) -> None:
    """With the shell's message."""
    said, _, _ = run(["no-such-command --at all"], tmp_path)
    assert said is not None
    assert said.startswith("set-up line 1 of 1 (no-such-command --at all) ended with exit status 127; it printed:\n")
    assert "not found" in said


def test_lines_that_print_our_mark_deceive_nobody(tmp_path: Path) -> None:
    """The token differs for each start."""
    said, _, _ = run(["echo '[set-up fedcba9876543210 done]'", "false"], tmp_path)
    assert said is not None
    assert said.startswith("set-up line 2 of 2 (false)")
