"""What keys do: to a run that this process drives, and to one that another process drives.

Rule: nothing is done here but to ask. Who drives the run decides, as it does for the commands `cancel` and `attach`.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.runs import cancel_requests, index
from launcher.runs.journal import JournalReader
from launcher.terminal.job_output import JobOutput

if TYPE_CHECKING:
    from launcher.display.controls import JobText
    from launcher.session.session import Session

__all__ = ["SessionControls", "WatchControls"]

_WHY = "cancelled by a key"


class _OpenOutput(JobOutput):
    """What a job prints, with a reader of the journal of its own."""

    def __init__(self, folder: Path, num: int) -> None:
        entry = index.find(str(folder))
        self._own_reader = JournalReader(entry.journal)
        try:
            super().__init__(entry, self._own_reader, num, None)
        except BaseException:
            self._own_reader.close()
            raise

    def close(self) -> None:
        """Close the connection to the host, and the journal."""
        super().close()
        self._own_reader.close()


class SessionControls:
    """Of a run that this process drives.

    Args:
        no_detach: why it cannot be left; empty if it can.
    """

    def __init__(self, session: Session, no_detach: str = "") -> None:
        self._session = session
        self.no_detach = no_detach

    def cancel(self, num: int) -> None:
        """Ask for a job to be cancelled."""
        self._session.cancel_job_of(num)

    def detach(self) -> None:
        """Ask to leave the run, which goes on."""
        self._session.interrupts.leave("as a key asked")

    def output(self, num: int) -> JobText:
        """Open what a job prints."""
        return _OpenOutput(self._session.folder, num)

    def runs_users_code(self) -> bool:
        """Whether a hook runs in this process now."""
        return self._session.runs_hook


class WatchControls:
    """Of a run that another process drives."""

    no_detach = ""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        #: Set when the user leaves.
        self.is_left = threading.Event()

    def cancel(self, num: int) -> None:
        """Ask the process that drives the run to cancel a job."""
        cancel_requests.ask(self._folder, cancel_requests.CancelRequest(num, False, _WHY))

    def detach(self) -> None:
        """Watch no more."""
        self.is_left.set()

    def output(self, num: int) -> JobText:
        """Open what a job prints."""
        return _OpenOutput(self._folder, num)

    def runs_users_code(self) -> bool:
        """No hook runs here."""
        return False
