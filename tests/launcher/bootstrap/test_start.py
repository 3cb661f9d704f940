"""Stage-0: with any login shell and any state of the host, the agent starts, or the user learns why not and what to do."""

from __future__ import annotations

import hashlib
import io
import os
import queue
import shutil
import stat
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher.bootstrap import start as stage0
from launcher.bootstrap.bundle import Bundle
from launcher.bootstrap.start import NoAgent, stage0_command, start_agent
from launcher.demo.server import DemoServer
from launcher.errors import AgentError, ConnectionLost
from launcher.hosts.host_spec import HostSpec
from launcher.transports.base import Transport
from launcher.transports.factory import make_transport
from launcher.transports.local import LocalTransport
from remote_agent.protocol import wire
from remote_agent.protocol.constants import EXIT_LATER, EXIT_NO_AGENT, NEED
from remote_agent.system import bytecode
from tests.requirements import need_programs, need_python

#: An agent that says where and how it runs, and then repeats what it hears.
_AGENT = """
import os, sys
def main(arguments):
    umask = os.umask(0)
    facts = repr((arguments, os.path.dirname(os.path.dirname(__file__)), umask, sys.version_info[:2], sys.flags.isolated))
    os.write(1, {preamble!r} + facts.encode() + b"\\n")
    while True:
        data = os.read(0, 65536)
        if not data:
            return 0
        os.write(1, data)
"""


