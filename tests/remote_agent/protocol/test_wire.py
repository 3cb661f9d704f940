"""Frames: what is encoded comes back, and nothing else is accepted, however it is cut, altered or repeated."""

from __future__ import annotations

import json
import struct
import zlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from remote_agent.protocol import wire
from tests.examples import examples

CODES = {"mark", "version", "size", "crc", "json", "header", "unknown", "field", "broken"}


def raw(header: bytes, /, **fields) -> bytes:
    """A frame with this header, whose head is altered."""
    head = {
        "mark": b"RL",
        "version": wire.VERSION,
        "header": len(header),
        "payload": 0,
        "crc": zlib.crc32(header),
        **fields,
    }
    return wire._HEAD.pack(*head.values()) + header


def fed(decoder: wire.Decoder, data: bytes) -> tuple[list[wire.Frame], str]:
    """What comes of these bytes: frames, and the code of the error after them."""
    try:
        return decoder.feed(data), ""
    except wire.ProtocolError as error:
        return error.frames, error.code


def code_of(data: bytes) -> str:
    """The code of the error in these bytes."""
    with pytest.raises(wire.ProtocolError) as caught:
        wire.Decoder().feed(data)
    return caught.value.code


def test_a_frame_comes_back():
    """Header and payload are unchanged."""
    header = {"t": "job", "spec": {"a": [1, 2.5, None, "ü"]}, "payload_blob": None, "last": True, "more": True}
    (frame,) = wire.Decoder().feed(wire.encode(header, b"\0\xff"))
    assert frame == (header, b"\0\xff")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"Last login: yesterday\r\nbash: no job control", "mark"),
        (raw(b"{}", mark=b"LR"), "mark"),
        (raw(b"{}", version=2), "version"),
        (raw(b"{}", version=0), "version"),
        (raw(b"{}", payload=1 << 63), "size"),
        (raw(b"{}", payload=(1 << 64) - 1), "size"),
        (raw(b"{}", payload=wire.MAX_PAYLOAD + 1), "size"),
        (raw(b"{}", header=(1 << 32) - 1), "size"),
        (raw(b"{}", header=wire.MAX_HEADER + wire.HEADER_ROOM + 1), "size"),
        (raw(b"{}", crc=1), "crc"),
        (raw(b"{"), "json"),
        (raw(b"\xff"), "json"),
        (raw(b"[" * 100_000), "json"),
        (raw(b'{"t":"ping","n":1,"x":' + b"[" * wire.MAX_DEPTH + b"]" * wire.MAX_DEPTH + b"}"), "json"),
        (raw(b'{"t":"ping","n":NaN}'), "json"),
        (raw(b'{"t":"ping","n":Infinity}'), "json"),
        (raw(b'{"t":"ping","n":1e999}'), "json"),
        (raw(b'{"t":"ping","n":' + b"9" * 5000 + b"}"), "json"),
        (raw(b"[]"), "header"),
        (raw(b"{}"), "header"),
        (raw(b'{"t":1}'), "header"),
        (raw(b'{"t":"no such"}'), "unknown"),
        (raw(b'{"t":"ping"}'), "field"),
        (raw(b'{"t":"ping","n":"1"}'), "field"),
        (raw(b'{"t":"ping","n":true}'), "field"),
        (raw(b'{"t":"ping","n":null}'), "field"),
        (raw(b'{"t":"ack","attempts":{}}'), "field"),
    ],
)
def test_bytes_that_are_no_frame_are_refused_with_a_typed_error(data, code):
    """Each kind of error has its code."""
    assert code_of(data) == code


def test_many_brackets_beside_one_another_are_not_deep():
    """Only nesting counts. Up to the allowed depth it is accepted."""
    inner: list = []
    for _ in range(wire.MAX_DEPTH - 2):
        inner = [inner]
    header = {"t": "ping", "n": 1, "deep": inner, "wide": [[] for _ in range(500)]}
    assert wire.Decoder().feed(wire.encode(header)) == [(header, b"")]


