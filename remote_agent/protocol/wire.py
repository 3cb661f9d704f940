"""Frames and messages between controller, agent, zygote and job; sans-IO: bytes in, messages out.

Rule: nothing here reads, writes, decodes a pickle, or allocates memory that a peer only announces. A size is checked
against a cap before any byte of it is stored, and every message is checked against its schema before it is used.
Numbers are finite and fit into 64 bits. The reader of a list or an object checks its content.

A stream begins with `PREAMBLE` (anything before it is noise of a login shell, which is kept for the error message).
Then come frames:

    !2sBxIQI   mark b"RL", wire version, header length, payload length, crc32 of the header
    header     one JSON object, utf-8; its key "t" names the message
    payload    opaque bytes

Known weak spots: the crc protects against a desynchronised stream, but not against an attacker (SSH does that). A peer
that sends a `STEP` in each heartbeat can occupy MAX_PAYLOAD bytes of memory as long as it likes.
"""

import json
import struct
import zlib
from typing import Any, List, NamedTuple, Optional, Tuple, Union, cast

from remote_agent.protocol.messages import Message
from remote_agent.protocol.messages.schema import ABSENT, SCHEMA

__all__ = [
    "CHUNK",
    "HEADER_ROOM",
    "MAX_DEPTH",
    "MAX_HEADER",
    "MAX_PAYLOAD",
    "PREAMBLE",
    "SCHEMA",
    "STEP",
    "VERSION",
    "Decoder",
    "Frame",
    "ProtocolError",
    "check",
    "encode",
    "encode_head",
]

VERSION = 1
PREAMBLE = b"\x00\x01hydra-remote-launcher wire 1\n"
#: Bytes. Headers are small; long content goes into the payload.
MAX_HEADER = 1 << 20
#: Bytes by which a header may grow when it is passed on with more fields.
HEADER_ROOM = 1 << 14
#: Bytes. Longer content is sent in chunks.
MAX_PAYLOAD = (1 << 20) + (1 << 16)
#: Bytes of one chunk: large enough for throughput, and small enough that other messages do not wait long.
CHUNK = 1 << 18
#: This many bytes of a long frame count as a sign of life. The slowest link sends more than that in a heartbeat.
STEP = 1 << 12
#: How deep a header's fields may be nested. Its readers can go much deeper before their stack is full.
MAX_DEPTH = 100
#: Bytes of noise tolerated before the preamble.
MAX_NOISE = 1 << 16

_MARK = b"RL"
#: Made once, because `json.dumps` with `separators` makes a new encoder for every frame.
_to_json = json.JSONEncoder(separators=(",", ":")).encode
_HEAD = struct.Struct("!2sBxIQI")


