"""What comes from an agent over one link: frames in, checked facts out.

Rule: a host is not trusted with the controller. Every field is checked before anybody acts on it; what does not keep to the
protocol ends the link with a typed error, what is wrong with one result costs that result. One of these per link: nothing
of a link that broke is carried over to the next.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from launcher.agents import facts
from launcher.agents.plan import HostPlan, blob_frames, content_frames
from launcher.errors import AgentError, HostBroken
from launcher.host_limits import TooMuch, check, limit
from launcher.results.output_folder import OutputFolder
from launcher.results.writing import UnusableFolder
from launcher.runs.result_file import ResultFile, known_parts, payload_digest, whole, wrong_parts
from launcher.util.terminal_text import clean, clean_all, clean_line
from remote_agent.job import JobError
from remote_agent.shared import messages, wire
from remote_agent.shared.envelope import Envelope

__all__ = ["SYNC", "Inbound"]

#: Pings from here on are those of `sync`; one of the heartbeat never gets there.
SYNC = 1 << 40
_WELCOME = ("welcome", "fatal")
#: Characters of an attempt's short state.
_STATE = 20
#: What a job's process still did when it was killed: how many of these are named.
_MAX_RUNNING = 40
#: How the next step begins that a host names for a module that it does not have.
_ADVICE = "\n    next: "
#: Messages whose paths are names of files, which may be any; everything else that is text is cleaned as it comes.
_WITH_PATHS = ("files", "chunk", "tree")


class Inbound:
    """The frames of one link.

    Args:
        tell: takes each fact; may wait.
        folder_of: (host, attempt) -> where its files go; None where they are not wanted.
        results: the folder for large results.
        send: sends frames to the agent.
    """

    def __init__(
        self,
        host: str,
        plan: HostPlan,
        tell: Callable[[facts.Fact], None],
        folder_of: Callable[[str, str], OutputFolder | None],
        results: Path,
        send: Callable[[Iterator[bytes] | bytes], None],
    ) -> None:
        self.host = host
        self._plan = plan
        self._tell = tell
        self._folder_of = folder_of
        self._results = results
        self._send = send
        # What is long goes to its file as it comes.
        self._decoder = wire.Decoder(cut=("chunk",))
        self.is_welcome = False
        #: A result came over this link: the agent can do its work.
        self.has_result = False
        #: The agent has said that the run is over.
        self.is_over = False
        self._attempts: dict[str, str] = {}
        self._words: dict[str, str] = {}
        self._arriving: dict[str, ResultFile] = {}
        self._folders: dict[str, OutputFolder] = {}
        #: Attempts whose folder cannot be written here, which has been told.
        self._unwritable: set[str] = set()
        #: Of these the ones that hold descriptors; that which was used last is at the end.
        self._open: OrderedDict[str, OutputFolder] = OrderedDict()
        self._sent_files = 0
        self._sent_bytes = 0
        self._asked = 0
        self._welcomes = 0
        self._zygotes = 0

    @property
    def steps(self) -> int:
        """Grows with what is a sign of life. See `remote_agent.shared.wire.Decoder.steps`."""
        return self._decoder.steps

    def feed(self, data: bytes) -> None:
        """Take bytes as they come.

        Raises:
            HostBroken: they are more than an agent may say.
            AgentError: they are not what an agent says.
            OSError: what came cannot be written here now; what never can be is the job's error, and no reason to end the link.
        """
        try:
            try:
                frames = self._decoder.feed(data)
            except wire.ProtocolError as error:
                self._take(error.frames)
                raise
            self._take(frames)
        except TooMuch as error:
            raise HostBroken(self.host, "session", f"it says more than it may: {error}") from None
        except wire.ProtocolError as error:
            raise AgentError(
                self.host, "session", f"the agent does not keep to the protocol ({error.code}): {error}"
            ) from None

    def _take(self, frames: list[wire.Frame]) -> None:
        for frame in frames:
            name = frame.header["t"]
            handler = getattr(self, "_on_" + name, None)
            if handler is None:
                raise wire.ProtocolError("unknown", f"message {name!r} is not for a controller")
            if not self.is_welcome and name not in _WELCOME:
                raise wire.ProtocolError("order", f"{name!r} before welcome")
            try:
                handler(frame.header if name in _WITH_PATHS else clean_all(frame.header), frame.payload)
            except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
                raise wire.ProtocolError("field", f"message {name!r} is malformed: {error!r}"[:2000]) from None

    def close(self) -> None:
        """The link has ended: what came in part comes again."""
        for attempt in list(self._arriving):
            self._discard(attempt)

    # -- the agent -----------------------------------------------------------------------------------------------

    def _on_welcome(self, header: messages.Welcome, payload: bytes) -> None:
        if self.is_welcome:
            raise wire.ProtocolError("order", "a second welcome")
        if header["version"] != wire.VERSION or header["run"] != self._plan.run:
            raise AgentError(self.host, "handshake", f"the agent belongs to run {header['run'][:80]!r}")
        part = json.loads(payload.decode("utf-8")) if payload else {}
        self._welcomes += 1
        check("welcome_frames", self._welcomes)
        for attempt, state in part.items():
            _check_attempt(attempt)
            # A handful of words for many attempts.
            word = clean(state)[:_STATE]
            self._attempts[attempt] = self._words.setdefault(word, word)
        check("attempts", len(self._attempts))
        if header["more"]:
            return
        slots = header["slots"]
        if slots < 1:
            raise wire.ProtocolError("field", f"welcome: {slots} slots")
        check("slots", slots)
        self.is_welcome = True
        self._tell(
            facts.Connected(
                self.host,
                slots,
                _name(header["python"]),
                tuple(_name(gpu) for gpu in header["gpus"][: limit("gpus")]),
                _name(header["boot_id"]),
                self._attempts,
                _texts(header["notes"]),
            )
        )

    def _on_missing(self, header: messages.Missing, payload: bytes) -> None:
        plan = self._plan
        manifest = plan.manifest
        if manifest is None:
            raise wire.ProtocolError("order", "the agent asks for code that was not offered")
        self._asked += 1 + len(header["sha256"])
        if self._asked > limit("asked") * (2 + len(plan.contents)):
            raise TooMuch("asked", limit("asked") + 1)
        if header["manifest"]:
            self._sent_bytes += manifest.size
            self._send(blob_frames(manifest, "cache"))
            return
        wanted = [plan.contents[str(sha256)] for sha256 in header["sha256"]]
        self._sent_files += len(wanted)
        self._sent_bytes += sum(blob.size for blob in wanted)
        self._send(content_frames(wanted))
        if not header["more"]:
            self._tell(facts.Sent(self.host, plan.files, self._sent_files, self._sent_bytes))
            self._sent_files = self._sent_bytes = 0

    def _on_zygote(self, header: messages.Zygote, payload: bytes) -> None:
        self._zygotes += 1
        check("zygotes", self._zygotes)
        state, error = header["state"], header["error"]
        if state not in ("ready", "failed") or (error is None) != (state == "ready"):
            raise wire.ProtocolError("field", f"zygote: state {state[:40]!r}")
        if error is not None:
            error = _cut(JobError.from_json(error)).to_json()
            known = self._plan.explain(error)
            if known:
                # Instead of the host's own advice, which is to install it there.
                error["message"] = f"{error['message'].partition(_ADVICE)[0]}\n    {known}"
        isolation, why = header["isolation"][:40], header["why"][: limit("reason")]
        self._tell(facts.ZygoteTold(self.host, state, error, isolation, why, _texts(header["notes"])))

    def _on_opened(self, header: messages.Opened, payload: bytes) -> None:
        self._tell(facts.Opened(self.host))

    def _on_ping(self, header: messages.Ping, payload: bytes) -> None:
        self._send(wire.encode({"t": "pong", "n": header["n"]}))

    def _on_pong(self, header: messages.Pong, payload: bytes) -> None:
        """That it was heard is noted already; a `sync` goes on."""
        number, is_second = divmod(header["n"] - SYNC, 2)
        if number >= 0 and not is_second:
            # Once more round: what could not be spooled is given back right behind the first answer.
            self._send(wire.encode({"t": "ping", "n": header["n"] + 1}))
        elif number >= 0:
            self._tell(facts.Synced(self.host, number))

    def _on_fatal(self, header: messages.Fatal, payload: bytes) -> None:
        if header["code"] == "note":
            self._tell(facts.Noted(self.host, header["message"][: limit("text")]))
        elif header["code"] == "over":
            self.is_over = True
        else:
            text = f"the agent refuses ({header['code'][:40]}): {header['message'][:2000]}"
            raise AgentError(self.host, "refused", text)

    # -- attempts ------------------------------------------------------------------------------------------------

    def _on_started(self, header: messages.Started, payload: bytes) -> None:
        attempt = _check_attempt(header["attempt"])
        if header["slot"] < 0:
            raise wire.ProtocolError("field", f"started: slot {header['slot']}")
        self._tell(facts.Started(self.host, attempt, header["slot"], float(header["at"])))
        # Hours before it would be noticed, perhaps.
        self._write(attempt, OutputFolder.check)

    def _on_dropped(self, header: messages.Dropped, payload: bytes) -> None:
        self._tell(facts.Dropped(self.host, _check_attempt(header["attempt"]), header["why"][: limit("reason")]))

    def _on_output(self, header: messages.Output, payload: bytes) -> None:
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

    def _on_files(self, header: messages.Files, payload: bytes) -> None:
        items = [(str(path), whole(mode), whole(size), _time(rest)) for path, mode, size, *rest in header["items"]]
        if sum(size for _, _, size, _ in items) != len(payload):
            raise wire.ProtocolError("field", "files: their sizes are not that of what came")

        def write(folder: OutputFolder) -> None:
            offset = 0
            for path, mode, size, mtime in items:
                folder.write(path, mode, payload[offset : offset + size], mtime)
                offset += size

        self._write(header["attempt"], write)

    def _on_tree(self, header: messages.Tree, payload: bytes) -> None:
        links = [(str(path), str(text)) for path, text in header["links"]]
        folders = [(str(path), _time(rest)) for path, *rest in header["folders"]]

        def make(folder: OutputFolder) -> None:
            for path, text in links:
                folder.add_link(path, text)
            for path, mtime in folders:
                folder.add_folder(path, mtime)

        self._write(header["attempt"], make)

    def _on_chunk(self, header: messages.Chunk, payload: bytes | memoryview) -> None:
        attempt, kind, size, offset = header["attempt"], header["kind"], header["size"], header["offset"]
        if size < 0 or offset < 0:
            raise wire.ProtocolError("field", f"chunk at byte {offset} of {size}")
        if kind == "file":
            path, mode = header["path"], whole(header["mode"])
            if not path:
                raise wire.ProtocolError("field", "chunk of a file without a path")
            mtime = header["mtime"]
            self._write(attempt, lambda folder: folder.write_chunk(path, mode, size, offset, payload, mtime))
        elif kind != "result":
            raise wire.ProtocolError("field", f"chunk of kind {kind[:40]!r}")
        elif self._folder(attempt) is not None:
            self._on_result_chunk(attempt, size, offset, header["parts"], payload)

    def _on_result_chunk(self, attempt: str, size: int, offset: int, parts: Any, payload: bytes | memoryview) -> None:
        if offset == 0:
            self._discard(attempt)
            check("open_results", len(self._arriving) + 1)
            self._arriving[attempt] = ResultFile(self._results, attempt, size, parts)
        arriving = self._arriving.get(attempt)
        if arriving is None:
            raise wire.ProtocolError("order", f"a result of attempt {attempt} that begins in the middle")
        arriving.take(size, offset, payload)

    def _on_final(self, header: messages.Final, payload: bytes) -> None:
        attempt = _check_attempt(header["attempt"])
        envelope, parts = _checked_envelope(header["envelope"]), known_parts(header["parts"])
        arriving = self._arriving.pop(attempt, None)
        self.has_result = True
        if arriving is not None:
            file, wrong = arriving.finish(parts)
            payload = b""
        else:
            file, wrong = None, wrong_parts(parts, len(payload), lambda at, size: payload_digest(payload, at, size))
        if wrong:
            parts, payload = {}, b""
            if envelope.status == "COMPLETED":
                # Success needs a valid result.
                error = JobError("host", message=f"its result came from {self.host} truncated or altered: {wrong}")
                envelope = envelope._replace(status="FAILED", error=error)
        if envelope.error is not None:
            known = self._plan.explain_job(envelope.error.to_json())
            if known:
                message = f"{envelope.error.message}\n    {known}"
                envelope = envelope._replace(error=dataclasses.replace(envelope.error, message=message))
        self._write(attempt, OutputFolder.check)
        self._tell(facts.Outcome(self.host, attempt, envelope, parts, payload, file))

    def _on_files_end(self, header: messages.FilesEnd, payload: bytes) -> None:
        attempt = header["attempt"]
        folder = self._folder(attempt)
        refused, noted = _named(header["refused"]), _named(header["noted"])
        if folder is not None:
            # Names of files may be any.
            refused += [(clean_line(path), clean(why)) for path, why in folder.refused]
            noted += [(clean_line(path), clean(what)) for path, what in _told_apart(folder)]
        sizes = {str(name)[:40]: whole(size) for name, size in header["sizes"].items()}
        unmatched = tuple(whole(place) for place in header["unmatched"][: limit("unmatched")])
        self._folders.pop(attempt, None)
        self._open.pop(attempt, None)
        cut = _cut_in_words(header["cut"]) if header["cut"] is not None else ""
        self._tell(facts.Collected(self.host, attempt, tuple(refused), sizes, unmatched, cut, tuple(noted)))

    def _write(self, attempt: str, write: Callable[[OutputFolder], None]) -> bool:
        """Have something written to an attempt's folder; False where it is not wanted, or never can be, which is told."""
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
        """Where an attempt's files go; None for one that was fenced off, whose files are not wanted."""
        folder = self._folders.get(_check_attempt(attempt))
        if folder is None:
            folder = self._folder_of(self.host, attempt)
            if folder is None:
                return None
            # On this link everything comes from the start.
            folder.restart()
            self._folders[attempt] = folder
        self._open[attempt] = folder
        self._open.move_to_end(attempt)
        if len(self._open) > limit("open_folders"):
            # It goes on; the descriptors are made again when something comes for it.
            _, idle = self._open.popitem(last=False)
            idle.release()
        return folder

    def _discard(self, attempt: str) -> None:
        arriving = self._arriving.pop(attempt, None)
        if arriving is not None:
            arriving.discard()


