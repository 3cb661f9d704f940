"""The exceptions of the controller. Third-party exceptions become one of these where they appear, and nowhere else.

What a job failed with, such as its timeout, is no exception here but a JobError: `remote_agent.shared.failure` has its text.

    LauncherError                    everything below; exit code 1 on the command line unless said otherwise
    +-- UsageError                   a request is wrong: a name, a range, a file                  (exit code 2)
    |   +-- ConfigError              a config does not compose, resolve or validate
    |   +-- InventoryError           hosts: names, ports, slots, unknown keys
    |   +-- CodeError                the code cannot be sent: too large, or by value to another Python
    |   +-- CallbackError            a callback cannot be made, or cannot be sent
    |   +-- PackagesError            packages cannot be resolved, fetched or built here, or fit no Python of a host
    +-- HostError                    one host, in one phase; has .host, .phase, .next_step        (exit code 3 if all)
    |   +-- HostUnreachable          name, route, refused, timed out
    |   +-- HostKeyError             unknown or changed host key
    |   +-- AuthenticationFailed     no key was accepted
    |   +-- AgentError               the agent did not start, or broke the protocol
    |   |   +-- HostBroken           it sent more than any agent sends; nothing more is read from it
    |   +-- ConnectionLost           the connection is lost; the state of its jobs is unknown
    +-- JournalError                 the journal could not be written or read
    |   +-- JournalMoved             its file was removed, moved or replaced during the run
    +-- ResultNotDecoded             a host's value was not decoded: damaged, or the `results` policy forbids it
    |   +-- ValueNotPlain            plain data cannot represent it; has .type, .why, .repr, .place
    +-- RunError                     a run cannot be found or resumed, or belongs to somebody else
    +-- RunInterrupted               Ctrl-C or SIGTERM; finished jobs were collected first        (exit code 130)
    |                                (also a KeyboardInterrupt; a second signal leaves the run)
    +-- RunDetached                  the controller left on purpose; the hosts go on               (exit code 0)
    +-- RunAborted                   a callback with on_error = "abort" stopped the run
    +-- SessionError                 a session is closed, or a hook waits for a job              (also a RuntimeError)
    +-- ControllerFailed             a bug of this package ended a thread that the run needs

An error names the host, the phase and the next step, and never has a secret in it.
`RemoteJobError`, the failure of a job, is not one of them: see `remote_agent.job`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher.util.text.terminal_text import clean
from remote_agent.job import RemoteJobError, with_article

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "AgentError",
    "AuthenticationFailed",
    "CallbackError",
    "CodeError",
    "ConfigError",
    "ConnectionLost",
    "ControllerFailed",
    "HostBroken",
    "HostError",
    "HostKeyError",
    "HostUnreachable",
    "InventoryError",
    "JournalError",
    "JournalMoved",
    "LauncherError",
    "PackagesError",
    "RemoteJobError",
    "ResultNotDecoded",
    "RunAborted",
    "RunDetached",
    "RunError",
    "RunInterrupted",
    "SessionError",
    "UsageError",
    "ValueNotPlain",
]


class LauncherError(Exception):
    """The root of what this package raises on purpose."""

    exit_code = 1


class UsageError(LauncherError):
    """A request is wrong or cannot be met; nothing was sent.

    Attributes:
        option: the field of LaunchConf that is wrong, such as `timeout` or `on_error.upload`; the message begins with it. Empty if
            no field is. The command line shows its flag instead, the Hydra plugin its place in the config.
    """

    exit_code = 2
    option = ""

    @classmethod
    def of_option(cls, option: str, rest: str) -> Self:
        """An error about this option; its message is the option and the rest."""
        made = cls(option + rest)
        made.option = option
        return made

    def named(self, option: str) -> Self:
        """The same error with another name for its option; without an option, the error itself."""
        return type(self)(option + str(self).removeprefix(self.option)) if self.option else self


class ConfigError(UsageError):
    """A config does not compose, resolve or validate."""


class InventoryError(UsageError):
    """The hosts as given cannot be used."""


class CodeError(UsageError):
    """The application's code cannot be sent as it is."""


class CallbackError(UsageError):
    """A callback cannot be made, or cannot be sent."""


class PackagesError(UsageError):
    """The packages of an environment cannot be resolved, fetched or built on this machine, or fit no Python of a host."""


