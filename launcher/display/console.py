"""Rich's console, less its own idea of what follows when nobody reads any more.

Rule: rich ends the process with exit code 1 at a closed pipe; here the error goes to whoever prints, because a run's exit code and
what is left to be done at its end do not depend on a reader.
"""

from __future__ import annotations

from rich.console import Console

__all__ = ["PatientConsole"]


class PatientConsole(Console):
    """A console that raises BrokenPipeError."""

    def on_broken_pipe(self) -> None:
        """Called by rich while it handles the error."""
        raise  # noqa: PLE0704 - rich handles the error that is meant
