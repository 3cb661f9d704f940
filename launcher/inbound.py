"""What comes from an agent over one link: frames in, checked facts out.

Rule: a host is not trusted with the controller. Every field is checked before anybody acts on it; what does not keep to the
protocol ends the link with a typed error, what is wrong with one result costs that result. One of these per link: nothing
of a link that broke is carried over to the next.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from launcher import facts
from launcher.arriving_result import ArrivingResult, payload_digest, whole, wrong_parts
from launcher.errors import AgentError
from launcher.host_plan import HostPlan, blob_frames, content_frames
from launcher.output_files import OutputFolder
from remote_agent import wire
from remote_agent.job import JobError

__all__ = ["SYNC", "Inbound"]

#: Pings from here on are those of `sync`; one of the heartbeat never gets there.
SYNC = 1 << 40
#: Bytes of one stream: beyond it somebody wants to fill our disk.
MAX_STREAM = 1 << 40
_MAX_SLOTS = 100_000
#: Attempts that an agent may know of.
_MAX_ATTEMPTS = 2_000_000
_MAX_NOTES = 200
#: How often the whole of the code may be asked for over one link: content that was altered there comes again.
_MAX_ASKED = 16
_MAX_TEXT = 1 << 16
_MAX_UNMATCHED = 1000


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
        self._arriving: dict[str, ArrivingResult] = {}
        self._folders: dict[str, OutputFolder] = {}
        self._sent_files = 0
        self._sent_bytes = 0
        self._asked = 0

    @property
    def steps(self) -> int:
        """Grows with what is a sign of life. See `remote_agent.wire.Decoder.steps`."""
        return self._decoder.steps

    def feed(self, data: bytes) -> None:
        """Take bytes as they come.

        Raises:
            AgentError: they are not what an agent says.
            OSError: what came cannot be written here.
        """
        try:
            try:
                frames = self._decoder.feed(data)
            except wire.ProtocolError as error:
                self._take(error.frames)
                raise
            self._take(frames)
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
            if not self.is_welcome and name not in ("welcome", "fatal"):
                raise wire.ProtocolError("order", f"{name!r} before welcome")
            try:
                handler(frame.header, frame.payload)
            except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
                raise wire.ProtocolError("field", f"message {name!r} is malformed: {error!r}"[:2000]) from None

    def close(self) -> None:
        """The link has ended: what came in part comes again."""
        for attempt in list(self._arriving):
            self._discard(attempt)

    # -- the agent -----------------------------------------------------------------------------------------------

    def _on_welcome(self, header: dict[str, Any], payload: bytes) -> None:
        if self.is_welcome:
            raise wire.ProtocolError("order", "a second welcome")
        if header["version"] != wire.VERSION or header["run"] != self._plan.run:
            raise AgentError(self.host, "handshake", f"the agent belongs to run {header['run'][:80]!r}")
        part = json.loads(payload.decode("utf-8")) if payload else {}
        for attempt, state in part.items():
            _check_attempt(attempt)
            self._attempts[attempt] = str(state)[:20]
        if len(self._attempts) > _MAX_ATTEMPTS:
            raise wire.ProtocolError("size", f"more than {_MAX_ATTEMPTS} attempts")
        if header.get("more"):
            return
        slots = header["slots"]
        if not 1 <= slots <= _MAX_SLOTS:
            raise wire.ProtocolError("field", f"welcome: {slots} slots")
        self.is_welcome = True
        self._tell(
            facts.Connected(
                self.host,
                slots,
                header["python"],
                _texts(header.get("gpus", [])),
                header["boot_id"],
                self._attempts,
                _texts(header.get("notes", [])),
            )
        )

    def _on_missing(self, header: dict[str, Any], payload: bytes) -> None:
        plan = self._plan
        manifest = plan.manifest
        if manifest is None:
            raise wire.ProtocolError("order", "the agent asks for code that was not offered")
        self._asked += 1 + len(header["sha256"])
        if self._asked > _MAX_ASKED * (2 + len(plan.contents)):
            raise wire.ProtocolError("order", "the agent asks for the same code again and again")
        if header.get("manifest"):
            self._sent_bytes += manifest.size
            self._send(blob_frames(manifest, "cache"))
            return
        wanted = [plan.contents[str(sha256)] for sha256 in header["sha256"]]
        self._sent_files += len(wanted)
        self._sent_bytes += sum(blob.size for blob in wanted)
        self._send(content_frames(wanted))
        if not header.get("more"):
            self._tell(facts.Sent(self.host, plan.files, self._sent_files, self._sent_bytes))
            self._sent_files = self._sent_bytes = 0

    def _on_zygote(self, header: dict[str, Any], payload: bytes) -> None:
        state, error = header["state"], header.get("error")
        if state not in ("ready", "failed") or (error is None) != (state == "ready"):
            raise wire.ProtocolError("field", f"zygote: state {state[:40]!r}")
        if error is not None:
            error = JobError.from_json(error).to_json()
        isolation, why = str(header.get("isolation", ""))[:40], header.get("why", "")[:_MAX_TEXT]
        self._tell(facts.ZygoteTold(self.host, state, error, isolation, why, _texts(header.get("notes", []))))

    def _on_opened(self, header: dict[str, Any], payload: bytes) -> None:
        self._tell(facts.Opened(self.host))

    def _on_ping(self, header: dict[str, Any], payload: bytes) -> None:
        self._send(wire.encode({"t": "pong", "n": header["n"]}))

    def _on_pong(self, header: dict[str, Any], payload: bytes) -> None:
        """That it was heard is noted already; a `sync` goes on."""
        number, is_second = divmod(header["n"] - SYNC, 2)
        if number >= 0 and not is_second:
            # Once more round: what could not be spooled is given back right behind the first answer.
            self._send(wire.encode({"t": "ping", "n": header["n"] + 1}))
        elif number >= 0:
            self._tell(facts.Synced(self.host, number))

    def _on_fatal(self, header: dict[str, Any], payload: bytes) -> None:
        if header["code"] == "note":
            self._tell(facts.Noted(self.host, header["message"][:_MAX_TEXT]))
        elif header["code"] == "over":
            self.is_over = True
        else:
            text = f"the agent refuses ({header['code'][:40]}): {header['message'][:2000]}"
            raise AgentError(self.host, "refused", text)

    # -- attempts ------------------------------------------------------------------------------------------------

    def _on_started(self, header: dict[str, Any], payload: bytes) -> None:
        attempt = _check_attempt(header["attempt"])
        if header["slot"] < 0:
            raise wire.ProtocolError("field", f"started: slot {header['slot']}")
        self._tell(facts.Started(self.host, attempt, header["slot"], float(header["at"])))

    def _on_dropped(self, header: dict[str, Any], payload: bytes) -> None:
        self._tell(facts.Dropped(self.host, _check_attempt(header["attempt"]), header["why"][:_MAX_TEXT]))

    def _on_output(self, header: dict[str, Any], payload: bytes) -> None:
        attempt, stream, offset = header["attempt"], header["stream"], header["offset"]
        if stream not in ("stdout", "stderr"):
            raise wire.ProtocolError("field", f"output of stream {stream[:40]!r}")
        if not 0 <= offset <= MAX_STREAM:
            raise wire.ProtocolError("field", f"output at byte {offset}")
        folder = self._folder(attempt)
        if folder is None:
            return
        folder.write_stream(stream, offset, payload)
        if self._plan.live:
            self._tell(facts.Output(self.host, attempt, stream, payload))

    def _on_files(self, header: dict[str, Any], payload: bytes) -> None:
        items = [(str(path), whole(mode), whole(size), _time(rest)) for path, mode, size, *rest in header["items"]]
        if sum(size for _, _, size, _ in items) != len(payload):
            raise wire.ProtocolError("field", "files: their sizes are not that of what came")
        folder = self._folder(header["attempt"])
        if folder is None:
            return
        offset = 0
        for path, mode, size, mtime in items:
            folder.write(path, mode, payload[offset : offset + size], mtime)
            offset += size

    def _on_tree(self, header: dict[str, Any], payload: bytes) -> None:
        links = [(str(path), str(text)) for path, text in header.get("links", [])]
        folders = [(str(path), _time(rest)) for path, *rest in header.get("folders", [])]
        folder = self._folder(header["attempt"])
        if folder is None:
            return
        for path, text in links:
            folder.add_link(path, text)
        for path, mtime in folders:
            folder.add_folder(path, mtime)

    def _on_chunk(self, header: dict[str, Any], payload: bytes | memoryview) -> None:
        attempt, kind, size, offset = header["attempt"], header["kind"], header["size"], header["offset"]
        if size < 0 or offset < 0:
            raise wire.ProtocolError("field", f"chunk at byte {offset} of {size}")
        folder = self._folder(attempt)
        if kind == "file":
            if folder is not None:
                mode, mtime = whole(header.get("mode", 0)), _time([header["mtime"]] if "mtime" in header else [])
                folder.write_chunk(header["path"], mode, size, offset, payload, mtime)
        elif kind != "result":
            raise wire.ProtocolError("field", f"chunk of kind {kind[:40]!r}")
        elif folder is not None:
            self._on_result_chunk(attempt, size, offset, header.get("parts"), payload)

    def _on_result_chunk(self, attempt: str, size: int, offset: int, parts: Any, payload: bytes | memoryview) -> None:
        if offset == 0:
            self._discard(attempt)
            self._arriving[attempt] = ArrivingResult(self._results, attempt, size, parts)
        arriving = self._arriving.get(attempt)
        if arriving is None:
            raise wire.ProtocolError("order", f"a result of attempt {attempt} that begins in the middle")
        arriving.take(size, offset, payload)

    def _on_final(self, header: dict[str, Any], payload: bytes) -> None:
        attempt = _check_attempt(header["attempt"])
        envelope, parts = _checked_envelope(header["envelope"]), header.get("parts") or {}
        arriving = self._arriving.pop(attempt, None)
        self.has_result = True
        if arriving is not None:
            file, wrong = arriving.finish(parts)
            payload = b""
        else:
            file, wrong = None, wrong_parts(parts, len(payload), lambda at, size: payload_digest(payload, at, size))
        if wrong:
            parts, payload = {}, b""
            if envelope["status"] == "COMPLETED":
                # Success needs a valid result.
                error = JobError("host", message=f"its result came from {self.host} truncated or altered: {wrong}")
                envelope = {**envelope, "status": "FAILED", "error": error.to_json()}
        self._tell(facts.Outcome(self.host, attempt, envelope, parts, payload, file))

    def _on_files_end(self, header: dict[str, Any], payload: bytes) -> None:
        attempt = header["attempt"]
        folder = self._folder(attempt)
        refused, noted = _named(header["refused"]), _named(header.get("noted", []))
        if folder is not None:
            refused += folder.refused
            noted += _told_apart(folder)
        sizes = {str(name)[:40]: whole(size) for name, size in header.get("sizes", {}).items()}
        unmatched = tuple(whole(place) for place in header.get("unmatched", [])[:_MAX_UNMATCHED])
        self._folders.pop(attempt, None)
        self._tell(facts.Collected(self.host, attempt, tuple(refused), sizes, unmatched, tuple(noted)))

    def _folder(self, attempt: str) -> OutputFolder | None:
        """Where an attempt's files go; None for one that was fenced off, whose files are not wanted."""
        folder = self._folders.get(_check_attempt(attempt))
        if folder is None:
            folder = self._folder_of(self.host, attempt)
            if folder is not None:
                # On this link everything comes from the start.
                folder.restart()
                self._folders[attempt] = folder
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
    return [(str(path)[:4000], str(why)[:1000]) for path, why in items]


