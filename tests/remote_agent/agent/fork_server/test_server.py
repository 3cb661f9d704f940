"""Fork servers: who gets a process from one, and that such a process is what stage-0 would have become."""

from __future__ import annotations

import array
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remote_agent.agent.fork_server import server
from remote_agent.agent.fork_server.server import ForkServer, Request
from remote_agent.agent.zygotes import warm
from remote_agent.agent.zygotes.warm import NO_WARM
from remote_agent.system.waiting import forking
from remote_agent.system.waiting.forking import Refused
from remote_agent.system.waiting.loaded_files import stamps_of
from remote_agent.system.waiting.warm_store import WarmStore
from tests.remote_agent.agents import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="fork servers need Linux")

ROOT = Path(__file__).parents[4]


def sent(request: object) -> bytes:
    """A request as stage-0 sends it."""
    told = repr(request).encode()
    return b"%08x" % len(told) + told


def own() -> tuple[list[str], int, dict[bytes, bytes]]:
    """What this process would ask for."""
    variables = {name: value for name, value in os.environb.items() if name != b"PYTEST_CURRENT_TEST"}
    return ["connect", "--run", "r"], 0o22, variables


def ask(sock: socket.socket, data: bytes, fds: int = 3) -> None:
    """Send a request with descriptors."""
    carried = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", range(fds)))] if fds else []
    sock.sendmsg([data], carried)


