"""Stage-0: the command line that starts the agent on a host, and the wait for the agent's answer.

Rule: the command line means the same in sh, csh and fish, and all arguments in it are encoded. What the user's shell
prints before the agent answers is noise. It is tolerated and kept. If no agent answers, it is shown with the file that
may have printed it.

    <host's cache>/agents/<sha256>/   the bundle, unpacked once, private to this user
"""

from __future__ import annotations

import base64
import os
import threading
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import AgentError, ConnectionLost
from launcher.hosts.host_spec import LOCAL, HostSpec
from launcher.util.text.quoting import shown_path
from remote_agent.protocol import wire
from remote_agent.protocol.constants import EXIT_FOLDERS, EXIT_LATER, EXIT_NO_AGENT, NEED

if TYPE_CHECKING:
    from launcher.bootstrap.bundle import Bundle
    from launcher.transports.base import Channel, Transport

__all__ = ["PREFIX", "PYTHONS", "NoAgent", "next_step", "open_agent", "stage0_command", "start_agent"]

#: Where to look for a python3 of 3.8 or later, in this order, after the one that the user named.
PYTHONS = (
    "python3",
    *(f"python3.{minor}" for minor in range(14, 7, -1)),
    "/usr/bin/python3",
    "/usr/local/bin/python3",
)
_PYTHON_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _.,/+@%=:~-")
#: Characters of one shell word; old C shells refuse words of 1,024.
_WORD = 900
#: How our own lines on stderr begin.
PREFIX = "hydra-remote-launcher: "
_EXIT_NO_PYTHON = 127
#: Exit codes of a shell if a signal killed what it ran. Somebody ended it (HUP, INT, KILL, PIPE, TERM), so another try
#: may succeed.
_KILLED = frozenset(128 + number for number in (1, 2, 9, 13, 15))
#: Sending the bundle counts as stuck below this many bytes per second.
_SLOWEST = 16 << 10
_PHASE = "start agent"
_START_UP_FILES = (
    "the login shell there must print nothing when it is not interactive: look into ~/.bashrc "
    "(bash), ~/.zshenv (zsh), ~/.cshrc or ~/.tcshrc (csh), ~/.config/fish/config.fish (fish)"
)


class NoAgent(AgentError):
    """No agent of the run is running on the host, and the role does not start one."""


@lru_cache(maxsize=1)
def _program() -> str:
    """Return the program that runs on the host, without its comments."""
    text = Path(__file__).with_name("stage0.py").read_text(encoding="utf-8")
    return "".join(line for line in text.splitlines(keepends=True) if not line.lstrip().startswith("#"))


def stage0_command(
    bundle_sha: str, size: int, role_args: Sequence[str], python: str | None = None, workdir: str | None = None
) -> str:
    """Return the command line that starts a role of the agent on a host. It asks for the bundle if the host lacks it.

    role_args must not hold a secret, because every user of the host can see a command line.

    Args:
        bundle_sha, size: of the bundle.
        role_args: the arguments of `remote_agent.__main__.main`.
        python: tried before `PYTHONS`; `~/` is the home folder there.
        workdir: used instead of the user's cache folder there.

    Raises:
        ValueError: python has a character that is not safe on a command line.
    """
    pythons = [f'"{name}"' for name in PYTHONS]
    if python:
        if not set(python) <= _PYTHON_CHARACTERS or python.startswith("-"):
            raise ValueError(f"python: {python!r} is not a path of letters, digits, spaces and _.,/+@%=:~-")
        pythons.insert(0, f'"$HOME/{python[2:]}"' if python.startswith("~/") else f'"{python}"')
    settings = ascii((str(bundle_sha), int(size), workdir or "", tuple(role_args), NEED, EXIT_FOLDERS))
    program = f"SHA256, SIZE, WORKDIR, ROLE, NEED, EXIT_FOLDERS = {settings}\n{_program()}"
    encoded = base64.b64encode(zlib.compress(program.encode(), 9)).decode()
    words = [encoded[start : start + _WORD] for start in range(0, len(encoded), _WORD)]
    script = (
        f"for p in {' '.join(pythons)}; do "
        'command -v "$p" >/dev/null 2>&1 || continue; '
        '"$p" -I -S -c "import sys,zlib,binascii;'
        'exec(zlib.decompress(binascii.a2b_base64(str().join(sys.argv[2:]))))" hydra-remote-launcher "$@"; '
        "r=$?; case $r in 2|87|126|127) ;; *) exit $r;; esac; done; "
        f'echo "hydra-remote-launcher: no python3 >= 3.8 found" >&2; exit {_EXIT_NO_PYTHON}'
    )
    return f"exec sh -c '{script}' sh {' '.join(words)}"


