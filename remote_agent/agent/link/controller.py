"""The agent's view of its controller: links come and go, and the newest link counts.

Rule: each message of the controller goes to the handler for it. Messages to the controller are sent from here, short ones at once,
long ones as there is room. Without a controller nothing is kept for it beyond what the spool holds anyway.
"""

import json
import os
import selectors
import socket
import sys
import time
import traceback
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional

from remote_agent.agent.link.link import Link
from remote_agent.agent.spool.paths import SpoolPaths
from remote_agent.protocol import wire
from remote_agent.protocol.constants import HEARTBEAT
from remote_agent.protocol.messages import FromAgent, Hello, Look, Ping, Pong, Welcome
from remote_agent.protocol.specs.sync import SyncSpec

__all__ = ["Controller"]

#: How many notes are kept for later controllers, and how many characters of each. All of them fit into one welcome.
_MAX_NOTES = 100
_MAX_NOTE_LENGTH = 2000

#: Handles a message: its header and its payload.
Handler = Callable[[Any, bytes], None]


class Controller:
    """The controller, whether it is connected or not.

    Args:
        on_hello: takes a hello, and returns the contents of the welcome.
        on_greeted: called after the welcome.
        on_gone: called when the link of the controller has ended.
    """

    def __init__(
        self,
        paths: SpoolPaths,
        selector: selectors.BaseSelector,
        on_hello: Callable[[Hello], Dict[str, Any]],
        on_greeted: Callable[[], None],
        on_gone: Callable[[], None],
    ) -> None:
        self._paths = paths
        self._selector = selector
        self._on_hello = on_hello
        self._on_greeted = on_greeted
        self._on_gone = on_gone
        self.link: Optional[Link] = None
        self._links: List[Link] = []
        self.handlers: Dict[str, Handler] = {
            "ping": self._on_ping,
            "pong": self._on_pong,
        }
        self.lease: Optional[float] = None
        #: Answers queries; see `remote_agent.agent.queries`.
        self.on_query: Optional[Callable[[Link, Look], None]] = None
        #: Keeps each note where no controller comes.
        self.on_note: Optional[Callable[[str], Any]] = None
        self._alone_since: Optional[float] = time.monotonic()
        self._was_greeted = False
        self._notes: Deque[str] = deque(maxlen=_MAX_NOTES)
        self._logout: List[str] = []

    @property
    def is_live(self) -> bool:
        """Whether the controller asks for live output."""
        return self.link is not None and self.link.live

    @property
    def has_links(self) -> bool:
        """Whether there is a link, greeted or not."""
        return bool(self._links)

    @property
    def was_never_greeted(self) -> bool:
        """Whether no controller has ever sent a hello, and no open link may still bring one."""
        return not self._was_greeted and not self._links

    def seconds_alone(self, now: float) -> Optional[float]:
        """Return for how long there has been no controller; None while there is one."""
        return None if self._alone_since is None or self.link is not None else now - self._alone_since

    # -- sending -------------------------------------------------------------------------------------------------

    def say(self, header: FromAgent, payload: bytes = b"") -> None:
        """Send a short message. It is dropped if there is no link."""
        if self.link is not None:
            self.link.outbox.put(wire.encode(header, payload, passed_on=True))

    def note(self, text: str) -> None:
        """Send a note for the user, now and with the welcome of every later link."""
        text = text[:_MAX_NOTE_LENGTH]
        self._notes.append(text)
        if self.on_note is not None:
            self.on_note(text)
        self.say({"t": "fatal", "code": "note", "message": text})

    def note_logout(self, text: str) -> None:
        """Send a note on what the end of the login session does to the agent. The welcome says which notes these are."""
        self.note(text)
        self._logout.append(self._notes[-1])

    def refuse(self, code: str, message: str) -> None:
        """Send an error that answers a request."""
        self.say({"t": "fatal", "code": code, "message": message})

    # -- links ---------------------------------------------------------------------------------------------------

    def accept(self, listener: socket.socket, mask: int) -> None:
        """Accept a `connect` process at the socket."""
        try:
            sock, _ = listener.accept()
        except OSError:
            return  # it is gone again, or there are too many open files; others will connect
        self.take(sock)

    def take(self, sock: socket.socket) -> None:
        """Take a connection that brings the descriptors of a channel."""
        self._links.append(Link(sock, self._selector, self._on_frame, self._link_closed))

    def _link_closed(self, link: Link) -> None:
        if link in self._links:
            self._links.remove(link)
        if link is self.link:
            self.link = None
            self._alone_since = time.monotonic()
            self._on_gone()

    def tick(self, now: float) -> None:
        """Ping silent peers, and end dead links."""
        for link in list(self._links):
            link.tick(now, HEARTBEAT)

    def pump(self) -> None:
        """Write what can be written now."""
        for link in list(self._links):
            link.pump()

    def close(self) -> None:
        """Tell the controller that the run is over, and close all links.

        A peer that has not sent hello yet connects again.
        """
        for link in list(self._links):
            if link is self.link:
                link.outbox.put(wire.encode({"t": "fatal", "code": "over", "message": "the run is over"}))
            link.pump()
            link.close()

    # -- receiving -----------------------------------------------------------------------------------------------

    def _on_frame(self, link: Link, frame: wire.Frame) -> None:
        try:
            self._dispatch(link, frame)
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            # The content of a field is not what its handler expects. The link ends, and jobs go on.
            traceback.print_exc()
            text = "message {!r} is malformed: {!r}".format(frame.header["t"], error)
            raise wire.ProtocolError("field", text[:_MAX_NOTE_LENGTH]) from None

    def _dispatch(self, link: Link, frame: wire.Frame) -> None:
        header = frame.header
        if header["t"] == "hello":
            self._hello(link, header)
            return
        if header["t"] == "look" and self.on_query is not None:
            self.on_query(link, header)
            return
        name = header["t"]
        if link is not self.link and name == "pong":
            return
        if link is not self.link:
            raise wire.ProtocolError("order", "{!r} before hello".format(name))
        handler = self.handlers.get(name)
        if handler is None:
            raise wire.ProtocolError("unknown", "message {!r} is not for an agent".format(name))
        handler(header, frame.payload)

    def _hello(self, link: Link, hello: Hello) -> None:
        if hello["version"] != wire.VERSION or hello["run"] != self._paths.run:
            link.outbox.put(
                wire.encode(
                    {
                        "t": "fatal",
                        "code": "version" if hello["version"] != wire.VERSION else "run",
                        "message": "this agent speaks wire version {} for run {}".format(wire.VERSION, self._paths.run),
                    }
                )
            )
            link.pump()
            link.close()
            return
        lease = hello["lease"]
        if lease is not None and lease < 0:
            raise wire.ProtocolError("field", "hello: a lease of {!r}".format(lease))
        sync = None if hello["sync"] is None else SyncSpec.from_json(hello["sync"])
        # Check the hello before the earlier link is closed: a link with a wrong hello must not replace it.
        more = self._on_hello(hello)
        if self.link is not None and self.link is not link:
            self.link.close()
        self.link = link
        self._was_greeted = True
        self._alone_since = None
        link.live = hello["live"]
        link.sync = sync
        link.takes_holes = hello["holes"]
        self.lease = lease
        # It is not sent as a source, because later messages must come after it.
        self._welcome(link, more)
        self._on_greeted()

    def _welcome(self, link: Link, more: Dict[str, Any]) -> None:
        """Make the welcome, with the states of the attempts, in as many frames as they need."""
        items = list(more["states"].items())
        first = True
        while first or items:
            part, items = items[:20000], items[20000:]
            header: Welcome = {
                "t": "welcome",
                "version": wire.VERSION,
                "run": self._paths.run,
                "hostname": socket.gethostname(),
                "boot_id": more["boot_id"],
                "pid": os.getpid(),
                "python": "{}.{}.{}".format(*sys.version_info[:3]),
                "slots": more["slots"],
                "gpus": more["gpus"],
                "spool": self._paths.spool,
                "notes": list(self._notes),
                "logout": self._logout,
                "takes_back": True,
                "stops": True,
                "too_small": more["too_small"],
                "room": more["room"],
                "more": bool(items),
            }
            link.outbox.put(wire.encode(header, json.dumps(dict(part)).encode("utf-8")))
            first = False

    def _on_ping(self, header: Ping, payload: bytes) -> None:
        self.say({"t": "pong", "n": header["n"]})

    def _on_pong(self, header: Pong, payload: bytes) -> None:
        """Do nothing. A pong is only a sign of life, which the link has already recorded."""
