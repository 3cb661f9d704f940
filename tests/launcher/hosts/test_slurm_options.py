"""`slurm:` of a host."""

from __future__ import annotations

import pytest

from launcher.errors import InventoryError
from launcher.hosts.slurm_options import slurm_options


def test_what_an_allocation_has() -> None:
    """As the user wrote it."""
    slurm = {"partition": "gpu", "time": "4:00:00", "cpus": 8, "gpus": "a100:1", "mem": "32G", "options": ["-C a100"]}
    assert slurm_options("here", slurm) == slurm
    assert slurm_options("here", {"jobs": "many", "idle": 0}) == {"jobs": "many", "idle": 0}
    assert slurm_options("here", {"environments": "/scratch/me/"}) == {"environments": "/scratch/me/"}
    assert slurm_options("here", {"slots": 2}) == {"slots": 2}
    assert slurm_options("here", {"slots": 1}) == {"slots": 1}
    for time in (90, "90", "4:00:00", "1-12", "1-12:30", "UNLIMITED"):
        assert slurm_options("here", {"time": time}) == {"time": time}
    plain = {
        "options": [
            "-p",
            "gpu",
            "-A",
            "proj",
            "--hold",
            "--signal=B:TERM@300",
            "--comment=array",
            "--wait-all-nodes=1",
            "--no-requeue",
            "--constraint=a100",
        ]
    }
    assert slurm_options("here", plain) == plain
    for several in ({"nodes": 2}, {"nodes": 2, "tasks": "8", "jobs": 1, "slots": 1}, {"nodes": 1, "jobs": "many"}):
        assert slurm_options("here", several) == several


@pytest.mark.parametrize(
    ("slurm", "says"),
    [
        ("gpu", "not a mapping"),
        ({"partitoin": "gpu"}, "did you mean 'partition'"),
        ({3: "gpu"}, "unknown field 3"),
        ({"options": "--exclusive"}, "options: .* is not a list of options of sbatch"),
        ({"options": ["gpu"]}, "options: 'gpu' is no option of sbatch; one begins with -"),
        (
            {"options": ["--exclusive", "--wrap=x"]},
            "options: '--wrap=x': the launcher sets --wrap itself, or needs it unset; leave it out",
        ),
        ({"options": ["--arr=1-3"]}, "the launcher sets --array itself"),
        ({"options": ["-C a100", "-J", "mine"]}, "the launcher sets --job-name itself"),
        ({"options": ["-Jmine"]}, "the launcher sets --job-name itself"),
        ({"options": ["--wrap", "true"]}, "the launcher sets --wrap itself"),
        ({"options": ["--test-only"]}, "--test-only"),
        ({"time": "4x"}, "time: '4x' is not a time as sbatch reads it"),
        ({"time": "2h"}, "time: '2h' is not a time"),
        ({"allocations": 0}, "allocations: 0 is not a number from 1"),
        ({"cpus": True}, "cpus: True is neither text nor a number"),
        ({"cpus": "some"}, "cpus: 'some' is not a number of CPUs"),
        ({"gpus": "a100"}, "gpus: 'a100' is not a number of GPUs"),
        ({"mem": "much"}, "mem: 'much' is not an amount of memory"),
        ({"slots": 0}, "slots: 0 is not a number from 1"),
        ({"slots": True}, "slots: True is not a number"),
        ({"jobs": "some"}, "jobs: 'some' is neither 1"),
        ({"jobs": 2}, "jobs: 2 is neither 1"),
        ({"slots": 2, "jobs": 1}, "jobs: an allocation with slots=2"),
        ({"nodes": "2-4"}, "nodes: '2-4' is not a number of nodes"),
        ({"nodes": True}, "nodes: True is neither"),
        ({"tasks": 0}, "tasks: 0 is not a number of tasks"),
        ({"nodes": 4, "tasks": 2}, "tasks: 2 are fewer than 4 nodes"),
        ({"nodes": 2, "jobs": "many"}, "jobs: a job with nodes=2 has an allocation for itself; leave jobs out"),
        ({"tasks": 2, "slots": 2}, "slots: a job with tasks=2 has an allocation for itself"),
        ({"environments": "scratch"}, "environments: 'scratch' is not the absolute path of a folder on a disk"),
        ({"environments": "/scratch/../etc"}, "is not the absolute path"),
        ({"environments": "/"}, "is not the absolute path"),
        ({"environments": "/scratch\n/x"}, "is not the absolute path"),
        ({"environments": "/" + "x" * 300}, "is not the absolute path"),
        ({"environments": True}, "environments: True is not the absolute path"),
        ({"idle": -1}, "idle: -1 is not a number of seconds"),
        ({"idle": float("nan")}, "idle: nan is not a number of seconds"),
        ({"idle": "long"}, "idle: 'long' is not a number of seconds"),
    ],
)
def test_what_makes_no_sense_is_refused(slurm: object, says: str) -> None:
    """With the place."""
    with pytest.raises(InventoryError, match=says) as caught:
        slurm_options("hosts.yaml: host login: slurm", slurm)
    assert str(caught.value).startswith("hosts.yaml: host login: slurm")
