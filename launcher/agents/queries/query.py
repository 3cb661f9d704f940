"""Asks a host something outside a run's session: what its agent has, and what can be cleaned up.

Rule: it starts no agent and replaces no controller. A host that cannot be reached is an error that names the host.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from launcher.agents.queries.gpus import GpuList, read_gpus
from launcher.agents.queries.host_use import HostUse, read_use
from launcher.bootstrap.bundle import build_bundle
from launcher.bootstrap.start import NoAgent, open_agent
from launcher.errors import AgentError, ConnectionLost
from launcher.hosts.host_spec import HostSpec
from launcher.hosts.limits import check, limit
from launcher.transports.base import Channel
from launcher.transports.factory import make_transport
from launcher.util.text.terminal_text import clean, clean_all
from remote_agent.protocol import wire
from remote_agent.protocol.fields import FieldError
from remote_agent.protocol.messages import FromController
from remote_agent.protocol.specs.environment import EnvironmentSpec, HostFacts

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AgentQuery", "Looked"]


@dataclass(frozen=True)
class Looked:
    """The state of an attempt on its host, and what it has printed after the requested offsets.

    `state` is `queued`, `running`, `final` or `unknown`.
    """

    state: str
    stdout: bytes
    stderr: bytes


class AgentQuery:
    """A conversation with one host, as a context manager.

    Args:
        role: `look` at the agent of a run, or `clean`.
        run: for `look`.

    Raises:
        HostError: on entering: it cannot be reached, or no agent of the run is running there.
    """

    def __init__(self, spec: HostSpec, role: str, run: str = "") -> None:
        self.host = spec.name
        self._spec = spec
        self._run = run
        self._role = [role, *(["--run", run, "--host", spec.name] if run else [])]
        if role == "look" and spec.slurm is not None:
            # Nothing of the run stays on a login node; its files tell.
            self._role += ["--batch", "slurm"]
        self._transport = make_transport(spec)
        #: The host had no bundle of this version, and got it.
        self.has_sent_bundle = False
        self._channel: Channel | None = None
        self._decoder = wire.Decoder()
        self._frames: Iterator[wire.Frame] = iter(())
        #: The limits of the present answer.
        self._answer_bytes = self._answer_frames = 0

    def __enter__(self) -> Self:
        bundle = build_bundle()
        try:
            self._channel, rest = open_agent(self._spec, self._transport, bundle, self._role, on_need=self._note_need)
        except NoAgent as error:
            self._transport.close()
            next_step = f"'launcher attach {self._run}' starts one"
            raise NoAgent(error.host, error.phase, error.message, next_step) from None
        except BaseException:
            self._transport.close()
            raise
        self._frames = self._read(rest)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._channel is not None:
            self._channel.close()
        self._transport.close()

    # -- queries -------------------------------------------------------------------------------------------------

    def look(self, attempt: str, stdout: int, stderr: int) -> Looked:
        """Return the state of an attempt, and what it has printed from these offsets on (perhaps not all of it)."""
        self._send({"t": "look", "attempt": attempt, "stdout": stdout, "stderr": stderr})
        said = {"stdout": b"", "stderr": b""}
        while True:
            frame = self._next()
            header = frame.header
            if header["t"] == "output" and header["attempt"] == attempt and header["stream"] in said:
                said[header["stream"]] += frame.payload
            elif header["t"] == "looked":
                return Looked(clean(header["state"]), said["stdout"], said["stderr"])

    def attempts(self) -> dict[str, dict[str, Any]]:
        """Return every attempt of the agent, with its `state`.

        One with a result also has `status` and the `kind` of its error.
        """
        self._send({"t": "look", "attempt": None, "stdout": 0, "stderr": 0})
        found: dict[str, dict[str, Any]] = {}
        while True:
            frame = self._next()
            header = frame.header
            if header["t"] == "looked":
                found.update({name: one for name, one in self._json(frame, dict).items() if isinstance(one, dict)})
                if not header["more"]:
                    return found

    def survey(self) -> list[dict[str, Any]]:
        """Return what runs have left there; see `remote_agent.agent.cleaning`."""
        self._send({"t": "survey"})
        return self._parts("surveyed")

    def environments(self) -> list[dict[str, Any]]:
        """Return the environments there; see `remote_agent.agent.environments.store.inventory`."""
        self._send({"t": "list_environments"})
        return self._parts("environments_listed")

    def gpus(self, wish: Any) -> GpuList:
        """Return the GPUs there. `wish`: those that a run would ask for, as `HostSpec.gpus`."""
        self._send({"t": "list_gpus", "gpus": list(wish) if isinstance(wish, tuple) else wish})
        header, items = self._listed("gpus_listed")
        return read_gpus(clean_all(header), items)

    def use(self) -> HostUse:
        """Return what runs there now."""
        self._send({"t": "list_use"})
        return read_use(self._answer("use_listed"))

    def facts(self, python: str | None) -> HostFacts:
        """Return what wheels for the host depend on; `python`: the only Python that counts.

        Raises:
            AgentError: it says what is none.
        """
        self._send({"t": "ask_pythons", "python": python})
        content = self._answer("pythons")
        try:
            return HostFacts.from_json(content)
        except FieldError as error:
            raise AgentError(self.host, "session", f"it breaks the protocol: {error}") from None

    def compare(self, spec: EnvironmentSpec) -> dict[str, Any]:
        """Return what of an environment is there; see `remote_agent.agent.environments.comparison`."""
        self._send({"t": "compare_environment"}, json.dumps(spec.to_json()).encode())
        answer: dict[str, Any] = self._answer("environment_compared")
        return answer

    def remove(self, items: list[str], *, force: bool = False) -> dict[str, Any]:
        """Remove these items of a survey. `removed` are ids, and `kept` are pairs of an id and the reason."""
        answer: dict[str, Any] = {"removed": [], "kept": []}
        for start in range(0, len(items), 500):
            self._send({"t": "remove", "items": items[start : start + 500], "force": force})
            frame = self._next()
            while frame.header["t"] != "removed":
                frame = self._next()
            part = self._json(frame, dict)
            removed, kept = part.get("removed", []), part.get("kept", [])
            pairs = [one for one in kept if isinstance(one, list) and len(one) == 2] if isinstance(kept, list) else []
            answer["removed"] += map(str, removed if isinstance(removed, list) else [])
            answer["kept"] += [(str(item), str(why)) for item, why in pairs]
        return answer

    def _note_need(self) -> None:
        self.has_sent_bundle = True

    # -- frames --------------------------------------------------------------------------------------------------

    def _send(self, header: FromController, payload: bytes = b"") -> None:
        """Ask something. The limits on frames and bytes start again for the answer."""
        self._answer_bytes = self._answer_frames = 0
        self._put(header, payload)

    def _put(self, header: FromController, payload: bytes = b"") -> None:
        if self._channel is None:
            raise ConnectionLost(self.host, "session", "the conversation is over")
        self._channel.send(wire.encode(header, payload))

    def _next(self) -> wire.Frame:
        frame = next(self._frames, None)
        if frame is None:
            raise ConnectionLost(self.host, "session", "the link ended")
        return frame

    def _read(self, rest: bytes) -> Iterator[wire.Frame]:
        data = rest
        while True:
            try:
                for frame in self._decoder.feed(data):
                    self._answer_frames += 1
                    self._answer_bytes += len(frame.payload)
                    check("answer_frames", self._answer_frames)
                    check("answer", self._answer_bytes)
                    header = frame.header
                    if header["t"] == "ping":
                        self._put({"t": "pong", "n": header["n"]})
                    elif header["t"] == "fatal":
                        raise AgentError(self.host, "session", f"the agent refuses: {header['message']}")
                    else:
                        yield frame
            except wire.ProtocolError as error:
                raise AgentError(self.host, "session", f"it breaks the protocol: {error}") from None
            if self._channel is None:
                return
            data = self._receive(self._channel)
            if not data:
                return

    def _receive(self, channel: Channel) -> bytes:
        """Return the next bytes. Waits no longer than the limit on silence."""
        is_over = threading.Event()

        def give_up() -> None:
            is_over.set()
            channel.close()

        timer = threading.Timer(limit("answer_silence"), give_up)
        timer.daemon = True
        timer.start()
        data = b""
        try:
            data = channel.recv(1 << 18)
        except ConnectionLost:
            if not is_over.is_set():
                raise
        finally:
            timer.cancel()
        if is_over.is_set():
            raise AgentError(self.host, "session", f"no answer came in {limit('answer_silence')} s")
        return data

    def _answer(self, name: str) -> Any:
        """The JSON object that comes in a message of that name."""
        frame = self._next()
        while frame.header["t"] != name:
            frame = self._next()
        return self._json(frame, dict)

    def _parts(self, name: str) -> list[Any]:
        return self._listed(name)[1]

    def _listed(self, name: str) -> tuple[Any, list[Any]]:
        """A list that comes in as many messages as it takes, with the header of the last one."""
        found: list[Any] = []
        while True:
            frame = self._next()
            header: Any = frame.header
            if header["t"] == name:
                found += self._json(frame, list)
                if not header["more"]:
                    return header, found

    def _json(self, frame: wire.Frame, kind: type) -> Any:
        try:
            content = json.loads(frame.payload.decode("utf-8"), parse_constant=_refuse)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, kind):
            raise AgentError(self.host, "session", f"its answer to {frame.header['t']!r} cannot be read")
        # Ids go back to the host unchanged. If one is not ours, it matches nothing there.
        return clean_all(content)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not a number")
