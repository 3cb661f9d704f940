"""Which earlier jobs a sweep takes over, and what is said of their code."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.demo.server import DemoServer
from launcher.runs import index
from launcher.runs.journal import FOLDER, Journal
from tests.commands import Cli
from tests.hydra import apps
from tests.hydra.hosts import hosts_file

FILES = {
    "earlier_app.py": """
        import hydra
        from hydra.core.hydra_config import HydraConfig
        from pathlib import Path


        @hydra.main(version_base=None, config_path="conf", config_name="config")
        def main(cfg):
            with open(cfg.log, "a") as file:
                file.write(f"{cfg.x}\\n")
            if Path(cfg.log).with_name("fail").exists() and cfg.x == 2:
                raise ValueError("two")
            return {"x": cfg.x, "num": cfg.num}


        if __name__ == "__main__":
            main()
        """,
    "conf/config.yaml": """
        x: 1
        size: 1
        num: ${hydra:job.num}
        id: ${hydra:job.id}
        at: ${now:%Y-%m-%d_%H-%M-%S-%f}
        out: ${hydra:runtime.output_dir}/model
        sub: ${hydra:sweep.subdir}
        log: LOG
        hydra:
          sweep: {dir: sweep, subdir: "${hydra.job.num}-of-${hydra.job.override_dirname}"}
        """,
}


@pytest.fixture
def cli(capfdbinary: pytest.CaptureFixture[bytes]) -> Cli:
    """The command `launcher`."""
    return Cli(capfdbinary)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Hydra app whose config refers to all that differs from job to job by itself."""
    folder = apps.write(tmp_path / "project", FILES)
    config = folder / "conf" / "config.yaml"
    config.write_text(config.read_text().replace("LOG", str(tmp_path / "log")))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("earlier_app", None)


def ran(project: Path) -> list[str]:
    """The points that ran, in any order."""
    return sorted((project.parent / "log").read_text().split())


class TestHydraApps:
    """Configs that are composed."""

    @pytest.mark.slow
    def test_a_changed_order_with_numbers_and_folders_in_the_config(self, project: Path, cli: Cli) -> None:
        """A job's number, id, folder and time differ by themselves. What the task got is what its run gave it."""
        (project.parent / "fail").touch()
        cli("multirun", "earlier_app.py", "x=1,2,3", code=1)
        (project.parent / "fail").unlink()
        told = cli.json("multirun", "earlier_app.py", "x=3,4,2,1", "--continue")
        assert (told["completed"], told["taken_over"]) == (4, 2)
        assert ran(project) == ["1", "2", "2", "3", "4"]
        show = cli.json("show", "last")["jobs"]
        values = [(job["values"]["x"], job["values"]["num"]) for job in sorted(show, key=lambda job: job["num"])]
        assert values == [(3, 2), (4, 1), (2, 2), (1, 0)]
        assert {path.name for path in (project / "sweep").iterdir() if path.is_dir() and path.name[0] != "."} >= {
            "0-of-x=1", "2-of-x=3", "1-of-x=4", "2-of-x=2",
        }  # fmt: skip

    @pytest.mark.slow
    def test_a_changed_config_file_runs_all(self, project: Path, cli: Cli) -> None:
        """The overrides are the same, and the task would get something else."""
        cli("multirun", "earlier_app.py", "x=1,3")
        config = project / "conf" / "config.yaml"
        config.write_text(config.read_text().replace("size: 1", "size: 2"))
        assert cli.json("multirun", "earlier_app.py", "x=1,3", "--continue")["taken_over"] == 0
        assert cli.json("multirun", "earlier_app.py", "x=1,3", "size=1,2", "--continue")["taken_over"] == 4
        assert ran(project) == ["1", "1", "3", "3"]

    @pytest.mark.slow
    def test_variables_of_the_job_count(self, project: Path, cli: Cli) -> None:
        """`hydra.job.env_set` is what a task finds in its process."""
        cli("multirun", "earlier_app.py", "x=1", "+hydra.job.env_set.MODE=a")
        assert (
            cli.json("multirun", "earlier_app.py", "x=1", "+hydra.job.env_set.MODE=b", "--continue")["taken_over"] == 0
        )
        assert (
            cli.json("multirun", "earlier_app.py", "x=1", "+hydra.job.env_set.MODE=a", "--continue")["taken_over"] == 1
        )

    @pytest.mark.slow
    def test_the_plugin_continues_a_sweep(self, project: Path) -> None:
        """By batches, which Hydra's own sweeper makes. It does not matter how the sweep was begun."""
        plugin = ["earlier_app.py", "-m", "hydra/launcher=remote", "hydra.sweeper.max_batch_size=2"]
        apps.launcher("multirun", "earlier_app.py", "x=1,2,3", cwd=project)
        apps.python(*plugin, "x=3,4,1,2,5", "hydra.launcher.continue_sweep=true", cwd=project)
        assert ran(project) == ["1", "2", "3", "4", "5"]
        apps.python(*plugin, "x=6,5", "hydra.launcher.continue_sweep=true", cwd=project)
        assert ran(project) == ["1", "2", "3", "4", "5", "6"]
        refused = apps.python(
            *plugin,
            "x=1",
            "hydra.launcher.continue_sweep=true",
            "hydra.launcher.same_code=true",
            cwd=project,
            check=False,
        )
        assert refused.returncode != 0
        assert "hydra.launcher.same_code: whether the code has changed" in refused.stderr
        apps.launcher("multirun", "earlier_app.py", "x=1,2,3,4,5,6", "--continue", cwd=project)
        assert ran(project) == ["1", "2", "3", "4", "5", "6"]


