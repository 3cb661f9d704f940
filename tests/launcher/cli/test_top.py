"""`launcher top`: once in a pipe, on and on on a terminal."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from launcher.agents.queries.query import AgentQuery
from launcher.cli.commands.views import top
from tests.commands import Cli
from tests.terminals import on_terminal

ROOT = Path(__file__).parents[3]
MAIN = "from launcher.cli.main import main; main()"


@pytest.fixture
def cli(capfdbinary: pytest.CaptureFixture[bytes]) -> Cli:
    """The command `launcher`."""
    return Cli(capfdbinary)


def test_this_machine_is_always_asked(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without any run. Memory and CPUs are the real ones."""
    monkeypatch.setattr(top, "_PATIENCE", 300.0)
    answer = cli.json("top")
    (host,) = answer["hosts"]
    assert (host["host"], host["error"], answer["runs"]) == ("local", None, [])
    assert 0 < host["memory_free"] <= host["memory"]
    first, *_ = cli("top").splitlines()
    assert first.startswith("local  load ")


def test_a_host_that_cannot_be_reached_is_a_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are shown."""
    monkeypatch.setattr(top, "_PATIENCE", 300.0)
    here, far = cli.json("top", "nowhere.invalid")["hosts"]
    assert here["error"] is None
    assert "nowhere.invalid" in far["error"]


def test_a_host_that_does_not_answer_is_not_waited_for(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hangs in the connection."""
    hangs = threading.Event()
    enter = AgentQuery.__enter__

    def hang(query: AgentQuery) -> AgentQuery:
        if query.host == "far":
            hangs.wait()
        return enter(query)

    monkeypatch.setattr(AgentQuery, "__enter__", hang)
    monkeypatch.setattr(top, "_PATIENCE", 0.01)
    try:
        answers = {one["host"]: one for one in cli.json("top", "far")["hosts"]}
    finally:
        hangs.set()
    assert answers["far"]["error"] == "no answer in 0 s"


@pytest.mark.slow
def test_on_a_terminal_until_q(tmp_path: Path) -> None:
    """It is drawn on a screen of its own, and leaves the terminal as it was."""
    command = [sys.executable, "-c", MAIN, "top", "nowhere.invalid", "--every", "1"]
    with on_terminal(command, tmp_path, is_own=True, more={"PYTHONPATH": str(ROOT)}, columns=120) as terminal:
        before = terminal.mode
        screen = terminal.wait_for("local  load")
        assert "q: end" in screen[0]
        terminal.wait_for("nowhere.invalid: resolve")
        terminal.resize(10, 40)
        terminal.wait_for("no run that has not ended")
        terminal.write(b"q")
        assert terminal.end() == 0
        assert terminal.mode == before
        assert not terminal.is_cursor_hidden
