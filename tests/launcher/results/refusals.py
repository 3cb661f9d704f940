"""Shared helpers for the tests of output folders."""

from __future__ import annotations

from launcher.results.output_folder import OutputFolder


def reason(folder: OutputFolder, path: str) -> str:
    """The reason why a file was refused."""
    return dict(folder.refused)[path]
