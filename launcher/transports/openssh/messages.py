"""What the `ssh` program says when it fails, in our words.

Rule: each failure becomes a `HostError` with the host, the phase and the next step, the same one as over fabric. ssh's
own words follow where ours may not say everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from launcher.errors import AgentError, AuthenticationFailed, ConnectionLost, HostError, HostKeyError, HostUnreachable
from launcher.transports.openssh.log import SshLog
from launcher.transports.ssh.config import SshTarget
from launcher.util.text.terminal_text import clean

__all__ = ["Dropped", "explain", "lost", "reopen", "too_late", "too_many_sessions"]

#: What sshd says instead of a banner when it takes no more connections.
_SHEDDING = ("Exceeded MaxStartups", "Not allowed at this time")
_UNREACHABLE = ("No route to host", "Network is unreachable", "Network is down", "Host is down")
#: A jump host's own `ssh` cannot reach the next host.
_BEYOND = ("administratively prohibited", "open failed: connect failed", "stdio forwarding failed")
_NO_ANSWER = ("timed out", "Timeout", "Operation timed out")
_NOT_SSH = ("invalid format", "invalid characters", "not an SSH", "protocol identification")
_CONFIGURATION = ("Bad configuration option", "bad configuration options", "percent_expand", "env var", "Bad owner")
_INTERACTIVE = frozenset(("keyboard-interactive", "password", "gssapi-with-mic", "gssapi-keyex"))
#: What ssh says after its reason.
_FOLLOWS = re.compile(
    r"Connection (closed|reset) by UNKNOWN port|^ssh_exchange_identification|Host key verification failed\.?$"
)


class Dropped(Exception):
    """The host dropped the connection before the handshake was over. Another try may succeed."""


@dataclass(frozen=True)
class _Told:
    """What ssh said, and about which host: ours, or one on the way to it."""

    host: str
    said: tuple[str, ...]

    def has(self, *texts: str) -> str:
        """Return the first line with one of these texts; empty if there is none."""
        return next((line for line in self.said if any(text in line for text in texts)), "")

    @property
    def words(self) -> str:
        """The lines that say why."""
        lines = [line for line in dict.fromkeys(self.said) if not _FOLLOWS.search(line)] or list(self.said)
        return "; ".join(lines)[-1500:] or "nothing"


def reopen(host: str) -> str:
    """Return the command with which a person logs in once for many runs."""
    return f"`launcher connect {host}` asks in the terminal what has to be asked, once, and keeps the connection"


def too_late(host: str, log: SshLog, what: str) -> HostError:
    """Return the error of a step that did not end in time. `what`: which one, and how long it had."""
    touched = re.match(r"(.+) \S+-SK SHA256:", log.signs_with)
    if touched:
        return AuthenticationFailed(
            host,
            "connect",
            f"{what}: the security key of {clean(touched[1])} waited for a touch",
            f"touch it when a run logs in; or {reopen(host)}",
        )
    return HostUnreachable(host, "connect", what, "check that it is an SSH port and that the host is not overloaded")


def explain(host: str, target: SshTarget, log: SshLog, stderr: str, hosts_on_way: Iterable[str]) -> HostError | Dropped:
    """Explain why a connection was not made, or the command not begun. A wrong host key is explained elsewhere.

    Args:
        host: as the user named it.
        stderr: what came before the login: the words of jump hosts' own `ssh`, or of a ProxyCommand.
        hosts_on_way: the names of the jump hosts.
    """
    ours = _Told(host, tuple(log.said))
    way = list(hosts_on_way)
    if log.is_authenticated:
        return _no_session(ours)
    before = tuple(line.strip() for line in stderr.splitlines() if line.strip())
    if way and before and not log.is_shaken:
        beyond = _Told(host, before)
        if beyond.has(*_BEYOND):
            return _where(beyond, target) or Dropped(beyond.words)
        return _on_way(_Told(f"{host} (through {', '.join(way)})", before))
    if log.is_shaken:
        return _no_login(ours, target, log)
    return _no_handshake(ours, target, log, before)


def _no_session(told: _Told) -> HostError:
    if told.has("open failed", "session request failed"):
        return too_many_sessions(told.host)
    if told.has("exec request failed"):
        return AgentError(
            told.host,
            "session",
            "the host runs no command for this user",
            "check the user's shell there, and ForceCommand in its sshd_config",
        )
    return ConnectionLost(told.host, "session", f"the connection is gone ({told.words})")


def too_many_sessions(host: str) -> AgentError:
    """Return the error of a host that begins no further session on a connection."""
    return AgentError(
        host,
        "session",
        "the host refuses a session",
        "it may allow too few sessions for one connection (MaxSessions in its sshd_config), or no commands",
    )


def _on_way(told: _Told) -> HostError | Dropped:
    """Explain a failure of a host on the way, of which only ssh's last words are known."""
    denied = told.has("Permission denied")
    if denied:
        return AuthenticationFailed(
            told.host, "authenticate", f"the login was not accepted ({told.words})", reopen(told.host.partition(" ")[0])
        )
    if told.has("Host key verification failed"):
        return _key_error(told)
    return _where(told) or Dropped(f"a connection on the way to the host ended ({told.words})")


