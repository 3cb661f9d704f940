"""Where the command `launcher` enters: a name that no project has.

Rule: a project's own `launcher` that is first on `sys.path` (by PYTHONPATH) is told of, and not taken for ours.
"""

from __future__ import annotations

import sys

from hydra_plugins.hydra_remote_launcher._names import in_front

__all__ = ["main"]


def main() -> None:
    """The command `launcher`; exit code 2 where it cannot be found."""
    problem = in_front()
    if problem:
        sys.exit(_refused(problem))
    from launcher.cli.main import main as command

    command()


def _refused(problem: str) -> int:
    sys.stderr.write(f"launcher: {problem}\n")
    return 2
