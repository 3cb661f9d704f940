"""Receives an agent's messages over one link: it takes frames and returns checked facts.

Rule: a host is not trusted. Every field is checked before it is used. A breach of the protocol ends the link with a
typed error. An error in one result affects only that result. Each link has its own receiver, so nothing is carried over
from a broken link.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

from launcher.agents import facts
from launcher.agents.attempt_receiver import AttemptReceiver
from launcher.agents.checks import check_attempt, short_name, short_texts, shortened
from launcher.agents.plan import HostPlan, blob_frames, content_frames
from launcher.errors import AgentError, HostBroken
from launcher.hosts.limits import TooMuch, check, limit
from launcher.results.output_folder import OutputFolder
from launcher.util.text.terminal_text import clean, clean_all
from remote_agent.job import JobError
from remote_agent.protocol import messages, wire
from remote_agent.protocol.fields import is_sha256
from remote_agent.protocol.specs.resources import Room

if TYPE_CHECKING:
    from launcher.agents.environment import EnvironmentSender

__all__ = ["SYNC", "FrameReceiver"]

#: Pings from this number on are those of `sync`. The numbers of heartbeats never get so high.
SYNC = 1 << 40
_WELCOME = ("welcome", "fatal", "ping")
#: How many characters an attempt's short state may have.
_STATE = 20
#: The beginning of a host's advice about a module that it lacks.
_ADVICE = "\n    next: "
#: Messages with paths, which may have any characters. All other text is cleaned when it arrives.
_WITH_PATHS = ("files", "chunk", "tree", "synced", "rest")


class FrameReceiver:
    """The frames of one link.

    Args:
        tell: called with each fact. May wait.
        folder_of: (host, attempt) -> where its files go; None if they are not wanted.
        results: the folder for large results.
        send: sends frames to the agent.
        environment: answers requests about the environment, if the run has one.

    Attributes:
        attempts: handles the messages about attempts.
    """

    def __init__(
        self,
        host: str,
        plan: HostPlan,
        tell: Callable[[facts.Fact], None],
        folder_of: Callable[[str, str], OutputFolder | None],
        results: Path,
        send: Callable[[Iterator[bytes] | bytes], None],
        environment: EnvironmentSender | None = None,
    ) -> None:
        self.host = host
        self._plan = plan
        self._tell = tell
        self.attempts = AttemptReceiver(host, plan, tell, folder_of, results, send)
        self._send = send
        self._environment = environment
        self._environment_words = 0
        # Long contents are written to their files while they arrive.
        self._decoder = wire.Decoder(cut=("chunk",))
        self.is_welcome = False
        #: Whether the agent has said that the run is over.
        self.is_over = False
        self._states: dict[str, str] = {}
        self._words: dict[str, str] = {}
        self._sent_files = 0
        self._sent_bytes = 0
        self._asked = 0
        self._welcomes = 0
        self._zygotes = 0

    @property
    def steps(self) -> int:
        """A counter that grows with each sign of life. See `remote_agent.protocol.wire.Decoder.steps`."""
        return self._decoder.steps

    def feed(self, data: bytes) -> None:
        """Take bytes as they come.

        Raises:
            HostBroken: an agent may not send this much.
            AgentError: an agent would not send them.
            OSError: they cannot be written here now. What can never be written is an error of the job, and does not end
            the link.
        """
        try:
            try:
                frames = self._decoder.feed(data)
            except wire.ProtocolError as error:
                self._take(error.frames)
                raise
            self._take(frames)
        except TooMuch as error:
            step = "our agent never sends so much: do not use the host before you know what does"
            raise HostBroken(self.host, "session", f"it sent more than the limit: {error}", step) from None
        except wire.ProtocolError as error:
            told = f"the agent breaks the protocol ({error.code}): {error}"
            raise AgentError(
                self.host, "session", told, "see what else prints in the session, with `launcher doctor`"
            ) from None

    def _take(self, frames: list[wire.Frame]) -> None:
        for frame in frames:
            name = frame.header["t"]
            if not self.is_welcome and name not in _WELCOME:
                raise wire.ProtocolError("order", f"{name!r} before welcome")
            try:
                header = frame.header if name in _WITH_PATHS else clean_all(frame.header)
                self._act_on(cast("messages.FromAgent", header), frame.payload)
            except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
                raise wire.ProtocolError("field", f"message {name!r} is malformed: {error!r}"[:2000]) from None

    def _act_on(self, header: messages.FromAgent, payload: bytes) -> None:  # noqa: C901 - one case for each message
        """Act on one message. The most frequent kinds come first."""
        match header["t"]:
            case "output":
                self.attempts.on_output(header, payload)
            case "started":
                self.attempts.on_started(header, payload)
            case "final":
                self.attempts.on_final(header, payload)
            case "files_end":
                self.attempts.on_files_end(header, payload)
            case "files":
                self.attempts.on_files(header, payload)
            case "chunk":
                self.attempts.on_chunk(header, payload)
            case "tree":
                self.attempts.on_tree(header, payload)
            case "synced":
                self.attempts.on_synced(header, payload)
            case "ask_held":
                self.attempts.on_ask_held(header, payload)
            case "rest":
                self.attempts.on_rest(header, payload)
            case "reports":
                self.attempts.on_reports(header, payload)
            case "ping":
                self._on_ping(header, payload)
            case "pong":
                self._on_pong(header, payload)
            case "welcome":
                self._on_welcome(header, payload)
            case "missing":
                self._on_missing(header, payload)
            case "pythons":
                self._on_pythons(header, payload)
            case "environment_state":
                self._on_environment_state(header, payload)
            case "zygote":
                self._on_zygote(header, payload)
            case "opened":
                self._on_opened(header, payload)
            case "dropped":
                self.attempts.on_dropped(header, payload)
            case "fatal":
                self._on_fatal(header, payload)
            case (
                "surveyed"
                | "environments_listed"
                | "gpus_listed"
                | "use_listed"
                | "environment_compared"
                | "removed"
                | "looked"
            ):
                raise wire.ProtocolError("unknown", f"message {header['t']!r} is not for a run")
            case _:
                _refuse(header)

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
            check_attempt(attempt)
            # A few words are shared by many attempts.
            word = clean(state)[:_STATE]
            self._states[attempt] = self._words.setdefault(word, word)
        check("attempts", len(self._states))
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
                short_name(header["python"]),
                tuple(short_name(gpu) for gpu in header["gpus"][: limit("gpus")]),
                short_name(header["boot_id"]),
                self._states,
                short_texts(header["notes"]),
                short_texts(header["logout"]),
                header["takes_back"],
                header["too_small"][: limit("reason")],
                Room.from_json(header["room"]) if header["room"] is not None else None,
                header["stops"],
            )
        )

    def _on_missing(self, header: messages.Missing, payload: bytes) -> None:
        plan = self._plan
        if plan.manifest is None:
            raise wire.ProtocolError("order", "the agent asks for code that was not offered")
        self._asked += 1 + len(header["sha256"])
        if self._asked > limit("asked") * (2 + len(plan.contents)):
            raise TooMuch("asked", limit("asked") + 1)
        if header["manifest"]:
            manifest = plan.contents[plan.manifest]
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

    def _on_pythons(self, header: messages.Pythons, payload: bytes) -> None:
        environment = self._environment_asked()
        from remote_agent.protocol.specs.environment import HostFacts

        environment.describe(HostFacts.from_json(json.loads(payload.decode("utf-8"))))
        self._tell(facts.EnvironmentTold(self.host, "", "resolving", 0, 0, 0))

    def _on_environment_state(self, header: messages.EnvironmentState, payload: bytes) -> None:
        environment = self._environment_asked()
        key, state = header["key"], header["state"]
        if not is_sha256(key) or state not in ("missing", "sending", "waiting", "building", "ready"):
            raise wire.ProtocolError("field", f"environment_state: {key[:80]!r} is {state[:40]!r}")
        if state == "missing":
            wanted = [(sha256, offset) for sha256, offset in json.loads(payload.decode("utf-8"))]
            if not all(is_sha256(sha256) and type(offset) is int and offset >= 0 for sha256, offset in wanted):
                raise wire.ProtocolError("field", "environment_state: a missing content has no valid hash or size")
            environment.send(wanted)
            state = "sending"
        if state == "ready":
            self._plan.remember_environment(key)
        done, total = max(header["done"], 0), max(header["total"], 0)
        fetched = min(max(header["fetched"], 0), total)
        self._tell(facts.EnvironmentTold(self.host, key, state, min(done, total), total, fetched))

    def _environment_asked(self) -> EnvironmentSender:
        """Return the sender for a message about the environment. It is refused if the run has none, or after too many messages."""
        if self._environment is None:
            raise wire.ProtocolError("order", "the agent reports an environment, and none was offered")
        self._environment_words += 1
        check("environment", self._environment_words)
        return self._environment

    def _on_zygote(self, header: messages.Zygote, payload: bytes) -> None:
        self._zygotes += 1
        check("zygotes", self._zygotes)
        state, error = header["state"], header["error"]
        if state not in ("ready", "failed") or (error is None) != (state == "ready"):
            raise wire.ProtocolError("field", f"zygote: state {state[:40]!r}")
        if error is not None:
            error = shortened(JobError.from_json(error)).to_json()
            known = self._plan.explain(error)
            if known:
                # This replaces the host's advice to install the module there.
                error["message"] = f"{error['message'].partition(_ADVICE)[0]}\n    {known}"
        if header["imported"] is not None:
            from launcher.code.application.known_imports import ImportFacts

            self._plan.remember_import(ImportFacts.of(header["imported"], most=limit("packages")))
        isolation, why = header["isolation"][:40], header["why"][: limit("reason")]
        self._tell(facts.ZygoteTold(self.host, state, error, isolation, why, short_texts(header["notes"])))

    def _on_opened(self, header: messages.Opened, payload: bytes) -> None:
        self._tell(facts.Opened(self.host))

    def _on_ping(self, header: messages.Ping, payload: bytes) -> None:
        self._send(wire.encode({"t": "pong", "n": header["n"]}))

    def _on_pong(self, header: messages.Pong, payload: bytes) -> None:
        """A heartbeat's answer needs nothing more; a `sync` takes a second ping."""
        number, is_second = divmod(header["n"] - SYNC, 2)
        if number >= 0 and not is_second:
            # Ping again, because a job that could not be spooled is given back right after the first answer.
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


def _refuse(header: NoReturn) -> NoReturn:
    """Refuse a message that a type checker rules out, because a broken host may send any."""
    raise wire.ProtocolError("unknown", f"message {header['t']!r} is not for a controller")
