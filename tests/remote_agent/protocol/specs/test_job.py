"""All of a job's spec is checked, because a name in it becomes a file name, and a number a limit."""

from __future__ import annotations

import pytest

from remote_agent.protocol.fields import FieldError
from remote_agent.protocol.specs.job import JobSpec
from tests.remote_agent.protocol.samples import (
    JOB,
    through_json,
)


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
def test_an_invalid_spec_is_refused(change, named):
    """A name becomes a file name on the host, and a number a limit."""
    with pytest.raises(FieldError, match=f"job: .*{named}"):
        JobSpec.from_json({**through_json(JOB), **change})
