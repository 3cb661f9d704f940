"""What a user can do to a run that is shown: cancel a job, look at what it prints, leave the run."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Controls", "JobText"]


class JobText(Protocol):
    """What the last attempt of a job has printed, while it runs. One thread uses it."""

    #: What is wrong with reading it; empty if nothing is.
    problem: str

    def read(self) -> dict[str, bytes]:
        """The output of each stream that was not read before. May wait for a host."""

    def close(self) -> None:
        """Leave the host alone."""


class Controls(Protocol):
    """Whatever drives the run, or watches another process that does. Any thread may call it."""

    #: Why the run cannot be left; empty if it can.
    no_detach: str

    def cancel(self, num: int) -> None:
        """Ask for a job to be cancelled."""

    def detach(self) -> None:
        """Ask to leave the run, which goes on."""

    def output(self, num: int) -> JobText:
        """Open what a job prints."""

    def runs_users_code(self) -> bool:
        """Whether a hook runs in this process now. It may read what is typed."""
