"""A report: what a job says of itself while it runs (`launcher.report`), as plain data.

Rule: it is flat and small: numbers and short texts, under names. Whoever reads one from another process checks all of it.
"""

import math
import numbers
from typing import Any, Dict, NamedTuple, Optional, Union

from remote_agent.job import with_article
from remote_agent.protocol.fields import FieldError, read

__all__ = ["MAX_NAME", "MAX_TEXT", "MAX_VALUES", "Report", "Value"]

#: How many values a report has at most, and how many characters a name and a text.
MAX_VALUES = 64
MAX_NAME = 100
MAX_TEXT = 500
_MOST = 1 << 63
#: JSON has no numbers for these, so they are written as a list with the word.
_WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}

Value = Union[bool, int, float, str]


class _Written(NamedTuple):
    at: float
    step: Optional[float]
    values: Dict[str, Any]


class Report(NamedTuple):
    """One report.

    Attributes:
        step: where the job was; None if it did not say so.
        values: name -> number or text.
        at: seconds since the epoch, by the host's clock.
    """

    step: Optional[float]
    values: Dict[str, Value]
    at: float

    def to_json(self) -> Dict[str, Any]:
        """Return it as a JSON object, which `from_json` reads."""
        return {"at": self.at, "step": self.step, "values": {name: _written(one) for name, one in self.values.items()}}

    @classmethod
    def from_json(cls, data: Any) -> "Report":
        """Read a report that another process wrote.

        Raises:
            ValueError: it is not one.
        """
        found = read(_Written, "report", data, {})
        if len(found.values) > MAX_VALUES:
            raise FieldError("report", "number of values", len(found.values))
        values = {}
        for name, one in found.values.items():
            if not name or len(name) > MAX_NAME:
                raise FieldError("report", "a name", name)
            values[name] = _read(name, one)
        return cls(found.step, values, found.at)


def checked_step(step: Any) -> Optional[float]:
    """Return the step that a user gave.

    Raises:
        TypeError, ValueError: it is not a number, or not a finite one.
    """
    if step is None:
        return None
    number = checked_value("step", step)
    if isinstance(number, (bool, str)):
        raise TypeError("launcher.report: step is {}; give a number".format(with_article(type(step).__name__)))
    if number - number != 0:
        raise ValueError("launcher.report: step is {}; give a finite number".format(number))
    return number


def checked_value(name: str, value: Any) -> Value:
    """Return a value that a user gave, as plain data. Numbers of numpy and others like them become Python's.

    Raises:
        TypeError, ValueError: it is neither a number nor a short text. The message has its name.
    """
    kind = type(value)
    if kind is float or kind is bool:
        return value  # type: ignore[no-any-return]
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise ValueError("launcher.report: {} has {} characters; the most is {}".format(name, len(value), MAX_TEXT))
        return str(value)
    if isinstance(value, numbers.Integral):
        number = int(value)
        if not -_MOST <= number < _MOST:
            raise ValueError("launcher.report: {} has more than 64 bits; give a float".format(name))
        return number
    if isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(
        "launcher.report: {} is {}; give a number or a short text, such as float({})".format(
            name, with_article(kind.__name__), name
        )
    )


def check_names(values: Dict[str, Any]) -> None:
    """Check how many values there are, and their names.

    Raises:
        ValueError: there are too many, or one has no proper name.
    """
    if len(values) > MAX_VALUES:
        raise ValueError("launcher.report: {} values; the most is {}".format(len(values), MAX_VALUES))
    for name in values:
        if not 0 < len(name) <= MAX_NAME:
            raise ValueError("launcher.report: a name has 1 to {} characters: {!r}".format(MAX_NAME, name[:200]))


def _written(value: Value) -> Any:
    if isinstance(value, float) and value - value != 0:
        return [str(value)]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value


def _read(name: str, written: Any) -> Value:
    kind = type(written)
    if kind is list and len(written) == 1 and type(written[0]) is str and written[0] in _WORDS:
        return _WORDS[written[0]]
    if kind is str and len(written) <= 10 * MAX_TEXT:
        return written  # type: ignore[no-any-return]
    if kind is bool or (kind is int and -_MOST <= written < _MOST) or (kind is float and written - written == 0):
        return written  # type: ignore[no-any-return]
    raise FieldError("report", "value {!r}".format(name), written)
