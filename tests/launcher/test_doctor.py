"""`launcher doctor`: over a real SSH server and on this machine, whole and broken at each step."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher import doctor, events
from launcher.agents.queries.gpus import GpuList
from launcher.cli import main as cli
from launcher.demo.server import DemoServer
from launcher.doctor import Step, StepOutcome, examine
from launcher.hosts.host_spec import HostSpec
from launcher.hosts.inventory import parse_host
from launcher.options import LaunchConf
from launcher.runs import index
from remote_agent.system import gpu_lease
from tests.controllers import wait_agents_ended
from tests.gpus import FalseGpus
from tests.requirements import READS_PROC

WAY = ["ssh configuration", "way", "connection", "host key", "login"]


@pytest.fixture
def server() -> Iterator[DemoServer]:
    """A throwaway SSH server that no test before has broken."""
    with DemoServer() as made:
        yield made


def spec_of(server: DemoServer, **fields: Any) -> HostSpec:
    return HostSpec("gpu1", "demo", ssh_config=str(server.ssh_config), **fields)


def steps_of(spec: HostSpec, **options: Any) -> dict[str, Step]:
    steps = list(examine(spec, LaunchConf(**options)))
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)
    failed = [step.name for step in steps if step.outcome is StepOutcome.FAILED]
    assert failed in ([], names[-1:]), "what failed is the last that was reached"
    return {step.name: step for step in steps}


@pytest.mark.slow
def test_a_host_that_can_run_jobs(server: DemoServer) -> None:
    """Every step is shown; afterwards neither side has one more run than before."""
    runs_before = index.entries()
    first = steps_of(spec_of(server, slots=3))
    first.pop("warm starts", None)  # a machine that has little memory free says so
    assert list(first) == [*WAY, "agent", "slots", "logout", "environment", "disk", "clock"]
    assert {step.outcome for step in first.values()} == {StepOutcome.OK}
    assert "sent now" in first["agent"].detail
    assert first["slots"].detail.startswith("3,")
    assert "omegaconf" in first["environment"].detail
    assert f"port {server.port}" in first["ssh configuration"].detail
    assert "was there" in steps_of(spec_of(server))["agent"].detail
    assert index.entries() == runs_before
    wait_agents_ended(server.home / ".local" / "state" / "hydra-remote-launcher")


@pytest.mark.slow
def test_nothing_of_an_application_is_sent(server: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if doctor is called in the folder of a project."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "marked_app.py").write_text("SECRET = 'marked'\n")
    monkeypatch.chdir(tmp_path)
    assert "clock" in steps_of(spec_of(server))
    wait_agents_ended(server.home / ".local" / "state" / "hydra-remote-launcher")
    blobs = server.home / ".cache" / "hydra-remote-launcher" / "blobs"
    assert [path for path in blobs.rglob("*") if path.is_file()] == []


@pytest.mark.slow
def test_this_machine() -> None:
    """No login is needed, so there are no steps for one."""
    assert [one for one in steps_of(parse_host("local")) if one != "warm starts"] == [
        "agent",
        "slots",
        "environment",
        "disk",
        "clock",
    ]


@pytest.mark.slow
def test_gpus_are_found_and_named(server: DemoServer) -> None:
    """They come from the nvidia-smi of the host."""
    tool = server.home / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'GPU 0: A100 (UUID: GPU-aaaa)'\necho 'GPU 1: A100 (UUID: GPU-bbbb)'\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    (server.home / "python").write_text(f'#!/bin/sh\nPATH={tool.parent}:$PATH exec python3 "$@"\n')
    (server.home / "python").chmod(0o700)
    steps = steps_of(spec_of(server, python="~/python"))
    assert steps["slots"].detail == "2, GPUs GPU-aaaa, GPU-bbbb"


@pytest.mark.slow
@READS_PROC
def test_gpus_that_others_have_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If all are taken, jobs wait. The check itself needs none."""
    driver = FalseGpus.make(tmp_path / "driver", monkeypatch, 2)
    first, second = driver.names
    lease = gpu_lease.take(first, "r1")
    assert lease is not None
    user = gpu_lease.user_of(os.geteuid())
    step = steps_of(parse_host("local"))["GPUs"]
    assert (step.outcome, step.detail) == (StepOutcome.OK, f"1 of 2 are free; {first} is leased to run r1 of {user}")
    driver.write(*driver.lines, "proc 1 700")
    steps = steps_of(dataclasses.replace(parse_host("local"), gpus="free"))
    assert steps["GPUs"].outcome is StepOutcome.WARNING
    assert steps["GPUs"].detail.endswith(f"{second} is used by {gpu_lease.user_of_process(1)}, and not leased")
    assert "jobs wait until a GPU is free" in steps["GPUs"].next_step
    assert steps["slots"].detail == f"2, GPUs {first}, {second}"
    lease.close()


