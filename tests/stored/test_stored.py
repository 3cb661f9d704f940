"""What other versions stored: it loads, shows, goes on, comes again and is cleaned by this one, whatever has moved since.

`tests/stored/make.py` says how it was made. Each test has the folder as it was left.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stored.make import ROOT
from tests.stored.places import EACH, Stored, put_back

#: What is pickled by value needs the minor Python that pickled it.
_OF_ITS_PYTHON = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="it was pickled by value under Python 3.11")
_FINISHED = {"command": 1, "app": 3, "plugin": 2, "zen": 2, "script": 3, "local": 3, "again": 1}
_DOUBTFUL = "the host went down, or its spool was damaged, when the job was about to start"
_LEFT = ("killed_app", "killed_plain", "killed_script", "detached")
_WITH_FAILED = ("app", "script", "local")


def _marked(*names: str) -> list[Any]:
    by_value = ("script", "local", "killed_script", "zen")
    return [pytest.param(name, marks=_OF_ITS_PYTHON) if name in by_value else name for name in names]


@pytest.fixture(params=EACH)
def stored(request: pytest.FixtureRequest) -> Iterator[Stored]:
    """What a version stored."""
    with put_back(request.param) as stored:
        yield stored


def test_runs_are_listed_and_are_ours(stored: Stored) -> None:
    """Each run is found by the index, with its state; none has to be adopted."""
    states = {Path(run["folder"]).name: run["state"] for run in stored.json("runs")["runs"]}
    assert states == {
        **dict.fromkeys(_FINISHED, "completed"),
        **dict.fromkeys(_WITH_FAILED, "failed"),
        **dict.fromkeys(_LEFT, "died"),
        "detached": "detached",
    }


def test_runs_are_shown(stored: Stored) -> None:
    """Every job with its state; of one its error and what it printed."""
    states = {
        name: [job["state"] for job in stored.json("show", str(stored.folder(name)), "--offline")["jobs"]]
        for name in (*_FINISHED, *_LEFT)
    }
    whole = {name: ["COMPLETED"] * count for name, count in _FINISHED.items()}
    half = {key: ["COMPLETED", "FAILED", "COMPLETED"] for key in _WITH_FAILED}
    assert {name: states[name] for name in _FINISHED} == {**whole, **half}
    for name in _LEFT:
        assert states[name].count("COMPLETED") == (name != "detached")
        assert "FAILED" not in states[name]
    for name in _WITH_FAILED:
        shown = stored.look("show", f"{stored.folder(name)}#1")
        assert "n=-2 is negative" in shown
        assert "Traceback" in shown
    for name in _FINISHED:
        assert "job with n=" in stored.look("logs", f"{stored.folder(name)}#0")


@pytest.mark.parametrize("name", _marked("killed_app", "killed_plain", "killed_script"))
@pytest.mark.slow
def test_a_killed_run_is_taken_up(stored: Stored, name: str) -> None:
    """What its host owes is fetched and told, what died there has its end, what waited runs; nothing runs twice."""
    (ROOT / f"gate-{name}.4").touch()
    with stored.host():
        stored.launcher("attach", str(stored.folder(name)), code=1)
    shown = stored.json("show", str(stored.folder(name)), "--offline")
    *first, last = shown["jobs"]
    assert [job["state"] for job in first] == ["COMPLETED", "COMPLETED", "FAILED"]
    # By the boot of the host: it is the same machine only where the data were made. On another one, a job that was about to start is lost.
    assert first[2]["error"]["kind"] in ("killed", "lost")
    is_lost = last["state"] == "FAILED"
    assert not is_lost or (last["error"]["kind"], last["error"]["message"]) == ("lost", _DOUBTFUL)
    told = [line for line in stored.told() if not line.startswith("by value")]
    assert sorted(told) == sorted(
        [
            "on_job_return 1 1 COMPLETED",
            "on_job_end 3 1 FAILED",
            "on_job_return 2 1 FAILED",
            *([] if is_lost else ["on_job_start 4 1", "ran 4", "on_job_end 4 1 COMPLETED"]),
            f"on_job_return 3 1 {last['state']}",
            f"on_multirun_end 1 COMPLETED COMPLETED FAILED {last['state']}",
        ]
    )
    assert told[-1].startswith("on_multirun_end")


@pytest.mark.slow
def test_a_run_that_was_left_is_taken_up(stored: Stored) -> None:
    """All its results lie on the host: none is computed again."""
    with stored.host():
        stored.launcher("attach", str(stored.folder("detached")))
    assert stored.told() == [
        "on_job_return 0 1 COMPLETED",
        "on_job_return 1 1 COMPLETED",
        "on_multirun_end 1 COMPLETED COMPLETED",
    ]


@pytest.mark.parametrize("name", _marked(*_WITH_FAILED))
@pytest.mark.slow
def test_a_failed_job_is_tried_again(stored: Stored, name: str) -> None:
    """In the same run, as a further attempt, with the hooks that belong to it."""
    with stored.host():
        stored.launcher("retry", str(stored.folder(name)), code=1)
    shown = stored.json("show", str(stored.folder(name)), "--offline")
    assert [len(job["attempts"]) for job in shown["jobs"]] == [1, 2, 1]
    assert "n=-2 is negative" in stored.look("show", f"{stored.folder(name)}#1")
    told = [line for line in stored.told() if not line.startswith("by value")]
    assert told == [
        "on_job_start -2 1",
        "ran -2",
        "on_job_end -2 1 FAILED",
        "on_job_return 1 1 FAILED",
        "on_multirun_end 1 COMPLETED FAILED COMPLETED",
    ]


@pytest.mark.parametrize("name", _marked(*_FINISHED))
@pytest.mark.slow
def test_a_job_is_reproduced(stored: Stored, name: str) -> None:
    """By its run and number it has the same value, to the byte."""
    said = stored.launcher("reproduce", f"{stored.folder(name)}#0", "--folder", str(ROOT / "again"))
    assert "the same value, byte for byte" in said


@pytest.mark.parametrize("pickle", ["config.pickle", "job_return.pickle"])
@pytest.mark.parametrize("name", _marked("app", "plugin", "script", "local"))
@pytest.mark.slow
def test_a_job_is_reproduced_from_its_pickle(stored: Stored, name: str, pickle: str) -> None:
    """`config.pickle` and `job_return.pickle` of an output directory are enough."""
    file = stored.folder(name) / "0/.hydra" / pickle
    assert "the outcome is the same" in stored.launcher("reproduce", str(file), "--folder", str(ROOT / "again"))


@pytest.mark.parametrize("name", ["app", "plugin"])
@pytest.mark.slow
def test_hydra_runs_a_pickled_config_again(stored: Stored, name: str) -> None:
    """Hydra's own `--experimental-rerun` opens what an older version pickled."""
    config = stored.folder(name) / "0/.hydra/config.pickle"
    stored.command(sys.executable, "my_app.py", "--experimental-rerun", str(config))
    assert "ran 1" in stored.told()


