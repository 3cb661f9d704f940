"""The command line of the `ssh` program, and the configuration that it gets from us.

Rule: never softer than `StrictHostKeyChecking=yes`, and no run asks for anything. What must hold stands in a file that
comes before the user's own: ssh takes the first value of a setting, and gives the file on to the `ssh` of each jump host.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from launcher.errors import HostKeyError, HostUnreachable
from launcher.transports.ssh.config import SshTarget
from launcher.transports.ssh.route import SshOptions
from remote_agent.shared.subprocesses import answer_of

__all__ = ["environment", "over_kept", "own_login", "program", "shown_key_error", "write_config"]

#: Settings for the host and for every host on the way. A run has no terminal, opens no forwarding, and starts nothing here.
_FOR_RUNS = """\
  BatchMode yes
  LogLevel ERROR
"""
_ALWAYS = """\
  StrictHostKeyChecking {checking}
  VerifyHostKeyDNS no
  NoHostAuthenticationForLocalhost no
  UpdateHostKeys no
  ControlMaster no
  ControlPersist no
  ForwardAgent no
  ForwardX11 no
  ForwardX11Trusted no
  Tunnel no
  ClearAllForwardings yes
  PermitLocalCommand no
  RemoteCommand none
  RequestTTY no
  ServerAliveInterval {alive}
  ServerAliveCountMax 3
  TCPKeepAlive yes
