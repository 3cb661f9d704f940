"""A link without threads and without a host: what is sent over it, and the facts that follow, for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from launcher.agents import facts
from launcher.agents.plan import HostPlan
from launcher.agents.receiver import FrameReceiver
from launcher.results.output_folder import OutputFolder
from remote_agent.protocol import wire
from tests.specs import zygote_spec

WELCOME = {
    "t": "welcome",
    "version": wire.VERSION,
    "run": "r1",
    "hostname": "gpu1",
    "boot_id": "b",
    "pid": 1,
    "python": "3.11.2",
    "slots": 2,
    "spool": "/spool",
}


def plan(**more: Any) -> HostPlan:
    """What the host is told."""
    return HostPlan("r1", 1, None, "z", zygote_spec(), **more)


class Link:
    """A FrameReceiver with everything around it, and the facts that it made."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.facts: list[facts.Fact] = []
        self.sent: list[wire.Frame] = []
        self.folder = OutputFolder(folder / "0")
        self.wanted = {"0.1"}
        self.results = folder / "results"
        self.receiver = FrameReceiver("h", plan(**more), self.facts.append, self._folder_of, self.results, self._send)

    def _folder_of(self, host: str, attempt: str) -> OutputFolder | None:
        return self.folder if attempt in self.wanted else None

    def _send(self, item: Iterator[bytes] | bytes) -> None:
        data = item if isinstance(item, bytes) else b"".join(item)
        self.sent += wire.Decoder().feed(data)

    def hear(self, header: dict[str, Any], payload: bytes = b"") -> list[facts.Fact]:
        """Receive a frame. Returns the facts that follow."""
        before = len(self.facts)
        self.receiver.feed(wire.encode(header, payload))
        return self.facts[before:]

    def welcome(self) -> Link:
        """A link after its welcome."""
        self.hear(WELCOME)
        self.facts.clear()
        return self


def part(data: bytes, offset: int = 0) -> dict[str, Any]:
    """The description of a part of a result."""
    return {"offset": offset, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


_ATTEMPTS = st.sampled_from(["0.1", "0.2", "1.1", "9.9", "x", "", "../0.1", "99999999999999999999.1", "0.1\0"])


_NUMBERS = st.one_of(
    st.integers(-3, 10), st.sampled_from([2**62, -(2**62)]), st.floats(allow_nan=False, allow_infinity=False)
)


_TEXTS = st.one_of(
    st.text(max_size=6), st.sampled_from(["stdout", "result", "file", "ready", "failed", "COMPLETED", "\ud800", "../x"])
)


_ERRORS = st.fixed_dictionaries(
    {"kind": st.sampled_from(["exception", "lost", "no such"])},
    optional={"message": _TEXTS, "traceback": _TEXTS, "causes": st.lists(_NUMBERS, max_size=1)},
)


_VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=5,
)


_ENVELOPES = st.fixed_dictionaries(
    {"status": st.sampled_from(["COMPLETED", "FAILED", 5])},
    optional={
        "error": st.none() | _ERRORS,
        "duration": _NUMBERS | st.none(),
        "hooks": st.lists(
            st.dictionaries(st.sampled_from(["hook", "callback", "ok", "error"]), _VALUES, max_size=4), max_size=2
        ),
        "abort": st.none() | _TEXTS,
        "started_at": _VALUES,
    },
)


_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "attempt": _ATTEMPTS,
    "envelope": _ENVELOPES,
    "parts": st.dictionaries(st.sampled_from(["value", "cfg", "codec"]), st.just(part(b"")) | _VALUES, max_size=2),
    "kind": st.sampled_from(["file", "result", "x"]),
    "path": _TEXTS,
    "items": st.lists(st.tuples(_TEXTS, _NUMBERS, _NUMBERS), max_size=2),
    "refused": st.lists(st.tuples(_TEXTS, _TEXTS), max_size=2),
    "sizes": st.dictionaries(_TEXTS, _NUMBERS, max_size=2),
    "error": st.none() | _ERRORS,
    "state": st.sampled_from(["ready", "failed", "x"]),
    "stream": st.sampled_from(["stdout", "stderr", "x"]),
    "code": st.sampled_from(["note", "over", "x"]),
    "manifest": st.none() | _TEXTS,
    "run": st.just("r1"),
    "version": st.just(wire.VERSION),
}


_BY_TYPE = {int: st.integers(-3, 2**62), str: _TEXTS, float: _NUMBERS, bool: st.booleans()}
_NAMES = st.sampled_from(sorted(wire.SCHEMA))
_PAYLOADS = st.binary(max_size=6)


@st.composite
def messages(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A message whose fields usually have the right types."""
    name = draw(_NAMES)
    header: dict[str, Any] = {"t": name}
    for field, (types, required) in wire.SCHEMA[name].items():
        if not required and draw(_BY_TYPE[bool]):
            continue
        header[field] = draw(_FIELDS[field] if field in _FIELDS else _BY_TYPE.get(types[0], _VALUES))
    return header, draw(_PAYLOADS)
