"""The outcome of each job of tests/apps/outcomes, in one table for the test and for docs/outcomes.md."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CASES", "Case"]


@dataclass(frozen=True)
class Case:
    """A function of the application, and its outcome.

    Attributes:
        kind: `error.kind`; None for a completed job.
        reads: the result of reading `return_value` under `results=trusted`: `the value`, `None`, or what it raises.
        message: a part of `error.message`.
        safe: the same under `results=safe`, if it differs. A value that cannot be pickled is not a failure there,
        because nothing is pickled and the job has completed.
    """

    how: str
    kind: str | None
    reads: str
    message: str = ""
    safe: str = ""

    @property
    def reads_safe(self) -> str:
        """The result of reading it under `results=safe`."""
        return self.safe or self.reads

    def kind_under(self, results: str) -> str | None:
        """Return `error.kind` under that policy."""
        return None if results == "safe" and self.kind == "unpicklable" else self.kind


#: In the order of the page.
CASES = (
    Case("value", None, "the value"),
    Case("cycle", None, "the value", safe="raises ValueNotPlain"),
    Case("hostile_value", None, "the value", safe="raises ValueNotPlain"),
    Case("class_only_there", None, "raises ModuleNotFoundError", safe="raises ValueNotPlain"),
    Case("reduce_spawns", None, "the value", safe="raises ValueNotPlain"),
    Case("lock", "unpicklable", "raises RemoteJobError", "lock", safe="raises ValueNotPlain"),
    Case("generator", "unpicklable", "raises RemoteJobError", "generator", safe="raises ValueNotPlain"),
    Case("open_socket", "unpicklable", "raises RemoteJobError", "socket", safe="raises ValueNotPlain"),
    Case("deep", "unpicklable", "raises RemoteJobError", "Could not pickle", safe="raises ValueNotPlain"),
    Case("reduce_raises", "unpicklable", "raises RemoteJobError", "not to be pickled", safe="raises ValueNotPlain"),
    Case("reduce_exits", "unpicklable", "raises RemoteJobError", "SystemExit", safe="raises ValueNotPlain"),
    Case("raises", "exception", "raises ValueError", "wrong value", safe="raises RemoteJobError"),
    Case("chain", "exception", "raises RuntimeError", "outer", safe="raises RemoteJobError"),
    Case("group", "exception", "raises ExceptionGroup", "several", safe="raises RemoteJobError"),
    Case("own_init", "exception", "raises RemoteJobError", "7: seven"),
    Case("holds_lock", "exception", "raises RemoteJobError", "locked"),
    Case("no_text", "exception", "raises RemoteJobError"),
    Case("base_exception", "exception", "raises RemoteJobError", "not an Exception"),
    Case("keyboard_interrupt", "exception", "raises RemoteJobError"),
    Case("exit_0", None, "None"),
    Case("exit_3", "exited", "raises RemoteJobError", "3"),
    Case("exit_text", "exited", "raises RemoteJobError", "bad input"),
    Case("os_exit", "exited", "raises RemoteJobError", "0"),
    Case("sigkill", "killed", "raises RemoteJobError", "SIGKILL"),
    Case("sigterm", "killed", "raises RemoteJobError", "SIGTERM"),
    Case("segfault", "killed", "raises RemoteJobError", "SIGSEGV"),
    Case("closes_descriptors", None, "None"),
    Case("breaks_stdout", None, "None"),
    Case("changes_directory", None, "None"),
    Case("changes_umask", None, "None"),
    Case("ignores_signals", None, "None"),
    Case("changes_locale", None, "the value"),
    Case("exits_at_exit", None, "None"),
    Case("leaves_thread", None, "None"),
)
