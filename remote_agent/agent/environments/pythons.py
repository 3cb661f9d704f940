"""Finds the Pythons of this host, and the facts on which the choice of wheels depends.

Rule: each Python is asked once. Its answer is stored with its file's size and time, so that later runs only check the file. A program
that cannot be started, or does not answer, is not a Python.
"""

import glob
import json
import os
import re
import shutil
import subprocess
import sys
from typing import Any, Dict, Iterator, List, Optional

from remote_agent.agent.environments.fetched_pythons import FetchedPythons
from remote_agent.protocol.fields import FieldError
from remote_agent.protocol.specs.environment import HostFacts, PythonFacts
from remote_agent.shared.subprocesses import answer_of
from remote_agent.system.private_files import open_private

__all__ = ["MAX_PYTHONS", "find_pythons", "host_facts"]

#: The largest number of Pythons that are reported.
MAX_PYTHONS = 50
_PATIENCE = 20.0
_MINORS = range(20, 7, -1)
#: Places where installers put them, in the home or elsewhere.
_PLACES = (
    "/usr/local/bin/python3.[0-9]*",
    "/usr/bin/python3.[0-9]*",
    "~/.local/share/uv/python/*/bin/python3.[0-9]*",
    "~/.pyenv/versions/*/bin/python3",
    "~/miniconda3/bin/python3",
    "~/miniforge3/bin/python3",
    "~/anaconda3/bin/python3",
    "/opt/conda/bin/python3",
    "/opt/homebrew/bin/python3.[0-9]*",
)
_NAME = re.compile(r"python3(\.\d+t?)?")
_PROGRAM = r"""
import json, struct, sys, sysconfig
tag = "cp" if sys.implementation.name == "cpython" else sys.implementation.name
flags = ""
if sysconfig.get_config_var("Py_GIL_DISABLED"): flags += "t"
if sysconfig.get_config_var("Py_DEBUG"): flags += "d"
print(json.dumps({
    "version": "%d.%d.%d" % sys.version_info[:3],
    "implementation": sys.implementation.name,
    "abi": "%s%d%d%s" % (tag, sys.version_info[0], sys.version_info[1], flags),
    "bits": struct.calcsize("P") * 8,
}))
"""


def host_facts(cache: str, python: Optional[str]) -> HostFacts:
    """Return the facts on which the choice of wheels for this host depends.

    Args:
        cache: the folder with facts that were found before.
        python: the only Python that counts.
    """
    system = os.uname()
    known = os.path.join(cache, "pythons.json")
    return HostFacts(
        system=system.sysname,
        machine=system.machine,
        release=system.release,
        libc=_version_of_macos() if sys.platform == "darwin" else _libc_of_linux(),
        driver=_driver(),
        free=shutil.disk_usage(cache).free,
        pythons=[one.to_json() for one in find_pythons(known, python, FetchedPythons(cache))],
    )


def find_pythons(known_file: str, python: Optional[str], fetched: Optional[FetchedPythons] = None) -> List[PythonFacts]:
    """Return the Pythons of this host, the agent's own first; those that uv has fetched last."""
    known = _read(known_file)
    found: List[PythonFacts] = []
    fresh: Dict[str, Any] = {}
    seen = set()
    others = fetched.all() if fetched is not None and not python else ()
    for name, path in [*((path, path) for path in _candidates(python)), *others]:
        real = os.path.realpath(path)
        if real in seen:
            continue
        seen.add(real)
        try:
            status = os.stat(real)
        except OSError:
            continue
        mark = [status.st_size, status.st_mtime_ns]
        entry = known.get(path)
        said = entry["said"] if isinstance(entry, dict) and entry.get("mark") == mark else _ask(path)
        # Programs that are not Pythons are remembered, too, because shims of missing versions take long to fail.
        fresh[path] = {"mark": mark, "said": said}
        try:
            facts = PythonFacts.from_json(dict(said or {}, path=name))
        except (FieldError, TypeError, ValueError):
            continue
        found.append(facts)
        if len(found) == MAX_PYTHONS:
            break
    if any(known.get(path) != entry for path, entry in fresh.items()):
        _write(known_file, {**{path: entry for path, entry in known.items() if os.path.exists(path)}, **fresh})
    return found


def _candidates(python: Optional[str]) -> Iterator[str]:
    if python:
        path = os.path.expanduser(python)
        yield path if os.sep in path else shutil.which(path) or path
        return
    yield sys.executable
    for name in ["python3", *("python3.{}".format(minor) for minor in _MINORS)]:
        there = shutil.which(name)
        if there is not None:
            yield there
    for place in _PLACES:
        for path in sorted(glob.glob(os.path.expanduser(place)), reverse=True):
            if _NAME.fullmatch(os.path.basename(path)):
                yield path


def _ask(path: str) -> Optional[Dict[str, Any]]:
    try:
        done = subprocess.run(
            [path, "-I", "-S", "-c", _PROGRAM],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            timeout=_PATIENCE,
            check=False,
        )
        said = json.loads(done.stdout.decode("utf-8"))
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return said if isinstance(said, dict) else None


def _version_of_macos() -> str:
    import platform  # it is slow, and every agent imports this module

    return "macos {}".format(platform.mac_ver()[0])


def _libc_of_linux() -> str:
    try:
        said = os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, OSError, ValueError):
        said = None
    if said:
        return said
    for loader in sorted(glob.glob("/lib/ld-musl-*.so.1")):
        done = answer_of([loader], timeout=5)
        version = re.search(rb"Version (\d+\.\d+)", done.stderr) if done is not None else None
        if version is not None:
            return "musl {}".format(version.group(1).decode("ascii"))
    return ""


def _driver() -> str:
    """Return the version of NVIDIA's driver from the kernel. `nvidia-smi` would take a second."""
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8", errors="replace") as file:
            found = re.search(r"Module\s+(?:for \S+\s+)?(\d+(?:\.\d+)+)", file.read(4096))
    except OSError:
        return ""
    return found.group(1) if found is not None else ""


def _read(path: str) -> Dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return {}
    known = content.get("pythons") if isinstance(content, dict) and content.get("version") == 1 else None
    return known if isinstance(known, dict) else {}


def _write(path: str, known: Dict[str, Any]) -> None:
    """Write the facts. On a full disk this fails silently, and they are asked again later."""
    temporary = "{}.{}".format(path, os.getpid())
    try:
        fd = open_private(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump({"version": 1, "pythons": known}, file)
        os.rename(temporary, path)
    except OSError:
        return
