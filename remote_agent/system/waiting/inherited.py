"""What a process gets from the one that starts it, beside its command: user, limits, processors, namespaces, the limits of its cgroup.

Rule: two processes that say the same here can be taken for each other. What each login numbers anew, such as the scope that systemd makes for
it, is not said.
"""

import os
from typing import Dict, List, Optional, Tuple

__all__ = ["FREE_MEMORY", "LOGIN_VARIABLES", "free_memory", "inherited", "split_variables"]

#: Nothing is kept for later runs while less than this part of the memory is free.
FREE_MEMORY = 0.2
#: Variables that each login sets to something else.
LOGIN_VARIABLES = frozenset(
    {
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "KRB5CCNAME",
        "OLDPWD",
        "PWD",
        "SHLVL",
        "SSH_AGENT_PID",
        "SSH_AUTH_SOCK",
        "SSH_CLIENT",
        "SSH_CONNECTION",
        "SSH_ORIGINAL_COMMAND",
        "SSH_TTY",
        "SSH_USER_AUTH",
        "SYSTEMD_EXEC_PID",
        "XDG_SESSION_ID",
        "_",
    }
)
_STATUS = ("Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp", "Cpus_allowed", "Mems_allowed", "SigBlk", "SigIgn")
_TEXTS = ("limits", "oom_score_adj", "attr/current", "uid_map", "gid_map")
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
#: Limits of a cgroup, of both versions; and the words that say that there is none.
_CGROUP_LIMITS = (
    "cpu.max",
    "cpu.cfs_quota_us",
    "cpuset.cpus.effective",
    "cpuset.effective_cpus",
    "memory.high",
    "memory.max",
    "memory.limit_in_bytes",
    "memory.swap.max",
    "pids.max",
)
_UNLIMITED = frozenset({"", "max", "max 100000", "-1", "9223372036854771712"})


def split_variables(environment: Dict[str, str]) -> Tuple[Dict[str, str], Dict[str, str]]:
    """Return the variables that all logins have in common, and those that each sets anew."""
    common = {name: value for name, value in environment.items() if name not in LOGIN_VARIABLES}
    return common, {name: value for name, value in environment.items() if name in LOGIN_VARIABLES}


def inherited(proc: str = "/proc/self", cgroups: str = "/sys/fs/cgroup", pid: int = 0) -> List[str]:
    """Return what a process passes on: this one, or one that has `proc` and `pid`."""
    said = ["nice {}".format(os.getpriority(os.PRIO_PROCESS, pid))]
    said += [line for line in _read(os.path.join(proc, "status")).splitlines() if line.startswith(_STATUS)]
    said += ["{} {}".format(name, _read(os.path.join(proc, name))) for name in _TEXTS]
    for name in _NAMESPACES:
        try:
            said.append(os.readlink(os.path.join(proc, "ns", name)))
        except OSError:
            continue  # this kernel has none of that kind
    return said + cgroup_limits(proc, cgroups)


def cgroup_limits(proc: str, cgroups: str) -> List[str]:
    """Return the limits of this process's cgroups and of those above, from the top, without their names."""
    said = []
    for folder in cgroup_folders(proc, cgroups):
        for name in _CGROUP_LIMITS:
            value = _read(os.path.join(folder, name))
            if value not in _UNLIMITED:
                said.append("{} {}".format(name, value))
    # A scope without a limit of its own says what the one above it says.
    return list(dict.fromkeys(said))


def cgroup_folders(proc: str, cgroups: str) -> List[str]:
    """Return the folders of this process's cgroups and of those above, from the top."""
    found: Dict[str, None] = {}
    for line in _read(os.path.join(proc, "cgroup")).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        folder = cgroups if number == "0" else os.path.join(cgroups, controllers)
        found[folder] = None
        for part in path.split("/"):
            if part:
                folder = os.path.join(folder, part)
                found[folder] = None
    return list(found)


def free_memory(proc: str = "/proc", cgroups: str = "/sys/fs/cgroup") -> float:
    """Return which part of the memory is free, by the machine or by the cgroup, whichever has less. 0 if that is unknown."""
    sizes = {}
    for line in _read(os.path.join(proc, "meminfo")).splitlines():
        name, _, size = line.partition(":")
        sizes[name] = int(size.split()[0])
    shares = [sizes.get("MemAvailable", 0) / (sizes.get("MemTotal", 0) or 1)]
    for folder in cgroup_folders(os.path.join(proc, "self"), cgroups):
        for limit, usage, inactive in (
            ("memory.max", "memory.current", "inactive_file "),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
        ):
            most, used = _number(folder, limit), _number(folder, usage)
            if most and used is not None and most < sizes.get("MemTotal", 0) * 1024:
                stat = _read(os.path.join(folder, "memory.stat"))
                cached = [line for line in stat.splitlines() if line.startswith(inactive)]
                # Files that were only read are given up first.
                used -= int(cached[0].split()[1]) if cached else 0
                shares.append(1 - used / most)
    return min(shares)


def _number(folder: str, name: str) -> Optional[int]:
    text = _read(os.path.join(folder, name))
    return int(text) if text.isdigit() else None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip("\n\0")
    except OSError:
        return ""
