"""Which packages a zygote takes from the job environment, and which from the bundle."""

from __future__ import annotations

import sys

import pytest

from remote_agent.zygote.imports import packages
from tests.specs import controller_facts


def _environment(tmp_path, **versions):
    for name, version in versions.items():
        folder = tmp_path / "env" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(f'__version__ = "{version}"\n')
    return str(tmp_path / "env")


@pytest.mark.parametrize(
    ("versions", "hydra", "taken"),
    [
        ({"omegaconf": "2.3.7", "hydra": "1.3.2", "antlr4": "4.9.3", "yaml": "6.0"}, "1.3.8", False),
        ({"omegaconf": "2.3.7", "antlr4": "4.9.3", "yaml": "6.0"}, None, False),
        ({"omegaconf": "2.3.7", "antlr4": "4.9.3", "yaml": "6.0"}, "1.3.8", True),
        ({"omegaconf": "2.1.0", "hydra": "1.3.2", "antlr4": "4.8", "yaml": "6.0"}, "1.3.8", True),
        ({"omegaconf": "2.3.7", "antlr4": "4.9.3"}, None, True),
        ({}, None, True),
    ],
)
def test_the_family_is_one_unit(tmp_path, monkeypatch, versions, hydra, taken):
    """All from the environment, in the controller's minor version, or all from the bundle, which then comes first."""
    for name in ("omegaconf", "hydra", "antlr4", "yaml"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    path = [_environment(tmp_path, **versions, cloudpickle="3.1.0"), *[p for p in sys.path if "site-packages" not in p]]
    monkeypatch.setattr(sys, "path", path)
    controller = controller_facts(hydra=hydra, cloudpickle="3.0.0")
    assert packages.choose_packages("/bundle", controller) == (["family"] if taken else [])
    assert (sys.path[0] == "/bundle/_vendor/family") is taken


def test_a_newer_cloudpickle_comes_from_the_bundle(tmp_path, monkeypatch):
    """An older one may not load what a newer one has pickled."""
    for version, wanted, taken in [("2.2.0", "3.1.2", True), ("3.1.0", "3.1.2", True), ("3.1.2", "3.1.1", False)]:
        folder = tmp_path / version
        env = _environment(folder, cloudpickle=version, omegaconf="2.3.0", antlr4="4.9", yaml="6")
        monkeypatch.setattr(sys, "path", [env])
        for name in ("omegaconf", "antlr4", "yaml", "cloudpickle"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        vendor = folder / "bundle" / "_vendor" / "cloudpickle"
        vendor.mkdir(parents=True)
        (vendor / "__init__.py").write_text("ours = True\n")
        got = packages.choose_packages(str(folder / "bundle"), controller_facts(omegaconf="2.3.1", cloudpickle=wanted))
        assert got == (["cloudpickle"] if taken else [])
        assert hasattr(sys.modules.get("cloudpickle"), "ours") is taken
