"""What goes from one process to another is made whole, read whole, and refused by the name of a field."""

from __future__ import annotations

import ast
import functools
import json
from pathlib import Path
from typing import Any

import pytest

import remote_agent
from remote_agent.job import JobError
from remote_agent.shared import envelope, job_spec, zygote_spec
from remote_agent.shared.envelope import Envelope
from remote_agent.shared.fields import FieldError
from remote_agent.shared.job_spec import EpilogueSpec, ForkSpec, JobSpec
from remote_agent.shared.zygote_spec import ControllerFacts, ZygoteSpec

SOURCES = Path(remote_agent.__file__).parent.parent
HOOK = {"hook": "on_job_start", "callback": "c", "ok": True, "error": None, "on_error": "warn"}
ERROR = JobError("killed", "SIGKILL", "killed by SIGKILL", "Traceback ...", signal=9, causes=[{"type": "E"}])
JOB = JobSpec(3, 2, "r#3", "z1", "3", 1.5, 10, 20.0, 30.0, ["*.pt"], 1 << 20)
FAILED = Envelope("FAILED", ERROR, 1.5, 3, 1.5, "app", [HOOK], {"hash": "abc", "dirty": False}, "c")
DONE = Envelope("COMPLETED", None, None, None, None, None, [], {}, None)
FORK = ForkSpec(JOB, {"CUDA_VISIBLE_DEVICES": "GPU-1", "GONE": None}, "/spool", "")
EPILOGUE = EpilogueSpec(FORK, [["on_job_start", 0]], FAILED, False, {}, "", "/spool/state")
FACTS = ControllerFacts([3, 11], True, ["f"], "2.3.0", "1.3.2", [3, 9], "3.1.0")
ZYGOTE = ZygoteSpec(
    ["src"], ".", "auto", "my_app", FACTS, ["my_app.py", "x=1"], True, False, "gpu1", {"hash": "a"}, {"TOKEN": "secret"}, ["ml x"],
    "python3.9", "0" * 64, "plain", "1" * 64, True, None, "", 0o022,
)  # fmt: skip
SAMPLES = [JOB, JOB._replace(attempt=0, timeout=None, outputs=False), FAILED, DONE, FORK, EPILOGUE, FACTS, ZYGOTE]
#: Class -> what is read where it is missing, since an earlier version did not say it.
ABSENT: dict[type, dict[str, Any]] = {
    JobSpec: job_spec._EARLIER,
    Envelope: envelope._ABSENT,
    ForkSpec: {},
    EpilogueSpec: {},
    ControllerFacts: {"values": list, "family_python": list},
    ZygoteSpec: zygote_spec._EARLIER,
}


def through_json(sample: Any) -> dict[str, Any]:
    """As it comes to the other side."""
    return json.loads(json.dumps(sample.to_json()))


def fields() -> list[Any]:
    """Each field of each class, with a sample."""
    last = {type(sample): sample for sample in SAMPLES}
    return [
        pytest.param(sample, name, id=f"{cls.__name__}-{name}") for cls, sample in last.items() for name in cls._fields
    ]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_what_is_written_is_read(sample):
    """As it was, also from a later version, which says more."""
    data = through_json(sample)
    assert type(sample).from_json({**data, "of a later version": 1}) == sample


@pytest.mark.parametrize(("sample", "name"), fields())
def test_each_field_is_needed(sample, name):
    """What is missing is refused by name; what an earlier version did not say is what that stood for."""
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
def test_each_field_is_of_its_type(sample, name):
    """Whatever else a host says, or a controller, is refused, and the field named."""
    cls = type(sample)
    refused = 0
    for value in ({"a": [1]}, [[]], "text", 7, 1.5, 1e400, True, None):
        try:
            made = cls.from_json({**through_json(sample), name: value})
        except ValueError as error:
            refused += 1
            told = str(error)
            assert "[1]" not in told
            assert name in told or "error" in told or "attempt" in told, told
        else:
            assert made.to_json()[name] == value
    assert refused >= 3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"attempt_id": "3.1"}, "attempt_id"),
        ({"attempt_id": "\u0663.2"}, "attempt_id"),
        ({"attempt_id": "../../x"}, "attempt_id"),
        ({"num": -3, "attempt_id": "-3.2"}, "attempt_id"),
        ({"attempt": True, "attempt_id": "3.True"}, "attempt is True"),
        ({"output_dir": "a\0b"}, "output_dir"),
        ({"zygote": "a\0b"}, "zygote"),
        ({"timeout": -1}, "timeout"),
        ({"grace": None}, "grace is None"),
        ({"hook_timeout": float("nan")}, "hook_timeout"),
        ({"shutdown_timeout": "x"}, "shutdown_timeout is 'x'"),
        ({"outputs": [5]}, "outputs"),
        ({"max_output_bytes": 1.5}, "max_output_bytes"),
        ({"output_dir": 5}, "output_dir is 5"),
    ],
)
def test_a_job_that_is_none_is_refused(change, named):
    """A name becomes a file's name on the host, a number a limit."""
    with pytest.raises(FieldError, match=f"job: .*{named}"):
        JobSpec.from_json({**through_json(JOB), **change})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"status": "UNKNOWN"}, "status is 'UNKNOWN'"),
        ({"status": None}, "status"),
        ({"error": None}, "error of a FAILED job"),
        ({"status": "COMPLETED"}, "error of a COMPLETED job"),
        ({"error": {"kind": "none"}}, "kind"),
        ({"error": "text"}, "error"),
        ({"error": {"kind": "killed", "signal": "9"}}, "signal"),
        ({"duration": -1}, "duration is -1"),
        ({"duration": "1"}, "duration"),
        ({"started_at": float("inf")}, "started_at"),
        ({"hooks": [1]}, "hooks"),
        ({"hooks": {}}, "hooks"),
        ({"abort": {}}, "abort"),
        ({"task_name": 3}, "task_name"),
        ({"code": []}, "code"),
    ],
)
def test_an_envelope_that_is_none_is_refused(change, named):
    """It decides what became of a job, and comes from a process of a user."""
    with pytest.raises(ValueError, match=named):
        Envelope.from_json({**through_json(FAILED), **change})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"environ": {"TOKEN": 5}}, "environ is of type dict"),
        ({"environ": "text"}, "environ"),
        ({"setup": None}, "setup"),
        ({"sys_path": [5]}, "sys_path"),
        ({"shared": "../x"}, "shared"),
        ({"code_blob": "../x"}, "code_blob"),
        ({"controller": {}}, "controller: python is missing"),
        ({"controller": None}, "controller is None"),
        ({"umask": True}, "umask"),
    ],
)
def test_a_preparation_that_is_none_is_refused(change, named):
    """Before it is kept; and no value of a variable is in the message."""
    with pytest.raises(FieldError, match=named) as caught:
        ZygoteSpec.from_json({**through_json(ZYGOTE), **change})
    assert "secret" not in str(caught.value)