class ProtocolError(Exception):
    """The peer broke the protocol. `code` is a stable word for tests and messages.

    `frames` are the complete ones that came before it in the same bytes.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.frames: List[Frame] = []
        super().__init__(message)


class Frame(NamedTuple):
    """One message: its JSON header and its opaque payload."""

    header: Message
    payload: bytes = b""


def check(header: Any) -> Message:
    """Return the header if it is a known message whose fields have the types of `SCHEMA`. Missing optional fields are
    filled in.

    Raises:
        ProtocolError: codes `header` (not an object with "t"), `unknown` (no such message), `field`.
    """
    if not isinstance(header, dict) or not isinstance(header.get("t"), str):
        raise ProtocolError("header", "a frame's header is not an object with a text 't'")
    schema, absent = SCHEMA.get(header["t"]), ABSENT.get(header["t"], {})
    if schema is None:
        raise ProtocolError("unknown", "unknown message {!r}".format(header["t"][:40]))
    for name, (types, required) in schema.items():
        if name not in header:
            if required:
                raise ProtocolError("field", "message {!r} lacks {!r}".format(header["t"], name))
            header[name] = absent[name]() if isinstance(absent[name], type) else absent[name]
            continue
        value = header[name]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise ProtocolError(
                "field", "message {!r}: {!r} has type {}".format(header["t"], name, type(value).__name__)
            )
    return cast("Message", header)


def encode(header: Message, payload: Union[bytes, bytearray, memoryview] = b"", *, passed_on: bool = False) -> bytes:
    """Return one frame as bytes. `passed_on`: the header has data from another one, and may be longer by HEADER_ROOM.

    Raises:
        ProtocolError: code `size`: the header or payload is over its cap (the caller's mistake, not the peer's).
    """
    return b"".join((encode_head(header, len(payload), passed_on=passed_on), payload))


def encode_head(header: Message, payload_length: int, *, passed_on: bool = False) -> bytes:
    """Return the bytes before a payload of this size, so that the payload is not copied. Otherwise like `encode`."""
    head = _to_json(header).encode("ascii")
    cap = MAX_HEADER + (HEADER_ROOM if passed_on else 0)
    if len(head) > cap:
        raise ProtocolError("size", "header of {} bytes is over the cap of {}".format(len(head), cap))
    if payload_length > MAX_PAYLOAD:
        raise ProtocolError("size", "payload of {} bytes is over the cap of {}".format(payload_length, MAX_PAYLOAD))
    return _HEAD.pack(_MARK, VERSION, len(head), payload_length, zlib.crc32(head)) + head


def _refuse(name: str) -> Any:
    raise ValueError("{} is not a number".format(name))


def _int(text: str) -> int:
    digits = len(text.lstrip("-"))
    if digits > 19:
        raise ValueError("a number of {} digits".format(digits))
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if value - value != 0.0:
        raise ValueError("{} is too large a number".format(text[:30]))
    return value


#: JSON as in RFC 8259, with numbers that fit. Python's own decoder accepts NaN, Infinity and integers of any length.
_JSON = json.JSONDecoder(parse_constant=_refuse, parse_int=_int, parse_float=_float)


class Decoder:
    """Takes bytes and returns checked frames. After a ProtocolError, the stream cannot be read any further.

    Args:
        cut: messages with an `offset` whose payload is not collected. Each part of it becomes a frame when it comes,
        with its own offset. The payload of such a frame is a view of the bytes that were fed, and is valid until the
        next call.
    """

    def __init__(
        self, max_header: int = MAX_HEADER + HEADER_ROOM, max_payload: int = MAX_PAYLOAD, cut: Tuple[str, ...] = ()
    ) -> None:
        self._buffer = bytearray()
        #: What the frame's start announced: bytes of the header, bytes of the payload, checksum. Below: the header, when it is here.
        self._need: Optional[Tuple[int, int, int]] = None
        self._begun: Optional[Message] = None
        self._max_header = max_header
        self._max_payload = max_payload
        self._cut = cut
        #: How many bytes of the payload of a `cut` message were passed on.
        self._handed_on = 0
        self._broken = False
        self._fed = self._frames = 0

    @property
    def is_idle(self) -> bool:
        """Whether no incomplete frame waits for its rest, so that the stream may end here."""
        return not self._buffer and self._need is None

    @property
    def steps(self) -> int:
        """A counter that grows with every complete frame and every STEP bytes.

        A peer that sends single bytes makes no progress.
        """
        return self._frames + self._fed // STEP

    def feed(self, data: Union[bytes, bytearray, memoryview]) -> List[Frame]:
        """Return the frames that these bytes complete, in order.

        Raises:
            ProtocolError: codes `mark`, `version`, `size`, `crc`, `json` and those of `check`; its `frames` are the
            ones that came before.
        """
        if self._broken:
            raise ProtocolError("broken", "this stream was already refused")
        self._fed += len(data)
        frames: List[Frame] = []
        rest = memoryview(data)
        try:
            while True:
                if self._need is not None and self._begun is not None and self._begun["t"] in self._cut:
                    rest = self._piece(frames, rest, self._need[1])
                    if self._need is not None:
                        break
                missing = self._missing() - len(self._buffer)
                if len(rest) < missing:
                    self._buffer += rest
                    break
                # It is copied only if it came in more than one piece.
                element = rest[:missing]
                if self._buffer:
                    element = memoryview(self._buffer + element)
                    self._buffer = bytearray()
                rest = rest[missing:]
                if self._need is None:
                    self._need = self._head(element, rest)
                elif self._begun is None:
                    self._begun = self._header(bytes(element), self._need[2])
                else:
                    self._end(frames, Frame(self._begun, bytes(element)))
        except ProtocolError as error:
            self._broken = True
            self._buffer.clear()
            error.frames = frames
            raise
        return frames

    def _missing(self) -> int:
        """Return how many bytes of the next item are missing: the start of a frame, a header, or a payload."""
        if self._need is None:
            return _HEAD.size
        return self._need[0 if self._begun is None else 1]

    def _piece(self, frames: List[Frame], rest: memoryview, size: int) -> memoryview:
        """Pass on the available part of a payload that is not collected. Returns the bytes after it."""
        header: Any = self._begun
        piece: Any = rest[: size - self._handed_on]
        if self._handed_on:
            header = dict(header, offset=header["offset"] + self._handed_on)
        self._handed_on += len(piece)
        if self._handed_on == size:
            self._handed_on = 0
            self._end(frames, Frame(header, piece))
        elif piece:
            frames.append(Frame(header, piece))
        return rest[len(piece) :]

    def _end(self, frames: List[Frame], frame: Frame) -> None:
        frames.append(frame)
        self._frames += 1
        self._need = self._begun = None

    def _head(self, head: memoryview, behind: memoryview) -> Tuple[int, int, int]:
        mark, version, header_length, payload_length, crc = _HEAD.unpack(head)
        if mark != _MARK:
            raise ProtocolError("mark", "bytes between frames: {!r}".format((bytes(head) + bytes(behind[:60]))[:60]))
        if version != VERSION:
            raise ProtocolError("version", "wire version {} (this side speaks {})".format(version, VERSION))
        if header_length > self._max_header or payload_length > self._max_payload:
            raise ProtocolError(
                "size", "a frame announces {} + {} bytes, which is over the caps".format(header_length, payload_length)
            )
        return header_length, payload_length, crc

    @staticmethod
    def _header(head: bytes, crc: int) -> Message:
        if zlib.crc32(head) != crc:
            raise ProtocolError("crc", "a frame's header does not match its checksum")
        try:
            header = _JSON.decode(head.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise ProtocolError("json", "a frame's header is not JSON: {}".format(error)) from None
        # Few headers have this many brackets, so most need no closer check.
        if head.count(b"[") + head.count(b"{") > MAX_DEPTH and _is_deep(header):
            raise ProtocolError("json", "a frame's header is nested deeper than {}".format(MAX_DEPTH))
        return check(header)


def _is_deep(value: Any) -> bool:
    """Whether it is nested deeper than MAX_DEPTH. It is checked level by level, without recursion."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True
