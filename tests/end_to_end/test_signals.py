"""Signals at a real controller.

Whenever one comes, hooks finish or fire later, everything is collected, and the process ends.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher.runs.index import Entry
from launcher.runs.journal import FOLDER, JournalReader
from launcher.runs.status import read_status
from tests.controllers import until

ROOT = Path(__file__).parents[2]
APP = Path(__file__).parents[1] / "apps" / "signals" / "signals_app.py"
CLI = "from launcher.cli.main import main; main()"


class Run:
    """A folder with the app, its marks, and the controllers of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.marks = folder / "marks"
        self.marks.mkdir()
        shutil.copy(APP, folder)
        self.started: list[subprocess.Popen[str]] = []
        self.log = folder / "log"

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Start a controller."""
        env = {
            **os.environ,
            "MARKS": str(self.marks),
            "PYTHONPATH": str(ROOT),
            "XDG_STATE_HOME": str(self.folder / "s"),
        }
        with self.log.open("a") as log:
            process = subprocess.Popen(
                [sys.executable, *args],
                cwd=self.folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
            )
        self.started.append(process)
        return process

    def script(self, jobs: int) -> subprocess.Popen[str]:
        """Return a user's own script."""
        return self.start("signals_app.py", str(jobs))

    def command(self, jobs: int) -> subprocess.Popen[str]:
        """Return the command line."""
        xs = ",".join(map(str, range(jobs)))
        return self.start(
            *("-c", CLI, "multirun", "signals_app.py:work", f"+x={xs}", "--host", "local/2", "--folder", "out"),
            *("--callback", "signals_app:First", "--callback", "signals_app:Second"),
        )

    def attach(self) -> None:
        """Resume the run, to its end."""
        process = self.start("-c", CLI, "attach", "out")
        process.wait(60)

    def hold(self, what: str) -> Path:
        """Make hooks wait."""
        path = self.marks / what
        path.touch()
        return path

    def entered(self, name: str) -> None:
        """Wait until there is such a mark."""
        until(f"{name} ({self.said})", (self.marks / name).exists)

    def times(self, name: str) -> int:
        """Return how often a hook has finished."""
        path = self.marks / f"{name}.done"
        return len(path.read_text()) if path.exists() else 0

    @property
    def said(self) -> str:
        """What the controllers printed."""
        return self.log.read_text(errors="replace")

    @property
    def state(self) -> str:
        """The state of the run."""
        return read_status(Entry("", self.folder / "out", 0.0, "MULTIRUN", "")).state


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A run. At the end of the test, nothing of it is left."""
    made = Run(tmp_path)
    yield made
    for path in made.marks.glob("*"):
        if path.name.startswith(("hold", "gate")):
            path.unlink()
    for process in made.started:
        if process.poll() is None:
            process.kill()
            process.wait()
    if (tmp_path / "out" / FOLDER / "journal.sqlite").exists() and made.state not in (
        "completed",
        "interrupted",
        "failed",
    ):
        try:
            made.attach()
        except subprocess.TimeoutExpired:
            made.started[-1].kill()
            made.started[-1].wait()
            raise


Start = Callable[[Run, int], "subprocess.Popen[str]"]


@pytest.mark.parametrize(
    "start", [pytest.param(Run.script, id="script", marks=pytest.mark.slow), pytest.param(Run.command, id="command")]
)
def test_the_first_signal_lets_hooks_finish(run: Run, start: Start) -> None:
    """`on_job_return` of either of two callbacks may be running.

    Both fire for every job, and then the end hook fires once.
    """
    held = run.hold("hold.first.return")
    controller = start(run, 3)
    until("a hook", lambda: list(run.marks.glob("first.return.*.entered")))
    controller.send_signal(signal.SIGINT)
    until("a word", lambda: "a second signal leaves" in run.said)
    held.unlink()
    assert controller.wait(60) == (130 if start is Run.command else 1)
    for num in range(3):
        assert run.times(f"first.return.{num}") == run.times(f"second.return.{num}") == 1, run.said
    assert run.times("first.end.run") == run.times("second.end.run") == 1
    assert run.state in ("interrupted", "completed")
    assert "raised KeyboardInterrupt" not in run.said


@pytest.mark.slow
def test_the_second_signal_interrupts_a_hook_which_fires_again_later(run: Run) -> None:
    """The hook is not reported as failed.

    `attach` fires it again, but no hook that had finished, and then the end hook.
    """
    run.hold("gate.1")
    held = run.hold("hold.second.return")
    controller = run.command(2)
    run.entered("second.return.0.entered")
    controller.send_signal(signal.SIGINT)
    until("a word", lambda: "a second signal leaves" in run.said)
    controller.send_signal(signal.SIGTERM)
    assert controller.wait(60) in (130, 143)
    assert "launcher attach" in run.said
    assert "Traceback" not in run.said
    assert (run.times("first.return.0"), run.times("second.return.0"), run.times("first.end.run")) == (1, 0, 0)
    assert run.state == "detached"
    held.unlink()
    (run.marks / "gate.1").unlink()
    run.attach()
    for num in range(2):
        assert run.times(f"first.return.{num}") == run.times(f"second.return.{num}") == 1, run.said
    assert run.times("first.end.run") == run.times("second.end.run") == 1
    assert run.state in ("interrupted", "completed")


@pytest.mark.slow
def test_an_end_hook_that_was_interrupted_fires_again(run: Run) -> None:
    """Every job has returned, but the run counts as unfinished, because its end hook has not fired."""
    held = run.hold("hold.second.end")
    controller = run.script(1)
    run.entered("second.end.run.entered")
    controller.send_signal(signal.SIGINT)
    until("a word", lambda: "a second signal leaves" in run.said)
    controller.send_signal(signal.SIGINT)
    assert controller.wait(60) != 0
    assert "RunInterrupted" in run.said
    assert (run.times("second.end.run"), run.times("first.end.run")) == (0, 0)
    held.unlink()
    run.attach()
    assert (run.times("second.end.run"), run.times("first.end.run")) == (1, 1)
    assert run.times("first.return.0") == 1
    assert run.state == "completed"


@pytest.mark.slow
def test_the_first_signal_while_the_run_ends_costs_nothing(run: Run) -> None:
    """The end hook finishes, and so does the run."""
    held = run.hold("hold.second.end")
    controller = run.command(1)
    run.entered("second.end.run.entered")
    controller.send_signal(signal.SIGINT)
    until("a word", lambda: "a second signal leaves" in run.said)
    held.unlink()
    controller.wait(60)
    assert (run.times("second.end.run"), run.times("first.end.run")) == (1, 1)
    assert run.state == "completed"


@pytest.mark.slow
def test_a_signal_in_the_start_hook_sends_nothing(run: Run) -> None:
    """The start hook finishes, no job runs, and the end hook fires."""
    held = run.hold("hold.second.start")
    controller = run.command(2)
    run.entered("second.start.run.entered")
    controller.send_signal(signal.SIGTERM)
    until("a word", lambda: "a second signal leaves" in run.said)
    held.unlink()
    assert controller.wait(60) == 130
    assert list(run.marks.glob("ran.*")) == []
    assert run.times("first.end.run") == 1


@pytest.mark.slow
def test_a_process_that_waits_for_anything_is_ended_by_the_second_signal(run: Run, tmp_path: Path) -> None:
    """Even if a hook swallows the interrupt, the process ends, and says how to go on."""
    (tmp_path / "stubborn.py").write_text(
        "import launcher, signals_app, threading\n"
        "class Stubborn(launcher.Callback):\n"
        "    def on_job_return(self, **kwargs):\n"
        "        (signals_app.MARKS / 'stubborn').touch()\n"
        "        while True:\n"
        "            try:\n"
        "                threading.Event().wait(60)\n"
        "            except BaseException:\n"
        "                pass\n"
        "if __name__ == '__main__':\n"
        "    launcher.multirun(signals_app.work, [{'x': 0}], callbacks=[Stubborn()], folder='out')\n"
    )
    controller = run.start("stubborn.py")
    run.entered("stubborn")
    controller.send_signal(signal.SIGINT)
    until("a word", lambda: "a second signal leaves" in run.said)
    controller.send_signal(signal.SIGINT)
    assert controller.wait(60) == 130
    assert "launcher attach" in run.said
    with JournalReader(tmp_path / "out" / FOLDER) as reader:
        assert [num for num, _ in reader.unhooked_returns(1)] == [0]
    # Nobody is to wait for that hook at the end of this test.
    (tmp_path / "out" / FOLDER / "journal.sqlite").unlink()


@pytest.mark.slow
def test_signals_in_a_flood_of_returns_lose_none(run: Run) -> None:
    """Whenever a signal comes, every job's hooks fire, the end hook fires once, and the controller ends."""
    controller = run.command(200)
    until("returns", lambda: len(list(run.marks.glob("first.return.*.done"))) > 20)
    controller.send_signal(signal.SIGINT)
    assert controller.wait(60) == 130, run.said
    with JournalReader(run.folder / "out" / FOLDER) as reader:
        returned = [event.num for event in reader.all_returned()]
    assert len(returned) > 20
    for num in returned:
        assert run.times(f"first.return.{num}") == run.times(f"second.return.{num}") == 1
    assert run.times("first.end.run") == 1


