"""Receives an agent's messages about attempts over one link. It writes results and output to files, and makes checked
facts.

Rule: an error in a result or file affects only that one, and is shown. If something cannot be written now, the link
ends. If it can never be written, the job fails.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import math
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launcher.agents import facts
from launcher.agents.checks import check_attempt, shortened
from launcher.agents.plan import HostPlan
from launcher.hosts.limits import check, limit
from launcher.results.output_folder import OutputFolder
from launcher.results.writing import UnusableFolder
from launcher.runs.result_file import ResultFile, payload_digest, whole, wrong_parts
from launcher.util.text.terminal_text import clean, clean_line
from remote_agent.job import JobError
from remote_agent.protocol import messages, wire
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.fields import FieldError
from remote_agent.protocol.report import Report
from remote_agent.protocol.result_parts import NO_PARTS, ResultParts
from remote_agent.protocol.specs.held import HeldFile

__all__ = ["AttemptReceiver"]

#: How many names are shown of what still ran in a job's process when it was killed.
_MAX_RUNNING = 40
#: How many files are named that jobs have left beside their code.
_MAX_LEFT = 3
#: How many files an answer names. Their paths have up to 4,000 characters.
_HELD = 100


class AttemptReceiver:
    """Takes the messages about attempts. Arguments as those of `FrameReceiver`.

    Attributes:
        has_result: whether a result came over this link, so that the agent works.
    """

    def __init__(
        self,
        host: str,
        plan: HostPlan,
        tell: Callable[[facts.Fact], None],
        folder_of: Callable[[str, str], OutputFolder | None],
        results: Path,
        send: Callable[[bytes], None],
    ) -> None:
        self.host = host
        self._send = send
        self._plan = plan
        self._tell = tell
        self._folder_of = folder_of
        self._results = results
        self.has_result = False
        #: Whether files of running jobs can be written here.
        self._is_syncing = True
        #: The folder for which such a file came last.
        self._syncing: OutputFolder | None = None
        #: Attempts that have asked what is here of their files.
        self._asked: set[str] = set()
        self._arriving: dict[str, ResultFile] = {}
        self._folders: dict[str, OutputFolder] = {}
        #: Attempts whose folder cannot be written here, which the decider knows.
        self._unwritable: set[str] = set()
        #: The folders with open descriptors. The one that was used last is at the end.
        self._open: OrderedDict[str, OutputFolder] = OrderedDict()

    def on_started(self, header: messages.Started, payload: bytes) -> None:
        """The process of an attempt began."""
        attempt = check_attempt(header["attempt"])
        if header["slot"] < 0:
            raise wire.ProtocolError("field", f"started: slot {header['slot']}")
        self._tell(facts.Started(self.host, attempt, header["slot"], float(header["at"])))
        # Otherwise this would be noticed only when the job ends, perhaps hours later.
        self._write(attempt, OutputFolder.check)

    def on_dropped(self, header: messages.Dropped, payload: bytes) -> None:
        """The host gives an attempt back unstarted."""
        attempt, why = check_attempt(header["attempt"]), header["why"][: limit("reason")]
        self._tell(facts.Dropped(self.host, attempt, why, header["asked"], header["again"]))

    def on_output(self, header: messages.Output, payload: bytes) -> None:
        """A job printed something."""
        attempt, stream, offset = header["attempt"], header["stream"], header["offset"]
        if stream not in ("stdout", "stderr"):
            raise wire.ProtocolError("field", f"output of stream {stream[:40]!r}")
        if offset < 0:
            raise wire.ProtocolError("field", f"output at byte {offset}")
        check("stream_offset", offset)

        def take(folder: OutputFolder) -> None:
            more = folder.write_stream(stream, offset, payload)
            if more and self._plan.live:
                self._tell(facts.Output(self.host, attempt, stream, more, folder.end_of(stream) - len(more)))

        self._write(attempt, take)

    def on_reports(self, header: messages.Reports, payload: bytes) -> None:
        """An attempt has reported how it stands."""
        check("reports_at_once", len(header["items"]))
        items = tuple((whole(number), Report.from_json(report)) for number, report in header["items"])
        self._tell(facts.Reported(self.host, check_attempt(header["attempt"]), items))

    def on_files(self, header: messages.Files, payload: bytes) -> None:
        """Complete small files of an attempt."""
        items = [(str(path), whole(mode), whole(size), _time(rest)) for path, mode, size, *rest in header["items"]]
        if sum(size for _, _, size, _ in items) != len(payload):
            raise wire.ProtocolError("field", "files: their sizes do not add up to the bytes that came")

        def write(folder: OutputFolder) -> None:
            offset = 0
            for path, mode, size, mtime in items:
                folder.write(path, mode, payload[offset : offset + size], mtime)
                offset += size

        self._write(header["attempt"], write)

    def on_synced(self, header: messages.Synced, payload: bytes) -> None:
        """A part of a file of an attempt that runs. If it cannot be written now, the file comes at the end."""
        path, mode, size, base, offset = (
            header["path"],
            whole(header["mode"]),
            whole(header["size"]),
            whole(header["base"]),
            whole(header["offset"]),
        )
        if self._plan.sync is None or not 0 <= base <= offset <= size:
            raise wire.ProtocolError("field", f"synced: bytes from {offset} on of {size}")

        def write(folder: OutputFolder) -> None:
            if self._syncing is not None and self._syncing is not folder:
                # An agent sends the files of one attempt after those of another, so nothing more of this one comes.
                self._syncing.stop_sync()
            self._syncing = folder
            try:
                folder.sync(path, mode, size, base, offset, payload)
            except OSError as error:
                self._is_syncing = False
                text = f"output files of running jobs cannot be written here ({error.strerror or error}); they come when each job ends"
                self._tell(facts.Noted(self.host, text))

        if self._is_syncing:
            self._write(header["attempt"], write)

    def on_ask_held(self, header: messages.AskHeld, payload: bytes) -> None:
        """What is here of the files of an attempt that has ended? It is asked once over a link, because the answer takes as long as reading them."""
        attempt = check_attempt(header["attempt"])
        if self._plan.sync is None or attempt in self._asked:
            raise wire.ProtocolError("order", f"ask_held: attempt {attempt}")
        check("attempts", len(self._asked) + 1)
        self._asked.add(attempt)
        found: list[HeldFile] = []
        self._write(attempt, lambda folder: found.extend(folder.held()))
        parts = [found[start : start + _HELD] for start in range(0, len(found), _HELD)] or [[]]
        for place, part in enumerate(parts, 1):
            said = json.dumps([one.to_json() for one in part]).encode("utf-8")
            self._send(wire.encode({"t": "held", "attempt": attempt, "more": place < len(parts)}, said))

    def on_rest(self, header: messages.Rest, payload: bytes) -> None:
        """A part of what a file has beyond the bytes that are here.

        Raises:
            OSError: they are not here any more. Over the next link the host is told so, and sends the whole file.
        """
        path, size, base, offset, mtime = (
            header["path"],
            header["size"],
            header["base"],
            header["offset"],
            header["mtime"],
        )
        if header["attempt"] not in self._asked or not 0 < base <= offset <= offset + len(payload) <= size:
            raise wire.ProtocolError("field", f"rest: bytes from {offset} on of {size}")

        def write(folder: OutputFolder) -> None:
            if not folder.write_rest(path, size, base, offset, payload, mtime):
                raise OSError(errno.ESTALE, "a file was changed here while the rest of it came")

        self._write(header["attempt"], write)

    def on_tree(self, header: messages.Tree, payload: bytes) -> None:
        """Links and folders of an attempt."""
        links = [(str(path), str(text)) for path, text in header["links"]]
        folders = [(str(path), _time(rest)) for path, *rest in header["folders"]]

        def make(folder: OutputFolder) -> None:
            for path, text in links:
                folder.add_link(path, text)
            for path, mtime in folders:
                folder.add_folder(path, mtime)

        self._write(header["attempt"], make)

    def on_chunk(self, header: messages.Chunk, payload: bytes | memoryview) -> None:
        """A part of a long result or file."""
        attempt, kind, size, offset = header["attempt"], header["kind"], header["size"], header["offset"]
        hole = whole(header["hole"])
        if size < 0 or offset < 0 or not 0 <= hole <= offset:
            raise wire.ProtocolError("field", f"chunk at byte {offset} of {size}")
        if kind == "file":
            path, mode = header["path"], whole(header["mode"])
            if not path:
                raise wire.ProtocolError("field", "chunk of a file without a path")
            mtime = header["mtime"]
            self._write(attempt, lambda folder: folder.write_chunk(path, mode, size, offset, payload, mtime, hole))
        elif kind != "result":
            raise wire.ProtocolError("field", f"chunk of kind {kind[:40]!r}")
        elif self._folder(attempt) is not None:
            self._take_result(attempt, size, offset, header["parts"], payload)

    def _take_result(self, attempt: str, size: int, offset: int, parts: Any, payload: bytes | memoryview) -> None:
        if offset == 0:
            self._discard(attempt)
            check("open_results", len(self._arriving) + 1)
            said, _ = _read_parts(parts)
            self._arriving[attempt] = ResultFile(self._results, attempt, size, said)
        arriving = self._arriving.get(attempt)
        if arriving is None:
            raise wire.ProtocolError("order", f"a result of attempt {attempt} that begins in the middle")
        arriving.write(size, offset, payload)

    def on_final(self, header: messages.Final, payload: bytes) -> None:
        """The result of an attempt."""
        attempt = check_attempt(header["attempt"])
        envelope = _checked_envelope(header["envelope"])
        parts, wrong = _read_parts(header["parts"])
        arriving = self._arriving.pop(attempt, None)
        self.has_result = True
        file = None
        if arriving is not None:
            file, altered = arriving.finish(parts)
            payload = b""
        else:
            altered = wrong_parts(parts, len(payload), lambda at, size: payload_digest(payload, at, size))
        wrong = wrong or altered
        if wrong:
            parts, payload = NO_PARTS, b""
            if envelope.status == "COMPLETED":
                # Success needs a valid result.
                error = JobError("host", message=f"its result from {self.host} arrived truncated or altered: {wrong}")
                envelope = envelope._replace(status="FAILED", error=error)
        if envelope.error is not None:
            known = self._plan.explain_job(envelope.error.to_json())
            if known:
                message = f"{envelope.error.message}\n    {known}"
                envelope = envelope._replace(error=dataclasses.replace(envelope.error, message=message))
        self._write(attempt, OutputFolder.check)
        self._tell(facts.Ended(self.host, attempt, envelope, parts, payload, file, header["again"]))

    def on_files_end(self, header: messages.FilesEnd, payload: bytes) -> None:
        """All files of an attempt have been sent."""
        attempt = header["attempt"]
        folder = self._folder(attempt)
        if folder is not None and folder.has_synced:
            self._write(attempt, OutputFolder.finish_sync)
        refused, noted = _named(header["refused"]), _named(header["noted"])
        if folder is not None:
            # File names may have any characters.
            refused += [(clean_line(path), clean(why)) for path, why in folder.refused]
            noted += [(clean_line(path), clean(what)) for path, what in _renamed_files(folder)]
        sizes = {str(name)[:40]: whole(size) for name, size in header["sizes"].items()}
        unmatched = tuple(whole(place) for place in header["unmatched"][: limit("unmatched")])
        self._folders.pop(attempt, None)
        self._open.pop(attempt, None)
        cut = _cut_text(header["cut"]) if header["cut"] is not None else ""
        left = _left_files(header["left"]) if header["left"] is not None else None
        self._tell(facts.Collected(self.host, attempt, tuple(refused), sizes, unmatched, cut, tuple(noted), left))

    def _write(self, attempt: str, write: Callable[[OutputFolder], None]) -> bool:
        """Call `write` with an attempt's folder. Returns False if the files are not wanted, or reports that the folder can never be written."""
        folder = self._folder(attempt)
        if folder is None or attempt in self._unwritable:
            return False
        folder.wait_until_it_may_be_made()
        try:
            write(folder)
        except UnusableFolder as error:
            self._unwritable.add(attempt)
            self._tell(facts.Unwritable(self.host, attempt, str(error)))
            return False
        return True

    def _folder(self, attempt: str) -> OutputFolder | None:
        """Return the output folder of an attempt; None if it is not the current attempt, so that its files are not wanted."""
        folder = self._folders.get(check_attempt(attempt))
        if folder is None:
            folder = self._folder_of(self.host, attempt)
            if folder is None:
                return None
            # On a new link, everything comes again from the start.
            folder.restart()
            self._folders[attempt] = folder
        self._open[attempt] = folder
        self._open.move_to_end(attempt)
        if len(self._open) > limit("open_folders"):
            # Its descriptors are opened again when more files come.
            _, idle = self._open.popitem(last=False)
            idle.release()
        return folder

    def close(self) -> None:
        """Drop incomplete results. The host sends them again over the next link."""
        for attempt in list(self._arriving):
            self._discard(attempt)

    def _discard(self, attempt: str) -> None:
        arriving = self._arriving.pop(attempt, None)
        if arriving is not None:
            arriving.discard()


