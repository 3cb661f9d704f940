"""The allocations that a run has: what its own log, theirs, and Slurm tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_agent.agent.spool.log import SpoolLog
from remote_agent.slurm.batch.batch import Listed, Phase
from remote_agent.slurm.pool.incarnations import FOLDER, Incarnations
from remote_agent.slurm.pool.pool import Pool
from remote_agent.slurm.shared_disk.shared_files import SharedFiles
from remote_agent.slurm.shared_disk.turns import Turn
from remote_agent.slurm.submitter.submitter_log import Asked, SubmitterLog
from remote_agent.slurm.submitter.supply import Supply


class Run:
    """A run's folder with one request of four for the class `c`, job id 100."""

    def __init__(self, folder: Path) -> None:
        self.files = SharedFiles(str(folder), "submitter-1")
        self.log = SubmitterLog(Turn(self.files), lambda: True)
        self.incarnations = Incarnations(self.files)
        self.pool = Pool(self.files, "submitter-1")
        self.supply = Supply(self.log, self.incarnations, self.pool)
        self.log.requests["r"] = Asked(4, "c", 2, 2)
        self.log.answered["r"] = "100"
        self._logs: list[SpoolLog] = []

    def allocation(self, job: int, *records: dict[str, Any]) -> None:
        """What the log of an allocation says."""
        self.files.make_folder(FOLDER, f"{job}.0")
        log = SpoolLog(self.files.path(FOLDER, f"{job}.0", "log"))
        for record in ({"r": "began", "node": "n1", "at": 1.0, "request": "r"}, *records):
            log.append(record)
        log.flush()
        log.close()
        self.incarnations.advance(0.0)

    def listed(self, **phases: Phase) -> None:
        """What Slurm lists: `j7=Phase.ALIVE`."""
        self.supply.polled(["r"], [Listed(name[1:], "r", phase, "", "", "", "") for name, phase in phases.items()])


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A run."""
    made = Run(tmp_path)
    yield made
    made.log.file.close()


def test_all_of_a_request_count_until_slurm_or_their_logs_say_more(run: Run) -> None:
    """Those that have left do not count. A slot of one that has begun is free until it has taken a job."""
    assert run.supply.of("c", is_many=True) == (4, 0)
    assert (run.supply.of("other", is_many=True), run.supply.outstanding_of("other")) == ((0, 0), 0)
    assert (run.supply.outstanding(), run.supply.at_once()) == (4, 2)
    run.allocation(101)
    run.allocation(102, {"r": "left", "why": "no job waits"})
    assert run.supply.of("c", is_many=True) == (2, 2)
    assert run.supply.of("c", is_many=False) == (2, 1)
    taker = Pool(SharedFiles(run.files.root, "101.0"), "101.0")
    assert taker.take("3.1")
    assert run.supply.of("c", is_many=True) == (2, 1)
    assert run.supply.of("c", is_many=False) == (2, 0)


def test_what_slurm_lists_counts(run: Run) -> None:
    """It may have a request twice, and others may have cancelled some. What is said in the logs afterwards counts, too."""
    run.allocation(101)
    run.listed(j101=Phase.ALIVE, j102=Phase.ALIVE, j100=Phase.WAITING, j99=Phase.WAITING, j98=Phase.ENDED)
    assert run.supply.outstanding() == 4
    assert run.supply.of("c", is_many=False) == (3, 1)
    run.allocation(102, {"r": "left", "why": "no job waits"})
    assert run.supply.outstanding() == 3
    run.listed(j102=Phase.ALIVE)
    assert run.supply.outstanding() == 0


def test_those_that_wait_are_withdrawn_by_request(run: Run) -> None:
    """As far as Slurm lists them, once, and only if none of them is needed."""
    assert run.supply.withdraw("c", 4) == []
    run.listed(j101=Phase.ALIVE, j100=Phase.WAITING, j99=Phase.WAITING, j98=Phase.WAITING)
    assert run.supply.withdraw("other", 4) == []
    assert run.supply.withdraw("c", 2) == []
    assert not run.supply.is_withdrawn("r")
    assert run.supply.withdraw("c", 3) == ["r"]
    assert run.supply.withdraw("c", 9) == []
    assert run.supply.is_withdrawn("r")
    assert run.supply.outstanding() == 1
