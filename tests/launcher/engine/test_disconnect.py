"""Ending the connections to all hosts: how long many silent ones take, and what is shown meanwhile."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from launcher.engine import disconnect


@dataclass
class Clock:
    """A clock that moves only by waiting."""

    now: float = 100.0

    def monotonic(self) -> float:
        return self.now


@dataclass
class Host:
    """A host that ends at a given time, and closes when it is allowed to."""

    host: str
    clock: Clock
    ends_at: float
    entered: threading.Event = field(default_factory=threading.Event)
    may_close: threading.Event = field(default_factory=threading.Event)

    def wait_finished(self, timeout: float) -> bool:
        self.clock.now = max(self.clock.now, min(self.clock.now + timeout, self.ends_at))
        return self.clock.now >= self.ends_at

    def close(self) -> None:
        self.entered.set()
        self.may_close.wait(30)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the module under test."""
    made = Clock()
    monkeypatch.setattr(disconnect, "time", made)
    return made


@pytest.mark.parametrize("count", [1, 8, 200])
def test_many_silent_hosts_take_no_longer_than_one(clock: Clock, count: int) -> None:
    """All have one deadline. After it they are named as not reached."""
    hosts = [Host(f"h{number}", clock, float("inf")) for number in range(count)]
    assert disconnect.wait_for_ends(hosts, lambda message: None) == [host.host for host in hosts]
    assert clock.now == 110.0


def test_nothing_is_shown_if_hosts_end_at_once(clock: Clock) -> None:
    """A usual end is silent."""
    said: list[str] = []
    assert disconnect.wait_for_ends([Host("a", clock, 100.2), Host("b", clock, 100.9)], said.append) == []
    assert said == []
    assert clock.now == pytest.approx(100.9)


def test_the_hosts_that_have_not_ended_are_named(clock: Clock) -> None:
    """As many names as fit into a line. Hosts that end meanwhile do not count as unreached."""
    said: list[str] = []
    hosts = [Host("quick", clock, 100.5), *(Host(f"h{number}", clock, 102.0 + number) for number in range(12))]
    late = disconnect.wait_for_ends(hosts, said.append)
    assert said == ["waiting up to 10 s for hosts to end the run: h0, h1, h2, h3, h4, h5, h6, h7 and 4 more"]
    assert late == ["h9", "h10", "h11"]


def test_all_are_closed_at_the_same_time_and_none_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that still waits for its host ends later by itself."""
    monkeypatch.setattr(disconnect, "_CLOSE_PATIENCE", 0.01)
    hosts = [Host(f"h{number}", Clock(), 0.0) for number in range(20)]
    disconnect.close_all(hosts)
    for host in hosts:
        assert host.entered.wait(30)
        host.may_close.set()
