"""The zygote: imports the application once, then forks a process per job.

Rule: what every job shares is done here, once. What one job does cannot affect the zygote or another job. A zygote
whose agent is gone goes on until its last child has ended.

If the application's import starts threads or touches a GPU, a forked copy of this process would be broken. Then the
zygote replaces itself by one that imports nothing, and each forked job imports the application itself (`spawn`).

With `reuse`, a fork is a worker, which the agent gives further jobs.
"""

import array
import faulthandler
import gc
import json
import os
import platform
import select
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List, NoReturn, Optional, Type

from remote_agent.job_process import process, shutdown
from remote_agent.job_process.run import ImportedAgain
from remote_agent.job_process.usage import lifetime
from remote_agent.protocol import wire
from remote_agent.protocol.constants import SPARE, WARM
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.fields import to_json
from remote_agent.protocol.messages import FromZygote, Imported, Ready, Start
from remote_agent.protocol.result_parts import NO_PARTS, SAME
from remote_agent.protocol.specs.job import EpilogueSpec
from remote_agent.protocol.specs.zygote import ZygoteSpec
from remote_agent.shared.descriptors import MOST, receive_with_fds
from remote_agent.shared.failure import error_of_exception, safe_text
from remote_agent.zygote.child import run_child
from remote_agent.zygote.imports.preload import Preloaded, UnfitSpare, preload
from remote_agent.zygote.imports.prepare import as_unusable, check_python, prepare, why_not_forkable
from remote_agent.zygote.respawn import probe, read_handover, respawn
from remote_agent.zygote.warm_up import warm_up, warm_up_with

if TYPE_CHECKING:
    from remote_agent.zygote.reuse.worker import Worker

__all__ = ["Zygote", "main"]

#: The job's socket and its streams. The descriptors of its GPUs come after them.
_FDS_PER_FORK = 3


def main(fd: int, bundle: str, rest: List[str]) -> int:
    """Serve the agent on a descriptor until it and the last child are gone.

    Args:
        rest: empty; `spare` for a zygote that is started in advance; `warm` for a warm interpreter; or the descriptor of the file that a zygote wrote
        before it replaced itself.
    """
    os.set_inheritable(fd, False)
    process.open_streams()
    sock = socket.socket(fileno=fd)
    preloaded = preload(bundle) if rest == [SPARE] else None
    if rest == [WARM]:
        from remote_agent.zygote.warm import become_warm

        wanted = become_warm(sock, bundle)
        if wanted is None:
            return 0
        sock, preloaded = wanted
    # All objects so far stay, so no garbage collection, here or in a job, needs to look at them.
    gc.freeze()
    if preloaded is not None:
        if rest == [SPARE] and not select.select([sock], [], [], 0)[0]:
            warm_up()
    elif rest:
        spec, payload, why, notes = read_handover(int(rest[0]))
        return _serve_spawning(sock, spec, payload, bundle, why, notes)
    frame = _first_frame(sock)
    if frame is None:
        return 1
    header = frame.header
    if header["t"] != "prepare":
        raise wire.ProtocolError("order", "{!r} came before prepare".format(header["t"]))
    return _prepare_and_serve(sock, ZygoteSpec.from_json(header["spec"]), frame.payload, bundle, preloaded)


def _prepare_and_serve(
    sock: socket.socket, spec: ZygoteSpec, payload: bytes, bundle: str, preloaded: Optional[Preloaded]
) -> int:
    # On macOS a process that has loaded one of its frameworks must not be forked, and nothing shows whether it has.
    spawns = spec.isolation == "spawn" or (spec.isolation != "fork" and sys.platform == "darwin")
    environment = dict(os.environ) if preloaded is None or preloaded.ahead is None else preloaded.ahead.environment
    try:
        check_python(spec)
        sock.sendall(wire.encode({"t": "preparing"}))
        if spawns:
            notes = probe(spec, payload, bundle)
            return _serve_spawning(sock, spec, payload, bundle, "", notes)
        prepared = prepare(spec, payload, bundle, preloaded)
        why = why_not_forkable()
    except UnfitSpare as misfit:
        # The agent starts a zygote without a spare.
        print(
            "the process that was started in advance does not fit, so the zygote starts without it: {}".format(misfit),
            file=sys.stderr,
        )
        return 1
    except BaseException as error:  # noqa: BLE001 - the application's import may raise anything, SystemExit too
        sock.sendall(wire.encode({"t": "unusable", "error": as_unusable(error).error.to_json()}))
        return 1
    if why and spec.isolation != "fork":
        respawn(sock, spec, payload, bundle, why, prepared.notes, environment)
    if why:
        prepared.notes.append("jobs are forked as requested, although the application's import " + why)
    faulthandler.enable(2)
    sys.stdout.flush()
    sys.stderr.flush()
    shutdown.note_open_files()
    worker = _worker_of(spec)
    gc.collect()
    gc.freeze()
    isolation = "fork" if worker is None else "reuse"
    _send_ready(sock, isolation, "", prepared.notes, prepared.imported, None if why else prepared.again)
    uses_hydra = bool(spec.controller.hydra)
    Zygote(sock, lambda: prepared, worker=worker, uses_hydra=uses_hydra).serve()
    return 0


