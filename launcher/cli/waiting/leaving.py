"""Leaves a process for the next command of this terminal, after a run that has ended by itself.

Rule: as for what waits on hosts: none for `--warm 0`, and none on a machine of a batch system. It is a new process, and gets no variable but those of which a Python
is made. At most two wait, one a session.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable

from launcher.cli.waiting.client import PREFIX, STARTED, may_wait
from launcher.cli.waiting.variables import at_start
from launcher.util.user_folders import cache_folder
from remote_agent.agent.zygotes.warm import why_none
from remote_agent.system.private_files import SpoolError
from remote_agent.system.waiting.inherited import FREE_MEMORY, free_memory
from remote_agent.system.waiting.warm_store import WarmRecord, WarmStore

__all__ = ["MOST", "leave", "modules_of"]

#: Not more of them wait.
MOST = 2
#: Seconds for one to have imported everything, also on a machine that is busy.
_LONGEST_START = 60.0
#: What it imports if this command has: ours, and what ours needs. Never anything of the application.
_PACKAGES = frozenset(
    {"antlr4", "cloudpickle", "fabric", "hydra", "invoke", "launcher", "omegaconf", "paramiko", "remote_agent", "yaml"}
)
#: What the commands need that it serves, beside what a run has imported.
_ALWAYS = (
    "launcher.cli.main",
    "launcher.cli.commands.run",
    "launcher.cli.commands.views.runs",
    "launcher.cli.commands.views.show",
    "launcher.cli.commands.views.table",
    "launcher.cli.commands.views.logs",
    "launcher.runs.journal",
    "launcher.runs.status",
)
_PROGRAM = """\
import ast, sys
cache, name, idle, sys.path[:], expected, modules = ast.literal_eval(sys.stdin.read())
from launcher.cli.waiting.ending import run_to_end
from launcher.cli.waiting.server import main
if main(cache, name, idle, list(sys.path), expected, modules):
    from launcher.cli.main import main as command
    run_to_end(command)
"""


def leave(idle: float) -> None:
    """Start one, if none waits that fits. `idle`: for how many seconds it waits for the next command."""
    if not STARTED or idle <= 0 or not may_wait(os.environ) or why_none(dict(os.environ)):
        return
    store = WarmStore(str(cache_folder()))
    modules = modules_of(sys.modules)
    needs_hydra = "hydra" in sys.modules
    try:
        if free_memory() < FREE_MEMORY:
            return
        store.make()
        store.sweep()
        session = f"{PREFIX}{os.getsid(0)}-"
        others = [record for record in store.records() if record.is_command]
        same = [record for record in others if record.name.startswith(session)]
        if any(_still_fits(store, record, needs_hydra) for record in same):
            return
        left = [record for record in others if record not in same]
        for record in [*same, *left[: max(0, len(left) + 1 - MOST)]]:
            store.end(record)
        name = session + os.urandom(4).hex()
        told = repr((str(cache_folder()), name, idle, STARTED["path"], STARTED["facts"], modules))
        store.start(
            name,
            [sys.executable, "-c", _PROGRAM],
            at_start(os.environ),
            told.encode("utf-8", "surrogatepass"),
            idle=idle,
            has_packages=needs_hydra,
        )
    except (OSError, SpoolError):
        return  # nothing is lost: the next command starts by itself


def _still_fits(store: WarmStore, record: WarmRecord, needs_hydra: bool) -> bool:
    """Whether it has what this command has imported, and this command was forked from it, and it waits on; or it has just been started.

    A command that was shorter than its imports must not end it and begin anew: no later one would ever find one that waits.
    """
    if needs_hydra and not record.has_packages:
        return False
    if store.is_waiting(record):
        return record.name == STARTED.get("by")
    return record.python == sys.executable and 0 <= time.time() - record.since < _LONGEST_START


def modules_of(imported: Iterable[str]) -> list[str]:
    """Return which of the modules that this command has imported the process imports, too."""
    ours = [name for name in imported if name.partition(".")[0] in _PACKAGES and not name.startswith("launcher.demo")]
    return list(dict.fromkeys([*_ALWAYS, *ours]))
