"""Versions of packages, read from their files."""

from __future__ import annotations

from pathlib import Path

import hydra
import omegaconf
import pytest

from remote_agent.shared.versions import family_of, installed_version, numbers_of, version_note, version_of


def test_the_version_of_a_package_is_read_from_its_files():
    """It is the one that the package says when it is imported."""
    assert installed_version("omegaconf") == omegaconf.__version__
    assert installed_version("hydra") == hydra.__version__
    assert installed_version("no_such_package_of_test") is None


@pytest.mark.parametrize("text", ['__version__ = "1.2.3"', "__version__: str = '1.2.3'\n"])
def test_each_way_to_write_a_version_is_read(tmp_path: Path, text: str):
    """A folder without one has the empty version."""
    assert version_of(str(tmp_path)) == ""
    (tmp_path / "__init__.py").write_text(text)
    assert version_of(str(tmp_path)) == "1.2.3"


@pytest.mark.parametrize(("version", "has_note"), [("1.3.2", True), ("1.3.7", False), ("1.4.0rc3", False)])
def test_a_release_without_a_security_fix_has_a_note(version: str, has_note: bool):
    """The note says which release has the fix."""
    note = version_note(version)
    assert ("1.3.7" in note) == has_note


def test_versions_compare_as_numbers():
    """And not as texts."""
    assert numbers_of("1.10.0") > numbers_of("1.9.3")


def test_antlr_belongs_to_the_family_unless_omegaconf_has_its_own(tmp_path: Path):
    """OmegaConf has its own from 2.4 on."""
    assert "antlr4" in family_of(str(tmp_path))
    (tmp_path / "vendor" / "antlr4").mkdir(parents=True)
    assert "antlr4" not in family_of(str(tmp_path))
