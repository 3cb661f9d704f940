"""Makes values of numpy, pandas, torch and omegaconf (arrays, tables, tensors, configs) from plain data that a host
sent.

Rule: only buffers of numbers, texts and times become arrays, never objects by address. Shape and dtype are compared
with the bytes before a library gets them. If a library is not installed here, the result is a `PlainBuffer` or a
`PlainTable`.
"""

from __future__ import annotations

import math
import pathlib
import re
import struct
from dataclasses import dataclass
from typing import Any

from launcher.errors import ResultNotDecoded

__all__ = ["LIBRARY_KINDS", "PlainBuffer", "PlainTable", "config_of", "make_library_value", "shown_library_value"]

_DTYPE = re.compile(
    r"(?:[<>|=]?(?:b1|[iu][1248]|f[248]|c8|c16|[SU](?P<length>[1-9][0-9]{0,8})|[mM]8(?:\[[0-9]{0,9}(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?))"
)
_SIZES = {"S": 1, "U": 4}
#: For torch: dtype -> (bytes, the letter of `struct` if there is one).
_TORCH = {
    "bool": (1, "?"), "uint8": (1, "B"), "int8": (1, "b"), "uint16": (2, "H"), "int16": (2, "h"), "uint32": (4, "I"),
    "int32": (4, "i"), "uint64": (8, "Q"), "int64": (8, "q"), "float16": (2, "e"), "bfloat16": (2, ""),
    "float32": (4, "f"), "float64": (8, "d"), "complex64": (8, ""), "complex128": (16, ""),
}  # fmt: skip
_NUMPY = {
    "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q", "f2": "e",
    "f4": "f", "f8": "d",
}  # fmt: skip
_MAX_DIMENSIONS = 64
#: Most characters of a config's text with `${` in it, because omegaconf parses it when it is read.
_MAX_PARSED = 1 << 16
_INTERPOLATION = re.compile(r"(\\*)\$\{")
_LEAVES = (type(None), bool, int, float, str, bytes, pathlib.PosixPath, pathlib.PurePosixPath)
_KEYS = (bool, int, float, str, bytes)


@dataclass(frozen=True, eq=False)
class PlainBuffer:
    """An array, a scalar or a tensor, as a host sent it.

    Attributes:
        library: `numpy` or `torch`.
        dtype: in that library's notation: `<f8`, `bfloat16`.
        shape: of the array; `()` for a scalar.
        order: `C` or `F`: the order of the items in `data`.
        data: the items.
    """

    library: str
    dtype: str
    shape: tuple[int, ...]
    order: str
    data: bytes

    def numbers(self) -> list[Any] | None:
        """Return the items in the order of `data`; None if Python has no number type for the dtype."""
        if self.library == "torch":
            order, letter = "<", _TORCH[self.dtype][1]
        else:
            order, letter = self.dtype[0].replace("|", "<"), _NUMPY.get(self.dtype[1:], "")
        if not letter:
            return None
        return list(struct.unpack(f"{order}{math.prod(self.shape)}{letter}", self.data))

    def __repr__(self) -> str:
        count = math.prod(self.shape)
        numbers = self.numbers() if count <= 1000 else None
        if numbers is not None and not self.shape:
            return repr(numbers[0])
        if numbers is not None and len(self.shape) == 1:
            return f"{self.library}[{', '.join(map(repr, numbers[:20]))}{', ...' if count > 20 else ''}]"
        return f"<{self.library} {self.dtype} of shape {self.shape}>"


@dataclass(frozen=True, eq=False)
class PlainTable:
    """A frame, series or index of pandas, as a host sent it.

    Attributes:
        kind: `DataFrame`, `Series`, `Index` or `RangeIndex`.
        parts: its parts by name. Columns are arrays (PlainBuffer) or lists.
    """

    kind: str
    parts: dict[str, Any]

    def __repr__(self) -> str:
        # `show` limits the length of this text.
        return f"<pandas {self.kind}: {', '.join(f'{name} {_size(part)}' for name, part in self.parts.items())}>"


def _size(part: Any) -> str:
    if isinstance(part, PlainBuffer):
        return f"of {math.prod(part.shape)}"
    return f"of {len(part)}" if isinstance(part, list) else repr(part)[:200]


# -- numpy and torch -------------------------------------------------------------------------------------------------


def _damaged(why: str) -> ResultNotDecoded:
    return ResultNotDecoded(f"the plain form of a value is damaged: {why}")


def _want(condition: object, why: str) -> None:
    if not condition:
        raise _damaged(why)