def mini_bundle(agent: str = _AGENT, unpack: str | None = None) -> Bundle:
    """Make a bundle with an agent of a few lines and, optionally, another unpacker."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("remote_agent/__init__.py", "")
        archive.writestr("remote_agent/__main__.py", agent.replace("{preamble!r}", repr(wire.PREAMBLE)))
        archive.writestr("remote_agent/system/__init__.py", "")
        archive.write(bytecode.__file__, "remote_agent/system/bytecode.py")
        given = Path(stage0.__file__).with_name("unpack.py").read_text()
        archive.writestr("stage0_unpack.py", given if unpack is None else unpack)
    data = buffer.getvalue()
    return Bundle(hashlib.sha256(data).hexdigest(), len(data), "", data)


BUNDLE = mini_bundle()


def command(
    workdir: str | None = None, python: str | None = None, role: tuple[str, ...] = ("connect", "--run", "r")
) -> str:
    """Return the command line for it."""
    return stage0_command(BUNDLE.sha256, BUNDLE.size, role, python, workdir)


class Started:
    """A started agent, and what it said about itself."""

    def __init__(self, transport: Transport, line: str, bundle: Bundle = BUNDLE) -> None:
        self.channel = transport.open(line)
        self.said = start_agent(self.channel, bundle, transport.host, timeout=30)
        while not self.said.endswith(b"\n"):
            self.said += self.channel.recv(4096)
        self.arguments, self.folder, self.umask, self.version, self.is_isolated = eval(self.said)

    def repeats(self, data: bytes) -> bool:
        """Whether it receives everything that is sent, from the first byte on."""
        self.channel.send(data)
        heard = b""
        while len(heard) < len(data):
            heard += self.channel.recv(1 << 16)
        return heard == data


def failure(transport: Transport, line: str, bundle: Bundle = BUNDLE, timeout: float = 30.0) -> AgentError:
    """Return the error of a start that fails."""
    with pytest.raises(AgentError) as caught:
        start_agent(transport.open(line), bundle, transport.host, timeout)
    assert caught.value.host == transport.host
    assert caught.value.phase == ("look" if isinstance(caught.value, NoAgent) else "start agent")
    return caught.value


@pytest.fixture
def local() -> Iterator[LocalTransport]:
    """This machine."""
    transport = LocalTransport()
    yield transport
    transport.close()


@pytest.mark.slow
class TestEverywhere:
    """These tests run on every kind of host."""

    def test_sends_the_bundle_once(self, transport: Transport, host_folder: Callable[[], str]) -> None:
        """The second start finds it: only the preamble arrives, and no byte is sent."""
        line = command(host_folder())
        assert Started(transport, line).repeats(b"\x00first frame")
        channel = transport.open(line)
        said = b""
        while not said.endswith(b")\n"):
            said += channel.recv(4096)
        assert said.startswith(wire.PREAMBLE)
        assert NEED not in said
        channel.close()

    def test_runs_isolated_from_its_surroundings(self, transport: Transport, host_folder: Callable[[], str]) -> None:
        """It runs from the cache in the given workdir, with the user's umask and exactly its arguments."""
        folder = host_folder()
        role = ("connect", "--host", "a 'b' \"c\" $HOME `id` \\n \u00fc !x %s", "--empty", "")
        started = Started(transport, command(folder, role=role))
        assert started.arguments == list(role)
        assert started.folder == f"{folder}/cache/agents/{BUNDLE.sha256}"
        assert started.umask == 0o022
        assert started.is_isolated

    def test_many_start_at_once(self, transport: Transport, host_folder: Callable[[], str]) -> None:
        """Each one unpacks it or finds it unpacked. All of them run, and one folder is left."""
        folder = host_folder()
        line = command(folder)
        channels = [transport.open(line) for _ in range(5)]
        results: queue.Queue[object] = queue.Queue()

        def start(channel: object) -> None:
            try:
                results.put(start_agent(channel, BUNDLE, "host", 30))  # type: ignore[arg-type]
            except Exception as error:
                results.put(error)

        threads = [threading.Thread(target=start, args=(channel,)) for channel in channels]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for _ in threads:
            assert isinstance(results.get_nowait(), bytes)
        for channel in channels:
            channel.close()
        listing = transport.open(f"ls -A {folder}/cache/agents")
        said = b""
        while data := listing.recv(4096):
            said += data
        assert said.decode().split() == [BUNDLE.sha256]

    def test_tolerates_noise_before_the_agent(self, transport: Transport, host_folder: Callable[[], str]) -> None:
        """A start-up file may print something."""
        line = "echo 'Welcome to gpu1!'; printf '\\000\\377'; " + command(host_folder())
        assert Started(transport, line).repeats(b"frame")

    def test_shows_noise_if_no_agent_answers(self, transport: Transport) -> None:
        """The message names the files that may print it."""
        error = failure(transport, "echo 'Please choose a project:'; echo oops >&2; exit 3")
        assert "Please choose a project:" in error.message
        assert "exit status 3" in error.message
        assert "oops" in error.message
        assert "~/.bashrc" in error.next_step

    def test_a_missing_agent_is_known_by_the_exit_code(self, transport: Transport) -> None:
        """The exit code counts, and not the text, which anybody could print.

        It counts only if the role looks for an agent.
        """
        for said, code, kind in (("none", EXIT_NO_AGENT, NoAgent), ("no agent of this run", 70, AgentError)):
            error = failure(transport, f"echo 'hydra-remote-launcher: {said}' >&2; exit {code}")
            assert type(error) is kind
            assert said in error.message

    def test_a_host_that_says_later_is_tried_again(self, transport: Transport) -> None:
        """Another process may still serve the run there. What it says is passed on."""
        line = f"echo 'hydra-remote-launcher: login1 may still serve it' >&2; exit {EXIT_LATER}"
        with pytest.raises(ConnectionLost, match="login1 may still serve it"):
            start_agent(transport.open(line), BUNDLE, transport.host)

    def test_gives_up_on_endless_noise(self, transport: Transport) -> None:
        """It gives up after 64 KiB, and shows the beginning."""
        error = failure(transport, "while :; do echo 'la la la la la la la la la la la la la la'; done")
        assert "la la la" in error.message
        assert len(str(error)) < 2000
        assert "~/.zshenv" in error.next_step

    def test_gives_up_on_silence(self, transport: Transport) -> None:
        """A shell that waits for input is left after the timeout."""
        error = failure(transport, "read answer", timeout=0.3)
        assert "the agent did not answer" in error.message

    def test_gives_up_on_a_host_that_never_reads_the_bundle(self, transport: Transport) -> None:
        """The host asked for the bundle and then stopped reading. None of our threads waits for ever."""
        big = Bundle("0" * 64, 64 << 20, "", bytes(64 << 20))
        asks = "printf '\\000\\001hydra-remote-launcher need bundle\\n'; read -r answer < /dev/null; exec tail -f /dev/null"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stage0, "_SLOWEST", 1 << 30)
            assert "the agent did not answer" in failure(transport, asks, big, timeout=0.3).message

    def test_shows_what_a_forbidden_login_says(self, transport: Transport) -> None:
        """`nologin` prints such a message."""
        error = failure(transport, "echo 'This account is currently not available.' >&2; exit 1")
        assert "This account is currently not available." in error.message
        assert ("`sh -c true`" if transport.host == "local" else "`ssh ") in error.next_step

    def test_a_host_without_python_is_unusable(
        self, transport: Transport, host_folder: Callable[[], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The message also says how to name one."""
        monkeypatch.setattr(stage0, "PYTHONS", ("python3.99", "/nowhere/python3"))
        error = failure(transport, command(host_folder()))
        assert "no python3 of version 3.8 or later" in error.message
        assert "python3.99, /nowhere/python3" in error.message
        assert "`python:`" in error.next_step

    def test_skips_unfit_pythons(
        self, transport: Transport, host_folder: Callable[[], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One is too old, one is a shim for a missing Python, one is not a program.

        The next one is tried, and stdin is untouched.
        """
        folder = host_folder()
        scripts = "; ".join(
            f"printf '#!/bin/sh\\nexit {status}\\n' > {folder}/python{status}; chmod +x {folder}/python{status}"
            for status in (2, 87, 126, 127)
        )
        channel = transport.open(scripts)
        assert channel.recv(1) == b""
        monkeypatch.setattr(
            stage0, "PYTHONS", tuple(f"{folder}/python{status}" for status in (2, 87, 126, 127)) + ("python3",)
        )
        assert Started(transport, command(folder)).repeats(b"frame")

    def test_a_named_python_comes_first(self, transport: Transport, host_folder: Callable[[], str]) -> None:
        """Its path may have a space."""
        folder = host_folder()
        link = f"{folder}/my python"
        channel = transport.open(
            f"printf '#!/bin/sh\\necho chosen >&2\\nexec python3 \"$@\"\\n' > '{link}'; chmod +x '{link}'"
        )
        assert channel.recv(1) == b""
        started = Started(transport, command(folder, python=link))
        assert "chosen" in started.channel.stderr()

    @pytest.mark.parametrize("where", ["", "/agents", f"/agents/{BUNDLE.sha256}"], ids=["cache", "agents", "bundle"])
    def test_refuses_a_cache_that_others_can_write(
        self, transport: Transport, host_folder: Callable[[], str], where: str
    ) -> None:
        """Anybody who can write there could run code as this user."""
        folder = host_folder()
        made = transport.open(f"mkdir -p {folder}/cache{where} && chmod 0777 {folder}/cache{where}")
        assert made.recv(1) == b""
        error = failure(transport, command(folder))
        assert f"{folder}/cache{where} can be written by others" in error.message
        assert "workdir" in error.next_step

    @pytest.mark.parametrize(("mode", "is_refused"), [("0777", True), ("1777", False), ("0775", False)])
    def test_refuses_a_workdir_in_which_everybody_can_replace_the_cache(
        self, transport: Transport, host_folder: Callable[[], str], mode: str, is_refused: bool
    ) -> None:
        """Our folder is only as safe as its parent. With the sticky bit, nobody else can rename it."""
        folder = host_folder() + "/open"
        assert transport.open(f"mkdir {folder} && chmod {mode} {folder}").recv(1) == b""
        if not is_refused:
            assert Started(transport, command(folder)).repeats(b"frame")
            return
        error = failure(transport, command(folder))
        assert f"everybody can write to {folder}, and could replace its content" in error.message
        assert "workdir" in error.next_step

    def test_refuses_a_link_in_place_of_the_cache(self, transport: Transport, host_folder: Callable[[], str]) -> None:
        """The link may lead to another user's folder."""
        folder = host_folder()
        made = transport.open(f"mkdir {folder}/real && ln -s {folder}/real {folder}/cache")
        assert made.recv(1) == b""
        assert "is not a folder" in failure(transport, command(folder)).message

    def test_suggests_a_workdir_if_nothing_can_be_written(self, transport: Transport) -> None:
        """The home is read-only. /proc is read-only even for root."""
        error = failure(transport, f"XDG_CACHE_HOME=/proc/none; export XDG_CACHE_HOME; {command()}")
        assert "cannot write to /proc/none" in error.message
        assert "workdir" in error.next_step

    def test_suggests_a_workdir_if_there_is_no_home(self, transport: Transport) -> None:
        """A relative path is not a home."""
        error = failure(transport, f"unset XDG_CACHE_HOME; HOME=relative; export HOME; {command()}")
        assert "no home folder" in error.message
        assert "workdir" in error.next_step

    def test_an_empty_home_is_the_users_own(self, transport: Transport, host_folder: Callable[[], str]) -> None:
        """An empty home would mean the root folder. With XDG_CACHE_HOME set, it matters only to the agent."""
        line = f"HOME=; XDG_CACHE_HOME={host_folder()}; export HOME XDG_CACHE_HOME; {command()}"
        assert Started(transport, line).repeats(b"frame")

    def test_uses_the_users_cache_folder(self, transport: Transport, host_folder: Callable[[], str]) -> None:
        """This is XDG_CACHE_HOME, or else ~/.cache. `~` in workdir means the home folder."""
        folder = host_folder()
        set_cache = f"XDG_CACHE_HOME={folder}/xdg; HOME={folder}; export XDG_CACHE_HOME HOME; "
        unset = f"unset XDG_CACHE_HOME; HOME={folder}; export HOME; "
        tail = f"agents/{BUNDLE.sha256}"
        assert Started(transport, set_cache + command()).folder == f"{folder}/xdg/hydra-remote-launcher/{tail}"
        assert Started(transport, unset + command()).folder == f"{folder}/.cache/hydra-remote-launcher/{tail}"
        assert Started(transport, unset + command("~/my dir")).folder == f"{folder}/my dir/cache/{tail}"

    def test_a_relative_cache_folder_is_ignored(self, transport: Transport, host_folder: Callable[[], str]) -> None:
        """As the XDG Base Directory Specification has it: it would mean another folder for each way to log in."""
        folder = host_folder()
        line = f"XDG_CACHE_HOME=relative; HOME={folder}; export XDG_CACHE_HOME HOME; {command()}"
        assert Started(transport, line).folder == f"{folder}/.cache/hydra-remote-launcher/agents/{BUNDLE.sha256}"

    def test_everything_it_makes_is_private(self, transport: Transport, host_folder: Callable[[], str]) -> None:
        """This holds for any umask of the user. The job gets the user's umask."""
        folder = host_folder()
        assert Started(transport, f"umask 0; {command(folder)}").umask == 0
        listing = transport.open(f"find {folder}/cache -perm /077")
        assert listing.recv(4096) == b""

    def test_the_message_of_a_failed_agent_is_shown(self, transport: Transport, host_folder: Callable[[], str]) -> None:
        """The message also has the exit status. What the agent prints at its start is for the user."""
        bundle = mini_bundle(
            "import sys\ndef main(a):\n    sys.stderr.write('hydra-remote-launcher: no luck\\n')\n    return 2\n"
        )
        line = stage0_command(bundle.sha256, bundle.size, ["connect"], None, host_folder())
        error = failure(transport, line, bundle)
        assert "no luck" in error.message
        assert "exit status 70" in error.message


class TestShells:
    """These tests run under every login shell."""

    @pytest.mark.parametrize("shell", ["sh", "dash", "bash", "zsh", "fish", "csh", "tcsh"])
    def test_the_command_line_means_the_same_in_every_shell(self, shell: str) -> None:
        """The shell gets the command line as from sshd, once in a fresh home, and once with the cache."""
        path = need_programs(shell)[shell]
        role = ("connect", "--host", "a 'b' \"c\" $HOME `id` !! \\ \u00fc")
        with DemoServer(shell=path, environment={"LANG": "C"}) as server:
            transport = make_transport(HostSpec("demo", "demo", ssh_config=str(server.ssh_config)))
            for _ in range(2):
                started = Started(transport, command("~/my dir", role=role))
                assert started.arguments == list(role)
                assert started.folder == f"{server.home}/my dir/cache/agents/{BUNDLE.sha256}"
                assert started.repeats(bytes(range(256)) * 300)
            transport.close()

    def test_is_one_line_of_short_words(self) -> None:
        """Old C shells accept neither newlines in quotes nor words of 1,024 characters, and interpret `!` even in
        quotes.
        """
        line = command("/x" * 500, role=("connect", "!" * 500))
        assert not set(line) & set("!\\\n\r`")
        assert line.count("'") == 2
        assert max(len(word) for word in line.split()) < 1024

    @pytest.mark.parametrize("python", ["a;b", "$(id)", "a'b", 'a"b', "a`b", "a\\b", "a\nb", "-x", "a!b"])
    def test_refuses_a_python_that_a_shell_would_misread(self, python: str) -> None:
        """The inventory refuses it earlier, with file and field."""
        with pytest.raises(ValueError, match="python"):
            command(python=python)


class TestHere:
    """Tests that can only check a host that is this machine."""

    def test_a_path_without_a_shell_is_named(
        self, local: LocalTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The next step is for this machine, which is not reached by ssh."""
        monkeypatch.setenv("PATH", str(tmp_path))
        error = failure(local, command(str(tmp_path)))
        assert error.next_step == f"see what `sh -c true` does here: `sh` must be on the PATH, which is {tmp_path}"
        assert "sh: not found" in error.message

    def test_removes_what_killed_starters_left(self, local: LocalTransport, tmp_path: Path) -> None:
        """They are removed after a day."""
        agents = tmp_path / "cache" / "agents"
        agents.mkdir(parents=True, mode=0o700)
        (tmp_path / "cache").chmod(0o700)
        old, new = agents / ".new-old", agents / ".new-new"
        for each in (old, new):
            each.mkdir()
            (each / "file").write_text("")
        os.utime(old, (1, 1))
        Started(local, command(str(tmp_path)))
        assert sorted(path.name for path in agents.iterdir()) == [".new-new", BUNDLE.sha256]

    def test_refuses_an_altered_bundle(self, local: LocalTransport, tmp_path: Path) -> None:
        """Its hash is in the command line. Nothing is unpacked."""
        forged = Bundle(BUNDLE.sha256, BUNDLE.size, "", BUNDLE.data[:-1] + b"x")
        error = failure(local, command(str(tmp_path)), forged)
        assert "arrived damaged" in error.message
        assert list((tmp_path / "cache" / "agents").iterdir()) == []

    def test_leaves_no_incomplete_bundle_when_the_link_ends(self, local: LocalTransport, tmp_path: Path) -> None:
        """There is no folder with the bundle's name."""
        channel = local.open(command(str(tmp_path)))
        said = b""
        while NEED not in said:
            said += channel.recv(4096)
        channel.send(BUNDLE.data[: BUNDLE.size // 2])
        channel._stdin.close()
        assert channel.exit_status(30) == 74
        assert list((tmp_path / "cache" / "agents").iterdir()) == []

    def test_a_full_disk_is_reported(self, local: LocalTransport, tmp_path: Path) -> None:
        """The message has the host's error and what to do. The incomplete bundle is removed."""
        if os.geteuid() != 0:
            pytest.skip("needs root, to mount a small file system")
        small = tmp_path / "small"
        small.mkdir()
        big = mini_bundle(_AGENT + "# " + os.urandom(200_000).hex())
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "small", str(small)], check=True)
        try:
            error = failure(local, stage0_command(big.sha256, big.size, ["connect"], None, str(small)), big)
            assert "No space left on device" in error.message
            assert "workdir" in error.next_step
            assert list((small / "cache" / "agents").iterdir()) == []
        finally:
            subprocess.run(["umount", str(small)], check=True)

    @pytest.mark.pythons
    @pytest.mark.parametrize("version", ["3.8", "3.13"])
    def test_runs_under_other_pythons(self, local: LocalTransport, tmp_path: Path, version: str) -> None:
        """These are the oldest and a recent one."""
        started = Started(local, command(str(tmp_path), python=need_python(version)))
        assert "{}.{}".format(*started.version) == version
        assert started.repeats(b"frame")

    @pytest.mark.pythons
    @pytest.mark.parametrize("version", ["2.7", "3.6", "3.7"])
    def test_skips_pythons_that_are_too_old(self, local: LocalTransport, tmp_path: Path, version: str) -> None:
        """They stop at the version check, or refuse their options."""
        started = Started(local, command(str(tmp_path), python=need_python(version)))
        assert started.version >= (3, 8)

    def test_a_lost_link_is_not_an_error_of_the_agent(self, tmp_path: Path) -> None:
        """The host may be fine, and the caller reconnects."""
        with DemoServer() as server:
            transport = make_transport(HostSpec("demo", "demo", ssh_config=str(server.ssh_config)))
            channel = transport.open("read line")
            server.drop_connections()
            with pytest.raises(ConnectionLost):
                start_agent(channel, BUNDLE, "demo", 30)
            transport.close()

    def test_the_whole_bundle_starts_the_agent(
        self, local: LocalTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """This is the real agent, instead of the few lines above."""
        from launcher.bootstrap.bundle import build_bundle

        bundle = build_bundle()
        line = stage0_command(bundle.sha256, bundle.size, ["connect"], None, str(tmp_path))
        error = failure(local, line, bundle)
        assert "hydra-remote-launcher: usage: connect" in error.message
        assert stat.S_IMODE((tmp_path / "cache" / "agents" / bundle.sha256).stat().st_mode) == 0o700
        shutil.rmtree(tmp_path / "cache")


def test_a_bundle_that_vanishes_as_it_is_used_leaves_no_empty_folder(local: LocalTransport, tmp_path: Path) -> None:
    """Somebody may clean up there, or mount another disk.

    A folder with the bundle's name must be complete, so no empty one is made.
    """
    bundle = mini_bundle(unpack="pass")
    line = stage0_command(bundle.sha256, bundle.size, ("connect", "--run", "r"), None, str(tmp_path))
    error = failure(local, line, bundle)
    assert f"cannot write to {tmp_path}" in str(error)
    assert "No such file or directory" in str(error)
    assert not (tmp_path / "cache" / "agents" / bundle.sha256).exists()
