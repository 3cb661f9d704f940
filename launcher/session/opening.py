"""The first steps of a run: its folder is claimed, the journal gets what the run is, and the user's index gets its name.

Rule: the journal has the run before its start hook fires, and before anything is sent.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from launcher import events
from launcher.runs import index, ownership, record

if TYPE_CHECKING:
    from launcher.engine.engine import Engine
    from launcher.runs.folder import Claim
    from launcher.session.hooks import RunHooks
    from launcher.setup.kinds.run_setup import RunSetup

__all__ = ["claim_folder", "forget_earlier", "index_run", "record_run"]


def claim_folder(setup: RunSetup, claim: Claim | None) -> tuple[RunSetup, Claim]:
    """Claim the folder of a run, unless that was done."""
    if claim is None:
        setup, claim = setup.take_folder()
    return setup, claim


def forget_earlier(claim: Claim) -> None:
    """Take the earlier run of a folder out of the user's index. From now on the folder's journal is that of the new run."""
    if claim.earlier is not None:
        known = index.look_up(claim.earlier)
        # The id in that journal may be wrong, so it must not remove another run from the index.
        if known is not None and known.folder.resolve() == claim.folder.resolve():
            index.remove(claim.earlier)


def record_run(setup: RunSetup, engine: Engine, hooks: RunHooks) -> None:
    """Write into the journal and into the index what the run is."""
    hosts = tuple(spec.name for spec in setup.hosts)
    started = events.RunStarted(time.time(), setup.run_id, setup.mode, str(setup.folder), hosts)
    engine.journal.append([started])
    record.write_setup(setup, engine.journal)
    secret = ownership.make_secret()
    engine.journal.put_meta(**{ownership.KEY: secret})
    engine.journal.commit()
    engine.observe(started)
    index_run(setup, hooks, started.at, secret)


def index_run(setup: RunSetup, hooks: RunHooks, at: float, secret: str) -> None:
    """Add the run to the user's index, so that it can be named and is known to be the user's own."""
    entry = index.Entry(setup.run_id, setup.folder, at, setup.mode, setup.task_name, setup.is_reproduction, secret)
    try:
        index.add(entry)
    except OSError as error:
        hooks.warn(
            "index",
            "the run can be named only by its folder, and resumed only after 'launcher runs --adopt': "
            f"{error.filename}: {error.strerror}",
        )
