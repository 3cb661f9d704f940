"""`launcher demo`: it works from an installed wheel in an empty folder, and reports a broken promise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.demo.demo import CASES, Demo, Promise
from launcher.demo.server import DemoServer

ROOT = Path(__file__).parents[3]
MAIN = "from launcher.cli.main import main; main()"


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command, with its own home and temporary folders."""
    for name in ("home", "tmp", "empty"):
        (folder / name).mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
    return subprocess.run(
        [sys.executable, "-c", MAIN, "demo", *arguments],
        cwd=folder / "empty",
        env={**environment, "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_the_demo_keeps_every_promise_and_leaves_nothing(tmp_path: Path) -> None:
    """The exit code is 0, hooks fire in order on both sides, failed and killed jobs have their end hooks, and only
    requested files are left.
    """
    kept = tmp_path / "kept"
    done = demo(tmp_path, "--folder", str(kept))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "BROKEN" not in done.stdout
    assert "promises kept" in done.stdout
    lines = done.stdout.splitlines()
    hooks = [line for line in lines if line.startswith("hook ")]
    assert hooks[:2] == [
        "hook on_multirun_start of first (controller)",
        "hook on_multirun_start of second (controller)",
    ]
    assert hooks[-2:] == ["hook on_multirun_end of second (controller)", "hook on_multirun_end of first (controller)"]
    for case in ("diverges", "killed"):
        ends = [line for line in hooks if line.startswith("hook on_job_end") and f"job {CASES.index(case)})" in line]
        assert [line.split()[3] for line in ends] == ["second", "first"]
    assert list((tmp_path / "empty").iterdir()) == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert list((tmp_path / "home").rglob("*")) == []
    assert "on_job_end FAILED" in (kept / str(CASES.index("killed")) / "diary.txt").read_text()
    assert not done.stderr


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    """It is refused before anything starts."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").touch()
    done = demo(tmp_path, "--folder", str(tmp_path / "full"))
    assert done.returncode == 2
    assert "not empty" in done.stderr


def test_a_broken_promise_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo checks its promises itself."""
    lines: list[str] = []

    def sweep(self: Demo, server: DemoServer, folder: Path) -> None:
        """A sweep without any results."""

    monkeypatch.setattr(Demo, "_sweep", sweep)
    monkeypatch.setattr(
        Demo, "_check_all", lambda self, *_: self._promise("all is well", is_kept=False, why="it is not")
    )
    monkeypatch.setattr(Demo, "_check_host_key", lambda self, *_: None)
    shown = Demo(lines.append)
    assert shown.run() is False
    assert Promise("all is well", is_kept=False, why="it is not") in shown.promises
    assert any("BROKEN  all is well" in line for line in lines)
    assert lines[-1] == "1 of 2 promises were broken"


def test_a_host_key_that_nobody_checked_would_be_noticed(tmp_path: Path) -> None:
    """The check of the host key fails if a server with an unknown key is accepted."""
    shown = Demo(lambda line: None)
    with DemoServer() as server:
        shown._check_host_key(server, tmp_path)
        (tmp_path / "again").mkdir()
        (tmp_path / "again" / "empty_known_hosts").symlink_to(server.known_hosts)
        shown._check_host_key(server, tmp_path / "again")
    assert [promise.is_kept for promise in shown.promises] == [True, False]


@pytest.mark.slow
def test_interrupted_it_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C ends the server, the agent and the jobs, and removes the files."""
    (tmp_path / "tmp").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, "demo"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("host demo: ready"):
                process.send_signal(signal.SIGINT)
                break
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert list((tmp_path / "tmp").iterdir()) == []
