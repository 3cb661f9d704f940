"""Slurm behind the seam: what is made of the words of its programs."""

from __future__ import annotations

import datetime as dt
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from remote_agent.slurm.batch.batch import (
    BatchError,
    Limits,
    Listed,
    NoAnswer,
    NoRoom,
    Phase,
    Refused,
    Request,
    expected_start,
)
from remote_agent.slurm.batch.batch_slurm import Slurm

REQUEST = Request(
    name="hrl-r1-default",
    tasks=20,
    at_once=4,
    script="#!/bin/sh\nexit 0\n",
    output="/home/me/%j",
    needs={"partition": "main", "gpus": "2"},
    options=("--constraint=a100 or b",),
)

Program = Callable[..., Path]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Puts a program on the PATH that prints what it is told. Returns the file of its arguments and of what it was given."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    monkeypatch.setenv("PATH", f"{bin_folder}{os.pathsep}{os.environ['PATH']}")

    def make(name: str, *, out: str = "", err: str = "", status: int = 0) -> Path:
        for stream, text in (("out", out), ("err", err)):
            (tmp_path / f"{name}.{stream}").write_text(text)
        said = tmp_path / f"{name}.said"
        script = bin_folder / name
        script.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$@" >"{said}"\ncat >>"{said}"\n'
            f'cat "{tmp_path}/{name}.out"; cat "{tmp_path}/{name}.err" >&2; exit {status}\n'
        )
        script.chmod(0o700)
        return said

    return make


def test_a_request_becomes_one_array(program: Program):
    """Its needs and options are arguments of their own, whatever is in them, and the script comes on standard input."""
    said = program("sbatch", out="123;cluster\n")
    assert Slurm().submit(REQUEST) == "123"
    lines = said.read_text().splitlines()
    assert lines[:3] == ["--parsable", "--array", "0-19%4"]
    assert lines.count("--requeue") == 1
    assert lines[lines.index("--job-name") + 1] == lines[lines.index("--comment") + 1] == REQUEST.name
    assert lines[-6:] == [
        "--gres=gpu:2",
        "--partition=main",
        "--signal=B:TERM@60",
        "--constraint=a100 or b",
        "#!/bin/sh",
        "exit 0",
    ]


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ({"nodes": "2"}, ["--nodes=2"]),
        ({"nodes": "2", "tasks": "8"}, ["--nodes=2", "--ntasks-per-node=4", "--ntasks=8"]),
        ({"nodes": "2", "tasks": "3"}, ["--nodes=2", "--ntasks=3"]),
        ({"tasks": "3"}, ["--ntasks=3"]),
    ],
)
def test_tasks_are_the_same_number_on_each_node(program: Program, needs: dict[str, str], words: list[str]):
    """Where that is possible. Slurm would rather fill one node than the other. Without `nodes`, it says where they are."""
    said = program("sbatch", out="123\n")
    Slurm().submit(REQUEST._replace(needs=needs))
    assert sorted(line for line in said.read_text().splitlines() if line.startswith("--n")) == words


@pytest.mark.parametrize(
    ("err", "expected"),
    [
        ("sbatch: error: Batch job submission failed: Invalid partition specified\n", Refused),
        ("sbatch: unrecognized option '--nonsense'\nTry \"sbatch --help\" for more information\n", Refused),
        (
            "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit)\n",
            NoRoom,
        ),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n", NoAnswer),
        (
            "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)\n",
            NoAnswer,
        ),
        ("", NoAnswer),
    ],
)
def test_only_a_refusal_is_final(program: Program, err: str, expected: type[BatchError]):
    """After anything else that sbatch says, the jobs may be in: whoever asks for them again would have them twice."""
    program("sbatch", err=err, status=1)
    with pytest.raises(expected) as caught:
        Slurm().submit(REQUEST)
    assert type(caught.value) is expected


@pytest.mark.parametrize(
    ("limit", "warning"),
    [
        ("2", 30),
        ("1:30", 22),
        ("0:10:00", 60),
        ("1-0", 60),
        ("1-02:03:04", 60),
        ("0:0:20", 5),
        ("UNLIMITED", 60),
        ("0", 60),
    ],
)
def test_an_allocation_is_warned_before_its_time_is_up(program: Program, limit: str, warning: int):
    """A short one later, or it would be warned when it begins. An option of the user's own counts instead."""
    said = program("sbatch", out="123\n")
    Slurm().submit(REQUEST._replace(needs={"time": limit}))
    assert f"--signal=B:TERM@{warning}" in said.read_text().splitlines()
    Slurm().submit(REQUEST._replace(options=("--signal=B:TERM@5",)))
    assert [line for line in said.read_text().splitlines() if line.startswith("--signal")] == ["--signal=B:TERM@5"]


