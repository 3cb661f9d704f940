"""The GPUs of a host, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from launcher.display.text import about, clean_line

if TYPE_CHECKING:
    from launcher.agents.queries.gpus import GpuHolder, GpuList, GpuProcess, HostGpu

__all__ = ["lines", "use_of"]


def lines(found: GpuList, now: float) -> Iterator[str]:
    """Yield a line for each GPU, one for each process that is not of its job, and what is to be said of all. `now`: seconds since the epoch."""
    if not found.gpus:
        yield f"no GPU ({clean_line(found.error)})" if found.error else "no GPU"
    for gpu in found.gpus:
        if not gpu.uuid:
            yield f"{gpu.number}  cannot be read"
            continue
        memory = "" if gpu.used is None or gpu.total is None else f", {_mib(gpu.used)} of {_mib(gpu.total)} MiB used"
        left_out = "" if gpu.is_chosen else "; the hosts file leaves it out"
        yield f"{gpu.number}  {clean_line(gpu.uuid)}  {clean_line(gpu.name)}{memory}: {use_of(gpu, now)}{left_out}"
        yield from (f"     {_process(one)}" for one in gpu.others)
    if found.gpus and found.error:
        yield f"warning: {clean_line(found.error)}"
    if found.why:
        yield f"warning: a run cannot use this host: {clean_line(found.why)}"
    if found.gpus and not found.is_whole_host:
        yield "warning: leases of GPUs hold in this container only"


def use_of(gpu: HostGpu, now: float) -> str:
    """Say who has a GPU. `now`: seconds since the epoch."""
    if gpu.holder is not None:
        return _holder(gpu.holder, now)
    if gpu.others:
        return "not leased, in use"
    return "free"


def _holder(holder: GpuHolder, now: float) -> str:
    who = clean_line(holder.user)
    if holder.pid is not None:
        who = f"process {holder.pid}{f' ({clean_line(holder.name)})' if holder.name else ''} of {who}"
    # The clock of a host may be ahead.
    since = f" for {about(max(now - holder.since, 1.0))}" if holder.since else ""
    if not holder.run:
        return f"taken by {who}, which is not a run's"
    job = f"job {holder.job}" if holder.job is not None else "about to have a job"
    return f"{job} of run {clean_line(holder.run)}{since} ({who})"


def _process(one: GpuProcess) -> str:
    name = f" ({clean_line(one.name)})" if one.name else ""
    memory = "" if one.used is None else f", {_mib(one.used)} MiB"
    return f"process {one.pid}{name} of {clean_line(one.user)}{memory}"


def _mib(size: int) -> str:
    return f"{size >> 20:,}"
