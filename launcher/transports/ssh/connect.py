"""One SSH connection: through which hosts it goes, which algorithms it uses, and what went wrong, in our words.

Rule: fabric and paramiko decide nothing about trust, algorithms, timeouts or configuration. Each of their exceptions
becomes a `HostError` here, which names the host, the phase and the next step.

This module adds what they do not do by themselves: TCP_NODELAY, a limit on every step, every address of a name, AES-GCM
first and no weak algorithm, a window for fast links, and another try if a host sheds load.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from launcher.errors import AuthenticationFailed, ConnectionLost, HostError, HostKeyError, HostUnreachable
from launcher.transports.ssh.authentication import KeyAuthentication
from launcher.transports.ssh.config import SshTarget
from launcher.transports.ssh.host_keys.host_key import HostKeyPolicy
from launcher.transports.ssh.lazy_imports import import_paramiko
from launcher.transports.ssh.link import Link
from launcher.transports.ssh.route import SshOptions, resolve
from launcher.transports.ssh.sockets import open_proxy, open_socket
from launcher.util.frozen import frozen

if TYPE_CHECKING:
    import paramiko

__all__ = ["connect", "word"]

_PHASE = "connect"
_WINDOW = 8 << 20
_PACKET = 256 << 10
#: Bytes after which we ask for new keys. RFC 4344, 3.2, allows 64 GiB with AES; paramiko would ask at 512 MiB, and
#: what reaches it during the exchange and wants an answer (a closing channel, a keepalive) stops it for half a minute.
_REKEY = 32 << 30
#: Seconds between keepalives. With them there is always unacknowledged data, which TCP_USER_TIMEOUT needs.
_KEEPALIVE = 5
#: Seconds for the host to judge one key. An agent may have to ask its user first.
_AUTH_TIMEOUT = 90.0
_LOG = "hydra_remote_launcher.paramiko"
#: The preferred ones come first. All others that paramiko knows (CBC, 3DES, MD5, SHA-1) are off.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
_MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")
#: A host that drops connections before the handshake (MaxStartups, penalties) is tried again this often, after pauses
#: that begin with this many seconds and double.
_RETRIES = 6
_FIRST_DELAY = 0.2
_SHEDDING = (b"Exceeded MaxStartups", b"Not allowed at this time")


class _Dropped(Exception):
    """The connection failed before the handshake was over, and another try may succeed. The text says how it failed."""


def connect(
    host: str,
    options: SshOptions,
    stop: threading.Event,
    wait_wanted: Callable[[], bool] = lambda: False,
    resolved: tuple[SshTarget, list[SshTarget]] | None = None,
) -> list[Link]:
    """Open connections to the jump hosts and the host, each through the one before it. The last one is the host's.

    Args:
        host: as the user named it, for messages.
        stop: set if the connection is not wanted any more.
        wait_wanted: called before authentication, and before a ProxyCommand is started. Returns whether it kept the
        connection waiting. May raise HostError.
        resolved: what `resolve` returned a moment ago.

    Raises:
        HostError: for every failure. Nothing is left open.
    """
    target, hops = _allowed(host, options, resolved or resolve(host, options))
    chain: list[Link] = []
    try:
        for hop in hops:
            name = f"{host} (through {hop.alias})"
            trust = HostKeyPolicy(name, hop, None, options.is_accept_new)
            chain.append(_Attempts(name, hop, trust, options, stop, wait_wanted).run(chain[-1] if chain else None))
        trust = HostKeyPolicy(host, target, options.fingerprint, options.is_accept_new)
        chain.append(_Attempts(host, target, trust, options, stop, wait_wanted).run(chain[-1] if chain else None))
    except BaseException:
        for link in reversed(chain):
            link.close()
        raise
    return chain


def _allowed(
    host: str, options: SshOptions, resolved: tuple[SshTarget, list[SshTarget]]
) -> tuple[SshTarget, list[SshTarget]]:
    """Return the host and the jump hosts, with what the options change.

    Raises:
        HostUnreachable: the configuration cannot be used by fabric.
    """
    target, hops = resolved
    for one in (target, *hops):
        if one.beyond:
            raise HostUnreachable(
                host,
                "resolve",
                f"{one.alias}: {one.beyond[0]}",
                "`--ssh openssh` leaves the login to the `ssh` program",
            )
    if options.identity:
        target = replace(target, identity_files=(options.identity,), identities_only=True)
    if options.known_hosts:
        only: dict[str, Any] = {
            "known_hosts_files": (options.known_hosts,),
            "global_known_hosts_files": (),
            "known_hosts_command": None,
        }
        target = replace(target, **only)
        hops = [replace(hop, **only) for hop in hops]
    return target, hops


@frozen
class _Attempts:
    """One connection of the chain.

    It is tried again, with growing pauses, if the host drops it before the handshake.
    """

    host: str
    target: SshTarget
    trust: HostKeyPolicy
    options: SshOptions
    stop: threading.Event
    wait_wanted: Callable[[], bool] = lambda: False
    jitter: Callable[[], float] = random.random

    def run(self, gateway: Link | None) -> Link:
        delay = _FIRST_DELAY
        left = _RETRIES
        while not self.stop.is_set():
            try:
                return self._open(gateway)
            except _Dropped as dropped:
                if left == 0:
                    raise HostUnreachable(
                        self.host,
                        _PHASE,
                        f"{dropped}, {_RETRIES + 1} times in a row",
                        "check its ProxyCommand in ~/.ssh/config"
                        if self.target.proxy_command
                        else "it may be overloaded or limit connections (MaxStartups, PerSourcePenalties in its sshd_config)",
                    ) from None
            left -= 1
            # Many controllers that were dropped at the same time must not all come back at the same time.
            self.stop.wait(delay * (0.5 + self.jitter()))
            delay *= 2
        raise ConnectionLost(self.host, _PHASE, "the transport was closed")

    @property
    def _timeout(self) -> float:
        return self.target.connect_timeout or self.options.connect_timeout

    def _open(self, gateway: Link | None) -> Link:
        sock: Any = None
        if gateway is None:
            # This comes before the import of paramiko, so that sshd gets ready in the meantime.
            if self.target.proxy_command:
                self.wait_wanted()
                sock = open_proxy(self.host, self.target.proxy_command)
            else:
                sock = open_socket(self.host, self.target, self._timeout, stop=self.stop)
        client = None
        try:
            client = self._client()
            if gateway is not None:
                sock = gateway.transport.open_channel("direct-tcpip", (self.target.hostname, self.target.port), ("", 0))
            self._connect(client, sock)
            link = Link(self.target, client, gateway)
            link.transport.set_keepalive(_KEEPALIVE)
        except BaseException as error:
            if client is not None:
                with contextlib.suppress(Exception):  # a broken connection's own error does not matter any more
                    client.close()
            if sock is not None:
                sock.close()
            if not isinstance(error, Exception):
                raise
            if gateway is not None and not isinstance(error, HostKeyError) and not gateway.stands():
                # Whatever the error looks like, the host itself sent nothing.
                why = f"the connection to the host on the way to {self.target.hostname} is gone"
                raise ConnectionLost(self.host, _PHASE, why) from None
            if isinstance(error, HostError):
                raise
            raise self._translate(error, getattr(sock, "greeting", b"")) from None
        return link

    def _client(self) -> paramiko.SSHClient:
        import_paramiko()
        import paramiko

        log = logging.getLogger(_LOG)
        if log.propagate:  # paramiko logs what it raises, with tracebacks
            log.propagate = False
            log.addHandler(logging.NullHandler())
        client = paramiko.SSHClient()
        client.set_log_channel(_LOG)
        policy: Any = self.trust
        client.set_missing_host_key_policy(policy)
        return client

    def _connect(self, client: paramiko.SSHClient, sock: Any) -> None:
        strategy: Any = KeyAuthentication(self.host, self.target, self.wait_wanted)
        factory: Any = self._transport
        client.connect(
            self.target.hostname,
            port=self.target.port,
            username=self.target.user,
            sock=sock,
            timeout=self._timeout,
            banner_timeout=self._timeout,
            auth_timeout=_AUTH_TIMEOUT,
            channel_timeout=self._timeout,
            transport_factory=factory,
            auth_strategy=strategy,
        )

    def _transport(self, sock: Any, disabled_algorithms: Any = None) -> paramiko.Transport:
        """Paramiko's `transport_factory`."""
        import paramiko

        transport = paramiko.Transport(sock, default_window_size=_WINDOW, default_max_packet_size=_PACKET)
        transport.packetizer.REKEY_BYTES = _REKEY
        offer = transport.get_security_options()
        offer.ciphers = [name for name in _CIPHERS if name in offer.ciphers]
        offer.digests = [name for name in _MACS if name in offer.digests]
        offer.kex = [name for name in offer.kex if not name.endswith("sha1")]
        offer.key_types = self.trust.preferred(
            tuple(name for name in offer.key_types if name not in ("ssh-rsa", "ssh-dss"))
        )
        return transport

    def _translate(self, error: Exception, greeting: bytes) -> Exception:
        """Translate what fabric, paramiko or the socket raised while connecting."""
        import paramiko
        from paramiko.ssh_exception import IncompatiblePeer

        where = f"{self.target.hostname} port {self.target.port}"
        if self.target.proxy_command:
            where += " (through its ProxyCommand)"
        causes = (error, error.__context__)
        dropped = next((cause for cause in causes if isinstance(cause, (EOFError, ConnectionError))), None)
        if isinstance(error, paramiko.ChannelException):
            return self._unreachable(
                f"the jump host cannot reach {where} ({error.text})", "check the name and the port, as seen from there"
            )
        if isinstance(error, IncompatiblePeer):
            return self._unreachable(
                f"{where} and the launcher have no algorithm in common ({word(error)})",
                "its sshd may be too old: AES-GCM or AES-CTR with SHA-2 are needed",
            )
        if isinstance(error, paramiko.AuthenticationException):
            return AuthenticationFailed(self.host, "authenticate", word(error), "check the user and the key")
        if "Indecipherable protocol version" in str(error) or (greeting and not _may_be_ssh(greeting)):
            said = greeting.decode("utf-8", "backslashreplace").strip()
            return self._unreachable(f"{where} is not an SSH server; it said {said!r}", "check the port")
        if dropped is not None:
            said = greeting.partition(b"SSH-")[0].decode("utf-8", "backslashreplace").strip()
            how = f"{word(dropped)}; it said {said!r}" if said else word(dropped)
            return _Dropped(f"the host drops connections before the handshake ({how})")
        # With "No existing session" paramiko says that its time for the handshake is over.
        is_late = any(isinstance(cause, TimeoutError) for cause in causes) or "timeout" in str(error).lower()
        if is_late or str(error) == "No existing session":
            return self._unreachable(
                f"{where} accepted the connection, but the SSH handshake was not over within {self._timeout:.0f} s",
                "check that it is an SSH port and that the host is not overloaded",
            )
        if str(error) == "Negotiation failed.":
            return _Dropped(f"the host drops connections before the handshake ({word(error)})")
        # A signature or a checksum is wrong. Perhaps bytes were altered on the way.
        return _Dropped(f"the SSH handshake with {where} failed ({word(error)})")

    def _unreachable(self, message: str, next_step: str) -> HostUnreachable:
        return HostUnreachable(self.host, _PHASE, message, next_step)


def _may_be_ssh(greeting: bytes) -> bool:
    """Whether this is an SSH banner, perhaps after other lines (RFC 4253, 4.2), or what sshd says when it sheds load."""
    return b"SSH-" in greeting or b"SSH-".startswith(greeting) or any(text in greeting for text in _SHEDDING)


def word(error: BaseException | None) -> str:
    """Describe an exception in a few words. Some of paramiko's have no text."""
    if error is None:
        return ""
    if isinstance(error, EOFError):
        return "the other side is gone"
    return " ".join(str(error).split())[:300] or type(error).__name__
