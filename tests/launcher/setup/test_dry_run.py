"""A dry run: what it knows, what it refuses, and that nothing comes of it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.cli import runner
from launcher.runs import index
from launcher.runs.folder import Naming, claim
from tests.commands import Cli

APP = '''
import launcher


def train(cfg):
    return cfg.lr


class Marker(launcher.Callback):
    """Leaves a file when any hook of the controller fires."""

    def on_multirun_start(self, config, **kwargs):
        open("hook fired", "w").close()

    def on_multirun_end(self, config, **kwargs):
        open("hook fired", "w").close()


class Stuck(launcher.Callback):
    def __init__(self):
        import threading

        self.lock = threading.Lock()
'''
HYDRA_APP = """
import hydra


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg):
    return cfg.lr
"""
CONFIG = """
lr: 1
hydra:
  sweeper: {_target_: hydra._internal.core_plugins.basic_sweeper.BasicSweeper, max_batch_size: null, params: null}
"""
SWEEPER = """
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class OwnSweeper(BasicSweeper):
    pass
"""


@pytest.fixture
def cli(capfdbinary: pytest.CaptureFixture[bytes]) -> Cli:
    """The command `launcher`."""
    return Cli(capfdbinary)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with applications, in which commands run, and an index of runs of its own."""
    folder = tmp_path / "project"
    (folder / "conf" / "model").mkdir(parents=True)
    (folder / "dry_app.py").write_text(APP)
    (folder / "dry_hydra_app.py").write_text(HYDRA_APP)
    (folder / "dry_sweeper.py").write_text(SWEEPER)
    (folder / "conf" / "config.yaml").write_text(CONFIG)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in ("dry_app", "dry_hydra_app", "dry_sweeper"):
        sys.modules.pop(name, None)


@pytest.fixture
def watched(project: Path) -> Iterator[socket.socket]:
    """A listening host, which hosts.yaml names: whoever connects to it is seen."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        (project / "hosts.yaml").write_text(
            f"big: {{address: '127.0.0.1:{port}', slots: 2, cpus: 8, memory: 64G, gpus: 4}}\n"
            f"small: {{address: 'localhost:{port}', cpus: 2, memory: 64G, gpus: 0}}\n"
        )
        yield listener


def files(folder: Path) -> set[str]:
    """What is in a folder, without what Python caches."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}


def test_nothing_is_sent_written_or_fired(watched: socket.socket, project: Path, cli: Cli) -> None:
    """The host sees no connection. There is no run folder, no entry in the index, and no hook has fired."""
    before = files(project)
    plan = cli.json(
        "multirun", "dry_app.py:train", "lr=1,2,3", "--hosts", "hosts.yaml", "--callback", "dry_app:Marker", "--dry-run"
    )
    with pytest.raises(BlockingIOError):
        watched.accept()
    assert files(project) == before
    assert index.entries() == []
    assert [job["overrides"] for job in plan["planned"]] == [["lr=1"], ["lr=2"], ["lr=3"]]
    assert (plan["jobs"], plan["failing"], plan["exit_code"]) == (3, 0, 0)
    assert any("on_multirun_start" in line for line in plan["unknown"])


