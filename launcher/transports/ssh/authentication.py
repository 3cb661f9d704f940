"""Authentication with keys from the agent and from files, in OpenSSH's order.

Rule: the user is never asked for anything. A key that could not be used is remembered with the reason. If no other key
is accepted, the error names it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from launcher.errors import AuthenticationFailed, ConnectionLost
from launcher.transports.ssh.config import SshTarget
from launcher.transports.ssh.host_keys.known_hosts import fingerprint
from launcher.transports.ssh.keys import (
    agent_key,
    is_certificate,
    is_public_file,
    key_type,
    plain_of,
    public_part,
    with_certificate,
)
from launcher.util.frozen import frozen

if TYPE_CHECKING:
    import paramiko

__all__ = ["KeyAuthentication"]

_PHASE = "authenticate"
#: Seconds for the agent to answer. A person may have to confirm or touch a key.
_AGENT_TIMEOUT = 60.0
#: Errors that come from the network, and not from the host.
_NETWORK = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN)


@frozen
class _Named:
    """A key or a certificate in a file. The blob is empty if the public key is not known."""

    path: str
    blob: bytes

    @property
    def certificate(self) -> bytes:
        return self.blob if is_certificate(self.blob) else b""

    @property
    def plain(self) -> bytes:
        return plain_of(self.blob)

    def is_key_of(self, other: _Named) -> bool:
        """Whether this is the key that the other one certifies."""
        return not self.certificate and self.plain == other.plain

    def with_words(self) -> str:
        return f" with certificate {_short(self.path)}" if self.certificate and self.path else ""


class KeyAuthentication:
    """Paramiko's `AuthStrategy`, for public keys only.

    Args:
        wait_wanted: called before anything is sent to the host or the agent is asked. Returns whether it kept the
        connection waiting. May raise HostError.

    Attributes:
        tried: what was offered and not accepted.
        skipped: what could not be offered, with the reason.
    """

    def __init__(self, host: str, target: SshTarget, wait_wanted: Callable[[], bool] = lambda: False) -> None:
        self._wait_wanted = wait_wanted
        self._host = host
        self._target = target
        self._agent: Any = None
        self._agent_state = ""
        self._locked_files: list[str] = []
        self._agent_only = False
        self._loaded: dict[str, paramiko.PKey | None] = {}
        self.tried: list[str] = []
        self.skipped: list[str] = []

    def authenticate(self, transport: paramiko.Transport) -> None:
        """Offer one key after the other until one is accepted.

        Raises:
            AuthenticationFailed: no key was accepted, or the host asks for more than a key, or it ends the connection.
            ConnectionLost: the network ended the connection, and not the host.
            EOFError: the host ended the connection before anybody wanted it.
        """
        import paramiko

        has_waited = self._wait_wanted()
        if not transport.is_active():
            raise EOFError
        try:
            for name, key in self._identities():
                try:
                    more = transport.auth_publickey(self._target.user, key)
                except paramiko.BadAuthenticationType as error:
                    raise self._wants_other(list(error.allowed_types)) from None
                except paramiko.AuthenticationException:
                    if self._is_stale(transport, has_waited):
                        raise EOFError from None
                    self.tried.append(name)
                    if not transport.is_active():
                        raise self._failed("the host ended the connection after these keys", _TOO_MANY) from None
                    continue
                except (paramiko.SSHException, OSError, EOFError) as raised:
                    if self._is_stale(transport, has_waited):
                        raise EOFError from None
                    why = _why_ended(transport, raised)
                    if not isinstance(why, (paramiko.SSHException, OSError, EOFError)) or "MAC" in str(why):
                        raise why from None  # it was altered on the way, so it is not the host's answer
                    if isinstance(why, OSError) and why.errno in _NETWORK:
                        message = f"the connection is gone ({why.strerror})"
                        raise ConnectionLost(self._host, _PHASE, message) from None
                    raise self._failed(f"the connection ended while {name} was offered ({why})", _SIGNING) from None
                if more:
                    raise self._wants_other(list(more))
                return
            raise self._none_accepted()
        finally:
            if self._agent is not None:
                self._agent.close()

    def _is_stale(self, transport: paramiko.Transport, has_waited: bool) -> bool:
        """Whether the connection ended before the host judged the first key, perhaps while it was kept waiting.

        Paramiko's thread may notice late that a host has gone, and then shows it as a refusal.
        """
        return has_waited and not self.tried and not transport.is_active()

    def _identities(self) -> Iterator[tuple[str, paramiko.PKey]]:
        """Return the keys to offer, in OpenSSH's order: keys named by a file that the agent has, the agent's other keys, then key files.

        A key is offered with its certificate first, and then alone. A host may trust either, and a certificate was made to
        be used.
        """
        if self._target.pkcs11_provider:
            self.skipped.append(
                f"PKCS11Provider {self._target.pkcs11_provider}: not supported here; `ssh-add -s` gives its keys to an "
                "agent"
            )
        in_agent = self._agent_keys()
        named = self._named()
        keys = {one.plain for one in named if not one.certificate}
        offered: set[bytes] = set()
        for one in named:
            entry = one.blob if one.blob in in_agent else one.plain
            # As in ssh: with IdentitiesOnly, a certificate alone does not add an agent's key that no file names.
            if entry in in_agent and (entry == one.blob or entry in keys or not self._target.identities_only):
                offered.add(one.blob)
                yield self._of_agent(in_agent, entry, one)
        for entry in [] if self._target.identities_only else list(in_agent):
            if entry not in offered:
                offered.add(entry)
                yield self._of_agent(in_agent, entry, _Named("", entry))
        for one in named:
            if one.blob and one.blob in offered:
                continue
            path = self._key_of(one, named) if one.certificate else one.path
            key = self._load(path) if path else None
            if key is None:
                if not path:
                    self.skipped.append(
                        f"{_short(one.path)}: neither the agent nor an IdentityFile has its private key"
                    )
                continue
            if not one.certificate and key.asbytes() in offered:
                continue
            offered.add(one.blob or key.asbytes())
            label = f"{_short(path)} {fingerprint(key.asbytes())}"
            yield label + one.with_words(), with_certificate(key, one.certificate)

    def _key_of(self, one: _Named, named: list[_Named]) -> str:
        """Return the path of a certificate's private key. A key in the old format must be loaded to find out."""
        for other in named:
            if other.is_key_of(one):
                return other.path
        for other in named:
            key = None if other.blob else self._load(other.path)
            if key is not None and key.asbytes() == one.plain:
                return other.path
        return ""

    def _of_agent(self, in_agent: dict[bytes, str], entry: bytes, one: _Named) -> tuple[str, paramiko.PKey]:
        comment = in_agent[entry]
        label = f"{comment} {fingerprint(one.plain or entry)} of the agent" + one.with_words()
        return label, with_certificate(agent_key(self._agent, entry, comment), one.certificate)

    def _named(self) -> list[_Named]:
        """Return the keys and certificates that the configuration names, as far as they can be read without a passphrase."""
        named = [_Named(path, public_part(path)) for path in self._target.certificate_files]
        for path in self._target.identity_files:
            if not self._target.certificate_files:
                named.append(_Named(path + "-cert.pub", public_part(path + "-cert")))
            named.append(_Named(path, public_part(path)))
        for path in self._target.certificate_files:
            if not is_certificate(public_part(path)):
                self.skipped.append(f"{_short(path)}: not a certificate")
        beside = {path + "-cert.pub" for path in self._target.identity_files} | {*self._target.certificate_files}
        return [one for one in named if one.certificate or one.path not in beside]

    def _agent_keys(self) -> dict[bytes, str]:
        """Return the plain keys and certificates that the agent lists, with its comments."""
        path = self._target.identity_agent
        if path is None:
            self._agent_state = "no agent"
            return {}
        try:
            self._agent = _connect_agent(path)
        except Exception as error:  # noqa: BLE001 (a broken agent makes paramiko raise struct.error and the like)
            self._agent_state = f"the agent at {_short(path)} does not answer ({error})"
            self.skipped.append(self._agent_state)
            return {}
        keys = {key.blob: (key.comment or key.get_name()) for key in self._agent.get_keys()}
        if not keys:
            self._agent_state = f"the agent at {_short(path)} is locked or holds no key"
            self.skipped.append(self._agent_state)
        return keys

    def _load(self, path: str) -> paramiko.PKey | None:
        if path not in self._loaded:
            self._loaded[path] = self._load_now(path)
        return self._loaded[path]

    def _load_now(self, path: str) -> paramiko.PKey | None:
        import paramiko

        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            return None  # ssh -G names the default files even if they do not exist
        except OSError as error:
            self.skipped.append(f"{_short(path)}: {error.strerror}")
            return None
        if is_public_file(path):
            self._agent_only = True
            self.skipped.append(f"{_short(path)}: is a public key, and the agent does not have the private one")
            return None
        if key_type(public_part(path)).startswith("sk-"):
            self.skipped.append(
                f"{_short(path)}: needs its security key, which only an agent can use here (`ssh-add {_short(path)}`)"
            )
            return None
        if mode & 0o077:
            self.skipped.append(f"{_short(path)}: can be read by others (chmod 600)")
            return None
        try:
            return paramiko.PKey.from_path(path)
        except (TypeError, paramiko.PasswordRequiredException):
            self._locked_files.append(path)
            self.skipped.append(f"{_short(path)}: needs a passphrase")
            return None
        except Exception as error:  # noqa: BLE001 (each key class and cryptography have exceptions of their own)
            self.skipped.append(f"{_short(path)}: cannot be used as a key ({error})")
            return None

    def _failed(self, what: str, next_step: str) -> AuthenticationFailed:
        parts = [f"{what} as user {self._target.user!r}"]
        if self.tried:
            parts.append("offered: " + "; ".join(self.tried))
        if self.skipped:
            parts.append("not offered: " + "; ".join(self.skipped))
        return AuthenticationFailed(self._host, _PHASE, ". ".join(parts), next_step)

    def _none_accepted(self) -> AuthenticationFailed:
        target = self._target
        if self._locked_files:
            path = _short(self._locked_files[0])
            if "locked" in self._agent_state:
                return self._failed("no key was accepted", f"unlock the agent (`ssh-add -X`) or `ssh-add {path}`")
            start = "" if target.identity_agent else "start an agent (`eval $(ssh-agent)`) and "
            return self._failed(
                "no key was accepted", f"{start}`ssh-add {path}`, because the launcher never asks for a passphrase"
            )
        if self._agent_only and not self.tried:
            return self._failed(
                "no key could be offered",
                "an IdentityFile names a public key: start or unlock the agent that has the private one, and see `ssh-add -l`",
            )
        if not self.tried and self._agent_state.endswith("holds no key"):
            return self._failed("no key could be offered", "unlock the agent (`ssh-add -X`) or add a key (`ssh-add`)")
        if not self.tried:
            return self._failed(
                "there is no key to offer",
                "make one (`ssh-keygen -t ed25519`) and install it there (`ssh-copy-id`), "
                "or name it with IdentityFile in ~/.ssh/config",
            )
        login = f"{target.user}@{target.hostname}"
        return self._failed(
            "no key was accepted",
            f"check that {target.user!r} is the right user there (`user:` or USER@HOST), and that one of these keys is in "
            f"its ~/.ssh/authorized_keys (`ssh-copy-id -p {target.port} {login}`)",
        )

    def _wants_other(self, types: list[str]) -> AuthenticationFailed:
        return self._failed(
            f"the host asks for {' or '.join(types) or 'something else'} beyond a key, and the launcher never asks for "
            "anything",
            f"`launcher connect {self._host.partition(' ')[0]}` asks for it in the terminal, once, and keeps the connection for "
            "runs; or enable public keys for this user there",
        )


_TOO_MANY = "too many keys? name the right one with IdentityFile, and `IdentitiesOnly yes`, in ~/.ssh/config"
_SIGNING = "if the agent has to confirm or be unlocked, do that and try again"


def _why_ended(transport: paramiko.Transport, error: Exception) -> Exception:
    """Return why a connection ended on which nothing could be sent: only paramiko's reading thread knows it, and it keeps it."""
    return (transport.get_exception() or error) if isinstance(error, EOFError) else error


def _short(path: str) -> str:
    home = os.path.expanduser("~")
    return "~" + path[len(home) :] if path.startswith(home + "/") else path


def _connect_agent(path: str) -> Any:
    from paramiko import agent

    base: Any = agent.AgentSSH

    class _Agent(base):  # type: ignore[misc]
        """Paramiko's `Agent` for a given socket."""

        def __init__(self) -> None:
            super().__init__()
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.settimeout(_AGENT_TIMEOUT)
                sock.connect(path)
                self._connect(sock)
            except BaseException:
                sock.close()
                raise

        def close(self) -> None:
            self._close()

    return _Agent()