@pytest.mark.parametrize(
    ("shown", "kind"),
    [
        ("JobState=RUNNING PreemptTime=None TimeLimit=00:10:00 EndTime={near}", "time_limit"),
        ("JobState=RUNNING PreemptTime=None TimeLimit=UNLIMITED EndTime=Unknown", "cancelled"),
        ("JobState=RUNNING PreemptTime=None TimeLimit=10:00:00 EndTime={far}", "cancelled"),
        ("JobState=RUNNING PreemptTime=2026-01-01T00:00:00 EndTime={near}", "preempted"),
        ("JobState=COMPLETING EndTime={near}", "cancelled"),
        ("JobState=TIMEOUT EndTime={near}", "time_limit"),
        ("JobState=COMPLETING Restarts=1 EndTime=Unknown", "preempted"),
        ("JobState=COMPLETING Restarts=0 EndTime=Unknown", "cancelled"),
    ],
)
def test_why_an_allocation_was_told_to_end(program: Program, shown: str, kind: str):
    """Slurm warns a job that it lets run on only of its time limit."""
    now = dt.datetime.now()  # noqa: DTZ005 - Slurm says times in the zone of its node
    times = {"near": now + dt.timedelta(seconds=50), "far": now + dt.timedelta(hours=5)}
    program(
        "scontrol",
        out="JobId=7 " + shown.format(**{name: one.isoformat("T", "seconds") for name, one in times.items()}),
    )
    assert Slurm().why("7", 0)[0] == kind


@pytest.mark.parametrize(
    ("notice", "kind"),
    [
        ("CANCELLED AT 2026-11-30T15:13:16 DUE TO PREEMPTION", "preempted"),
        ("CANCELLED AT 2026-11-30T15:13:16 DUE TO TIME LIMIT", "time_limit"),
        ("CANCELLED AT 2026-11-30T15:13:16 DUE TO NODE FAILURE", "node_failed"),
        ("CANCELLED AT 2026-11-30T15:13:16 DUE TO JOB REQUEUE", "node_failed"),
        ("CANCELLED AT 2026-11-30T15:13:16", "cancelled"),
        ("CANCELLED AT 2026-11-30T15:13:16 DUE TO SOMETHING NEW", "cancelled"),
    ],
)
def test_the_notice_in_the_output_says_why(program: Program, tmp_path: Path, notice: str, kind: str):
    """It is there when the signal comes. One of an earlier start, which appended to the same file, does not count for this one."""
    program("scontrol", out="JobId=7 JobState=COMPLETING EndTime=Unknown")
    line = "slurmstepd-n1: error: *** JOB 7 ON n1 {} ***\n"
    with (tmp_path / "out").open("a+") as file:
        file.write(line.format("CANCELLED AT 2026-11-30T15:00:00 DUE TO PREEMPTION"))
        file.flush()
        slurm = Slurm(file.fileno())
        assert slurm.why("7", 0)[0] == "cancelled"
        assert (slurm.why_before() or ("",))[0] == "preempted"
        file.write(line.format(notice))
        file.flush()
        assert slurm.why("7", 0)[0] == kind
    assert Slurm().why_before() is None


def test_a_node_is_called_as_slurm_calls_it(monkeypatch: pytest.MonkeyPatch):
    """Several may be on one machine."""
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    assert Slurm().node() == "n7"
    monkeypatch.delenv("SLURMD_NODENAME")
    assert Slurm().node() == socket.gethostname()


@pytest.mark.parametrize(
    ("shown", "is_asked"),
    [
        ("JobState=RUNNING PreemptTime=2026-01-01T00:00:00", True),
        ("JobState=RUNNING PreemptTime=None", False),
        ("JobState=COMPLETING PreemptTime=2026-01-01T00:00:00", False),
    ],
)
def test_an_allocation_that_was_warned_of_a_preemption_is_requeued(program: Program, shown: str, is_asked: bool):
    """What Slurm ends itself, it starts again itself, or it does not because it is not to be."""
    said = program("scontrol", out=shown)
    Slurm().go_again("7")
    assert ("requeue\n7\n" in said.read_text()) is is_asked


def test_the_users_own_signal_says_how_long_an_allocation_has() -> None:
    """The last one counts, as for sbatch."""
    slurm = Slurm()
    assert slurm.warning({"time": "2"}, ()) == 30
    assert slurm.warning({}, ("--signal=B:TERM@5", "--signal=B:TERM@300")) == 300
    assert slurm.warning({}, ("--signal=TERM",)) == 60


def test_an_allocation_may_wait_for_the_end_of_others(program: Program):
    """However they end."""
    said = program("sbatch", out="123\n")
    Slurm().submit(REQUEST._replace(after=("7", "9")))
    assert "--dependency=afterany:7:9" in said.read_text().splitlines()


def test_an_answer_that_is_cut_off_is_none(program: Program):
    """Exit status 0 without a number tells nothing."""
    program("sbatch", out="")
    with pytest.raises(NoAnswer):
        Slurm().submit(REQUEST)