def test_it_says_what_would_be_sent(watched: socket.socket, project: Path, cli: Cli) -> None:
    """All files of the project are counted with their bytes, also what is pickled by value."""
    plan = cli.json("multirun", "dry_app.py:train", "lr=1,2", "--hosts", "hosts.yaml", "--dry-run")
    sent = [path for path in project.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert plan["files"] == len(sent)
    assert plan["code_bytes"] == sum(path.stat().st_size for path in sent)
    assert plan["config_bytes"] == sum(job["config_bytes"] for job in plan["planned"]) > 0
    assert plan["shared_bytes"] > 0
    here = cli.json("multirun", "dry_app.py:train", "lr=1,2", "--dry-run")
    assert (here["files"], [host["gets_code"] for host in here["hosts"]]) == (0, [False])


def test_it_says_which_host_could_take_which_job(watched: socket.socket, cli: Cli) -> None:
    """A host that is known to be too small takes none. What a host is not known to have may be enough."""
    plan = cli.json(
        "multirun", "dry_app.py:train", "lr=1,2", "--hosts", "hosts.yaml", "--resources", "gpus=1", "--dry-run"
    )
    assert [(host["name"], host["slots"], host["jobs"]) for host in plan["hosts"]] == [
        ("big", 2, 2),
        ("small", None, 0),
    ]
    assert [job["hosts"] for job in plan["planned"]] == [["big"], ["big"]]
    assert plan["planned"][0]["resources"] == {"gpus": 1, "cpus": 1}


def test_a_job_may_need_more_than_others(watched: socket.socket, project: Path, cli: Cli) -> None:
    """What a job's own config says that it needs counts for that job."""
    (project / "conf" / "model" / "large.yaml").write_text(
        "# @package _global_\nhydra: {launcher: {resources: {cpus: 4}}}\n"
    )
    (project / "conf" / "model" / "tiny.yaml").write_text(
        "# @package _global_\nhydra: {launcher: {resources: {cpus: 1}}}\n"
    )
    (project / "conf" / "config.yaml").write_text(
        "defaults: [_self_, {model: tiny}, {override hydra/launcher: remote}]\nlr: 1\n"
    )
    plan = cli.json("multirun", "dry_hydra_app.py", "model=tiny,large", "--hosts", "hosts.yaml", "--dry-run")
    assert [job["hosts"] for job in plan["planned"]] == [["big", "small"], ["big"]]


def test_a_job_that_would_fail_is_named(project: Path, cli: Cli) -> None:
    """Its config is composed, so it is known. The exit code is that of a run whose jobs fail."""
    plan = cli.json("multirun", "dry_hydra_app.py", "lr=1,${nowhere}", "--dry-run", code=1)
    assert plan["failing"] == 1
    assert [job["error"] and job["error"]["kind"] for job in plan["planned"]] == [None, "config"]
    assert "nowhere" in plan["planned"][1]["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("dry_app.py:nothing", "lr=1"), "nothing"),
        (("dry_app.py:train", "lr=1,,2"), "lr=1"),
        (("dry_app.py:train", "lr=1", "--timeout", "soon"), "--timeout"),
        (("dry_app.py:train", "lr=1", "--host", "a;b"), "a;b"),
        (("dry_app.py:train", "lr=1", "--callback", "dry_app:Stuck"), "lock"),
        (("dry_app.py:train", "lr=1", "--hosts", "hosts.yaml", "--max-code-size", "10"), "cap"),
        (("dry_app.py:train", "lr=1", "--folder", "dry_app.py/below"), "cannot be written"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_what_a_run_refuses_is_refused(watched: socket.socket, cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    """With the same exit code, and a message that says the same."""
    cli("multirun", *arguments, "--dry-run", code=2)
    with pytest.raises(BlockingIOError):
        watched.accept()
    assert said in cli.err
    cli("multirun", *arguments, code=2)
    assert said in cli.err


def test_a_folder_that_is_being_used_is_refused(project: Path, cli: Cli) -> None:
    """Another run drives it, so a run there would be refused. The run there is not disturbed."""
    taken = claim(project / "out", Naming.USER)
    try:
        said = [
            (cli("multirun", "dry_app.py:train", "lr=1", "--folder", "out", *more, code=2), cli.err)
            for more in ((), ("--dry-run",))
        ]
        assert said[0] == said[1]
        assert "is using this folder" in said[0][1]
    finally:
        taken.release()
    assert cli.json("multirun", "dry_app.py:train", "lr=1", "--folder", "out", "--dry-run")["jobs"] == 1
    assert not os.path.exists("out")


@pytest.mark.slow
def test_a_sweeper_that_decides_its_jobs(project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs are not known then, and it says so. To leave such a run is refused before anything is sent."""
    (project / "conf" / "config.yaml").write_text(
        "lr: 1\nhydra: {sweeper: {_target_: dry_sweeper.OwnSweeper, max_batch_size: null}}\n"
    )
    plan = cli.json("multirun", "dry_hydra_app.py", "lr=1,2", "--dry-run")
    assert (plan["jobs"], plan["planned"]) == (None, [])
    assert any("sweeper" in line for line in plan["unknown"])
    monkeypatch.setattr(runner, "run_app", None)
    for more in ((), ("--dry-run",)):
        cli("multirun", "dry_hydra_app.py", "lr=1,2", "--detach", *more, code=2)
        assert "--detach: the sweeper" in cli.err


def test_the_environment_that_a_host_would_get(project: Path, cli: Cli) -> None:
    """Its source and the hash of its lock are known, and which one the host had for it last."""
    (project / "requirements.txt").write_text("")
    host = cli.json("multirun", "dry_app.py:train", "lr=1", "--host", "gpu1", "--environment", "auto", "--dry-run")[
        "hosts"
    ][0]
    assert host["environment"]["source"].endswith("requirements.txt")
    assert (len(host["environment"]["lock"]), host["environment"]["last_key"]) == (64, "")


def test_a_run_of_one_job(project: Path, cli: Cli) -> None:
    """`launcher run` plans its job, and stdout has the plan."""
    said = cli("run", "dry_app.py:train", "lr=1", "--dry-run")
    assert "would run 1 job" in said
    assert "nothing was sent" in said
    assert not (project / "outputs").exists()


@pytest.mark.slow
def test_a_sweep_that_would_be_continued(project: Path, cli: Cli) -> None:
    """It says which jobs would be taken over, and nothing is changed in the folder."""
    cli("multirun", "dry_app.py:train", "lr=1,2", "--folder", "out")
    before = files(project)
    plan = cli.json("multirun", "dry_app.py:train", "lr=3,2", "--folder", "out", "--continue", "--dry-run")
    assert files(project) == before
    run = index.find(project / "out").run
    assert [job["taken_from"] for job in plan["planned"]] == [None, f"{run}#1"]
    assert [Path(job["output_dir"]).name for job in plan["planned"]] == ["0.1", "1"]
    assert plan["hosts"][0]["jobs"] == 1
    assert f"is taken over from {run}#1" in cli(
        "multirun", "dry_app.py:train", "lr=3,2", "--folder", "out", "--continue", "--dry-run"
    )
    cli("multirun", "dry_app.py:train", "lr=3,2", "--folder", "out", "--continue", "--same-code", "--dry-run", code=2)
    assert "--same-code: whether the code has changed" in cli.err
