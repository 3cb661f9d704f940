"""Runs the programs that build an environment: uv, and the Python that was made.

Rule: each has a time limit, ends with the build, and leaves nothing. If it fails, the error has its output and the next step.
"""

import os
import re
import shutil
import subprocess
import threading
from typing import Dict, List, NamedTuple, Optional, Sequence

from remote_agent.shared.subprocesses import end_group, start_group
from remote_agent.system.host import NO_ROOM, unwritten
from remote_agent.system.private_files import SpoolError

__all__ = ["ADVICE", "MORE_ROOM", "ROOM", "Advice", "BuildError", "Programs", "reason"]

#: Bytes that must be free in addition to the installed files.
ROOM = 64 << 20
MORE_ROOM = (
    "\n    next: `launcher clean` removes what earlier runs left there; or name a folder with more room with 'workdir'"
)
_UV_HANGS = (
    "\n    next: check on the host whether its disk or a network file system hangs ({}); allow more with "
    "'environment_timeout'; or {}"
)
_PYTHON_HANGS = (
    "\n    next: start that Python there by hand: a package's .pth file may block it, or a network file system; "
    "or allow more with 'environment_timeout'"
)
#: How many of a program's last lines an error shows, and how many characters.
_LAST_LINES = 20
_LAST_CHARACTERS = 4000
#: Texts of uv or a Python for a full disk or quota.
#: uv breaks its lines anywhere between two words.
_NO_ROOM = re.compile(r"os\s+error\s+(?:{0})\b|\[Errno (?:{0})\]".format("|".join(map(str, NO_ROOM))))
_MIRRORS = ("UV_PYTHON_INSTALL_MIRROR", "UV_PYTHON_DOWNLOADS_JSON_URL")
_OURS = ("UV_", "PIP_", "VIRTUAL_ENV", "CONDA_", "PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP")


class Advice(NamedTuple):
    """What the user may do. `more_room`: where the disk is full. `other_folder`: where it is the wrong one."""

    more_room: str
    other_folder: str


#: On a host that builds in its cache folder.
ADVICE = Advice(MORE_ROOM, "name a folder of yours with 'workdir'")


class BuildError(Exception):
    """It cannot be built. `altered`: contents that did not match their names, and were removed."""

    def __init__(self, message: str, altered: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.altered = list(altered)


def reason(error: BaseException, cache: str, advice: Advice = ADVICE) -> str:
    """Say why an environment in a cache folder cannot be made, and what to do."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return "cannot write to {}: {}{}".format(error.filename or cache, error.strerror, advice.more_room)
    if isinstance(error, OSError):
        return "{}\n    next: {}".format(unwritten(error, os.path.join(cache, "envs")), advice.other_folder)
    if isinstance(error, SpoolError):
        return "{}\n    next: {}".format(error, advice.other_folder)
    return str(error) if isinstance(error, BuildError) else repr(error)


class Programs:
    """The programs of one build, one after the other. `stop` ends them from another thread.

    Args:
        folder: their working folder.
        limit: seconds for each.
        advice: for whoever reads the error.

    Attributes:
        uv_cache: the folder of uv's cache.
    """

    def __init__(self, folder: str, limit: float, advice: Advice = ADVICE) -> None:
        self._folder = folder
        self._advice = advice
        self.uv_cache = folder
        self._limit = limit
        self._process: "Optional[subprocess.Popen[bytes]]" = None
        self._lock = threading.Lock()
        self.is_stopped = False

    def stop(self) -> None:
        """End the running program, and start no other."""
        with self._lock:
            self.is_stopped = True
            if self._process is not None:
                end_group(self._process)

    def run(self, command: List[str], *, is_online: bool = False) -> str:
        """Run a program. Returns its output. `is_online`: uv may ask the addresses that it knows.

        Raises:
            BuildError: it failed (the message has its last lines), it did not end in time, or the build was stopped.
            OSError: it cannot be started.
        """
        with self._lock:
            self._check()
            process = self._process = start_group(
                command, env=self._environment(is_online=is_online), cwd=self._folder, stderr=subprocess.STDOUT
            )
        is_late = False
        with process:
            try:
                data, _ = process.communicate(timeout=self._limit)
            except subprocess.TimeoutExpired as error:
                data, is_late = error.stdout or b"", True
            finally:
                with self._lock:
                    end_group(process)
                    self._process = None
        self._check()
        said = data.decode("utf-8", "replace").strip()
        if is_late or process.returncode:
            raise BuildError(self._why(command, said, None if is_late else process.returncode))
        return said

    def _check(self) -> None:
        if self.is_stopped:
            raise BuildError("the run ended while it was built")

    def _why(self, command: List[str], said: str, status: Optional[int]) -> str:
        is_python = os.path.basename(command[0]) == "python"
        name = "{} -I".format(command[0]) if is_python else " ".join(["uv", *command[1:3]]).partition(" --")[0]
        last = "\n".join(said.splitlines()[-_LAST_LINES:])[-_LAST_CHARACTERS:] or "(nothing)"
        if status is None:
            next_step = _PYTHON_HANGS if is_python else _UV_HANGS.format(self.uv_cache, self._advice.other_folder)
            how = "did not end within {:.0f} s, and was ended".format(self._limit)
        else:
            is_full = shutil.disk_usage(self.uv_cache).free < ROOM or _NO_ROOM.search(said) is not None
            next_step = self._advice.more_room if is_full else ""
            how = "ended with {}".format("exit status {}".format(status) if status > 0 else "signal {}".format(-status))
        return "`{}` {}; it printed:\n{}{}".format(name, how, last, next_step)

    @staticmethod
    def _for_network() -> Dict[str, str]:
        """What lets uv fetch a Python. Which mirror has it, is this host's own setting."""
        mirrors = {name: os.environ[name] for name in _MIRRORS if name in os.environ}
        return dict(mirrors, UV_OFFLINE="0", UV_PYTHON_DOWNLOADS="manual")

    def _environment(self, *, is_online: bool) -> Dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        environment.update(
            UV_NO_CONFIG="1",
            UV_OFFLINE="1",
            UV_NO_PROGRESS="1",
            UV_PYTHON_DOWNLOADS="never",
            UV_CACHE_DIR=self.uv_cache,
            UV_LINK_MODE="hardlink",
            NO_COLOR="1",
        )
        if is_online:
            environment.update(self._for_network())
        return environment
