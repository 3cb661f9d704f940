"""Rich's console, which does not end the process at a closed pipe.

Rule: rich ends the process with exit code 1 when the pipe is closed. Here the caller gets the error, because the exit code of a run
and the work at its end do not depend on a reader.
"""

from __future__ import annotations

from rich.console import Console

__all__ = ["PatientConsole"]


class PatientConsole(Console):
    """A console that raises BrokenPipeError."""

    def on_broken_pipe(self) -> None:
        """Rich calls it while it handles the error."""
        raise  # noqa: PLE0704 - rich handles the error that is meant
