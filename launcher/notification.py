"""A callback that sends a message when a run has ended, through apprise: to mail, chats, telephones and webhooks.

Rule: an address may hold a password, so it stays in the memory of this process. No host, log, journal or message has it. A service that
hangs or refuses delays the run only a limited time, and is one warning.
"""

from __future__ import annotations

import importlib.util
import os
import re
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from launcher.display.text import error_line, shorten
from launcher.display.values import best_lines
from launcher.errors import CallbackError, LauncherError
from launcher.runs import index
from launcher.tables.table import Table, read_table, sort_rows
from launcher.util.library_log import kept_log
from launcher.util.text.terminal_text import clean
from remote_agent.callbacks.base import Callback

__all__ = ["NotifyCallback", "message_of"]

_EVENTS = ("ended", "failed")
_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")


class NotifyCallback(Callback):
    """Sends a message when the run has ended: how many jobs completed, the best value, the first failure, and the command that shows more.

    Args:
        urls: where to, as apprise writes it. `$NAME` is a variable of the controller that has one or more, separated by spaces or commas. A config
            may have only such names, because hosts get the config.
        events: `ended` for every run, `failed` for those alone in which a job failed.
        sort: which value is the best, as `launcher show --sort` takes it.
        timeout: seconds that the end of the run waits for the services.

    Raises:
        CallbackError: apprise is not installed, a variable is not set, or an address or an event is none.
    """

    __module__ = "launcher"  # for good: journals name it

    #: It has no hook on hosts, and they do not get it.
    only_on_controller = True

    def __init__(
        self,
        urls: str | Sequence[str] = "$APPRISE_URLS",
        events: str | Sequence[str] = "ended",
        sort: str = "",
        timeout: float = 20.0,
    ) -> None:
        given = [urls] if isinstance(urls, str) else list(urls)
        self.events = [events] if isinstance(events, str) else list(events)
        self.sort, self.timeout = sort, float(timeout)
        for event in self.events:
            if event not in _EVENTS:
                raise CallbackError(f"NotifyCallback: the event {clean(event)[:50]!r} is none of {', '.join(_EVENTS)}")
        if importlib.util.find_spec("apprise") is None:
            raise CallbackError("NotifyCallback needs apprise: pip install 'hydra-remote-launcher[notify]'")
        #: What is stored with the run: the names of variables.
        self.names = [one for one in given if _VARIABLE.fullmatch(one.strip())]
        self._urls = [one for one in given if one not in self.names]
        self._service()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_urls"}

    @staticmethod
    def problem_in_config(node: dict[str, Any]) -> str:
        """Say why this node of a config is refused; empty if it is not."""
        urls = node.get("urls", ())
        if all(_VARIABLE.fullmatch(str(one).strip()) for one in ([urls] if isinstance(urls, str) else urls)):
            return ""
        return "hosts get the config, so its urls may be in it as names of variables alone, such as urls: $APPRISE_URLS"

    def on_run_end(self, config: Any, *args: Any, **kwargs: Any) -> None:
        """Send the message of a run of one job."""
        self._tell(config.hydra.run.dir)

    def on_multirun_end(self, config: Any, *args: Any, **kwargs: Any) -> None:
        """Send the message of a sweep."""
        self._tell(config.hydra.sweep.dir)

    def _tell(self, folder: str) -> None:
        table = read_table(index.find(Path(folder).absolute()))
        if "ended" not in self.events and not table.status.failed:
            return
        title, body = message_of(table, self.sort)
        service, addresses = self._service()
        told: list[str] = []
        is_over = threading.Event()
        answers: list[bool] = []

        def send() -> None:
            try:
                with kept_log("apprise", told):  # here, because a late answer may be logged, too
                    answers.append(bool(service.notify(title=title, body=body)))
            except Exception as error:  # noqa: BLE001 - told below, in the thread of the run
                told.append(f"{type(error).__name__}: {error}")
            finally:
                is_over.set()

        # A thread that a service holds up must not hold up the end of the process.
        threading.Thread(target=send, name="launcher-notify", daemon=True).start()
        if not is_over.wait(self.timeout):
            raise LauncherError(f"the message was not sent within {self.timeout:g} s; the services may get it later")
        if not (answers and answers[0]):
            why = _without_secrets("; ".join(told[:5]), addresses) or "a service did not take it"
            raise LauncherError(f"the message was not sent to all services: {why}")

    def _service(self) -> tuple[Any, list[str]]:
        """Return apprise with all addresses, and the addresses.

        Raises:
            CallbackError: one is none, or a variable is not set.
        """
        import apprise

        addresses = list(getattr(self, "_urls", ()))
        for name in self.names:
            variable = name.strip()[1:]
            found = [one for one in re.split(r"[\s,]+(?=[\w+.-]+://)|\s+", os.environ.get(variable, "")) if one]
            if not found:
                raise CallbackError(f"NotifyCallback: the variable {variable} is not set here; it has the urls")
            addresses += found
        if not addresses:
            raise CallbackError(
                "NotifyCallback: no urls, which are not stored with a run; name a variable that has them"
            )
        service = apprise.Apprise()
        for place, address in enumerate(addresses, 1):
            with kept_log("apprise", []):  # what it logs of a wrong address has it whole
                is_known = service.add(address)
            if not is_known:
                raise CallbackError(f"NotifyCallback: url {place} of {len(addresses)} is none that apprise knows")
        return service, addresses


def message_of(table: Table, sort: str = "") -> tuple[str, str]:
    """Return the title and the text of the message about a run."""
    status = table.status
    has_failed = f", {status.failed} failed" if status.failed else ""
    is_open = f", {status.open} did not end" if status.open else ""
    title = f"{clean(status.task or 'run')}: {status.completed} of {status.jobs} jobs completed{has_failed}{is_open}"
    try:
        ordered = sort_rows(table.rows, sort) if sort else table.rows
        lines = [shorten(line, 300) for line in best_lines(table, ordered, sort)]
    except LauncherError as error:
        lines = [shorten(str(error), 300)]
    failed = next((row.job for row in table.rows if row.job.state == "FAILED"), None)
    if failed is not None:
        where = f" on {failed.host}" if failed.host else ""
        lines.append(shorten(f"job {failed.num}{where}: {error_line(failed.error)}", 500))
    return title, "\n".join(clean(line) for line in [*lines, f"launcher show {status.run}"])


def _without_secrets(text: str, addresses: Iterable[str]) -> str:
    """Return a text without all that the addresses say besides their service and host."""
    for address in addresses:
        text = text.replace(address, "***")
        try:
            parts = urlsplit(address)
            host = (parts.hostname or "").lower()
        except ValueError:
            host = ""
        for piece in re.split(r"[/:@?&=,\s]+", address.partition("://")[2]):
            for shown in {piece, unquote(piece)}:
                if len(shown) > 2 and shown.lower() != host:
                    text = text.replace(shown, "***")
    return clean(text)[:500]
