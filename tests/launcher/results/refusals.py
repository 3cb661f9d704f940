"""What the tests of output folders share."""

from __future__ import annotations

from launcher.results.output_folder import OutputFolder


def reason(folder: OutputFolder, path: str) -> str:
    """Why a file was refused."""
    return dict(folder.refused)[path]
