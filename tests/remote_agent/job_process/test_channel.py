"""A job's channel if its agent is gone."""

from __future__ import annotations

import os
import socket

import pytest

from remote_agent.job_process import channel as job_channel
from remote_agent.job_process.channel import JobChannel
from remote_agent.protocol import wire


@pytest.fixture
def synced(monkeypatch):
    """The files that were synced to the disk, in order."""
    names = []
    fsync = os.fsync

    def note(fd):
        names.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        fsync(fd)

    monkeypatch.setattr(job_channel.os, "fsync", note)
    return names


def without_agent(tmp_path) -> JobChannel:
    ours, theirs = socket.socketpair()
    theirs.close()
    return JobChannel(ours.detach(), str(tmp_path), "0.1")


def test_a_long_result_is_on_the_disk_before_the_orphan_file_says_so(tmp_path, synced):
    """Otherwise the agent would have synced it."""
    (tmp_path / "0.1.result").write_bytes(b"long")
    channel = without_agent(tmp_path)
    frame = wire.encode({"t": "done", "envelope": {}, "parts": {}})
    channel.send_all([frame], sync=True, file=str(tmp_path / "0.1.result"))
    assert synced == ["0.1.result", tmp_path.name, "orphan-0.1"]
    assert (tmp_path / "orphan-0.1").read_bytes() == frame


def test_results_that_the_dead_agent_had_read_are_synced_too(tmp_path, synced):
    """The agent may not have done so."""
    (tmp_path / "0.1.result").write_bytes(b"long")
    ours, theirs = socket.socketpair()
    channel = JobChannel(ours.detach(), str(tmp_path), "0.1")
    frame = wire.encode({"t": "done", "envelope": {}, "parts": {}})
    channel.send_all([frame], sync=True, file=str(tmp_path / "0.1.result"))
    assert theirs.recv(1 << 16) == frame
    assert synced == []
    theirs.close()
    channel.wait_kept()
    assert synced == ["0.1.result", tmp_path.name, "orphan-0.1"]
    assert (tmp_path / "orphan-0.1").read_bytes() == frame


def test_a_held_frame_is_sent_with_the_next_one(tmp_path, synced):
    """Together and in order. If they go to the orphan file, they are on the disk before anything else happens."""
    outcome = wire.encode({"t": "outcome", "envelope": {}, "parts": {}})
    entering = {"t": "hook", "hook": "on_job_end", "callback": "c", "index": 0}
    ours, theirs = socket.socketpair()
    with theirs:
        channel = JobChannel(ours.detach(), str(tmp_path), "0.1")
        channel.hold(outcome)
        channel.send(entering)
        assert theirs.recv(1 << 16) == outcome + wire.encode(entering)
    (tmp_path / "0.1.result").write_bytes(b"long")
    channel = without_agent(tmp_path)
    channel.hold(outcome, file=str(tmp_path / "0.1.result"))
    channel.send(entering)
    assert synced == ["0.1.result", tmp_path.name, "orphan-0.1"]
    assert (tmp_path / "orphan-0.1").read_bytes() == outcome + wire.encode(entering)
