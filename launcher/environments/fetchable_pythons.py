"""The Pythons that uv can fetch for a host.

Rule: the host's uv has the version of ours, so it knows the same ones, with the same hashes. Asking ours asks no network.
"""

from __future__ import annotations

import json
import re
from typing import Any

from launcher.environments.uv import Steps, run_uv
from launcher.errors import PackagesError
from remote_agent.protocol.specs.environment import HostFacts, PythonFacts

__all__ = ["fetchable_pythons"]

_SYSTEMS = {"Linux": "linux", "Darwin": "macos"}
_MACHINES = {"arm64": "aarch64", "amd64": "x86_64"}
_LIBCS = {"glibc": "gnu", "musl": "musl", "macos": "none"}
_VERSION = re.compile(r"3\.(\d+)\.\d+")


def fetchable_pythons(facts: HostFacts, steps: Steps) -> list[tuple[PythonFacts, str]]:
    """Return the released Pythons for a host, each with the address from which uv fetches it. Their paths are `uv:` and uv's name.

    Raises:
        PackagesError: uv cannot say it.
    """
    options = ["--only-downloads", "--all-platforms", "--all-arches", "--output-format", "json", "--no-config"]
    text = run_uv(
        "the Pythons for a host",
        ["python", "list", *options],
        environment={"UV_PYTHON_DOWNLOADS": "automatic"},
        steps=steps,
    )
    try:
        return [found for one in json.loads(text) if (found := _fitting(one, facts)) is not None]
    except (ValueError, LookupError, TypeError) as error:
        raise PackagesError(f"environment: `uv python list` cannot be read: {type(error).__name__}: {error}") from None


def _fitting(one: dict[str, Any], facts: HostFacts) -> tuple[PythonFacts, str] | None:
    machine = _MACHINES.get(facts.machine.lower(), facts.machine)
    wanted = ("cpython", "default", _SYSTEMS.get(facts.system), machine, _LIBCS.get(facts.libc.partition(" ")[0]))
    version = _VERSION.fullmatch(one["version"])
    if version is None or wanted != tuple(one[name] for name in ("implementation", "variant", "os", "arch", "libc")):
        return None
    python = PythonFacts(f"uv:{one['key']}", one["version"], "cpython", f"cp3{version[1]}", 64)
    return python, str(one["url"])
