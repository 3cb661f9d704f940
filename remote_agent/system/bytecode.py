"""Makes Python's `.pyc` files of imported modules complete or missing, even on a full disk.

Rule: each of our processes calls `keep_bytecode_whole` before it imports anything that may be cached.

Python writes such a file under another name and renames it. Up to 3.12.8 and 3.13.1 it does not check how much was
written, and on a full disk the system writes only the beginning and raises nothing. From then on, each import of that
module fails with `EOFError: marshal data too short`, even when there is room again. A power cut can leave such a file
with any version.
"""

import os
import sys
from importlib.machinery import SourceFileLoader
from types import CodeType
from typing import Any, Optional

__all__ = ["keep_bytecode_whole"]

_get_code = SourceFileLoader.get_code


def keep_bytecode_whole(is_off: bool = False) -> None:
    """Make this process write complete `.pyc` files or none, and rewrite those that it cannot read.

    Args:
        is_off: whether this process was told to write none. Writing was off until now, because this module had to be
        imported.
    """
    loader: Any = SourceFileLoader
    loader.get_code = _get_readable_code
    loader.set_data = _set_whole_data
    sys.dont_write_bytecode = is_off


def _get_readable_code(self: SourceFileLoader, fullname: str) -> Optional[CodeType]:
    """Return the code of a module, from its source if the cached code cannot be read."""
    try:
        return _get_code(self, fullname)
    except (EOFError, TypeError, ValueError):
        # `marshal` raises these for data that was cut or ends in zeros. If they came from the source, they are raised again below.
        from importlib.util import cache_from_source

        path = self.get_filename(fullname)
        try:
            os.unlink(cache_from_source(path))
        except (OSError, NotImplementedError):
            pass  # there is no file, or it cannot be removed, and then each import reads it in vain
        return self.source_to_code(self.get_data(path), path)


def _set_whole_data(self: SourceFileLoader, path: str, data: bytes, *, _mode: int = 0o666) -> None:
    """Write a cache file like importlib does. If it cannot be written, there is none."""
    new = "{}.{}".format(path, os.getpid())
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _mode & 0o666)
        try:
            with open(fd, "wb") as file:
                file.write(data)
            os.replace(new, path)
        except BaseException:
            os.unlink(new)
            raise
    except OSError:
        pass