FULL = """
import launcher.runs.journal, signals_app
from launcher.errors import JournalError

class Journal(launcher.runs.journal.Journal):
    def commit(self):
        if (signals_app.MARKS / "full").exists():
            (signals_app.MARKS / "stalled").touch()
            raise JournalError(f"{self.path}: database or disk is full")
        super().commit()

launcher.runs.journal.Journal = Journal
import launcher.engine
launcher.engine.Journal = Journal
from launcher.cli.main import main
main()
"""


@pytest.mark.slow
def test_a_full_disk_is_left_by_the_second_signal(run: Run) -> None:
    """The first signal says what the controller waits for, and the second one makes it leave.

    Results stay on the hosts, and `attach` collects them.
    """
    full, gate = run.marks / "full", run.hold("gate.1")
    controller = run.start(
        *("-c", FULL, "multirun", "signals_app.py:work", "+x=0,1", "--host", "local/2", "--folder", "out"),
        *("--callback", "signals_app:First"),
    )
    run.entered("first.return.0.done")
    run.entered("ran.1")
    full.touch()
    gate.unlink()
    run.entered("stalled")
    controller.send_signal(signal.SIGINT)
    until("a word", lambda: "a second signal leaves" in run.said)
    assert "disk is full (free some space)" in run.said.partition("a second signal leaves")[0]
    controller.send_signal(signal.SIGINT)
    assert controller.wait(60) == 130, run.said
    assert "launcher attach" in run.said
    assert "Traceback" not in run.said
    full.unlink()
    run.attach()
    assert run.state == "completed", run.said
    assert [run.times(f"first.return.{num}") for num in range(2)] == [1, 1]
    assert run.times("first.end.run") == 1


