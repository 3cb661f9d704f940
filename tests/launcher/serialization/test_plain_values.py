"""Plain data: a value from a host comes back as the same value, and anything else from a host is one kind of error."""

from __future__ import annotations

import abc
import collections
import datetime as dt
import decimal
import enum
import fractions
import math
import os
import pathlib
import pickle
import random
import sys
import tracemalloc
import uuid
import zoneinfo
from collections.abc import Callable, Iterator
from dataclasses import InitVar, dataclass, field
from typing import Any, ClassVar, NamedTuple

import attrs
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, ListConfig, MissingMandatoryValue, OmegaConf

from launcher.errors import ResultNotDecoded, ValueNotPlain
from launcher.serialization.plain_records import finder
from launcher.serialization.plain_text import plain_text
from launcher.serialization.plain_values import is_whole, read_plain, read_shown
from remote_agent.shared import plain_value
from remote_agent.shared.plain_value import MARK, MAX_DEPTH, MAX_NODES, MAX_SMALL, VERSION, encode
from tests.examples import examples
from tests.launcher.serialization.plain import back, finder_of, same

HEAD = MARK + bytes((VERSION, 1))


def _has_a_text(path: pathlib.PureWindowsPath) -> bool:
    return str(pathlib.PureWindowsPath(str(path))) == str(path)


# Without Hypothesis' tables of Unicode, which take their time to be made.
ANY_TEXT = st.text(st.sampled_from("ab \x00\n'\"\\\u00e9\u202e\ud800\udfff\U0001f600"), max_size=8)
ZONES = st.one_of(
    st.none(),
    st.just(dt.timezone.utc),
    st.builds(dt.timezone, st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)), ANY_TEXT),
    st.sampled_from(["Europe/Berlin", "Asia/Kolkata", "UTC"]).map(zoneinfo.ZoneInfo),
)
_HASHABLE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), ANY_TEXT, st.binary(), st.dates(), st.uuids(),
    st.fractions(), st.timedeltas(), st.complex_numbers(allow_nan=False),
)  # fmt: skip
# Deferred ones have a short repr.
HASHABLE = st.deferred(lambda: _HASHABLE)
_LEAVES = st.one_of(
    HASHABLE,
    st.floats(),
    st.integers(-(1 << 600), 1 << 600),
    st.complex_numbers(),
    st.datetimes(timezones=ZONES),
    st.times(timezones=st.sampled_from([None, dt.timezone.utc])),
    st.builds(lambda one, fold: one.replace(fold=fold), st.datetimes(), st.integers(0, 1)),
    st.decimals(),
    st.builds(pathlib.Path, st.text(st.sampled_from("ab/."), max_size=8)),
    st.builds(pathlib.PureWindowsPath, st.text(st.sampled_from("ab\\:"), max_size=8)).filter(_has_a_text),
    st.builds(range, st.integers(), st.integers(), st.integers(1, 9)),
    st.builds(slice, st.none() | st.integers(), ANY_TEXT),
    st.binary().map(bytearray),
)
_VALUES = st.recursive(
    st.deferred(lambda: _LEAVES),
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(HASHABLE | st.tuples(HASHABLE, HASHABLE), inner),
        st.sets(HASHABLE),
        st.frozensets(HASHABLE | st.frozensets(HASHABLE)),
        st.dictionaries(HASHABLE, inner).map(collections.OrderedDict),
        st.builds(collections.deque, st.lists(inner), st.none() | st.integers(0, 4)),
    ),
    max_leaves=8,
)


@pytest.mark.slow
@settings(max_examples=examples(80), deadline=None)
@given(st.deferred(lambda: _VALUES))
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    """Every type of the table comes back within every other, with the same type, the sign of a zero and the order of
    keys.
    """
    data = encode(value)
    assert is_whole(data)
    assert same(read_plain(data), value)
    plain_text(read_shown(data)).encode()


@pytest.mark.parametrize(
    "value",
    [
        math.nan, -0.0, -math.inf, 10**5000, -(1 << 64), "\ud83d\ude00 \ud800\udc00", "\x00", b"\xff" * 300, [[]] * 300,
        decimal.Decimal("NaN12"), decimal.Decimal("-0E-7"), decimal.Decimal("Infinity"), {1: "a", "1": 2, None: 3},
        dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")), dt.timedelta.min,
        dt.timezone(dt.timedelta(seconds=1)), collections.Counter("abca"), pathlib.PurePosixPath("//a"),
        {(1, ("a", frozenset({2})))}, slice([1], None, {}),
    ],
    ids=lambda one: repr(one)[:30] if not isinstance(one, int) else f"int of {one.bit_length()} bits",
)  # fmt: skip
def test_corner_cases_of_plain_values_come_back(value: Any) -> None:
    """These are values that a careless encoding gets wrong."""
    assert same(back(value), value)