_OPEN = """
import pickle, sys
from pathlib import Path
for name in sys.argv[1:]:
    one = pickle.loads(Path(name).read_bytes())
    for returned in one if isinstance(one, list) else [one]:
        print(returned.status.name, returned.cfg.n, returned.task_name, returned.error and returned.error.type)
        print(returned.return_value if returned.status.name == "COMPLETED" else repr(returned._return_value))
"""


def test_job_returns_are_unpickled_by_anybody(stored: Stored) -> None:
    """Plain pickle loads what a callback pickled on a host, and what a script pickled here."""
    names = [stored.folder(name) / "0/.hydra/job_return.pickle" for name in ("app", "plugin", "script")]
    said = stored.command(sys.executable, "-c", _OPEN, *map(str, names)).splitlines()
    assert said[0::2] == ["COMPLETED 1 my_app None"] * 2 + ["COMPLETED 1 script None"]
    assert said[1::2] == ["{'square': 1}"] * 3


def test_job_returns_of_a_script_are_unpickled(stored: Stored) -> None:
    """A list of JobReturns that a script kept, one of which is of a failed job."""
    said = stored.command(
        sys.executable,
        "-c",
        f"from script import Conf\n{_OPEN}",
        str(stored.folder("script") / "returns.pickle"),
    )
    assert said.splitlines() == [
        "COMPLETED 1 script None",
        "{'square': 1}",
        "FAILED -2 script ValueError",
        "ValueError('n=-2 is negative')",
        "COMPLETED 3 script None",
        "{'square': 9}",
    ]


@pytest.mark.slow
def test_what_is_on_hosts_is_cleaned(stored: Stored) -> None:
    """Spools whose results nobody has collected are kept, unless they are given up; the rest goes."""
    runs = ROOT / "host/state/hydra-remote-launcher/runs"
    before = sorted(path.name for path in runs.iterdir())
    with stored.host():
        stored.launcher("clean", "--yes", "--older-than", "0s")
        kept = sorted(path.name for path in runs.iterdir())
        stored.launcher("clean", "--yes", "--older-than", "0s", "--force")
    owed = {run["run"] for run in stored.json("runs")["runs"] if run["state"] in ("died", "detached")}
    assert kept == sorted(owed & set(before))
    assert list(runs.iterdir()) == []
