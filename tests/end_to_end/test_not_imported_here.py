"""Applications that this machine need not import: a host told what their import does, in an earlier run of the same code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.demo.server import DemoServer

ROOT = Path(__file__).parents[2]
MAIN = "from launcher.cli.main import main; main()"

#: Each import is noted: `here` by the launcher's own process, whose environment says so, else `there`.
NOTED = "import os\nwith open({log!r}, 'a') as log:\n    log.write(os.environ.get('WHERE', 'there') + '\\n')\n"
PLAIN_APP = """
class Recorder:
    def on_run_start(self, config, **kwargs):
        print("controller hook", flush=True)


def main(cfg):
    print("value", cfg.x * 7, flush=True)
"""
HYDRA_APP = """
import hydra


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def train(cfg):
    print("value", cfg.x * 7, cfg.db.name, flush=True)


if __name__ == "__main__":
    train()
"""
STORING = """
from hydra.core.config_store import ConfigStore

ConfigStore.instance().store(group="db", name="stored", node={"name": "stored"})
"""
RESOLVING = """
from omegaconf import OmegaConf

OmegaConf.register_new_resolver("ten_times", lambda value: 10 * value)
"""


class Project:
    """A project, a cache of its own, and a host."""

    def __init__(self, folder: Path, server: DemoServer) -> None:
        self.folder = folder / "project"
        self.log = folder / "imports.log"
        self.cache = folder / "cache" / "hydra-remote-launcher" / "imports"
        (self.folder / "conf" / "db").mkdir(parents=True)
        (self.folder / "conf" / "config.yaml").write_text("defaults:\n  - db: small\n  - _self_\nx: 1\n")
        (self.folder / "conf" / "db" / "small.yaml").write_text("name: small\n")
        host = {"address": server.alias, "ssh_config": str(server.ssh_config), "python": sys.executable}
        (folder / "hosts.yaml").write_text(json.dumps({"far": host}))
        self.hosts = "--hosts", str(folder / "hosts.yaml")
        self._environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "WHERE": "here",
        }

    def write(self, name: str, *parts: str) -> None:
        """Write a module that notes its import."""
        (self.folder / name).write_text(NOTED.format(log=str(self.log)) + "".join(parts))

    def run(self, *arguments: str) -> tuple[list[str], str, str]:
        """Where the application was imported, and what the command wrote; it must have succeeded."""
        self.log.write_text("")
        command = [sys.executable, "-c", MAIN, *arguments]
        done = subprocess.run(command, cwd=self.folder, env=self._environ, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return sorted(set(self.log.read_text().split())), done.stdout, done.stderr


@pytest.fixture
def project(tmp_path: Path, demo_server: DemoServer) -> Project:
    """The project."""
    return Project(tmp_path, demo_server)


@pytest.mark.slow
@pytest.mark.parametrize(("app", "text"), [("plain_app.py", PLAIN_APP), ("hydra_app.py", HYDRA_APP)])
def test_the_second_run_of_the_same_code_imports_nothing_here(app: str, text: str, project: Project) -> None:
    """The first imports the application as ever; so does the next one after any file of the project has changed."""
    project.write(app, text)
    assert project.run("run", app, "x=3", *project.hosts)[0] == ["here", "there"]
    places, out, err = project.run("run", app, "x=3", *project.hosts)
    assert places == ["there"]
    assert "value 21" in out
    assert "warning" not in err
    assert project.run("multirun", app, "x=1,2", *project.hosts)[0] == ["there"]
    (project.folder / "helper.py").write_text("X = 1\n")
    assert project.run("run", app, "x=3", *project.hosts)[0] == ["here", "there"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "override", "shown", "why"),
    [
        (STORING, "db=stored", "value 7 stored", "puts configs into the ConfigStore"),
        (RESOLVING, "x=${ten_times:2}", "value 140 small", "registers resolvers"),
    ],
)
def test_what_composing_needs_is_imported_here(
    more: str, override: str, shown: str, why: str, project: Project
) -> None:
    """A host tells yes or no alone. The application is imported here, and a note says once why."""
    project.write("hydra_app.py", more, HYDRA_APP)
    for turn in range(2):
        places, out, err = project.run("run", "hydra_app.py", override, *project.hosts)
        assert places == ["here", "there"]
        assert shown in out
        assert err.count(f"imported here, too, because its import {why}") == turn


@pytest.mark.slow
def test_a_callback_with_a_controller_hook_is_imported_here(project: Project) -> None:
    """It fires its hook of the controller wherever it lives, so its module is imported."""
    project.write("plain_app.py", PLAIN_APP)
    project.run("run", "plain_app.py", "x=1", *project.hosts)
    places, out, _ = project.run("run", "plain_app.py", "x=1", *project.hosts, "--callback", "plain_app:Recorder")
    assert places == ["here", "there"]
    assert "controller hook" in out


@pytest.mark.slow
@pytest.mark.parametrize("more", ["", STORING])
def test_a_host_that_lied_gains_nothing(more: str, project: Project) -> None:
    """Whatever it said of an import: what composing lacks leads to the import here, and what it named is never imported."""
    project.write("hydra_app.py", more, HYDRA_APP)
    project.run("run", "hydra_app.py", *project.hosts)
    (known,) = project.cache.iterdir()
    lie = {"version": 1, "configs": False, "resolvers": False, "process": False, "modules": ["this", "antigravity"]}
    known.write_text(json.dumps(lie))
    override = "db=stored" if more else "db=small"
    places, out, err = project.run("run", "hydra_app.py", override, *project.hosts)
    assert places == (["here", "there"] if more else ["there"])
    assert "Beautiful is better than ugly" not in out + err
