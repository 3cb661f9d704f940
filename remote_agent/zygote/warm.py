"""A warm interpreter: it has imported the installed packages that an application needs, and waits for the next run's agent.

Rule: a run cannot tell whether it had one, except by the time. It imports nothing of an application, and has no variable that a login sets anew and
no secret. It is a new process, never the zygote of an earlier run. If anything of what it has loaded changes on the disk, or if a fork of it would
break, it ends. It serves one agent, of this user.
"""

import array
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Dict, Optional, Tuple

from remote_agent.protocol import wire
from remote_agent.protocol.specs.warm import WarmSpec
from remote_agent.shared.descriptors import receive_with_fds
from remote_agent.system.waiting.inherited import FREE_MEMORY, free_memory
from remote_agent.system.waiting.loaded_files import Stamp, changed_of, loaded_files, stamps_of
from remote_agent.system.waiting.warm_store import WarmRecord, WarmStore, peer_of
from remote_agent.zygote.imports.preload import Preloaded, import_ahead
from remote_agent.zygote.imports.prepare import why_not_forkable
from remote_agent.zygote.warm_up import warm_up

__all__ = ["MOST", "become_warm"]

#: Not more of them are on a host: with packages, and without. Those without take little memory, and must not end one that took long to make.
MOST = 2
#: Seconds for all imports, and for an agent to say what it wants.
_IMPORTS = 300.0
_PATIENCE = 10.0
#: Seconds between two looks whether it may wait on.
_LOOK_EVERY = 5.0


class _Ended(Exception):
    """It is not needed, or must not be used. The text says why, for its log."""


def become_warm(sock: socket.socket, bundle: str) -> Optional[Tuple[socket.socket, Preloaded]]:
    """Import, and wait. Returns the socket of the agent that wants this process, and what was imported; None if it is to end."""
    frame = _receive(sock, array.array("i"))
    sock.close()
    if frame is None:
        return None
    spec = WarmSpec.from_json(json.loads(frame.payload.decode("utf-8")))
    store = WarmStore(os.path.dirname(os.path.dirname(spec.folder)))
    try:
        # An import that hangs is ended by the system: nothing in this process might run any more.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, _IMPORTS)
        preloaded, stamps = _import(spec, bundle)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _make_room(store, spec)
        return _wait(store, spec, stamps), preloaded
    except _Ended as reason:
        print("the warm interpreter ends: {}".format(reason), file=sys.stderr)
        store.remove(spec.name)
        return None


def _import(spec: WarmSpec, bundle: str) -> Tuple[Preloaded, Dict[str, Stamp]]:
    if free_memory() < FREE_MEMORY:
        raise _Ended("the host has too little free memory")
    os.umask(spec.umask)
    sys.argv[:] = [spec.script]
    folders = set(sys.path)
    before = stamps_of(folders)
    preloaded = import_ahead(bundle, spec.controller, spec.modules, spec.imported)
    if stamps_of(folders) != before:
        raise _Ended("packages were installed while it imported them")
    why = why_not_forkable()
    if why:
        raise _Ended("a fork would break, because the imports {}".format(why))
    stamps = stamps_of(loaded_files() | folders)
    if not spec.controller.hydra:
        warm_up()
    gc.collect()
    gc.freeze()
    sys.stdout.flush()
    sys.stderr.flush()
    return preloaded, stamps


def _make_room(store: WarmStore, spec: WarmSpec) -> None:
    """End older ones: those with the same key, and the oldest that are too many."""
    others = [record for record in store.records() if record.name != spec.name and record.is_interpreter]
    same = [record for record in others if _key(record) == _short(spec.key) and store.is_waiting(record)]
    has_packages = bool(spec.modules or spec.controller.hydra)
    left = [record for record in others if record not in same and record.has_packages == has_packages]
    for record in [*same, *left[: max(0, len(left) + 1 - MOST)]]:
        store.end(record)


def _key(record: WarmRecord) -> str:
    return record.name.partition("-")[0]


def _short(key: str) -> str:
    return key[:32]


# -- waiting ---------------------------------------------------------------------------------------------------------


def _wait(store: WarmStore, spec: WarmSpec, stamps: Dict[str, Stamp]) -> socket.socket:
    """Wait for an agent, and become its zygote's process."""
    try:
        listener, inode = store.listen(spec.name)
    except OSError as error:
        raise _Ended("it cannot make its socket: {}".format(error)) from None
    deadline = time.monotonic() + spec.idle
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise _Ended("nobody needed it for {:.0f} s".format(spec.idle))
        if free_memory() < FREE_MEMORY:
            raise _Ended("the host has too little free memory")
        if store.inode(spec.name) != inode:
            raise _Ended("its socket was removed")
        if not os.path.exists(sys.executable):
            raise _Ended("its Python was removed")
        if select.select([listener], [], [], min(left, _LOOK_EVERY))[0]:
            sock, _ = listener.accept()
            listener.close()
            _serve(sock, spec, stamps)
            store.remove(spec.name)
            return sock


def _serve(sock: socket.socket, spec: WarmSpec, stamps: Dict[str, Stamp]) -> None:
    """Check who asks, and whether everything is as it was. Then take the agent's variables and log."""
    if peer_of(sock)[1] != os.geteuid():
        raise _Ended("another user has connected")
    sock.settimeout(_PATIENCE)
    fds: "array.array[int]" = array.array("i")
    try:
        frame = _receive(sock, fds)
        header = None if frame is None else frame.header
        if header is None or header["t"] != "adopt" or header["key"] != spec.key or len(fds) != 1:
            raise _Ended("whoever has connected asks for something else")
        changed = changed_of(stamps)
        if changed:
            raise _Ended("{} has changed".format(changed[0]))
        if why_not_forkable():
            raise _Ended("a fork would break: it {}".format(why_not_forkable()))
        sock.sendall(wire.encode({"t": "adopted"}))
        sock.settimeout(None)
        for fd in (1, 2):
            os.dup2(fds[0], fd)
        os.environ.update(header["variables"])
    except (OSError, ValueError, wire.ProtocolError) as error:
        raise _Ended("the agent that has connected is gone: {}".format(error)) from None
    finally:
        for fd in fds:
            os.close(fd)


def _receive(sock: socket.socket, fds: "array.array[int]") -> Optional[wire.Frame]:
    """Receive one frame and its descriptors; None if the other side is gone."""
    decoder = wire.Decoder()
    while True:
        data, _ = receive_with_fds(sock, 1 << 18, 1, fds)
        if not data:
            return None
        frames = decoder.feed(data)
        if frames:
            return frames[0]
