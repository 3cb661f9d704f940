"""Logins that only the `ssh` program can do, with the real parts: an sshd, PAM, a KDC, authorities, tokens.

Each one is what `auto` takes by itself. A person is there only under `launcher connect`; runs ask nothing.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.errors import AuthenticationFailed, ConnectionLost, HostError
from launcher.transports.base import Channel
from launcher.transports.factory import make_transport, ssh_options
from launcher.transports.openssh import kept
from launcher.transports.openssh import transport as openssh_transport
from launcher.transports.openssh.transport import OpenSshTransport
from tests.hosts.openssh import OpenSshHost, running_openssh_host
from tests.requirements import need_files, need_programs
from tests.terminals import answered

pytestmark = [pytest.mark.openssh, pytest.mark.usefixtures("runtime_folder")]

_HOTP = "3132333435363738393031323334353637383930"
_PASSWORD = "the password"
_SOFTHSM = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so")
_OATH = ("/lib/x86_64-linux-gnu/security/pam_oath.so", "/lib/aarch64-linux-gnu/security/pam_oath.so")


@pytest.fixture(autouse=True)
def _nothing_is_kept() -> Iterator[None]:
    """No connection outlives its test."""
    yield
    for one in kept.connections():
        kept.close(one.socket)


@contextmanager
def up(host: OpenSshHost) -> Iterator[OpenSshHost]:
    """The host, while it runs."""
    try:
        host.start()
        yield host
    finally:
        host.power_cut()


def say(host: OpenSshHost, command: str = "echo in", **fields: object) -> tuple[str, str, str]:
    """Run a command on the host as a run would; what it printed, the way, and why that was taken."""
    transport = make_transport(host.spec(**fields))
    try:
        text = read(transport.open(command)).decode()
        assert transport.way is not None
        return text, transport.way.name, transport.way.why
    finally:
        transport.close()


def refusal(host: OpenSshHost, **fields: object) -> HostError:
    """The error of a login that fails."""
    transport = make_transport(host.spec(**fields))
    with pytest.raises(HostError) as caught:
        transport.open("true")
    transport.close()
    return caught.value


def read(channel: Channel) -> bytes:
    """What a command has printed."""
    said = b""
    while data := channel.recv(1 << 16):
        said += data
    return said


def connect(host: OpenSshHost, folder: Path, answers: list[tuple[str, Callable[[], str]]]) -> tuple[int, str]:
    """`launcher connect`, in a terminal in which somebody answers."""
    file = folder / "hosts.yaml"
    file.write_text(f"{host.name}: {{ssh_config: {host.ssh_config}}}\n")
    program = str(Path(sys.executable).with_name("launcher"))
    command = [program, "connect", host.name, "--hosts", str(file)]
    return answered(command, folder, answers)


def run(*command: str | Path) -> None:
    """Run a program of the test's own preparations."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)


