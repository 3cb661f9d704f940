"""Jobs of a sweep that say in their own config what they need."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.app_run import AppRun, prepare
from launcher.code.application.application import load_application
from launcher.errors import ConfigError, InventoryError
from launcher.options import LaunchConf
from remote_agent.protocol.specs.resources import Resources
from tests.hydra import apps

_FILES = {
    "sized_app.py": """
        import os
        from pathlib import Path

        import hydra
        from hydra.core.hydra_config import HydraConfig


        @hydra.main(version_base=None, config_path="conf", config_name="config")
        def main(cfg):
            Path(HydraConfig.get().runtime.output_dir, "threads").write_text(os.environ["OMP_NUM_THREADS"])


        if __name__ == "__main__":
            main()
        """,
    "conf/config.yaml": """
        defaults: [_self_, size: small, override hydra/launcher: remote]
        n: 1
        hydra:
          sweep: {dir: sweep}
          launcher: {resources: {cpus: "${n}"}}
        """,
    "conf/size/small.yaml": "# @package _global_\n{}\n",
    "conf/size/large.yaml": """
        # @package _global_
        hydra: {launcher: {resources: {memory: 1MiB}}}
        """,
    "conf/size/wrong.yaml": """
        # @package _global_
        hydra: {launcher: {resources: {gpus: 0.5}}}
        """,
}


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Its folder, in which the test runs."""
    apps.write(tmp_path, _FILES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("sized_app", None)


def _prepared(*overrides: str, **options: Any) -> AppRun:
    return prepare("MULTIRUN", load_application("sized_app.py"), overrides, options=LaunchConf(**options))


def _needs(run: AppRun, *jobs: tuple[str, ...]) -> list[Resources | None]:
    made = [run.setup.job(num, None, None, one) for num, one in enumerate(jobs)]
    assert [one.failure for one in made] == [None] * len(jobs)
    return [one.spec.needs for one in made]


def test_a_key_of_the_application_may_be_swept(app: Path) -> None:
    """What a job's config says in the same way as the run's is not the job's own word."""
    run = _prepared("n=1,2")
    try:
        assert run.setup.options.resources == {"cpus": 1}
        assert _needs(run, ("n=1",), ("n=2",)) == [None, Resources(0, 2, 0)]
    finally:
        run.close()


@pytest.mark.slow
def test_a_config_group_may_be_swept(app: Path) -> None:
    """What it does not say is the run's, also that of the command line."""
    run = _prepared("size=small,large", resources={"cpus": 2, "gpus": 1})
    try:
        assert _needs(run, ("size=small",), ("size=large",)) == [None, Resources(1, 2, 1 << 20)]
    finally:
        run.close()


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ("n=1,0", r"hydra\.launcher\.resources\.cpus: 0 is not a whole number from 1 on \(job with n=0"),
        pytest.param(
            "n=1,1.5", r"hydra\.launcher\.resources\.cpus: 1\.5 is not a whole number", marks=pytest.mark.slow
        ),
        pytest.param(
            "size=small,wrong",
            r"hydra\.launcher\.resources\.gpus: 0\.5 is not a whole number .*\(job with size=wrong",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_sent(app: Path, overrides: str, says: str) -> None:
    """By the key and the job's overrides."""
    with pytest.raises(ConfigError, match=says):
        _prepared(overrides)


def test_a_job_that_is_larger_than_every_host_is_refused_before_anything_is_sent(app: Path) -> None:
    """So far as the user says what the hosts have."""
    with pytest.raises(InventoryError, match=r"cpus=9: gpu1 has cpus=8; ask for less \(job with n=9"):
        _prepared("n=1,9", hosts=[{"name": "gpu1", "cpus": 8}])


@pytest.mark.hydra_suite
def test_a_sweep_of_the_plugin_has_jobs_of_several_sizes(app: Path) -> None:
    """And refuses what makes no sense before anything is sent."""
    command = ("sized_app.py", "-m", "hydra.launcher.hosts=[{name: local, cpus: 2}]")
    apps.python(*command, "n=1,2", cwd=app)
    assert [(app / "sweep" / str(num) / "threads").read_text() for num in range(2)] == ["1", "2"]
    refused = apps.python(*command, "n=1,0", cwd=app, check=False)
    assert refused.returncode == 1
    assert "hydra.launcher.resources.cpus: 0 is not a whole number from 1 on" in refused.stderr
