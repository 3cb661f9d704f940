"""Checks of single fields that hosts fill in.

Rule: a field that must have a form is refused without it; a text that is only shown is cut to the length that it may have.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from launcher.host_limits import limit
from remote_agent.job import JobError
from remote_agent.shared import wire

__all__ = ["check_attempt", "short_name", "short_texts", "shortened"]


def check_attempt(attempt: str) -> str:
    """The name of an attempt, as a host gave it: it becomes the name of a file and two numbers.

    Raises:
        ProtocolError: it has another form.
    """
    num, dot, rest = attempt.partition(".")
    if not (dot and num.isascii() and num.isdigit() and rest.isascii() and rest.isdigit() and len(attempt) <= 24):
        raise wire.ProtocolError("field", f"attempt {attempt[:40]!r}")
    return attempt


def short_texts(items: list[Any]) -> tuple[str, ...]:
    """Notes of a host, cut to the number and length that they may have."""
    return tuple(str(item)[: limit("text")] for item in items[: limit("notes")])


def short_name(text: Any) -> str:
    """A name of a host's, cut to the length that it may have."""
    return str(text)[: limit("name")]


def shortened(error: JobError) -> JobError:
    """An error of a host, cut to the length that it may have."""
    return dataclasses.replace(
        error,
        type=short_name(error.type),
        message=error.message[: limit("error")],
        traceback=error.traceback[: limit("error")],
        causes=error.causes[: limit("causes")],
    )
