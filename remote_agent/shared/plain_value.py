"""Writes values as plain data, which hosts send if nothing may be unpickled, and which commands show.

Rule: no type is imported for it, and a value is written by its exact type. A part without a plain form gets a
placeholder with its type and the reason, and the other parts are not affected. docs/values.md has the rest of the
format, its reader, and the reasons for it.

A document is `MARK`, a byte of version, a byte of flags, and one node:

    N T F              None, True, False
    I length bytes     int: little-endian, two's complement
    D 8 bytes          float: little-endian IEEE 754
    S length bytes     str: UTF-8, lone surrogates as `surrogatepass` has them
    B length bytes     bytes
    L U E Z count ...  list, tuple, set, frozenset: so many nodes
    M count ...        dict: so many pairs of nodes
    X length name node one of the kinds below, with what it is made of
    ? node node node   what cannot be said: its type, why, its repr; three texts

A length or count is a byte; 255 says that eight bytes with it follow, little-endian.
"""

import dataclasses
import enum
import reprlib
import struct
import sys
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from remote_agent.config.nodes import is_config, plain_of
from remote_agent.job import with_article
from remote_agent.shared.failure import type_name

__all__ = ["MARK", "MAX_DEPTH", "MAX_NODES", "MAX_SIZE", "MAX_SMALL", "MAX_TEXT", "VERSION", "WHOLE", "encode"]

MARK = b"RLV"
VERSION = 1
#: Flag: the document has no `?`.
WHOLE = 1
#: Bytes of a document. A larger value belongs in a file.
MAX_SIZE = 1 << 30
#: Nodes of a document. The smallest node takes one byte here, and up to two hundred bytes in its reader.
MAX_NODES = 4_000_000
#: How deep nodes may be nested. A reader, or code that hashes or compares a value, can go much deeper before its stack is full.
MAX_DEPTH = 100
#: Bytes of the plain form that goes beside a pickle.
MAX_SMALL = 1 << 16
#: Characters of a Decimal, and bytes of each half of a Fraction, because making these takes more than linear time.
MAX_TEXT = 4096

_REPR = 2000
_DOUBLE = struct.Struct("<d")
#: dtypes of numpy, by `dtype.kind`, with texts and bytes of fixed length. Not longdouble (16 bytes): it differs between machines.
_NUMPY_KINDS = "biufcmMSU"
_TORCH_DTYPES = frozenset(
    (
        "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
        "float16", "bfloat16", "float32", "float64", "complex64", "complex128",
    )
)  # fmt: skip
_PANDAS = frozenset(("DataFrame", "Series", "Index", "RangeIndex", "DatetimeIndex", "TimedeltaIndex"))


class _TooMuch(Exception):
    """The document would be over a cap."""


class _Unsaid(Exception):
    """A value has no plain form. The text says why."""


def encode(value: Any, limit: int = MAX_SIZE, *, tells_repr: bool = True) -> bytes:
    """Return a document with the value. Never fails: a placeholder names a part without a plain form.

    Args:
        limit: bytes. If the document would be longer, a placeholder names the whole value.
        tells_repr: call `repr` of parts without a plain form, which may run a user's code.
    """
    encoder = _Encoder(limit, tells_repr=tells_repr)
    try:
        encoder.put(value, 0)
    except (_TooMuch, RecursionError, MemoryError) as error:
        why = str(error) if isinstance(error, _TooMuch) else type(error).__name__
        encoder = _Encoder(MAX_SMALL, tells_repr=tells_repr)
        encoder.unsaid(value, why)
    return b"".join([MARK, bytes((VERSION, WHOLE if encoder.is_whole else 0)), *encoder.pieces])


def _length(number: int) -> bytes:
    return bytes((number,)) if number < 255 else b"\xff" + number.to_bytes(8, "little")


