"""The host's side of plain data: one encoding under every Python, and no exception of a user's class."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.serialization.plain_values import read_plain
from remote_agent.job_process.pickles.result import make_result
from remote_agent.protocol.result_parts import NO_PARTS, PICKLED, PLAIN
from remote_agent.shared.plain_value import MAX_SMALL, encode
from tests.requirements import need_python

ROOT = Path(__file__).parents[3]

MAKE = """
import collections, datetime as dt, decimal, enum, fractions, pathlib, sys, uuid
from dataclasses import dataclass
from remote_agent.shared.plain_value import encode


class Color(enum.Enum):
    RED = 1


@dataclass
class Point:
    x: int


Color.__module__ = Point.__module__ = "app"
value = [
    None, True, -1, 10 ** 40, 0.5, "\\ud800\\u00e9", b"x", (1,), {"a": {2}}, frozenset([3]), 1j, bytearray(b"y"), range(3),
    slice(1), dt.date(2024, 1, 2), dt.datetime(2024, 1, 2, tzinfo=dt.timezone.utc), dt.timedelta(1), decimal.Decimal("1.50"),
    fractions.Fraction(1, 3), uuid.UUID(int=7), pathlib.Path("/a"), collections.OrderedDict(a=1), collections.deque([1], 2),
    collections.Counter("aa"), Color.RED, Point(1), print, {"deep": [[[]]]},
]
"""


def test_the_encoder_imports_nothing() -> None:
    """Neither for itself, nor for a value. A user's class that claims to be numpy's does not count as numpy's."""
    script = """
import sys
from remote_agent.shared.plain_value import encode
for name in ("numpy", "pandas", "torch", "omegaconf", "decimal", "uuid", "fractions", "zoneinfo"):
    assert name not in sys.modules, name
class ndarray: pass
ndarray.__module__ = "numpy"
class Decimal: pass
Decimal.__module__ = "decimal"
for value in ([1, {"a": 2.5}], ndarray(), Decimal(), object()):
    encode(value)
print(sorted({"numpy", "pandas", "torch", "omegaconf", "decimal", "uuid", "fractions", "zoneinfo"} & set(sys.modules)))
"""
    command = [sys.executable, "-S", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.pythons
@pytest.mark.parametrize("version", ["3.8", "3.13"])
def test_other_pythons_write_the_same_bytes(version: str) -> None:
    """Byte for byte."""
    told = []
    for python in (need_python(version), sys.executable):
        command = [python, "-S", "-c", f"{MAKE}\nsys.stdout.buffer.write(encode(value))"]
        told.append(subprocess.run(command, capture_output=True, check=True, cwd=ROOT).stdout)
    assert told[0] == told[1]


def _parts(value, **more):
    result, failure = make_result(str, value, is_completed=True, may_send_code=False, **more)
    assert failure is None
    pieces = {
        name: result.payload[part.offset : part.offset + part.size] for name, part in result.parts.by_name.items()
    }
    return result.parts.codec, pieces


@pytest.mark.parametrize("value", [None, 3, {"loss": 0.5}, "x" * 1000])
def test_a_pickle_comes_with_its_plain_form(value) -> None:
    """So that nobody has to open it to show the value."""
    codec, pieces = _parts(value)
    assert codec == PICKLED
    assert read_plain(pieces["plain"]) == value
    assert sorted(pieces) == ["plain", "value"]


@pytest.mark.parametrize("value", [None, 3, {"loss": 0.5}])
def test_nothing_is_pickled_if_plain_data_was_requested(value, monkeypatch) -> None:
    """The value and edited configs are encoded. No exception is sent."""
    monkeypatch.setattr("pickle.Pickler", None)
    codec, pieces = _parts(value, codec=PLAIN, cfg={"a": 1})
    assert codec == PLAIN
    assert {name: read_plain(data) for name, data in pieces.items()} == {"value": value, "cfg": {"a": 1}}
    result, failure = make_result(str, ValueError("x"), is_completed=False, may_send_code=False, codec=PLAIN)
    assert (failure, result.parts, result.payload) == (None, NO_PARTS._replace(codec=PLAIN), b"")


def test_a_long_value_comes_with_its_type() -> None:
    """In both encodings, for commands that show it."""
    for codec in (PICKLED, PLAIN):
        _, pieces = _parts(list(range(MAX_SMALL)), codec=codec)
        assert len(pieces["plain"]) < 200
        assert b"65,536 long" in pieces["plain"]


class Property:
    """A dataclass whose fields raise."""

    __dataclass_fields__ = property(len)

    @property
    def __dict__(self):
        raise SystemExit(3)

    def __getattribute__(self, name):
        raise SystemExit(4)

    def __repr__(self):
        raise KeyboardInterrupt


def test_a_value_that_raises_gets_a_placeholder() -> None:
    """No exception of a user's class leaves the encoder, and the other parts are encoded."""
    data = encode([1, Property(), {"a": Property()}, 2])
    assert data[:3] == b"RLV"
    assert json.dumps(data.decode("latin-1")).count("Property") >= 2
    result, failure = make_result(str, Property(), is_completed=True, may_send_code=False, codec=PLAIN)
    assert failure is None
    assert result.payload
