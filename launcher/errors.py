"""The exceptions of the controller. Third-party exceptions become one of these where they appear, and nowhere else.

    LauncherError                    everything below; exit code 1 on the command line unless said otherwise
    +-- UsageError                   what was asked for cannot be: a name, a range, a file        (exit code 2)
    |   +-- ConfigError              a config does not compose, resolve or validate
    |   +-- InventoryError           hosts: names, ports, slots, unknown keys
    |   +-- CodeError                the code cannot travel: size, by value across Python versions
    |   +-- CallbackError            a callback cannot be built, or cannot travel
    +-- HostError                    one host, in one phase; has .host, .phase, .next_step        (exit code 3 if all)
    |   +-- HostUnreachable          name, route, refused, timed out
    |   +-- HostKeyError             unknown or changed host key
    |   +-- AuthenticationFailed     no key was accepted
    |   +-- AgentError               the agent did not start, or spoke nonsense
    |   |   +-- HostBroken           it said more than any agent says: nothing more is taken from it
    |   +-- ConnectionLost           the link is gone; whether the jobs are is not known
    +-- JournalError                 the journal could not be written or read
    |   +-- JournalMoved             it is not where it was: removed, moved or replaced while the run goes on
    +-- ResultNotDecoded             a host's value was not decoded: damaged, or the `results` policy forbids it
    |   +-- ValueNotPlain            it cannot be said as plain data; has .type, .why, .repr, .place
    +-- RunError                     a run cannot be found, resumed, or is somebody else's
    +-- RunInterrupted               Ctrl-C or SIGTERM; everything was collected first            (exit code 130)
    |                                (a KeyboardInterrupt, too; after a second one the run is left)
    +-- RunDetached                  the controller left on purpose; the hosts go on               (exit code 0)
    +-- RunAborted                   a callback with on_error = "abort" stopped the run
    +-- SessionError                 a session is closed, or a job is waited for in a hook       (a RuntimeError, too)
    +-- ControllerFailed             a defect of ours ended a thread that the run cannot do without

An error says whose it is (host), when (phase) and what to do (next_step), and never holds a secret.
`RemoteJobError`, a job's failure, is not among them: it belongs to the job (see `remote_agent.job`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher.util.terminal_text import clean
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
    """What was asked for cannot be done as asked; nothing was sent.

    Attributes:
        option: the field of LaunchConf at fault, such as `timeout` or `on_error.upload`, with which the message begins then; else
            empty. On the command line its flag is said instead, with the Hydra plugin where it stands in the config.
    """

    exit_code = 2
    option = ""

    @classmethod
    def of_option(cls, option: str, rest: str) -> Self:
        """An error that is about this option; its message goes on with the rest."""
        made = cls(option + rest)
        made.option = option
        return made

    def named(self, option: str) -> Self:
        """The same error with the option at fault said in other words; without one, itself."""
        return type(self)(option + str(self).removeprefix(self.option)) if self.option else self


class ConfigError(UsageError):
    """A config does not compose, resolve or validate."""


class InventoryError(UsageError):
    """The hosts as given cannot be used."""


class CodeError(UsageError):
    """The application's code cannot travel as it is."""


class CallbackError(UsageError):
    """A callback cannot be built or cannot travel."""


class HostError(LauncherError):
    """Something failed on or on the way to one host.

    Attributes:
        host: the host as the user named it.
        phase: what was under way: `resolve`, `connect`, `host key`, `authenticate`, `start agent`, `session`, ...
        next_step: what the user can do about it; may be empty.
    """

    exit_code = 3

    def __init__(self, host: str, phase: str, message: str, next_step: str = "") -> None:
        self.host = host
        self.phase = phase
        # A host may have said the words of it.
        self.message = message = clean(message)
        self.next_step = next_step = clean(next_step)
        text = f"{host}: {phase}: {message}"
        super().__init__(f"{text}\n  next: {next_step}" if next_step else text)

    def message_of(self, host: str) -> str:
        """The message, where it is told as that host's: one of a host on the way there says whose it is."""
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
    """The agent went beyond a cap (`launcher.host_limits`), which none of ours does: it is given up at once."""


class ConnectionLost(HostError):
    """The link ended. The host's jobs are unknown, not failed."""


class ResultNotDecoded(LauncherError):
    """A value that a host made was not decoded: it is damaged, over a cap, or the `results` policy forbids it."""


class ValueNotPlain(ResultNotDecoded):
    """A value, or something in it, that plain data cannot say. All texts were made on the host, and are bounded and cleaned.

    Attributes:
        type: its type.
        why: what keeps it from being said, or from being made here.
        repr: its `repr`, where the host was asked for that; of a class that is not allowed its fields.
        place: where in the value it lies, such as `['model'][0]`; empty for the value itself.
        next_step: how to get it all the same.
    """

    def __init__(
        self, type: str, why: str, repr: str, place: str = "", next_step: str = "", what: str = "the value"
    ) -> None:
        self.type, self.why, self.repr, self.place = type, why, repr, place
        self.next_step, self.what = next_step, what
        where = f", at value{place}," if place else ""
        text = f"{what}{where} cannot be had as plain data: {with_article(type)}: {why}"
        text += f"\n  it is: {repr}" if repr else ""
        super().__init__(f"{text}\n  next: {next_step}" if next_step else text)

    def at(self, place: str) -> ValueNotPlain:
        """The same, of something that lies there."""
        return ValueNotPlain(self.type, self.why, self.repr, place, self.next_step, self.what)

    def within(self, step: str) -> ValueNotPlain:
        """The same, of something that lies this step further in."""
        return self.at(step + self.place)

    def told_of(self, what: str, next_step: str) -> ValueNotPlain:
        """The same, of what is read; with what to do about it, unless that is known."""
        return ValueNotPlain(self.type, self.why, self.repr, self.place, self.next_step or next_step, what)

    def __reduce__(self) -> tuple[type[ValueNotPlain], tuple[str, ...]]:
        return (type(self), (self.type, self.why, self.repr, self.place, self.next_step, self.what))


class JournalError(LauncherError):
    """The journal could not be written or read; nothing that it does not hold has been acted on."""


class JournalMoved(JournalError):
    """The journal is not where it was any more; what was written since may be lost, and no host was told to forget it."""


class RunError(LauncherError):
    """A run cannot be found, resumed or changed."""

    exit_code = 2


class RunInterrupted(LauncherError, KeyboardInterrupt):
    """Ctrl-C or SIGTERM: what had finished was collected and the end hooks fired; or, by a second one, the run was left.

    A KeyboardInterrupt, too: whoever handles Ctrl-C handles it.

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
    """A thread of the controller died of a defect, which is the cause; the hosts keep what they have."""


class SessionError(LauncherError, RuntimeError):
    """A session was used as it cannot be: after it was closed, or by a hook that waits for a job."""


class RunDetached(LauncherError):
    """The controller left the run, which goes on without it."""

    exit_code = 0