class _Encoder:
    """Collects the parts of one document."""

    def __init__(self, limit: int, *, tells_repr: bool) -> None:
        self.pieces: List[bytes] = []
        self.is_whole = True
        self._limit = limit
        self._tells_repr = tells_repr
        self._size = 5
        self._count = 0
        #: The containers that are being written. One that comes up again contains itself.
        self._open: Set[int] = set()
        self._builtin: Dict[type, Callable[[Any, int], None]] = {
            type(None): lambda value, depth: self._add(b"N"),
            bool: lambda value, depth: self._add(b"T" if value else b"F"),
            int: self._int,
            float: lambda value, depth: self._add(b"D" + _DOUBLE.pack(value)),
            str: self._str,
            bytes: self._bytes,
            list: lambda value, depth: self._items(b"L", value, depth),
            tuple: lambda value, depth: self._items(b"U", value, depth),
            set: lambda value, depth: self._items(b"E", value, depth),
            frozenset: lambda value, depth: self._items(b"Z", value, depth),
            dict: self._dict,
        }

    def put(self, value: Any, depth: int) -> None:
        """Write one node.

        Raises:
            _TooMuch: a cap is exceeded.
        """
        self._count += 1
        if self._count > MAX_NODES:
            raise _TooMuch("it holds more than {:,} values".format(MAX_NODES))
        if depth > MAX_DEPTH:
            raise _TooMuch("it is nested more than {} levels deep".format(MAX_DEPTH))
        write = self._builtin.get(type(value))
        if write is not None:
            write(value, depth)
            return
        at, size = len(self.pieces), self._size
        try:
            self._other(value, type(value), depth)
        except (_TooMuch, RecursionError, MemoryError):
            raise
        except BaseException as error:  # noqa: BLE001 - a user's class, or an unknown version of a library
            del self.pieces[at:]
            self._size = size
            self._open.discard(id(value))
            self.unsaid(value, str(error) if isinstance(error, _Unsaid) else type(error).__name__)

    def unsaid(self, value: Any, why: str, text: Optional[str] = None) -> None:
        """Write a placeholder for a value without a plain form."""
        self.is_whole = False
        if text is None:
            text = _bounded_repr(value) if self._tells_repr else _extent(value)
        self._add(b"?")
        for said in (type_name(value), why, text):
            self._str(_cleaned(said), 0)

    def _add(self, data: bytes) -> None:
        self._need(len(data))
        self._size += len(data)
        self.pieces.append(data)

    def _need(self, size: int) -> None:
        """Check that this many more bytes fit."""
        if self._size + size > self._limit:
            raise _TooMuch("its plain form is over {:,} bytes".format(self._limit))

    # -- what JSON has, and a little more --------------------------------------------------------------------------

    def _int(self, value: int, depth: int) -> None:
        size = (value.bit_length() + 8) // 8
        self._need(size)
        self._add(b"I" + _length(size) + value.to_bytes(size, "little", signed=True))

    def _str(self, value: str, depth: int) -> None:
        self._need(len(value))
        data = value.encode("utf-8", "surrogatepass")
        self._add(b"S" + _length(len(data)) + data)

    def _bytes(self, value: bytes, depth: int) -> None:
        self._need(len(value))
        self._add(b"B" + _length(len(value)))
        self._add(value)

    def _items(self, tag: bytes, value: Any, depth: int) -> None:
        self._need(len(value))
        if not self._enter(value):
            return
        # Copy it, because another thread may change it.
        items = list(value)
        self._add(tag + _length(len(items)))
        for item in items:
            self.put(item, depth + 1)
        self._open.discard(id(value))

    def _dict(self, value: Any, depth: int) -> None:
        self._need(2 * len(value))
        if not self._enter(value):
            return
        items = list(value.items())
        self._add(b"M" + _length(len(items)))
        for key, item in items:
            self.put(key, depth + 1)
            self.put(item, depth + 1)
        self._open.discard(id(value))

    def _enter(self, value: Any) -> bool:
        if id(value) in self._open:
            self.unsaid(value, "it holds itself", "")
            return False
        self._open.add(id(value))
        return True

    # -- objects -----------------------------------------------------------------------------------------------------

    def _known(self, name: str, made_of: Any, depth: int) -> None:
        self._add(b"X" + _length(len(name)) + name.encode("ascii"))
        self.put(made_of, depth + 1)

    def _other(self, value: Any, kind: type, depth: int) -> None:
        module = kind.__module__.partition(".")[0]
        library = sys.modules.get(module)
        name = kind.__qualname__
        if library is not None and module in _LIBRARIES:
            made = _LIBRARIES[module](library, value, kind, self._need)
            if made is not None:
                self._known(made[0], made[1], depth)
                return
        known = _STANDARD.get((module, name))
        if known is not None and getattr(sys.modules.get(kind.__module__), name, None) is kind:
            made_of = known[1](value)
            if isinstance(made_of, dict):
                self._enter_and(made_of, value, known[0], depth)
            else:
                self._enter_and(tuple(made_of), value, known[0], depth)
        elif is_config(value):
            self._enter_and((_checked_config(plain_of(value)),), value, "config", depth)
        else:
            self._record(value, kind, depth)

    def _enter_and(self, made_of: Any, value: Any, name: str, depth: int) -> None:
        if self._enter(value):
            if name == "dict":
                self._dict(made_of, depth)
            else:
                self._known(name, made_of, depth)
            self._open.discard(id(value))

    def _record(self, value: Any, kind: type, depth: int) -> None:
        """Write an enum member, or an instance of a class with fields.

        The reader decides whether it knows the class.
        """
        if "<locals>" in kind.__qualname__:
            raise _Unsaid("its class was defined in a function, so it cannot be found by name")
        if issubclass(kind, enum.Enum):
            name = value.name
            if kind.__members__.get(name) is not value:
                raise _Unsaid("it is not a single member of its enum")
            self._known("enum", (kind.__module__, kind.__qualname__, name), depth)
            return
        made = _fields_of(value, kind)
        if made is None:
            raise _Unsaid("it is not plain data")
        how, names = made
        fields = {}
        for name in names:
            try:
                fields[name] = object.__getattribute__(value, name)
            except AttributeError:  # a field that was never set
                continue
        self._enter_and((how, kind.__module__, kind.__qualname__, fields), value, "record", depth)