def test_no_value_of_a_variable_is_in_a_journal():
    """Their names are; whoever takes the run up has the values."""
    data = json.loads(json.dumps(ZYGOTE.to_journal()))
    assert "secret" not in json.dumps(data)
    assert data["environ"] == ["TOKEN"]
    assert ZygoteSpec.from_journal(data) == ZYGOTE._replace(environ={})


@pytest.mark.parametrize("data", [None, [], 5, "{}"])
def test_what_is_no_object_is_refused(data):
    """By all of them."""
    for cls in ABSENT:
        with pytest.raises(FieldError):
            cls.from_json(data)


def test_what_is_refused_is_told_in_short():
    """A host may say as much as a frame holds."""
    with pytest.raises(FieldError) as caught:
        Envelope.from_json({**through_json(DONE), "abort": ["x"] * 10_000})
    assert len(str(caught.value)) < 300


#: As version 0.1's first journals and spools have them.
EARLIER_JOB = (
    '{"num": 1, "job_id": "r#1", "zygote": "z1", "output_dir": "1", "timeout": null, "grace": 10.0, "hook_timeout": 300.0, '
    '"outputs": ["*.pt"], "max_output_bytes": 67108864}'
)
EARLIER_ZYGOTE = (
    '{"sys_path": ["."], "cwd": ".", "isolation": "auto", "main_module": "my_app", "controller": {"python": [3, 11], "by_value": false, '
    '"values": [], "omegaconf": "2.3.0", "hydra": null, "cloudpickle": "3.1.0"}, "argv": ["my_app.py"], "run": "r", "host": "h", '
    '"code": {}, "environ": ["TOKEN"], "setup": [], "python": null, "shared": "'
    + "0" * 64
    + '", "code_blob": "'
    + "1" * 64
    + '"}'
)
EARLIER_ENVELOPE = (
    '{"status": "FAILED", "error": {"kind": "exited", "type": "exit", "message": "m", "exit_code": 3, "causes": []}, "started_at": 1.5, '
    '"ended_at": 2.5, "duration": 1.0, "working_dir": "/w", "output_dir": "/o", "task_name": "app", "overrides": ["x=1"], "hooks": [], '
    '"code": {}, "python": "3.8.18", "pid": 77, "abort": null}'
)


def test_what_an_earlier_version_stored_is_read():
    """A run that it began is taken up by this one."""
    spec = JobSpec.from_journal(json.loads(EARLIER_JOB))
    assert (spec.attempt_id, spec.outputs, spec.shutdown_timeout) == ("1.0", ["*.pt"], 300.0)
    sent = {**json.loads(EARLIER_JOB), "attempt_id": "1.2", "attempt": 2}
    assert JobSpec.from_json(sent) == spec._replace(attempt=2)
    told = ZygoteSpec.from_journal(json.loads(EARLIER_ZYGOTE))
    assert (told.values, told.command.argv, told.controller.family_python) == ("", ["my_app.py"], [])
    stored = Envelope.from_json(json.loads(EARLIER_ENVELOPE))
    assert (stored.error.exit_code, stored.duration, stored.task_name) == (3, 1.0, "app")


def test_what_this_version_stores_an_earlier_one_can_send():
    """It puts the attempt into the spec of a queued job, and reads nothing else of it."""
    assert {"num", "job_id", "zygote", "output_dir", "timeout", "grace", "hook_timeout", "outputs"} <= set(
        JOB.to_json()
    )


#: Class -> what holds one, and so may read it.
HOLDERS = {JobSpec: ("Attempt", "QueuedJob", "ForkSpec"), ControllerFacts: ("ZygoteSpec", "controller.")}


@functools.lru_cache(maxsize=1)
def _sources() -> list[tuple[str, set[str]]]:
    """Each source with the attributes that it reads."""
    found = []
    for package in ("launcher", "remote_agent"):
        for path in (SOURCES / package).rglob("*.py"):
            text = path.read_text()
            nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)]
            found.append((text, {node.attr for node in nodes if isinstance(node.ctx, ast.Load)}))
    return found


@pytest.mark.parametrize("cls", list(ABSENT), ids=lambda cls: cls.__name__)
def test_each_field_is_read_by_somebody(cls):
    """What nobody reads is not said."""
    names = (cls.__name__, *HOLDERS.get(cls, ()))
    read = set().union(*(attributes for text, attributes in _sources() if any(name in text for name in names)))
    assert set(cls._fields) <= read
