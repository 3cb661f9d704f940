"""What a host says of its GPUs: who has which, for which run and job, and which other processes use it.

Rule: a host may say anything. What has not the expected form is left out, and what is too long is cut.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from launcher.agents.checks import short_name
from launcher.hosts.limits import limit
from remote_agent.protocol.messages import GpusListed

__all__ = ["GpuHolder", "GpuList", "GpuProcess", "HostGpu", "read_gpus"]


@dataclasses.dataclass(frozen=True)
class GpuProcess:
    """A process that computes on a GPU. `used`: bytes; None if unknown. `is_of_job`: it belongs to the job that has the GPU."""

    pid: int
    name: str
    user: str
    used: int | None
    is_of_job: bool


@dataclasses.dataclass(frozen=True)
class GpuHolder:
    """Who has a GPU.

    Attributes:
        pid: None if it is not visible, as from another container.
        run: empty for a process that is not of this launcher.
        job: None if the run is about to start one.
        since: seconds since the epoch, by the host's clock.
    """

    pid: int | None
    name: str
    user: str
    run: str
    job: int | None
    since: int


@dataclasses.dataclass(frozen=True)
class HostGpu:
    """A GPU, or an instance of one.

    Attributes:
        number: its place, by which a hosts file may name it.
        uuid: empty if it cannot be read.
        parent: the UUID of the divided GPU, for an instance; else empty.
        total, used: bytes of memory; None if unknown.
        is_chosen: the hosts file lets jobs have it.
        processes: those that compute on it; None if unknown.
    """

    number: int
    uuid: str
    name: str
    parent: str
    total: int | None
    used: int | None
    is_chosen: bool
    holder: GpuHolder | None
    processes: tuple[GpuProcess, ...] | None

    @property
    def others(self) -> tuple[GpuProcess, ...]:
        """Processes that are not of the job that has it."""
        return tuple(one for one in self.processes or () if not one.is_of_job)


@dataclasses.dataclass(frozen=True)
class GpuList:
    """The GPUs of a host.

    Attributes:
        source: what told them: `nvml`, `nvidia-smi` or nothing.
        error: what could not be read.
        why: why a run could not have the GPUs that the hosts file names; empty if it can.
        is_whole_host: leases hold on the whole host, and not in a container alone.
    """

    gpus: tuple[HostGpu, ...]
    source: str
    error: str
    why: str
    is_whole_host: bool

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)


def read_gpus(header: GpusListed, items: list[Any]) -> GpuList:
    """Return what a host's answer says."""
    gpus = [made for item in items[: limit("gpus")] if (made := _gpu(item)) is not None]
    return GpuList(
        tuple(gpus),
        short_name(header["source"]),
        header["error"][: limit("reason")],
        header["why"][: limit("reason")],
        header["covers_host"],
    )


def _gpu(item: Any) -> HostGpu | None:
    if (
        not isinstance(item, dict)
        or not _is_number(item.get("number"))
        or not _are_texts(item, "uuid", "name", "parent")
    ):
        return None
    processes = item.get("processes")
    read = None
    if isinstance(processes, list):
        read = tuple(one for each in processes[: limit("gpu_processes")] if (one := _process(each)) is not None)
    return HostGpu(
        item["number"],
        short_name(item["uuid"]),
        short_name(item["name"]),
        short_name(item["parent"]),
        _number(item.get("total")),
        _number(item.get("used")),
        item.get("is_chosen") is True,
        _holder(item.get("holder")),
        read,
    )


def _process(item: Any) -> GpuProcess | None:
    if not isinstance(item, dict) or not _is_number(item.get("pid")) or not _are_texts(item, "name", "user"):
        return None
    return GpuProcess(
        item["pid"],
        short_name(item["name"]),
        short_name(item["user"]),
        _number(item.get("used")),
        item.get("is_of_job") is True,
    )


def _holder(item: Any) -> GpuHolder | None:
    if not isinstance(item, dict) or not _are_texts(item, "name", "user", "run", "attempt"):
        return None
    job = item["attempt"].partition(".")[0]
    return GpuHolder(
        _number(item.get("pid")),
        short_name(item["name"]),
        short_name(item["user"]),
        short_name(item["run"]),
        int(job) if job.isascii() and job.isdigit() and len(job) < 19 else None,
        _number(item.get("since")) or 0,
    )


def _are_texts(item: dict[str, Any], *names: str) -> bool:
    return all(isinstance(item.get(name), str) for name in names)


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _number(value: Any) -> int | None:
    return value if _is_number(value) else None