# -- configs ---------------------------------------------------------------------------------------------------------

PIECES = st.lists(
    st.sampled_from(["${", "\\", "\\${", "}", "$", "a", ":", "oc.env:HOME", " ", "'", '"', "???", "{", "\n"])
)


@pytest.mark.slow
@settings(max_examples=examples(80), deadline=None)
@given(PIECES.map("".join))
def test_text_of_a_config_is_text(text: str) -> None:
    """Any text is read back as it was written, and no resolver runs."""
    called: list[Any] = []
    OmegaConf.register_new_resolver("plain_trap", called.append, replace=True)
    for told in (text, text.replace("oc.env", "plain_trap")):
        holder = OmegaConf.create({"a": [{}]})
        holder.a[0].__dict__["_content"]["b"] = OmegaConf.create({"b": ""})._get_node("b")
        holder.a[0]._get_node("b").__dict__["_val"] = told
        made = back(holder)
        if told == "???":
            with pytest.raises(MissingMandatoryValue):
                _ = made.a[0].b
        else:
            assert made.a[0].b == told
            assert OmegaConf.to_container(made, resolve=True) == {"a": [{"b": told}]}
    assert not called


def test_configs_come_back_without_types() -> None:
    """Missing values are still missing, and enum members are their names."""
    config = OmegaConf.structured(Structured)
    config.text = "${oc.env:HOME}"
    made = back({"config": config, "list": OmegaConf.create([1, "${x}"]), "none": DictConfig(None)})
    assert type(made["config"]) is DictConfig
    assert OmegaConf.get_type(made["config"]) is dict
    assert (made["config"].color, made["config"].text) == ("RED", "${oc.env:HOME}")
    assert OmegaConf.is_missing(made["config"], "number")
    assert type(made["list"]) is ListConfig
    assert made["list"][1] == "${x}"
    assert made["none"]._is_none()


def test_a_config_that_holds_objects_is_named() -> None:
    """OmegaConf would inspect such objects."""
    config = OmegaConf.create({"a": [{}]}, flags={"allow_objects": True})
    config.a[0].b = np.ones(2)
    with pytest.raises(ValueNotPlain, match=r"a config that holds a numpy\.ndarray"):
        back(config)


# -- classes of the user's -------------------------------------------------------------------------------------------


class Color(enum.Enum):
    RED = 1
    BLUE = 2
    AZURE = 2  # noqa: PIE796 - an alias


class Level(enum.IntEnum):
    LOW = 1


class Flags(enum.Flag):
    A = 1
    B = 2


class Loud(enum.Enum):
    ONE = 1

    def __hash__(self) -> int:
        raise AssertionError


@dataclass
class Structured:
    color: Color = Color.RED
    number: int = "???"  # type: ignore[assignment]
    text: str = ""


@dataclass
class Point:
    x: Any
    y: Any = 3
    kinds: ClassVar[list[Any]] = []
    hidden: InitVar[int] = 0
    made: list[Any] = field(default_factory=list, init=False)

    def __new__(cls, *arguments: Any, **more: Any) -> Any:
        cls.kinds.append("new")
        return object.__new__(cls)

    def __post_init__(self, hidden: int) -> None:
        self.kinds.append("post_init")
        self.made.append(hidden)

    def __setattr__(self, name: str, value: Any) -> None:
        self.kinds.append(name)
        object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Frozen:
    x: Any


@dataclass
class Slotted:
    __slots__ = ("x",)
    x: Any


@attrs.define
class Defined:
    x: Any
    y: Any = 5


@attrs.define(slots=False, frozen=True)
class FrozenAttrs:
    x: Any = attrs.field(converter=str)


class Pair(NamedTuple):
    left: Any
    right: Any = None


@dataclass
class Outer:
    @dataclass
    class Inner:
        """A class with a dot in its qualified name."""

        x: Any


