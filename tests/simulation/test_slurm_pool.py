"""Histories of a pool on a disk that is late and forgetful, and the promises that hold in each of them."""

from __future__ import annotations

import os
import random
from types import ModuleType

import pytest

from remote_agent.protocol.wire import Frame
from remote_agent.slurm.pool import incarnations
from remote_agent.slurm.pool.pool import Pool
from remote_agent.slurm.shared_disk.shared_files import SharedFiles
from tests.simulation import slurm_world
from tests.simulation.late_disk import LATE, LateDisk, Machine
from tests.simulation.slurm_world import World
from tests.specs import job_spec

_FIRST = int(os.environ.get("SIMULATION_FIRST_SEED", "0"))
#: One takes 25 ms, so that ten thousand are four minutes on a machine that does nothing else.
_HISTORIES = int(os.environ.get("SIMULATION_POOL_HISTORIES", "3000"))
#: So many are one test. pytest ends a test that takes five minutes.
_PART = 500


def check(seed: int) -> None:
    """Fail if the history of this seed breaks a promise."""
    try:
        World(seed).run()
    except AssertionError as error:
        pytest.fail(f"seed {seed}: {error}", pytrace=False)


def test_some_histories():
    """No attempt begins twice, none that was cancelled begins, none is forgotten, and no result is made up. End hooks fire once, also if their
    allocation died, and one submitter writes at a time.
    """
    for seed in range(_FIRST, _FIRST + 30):
        check(seed)


@pytest.mark.simulation
@pytest.mark.parametrize("first", range(_FIRST + 30, _FIRST + 30 + _HISTORIES, _PART))
def test_many_histories(first: int):
    """The same in many more."""
    for seed in range(first, min(first + _PART, _FIRST + 30 + _HISTORIES)):
        check(seed)


@pytest.mark.parametrize(
    ("module", "name", "value", "broken"),
    [
        pytest.param(
            incarnations,
            "SETTLE",
            0.0,
            r"had begun|said not to|more than one|before the end|began after|again",
            id="verdicts",
        ),
        pytest.param(slurm_world, "SEEN", 0.0, "writes after", id="turns", marks=pytest.mark.simulation),
        pytest.param(
            slurm_world, "take_owed", lambda *_: iter(()), "forgotten", id="heirs", marks=pytest.mark.simulation
        ),
        pytest.param(
            slurm_world,
            "holders",
            lambda takers: {one: (9, takers[one]) for one in takers},
            "forgotten|again|has no result",
            id="holders",
            marks=pytest.mark.simulation,
        ),
    ],
)
def test_a_rule_that_is_not_kept_is_found(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, value: object, broken: str
):
    """The histories have teeth: without the wait for a log that is seen late, without that for a turn, and without heirs, a promise breaks."""
    monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(slurm_world, "STEPS", 1000)
    with pytest.raises(AssertionError, match=broken):
        for seed in range(400):
            World(seed).run()


def test_the_disk_is_late_and_forgetful():
    """The model can do what it is there for: a name that others see late, and requests that fail though they were done."""
    disk = LateDisk(random.Random(1), faults=0.0)
    one, other = Machine(disk), Machine(disk)
    assert other.names("/run") == []
    disk.now = 1.0
    one.create("/run/x", b"")
    assert one.names("/run") == ["x"]
    assert any(other.names("/run") == [] for _ in range(1))
    disk.now += LATE
    assert other.names("/run") == ["x"]
    disk.faults = 1.0
    outcomes = set()
    for number in range(50):
        try:
            one.link("/run/x", f"/run/{number}")
        except OSError:
            outcomes.add(disk.has(f"/run/{number}"))
    assert outcomes == {True, False}


def test_a_job_is_read_as_it_was_put_in():
    """On such a disk, too, a job that can be read is whole."""
    disk = LateDisk(random.Random(2), faults=0.0)
    pool = Pool(SharedFiles("/run", "one", Machine(disk)), "one")
    spec = job_spec().to_json()
    pool.put("default", "3.1", {"t": "job", "spec": spec, "payload_blob": None, "last": False}, b"payload")
    found = pool.job("default", "3.1")
    assert found == Frame({"t": "job", "spec": spec, "payload_blob": None, "last": False}, b"payload")