def test_a_size_is_refused_before_it_is_stored():
    """The head is enough. Not one of the announced bytes is waited for."""
    assert code_of(raw(b"", header=1, payload=1 << 62)[: wire._HEAD.size]) == "size"


def test_after_an_error_the_stream_is_not_read_further():
    """Bytes after an error do not count as a frame."""
    decoder = wire.Decoder()
    with pytest.raises(wire.ProtocolError):
        decoder.feed(b"x" * wire._HEAD.size)
    with pytest.raises(wire.ProtocolError) as caught:
        decoder.feed(wire.encode({"t": "ping", "n": 1}))
    assert caught.value.code == "broken"


def test_frames_before_an_error_are_not_lost():
    """The error has the frames that were complete before it."""
    with pytest.raises(wire.ProtocolError) as caught:
        wire.Decoder().feed(wire.encode({"t": "ping", "n": 1}) + wire.encode({"t": "ping", "n": 2}) + b"x" * 40)
    assert [frame.header["n"] for frame in caught.value.frames] == [1, 2]


def test_a_frame_that_is_too_large_is_not_encoded():
    """The sender gets the error, not the peer. A frame that is passed on may be a little longer."""
    with pytest.raises(wire.ProtocolError, match="payload"):
        wire.encode({"t": "job", "spec": {}}, bytes(wire.MAX_PAYLOAD + 1))
    long = {"t": "fatal", "code": "x", "message": "x" * wire.MAX_HEADER}
    with pytest.raises(wire.ProtocolError, match="header"):
        wire.encode(long)
    assert wire.Decoder().feed(wire.encode(long, passed_on=True))
    with pytest.raises(wire.ProtocolError, match="header"):
        wire.encode({**long, "more": "x" * wire.HEADER_ROOM}, passed_on=True)


@pytest.mark.parametrize("name", sorted(wire.SCHEMA))
def test_every_message_needs_its_required_fields(name):
    """Without one, or with one of another type, it is refused. A later version may send more fields."""
    sample = {int: 1, str: "x", list: [], dict: {}, bool: True, float: 1.5, type(None): None}
    full = {field: sample[types[0]] for field, (types, _) in wire.SCHEMA[name].items()}
    assert wire.check({"t": name, **full, "of a later version": 1})
    for field, (types, required) in wire.SCHEMA[name].items():
        without = {key: value for key, value in full.items() if key != field}
        if required:
            with pytest.raises(wire.ProtocolError, match="lacks"):
                wire.check({"t": name, **without})
        else:
            wire.check({"t": name, **without})
        for kind, value in sample.items():
            if kind not in types:
                with pytest.raises(wire.ProtocolError, match="type"):
                    wire.check({"t": name, **full, field: value})


def test_what_is_a_sign_of_life():
    """A complete frame, or this many bytes of one. Single bytes are none."""
    decoder = wire.Decoder()
    long = wire.encode({"t": "job", "spec": {}}, bytes(2 * wire.STEP))
    for at in range(100):
        decoder.feed(long[at : at + 1])
    assert decoder.steps == 0
    decoder.feed(long[100 : wire.STEP])
    assert decoder.steps == 1
    decoder.feed(long[wire.STEP :])
    assert decoder.steps == 3
    decoder.feed(wire.encode({"t": "ping", "n": 1}))
    assert decoder.steps == 4


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
_FRAMES = st.lists(
    st.tuples(
        st.fixed_dictionaries({"t": st.just("job"), "spec": st.dictionaries(st.text(max_size=8), _JSON, max_size=3)}),
        st.binary(max_size=300),
    ),
    max_size=6,
)


