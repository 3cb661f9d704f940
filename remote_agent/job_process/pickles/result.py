"""A result as bytes: the value or the exception that the controller may decode, and the configs that were edited.

Rule: an exception is sent only if it can be pickled and loaded again. A value that cannot be pickled makes the job FAILED, with
a readable error. Whatever a user's `__reduce__` does is caught in this file.

`ResultParts.codec` says how they are written: `cloudpickle`, with the value's plain form beside it (`plain`, where it is small);
or `plain`, where the controller asked for that, and then nothing is pickled, and no exception is sent.
"""

import dataclasses
import hashlib
import os
import pickle
import sys
import threading
from typing import Any, Callable, Dict, List, Optional, Tuple

from remote_agent.job import JobError, LateValue, RemoteJobError, with_article
from remote_agent.job_process.channel import INLINE, private_opener
from remote_agent.job_process.pickles.unpickling import loads
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.result_parts import NO_PARTS, PICKLED, PLAIN, Part, ResultParts
from remote_agent.shared.failure import error_of_exception, safe_text, type_name
from remote_agent.shared.plain_value import MAX_SMALL, encode

__all__ = ["Result", "make_result", "shortened"]

_PROTOCOL = 5
#: A write of more than this many bytes is hashed while it is written.
_LONG = 1 << 22


def _part_of(offset: int, data: bytes) -> Part:
    return Part(offset, len(data), hashlib.sha256(data).hexdigest())


_NONE, _PLAIN_NONE = pickle.dumps(None, 4), encode(None)
_NONE_PARTS = {
    PICKLED: NO_PARTS._replace(value=_part_of(0, _NONE), plain=_part_of(len(_NONE), _PLAIN_NONE), codec=PICKLED),
    PLAIN: NO_PARTS._replace(value=_part_of(0, _PLAIN_NONE), codec=PLAIN),
}
#: Types whose values nobody can edit in place.
_ATOMS = (type(None), bool, int, float, complex, str, bytes)


class Result:
    """The bytes of a result. `parts` describes them. `payload` has them, unless they are in a file."""

    def __init__(self, parts: ResultParts, payload: bytes, value: Any = None, status: str = "") -> None:
        self.parts = parts
        self.payload = payload
        self._value = value
        self._status = status

    def is_still(self, job_return: Any) -> bool:
        """Whether the JobReturn certainly has the same value and status as when this was made."""
        value = job_return._return_value  # noqa: SLF001 - reading return_value would raise a failure
        is_same = value is self._value and job_return.status.name == self._status
        # A LateValue is from a job that died. It can be neither read nor edited here.
        return is_same and (isinstance(value, (BaseException, LateValue)) or type(value) in _ATOMS)

    def has_same_content(self, other: "Result") -> bool:
        """Whether both have the same bytes."""
        return _digests(self.parts) == _digests(other.parts)


def _digests(parts: ResultParts) -> Dict[str, str]:
    return {name: part.sha256 for name, part in parts.by_name.items()}


def make_result(
    path: Callable[[], str],
    value: Any,
    *,
    is_completed: bool,
    may_send_code: bool,
    cfg: Any = None,
    hydra_cfg: Any = None,
    is_kept: bool = True,
    codec: str = PICKLED,
) -> Tuple[Result, Optional[JobError]]:
    """Return the result of a job, and the error that makes it FAILED if its value cannot be sent.

    Args:
        path: where to make a file if one is needed.
        value: what the task returned, or the exception that it raised.
        may_send_code: whether functions and classes may be pickled by value.
        cfg, hydra_cfg: edited configs, or None.
        is_kept: False to get only the digests, for a comparison.
        codec: PICKLED or PLAIN.
    """
    if is_completed and value is None and cfg is None and hydra_cfg is None:
        payload = _PLAIN_NONE if codec == PLAIN else _NONE + _PLAIN_NONE
        return Result(_NONE_PARTS[codec], payload, None, "COMPLETED"), None
    writer = _Writer(path, codec, is_kept=is_kept)
    if codec == PLAIN:
        return _plain_result(writer, value, {"cfg": cfg, "hydra_cfg": hydra_cfg}, is_completed=is_completed)
    failure: Optional[JobError] = None
    if is_completed:
        try:
            writer.add("value", lambda: _dump(value, writer, may_send_code))
            _add_plain(writer, value)
        except BaseException as error:  # noqa: BLE001 - a user's __reduce__ may raise anything, SystemExit too
            failure = _cannot_send(value, error)
    elif not isinstance(value, RemoteJobError):
        survivor = _pickle_of_exception(value, may_send_code)
        if survivor is not None:
            writer.add("value", lambda: writer.write(survivor))
    for name, config in (("cfg", cfg), ("hydra_cfg", hydra_cfg)):
        if config is not None:
            try:
                writer.add(name, lambda config=config: _dump(config, writer, may_send_code))  # type: ignore[misc]
            except BaseException as error:  # noqa: BLE001 - as above
                failure = failure or _cannot_send(config, error, "job_return.{} holds".format(name))
    return _finish(writer, value, failure, is_completed=is_completed)


