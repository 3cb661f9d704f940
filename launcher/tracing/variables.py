"""OpenTelemetry's variables, and whether it is installed.

Rule: this is read before anything is sent to a host, so it imports nothing of OpenTelemetry.
"""

from __future__ import annotations

import importlib.util
import os

from launcher.errors import ConfigError
from launcher.util.text.terminal_text import clean

__all__ = ["NAMES", "check_can_send", "variable"]

#: How its variables for traces are called. The first that is set counts.
NAMES = ("OTEL_EXPORTER_OTLP_TRACES_{}", "OTEL_EXPORTER_OTLP_{}")
_WITHOUT = "it needs OpenTelemetry: pip install 'hydra-remote-launcher[otel]'"


def check_can_send() -> None:
    """Check that a trace can be sent, as far as this machine can tell.

    Raises:
        ConfigError: OpenTelemetry is not installed, or its variables ask for another protocol.
    """
    try:
        found = importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http")
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ConfigError.of_option("otel", f": {_WITHOUT}")
    protocol = variable("PROTOCOL") or "http/protobuf"
    if protocol != "http/protobuf":
        raise ConfigError.of_option(
            "otel",
            f": OTEL_EXPORTER_OTLP_PROTOCOL is {clean(protocol)[:50]!r}, and traces are sent by http/protobuf; set it to that, "
            "and OTEL_EXPORTER_OTLP_ENDPOINT to the address of your collector for HTTP (its port is mostly 4318)",
        )


def variable(name: str) -> str:
    """Return what a variable of its exporter says, such as `TIMEOUT`; empty if it says nothing."""
    return next(filter(None, (os.environ.get(one.format(name), "").strip() for one in NAMES)), "")
