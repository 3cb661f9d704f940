"""The `.pyc` files that Python writes for imported modules: also on a full disk they are complete or not there.

Rule: a process of ours calls `keep_bytecode_whole` before it imports anything that may be cached.

Python writes such a file beside its place and renames it. Up to 3.12.8 and 3.13.1 it does not look at how much of it was
written: on a full disk the system takes the beginning and raises nothing. From then on each import of that module is an
`EOFError: marshal data too short`, also when there is room again. A power cut can leave such a file under any version.
"""

import os
import sys
from importlib.machinery import SourceFileLoader
from types import CodeType
from typing import Any, Optional

__all__ = ["keep_bytecode_whole"]

_get_code = SourceFileLoader.get_code


def keep_bytecode_whole(is_off: bool = False) -> None:
    """Have this process write `.pyc` files whole or not at all, and make those that it cannot read anew.

    Args:
        is_off: whether this process was told to write none; it was kept from it until now, as this module had to be imported.
    """
    loader: Any = SourceFileLoader
    loader.get_code = _get_readable_code
    loader.set_data = _set_whole_data
    sys.dont_write_bytecode = is_off


def _get_readable_code(self: SourceFileLoader, fullname: str) -> Optional[CodeType]:
    """The code of a module: from its source, where what is kept of it cannot be read."""
    try:
        return _get_code(self, fullname)
    except (EOFError, TypeError, ValueError):
        # What `marshal` says of data that was cut, or that ends in zeros. Where it was the source, it is said again below.
        from importlib.util import cache_from_source

        path = self.get_filename(fullname)
        try:
            os.unlink(cache_from_source(path))
        except (OSError, NotImplementedError):
            pass  # there is none, or it stays: it is read in vain each time
        return self.source_to_code(self.get_data(path), path)


def _set_whole_data(self: SourceFileLoader, path: str, data: bytes, *, _mode: int = 0o666) -> None:
    """As importlib's own, which asks for no more than an attempt: what cannot be written is not kept."""
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
