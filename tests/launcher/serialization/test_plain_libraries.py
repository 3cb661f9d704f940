"""Arrays, tables and tensors come back as they were, or as buffers where their library is missing."""

from __future__ import annotations

import math
import sys
import types
from typing import Any

import numpy as np
import pandas as pd
import pytest

from launcher.errors import ValueNotPlain
from launcher.serialization.plain_libraries import PlainBuffer, PlainTable
from launcher.serialization.plain_text import plain_text
from launcher.serialization.plain_values import read_plain, read_shown
from remote_agent.shared.plain_value import encode
from tests.launcher.serialization.plain import back

ARRAYS = [
    np.arange(6).reshape(2, 3),
    np.asfortranarray(np.ones((3, 2), "f4")),
    np.arange(24).reshape(2, 3, 4)[:, ::2],
    np.array(["ab", "c", "\ud800"]),
    np.array([b"x", b"yz"]),
    np.array([True, False]),
    np.zeros((0, 3)),
    np.zeros((3, 0), order="F"),
    np.array(3.5),
    np.arange(4, dtype=">i2"),
    np.arange(4, dtype=">u8"),
    np.array([1 + 2j, complex(math.nan, -0.0)]),
    np.array([1 + 2j], "c8"),
    np.array([1.5, math.nan], "f2"),
    np.array(["2024-01-01", "NaT"], "M8[D]"),
    np.array([5], "m8[25ms]"),
    np.array(["2024-01-01"], ">M8[ns]"),
    np.array(["x"], ">U3"),
    np.float32(1.5),
    np.int64(7),
    np.bool_(True),
    np.datetime64("2024-01-01T10"),
    np.timedelta64(3),
    np.str_("abc"),
    np.complex128(1j),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda one: f"{type(one).__name__} {one.dtype}{one.shape}")
def test_arrays_come_back_as_they_were(array: Any) -> None:
    """Numbers, booleans, texts and times come back, in any layout and byte order. The array is writable."""
    made = back(array)
    assert type(made) is type(array)
    assert (made.dtype, made.shape) == (array.dtype, array.shape)
    assert made.tobytes() == array.tobytes()
    if isinstance(array, np.ndarray):
        assert made.flags.writeable
        assert (
            made.flags.f_contiguous == (array.flags.f_contiguous or array.ndim == 0)
            or array.flags.f_contiguous is False
        )
    plain_text(read_shown(encode(array)))


def test_scalars_of_numpy_are_keys_too() -> None:
    """`groupby` and `unique` make dicts with `np.int64` keys."""
    value = {np.int64(3): "a", np.str_("b"): 1}
    assert back(value) == value
    assert {type(key) for key in back(value)} == {np.int64, np.str_}


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.array([object()]), "dtype object"),
        (np.zeros(2, "i4,f8"), "dtype"),
        (np.zeros(2, np.longdouble), "float128"),
        (np.ma.array([1, 2], mask=[0, 1]), "not plain data"),
    ],
)
def test_arrays_that_are_more_than_a_buffer_are_named(array: Any, why: str) -> None:
    """These are arrays of objects and records, and of numbers that differ between machines."""
    with pytest.raises(ValueNotPlain, match=why):
        back(array)


FRAMES = [
    pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": [1.5, math.nan], "d": [True, False]}),
    pd.DataFrame({"t": pd.date_range("2024-01-01", periods=3), "d": pd.to_timedelta([1, 2, 3], "s")}),
    pd.DataFrame(np.eye(3), index=list("xyz"), columns=[10, 20, 30]),
    pd.DataFrame({"o": pd.Series([1, "a", None, (1, 2), [3]], dtype=object)}),
    pd.DataFrame(),
    pd.DataFrame({"a": []}),
    pd.Series([1.0, 2.0], name="n", index=pd.date_range("2024-01-01", periods=2)),
    pd.Series(["a", "b"], dtype="string"),
    pd.Series([], dtype="f4"),
    pd.Index([3, 1], name="i"),
    pd.Index(["a", "b"]),
    pd.RangeIndex(2, 9, 3, name="r"),
    pd.to_datetime(["2024-01-01"]),
]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda one: type(one).__name__)
def test_tables_come_back_as_they_were(frame: Any) -> None:
    """These are frames, series and indexes of numbers, times, texts and plain objects, with their names."""
    made = back(frame)
    kind = type(frame).__name__
    if kind == "DataFrame":
        pd.testing.assert_frame_equal(made, frame, check_freq=False)
    elif kind == "Series":
        pd.testing.assert_series_equal(made, frame, check_freq=False)
    else:
        pd.testing.assert_index_equal(made, frame, exact=True)
    plain_text(read_shown(encode(frame)))


