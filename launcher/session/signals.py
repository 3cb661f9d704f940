"""Handles the signals of this process: handlers only note what came, and a thread tells the listener.

Rule: a handler takes no lock and raises nothing of its own, so that it cuts nothing in two; what follows from a signal is done in the
door's thread, where it waits for nobody. Python calls handlers in the main thread only, and not while that is inside of C code:
therefore the door also has each signal written into a socket by the interpreter itself (`signal.set_wakeup_fd`), unless
somebody else, such as asyncio, has that already.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterable
from types import FrameType
from typing import Any, Protocol

__all__ = ["WATCHER", "Listener", "SignalWatcher"]

#: Bytes in the socket. As the interpreter writes them: the signal's number. As we do: the number and one of these.
_HANDLED, _ON, _OFF = 64, 128, 192
_END = 0


class Listener(Protocol):
    """What is told of signals."""

    def handled(self, number: int) -> None:
        """In the main thread, where it was interrupted; may raise only where code of the user runs."""

    def arrived(self, number: int) -> None:
        """In the door's thread, once per signal."""


class SignalWatcher:
    """Handlers for as long as somebody listens; afterwards those of before."""

    def __init__(self) -> None:
        self._listeners: dict[int, tuple[Listener, ...]] = {}
        self._before: dict[int, Any] = {}
        self._sockets: tuple[socket.socket, socket.socket] | None = None
        self._has_wakeup = False
        os.register_at_fork(after_in_child=self._forget)

    def listen(self, listener: Listener, numbers: Iterable[int]) -> None:
        """Tell the listener of these signals; in another thread than the main one there is nothing to be had. A signal that the
        process ignores (`nohup`, a background job of a script) stays ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for number in numbers:
            if number not in self._before:
                if signal.getsignal(number) in (signal.SIG_IGN, None):
                    continue
                self._before[number] = signal.signal(number, self._handle)
            self._open()
            self._tell(_ON + number)
            self._listeners[number] = (*self._listeners.get(number, ()), listener)

    def unlisten(self, listener: Listener, numbers: Iterable[int]) -> None:
        """The listener has heard enough of these. Where this is not the main thread, the handler of before is put back when the
        next signal comes.
        """
        is_main = threading.current_thread() is threading.main_thread()
        for number in numbers:
            listeners = list(self._listeners.get(number, ()))
            if listener in listeners:
                listeners.remove(listener)
            self._listeners[number] = tuple(listeners)
            if not listeners and number in self._before:
                self._tell(_OFF + number)
                if is_main:
                    self._put_back(number)
        if is_main and not self._before:
            self._close()

    def _put_back(self, number: int) -> Any:
        before = self._before.pop(number, None)
        if before is not None and signal.getsignal(number) == self._handle:
            signal.signal(number, before)
        return before

    def _handle(self, number: int, frame: FrameType | None) -> None:
        listeners = self._listeners.get(number, ())
        if not listeners:
            before = self._put_back(number)
            if callable(before):
                before(number, frame)
            elif before is signal.SIG_DFL:
                signal.raise_signal(number)
            return
        self._tell(_HANDLED + number)
        for listener in dict.fromkeys(listeners):
            listener.handled(number)

    # -- the socket and its reader -------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._sockets is not None:
            return
        mine, theirs = self._sockets = socket.socketpair()
        theirs.setblocking(False)
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self._has_wakeup = before == -1
        if not self._has_wakeup:
            signal.set_wakeup_fd(before)
        threading.Thread(target=self._read, args=(mine, theirs), name="signals", daemon=True).start()

    def _close(self) -> None:
        if self._sockets is None:
            return
        _, theirs = self._sockets
        if self._has_wakeup:
            now = signal.set_wakeup_fd(-1)
            if now not in (-1, theirs.fileno()):
                signal.set_wakeup_fd(now)
        self._tell(_END)
        self._sockets = None

    def _tell(self, code: int) -> None:
        if self._sockets is not None:
            # So full that nothing fits: a thousand signals wait to be told already.
            with contextlib.suppress(OSError):
                self._sockets[1].send(bytes([code]))

    def _read(self, mine: socket.socket, theirs: socket.socket) -> None:
        """Each signal comes twice, as a rule, and is told once."""
        by_interpreter: Counter[int] = Counter()
        by_handler: Counter[int] = Counter()
        told: Counter[int] = Counter()
        on: set[int] = set()
        with mine, theirs:
            while True:
                for code in mine.recv(4096):
                    if code == _END:
                        return
                    what, number = code & 192, code & 63
                    if what == _ON:
                        if number not in on:
                            by_interpreter[number] = by_handler[number] = told[number] = 0
                        on.add(number)
                    elif what == _OFF:
                        on.discard(number)
                    else:
                        (by_handler if what == _HANDLED else by_interpreter)[number] += 1
                        count = max(by_handler[number], by_interpreter[number])
                        is_new, told[number] = count > told[number], count
                        listeners = self._listeners.get(number, ()) if is_new and number in on else ()
                        for listener in dict.fromkeys(listeners):
                            listener.arrived(number)

    def _forget(self) -> None:
        """In a forked child, such as one of a hook's `multiprocessing`: its signals are its own."""
        if not self._before:
            return
        self._listeners.clear()
        for number in list(self._before):
            self._put_back(number)
        if self._has_wakeup:
            signal.set_wakeup_fd(-1)
        # Closed here only: the parent has its own.
        for each in self._sockets or ():
            each.close()
        self._sockets = None


#: Of this process.
WATCHER = SignalWatcher()