def _check_attempt(attempt: str) -> str:
    """An attempt's name, which the host is not trusted to form well: it becomes a file's name and two numbers."""
    num, dot, rest = attempt.partition(".")
    if not (dot and num.isascii() and num.isdigit() and rest.isascii() and rest.isdigit() and len(attempt) <= 24):
        raise wire.ProtocolError("field", f"attempt {attempt[:40]!r}")
    return attempt


def _cut_in_words(cut: dict[str, Any]) -> str:
    """What was killed after a job's result, for the user."""
    names = [str(name)[:200] for name in cut["running"][:_MAX_RUNNING]]
    running = ", ".join(names) or "something in native code"
    seconds = cut["seconds"]
    if seconds is None:
        return (
            f"it started what it did not wait for, and that was ended two seconds after the job was: {running}. It may have had more "
            "to write; a task waits for what it needs, as with Popen.wait()"
        )
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not math.isfinite(seconds):
        raise wire.ProtocolError("field", "files_end: cut")
    option = "grace" if cut.get("is_cancelled") else "shutdown_timeout"
    return (
        f"its process had not ended {seconds:.0f} s after its result, and was killed; still running: {running}. Its files "
        f"are as they were then; {option} gives it more time"
    )


def _told_apart(folder: OutputFolder) -> list[tuple[str, str]]:
    """One line for all files that are beside those of others."""
    if not folder.apart:
        return []
    path, beside = folder.apart[0]
    text = f"was not overwritten: another job, or somebody else, has written it since the run began; that of this job is {beside}"
    more = ", ".join(one for _, one in folder.apart[1:6])
    if more:
        text += f", and so with {more}{', ...' if len(folder.apart) > 6 else ''}"
    return [(path, f"{text} (jobs with the same output directory: see sweep.subdir)")]


