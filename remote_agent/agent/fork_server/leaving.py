"""The agent's end of fork servers: leaves one for the next run, and ends them.

Rule: as for warm interpreters. A run that asks for none leaves none, and so does one that was interrupted, or runs on a machine of a batch system.
"""

import os
import sys
import zlib

from remote_agent.agent.zygotes.warm import why_none
from remote_agent.system.private_files import SpoolError
from remote_agent.system.waiting.inherited import FREE_MEMORY, free_memory, split_variables
from remote_agent.system.waiting.warm_store import FORK_SERVER, WarmStore

__all__ = ["MOST", "leave_fork_server", "prefix_of"]

#: Not more of them are on a host.
MOST = 2
_PROGRAM = (
    "import sys;sys.path.insert(0,{!r});sys.dont_write_bytecode=True;"
    "from remote_agent.system.bytecode import keep_bytecode_whole;keep_bytecode_whole();"
    "from remote_agent.__main__ import main;sys.exit(main())"
)


def prefix_of(bundle: str, python: str) -> str:
    """Return how the names of the fork servers begin that have this bundle and Python. Stage-0 makes it in the same way."""
    sha256 = os.path.basename(bundle)
    return "{}{}-{:08x}-".format(FORK_SERVER, sha256[:16], zlib.crc32(os.fsencode(python)))


def leave_fork_server(cache: str, bundle: str, idle: float) -> None:
    """Start one for the next run, and end those that are too many. `idle`: for how many seconds it waits."""
    variables = split_variables(dict(os.environ))[0]
    if idle <= 0 or why_none(variables) or not sys.executable or free_memory() < FREE_MEMORY:
        return
    store = WarmStore(cache)
    try:
        store.make()
        store.sweep()
        others = [record for record in store.records() if record.is_fork_server]
        for record in others[: max(0, len(others) + 1 - MOST)]:
            store.end(record)
        name = prefix_of(bundle, sys.executable) + os.urandom(4).hex()
        role = ["fork_server", "--name", name, "--cache", cache, "--idle", str(idle)]
        # As stage-0 starts Python.
        command = [sys.executable, "-I", "-S", "-c", _PROGRAM.format(bundle), *role]
        store.start(name, command, variables, idle=idle, new_session=True)
    except (OSError, SpoolError):
        return  # nothing is lost: the next run starts its own