def _fields_of(value: Any, kind: type) -> Optional[Tuple[str, List[str]]]:
    """Return (kind of class, names of its fields); None if it has something else, or more."""
    fields = getattr(kind, "_fields", None)
    if issubclass(kind, tuple) and isinstance(fields, tuple) and len(fields) == len(value):
        return "namedtuple", [str(name) for name in fields]
    if issubclass(kind, (BaseException, dict, list, tuple, set, frozenset, str, bytes, int, float, complex)):
        return None
    if dataclasses.is_dataclass(kind):
        return "dataclass", [field.name for field in dataclasses.fields(kind)]
    fields = getattr(kind, "__attrs_attrs__", None)
    return ("attrs", [field.name for field in fields]) if isinstance(fields, tuple) else None


# -- the standard library's: kind, and what it is made of ------------------------------------------------------------


def _time(value: Any) -> Tuple[Any, ...]:
    return value.hour, value.minute, value.second, value.microsecond, value.fold, value.tzinfo


def _decimal(value: Any) -> Tuple[Any, ...]:
    text = str(value)
    if len(text) > MAX_TEXT:
        raise _Unsaid("it has more than {} digits".format(MAX_TEXT))
    return (text,)


def _fraction(value: Any) -> Tuple[Any, ...]:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > 8 * MAX_TEXT:
        raise _Unsaid("it has more than {} bits".format(8 * MAX_TEXT))
    return value.numerator, value.denominator


def _zone(value: Any) -> Tuple[Any, ...]:
    if value.key is None:
        raise _Unsaid("a time zone without a name")
    return (value.key,)


def _windows_path(value: Any) -> Tuple[Any, ...]:
    # Before Python 3.12, the text of a path such as "//a/" is read as another path.
    text = str(value)
    if str(type(value)(text)) != text:
        raise _Unsaid("its text does not say which path it is")
    return "PureWindowsPath", text


_STANDARD: Dict[Tuple[str, str], Tuple[str, Callable[[Any], Any]]] = {
    ("builtins", "complex"): ("complex", lambda value: (value.real, value.imag)),
    ("builtins", "bytearray"): ("bytearray", lambda value: (bytes(value),)),
    ("builtins", "range"): ("range", lambda value: (value.start, value.stop, value.step)),
    ("builtins", "slice"): ("slice", lambda value: (value.start, value.stop, value.step)),
    ("datetime", "date"): ("date", lambda value: (value.year, value.month, value.day)),
    ("datetime", "time"): ("time", _time),
    ("datetime", "datetime"): ("datetime", lambda value: (value.year, value.month, value.day, *_time(value))),
    ("datetime", "timedelta"): ("timedelta", lambda value: (value.days, value.seconds, value.microseconds)),
    ("datetime", "timezone"): ("timezone", lambda value: value.__getinitargs__()),
    ("zoneinfo", "ZoneInfo"): ("zoneinfo", _zone),
    ("decimal", "Decimal"): ("decimal", _decimal),
    ("fractions", "Fraction"): ("fraction", _fraction),
    ("uuid", "UUID"): ("uuid", lambda value: (value.bytes,)),
    ("pathlib", "PosixPath"): ("path", lambda value: ("PosixPath", str(value))),
    ("pathlib", "PurePosixPath"): ("path", lambda value: ("PurePosixPath", str(value))),
    ("pathlib", "PureWindowsPath"): ("path", _windows_path),
    ("collections", "OrderedDict"): ("OrderedDict", dict),
    ("collections", "Counter"): ("Counter", dict),
    # Its factory is code, which is not sent.
    ("collections", "defaultdict"): ("dict", dict),
    ("collections", "deque"): ("deque", lambda value: (list(value), value.maxlen)),
}


_CONFIG_LEAVES = (type(None), bool, int, float, str, bytes)


