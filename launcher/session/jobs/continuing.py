"""Takes over the jobs that earlier runs of a sweep have completed.

Rule: the run's own journal gets all that there is of such a job, before any later job is sent. So whoever reads or resumes the run needs the
earlier journals no more. The files of the job stay where they are.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher import events
from launcher.engine.requests import QueuedJob, TakenOver
from launcher.errors import JournalError
from launcher.runs import record as run_record
from launcher.runs.journal import FOLDER, JournalReader, StoredResult

if TYPE_CHECKING:
    from launcher.engine.engine import Engine
    from launcher.session.hooks import RunHooks
    from launcher.setup.earlier import EarlierJob
    from launcher.setup.kinds.run_setup import RunSetup

__all__ = ["take_over"]

#: How many jobs are journalled together.
_AT_ONCE = 200


def take_over(
    setup: RunSetup,
    engine: Engine,
    hooks: RunHooks,
    first: int,
    sources: Sequence[tuple[Any, Sequence[str]]],
    task: Any,
) -> tuple[RunSetup, set[int]]:
    """Journal the jobs among these that an earlier run has completed, and say which they are.

    Returns:
        The setup for the jobs that run, and the numbers of those that do not.

    Args:
        first: the number of the first.

    Raises:
        SessionError: the run takes no jobs any more.
        JournalError: an earlier journal is damaged.
    """
    earlier = setup.continues
    if earlier is None or not earlier.journals:
        return setup, set()
    match = earlier.match(setup, first, sources, task)
    jobs = iter(sorted(match.taken.items()))
    while some := list(islice(jobs, _AT_ONCE)):
        engine.take_over([_taken(setup, num, job) for num, job in some])
    earlier.used.update(job.of for job in match.taken.values())
    if match.reused:
        setup = dataclasses.replace(setup, kept_folders=setup.kept_folders - match.reused)
        engine.record(blobs={run_record.CONTINUED: earlier.to_blob(setup.kept_folders)})
    changed, unknown = match.other_code(setup)
    for text in changed:
        hooks.warn("code", text)
    hooks.publish([events.Note(time.time(), text) for text in (*match.notes, *unknown)])
    return setup, set(match.taken)


def _taken(setup: RunSetup, num: int, job: EarlierJob) -> TakenOver:
    with JournalReader(job.journal.folder) as reader:
        stored_job = reader.job(job.num)
        stored = reader.result(job.num, job.event.attempt)
    if stored_job is None or stored is None:
        raise JournalError(f"{job.journal.folder}: job {job.num} has returned, and its result is not there")
    overrides, _, payload, spec = stored_job
    made = QueuedJob(num, overrides, job.output_dir, payload, spec._replace(num=num))
    return TakenOver(made, _result_of(setup, num, job, stored), dataclasses.replace(job.event, num=num), *job.of)


def _result_of(setup: RunSetup, num: int, job: EarlierJob, stored: StoredResult) -> StoredResult:
    """Return the result as the run's own: a long one is in its own folder, and what is not known of the code stays unknown."""
    envelope = stored.envelope
    if not envelope.code and setup.code:
        envelope = envelope._replace(code={"hash": "", "commit": "", "dirty": False})
    file = stored.file
    if file is not None:
        # The folder was renamed since.
        there = job.journal.folder / "results" / Path(file).name
        here = setup.folder / FOLDER / "results" / f"{num}.{stored.attempt}.result"
        file = str(here)
        _link(there, here)
    return stored._replace(num=num, envelope=envelope, file=file)


def _link(there: Path, here: Path) -> None:
    try:
        here.parent.mkdir(mode=0o700, exist_ok=True)
        here.unlink(missing_ok=True)
        try:
            os.link(there, here)
        except OSError:
            # This disk knows no links.
            shutil.copyfile(there, here)
            here.chmod(0o600)
    except OSError as error:
        raise JournalError(f"{there}: {error.strerror}: the result that it has cannot be taken over") from None
