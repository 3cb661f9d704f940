"""The folder of a run on this machine: the one that the user named, or Hydra's default.

Rule: a folder's name comes with who chose it (`Naming`). That decides what happens if another run has the folder.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from launcher.errors import ConfigError
from launcher.runs.folder import Naming
from launcher.util.text.quoting import shown

__all__ = ["default_folder", "folder_for"]


def default_folder(mode: str) -> Path:
    """Return `outputs/<date>/<time>` or `multirun/<date>/<time>` in the working folder, as Hydra does.

    Claimed as `Naming.NEW`.
    """
    base = Path("outputs" if mode == "RUN" else "multirun")
    return base / time.strftime("%Y-%m-%d") / time.strftime("%H-%M-%S")


def folder_for(mode: str, folder: Any) -> tuple[Path, Naming]:
    """Return the folder that the user named, or the default one, and who chose the name.

    Raises:
        ConfigError: what was given is not a path.
    """
    if folder is None:
        return default_folder(mode).absolute(), Naming.NEW
    text = os.fspath(folder) if isinstance(folder, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise ConfigError.of_option("folder", f": {shown(folder)} is not the path of a folder")
    return Path(text).absolute(), Naming.USER
