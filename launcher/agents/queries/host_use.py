"""What a host says of what runs there now, and of its memory and CPUs.

Rule: a host may say anything. What has not the expected form is left out, and what is too long is cut.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from launcher.agents.checks import short_name
from launcher.hosts.limits import limit

__all__ = ["HostUse", "JobThere", "RunThere", "read_use"]


@dataclasses.dataclass(frozen=True)
class JobThere:
    """A job that runs. `seconds`: for how long; None if that is unknown."""

    num: int
    attempt: int
    seconds: float | None


@dataclasses.dataclass(frozen=True)
class RunThere:
    """A run whose agent is there. `host`: the name of its spool, made of the name that the run has for the host. `jobs` are some of those that run."""

    run: str
    host: str
    queued: int
    running: int
    jobs: tuple[JobThere, ...]


@dataclasses.dataclass(frozen=True)
class HostUse:
    """Bytes of memory, the load of the last minute, and the user's runs. None is unknown."""

    cpus: int | None
    load: float | None
    memory: int | None
    memory_free: int | None
    runs: tuple[RunThere, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)


def read_use(content: dict[str, Any]) -> HostUse:
    """Return what a host's answer says."""
    at, runs = _number(content.get("at")), content.get("runs")
    made = [_run(item, at) for item in runs[: limit("runs")]] if isinstance(runs, list) else []
    return HostUse(
        _whole(content.get("cpus")),
        _number(content.get("load")),
        _whole(content.get("memory")),
        _whole(content.get("memory_free")),
        tuple(one for one in made if one is not None),
    )


def _run(item: Any, at: float | None) -> RunThere | None:
    if not isinstance(item, dict) or not isinstance(item.get("run"), str) or not isinstance(item.get("host"), str):
        return None
    jobs = item.get("jobs")
    made = [_job(one, at) for one in jobs[: limit("jobs_shown")]] if isinstance(jobs, list) else []
    return RunThere(
        short_name(item["run"]),
        short_name(item["host"]),
        _whole(item.get("queued")) or 0,
        _whole(item.get("running")) or 0,
        tuple(one for one in made if one is not None),
    )


def _job(item: Any, at: float | None) -> JobThere | None:
    if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str):
        return None
    num, _, attempt = item[0].partition(".")
    if not all(part.isascii() and part.isdigit() and len(part) < 19 for part in (num, attempt)):
        return None
    begun = _number(item[1])
    seconds = None if begun is None or at is None else max(at - begun, 0.0)
    return JobThere(int(num), int(attempt), seconds)


def _whole(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 1 << 63 else None


def _number(value: Any) -> float | None:
    is_number = type(value) in (int, float) and abs(value) < 1 << 63 and math.isfinite(value)
    return float(value) if is_number else None
