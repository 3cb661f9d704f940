"""Turns to connect: each is given back, lent to others after a while, and nobody waits for ever."""

from __future__ import annotations

import threading

import pytest

from launcher.agents import connect_limit as module
from launcher.agents.connect_limit import ConnectLimit, Turn


@pytest.fixture
def turns() -> threading.Semaphore:
    """A single turn."""
    return threading.Semaphore(1)


def entered(turns: threading.Semaphore, stop: threading.Event) -> threading.Event:
    """Set when another thread has a turn, or was told to stop."""
    has_it = threading.Event()

    def work() -> None:
        with Turn(turns, stop):
            has_it.set()

    threading.Thread(target=work, daemon=True).start()
    return has_it


def test_a_waiting_thread_gets_a_turn_that_is_given_back(turns: threading.Semaphore) -> None:
    """The owner may go on with work that needs no turn."""
    with Turn(turns, threading.Event()) as turn:
        other = entered(turns, threading.Event())
        assert not other.is_set()
        turn.give_back()
        assert other.wait(30)
        turn.give_back()
    assert turns.acquire(timeout=30)
    assert not turns.acquire(blocking=False), "given back once, whoever said so"


def test_a_turn_that_is_kept_too_long_is_lent_to_others(
    turns: threading.Semaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host may accept the connection and send nothing."""
    monkeypatch.setattr(module, "_KEPT", 0.01)
    with Turn(turns, threading.Event()):
        assert entered(turns, threading.Event()).wait(30)


def test_a_stopped_thread_does_not_wait(turns: threading.Semaphore) -> None:
    """It does not take another thread's turn either."""
    stop = threading.Event()
    with Turn(turns, threading.Event()):
        other = entered(turns, stop)
        stop.set()
        assert other.wait(30)
    assert turns.acquire(timeout=30)
    assert not turns.acquire(blocking=False)


def taken(limit: ConnectLimit, most: int) -> int:
    """How many turns are available at the same time."""
    turns = [limit.turn(threading.Event()) for _ in range(most)]
    count = sum(limit.turns.acquire(blocking=False) for _ in turns)
    limit.turns.release(count)
    return count


def test_only_a_few_of_many_hosts_begin() -> None:
    """Otherwise the first hosts would share the controller with hundreds of logins, and their first results would wait."""
    assert taken(ConnectLimit(300), 20) == 4


def test_the_other_hosts_follow_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first seconds, sixteen hosts connect at the same time, and no more."""
    monkeypatch.setattr(module, "_FIRST_SECONDS", 0.0)
    limit = ConnectLimit(300)
    limit.turn(threading.Event())
    held = [limit.turns.acquire(timeout=30) for _ in range(16)]
    assert all(held)
    assert not limit.turns.acquire(blocking=False)


def test_a_few_hosts_connect_at_the_same_time() -> None:
    """A limit helps only if there are many hosts."""
    assert taken(ConnectLimit(16), 20) == 16
