"""Shared fixtures for the tests of results."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.results.output_folder import OutputFolder


@pytest.fixture
def folder(tmp_path: Path) -> OutputFolder:
    """An output directory that is made when something is written to it."""
    return OutputFolder(tmp_path / "run" / "0")
