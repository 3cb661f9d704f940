"""The rows of `launcher top`."""

from __future__ import annotations

from pathlib import Path

from launcher import events
from launcher.agents.queries.gpus import GpuHolder, GpuList, HostGpu
from launcher.agents.queries.host_use import HostUse, JobThere, RunThere
from launcher.hosts.host_spec import HostSpec
from launcher.runs.status import RunStatus
from launcher.terminal.top.top_rows import top_rows
from launcher.terminal.top.use import AskedHost, RunHere
from remote_agent.system.host import slug
from tests.launcher.display.happened import one_job, ready, started, tally_of

GIB = 1 << 30
#: The name of a spool of the host gpu1.
SPOOL = slug("gpu1")


def host(*runs: RunThere, error: str = "", gpus: tuple[HostGpu, ...] = ()) -> AskedHost:
    use = HostUse(8, 1.5, 32 * GIB, 22 * GIB, runs)
    return AskedHost(HostSpec("gpu1", "gpu1"), "gpu1", use, GpuList(gpus, "nvml", "", "", True), error, 50.0)


def here(*more: events.Event) -> dict[str, RunHere]:
    status = RunStatus("r1", Path("/r"), "running", 40.0, "MULTIRUN", "app.py:train", ("gpu1",), 10, 3, 1, "pid 7")
    return {"r1": RunHere(status, tally_of([started(), ready(), *one_job(3)[:3], *more]))}


def plain(hosts: list[AskedHost], runs: dict[str, RunHere] | None = None) -> list[str]:
    return [text for text, _ in top_rows(hosts, runs or {}, 100.0)]


def test_a_run_with_its_jobs_and_what_its_journal_says() -> None:
    """Slots, the task and overrides are known where its journal is here."""
    run = RunThere("r1", SPOOL, 2, 1, (JobThere(3, 2, 12.0),))
    assert plain([host(run)], here()) == [
        "gpu1  load 1.5 of 8 CPUs  memory 10.0 GiB of 32.0 GiB",
        "  run r1  app.py:train  1/2 running, 2 queued",
        "    job 3, attempt 2  12 s  lr=3",
        "here",
        "  run r1  app.py:train  driven by pid 7  60 s  3 completed, 1 failed of 10, 0 waiting here",
    ]


def test_a_run_of_another_machine_of_yours() -> None:
    """Its journal is not here."""
    rows = plain([host(RunThere("r9", "far", 0, 1, (JobThere(3, 1, None),)))])
    assert rows[1:3] == ["  run r9  1 running, 0 queued", "    job 3"]
    assert rows[-1] == "  no run that has not ended"


def test_why_its_jobs_wait_in_a_queue() -> None:
    """As Slurm said last."""
    run = RunThere("r1", SPOOL, 2, 0, ())
    rows = plain([host(run)], here(events.Note(1.0, "slurm: allocations wait: Resources", "gpu1")))
    assert rows[1].endswith("0/2 running, 2 queued: Resources")


def test_gpus_with_who_has_them() -> None:
    """Run and job."""
    holder = GpuHolder(5, "python", "me", "r1", 3, 40)
    gpus = (
        HostGpu(0, "GPU-a", "False GPU", "", 16 * GIB, 3 * GIB, True, holder, ()),
        HostGpu(1, "", "", "", None, None, True, None, None),
    )
    rows = plain([host(gpus=gpus)])
    assert rows[1] == "  GPU 0  False GPU  3.0 GiB of 16.0 GiB: job 3 of run r1 for 60 s (process 5 (python) of me)"
    assert rows[2] == "  GPU 1  cannot be read"


def test_a_host_that_does_not_answer() -> None:
    """A line, with what it said before."""
    asked = AskedHost(HostSpec("gpu2", "gpu2"), "gpu2", error="gpu2: connect: refused\nnext: look")
    assert plain([asked])[0] == "gpu2  gpu2: connect: refused next: look"
    assert plain([AskedHost(HostSpec("gpu2", "gpu2"), "gpu2")])[0] == "gpu2  asking ..."
    assert "  does not answer (this is of " in plain([host(error="gpu1: link lost")])[1]


def test_a_journal_that_cannot_be_read() -> None:
    """One of a later version, or a damaged one. The others are shown."""
    rows = [text for text, _ in top_rows([], here(), 100.0, {"r2": "its journal is\ndamaged"})]
    assert rows[1].startswith("  run r1  ")
    assert rows[2] == "  run r2  its journal is damaged"


def test_a_hostile_host_writes_text_alone() -> None:
    """Names of runs, GPUs and errors."""
    evil = "\x1b[2Jfoo\nbar\r\x1b]0;x\x07"
    gpu = HostGpu(0, "GPU-a", evil, "", None, None, True, GpuHolder(1, evil, evil, evil, 1, 1), ())
    rows = plain([host(RunThere(evil, evil, 1, 1, (JobThere(1, 1, 1.0),)), error=evil, gpus=(gpu,))])
    assert any("foo" in row for row in rows)
    assert not [row for row in rows if not row.isprintable()]