"""
#: Seconds between two questions whether the host is still there; after three without an answer the link is gone.
_ALIVE, _ALIVE_KEPT = 5, 15
#: KnownHostsCommand came with OpenSSH 8.5.
_TELLS_KEYS = (8, 5)
#: Gets what ssh knows of a key that a host shows, and writes it down. It knows no key itself.
_TELL = """\
[ "$1" = HOSTNAME ] && printf '%s %s %s\\n' "$2" "$3" "$4" >>"${0%/*}/shown"
exit 0
"""
#: The same, and it knows the one key with the pinned fingerprint. What files say is revoked stays so.
_PIN = """\
[ "$1" = HOSTNAME ] && printf '%s %s %s\\n' "$2" "$3" "$4" >>"${0%/*}/shown"
[ "$5" = "$7" ] && printf '%s %s %s\\n' "$6" "$3" "$4"
shift 7
[ $# = 0 ] || grep -h '^@revoked' -- "$@"
exit 0
"""


def program() -> str | None:
    """Return the path of the `ssh` program; None if there is none."""
    return shutil.which("ssh")


def environment() -> dict[str, str]:
    """Return the environment of an `ssh` that must ask nothing, in a window or otherwise, and of what it starts."""
    return {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}


def over_kept(ssh: str, socket: str) -> list[str]:
    """Return the command line of a session over a kept connection, without the command that runs there.

    No configuration is read, because the connection stands. If it does not carry this session, no other is made.
    """
    return [ssh, "-F", "/dev/null", "-T", "-S", socket, "-o", "BatchMode=yes", "-o", "ProxyCommand=false"]


def own_login(ssh: str, config: Path, options: SshOptions) -> list[str]:
    """Return the command line of a session with a login of its own, without the command that runs there."""
    command = [ssh, "-F", str(config), "-T", "-S", "none"]
    if options.user is not None:
        command += ["-l", options.user]
    if options.port is not None:
        command += ["-p", str(options.port)]
    return command


def write_config(
    folder: Path,
    host: str,
    options: SshOptions,
    target: SshTarget,
    hops: Sequence[SshTarget],
    sockets: dict[str, str],
    *,
    is_for_person: bool = False,
) -> Path:
    """Write the configuration of a login into a private folder, and return its path.

    Args:
        host: as the user named it, for messages.
        hops: the jump hosts.
        sockets: kept connections to jump hosts, by alias.
        is_for_person: somebody sits at the terminal, and may be asked.

    Raises:
        HostUnreachable: the options cannot be said in ssh's configuration.
    """
    if options.known_hosts:
        # It is the only thing to trust, so a command of the configuration is not asked.
        target = replace(target, known_hosts_command=None)
        hops = [replace(hop, known_hosts_command=None) for hop in hops]
    lines = []
    for hop in hops:
        lines += [f"Host {hop.alias}"]
        if hop.alias in sockets:
            lines += [f"  ControlPath {_quoted(host, sockets[hop.alias])}"]
        if hop is hops[0]:
            # A ProxyJump for every host does not hold for itself.
            lines += ["  ProxyJump none"]
        lines += _telling(folder, host, hop)
    lines += [f"Host {target.alias}", *_for_host(folder, host, options, target)]
    lines += ["Host *", "  ControlPath none"] if not is_for_person else ["Host *"]
    if options.known_hosts:
        lines += [f"  UserKnownHostsFile {_quoted(host, options.known_hosts)}", "  GlobalKnownHostsFile none"]
        lines += ["  KnownHostsCommand none"] if _version() >= _TELLS_KEYS else []
    checking = "accept-new" if options.is_accept_new else "yes"
    text = "\n".join(lines) + "\n" + ("" if is_for_person else _FOR_RUNS)
    text += _ALWAYS.format(checking=checking, alive=_ALIVE_KEPT if is_for_person else _ALIVE)
    for path in [options.config_file] if options.config_file else ["~/.ssh/config", "/etc/ssh/ssh_config"]:
        text += f"Include {_included(host, path)}\n"
    # What the user has said counts, and the variables of this process stay here.
    text += f"Host *\n  ConnectTimeout {max(1, round(options.connect_timeout))}\n  SendEnv -*\n"
    config = folder / "config"
    config.write_text(text)
    return config


def _for_host(folder: Path, host: str, options: SshOptions, target: SshTarget) -> list[str]:
    lines = []
    if options.identity:
        # Settings of IdentityFile add up, so what the user's configuration names would be offered, too.
        others = [path for path in target.identity_files if path != options.identity and os.path.exists(path)]
        if others and not _are_usual(others):
            raise HostUnreachable(
                host,
                "resolve",
                f"`identity` names the only key to offer, and ssh's configuration adds IdentityFile {others[0]}",
                "leave one of them out, or use `--ssh fabric`",
            )
        lines += [f"  IdentityFile {_quoted(host, options.identity)}", "  IdentitiesOnly yes"]
    if options.fingerprint:
        files = [*target.known_hosts_files, *target.global_known_hosts_files]
        (folder / "pin").write_text(_PIN)
        words = [str(folder / "pin"), "%I", target.alias, "%t", "%K", "%f", "%H", options.fingerprint, *files]
        quoted = " ".join(_quoted(host, word, tokens=word.startswith("%")) for word in words)
        return [
            *lines,
            "  UserKnownHostsFile none",
            "  GlobalKnownHostsFile none",
            f"  KnownHostsCommand /bin/sh {quoted}",
        ]
    return lines + _telling(folder, host, target)


def _telling(folder: Path, host: str, target: SshTarget) -> list[str]:
    """Have ssh tell which key a host shows, so that its refusal can be explained."""
    if target.known_hosts_command or target.beyond or _version() < _TELLS_KEYS:
        return []
    (folder / "tell").write_text(_TELL)
    return [f"  KnownHostsCommand /bin/sh {_quoted(host, str(folder / 'tell'))} %I {target.alias} %t %K"]


def shown_key_error(
    folder: Path, host: str, options: SshOptions, target: SshTarget, hops: Sequence[SshTarget]
) -> HostKeyError | None:
    """Return why a key that was shown is not the host's, in our words; None if that is not known."""
    import base64

    from launcher.transports.ssh.host_keys.host_key import HostKeyPolicy

    try:
        told = [line.split() for line in (folder / "shown").read_text().splitlines()]
    except OSError:
        return None
    for alias, _, encoded in (words for words in told if len(words) == 3):
        place = next((one for one in (target, *hops) if one.alias == alias), None)
        if place is None:
            continue
        if options.known_hosts:
            only = (options.known_hosts,)
            place = replace(place, known_hosts_files=only, global_known_hosts_files=(), known_hosts_command=None)
        name = host if alias == target.alias else f"{host} (through {alias})"
        pin = options.fingerprint if alias == target.alias else None
        try:
            key = base64.b64decode(encoded)
            HostKeyPolicy(name, place, pin).check(_type_of(key), key)
        except HostKeyError as error:
            return error
        except ValueError:
            continue
    return None


def _type_of(key: bytes) -> str:
    return key[4 : 4 + int.from_bytes(key[:4], "big")].decode("ascii", "replace")


def _are_usual(paths: Sequence[str]) -> bool:
    """Whether these are ssh's default key files. It tries them only if the configuration names none."""
    folder = os.path.expanduser("~/.ssh/")
    return all(re.fullmatch(re.escape(folder) + r"id_[a-z0-9_]+", path) for path in paths)


def _quoted(host: str, word: str, *, tokens: bool = False) -> str:
    """Return a word of ssh's configuration as it is meant; tokens are expanded by ssh."""
    if re.search(r'["\\\x00-\x1f\x7f]|\$\{', word):
        raise _not_sayable(host, word)
    return f'"{word if tokens else word.replace("%", "%%")}"'


def _included(host: str, path: str) -> str:
    if re.search(r'["\\*?\[\]\x00-\x1f\x7f]|\$\{', path):
        raise _not_sayable(host, path)
    return f'"{path}"'


def _not_sayable(host: str, word: str) -> HostUnreachable:
    return HostUnreachable(
        host, "resolve", f"ssh's configuration cannot have the name {word!r}", "rename it, or use `--ssh fabric`"
    )


@lru_cache(maxsize=1)
def _version() -> tuple[int, int]:
    """Return the version of the `ssh` program; zeros if it does not say."""
    ssh = program()
    if ssh is None:
        return 0, 0
    said = answer_of([ssh, "-V"], timeout=15)
    found = re.search(rb"OpenSSH_(\d+)\.(\d+)", said.stderr + said.stdout) if said is not None else None
    return (int(found[1]), int(found[2])) if found else (0, 0)
