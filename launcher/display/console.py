"""Rich's console, changed so that it does not end the process when a pipe is closed.

Rule: rich would end the process with exit code 1. Here the caller gets the error, because a run's exit code and the work at its end
do not depend on a reader.
"""

from __future__ import annotations

from rich.console import Console

__all__ = ["PatientConsole"]


class PatientConsole(Console):
    """A console that raises BrokenPipeError."""

    def on_broken_pipe(self) -> None:
        """Raise the error again. Rich calls this while it handles the error."""
        raise  # noqa: PLE0704 - rich calls this in its `except` block