def _time(given: list[Any]) -> int | None:
    """Nanoseconds since the epoch, where a host said them."""
    if not given:
        return None
    if isinstance(given[0], bool) or not isinstance(given[0], int):
        raise wire.ProtocolError("field", f"{given[0]!r} is no time"[:200])
    return given[0]


def _texts(items: list[Any]) -> tuple[str, ...]:
    return tuple(str(item)[:_MAX_TEXT] for item in items[:_MAX_NOTES])


def _checked_envelope(envelope: dict[str, Any]) -> dict[str, Any]:
    """The envelope, if it is one: it decides, so it is checked whole."""
    if envelope.get("status") not in ("COMPLETED", "FAILED"):
        raise wire.ProtocolError("field", f"envelope: status {envelope.get('status')!r}"[:200])
    error = envelope.get("error")
    if (envelope["status"] == "FAILED") != (error is not None):
        raise wire.ProtocolError("field", "envelope: status and error do not agree")
    if error is not None:
        envelope = {**envelope, "error": JobError.from_json(error).to_json()}
    for name in ("started_at", "ended_at", "duration"):
        value = envelope.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise wire.ProtocolError("field", f"envelope: {name} is not a number")
        if name == "duration" and value < 0:
            raise wire.ProtocolError("field", f"envelope: a duration of {value}")
    hooks = envelope.get("hooks", [])
    if not isinstance(hooks, list) or not all(isinstance(hook, dict) for hook in hooks):
        raise wire.ProtocolError("field", "envelope: hooks")
    if not isinstance(envelope.get("abort"), (str, type(None))):
        raise wire.ProtocolError("field", "envelope: abort")
    if not isinstance(envelope.get("task_name"), (str, type(None))) or not isinstance(envelope.get("code", {}), dict):
        raise wire.ProtocolError("field", "envelope: task_name or code")
    return envelope