@pytest.mark.parametrize(
    "value",
    [
        Color.RED, Color.AZURE, Level.LOW, Frozen(1), Slotted([1]), Defined({"a": 1}), FrozenAttrs(7), Pair(1, (2,)),
        Outer.Inner(2), {Color.RED: 1, Level.LOW: 2}, {Color.BLUE}, [Frozen(Frozen(Color.RED))],
    ],
    ids=lambda one: repr(one)[:40],
)  # fmt: skip
def test_allowed_classes_are_made_of_their_fields(value: Any) -> None:
    """These are enum members, dataclasses, attrs classes and named tuples, with slots or frozen.

    None is made if it is not allowed.
    """
    allowed = (Color, Level, Frozen, Slotted, Defined, FrozenAttrs, Pair, Outer.Inner)
    made = back(value, *allowed)
    assert made == value
    assert type(made) is type(value)
    with pytest.raises(ValueNotPlain, match="--allow-type") as caught:
        back(value)
    assert caught.value.type.startswith(f"{__name__}.")


def test_no_code_of_an_allowed_class_runs() -> None:
    """`__new__`, `__init__`, `__post_init__` and `__setattr__` do not run.

    Fields that are not arguments of the constructor are set, too.
    """
    data = encode(Point(1, hidden=4))
    Point.kinds.clear()
    made = read_plain(data, finder_of(Point))
    assert Point.kinds == []
    assert (type(made), made.__dict__) == (Point, {"x": 1, "y": 3, "made": [4]})


def test_a_field_that_was_never_set_stays_unset() -> None:
    """It is also unset on the host."""
    value = Defined.__new__(Defined)
    value.x = 1
    made = back(value, Defined)
    assert made.x == 1
    assert not hasattr(made, "y")


def record(how: str, kind: type, fields: Any) -> bytes:
    """Make a document with an instance of a class."""
    encoder = plain_value._Encoder(1 << 20, tells_repr=False)
    if how == "enum":
        encoder._known("enum", (kind.__module__, kind.__qualname__, fields), 0)
    else:
        encoder._known("record", (how, kind.__module__, kind.__qualname__, fields), 0)
    return HEAD + b"".join(encoder.pieces)


class Del:
    pass


@dataclass
class Closes:
    x: int = 0

    def __del__(self) -> None:
        raise AssertionError


@dataclass
class Property:
    x: int

    @property  # type: ignore[no-redef]
    def x(self) -> int:
        return 1

    @x.setter
    def x(self, value: int) -> None:
        raise AssertionError


@dataclass
class Listed(list):  # type: ignore[type-arg]
    x: int = 0


@dataclass
class Abstract(abc.ABC):
    x: int = 0

    @abc.abstractmethod
    def nothing(self) -> None: ...


@pytest.mark.parametrize(
    ("how", "kind", "fields", "why"),
    [
        ("enum", Color, "GREEN", "no member"),
        ("enum", Point, "x", "no member"),
        ("dataclass", Frozen, {"y": 1}, "no field 'y'"),
        ("dataclass", Frozen, {"__class__": 1}, "no field"),
        ("dataclass", Point, {"kinds": []}, "no field 'kinds'"),
        ("dataclass", Point, {"hidden": 1}, "no field 'hidden'"),
        ("dataclass", Del, {}, "no dataclass"),
        ("attrs", Frozen, {"x": 1}, "no attrs"),
        ("nonsense", Frozen, {"x": 1}, "no nonsense"),
        ("dataclass", Color, {"x": 1}, "no dataclass"),
        ("namedtuple", Pair, {"left": 1}, "right"),
        ("namedtuple", Frozen, {"x": 1}, "not a named tuple"),
        ("dataclass", Closes, {"x": 1}, "__del__"),
        ("dataclass", Property, {"x": 1}, "descriptor"),
        ("dataclass", Listed, {"x": 1}, "not safe"),
        ("dataclass", Abstract, {"x": 1}, "abstract"),
        ("dataclass", Frozen, {1: 1}, "no field"),
    ],
)
def test_invalid_instances_of_an_allowed_class_are_refused(how: str, kind: type, fields: Any, why: str) -> None:
    """These are unknown members, fields and attributes, and classes that only their own code can make."""
    with pytest.raises(ResultNotDecoded, match=why):
        read_plain(record(how, kind, fields), finder_of(kind))


