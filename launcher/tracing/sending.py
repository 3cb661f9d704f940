"""Sends the trace of a run over OTLP/HTTP, with OpenTelemetry's own exporter and its variables.

Rule: the end of a run waits for a service only a limited time, and one that does not answer costs no result: it is one warning. Nothing of
OpenTelemetry is imported before a trace is sent. A password in an address is in no message.
"""

from __future__ import annotations

import itertools
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from launcher.errors import LauncherError
from launcher.runs.index import Entry
from launcher.tracing.spans import RunTrace, read_trace
from launcher.tracing.variables import NAMES, check_can_send, variable
from launcher.util.frozen import frozen
from launcher.util.library_log import kept_log
from launcher.util.text.terminal_text import clean

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan


__all__ = ["Sent", "problem_of_sending", "send", "shown_address"]

#: Seconds for one request, its retries among them, if OTEL_EXPORTER_OTLP_TIMEOUT says nothing.
_PATIENCE = 5.0
#: Seconds for all of a trace.
_LIMIT = 60.0
#: Spans in one request.
_BATCH = 512


@frozen
class Sent:
    """What came of it: the trace, how many of its spans were sent, and why not all; `why` is empty if all were."""

    trace: str
    spans: int
    why: str


def problem_of_sending(entry: Entry) -> str:
    """Send the trace of a run that has ended. Returns a text for a warning; empty if there is nothing to warn of."""
    again = f"; 'launcher trace {entry.run}' sends it again"
    try:
        sent = send(read_trace(entry))
    except Exception as error:  # a service, or a journal, must not cost the end of a run  # noqa: BLE001
        return f"the trace was not sent: {_without_secrets(f'{type(error).__name__}: {error}')}{again}"
    return f"{sent.why}{again}" if sent.why else ""


def send(trace: RunTrace) -> Sent:
    """Send all spans. Waits only a limited time, and longer only while spans arrive.

    Raises:
        ConfigError: OpenTelemetry is not installed, or its variables make no sense.
    """
    check_can_send()
    from opentelemetry.exporter.otlp.proto.http import trace_exporter
    from opentelemetry.sdk.trace.export import SpanExportResult

    from launcher.tracing.sdk_spans import SdkSpans

    patience = _seconds(variable("TIMEOUT"), _PATIENCE)
    told: list[str] = []
    with kept_log("opentelemetry", told):
        try:
            exporter = trace_exporter.OTLPSpanExporter(timeout=patience)
        except Exception as error:  # noqa: BLE001 - it raises what it likes for a wrong variable
            raise LauncherError(
                f"the variables of OpenTelemetry make no sense: {_without_secrets(str(error))}; see OTEL_EXPORTER_OTLP_*"
            ) from None
        batches = _batches(SdkSpans(trace).spans())
        sent, is_over, has_failed, given_up = 0, threading.Event(), threading.Event(), threading.Event()

        def work() -> None:
            nonlocal sent
            try:
                for batch in batches:
                    if given_up.is_set():
                        return
                    if exporter.export(batch) is not SpanExportResult.SUCCESS:
                        has_failed.set()
                        return
                    sent += len(batch)
            except Exception as error:  # noqa: BLE001
                told.insert(0, f"{type(error).__name__}: {error}")
                has_failed.set()
            finally:
                is_over.set()

        # A thread that a service holds up must not hold up the end of the process.
        threading.Thread(target=work, name="launcher-otel", daemon=True).start()
        deadline, before = time.monotonic() + _LIMIT, 0
        while not is_over.wait(min(patience + 1.0, max(deadline - time.monotonic(), 0.0))):
            if sent == before or time.monotonic() >= deadline:
                break
            before = sent
        why = ""
        if not is_over.is_set():
            given_up.set()
            why = "it did not answer in time"
        elif has_failed.is_set():
            # The first problem: the last one may only say that it was tried too often.
            why = _without_secrets(next(iter(told), "")) or "it refused them"
        exporter.shutdown()  # type: ignore[no-untyped-call]
    if why:
        what = f"only {sent} spans of the trace were" if sent else "the trace was not"
        why = f"{what} sent to {shown_address()}: {why}"
    return Sent(trace.context.trace, sent, why)


def shown_address() -> str:
    """Return where traces are sent, without a password or a query."""
    address = os.environ.get(NAMES[0].format("ENDPOINT")) or os.environ.get(NAMES[1].format("ENDPOINT"))
    try:
        parts = urlsplit(address or "http://localhost:4318")
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an address that is none"
    return clean(f"{parts.scheme}://{parts.hostname or ''}{port}")


def _seconds(text: str, default: float) -> float:
    try:
        seconds = float(text) if text else default
    except ValueError:
        return default
    return min(seconds, _LIMIT) if seconds > 0 else default


def _without_secrets(text: str) -> str:
    """Return a text of the exporter without what an address or a header may hide."""
    text = re.sub(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/@]*@", r"\1", text)
    text = re.sub(r" encountered while exporting .*", "", text)
    text = re.sub(r"\?[^\s'\")]*", "", text)
    for pair in ",".join(os.environ.get(name.format("HEADERS"), "") for name in NAMES).split(","):
        value = pair.partition("=")[2].strip()
        for shown in filter(None, (value, unquote(value))):
            text = text.replace(shown, "***")
    return clean(text)[:500]


def _batches(spans: Iterable[ReadableSpan]) -> Iterator[list[ReadableSpan]]:
    iterator = iter(spans)
    while batch := list(itertools.islice(iterator, _BATCH)):
        yield batch
