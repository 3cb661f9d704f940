"""Completion with the TAB key, in real shells with the script of `launcher --show-completion`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.cli import completion, shells
from launcher.errors import UsageError
from launcher.runs import index
from tests.requirements import need_programs

ROOT = Path(__file__).parents[3]
#: Prints what the shell would offer for the command line `$line`, a word a line.
SHELLS = {
    "bash": """
        eval "$(launcher --show-completion)"
        read -ra COMP_WORDS <<< "$line"
        case $line in *\\ ) COMP_WORDS+=("") ;; esac
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _launcher_completion launcher
        printf '%s\\n' "${COMPREPLY[@]}"
    """,
    "zsh": """
        compdef() { : }
        _files() { print FILES }
        _arguments() { print -r -- "$1" }
        eval "$(launcher --show-completion)"
        words=(${(z)line})
        case $line in *\\ ) words+=("") ;; esac
        CURRENT=$#words
        _launcher_completion
    """,
    "fish": """
        launcher --show-completion | source
        complete -C $line
    """,
}

Offer = Callable[[str], str]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with an ssh_config that includes another, an index of one run, and `launcher` on the PATH."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Include more/*.conf\nHost gpu1 gpu2\n  User me\nHost *.example !x\n")
    (tmp_path / ".ssh" / "more").mkdir()
    (tmp_path / ".ssh" / "more" / "a.conf").write_text("host=inner\n")
    (tmp_path / "bin").mkdir()
    launcher = tmp_path / "bin" / "launcher"
    launcher.write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n")
    with launcher.open("a") as script:
        script.write("from launcher.cli.main import main\nmain()\n")
    launcher.chmod(0o755)
    return tmp_path


@pytest.fixture(params=sorted(SHELLS))
def offer(request: pytest.FixtureRequest, home: Path) -> Offer:
    """Ask one of the shells for completions."""
    shell = need_programs(request.param)[request.param]
    flags = {"bash": "--norc", "zsh": "-f", "fish": "--no-config"}[request.param]
    environment = {"PATH": f"{home}/bin:{os.environ['PATH']}", "HOME": str(home), "TERM": "dumb"}

    def ask(line: str) -> str:
        done = subprocess.run(
            [shell, flags, "-c", SHELLS[request.param]],
            cwd=home,
            env={**environment, "line": line},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert not done.stderr, done.stderr
        return done.stdout

    return ask


@pytest.mark.slow
def test_a_shell_offers_commands_options_choices_and_hosts(offer: Offer) -> None:
    """This works in each shell, with the script that the command prints."""
    assert "multirun" in offer("launcher mul")
    assert "--config-name" in offer("launcher run --config")
    offered = offer("launcher run --results ")
    assert all(word in offered for word in ("trusted", "safe", "never"))
    offered = offer("launcher run --host ")
    assert all(name in offered for name in ("gpu1", "gpu2", "inner"))
    assert "example" not in offered


def test_hosts_are_completed_after_a_user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`me@g` is completed as `g` is."""
    monkeypatch.setenv("HOME", str(home))
    assert completion.hosts("me@g") == ["me@gpu1", "me@gpu2"]


def test_no_configuration_offers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no hosts, no runs and no error."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert completion.hosts("") == []
    assert completion.runs("") == []
    assert completion.jobs("last#") == []


def test_a_configuration_that_includes_itself_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read as deep as ssh reads it, and no deeper."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host one\nInclude config\n")
    assert completion.hosts("") == ["one"]


