"""Questions on stdin, one after the other."""

from __future__ import annotations

import subprocess
import sys

from remote_agent.protocol import wire

_ANSWERS = """
import sys
from remote_agent.agent.answering import answer_on_stdin
from remote_agent.protocol import wire
answer = wire.encode({"t": "pythons"}, b"a" * wire.CHUNK)
sys.exit(answer_on_stdin(lambda frame: [answer] * 3 if frame.header["t"] == "list_use" else []))
"""


def test_each_question_is_answered_until_stdin_ends() -> None:
    """With several frames that fill a pipe, or with none."""
    questions = wire.encode({"t": "survey"}) + wire.encode({"t": "list_use"}) * 2
    done = subprocess.run([sys.executable, "-c", _ANSWERS], input=questions, capture_output=True, check=True)
    assert done.stdout.startswith(wire.PREAMBLE)
    answers = wire.Decoder().feed(done.stdout[len(wire.PREAMBLE) :])
    assert [(one.header["t"], len(one.payload)) for one in answers] == [("pythons", wire.CHUNK)] * 6