def _read_parts(data: Any) -> tuple[ResultParts, str]:
    """Return a result's parts as the host sent them, and what is wrong with them. An error affects only this result."""
    try:
        return ResultParts.from_json(data).without_file(), ""
    except FieldError as error:
        return NO_PARTS, str(error)


def _cut_text(cut: dict[str, Any]) -> str:
    """Return a sentence for the user that says what was killed after a job's result."""
    names = [str(name)[:200] for name in cut["running"][:_MAX_RUNNING]]
    running = ", ".join(names) or "something in native code"
    seconds = cut["seconds"]
    if seconds is None:
        waited = cut.get("waited", 2.0)
        if not _is_number(waited):
            raise wire.ProtocolError("field", "files_end: cut")
        changing = [str(path)[:200] for path in cut.get("changing", [])[:_MAX_RUNNING]]
        lost = "They may have had more to write"
        if changing:
            lost = f"Files that may be incomplete: {', '.join(changing)}"
        option = "grace" if cut.get("is_cancelled") else "children_timeout"
        return (
            f"it started processes and did not wait for them; they were killed {waited:.0f} s after the job ended: {running}. {lost}; "
            f"a task must wait for what it needs, for example with Popen.wait(), or {option} gives it more time"
        )
    if not _is_number(seconds):
        raise wire.ProtocolError("field", "files_end: cut")
    option = "grace" if cut.get("is_cancelled") else "shutdown_timeout"
    return (
        f"its process had not ended {seconds:.0f} s after its result, and was killed; still running: {running}. Its files "
        f"are as they were then; {option} gives it more time"
    )


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)


