"""What a request for allocations says: what each has, and what the agent in it is told.

Rule: others may read the script, so there is no secret in it.
"""

import json
import os
import shlex
import sys
from typing import Any, Dict, List, Optional, Sequence

from remote_agent.agent.environments.on_nodes import own_folder
from remote_agent.agent.spool.paths import SpoolPaths
from remote_agent.slurm.batch.batch import Batch, Request
from remote_agent.slurm.batch.classes import DEFAULT, allocation_needs, lasting, part_of
from remote_agent.slurm.pool.heirs import OWED
from remote_agent.slurm.pool.incarnations import EPILOGUE
from remote_agent.slurm.pool.pool import Pool
from remote_agent.slurm.shared_disk.shared_files import SharedFiles
from remote_agent.slurm.submitter.submitter_log import SubmitterLog

__all__ = ["Requests"]

#: What Slurm has if nobody says it.
_KILL_WAIT = 30.0


class Requests:
    """Makes them.

    Attributes:
        options: what `slurm:` of the host says.
        requeue: the run's limits for attempts that follow by themselves; see `next_attempts`.
        spare: the Python that allocations start ahead of time; None for none.
        kill_wait: seconds between Slurm's SIGTERM and its SIGKILL.
    """

    def __init__(
        self, paths: SpoolPaths, files: SharedFiles, log: SubmitterLog, pool: Pool, batch: Batch, turn: int
    ) -> None:
        self._paths = paths
        self._files = files
        self._log = log
        self._pool = pool
        self._batch = batch
        self._turn = turn
        self.options: Dict[str, Any] = {}
        self.requeue: Dict[str, int] = {}
        self.spare: Optional[str] = None
        self.kill_wait = _KILL_WAIT

    def allocations(self, name: str, *, is_many: bool) -> Request:
        """The request of this name, as it is in the log. `is_many`: each takes more than one job."""
        options, asked = self.options, self._log.requests[name]
        expects = len(self._pool.all_attempts()) + len(self._log.acked)
        needs = allocation_needs(asked.klass, options, asked.slots)
        role = ["--most", "0" if is_many else "1", "--slots", str(asked.slots)]
        role += ["--expects", str(expects), "--owed", str(len(self._files.names(OWED))), "--request", name]
        role += ["--class", asked.klass]
        role += ["--idle", str(options["idle"])] if options.get("idle") is not None else []
        role += ["--left", json.dumps([self._batch.warning(needs, options.get("options") or ()), self.kill_wait])]
        role += ["--lasting", json.dumps(lasting(asked.klass, options))]
        role += ["--spare", self.spare] if self.spare is not None else []
        role += ["--environments", own_folder(options["environments"])] if options.get("environments") else []
        part = part_of(asked.klass, options)
        role += ["--part", json.dumps(part.to_json())] if part is not None else []
        request = self._make(name, asked.tasks, asked.at_once, role, needs)
        return request._replace(is_optional=asked.slots > 1)

    def epilogue(self, name: str, after: Sequence[str]) -> Request:
        """One that only fires what is owed, when the requests with these ids have ended."""
        needs = {key: str(self.options[key]) for key in ("partition", "account") if self.options.get(key)}
        role = ["--most", "0", "--slots", "1", "--expects", "0", "--owed", "0", "--request", EPILOGUE]
        role += ["--class", DEFAULT, "--of", json.dumps(sorted(self._log.requests))]
        return self._make(name, 1, None, role, needs)._replace(after=tuple(after))

    def _make(self, name: str, tasks: int, at_once: Optional[int], role: List[str], needs: Dict[str, str]) -> Request:
        paths, options = self._paths, self.options
        program = (
            "import sys;sys.path.insert(0,{!r});sys.dont_write_bytecode=True;"
            "from remote_agent.system.bytecode import keep_bytecode_whole;keep_bytecode_whole();"
            "from remote_agent.__main__ import main;sys.exit(main())"
        ).format(paths.bundle)
        role = [
            "allocation",
            "--run",
            paths.run,
            "--host",
            paths.host,
            "--umask",
            str(paths.umask),
            "--turn",
            str(self._turn),
            *role,
        ]
        role += ["--requeue", json.dumps(self.requeue)]
        role += ["--workdir", options["workdir"]] if options.get("workdir") else []
        command = " ".join(shlex.quote(word) for word in [sys.executable, "-I", "-S", "-c", program, *role])
        return Request(
            name,
            tasks,
            at_once,
            "#!/bin/sh\numask 077\nexec {}\n".format(command),
            os.path.join(paths.spool, "allocations", "%j.out"),
            needs,
            tuple(options.get("options") or ()),
        )
