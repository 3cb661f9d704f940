"""The first steps of a run: which earlier run leaves the user's index, and what an index that cannot be written costs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher.runs import index
from launcher.session.opening import claim_folder, forget_earlier, index_run


def entry(run: str, folder: Path) -> index.Entry:
    """A run of the user."""
    return index.Entry(run, folder, 1.0, "RUN", "app", False, "s")


@pytest.mark.parametrize("is_its_own", [True, False])
def test_an_earlier_run_of_the_folder_leaves_the_index(
    is_its_own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its journal was in this folder. A run of the same id in another folder stays, because a journal may say any id."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "here").mkdir()
    run = "20260101-000000-abcdef"
    index.add(entry(run, tmp_path / ("here" if is_its_own else "there")))
    claim: Any = SimpleNamespace(folder=tmp_path / "here", earlier=run)
    forget_earlier(claim)
    assert (index.look_up(run) is None) == is_its_own


def test_a_folder_is_claimed_once(tmp_path: Path) -> None:
    """By the setup, if nobody has claimed it before."""
    claim: Any = SimpleNamespace(folder=tmp_path, earlier=None)
    setup: Any = SimpleNamespace(take_folder=lambda: ("in the folder", claim))
    assert claim_folder(setup, None) == ("in the folder", claim)
    assert claim_folder(setup, claim) == (setup, claim)


def test_an_index_that_cannot_be_written_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on. The warning says how the run can be named and resumed."""
    (tmp_path / "state").write_text("no folder")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    warnings: list[tuple[str, str]] = []
    setup: Any = SimpleNamespace(run_id="r", folder=tmp_path, mode="RUN", task_name="app", is_reproduction=False)
    hooks: Any = SimpleNamespace(warn=lambda *words: warnings.append(words))
    index_run(setup, hooks, 1.0, "s")
    ((source, text),) = warnings
    assert source == "index"
    assert "only by its folder" in text
    assert "launcher runs --adopt" in text
