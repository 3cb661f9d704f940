"""A request to cancel is read whole, once, by the controller that drives the run."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from launcher.runs.cancel_requests import CancelRequest, ask, pop_all
from launcher.runs.journal import FOLDER


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder."""
    (tmp_path / FOLDER).mkdir()
    return tmp_path


def test_what_is_asked_is_read_once(folder: Path) -> None:
    """In any order, and never again."""
    asked = [CancelRequest(None, True, "enough"), CancelRequest(3), CancelRequest(0, why="\u00e9")]
    for one in asked:
        ask(folder, one)
    assert sorted(pop_all(folder), key=str) == sorted(asked, key=str)
    assert pop_all(folder) == []


def test_only_the_user_may_ask(folder: Path) -> None:
    """Folder and files are private."""
    ask(folder, CancelRequest())
    requests = folder / FOLDER / "requests"
    (file,) = requests.iterdir()
    assert (stat.S_IMODE(requests.stat().st_mode), stat.S_IMODE(file.stat().st_mode)) == (0o700, 0o600)


def test_a_run_that_nobody_asked_anything_has_none(folder: Path) -> None:
    """Nor has a folder that is gone."""
    assert pop_all(folder) == []
    assert pop_all(folder / "nowhere") == []
    with pytest.raises(OSError, match="nowhere"):
        ask(folder / "nowhere", CancelRequest())


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", '{"version": 2, "what": "cancel"}', '{"version": 1, "what": "something"}', "\x00\xff"],
)
def test_what_is_no_request_is_passed_over(folder: Path, content: str) -> None:
    """One of a later version is not understood, and half a file is no request."""
    ask(folder, CancelRequest(1))
    (folder / FOLDER / "requests" / "x.json").write_text(content)
    assert pop_all(folder) == [CancelRequest(1)]


def test_a_request_that_is_being_written_is_left(folder: Path) -> None:
    """It gets its name when it is whole."""
    ask(folder, CancelRequest(1))
    half = folder / FOLDER / "requests" / ".half"
    half.write_text("{")
    pop_all(folder)
    assert half.exists()


@pytest.mark.parametrize(("given", "read"), [("1", None), (None, None), (2, 2)])
def test_a_number_is_a_number(folder: Path, given: object, read: int | None) -> None:
    """Anything else means the run."""
    path = folder / FOLDER / "requests"
    path.mkdir()
    (path / "a.json").write_text(json.dumps({"version": 1, "what": "cancel", "num": given}))
    assert pop_all(folder) == [CancelRequest(read)]
    assert os.listdir(path) == []
