"""Which process is the submitter of a run: the newest one that came, as soon as the ones before it have stopped.

Rule: each turn has a number and a log of its own, so that two submitters never write into one file. Whoever has seen a later turn writes
nothing more and leaves. Who comes waits for the ones before: until their log says that they have left, or their process is gone (on the same
machine), or they have not touched their log for `SILENCE` seconds by the clock of the disk. One that has only stood still must see the later turn
when it goes on, so that is not believed before the turn is `SEEN` seconds old.

    turns/<number>         {"machine", "pid", "started", "id"} of the process; a link, which only one can make
    submitter.<number>     its log
"""

import json
import os
import socket
import time
from typing import Any, Callable, Dict, List, Optional

from remote_agent.agent.spool.log import LogReader
from remote_agent.slurm.shared_disk.shared_files import SharedFiles
from remote_agent.system.host import boot_id
from remote_agent.system.processes import birth, is_alive

__all__ = ["SEEN", "SILENCE", "Turn", "TurnTaken"]

_TURNS = "turns"
#: A submitter touches its log this often, and another machine sees it up to a minute late.
_TOUCH_EVERY = 10.0
SILENCE = 90.0
#: After so many seconds every machine sees a turn that was taken.
SEEN = 60.0
_LOOK_EVERY = 0.2
#: Seconds for which a controller gets no answer meanwhile. Then it hears why, and comes again.
_PATIENCE = 40.0


class TurnTaken(Exception):
    """Another submitter may still write for this run. The text is for the user."""


class Turn:
    """The turn of this process. Making one takes it.

    Raises:
        OSError: the disk.
    """

    def __init__(self, files: SharedFiles) -> None:
        self._files = files
        files.make_folder(_TURNS)
        self._machine = "{}/{}".format(socket.gethostname(), boot_id())
        own = {"machine": self._machine, "pid": os.getpid(), "started": birth(os.getpid()), "id": os.urandom(16).hex()}
        self.number = self._latest() + 1
        for _ in range(1000):
            try:
                if files.offer(json.dumps(own).encode("ascii"), _TURNS, str(self.number)):
                    break
            except OSError:
                pass  # somebody has it whom this machine does not see yet, or nobody does
            self.number += 1
        self.path = self.log_of(self.number)
        self._touch_at = 0.0

    def log_of(self, number: int) -> str:
        """The log of a turn."""
        return self._files.path("submitter.{}".format(number))

    @property
    def run_id(self) -> str:
        """What all submitters of this run folder say, and none of another one."""
        first = self._read(min(self._numbers()))
        return str(first["id"]) if first is not None else ""

    def earlier(self) -> List[int]:
        """The turns before this one."""
        return sorted(number for number in self._numbers() if number < self.number)

    @property
    def is_over(self) -> bool:
        """Whether a later one has begun."""
        return self._latest() > self.number

    def touch(self, now: float) -> None:
        """Show that this process is there. The log must be there."""
        if now >= self._touch_at:
            self._touch_at = now + _TOUCH_EVERY
            os.utime(self.path)

    def wait(self, is_wanted: Callable[[], bool]) -> None:
        """Wait until those before have stopped. The log must be there. `is_wanted`: whether anybody waits for this one.

        Raises:
            TurnTaken: nobody does, or not for so long.
        """
        give_up = time.monotonic() + _PATIENCE
        waits_for = self.earlier()
        while waits_for:
            os.utime(self.path)
            waits_for = [number for number in waits_for if not self._has_stopped(number)]
            if not waits_for:
                return
            if time.monotonic() > give_up or not is_wanted():
                raise TurnTaken(self._who(waits_for[-1]))
            time.sleep(_LOOK_EVERY)

    def _who(self, number: int) -> str:
        whose = self._read(number)
        if whose is None:
            return "another login node may serve this run; it is waited for until it was silent for {:.0f} s".format(
                SILENCE
            )
        if whose["machine"] == self._machine:
            return "process {} on this login node serves this run and does not end; end it with `kill -KILL {}`".format(
                whose["pid"], whose["pid"]
            )
        return "login node {} may still serve this run; it is waited for until it was silent for {:.0f} s".format(
            str(whose["machine"]).partition("/")[0], SILENCE
        )

    def _has_stopped(self, number: int) -> bool:
        whose = self._read(number)
        if whose is not None and whose["machine"] == self._machine:
            return not is_alive(whose["pid"], whose["started"])
        log = self.log_of(number)
        if any(header["r"] == "left" for header, _ in LogReader(log).advance()):
            return True
        try:
            touched = os.stat(log).st_mtime
        except FileNotFoundError:
            touched = os.stat(self._files.path(_TURNS, str(number))).st_mtime
        later = min(one for one in self._numbers() if one > number)
        taken = os.stat(self._files.path(_TURNS, str(later))).st_mtime
        now = os.stat(self.path).st_mtime
        return now - touched > SILENCE and now - taken >= SEEN

    def _numbers(self) -> List[int]:
        return [int(name) for name in self._files.names(_TURNS) if name.isdigit()]

    def _latest(self) -> int:
        return max(self._numbers(), default=0)

    def _read(self, number: int) -> Optional[Dict[str, Any]]:
        data = self._files.read(_TURNS, str(number))
        found: Optional[Dict[str, Any]] = None if data is None else json.loads(data.decode("ascii"))
        return found
