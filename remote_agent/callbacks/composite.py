"""The ordered composite of callbacks, how it is built, and how it is sent to hosts.

Rule: if a hook raises, the other hooks still fire. The exception is recorded, in full and every time, and the policy of the callback
(`warn`, `fail`, `abort`) decides what it means for the job or the run.
"""

import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from remote_agent.callbacks.base import HOOKS, Callback
from remote_agent.shared.failure import JobTerminated, safe_text, traceback_text, type_name
from remote_agent.shared.job_log import hook_logger

__all__ = [
    "POLICIES",
    "Callbacks",
    "Entry",
    "callback_entries",
    "callbacks_from_entries",
]

POLICIES = ("warn", "fail", "abort")
_NO_OPS = frozenset(getattr(Callback, name) for name in HOOKS)
_INTERRUPTS = (KeyboardInterrupt, JobTerminated)


class Entry(NamedTuple):
    """One callback of a composite.

    `instance` is None if only the `spec` (a plain `_target_` node) is known here, because the class cannot be imported
    on this side. `on_error` overrides the instance's own policy. `note` tells the user, once, something about how this
    callback was built.
    """

    name: str
    instance: Any
    on_error: Optional[str] = None
    spec: Optional[Dict[str, Any]] = None
    note: str = ""

    @property
    def policy(self) -> str:
        """What happens if one of its hooks raises: the override, else the class's `on_error`, else `warn`."""
        policy = self.on_error if self.on_error is not None else getattr(self.instance, "on_error", None)
        return policy if policy in POLICIES else "warn"

    def hook(self, name: str) -> Optional[Callable[..., Any]]:
        """Return the hook's bound method; None if it has none, or only the base class's, which does nothing."""
        method = getattr(self.instance, name, None)
        if not callable(method):
            return None
        function = getattr(method, "__func__", None)
        if function in _NO_OPS or getattr(function, "__module__", "") == "hydra.experimental.callback":
            return None
        return method  # type: ignore[no-any-return]


def _check_policy(name: str, policy: Any) -> None:
    if policy is not None and policy not in POLICIES:
        raise ValueError("callback {!r}: on_error is {!r}, not one of {}".format(name, policy, ", ".join(POLICIES)))


class Callbacks:
    """Callbacks in their composed order.

    Start hooks fire in order, end hooks (`on_..._end`) in reverse. Every firing returns its records, plain data:
    `{"hook", "callback", "ok", "error": None | {"type", "message", "traceback"}, "on_error", "began_at", "seconds"}`.

    Args:
        entries: `Entry` objects, or (name, instance) or (name, instance, on_error) tuples.
        report: called with each record of a hook that raised. Without it the record goes to the logger
            `remote_agent.callbacks`, at level ERROR.

    Raises:
        ValueError: an `on_error` is not one of `POLICIES`.
    """

    def __init__(self, entries: Iterable[Any] = (), report: Optional[Callable[[Dict[str, Any]], None]] = None) -> None:
        self.entries: List[Entry] = [entry if isinstance(entry, Entry) else Entry(*entry) for entry in entries]
        for entry in self.entries:
            _check_policy(entry.name, entry.on_error)
            _check_policy(entry.name, getattr(entry.instance, "on_error", None))
        self.report = report if report is not None else log_record

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    @property
    def notes(self) -> List[str]:
        """What the user should know about how these callbacks were built."""
        return [entry.note for entry in self.entries if entry.note]

    def has(self, hook: str) -> bool:
        """Whether any callback has this hook."""
        return any(entry.hook(hook) is not None for entry in self.entries)

    def fire(
        self,
        hook: str,
        kwargs: Mapping[str, Any],
        records: Optional[List[Dict[str, Any]]] = None,
        entering: Optional[Callable[[int, Entry], None]] = None,
        only: Optional[Iterable[int]] = None,
        call: Optional[Callable[..., Any]] = None,
    ) -> List[Dict[str, Any]]:
        """Fire one hook of every callback that has it.

        Args:
            hook: its name.
            kwargs: its keyword arguments.
            records: where records are appended as they come, so that they are known if this is interrupted.
            entering: called with (index, entry) before each hook is entered.
            only: the indices to fire for; all by default.
            call: called as `call(hook, **kwargs)` in place of `hook(**kwargs)`.

        Raises:
            KeyboardInterrupt, JobTerminated: a hook was interrupted. After a start hook at once; after an end hook when
                the others have fired.
        """
        records = [] if records is None else records
        is_end = hook.endswith("_end")
        interrupted: Optional[BaseException] = None
        indexed = list(enumerate(self.entries))
        wanted = None if only is None else frozenset(only)
        for index, entry in reversed(indexed) if is_end else indexed:
            if wanted is not None and index not in wanted:
                continue
            method = entry.hook(hook)
            if method is None:
                continue
            if entering is not None:
                entering(index, entry)
            record: Dict[str, Any] = {
                "hook": hook,
                "callback": entry.name,
                "ok": True,
                "error": None,
                "on_error": entry.policy,
                "began_at": time.time(),
            }
            clock = time.monotonic()
            try:
                if call is None:
                    method(**kwargs)
                else:
                    call(method, **kwargs)
            except BaseException as error:  # noqa: BLE001 - whatever a hook raises, SystemExit too, is recorded
                record["ok"] = False
                record["error"] = {
                    "type": type_name(error),
                    "message": safe_text(error),
                    "traceback": traceback_text(error),
                }
                if isinstance(error, _INTERRUPTS):
                    interrupted = error
            record["seconds"] = time.monotonic() - clock
            records.append(record)
            if not record["ok"]:
                self.report(record)
            if interrupted is not None and not is_end:
                raise interrupted
        if interrupted is not None:
            raise interrupted
        return records


