"""The entry point of the command `launcher`, in a module with a name that no project has.

Rule: if a project's own `launcher` is first on `sys.path` (by PYTHONPATH), the command says so and does not run that one.
"""

from __future__ import annotations

import sys

from hydra_plugins.hydra_remote_launcher._names import in_front

__all__ = ["command", "main"]


def main() -> None:
    """The command `launcher`; exits with code 2 if another module has its name."""
    problem = in_front()
    if problem:
        sys.exit(_refused(problem))
    from launcher.cli.waiting.client import serve_if_waiting

    serve_if_waiting()
    command()


def command() -> None:
    """The command, in this process."""
    from launcher.cli.main import main as run

    run()


def _refused(problem: str) -> int:
    sys.stderr.write(f"launcher: {problem}\n")
    return 2