@pytest.fixture
def forks(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> ForkServer:
    """One that is this process, so that it has all in common with who asks."""
    # Other tests may have left threads in it.
    monkeypatch.setattr(server.threading, "active_count", lambda: 1)
    monkeypatch.setattr(warm, "SUBMITTERS", ())
    monkeypatch.delenv(NO_WARM, raising=False)
    made = ForkServer(WarmStore(str(short_folder)), "agent-x", 60.0, lambda role, sock: 0)
    made.variables.pop("PYTEST_CURRENT_TEST", None)
    return made


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection: stage-0's, and the fork server's."""
    theirs, ours = socket.socketpair()
    ours.settimeout(10)
    with theirs, ours:
        yield theirs, ours


def test_a_process_with_the_same_of_everything_is_served(
    forks: ForkServer, pair: tuple[socket.socket, socket.socket]
) -> None:
    """What each login sets anew may differ, and comes with the request."""
    theirs, ours = pair
    role, umask, variables = own()
    ask(theirs, sent((role, umask, {**variables, b"SSH_TTY": b"/dev/pts/9"})))
    theirs.send(b"g")
    served = forks.granted(ours)
    assert theirs.recv(10) == b"y"
    assert served.request == Request(role, umask, {**variables, b"SSH_TTY": b"/dev/pts/9"})
    assert served.pid == os.getpid()
    for number, fd in enumerate(served.fds):
        assert os.path.sameopenfile(number, fd)
        os.close(fd)


def test_other_variables_are_refused(forks: ForkServer, pair: tuple[socket.socket, socket.socket]) -> None:
    """Python and its libraries have read them when they started. No descriptor of who has asked is kept."""
    theirs, ours = pair
    role, umask, variables = own()
    before = len(os.listdir("/proc/self/fd"))
    ask(theirs, sent((role, umask, {**variables, b"LD_PRELOAD": b"x.so"})))
    theirs.send(b"g")
    with pytest.raises(Refused, match="LD_PRELOAD"):
        forks.granted(ours)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_login_whose_tickets_are_in_its_own_keyring_is_refused(
    forks: ForkServer, pair: tuple[socket.socket, socket.socket]
) -> None:
    """A forked process would have the keyring of the login that the fork server was started in."""
    theirs, ours = pair
    role, umask, variables = own()
    ask(theirs, sent((role, umask, {**variables, b"KRB5CCNAME": b"KEYRING:session:x"})))
    theirs.send(b"g")
    with pytest.raises(Refused, match="keyring"):
        forks.granted(ours)


def _with_limit(asks: Callable[[], None]) -> None:
    """Ask from a process with another limit."""
    pid = os.fork()
    if pid == 0:  # pragma: no cover - a forked process
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
        asks()
        os._exit(0)


def test_a_process_with_another_limit_is_refused(forks: ForkServer, short_folder: Path) -> None:
    """A forked process would have the limits of the fork server."""
    with socket.socket(socket.AF_UNIX) as listener:
        path = str(short_folder / "s")
        listener.bind(path)
        listener.listen(1)

        def asks() -> None:
            with socket.socket(socket.AF_UNIX) as theirs:
                theirs.connect(path)
                ask(theirs, sent(own()))
                theirs.recv(1)

        _with_limit(asks)
        ours, _ = listener.accept()
        with ours, pytest.raises(Refused, match="limits"):
            forks.granted(ours)
    os.wait()


def test_one_that_has_gone_on_by_itself_gets_no_process(
    forks: ForkServer, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Stage-0 that waited too long has started an agent itself, on the same descriptors."""
    theirs, ours = pair
    ask(theirs, sent(own()))
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(Refused, match="gone on"):
        forks.granted(ours)


def test_none_is_forked_when_a_file_has_changed(
    forks: ForkServer, pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    """An upgraded Python is another one."""
    module = tmp_path / "module.py"
    module.write_text("")
    forks.stamps = stamps_of([str(module)])
    module.write_text("x = 1\n")
    theirs, ours = pair
    ask(theirs, sent(own()))
    with pytest.raises(Refused, match=r"module\.py has changed"):
        forks.granted(ours)
    assert "module.py" in forks.why_end(0)


def test_none_is_forked_while_there_are_threads(
    forks: ForkServer, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fork has only one of them, and the locks of the others."""
    monkeypatch.setattr(server.threading, "active_count", lambda: 2)
    theirs, ours = pair
    ask(theirs, sent(own()))
    with pytest.raises(Refused, match="threads"):
        forks.granted(ours)


def test_a_missing_descriptor_is_refused(forks: ForkServer, pair: tuple[socket.socket, socket.socket]) -> None:
    """There are three."""
    theirs, ours = pair
    ask(theirs, sent(own()), fds=2)
    with pytest.raises(Refused, match="descriptors"):
        forks.granted(ours)


@pytest.mark.parametrize(
    "told", [("connect", 0, {}), (["connect"], "0", {}), (["connect"], 0, {"A": "1"}), (["connect"], 0), 0]
)
def test_what_is_no_request_is_refused(
    told: object, forks: ForkServer, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Whatever it is."""
    theirs, ours = pair
    ask(theirs, sent(told))
    with pytest.raises(Refused, match="something else"):
        forks.granted(ours)


def test_it_ends_when_nobody_needs_it(short_folder: Path) -> None:
    """Nothing of it stays."""
    store = WarmStore(str(short_folder))
    store.make()
    ForkServer(store, "agent-x", 0.0, lambda role, sock: 0).serve()
    assert os.listdir(store.folder) == []


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [("free_memory", lambda: 0.1, "memory"), ("changed_of", lambda stamps: ["x"], "x has changed")],
)
def test_it_ends_when_it_must_not_be_used(
    name: str,
    value: object,
    why: str,
    short_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its log says why."""
    monkeypatch.setattr(forking, name, value)
    store = WarmStore(str(short_folder))
    store.make()
    ForkServer(store, "agent-x", 60.0, lambda role, sock: 0).serve()
    assert why in capsys.readouterr().err


#: A fork server whose processes say what they are, and repeat what they read.
_SERVER = """
import os, sys
sys.path.insert(0, {root!r})
from remote_agent.agent.fork_server.server import ForkServer
from remote_agent.system.waiting.warm_store import WarmStore

def main(role, sock):
    if role == ["fails"]:
        raise ValueError("as asked")
    facts = role, os.umask(0), os.environ["SSH_TTY"], os.getcwd(), os.getsid(0) == os.getpid(), "NOT_OURS" in os.environ
    os.write(1, repr(facts).encode() + b"\\n" + os.read(0, 100))
    return 7

ForkServer(WarmStore({cache!r}), "agent-x", 60.0, main).serve()
"""
_CLIENT = """
import array, os, socket, sys
os.chdir({cwd!r})
os.environ.pop("NOT_OURS", None)
sock = socket.socket(socket.AF_UNIX)
sock.connect({path!r})
told = repr((sys.argv[1:], 0o27, {{**os.environb, b"SSH_TTY": b"tty9"}})).encode()
sock.sendmsg([b"%08x" % len(told) + told], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
answer = sock.recv(1)
sock.send(b"g")
sys.exit(sock.recv(1)[0] if answer == b"y" else 99)
"""


@pytest.mark.slow
def test_a_forked_process_is_what_would_have_been_started(
    short_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the descriptors, the variables, the umask and the folder of who has asked, who gets its exit code. The next one gets another
    process of the same server.
    """
    monkeypatch.delenv(NO_WARM, raising=False)
    # This machine may have a batch system.
    monkeypatch.setenv("PATH", str(tmp_path))
    store = WarmStore(str(short_folder))
    store.make()
    code = _SERVER.format(root=str(ROOT), cache=str(short_folder))
    with subprocess.Popen([sys.executable, "-I", "-c", code], stderr=subprocess.PIPE, text=True) as forks:
        path = store.path("agent-x", ".sock")
        wait_until(lambda: os.path.exists(path), "its socket")
        client = _CLIENT.format(cwd=str(tmp_path), path=path)
        for number in range(2):
            done = subprocess.run(
                [sys.executable, "-I", "-c", client, "a b", str(number)],
                input=b"heard",
                capture_output=True,
                check=False,
                timeout=60,
            )
            facts = (["a b", str(number)], 0o27, "tty9", str(tmp_path), True, False)
            assert (done.stdout, done.returncode) == (repr(facts).encode() + b"\nheard", 7), done.stderr
        done = subprocess.run([sys.executable, "-I", "-c", client, "fails"], capture_output=True, check=False)
        assert done.returncode == 1
        assert b"ValueError: as asked" in done.stderr
        forks.kill()
        assert forks.stderr is not None
        assert forks.stderr.read() == ""
