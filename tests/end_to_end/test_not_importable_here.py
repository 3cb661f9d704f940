"""Applications that hosts can import and this machine cannot: `import torch` on a laptop without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.demo.server import DemoServer

ROOT = Path(__file__).parents[2]
MAIN = "from launcher.cli.main import main; main()"

LIBRARY = "VALUE = 7\n"
HYDRA_APP = """
import only_there
from hydra import main as entry


class Recorder:
    def on_run_start(self, config, **kwargs):
        print("controller hook", flush=True)

    def on_job_start(self, config, **kwargs):
        print("job hook", flush=True)


@entry(config_path="conf", config_name="config", version_base="1.3")
def train(cfg):
    print("value", cfg.x * only_there.VALUE, cfg.db.name, flush=True)


def other(cfg):
    print("other", dict(cfg), flush=True)


if __name__ == "__main__":
    train()
"""
PLAIN_APP = """
import only_there


class Recorder:
    def on_run_start(self, config, **kwargs):
        print("controller hook", flush=True)

    def on_job_start(self, config, **kwargs):
        print("job hook", flush=True)


recorder = Recorder()


def main(cfg):
    print("value", cfg.x * only_there.VALUE, flush=True)
"""


class Done:
    """How a command ended."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The two applications, with configs; and beside it the library that only hosts have."""
    folder = tmp_path / "project"
    for name, text in {
        "project/hydra_app.py": HYDRA_APP,
        "project/plain_app.py": PLAIN_APP,
        "project/conf/config.yaml": "defaults:\n  - db: small\n  - _self_\nx: 1\n",
        "project/conf/db/small.yaml": "name: small\n",
        "project/conf/db/large.yaml": "name: large\n",
        "there/only_there.py": LIBRARY,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return folder


@pytest.fixture
def command(project: Path) -> Callable[..., Done]:
    """Runs `launcher` in the project's folder, in a process that has imported nothing."""

    def run(*arguments: str) -> Done:
        state = str(project.parent / "state")
        done = subprocess.run(
            [sys.executable, "-c", MAIN, *arguments],
            cwd=project,
            env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": state},
            capture_output=True,
            text=True,
            timeout=120,
        )
        return Done(done)

    return run


@pytest.fixture
def far(project: Path, demo_server: DemoServer) -> tuple[str, str]:
    """A host over SSH whose Python has the library, as options."""
    host = {
        "address": demo_server.alias,
        "ssh_config": str(demo_server.ssh_config),
        "python": sys.executable,
        "env": {"PYTHONPATH": str(project.parent / "there")},
    }
    (project / "hosts.yaml").write_text(json.dumps({"far": host}))
    return "--hosts", "hosts.yaml"


@pytest.mark.slow
def test_a_hydra_app_runs_where_it_can_be_imported(command: Callable[..., Done], far: tuple[str, str]) -> None:
    """Configs, groups and sweeps are composed here as ever. The run says once what was read from the text, and why."""
    done = command("multirun", "hydra_app.py", "x=1,2", "db=small,large", *far, "--live")
    assert done.code == 0, done.out + done.err
    for value in ("value 7 small", "value 7 large", "value 14 small", "value 14 large"):
        assert value in done.out
    assert done.out.count("No module named 'only_there'") == 1
    assert "so were the arguments of @hydra.main, and hosts import it" in done.out


@pytest.mark.slow
def test_a_plain_function_runs_where_it_can_be_imported(command: Callable[..., Done], far: tuple[str, str]) -> None:
    """The function is the one that would be chosen after an import, or the one that is named."""
    done = command("run", "plain_app.py", "x=3", *far)
    assert (done.code, done.out) == (0, "value 21\n"), done.err
    done = command("run", "hydra_app.py:other", "y=3", *far)
    assert (done.code, done.out) == (0, "other {'y': 3}\n"), done.err


@pytest.mark.slow
def test_a_module_of_a_package_runs_where_it_can_be_imported(
    command: Callable[..., Done], far: tuple[str, str], project: Path
) -> None:
    """As for `python -m package` and `python -m package.module`, whose package cannot be imported here either."""
    (project / "package").mkdir()
    (project / "package" / "__init__.py").write_text("import only_there\n")
    for name in ("__main__", "work"):
        (project / "package" / f"{name}.py").write_text(
            "from package import only_there\ndef main(cfg):\n    print(__name__, only_there.VALUE)\n"
        )
    assert command("run", "package.work", *far).out == "package.work 7\n"
    assert command("run", "package", *far).out == "package.__main__ 7\n"


@pytest.mark.slow
@pytest.mark.parametrize("app", ["hydra_app", "plain_app"])
def test_a_callback_of_such_an_app_has_its_hooks_on_hosts(
    app: str, command: Callable[..., Done], far: tuple[str, str]
) -> None:
    """The rule of callbacks that only hosts can import holds, and is said: its hooks of the controller are off."""
    how = ["--callback", f"{app}:Recorder", f"+hydra.callbacks.mine._target_={app}.Recorder"]
    done = command("multirun", f"{app}.py", "x=1,2", *far, *how, "--live")
    assert done.code == 0, done.out + done.err
    assert done.out.count("job hook") == 4
    assert "controller hook\n" not in done.out
    for name in ("Recorder", "mine"):
        assert f"callback '{name}': its class cannot be imported here" in done.out


@pytest.mark.slow
def test_a_run_that_was_left_is_finished(command: Callable[..., Done], far: tuple[str, str], project: Path) -> None:
    """Whoever takes it up needs not import the application either."""
    done = command("multirun", "hydra_app.py", "x=1,2,3", *far, "--detach")
    assert done.code == 0, done.out + done.err
    done = command("attach", "last", "--live", "--env", f"PYTHONPATH={project.parent / 'there'}")
    assert done.code == 0, done.out + done.err
    assert "3 completed" in done.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # Each job would fail on this machine, as the import does.
        (["hydra_app.py"], "No module named 'only_there'"),
        (["plain_app.py", "--host", "local/2"], "No module named 'only_there'"),
        # These are wrong wherever it is imported.
        (["hydra_app.py:tarin", "--host", "far"], "which does not say what 'tarin' is"),
        (["hydra_app.py", "--host", "far", "db=medium"], "Could not find 'db/medium'"),
        (["hydra_app.py", "--host", "far", "x=${unknown:}"], "there is no resolver 'unknown'"),
        (["plain_app.py", "--host", "far", "--callback", "plain_app:recorder"], "No module named 'only_there'"),
        (["plain_app.py", "--host", "far", "--callback", "plain_app:Nobody"], "No module named 'only_there'"),
        (["broken.py", "--host", "far"], "ZeroDivisionError"),
        (["typo.py", "--host", "far"], "No module named 'package_of_mine.modle'"),
    ],
)
def test_what_can_be_refused_is_refused_before_anything_is_sent(
    arguments: list[str], message: str, command: Callable[..., Done], project: Path
) -> None:
    """Exit code 2, and no folder of a run. Where an import might have registered what is missing, the message says so."""
    (project / "broken.py").write_text("1 / 0\nimport only_there\ndef main(cfg): pass\n")
    (project / "package_of_mine").mkdir()
    (project / "package_of_mine" / "__init__.py").write_text("")
    (project / "typo.py").write_text("import package_of_mine.modle\ndef main(cfg): pass\n")
    before = sorted(path.name for path in project.iterdir())
    done = command("run", *arguments)
    assert done.code == 2, done.out + done.err
    assert message in done.err
    if message.startswith(("Could", "there is")):
        assert "The import of the application may register what is missing there" in done.err
    assert sorted(path.name for path in project.iterdir() if path.name != "__pycache__") == before
