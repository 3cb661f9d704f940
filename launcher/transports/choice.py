"""Chooses between fabric and the `ssh` program for one host.

Rule: fabric is the usual way, which needs nothing but Python here. With `auto`, the `ssh` program is chosen where a kept
connection stands, or where ssh's configuration asks for what fabric cannot do. Nothing is sent to the host for that.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from launcher.errors import HostUnreachable
from launcher.transports.openssh import command as ssh_command
from launcher.transports.openssh import kept
from launcher.transports.ssh.config import SshTarget
from launcher.transports.ssh.host_keys.known_hosts import KnownHosts, host_name
from launcher.transports.ssh.keys import key_type, public_part
from launcher.transports.ssh.route import SshOptions, resolve
from launcher.util.frozen import frozen
from remote_agent.shared.subprocesses import answer_of

__all__ = ["Choice", "choose"]

_TIMEOUT = 10.0
#: Names of key files that ssh tries where the configuration names none.
_USUAL = re.compile(r"id_[a-z0-9_]+")


@frozen
class Choice:
    """How a host is reached, and why.

    Attributes:
        socket: of the kept connection to it.
        kept_hops: the sockets of kept connections to jump hosts, by alias.
        may_be_fabric: fabric could have been chosen, so it may follow when the kept connection ends.
        resolved: what ssh's configuration says; None if it was not asked.
    """

    name: Literal["fabric", "openssh"]
    why: str
    socket: str | None = None
    kept_hops: tuple[tuple[str, str], ...] = ()
    may_be_fabric: bool = False
    resolved: tuple[SshTarget, list[SshTarget]] | None = None


def choose(host: str, options: SshOptions, asked: str) -> Choice:
    """Choose for one host.

    Args:
        host: as the user named it, for messages.
        asked: `auto`, `fabric` or `openssh`.

    Raises:
        HostUnreachable: ssh's configuration cannot be used.
    """
    if asked == "fabric":
        return Choice("fabric", "it was asked for", may_be_fabric=True)
    if ssh_command.program() is None:
        if asked == "openssh":
            raise HostUnreachable(
                host, "connect", "there is no `ssh` program on the PATH here", "install one, or use `--ssh fabric`"
            )
        return Choice("fabric", "there is no `ssh` program here", may_be_fabric=True)
    target, hops = resolve(host, options)
    needs = [] if asked == "openssh" else _needs(options, target, hops)
    may_be_fabric = asked == "auto" and not needs
    socket, whose = _kept_connection(options, target)
    if socket is not None:
        return Choice("openssh", f"{whose} to the host is open", socket, (), may_be_fabric)
    sockets = kept.kept_hops(options, hops)
    if sockets:
        why = f"a kept connection to the jump host {min(sockets)} is open"
        return Choice("openssh", why, None, tuple(sorted(sockets.items())), may_be_fabric)
    if asked == "openssh":
        return Choice("openssh", "it was asked for")
    if needs:
        return Choice("openssh", needs[0])
    return Choice("fabric", "it is the usual way", may_be_fabric=True, resolved=(target, hops))


def _kept_connection(options: SshOptions, target: SshTarget) -> tuple[str | None, str]:
    """Return the socket of a kept connection that stands, and whose it is."""
    ours = str(kept.socket_of(options, target))
    if kept.is_up(ours):
        return ours, "a kept connection"
    # Of the user's own it is not known which key it was opened with, and which files it trusted.
    is_special = options.fingerprint or options.known_hosts or options.identity
    theirs = target.control_path
    if theirs and target.checks_host_keys and not is_special and kept.is_up(theirs):
        return theirs, "your own ControlMaster"
    return None, ""


def _needs(options: SshOptions, target: SshTarget, hops: Sequence[SshTarget]) -> list[str]:
    """Return what ssh's configuration asks for and fabric cannot do, as reasons."""
    reasons = []
    for number, one in enumerate((target, *hops)):
        place = f" of the jump host {one.alias}" if number else ""
        if options.known_hosts:
            one = replace(
                one, known_hosts_files=(options.known_hosts,), global_known_hosts_files=(), known_hosts_command=None
            )
        if options.identity and not number:
            one = replace(one, identity_files=(options.identity,), identities_only=True)
        reasons += [f"{what}{place}" for what in _needs_of(one, has_pin=bool(options.fingerprint and not number))]
    return reasons


def _needs_of(target: SshTarget, *, has_pin: bool) -> list[str]:
    reasons = list(target.beyond)
    if target.pkcs11_provider:
        reasons.append(f"ssh's configuration sets PKCS11Provider {target.pkcs11_provider}")
    authority = "" if has_pin else _authority(target)
    if authority:
        reasons.append(f"only a certificate authority vouches for the host's key ({authority})")
    keys = [path for path in target.identity_files if os.path.exists(path)]
    security = [path for path in keys if key_type(public_part(path)).startswith("sk-")]
    others = [path for path in keys if path not in security]
    is_named = any(not _USUAL.fullmatch(os.path.basename(path)) for path in security)
    if (security and (is_named or not others)) or (not keys and target.has_gssapi):
        in_agent = _agent_keys(target.identity_agent)
        wanted = [path for path in security if public_part(path) not in in_agent]
        if wanted and (is_named or not in_agent):
            reasons.append(f"{wanted[0]} needs its security key")
        elif not security and not in_agent and _has_ticket():
            reasons.append("there is a Kerberos ticket, and no key to try")
    return reasons


def _authority(target: SshTarget) -> str:
    """Return where a certificate authority is named for the host, if no key of it is known; else an empty text."""
    known = KnownHosts.load((*target.known_hosts_files, *target.global_known_hosts_files))
    names = [target.host_key_alias or host_name(target.hostname, target.port), target.hostname.lower()]
    if target.host_key_alias:
        names = names[:1]
    lines = [one for name in names for one in known.find(name)]
    plain = [one for one in lines if not one.marker]
    authorities = [one for one in lines if one.marker == "@cert-authority"]
    return authorities[0].where if authorities and not plain and target.known_hosts_command is None else ""


def _agent_keys(path: str | None) -> set[bytes]:
    """Return the public keys that the agent lists."""
    import base64
    import binascii

    ask = shutil.which("ssh-add")
    if path is None or ask is None:
        return set()
    done = _run([ask, "-L"], {**os.environ, "SSH_AUTH_SOCK": path})
    found = set()
    for line in (done or b"").splitlines():
        words = line.split()
        try:
            found.add(base64.b64decode(words[1], validate=True))
        except (IndexError, binascii.Error, ValueError):
            continue  # such as `The agent has no identities.`
    return found


def _has_ticket() -> bool:
    ask = shutil.which("klist")
    return ask is not None and _run([ask, "-s"], dict(os.environ)) is not None


def _run(argv: list[str], variables: dict[str, str]) -> bytes | None:
    """Run a program here, and return what it prints; None if it fails."""
    done = answer_of(argv, timeout=_TIMEOUT, env=variables)
    return done.stdout if done is not None and done.returncode == 0 else None