def open_agent(
    spec: HostSpec,
    transport: Transport,
    bundle: Bundle,
    role: Sequence[str],
    *,
    on_need: Callable[[], None] | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> tuple[Channel, bytes]:
    """Open a channel to a host's agent in a role. Returns it with the bytes that came after the preamble.

    Args:
        meanwhile: called in a thread when the command is on its way. The agent may be ready sooner.

    Raises:
        HostError: see `start_agent`.
    """
    if spec.workdir:
        role = [*role, "--workdir", spec.workdir]
    channel = transport.open(stage0_command(bundle.sha256, bundle.size, role, spec.python_at_hand, spec.workdir))
    if meanwhile is not None:
        threading.Thread(target=meanwhile, name=f"meanwhile {spec.name}", daemon=True).start()
    return channel, start_agent(channel, bundle, spec.name, on_need=on_need)


def start_agent(
    channel: Channel,
    bundle: Bundle,
    host: str,
    timeout: float = 60.0,
    *,
    on_need: Callable[[], None] | None = None,
) -> bytes:
    """Wait for the agent on a channel that runs `stage0_command`. Sends the bundle if the host asks for it.

    Args:
        channel: just opened. It is closed if this raises.
        bundle: the one whose SHA-256 is in the command.
        host: as the user named it, for messages.
        on_need: called if the host asks for the bundle.
        timeout: seconds for the host to answer. Sending the bundle has its own time, which depends on its size.

    Returns:
        What was read after the preamble: the first bytes of the first frames, often none.

    Raises:
        NoAgent: the role only looks for an agent, and there is none.
        AgentError: no Python, no folder, noise, silence, or something that is not our agent.
        ConnectionLost: the link ended, or somebody killed what runs there. Another try may succeed.
    """
    start = _Start(channel, bundle, host, timeout, on_need)
    try:
        return start.run()
    except BaseException:
        channel.close()
        raise
    finally:
        start.stop_watch()


class _Start:
    """One start of an agent: what was received so far, and a timer that closes the channel, because nothing else ends a
    recv.
    """

    def __init__(
        self, channel: Channel, bundle: Bundle, host: str, timeout: float, on_need: Callable[[], None] | None
    ) -> None:
        self._channel = channel
        self._bundle = bundle
        self._host = host
        self._timeout = timeout
        self._on_need = on_need
        self._seen = b""
        self._timer: threading.Timer | None = None
        self._is_silent = False

    def run(self) -> bytes:
        self._watch(self._timeout)
        is_sent = False
        while True:
            data = self._recv()
            if not data:
                raise self._explain()
            self._seen += data
            found = self._seen.find(wire.PREAMBLE)
            if found >= 0:
                return self._seen[found + len(wire.PREAMBLE) :]
            need = -1 if is_sent else self._seen.find(NEED)
            if need >= 0:
                is_sent = True
                self._seen = self._seen[:need] + self._seen[need + len(NEED) :]
                if self._on_need is not None:
                    self._on_need()
                self._send_bundle()
            if len(self._seen) > wire.MAX_NOISE:
                raise AgentError(
                    self._host,
                    _PHASE,
                    f"{len(self._seen)} bytes arrived before the agent, beginning with {_shown(self._seen)}",
                    _START_UP_FILES,
                )

    def _recv(self) -> bytes:
        try:
            return self._channel.recv(1 << 16)
        except ConnectionLost:
            if self._is_silent:
                return b""
            raise

    def _send_bundle(self) -> None:
        self._watch(self._timeout + self._bundle.size / _SLOWEST)
        try:
            self._channel.send(self._bundle.data)
        except ConnectionLost:
            # What stage-0 said before it ended (for example that the disk is full) says more than that it ended.
            if not self._is_silent and self._channel.exit_status(1.0) is None:
                raise

    def _watch(self, seconds: float) -> None:
        self.stop_watch()
        self._timer = threading.Timer(seconds, self._fire)
        self._timer.daemon = True
        self._timer.start()

    def _fire(self) -> None:
        self._is_silent = True
        self._channel.close()

    def stop_watch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _explain(self) -> AgentError | ConnectionLost:
        """Explain why the channel ended before the agent answered."""
        status = None if self._is_silent else self._channel.exit_status(5.0)
        said = self._channel.stderr().strip()
        ours = "\n".join(line.removeprefix(PREFIX) for line in said.splitlines() if line.startswith(PREFIX))
        if status == _EXIT_NO_PYTHON and ours:
            return AgentError(
                self._host,
                _PHASE,
                "no python3 of version 3.8 or later "
                f"(looked for {', '.join(PYTHONS)} on the PATH of a non-interactive shell)",
                "install python3 there, or name one with `python:` for this host",
            )
        if status == EXIT_NO_AGENT and ours:
            return NoAgent(self._host, "look", ours)
        if status == EXIT_LATER and ours:
            return ConnectionLost(self._host, _PHASE, ours)
        if status == EXIT_FOLDERS and ours:
            return AgentError(
                self._host,
                _PHASE,
                ours,
                "set `workdir:` for this host to a folder that its user, and nobody else, can write",
            )
        if not self._is_silent and (status is None or status in _KILLED):
            how = "without a status" if status is None else f"by signal {status - 128}"
            tail = f"; it wrote to stderr: {_shown(said[-2000:].encode())}" if said else ""
            return ConnectionLost(
                self._host, _PHASE, f"the command ended there ({how}) before the agent answered{tail}"
            )
        what = "the command ended before the agent answered"
        if self._is_silent:
            what = f"the agent did not answer within {self._timeout:.0f} s"
        if status is not None:
            what += f" (exit status {status})"
        if said:
            what += f"; it wrote to stderr: {_shown(said[-2000:].encode())}"
        noise = self._seen.strip()
        if noise:
            return AgentError(
                self._host, _PHASE, f"{what}; before that, the host sent {_shown(noise)}", _START_UP_FILES
            )
        return AgentError(
            self._host,
            _PHASE,
            what,
            next_step(self._host, "the login shell there must run a command without asking for anything"),
        )


def next_step(host: str, what: str) -> str:
    """Say how users can try a command on the host themselves, and what to expect of it."""
    if host == LOCAL:
        path = shown_path(os.environ.get("PATH", ""))
        return f"see what `sh -c true` does here: `sh` must be on the PATH, which is {path or 'empty'}"
    return f"try `ssh {host} true`: {what}"


def _shown(noise: bytes) -> str:
    text = noise.decode("utf-8", "backslashreplace").strip()
    return repr(text if len(text) <= 400 else text[:400] + "...")