def test_what_no_node_could_start_has_ended(program: Program):
    """Slurm holds it until somebody releases it, which a run does not wait for."""
    program("squeue", out="7|hrl-a|PENDING||N/A|launch failed requeued held\n")
    (held,) = Slurm().listed(["hrl-a"])
    assert (held.phase, held.kind, held.is_held) == (Phase.ENDED, "node_failed", True)


def test_all_that_is_listed_is_read(program: Program):
    """A reason may have spaces, commas and bars. A word that nobody knows is alive. A line that is no answer is passed over."""
    said = program(
        "squeue",
        out="7|hrl-a|PENDING||2026-11-30T17:05:00|ReqNodeNotAvail, UnavailableNodes:n1|n2\n"
        "8|hrl-a|RUNNING|n1|2026-11-30T16:05:00|None\n9|hrl-b|NODE_FAIL|n2|N/A|NodeDown\n"
        "10|hrl-b|OUT_OF_MEMORY|n2|N/A|OutOfMemory\n11|hrl-b|TELEPORTING|n3|N/A|None\n12|hrl-a|PENDING||N/A|Priority\nslurm_load_jobs: a note\n",
    )
    assert Slurm().listed(["hrl-a", "hrl-b"]) == [
        Listed(
            "7",
            "hrl-a",
            Phase.WAITING,
            "PENDING",
            "",
            "ReqNodeNotAvail, UnavailableNodes:n1|n2",
            "",
            "2026-11-30T17:05:00",
        ),
        Listed("8", "hrl-a", Phase.ALIVE, "RUNNING", "", "", "n1"),
        Listed("9", "hrl-b", Phase.ENDED, "NODE_FAIL", "node_failed", "NodeDown", "n2"),
        Listed("10", "hrl-b", Phase.ENDED, "OUT_OF_MEMORY", "out_of_memory", "OutOfMemory", "n2"),
        Listed("11", "hrl-b", Phase.ALIVE, "TELEPORTING", "", "", "n3"),
        Listed("12", "hrl-a", Phase.WAITING, "PENDING", "", "Priority", ""),
    ]
    arguments = said.read_text().splitlines()
    assert arguments[arguments.index("-n") + 1] == "hrl-a,hrl-b"
    assert "--me" in arguments


@pytest.mark.parametrize("out", ["7|hrl-a|RUNNING|n1|N/A|None\n8|hrl-a|RUNN", "7|hrl-a|RUNNING|n1|N/A|None"])
def test_a_list_that_is_cut_off_is_no_answer(program: Program, out: str):
    """What it lacks would be taken for gone, and its jobs for lost."""
    program("squeue", out=out)
    with pytest.raises(BatchError, match="cut off"):
        Slurm().listed(["hrl-a"])


def test_what_others_have_is_not_listed(program: Program):
    """Whatever squeue prints. Nor is what has no id: it cannot be asked about."""
    program(
        "squeue",
        out="7|other|FAILED|n1|N/A|None\n8|hrl-a|RUNNING|n1|N/A|None\n?|hrl-a|FAILED|n1|N/A|None\n9|hrl-ab|PENDING||N/A|InvalidQOS\n",
    )
    assert [one.job for one in Slurm().listed(["hrl-a"])] == ["8"]


def test_when_what_waits_is_expected_to_start():
    """The earliest of those with the reason; others, and what runs, do not count."""

    def listed(reason: str, start: str, phase: Phase = Phase.WAITING) -> Listed:
        return Listed("7", "hrl-a", phase, "", "", reason, "", start)

    found = [
        listed("Resources", "2026-11-30T18:00:00"),
        listed("Resources", "2026-11-30T17:05:00"),
        listed("Resources", ""),
        listed("Priority", "2026-11-30T17:00:00"),
        listed("Resources", "2026-11-30T16:00:00", Phase.ALIVE),
    ]
    said = "; Slurm expects to start the first at 2026-11-30T17:05:00 by its clock"
    assert expected_start(found, "Resources") == said
    assert expected_start([listed("Resources", "")], "Resources") == ""


def test_nothing_is_asked_about_no_names(program: Program):
    """Without names squeue would list everything."""
    program("squeue", status=1)
    assert Slurm().listed([]) == []


def test_limits(program: Program):
    """Of the configuration; what it does not have is Slurm's default."""
    program("scontrol", out="Configuration data\nKillWait                = 3 sec\nMaxArraySize            = 101\n")
    assert Slurm().limits() == Limits(tasks=100, kill_wait=3.0, remembers=300.0)


def test_an_error_names_the_program_and_what_it_said(program: Program):
    """And a machine without Slurm is told from a cluster that does not answer."""
    program("scancel", err="scancel: error: Invalid job name\n", status=1)
    with pytest.raises(BatchError, match="scancel: exit status 1; it said 'scancel: error: Invalid job name'"):
        Slurm().cancel(["x"])


def test_a_machine_without_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The error asks whether it is a login node."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BatchError, match=r"squeue is not on the PATH .* is this a login node"):
        Slurm().listed(["x"])
    with pytest.raises(NoAnswer, match="sbatch is not on the PATH"):
        Slurm().submit(REQUEST)
