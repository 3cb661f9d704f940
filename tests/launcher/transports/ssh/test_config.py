"""~/.ssh/config. With `ssh -G` it means the same as to ssh.

Without ssh, a setting that cannot be applied is refused.
"""

from __future__ import annotations

import getpass
import os
from pathlib import Path

import pytest

from launcher.errors import InventoryError
from launcher.transports.ssh.config import SshTarget, resolve
from tests.requirements import need_programs

HOME = os.path.expanduser("~")


@pytest.fixture(params=["ssh", "own reader"])
def use_ssh(request: pytest.FixtureRequest) -> bool:
    """Both readers must agree on what both can read."""
    if request.param == "ssh":
        need_programs("ssh")
    return bool(request.param == "ssh")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration file for the test to write."""
    return tmp_path / "config"


def ask(config: Path, text: str, alias: str = "gpu1", use_ssh: bool = True, **how: object) -> SshTarget:
    """What the configuration says about a host."""
    config.write_text(text)
    return resolve(alias, config_file=str(config), use_ssh=use_ssh, **how)  # type: ignore[arg-type]


class TestBothWays:
    """What ssh and the small reader both understand."""

    def test_an_unknown_host_is_itself(self, config: Path, use_ssh: bool) -> None:
        """The defaults are ssh's."""
        target = ask(config, "", use_ssh=use_ssh)
        assert (target.hostname, target.port, target.user) == ("gpu1", 22, getpass.getuser())
        assert (target.proxy_jump, target.proxy_command, target.host_key_alias) == ((), None, None)
        assert (target.connect_timeout, target.identities_only, target.identity_agent) == (None, False, None)
        assert f"{HOME}/.ssh/id_ed25519" in target.identity_files
        assert target.known_hosts_files[0] == f"{HOME}/.ssh/known_hosts"
        assert target.global_known_hosts_files[0] == "/etc/ssh/ssh_known_hosts"

    def test_a_block_sets_address_and_user(self, config: Path, use_ssh: bool) -> None:
        """This is the common form, with keywords in upper or lower case, `=` and quotes."""
        text = (
            "Host gpu1\n  hostname=gpu1.example.org\n  PORT 2222\n  User me\n"
            '  IdentityFile "~/keys/%h key"\n  IdentityFile /keys/%r@%n\n  IdentitiesOnly yes\n  IdentityAgent none\n'
            "  UserKnownHostsFile ~/kh1 /kh2\n  GlobalKnownHostsFile /kh3\n  HostKeyAlias thegpu\n"
            "  ConnectTimeout 7\n  AddressFamily inet\n  BindAddress 127.0.0.1\n  RevokedHostKeys /revoked\n"
        )
        assert ask(config, text, use_ssh=use_ssh) == SshTarget(
            alias="gpu1",
            hostname="gpu1.example.org",
            user="me",
            port=2222,
            identity_files=(f"{HOME}/keys/gpu1.example.org key", "/keys/me@gpu1"),
            identities_only=True,
            identity_agent=None,
            known_hosts_files=(f"{HOME}/kh1", "/kh2"),
            global_known_hosts_files=("/kh3",),
            revoked_host_keys="/revoked",
            host_key_alias="thegpu",
            connect_timeout=7,
            address_family="inet",
            bind_address="127.0.0.1",
        )

    def test_arguments_override_the_configuration(self, config: Path, use_ssh: bool) -> None:
        """It overrides the configuration, like ssh's -l and -p."""
        target = ask(config, "Host *\n User me\n Port 1\n", use_ssh=use_ssh, user="you", port=2)
        assert (target.user, target.port) == ("you", 2)

    def test_the_first_value_of_an_alias_counts(self, config: Path, use_ssh: bool) -> None:
        """If an alias has two blocks, each value comes from the first block that has it."""
        target = ask(config, "Host gpu1\n User a\nHost gpu1\n User b\n Port 3\n", use_ssh=use_ssh)
        assert (target.user, target.port) == ("a", 3)

    @pytest.mark.parametrize(
        ("patterns", "applies"), [("gpu?", True), ("* !gpu1", False), ("a gpu1", True), ("gpu", False)]
    )
    def test_host_patterns(self, config: Path, use_ssh: bool, patterns: str, applies: bool) -> None:
        """Patterns may be lists, and have wildcards and negations."""
        assert (ask(config, f"Host {patterns}\n Port 9\n", use_ssh=use_ssh).port == 9) is applies

    def test_hostname_may_use_the_alias(self, config: Path, use_ssh: bool) -> None:
        """%h in HostName is the name that the user typed."""
        assert ask(config, "Host *\n HostName %h.example.org\n", use_ssh=use_ssh).hostname == "gpu1.example.org"

    def test_jump_hosts_keep_their_order(self, config: Path, use_ssh: bool) -> None:
        """The nearest one comes first."""
        target = ask(config, "Host gpu1\n ProxyJump me@a:22,b\n", use_ssh=use_ssh)
        assert target.proxy_jump == ("me@a:22", "b")

    def test_a_proxy_command_has_its_tokens(self, config: Path, use_ssh: bool) -> None:
        """%h, %p, %r and %% are expanded."""
        target = ask(config, "Host gpu1\n HostName g\n ProxyCommand relay %r@%h %p 5%%\n", use_ssh=use_ssh)
        assert target.proxy_command == f"relay {getpass.getuser()}@g 22 5%"

    @pytest.mark.parametrize(
        "keyword", ["ProxyJump", "ProxyCommand", "ConnectTimeout", "IdentityAgent", "RevokedHostKeys"]
    )
    def test_none_means_none(self, config: Path, use_ssh: bool, keyword: str) -> None:
        """It is not a host, a command, a number or a file with that name."""
        target = ask(config, f"Host gpu1\n {keyword} none\n", use_ssh=use_ssh)
        assert (target.proxy_jump, target.proxy_command, target.connect_timeout) == ((), None, None)
        assert (target.identity_agent, target.revoked_host_keys) == (None, None)

    def test_the_agent_comes_from_the_environment(
        self, config: Path, use_ssh: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """IdentityAgent may name another one, by a path or a variable."""
        monkeypatch.setenv("SSH_AUTH_SOCK", "/agent/one")
        monkeypatch.setenv("MY_AGENT", "/agent/two")
        assert ask(config, "", use_ssh=use_ssh).identity_agent == "/agent/one"
        assert ask(config, "Host *\n IdentityAgent SSH_AUTH_SOCK\n", use_ssh=use_ssh).identity_agent == "/agent/one"
        assert ask(config, "Host *\n IdentityAgent $MY_AGENT\n", use_ssh=use_ssh).identity_agent == "/agent/two"
        assert ask(config, "Host *\n IdentityAgent ~/agent\n", use_ssh=use_ssh).identity_agent == f"{HOME}/agent"

    def test_an_ipv6_literal_stays_whole(self, config: Path, use_ssh: bool) -> None:
        """Its colons do not begin a port."""
        assert ask(config, "", "::1", use_ssh=use_ssh, port=2222).hostname == "::1"

    @pytest.mark.parametrize("alias", ["-oProxyCommand=x", "a b", "$(x)", "a;b", "", "a\nb", "a'b"])
    def test_refuses_an_invalid_host_name(self, config: Path, use_ssh: bool, alias: str) -> None:
        """`ssh` is not asked."""
        with pytest.raises(InventoryError, match="not a name"):
            ask(config, "", alias, use_ssh=use_ssh)

    def test_refuses_a_user_that_is_an_option(self, config: Path, use_ssh: bool) -> None:
        """The user name is passed to ssh, too."""
        with pytest.raises(InventoryError, match="user '-x'"):
            ask(config, "", use_ssh=use_ssh, user="-x")

    def test_refuses_a_token_that_it_does_not_know(self, config: Path, use_ssh: bool) -> None:
        """Otherwise it would use a path with a percent sign in it."""
        with pytest.raises(InventoryError, match=r"%Z|unknown key"):
            ask(config, "Host *\n IdentityFile /keys/%Z\n", use_ssh=use_ssh)


class TestThroughSsh:
    """What only ssh itself can answer."""

    @pytest.fixture(autouse=True)
    def _needs_ssh(self) -> None:
        need_programs("ssh")

    def test_include_and_match_count(self, config: Path, tmp_path: Path) -> None:
        """Paramiko ignores Include, and applies Match to every host."""
        (tmp_path / "more").write_text("Host gpu1\n Port 7\n")
        text = (
            f"Include {tmp_path}/more\nMatch host gpu2\n User two\nMatch exec false\n User three\nHost *\n User one\n"
        )
        target = ask(config, text)
        assert (target.port, target.user) == (7, "one")
        assert ask(config, text, "gpu2").user == "two"

    def test_a_configuration_that_ssh_refuses_is_refused(self, config: Path) -> None:
        """The message is ssh's own, which names file and line."""
        with pytest.raises(InventoryError, match="line 2"):
            ask(config, "Host *\n Prot 22\n")

    def test_a_known_hosts_path_may_have_a_space(self, config: Path) -> None:
        """It is printed without quotes by `ssh -G`."""
        target = ask(config, 'Host *\n UserKnownHostsFile "/my files/kh" /kh2\n')
        assert target.known_hosts_files == ("/my files/kh", "/kh2")


class TestOwnReader:
    """The small reader, without an ssh."""

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("Include more\n", "config:1: Include needs an OpenSSH client"),
            ("Match all\n User x\n", "config:1: Match needs an OpenSSH client"),
            ("Host *\n CanonicalizeHostname yes\n", "config:2: CanonicalizeHostname needs"),
            ("Host other\n SecurityKeyProvider x\n", "config:2"),
            ("Host *\n Port x\n", "Port 'x'"),
            ("Host *\n ConnectTimeout 1.5\n", "ConnectTimeout '1.5'"),
            ("???\n", "config:1: this line is not a setting"),
        ],
    )
    def test_refuses_settings_that_it_cannot_evaluate(self, config: Path, text: str, says: str) -> None:
        """The message has file, line and keyword."""
        with pytest.raises(InventoryError) as caught:
            ask(config, text, use_ssh=False)
        assert says in str(caught.value)

    def test_ignores_settings_that_change_nothing(self, config: Path) -> None:
        """Forwardings, keepalives and the like matter only to ssh."""
        text = "# me\nHost *\n ServerAliveInterval 5\n ForwardAgent yes\n StrictHostKeyChecking no\n Port 3\n"
        assert ask(config, text, use_ssh=False).port == 3

    def test_refuses_a_port_out_of_range(self, config: Path) -> None:
        """`ssh` would refuse it, too."""
        with pytest.raises(InventoryError, match="70000"):
            ask(config, "Host *\n Port 70000\n", use_ssh=False)

    def test_refuses_a_missing_file(self, tmp_path: Path) -> None:
        """This holds for a file that the user named."""
        with pytest.raises(InventoryError, match="does not exist"):
            resolve("gpu1", config_file=str(tmp_path / "none"), use_ssh=False)


