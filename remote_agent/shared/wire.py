"""Frames and messages between controller, agent, zygote and job; sans-IO: bytes in, messages out.

Rule: nothing here reads, writes, decodes a pickle or allocates what a peer merely announces. A size is checked against a
cap before a byte of it is stored, and every message is checked against its schema before anybody acts on it. Numbers are
finite and fit 64 bits; what is inside a field of type list or object is for its reader to check.

A stream begins with `PREAMBLE` (what precedes it is noise of a login shell, kept for the error message). Then frames:

    !2sBxIQI   mark b"RL", wire version, header length, payload length, crc32 of the header
    header     one JSON object, utf-8; its key "t" names the message
    payload    opaque bytes

Weak spots, admitted: the crc guards against a desynchronised stream, not against an attacker (SSH does that), and a
peer may hold MAX_PAYLOAD bytes of memory for as long as it likes to send a `STEP` in each heartbeat.
"""

import json
import struct
import zlib
from typing import Any, List, NamedTuple, Optional, Tuple, Union, cast

from remote_agent.shared.messages import ABSENT, SCHEMA, Message

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
#: Bytes. A header is small; what is long goes into the payload.
MAX_HEADER = 1 << 20
#: Bytes by which a header may grow when it is passed on with more said about it.
HEADER_ROOM = 1 << 14
#: Bytes. What is longer is sent in chunks.
MAX_PAYLOAD = (1 << 20) + (1 << 16)
#: Bytes of one chunk of a long thing: large enough for throughput, small enough that other messages get between.
CHUNK = 1 << 18
#: Bytes of a long frame that count as a sign of life. Of them one in a heartbeat is asked for: the slowest link has more.
STEP = 1 << 12
#: How deep a header's fields may lie one inside the other: far from where a reader, or who passes it on, has no stack left.
MAX_DEPTH = 100
#: Bytes of noise tolerated before the preamble.
MAX_NOISE = 1 << 16

_MARK = b"RL"
#: Made once: `json.dumps` with separators of its own makes an encoder for every frame.
_to_json = json.JSONEncoder(separators=(",", ":")).encode
_HEAD = struct.Struct("!2sBxIQI")


class ProtocolError(Exception):
    """The peer sent what the protocol does not allow. `code` is a stable word for tests and messages.

    `frames` are those that came whole, in the same bytes, before it did.
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
    """The header, if it is a known message whose fields have the types of `SCHEMA`; with what it may leave out.

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
    """One frame as bytes. `passed_on`: the header holds what came in another one, and may be longer by HEADER_ROOM.

    Raises:
        ProtocolError: code `size`: header or payload over its cap (the caller's mistake, not the peer's).
    """
    return b"".join((encode_head(header, len(payload), passed_on=passed_on), payload))


def encode_head(header: Message, payload_length: int, *, passed_on: bool = False) -> bytes:
    """What goes before a payload of so many bytes: for one that is not to be copied. As `encode`."""
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


#: JSON as RFC 8259 has it, with numbers that fit: Python's own takes NaN, Infinity and integers of any length.
_JSON = json.JSONDecoder(parse_constant=_refuse, parse_int=_int, parse_float=_float)


class Decoder:
    """Bytes in, checked frames out. After a ProtocolError the stream cannot be read further.

    Args:
        cut: messages with an `offset` whose payload is not gathered: each piece of it is a frame as it comes, with the offset
            at which it lies; its payload is a view of what was fed, and good until the next call.
    """

    def __init__(
        self, max_header: int = MAX_HEADER + HEADER_ROOM, max_payload: int = MAX_PAYLOAD, cut: Tuple[str, ...] = ()
    ) -> None:
        self._buffer = bytearray()
        #: What was announced: bytes of the header, of the payload, checksum; and the header once it is here.
        self._need: Optional[Tuple[int, int, int]] = None
        self._begun: Optional[Message] = None
        self._max_header = max_header
        self._max_payload = max_payload
        self._cut = cut
        #: Bytes of the payload that is being cut which were handed on.
        self._handed_on = 0
        self._broken = False
        self._fed = self._frames = 0

    @property
    def is_idle(self) -> bool:
        """No part of a frame is waiting for its rest: the stream may end here."""
        return not self._buffer and self._need is None

    @property
    def steps(self) -> int:
        """Grows with every whole frame, and with every STEP bytes: a peer that drips a byte now and then makes none."""
        return self._frames + self._fed // STEP

    def feed(self, data: Union[bytes, bytearray, memoryview]) -> List[Frame]:
        """The frames that are complete with these bytes, in order.

        Raises:
            ProtocolError: codes `mark`, `version`, `size`, `crc`, `json` and those of `check`; its `frames` are those
                that came before.
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
                # Copied only where it came in more than one piece.
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
        """Bytes of what is read next: what is before a header, a header, a payload."""
        if self._need is None:
            return _HEAD.size
        return self._need[0 if self._begun is None else 1]

    def _piece(self, frames: List[Frame], rest: memoryview, size: int) -> memoryview:
        """Hand on what there is of a payload that is not gathered; returns what is behind it."""
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
        # Few headers have as many brackets at all.
        if head.count(b"[") + head.count(b"{") > MAX_DEPTH and _is_deep(header):
            raise ProtocolError("json", "a frame's header is nested deeper than {}".format(MAX_DEPTH))
        return check(header)


def _is_deep(value: Any) -> bool:
    """Lists and objects lie in it deeper than MAX_DEPTH; seen level by level, with no stack."""
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
