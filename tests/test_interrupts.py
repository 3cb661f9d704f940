"""Interrupts: counted, passed on at once, and taken down with their reason."""

from __future__ import annotations

import os
import signal
import threading

from launcher.interrupts import CTRL_C, Interrupts


def made() -> tuple[Interrupts, list[tuple[str, bool]]]:
    """Interrupts, and what they asked for."""
    asked: list[tuple[str, bool]] = []
    return Interrupts(lambda why, kill: asked.append((why, kill))), asked


def test_once_cancels_twice_kills() -> None:
    """The second of whatever kind kills."""
    interrupts, asked = made()
    assert not interrupts
    interrupts.add(CTRL_C)
    assert interrupts
    interrupts.add("interrupted (SIGTERM)")
    assert asked == [(CTRL_C, False), ("interrupted (SIGTERM)", True)]
    assert interrupts.why == "interrupted (SIGTERM)"


def test_another_process_may_ask_to_kill_at_once() -> None:
    """`launcher cancel --kill` does not begin with asking."""
    interrupts, asked = made()
    interrupts.add("asked to", kill=True)
    assert asked == [("asked to", True)]


def test_signals_are_taken_and_given_back() -> None:
    """SIGTERM cancels, SIGHUP says why to leave; afterwards the handlers are those of before."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
    interrupts, asked = made()
    interrupts.handle_signals()
    try:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
    finally:
        interrupts.restore_signals()
    assert asked == [("interrupted (SIGTERM)", False)]
    assert interrupts.hangup == "SIGHUP: the terminal is gone"
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)) == before


def test_nohup_is_respected() -> None:
    """Whoever ignores SIGHUP does not want to leave when the terminal does."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupts, _ = made()
    interrupts.handle_signals()
    try:
        os.kill(os.getpid(), signal.SIGHUP)
    finally:
        interrupts.restore_signals()
        signal.signal(signal.SIGHUP, before)
    assert interrupts.hangup == ""


def test_in_another_thread_no_handler_is_set() -> None:
    """Python has handlers in the main thread only; a session elsewhere leaves them alone."""
    before = signal.getsignal(signal.SIGTERM)
    interrupts, _ = made()
    thread = threading.Thread(target=interrupts.handle_signals)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before