class TestWhatChangesTheLogin:
    """A setting that changes how ssh logs in, or whom it trusts, is applied or refused, but never ignored."""

    @pytest.mark.parametrize(
        ("setting", "named"),
        [
            ("PubkeyAuthentication no", "PubkeyAuthentication no"),
            ("PreferredAuthentications password,keyboard-interactive", "PreferredAuthentications"),
            ("ProxyUseFdpass yes", "ProxyUseFdpass"),
            ("BindInterface eth9", "BindInterface"),
        ],
    )
    def test_an_unsupported_setting_is_refused_by_name(
        self, config: Path, use_ssh: bool, setting: str, named: str
    ) -> None:
        """No connection is made."""
        with pytest.raises(InventoryError, match=named):
            ask(config, f"Host gpu1\n  {setting}\n", use_ssh=use_ssh)

    @pytest.mark.parametrize(
        "setting",
        [
            "PubkeyAuthentication yes",
            "PreferredAuthentications gssapi-with-mic,publickey",
            "ProxyUseFdpass no",
            "StrictHostKeyChecking no",
            "UpdateHostKeys no",
            "GSSAPIAuthentication yes",
        ],
    )
    def test_settings_that_change_nothing_are_accepted(self, config: Path, use_ssh: bool, setting: str) -> None:
        """With these settings the login is the same, or trusts less."""
        ask(config, f"Host gpu1\n  {setting}\n", use_ssh=use_ssh)

    def test_some_settings_are_named_only_when_a_login_fails(self, config: Path, use_ssh: bool) -> None:
        """Some settings are named only if a login fails because of them: those about known hosts and about keys."""
        text = "Host gpu1\n KnownHostsCommand /bin/known %H 100%% %n %t\n PKCS11Provider /lib/card.so\n VerifyHostKeyDNS yes\n"
        target = ask(config, text, use_ssh=use_ssh)
        assert target.known_hosts_command == "/bin/known %H 100%% gpu1 %t"
        assert target.pkcs11_provider == "/lib/card.so"
        assert target.not_followed == ("VerifyHostKeyDNS",)