@pytest.mark.slow
def test_a_disk_that_is_full_from_the_start_is_a_named_error(run: Run) -> None:
    """The error is ours, with the file and what to do."""
    (run.marks / "full").touch()
    controller = run.start("-c", FULL, "run", "signals_app.py:work", "+x=0", "--folder", "out")
    assert controller.wait(60) == 1
    assert "launcher: " in run.said
    assert "disk is full" in run.said
    assert "Traceback" not in run.said
    (run.folder / "out" / FOLDER / "journal.sqlite").unlink()


@pytest.mark.slow
def test_a_bug_in_one_of_our_threads_ends_the_run(run: Run) -> None:
    """The traceback is shown, and the end hook fires. The hosts keep their results for `attach`."""
    gate = run.hold("gate.1")
    broken = (
        "import signals_app, launcher.engine.decider as decider\n"
        "whole = decider.Decider._take_ended\n"
        "def broken(self, at, fact, decided):\n"
        "    return whole(self, at, fact, decided) if not fact.attempt.startswith('1') else 1 / 0\n"
        "decider.Decider._take_ended = broken\n" + CLI
    )
    controller = run.start(
        *("-c", broken, "multirun", "signals_app.py:work", "+x=0,1", "--host", "local/2", "--folder", "out"),
        *("--callback", "signals_app:First"),
    )
    run.entered("ran.1")
    gate.unlink()
    assert controller.wait(60) == 1, run.said
    assert "ZeroDivisionError" in run.said
    assert "in broken" in run.said
    assert run.times("first.end.run") == 1
    assert run.state == "detached"
    run.attach()
    assert run.state == "completed", run.said
    assert run.times("first.return.1") == 1
