"""Who we are to a host: keys of the agent and of files, in OpenSSH's order.

Rule: nothing is asked of the user. What could not be used is remembered with its reason, and is in the error if no
other key was accepted.
"""

from __future__ import annotations

import base64
import binascii
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.errors import AuthenticationFailed, ConnectionLost
from launcher.known_hosts import fingerprint
from launcher.ssh_config import SshTarget

if TYPE_CHECKING:
    import paramiko

__all__ = ["KeyAuthentication"]

_PHASE = "authenticate"
#: Seconds for the agent to answer; a key that must be confirmed or touched takes a person's time.
_AGENT_TIMEOUT = 60.0
_MAGIC = b"openssh-key-v1\x00"
#: What the network says, not the host.
_NETWORK = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN)


class KeyAuthentication:
    """Paramiko's `AuthStrategy`, for public keys alone.

    Args:
        wait_wanted: called before the host is told anything, or the agent is asked: whether it kept the connection
            waiting; may raise HostError.

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
        self.tried: list[str] = []
        self.skipped: list[str] = []

    def authenticate(self, transport: paramiko.Transport) -> None:
        """Offer one key after the other until one is accepted.

        Raises:
            AuthenticationFailed: none was; or the host asks for more than a key, or ends the connection.
            ConnectionLost: the network took the connection away, not the host.
            EOFError: the host went while nobody wanted anything of it.
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
                except (paramiko.SSHException, OSError, EOFError) as error:
                    if self._is_stale(transport, has_waited):
                        raise EOFError from None
                    if "MAC" in str(error):
                        raise  # altered on the way: no word of the host's
                    if isinstance(error, OSError) and error.errno in _NETWORK:
                        why = f"the connection is gone ({error.strerror})"
                        raise ConnectionLost(self._host, _PHASE, why) from None
                    raise self._failed(f"the connection ended while {name} was offered ({error})", _SIGNING) from None
                if more:
                    raise self._wants_other(list(more))
                return
            raise self._none_accepted()
        finally:
            if self._agent is not None:
                self._agent.close()

    def _is_stale(self, transport: paramiko.Transport, has_waited: bool) -> bool:
        """Whether the connection ended before the first key was judged, and may have done so while it was kept waiting.

        Paramiko takes its thread's time to see that a host has gone, and shows it as a refusal then.
        """
        return has_waited and not self.tried and not transport.is_active()

    def _identities(self) -> Iterator[tuple[str, paramiko.PKey]]:
        """What to offer: keys of the agent that are named by file, the agent's others, then files."""
        offered: set[bytes] = set()
        files = {path: _public_part(path) for path in self._target.identity_files}
        in_agent = self._agent_keys()
        named = [public for public in files.values() if public in in_agent]
        others = [] if self._target.identities_only else [public for public in in_agent if public not in named]
        for public in dict.fromkeys(named + others):
            offered.add(public)
            comment, agent_key = in_agent[public]
            yield f"{comment} {fingerprint(public)} of the agent", agent_key
        for path, public in files.items():
            key = None if public in offered else self._load(path)
            if key is not None and key.asbytes() not in offered:
                offered.add(key.asbytes())
                yield f"{_short(path)} {fingerprint(key.asbytes())}", key

    def _agent_keys(self) -> dict[bytes, tuple[str, paramiko.PKey]]:
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
        keys = {key.asbytes(): (key.comment or key.get_name(), key) for key in self._agent.get_keys()}
        if not keys:
            self._agent_state = f"the agent at {_short(path)} is locked or holds no key"
            self.skipped.append(self._agent_state)
        return keys

    def _load(self, path: str) -> paramiko.PKey | None:
        import paramiko

        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            return None  # ssh -G names the default files whether or not they are there
        except OSError as error:
            self.skipped.append(f"{_short(path)}: {error.strerror}")
            return None
        if mode & 0o077:
            self.skipped.append(f"{_short(path)}: can be read by others (chmod 600)")
            return None
        try:
            key = paramiko.PKey.from_path(path)
        except (TypeError, paramiko.PasswordRequiredException):
            self._locked_files.append(path)
            self.skipped.append(f"{_short(path)}: needs a passphrase")
            return None
        except Exception as error:  # noqa: BLE001 (each key class and cryptography have exceptions of their own)
            self.skipped.append(f"{_short(path)}: not a key that can be used ({error})")
            return None
        for certificate in self._target.certificate_files:
            try:
                key.load_certificate(certificate)
            except Exception as error:  # noqa: BLE001 (as above)
                # Often simply the certificate of another of the keys.
                self.skipped.append(f"{_short(certificate)}: not a certificate for {_short(path)} ({error})")
        return key

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
            return self._failed("no key was accepted", f"{start}`ssh-add {path}`: a passphrase is never asked for here")
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
            f"the host asks for {' or '.join(types) or 'something else'} beyond a key, and nothing is prompted for here",
            "enable public keys for this user there, or go through a host that needs no second factor (ProxyJump)",
        )


_TOO_MANY = "too many keys? name the right one with IdentityFile, and `IdentitiesOnly yes`, in ~/.ssh/config"
_SIGNING = "if the agent has to confirm or be unlocked, do that and try again"


def _short(path: str) -> str:
    home = os.path.expanduser("~")
    return "~" + path[len(home) :] if path.startswith(home + "/") else path


def _connect_agent(path: str) -> Any:
    from paramiko import agent

    base: Any = agent.AgentSSH

    class _Agent(base):  # type: ignore[misc]
        """Paramiko's `Agent`, at a path of our choice."""

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


def _public_part(path: str) -> bytes:
    """The public key of an identity file, without its passphrase: from `.pub`, or the file's open part; else nothing."""
    try:
        fields = Path(path + ".pub").read_bytes().split()
        return base64.b64decode(fields[1], validate=True)
    except (OSError, IndexError, ValueError):
        pass  # there is none: look into the private key's file
    try:
        text = Path(path).read_bytes()
        _, _, rest = text.partition(b"-----BEGIN OPENSSH PRIVATE KEY-----")
        data = base64.b64decode(rest.partition(b"-----END")[0])
        if not data.startswith(_MAGIC):
            return b""
        position = len(_MAGIC)
        for _ in range(3):  # cipher, key derivation, its options
            position += 4 + struct.unpack_from(">I", data, position)[0]
        (length,) = struct.unpack_from(">I", data, position + 4)
        return data[position + 8 : position + 8 + length]
    except (OSError, binascii.Error, struct.error):
        return b""