def _check_shape(shape: Any, itemsize: int, data: Any) -> None:
    _want(type(shape) is tuple and len(shape) <= _MAX_DIMENSIONS, "an array without a shape")
    _want(all(type(one) is int and 0 <= one < 1 << 62 for one in shape), "an invalid shape")
    _want(type(data) is bytes, "an array without bytes")
    # One dimension after the other, because their product could be a huge number.
    total = 0 if 0 in shape else itemsize
    for one in shape:
        total *= one
        _want(total <= len(data), "an array with fewer bytes than its shape says")
    _want(total == len(data), "an array with more bytes than its shape says")


def _numpy_buffer(dtype: Any, shape: Any, order: Any, data: Any) -> PlainBuffer:
    _want(type(dtype) is str and len(dtype) < 40 and _DTYPE.fullmatch(dtype), "an array of a dtype that is not plain")
    _want(order in ("C", "F"), "an array without an order")
    letter, rest = dtype.lstrip("<>|=")[0], dtype.lstrip("<>|=")[1:]
    itemsize = 8 if letter in "mM" else int(rest) * _SIZES.get(letter, 1)
    _check_shape(shape, itemsize, data)
    if letter == "b":
        _check_booleans(data)
    if letter == "U":
        _check_texts(data, dtype[0])
    return PlainBuffer("numpy", dtype if dtype[0] in "<>|=" else f"<{dtype}", shape, order, data)


def _check_booleans(data: bytes) -> None:
    _want(not data.translate(None, b"\x00\x01"), "a bool that is neither 0 nor 1")


def _check_texts(data: bytes, order: str) -> None:
    """Check that every character is valid."""
    try:
        data.decode("utf-32-be" if order == ">" else "utf-32-le", "surrogatepass")
    except UnicodeDecodeError:
        raise _damaged("a text with an invalid character") from None


def _tensor_buffer(dtype: Any, shape: Any, data: Any) -> PlainBuffer:
    _want(type(dtype) is str and dtype in _TORCH, "a tensor of a dtype that is not plain")
    _check_shape(shape, _TORCH[dtype][0], data)
    if dtype == "bool":
        _check_booleans(data)
    return PlainBuffer("torch", dtype, shape, "C", data)


def _array_of(buffer: PlainBuffer) -> Any:
    try:
        import numpy as np
    except ImportError:
        return buffer
    # An array over a bytearray is writable, as the original was.
    made = np.frombuffer(bytearray(buffer.data), np.dtype(buffer.dtype)) if buffer.data else np.empty(0, buffer.dtype)
    return made.reshape(buffer.shape, order=buffer.order)  # type: ignore[call-overload]


def _scalar_of(buffer: PlainBuffer) -> Any:
    array = _array_of(buffer)
    return array if isinstance(array, PlainBuffer) else array[()]


def _dtype_of(dtype: Any) -> Any:
    _want(type(dtype) is str and len(dtype) < 40 and _DTYPE.fullmatch(dtype), "a dtype that is not plain")
    try:
        import numpy as np
    except ImportError:
        return dtype
    return np.dtype(dtype)


def _tensor_of(buffer: PlainBuffer) -> Any:
    try:
        import torch
    except ImportError:
        return buffer
    dtype = getattr(torch, buffer.dtype, None)
    if dtype is None:
        return buffer
    if not buffer.data:
        return torch.empty(buffer.shape, dtype=dtype)
    return torch.frombuffer(bytearray(buffer.data), dtype=torch.uint8).view(dtype).reshape(buffer.shape)


# -- pandas ----------------------------------------------------------------------------------------------------------


def _pandas(name: str, made_of: tuple[Any, ...]) -> PlainTable:
    parts = dict(zip(_PARTS[name], made_of, strict=True))
    for key, value in parts.items():
        if key in ("start", "stop", "step"):
            _want(type(value) is int, "an invalid index")
        elif key == "values":
            _check_column(value)
        elif key in ("index", "columns"):
            _want(_is_index(value), "a table without an index")
        elif key == "data":
            _want(type(value) is list, "a table without columns")
            for column in value:
                _check_column(column)
    return PlainTable(name.partition(".")[2], parts)


def _check_column(column: Any) -> None:
    _want(type(column) is tuple and len(column) == 2, "a column that is none")
    kind, values = column
    if kind == "array":
        _want(isinstance(values, PlainBuffer) or type(values).__name__ == "ndarray", "a column that is none")
        _want(len(values.shape) == 1, "a column of several dimensions")
    else:
        _want(kind in ("object", "str", "string") and type(values) is list, "a column that is none")
        _want(kind == "object" or all(type(one) in (str, type(None)) for one in values), "an invalid text")


def _is_index(value: Any) -> bool:
    if isinstance(value, PlainTable):
        return value.kind in ("Index", "RangeIndex")
    return type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "get_indexer")


