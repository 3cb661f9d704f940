"""Makes the pictures of the live part and of `launcher top` in docs/looking.md: `python -m tests.live_picture`.

Rule: they are drawn by the real displays, of runs that never were, so that they are the same each time.
"""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from launcher import events
from launcher.agents.queries.gpus import GpuHolder, GpuList, HostGpu
from launcher.agents.queries.host_use import HostUse, JobThere, RunThere
from launcher.display.tally import Tally
from launcher.hosts.host_spec import HostSpec
from launcher.runs.status import RunStatus
from launcher.terminal.live_display import LiveDisplay
from launcher.terminal.top.top_rows import top_rows
from launcher.terminal.top.use import AskedHost, RunHere
from remote_agent.system.host import slug

PAGE = Path(__file__).parents[1] / "docs" / "looking.md"
_HOSTS = ("gpu1", "gpu2", "cluster")
_NOW, _GIB = 1000.0, 1 << 30


def _happened() -> list[events.Event]:
    happened: list[events.Event] = [events.RunStarted(100.0, "20261130-150454-f9cd18", "MULTIRUN", "sweep", _HOSTS)]
    happened += [events.HostReady(101.0, host, slots, "3.11.7") for host, slots in zip(_HOSTS, (1, 2, 4), strict=True)]
    for num in range(20):
        host = _HOSTS[num % 2] if num < 16 else "cluster"
        happened.append(events.JobQueued(102.0, num, (f"lr={0.1 * (num + 1):.1f}",)))
        if num == 19:
            continue
        happened.append(events.JobAssigned(103.0, num, 1, host))
        if num < 12:
            happened.append(events.AttemptStarted(110.0, num, 1, host, 0, 110.0))
            failed = {"kind": "out_of_memory", "message": "CUDA out of memory"} if num == 7 else None
            status = "FAILED" if failed else "COMPLETED"
            happened.append(events.JobReturned(700.0, num, 1, host, status, 180.0, failed))
        elif num < 14:
            happened.append(events.AttemptStarted(_NOW - 100 + num, num, 1, host, 0, 900.0))
    report = events.JobReported(_NOW - 2, 12, 1, "gpu1", 9, 900.0, 400.0, {"loss": 0.213})
    return [*happened, report, events.Note(990.0, "slurm: allocations wait: Priority", "cluster")]


def live_part() -> str:
    """Return the live part, as text."""
    stream = io.StringIO()
    console = Console(file=stream, width=120, height=24, color_system=None, force_terminal=True)
    display = LiveDisplay(Tally(), Console(file=io.StringIO(), width=120, height=24), total=20, clock=lambda: _NOW)
    for event in _happened():
        display(event)
    with console.capture() as capture:
        console.print(display.render())
    return capture.get()


def top() -> str:
    """Return what `launcher top` shows, as text."""
    tally = Tally()
    for event in _happened():
        tally(event)
    run = "20261130-150454-f9cd18"
    status = RunStatus(
        run, Path("sweep"), "running", 100.0, "MULTIRUN", "my_app.py:train", _HOSTS, 20, 11, 1, "pid 4711"
    )
    holder = GpuHolder(812, "python", "me", run, 12, 900)
    gpu = HostGpu(0, "GPU-1", "NVIDIA A100", "", 40 * _GIB, 31 * _GIB, True, holder, ())
    gpus = GpuList((gpu,), "nvml", "", "", True)
    use = HostUse(16, 3.2, 128 * _GIB, 90 * _GIB, (RunThere(run, slug("gpu1"), 1, 1, (JobThere(12, 1, 88.0),)),))
    hosts = [
        AskedHost(HostSpec("gpu1", "gpu1"), "gpu1", use, gpus),
        AskedHost(HostSpec("gpu2", "gpu2"), "gpu2", error="gpu2: connect: no answer in 10 s"),
    ]
    return "".join(f"{text}\n" for text, _ in top_rows(hosts, {run: RunHere(status, tally)}, _NOW))


def written(page: str) -> str:
    """Return the page with both pictures as they are now."""
    for name, picture in (("live", live_part()), ("top", top())):
        before, mark, rest = page.partition(f"```text {name}\n")
        page = before + mark + picture.replace("  \n", "\n") + rest[rest.index("```") :]
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
