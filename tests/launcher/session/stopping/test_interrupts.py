"""Interrupts: how they are counted and passed on, and how a process is ended that does not end by itself."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from launcher.session.stopping import interrupts as interrupts_module
from launcher.session.stopping.interrupts import CTRL_C, Interrupts
from launcher.session.stopping.signals import WATCHER
from tests.controllers import until


def made() -> tuple[Interrupts, list[tuple[str, bool]]]:
    """Interrupts, and the requests that they made."""
    asked: list[tuple[str, bool]] = []
    return Interrupts(lambda why, kill: asked.append((why, kill))), asked


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process is ended soon."""
    monkeypatch.setattr(interrupts_module, "PATIENCE", 0.01)
    monkeypatch.setattr(interrupts_module, "END", 0.02)
    return


def test_the_first_interrupt_cancels_and_the_second_kills() -> None:
    """The second one of any kind kills."""
    interrupts, asked = made()
    assert not interrupts
    interrupts.add(CTRL_C)
    assert interrupts
    interrupts.add("interrupted (SIGTERM)")
    assert asked == [(CTRL_C, False), ("interrupted (SIGTERM)", True)]
    assert interrupts.why == "interrupted (SIGTERM)"


def test_another_process_may_ask_to_kill_at_once() -> None:
    """`launcher cancel --kill` kills at once, and does not make the controller leave."""
    interrupts, asked = made()
    interrupts.add("asked to", kill=True)
    assert asked == [("asked to", True)]
    assert not interrupts.must_detach


def test_signal_handlers_are_set_and_put_back() -> None:
    """SIGTERM cancels, SIGHUP is a reason to leave, each once. Afterwards the earlier handlers are back."""
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


def test_only_the_users_code_is_interrupted() -> None:
    """A signal raises nothing in our own code. Only the second one raises in a hook, and only once."""
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


def test_the_first_signal_interrupts_a_users_generator() -> None:
    """While configs are generated, none of our own work is under way."""
    interrupts, _ = made()
    interrupts.handle_signals()
    try:
        with pytest.raises(KeyboardInterrupt), interrupts.users_code(raise_at=1):
            signal.raise_signal(signal.SIGTERM)
    finally:
        interrupts.restore_signals()


def test_nohup_is_respected() -> None:
    """A process that ignores a signal keeps ignoring it."""
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


def test_no_handler_is_set_in_another_thread() -> None:
    """Python calls handlers only in the main thread, so a session elsewhere does not change them."""
    before = signal.getsignal(signal.SIGTERM)
    interrupts, _ = made()
    thread = threading.Thread(target=interrupts.handle_signals)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before


def test_two_sessions_get_the_same_signal() -> None:
    """Whichever is closed first, the earlier handlers come back after the last one."""
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


def test_after_a_close_in_another_thread_the_earlier_handler_gets_the_signal() -> None:
    """Only the main thread may set handlers, so ours passes on the next signal."""
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


def test_signals_are_counted_if_others_use_the_wakeup_descriptor() -> None:
    """For example asyncio with `add_signal_handler`. Then only our handlers count, and the descriptor is not changed."""
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


def test_a_forked_child_has_the_earlier_handlers() -> None:
    """A process that a hook forks, for example by `multiprocessing`, is ended by SIGTERM. The run does not notice."""
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


def test_the_user_sees_what_each_signal_does() -> None:
    """The first message says what the run waits for."""
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
    """The last message says what is left. If that cannot be found out, because a lock is held for ever, the process
    ends without it.
    """
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


def test_a_run_that_has_ended_ends_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_watcher_ends_after_its_last_listener() -> None:
    """It leaves no thread and no descriptor."""
    interrupts, _ = made()
    interrupts.handle_signals()
    interrupts.restore_signals()
    assert WATCHER._sockets is None
    until("its thread to end", lambda: not [one for one in threading.enumerate() if one.name == "signals"])
    assert signal.set_wakeup_fd(-1) == -1