class HostError(LauncherError):
    """Something failed on one host, or on the way to it.

    Attributes:
        host: the host as the user named it.
        phase: what was being done: `resolve`, `connect`, `host key`, `authenticate`, `start agent`, `session`, ...
        next_step: what the user can do about it; may be empty.
    """

    exit_code = 3

    def __init__(self, host: str, phase: str, message: str, next_step: str = "") -> None:
        self.host = host
        self.phase = phase
        # The words may come from a host.
        self.message = message = clean(message)
        self.next_step = next_step = clean(next_step)
        text = f"{host}: {phase}: {message}"
        super().__init__(f"{text}\n  next: {next_step}" if next_step else text)

    def message_of(self, host: str) -> str:
        """The message under the heading of this host. If another host on the way failed, the message names it."""
        return self.message if self.host == host else f"{self.host}: {self.message}"

    def __reduce__(self) -> tuple[type[HostError], tuple[str, str, str, str]]:
        return (type(self), (self.host, self.phase, self.message, self.next_step))


class HostUnreachable(HostError):
    """The host could not be reached: name, route, refused, timed out."""


class HostKeyError(HostError):
    """The host's key is unknown, changed or revoked; nothing was sent."""


class AuthenticationFailed(HostError):
    """The host accepted none of the offered identities."""


class AgentError(HostError):
    """The agent could not be started, or does not speak our protocol."""


class HostBroken(AgentError):
    """The agent exceeded a limit (`launcher.hosts.limits`), which no agent of ours does; the host is given up at once."""


class ConnectionLost(HostError):
    """The connection ended. The state of the host's jobs is unknown; they have not failed."""


class ResultNotDecoded(LauncherError):
    """A value from a host was not decoded: it is damaged or too large, or the `results` policy forbids it."""


class ValueNotPlain(ResultNotDecoded):
    """Plain data cannot represent a value, or something in it. All texts come from the host; they are shortened and cleaned.

    Attributes:
        type: its type.
        why: the reason why it cannot be represented, or cannot be made here.
        repr: its `repr`, if the host was asked for it; for a class that is not allowed, its fields.
        place: its place in the value, such as `['model'][0]`; empty for the value itself.
        next_step: how to get it anyway.
    """

    def __init__(
        self, type: str, why: str, repr: str, place: str = "", next_step: str = "", what: str = "the value"
    ) -> None:
        self.type, self.why, self.repr, self.place = type, why, repr, place
        self.next_step, self.what = next_step, what
        where = f", at value{place}," if place else ""
        text = f"{what}{where} cannot be represented as plain data: {with_article(type)}: {why}"
        text += f"\n  it is: {repr}" if repr else ""
        super().__init__(f"{text}\n  next: {next_step}" if next_step else text)

    def at(self, place: str) -> ValueNotPlain:
        """The same error about something at this place."""
        return ValueNotPlain(self.type, self.why, self.repr, place, self.next_step, self.what)

    def within(self, step: str) -> ValueNotPlain:
        """The same error about something that is one step deeper in the value."""
        return self.at(step + self.place)

    def told_of(self, what: str, next_step: str) -> ValueNotPlain:
        """The same error about what is being read, with this next step if it has none."""
        return ValueNotPlain(self.type, self.why, self.repr, self.place, self.next_step or next_step, what)

    def __reduce__(self) -> tuple[type[ValueNotPlain], tuple[str, ...]]:
        return (type(self), (self.type, self.why, self.repr, self.place, self.next_step, self.what))


class JournalError(LauncherError):
    """The journal could not be written or read. Nothing has been done that is not in it."""


class JournalMoved(JournalError):
    """The journal is no longer where it was. What was written since may be lost; the hosts still have it."""


class RunError(LauncherError):
    """A run cannot be found, resumed or changed."""

    exit_code = 2


class RunInterrupted(LauncherError, KeyboardInterrupt):
    """Ctrl-C or SIGTERM: finished jobs were collected and the end hooks fired. A second signal leaves the run at once.

    It is also a KeyboardInterrupt, so code that handles Ctrl-C handles it.

    Attributes:
        is_terminated: it was SIGTERM.
    """

    exit_code = 130

    def __init__(self, message: str, *, is_terminated: bool = False) -> None:
        super().__init__(message)
        self.is_terminated = is_terminated


class RunAborted(LauncherError):
    """A callback with `on_error = "abort"` raised and stopped the run."""


class ControllerFailed(LauncherError):
    """A bug ended a thread of the controller; the bug is the cause of this error. The hosts keep what they have."""


class SessionError(LauncherError, RuntimeError):
    """A session was used wrongly: after it was closed, or by a hook that waits for a job."""


class RunDetached(LauncherError):
    """The controller detached from the run, which goes on without it."""

    exit_code = 0