@pytest.mark.slow
def test_changed_code_is_said_of_each_job(project: Path, cli: Cli, demo_server: DemoServer) -> None:
    """With the files that changed. `--same-code` refuses, and what is no job of the sweep does not matter."""
    hosts = str(hosts_file(project.parent / "hosts.yaml", demo_server.alias, demo_server.ssh_config))
    sweep = ["multirun", "earlier_app.py", "--hosts", hosts]
    cli(*sweep, "x=1,3")
    assert cli.json(*sweep, "x=1,3", "--continue", "--same-code")["taken_over"] == 2
    (project / "helper.py").write_text("VALUE = 1\n")
    cli(*sweep, "x=1,3", "--continue", "--same-code", code=2)
    assert "--same-code: the code has changed since these jobs ran: 0-1 (helper.py)" in cli.err
    assert cli.json(*sweep, "x=5", "--continue", "--same-code")["taken_over"] == 0
    said = cli(*sweep, "x=5,3,1", "--continue")
    assert "warning: code: the code has changed since these jobs ran: 1-2 (helper.py)\n" in said
    assert ran(project) == ["1", "3", "5"]
    cli("reproduce", "last#1")
    assert "the job was taken over from" in cli.err
    cli("reproduce", "last#1", "--exact", code=2)
    assert "the code that it ran was not recorded" in cli.err


@pytest.mark.slow
def test_jobs_that_were_left_to_their_hosts(project: Path, cli: Cli) -> None:
    """They may still run, so the sweep is not continued before they were collected."""
    cli("multirun", "earlier_app.py", "x=1,3", "--detach")
    cli("multirun", "earlier_app.py", "x=1,3", "--continue", code=2)
    run = index.find(project / "sweep").run
    assert f"run {run} there has not ended (detached)" in cli.err
    assert f"'launcher attach {run}' collects them" in cli.err
    cli("attach", run)
    assert cli.json("multirun", "earlier_app.py", "x=1,3,4", "--continue")["taken_over"] == 2


_DAMAGED = {
    b"{": "is damaged in its journal",
    json.dumps({"version": 1, "journals": [{"folder": 1}], "kept": []}).encode(): "is damaged in its journal",
    json.dumps({"version": 2}).encode(): "is of version 2",
}


def test_a_damaged_record_is_refused(project: Path, cli: Cli) -> None:
    """The error names the folder."""
    cli("multirun", "earlier_app.py", "x=1")
    for data, said in _DAMAGED.items():
        journal = Journal(project / "sweep" / FOLDER)
        journal.put_blob("continued", data)
        journal.close()
        cli("multirun", "earlier_app.py", "x=1", "--continue", code=1)
        assert said in cli.err
        assert str(project / "sweep") in cli.err
