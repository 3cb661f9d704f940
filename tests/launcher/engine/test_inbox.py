"""The inbox makes readers wait if too much is in it, and never delays a request."""

from __future__ import annotations

import threading

from launcher.engine.inbox import Inbox


def test_results_wait_in_bounded_memory():
    """Readers wait if there is too much. Requests never do. Closing lets all of them go on."""
    inbox = Inbox(max_bytes=100)
    inbox.put_bulk("a", 60)
    inbox.put_bulk("b", 60)
    put = threading.Event()

    def reader() -> None:
        inbox.put_bulk("c", 60)
        put.set()

    thread = threading.Thread(target=reader)
    thread.start()
    inbox.put("request")
    assert not put.wait(0.1)
    assert inbox.get(1, 0) == ["a"]
    assert put.wait(30)
    assert inbox.get(10, 0) == ["b", "request", "c"]
    thread.join()
    inbox.put_bulk("d", 200)
    thread = threading.Thread(target=lambda: inbox.put_bulk("dropped", 1))
    thread.start()
    inbox.close()
    thread.join(30)
    assert not thread.is_alive()
    assert inbox.get(10, 0) == ["d"]


def test_get_waits_for_the_first_item():
    """It waits for the given time."""
    inbox = Inbox()
    assert inbox.get(1, 0.0) == []
    timer = threading.Timer(0.05, inbox.put, ["x"])
    timer.start()
    assert inbox.get(5, None) == ["x"]
    timer.join()
