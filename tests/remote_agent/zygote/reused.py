"""A host whose jobs share processes, for the tests of workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.remote_agent.conftest import Host

__all__ = ["reused_host", "start_reused"]

_APP = Path(__file__).with_name("reused_app.py")


def start_reused(host: Host, callbacks: list[dict[str, Any]] | None = None, **more: Any) -> Host:
    """Start the zygote of the application."""
    host.write({"reused_app.py": _APP.read_text()})
    ready = host.start("reused_app:task", callbacks, isolation="reuse", main_module="reused_app", **more)
    assert ready.header.get("isolation") == "reuse", ready.header
    return host


@pytest.fixture(scope="module")
def reused_host(new_shared_host: Callable[..., Host]) -> Host:
    """A host with workers, shared by the tests of a file."""
    return start_reused(new_shared_host())
