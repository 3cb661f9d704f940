"""Looks whether the files of an environment are those of its wheels. uv takes them from its cache, and every environment shares them.

Rule: what would be slow is left out. A file is read only if it was written after its package was unpacked; of all others the sizes are compared.
"""

import base64
import csv
import glob
import hashlib
import os
from typing import List

__all__ = ["altered_files"]

#: Nanoseconds in which a package is unpacked.
_UNPACKING = 60 * 10**9


def altered_files(environment: str) -> List[str]:
    """Return the files of an environment that are not what their packages say, as paths in their packages' folder."""
    found = []
    for record in glob.glob(
        os.path.join(glob.escape(environment), "lib", "python*", "site-packages", "*.dist-info", "RECORD")
    ):
        folder = os.path.dirname(os.path.dirname(record))
        try:
            unpacked = os.stat(os.path.join(os.path.dirname(record), "WHEEL")).st_mtime_ns + _UNPACKING
            with open(record, encoding="utf-8", newline="") as file:
                rows = [row for row in csv.reader(file) if len(row) == 3]
        except (OSError, ValueError, csv.Error):
            continue  # it says nothing of itself
        found += [
            path for path, digest, size in rows if _is_altered(os.path.join(folder, path), digest, size, unpacked)
        ]
    return found


def _is_altered(path: str, digest: str, size: str, unpacked: int) -> bool:
    kind, _, wanted = digest.partition("=")
    if kind != "sha256" or not size.isdigit():
        return False
    try:
        status = os.stat(path)
        if status.st_size != int(size):
            return True
        if status.st_mtime_ns <= unpacked:
            return False
        with open(path, "rb") as file:
            there = hashlib.sha256(file.read()).digest()
    except OSError:
        return True
    return base64.urlsafe_b64encode(there).decode("ascii").rstrip("=") != wanted.rstrip("=")
