"""Each message has one type, for its sender and its reader."""

from __future__ import annotations

import ast
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import remote_agent
from launcher.agents.attempt_receiver import AttemptReceiver
from launcher.agents.receiver import FrameReceiver
from remote_agent.protocol import messages, wire
from remote_agent.protocol.messages.schema import ABSENT, SCHEMA
from tests.remote_agent.stepped_agent import SteppedAgent

SOURCES = Path(remote_agent.__file__).parent.parent
#: What is answered where no run's session is.
ELSEWHERE = {
    "looked", "surveyed", "environments_listed", "compare_environment", "environment_compared", "removed", "hello", "look", "survey", "list_environments", "remove",
    "list_gpus", "gpus_listed", "list_use", "use_listed",
}  # fmt: skip
#: Said because an agent, or a controller, of an earlier version with this version of the wire needs them; people read them.
UNREAD = {
    ("hello", "controller"),
    ("hello", "host"),
    ("welcome", "hostname"),
    ("welcome", "pid"),
    ("welcome", "spool"),
    ("hook", "callback"),
    ("zygote", "zygote"),
    ("zygote", "python"),
}


def names_of(cls: type) -> tuple[str, ...]:
    """The names of the messages of a type."""
    return typing.get_args(typing.get_type_hints(cls)["t"])


def types_of(union: object) -> dict[str, type]:
    """The type of each message."""
    return {name: cls for cls in typing.get_args(union) for name in names_of(cls)}


def test_each_message_of_an_agent_has_a_reader():
    """It takes this type of message, and no other."""
    for name, cls in types_of(messages.FromAgent).items():
        if name not in ELSEWHERE:
            reader = getattr(FrameReceiver, f"_on_{name}", None) or getattr(AttemptReceiver, f"on_{name}")
            assert typing.get_type_hints(reader)["header"] is cls, name


def test_each_message_of_a_controller_has_a_reader():
    """It takes this type of message, and no other."""
    host = SteppedAgent()
    try:
        handlers = host.agent.controller.handlers
        for name, cls in types_of(messages.FromController).items():
            if name not in ELSEWHERE:
                assert typing.get_type_hints(handlers[name])["header"] is cls, name
        assert set(handlers) <= set(types_of(messages.FromController))
    finally:
        host.close()


def test_the_schema_is_made_from_the_types():
    """From their annotations, on every Python."""
    for name, cls in types_of(messages.Message).items():
        hints = typing.get_type_hints(cls)
        del hints["t"]
        assert set(SCHEMA[name]) == set(hints)
        for field, hint in hints.items():
            kinds = typing.get_args(hint) if typing.get_origin(hint) is typing.Union else (hint,)
            types = {typing.get_origin(kind) or kind for kind in kinds}
            assert set(SCHEMA[name][field][0]) == (types | {int} if float in types else types), (name, field)


def test_each_field_is_read():
    """An unread field need not be sent."""
    read = set()
    for package in ("launcher", "remote_agent"):
        for path in (SOURCES / package).rglob("*.py"):
            if "header" in path.read_text():
                for node in ast.walk(ast.parse(path.read_text())):
                    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
                        key = node.slice
                        if isinstance(key, ast.Constant) and ast.unparse(node.value) in ("header", "hello"):
                            read.add(key.value)
    for name, fields in SCHEMA.items():
        for field in fields:
            assert field in read or (name, field) in UNREAD, (name, field)


@pytest.mark.parametrize("name", sorted(ABSENT))
def test_a_field_that_an_earlier_version_left_out_gets_its_value(name):
    """A given value stays. Each empty list is a new one."""
    sample = {int: 1, str: "x", list: [], dict: {}, bool: True, type(None): None}
    needed = {field: sample[types[0]] for field, (types, required) in SCHEMA[name].items() if required}
    first, second = (wire.check({"t": name, **needed}) for _ in range(2))
    assert set(first) == {"t", *SCHEMA[name]}
    for field, value in ABSENT[name].items():
        assert isinstance(first[field], SCHEMA[name][field][0])
        if isinstance(value, type):
            assert first[field] is not second[field]
    assert wire.check(dict(first)) == first


def test_each_field_with_a_default_exists():
    """If a field is renamed, it must be renamed there, too."""
    for name, fields in ABSENT.items():
        assert set(fields) <= set(SCHEMA[name])


@pytest.mark.slow
def test_a_forgotten_field_is_a_type_error(tmp_path):
    """So is one that is misspelled or has another type, and a read of a field that the message does not have."""
    good = 'wire.encode({"t": "started", "attempt": "0.1", "slot": 0, "at": 1.0})'
    bad = [
        'wire.encode({"t": "started", "attempt": "0.1", "slot": 0})',
        'wire.encode({"t": "started", "attempt": "0.1", "slott": 0, "at": 1.0})',
        'wire.encode({"t": "started", "attempt": "0.1", "slot": "0", "at": 1.0})',
        'wire.encode({"t": "startet", "attempt": "0.1", "slot": 0, "at": 1.0})',
        'def read(header: messages.Started) -> object: return header["when"]',
        'JobSpec(num=1, attempt=1, job_id="", zygote="z", output_dir="0")',
    ]
    file = tmp_path / "messages_of_a_test.py"
    imports = "from remote_agent.protocol import wire\nfrom remote_agent.protocol import messages\n"
    file.write_text(imports + "from remote_agent.protocol.specs.job import JobSpec\n" + "\n".join([good, *bad]) + "\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--follow-imports=silent"]
    done = subprocess.run([*command, str(file)], cwd=SOURCES, capture_output=True, text=True, timeout=600, check=False)
    lines = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error: " in line}
    assert lines == set(range(5, 5 + len(bad))), done.stdout + done.stderr
