"""What the `ssh` program logs, as facts.

Rule: ssh's words are read in this folder and nowhere else. The log comes through a FIFO of our own (`ssh -E`), so that it
does not mix with what the command writes to stderr.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

__all__ = ["SshLog"]

#: So many lines are kept of what ssh says to a person, each cut at so many characters.
_LINES = 40
_LINE = 1000
#: Ours, after the last line of ssh, which escapes control characters.
_END = b"\0\n"
_DEBUG = re.compile(r"debug[123]: ")


class SshLog:
    """The log of one `ssh` process.

    Args:
        fifo: a path that does not exist yet, in a private folder.

    Attributes:
        said: what ssh said to a person: errors, and not how it went on.
        offered: the keys that it offered.
        signs_with: the key that it signs with at present, with its type, fingerprint and origin; empty if none. A security key may wait for a touch then.
        asks_for: the ways to log in that the host named last, as `publickey,password`.
        host_key: type and fingerprint of the key that the host showed; empty before that.
        greeting: what came instead of an SSH banner, or before it.
        speaks_ssh: the host has sent an SSH banner.
        is_shaken: the handshake is over; what follows is the login.
        is_authenticated: the host has accepted the login.
        is_begun: the host has accepted the command.
        has_ended: the host has said that the command ended. Without that, the connection is lost.
        has_status: it has also said with which status.
        is_refused_by_master: the kept connection stands, and does not carry this session.
        is_over: the process has ended, and everything was read.
    """

    def __init__(self, fifo: Path) -> None:
        os.mkfifo(fifo, 0o600)
        self.path = fifo
        self._fifo = fifo
        # This end first: ssh would wait for a reader.
        self._read_end = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        self._write_end = os.open(fifo, os.O_WRONLY)
        os.set_blocking(self._read_end, True)
        self._changed = threading.Condition()
        self.said: deque[str] = deque(maxlen=_LINES)
        self.offered: list[str] = []
        self.signs_with = self.asks_for = ""
        self.host_key = self.greeting = ""
        self.speaks_ssh = False
        self.is_shaken = self.is_authenticated = self.is_begun = self.has_ended = self.has_status = self.is_over = False
        self.is_refused_by_master = False
        self._thread = threading.Thread(target=self._read, name="ssh log", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Read the rest of the log, after the process has ended."""
        os.write(self._write_end, _END)
        self._thread.join()

    def wait(self, is_enough: Callable[[SshLog], bool], seconds: float) -> bool:
        """Wait until this holds or the process has ended. Return False if neither happens within that many seconds."""
        deadline = time.monotonic() + seconds
        with self._changed:
            return self._changed.wait_for(
                lambda: is_enough(self) or self.is_over, max(0.0, deadline - time.monotonic())
            )

    def _read(self) -> None:
        rest = b""
        is_first = True
        while not self.is_over:
            rest += os.read(self._read_end, 1 << 16)
            *lines, rest = rest.split(b"\n")
            rest = rest[: 1 << 20]
            with self._changed:
                for line in lines:
                    if line == _END[:-1]:
                        self.is_over = True
                    else:
                        self._take(line.decode("utf-8", "replace").rstrip("\r")[:_LINE])
                self._changed.notify_all()
            if is_first:
                is_first = False
                # ssh has opened it, or is gone: nobody else is to.
                with contextlib.suppress(OSError):
                    self._fifo.unlink()
        os.close(self._read_end)
        os.close(self._write_end)

    def _take(self, line: str) -> None:
        debug = _DEBUG.match(line)
        if debug is None:
            self._take_said(line)
            return
        text = line[debug.end() :]
        if text.startswith("Remote: "):
            return  # the host's own words
        if "SSH2_MSG_SERVICE_ACCEPT received" in text:
            self.is_shaken = True
        elif "Offering public key: " in text:
            self.offered.append(text.partition("Offering public key: ")[2])
        elif "Server accepts key: " in text:
            self.signs_with = text.partition("Server accepts key: ")[2].strip()
        elif "Authentications that can continue: " in text:
            self.signs_with = ""
            self.asks_for = text.partition("continue: ")[2].strip()
        elif "banner line " in text:
            self.greeting += text.partition("banner line ")[2].partition(": ")[2] + "\n"
        elif "Remote protocol version " in text:
            self.speaks_ssh = True
        elif "Server host key: " in text:
            self.host_key = text.partition("Server host key: ")[2].strip()
        elif "exec request accepted on channel" in text:
            self.is_begun = True
        elif "master session id: " in text:
            self.is_shaken = self.is_authenticated = self.is_begun = True
        elif "Received exit status from master" in text or "rtype exit-status" in text:
            self.has_status = self.has_ended = True
        elif re.search(r"channel \d+: rcvd close", text):
            self.has_ended = True

    def _take_said(self, line: str) -> None:
        if line.startswith(("Authenticated to ", "Authenticated using ")) and "partial success" not in line:
            self.is_shaken = self.is_authenticated = True
        elif line.startswith(("Transferred: ", "Bytes per second: ")):
            pass  # how much went, for a person who asks for it
        elif line.strip():
            if "session request failed" in line or "Control socket connect" in line:
                self.is_refused_by_master = True
            self.said.append(line.strip())
