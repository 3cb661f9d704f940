"""Kills all processes of a job: its process group, its session, its descendants, and others that carry its token.

Rule: a process gets a signal only if it is certainly one of ours. A pid alone proves nothing: it counts together with the start time
of the process, or as the session of processes if no other process has got the pid of its leader since.
"""

import os
import signal
import time
from typing import Dict, List, NamedTuple, Optional, Set, Tuple

__all__ = [
    "TOKEN",
    "OtherProcess",
    "age",
    "birth",
    "described",
    "has_begun",
    "has_group",
    "has_working_folder_below",
    "holder_of",
    "is_alive",
    "kill_group",
    "kill_tokens",
    "kill_whole",
    "left_by",
    "mark_begun",
    "members",
    "memory_of",
]

#: The environment variable that every process of a job inherits; its value is `<run>/<attempt>`.
TOKEN = "HYDRA_REMOTE_LAUNCHER_ATTEMPT"  # noqa: S105 - a name

#: A time that no file has by itself. It is in whole seconds, because some file systems keep no more.
_BEGUN = 86_400 * 10**9


class _Stat(NamedTuple):
    """What the system says about a process."""

    state: str
    parent: int
    session: int
    started: str


#: Linux has it. Elsewhere `ps` says the same in some milliseconds, but nothing shows a process's environment.
_HAS_PROC = os.path.exists("/proc/self/stat")


def _stat(pid: int) -> Optional[_Stat]:
    if not _HAS_PROC:
        return _by_ps("-p", str(pid)).get(pid)
    try:
        # This is read for every job, and a file object would cost twice as much.
        fd = os.open("/proc/{}/stat".format(pid), os.O_RDONLY | os.O_CLOEXEC)
        try:
            fields = os.read(fd, 4096).rpartition(b")")[2].split()
        finally:
            os.close(fd)
    except OSError:
        return None
    return _Stat(fields[0].decode(), int(fields[1]), int(fields[3]), fields[19].decode())


def _all() -> Dict[int, _Stat]:
    """Return every process except this one."""
    mine = os.getpid()
    if not _HAS_PROC:
        return {pid: stat for pid, stat in _by_ps("-A").items() if pid != mine}
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != mine:
            stat = _stat(int(name))
            if stat is not None:
                found[int(name)] = stat
    return found


def _ps(*arguments: str) -> str:
    """Return what `ps` says; empty if it says nothing."""
    from remote_agent.shared.subprocesses import answer_of

    done = answer_of(["ps", *arguments], timeout=60, env=dict(os.environ, LC_ALL="C"))
    return done.stdout.decode("utf-8", "replace") if done is not None else ""


def _by_ps(*which: str) -> Dict[int, _Stat]:
    """List processes with `ps`, as on POSIX and the BSDs. `started` is exact to the second."""
    found = {}
    for line in _ps(*which, "-o", "pid=", "-o", "ppid=", "-o", "state=", "-o", "lstart=").splitlines():
        fields = line.split(None, 3)
        try:
            pid, parent, state, started = int(fields[0]), int(fields[1]), fields[2][:1], " ".join(fields[3].split())
            found[pid] = _Stat(state, parent, os.getsid(pid), started)
        except (IndexError, ValueError, OSError):
            continue  # not a line about a process, or the process is gone by now
    return found


def birth(pid: int) -> str:
    """Return when a process began, in the system's form (on Linux in clock ticks since boot); empty if it is gone.

    Together with its pid, this identifies it uniquely.
    """
    found = _stat(pid)
    return "" if found is None else found.started


def is_alive(pid: int, started: str) -> bool:
    """Whether this same process is still alive (and not a zombie)."""
    now = _stat(pid)
    return now is not None and now.started == started and now.state not in "ZX"


class OtherProcess:
    """A process that is not a child of this one, as far as it can be handled like one. Nobody learns how it ended."""

    def __init__(self, pid: int, started: str) -> None:
        self.pid = pid
        self._started = started

    def poll(self) -> Optional[int]:
        """Return None while it is alive."""
        return None if is_alive(self.pid, self._started) else 0

    def wait(self, timeout: Optional[float] = None) -> int:
        """Wait until it is gone.

        Raises:
            TimeoutError: it is still there.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(0.02)
        return 0

    def kill(self) -> None:
        """Send SIGKILL to it."""
        if self.poll() is None:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except OSError:
                pass  # it has ended in the meantime


def age(pid: int) -> Optional[float]:
    """Return the seconds since a process began; None if it is gone.

    On Linux they come from the kernel's clock, which nobody sets.
    """
    found = _stat(pid)
    if found is None:
        return None
    if not _HAS_PROC:
        return max(0.0, time.time() - time.mktime(time.strptime(found.started, "%a %b %d %H:%M:%S %Y")))
    with open("/proc/uptime", encoding="ascii") as file:
        uptime = float(file.read().split()[0])
    return max(0.0, uptime - int(found.started) / os.sysconf("SC_CLK_TCK"))


def memory_of(pid: int) -> int:
    """Return the bytes of memory that a process has; 0 if that is unknown."""
    try:
        with open("/proc/{}/statm".format(pid), encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _token_of(pid: int) -> Optional[str]:
    """Return the token in a process's environment when it was executed; None if the system does not show that."""
    try:
        with open("/proc/{}/environ".format(pid), "rb") as file:
            for entry in file.read().split(b"\0"):
                if entry.startswith(TOKEN.encode() + b"="):
                    return entry[len(TOKEN) + 1 :].decode("utf-8", "replace")
    except OSError:
        return None  # the process is gone or is not ours, or this is not Linux
    return None