def _plain_result(
    writer: "_Writer", value: Any, configs: Dict[str, Any], *, is_completed: bool
) -> Tuple[Result, Optional[JobError]]:
    """Make a result without pickles. A placeholder names each part without a plain form, which is not a failure."""
    given = dict({"value": value} if is_completed else {})
    given.update((name, config) for name, config in configs.items() if config is not None)
    for name, one in given.items():
        try:
            writer.add(name, lambda one=one: writer.write(encode(one)))  # type: ignore[misc]
            if name == "value" and writer.tell() > MAX_SMALL:
                _add_plain(writer, value)
        except OSError as error:
            return Result(NO_PARTS._replace(codec=writer.codec), b""), error_of_exception(error, "host")
    return _finish(writer, value, None, is_completed=is_completed)


def _add_plain(writer: "_Writer", value: Any) -> None:
    """Add the form that commands show: the whole value, or its type if it is long. No user's `repr` runs for it."""
    data = encode(value, MAX_SMALL, tells_repr=False)
    writer.add("plain", lambda: writer.write(data))


def _finish(
    writer: "_Writer", value: Any, failure: Optional[JobError], *, is_completed: bool
) -> Tuple[Result, Optional[JobError]]:
    try:
        parts, payload = writer.finish()
    except OSError as error:
        return Result(NO_PARTS._replace(codec=writer.codec), b""), error_of_exception(error, "host")
    is_good = is_completed and failure is None
    return Result(parts, payload, value, "COMPLETED" if is_good else "FAILED"), failure


def _cannot_send(value: Any, error: BaseException, what: str = "the task returned") -> JobError:
    if isinstance(error, OSError):
        return error_of_exception(error, "host")
    failure = error_of_exception(error)
    failure.kind, failure.exit_code, failure.signal = "unpicklable", None, None
    failure.message = "{} {}, which cannot be pickled: {}: {}".format(
        what, with_article(type_name(value)), type_name(error), safe_text(error)
    )
    return failure


def _dump(value: Any, writer: "_Writer", may_send_code: bool) -> None:
    """Pickle with plain pickle if possible, else with cloudpickle, which pickles functions and classes by value."""
    start = writer.tell()
    try:
        pickle.Pickler(writer, _PROTOCOL).dump(value)
        return
    except OSError:
        raise
    except Exception as error:
        if not may_send_code:
            raise pickle.PicklingError(
                "{}: {} (code by value cannot go from Python {}.{} to the controller's)".format(
                    type_name(error), safe_text(error), *sys.version_info[:2]
                )
            ) from error
    writer.rewind(start)
    import cloudpickle

    cloudpickle.dump(value, writer, protocol=_PROTOCOL)


