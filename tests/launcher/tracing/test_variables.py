"""OpenTelemetry's variables."""

from __future__ import annotations

import pytest

from launcher.errors import ConfigError
from launcher.tracing.variables import check_can_send, variable


def test_the_variable_for_traces_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """As OpenTelemetry says."""
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TIMEOUT", raising=False)
    assert variable("TIMEOUT") == ""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "7")
    assert variable("TIMEOUT") == "7"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", " 3 ")
    assert variable("TIMEOUT") == "3"


def test_another_protocol_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which one is meant, and its usual port."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    check_can_send()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(ConfigError, match=r"'grpc', and traces are sent by http/protobuf.*4318"):
        check_can_send()
