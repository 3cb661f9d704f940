"""Cleaning a host: everything that runs have left is listed, and only what is safe to remove is removed."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from remote_agent.agent.cleaning import Cleaning
from remote_agent.agent.environments.fetched_pythons import FetchedPythons
from remote_agent.agent.environments.store.store import LAYOUT
from remote_agent.agent.spool.log import SpoolLog
from remote_agent.agent.spool.other_runs import may_run
from remote_agent.protocol.specs.environment import EnvironmentSpec
from remote_agent.system.host import folders


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """The spool of a run. Everything on the host is below `work`."""
    return Path(folders("r1", "h", str(tmp_path / "work")).spool)


@pytest.fixture
def cleaning(tmp_path: Path, spool: Path) -> Cleaning:
    """The cleaning of that spool's host."""
    return Cleaning(str(tmp_path / "work"))


def _log(spool: Path, *records: str) -> None:
    log = SpoolLog(str(spool / "log"))
    for record in records:
        log.append({"r": record, "a": "0.1"})
    log.close()


def _id(spool: Path) -> str:
    return f"spool/r1/{spool.name}"


def test_a_spool_is_listed_with_what_it_holds(cleaning, spool):
    """It counts results that no controller has, and jobs without a result."""
    _log(spool, "accepted", "final")
    (item,) = cleaning.items()
    assert (item["id"], item["run"], item["uncollected"], item["unfinished"]) == (_id(spool), "r1", 1, 0)
    assert not item["is_running"]


@pytest.mark.parametrize("records", [("accepted",), ("accepted", "final")])
def test_a_spool_with_results_is_removed_only_by_force(cleaning, spool, records):
    """Otherwise the answer says what is in it, and which command collects it."""
    _log(spool, *records)
    kept = cleaning.remove([_id(spool)], force=False)
    assert kept["removed"] == []
    assert "launcher attach" in kept["kept"][0][1]
    assert spool.exists()
    assert cleaning.remove([_id(spool)], force=True) == {"removed": [_id(spool)], "kept": []}
    assert not spool.exists()


def test_a_spool_whose_results_were_collected_is_removed(cleaning, spool):
    """Nothing in it is needed."""
    _log(spool, "accepted", "final", "acked")
    assert cleaning.remove([_id(spool)], force=False)["removed"] == [_id(spool)]


def test_nothing_that_a_running_agent_needs_is_removed(cleaning, spool, tmp_path):
    """Neither its spool, nor the code that it may request."""
    (tmp_path / "work" / "cache" / "blobs").mkdir(parents=True)
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(spool)  # the whole path may be longer than a socket's address
        try:
            listener.bind("agent.sock")
        finally:
            os.chdir(here)
        listener.listen()
        answer = cleaning.remove([_id(spool), "code"], force=True)
    assert answer["removed"] == []
    assert ["running" in why for _, why in answer["kept"]] == [True, True]


def test_code_is_contents_and_kept_trees(cleaning, tmp_path):
    """One item, which goes whole."""
    cache = tmp_path / "work" / "cache"
    for name in ("blobs/ab/one", "trees/1-2/code/two", "trees/1-2/index"):
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_bytes(b"x")
    assert [(item["id"], item["files"]) for item in cleaning.items() if item["kind"] == "code"] == [("code", 3)]
    assert cleaning.remove(["code"], force=False) == {"removed": ["code"], "kept": []}
    assert os.listdir(cache) == []


@pytest.mark.parametrize("item", ["spool/../..", "spool/r1/other", "bundle/../blobs", "bundle/none", "other"])
def test_a_name_that_is_not_on_the_list_removes_nothing(cleaning, spool, item):
    """No path leads out of the folders."""
    assert cleaning.remove([item], force=True) == {"removed": [], "kept": [[item, "no item of that name"]]}
    assert spool.exists()


KEY = "b" * 64


@pytest.fixture
def environment(tmp_path: Path, spool: Path) -> Path:
    """An environment that the spool's run uses. It shares a file with uv's cache."""
    cache = tmp_path / "work" / "cache"
    folder = cache / "envs" / KEY
    folder.mkdir(parents=True)
    (folder / "environment.json").write_text("x" * 5000)
    (cache / "uv").mkdir()
    (cache / "uv" / "module.py").write_text("y" * 50_000)
    os.link(cache / "uv" / "module.py", folder / "module.py")
    (cache / "envs" / ".use" / KEY).mkdir(parents=True)
    (cache / "envs" / ".use" / KEY / f"r1.{spool.name}").touch()
    return folder


