"""A receiver of traces: what a collector gets, read with the official protobufs."""

from __future__ import annotations

import contextlib
import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

__all__ = ["Received", "Receiver", "receiving"]


class Received:
    """One span, with its resource."""

    def __init__(self, span: Any, resource: Any) -> None:
        self.id: str = span.span_id.hex()
        self.trace: str = span.trace_id.hex()
        self.parent: str = span.parent_span_id.hex()
        self.name: str = span.name
        self.begin: float = span.start_time_unix_nano / 1e9
        self.end: float = span.end_time_unix_nano / 1e9
        self.kind: int = span.kind
        self.status: int = span.status.code
        self.problem: str = span.status.message
        self.attributes = _values(span.attributes)
        self.resource = _values(resource.attributes)
        self.moments = [(one.name, _values(one.attributes)) for one in span.events]


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(one) for one in value.array_value.values] if kind == "array_value" else getattr(value, kind)


class Receiver(ThreadingHTTPServer):
    """A collector on loopback.

    Attributes:
        answer: the status of its answers; 0 for none before `release` is set.
        requests: how many came, and the headers of each.
    """

    daemon_threads = True

    def __init__(self, answer: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.release = threading.Event()
        self.requests: list[dict[str, str]] = []
        self.spans: list[Received] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def by_name(self) -> dict[str, Received]:
        """The spans by their names, which must differ."""
        found = {span.name: span for span in self.spans}
        assert len(found) == len(self.spans), sorted(span.name for span in self.spans)
        return found


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.requests.append({name.lower(): value for name, value in self.headers.items()})
        if not server.answer:
            server.release.wait()
            return
        if server.answer == 200:
            assert self.path == "/v1/traces"
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in group.scope_spans:
                    server.spans += [Received(span, group.resource) for span in scope.spans]
        self.send_response(server.answer)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@contextlib.contextmanager
def receiving(answer: int = 200) -> Iterator[Receiver]:
    """A collector for a test."""
    with Receiver(answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.release.set()
            server.shutdown()
            thread.join()