def _serve_spawning(
    sock: socket.socket, spec: ZygoteSpec, payload: bytes, bundle: str, why: str, notes: List[str]
) -> int:
    faulthandler.enable(2)
    worker = _worker_of(spec)
    _send_ready(sock, "spawn" if worker is None else "reuse", why, notes)
    Zygote(sock, lambda: prepare(spec, payload, bundle), spec, worker=worker).serve()
    return 0


def _worker_of(spec: ZygoteSpec) -> "Optional[Type[Worker]]":
    """Return what makes a job's process a worker, if jobs are to share processes. It is imported only then."""
    if spec.isolation != "reuse":
        return None
    from remote_agent.zygote.reuse.worker import Worker

    return Worker


def _send_ready(
    sock: socket.socket,
    isolation: str,
    why: str,
    notes: List[str],
    imported: Optional[Imported] = None,
    again: Optional[ImportedAgain] = None,
) -> None:
    text = ""
    if why:
        what = "every worker imports it by itself" if isolation == "reuse" else "every job runs in a fresh process"
        text = "the application's import {}, so {}".format(why, what)
    header: Ready = {
        "t": "ready",
        "python": platform.python_version(),
        "isolation": isolation,
        "why": text,
        "notes": notes,
        "imported": None if imported is None else dict(imported),
    }
    sock.sendall(wire.encode(header, b"" if again is None else json.dumps(to_json(again)).encode("utf-8")))


def _first_frame(sock: socket.socket) -> Optional[wire.Frame]:
    """Read the `prepare` frame; None if the agent is gone. Nothing follows it before the agent has received `ready`."""
    decoder = wire.Decoder()
    while True:
        data = sock.recv(1 << 18)
        if not data:
            return None
        frames = decoder.feed(data)
        if frames:
            if len(frames) > 1 or not decoder.is_idle:
                raise wire.ProtocolError("order", "the agent went on before the zygote was ready")
            return frames[0]


# -- serving ---------------------------------------------------------------------------------------------------------