def test_an_environment_is_listed_with_its_own_and_shared_bytes(cleaning: Cleaning, environment: Path) -> None:
    """Its age counts from its last use."""
    os.utime(environment, (5, 5))
    (use,) = (environment.parent / ".use" / KEY).iterdir()
    os.utime(use, (1_000_000, 1_000_000))
    items = {item["kind"]: item for item in cleaning.items()}
    assert items["environment"]["id"] == f"environment/{KEY}"
    assert 5000 <= items["environment"]["bytes"] < 50_000 <= items["environment"]["shared"]
    assert items["environment"]["changed"] == 1_000_000
    assert items["environment"]["users"] == []
    assert items["packages"]["bytes"] >= 50_000


def test_an_environment_in_which_a_job_may_run_stays(cleaning: Cleaning, spool: Path, environment: Path) -> None:
    """Even if its agent is gone. When its results are there, it can be removed."""
    _log(spool, "accepted")
    kept = cleaning.remove([f"environment/{KEY}"], force=True)
    assert kept == {"removed": [], "kept": [[f"environment/{KEY}", "jobs of run r1 may still run in it"]]}
    assert environment.exists()
    _log(spool, "final")
    assert cleaning.remove([f"environment/{KEY}", "packages"], force=False)["kept"] == []
    assert not environment.exists()
    assert [item["kind"] for item in cleaning.items()] == ["spool"]


@pytest.mark.parametrize("item", ["environment/../x", "environment/.use", "environment/", f"environment/{'c' * 64}"])
def test_a_folder_that_is_no_environment_is_not_removed(cleaning: Cleaning, environment: Path, item: str) -> None:
    """Whatever its name is."""
    assert cleaning.remove([item], force=True)["kept"] == [[item, "no item of that name"]]
    assert environment.exists()


def test_a_run_of_another_machine_may_still_run(cleaning, spool):
    """Machines that share a home share environments, and no agent of another one can be reached from here."""
    _log(spool, "accepted", "final", "acked")
    assert not may_run(str(spool))
    (spool / "runtime.other-machine").write_text("/run/user/1/there")
    assert may_run(str(spool))
    assert not may_run(str(spool / "gone"))


def test_a_fetched_python_goes_after_the_environments_that_are_made_from_it(cleaning, tmp_path: Path) -> None:
    """As long as there is one, it stays; all of it may go with one request, because environments are listed first."""
    cache, key = tmp_path / "work" / "cache", "b" * 64
    pythons = FetchedPythons(str(cache))
    name = "cpython-3.12.4-linux-x86_64-gnu"
    (cache / "pythons" / name / "bin").mkdir(parents=True)
    pythons.keep(name)
    (cache / "envs" / key).mkdir(parents=True)
    spec = EnvironmentSpec(key, f"uv:{name}", [], "d" * 64, 1, "c" * 64, 600.0)
    (cache / "envs" / key / "environment.json").write_text(json.dumps({"layout": LAYOUT, "spec": spec.to_json()}))
    python = f"python/{name}"
    why = f"environment {key[:12]} is made from it"
    assert cleaning.remove([python], force=True) == {"removed": [], "kept": [[python, why]]}
    ids = [item["id"] for item in cleaning.items() if item["kind"] != "spool"]
    assert ids == [f"environment/{key}", python]
    assert cleaning.remove(ids, force=False) == {"removed": ids, "kept": []}
    assert pythons.names() == []


def test_a_python_that_was_not_fetched_to_its_end_goes(cleaning, tmp_path: Path) -> None:
    """Other things in that folder are uv's own, and no items."""
    pythons = tmp_path / "work" / "cache" / "pythons"
    for name in ("cpython-3.12.4-linux-x86_64-gnu", ".temp"):
        (pythons / name).mkdir(parents=True)
    (pythons / "cpython-3.12-linux-x86_64-gnu").symlink_to("cpython-3.12.4-linux-x86_64-gnu")
    (item,) = [item for item in cleaning.items() if item["kind"] != "spool"]
    assert (item["kind"], cleaning.remove([item["id"]], force=False)["kept"]) == ("python", [])
    assert [one["kind"] for one in cleaning.items()] == ["spool"]
