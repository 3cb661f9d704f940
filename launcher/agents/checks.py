"""Checks of single fields that hosts fill in.

Rule: a field without its required form is refused. A text that is only shown is shortened to its limit.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from launcher.hosts.limits import limit
from remote_agent.job import JobError
from remote_agent.protocol import wire

__all__ = ["check_attempt", "short_name", "short_texts", "shortened"]


def check_attempt(attempt: str) -> str:
    """Check the name of an attempt from a host, because it becomes the name of a file and two numbers.

    Raises:
        ProtocolError: it has another form.
    """
    num, dot, rest = attempt.partition(".")
    if not (dot and num.isascii() and num.isdigit() and rest.isascii() and rest.isdigit() and len(attempt) <= 24):
        raise wire.ProtocolError("field", f"attempt {attempt[:40]!r}")
    return attempt


def short_texts(items: list[Any]) -> tuple[str, ...]:
    """A host's notes, shortened to the limits on their number and length."""
    return tuple(str(item)[: limit("text")] for item in items[: limit("notes")])


def short_name(text: Any) -> str:
    """A name from a host, shortened to its limit."""
    return str(text)[: limit("name")]


def shortened(error: JobError) -> JobError:
    """A host's error, shortened to its limit."""
    return dataclasses.replace(
        error,
        type=short_name(error.type),
        message=error.message[: limit("error")],
        traceback=error.traceback[: limit("error")],
        causes=error.causes[: limit("causes")],
    )
