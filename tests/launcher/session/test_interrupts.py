"""Interrupts: counted, passed on, taken down with their reason; and the end of a process that does not come to one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from launcher.session import interrupts as interrupts_module
from launcher.session.interrupts import CTRL_C, Interrupts
from launcher.session.signals import WATCHER
from tests.controllers import until


def made() -> tuple[Interrupts, list[tuple[str, bool]]]:
    """Interrupts, and what they asked for."""
    asked: list[tuple[str, bool]] = []
    return Interrupts(lambda why, kill: asked.append((why, kill))), asked


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The end comes soon."""
    monkeypatch.setattr(interrupts_module, "PATIENCE", 0.01)
    monkeypatch.setattr(interrupts_module, "END", 0.02)
    return


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
    """`launcher cancel --kill` does not begin with asking, and does not make the controller leave."""
    interrupts, asked = made()
    interrupts.add("asked to", kill=True)
    assert asked == [("asked to", True)]
    assert not interrupts.must_detach


def test_signals_are_taken_and_given_back() -> None:
    """SIGTERM cancels, SIGHUP says why to leave, each once; afterwards the handlers are those of before."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
    interrupts, asked = made()
    interrupts.handle_signals()
    try:
        with interrupts.ours(), interrupts.ours():
            signal.raise_signal(signal.SIGTERM)
            until("it to be told", lambda: asked)
            signal.raise_signal(signal.SIGHUP)
            until("the hangup", lambda: interrupts.hangup)
            signal.raise_signal(signal.SIGINT)
            until("it to be told", lambda: len(asked) > 1)
    finally:
        interrupts.restore_signals()
    assert asked == [("interrupted (SIGTERM)", False), (CTRL_C, True)]
    assert interrupts.hangup == "SIGHUP: the terminal is gone"
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)] == before


def test_nothing_is_cut_but_code_of_the_user() -> None:
    """A signal raises nothing in our own code; the second one, and only it, raises inside of a hook, once."""
    interrupts, asked = made()
    interrupts.handle_signals()
    try:
        signal.raise_signal(signal.SIGTERM)
        until("it to be told", lambda: asked)
        with pytest.raises(KeyboardInterrupt), interrupts.users_code(raise_at=2):
            signal.raise_signal(signal.SIGTERM)
            raise AssertionError("it was not interrupted")
        with interrupts.users_code(raise_at=2):
            signal.raise_signal(signal.SIGTERM)
        until("three", lambda: len(asked) == 3)
    finally:
        interrupts.restore_signals()
    assert interrupts.has_raised


def test_the_first_signal_interrupts_a_generator_of_the_user() -> None:
    """Where configs are drawn nothing of ours is under way."""
    interrupts, _ = made()
    interrupts.handle_signals()
    try:
        with pytest.raises(KeyboardInterrupt), interrupts.users_code(raise_at=1):
            signal.raise_signal(signal.SIGTERM)
    finally:
        interrupts.restore_signals()


def test_nohup_is_respected() -> None:
    """Whoever ignores a signal does not want to be ended by it."""
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    interrupts, asked = made()
    interrupts.handle_signals()
    try:
        with interrupts.ours():
            for number in numbers:
                os.kill(os.getpid(), number)
    finally:
        interrupts.restore_signals()
        for number, handler in before.items():
            signal.signal(number, handler)
    assert interrupts.hangup == ""
    assert asked == []


def test_in_another_thread_no_handler_is_set() -> None:
    """Python has handlers in the main thread only; a session elsewhere leaves them alone."""
    before = signal.getsignal(signal.SIGTERM)
    interrupts, _ = made()
    thread = threading.Thread(target=interrupts.handle_signals)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before


def test_two_sessions_hear_the_same_signal() -> None:
    """Whichever is closed first: the handlers of before come back when the last one is."""
    before = signal.getsignal(signal.SIGTERM)
    first, first_asked = made()
    second, second_asked = made()
    first.handle_signals()
    second.handle_signals()
    try:
        signal.raise_signal(signal.SIGTERM)
        until("both to hear", lambda: first_asked and second_asked)
        first.restore_signals()
        signal.raise_signal(signal.SIGTERM)
        until("the other to hear", lambda: len(second_asked) == 2)
    finally:
        first.restore_signals()
        second.restore_signals()
    assert len(first_asked) == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_session_that_another_thread_closed_leaves_the_signal_to_whom_it_was_before() -> None:
    """Only the main thread may set handlers: ours hands over what comes next."""
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        interrupts, asked = made()
        interrupts.handle_signals()
        thread = threading.Thread(target=interrupts.restore_signals)
        thread.start()
        thread.join()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM] * 2
        assert asked == []
    finally:
        signal.signal(signal.SIGTERM, before)


def test_signals_are_counted_where_somebody_else_has_the_wakeup_descriptor() -> None:
    """As asyncio has it with `add_signal_handler`: the handlers alone do, and that descriptor stays."""
    mine, theirs = os.pipe()
    os.set_blocking(theirs, False)
    signal.set_wakeup_fd(theirs)
    interrupts, asked = made()
    try:
        interrupts.handle_signals()
        signal.raise_signal(signal.SIGTERM)
        until("it to be told", lambda: asked)
        interrupts.restore_signals()
        assert signal.set_wakeup_fd(-1) == theirs
    finally:
        interrupts.restore_signals()
        signal.set_wakeup_fd(-1)
        os.close(mine)
        os.close(theirs)
    assert len(asked) == 1


def test_a_forked_child_has_the_handlers_of_before() -> None:
    """A process that a hook forks, such as of `multiprocessing`, is ended by SIGTERM, and the run does not hear of it."""
    interrupts, asked = made()
    interrupts.handle_signals()
    try:
        child = os.fork()
        if not child:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)  # the signal ends it
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
        signal.raise_signal(signal.SIGTERM)
        until("the parent to hear its own", lambda: asked)
    finally:
        interrupts.restore_signals()
    assert len(asked) == 1


def test_the_first_signal_is_told_with_what_is_waited_for_and_the_second_with_what_follows() -> None:
    """Whoever presses Ctrl-C sees that it was heard."""
    said: list[str] = []
    interrupts = Interrupts(lambda why, kill: None, tell=said.append, waits_for=lambda: "jobs 1, 2 on gpu1")
    interrupts.add_signal(CTRL_C)
    until("a word", lambda: said)
    interrupts.add_signal(CTRL_C)
    until("another", lambda: len(said) > 1)
    interrupts.restore_signals()
    assert "waiting for jobs 1, 2 on gpu1" in said[0]
    assert "killed" in said[1]


def test_after_the_second_signal_the_process_ends_whatever_it_waits_for(
    quick: None, capfd: pytest.CaptureFixture
) -> None:
    """With the last words; where they cannot be had, because a lock is held for ever, without them."""
    for words in (lambda: "jobs are left on gpu1", threading.Event().wait):
        codes: list[int] = []
        ended = threading.Event()
        interrupts = Interrupts(
            lambda why, kill: None,
            what_is_left=words,
            end_process=lambda code, codes=codes, ended=ended: (codes.append(code), ended.set()),
        )
        interrupts.add_signal(CTRL_C)
        interrupts.add_signal("interrupted (SIGTERM)", is_terminated=True)
        assert ended.wait(30)
        assert codes == [143]
        assert interrupts.must_detach
    told = capfd.readouterr().err
    assert "launcher: jobs are left on gpu1\n" in told
    assert "launcher: interrupted (SIGTERM)\n" in told


def test_a_run_that_came_to_its_end_ends_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The script around it goes on."""
    waited: list[float] = []
    interrupts = Interrupts(lambda why, kill: None, end_process=waited.append)
    interrupts.add_signal(CTRL_C)
    interrupts.add_signal(CTRL_C)
    interrupts.restore_signals()
    (end,) = [thread for thread in threading.enumerate() if thread.name == "end"] or [threading.current_thread()]
    if end is not threading.current_thread():
        end.join(30)
    assert waited == []


def test_the_door_is_closed_behind_the_last_listener() -> None:
    """No thread and no descriptor of it stays."""
    interrupts, _ = made()
    interrupts.handle_signals()
    interrupts.restore_signals()
    assert WATCHER._sockets is None
    until("its thread to end", lambda: not [one for one in threading.enumerate() if one.name == "signals"])
    assert signal.set_wakeup_fd(-1) == -1
