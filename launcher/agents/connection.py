"""The link to one host: it connects, shakes hands, sends what the host needs, passes on what it says, and reconnects.

Rule: the threads here only do I/O. They never decide about a job: each fact goes to the dispatcher's inbox, in the
order in which it happened on that host. A lost link is a fact and not a failure, even before the agent's first welcome.
Errors of authentication, of the host key and of what the host cannot do are final.

One thread per host connects and reads. A link that is up has two more (`launcher.agents.link`).
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.agents.connect_limit import ConnectLimit
from launcher.agents.facts import Disconnected, Fact, Refused, Unusable, WayTaken
from launcher.agents.link import Link
from launcher.agents.plan import Blob, HostPlan, blob_frames
from launcher.agents.receiver import SYNC, FrameReceiver
from launcher.bootstrap.start import PREFIX, next_step
from launcher.errors import AgentError, ConnectionLost, HostBroken, HostError, HostUnreachable
from launcher.hosts.limits import limit
from launcher.results.output_folder import OutputFolder
from launcher.transports.base import Channel, Transport, Way
from remote_agent.protocol import wire
from remote_agent.protocol.constants import EXIT_FOLDERS
from remote_agent.protocol.specs.job import JobSpec

if TYPE_CHECKING:
    from launcher.agents.environment import Source

__all__ = ["WELCOME_PATIENCE", "AgentConnection", "Blob", "HostPlan"]

#: A job's payload of up to this many bytes is sent with the job. A longer one is sent before it, as a blob.
MAX_INLINE = 1 << 20
_MAX_BACKOFF = 30.0
#: If a host's link is lost before its first welcome, it is tried again for at most this many seconds.
WELCOME_PATIENCE = 120.0
#: It is tried at least this often, because on a slow machine one try may take that long.
_MIN_TRIES = 3
#: Seconds to wait for the exit status of a command that has ended.
_STATUS_TIMEOUT = 2.0
#: After a link that worked, the pause before the next one grows to at most 0.25 * 2 ** (this + 1) seconds.
_MAX_QUICK = 2
#: How often in a row an agent may say that it cannot go on, or may break the protocol, before the host is given up.
_MAX_REFUSALS = limit("breaches")


class AgentConnection:
    """The controller's link to one host.

    Args:
        start_agent: makes a channel to the host's agent. Returns it with the bytes that came after the preamble.
        plan: returns what the host must be told. Called once per link.
        inbox: called with each fact. May wait.
        folder_of: (host, attempt) -> the folder for its files.
        results: the folder for large results.
        patience: a host without a welcome is unusable this many seconds after the first lost link. It is tried at least three times.
        connect_limit: how many of the run's hosts connect at once.
    """

    def __init__(
        self,
        host: str,
        transport: Transport,
        start_agent: Callable[[Transport], tuple[Channel, bytes]],
        plan: Callable[[], HostPlan],
        inbox: Callable[[Fact], None],
        folder_of: Callable[[str, str], OutputFolder | None],
        results: Path,
        controller: str,
        patience: float = WELCOME_PATIENCE,
        connect_limit: ConnectLimit | None = None,
    ) -> None:
        self.host = host
        self._transport = transport
        self._start_agent = start_agent
        self._plan_of = plan
        self._inbox = inbox
        self._folder_of = folder_of
        self._results = results
        self._controller = controller
        self._link: Link | None = None
        self._environment: Source | None = None
        self._way: Way | None = None
        self._receiver: FrameReceiver | None = None
        self._stopping = threading.Event()
        self._was_connected = False
        self._patience = patience
        self._connect_limit = connect_limit or ConnectLimit(1)
        #: Since when, and how often, links were lost without a welcome.
        self._lost_since: float | None = None
        self._losses = 0
        self._refusals = 0
        #: The agent was told that the run is over.
        self._is_finishing = False
        self._finished = threading.Event()
        self._reader = threading.Thread(target=self._read_loop, name=f"session-{host}", daemon=True)

    def start(self) -> None:
        """Begin to connect."""
        self._reader.start()

    def expect(self) -> None:
        """Record that the host has jobs from an earlier controller.

        If it cannot be reached, it is tried again and not given up.
        """
        self._was_connected = True

    # -- called by the dispatcher, from any thread ---------------------------------------------------------------

    def send_job(self, spec: JobSpec, payload: bytes, *, is_last: bool = False) -> None:
        """Queue a job for the host. A long payload is sent before it, as a blob. `is_last`: no other follows soon."""
        if len(payload) <= MAX_INLINE:
            self._put(wire.encode({"t": "job", "spec": spec.to_json(), "payload_blob": None, "last": is_last}, payload))
            return
        sha256 = hashlib.sha256(payload).hexdigest()
        self._put(blob_frames(Blob(sha256, len(payload), lambda: payload), "run"))
        self._put(wire.encode({"t": "job", "spec": spec.to_json(), "payload_blob": sha256, "last": is_last}))

    def cancel(self, attempts: list[str] | None, *, kill: bool = False, kind: str = "cancelled", why: str = "") -> None:
        """Cancel these attempts, or all. `why` becomes the message of those that had not started."""
        self._put(wire.encode({"t": "cancel", "attempts": attempts, "kill": kill, "kind": kind, "why": why}))

    def stop(self, attempts: list[str]) -> None:
        """Ask these attempts to stop at their next report."""
        self._put(wire.encode({"t": "stop", "attempts": attempts}))

    def sync(self, number: int) -> None:
        """Make the agent confirm what was sent so far. `Synced(number)` follows, unless the link is lost before."""
        self._put(wire.encode({"t": "ping", "n": SYNC + 2 * number}))

    def go(self) -> None:
        """Let jobs start that wait in the spool from an earlier agent. The others were cancelled before."""
        self._put(wire.encode({"t": "go"}))

    def take_back(self, attempts: list[str]) -> None:
        """Ask for attempts that have not started. `Dropped` or `Started` follows for each, unless the link is lost before."""
        self._put(wire.encode({"t": "take_back", "attempts": attempts}))

    def acknowledge(self, attempts: list[str]) -> None:
        """Tell the host that it may forget these attempts."""
        self._put(wire.encode({"t": "ack", "attempts": attempts}))

    def finish(self, *, keep: bool = False, interrupted: bool = False) -> None:
        """End the run on this host. Its agent ends, and its spool is removed unless it is kept. An interrupted run leaves no process."""
        self._is_finishing = True
        self._put(wire.encode({"t": "finish", "keep": keep, "interrupted": interrupted}))

    def wait_finished(self, timeout: float) -> bool:
        """Wait until the agent closes the link after `finish`. Returns whether it did within that many seconds."""
        return self._finished.wait(timeout)

    def close(self) -> None:
        """End the threads and the connection. The agent stays."""
        self._stopping.set()
        link = self._link
        if link is not None:
            link.end()
        if self._environment is not None:
            self._environment.stop()
        # Close the transport first: closing a channel sends to the host, and would wait for a host that takes nothing.
        self._transport.close()
        if link is not None:
            link.channel.close()
        if self._reader.ident is not None and self._reader is not threading.current_thread():
            self._reader.join(timeout=10)

    @property
    def is_connected(self) -> bool:
        """Whether there is a link now."""
        return self._link is not None

    def _put(self, item: Iterator[bytes] | bytes) -> None:
        # Without a link nothing is queued. The next welcome says what arrived, and the dispatcher sends the rest again.
        link = self._link
        if link is not None:
            link.put(item)

    # -- the reader ----------------------------------------------------------------------------------------------

    def _read_loop(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            failures += 1
            try:
                self._connect_and_read()
            except (HostError, OSError) as error:
                if self._stopping.is_set() or not self._failed(self._as_host_error(error)):
                    break
                if self._receiver is not None and self._receiver.is_welcome and isinstance(error, HostError):
                    # The host is there, so try again soon, but not at once: its agent may die at every welcome.
                    failures = min(failures, _MAX_QUICK + 1)
            except Exception as error:  # our own defect must not look like a silent host  # noqa: BLE001
                self._failed(AgentError(self.host, "session", f"{type(error).__name__}: {error}"))
                if not self._was_connected:
                    break
            # A connection whose session was lost may look alive for hours, so do not use it again.
            self._transport.reset()
            # Full jitter, so that hosts that were lost together do not come back together.
            self._stopping.wait(random.uniform(0.05, min(_MAX_BACKOFF, 0.25 * 2 ** min(failures, 8))))  # noqa: S311
        self._finished.set()

    def _failed(self, error: HostError) -> bool:
        """Report that the link is gone, or could not be made. Returns False if it is not tried again."""
        if not self._was_connected:
            final = self._final(error)
            if final is not None:
                self._inbox(Unusable(self.host, final))
                return False
        self._inbox(Disconnected(self.host, error.message_of(self.host)))
        if self._refusals >= _MAX_REFUSALS:
            self._inbox(Refused(self.host, error.message))
            return False
        return True

    def _as_host_error(self, error: HostError | OSError) -> HostError:
        """Turn an error of this machine that may pass into one that ends the link.

        The host keeps its results until there is room here.
        """
        if isinstance(error, HostError):
            return error
        where = f"{error.filename}: " if error.filename else ""
        what = (
            "this machine cannot connect to the host"
            if self._receiver is None
            else "what the host sent cannot be written here"
        )
        return ConnectionLost(self.host, "session", f"{what}: {where}{error.strerror or error}")

    def _final(self, error: HostError) -> HostError | None:
        """Return why a host without a welcome so far is not tried again; None if it is.

        A lost link is made again, and after that a host that cannot be reached for a moment (it sheds load, its sshd
        restarts) is tried again, too. A host that was never reached is reported at once.
        """
        now = time.monotonic()
        if not isinstance(error, ConnectionLost) and not (
            isinstance(error, HostUnreachable) and self._lost_since is not None
        ):
            return error
        self._losses += 1
        if self._lost_since is None:
            self._lost_since = now
        if now - self._lost_since < self._patience or self._losses < _MIN_TRIES:
            return None
        tries = f"; it was tried {self._losses} times within {now - self._lost_since:.0f} s" if self._losses > 1 else ""
        step = error.next_step or next_step(self.host, "its link must stay up; see what sshd logs there")
        return type(error)(error.host, error.phase, f"{error.message}{tries}", step)

    def _connect_and_read(self) -> None:
        self._receiver = None
        with self._connect_limit.turn(self._stopping):
            channel, rest = self._start_agent(self._transport)
        self._tell_way()
        plan = self._plan_of()
        link = Link(self.host, channel)
        for frame in self._greeting(plan):
            link.put(frame)
        sender = None
        if plan.environment is not None:
            from launcher.agents.environment import EnvironmentSender

            self._environment = plan.environment
            # No limit is needed: what it sends was requested once, and nothing is requested again before it arrives.
            sender = EnvironmentSender(
                self.host,
                plan.environment,
                link.put,
                plan.environments_budget,
                plan.environment_python,
                plan.downloads,
            )
        receiver = self._receiver = FrameReceiver(
            self.host, plan, self._inbox, self._folder_of, self._results, link.reply, sender
        )
        self._link = link
        link.start()
        try:
            self._read(link, receiver, rest)
        finally:
            self._link = None
            if sender is not None:
                sender.close()
            link.close()
            receiver.attempts.close()

    def _tell_way(self) -> None:
        way = self._transport.way
        if way is not None and way != self._way:
            self._way = way
            self._inbox(WayTaken(self.host, way.name, way.why))

    def _greeting(self, plan: HostPlan) -> Iterator[Iterator[bytes] | bytes]:
        yield wire.encode(
            {
                "t": "hello",
                "version": wire.VERSION,
                "run": plan.run,
                "controller": self._controller,
                "host": self.host,
                "slots": plan.slots,
                "gpus": plan.gpus,
                "needs": None if plan.needs is None else plan.needs.to_json(),
                "size": None if plan.size is None else plan.size.to_json(),
                "lease": plan.lease,
                "live": plan.live,
                "batch": None if plan.batch is None else dict(plan.batch),
                "sync": None if plan.sync is None else plan.sync.to_json(),
                "holes": True,
            }
        )
        if plan.manifest is not None:
            yield wire.encode({"t": "manifest", "sha256": plan.manifest})
        for blob in plan.run_blobs:
            yield blob_frames(blob, "run")
        yield wire.encode({"t": "prepare", "zygote": plan.zygote, "spec": plan.zygote_spec.to_json()})
        if plan.environment is not None:
            yield wire.encode({"t": "ask_pythons", "python": plan.environment_python})

    def _read(self, link: Link, receiver: FrameReceiver, data: bytes) -> None:
        while not self._stopping.is_set():
            if data:
                try:
                    link.feed(receiver, data)
                except HostBroken:
                    self._refusals = _MAX_REFUSALS
                    raise
                except AgentError:
                    self._refusals += 1
                    raise
                finally:
                    # This counts even if it refuses something in the same read. After its welcome, it is a host whose link was lost.
                    self._was_connected = self._was_connected or receiver.is_welcome
                if receiver.attempts.has_result:
                    self._refusals = 0
                if receiver.is_over:
                    if not self._is_finishing:
                        # The agent had nothing to do and no controller for a long time. The next connection starts another one.
                        raise ConnectionLost(
                            self.host, "session", "its agent ended, because nobody had contacted it for a long time"
                        )
                    self._stopping.set()
                    return
            data = link.channel.recv(1 << 24)
            if not data:
                raise self._ended(link.channel, receiver)

    def _ended(self, channel: Channel, receiver: FrameReceiver) -> HostError:
        """Handle the end of the command on the host.

        The link is lost, unless the command says that no agent started.
        """
        status = None if receiver.is_welcome else channel.exit_status(_STATUS_TIMEOUT)
        said = channel.stderr().strip()
        if status == EXIT_FOLDERS and said:
            return AgentError(self.host, "start agent", said[-2000:].removeprefix(PREFIX))
        return ConnectionLost(self.host, "session", "the link ended" + (f": {said[-500:]}" if said else ""))
