"""Turns at shaking hands: lent, given back, and no reason to wait for ever."""

from __future__ import annotations

import threading

import pytest

from launcher.agents import connect_limit as module
from launcher.agents.connect_limit import Turn


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """One turn alone."""
    made = threading.Semaphore(1)
    monkeypatch.setattr(module, "_turns", made)
    return made


def entered(stop: threading.Event) -> threading.Event:
    """Set when another thread has got a turn, or has been told to stop."""
    has_it = threading.Event()

    def work() -> None:
        with Turn(stop):
            has_it.set()

    threading.Thread(target=work, daemon=True).start()
    return has_it


def test_who_waits_gets_it_when_it_is_given_back(turns: threading.Semaphore) -> None:
    """Also where its owner goes on with something that needs none."""
    with Turn(threading.Event()) as turn:
        other = entered(threading.Event())
        assert not other.is_set()
        turn.give_back()
        assert other.wait(30)
        turn.give_back()
    assert turns.acquire(timeout=30)
    assert not turns.acquire(blocking=False), "given back once, whoever said so"


def test_a_turn_that_is_kept_for_long_is_lent_to_others(
    turns: threading.Semaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that accepts and says nothing."""
    monkeypatch.setattr(module, "_KEPT", 0.01)
    with Turn(threading.Event()):
        assert entered(threading.Event()).wait(30)


def test_who_is_stopped_does_not_wait(turns: threading.Semaphore) -> None:
    """And takes nobody's turn."""
    stop = threading.Event()
    with Turn(threading.Event()):
        other = entered(stop)
        stop.set()
        assert other.wait(30)
    assert turns.acquire(timeout=30)
    assert not turns.acquire(blocking=False)