@pytest.mark.slow
@READS_PROC
def test_gpus_that_are_not_there_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No run could use the host."""
    driver = FalseGpus.make(tmp_path / "driver", monkeypatch, 1)
    steps = steps_of(dataclasses.replace(parse_host("local"), gpus=2))
    assert steps["GPUs"].outcome is StepOutcome.FAILED
    assert steps["GPUs"].detail == f"2 of its GPUs are asked for, and it has 0 {driver.names[0]}"
    assert "correct `gpus`" in steps["GPUs"].next_step


def test_an_unknown_key_is_the_last_step(server: DemoServer) -> None:
    """The step has the line that would add the key; no login is tried."""
    server.known_hosts.write_text("")
    steps = steps_of(spec_of(server))
    assert list(steps) == WAY[:4]
    assert "not known" in steps["host key"].detail
    assert "add this line" in steps["host key"].next_step
    assert server.logins == 0


def test_a_user_that_may_not_log_in(server: DemoServer, tmp_path: Path) -> None:
    """The key is right, the login is not."""
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    steps = steps_of(spec_of(server, identity=str(other)))
    assert list(steps) == WAY
    assert steps["login"].outcome is StepOutcome.FAILED
    assert steps["login"].next_step


def test_a_refused_connection() -> None:
    """The step of the configuration comes first and succeeds."""
    steps = steps_of(parse_host("127.0.0.1:1"))
    assert list(steps) == WAY[:3]
    assert "refused" in steps["connection"].detail


def test_a_folder_that_cannot_be_written(server: DemoServer) -> None:
    """The agent does not start, and the next step is named."""
    (server.home / "file").write_text("")
    steps = steps_of(spec_of(server, workdir="~/file"))
    assert list(steps) == [*WAY, "agent"]
    assert "workdir" in steps["agent"].next_step


def test_what_a_logout_does_is_told_by_the_topic_of_a_note() -> None:
    """Not by its words: another note may name logind."""
    ready = events.HostReady(1.0, "h", 2, "3.11.2")
    seen = [ready, events.Note(1.0, "jobs end with you", "h", "logout"), events.Note(1.0, "logind is old", "h")]
    steps = {
        step.name: step
        for step in doctor._agent_steps(seen, "was there", HostSpec("h", "h"), GpuList((), "", "", "", True), told=None)
    }
    assert (steps["logout"].outcome, steps["logout"].detail) == (StepOutcome.WARNING, "jobs end with you")
    assert (steps["note"].outcome, steps["note"].detail) == (StepOutcome.WARNING, "logind is old")


@pytest.mark.slow
def test_a_python_that_is_not_there(server: DemoServer) -> None:
    """The agent runs under another Python; jobs cannot run."""
    steps = steps_of(spec_of(server), python="/no/such/python")
    assert list(steps)[-1] == "environment"
    assert "/no/such/python" in steps["environment"].detail
    assert "`python` of that host" in steps["environment"].next_step


@pytest.mark.slow
def test_a_setup_line_that_fails(server: DemoServer) -> None:
    """It is named, as in a run; later steps are not guessed."""
    steps = steps_of(spec_of(server), setup=["no-such-tool activate mine"])
    assert list(steps) == [*WAY, "agent", "slots", "logout", "environment"]
    assert "no-such-tool activate mine" in steps["environment"].detail
    assert steps["environment"].next_step


@pytest.mark.slow
def test_a_clock_that_is_off_and_a_disk_that_is_full_are_warnings(
    server: DemoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs can run anyway."""
    now = time.time
    monkeypatch.setattr(doctor.time, "time", lambda: now() - 86400)
    monkeypatch.setattr(doctor, "_LOW_DISK", 1 << 60)
    steps = steps_of(spec_of(server))
    assert (steps["clock"].outcome, steps["disk"].outcome) == (StepOutcome.WARNING, StepOutcome.WARNING)
    assert "workdir" in steps["disk"].next_step


@pytest.mark.slow
def test_the_command(server: DemoServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each step; exit code 3 for a host that cannot be used, with the next step; JSON has everything."""
    hosts = tmp_path / "hosts.yaml"
    hosts.write_text(f"gpu1: {{address: demo, ssh_config: {server.ssh_config}}}\nbad: {{address: '127.0.0.1:1'}}\n")
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", "--hosts", os.fspath(hosts)])
    assert ended.value.code == 3
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "gpu1:"
    assert "  ok      login" in said
    assert any(line.startswith("  failed  connection: ") for line in said)
    assert any(line.startswith("          next: check that sshd runs") for line in said)
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", "--json"])
    assert ended.value.code == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["version"], report["exit_code"]) == (1, 0)
    assert [one["host"] for one in report["hosts"]] == ["local"]
    assert {step["outcome"] for step in report["hosts"][0]["steps"]} == {"ok"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "options", "why"),
    [
        ({"SLURM_JOB_ID": "1"}, {}, "none is kept: this is a batch system's allocation"),
        ({"HYDRA_REMOTE_LAUNCHER_NO_WARM": "1"}, {}, "none is kept: HYDRA_REMOTE_LAUNCHER_NO_WARM is set"),
        ({}, {"warm": 0}, "none is kept, because `warm` is 0"),
    ],
)
def test_why_nothing_is_kept_warm(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], options: dict[str, Any], why: str
) -> None:
    """In the words of the host, in one row."""
    monkeypatch.delenv("HYDRA_REMOTE_LAUNCHER_NO_WARM", raising=False)  # of all tests; one of these sets it
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    step = steps_of(parse_host("local"), **options)["warm starts"]
    assert (step.outcome, step.detail.endswith(why)) == (StepOutcome.OK, True), step.detail


@pytest.mark.parametrize(
    ("waiting", "fields", "told", "detail"),
    [
        (0, {}, "", None),
        (1, {}, "", "1 process waits for the next run"),
        (2, {}, "it has sbatch", "2 processes wait for the next run; none is kept: it has sbatch"),
        (0, {"setup": ("module load cuda",)}, "", "jobs have none, because of `setup`; the agent may"),
        (0, {"env": {"A": "1"}}, "", "jobs have none, because of `env`; the agent may"),
    ],
)
def test_the_row_of_warm_starts(waiting: int, fields: dict[str, Any], told: str, detail: str | None) -> None:
    """There is none where all is as usual and nothing waits."""
    spec = HostSpec("gpu1", "gpu1", **fields)
    rows = list(doctor._warm_steps(waiting, doctor._why_cold(spec, LaunchConf(), told)))
    assert [one.detail for one in rows] == ([] if detail is None else [detail])
