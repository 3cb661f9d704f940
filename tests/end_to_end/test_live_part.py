"""A run on a terminal, as a person sees and operates it: a real pseudo terminal, and a screen that reads it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.terminals import OnTerminal, on_terminal

ROOT = Path(__file__).parents[2]
MAIN = "from launcher.cli.main import main; main()"

APP = r'''
import os
import time

import launcher


def waits(cfg):
    """Prints control sequences that would clear the screen and move the cursor, reports, and goes on when a file is there."""
    print(f"hello from {cfg.x}\x1b[2J\x1b[H\x1b]0;owned\x07\x1b[31m", flush=True)
    launcher.report(step=3, loss=0.25, evil="\x1b[2J\x1b[Hgone")
    while not os.path.exists(os.path.expanduser(cfg.go)):
        time.sleep(0.02)


def sleeps(cfg):
    while True:
        time.sleep(0.02)


class Asks:
    """Asks on the terminal."""

    def on_job_return(self, config, job_return, **kwargs):
        print("answer:", repr(input("really? ")))
'''

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "my_app.py").write_text(APP)
    return folder


@pytest.fixture
def more(tmp_path: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT)}


def launcher(*arguments: str) -> list[str]:
    return [sys.executable, "-c", MAIN, *arguments]


def sweep(project: Path, task: str = "waits", jobs: str = "1,2") -> list[str]:
    return launcher(
        "multirun", f"my_app.py:{task}", f"+x={jobs}", f"+go={project}/go", "--host", "local/2", "--warm", "0"
    )


@pytest.fixture
def terminal(project: Path, more: dict[str, str]) -> Iterator[OnTerminal]:
    with on_terminal(sweep(project), project, is_own=True, more=more, columns=120) as opened:
        yield opened


def is_as_before(terminal: OnTerminal) -> bool:
    return terminal.mode == terminal.mode_before and not terminal.is_cursor_hidden


def test_look_at_a_hostile_job_and_cancel_it(terminal: OnTerminal, project: Path) -> None:
    """Its host's row has its report. Its output is text, and does nothing to the screen."""
    screen = terminal.wait_for("jobs 0 (")
    assert screen[0].startswith("run ")
    assert any("loss 0.25" in line for line in terminal.wait_for("loss 0.25"))
    terminal.write(b"?")
    terminal.wait_for("any key: back")
    terminal.write(b"xo")
    terminal.wait_for("> job 0")
    terminal.write(b"1\r")
    screen = terminal.wait_for("hello from 2")
    assert screen[0].startswith("run ")
    assert any(line.startswith("job 1 (running on local)") for line in screen)
    terminal.write(b"c")
    terminal.wait_for("cancel job 1?")
    terminal.write(b"y")
    terminal.wait_for("job 1 on local: FAILED")
    (project / "go").touch()
    assert terminal.end() == 1
    assert "1 completed, 1 failed (1 cancelled)" in " ".join(terminal.screen())
    assert is_as_before(terminal)


def test_leave_and_come_back(terminal: OnTerminal, project: Path, more: dict[str, str]) -> None:
    """The run goes on. Who attaches sees the same live part, and loses nothing."""
    terminal.wait_for("jobs 0 (")
    terminal.write(b"dy")
    assert terminal.end() == 0
    assert "goes on without this process" in " ".join(terminal.screen())
    assert is_as_before(terminal)
    with on_terminal(launcher("attach"), project, is_own=True, more=more, columns=120) as second:
        second.wait_for("2/2 running")
        with on_terminal(launcher("attach"), project, is_own=True, more=more, columns=120) as third:
            third.wait_for("2/2 running")
            third.write(b"dy")
            assert third.end() == 0
            assert "shows it again" in " ".join(third.screen())
        (project / "go").touch()
        assert second.end() == 0
        assert "2 completed" in " ".join(second.screen())


def test_resized_and_narrow(project: Path, more: dict[str, str]) -> None:
    """Rows fit the new width. Another kind of terminal will do, too."""
    with on_terminal(sweep(project), project, is_own=True, more={**more, "TERM": "vt100"}, columns=120) as terminal:
        terminal.wait_for("jobs 0 (")
        terminal.resize(12, 50)
        terminal.wait_for("local  ready  2/2 running  jobs")
        assert all(len(line) <= 50 for line in terminal.screen())
        (project / "go").touch()
        assert terminal.end() == 0


def test_ctrl_c_once_cancels_and_the_hooks_fire(project: Path, more: dict[str, str]) -> None:
    """As without the live part."""
    with on_terminal(sweep(project, "sleeps"), project, is_own=True, more=more) as terminal:
        terminal.wait_for("jobs 0 (")
        terminal.write(b"\x03")
        assert terminal.end() == 130
        assert "2 cancelled" in " ".join(terminal.screen())
        assert is_as_before(terminal)


def test_ctrl_c_twice_leaves_at_once(project: Path, more: dict[str, str]) -> None:
    """And the terminal is as it was."""
    with on_terminal(sweep(project, "sleeps"), project, is_own=True, more=more) as terminal:
        terminal.wait_for("jobs 0 (")
        terminal.write(b"\x03")
        terminal.wait_for("jobs are cancelled, hooks finish")
        terminal.write(b"\x03")
        # In the last moments of the process, when all is done, a signal ends it by itself.
        assert terminal.end() in (130, -signal.SIGINT)
        assert is_as_before(terminal)


def test_ctrl_c_outside_of_a_run_leaves_the_terminal_as_it_was(project: Path, more: dict[str, str]) -> None:
    """The exception may interrupt what ends the live part, so nothing else puts the terminal back."""
    code = (
        "import sys, time; from launcher.terminal.ending import Ending; from launcher.util import terminal_mode\n"
        "Ending(sys.stdout).begin(); terminal_mode.read_keys(0)\n"
        "print('\\x1b[?25lready', flush=True); time.sleep(60)"
    )
    with on_terminal([sys.executable, "-c", code], project, is_own=True, more=more) as terminal:
        terminal.wait_for("ready")
        terminal.write(b"\x03")
        assert terminal.end() == -signal.SIGINT
        assert is_as_before(terminal)


def test_sigterm_leaves_the_terminal_as_it_was(terminal: OnTerminal) -> None:
    """The run is cancelled as ever."""
    terminal.wait_for("jobs 0 (")
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.end() == 130
    assert is_as_before(terminal)


def test_a_hook_may_ask_on_the_terminal(project: Path, more: dict[str, str]) -> None:
    """What is typed for it is its own, with an echo; keys are ours again afterwards."""
    command = [*sweep(project, jobs="1"), "--callback", "my_app:Asks"]
    with on_terminal(command, project, is_own=True, more=more) as terminal:
        terminal.wait_for("job 0")
        (project / "go").touch()
        terminal.wait_for("really?")
        terminal.write(b"dyq\r")
        assert terminal.end() == 0
        assert "answer: 'dyq'" in " ".join(terminal.screen())
        assert is_as_before(terminal)
