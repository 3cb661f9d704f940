"""Programs of a build have their time, and nothing of them is left."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from remote_agent.agent.environments.programs import BuildError, Programs
from tests.remote_agent.agent.environments.sites import Lives, script


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "uv",
            r"(?s)`uv pip install` did not end within .*waiting\n    next: .*file system hangs.*environment_timeout",
        ),
        pytest.param(
            "python",
            r"(?s)python -I` did not end.*waiting\n    next: start that Python there by hand",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_does_not_end_is_ended_with_its_children(name: str, told: str, tmp_path: Path) -> None:
    """The message has what it printed, and what to do; for uv and for the Python that was made."""
    lives = Lives(tmp_path / "lives")
    program = script(tmp_path / name, lives.hanging("echo waiting"))
    with pytest.raises(BuildError, match=told):
        Programs(str(tmp_path), limit=1.0).run([program, *(["pip", "install"] if name == "uv" else [])])
    lives.wait_ended()


def test_a_stop_ends_it_at_once(tmp_path: Path) -> None:
    """With whatever it has started; and nothing more is started then."""
    lives = Lives(tmp_path / "lives")
    uv = script(tmp_path / "uv", lives.hanging())
    programs = Programs(str(tmp_path), limit=600)
    failed: list[str] = []

    def run() -> None:
        try:
            programs.run([uv, "venv"])
        except BuildError as error:
            failed.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    lives.wait_begun()
    programs.stop()
    thread.join(60)
    lives.wait_ended()
    assert failed == ["the run ended while it was built"]
    with pytest.raises(BuildError, match="the run ended"):
        programs.run([uv, "venv"])


def test_a_signal_is_told(tmp_path: Path) -> None:
    """Such as that of a system that is short of memory."""
    uv = script(tmp_path / "uv", "echo last words; kill -9 $$")
    with pytest.raises(BuildError, match=r"`uv venv` ended with signal 9; it printed:\nlast words"):
        Programs(str(tmp_path), limit=600).run([uv, "venv"])
