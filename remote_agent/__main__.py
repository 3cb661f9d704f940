"""The entry points of the agent. `connect` finds or starts the agent of a run and hands the SSH channel over to it. `look` does
the same, but starts no agent. `clean` lists what runs have left on this host, and removes it. `serve` becomes the agent.

Rule: nothing is written to stdout before the preamble, and nothing but frames after it. An error before the preamble is one
line on stderr and an exit code.

    connect --run RUN --host NAME [--workdir DIR] [--spare PYTHON] [--cold yes]
    look --run RUN --host NAME [--workdir DIR] [--batch slurm]
    clean [--workdir DIR]
    serve --run RUN --host NAME --listener FD --umask N --notes JSON [--workdir DIR] [--spare PYTHON]     by `connect` alone
    fork_server --name NAME --cache DIR --idle SECONDS                                                    by an agent alone
"""

import fcntl
import json
import os
import socket
import sys
import time
from typing import Any, Dict, List, Optional, Tuple

from remote_agent.protocol import wire
from remote_agent.protocol.constants import EXIT_FOLDERS, EXIT_LATER, EXIT_NO_AGENT
from remote_agent.shared.descriptors import send_with_fds
from remote_agent.system.host import Folders, folders, spool_folder, unwritable
from remote_agent.system.private_files import SpoolError, open_private

__all__ = ["main"]

_SOCKET = "agent.sock"
#: Seconds; an agent looks at its socket every second.
_WAIT_FOR_SOCKET = 10.0
_EXIT_USAGE = 64
_USAGE = "hydra-remote-launcher: usage: connect|look|allocation --run RUN --host NAME [--workdir DIR] | clean [--workdir DIR]\n"


