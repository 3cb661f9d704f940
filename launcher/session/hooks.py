"""Fires the controller's hooks. Exceptions in them become events, and their error policies are applied.

Rule: a hook that raises costs no result and is always reported. The journal records an end hook before it fires, and each callback's
hook after it has fired. So a resumed run knows which hooks must still fire, including one that was interrupted.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from launcher import events
from launcher.config.lazy import made_now
from launcher.errors import JournalError
from launcher.session.stopping.interrupts import Interrupts

if TYPE_CHECKING:
    from launcher.engine.engine import Engine
    from launcher.setup.kinds.run_setup import RunSetup

__all__ = ["RunHooks"]

_START = ("on_run_start", "on_multirun_start")
_END = ("on_run_end", "on_multirun_end")


class _Stopped(BaseException):
    """The controller leaves. The hooks that have not fired, fire when the run is resumed."""


class RunHooks:
    """The hooks of one session, and its own events and warnings."""

    def __init__(self, setup: RunSetup, engine: Engine, interrupts: Interrupts) -> None:
        self._setup = setup
        self._engine = engine
        self._interrupts = interrupts
        report = setup.callbacks.report
        self._fired_elsewhere = setup.fired_elsewhere
        # A hook that the user interrupted has not failed.
        setup.callbacks.report = lambda record: None if self.is_cut else report(record)
        is_run = setup.mode == "RUN"
        self.start_hook, self.end_hook = (_START[0], _END[0]) if is_run else (_START[1], _END[1])
        #: Why a hook aborts the run; empty if none does.
        self.aborted = ""
        #: Whether a second signal interrupted a hook. Nothing more fires then, and the hook fires when the run is resumed.
        self.is_cut = False
        #: The thread in which a hook runs.
        self.thread: int | None = None

    def leave_to_others(self, hook: str) -> None:
        """Do not fire this hook any more, because another process does."""
        self._fired_elsewhere |= {hook}

    def fire(
        self, hook: str, *, num: int | None = None, only: Iterable[int] | None = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """Fire a hook of all callbacks. Returns a record for each callback whose hook has ended.

        Args:
            only: the positions of the callbacks for which it fires; all by default.
        """
        if hook in self._fired_elsewhere or not self._setup.callbacks.has(hook):
            return []
        records: list[dict[str, Any]] = []
        if "config" in kwargs:
            kwargs["config"] = made_now(kwargs["config"])
        was_cut = self.is_cut
        try:
            self._setup.callbacks.fire(
                hook, kwargs, records=records, entering=self._check_may_fire, only=only, call=self._call
            )
        except _Stopped:
            pass
        except KeyboardInterrupt:
            if not self.is_cut:
                # The user pressed Ctrl-C in their own code, such as at an input().
                self._interrupts.add_ctrl_c()
        if self.is_cut and not was_cut and records:
            name = records.pop()["callback"]
            owed = f"was interrupted, and fires again when the run is resumed ('launcher attach {self._setup.run_id}')"
            self.publish([events.Warned(time.time(), f"callback {name}.{hook}", owed, "", num)])
        for record in records:
            self._tell_record(hook, record, num)
        return records

    def _check_may_fire(self, index: int, entry: Any) -> None:
        if self.is_cut:
            raise _Stopped

    def _call(self, method: Callable[..., Any], **kwargs: Any) -> None:
        """Run a hook. In the main thread, a second signal interrupts it."""
        self.thread = threading.get_ident()
        try:
            with self._interrupts.users_code(raise_at=2):
                method(**kwargs)
        except KeyboardInterrupt:
            self.is_cut = self._interrupts.has_raised
            raise
        finally:
            self.thread = None

    def _tell_record(self, hook: str, record: dict[str, Any], num: int | None) -> None:
        name, error = record["callback"], record["error"]
        made: list[events.Event] = []
        if hook != "on_job_report" or error is not None:  # it fires very often
            times = {"began_at": record["began_at"], "seconds": record["seconds"]}
            made.append(events.HookFired(time.time(), hook, name, "controller", record["ok"], num, **times))
        if error is not None:
            message = f"{error['type']}: {error['message']}"
            made.append(events.Warned(time.time(), f"callback {name}.{hook}", message, error["traceback"], num))
            is_abort = record["on_error"] == "abort" or (record["on_error"] == "fail" and hook in _START)
            if is_abort and not self.aborted:
                self.aborted = f"callback {name} raised in {hook}: {error['message']}"
                if hook not in _START + _END:
                    self._engine.interrupt(self.aborted)
        if made:
            self.publish(made)

    def fire_end(self, what: Callable[[], Mapping[str, Any]]) -> None:
        """Fire the end hook with `what()`. The journal records it first."""
        hook = self.end_hook
        if hook in self._fired_elsewhere or self.is_cut:
            return
        self._mark_end(hook, "entered")
        self.fire(hook, **what())
        if not self.is_cut:
            self._mark_end(hook, "done")

    def _mark_end(self, hook: str, state: str) -> None:
        self._engine.journal.put_meta(ended=json.dumps({hook: state}))
        try:
            self._engine.journal.commit()
        except JournalError as error:
            # The hook fires all the same, because firing twice is better than never.
            self.warn("journal", f"{error}; if the run is resumed, {hook} fires again")

    def warn(self, source: str, message: str) -> None:
        """Show a warning of the controller."""
        self._engine.observe(events.Warned(time.time(), source, message))

    def publish(self, made: list[events.Event]) -> None:
        """Journal events of the controller, and show them."""
        if self._engine.is_running:
            self._engine.record(made)
            return
        self._engine.journal.append(made)
        for event in made:
            self._engine.observe(event)