@pytest.mark.slow
@given(_FRAMES, st.lists(st.integers(1, 97), min_size=1))
@example([({"t": "job", "spec": {"": -(10**18)}}, b"")], [97])
def test_frames_come_back_however_the_stream_is_cut(frames, sizes):
    """One byte at a time, or many frames at once."""
    data = b"".join(wire.encode(header, payload) for header, payload in frames)
    decoder = wire.Decoder()
    out = []
    start = index = 0
    while start < len(data):
        size = sizes[index % len(sizes)]
        out += decoder.feed(data[start : start + size])
        start += size
        index += 1
    # What a sender left out is there as what stands for it.
    assert out == [({**header, "payload_blob": None, "last": False}, payload) for header, payload in frames]
    assert decoder.is_idle


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4), st.lists(st.integers(1, 97), min_size=1))
@example([b"", b"x"], [1])
def test_a_payload_of_a_cut_message_comes_as_it_arrives(payloads, sizes):
    """Its pieces are in order, each with its offset. Nothing of it is kept, and other frames come complete."""
    blob = {"t": "blob", "sha256": "x", "size": 3, "offset": 7, "scope": "run"}
    data, offset = b"", 0
    for payload in payloads:
        header = {"t": "chunk", "attempt": "0.1", "kind": "result", "size": 1200, "offset": offset}
        data += wire.encode(header, payload) + wire.encode(blob, b"abc")
        offset += len(payload)
    decoder = wire.Decoder(cut=("chunk",))
    pieces, others = [], []
    start = index = 0
    while start < len(data):
        size = sizes[index % len(sizes)]
        for frame in decoder.feed(data[start : start + size]):
            (pieces if frame.header["t"] == "chunk" else others).append((frame.header, bytes(frame.payload)))
        start += size
        index += 1
    assert b"".join(payload for _, payload in pieces) == b"".join(payloads)
    assert len(pieces) >= len(payloads)
    at = 0
    for header, payload in pieces:
        assert (header["offset"], header["size"]) == (at, 1200)
        at += len(payload)
    assert others == [(blob, b"abc")] * len(payloads)
    assert decoder.is_idle


def test_a_piece_of_a_payload_is_no_whole_frame():
    """It is neither copied nor a sign of life. A peer that sends single bytes makes no progress."""
    decoder = wire.Decoder(cut=("chunk",))
    header = {"t": "chunk", "attempt": "0.1", "kind": "result", "size": 100, "offset": 0}
    assert decoder.feed(wire.encode_head(header, 100)) == []
    drip = b"x"
    for _ in range(99):
        (frame,) = decoder.feed(drip)
        assert frame.payload.obj is drip
        assert not decoder._buffer
    assert decoder.steps == 0
    assert not decoder.is_idle
    decoder.feed(drip)
    assert decoder.steps == 1
    assert decoder.is_idle


@given(st.binary(max_size=400))
def test_no_bytes_do_anything_but_frames_or_a_typed_error(data):
    """Fuzz: any bytes give checked frames, nothing yet, or ProtocolError."""
    frames, code = fed(wire.Decoder(), data)
    assert code in CODES | {""}
    for frame in frames:
        wire.check(frame.header)


@pytest.mark.slow
@given(
    st.sampled_from(sorted(wire.SCHEMA)),
    st.dictionaries(st.sampled_from(sorted({f for s in wire.SCHEMA.values() for f in s})), _JSON),
)
def test_no_header_is_accepted_that_the_schema_does_not_allow(name, fields):
    """Fuzz: an accepted header has the types that its handler expects."""
    header = json.dumps({"t": name, **fields}).encode()
    frames, code = fed(wire.Decoder(), raw(header))
    if not frames:
        assert code in CODES
        return
    (frame,) = frames
    for field, (types, required) in wire.SCHEMA[name].items():
        if required or field in frame.header:
            assert isinstance(frame.header[field], types)


