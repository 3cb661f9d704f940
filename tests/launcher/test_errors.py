"""The tree of exceptions: exit codes, names of options, and errors that are sent between processes and stay what they are."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from launcher import errors
from launcher.errors import (
    AgentError,
    ConfigError,
    HostBroken,
    HostError,
    JournalMoved,
    LauncherError,
    ResultNotDecoded,
    RunAborted,
    RunDetached,
    RunError,
    RunInterrupted,
    SessionError,
    UsageError,
    ValueNotPlain,
)

ALL = [one for one in vars(errors).values() if inspect.isclass(one) and issubclass(one, LauncherError)]


def test_the_tree_in_the_docstring_is_that_of_the_classes():
    """Each class stands there, below its base."""
    assert errors.__doc__ is not None
    path: list[str] = []
    told = {}
    for line in errors.__doc__.splitlines():
        found = re.match(r"^    ((?:\|   |    )*)(\+-- )?([A-Z]\w+)", line)
        if found is None or not hasattr(errors, found[3]):
            continue
        depth = len(found[1]) // 4 + bool(found[2])
        told[found[3]] = path[depth - 1] if depth else None
        path[depth:] = [found[3]]
    real = {one.__name__: next((base.__name__ for base in one.__bases__ if base in ALL), None) for one in ALL}
    assert told == real
    assert set(real) <= set(errors.__all__)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LauncherError, 1),
        (UsageError, 2),
        (ConfigError, 2),
        (HostError, 3),
        (HostBroken, 3),
        (JournalMoved, 1),
        (ResultNotDecoded, 1),
        (RunError, 2),
        (RunInterrupted, 130),
        (RunDetached, 0),
        (RunAborted, 1),
        (SessionError, 1),
    ],
)
def test_exit_codes(error, code):
    """Those that the documentation has."""
    assert error.exit_code == code


def test_an_error_about_an_option_gets_the_name_that_its_user_knows():
    """The rest of the message stays; an error about no option is itself."""
    error = ConfigError.of_option("on_error.upload", ": no")
    assert (str(error), error.option) == ("on_error.upload: no", "on_error.upload")
    named = error.named("--on-error")
    assert (str(named), type(named)) == ("--on-error: no", ConfigError)
    other = UsageError("no such file")
    assert other.named("--x") is other


def test_an_error_of_a_host_names_host_phase_and_next_step():
    """What a host says of itself is cleaned. Under the heading of its own host its name is not repeated."""
    error = AgentError("gpu1", "start agent", "\x1b[31mno room\x07", "free some")
    assert str(error) == "gpu1: start agent: no room\\x07\n  next: free some"
    assert str(HostError("gpu1", "connect", "refused")) == "gpu1: connect: refused"
    assert error.message_of("gpu1") == "no room\\x07"
    assert error.message_of("behind") == "gpu1: no room\\x07"


@pytest.mark.parametrize(
    "error",
    [
        HostBroken("gpu1", "session", "too much", "look"),
        ValueNotPlain("Net", "it is a class", "Net()", "['a']", "allow it", "the config"),
        ConfigError("no"),
        RunInterrupted("Ctrl-C", is_terminated=False),
    ],
)
def test_errors_can_be_sent(error):
    """Their pickles, as a pool of processes makes them, come back as the same error."""
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.__dict__) == (type(error), str(error), error.__dict__)


def test_what_is_not_plain_is_named_with_its_place():
    """It can be told of a part of a value, and of what was being read."""
    error = ValueNotPlain("Net", "it is a class", "", "[0]")
    assert str(error).startswith("the value, at value[0], cannot be represented as plain data: a Net")
    deeper = error.within("['model']")
    assert deeper.place == "['model'][0]"
    told = deeper.told_of("the config", "open it with trusted")
    assert str(told).startswith("the config, at value['model'][0],")
    assert str(told).endswith("\n  next: open it with trusted")
    assert told.told_of("x", "another").next_step == "open it with trusted"


def test_who_catches_what_python_has_catches_ours():
    """Ctrl-C is a KeyboardInterrupt, and a session that is closed a RuntimeError, as of an executor."""
    assert issubclass(RunInterrupted, KeyboardInterrupt)
    assert issubclass(SessionError, RuntimeError)