def _checked_config(content: Any) -> Any:
    """Return a config's content, if a config can be made from it again without further checks."""
    if type(content) in (dict, list):
        for one in content.values() if type(content) is dict else content:
            _checked_config(one)
    elif type(content) not in _CONFIG_LEAVES and type(content).__module__.partition(".")[0] != "pathlib":
        raise _Unsaid("it is a config that holds {}".format(with_article(type_name(content))))
    return content


# -- libraries, where the application has imported them --------------------------------------------------------------


def _of_numpy(np: Any, value: Any, kind: type, need: Callable[[int], None]) -> Optional[Tuple[str, Any]]:
    if kind is np.ndarray:
        _check_dtype(value.dtype)
        order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
        need(value.nbytes)
        return "ndarray", (value.dtype.str, value.shape, order, value.tobytes(order))
    if issubclass(kind, np.generic) and kind is value.dtype.type:
        _check_dtype(value.dtype)
        return "npscalar", (value.dtype.str, value.tobytes())
    if issubclass(kind, np.dtype):
        _check_dtype(value)
        return "dtype", (value.str,)
    return None


def _check_dtype(dtype: Any) -> None:
    if dtype.kind not in _NUMPY_KINDS or dtype.str[1:] in ("f16", "f12", "c32", "c24") or not dtype.itemsize:
        raise _Unsaid("arrays of dtype {} have no plain form".format(dtype))


def _of_pandas(pd: Any, value: Any, kind: type, need: Callable[[int], None]) -> Optional[Tuple[str, Any]]:
    name = kind.__name__
    if name not in _PANDAS or getattr(pd, name, None) is not kind:
        return None
    if name == "RangeIndex":
        return "pandas.RangeIndex", (value.name, value.start, value.stop, value.step)
    if name == "Series":
        return "pandas.Series", (value.name, value.index, _column(pd, value))
    if name == "DataFrame":
        need(value.shape[0] * value.shape[1])
        columns = [_column(pd, value.iloc[:, place]) for place in range(value.shape[1])]
        return "pandas.DataFrame", (value.columns, value.index, columns)
    return "pandas.Index", (value.name, _column(pd, value))


def _column(pd: Any, column: Any) -> Tuple[Any, ...]:
    """Return (name of the dtype, values). Numbers and times are an array, texts and objects a list."""
    dtype = column.dtype
    name = str(dtype)
    if getattr(dtype, "kind", "") in "biufcmM" and type(dtype).__module__.partition(".")[0] == "numpy":
        return "array", column.to_numpy()
    if name == "object":
        return name, list(column.to_numpy())
    if name in ("str", "string"):
        return name, [None if pd.isna(one) else str(one) for one in column]
    raise _Unsaid("columns of dtype {} have no plain form".format(name))


def _of_torch(torch: Any, value: Any, kind: type, need: Callable[[int], None]) -> Optional[Tuple[str, Any]]:
    if kind is not torch.Tensor:
        return None
    name = str(value.dtype).partition(".")[2]
    if value.device.type != "cpu":
        raise _Unsaid("it is on {}; its .cpu() has a plain form".format(value.device))
    if value.layout is not torch.strided or name not in _TORCH_DTYPES or sys.byteorder != "little":
        raise _Unsaid("tensors of {} and {} have no plain form".format(value.dtype, value.layout))
    need(value.numel() * value.element_size())
    data = b""
    if value.numel():
        flat = value.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
        try:
            data = flat.numpy().tobytes()
        except RuntimeError:  # a torch without numpy
            data = bytes(flat.tolist())
    return "tensor", (name, tuple(value.shape), data)


_LIBRARIES: Dict[str, Callable[[Any, Any, type, Callable[[int], None]], Optional[Tuple[str, Any]]]] = {
    "numpy": _of_numpy,
    "pandas": _of_pandas,
    "torch": _of_torch,
}


# -- placeholders ----------------------------------------------------------------------------------------------------


def _bounded_repr(value: Any) -> str:
    shortener = reprlib.Repr()
    shortener.maxother = shortener.maxstring = _REPR
    try:
        return shortener.repr(value)
    except BaseException as error:  # noqa: BLE001 - a user's __repr__ may raise anything
        return "its repr raises {}".format(type(error).__name__)


def _extent(value: Any) -> str:
    """Describe its size, without running a user's code."""
    if type(value) in (list, tuple, dict, set, frozenset, str, bytes):
        return "{:,} long".format(len(value))
    module = type(value).__module__.partition(".")[0]
    if module in _LIBRARIES:
        try:
            return "shape {}".format(tuple(value.shape))
        except BaseException:  # noqa: BLE001 - it has no shape
            return ""
    return ""


def _cleaned(text: str) -> str:
    """Return the text with limited length, in one line, and without control characters for a terminal."""
    text = " ".join(text[: 2 * _REPR].split())
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)[:_REPR]