def _no_handshake(told: _Told, target: SshTarget, log: SshLog, before: tuple[str, ...]) -> HostError | Dropped:
    where = f"{target.hostname} port {target.port}"
    if told.has("KnownHostsCommand"):
        return HostKeyError(
            told.host,
            "host key",
            f"the KnownHostsCommand of ssh's configuration failed: {told.words}",
            "correct that command; it may be what says that a key is revoked",
        )
    if told.has(
        "Host key verification failed", "REMOTE HOST IDENTIFICATION HAS CHANGED", "revoked", "host key is known"
    ):
        return _key_error(told, log.host_key)
    if told.has(*_CONFIGURATION):
        return HostUnreachable(
            told.host,
            "resolve",
            f"ssh does not accept its configuration: {told.words}",
            "check the host's name and ~/.ssh/config",
        )
    found = _where(told, target)
    if found is not None:
        return found
    if told.has("Unable to negotiate"):
        step = "its sshd may be too old"
        return HostUnreachable(
            told.host, "connect", f"{where} and ssh have no algorithm in common ({told.words})", step
        )
    if told.has(*_NOT_SSH) or (log.greeting and not log.speaks_ssh and not any(s in log.greeting for s in _SHEDDING)):
        said = log.greeting.strip() or told.words
        return HostUnreachable(
            told.host, "connect", f"{where} is not an SSH server; it said {said!r}", "check the port"
        )
    said = "; ".join(before)[-500:]
    return Dropped(f"the host drops connections before the handshake ({told.words}{'; ' + said if said else ''})")


def _where(told: _Told, target: SshTarget | None = None) -> HostError | None:
    """Explain an address that cannot be reached; None if it was reached. For a jump host, the target is not known."""
    where = f"{target.hostname} port {target.port}" if target is not None else "it"
    line = told.has("Could not resolve hostname")
    if line:
        name = repr(target.hostname) if target is not None else "of it"
        return HostUnreachable(
            told.host,
            "resolve",
            f"the name {name} has no address ({_tail(line)})",
            "check the spelling, the network, and HostName in ~/.ssh/config",
        )
    line = told.has("Connection refused")
    if line:
        return HostUnreachable(
            told.host,
            "connect",
            f"{where} refused the connection ({_tail(line)})",
            "check that sshd runs there and that the port is right",
        )
    line = told.has(*_UNREACHABLE)
    if line:
        step = "check the network, the VPN, or set ProxyJump"
        return HostUnreachable(told.host, "connect", f"no route to {where} ({_tail(line)})", step)
    line = told.has(*_BEYOND)
    if line:
        return HostUnreachable(
            told.host,
            "connect",
            f"the jump host cannot reach {where} ({_tail(line)})",
            "check the name and the port, as seen from there",
        )
    if told.has("banner exchange") and told.has(*_NO_ANSWER):
        return HostUnreachable(
            told.host,
            "connect",
            f"{where} accepted the connection, but the SSH handshake was not over ({told.words})",
            "check that it is an SSH port and that the host is not overloaded",
        )
    line = told.has(*_NO_ANSWER)
    if line:
        return HostUnreachable(
            told.host,
            "connect",
            f"{where} did not answer ({_tail(line)})",
            "check that the host is up and that no firewall drops the port",
        )
    return None


def _key_error(told: _Told, shown: str = "") -> HostKeyError:
    shows = f"it shows the key {shown}; " if shown else ""
    return HostKeyError(
        told.host,
        "host key",
        f"ssh does not trust the host's key: {shows}{told.words}",
        "compare the fingerprint with what the host's administrator says, and put the right key into known_hosts",
    )


def _no_login(told: _Told, target: SshTarget, log: SshLog) -> HostError | Dropped:
    if told.has("Too many authentication failures"):
        what = f"the host ended the connection after these keys as user {target.user!r}"
        step = "too many keys? name the right one with IdentityFile, and `IdentitiesOnly yes`, in ~/.ssh/config"
        return AuthenticationFailed(told.host, "authenticate", _with_keys(what, told, log), step)
    asks_for = log.asks_for.split(",") if log.asks_for else []
    denied = told.has("Permission denied")
    if not denied and not asks_for:
        return ConnectionLost(told.host, "authenticate", f"the connection is gone ({told.words})")
    what = f"no key was accepted as user {target.user!r}"
    if _INTERACTIVE & set(asks_for):
        what = f"no login was accepted as user {target.user!r}; the host takes {' or '.join(asks_for)}, and a run never asks for anything"
        return AuthenticationFailed(told.host, "authenticate", _with_keys(what, told, log), reopen(told.host))
    login = f"{target.user}@{target.hostname}"
    step = (
        f"check that {target.user!r} is the right user there (`user:` or USER@HOST), and that one of these keys is in its "
        f"~/.ssh/authorized_keys (`ssh-copy-id -p {target.port} {login}`). If a key needs a passphrase, a PIN or a touch: "
        f"{reopen(told.host)}"
    )
    return AuthenticationFailed(told.host, "authenticate", _with_keys(what, told, log), step)


def _with_keys(what: str, told: _Told, log: SshLog) -> str:
    parts = [what]
    if log.offered:
        parts.append("offered: " + "; ".join(dict.fromkeys(log.offered)))
    parts.append(f"ssh says: {told.words}")
    return ". ".join(parts)


def lost(host: str, log: SshLog) -> ConnectionLost:
    """Return the error of a connection that ended while the command ran."""
    why = _Told(host, tuple(log.said)).words if log.said else "closed by the host"
    return ConnectionLost(host, "session", f"the connection is gone ({why})")


def _tail(line: str) -> str:
    """Return a line without ssh's name before it."""
    return re.sub(r"^ssh: ", "", line)
