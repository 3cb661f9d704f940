"""Runs uv on this machine.

Rule: only uv decides which versions fit together. If it fails, the error has its output, without the secrets that a URL may have.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher.errors import PackagesError
from remote_agent.shared.subprocesses import end_group, start_group
from remote_agent.shared.versions import origin_of

__all__ = ["USUAL_LIMIT", "Steps", "last_lines", "run_uv", "uv_program", "uv_version", "without_secrets"]

#: Seconds for a step. Building much code, or a slow network, may take long.
USUAL_LIMIT = 1800.0
_LAST_LINES = 20
_DIST_INFO = re.compile(r"uv-[^-]+\.dist-info")
_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")


@functools.lru_cache(maxsize=1)
def uv_program() -> str:
    """Return the path of uv.

    Raises:
        PackagesError: it is not installed.
    """
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        raise PackagesError(
            "environment: uv is needed on this machine; install it with `pip install 'hydra-remote-launcher[environments]'`"
        ) from None


@functools.lru_cache(maxsize=1)
def uv_version() -> str:
    """Return the version of uv."""
    origin = origin_of("uv")
    folder = Path(origin).parent.parent if origin else Path()
    # `importlib.metadata` says the same, but its import takes longer than everything else if the environments are there.
    names = [name for name in os.listdir(folder) if _DIST_INFO.fullmatch(name)]
    if len(names) == 1:
        return names[0].removeprefix("uv-").removesuffix(".dist-info")
    from importlib.metadata import version

    return version("uv")


class Steps:
    """The steps of making an environment here: how long each may take, and whether the run still needs it.

    Args:
        limit: a step is ended after this many seconds.
        may_build: whether build code of a project may run here, for what is no wheel.
    """

    def __init__(self, limit: float = USUAL_LIMIT, *, may_build: bool = True) -> None:
        self.limit = limit
        self.may_build = may_build
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._is_stopped = False

    def stop(self) -> None:
        """End the running step, and begin no other, because the run is over. Any thread may call it."""
        with self._lock:
            self._is_stopped = True
            for process in self._running:
                end_group(process)

    def check(self) -> None:
        """Check that the run is not over.

        Raises:
            PackagesError: it is over.
        """
        if self._is_stopped:
            raise PackagesError("environment: the run is over")

    def run(self, command: Sequence[str], *, cwd: Path | None, env: Mapping[str, str]) -> tuple[int, bytes, bytes]:
        """Run a program. Returns its exit status and its output. It leaves no process behind, whatever happens.

        Raises:
            subprocess.TimeoutExpired: it took too long, and was killed.
            PackagesError: the run is over.
            OSError: it cannot be started.
        """
        with self._lock:
            self.check()
            process = start_group(command, env=env, cwd=str(cwd) if cwd is not None else None)
            self._running.add(process)
        with process:
            try:
                output, errors = process.communicate(timeout=self.limit)
            finally:
                with self._lock:
                    end_group(process)
                    self._running.discard(process)
        self.check()
        return process.returncode, output, errors


def run_uv(
    what: str,
    arguments: Sequence[str],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    steps: Steps | None = None,
) -> str:
    """Run uv. Returns its output.

    Args:
        what: its purpose, for errors.
        steps: the steps to which it belongs.

    Raises:
        PackagesError: it failed (the message has its last lines), it did not end in time, or the run is over.
    """
    steps = steps or Steps()
    values = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "CONDA_PREFIX")}
    values.update(environment or {})
    values["NO_COLOR"] = "1"
    try:
        status, output, errors = steps.run([uv_program(), *arguments], cwd=cwd, env=values)
    except OSError as error:
        raise PackagesError(f"environment: uv cannot be started: {error.strerror or error}") from None
    except subprocess.TimeoutExpired as error:
        raise PackagesError(
            f"environment: {what}: `uv {arguments[0]}` did not end within {steps.limit:.0f} s on this machine, and was "
            f"ended{last_lines(':', error.stderr or b'')}\n    next: see what it waits for (an index, or what an sdist runs when it "
            "is built); or allow more with `environment_timeout`"
        ) from None
    if status:
        raise PackagesError(
            f"environment: {what}: `uv {arguments[0]}` ended with {_how(status)}{last_lines(':', errors)}"
        )
    return output.decode("utf-8", "replace")


def _how(status: int) -> str:
    return f"exit status {status}" if status > 0 else f"signal {-status}"


def last_lines(mark: str, said: bytes) -> str:
    """What a program said last, without secrets, after a mark and on lines of its own; empty where it said nothing."""
    text = without_secrets(said.decode("utf-8", "replace").strip())
    return "\n".join([mark, *text.splitlines()[-_LAST_LINES:]]) if text else ""


def without_secrets(text: str) -> str:
    """Remove everything before the `@` of URLs from a text."""
    return _USERINFO.sub("***@", text)