def members(token: str, leader: Optional[int] = None, started: str = "") -> List[int]:
    """Return our processes that carry the token, those of the leader's session, and the descendants of all these.

    A forked process that executed nothing shows its parent's environment. It is found by its session and its parents.
    """
    session = leader if leader is not None and _is_still(leader, started) else None
    stats = _all()
    found: Set[int] = set()
    for pid, stat in stats.items():
        if pid == session or (session is not None and stat.session == session) or _token_of(pid) == token:
            found.add(pid)
    grown = True
    while grown and found:
        more = {pid for pid, stat in stats.items() if stat.parent in found and pid not in found}
        found |= more
        grown = bool(more)
    return sorted(pid for pid in found if stats[pid].state not in "ZX")


def _is_still(pid: int, started: str) -> bool:
    """Whether the pid still belongs to that process, or to none (then its session may live on without it)."""
    now = _stat(pid)
    return now is None or now.started == started


def mark_begun(fd: int) -> None:
    """Mark in the times of its stdout file that a process has begun.

    This is for the case that zygote and job die before they have sent anything: an attempt that has not begun may start
    again, but one that has begun may not. It takes one system call. A frame would wake the agent for every job.
    """
    try:
        os.utime(fd, ns=(_BEGUN, _BEGUN))
    except OSError:
        os.write(fd, b"\n")  # the file system keeps no times; output is a sign as well


def has_begun(stdout: str) -> bool:
    """Whether a process has run with this stdout file. True if that is unknown."""
    try:
        found = os.stat(stdout)
    except OSError:
        return True
    return found.st_size > 0 or _BEGUN in {found.st_atime_ns, found.st_mtime_ns}


def has_group(pid: int, started: str) -> bool:
    """Whether any process may be in the group of one that has ended. This check is cheap."""
    if not _is_still(pid, started):
        return False
    try:
        os.killpg(pid, 0)
    except OSError:
        return False
    return True


def left_by(pid: int) -> List[int]:
    """Return the processes that are still in the session of one that has ended."""
    return sorted(one for one, stat in _all().items() if stat.session == pid and one != pid and stat.state not in "ZX")


def has_working_folder_below(path: str) -> bool:
    """Whether any process works in this folder or below it. True if the system does not show that."""
    if not _HAS_PROC:
        return True
    real = os.path.realpath(path)
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                folder = os.readlink("/proc/{}/cwd".format(name))
            except OSError:
                continue  # it is gone, or another user's
            if folder == real or folder.startswith(real + "/"):
                return True
    return False


def described(pid: int) -> str:
    """Describe a process for the user: the name of its program, and its pid.

    Its arguments are left out, because they may have a secret.
    """
    name = ""
    if _HAS_PROC:
        try:
            with open("/proc/{}/comm".format(pid), encoding="utf-8", errors="replace") as file:
                name = file.read().strip()
        except OSError:
            pass  # it is gone
    else:
        name = os.path.basename(_ps("-p", str(pid), "-o", "comm=").strip())
    return "process {} (pid {})".format(name, pid) if name else "process {}".format(pid)


def kill_group(pid: int, started: str) -> None:
    """Send SIGKILL to the rest of the group of a process that has ended."""
    if _is_still(pid, started):
        try:
            os.killpg(pid, signal.SIGKILL)
        except OSError:
            pass  # usually the group has ended with its leader


def kill_whole(pid: Optional[int], started: str, token: str) -> int:
    """Send SIGKILL to a job's group, session and descendants, and to all others with its token. Returns their number.

    Repeats until none is found, so that processes that are forked in the meantime are found, too.
    """
    count = 0
    for _ in range(20):
        alive = members(token, pid, started)
        if not alive:
            break
        for one in alive:
            try:
                os.kill(one, signal.SIGKILL)
                count += 1
            except OSError:
                continue  # it ended between the look and the signal
    return count


def kill_tokens(tokens: Set[str]) -> List[Tuple[str, str]]:
    """Send SIGKILL to every process that carries one of these tokens. Returns (token, description) of each."""
    killed = []
    for pid in _all():
        token = _token_of(pid)
        if token in tokens and token is not None:
            what = described(pid)
            try:
                os.kill(pid, signal.SIGKILL)
                killed.append((token, what))
            except OSError:
                continue  # it ended between the look and the signal
    return killed


def holder_of(path: str) -> Optional[int]:
    """Return the leader of a session of ours whose stdout or stderr is this file. It is the job with that stream."""
    real = os.path.realpath(path)
    for pid, stat in _all().items():
        if stat.session == pid and stat.state not in "ZX" and _writes_to(pid, real):
            return pid
    return None


def _writes_to(pid: int, path: str) -> bool:
    """Whether a process's stdout or stderr is that file."""
    if not _HAS_PROC:
        return pid in _holders_by_lsof(path)
    for fd in (1, 2):
        try:
            if os.readlink("/proc/{}/fd/{}".format(pid, fd)) == path:
                return True
        except OSError:
            continue  # gone in the meantime, closed, or not ours
    return False


def _holders_by_lsof(path: str) -> Set[int]:
    from remote_agent.shared.subprocesses import answer_of

    done = answer_of(["lsof", "-a", "-d", "1,2", "-t", "--", path], timeout=60)
    return {int(word) for word in done.stdout.split() if word.isdigit()} if done is not None else set()