def _frame_of(table: PlainTable) -> Any:
    try:
        import pandas as pd
    except ImportError:
        return table
    parts = table.parts
    if table.kind == "RangeIndex":
        return pd.RangeIndex(parts["start"], parts["stop"], parts["step"], name=parts["name"])
    if table.kind == "Index":
        return pd.Index(_values_of(pd, parts["values"]), name=parts["name"], **_own_dtype(parts["values"]))
    if table.kind == "Series":
        return _series_of(pd, parts["values"], parts["index"], parts["name"])
    index, columns = parts["index"], parts["columns"]
    _want(len(parts["data"]) == len(columns), "a table whose number of columns differs from what it says")
    made = pd.DataFrame(
        {place: _series_of(pd, column, index, None) for place, column in enumerate(parts["data"])}, index=index
    )
    made.columns = columns
    return made


def _series_of(pd: Any, column: tuple[str, Any], index: Any, name: Any) -> Any:
    values = _values_of(pd, column)
    _want(len(values) == len(index), "a column whose length differs from its index's")
    return pd.Series(values, index=index, name=name, **_own_dtype(column))


def _own_dtype(column: tuple[str, Any]) -> dict[str, Any]:
    # Otherwise pandas would inspect the items and choose another dtype.
    return {"dtype": object} if column[0] == "object" else {}


def _values_of(pd: Any, column: tuple[str, Any]) -> Any:
    kind, values = column
    if kind == "array":
        return values
    import numpy as np

    if kind != "object":
        try:
            return pd.array(values, dtype=kind)
        except TypeError:  # a pandas without this dtype
            pass
    made = np.empty(len(values), object)
    for place, one in enumerate(values):
        made[place] = one
    return made


_PARTS = {
    "pandas.RangeIndex": ("name", "start", "stop", "step"),
    "pandas.Index": ("name", "values"),
    "pandas.Series": ("name", "index", "values"),
    "pandas.DataFrame": ("columns", "index", "data"),
}

#: The kinds that `make_library_value` makes.
LIBRARY_KINDS = frozenset(("ndarray", "npscalar", "dtype", "tensor", *_PARTS))


def make_library_value(name: str, made_of: tuple[Any, ...]) -> Any:
    """Make the library's value; a PlainBuffer or PlainTable if the library is not installed here.

    Raises:
        ResultNotDecoded: its parts are not those of such a value.
    """
    if name == "dtype":
        return _dtype_of(*made_of)
    shown = shown_library_value(name, made_of)
    if isinstance(shown, PlainTable):
        return _frame_of(shown)
    if name == "tensor":
        return _tensor_of(shown)
    return _array_of(shown) if name == "ndarray" else _scalar_of(shown)


def shown_library_value(name: str, made_of: tuple[Any, ...]) -> Any:
    """Return a description of it. No library is imported."""
    if name in _PARTS:
        return _pandas(name, made_of)
    if name == "tensor":
        return _tensor_buffer(*made_of)
    if name == "ndarray":
        return _numpy_buffer(*made_of)
    if name == "npscalar":
        dtype, data = made_of
        return _numpy_buffer(dtype, (), "C", data)
    (dtype,) = made_of
    _want(type(dtype) is str and _DTYPE.fullmatch(dtype), "a dtype that is not plain")
    return f"dtype {dtype}"


# -- omegaconf -------------------------------------------------------------------------------------------------------


def config_of(content: Any) -> Any:
    """Make an untyped config without interpolations. Reading a text returns it unchanged, and runs no resolver.

    Raises:
        ResultNotDecoded: a config cannot contain it.
    """
    from omegaconf import DictConfig, ListConfig

    plain = _escaped(content)
    if type(plain) is list:
        return ListConfig(plain)
    if type(plain) is dict or plain is None:
        return DictConfig(plain)
    # The whole config was an interpolation.
    return content


def _escaped(value: Any) -> Any:
    if type(value) is dict:
        for key in value:
            _want(type(key) in _KEYS, "a config with a key that no config can have")
        return {key: _escaped(item) for key, item in value.items()}
    if type(value) is list:
        return [_escaped(item) for item in value]
    _want(type(value) in _LEAVES, f"a config that holds {type(value).__name__[:100]}")
    if type(value) is not str or "${" not in value:
        return value
    _want(len(value) <= _MAX_PARSED, "a config with a text too long to be parsed")
    return escaped_text(value)


def escaped_text(text: str) -> str:
    """Escape text with `${` in it, so that omegaconf reads it unchanged."""
    return _INTERPOLATION.sub(lambda found: found[1] * 2 + "\\${", text)