@pytest.mark.parametrize("key", [Loud.ONE, Frozen(1), Pair(1, 2), (1, Frozen(2))], ids=repr)
def test_no_hash_of_an_allowed_class_is_called(key: Any) -> None:
    """A key or an item of a set would be hashed by it."""
    encoder = plain_value._Encoder(1 << 20, tells_repr=False)
    encoder.put(key, 1)
    element = b"".join(encoder.pieces)
    for data in (b"E\x01" + element, b"Z\x01" + element, b"M\x01" + element + b"N"):
        with pytest.raises(ResultNotDecoded, match="cannot be a key"):
            read_plain(HEAD + data, finder_of(Loud, Frozen, Pair))


def test_classes_of_the_script_are_found_under_either_name() -> None:
    """They are found by the name on the host and as `__main__`.

    If a class cannot be imported here, the error says so.
    """
    main: Any = sys.modules["__main__"]
    main.PlainThing = Color
    try:
        for allowed in ("my_script.PlainThing", "__main__:PlainThing"):
            assert finder([allowed], main_module="my_script", is_main=True)("my_script", "PlainThing") is Color
    finally:
        del main.PlainThing
    with pytest.raises(ResultNotDecoded, match="cannot be imported here"):
        finder(["no_such_module.C"], main_module=None, is_main=False)("no_such_module", "C")
    assert finder(["os.path"], main_module=None, is_main=False)("os", "system") is None
    with pytest.raises(ResultNotDecoded, match="not a class"):
        finder(["os.system"], main_module=None, is_main=False)("os", "system")


# -- what has no plain form
# ---------------------------------------------------------------------------------------------


class Hostile:
    def __repr__(self) -> str:
        raise SystemExit(3)


class Escapes:
    def __repr__(self) -> str:
        return "\x1b[31mred\x1b]0;title\x07\u202e\ud800" + "x" * 100_000


def cyclic() -> Any:
    """A list, a dict and a deque that contain each other."""
    made: list[Any] = [1]
    made.append({"again": collections.deque([made])})
    return made


@pytest.mark.parametrize(
    ("value", "place", "why"),
    [
        (object(), "", "not plain data"),
        ({"a": [1, lambda: 1]}, r"value\['a'\]\[1\]", "not plain data"),
        (cyclic(), r"value\[1\]\['again'\]\[0\]", "holds itself"),
        (Hostile(), "", "its repr raises SystemExit"),
        ([Flags.A | Flags.B], r"value\[0\]", "not a single member"),
        (Frozen({"q": open}), r"", "not allowed|not plain data"),
        (ValueError("x"), "", "not plain data"),
        (int, "", "not plain data"),
        (enum.Enum("Local", "A").A, "", "not allowed|function"),
    ],
    ids=["object", "lambda", "cycle", "repr", "flags", "in fields", "exception", "class", "made enum"],
)  # fmt: skip
def test_a_value_without_a_plain_form_is_a_typed_error(value: Any, place: str, why: str) -> None:
    """It names the place, the type and the reason. The rest of the value is still shown."""
    data = encode(value)
    with pytest.raises(ValueNotPlain, match=why) as caught:
        read_plain(data)
    import re

    assert re.search(place, str(caught.value))
    assert not is_whole(data) or "allowed" in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.type, again.place) == (str(caught.value), caught.value.type, caught.value.place)
    assert plain_text(read_shown(data))


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="there, the text of every path is read as the same path")
def test_a_windows_path_is_not_made_another_one() -> None:
    """``//a/`` has a text that is read as ``/a``."""
    data = encode([pathlib.PureWindowsPath("//a/")])
    with pytest.raises(ValueNotPlain, match=r"value\[0\].*text"):
        read_plain(data)


def test_the_repr_of_a_placeholder_is_short_and_clean() -> None:
    """No escape sequence reaches a terminal, and the host cuts a long one."""
    data = encode(Escapes())
    assert len(data) < 5000
    with pytest.raises(ValueNotPlain) as caught:
        read_plain(data)
    for text in (str(caught.value), caught.value.repr, plain_text(read_shown(data))):
        assert "\x1b" not in text
        assert "\u202e" not in text
        text.encode()
    assert b"red" not in encode(Escapes(), tells_repr=False)