class Zygote:
    """Serves `fork` and `epilogue` frames and reports the children.

    Args:
        sock: the socket to the agent.
        prepared: called in each child to get what was prepared. With `spawn` it is made there.
        spec: the spec of the `prepare` message, if nothing is prepared yet.
        worker: makes a job's process a worker, if jobs are to share processes.
        uses_hydra: whether the jobs belong to a Hydra app.
    """

    def __init__(
        self,
        sock: socket.socket,
        prepared: Callable[[], Any],
        spec: Optional[ZygoteSpec] = None,
        *,
        worker: "Optional[Type[Worker]]" = None,
        uses_hydra: bool = False,
    ) -> None:
        self._sock = sock
        self._has_agent = True
        self._prepared = prepared
        self._spec = spec
        self._worker = worker
        self._is_warm = spec is not None or not uses_hydra
        self._warm_up_payload = b""
        self._forks = 0
        self._decoder = wire.Decoder()
        self._fds = array.array("i")
        self._children: Dict[int, str] = {}
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)

    def serve(self) -> None:
        """Serve until the agent's socket has closed and no child is left."""
        signal.signal(signal.SIGCHLD, _on_child_exit)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        control = self._sock.fileno()
        poller.register(control, select.POLLIN)
        while self._has_agent or self._children:
            events = poller.poll(0 if self._warm_up_payload else None)
            if not events:
                # Do this while the first job runs and nobody waits, for the jobs after it.
                warm_up_with(self._warm_up_payload)
                self._warm_up_payload = b""
            for fd, _ in events:
                if fd == self._wake_read:
                    self._reap()
                elif not self._receive():
                    poller.unregister(control)
                    self._close()

    def _close(self) -> None:
        self._has_agent = False
        self._sock.close()
        while self._fds:
            os.close(self._fds.pop())

    def _send(self, header: FromZygote) -> None:
        if not self._has_agent:
            return
        try:
            self._sock.sendall(wire.encode(header))
        except OSError:
            return  # the agent is gone: the next read shows that, and the children go on

    def _receive(self) -> bool:
        """Handle what the agent sent. Returns False if it is gone."""
        try:
            data, has_lost = receive_with_fds(self._sock, 1 << 18, MOST, self._fds)
        except OSError:
            return False
        if has_lost:
            raise RuntimeError("descriptors of a job were lost on the way (has the limit of open files been reached?)")
        if not data:
            return False
        for frame in self._decoder.feed(data):
            header = frame.header
            if header["t"] not in ("fork", "epilogue"):
                raise wire.ProtocolError("unknown", "message {!r} is not for a zygote".format(header["t"]))
            fds_of_job = [self._fds.pop(0) for _ in range(_FDS_PER_FORK + header["leases"])]
            try:
                self._fork(header, frame.payload, fds_of_job)
            finally:
                for fd in fds_of_job:
                    os.close(fd)
        return True

    def _fork(self, header: Start, payload: bytes, fds: List[int]) -> None:
        attempt = header["attempt"]
        if self._forks == 1 and self._spec is None:
            # This is for the second and later jobs. The first one, which may be the only one, does not wait for it.
            warm_up()
        self._forks += 1
        try:
            pid = os.fork()
        except OSError as error:
            _send_not_started(fds[0], header, error)
            self._send({"t": "exited", "attempt": attempt, "status": 0, "used": None})
            return
        if pid == 0:
            self._become_child(header, payload, fds)
        self._children[pid] = attempt
        self._send({"t": "forked", "attempt": attempt, "pid": pid})
        if not self._is_warm:
            self._is_warm = True
            self._warm_up_payload = payload

    def _become_child(self, header: Start, payload: bytes, fds: List[int]) -> NoReturn:
        """Close what belongs to the zygote, and become the job. Runs in the forked process."""
        code = 70
        try:
            process.reset_signals()
            self._sock.close()
            for fd in [*self._fds, self._wake_read, self._wake_write]:
                os.close(fd)
            channel = run_child(header, payload, fds, self._prepared, self._spec, self._worker)
            code = 0
            shutdown.exit_job(channel)
        except BaseException:  # noqa: BLE001 - an error of ours, which the exit code and stderr report
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)

    def _reap(self) -> None:
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            pass  # there was no wake-up; the children are checked all the same
        for pid in list(self._children):
            done, status, told = os.wait4(pid, os.WNOHANG)
            if done:
                # The system says here what only it knows of a job that was killed.
                used = lifetime(told).to_json()
                self._send({"t": "exited", "attempt": self._children.pop(pid), "status": status, "used": used})


def _on_child_exit(signum: int, frame: Any) -> None:
    """Do nothing on SIGCHLD. The wakeup descriptor wakes the loop, which requires a handler."""


def _send_not_started(fd: int, header: Start, error: OSError) -> None:
    """Send the result of a process that could not be made, on its socket."""
    parts = NO_PARTS
    if header["t"] == "epilogue":
        # The outcome of the job stays as it is.
        envelope, parts = EpilogueSpec.from_json(header["spec"]).envelope, SAME
        print("job {}: its end hooks cannot run: {}".format(header["attempt"], error), file=sys.stderr)
    else:
        failure = error_of_exception(error, "host")
        failure.message = "no process could be created for the job: {}".format(safe_text(error))
        now = time.time()
        envelope = Envelope.of_failure(failure, now, now)
    data = wire.encode({"t": "done", "envelope": envelope.to_json(), "parts": parts.to_json(), "spent": 0.0})
    with socket.socket(fileno=os.dup(fd)) as sock:
        sock.sendall(data)