class StreamMachine(RuleBasedStateMachine):
    """A stream with frames, cuts, repeats, bit flips, noise and false sizes in any order, in pieces of any size.

    Model: the frames sent so far. Until the first fault what is decoded is a prefix of them, in order; once there was an
    error nothing comes but the same again. What is kept is never more than one frame may be long.
    """

    MOST = 150

    @initialize()
    def begin(self) -> None:
        self.decoder = wire.Decoder(max_header=self.MOST, max_payload=self.MOST)
        self.piece = 1 << 20
        self.is_over = False
        self.sent: list[tuple[dict, bytes]] = []
        self.got: list[tuple[dict, bytes]] = []
        self.rest = b""
        self.is_faulty = False
        self.numbers = 0

    def feed(self, data: bytes) -> None:
        for start in range(0, len(data), self.piece):
            frames, code = fed(self.decoder, data[start : start + self.piece])
            self.got += frames
            if self.is_over:
                assert (frames, code) == ([], "broken")
            elif code:
                assert code in CODES - {"broken"}
                assert self.is_faulty
                self.is_over = True

    @rule(piece=st.sampled_from([1, 2, 3, 19, 20, 21, 64, 1 << 20]))
    def cut(self, piece: int) -> None:
        """From now on the stream comes in pieces of this size: byte by byte, or many frames at once."""
        self.piece = piece

    @rule(header=st.integers(0, 2**32 - 1), payload=st.integers(0, 2**64 - 1), more=st.binary(max_size=400))
    def boast(self, header: int, payload: int, more: bytes) -> None:
        """A head that announces any sizes, and some of the announced bytes."""
        self.is_faulty = True
        self.feed(self.rest + raw(b"", header=header, payload=payload) + more)
        self.rest = b""

    @rule(payload=st.binary(max_size=60), cut=st.integers(0, 120))
    def send(self, payload: bytes, cut: int) -> None:
        """A frame whose last bytes come with the next one."""
        self.numbers += 1
        header = {"t": "ping", "n": self.numbers}
        data = self.rest + wire.encode(header, payload)
        if not self.is_faulty:
            self.sent.append((header, payload))
        cut = min(cut, len(data))
        self.rest = data[len(data) - cut :]
        self.feed(data[: len(data) - cut])

    @rule(noise=st.binary(min_size=1, max_size=30))
    def make_noise(self, noise: bytes) -> None:
        """Bytes that are no frame."""
        self.is_faulty = True
        self.feed(self.rest + noise)
        self.rest = b""

    @rule(at=st.integers(0, 30), bit=st.integers(0, 7))
    def flip(self, at: int, bit: int) -> None:
        """Flip a bit of a frame's head or header."""
        data = bytearray(wire.encode({"t": "pong", "n": 7}))
        data[at % len(data)] ^= 1 << bit
        self.is_faulty = True
        self.feed(self.rest + bytes(data))
        self.rest = b""

    @rule()
    def flush(self) -> None:
        """The bytes that were held back come."""
        data, self.rest = self.rest, b""
        self.feed(data)

    @invariant()
    def what_came_is_what_was_sent(self) -> None:
        """In order, with nothing invented and nothing twice."""
        if hasattr(self, "sent"):
            count = min(len(self.got), len(self.sent))
            assert self.got[:count] == self.sent[:count]
            if not self.is_faulty:
                assert len(self.got) <= len(self.sent)
                if not self.rest:
                    assert self.got == self.sent

    @invariant()
    def little_is_kept(self) -> None:
        """The head is enough to refuse what it announces. After an error nothing is kept."""
        if hasattr(self, "sent"):
            assert len(self.decoder._buffer) <= (0 if self.is_over else wire._HEAD.size + 2 * self.MOST)


TestStream = StreamMachine.TestCase
TestStream.settings = settings(max_examples=examples(60), stateful_step_count=25, deadline=None)


def test_the_head_is_as_documented():
    """The layout is fixed, because other versions read it to refuse a version by name."""
    assert wire._HEAD.size == struct.calcsize("!2sBxIQI") == 20
    data = wire.encode({"t": "ping", "n": 1}, b"pp")
    assert data[:3] == b"RL\x01"
    assert data[-2:] == b"pp"
