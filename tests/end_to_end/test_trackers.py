"""The examples of trackers, with the real libraries: what a sweep leaves in each, of jobs on hosts that have none of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.openssh import OpenSshHost, running_openssh_host

pytestmark = [pytest.mark.trackers]

EXAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "trackers"
LAUNCHER = "import sys; sys.argv[0] = 'launcher'; from launcher.cli.main import main; main()"


@pytest.fixture(params=["here", pytest.param("apart", marks=pytest.mark.openssh)])
def sweep(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Runs the sweep of three jobs, the last of which fails, with a callback; here, or on a host that shares nothing with the controller."""
    project = shutil.copytree(EXAMPLE, tmp_path / "project")
    hosts: list[str] = []

    def run(callback: str, **variables: str) -> Path:
        command = ["multirun", "my_app.py", "+lr=0.1,0.5,3", "--callback", callback, f"hydra.sweep.dir={tmp_path}/out"]
        done = subprocess.run(
            [sys.executable, "-c", LAUNCHER, *command, *hosts],
            cwd=project,
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), **variables},
            capture_output=True,
            text=True,
            timeout=200,
        )
        said = done.stdout + done.stderr
        assert "2 completed, 1 failed" in said, said
        assert "warning" not in said, said
        return tmp_path / "out"

    if request.param == "here":
        yield run
        return
    with running_openssh_host(tmp_path / "host") as host:
        hosts += _hosts_file(host, tmp_path)
        yield run


def _hosts_file(host: OpenSshHost, folder: Path) -> list[str]:
    file = folder / "hosts.yaml"
    spec = host.spec()
    file.write_text(f"{spec.name}: {{address: {spec.address}, ssh_config: {host.ssh_config}, slots: 2}}\n")
    return ["--hosts", str(file)]


def test_tensorboard_reads_what_jobs_reported(sweep: Any) -> None:
    """With TensorBoard's own reader: each job's losses, by step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    folder = sweep("tensorboard_callback:TensorBoard")
    for num, lr in enumerate((0.1, 0.5, 3.0)):
        events = EventAccumulator(str(folder / "tensorboard" / str(num)))
        events.Reload()
        read = events.Tensors("loss")
        assert [one.step for one in read] == [0, 1, 2, 3, 4]
        losses = [float(make_ndarray(one.tensor_proto)) for one in read]
        assert losses == pytest.approx([(1 - lr) ** (step + 1) for step in range(5)])


def test_mlflow_has_a_parent_and_a_child_for_each_job(sweep: Any, tmp_path: Path) -> None:
    """In its sqlite store, read by its own client."""
    from mlflow import MlflowClient

    store = f"sqlite:///{tmp_path}/mlflow.db"
    sweep("mlflow_callback:Mlflow", MLFLOW_TRACKING_URI=store)
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("sweeps")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    parent = runs.pop("my_app")
    assert parent.info.status == "FINISHED"
    assert set(runs) == {"job 0", "job 1", "job 2"}
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert [runs[f"job {num}"].data.params["lr"] for num in range(3)] == ["0.1", "0.5", "3"]
    assert [runs[f"job {num}"].info.status for num in range(3)] == ["FINISHED", "FINISHED", "FAILED"]
    assert runs["job 1"].data.metrics["final.loss"] == pytest.approx(0.5**5)
    history = client.get_metric_history(runs["job 0"].info.run_id, "loss")
    assert [one.step for one in sorted(history, key=lambda one: one.step)] == [0, 1, 2, 3, 4]
    assert "diverges" in runs["job 2"].data.tags["error"]


def _records(data: bytes) -> Iterator[bytes]:
    """The records of a file of W&B: pieces in blocks of 32 KiB, as in a log of LevelDB, after a header of seven bytes."""
    assert data[:4] == b":W&B"
    place, whole = 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole one, or the last piece of one
            yield whole
            whole = b""


def test_wandb_has_an_offline_run_for_each_job(sweep: Any) -> None:
    """In the files that `wandb sync` sends, read with W&B's own protobufs."""
    from wandb.proto import wandb_internal_pb2

    folder = sweep("wandb_callback:Wandb", WANDB_MODE="offline")
    files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 3
    found: dict[str, tuple[list[float], int]] = {}
    for file in files:
        losses, name, code = [], "", -1
        for data in _records(file.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                name = record.run.display_name
            elif kind == "history":
                losses += [float(one.value_json) for one in record.history.item if "loss" in (one.key, *one.nested_key)]
            elif kind == "exit":
                code = record.exit.exit_code
        found[name] = (losses, code)
    assert {name: code for name, (_, code) in found.items()} == {"job 0": 0, "job 1": 0, "job 2": 1}
    assert found["job 1"][0] == pytest.approx([0.5, 0.25, 0.125, 0.0625, 0.03125])


def test_trackio_has_a_run_for_each_job(sweep: Any, tmp_path: Path) -> None:
    """In its database, read by its own command line: losses by step, overrides, one group for the sweep, how each job ended."""
    variables = {"TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    sweep("trackio_callback:Trackio", **variables)

    def ask(*words: str) -> Any:
        program = "import sys; sys.argv[0] = 'trackio'; from trackio.cli import main; main()"
        command = [sys.executable, "-c", program, *words, "--project", "sweeps", "--json"]
        return json.loads(subprocess.check_output(command, env={**os.environ, **variables}, timeout=100))

    assert sorted(ask("list", "runs")["runs"]) == [f"{tmp_path.name}/out job {num}" for num in range(3)]
    for num, lr in enumerate((0.1, 0.5, 3.0)):
        run = f"{tmp_path.name}/out job {num}"
        read = {
            name: [
                (one["step"], one["value"]) for one in ask("get", "metric", "--run", run, "--metric", name)["values"]
            ]
            for name in ("loss", "completed")
        }
        assert read["loss"] == [(step, pytest.approx((1 - lr) ** (step + 1))) for step in range(5)]
        assert read["completed"] == [(5, int(lr < 3))]
    config = ask("get", "run", "--run", f"{tmp_path.name}/out job 1")["config"]
    assert config["overrides"] == ["+lr=0.5"]
    assert config["_Group"] == f"{tmp_path.name}/out"
