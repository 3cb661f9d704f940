"""Applications with configs of their own, and Hydra's global state as it was."""

from __future__ import annotations

import sys
import textwrap

import pytest
from hydra.core.global_hydra import GlobalHydra

from launcher.code.application.application import load_application
from tests.launcher.config.apps import APP, FILES, numbers


@pytest.fixture(autouse=True)
def hydra_state(monkeypatch):
    """Restore Hydra's global state and the import path. Hydra's plugins are found once, and stay."""
    from hydra.core.plugins import Plugins
    from hydra.core.singleton import Singleton

    Plugins.instance()
    before = dict(Singleton._instances)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    GlobalHydra.instance().clear()
    Singleton._instances.clear()
    Singleton._instances.update(before)


@pytest.fixture
def app(tmp_path, monkeypatch):
    """A loaded Hydra app with its own name, with the working folder beside it."""
    name = f"happ_config_{next(numbers)}"
    for path, text in {f"{name}.py": APP, **FILES}.items():
        file = tmp_path / path.format(name=name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text).format(name=name))
    monkeypatch.chdir(tmp_path)
    return load_application(f"{name}.py")


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """A plain function in a file with its own name."""
    name = f"plain_config_{next(numbers)}"
    (tmp_path / f"{name}.py").write_text("def train(cfg):\n    return cfg\n")
    monkeypatch.chdir(tmp_path)
    return load_application(f"{name}.py")
