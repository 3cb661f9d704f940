"""The limit of open files: enough for the hosts of a run.

Rule: the soft limit is raised only if the hosts of a run need that. A ProxyCommand is still started under the user's own limit:
programs that use `select`, or that close every possible descriptor, rely on a low one.
"""

from __future__ import annotations

import contextlib
import os
import resource

__all__ = ["as_given", "make_room"]

#: Descriptors for each host: its connection, the files of a few jobs whose outputs arrive, and what wakes its threads.
_PER_HOST = 16
#: Descriptors for everything else, such as the journal and the application's own files.
_RESERVE = 256
#: The limit is never raised above this: some programs go through all possible descriptors.
_MOST = 1 << 20

_given: int | None = None


def make_room(hosts: int) -> str:
    """Raise the limit for this many more hosts. Returns a warning for the user if they may be too many, else an empty text."""
    global _given  # noqa: PLW0603 - the limit is the process's
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _open_now() + _RESERVE + _PER_HOST * hosts
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return ""
    most = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if most > soft:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            _given = soft if _given is None else _given
            soft = most
    if needed <= soft:
        return ""
    enough = max(0, (soft - _open_now() - _RESERVE) // _PER_HOST)
    return (
        f"this process may have {soft} files open (ulimit -Hn), which is enough for about {enough} hosts; {hosts} "
        f"hosts may need {needed}"
    )


def as_given(command: str) -> str:
    """A line for `/bin/sh -c` that runs a command under the user's own soft limit."""
    return command if _given is None else f"ulimit -S -n {_given}; {command}"


def _open_now() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0