def _named(items: list[Any]) -> list[tuple[str, str]]:
    return [(str(path)[: limit("file_path")], str(why)[: limit("reason")]) for path, why in items]


def _time(given: list[Any]) -> int | None:
    """Nanoseconds since the epoch, where a host said them."""
    if not given:
        return None
    if isinstance(given[0], bool) or not isinstance(given[0], int):
        raise wire.ProtocolError("field", f"{given[0]!r} is no time"[:200])
    return given[0]


def _texts(items: list[Any]) -> tuple[str, ...]:
    return tuple(str(item)[: limit("text")] for item in items[: limit("notes")])


def _name(text: Any) -> str:
    return str(text)[: limit("name")]


def _cut(error: JobError) -> JobError:
    """An error of a host, no longer than it may be."""
    return dataclasses.replace(
        error,
        type=_name(error.type),
        message=error.message[: limit("error")],
        traceback=error.traceback[: limit("error")],
        causes=error.causes[: limit("causes")],
    )


def _checked_envelope(data: dict[str, Any]) -> Envelope:
    """The envelope, if it is one: it decides, so it is checked whole."""
    envelope = Envelope.from_json(data)
    check("hooks", len(envelope.hooks))
    return envelope if envelope.error is None else envelope._replace(error=_cut(envelope.error))
