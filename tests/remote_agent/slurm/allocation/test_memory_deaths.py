"""Which jobs count as killed because of their memory, and where the kernel's count is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote_agent.slurm.allocation.memory_deaths import MemoryDeaths, counters


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """A count that has risen before."""
    (tmp_path / "memory.events").write_text("oom 9\noom_kill 2\noom_group_kill 0\n")
    return tmp_path / "memory.events"


def test_one_death_is_counted_for_one_job(events: Path):
    """Another job that SIGKILL ends at that time has another reason. What was before an allocation does not count."""
    deaths = MemoryDeaths([str(events)])
    deaths.began("3.1")
    deaths.began("4.1")
    events.write_text("oom 9\noom_kill 3\n")
    assert deaths.was_one("3.1")
    assert not deaths.was_one("4.1")


def test_a_death_before_a_job_began_is_not_its_own(events: Path):
    """It was a process of another job's, or the job itself went on."""
    deaths = MemoryDeaths([str(events)])
    events.write_text("oom 9\noom_kill 3\n")
    deaths.began("3.1")
    assert not deaths.was_one("3.1")
    assert not deaths.was_one("3.1")


def test_without_a_count_nobody_knows(tmp_path: Path):
    """The file is gone, says nothing of it, or never was."""
    for files in ([str(tmp_path / "gone")], [str(tmp_path)], []):
        deaths = MemoryDeaths(files)
        deaths.began("3.1")
        assert not deaths.was_one("3.1")


@pytest.mark.parametrize(
    ("group", "mount", "name"),
    [
        ("4:memory:/slurm/job 7/step", "- cgroup cgroup rw,memory", "memory.oom_control"),
        ("0::/slurm/job 7/step", "- cgroup2 cgroup2 rw,nsdelegate", "memory.events"),
    ],
)
def test_the_count_is_that_of_the_cgroup_of_the_process(tmp_path: Path, group: str, mount: str, name: str):
    """In both versions, also where only a part of the tree is mounted, or the names have spaces."""
    place = tmp_path / "mem ory"
    (place / "job 7" / "step").mkdir(parents=True)
    (place / "job 7" / "step" / name).write_text("oom_kill 0\n")
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(f"9:name=systemd:/x\n{group}\n3:cpuset:/y\n")
    shown = str(place).replace(" ", "\\040")
    (proc / "mountinfo").write_text(
        f"30 20 0:9 / /sys rw - sysfs sysfs rw\n36 25 0:31 /slurm {shown} rw,nosuid shared:9 {mount}\n"
        f"37 25 0:32 /elsewhere {shown} rw {mount}\n"
    )
    assert counters(str(proc)) == [str(place / "job 7" / "step" / name)]


def test_a_proc_that_cannot_be_read_has_none(tmp_path: Path):
    """Then memory is never named."""
    assert counters(str(tmp_path)) == []
