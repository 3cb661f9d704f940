"""Hosts may forget only what is on the disk here."""

from __future__ import annotations

import threading
from typing import Any

from launcher.engine.acknowledger import Acknowledger


def test_acknowledgements_wait_for_the_disk(tmp_path, monkeypatch):
    """They are sent in rounds, each after a sync of every file system that was written to. The last one is at the end."""
    order: list[Any] = []
    monkeypatch.setattr("launcher.engine.acknowledger._EVERY", 0.01)
    monkeypatch.setattr(
        "launcher.engine.acknowledger._sync_files", lambda folders: order.append(("sync", len(folders)))
    )

    class Session:
        def acknowledge(self, attempts: list[str]) -> None:
            order.append(("ack", attempts))

    acker = Acknowledger({"a": Session()}, tmp_path, order.append)
    acker.flush()
    assert order == []
    acker.wrote_to(tmp_path)
    acker.wrote_to(tmp_path / "gone")
    for num in range(3):
        acker.add("a", f"{num}.1")
    acker.add("unknown host", "9.1")
    acker.stop()
    assert order[0][0] == "sync"
    acks = [attempt for name, what in order if name == "ack" for attempt in what]
    assert sorted(acks) == ["0.1", "1.1", "2.1"]


def test_nothing_is_acknowledged_while_the_run_folder_is_moved_away(tmp_path):
    """The thread goes on. When the folder is back, hosts get the delayed acknowledgements. A missing folder of output
    files delays nothing.
    """
    said: list[str] = []

    class Session:
        def acknowledge(self, attempts: list[str]) -> None:
            said.extend(attempts)

    folder, files = tmp_path / "run", tmp_path / "elsewhere"
    for each in (folder, files):
        each.mkdir()
    failed: list[BaseException] = []
    acker = Acknowledger({"a": Session()}, folder, failed.append)
    folder.rename(tmp_path / "moved")
    acker.add("a", "0.1")
    acker.flush()
    assert said == []
    (tmp_path / "moved").rename(folder)
    acker.wrote_to(files)
    files.rmdir()
    acker.flush()
    acker.stop()
    assert said == ["0.1"]
    assert failed == []


def test_nothing_is_acknowledged_after_the_journal_was_removed(tmp_path, monkeypatch):
    """What was written in time and cannot be found any more is not acknowledged, not even at the end."""
    said: list[str] = []
    monkeypatch.setattr("launcher.engine.acknowledger._EVERY", 0.01)

    class Session:
        def acknowledge(self, attempts: list[str]) -> None:
            said.extend(attempts)

    looked = threading.Event()
    safe = [False]

    def is_safe() -> bool:
        looked.set()
        return safe[0]

    acker = Acknowledger({"a": Session()}, tmp_path, lambda error: None, is_safe)
    acker.add("a", "0.1")
    assert looked.wait(30)
    acker.flush()
    assert said == []
    safe[0] = True
    acker.add("a", "1.1")
    acker.flush()
    assert sorted(said) == ["0.1", "1.1"]
    safe[0] = False
    acker.add("a", "2.1")
    acker.stop()
    assert sorted(said) == ["0.1", "1.1"]
