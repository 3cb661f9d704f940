"""How many files this process may have open: enough for its hosts.

Rule: the soft limit is raised only where the hosts of a run need it, and what a job or a ProxyCommand is started with is what the
user had: programs that use `select`, or that close every descriptor there might be, count on a low one.
"""

from __future__ import annotations

import contextlib
import os
import resource

__all__ = ["as_given", "make_room"]

#: Descriptors of a host: a connection, the files of a few jobs whose outputs arrive, what wakes its threads.
_PER_HOST = 16
#: Of everything else: the journal, the application's own.
_RESERVE = 256
#: No more than this, however high the hard limit is: some programs go through all of them.
_MOST = 1 << 20

_given: int | None = None


def make_room(hosts: int) -> str:
    """See that so many more hosts can be connected to at once; returns what to tell the user where they cannot."""
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
        f"this process may have {soft} files open (ulimit -Hn), which is enough for about {enough} hosts; "
        f"{hosts} may want {needed}"
    )


def as_given(command: str) -> str:
    """A line for `/bin/sh -c` that runs a command under the soft limit that the user had."""
    return command if _given is None else f"ulimit -S -n {_given}; {command}"


def _open_now() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0
