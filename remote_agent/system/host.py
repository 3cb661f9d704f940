"""Facts about a host: its boot id, its processors, and the folders for our files.

Rule: facts are read, never assumed. A folder that cannot be used is refused, and the message names the next step (`workdir`).
"""

import errno
import functools
import os
import re
import socket
from typing import Optional, Tuple

from remote_agent.system.private_files import SpoolError, check_parent, make_private_folder, open_private

__all__ = [
    "NO_ROOM",
    "Folders",
    "boot_id",
    "folders",
    "machine_id",
    "roots",
    "runtime_folder_of",
    "slug",
    "spool_folder",
    "unwritable",
    "unwritten",
    "usable_cpus",
]

_NAME = "hydra-remote-launcher"
#: Errors of a disk that takes no more data.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
#: File systems shared between machines: sockets and locks do not work there, or work across machines.
_SHARED_FILE_SYSTEMS = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb3", "afs", "fuse.sshfs", "9p")


class Folders:
    """The folders of a run on a host. `cache` has content by hash, `spool` the run's state, `runtime` the socket and
    the lock.
    """

    def __init__(self, cache: str, spool: str, runtime: str) -> None:
        self.cache = cache
        self.spool = spool
        self.runtime = runtime


def slug(name: str) -> str:
    """Return a host's name as a file name. Different names stay different."""
    import hashlib

    safe = re.sub(r"[^A-Za-z0-9.-]", "_", name)[:40].lstrip(".") or "host"
    return "{}-{}".format(safe, hashlib.sha256(name.encode("utf-8")).hexdigest()[:8])


def roots(workdir: Optional[str]) -> Tuple[str, str]:
    """Return the folders for cache and state of all runs on this host, without making them."""
    if workdir:
        workdir = os.path.expanduser(workdir)
        return os.path.join(workdir, "cache"), os.path.join(workdir, "state")
    home = os.path.expanduser("~")
    if not os.path.isabs(home):
        raise SpoolError("this account has no home folder (name a folder that can be written with 'workdir')")
    return (
        os.path.join(_base("XDG_CACHE_HOME", os.path.join(home, ".cache")), _NAME),
        os.path.join(_base("XDG_STATE_HOME", os.path.join(home, ".local", "state")), _NAME),
    )


def _base(variable: str, default: str) -> str:
    given = os.environ.get(variable, "")
    # The XDG Base Directory Specification says to ignore a relative path.
    return given if os.path.isabs(given) else default


def spool_folder(run: str, host: str, workdir: Optional[str]) -> str:
    """Return the folder of a run's spool, if it exists."""
    return os.path.join(roots(workdir)[1], "runs", run, slug(host))


def folders(run: str, host: str, workdir: Optional[str]) -> Folders:
    """Return the folders of a run. Missing ones are made.

    Raises:
        SpoolError: there is no home, or it cannot be written. The message says what to do.
    """
    cache, state = roots(workdir)
    try:
        for folder in (cache, state):
            make_private_folder(folder)
            check_parent(folder)
        spool = spool_folder(run, host, workdir)
        for folder in (os.path.join(state, "runs"), os.path.dirname(spool), spool):
            make_private_folder(folder)
        return Folders(cache, spool, _runtime_folder(spool))
    except OSError as error:
        raise SpoolError(unwritable(error, state)) from None


def unwritten(error: OSError, folder: str) -> str:
    """Say that a file could not be made in a folder."""
    place = os.path.join(folder, str(error.filename)) if error.filename else folder
    return "cannot write to {}: {}".format(place, error.strerror or error)


def unwritable(error: OSError, folder: str) -> str:
    """Say that a file could not be made in a folder, and what to do."""
    return "{} (name a folder that can be written with 'workdir')".format(unwritten(error, folder))


def _runtime_folder(spool: str) -> str:
    """Return a folder on a local file system for the socket and the lock: the spool itself, if possible.

    XDG_RUNTIME_DIR is not used: some logins have it and others do not, and it is removed at logout.
    """
    if _file_system(spool) not in _SHARED_FILE_SYSTEMS:
        return spool
    # Only the next connection may find the folder, so its name is random and is noted in the spool.
    note = os.path.join(spool, "runtime.{}".format(slug(socket.gethostname())))
    try:
        with open(note, encoding="utf-8") as file:
            folder = file.read()
        if os.path.isdir(folder):
            return make_private_folder(folder)
    except FileNotFoundError:
        pass  # this is the first connection to this machine
    import tempfile

    folder = tempfile.mkdtemp(prefix="hrl-")
    fd = open_private(note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(folder)
    return folder


def runtime_folder_of(spool: str) -> Optional[str]:
    """Return the folder with the socket of a spool's agent, if there is one. Nothing is made."""
    candidates = [spool]
    try:
        with open(os.path.join(spool, "runtime.{}".format(slug(socket.gethostname()))), encoding="utf-8") as file:
            candidates.append(file.read())
    except OSError:
        pass  # a spool on a local disk has none
    for folder in candidates:
        if os.path.exists(os.path.join(folder, "agent.sock")):
            return folder
    return None


def _file_system(path: str) -> str:
    """Return the type of path's file system, from /proc/mounts; empty if unknown."""
    best, kind = "", ""
    path = os.path.realpath(path)
    try:
        with open("/proc/mounts", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                fields = line.split()
                point = fields[1].replace("\\040", " ")
                if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
                    best, kind = point, fields[2]
    except OSError:
        return ""
    return kind


def machine_id() -> str:
    """Return what this machine has in common with its earlier lives, and with no other: its id and its name, for machines that were copied
    have the same id.
    """
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                return "{} {}".format(file.read(100).strip(), socket.gethostname())
        except OSError:
            continue
    return socket.gethostname()


def boot_id() -> str:
    """Return an id of the present boot of this machine (or container): the kernel's boot id and the start of process 1.

    After a reboot or a restart of the container, no earlier process is alive, and the id differs.
    """
    if not os.path.exists("/proc/1/stat"):
        return _boot_session()
    parts = []
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/1/stat"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read().strip()
        except OSError:
            text = ""
        parts.append(text.rpartition(")")[2].split()[19] if path.endswith("stat") and ")" in text else text)
    try:
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        parts.append("")
    return ":".join(parts)


@functools.lru_cache(maxsize=1)
def _boot_session() -> str:
    """Return what macOS and the BSDs have instead of a boot id."""
    from remote_agent.shared.subprocesses import answer_of

    variables = dict(os.environ, PATH=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    for name in ("kern.bootsessionuuid", "kern.boottime"):
        done = answer_of(["sysctl", "-n", name], timeout=15, env=variables)
        if done is not None and done.returncode == 0 and done.stdout.strip():
            return done.stdout.decode("ascii", "replace").strip()
    return ""


def usable_cpus() -> int:
    """Return how many CPUs this process may use or, if the system does not say that, the machine has."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
