"""What runs on a host now, as its spools say it."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote_agent.agent import use_listing
from remote_agent.agent.spool.log import SpoolLog
from remote_agent.agent.use_listing import UseListing


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spool whose agent runs."""
    monkeypatch.setattr(use_listing, "is_running", lambda path: Path(path).name == "h")
    folder = tmp_path / "r1" / "h"
    folder.mkdir(parents=True)
    return folder


def no_cluster(run: str, host: str, spool: str) -> dict[str, dict[str, object]]:
    raise AssertionError("this is no run on a batch system")


def write(spool: Path, *records: dict[str, object]) -> None:
    log = SpoolLog(str(spool / "log"))
    for record in records:
        log.append(record)
    log.close()


def runs(listing: UseListing, *spools: Path) -> list[dict[str, object]]:
    found = listing.list_use((str(path), path.parent.name, path.name) for path in spools)
    made: list[dict[str, object]] = found["runs"]
    return made


def test_jobs_by_their_last_record(spool: Path) -> None:
    """Waiting, running since when, given back, and ended ones."""
    write(
        spool,
        *({"r": "accepted", "a": f"{num}.1"} for num in range(6)),
        *({"r": "claimed", "a": f"{num}.1"} for num in range(5)),
        *({"r": "started", "a": f"{num}.1", "at": 100.0 + num} for num in range(4)),
        {"r": "final", "a": "0.1"},
        {"r": "acked", "a": "1.1"},
        {"r": "unclaimed", "a": "4.1"},
    )
    (found,) = runs(UseListing(no_cluster), spool)
    assert found == {
        "run": "r1",
        "host": "h",
        "queued": 2,
        "running": 2,
        "jobs": [["2.1", 102.0], ["3.1", 103.0]],
    }


def test_a_run_whose_agent_has_ended_is_left_out(spool: Path) -> None:
    """Its spool may still have results."""
    other = spool.parent / "other"
    other.mkdir()
    assert [one["host"] for one in runs(UseListing(no_cluster), other, spool)] == ["h"]


def test_a_log_is_read_again_only_when_it_has_changed(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep's log is large, and somebody looks every other second."""
    listing, read = UseListing(no_cluster), []
    scan = use_listing.scan
    monkeypatch.setattr(use_listing, "scan", lambda path: read.append(path) or scan(path))
    write(spool, {"r": "accepted", "a": "0.1"})
    assert [runs(listing, spool)[0]["queued"] for _ in range(3)] == [1, 1, 1]
    (spool / "log").unlink()
    write(spool, {"r": "accepted", "a": "0.1"}, {"r": "accepted", "a": "1.1"})
    assert runs(listing, spool)[0]["queued"] == 2
    assert len(read) == 2


def test_memory_and_load_of_the_host(spool: Path) -> None:
    """Free memory is a part of all memory."""
    found = UseListing(no_cluster).list_use([])
    assert 0 <= found["memory_free"] <= found["memory"]
    assert found["cpus"] >= 1
    assert found["load"] >= 0


def test_a_run_on_a_batch_system_says_it_itself(spool: Path) -> None:
    """Its allocations have the logs of its jobs."""
    (spool / "claims").mkdir()
    states = {
        "0.1": {"state": "final", "started_at": 1.0},
        "1.1": {"state": "running", "started_at": 2.0},
        "2.1": {"state": "queued", "started_at": None},
    }
    asked: list[tuple[str, ...]] = []
    (found,) = runs(UseListing(lambda *about: asked.append(about) or states), spool)  # type: ignore[func-returns-value]
    assert found == {"run": "r1", "host": "h", "queued": 1, "running": 1, "jobs": [["1.1", 2.0]]}
    assert asked == [("r1", "h", str(spool))]
