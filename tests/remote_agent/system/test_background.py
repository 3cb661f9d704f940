"""A thread for what takes long, and callbacks in the thread of the agent."""

from __future__ import annotations

import threading

import pytest

from remote_agent.system.background import BackgroundThread


@pytest.fixture
def woken():
    """Set when the thread wants its results to be delivered."""
    return threading.Event()


@pytest.fixture
def background(woken):
    """The thread, ended after the test."""
    thread = BackgroundThread(woken.set)
    yield thread
    thread.stop()


def test_the_callback_runs_in_the_thread_that_delivers(background, woken):
    """The work runs in the other one."""
    threads = []
    background.submit(
        lambda: threads.append(threading.current_thread()), lambda error: threads.append(threading.current_thread())
    )
    assert woken.wait(60)
    assert len(threads) == 1
    background.deliver()
    assert threads[0] is not threading.current_thread()
    assert threads[1] is threading.current_thread()


def test_what_the_work_raises_goes_to_its_callback(background, woken):
    """It costs the thread nothing."""
    errors = []
    background.submit(lambda: int("no number"), errors.append)
    assert woken.wait(60)
    background.deliver()
    assert isinstance(errors[0], ValueError)


def test_what_work_without_a_callback_raises_is_printed(background, woken, capsys):
    """It is not swallowed."""
    background.submit(lambda: int("no number"), None)
    assert woken.wait(60)
    background.deliver()
    assert "ValueError" in capsys.readouterr().err
