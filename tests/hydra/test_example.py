"""The documentation's example uploads to a real server with the S3 protocol, wherever its job runs."""

from __future__ import annotations

import shutil
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hydra import apps

_EXAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "hydra_app"
_BUCKET = "my_s3_bucket"
_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of an S3 server on loopback, with the example's bucket. The environment points to it."""
    # A second and a half that most runs of pytest would spend for nothing, as they collect this file.
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    values = (f"http://{host}:{port}", "test-key", "test-secret-value", "us-east-1")
    for name, value in zip(_VARIABLES, values, strict=True):
        monkeypatch.setenv(name, value)
    # The buckets of one process outlive its servers.
    urllib.request.urlopen(urllib.request.Request(f"{values[0]}/moto-api/reset", method="POST"), timeout=30).close()
    client = boto3.client("s3")
    client.create_bucket(Bucket=_BUCKET)
    yield client
    server.stop()


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy of the example, so that its outputs are elsewhere."""
    return Path(shutil.copytree(_EXAMPLE, tmp_path / "hydra_app", ignore=shutil.ignore_patterns("__pycache__")))


def _objects(s3: Any) -> dict[str, str]:
    listed = s3.list_objects_v2(Bucket=_BUCKET).get("Contents", [])
    return {one["Key"]: s3.get_object(Bucket=_BUCKET, Key=one["Key"])["Body"].read().decode() for one in listed}


_UPLOADED = {f"my_app/{num}/test.pt": f"trained with foo={value}\n" for num, value in enumerate("ab")}
_FORWARD = f"hydra.launcher.forward_env=[{','.join(_VARIABLES)}]"


@pytest.mark.slow
def test_the_example_runs_from_python_without_a_host(tmp_path: Path) -> None:
    """It needs no host. The README's commands run it with one."""
    shutil.copy(_EXAMPLE.parent / "sweep.py", tmp_path)
    done = apps.python("sweep.py", cwd=tmp_path)
    assert (done.stdout.count("COMPLETED"), done.stdout.count("OverflowError")) == (3, 1)


@pytest.mark.slow
def test_the_example_of_ask_and_tell_finds_the_minimum(tmp_path: Path) -> None:
    """It needs no host either."""
    shutil.copy(_EXAMPLE.parent / "ask_and_tell.py", tmp_path)
    done = apps.python("ask_and_tell.py", cwd=tmp_path)
    assert done.stdout.startswith("40 trials, the best ")


@pytest.mark.slow
def test_the_example_of_pruning_runs_without_a_host(tmp_path: Path) -> None:
    """As a search, and as a plain Hydra app, which nobody stops."""
    folder = shutil.copytree(_EXAMPLE.parent / "pruning", tmp_path / "pruning")
    done = apps.python("search.py", cwd=folder)
    assert done.stdout.startswith("30 trials, ")
    apps.python("my_app.py", "-m", "lr=0.1,0.2", "seconds=0", cwd=folder)
    assert len(list(folder.glob("multirun/*/*/?/my_app.log"))) == 2


_HYDRA_HOOK = """
from hydra.experimental.callback import Callback


class Prune(Callback):
    def on_job_report(self, config, job, step, values, **kwargs):
        if step >= 3:
            print("stop", job.num, config.lr, config.hydra.job.num, sorted(values))
            job.stop()

    def on_multirun_end(self, config, job_returns, **kwargs):
        print("end", [(one.status.name, one.stopped, sorted(one.return_value)) for one in job_returns])
"""


@pytest.mark.slow
def test_a_hook_of_a_hydra_app_stops_its_job_through_the_plugin(tmp_path: Path) -> None:
    """A callback of Hydra's own kind, from the app's config. The job could go on for minutes."""
    folder = shutil.copytree(_EXAMPLE.parent / "pruning", tmp_path / "pruning")
    (folder / "hooks.py").write_text(_HYDRA_HOOK)
    with (folder / "config.yaml").open("a") as file:
        file.write("hydra:\n  callbacks:\n    prune:\n      _target_: hooks.Prune\n")
    done = apps.python("my_app.py", "-m", "hydra/launcher=remote", "lr=0.9", "steps=3000", "seconds=0.1", cwd=folder)
    assert "stop 0 0.9 0 ['loss']" in done.stdout
    assert "end [('COMPLETED', True, ['loss'])]" in done.stdout


@pytest.mark.slow
def test_the_example_uploads_without_a_host(s3: Any, example: Path) -> None:
    """It uses the local transport, through the plugin."""
    apps.python("my_app.py", "-m", "hydra/launcher=remote", _FORWARD, "foo=a,b", cwd=example)
    assert _objects(s3) == _UPLOADED


@pytest.mark.slow
def test_the_example_uploads_from_a_host(s3: Any, example: Path, demo_hosts: Path) -> None:
    """It uses SSH, through the command line. The code is sent, and the outputs come back."""
    forward = [word for name in _VARIABLES for word in ("--env", name)]
    where = ["--hosts", demo_hosts, "--python", sys.executable, "--folder", example / "sweep"]
    apps.launcher("multirun", "my_app.py", "foo=a,b", *where, *forward, cwd=example)
    assert _objects(s3) == _UPLOADED
    assert (example / "sweep" / "1" / "test.pt").read_text() == _UPLOADED["my_app/1/test.pt"]


@pytest.mark.slow
def test_the_demonstration_brings_its_own_servers(tmp_path: Path) -> None:
    """It takes one command, no account and no host. Afterwards the files are in the bucket."""
    done = apps.python(_EXAMPLE / "demo.py", cwd=tmp_path)
    assert done.stdout.split("in the bucket:")[1].split() == [f"my_app/{num}/test.pt" for num in range(3)]


@pytest.mark.openssh
def test_the_example_uploads_from_a_host_without_a_shared_disk(s3: Any, example: Path, equipped_hosts: Path) -> None:
    """The OpenSSH host has boto3 in its jobs' environment. First `launcher run` is used, then the plugin."""
    forward = [word for name in _VARIABLES for word in ("--env", name)]
    apps.launcher("run", "my_app.py", "foo=r", "--hosts", equipped_hosts, *forward, cwd=example)
    objects = _objects(s3)
    assert list(objects.values()) == ["trained with foo=r\n"], objects
    hosts = f"hydra.launcher.hosts_file={equipped_hosts}"
    apps.python("my_app.py", "-m", "hydra/launcher=remote", hosts, _FORWARD, "foo=a,b", cwd=example)
    assert _UPLOADED.items() <= _objects(s3).items()
