"""Objects that go from one process to another are written and read completely, or refused with the name of a field."""

from __future__ import annotations

import ast
import functools
import json
from pathlib import Path
from typing import Any

import pytest

import remote_agent
from remote_agent.protocol import envelope
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.fields import FieldError
from remote_agent.protocol.result_parts import NO_PARTS
from remote_agent.protocol.specs import job as job_spec
from remote_agent.protocol.specs import zygote as zygote_spec
from remote_agent.protocol.specs.job import EpilogueSpec, ForkSpec, JobSpec
from remote_agent.protocol.specs.resources import Resources
from remote_agent.protocol.specs.zygote import ControllerFacts, ZygoteSpec
from tests.remote_agent.protocol.samples import (
    DONE,
    EARLIER_ENVELOPE,
    EARLIER_JOB,
    EARLIER_ZYGOTE,
    EPILOGUE,
    FACTS,
    FAILED,
    FORK,
    JOB,
    ZYGOTE,
    through_json,
)

SOURCES = Path(remote_agent.__file__).parent.parent

SAMPLES = [JOB, JOB._replace(attempt=0, timeout=None, outputs=False), FAILED, DONE, FORK, EPILOGUE, FACTS, ZYGOTE]
#: Class -> what is read where it is missing, since an earlier version did not say it.
ABSENT: dict[type, dict[str, Any]] = {
    JobSpec: job_spec._EARLIER,
    Envelope: envelope._ABSENT,
    ForkSpec: {"threads": 0},
    EpilogueSpec: {},
    ControllerFacts: {"values": list, "family_python": list},
    ZygoteSpec: zygote_spec._EARLIER,
}


def fields() -> list[Any]:
    """Each field of each class, with a sample."""
    last = {type(sample): sample for sample in SAMPLES}
    return [
        pytest.param(sample, name, id=f"{cls.__name__}-{name}") for cls, sample in last.items() for name in cls._fields
    ]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_an_object_can_be_read_back(sample):
    """Unchanged, even from a later version with more fields."""
    data = through_json(sample)
    assert type(sample).from_json({**data, "of a later version": 1}) == sample


@pytest.mark.parametrize(("sample", "name"), fields())
def test_each_field_is_required(sample, name):
    """The error names a missing field. A field that an earlier version did not have gets its value."""
    cls = type(sample)
    data = through_json(sample)
    del data[name]
    if name not in ABSENT[cls]:
        with pytest.raises(FieldError, match=f"{name}|attempt_id"):
            cls.from_json(data)
        return
    if cls is Envelope:
        data["status"], data["error"] = "COMPLETED", None
    default = ABSENT[cls][name]
    assert getattr(cls.from_json(data), name) == (default() if isinstance(default, type) else default)


@pytest.mark.parametrize(("sample", "name"), fields())
def test_each_field_must_have_its_type(sample, name):
    """Anything else from a host or a controller is refused, and the error names the field."""
    cls = type(sample)
    refused = 0
    for value in ({"a": [1]}, [[]], "text", 7, 1.5, 1e400, True, None):
        try:
            made = cls.from_json({**through_json(sample), name: value})
        except ValueError as error:
            refused += 1
            told = str(error)
            assert "[1]" not in told
            assert any(word in told for word in (name, "error", "attempt", "resources")), told
        else:
            # Parts and numbers that are not known are ignored.
            known = made.to_json()[name]
            assert (
                known == value
                or name == "resources_used"
                or (NO_PARTS if name == "parts" else Resources(0, 0, 0)).to_json() == known
            )
    assert refused >= 3


@pytest.mark.parametrize("data", [None, [], 5, "{}"])
def test_what_is_no_object_is_refused(data):
    """By all classes."""
    for cls in ABSENT:
        with pytest.raises(FieldError):
            cls.from_json(data)


def test_the_error_shows_only_a_part_of_a_refused_value():
    """A host may send as much as fits into a frame."""
    with pytest.raises(FieldError) as caught:
        Envelope.from_json({**through_json(DONE), "abort": ["x"] * 10_000})
    assert len(str(caught.value)) < 300


def test_objects_of_an_earlier_version_can_be_read():
    """So this version can resume its runs."""
    spec = JobSpec.from_journal(json.loads(EARLIER_JOB))
    assert (spec.attempt_id, spec.outputs, spec.shutdown_timeout) == ("1.0", ["*.pt"], 300.0)
    sent = {**json.loads(EARLIER_JOB), "attempt_id": "1.2", "attempt": 2}
    assert JobSpec.from_json(sent) == spec._replace(attempt=2)
    told = ZygoteSpec.from_journal(json.loads(EARLIER_ZYGOTE))
    assert (told.values, told.command.argv, told.controller.family_python) == ("", ["my_app.py"], [])
    stored = Envelope.from_json(json.loads(EARLIER_ENVELOPE))
    assert (stored.error.exit_code, stored.duration, stored.task_name) == (3, 1.0, "app")


def test_an_earlier_version_can_send_what_this_one_stores():
    """It puts the attempt into the spec of a queued job, and reads nothing else of it."""
    assert {"num", "job_id", "zygote", "output_dir", "timeout", "grace", "hook_timeout", "outputs"} <= set(
        JOB.to_json()
    )


#: Class -> what holds one, and so may read it.
HOLDERS = {JobSpec: ("Attempt", "QueuedJob", "ForkSpec"), ControllerFacts: ("ZygoteSpec", "controller.")}


@functools.lru_cache(maxsize=1)
def _sources() -> list[tuple[str, set[str]]]:
    """Each source that may hold an object of ours, with the attributes that it reads."""
    names = [*(cls.__name__ for cls in ABSENT), *(name for held in HOLDERS.values() for name in held)]
    found = []
    for package in ("launcher", "remote_agent"):
        for path in (SOURCES / package).rglob("*.py"):
            text = path.read_text()
            if not any(name in text for name in names):
                continue
            nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)]
            found.append((text, {node.attr for node in nodes if isinstance(node.ctx, ast.Load)}))
    return found


@pytest.mark.parametrize("cls", list(ABSENT), ids=lambda cls: cls.__name__)
def test_each_field_is_read_somewhere(cls):
    """An unread field need not be sent."""
    names = (cls.__name__, *HOLDERS.get(cls, ()))
    read = set().union(*(attributes for text, attributes in _sources() if any(name in text for name in names)))
    assert set(cls._fields) <= read