@pytest.mark.slow
def test_runs_and_their_jobs_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It offers `last` and ids and, after `#`, the jobs with their states.

    A text that matches no run offers nothing.
    """
    import launcher

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    returns = launcher.multirun(_times_ten, [{"x": 1}, {"x": 0}], overrides=[["x=1"], ["x=0"]], folder="sweep")
    assert [one.error is None for one in returns] == [True, False]
    (entry,) = index.entries()
    assert [name for name, _ in completion.runs("")] == ["last", entry.run]
    assert completion.runs(entry.run[:8]) == [(entry.run, f"MULTIRUN of {entry.task} in {tmp_path / 'sweep'}")]
    assert completion.jobs("last#") == [("last#0", "COMPLETED x=1"), ("last#1", "FAILED x=0")]
    assert completion.jobs("last#1") == [("last#1", "FAILED x=0")]
    assert completion.jobs("nothing#") == []


def _times_ten(cfg: object) -> float:
    return 10 / cfg.x  # type: ignore[attr-defined, no-any-return]


# -- what is offered, without a shell --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "incomplete", "offered"),
    [
        ([], "mul", ["multirun"]),
        ([], "--v", ["--version"]),
        (["nothing"], "", []),
        (["run", "--results"], "s", ["safe"]),
        (["run", "app.py", "--results"], "s", ["safe"]),
        (["run"], "--results=s", ["--results=safe"]),
        (["run", "--json"], "--con", ["--continue", "--config-dir", "--config-name"]),
        (["run"], "my", []),
        (["show", "one"], "", []),
    ],
)
def test_the_last_word_decides_what_is_offered(words: list[str], incomplete: str, offered: list[str]) -> None:
    """Commands, options, the values of an option; and nothing where a command takes no more."""
    assert [word for word, _ in shells.candidates(words, incomplete)] == offered


def test_an_installed_script_goes_on_working(capsys: pytest.CaptureFixture[str]) -> None:
    """The scripts that earlier versions installed ask with the same variables, and get the same form of answer."""
    words = {"COMP_WORDS": "launcher\nrun\n--results\ns", "COMP_CWORD": "3", "_LAUNCHER_COMPLETE": "complete_bash"}
    assert shells.answer(words) == 0
    assert capsys.readouterr().out == "safe\n"
    asked = {"_TYPER_COMPLETE_ARGS": "launcher mul", "_LAUNCHER_COMPLETE": "complete_zsh"}
    assert shells.answer(asked) == 0
    assert capsys.readouterr().out.startswith('_arguments \'*: :(("multirun":"Run a sweep')
    asked = {"_TYPER_COMPLETE_ARGS": "launcher nothing ", "_LAUNCHER_COMPLETE": "complete_zsh"}
    assert shells.answer(asked) == 0
    assert capsys.readouterr().out == "_files\n"
    asked = {"_TYPER_COMPLETE_ARGS": "launcher run --results s", "_LAUNCHER_COMPLETE": "complete_fish"}
    assert shells.answer({**asked, "_TYPER_COMPLETE_FISH_ACTION": "is-args"}) == 0
    assert shells.answer({**asked, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}) == 0
    assert capsys.readouterr().out == "safe\n"
    nothing = {"_TYPER_COMPLETE_ARGS": "launcher run my", "_TYPER_COMPLETE_FISH_ACTION": "is-args"}
    assert shells.answer({**nothing, "_LAUNCHER_COMPLETE": "complete_fish"}) == 1


def test_an_open_quote_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    """While a user types a quoted word, its closing quote is not there yet."""
    asked = {"_TYPER_COMPLETE_ARGS": "launcher run 'my app", "_LAUNCHER_COMPLETE": "complete_zsh"}
    assert shells.answer(asked) == 0
    assert capsys.readouterr().out == "_files\n"


@pytest.mark.parametrize(
    ("shell", "script", "loader"),
    [
        ("bash", ".bash_completions/launcher.sh", ".bashrc"),
        ("zsh", ".zfunc/_launcher", ".zshrc"),
        ("fish", ".config/fish/completions/launcher.fish", None),
    ],
)
def test_completion_is_installed_once(
    shell: str, script: str, loader: str | None, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes the script, adds a line to the shell's own file, and leaves the rest of that file as it is."""
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr("shellingham.detect_shell", lambda: (shell, f"/bin/{shell}"))
    if loader:
        (home / loader).write_text("mine")
    assert script in shells.install()
    assert "launcher" in (home / script).read_text()
    shells.install()
    if loader:
        lines = (home / loader).read_text().splitlines()
        assert lines[0] == "mine"
        assert len(lines) == 2


def test_a_shell_without_a_script_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names those that have one."""
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("tcsh", "/bin/tcsh"))
    with pytest.raises(UsageError, match="bash, zsh, fish"):
        shells.install()
