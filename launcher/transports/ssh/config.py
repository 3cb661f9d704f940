"""What `~/.ssh/config` says about a host, as OpenSSH reads it.

Rule: if there is an `ssh`, `ssh -G` answers, so that Include, Match and canonicalisation mean what they mean to the
user's own ssh. If not, a small reader of Host blocks answers. It names and refuses what it would have to guess.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from launcher.errors import InventoryError
from launcher.util.frozen import frozen
from launcher.util.text.quoting import shown
from remote_agent.shared.globs import host_glob

__all__ = ["SshTarget", "resolve"]

_TIMEOUT = 15.0
_DEFAULT_IDENTITIES = ("id_rsa", "id_ecdsa", "id_ed25519")
_DEFAULT_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_DEFAULT_GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
#: Other settings that a Host block may have. They change neither where a connection goes nor whom it trusts.
# fmt: off
_HARMLESS = frozenset((
    "addkeystoagent", "batchmode", "checkhostip", "ciphers", "compression", "connectionattempts", "controlmaster",
    "controlpath", "controlpersist", "dynamicforward", "escapechar", "exitonforwardfailure", "fingerprinthash",
    "forwardagent", "forwardx11", "forwardx11timeout", "forwardx11trusted", "gssapiauthentication",
    "gssapidelegatecredentials", "hashknownhosts", "hostkeyalgorithms", "ignoreunknown", "ipqos",
    "kbdinteractiveauthentication", "kexalgorithms", "localcommand", "localforward", "loglevel", "macs",
    "nohostauthenticationforlocalhost", "numberofpasswordprompts", "passwordauthentication", "permitlocalcommand",
    "pubkeyacceptedalgorithms", "rekeylimit", "remotecommand", "remoteforward",
    "requesttty", "sendenv", "serveralivecountmax", "serveraliveinterval", "setenv", "stricthostkeychecking",
    "tcpkeepalive", "tunnel", "updatehostkeys", "usekeychain", "visualhostkey", "xauthlocation",
))
_READ = frozenset((
    "addressfamily", "bindaddress", "bindinterface", "certificatefile", "connecttimeout", "globalknownhostsfile",
    "hostkeyalias", "hostname", "identitiesonly", "identityagent", "identityfile", "knownhostscommand", "pkcs11provider",
    "port", "preferredauthentications", "proxycommand", "proxyjump", "proxyusefdpass", "pubkeyauthentication",
    "revokedhostkeys", "user", "userknownhostsfile", "verifyhostkeydns",
))
# fmt: on
#: Tokens of KnownHostsCommand that are known when a host shows its key.
_LATER = {name: f"%{name}" for name in "HItfK%"}
_MANY = frozenset(("identityfile", "certificatefile"))


@frozen
class SshTarget:
    """Where a connection goes and whom it trusts. Paths are absolute, tokens expanded.

    Attributes:
        alias: the name as it was given.
        identity_agent: path of the agent's socket; None for no agent.
        proxy_jump: jump hosts as `[user@]host[:port]`, the nearest first.
        connect_timeout: seconds; None if it is not set.
        address_family: `any`, `inet` or `inet6`.
        known_hosts_command: the tokens `%H`, `%I`, `%t`, `%f`, `%K` and `%%` are not yet expanded.
        not_followed: settings that we do not support, with which ssh might know a host that we do not know.
        beyond: why only the `ssh` program can log in, for each such setting; fabric refuses such a host.
        control_path: the socket of the user's own ControlMaster; None if there is none.
        checks_host_keys: with this configuration ssh asks a person about an unknown key, or refuses it.
        has_gssapi: ssh would try to log in with Kerberos.
    """

    alias: str
    hostname: str
    user: str
    port: int
    identity_files: tuple[str, ...] = ()
    certificate_files: tuple[str, ...] = ()
    identities_only: bool = False
    identity_agent: str | None = None
    proxy_jump: tuple[str, ...] = ()
    proxy_command: str | None = None
    known_hosts_files: tuple[str, ...] = ()
    global_known_hosts_files: tuple[str, ...] = ()
    revoked_host_keys: str | None = None
    host_key_alias: str | None = None
    connect_timeout: float | None = None
    address_family: str = "any"
    bind_address: str | None = None
    known_hosts_command: str | None = None
    pkcs11_provider: str | None = None
    not_followed: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()
    control_path: str | None = None
    checks_host_keys: bool = True
    has_gssapi: bool = False


def resolve(
    host_alias: str,
    user: str | None = None,
    port: int | None = None,
    *,
    config_file: str | None = None,
    use_ssh: bool = True,
    is_any_login: bool = False,
) -> SshTarget:
    """Return what the configuration says about a host. No connection is made. `Match exec` commands run, as in ssh.

    Args:
        user, port: override the configuration, as on ssh's command line.
        config_file: read instead of the user's and the system's, as `ssh -F`.
        use_ssh: False to use the small reader even if there is an `ssh`.
        is_any_login: do not refuse what only the `ssh` program can do; it is in `beyond`.

    Raises:
        InventoryError: the name or the configuration cannot be used.
    """
    _check_name("host", host_alias)
    if user is not None:
        _check_name("user", user)
    ssh = shutil.which("ssh") if use_ssh else None
    said = _ask_ssh(ssh, host_alias, user, port, config_file) if ssh else _read(host_alias, config_file)
    target = _target(host_alias, user, port, said)
    if target.beyond and not is_any_login:
        raise InventoryError(f"{host_alias}: {target.beyond[0]}")
    return target


def _check_name(what: str, name: str) -> None:
    if not name or name.startswith("-") or re.search(r"[\s\x00-\x1f\x7f'\"`$\\;&<>|(){}]", name):
        raise InventoryError(f"{what} {shown(name)}: this is not a name that ssh accepts")


def _ask_ssh(ssh: str, alias: str, user: str | None, port: int | None, config_file: str | None) -> dict[str, list[str]]:
    command = [ssh, "-G", "-T"]
    if config_file is not None:
        command += ["-F", config_file]
    if user is not None:
        command += ["-l", user]
    if port is not None:
        command += ["-p", str(port)]
    try:
        answer = subprocess.run(
            [*command, "--", alias], stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise InventoryError(
            f"{alias}: `ssh -G {alias}` did not end within {_TIMEOUT:.0f} s; is there a `Match exec` that waits?"
        ) from None
    except OSError as error:
        raise InventoryError(f"{alias}: {ssh} cannot be run: {error.strerror}") from None
    if answer.returncode != 0:
        why = answer.stderr.decode("utf-8", "replace").strip()
        raise InventoryError(f"{alias}: ssh does not accept its configuration: {why}")
    said: dict[str, list[str]] = {}
    for line in answer.stdout.decode("utf-8", "replace").splitlines():
        keyword, _, value = line.partition(" ")
        said.setdefault(keyword.lower(), []).append(value)
    return said


def _read(alias: str, config_file: str | None) -> dict[str, list[str]]:
    """Return the first value of each keyword in the Host blocks that match, in the user's file and then in the
    system's.
    """
    files = [config_file] if config_file is not None else [os.path.expanduser("~/.ssh/config"), "/etc/ssh/ssh_config"]
    said: dict[str, list[str]] = {}
    for path in files:
        try:
            text = Path(path).read_text(encoding="utf-8", errors="surrogateescape")
        except FileNotFoundError:
            if config_file is not None:
                raise InventoryError(f"{alias}: {path} does not exist") from None
            continue
        except OSError as error:
            raise InventoryError(f"{alias}: {path} cannot be read: {error.strerror}") from None
        for keyword, value in _settings(alias, path, text):
            if keyword in _MANY:
                said.setdefault(keyword, []).append(value)
            else:
                said.setdefault(keyword, [value])
    return said


def _settings(alias: str, path: str, text: str) -> Iterator[tuple[str, str]]:
    applies = True
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = re.match(r"([A-Za-z0-9]+)(?:\s*=\s*|\s+)(.*)", line)
        if match is None:
            raise InventoryError(f"{path}:{number}: this line is not a setting: {shown(line)}")
        keyword, value = match.group(1).lower(), _unquote(match.group(2))
        if keyword == "host":
            applies = _host_matches(value.split(), alias)
        elif keyword in ("match", "include") or keyword.startswith("canonical"):
            raise InventoryError(
                f"{path}:{number}: {match.group(1)} needs an OpenSSH client, and there is no `ssh` on the PATH here"
            )
        elif keyword in _READ:
            if applies:
                yield keyword, value
        elif keyword not in _HARMLESS:
            raise InventoryError(f"{path}:{number}: {match.group(1)} is not understood without an `ssh` on the PATH")


def _unquote(value: str) -> str:
    value = value.strip()
    return value[1:-1] if len(value) >= 2 and value[0] == value[-1] == '"' else value


def _host_matches(patterns: list[str], alias: str) -> bool:
    is_match = False
    for pattern in patterns:
        negated, pattern = pattern.startswith("!"), pattern.lstrip("!").strip('"')
        if host_glob(pattern.lower()).matches(alias.lower()):
            if negated:
                return False
            is_match = True
    return is_match


def _target(alias: str, user: str | None, port: int | None, said: dict[str, list[str]]) -> SshTarget:
    def one(keyword: str) -> str | None:
        value = said.get(keyword, [""])[0].strip()
        return None if not value or value.lower() == "none" else value

    def is_on(keyword: str) -> bool:
        return (one(keyword) or "no").lower() in ("yes", "true")

    hostname = (one("hostname") or alias).replace("%h", alias).replace("%%", "%")
    final_user = user or one("user") or getpass.getuser()
    final_port = port or _number(alias, "Port", one("port")) or 22
    if not 1 <= final_port <= 65535:
        raise InventoryError(f"{alias}: port {final_port} is not between 1 and 65535")
    tokens = {
        "%": "%",
        "d": os.path.expanduser("~"),
        "h": hostname,
        "i": str(os.getuid()),
        "k": one("hostkeyalias") or alias,
        "L": socket.gethostname().partition(".")[0],
        "l": socket.gethostname(),
        "n": alias,
        "p": str(final_port),
        "r": final_user,
        "u": getpass.getuser(),
    }

    def path(value: str) -> str:
        return os.path.abspath(os.path.expanduser(_expand(alias, value, tokens)))

    def paths(keyword: str, default: tuple[str, ...]) -> tuple[str, ...]:
        value = said.get(keyword)
        # ssh -G does not quote. A word that does not begin like a path is the rest of a path with a space in it.
        names = re.split(r"\s+(?=[/~%\"$])|\s+(?=none$)", value[0].strip()) if value else list(default)
        return tuple(path(name.strip('"')) for name in names if name.lower() != "none")

    identities = said.get("identityfile") or [f"~/.ssh/{name}" for name in _DEFAULT_IDENTITIES]
    agent = one("identityagent") if said.get("identityagent") else "SSH_AUTH_SOCK"
    if agent is not None:
        if agent == "SSH_AUTH_SOCK":
            agent = os.environ.get("SSH_AUTH_SOCK") or None
        elif agent.startswith("$") and not agent.startswith("${"):
            agent = os.environ.get(agent[1:]) or None
        else:
            agent = path(agent)
    beyond = list(_beyond(one))
    known_command = one("knownhostscommand")
    if known_command:
        try:
            known_command = _expand(alias, known_command, {**tokens, **_LATER})
        except InventoryError as error:
            beyond.append(f"{str(error).removeprefix(f'{alias}: ')} (KnownHostsCommand)")
            known_command = None
    dns = (one("verifyhostkeydns") or "no").lower() not in ("no", "false")
    # ssh has expanded it, unless it is an old one.
    control = one("controlpath")
    control = None if control is None or "%" in control or "${" in control else control
    jump = one("proxyjump")
    command = one("proxycommand")
    revoked = one("revokedhostkeys")
    return SshTarget(
        alias=alias,
        hostname=hostname,
        user=final_user,
        port=final_port,
        identity_files=tuple(path(name) for name in identities if name.lower() != "none"),
        certificate_files=tuple(path(name) for name in said.get("certificatefile", []) if name.lower() != "none"),
        identities_only=(one("identitiesonly") or "no").lower() in ("yes", "true"),
        identity_agent=agent,
        proxy_jump=tuple(hop.strip() for hop in jump.split(",")) if jump else (),
        proxy_command=_expand(alias, command, tokens) if command and not jump else None,
        known_hosts_files=paths("userknownhostsfile", _DEFAULT_KNOWN_HOSTS),
        global_known_hosts_files=paths("globalknownhostsfile", _DEFAULT_GLOBAL_KNOWN_HOSTS),
        revoked_host_keys=path(revoked) if revoked else None,
        host_key_alias=one("hostkeyalias"),
        connect_timeout=_number(alias, "ConnectTimeout", one("connecttimeout")),
        address_family=(one("addressfamily") or "any").lower(),
        bind_address=one("bindaddress"),
        known_hosts_command=known_command,
        pkcs11_provider=one("pkcs11provider"),
        not_followed=("VerifyHostKeyDNS",) if dns else (),
        beyond=tuple(beyond),
        control_path=os.path.abspath(os.path.expanduser(control)) if control else None,
        checks_host_keys=(one("stricthostkeychecking") or "ask").lower() in ("ask", "yes", "true")
        and not is_on("nohostauthenticationforlocalhost")
        and not dns,
        has_gssapi=is_on("gssapiauthentication"),
    )


def _beyond(one: Callable[[str], str | None]) -> Iterator[str]:
    """Yield the settings with which ssh would log in in another way than fabric does."""
    preferred = one("preferredauthentications")
    refused = {
        "PubkeyAuthentication no": (one("pubkeyauthentication") or "yes").lower() in ("no", "false"),
        f"PreferredAuthentications {preferred}": preferred is not None and "publickey" not in preferred.split(","),
    }
    for setting, is_so in refused.items():
        if is_so:
            yield f"ssh's configuration says {setting}, and only public keys are used here"
    if (one("proxyusefdpass") or "no").lower() in ("yes", "true"):
        yield "ssh's configuration sets ProxyUseFdpass, which is not supported; use a ProxyCommand without it"
    if one("bindinterface"):
        yield "ssh's configuration sets BindInterface, which is not supported; use BindAddress"


def _number(alias: str, keyword: str, value: str | None) -> int | None:
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise InventoryError(f"{alias}: {keyword} {shown(value)} in ssh's configuration is not a number")
    return int(value)


def _expand(alias: str, value: str, tokens: dict[str, str]) -> str:
    """Expand percent tokens and `${NAME}`, as ssh_config(5) describes them."""

    def token(match: re.Match[str]) -> str:
        if match.group(1) not in tokens:
            raise InventoryError(
                f"{alias}: %{match.group(1)} in {shown(value)} of ssh's configuration is not understood"
            )
        return tokens[match.group(1)]

    def variable(match: re.Match[str]) -> str:
        if match.group(1) not in os.environ:
            raise InventoryError(f"{alias}: {shown(value)} in ssh's configuration names a variable that is not set")
        return os.environ[match.group(1)]

    return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", variable, re.sub(r"%(.)", token, value))
