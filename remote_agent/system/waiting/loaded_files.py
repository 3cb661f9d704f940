"""The files that a process was made of: modules, native libraries, Python, and what lists the packages.

Rule: if one of them is not what it was, another process that starts now would be another one.
"""

import os
import re
import site
import sys
from typing import Dict, Iterable, List, Optional, Set, Tuple

__all__ = ["Stamp", "changed_of", "loaded_files", "stamps_of"]

#: Of a file: where it is, how long it is, and when it was changed; None if it is not there.
Stamp = Optional[Tuple[int, int, int, int]]
_IN_MEMORY = re.compile(r"\[|/dev/|/memfd:|/SYSV|anon_inode:")


def loaded_files() -> Set[str]:
    """Return the files and folders that this process was made of."""
    found = {sys.executable, os.path.join(sys.prefix, "pyvenv.cfg"), "/etc/ld.so.cache"}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str):
            found |= {file, os.path.dirname(file)}
    found.update(sys.path)
    found.add(site.getusersitepackages())
    for folder in list(found):
        if folder.endswith("-packages"):
            try:
                found.update(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".pth"))
            except OSError:
                continue  # it does not exist
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            path = line.rstrip("\n").split(None, 5)[5:]
            if path and not _IN_MEMORY.match(path[0]):
                found.add(path[0])
    return found


def stamps_of(paths: Iterable[str]) -> Dict[str, Stamp]:
    """Return the stamp of each path."""
    return {path: _stamp(path) for path in paths}


def changed_of(stamps: Dict[str, Stamp]) -> List[str]:
    """Return the paths whose stamps are no longer these."""
    return sorted(path for path, stamp in stamps.items() if _stamp(path) != stamp)


def _stamp(path: str) -> Stamp:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