def log_record(record: Dict[str, Any]) -> None:
    """Write the record of a hook that raised to the log, with its traceback."""
    hook_logger.error(
        "Callback %s.%s raised %s: %s\n%s",
        record["callback"],
        record["hook"],
        record["error"]["type"],
        record["error"]["message"],
        record["error"]["traceback"].rstrip(),
    )


def callback_entries(callbacks: Callbacks, dumps: Callable[[Any], bytes]) -> List[Dict[str, Any]]:
    """Return the callbacks in the form that is sent to a host, each with its current state.

    Args:
        callbacks: the composite after `on_run_start` or `on_multirun_start`.
        dumps: serializes an instance. It may raise anything.

    Returns:
        For each callback `{"name", "spec", "pickle", "why", "on_error"}`. `why` says why there is no pickle.

    Raises:
        ValueError: an instance cannot be pickled, and has no spec from which it could be built again.
    """
    entries = []
    for entry in callbacks:
        data: Optional[bytes] = None
        why = ""
        if entry.instance is None:
            why = "its class cannot be imported on the controller"
        else:
            try:
                data = dumps(entry.instance)
            except Exception as error:
                why = "it cannot be pickled: {}: {}".format(type_name(error), safe_text(error))
                if entry.spec is None:
                    raise ValueError("callback {!r} cannot be sent to a host: {}".format(entry.name, why)) from error
        entries.append({"name": entry.name, "spec": entry.spec, "pickle": data, "why": why, "on_error": entry.on_error})
    return entries


def callbacks_from_entries(
    entries: List[Dict[str, Any]],
    loads: Callable[[bytes], Any],
    instantiate: Callable[[Dict[str, Any]], Any],
) -> Tuple[Callbacks, List[str]]:
    """Return the callbacks on the host, and notes for the user about those that had to be built again from their spec.

    Raises:
        ValueError: one could be neither unpickled nor built. The cause is chained.
    """
    made = []
    notes = []
    for item in entries:
        name, why = item["name"], item["why"]
        instance = None
        problem: Optional[BaseException] = None
        if item["pickle"] is not None:
            try:
                instance = loads(item["pickle"])
            except Exception as error:  # noqa: BLE001 - a pickle may raise anything; the spec is tried next
                problem = error
                why = "its pickle cannot be loaded here: {}: {}".format(type_name(error), safe_text(error))
        if instance is None:
            if item["spec"] is None:
                raise ValueError("callback {!r}: {}".format(name, why)) from problem
            try:
                instance = instantiate(item["spec"])
            except Exception as error:
                raise ValueError(
                    "callback {!r} cannot be built on the host from its spec ({}): {}: {}".format(
                        name, why, type_name(error), safe_text(error)
                    )
                ) from error
            notes.append("callback {!r} was built again on the host from its spec, because {}".format(name, why))
        made.append(Entry(name, instance, item["on_error"], item["spec"]))
    return Callbacks(made), notes
