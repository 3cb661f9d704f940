"""A dry run for people."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from launcher.display.dry_run import print_dry_run
from launcher.setup.dry_run import DryRun, PlannedEnvironment, PlannedHost, PlannedJob

UNSAID = {"gpus": None, "cpus": None, "memory": None}


def job(num: int, **more: Any) -> PlannedJob:
    """A job that both hosts could take."""
    given = {"overrides": (f"lr={num}", "seed=1"), "needs": {}, "hosts": ("gpu1", "gpu2"), "config_bytes": 100, **more}
    return PlannedJob(num=num, output_dir=Path(f"/runs/{num}"), **given)


def shown(**more: Any) -> str:
    """What is written of a plan."""
    gpu1 = PlannedHost("gpu1", 2, None, {**UNSAID, "memory": 4 << 30}, True, None, 2)
    gpu2 = PlannedHost("gpu2", None, None, UNSAID, True, PlannedEnvironment("uv.lock", "a" * 64, "b" * 64), 1)
    given: dict[str, Any] = {
        "hosts": (gpu1, gpu2), "jobs": (job(0), job(1)), "files": 3, "code_bytes": 2048, "shared_bytes": 10, **more,
    }  # fmt: skip
    stream = io.StringIO()
    print_dry_run(DryRun(mode="MULTIRUN", task="train", folder=Path("/runs"), **given), stream)
    return stream.getvalue()


def test_hosts_and_what_is_sent() -> None:
    """Each host has its slots, what it has, how many jobs it could take, and its packages."""
    text = shown()
    assert "train would run 2 jobs; results in /runs\n" in text
    assert "code: 3 files, 2.0 KiB" in text
    assert "gpu1: 2 jobs at once; has memory=4.0 GiB; could take all jobs\n" in text
    assert "gpu2: one job per GPU, or one; could take 1 of the 2 jobs; packages of uv.lock (lock aaaaaaaaaaaa" in text
    assert "last time environment bbbbbbbbbbbb" in text


def test_jobs_show_what_differs() -> None:
    """Overrides of all jobs are shown once. A job's hosts are shown if they are not those of the others."""
    text = shown()
    assert "all jobs: seed=1\n  0  lr=0\n  1  lr=1\n" in text
    text = shown(jobs=(job(0), job(1, hosts=("gpu1",), needs={"gpus": 1})))
    assert "  0  lr=0  on gpu1, gpu2\n  1  lr=1  needs gpus=1  on gpu1\n" in text


def test_a_job_that_would_fail_comes_first() -> None:
    """It is shown with its reason, and counted."""
    text = shown(jobs=(job(0), job(1, hosts=(), failure=("config", "no such key"))))
    assert text.index("  1  lr=1  FAILS: no such key\n") < text.index("  0  lr=0\n")
    assert "would fail before they are sent: 1 job (1)" in text


def test_a_long_list_is_cut() -> None:
    """It says how many jobs are left out."""
    assert "... and 970 more jobs\n" in shown(jobs=tuple(job(num) for num in range(1000)))


def test_jobs_that_a_sweeper_decides() -> None:
    """No number is invented for them."""
    text = shown(jobs=None, unknown=("which jobs there will be",))
    assert "train would run jobs that its sweeper decides" in text
    assert "not known without logging in:\n  which jobs there will be\n" in text
    assert "could take" not in text


def test_no_text_of_others_acts_on_the_terminal() -> None:
    """A path or an override may have any characters."""
    text = shown(jobs=(job(0, overrides=("lr=\x1b[2J",)),), warnings=(("code", "\x1b[2J"),), by_value=("\x1b[2J",))
    assert "\x1b" not in text
