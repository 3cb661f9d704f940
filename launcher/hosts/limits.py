"""How much a host may send: all caps on what comes from a host, in one table.

Rule: code that takes something from a host calls `check`, or cuts to the cap's limit. A new message or field gets a line here, a line in
`docs/security.md`, and a test (`tests/launcher/hosts/test_limits.py` compares these three). A host that exceeds a cap that is not simply
cut is given up by name, and no other host is.
"""

from __future__ import annotations

from typing import NamedTuple

from remote_agent.protocol import wire

__all__ = ["CAPS", "Cap", "TooMuch", "check", "limit"]


class Cap(NamedTuple):
    """A cap.

    Attributes:
        limit: the largest number, or the largest number of bytes.
        of: what is counted, for a message, after the number.
        then: what happens beyond it: `cut`, `refused` (only that thing, by name), `waits`, or `given up` (the host).
    """

    limit: int
    of: str
    then: str


CAPS: dict[str, Cap] = {
    # Frames.
    "header": Cap(wire.MAX_HEADER + wire.HEADER_ROOM, "bytes of a frame's header", "given up"),
    "payload": Cap(wire.MAX_PAYLOAD, "bytes of a frame's payload", "given up"),
    "depth": Cap(wire.MAX_DEPTH, "levels in a frame's header", "given up"),
    "noise": Cap(wire.MAX_NOISE, "bytes before the agent's first message", "given up"),
    "waiting": Cap(64 << 20, "bytes of facts that wait for a decision", "waits"),
    "hosts_share": Cap(8, "shares of the queue, of which one host may fill one", "waits"),
    "replies": Cap(1000, "answers that the host has not read", "given up"),
    "breaches": Cap(3, "links in a row that break the protocol, with no result between them", "given up"),
    "stderr": Cap(64 << 10, "bytes of stderr that are kept", "cut"),
    # The host.
    "attempts": Cap(500_000, "attempts in a welcome", "given up"),
    "welcome_frames": Cap(10_000, "frames of a welcome", "given up"),
    "slots": Cap(10_000, "slots", "given up"),
    "gpus": Cap(1024, "GPUs", "cut"),
    "gpu_processes": Cap(100, "processes of a GPU", "cut"),
    "runs": Cap(100, "runs that a host says it has", "cut"),
    "jobs_shown": Cap(200, "running jobs of a run that a host names", "cut"),
    "name": Cap(200, "characters of a name or version", "cut"),
    "text": Cap(1 << 14, "characters of a note, or of a hook's message and traceback", "cut"),
    "reason": Cap(1000, "characters of a reason", "cut"),
    "notes": Cap(200, "different notes and warnings of a host in a run", "cut"),
    "zygotes": Cap(1000, "reports of a prepared application on a link", "given up"),
    "packages": Cap(1000, "packages that an import loads", "cut"),
    "environment": Cap(1_000_000, "messages about an environment on a link", "given up"),
    "asked": Cap(16, "times that all of the code is requested again on a link", "given up"),
    # Jobs.
    "given_back": Cap(100, "times that a job is given back unstarted", "given up"),
    "reports": Cap(50_000, "reports of a job that are kept", "cut"),
    "reports_at_once": Cap(1000, "reports in a message", "given up"),
    "hooks": Cap(1000, "hooks of a job", "given up"),
    "causes": Cap(100, "causes of an error", "cut"),
    "error": Cap(1 << 18, "characters of an error's message, and of its traceback", "cut"),
    "result": Cap(1 << 38, "bytes of a result", "given up"),
    "open_results": Cap(64, "long results that have begun and are not complete", "given up"),
    # Files.
    "files": Cap(100_000, "output files of a job", "refused"),
    "bytes": Cap(1 << 40, "bytes of output files of a job, with their holes", "refused"),
    "unfinished": Cap(16, "output files of a job that have begun and are not complete", "refused"),
    "open_folders": Cap(32, "output directories that are held open", "waits"),
    "synced": Cap(10_000, "files and folders of a job that come while it runs", "waits"),
    "file_name": Cap(255, "bytes of a name", "refused"),
    "file_path": Cap(4000, "characters of a path", "refused"),
    "file_depth": Cap(64, "nested folders", "refused"),
    "stream_offset": Cap(1 << 40, "bytes from the start of stdout or stderr", "given up"),
    "refused": Cap(1000, "refused files of a job that are kept by name", "cut"),
    "unmatched": Cap(1000, "output patterns without a file", "cut"),
    # Answers to `show`, `logs` and `clean`.
    "answer": Cap(64 << 20, "bytes of an answer", "refused"),
    "answer_frames": Cap(100_000, "frames of an answer", "refused"),
    "answer_silence": Cap(600, "seconds without any part of an answer", "refused"),
}


class TooMuch(wire.ProtocolError):
    """A host exceeded a cap, which our agent never does, so it is not asked again."""

    def __init__(self, name: str, number: int) -> None:
        cap = CAPS[name]
        super().__init__("cap", f"{number:,} {cap.of}; the limit is {cap.limit:,} (see docs/security.md)")


def limit(name: str) -> int:
    """Return a cap's limit."""
    return CAPS[name].limit


def check(name: str, number: int) -> None:
    """Refuse a number over a cap.

    Raises:
        TooMuch: the number is above the limit.
    """
    if number > CAPS[name].limit:
        raise TooMuch(name, number)