@pytest.mark.parametrize(
    "value",
    [
        list(range(MAX_SMALL)),
        "x" * MAX_SMALL,
        np.zeros(1 << 20),
        pd.DataFrame({"a": np.zeros(1 << 16)}),
        {"a": b"x" * MAX_SMALL},
    ],
    ids=["list", "text", "array", "frame", "nested"],
)
def test_a_value_over_the_limit_is_named_as_a_whole(value: Any) -> None:
    """The placeholder has its type and length. No more than the limit is encoded."""
    tracemalloc.start()
    try:
        data = encode(value, MAX_SMALL, tells_repr=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(data) < 500
    assert peak < 6 << 20
    with pytest.raises(ValueNotPlain, match="over 65,536 bytes"):
        read_plain(data)
    assert "long" in plain_text(read_shown(data)) or "shape" in plain_text(read_shown(data))


def test_shared_values_are_written_twice_and_capped() -> None:
    """A value that would be too large when written out is named instead."""
    shared = [1]
    assert back([shared, shared]) == [[1], [1]]
    doubled: Any = [0]
    for _ in range(60):
        doubled = [doubled, doubled]
    with pytest.raises(ValueNotPlain, match="over 65,536 bytes"):
        read_plain(encode(doubled, MAX_SMALL))


def nested(depth: int) -> Any:
    """Make nested lists."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def test_a_value_that_is_too_deep_is_named() -> None:
    """This happens at the depth at which the reader would refuse it."""
    assert back(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    for depth in (MAX_DEPTH + 1, 5000):
        with pytest.raises(ValueNotPlain, match="nested more than 100 levels deep"):
            back(nested(depth))


# -- what a host may send --------------------------------------------------------------------------------------------


def length(number: int) -> bytes:
    """Encode a length."""
    return b"\xff" + number.to_bytes(8, "little")


def known(name: str, made_of: bytes) -> bytes:
    """Encode a kind by its name."""
    return b"X" + bytes((len(name),)) + name.encode() + made_of


def text(said: str) -> bytes:
    """Encode a short text."""
    return b"S" + bytes((len(said),)) + said.encode()


def number(said: int) -> bytes:
    """Encode a whole number."""
    return b"I\x09" + said.to_bytes(9, "little", signed=True)


def array(dtype: str, shape: tuple[int, ...], data: bytes) -> bytes:
    """Encode an array."""
    dimensions = b"U" + bytes((len(shape),)) + b"".join(map(number, shape))
    return known("ndarray", b"U\x04" + text(dtype) + dimensions + text("C") + b"B" + length(len(data)) + data)


def same_hash() -> bytes:
    """Encode keys with the same hash. A dict of them takes quadratic time."""
    modulus = sys.hash_info.modulus
    keys = [place * modulus for place in range(2000)]
    return b"E" + length(len(keys)) + b"".join(encode(key)[5:] for key in keys)


HOSTILE: dict[str, bytes | Callable[[], bytes]] = {
    "nothing": b"",
    "no node": HEAD,
    "another version": MARK + b"\x02\x00N",
    "a pickle": pickle.dumps(1),
    "an unknown node": HEAD + b"q",
    "something behind": HEAD + b"NN",
    "list of 2**63": HEAD + b"L" + length(1 << 63),
    "dict of 2**40": HEAD + b"M" + length(1 << 40),
    "set of 2**40": HEAD + b"E" + length(1 << 40),
    "text of 2**50": HEAD + b"S" + length(1 << 50),
    "bytes of 2**50": HEAD + b"B" + length(1 << 50),
    "int of 2**50": HEAD + b"I" + length(1 << 50),
    "more nodes than the cap": lambda: HEAD + b"L" + length(MAX_NODES + 1) + b"N" * (MAX_NODES + 1),
    "nested lists": HEAD + b"L\x01" * 100_000 + b"N",
    "nested tuples in a set": HEAD + b"E\x01" + b"U\x01" * 300_000 + b"N",
    "nested frozensets": HEAD + b"Z\x01" * 100_000 + b"N",
    "nested kinds": HEAD + b"X\x05tuple" * 100_000 + b"N",
    "nested configs": HEAD + b"X\x06configU\x01" * 100_000 + b"N",
    "list in a set": HEAD + b"E\x01L\x00",
    "dict as a key": HEAD + b"M\x01M\x00N",
    "array as a key": HEAD + b"E\x01" + array("|u1", (1,), b"x"),
    "the same key twice": HEAD + b"M\x02" + text("a") + b"N" + text("a") + b"N",
    "keys of one hash": lambda: HEAD + same_hash(),
    "half a surrogate": HEAD + b"S\x02\xed\xa0",
    "no kind": HEAD + known("system", b"U\x01" + text("true")),
    "a kind of nothing": HEAD + known("date", b"N"),
    "a date of too many": HEAD + known("date", b"U\x04" + number(1) * 4),
    "a date of texts": HEAD + known("date", b"U\x03" + text("1") * 3),
    "a pickled datetime": HEAD + known("datetime", b"U\x01B\x0a" + b"\x07\xe8" + b"\x01" * 8),
    "a zone that is none": HEAD + known("time", b"U\x06" + number(1) * 5 + text("UTC")),
    "a zone by a path": HEAD + known("zoneinfo", b"U\x01" + text("../../etc/passwd")),
    "a decimal that is none": HEAD + known("decimal", b"U\x01" + text("one")),
    "a fraction by zero": HEAD + known("fraction", b"U\x02" + number(1) + number(0)),
    "a fraction of texts": HEAD + known("fraction", b"U\x02" + text("1e9") + text("1")),
    "a range of a step of zero": HEAD + known("range", b"U\x03" + number(1) * 2 + number(0)),
    "a uuid of two bytes": HEAD + known("uuid", b"U\x01B\x02ab"),
    "a path of another kind": HEAD + known("path", b"U\x02" + text("Path") + text("a")),
    "a deque of a number": HEAD + known("deque", b"U\x02" + number(1) + b"N"),
    "a Counter of a list": HEAD + known("Counter", b"L\x00"),
    "bytes of a number": HEAD + known("bytearray", b"U\x01" + number(1 << 40)),
    "an array of objects": HEAD + array("|O", (1,), b"A" * 8),
    "an array of records": HEAD + array("i4,O", (1,), b"A" * 12),
    "an array of a long dtype": HEAD + array("<f16", (1,), b"A" * 16),
    "an array without its bytes": HEAD + array("<f8", (1 << 40,), b"A" * 8),
    "an array of many dimensions": HEAD + array("<f8", (1,) * 100, b"A" * 8),
    "an array of a huge product": HEAD + array("<f8", (1 << 61, 1 << 61, 1 << 61), b""),
    "an array with bytes left": HEAD + array("<f8", (1,), b"A" * 16),
    "an array of a negative length": HEAD + array("<f8", (-1,), b""),
    "texts without length": HEAD + array("<U0", (1 << 40,), b""),
    "an invalid text": HEAD + array("<U1", (1,), b"\xff\xff\xff\x7f"),
    "a bool that is neither": HEAD + array("|b1", (1,), b"\x02"),
    "a dtype of records": HEAD + known("dtype", b"U\x01" + text("i4,O")),
    "a tensor of objects": HEAD + known("tensor", b"U\x03" + text("object") + b"U\x00" + b"B\x08" + b"A" * 8),
    "a table without columns": HEAD + known("pandas.DataFrame", b"U\x03NNN"),
    "a table of part": HEAD + known("pandas.Series", b"U\x01N"),
    "a column of numbers for texts": HEAD + known("pandas.Index", b"U\x02NU\x02" + text("str") + b"L\x01" + number(1)),
    "a config of an array": HEAD + known("config", b"U\x01" + array("|u1", (1,), b"x")),
    "a config with a key of a list": HEAD + known("config", b"U\x01M\x01U\x00N"),
    "an enum of numbers": HEAD + known("enum", b"U\x03" + number(1) * 3),
    "a record without fields": HEAD + known("record", b"U\x04" + text("dataclass") + text("os") + text("path") + b"N"),
    "an enum that is made": HEAD + known("enum", b"U\x03" + text("enum") + text("Enum") + text("X")),
    "numbers for what was not said": HEAD + b"?" + number(1) * 3,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_values_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them runs code, takes much memory or time, or ends the process.

    Each is one kind of error, also when it is shown.
    """
    called: list[Any] = []
    monkeypatch.setattr(os, "system", called.append)
    said = HOSTILE[name]
    data = said if isinstance(said, bytes) else said()
    tracemalloc.start()
    try:
        with pytest.raises(ResultNotDecoded):
            read_plain(data)
        try:
            plain_text(read_shown(data)).encode()
        except ResultNotDecoded:
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert not called
    assert peak < 4 << 20 or len(data) > 1 << 20


def test_no_host_can_read_our_memory() -> None:
    """No attribute that it chooses is set on an object, so numpy cannot be led to an address."""

    @dataclass
    class Trap:
        __array_interface__: Any = None

    interface = {"version": 3, "typestr": "|u1", "shape": (8,), "data": (id(HEAD), True)}
    for allowed in ((), (Frozen,), (Point,)):
        for kind in (Frozen, Point):
            with pytest.raises(ResultNotDecoded):
                read_plain(record("dataclass", kind, {"__array_interface__": interface}), finder_of(*allowed))
    # What cannot be had in a function's class by name is not asked for by a host either.
    with pytest.raises(ValueNotPlain, match="defined in a function"):
        back(Trap(interface))


def test_an_enum_is_not_made_by_a_host() -> None:
    """Even if `Enum` itself is allowed by mistake, no class is made: a member is looked up, and nothing is called."""
    with pytest.raises(ResultNotDecoded):
        read_plain(record("enum", enum.Enum, "__init__"), finder_of(enum.Enum))


GOOD = encode({
    "a": [1, 2.5, "x\ud800", dt.datetime(2024, 1, 2, tzinfo=dt.timezone.utc), {3}, (None, True), b"y"],
    "b": OmegaConf.create({"c": "${d}", "e": [1]}), "f": np.arange(3), "g": decimal.Decimal("1.5"), "h": object,
    "i": pd.DataFrame({"j": [1, 2], "k": ["x", "y"]}), "l": Color.RED, "m": Frozen({"n": 1}), "o": uuid.UUID(int=5),
    "p": fractions.Fraction(1, 3), "q": range(3), "r": pathlib.Path("/s"),
})  # fmt: skip


def look(data: bytes) -> None:
    """Read it in every way. The result is a value or the one kind of error."""
    for read in (lambda: read_plain(data, finder_of(Color, Frozen)), lambda: plain_text(read_shown(data)).encode()):
        try:
            read()
        except ResultNotDecoded as error:
            str(error).encode()


@settings(max_examples=examples(300), deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_arbitrary_bytes_are_one_kind_of_error(data: bytes, has_head: bool) -> None:
    """This holds with and without a correct beginning."""
    look(HEAD + data if has_head else data)


@pytest.mark.slow
@settings(max_examples=examples(150), deadline=None)
@given(st.data())
def test_damaged_values_are_one_kind_of_error(data: st.DataObject) -> None:
    """Any bytes are changed, removed or inserted."""
    bad = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(5, len(bad) - 1))
        end = at + data.draw(st.integers(0, 9))
        bad[at:end] = data.draw(st.binary(max_size=9))
    look(bytes(bad))


def mutations(seed: int, count: int) -> Iterator[bytes]:
    """Make documents from parts of valid ones and from valid nodes, lengths and names."""
    chance = random.Random(seed)
    pieces = [GOOD[at : at + chance.randint(1, 40)] for at in range(5, len(GOOD), 7)]
    pieces += [bytes((one,)) for one in b"NTFIDSBLUEZMX?"] + [length(1 << power) for power in (3, 20, 40, 63)]
    pieces += [bytes((len(name),)) + name.encode() for name in plain_value_names()]
    pieces += [said[5:300] for said in HOSTILE.values() if isinstance(said, bytes)]
    for _ in range(count):
        yield HEAD + b"".join(chance.choices(pieces, k=chance.randint(1, 12)))


def plain_value_names() -> list[str]:
    """Return the names of all kinds."""
    from launcher.serialization.plain_libraries import LIBRARY_KINDS
    from launcher.serialization.plain_values import _DICTS, _KINDS

    return sorted({*_KINDS, *_DICTS, *LIBRARY_KINDS, "config", "enum", "record"})


@pytest.mark.parametrize("seed", range(4))
def test_values_made_of_valid_parts_are_one_kind_of_error(seed: int) -> None:
    """Thousands of documents get further into the reader than random bytes."""
    for data in mutations(seed, 3000):
        look(data)


def test_the_page_has_every_kind_of_the_format() -> None:
    """docs/values.md describes everything that is written and read."""
    page = (pathlib.Path(__file__).parents[3] / "docs" / "values.md").read_text(encoding="utf-8")
    assert [name for name in plain_value_names() if f"`{name}`" not in page] == []
    for cap in (plain_value.MAX_SIZE, MAX_NODES, MAX_DEPTH, MAX_SMALL, plain_value.MAX_TEXT):
        assert f"{cap:,}" in page, cap
