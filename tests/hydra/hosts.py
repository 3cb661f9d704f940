"""Hosts files for the tests of Hydra apps."""

from __future__ import annotations

from pathlib import Path

import yaml

__all__ = ["hosts_file"]


def hosts_file(path: Path, name: str, ssh_config: Path, **fields: object) -> Path:
    """Write a hosts file with one host, by its name in an SSH configuration."""
    path.write_text(yaml.safe_dump({name: {"address": name, "ssh_config": str(ssh_config), **fields}}))
    return path
