"""Runs one job in the foreground, with a debugger if it fails: `python -m remote_agent.debugger FOLDER`.

Rule: this is the same job that hosts run, prepared in the same way. It has the terminal, and reports to nobody.

FOLDER has `spec.json` (`{"zygote", "job"}`), `shared` and `payload`, as an agent would have them. The outcome is
written there as `outcome.json` (`{"envelope", "parts"}`) and `result`, the payload.
"""

import json
import os
import pdb  # noqa: T100 - this is the debugger
import sys
from typing import Any, Dict, List, Optional, cast

from remote_agent.job import JobError
from remote_agent.job_process.run import JobRun
from remote_agent.protocol import wire
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.messages import FromJob
from remote_agent.protocol.result_parts import NO_PARTS, ResultParts
from remote_agent.protocol.specs.job import ForkSpec
from remote_agent.protocol.specs.zygote import ZygoteSpec
from remote_agent.shared.failure import traceback_text
from remote_agent.zygote.imports.prepare import Unusable, as_unusable, prepare

__all__ = ["main"]


class _ResultKeeper:
    """Takes the job's frames. It keeps only the last result."""

    def __init__(self) -> None:
        self.envelope: Dict[str, Any] = {}
        self.parts = NO_PARTS
        self.payload = b""

    def send(self, header: FromJob, payload: bytes = b"", *, sync: bool = False) -> None:
        """Keep a result."""
        if header["t"] == "outcome" or header["t"] == "done":
            self.envelope = header["envelope"]
            parts = ResultParts.from_json(header["parts"])
            if not parts.same:
                self.parts, self.payload = parts, payload

    def hold(self, frame: bytes, *, file: str = "") -> None:
        """Like `send`, for an encoded frame."""
        self.send_all([frame])

    def send_all(self, frames: List[bytes], *, sync: bool = False, file: str = "") -> None:
        """Like `send`, for encoded frames."""
        decoder = wire.Decoder()
        for data in frames:
            for frame in decoder.feed(data):
                self.send(cast("FromJob", frame.header), frame.payload)

    def end_reason(self) -> str:
        """Return nothing: no agent ends this job."""
        return ""

    def result(self) -> bytes:
        """Return the payload with the parts."""
        if self.parts.file:
            with open(self.parts.file, "rb") as file:
                return file.read()
        return self.payload


class _Debugged(JobRun):
    """A job that starts the debugger where it fails."""

    def fail(self, error: JobError, exception: Optional[BaseException] = None) -> None:
        """Open the debugger where it raised, while the frames still exist."""
        super().fail(error, exception)
        if exception is not None and exception.__traceback__ is not None:
            sys.stderr.write(traceback_text(exception))
            pdb.post_mortem(exception.__traceback__)


def main(folder: str) -> int:
    """Run the job. Returns 0 even if it fails."""
    with open(os.path.join(folder, "spec.json"), encoding="utf-8") as file:
        spec = json.load(file)
    contents = {}
    for name in ("shared", "payload"):
        with open(os.path.join(folder, name), "rb") as content:
            contents[name] = content.read()
    bundle = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    try:
        prepared = prepare(ZygoteSpec.from_json(spec["zygote"]), contents["shared"], bundle)
    except BaseException as error:  # noqa: BLE001 - whatever importing the application raises
        failure = error if isinstance(error, Unusable) else as_unusable(error)
        sys.stderr.write(traceback_text(error))
        if error.__traceback__ is not None:
            pdb.post_mortem(error.__traceback__)
        _write_result(folder, Envelope.of_failure(failure.error).to_json(), NO_PARTS, b"")
        return 0
    sink = _ResultKeeper()
    _Debugged(prepared, ForkSpec.from_json(spec["job"]), contents["payload"], sink).run()
    _write_result(folder, sink.envelope, sink.parts, sink.result())
    return 0


def _write_result(folder: str, envelope: Dict[str, Any], parts: ResultParts, result: bytes) -> None:
    with open(os.path.join(folder, "result"), "wb") as file:
        file.write(result)
    with open(os.path.join(folder, "outcome.json"), "w", encoding="utf-8") as text:
        json.dump({"envelope": envelope, "parts": parts.to_json()}, text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