@pytest.mark.parametrize(
    "frame",
    [
        pd.Series(["a", "b"], dtype="category"),
        pd.Series(pd.date_range("2024-01-01", periods=2, tz="Europe/Berlin")),
        pd.Series([1, None], dtype="Int64"),
        pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([(1, 2)])),
        pd.DataFrame({"a": [object()]}),
    ],
    ids=["category", "zone", "Int64", "MultiIndex", "object"],
)
def test_tables_that_are_more_than_columns_are_named(frame: Any) -> None:
    """They are not silently simplified."""
    with pytest.raises(ValueNotPlain):
        back(frame)


class FakeTensor:
    """The attributes and methods of a tensor that are used."""

    def __init__(self, array: Any, dtype: str) -> None:
        self.array, self.dtype, self.shape = array, f"torch.{dtype}", array.shape
        self.device = types.SimpleNamespace(type="cpu")
        self.layout = "strided"

    def __getattr__(self, name: str) -> Any:
        if name in ("detach", "resolve_conj", "resolve_neg", "contiguous"):
            return lambda: self
        if name == "numel":
            return lambda: self.array.size
        if name == "element_size":
            return lambda: self.array.itemsize
        raise AttributeError(name)

    def reshape(self, *shape: Any) -> Any:
        return FakeTensor(self.array.reshape(*shape), self.dtype[6:])

    def view(self, dtype: str) -> Any:
        return FakeTensor(self.array.view("u1" if dtype == "uint8" else "f4"), dtype)

    def numpy(self) -> Any:
        return self.array


FakeTensor.__module__ = "torch"


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module that replaces torch."""
    made: Any = types.ModuleType("torch")
    made.Tensor, made.strided, made.uint8, made.float32 = FakeTensor, "strided", "uint8", "float32"
    made.frombuffer = lambda data, dtype: FakeTensor(np.frombuffer(data, "u1"), dtype)
    monkeypatch.setitem(sys.modules, "torch", made)
    return made


def test_tensors_come_back_as_they_were(torch: Any) -> None:
    """They keep dtype and shape."""
    made = back(FakeTensor(np.array([[1.5, 2.5]], "f4"), "float32"))
    assert type(made) is FakeTensor
    assert made.array.tolist() == [[1.5, 2.5]]


def test_a_tensor_on_another_device_is_named(torch: Any) -> None:
    """The message says what to do."""
    tensor = FakeTensor(np.ones(2, "f4"), "float32")
    tensor.device = types.SimpleNamespace(type="cuda")
    with pytest.raises(ValueNotPlain, match=r"\.cpu\(\)"):
        back(tensor)


def test_buffers_come_where_a_library_is_missing_here(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have dtype, shape and bytes, and can give their numbers."""
    data = encode({
        "a": np.array([[1, 2], [3, 4]], ">i2"), "s": np.float64(0.5), "f": pd.DataFrame({"x": [1, 2]}),
        "t": FakeTensor(np.array([1.5], "f4"), "float32"), "d": np.dtype("f4"),
    })  # fmt: skip
    for name in ("numpy", "pandas", "torch"):
        monkeypatch.setitem(sys.modules, name, None)
    value = read_plain(data)
    assert isinstance(value["a"], PlainBuffer)
    assert (value["a"].dtype, value["a"].shape, value["a"].data) == (">i2", (2, 2), b"\0\1\0\2\0\3\0\4")
    assert value["a"].numbers() == [1, 2, 3, 4]
    assert value["s"].numbers() == [0.5]
    assert isinstance(value["f"], PlainTable)
    assert value["f"].parts["data"][0][1].numbers() == [1, 2]
    assert (value["t"].library, value["t"].dtype, value["t"].numbers()) == ("torch", "float32", [1.5])
