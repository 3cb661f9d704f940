"""Sends output files of jobs that still run, if the controller asks for it.

Rule: everything else goes first. Files are read in a thread of their own, in small batches. A batch is sent only while nothing else waits
to be sent, and the next one when the controller has answered a ping that followed it. So no more is under way than the link takes in a
fraction of a second, and a result waits no longer than that. Nothing is sent of a job that has its result: its files follow as a whole.
What the controller has not confirmed counts as not sent when the link is lost.
"""

import sys
import time
import traceback
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, NamedTuple, Optional

from remote_agent.agent.link.controller import Controller
from remote_agent.agent.link.link import Link
from remote_agent.agent.link.sync_frames import SentFile, SyncPiece, sync_pieces
from remote_agent.agent.spool.attempt import Attempt
from remote_agent.protocol import wire
from remote_agent.protocol.messages import Pong
from remote_agent.system.background import BackgroundThread

__all__ = ["OutputSync", "ReadLimit"]

#: Bytes of a batch: at first, and the bounds between which the answers of the controller move it.
_BATCH, _LEAST, _MOST = 1 << 16, 1 << 14, 1 << 20
#: Batches are at least so many seconds apart.
_APART = 0.1
#: An answer within the first of these seconds lets batches grow, one that takes longer than the second makes them smaller.
_QUICK, _SLOW = 0.25, 0.5
#: Pings from this number on follow batches. Those of a link never get so high.
_FIRST_PING = 1 << 41


class ReadLimit:
    """How much of its time this process may spend on reading from a disk. This one is for a disk of its own: as much as it likes."""

    #: When the next batch may be read.
    free_at = 0.0

    def read(self, begun: float, ended: float) -> None:
        """Record that a batch was read. Times are monotonic."""


class _Pass(NamedTuple):
    """One look at the folder of one attempt."""

    attempt: Attempt
    pieces: Iterator[SyncPiece]


class OutputSync:
    """Looks at the folders of running jobs, one after the other, and sends what is new in them.

    Args:
        active: the attempts that run.
        folder_of: the folder of one; None if its files are not sent.
        limit: of reading from their disk.
    """

    def __init__(
        self,
        active: Callable[[], Iterable[Attempt]],
        folder_of: Callable[[Attempt], Optional[str]],
        controller: Controller,
        make_thread: Callable[[], BackgroundThread],
        limit: Optional[ReadLimit] = None,
    ) -> None:
        self._limit = limit if limit is not None else ReadLimit()
        self._took = 0.0, 0.0
        self._active = active
        self._folder_of = folder_of
        self._controller = controller
        self._make_thread = make_thread
        #: None until the first controller asks for files.
        self.thread: Optional[BackgroundThread] = None
        self._link: Optional[Link] = None
        self._due: Deque[Attempt] = deque()
        self._pass: Optional[_Pass] = None
        self._next = 0.0
        #: Whether the thread reads a batch.
        self.is_reading = False
        self._batch: List[SyncPiece] = []
        #: attempt -> path -> what has arrived of it.
        self._sent: Dict[str, Dict[str, SentFile]] = {}
        #: The pieces that the next answer confirms, the number of its ping, and when that was sent.
        self._unconfirmed: List[SyncPiece] = []
        self._ping = _FIRST_PING
        self._sent_at: Optional[float] = None
        self._not_before = 0.0
        self._size = _BATCH

    @property
    def is_busy(self) -> bool:
        """Whether a look has begun that has not ended."""
        return self._pass is not None and self._controller.link is not None

    def tick(self, now: float) -> None:
        """Begin what is due. Called in each turn of the agent."""
        link = self._controller.link
        if link is not self._link and not self.is_reading:
            self._start_over(link)
        if link is None or link is not self._link or link.sync is None:
            return
        if self.is_reading or self._sent_at is not None or link.outbox:
            return
        if now < max(self._not_before, self._limit.free_at):
            return
        if self._pass is None and not self._due and now >= self._next:
            self._next = now + link.sync.every
            self._due.extend(one for one in self._active() if self._is_wanted(one))
            kept = {one.id for one in self._due}
            self._sent = {key: files for key, files in self._sent.items() if key in kept}
        self._read_more(link)

    def _start_over(self, link: Optional[Link]) -> None:
        """Begin with another link. What was under way may not have arrived."""
        self._link = link
        self._due.clear()
        self._pass = None
        self._sent_at = None
        self._unconfirmed = []
        self._next = 0.0
        self._size = _BATCH

    def _is_wanted(self, attempt: Attempt) -> bool:
        return (
            attempt.final is None
            and attempt.pid is not None
            and attempt.spec.outputs is not False
            and self._folder_of(attempt) is not None
        )

    def _read_more(self, link: Link) -> None:
        """Have the next batch read."""
        if self._pass is None and self._due:
            self._pass = self._begun(self._due.popleft(), link)
        current = self._pass
        if current is None:
            return
        self.is_reading = True
        if self.thread is None:
            self.thread = self._make_thread()
        self.thread.submit(lambda: self._read(current, self._size), lambda error: self._read_done(current, error))

    def _begun(self, attempt: Attempt, link: Link) -> Optional[_Pass]:
        folder = self._folder_of(attempt)
        if folder is None or link.sync is None or not self._is_wanted(attempt):
            return None
        sent = self._sent.setdefault(attempt.id, {})
        return _Pass(attempt, sync_pieces(attempt.id, folder, attempt.spec.outputs, link.sync.only, sent))

    def _read(self, current: _Pass, size: int) -> None:
        """Read a batch; in the thread. It is empty when the look is over."""
        self._batch = []
        begun = time.monotonic()
        for piece in current.pieces:
            self._batch.append(piece)
            size -= len(piece.frame)
            if size <= 0:
                break
        self._took = begun, time.monotonic()

    def _read_done(self, current: _Pass, error: Optional[BaseException]) -> None:
        self.is_reading = False
        self._limit.read(*self._took)
        batch, self._batch = self._batch, []
        link = self._controller.link
        if link is None or link is not self._link:
            return  # `tick` starts over
        if error is not None:
            traceback.print_exception(type(error), error, error.__traceback__, file=sys.stderr)
            batch = []
        if not batch or not self._is_wanted(current.attempt):
            self._pass = None
            return
        current.attempt.came_early = True
        for piece in batch:
            link.outbox.put(piece.frame)
        self._ping += 1
        link.outbox.put(wire.encode({"t": "ping", "n": self._ping}))
        self._unconfirmed = batch
        self._sent_at = time.monotonic()
        self._not_before = self._sent_at + _APART

    def on_pong(self, header: Pong, payload: bytes) -> None:
        """Take an answer. Those to other pings are signs of life, which the link has already recorded."""
        if header["n"] != self._ping or self._sent_at is None or self._pass is None:
            return
        took, self._sent_at = time.monotonic() - self._sent_at, None
        if took < _QUICK:
            self._size = min(self._size * 2, _MOST)
        elif took > _SLOW:
            self._size = max(self._size // 2, _LEAST)
        arrived: Dict[str, Any] = self._sent.setdefault(self._pass.attempt.id, {})
        for piece in self._unconfirmed:
            if piece.sent is not None:
                arrived[piece.path] = piece.sent
        self._unconfirmed = []

    def stop(self) -> None:
        """End the thread, after the batch that it reads."""
        if self.thread is not None:
            self.thread.stop()