def main(arguments: Optional[List[str]] = None, control: Optional[socket.socket] = None) -> int:
    """Run a role; returns the exit code.

    Args:
        control: leads to stage-0, if this process was forked for it from a fork server. The agent must not keep it.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    role = arguments[0] if arguments else ""
    options: Dict[str, str] = {}
    rest = arguments[1:]
    while len(rest) >= 2 and rest[0].startswith("--"):
        options[rest[0][2:]] = rest[1]
        rest = rest[2:]
    run, host = options.get("run", ""), options.get("host", "")
    is_named = bool(run and host and "/" not in run and not run.startswith("."))
    if role == "fork_server":
        return _serve_forks(options)
    if role not in ("connect", "look", "clean", "serve", "allocation") or (role != "clean" and not is_named):
        sys.stderr.write(_USAGE)
        return _EXIT_USAGE
    umask = os.umask(0o077)
    workdir = options.get("workdir")
    error_pipe = -1
    try:
        if role == "clean":
            from remote_agent.agent.cleaning import serve_cleaning

            return serve_cleaning(workdir, _cluster_states)
        if role == "serve":
            return _serve(run, host, workdir, options)
        if role == "allocation":
            from remote_agent.slurm.allocation.beginning import begin_allocation

            return begin_allocation(run, host, workdir, _bundle(), options)
        if role == "connect" and options.get("batch") == "slurm":
            return _submit(run, host, workdir, umask)
        if role == "look" and options.get("batch") == "slurm":
            return _look_at_cluster(run, host, workdir)
        if role == "look":
            sock = _reach_running(run, host, workdir)
            if sock is None:
                return _no_agent()
        else:
            sock, error_pipe = _reach_agent(
                run, host, folders(run, host, workdir), umask, workdir, options.get("spare"), control
            )
    except (SpoolError, OSError) as error:
        sys.stderr.write("hydra-remote-launcher: {}\n".format(error))
        return EXIT_FOLDERS
    return _hand_over(sock, error_pipe)


def _reach_running(run: str, host: str, workdir: Optional[str]) -> Optional[socket.socket]:
    """A connection to the agent of the run, if it is running. Creates nothing."""
    if not os.path.isdir(spool_folder(run, host, workdir)):
        return None
    os.chdir(folders(run, host, workdir).runtime)
    return _connect_to_socket()


def _connect_to_socket() -> Optional[socket.socket]:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # A relative name, because the path of a long home is too long for AF_UNIX.
        sock.connect(_SOCKET)
        return sock
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None


def _reach_agent(
    run: str,
    host: str,
    where: Folders,
    umask: int,
    workdir: Optional[str],
    spare: Optional[str],
    control: Optional[socket.socket],
) -> Tuple[socket.socket, int]:
    """A connection to the agent of the run. Starts the agent if there is none.

    Args:
        spare: the Python that a new agent starts ahead of time, or the key of an environment. Empty means its own Python, None means no spare.
        control: see `main`.

    Returns:
        The connection, and a pipe. If the agent was started here and fails to start, the pipe says why; else it is -1.

    Raises:
        SpoolError: there is no room for its files, or another agent cannot be reached.
    """
    os.chdir(where.runtime)
    try:
        lock = open_private("agent.lock", os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise SpoolError(unwritable(error, where.runtime)) from None
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        sock = _connect_to_socket() or _wait_for_other(where.spool)
        if sock is not None:
            return sock, -1
        if os.path.lexists(_SOCKET):
            os.unlink(_SOCKET)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(_SOCKET)
        except OSError as error:
            raise SpoolError(unwritable(error, os.path.join(where.runtime, _SOCKET))) from None
        listener.listen(16)
        is_started, notes = _start_in_scope(run, host, listener, umask, workdir, spare)
        error_pipe = -1
        if not is_started:
            error_pipe, error_fd = os.pipe()
            pid = os.fork()
            if pid == 0:
                _become_agent(run, host, where, listener, umask, notes, lock, error_fd, spare, control)
            os.close(error_fd)
            os.waitpid(pid, 0)
        listener.close()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(_SOCKET)
        except ConnectionRefusedError:
            # It has ended already. Its message says why.
            raise SpoolError(_read_startup_error(error_pipe) or "the agent did not start") from None
        return sock, error_pipe
    finally:
        os.close(lock)


def _read_startup_error(error_pipe: int) -> str:
    """Return the error of an agent that could not start. Waits until the agent runs or has ended."""
    said = b""
    while error_pipe >= 0:
        data = os.read(error_pipe, 4096)
        said += data
        if not data:
            os.close(error_pipe)
            break
    return said.decode("utf-8", "replace")


def _wait_for_other(spool: str) -> Optional[socket.socket]:
    """A connection to an agent that is alive and whose socket was removed. Such an agent creates its socket again.

    Returns None if there is no such agent.

    Raises:
        SpoolError: it did not create its socket in time, or it is on another machine.
    """
    from remote_agent.agent.link.listener import other_agent

    deadline = time.monotonic() + _WAIT_FOR_SOCKET
    while True:
        pid = other_agent(spool)
        if pid is None:
            return None
        sock = _connect_to_socket()
        if sock is not None:
            return sock
        if time.monotonic() > deadline:
            raise SpoolError(
                "the agent of this run (process {0}) is alive but cannot be reached. Run 'kill {0}' on this host: the next "
                "connection starts another agent, which takes over the run".format(pid)
            )
        time.sleep(0.05)


def _start_in_scope(
    run: str, host: str, listener: socket.socket, umask: int, workdir: Optional[str], spare: Optional[str]
) -> Tuple[bool, List[str]]:
    """Start the agent outside the login session, if the end of the session would kill it.

    Returns whether it was started, and notes for the user.
    """
    from remote_agent.system.logind import NO_SCOPE, find_escape

    escape = find_escape("{}-{}".format(run, os.getpid()))
    if not escape.prefix:
        return False, escape.notes
    import subprocess

    bundle = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    program = (
        "import sys;sys.path.insert(0,{!r});sys.dont_write_bytecode=True;"
        "from remote_agent.system.bytecode import keep_bytecode_whole;keep_bytecode_whole();"
        "from remote_agent.__main__ import main;sys.exit(main())"
    ).format(bundle)
    role = ["serve", "--run", run, "--host", host, "--listener", str(listener.fileno()), "--umask", str(umask)]
    role += ["--notes", json.dumps(escape.notes), "--drop", ",".join(escape.environment)]
    role += ["--workdir", workdir] if workdir else []
    role += ["--spare", spare] if spare is not None else []
    try:
        done = subprocess.run(
            [*escape.prefix, sys.executable, "-I", "-S", "-c", program, *role],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[listener.fileno()],
            env=dict(os.environ, **escape.environment),
            timeout=30,
            check=False,
        )
        said = done.stderr.decode("utf-8", "replace").strip() or "exit status {}".format(done.returncode)
        if done.returncode == 0:
            return True, escape.notes
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    return False, [*escape.notes, NO_SCOPE.format(said[-300:])]


def _serve(run: str, host: str, workdir: Optional[str], options: Dict[str, str]) -> int:
    """Become the agent, with an inherited listener. Returns in the parent process, once the agent is on its own."""
    for name in filter(None, options.get("drop", "").split(",")):
        os.environ.pop(name, None)
    listener = socket.socket(fileno=int(options["listener"]))
    listener.set_inheritable(False)
    where = folders(run, host, workdir)
    pid = os.fork()
    if pid == 0:
        notes = json.loads(options["notes"])
        _become_agent(run, host, where, listener, int(options["umask"]), notes, None, None, options.get("spare"))
    os.waitpid(pid, 0)
    return 0


def _become_agent(
    run: str,
    host: str,
    where: Folders,
    listener: socket.socket,
    umask: int,
    notes: List[str],
    lock: Optional[int],
    error_fd: Optional[int],
    spare: Optional[str],
    control: Optional[socket.socket] = None,
) -> None:  # pragma: no cover - a forked process
    """Turn this forked process into the agent. Never returns. If the agent cannot start, the reason goes to `error_fd`."""
    code = 1
    crash_log = os.path.join(where.spool, "agent.err")
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        if lock is not None:
            os.close(lock)
        if control is not None:
            control.close()
        agent = None
        try:
            null = os.open(os.devnull, os.O_RDWR)
            log = open_private(crash_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for fd, target in ((0, null), (1, log), (2, log)):
                os.dup2(target, fd)
            os.chdir(where.spool)
            bundle = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
            ahead = None
            if spare is not None and not _is_one_warm(where.cache):
                from remote_agent.agent.zygotes.spare import start_spare

                # Start the spare before the agent is imported, so that both start at the same time.
                ahead = start_spare(spare, bundle, where.spool, where.cache)
            from remote_agent.agent.agent import Agent, log_crash

            agent = Agent(run, host, where, listener, bundle, umask, notes, ahead, leaves_fork_server=control is None)
            if error_fd is not None:
                os.close(error_fd)
            agent.serve()
            code = 0
        except BaseException as error:  # noqa: BLE001 - whatever it is, `connect` and the next agent report it
            if agent is None and error_fd is not None:
                os.write(error_fd, _startup_error(error, where.spool).encode("utf-8", "replace"))
            log_crash(crash_log)
    finally:
        os._exit(code)


def _is_one_warm(cache: str) -> bool:
    """Whether a warm interpreter waits. Then no spare is started, which would take time from the agent and most likely be of no use."""
    if not os.path.isdir(os.path.join(cache, "warm")):
        return False
    from remote_agent.system.waiting.warm_store import WarmStore

    store = WarmStore(cache)
    return any(store.is_waiting(record) for record in store.records() if record.is_interpreter)


def _startup_error(error: BaseException, spool: str) -> str:
    if isinstance(error, OSError):
        return unwritable(error, spool)
    return "the agent did not start: {}: {}".format(type(error).__name__, error)


def _serve_forks(options: Dict[str, str]) -> int:
    """Be a fork server: import what an agent needs, and wait."""
    os.umask(0o077)
    import remote_agent.agent.agent
    import remote_agent.system.logind  # noqa: F401
    from remote_agent.agent.fork_server.server import ForkServer
    from remote_agent.system.waiting.warm_store import WarmStore

    ForkServer(WarmStore(options["cache"]), options["name"], float(options["idle"]), main).serve()
    return 0


def _submit(run: str, host: str, workdir: Optional[str], umask: int) -> int:
    """Be the submitter of a run on this login node."""
    from remote_agent.slurm.batch.batch_slurm import Slurm
    from remote_agent.slurm.shared_disk.turns import TurnTaken
    from remote_agent.slurm.submitter.submitter import Submitter

    try:
        submitter = Submitter(run, host, folders(run, host, workdir), _bundle(), umask, Slurm())
    except TurnTaken as error:
        sys.stderr.write("hydra-remote-launcher: {}\n".format(error))
        return EXIT_LATER
    data = wire.PREAMBLE
    while data:
        data = data[os.write(1, data) :]
    return submitter.serve()


def _look_at_cluster(run: str, host: str, workdir: Optional[str]) -> int:
    """Answer queries about a run on a Slurm cluster from its files. Creates nothing where there are none."""
    spool = spool_folder(run, host, workdir)
    if not os.path.isdir(spool):
        return _no_agent()
    from remote_agent.slurm.pool.looking import serve_looking

    return serve_looking(run, host, spool)


def _cluster_states(run: str, host: str, spool: str) -> Dict[str, Dict[str, Any]]:
    from remote_agent.slurm.pool.looking import Looking

    return Looking(run, host, spool).states()


def _no_agent() -> int:
    sys.stderr.write("hydra-remote-launcher: no agent of this run is running on this host\n")
    return EXIT_NO_AGENT


def _bundle() -> str:
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _hand_over(sock: socket.socket, error_pipe: int = -1) -> int:
    """Give the descriptors of the channel to the agent, and stay until either side is gone.

    `error_pipe`: if the agent did not start, this pipe says why. It is read at the end and written to stderr.
    """
    data = wire.PREAMBLE
    while data:
        data = data[os.write(1, data) :]
    try:
        send_with_fds(sock, b"c", [0, 1])
    except BrokenPipeError:
        return _report_startup_error(error_pipe)
    null = os.open(os.devnull, os.O_RDWR)
    # The channel stays open until its last descriptor is closed, so only the agent may have any.
    os.dup2(null, 0)
    os.dup2(null, 1)
    try:
        while sock.recv(1):
            time.sleep(0)
    except OSError:
        return _report_startup_error(error_pipe)
    return _report_startup_error(error_pipe)


def _report_startup_error(error_pipe: int) -> int:
    said = _read_startup_error(error_pipe)
    if said:
        sys.stderr.write("hydra-remote-launcher: {}\n".format(said))
    return EXIT_FOLDERS if said else 0


if __name__ == "__main__":
    sys.exit(main())
