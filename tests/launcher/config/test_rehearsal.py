"""What is done ahead of a first config: the same config is composed with and without it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

_APP = """\
import hydra

@hydra.main(version_base=None, config_path=".", config_name="config")
def main(config):
    pass
"""
_COMPOSE = """\
import json, sys
sys.path.insert(0, sys.argv[1])
from launcher.code.application.application import load_application
from launcher.config.compose import compose
if sys.argv[2] == "rehearsed":
    from launcher.config.rehearsal import rehearse
    rehearse()
before = set(sys.modules)
with compose(load_application(sys.argv[1] + "/app.py"), ["part.size=3", "+more='${part.size}'"]) as composition:
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins
    from omegaconf import OmegaConf
    said = {"config": OmegaConf.to_yaml(composition.config), "new": sorted(set(sys.modules) - before)}
    said["plugins"] = sorted(Plugins.instance().class_name_to_class)
    said["store"] = sorted(ConfigStore.instance().list("hydra/launcher"))
    said["remote"] = OmegaConf.to_yaml(ConfigStore.instance().load("hydra/launcher/remote.yaml").node)
    said["is_struct"] = OmegaConf.is_struct(ConfigStore.instance().load("hydra/launcher/remote.yaml").node)
    said["grammar"] = len([name for name in sys.modules if name.startswith("hydra_plugins.")])
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What two fresh Pythons say of one app, with and without a rehearsal."""
    folder: Path = tmp_path_factory.mktemp("app")
    (folder / "app.py").write_text(_APP)
    (folder / "config.yaml").write_text("part: {size: 1, twice: '${.size}'}\n")
    said = {}
    for how in ("cold", "rehearsed"):
        command = [sys.executable, "-c", _COMPOSE, str(folder), how]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        assert done.stderr == ""
        said[how] = json.loads(done.stdout)
    return said


def test_a_config_is_composed_as_without_it(composed: dict[str, dict[str, Any]]) -> None:
    """So are Hydra's plugins and its store."""
    cold, rehearsed = ({key: value for key, value in one.items() if key != "new"} for one in composed.values())
    assert rehearsed == cold
    assert "hydra_plugins.hydra_remote_launcher.remote_launcher.RemoteLauncher" in cold["plugins"]


def test_what_composing_imports_is_there_already(composed: dict[str, dict[str, Any]]) -> None:
    """Nothing of Hydra's core is left, and nothing of ours."""
    beginnings = ("hydra._internal.core_plugins", "hydra_plugins.hydra_remote_launcher")
    assert [name for name in composed["cold"]["new"] if name.startswith(beginnings)]
    assert not [name for name in composed["rehearsed"]["new"] if name.startswith(beginnings)]
