"""The pool: an attempt is taken once and for ever. `tests/simulation` has it on a disk that is late and forgetful."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from remote_agent.slurm.pool.pool import Pool, Stop
from remote_agent.slurm.shared_disk.shared_files import FileOperations, SharedFiles
from tests.specs import job_spec


def pool_of(folder: Path, taker: str, operations: FileOperations | None = None) -> Pool:
    """A process's view of the pool."""
    return Pool(SharedFiles(str(folder), taker, operations), taker)


def put(pool: Pool, num: int, payload: bytes = b"payload") -> str:
    """Put the first attempt at a job in."""
    spec = job_spec(num=num, attempt=1)
    pool.put("default", spec.attempt_id, {"t": "job", "spec": spec.to_json(), "payload_blob": None}, payload)
    return spec.attempt_id


def test_jobs_wait_in_their_order_until_one_is_taken(tmp_path: Path):
    """By number, not by name. What is taken waits no more, for anybody."""
    submitter, allocation = pool_of(tmp_path, "submitter"), pool_of(tmp_path, "22.0")
    for num in (10, 9, 2):
        put(submitter, num)
    assert allocation.classes() == ["default"]
    assert allocation.waiting("default") == ["2.1", "9.1", "10.1"]
    assert allocation.take("2.1")
    assert submitter.waiting("default") == ["9.1", "10.1"]
    assert submitter.takers() == {"2.1": "22.0"}


def test_an_attempt_is_taken_once(tmp_path: Path):
    """Whoever asks later is told no. Who has it is told yes however often it asks. So it is with a cancel, which takes an attempt, too."""
    submitter, one, other = (pool_of(tmp_path, name) for name in ("submitter", "22.0", "23.0"))
    put(submitter, 3)
    put(submitter, 4)
    assert one.take("3.1")
    assert one.take("3.1")
    assert other.take("3.1") is False
    assert submitter.take("4.1")
    assert one.take("4.1") is False


def test_a_job_that_is_put_in_twice_stays_as_it_was(tmp_path: Path):
    """A controller that sends it again changes nothing, also when it was taken in the meantime."""
    submitter, allocation = pool_of(tmp_path, "submitter"), pool_of(tmp_path, "22.0")
    put(submitter, 3)
    assert allocation.take("3.1")
    put(submitter, 3, b"another")
    assert allocation.waiting("default") == []
    found = allocation.job("default", "3.1")
    assert found is not None
    assert found.payload == b"payload"
    assert allocation.job("default", "4.1") is None


def test_what_is_forgotten_never_starts_again(tmp_path: Path):
    """Its claim stays when its files are gone."""
    submitter, allocation = pool_of(tmp_path, "submitter"), pool_of(tmp_path, "22.0")
    put(submitter, 3)
    assert allocation.take("3.1")
    submitter.stop("3.1", Stop("cancelled", kill=False, why="why"))
    submitter.forget("3.1")
    assert submitter.attempts("default") == []
    assert submitter.stops() == {}
    put(submitter, 3)
    assert pool_of(tmp_path, "23.0").waiting("default") == []


def test_a_request_to_end_an_attempt_can_become_stronger(tmp_path: Path):
    """The last one counts."""
    submitter, allocation = pool_of(tmp_path, "submitter"), pool_of(tmp_path, "22.0")
    submitter.stop("3.1", Stop("cancelled", kill=False, why=""))
    assert allocation.stops() == {"3.1": Stop("cancelled", kill=False, why="")}
    submitter.stop("3.1", Stop("cancelled", kill=True, why="again"))
    assert allocation.stops() == {"3.1": Stop("cancelled", kill=True, why="again")}


class NoMoreNames(FileOperations):
    """A file system on which a file has three names at most, and whose link fails in other ways, too, when it is told so."""

    error: OSError | None = None

    def link(self, path: str, other: str) -> None:
        if self.error is not None:
            raise self.error
        if os.stat(path).st_nlink >= 3:
            raise OSError(errno.EMLINK, "too many links")
        super().link(path, other)


def test_a_file_system_may_limit_how_many_names_a_file_has(tmp_path: Path):
    """Another file names the taker then."""
    submitter, allocation = pool_of(tmp_path, "submitter"), pool_of(tmp_path, "22.0", NoMoreNames())
    attempts = [put(submitter, num) for num in range(7)]
    assert all(allocation.take(attempt) for attempt in attempts)
    assert submitter.takers() == dict.fromkeys(attempts, "22.0")


def test_a_claim_whose_answer_was_lost_is_settled_later(tmp_path: Path):
    """Until then it is neither ours nor not ours. It is settled once, so that the attempt starts once."""
    disk = NoMoreNames()
    submitter, allocation = pool_of(tmp_path, "submitter"), pool_of(tmp_path, "22.0", disk)
    put(submitter, 3)
    disk.error = OSError(errno.EIO, "the answer is lost")
    assert allocation.take("3.1") is None
    assert allocation.settled() == []
    disk.error = None
    assert allocation.settled() == ["3.1"]
    assert allocation.settled() == []
    put(submitter, 4)
    disk.error = OSError(errno.EIO, "the answer is lost")
    assert allocation.take("4.1") is None
    disk.error = None
    assert allocation.take("4.1")
    assert allocation.settled() == []