def _renamed_files(folder: OutputFolder) -> list[tuple[str, str]]:
    """Return one line for all files that got another name because another job's file was there."""
    if not folder.apart:
        return []
    path, beside = folder.apart[0]
    text = f"was not overwritten: another job, or somebody else, has written it since the run began; this job's file is {beside}"
    more = ", ".join(one for _, one in folder.apart[1:6])
    if more:
        text += f"; the same for {more}{', ...' if len(folder.apart) > 6 else ''}"
    return [(path, f"{text} (jobs with the same output directory: see sweep.subdir)")]


def _named(items: list[Any]) -> list[tuple[str, str]]:
    return [(str(path)[: limit("file_path")], str(why)[: limit("reason")]) for path, why in items]


def _left_files(left: dict[str, Any]) -> facts.LeftFiles:
    names = tuple(clean_line(str(name)[: limit("file_path")]) for name in left["names"][:_MAX_LEFT])
    return facts.LeftFiles(clean_line(str(left["folder"])[: limit("file_path")]), whole(left["count"]), names)


def _time(given: list[Any]) -> int | None:
    """Return nanoseconds since the epoch; None if the host sent no time."""
    if not given:
        return None
    if isinstance(given[0], bool) or not isinstance(given[0], int):
        raise wire.ProtocolError("field", f"{given[0]!r} is not a time"[:200])
    return given[0]


def _checked_envelope(data: dict[str, Any]) -> Envelope:
    """Return the envelope. All of it is checked, because it decides how the job ended."""
    envelope = Envelope.from_json(data)
    check("hooks", len(envelope.hooks))
    return envelope if envelope.error is None else envelope._replace(error=shortened(envelope.error))
