"""What jobs have used, for people: a line about one job, and columns of tables that have only what is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from launcher.display.text import seconds, size
from remote_agent.job import ResourcesUsed

__all__ = ["usage_columns", "usage_text"]


def _share(value: float) -> str:
    return f"{value:.0%}"


#: A field of ResourcesUsed: the header of its column, how it is written, and its place in a sentence.
_SHOWN: dict[str, tuple[str, Callable[[float], str], str]] = {
    "cpu_seconds": ("CPU time", seconds, "{} of CPU time"),
    "peak_memory": ("memory", size, "at most {} of memory"),
    "gpu_share": ("GPU", _share, "{} of the time of its GPUs"),
    "peak_gpu_memory": ("GPU memory", size, "at most {} of GPU memory"),
    "bytes_in": ("sent", size, "{} sent to it"),
    "bytes_out": ("received", size, "{} came back"),
}


def usage_text(used: ResourcesUsed | None) -> str:
    """Describe what a job has used in one line; empty if nothing is known."""
    parts = []
    for name, (_, write, sentence) in _SHOWN.items():
        value = getattr(used, name, None)
        if value is not None:
            parts.append(sentence.format(write(value)))
    return ", ".join(parts)


def usage_columns(
    used: Iterable[ResourcesUsed | None], names: Sequence[str] = tuple(_SHOWN)
) -> list[tuple[str, list[float | None], list[str]]]:
    """Return a column for each of these fields that is known of any job: its header, its numbers, and their texts."""
    jobs = list(used)
    columns = []
    for name in names:
        header, write, _ = _SHOWN[name]
        cells: list[float | None] = [getattr(one, name, None) for one in jobs]
        if any(cell is not None for cell in cells):
            columns.append((header, cells, ["" if cell is None else write(cell) for cell in cells]))
    return columns
