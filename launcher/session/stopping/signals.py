"""Handles the signals of this process. Handlers only note a signal, and a thread calls the listener.

Rule: a handler takes no lock and raises nothing itself, so it interrupts nothing. What follows from a signal is done in the watcher's
thread, which waits for nobody. Python calls handlers only in the main thread, and not while that is in C code. So the interpreter
also writes each signal to a socket of the watcher (`signal.set_wakeup_fd`), unless somebody else, such as asyncio, uses that already.
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

#: Bytes in the socket. The interpreter writes a signal's number. We write the number plus one of these.
_HANDLED, _ON, _OFF = 64, 128, 192
_END = 0


class Listener(Protocol):
    """Whoever wants to know about signals."""

    def handled(self, number: int) -> None:
        """Called in the main thread, which the signal interrupted. May raise only if the user's code runs there."""

    def arrived(self, number: int) -> None:
        """Called in the watcher's thread, once per signal."""


class SignalWatcher:
    """Installs handlers while somebody listens, and puts the earlier ones back afterwards."""

    def __init__(self) -> None:
        self._listeners: dict[int, tuple[Listener, ...]] = {}
        self._before: dict[int, Any] = {}
        self._sockets: tuple[socket.socket, socket.socket] | None = None
        self._has_wakeup = False
        os.register_at_fork(after_in_child=self._forget)

    def listen(self, listener: Listener, numbers: Iterable[int]) -> None:
        """Call the listener at these signals. Does nothing outside the main thread. A signal that the process ignores (`nohup`, a
        background job of a script) stays ignored.
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
        """Stop calling the listener at these signals. Outside the main thread, the earlier handler is put back only when the next
        signal comes.
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
            # If the socket is full, a thousand signals wait already.
            with contextlib.suppress(OSError):
                self._sockets[1].send(bytes([code]))

    def _read(self, mine: socket.socket, theirs: socket.socket) -> None:
        """Read the socket. A signal usually comes twice, and the listeners are called once."""
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
        """Forget everything in a forked child, such as one of a hook's `multiprocessing`: it handles its own signals."""
        if not self._before:
            return
        self._listeners.clear()
        for number in list(self._before):
            self._put_back(number)
        if self._has_wakeup:
            signal.set_wakeup_fd(-1)
        # This closes only the child's descriptors.
        for each in self._sockets or ():
            each.close()
        self._sockets = None


#: The watcher of this process.
WATCHER = SignalWatcher()
