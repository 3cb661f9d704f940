"""A thread for slow work, and callbacks in the agent's thread."""

from __future__ import annotations

import threading

import pytest

from remote_agent.system.background import BackgroundThread


@pytest.fixture
def woken():
    """Set when the thread has results to deliver."""
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


def test_any_thread_may_post_a_call(background, woken):
    """It is made in the thread that delivers, also while work is under way."""
    threads, may_end = [], threading.Event()
    background.submit(may_end.wait, None)
    poster = threading.Thread(target=background.post, args=(lambda: threads.append(threading.current_thread()),))
    poster.start()
    poster.join()
    assert woken.wait(60)
    background.deliver()
    may_end.set()
    assert threads == [threading.current_thread()]


def test_an_exception_of_the_work_goes_to_its_callback(background, woken):
    """The thread goes on."""
    errors = []
    background.submit(lambda: int("no number"), errors.append)
    assert woken.wait(60)
    background.deliver()
    assert isinstance(errors[0], ValueError)


def test_an_exception_of_work_without_a_callback_is_printed(background, woken, capsys):
    """It is not swallowed."""
    background.submit(lambda: int("no number"), None)
    assert woken.wait(60)
    background.deliver()
    assert "ValueError" in capsys.readouterr().err
