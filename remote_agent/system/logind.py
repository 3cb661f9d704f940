"""Whether systemd-logind would kill the agent when the SSH session ends, and how to avoid that.

Rule: logind is asked only if it can matter (this process is in a session's scope), and never waited for long. Every
change is reported. If a change is impossible, that is reported, too, because then jobs end with the connection.

With `KillUserProcesses=yes` (logind.conf(5)), everything in the session's scope is killed at logout, even daemons. A
scope of the user's own service manager is not part of the session (systemd-run(1)), and that manager outlives the last
session if lingering is enabled (loginctl(1)). So both are needed.
"""

import os
import pwd
import re
from typing import Dict, List, NamedTuple, Optional

from remote_agent.shared.subprocesses import answer_of

__all__ = ["NO_SCOPE", "Escape", "find_escape"]

#: Seconds that each command may take.
_PATIENCE = 5.0
_SESSION = re.compile(r"/session-[^/]+\.scope(/|$)")


class Escape(NamedTuple):
    """How to survive the end of the session: `prefix` goes in front of the agent's command line (it may be empty), and
    `notes` are for the user.
    """

    prefix: List[str]
    environment: Dict[str, str]
    notes: List[str]


_NOTHING = Escape([], {}, [])


def find_escape(name: str, cgroups: str = "/proc/self/cgroup") -> Escape:
    """Find out how an agent that is started now survives the end of this session.

    `name` becomes part of the scope's name.
    """
    if not _is_in_session(cgroups):
        return _NOTHING
    user = _user()
    if user is None or not _is_killed(user):
        return _NOTHING
    notes = []
    if _property(["show-user", user], "Linger") != "yes":
        if _call(["loginctl", "--no-ask-password", "enable-linger", user]) is None:
            return Escape([], {}, [_WARNING.format(user)])
        notes.append(
            "logind ends a user's processes at logout here (KillUserProcesses=yes): lingering was enabled for {0}, so that "
            "the agent and its jobs live on ('loginctl disable-linger {0}' takes it back)".format(user)
        )
    environment = {}
    runtime = "/run/user/{}".format(os.getuid())
    # The specification says to ignore a relative path.
    if not os.path.isabs(os.environ.get("XDG_RUNTIME_DIR", "")) and os.path.isdir(runtime):
        environment["XDG_RUNTIME_DIR"] = runtime
    unit = "hydra-remote-launcher-{}".format(re.sub(r"[^A-Za-z0-9:_.-]", "_", name))
    prefix = ["systemd-run", "--user", "--scope", "--quiet", "--collect", "--unit", unit, "--"]
    return Escape(prefix, environment, notes)


#: The warning if the agent cannot survive the logout.
_WARNING = (
    "logind ends a user's processes at logout here (KillUserProcesses=yes), and lingering cannot be enabled: the agent and "
    "its jobs end when this connection does. Ask an administrator to run 'loginctl enable-linger {}' on this host"
)
NO_SCOPE = (
    "logind ends a user's processes at logout here (KillUserProcesses=yes), and no scope of the user's service manager could "
    "be made ({}): the agent and its jobs end when this connection does"
)


def _is_in_session(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return any(_SESSION.search(line.rstrip("\n")) for line in file)
    except OSError:
        return False


def _is_killed(user: str) -> bool:
    """Decide as logind does: by the users to kill, then by the users to spare, then by the general setting."""
    if _property(["show-session"], "KillUserProcesses") != "yes":
        return False
    only = (_property(["show-session"], "KillOnlyUsers") or "").split()
    spared = _property(["show-session"], "KillExcludeUsers")
    return user not in ("root" if spared is None else spared).split() and (not only or user in only)


def _property(question: List[str], name: str) -> Optional[str]:
    answer = _call(["loginctl", *question, "--property=" + name])
    for line in (answer or "").splitlines():
        key, equals, value = line.partition("=")
        if equals and key == name:
            return value.strip()
    return None


def _call(command: List[str]) -> Optional[str]:
    """Return what a command printed; None if it is missing, fails or takes too long."""
    done = answer_of(command, timeout=_PATIENCE)
    return done.stdout.decode("utf-8", "replace") if done is not None and done.returncode == 0 else None


def _user() -> Optional[str]:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return None
