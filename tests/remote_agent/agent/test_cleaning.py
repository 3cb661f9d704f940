"""What runs have left on a host: it is listed first, and only what is safe to remove is removed."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from remote_agent.agent.cleaning import Cleaning
from remote_agent.agent.spool.log import SpoolLog
from remote_agent.system.host import folders


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """The spool of a run; the host keeps its things below `work`."""
    return Path(folders("r1", "h", str(tmp_path / "work")).spool)


@pytest.fixture
def cleaning(tmp_path: Path, spool: Path) -> Cleaning:
    """The host of that spool."""
    return Cleaning(str(tmp_path / "work"))


def _log(spool: Path, *records: str) -> None:
    log = SpoolLog(str(spool / "log"))
    for record in records:
        log.append({"r": record, "a": "0.1"})
    log.close()


def _id(spool: Path) -> str:
    return f"spool/r1/{spool.name}"


def test_a_spool_is_listed_with_what_it_holds(cleaning, spool):
    """A result that no controller has, and a job that has none yet, are counted."""
    _log(spool, "accepted", "final")
    (item,) = cleaning.items()
    assert (item["id"], item["run"], item["uncollected"], item["unfinished"]) == (_id(spool), "r1", 1, 0)
    assert not item["is_running"]


@pytest.mark.parametrize("records", [("accepted",), ("accepted", "final")])
def test_a_spool_with_results_goes_by_force_alone(cleaning, spool, records):
    """Without it the answer says what is in it, and which command collects it."""
    _log(spool, *records)
    kept = cleaning.remove([_id(spool)], force=False)
    assert kept["removed"] == []
    assert "launcher attach" in kept["kept"][0][1]
    assert spool.exists()
    assert cleaning.remove([_id(spool)], force=True) == {"removed": [_id(spool)], "kept": []}
    assert not spool.exists()


def test_a_spool_whose_results_were_collected_goes(cleaning, spool):
    """Nothing in it is needed."""
    _log(spool, "accepted", "final", "acked")
    assert cleaning.remove([_id(spool)], force=False)["removed"] == [_id(spool)]


def test_nothing_goes_that_a_running_agent_needs(cleaning, spool, tmp_path):
    """Neither its spool nor the code that it may ask for."""
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


@pytest.mark.parametrize("item", ["spool/../..", "spool/r1/other", "bundle/../blobs", "bundle/none", "other"])
def test_a_name_that_is_not_on_the_list_removes_nothing(cleaning, spool, item):
    """No path leads out of the folders."""
    assert cleaning.remove([item], force=True) == {"removed": [], "kept": [[item, "no item of that name"]]}
    assert spool.exists()