def _pickle_of_exception(error: Any, may_send_code: bool) -> Optional[bytes]:
    """Return the pickled exception if unpickling gives the same exception, else None."""
    memory = _Writer(None)
    try:
        _dump(error, memory, may_send_code)
        data = memory.finish()[1]
        back = loads(data)
        if type(back) is not type(error):
            return None
        # An __init__ that builds a message from its argument would build one from the message.
        return data if str(back) == str(error) or bool(back.args == error.args) else None
    except BaseException:  # noqa: BLE001 - a user's __reduce__, __init__, __str__, __eq__ may raise anything
        return None


class _Writer:
    """Collects pickles one after the other, in memory while they are small, else in a file.

    Args:
        path: where to make the file if one is needed; None keeps everything in memory.
        codec: how the parts are written.
        is_kept: False to drop the bytes and keep their digests.
    """

    def __init__(self, path: Optional[Callable[[], str]], codec: str = PICKLED, *, is_kept: bool = True) -> None:
        self.codec = codec
        self._make_path = path
        self._is_kept = is_kept
        self._path = ""
        self._pieces: List[bytes] = []
        self._size = 0
        self._fd: Optional[int] = None
        self._parts = NO_PARTS._replace(codec=codec)
        self._hash = hashlib.sha256()

    def tell(self) -> int:
        """Return the number of bytes so far."""
        return self._size

    def write(self, data: Any) -> int:
        """Write some bytes; for a pickler."""
        size = memoryview(data).nbytes
        self._size += size
        if not self._is_kept:
            self._hash.update(data)
            return size
        if self._fd is None and self._size > INLINE and self._make_path is not None:
            self._to_file(self._make_path())
        hashing = _in_thread(self._hash.update, data) if size > _LONG else None
        if hashing is None:
            self._hash.update(data)
        try:
            if self._fd is None:
                self._pieces.append(bytes(data))
            else:
                _write_all(self._fd, data)
        finally:
            if hashing is not None:
                hashing.join()
        return size

    def _to_file(self, path: str) -> None:
        self._path = path
        self._fd = private_opener(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            _write_all(self._fd, piece)

    def add(self, name: str, dump: Callable[[], Any]) -> None:
        """Add one part. If `dump` raises, what it had written is dropped.

        Raises:
            BaseException: what `dump` raised.
        """
        start = self._size
        self._hash = hashlib.sha256()
        try:
            dump()
        except BaseException:
            self.rewind(start)
            raise
        part = Part(start, self._size - start, self._hash.hexdigest())
        self._parts = self._parts._replace(**{name: part})  # type: ignore[arg-type]  # a name of a part

    def rewind(self, size: int) -> None:
        """Drop what was written of the current part, which began at `size`."""
        self._hash = hashlib.sha256()
        self._size = size
        if self._fd is None:
            self._pieces = [b"".join(self._pieces)[:size]]
        else:
            os.ftruncate(self._fd, size)
            os.lseek(self._fd, size, os.SEEK_SET)

    def finish(self) -> Tuple[ResultParts, bytes]:
        """Return (parts, payload). A file is complete then. The agent syncs it to the disk while it is sent.

        Raises:
            OSError: the disk.
        """
        if self._fd is None:
            return self._parts, b"".join(self._pieces)
        fd, self._fd = self._fd, None
        # Network file systems report a full disk here.
        os.close(fd)
        return self._parts._replace(file=self._path), b""


def _in_thread(function: Callable[[Any], Any], argument: Any) -> Optional[threading.Thread]:
    """Call it in a thread. Returns None if no thread can be started."""
    thread = threading.Thread(target=function, args=(argument,), daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the limit on processes
        return None
    return thread


def _write_all(fd: int, data: Any) -> None:
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(fd, view) :]


def shortened(envelope: Envelope) -> Envelope:
    """Shorten the envelope of an `outcome` or `done` over the wire's cap, without hooks' tracebacks and causes."""
    hooks = []
    for record in envelope.hooks:
        if record["error"] is not None:
            short = dict(record["error"], traceback=record["error"]["traceback"][-2000:])
            record = dict(record, error=dict(short, message=short["message"][:500]))
        hooks.append(record)
    error = envelope.error
    if error is not None:
        error = dataclasses.replace(error, causes=error.causes[:3])
    return envelope._replace(hooks=hooks[:500], error=error)
