"""Public keys and certificates in files, and keys that an agent signs with.

Rule: `launcher.transports.ssh.authentication` decides which of them are offered, and in which order. A file that is not
a key is ignored, as by ssh.
"""

from __future__ import annotations

import base64
import binascii
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import paramiko

__all__ = ["agent_key", "is_certificate", "is_public_file", "key_type", "plain_of", "public_part", "with_certificate"]

_MAGIC = b"openssh-key-v1\x00"
_CERTIFICATE = "-cert-v01@openssh.com"
#: The number of fields after the type of a public key. A certificate repeats them after its nonce (PROTOCOL.certkeys).
_FIELDS = {
    "ssh-rsa": 2,
    "ssh-ed25519": 1,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}
#: How many bytes of a file are searched for a key.
_MAX_FILE = 1 << 20


def public_part(path: str) -> bytes:
    """Return the public key (or certificate) of an identity file, without a passphrase; empty if it has none.

    It is found as OpenSSH finds it: the file is the public key, or has it beside it as `.pub`, or has it in its
    unencrypted part.
    """
    return _from_line(path) or _from_line(path + ".pub") or _from_private(path)


def is_public_file(path: str) -> bool:
    """Whether the file itself is a public key or a certificate. Its private key is elsewhere, perhaps in an agent."""
    return bool(_from_line(path))


def _from_line(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            fields = file.read(_MAX_FILE).split(None, 2)
        blob = base64.b64decode(fields[1], validate=True)
        return blob if key_type(blob).encode() == fields[0] else b""
    except (OSError, IndexError, ValueError):
        return b""


def _from_private(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            text = file.read(_MAX_FILE)
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


def key_type(blob: bytes) -> str:
    """Return the type of a public key or certificate, which is its first field; empty if that is not a type."""
    field, _ = _field(blob, 0)
    return field[4:].decode("ascii", "replace")


def is_certificate(blob: bytes) -> bool:
    """Whether it is a certificate, and not a plain key."""
    return key_type(blob).endswith(_CERTIFICATE)


def plain_of(blob: bytes) -> bytes:
    """Return the plain public key. For a certificate this is the key that it certifies; empty if that is not known."""
    name = key_type(blob)
    if not name.endswith(_CERTIFICATE):
        return blob
    name = name.removesuffix(_CERTIFICATE)
    plain = name if name in _FIELDS else name + "@openssh.com"
    if plain not in _FIELDS:
        return b""
    _, position = _field(blob, 0)
    _, position = _field(blob, position)  # the nonce
    out = struct.pack(">I", len(plain)) + plain.encode()
    for _ in range(_FIELDS[plain]):
        field, position = _field(blob, position)
        out += field
    return out


def _field(blob: bytes, position: int) -> tuple[bytes, int]:
    """Read a string that follows its length. Returns it and where the next one begins; empty beyond the end."""
    if position + 4 > len(blob):
        return b"", len(blob)
    (length,) = struct.unpack_from(">I", blob, position)
    end = position + 4 + length
    return (blob[position:end], end) if end <= len(blob) else (b"", len(blob))


def with_certificate(key: paramiko.PKey, certificate: bytes) -> paramiko.PKey:
    """Have a key offered with a certificate, or as it is if there is no certificate."""
    from paramiko.pkey import PublicBlob

    anyhow: Any = key
    anyhow.public_blob = PublicBlob(key_type(certificate), certificate) if certificate else None
    return key


def agent_key(agent: Any, entry: bytes, comment: str) -> paramiko.PKey:
    """A key whose private part an agent has.

    Args:
        entry: the plain key or certificate as the agent lists it, because the agent finds a key only by this.
    """
    from paramiko import Message, SSHException
    from paramiko import agent as said

    base: Any = said.AgentKey

    class _Key(base):  # type: ignore[misc]
        def sign_ssh_data(self, data: bytes, algorithm: str | None = None) -> bytes:
            message = Message()
            message.add_byte(said.cSSH2_AGENTC_SIGN_REQUEST)
            message.add_string(entry)
            message.add_string(data)
            message.add_int(said.ALGORITHM_FLAG_MAP.get(algorithm or "", 0))
            answer, result = self.agent._send_message(message)  # noqa: SLF001 (paramiko has no other way)
            if answer != said.SSH2_AGENT_SIGN_RESPONSE:
                raise SSHException("key cannot be used for signing")
            return bytes(result.get_binary())

    key: Any = _Key(agent, plain_of(entry), comment)
    return key  # type: ignore[no-any-return]
