"""Compares how a job ended with how it ended before: status, value, or the exception and the line that raised it.

Rule: equal digests mean equal values. Otherwise values are decoded under the caller's `results` policy. Values that may
not be decoded are not compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from launcher.errors import LauncherError
from launcher.util.equality import is_equal
from launcher.util.text.terminal_text import clean
from remote_agent.job import JobError, JobReturn, with_article

if TYPE_CHECKING:
    from launcher.results.decoding import Decoder
    from launcher.runs.journal import JournalReader, StoredResult

__all__ = ["Comparison", "Outcome", "compare", "outcome_of_job_return", "recorded_outcome", "stored_outcome"]

_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>.+)$', re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        status: COMPLETED or FAILED.
        error: the error of a failed job.
        digest: SHA-256 of a completed job's pickled or plain value, if that is the whole value.
        value: returns that value. It may raise anything.
    """

    status: str
    error: JobError | None = None
    digest: str = ""
    value: Callable[[], Any] | None = None

    @property
    def place(self) -> str:
        """The `file:line in function` that raised. The file has no folders, because they differ from host to host."""
        frames = list(_FRAME.finditer(self.error.traceback)) if self.error is not None else []
        if not frames:
            return ""
        last = frames[-1]
        return clean(f"{PurePath(last['file']).name}:{last['line']} in {last['function'].strip()}")


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison. `is_same` is None if it is not known. `lines` say why, for people."""

    is_same: bool | None
    lines: tuple[str, ...]

    def __post_init__(self) -> None:
        # A host or a pickle decides what values and their `repr` are.
        object.__setattr__(self, "lines", tuple(map(clean, self.lines)))


def recorded_outcome(reader: JournalReader, num: int, decoder: Decoder) -> Outcome | None:
    """Return the outcome of a job from a journal; None if it has not returned."""
    event = reader.returned(num)
    if event is None:
        return None
    error = JobError.from_json(event.error) if event.error else None
    stored = reader.result(num, event.attempt)
    if event.status != "COMPLETED" or stored is None or stored.parts.value is None:
        return Outcome(event.status, error)
    return stored_outcome(stored, decoder)


def stored_outcome(stored: StoredResult, decoder: Decoder) -> Outcome:
    """Return the outcome of a job that completed with a value."""
    return Outcome("COMPLETED", None, decoder.digest(stored), lambda: decoder.part(stored, "value"))


def outcome_of_job_return(job_return: JobReturn) -> Outcome:
    """Return the outcome in a JobReturn, ours or Hydra's."""
    status = job_return.status.name
    value = job_return._return_value  # noqa: SLF001 - reading `return_value` of a failed job raises
    if status == "COMPLETED":
        return Outcome(status, None, "", lambda: value)
    error = getattr(job_return, "error", None)
    if error is None and isinstance(value, BaseException):
        error = JobError("exception", f"{type(value).__module__}.{type(value).__qualname__}", str(value))
    return Outcome(status, error)


def compare(before: Outcome, after: Outcome) -> Comparison:
    """Compare two outcomes."""
    if before.status != after.status:
        return Comparison(False, (f"was {_told(before)}", f"is {_told(after)}"))
    if before.status == "COMPLETED":
        return _compare_values(before, after)
    differences = []
    one, other = before.error or JobError("exception"), after.error or JobError("exception")
    if (one.kind, _short(one.type)) != (other.kind, _short(other.type)):
        differences.append(f"was {_told(before)}; is {_told(after)}")
    elif before.place and after.place and before.place != after.place:
        differences.append(f"was raised at {before.place}; is raised at {after.place}")
    elif (one.exit_code, one.signal) != (other.exit_code, other.signal):
        differences.append(f"was {_told(before)}; is {_told(after)}")
    if differences:
        return Comparison(False, tuple(differences))
    lines = [_told(after)]
    if one.message != other.message:
        lines.append(f"the message differs; it was: {one.message}")
    return Comparison(True, tuple(lines))


def _compare_values(before: Outcome, after: Outcome) -> Comparison:
    if before.digest and before.digest == after.digest:
        return Comparison(True, ("COMPLETED with the same value, byte for byte",))
    if before.value is None or after.value is None:
        if before.value is None and after.value is None:
            return Comparison(True, ("COMPLETED",))
        return Comparison(None, ("COMPLETED both times; one of the values is missing, so they cannot be compared",))
    try:
        one, other = before.value(), after.value()
    except LauncherError as error:
        return Comparison(
            None,
            ("COMPLETED both times; the values' bytes differ, and they must be decoded to be compared:", str(error)),
        )
    except Exception as error:  # noqa: BLE001 - a pickle may raise anything
        return Comparison(None, (f"COMPLETED both times; a value cannot be decoded: {type(error).__name__}: {error}",))
    is_same = is_equal(one, other)
    if is_same is None:
        return Comparison(None, ("COMPLETED both times; the values cannot be compared",))
    if is_same:
        return Comparison(True, ("COMPLETED with an equal value",))
    return Comparison(False, (f"the value was {_shown(one)}", f"it is {_shown(other)}"))


def _shown(value: Any, limit: int = 300) -> str:
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - a user's __repr__ may raise anything
        text = f"{with_article(type(value).__name__)} whose repr raises {type(error).__name__}"
    return text if len(text) <= limit else text[:limit] + "..."


def _short(name: str) -> str:
    """Return a type's name without `builtins.` and `__main__.`, which vary from place to place."""
    return name.removeprefix("builtins.").removeprefix("__main__.")


def _told(outcome: Outcome) -> str:
    if outcome.error is None:
        return outcome.status
    place = f" at {outcome.place}" if outcome.place else ""
    return f"{outcome.status} ({outcome.error.kind}): {outcome.error}{place}"