class TestOneTimeCode:
    """A cluster that asks for a password and a one-time code, through PAM."""

    @pytest.fixture
    def host(self, tmp_path: Path) -> Iterator[OpenSshHost]:
        """Such a host. A code is good for one login."""
        need_files(*_OATH)
        need_programs("oathtool", "openssl")
        settings = [
            "UsePAM yes",
            "KbdInteractiveAuthentication yes",
            "PubkeyAuthentication no",
            "AuthenticationMethods keyboard-interactive:pam",
        ]
        host = OpenSshHost(tmp_path / "host", settings=settings)
        system = host.folder / "system"
        shadow = system / "shadow"
        crypted = subprocess.run(["openssl", "passwd", "-6", _PASSWORD], capture_output=True, text=True, check=True)
        shadow.write_text(shadow.read_text().replace(f"{host.user}:*:", f"{host.user}:{crypted.stdout.strip()}:"))
        (system / "users.oath").write_text(f"HOTP {host.user} - {_HOTP}\n")
        (system / "users.oath").chmod(0o600)
        (system / "pam.d" / "sshd").write_text(
            "auth required pam_unix.so\n"
            "auth required pam_oath.so usersfile=/etc/users.oath window=20 digits=6\n"
            "account required pam_unix.so\nsession required pam_unix.so\n"
        )
        with up(host):
            yield host

    @staticmethod
    def code(number: int) -> str:
        """The code of a number, as a token shows it."""
        done = subprocess.run(["oathtool", "-c", str(number), _HOTP], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def test_it_is_asked_for_once(self, host: OpenSshHost, tmp_path: Path) -> None:
        """Without it a run names the command. With it many runs log in, and none asks."""
        error = refusal(host)
        assert isinstance(error, AuthenticationFailed)
        assert f"launcher connect {host.name}" in error.next_step
        answers = [("password:", lambda: _PASSWORD), ("one-time password", lambda: self.code(0))]
        code, told = connect(host, tmp_path, answers)
        assert code == 0, told
        assert f"connected as {host.user}@127.0.0.1:{host.port}" in told
        for _ in range(3):
            assert say(host) == ("in\n", "openssh", "a kept connection to the host is open")

    def test_a_wrong_code_keeps_nothing(self, host: OpenSshHost, tmp_path: Path) -> None:
        """The terminal has ssh's words, and the exit code is that of a host that cannot be used."""
        wrong = [("password:", lambda: _PASSWORD), ("one-time password", lambda: "000000")] * 3
        code, told = connect(host, tmp_path, wrong)
        assert code == 3
        assert "Permission denied" in told
        assert kept.connections() == []

    def test_when_it_is_gone_the_jobs_go_on(
        self, host: OpenSshHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The run says which command opens it again. After that it goes on by itself, to its result."""
        import threading

        import launcher
        from launcher import events

        def open_it(number: int) -> None:
            answers = [("password:", lambda: _PASSWORD), ("one-time password", lambda: self.code(number))]
            code, told = connect(host, tmp_path, answers)
            assert code == 0, told

        project = tmp_path / "project"
        project.mkdir()
        monkeypatch.chdir(project)
        (project / "app.py").write_text(
            "import pathlib, time\n"
            "def wait(cfg):\n"
            "    while not pathlib.Path('/run/host/go').exists():\n"
            "        time.sleep(0.05)\n"
            "    return 7\n"
        )
        monkeypatch.syspath_prepend(str(project))
        seen: list[events.Event] = []
        is_running, is_unknown = threading.Event(), threading.Event()

        def observe(event: events.Event) -> None:
            seen.append(event)
            if isinstance(event, events.AttemptStarted):
                is_running.set()
            if isinstance(event, events.Note) and f"`launcher connect {host.name}` opens it again" in event.message:
                is_unknown.set()

        def lose_and_open() -> None:
            assert is_running.wait(60)
            assert host.kill_sessions()
            assert is_unknown.wait(60)
            (host.folder / "etc" / "go").touch()
            open_it(1)

        open_it(0)
        helper = threading.Thread(target=lose_and_open, daemon=True)
        helper.start()
        with launcher.Session.open(hosts=[host.spec()], folder=tmp_path / "out", observers=[observe]) as session:
            job = session.submit(_waiting(), {})
            assert job.result(timeout=120) == 7
        helper.join(60)
        ways = [(event.way, event.why) for event in seen if isinstance(event, events.WayChosen)]
        assert ways == [("openssh", "a kept connection to the host is open")]


def _waiting() -> Callable[..., object]:
    import importlib

    return importlib.import_module("app").wait  # type: ignore[no-any-return]


class TestKerberos:
    """A realm of its own, whose KDC runs here."""

    @pytest.fixture
    def realm(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """Its folder. `user.keytab` is that of the user, `host.keytab` that of the host."""
        programs = need_programs("krb5kdc", "kdb5_util", "kadmin.local", "kinit", "klist")
        folder = tmp_path / "realm"
        folder.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        (folder / "krb5.conf").write_text(
            "[libdefaults]\n default_realm = TEST.LAUNCHER\n dns_lookup_kdc = false\n dns_canonicalize_hostname = false\n"
            " rdns = false\n udp_preference_limit = 1\n default_keytab_name = FILE:/run/host/host.keytab\n"
            f"[realms]\n TEST.LAUNCHER = {{\n  kdc = 127.0.0.1:{port}\n }}\n[domain_realm]\n localhost = TEST.LAUNCHER\n"
        )
        (folder / "kdc.conf").write_text(
            f"[kdcdefaults]\n kdc_listen = 127.0.0.1:{port}\n kdc_tcp_listen = 127.0.0.1:{port}\n[realms]\n TEST.LAUNCHER = {{\n"
            f"  database_name = {folder}/db\n  key_stash_file = {folder}/stash\n  acl_file = {folder}/acl\n }}\n"
        )
        monkeypatch.setenv("KRB5_CONFIG", str(folder / "krb5.conf"))
        monkeypatch.setenv("KRB5_KDC_PROFILE", str(folder / "kdc.conf"))
        monkeypatch.setenv("KRB5CCNAME", f"FILE:{folder}/tickets")
        run(programs["kdb5_util"], "create", "-s", "-r", "TEST.LAUNCHER", "-P", "x")
        for query in (
            "addprinc -randkey host/localhost",
            f"ktadd -k {folder}/host.keytab host/localhost",
            "addprinc -pw x runner",
            f"ktadd -norandkey -k {folder}/user.keytab runner",
        ):
            run(programs["kadmin.local"], "-q", query)
        kdc = subprocess.Popen([programs["krb5kdc"], "-n", "-P", str(folder / "pid")], stdin=subprocess.DEVNULL)
        try:
            yield folder
        finally:
            kdc.terminate()
            kdc.wait()

    @pytest.fixture
    def host(self, realm: Path, tmp_path: Path) -> Iterator[OpenSshHost]:
        """A host that takes tickets alone. The user has no key."""
        settings = ["GSSAPIAuthentication yes", "GSSAPIStrictAcceptorCheck no", "AuthenticationMethods gssapi-with-mic"]
        host = OpenSshHost(tmp_path / "host", settings=settings)
        (host.folder / "system" / "krb5.conf").write_text((realm / "krb5.conf").read_text())
        (host.folder / "etc" / "host.keytab").write_bytes((realm / "host.keytab").read_bytes())
        host.rename_for_clients("localhost")
        text = host.ssh_config.read_text().replace(f"  IdentityFile {host.identity}\n", "")
        host.ssh_config.write_text(f"{text}  IdentityFile none\n  GSSAPIAuthentication yes\n")
        with up(host):
            yield host

    def test_a_ticket_logs_in(self, realm: Path, host: OpenSshHost) -> None:
        """`auto` takes it where no key is left to try. Without one the error says what the host asks for."""
        error = refusal(host, ssh="openssh")
        assert isinstance(error, AuthenticationFailed)
        assert "gssapi-with-mic" in error.message
        run("kinit", "-k", "-t", realm / "user.keytab", "runner")
        assert say(host, "id -un") == ("runner\n", "openssh", "there is a Kerberos ticket, and no key to try")


class TestAuthorities:
    """Certificates of an authority, for hosts and for users."""

    def test_a_host_that_only_an_authority_knows(self, tmp_path: Path) -> None:
        """Fabric cannot verify it, so `auto` takes the program. A certificate for another name is refused."""
        authority = tmp_path / "authority"
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", authority)
        host = OpenSshHost(tmp_path / "host", settings=["HostCertificate /run/host/ssh_host_ed25519_key-cert.pub"])
        public = host.folder / "etc" / "ssh_host_ed25519_key.pub"
        key = " ".join(Path(f"{authority}.pub").read_text().split()[:2])
        host.known_hosts.write_text(f"@cert-authority [127.0.0.1]:{host.port} {key}\n")
        run("ssh-keygen", "-q", "-s", authority, "-I", "h", "-h", "-n", "127.0.0.1", "-V", "-5m:+1h", public)
        with up(host):
            text, way, why = say(host)
            assert (text, way) == ("in\n", "openssh")
            assert f"certificate authority vouches for the host's key ({host.known_hosts}:1)" in why
        run("ssh-keygen", "-q", "-s", authority, "-I", "h", "-h", "-n", "another", "-V", "-5m:+1h", public)
        with up(host):
            error = refusal(host)
            assert error.phase == "host key", error

    def test_a_users_certificate(self, tmp_path: Path) -> None:
        """Both ways use it. One that has expired is refused."""
        authority = tmp_path / "authority"
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", authority)
        settings = ["TrustedUserCAKeys /run/host/authority.pub", "AuthorizedKeysFile none"]
        host = OpenSshHost(tmp_path / "host", settings=settings)
        (host.folder / "etc" / "authority.pub").write_text(Path(f"{authority}.pub").read_text())
        sign = ["ssh-keygen", "-q", "-s", str(authority), "-I", "u", "-n", host.user]
        with up(host):
            run(*sign, "-V", "-5m:+1h", f"{host.identity}.pub")
            for way in ("fabric", "openssh"):
                assert say(host, ssh=way)[:2] == ("in\n", way)
            run(*sign, "-V", "-10m:-5m", f"{host.identity}.pub")
            for way in ("fabric", "openssh"):
                assert isinstance(refusal(host, ssh=way), AuthenticationFailed)


class TestTokens:
    """Keys that never leave what holds them."""

    @pytest.fixture
    def touch(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
        """Touch the security key: returns when it has waited for that, which it does at each login."""
        fifo = tmp_path / "touch"
        os.mkfifo(fifo)
        monkeypatch.setenv("SK_SOFT_TOUCH", str(fifo))

        def touch() -> str:
            # Opening waits until the key reads.
            fifo.write_bytes(b"t")
            return ""

        return touch

    @pytest.fixture
    def key(self, tmp_path: Path) -> Path:
        """A key whose private part a software security key holds."""
        compiler = need_programs("cc")["cc"]
        need_files("/usr/include/openssl/evp.h")
        source = Path(__file__).resolve().parents[3] / "hosts" / "sk_soft.c"
        provider, key = tmp_path / "sk_soft.so", tmp_path / "my_token"
        run(compiler, "-shared", "-fPIC", "-o", provider, source, "-lcrypto")
        run("ssh-keygen", "-q", "-t", "ed25519-sk", "-w", provider, "-N", "", "-f", key)
        return key

    @pytest.fixture
    def host(self, key: Path, tmp_path: Path) -> Iterator[OpenSshHost]:
        """A host that knows this key alone."""
        host = OpenSshHost(tmp_path / "host")
        (host.folder / "etc" / "authorized_keys").write_text(Path(f"{key}.pub").read_text())
        text = host.ssh_config.read_text().replace(f"IdentityFile {host.identity}", f"IdentityFile {key}")
        host.ssh_config.write_text(f"{text}  SecurityKeyProvider {tmp_path / 'sk_soft.so'}\n")
        with up(host):
            yield host

    def test_a_security_key(self, host: OpenSshHost, key: Path, touch: Callable[[], str]) -> None:
        """`auto` sees that the key needs it, and a run waits for the touch."""
        with ThreadPoolExecutor(1) as pool:
            touched = pool.submit(touch)
            assert say(host) == ("in\n", "openssh", f"{key} needs its security key")
            assert touched.done()

    def test_a_security_key_that_is_not_there(self, host: OpenSshHost, key: Path, tmp_path: Path) -> None:
        """The error names the key."""
        text = host.ssh_config.read_text()
        host.ssh_config.write_text(text.replace(str(tmp_path / "sk_soft.so"), "/nowhere.so"))
        error = refusal(host)
        assert isinstance(error, AuthenticationFailed)
        assert str(key) in error.message

    @pytest.mark.usefixtures("touch")
    def test_a_security_key_that_nobody_touches(
        self, host: OpenSshHost, key: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error of the login says what the key waited for, and which command asks for it once."""
        monkeypatch.setattr(openssh_transport, "_LOGIN_TIMEOUT", 2.0)
        error = refusal(host)
        assert f"not over within 2 s: the security key of {key} waited for a touch" in error.message
        assert f"launcher connect {host.name}" in error.next_step

    def test_a_touch_is_asked_for_once(self, host: OpenSshHost, tmp_path: Path, touch: Callable[[], str]) -> None:
        """The terminal says that the key waits. Runs over the kept connection need no touch."""
        code, told = connect(host, tmp_path, [("Confirm user presence", touch)])
        assert code == 0, told
        for _ in range(3):
            assert say(host) == ("in\n", "openssh", "a kept connection to the host is open")

    def test_a_pkcs11_token(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its PIN is asked for under `launcher connect`. A run without a kept connection names that command."""
        module = need_files(*_SOFTHSM)
        need_programs("softhsm2-util", "pkcs11-tool")
        tokens = tmp_path / "tokens"
        tokens.mkdir()
        (tmp_path / "soft.conf").write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\n")
        monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "soft.conf"))
        run("softhsm2-util", "--init-token", "--free", "--label", "t", "--pin", "1234", "--so-pin", "5678")
        run(
            "pkcs11-tool", "--module", module, "--login", "--pin", "1234", "--token-label", "t", "--keypairgen",
            "--key-type", "EC:prime256v1", "--id", "01",
        )  # fmt: skip
        public = subprocess.run(["ssh-keygen", "-D", module], capture_output=True, text=True, check=True).stdout
        host = OpenSshHost(tmp_path / "host")
        (host.folder / "etc" / "authorized_keys").write_text(public)
        text = host.ssh_config.read_text().replace(f"  IdentityFile {host.identity}\n  IdentitiesOnly yes\n", "")
        host.ssh_config.write_text(f"{text}  PKCS11Provider {module}\n")
        with up(host):
            error = refusal(host)
            assert isinstance(error, AuthenticationFailed)
            assert f"launcher connect {host.name}" in error.next_step
            code, told = connect(host, tmp_path, [("enter pin", lambda: "1234")])
            assert code == 0, told
            assert say(host) == ("in\n", "openssh", "a kept connection to the host is open")

    def test_an_agent_with_several_keys(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The right one is offered in both ways, where the host gives up after a few."""
        need_programs("ssh-agent", "ssh-add")
        host = OpenSshHost(tmp_path / "host", settings=["MaxAuthTries 3"])
        agent = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
        found = dict(re.findall(r"(SSH_\w+)=([^;]+);", agent))
        monkeypatch.setenv("SSH_AUTH_SOCK", found["SSH_AUTH_SOCK"])
        try:
            for number in range(5):
                run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / f"key{number}")
                run("ssh-add", "-q", tmp_path / f"key{number}")
            run("ssh-add", "-q", host.identity)
            text = host.ssh_config.read_text().replace("  IdentityAgent none\n", "")
            Path(host.identity).rename(tmp_path / "moved")
            with up(host):
                host.ssh_config.write_text(text.replace(str(host.identity), f"{host.identity}.pub"))
                for way in ("fabric", "openssh"):
                    assert say(host, ssh=way)[:2] == ("in\n", way)
                host.ssh_config.write_text(
                    text.replace(f"  IdentityFile {host.identity}\n", "").replace("  IdentitiesOnly yes\n", "")
                )
                for way in ("fabric", "openssh"):
                    error = refusal(host, ssh=way)
                    assert isinstance(error, AuthenticationFailed)
                    assert "IdentitiesOnly" in error.next_step
        finally:
            os.kill(int(found["SSH_AGENT_PID"]), 15)


class TestOnTheWay:
    """Hosts behind others, and networks that die."""

    def test_a_jump_host_through_a_kept_connection(self, tmp_path: Path) -> None:
        """Only the jump host needs a person. The host behind it is reached through its kept connection."""
        with (
            running_openssh_host(tmp_path / "gate", "gate") as gate,
            running_openssh_host(tmp_path / "inner", "inner") as inner,
        ):
            text = inner.ssh_config.read_text() + "  ProxyJump gate\n" + gate.ssh_config.read_text()
            inner.ssh_config.write_text(text)
            spec = replace(gate.spec(), ssh_config=str(inner.ssh_config))
            kept.open_kept("gate", ssh_options(spec), 60.0)
            with gate.without_login():
                assert say(inner, "hostname") == (
                    "inner\n",
                    "openssh",
                    "a kept connection to the jump host gate is open",
                )
                for one in kept.connections():
                    kept.close(one.socket)
                error = refusal(inner, ssh="openssh")
                assert isinstance(error, AuthenticationFailed)
                assert error.host == "inner (through gate)"

    def test_the_users_own_master_is_taken(self, tmp_path: Path, runtime_folder: Path) -> None:
        """It is not ended by us. Where its configuration checks no host keys, it is left alone."""
        with running_openssh_host(tmp_path / "host") as host:
            socket = runtime_folder / "mine"
            text = host.ssh_config.read_text()
            host.ssh_config.write_text(f"{text}  ControlPath {socket}\n")
            run("ssh", "-F", host.ssh_config, "-o", "ControlMaster=yes", "-o", "ControlPersist=60", "-N", host.name)
            with host.without_login():
                assert say(host) == ("in\n", "openssh", "your own ControlMaster to the host is open")
                assert kept.is_up(socket)
                unchecked = text.replace("StrictHostKeyChecking yes", "StrictHostKeyChecking no")
                host.ssh_config.write_text(f"{unchecked}  ControlPath {socket}\n")
                assert isinstance(refusal(host), AuthenticationFailed)
            assert kept.close(str(socket))

    @pytest.mark.slow
    @pytest.mark.parametrize("alive", [True, False], ids=["with keep-alive", "without keep-alive"])
    def test_a_network_that_dies_under_a_master(
        self, tmp_path: Path, runtime_folder: Path, monkeypatch: pytest.MonkeyPatch, alive: bool
    ) -> None:
        """With keep-alive the session ends. Without it a new one has a limit, and the error says what does not answer."""
        monkeypatch.setattr(openssh_transport, "_BEGIN_TIMEOUT", 3.0)
        iptables = need_programs("iptables")["iptables"]
        with running_openssh_host(tmp_path / "host") as host:
            socket = runtime_folder / "mine"
            settings = ["-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=2"] if alive else []
            run(
                "ssh", "-F", host.ssh_config, "-S", socket, "-o", "ControlMaster=yes", "-o", "ControlPersist=60",
                *settings, "-N", host.name,
            )  # fmt: skip
            transport = OpenSshTransport("gpu1", ssh_options(host.spec()), str(socket), stands=kept.is_up)
            channel = transport.open("echo ready; read line")
            assert channel.recv(6) == b"ready\n"
            rule = ["INPUT", "-p", "tcp", "-i", "lo", "--dport", str(host.port), "-j", "DROP"]
            run(iptables, "-w", "-I", *rule)
            try:
                if alive:
                    with pytest.raises(ConnectionLost):
                        channel.recv(1)
                    with pytest.raises(ConnectionLost, match="the kept connection is gone"):
                        transport.open("true")
                else:
                    assert kept.is_up(socket)
                    with pytest.raises(ConnectionLost, match="the kept connection does not answer"):
                        transport.open("true")
                    channel.close()
                    with pytest.raises(ConnectionLost):
                        channel.recv(1)
            finally:
                run(iptables, "-w", "-D", *rule)
            transport.close()
            kept.close(str(socket))


def test_a_second_run_needs_neither_a_handshake_nor_paramiko(openssh_host: OpenSshHost) -> None:
    """Over a kept connection the host sees one more session of the login that stands."""
    kept.open_kept(openssh_host.name, ssh_options(openssh_host.spec()), 60.0)
    script = (
        "import sys\n"
        "from launcher.hosts.host_spec import HostSpec\n"
        "from launcher.options import LaunchConf\n"
        "from launcher.transports.early_connections import EarlyConnections\n"
        f"spec = HostSpec({openssh_host.name!r}, {openssh_host.name!r}, ssh_config={str(openssh_host.ssh_config)!r}, ssh='auto')\n"
        "with EarlyConnections.begin([spec], LaunchConf()) as early:\n"
        "    channel = early._begun[spec.name][1].open('echo in')\n"
        "    assert channel.recv(10) == b'in\\n'\n"
        "assert not {'paramiko', 'fabric', 'cryptography'} & set(sys.modules), sorted(sys.modules)\n"
    )
    before = openssh_host.log.read_text().count("Accepted publickey")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert openssh_host.log.read_text().count("Accepted publickey") == before
