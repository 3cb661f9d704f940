"""A server of files for tests, which breaks as they ask it to; with TLS or without."""

from __future__ import annotations

import datetime as dt
import http.server
import ipaddress
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["FileServer", "make_certificate", "running_file_server"]


class FileServer:
    """What it serves, and what it was asked.

    Attributes:
        address: its own, without a `/` at the end.
        files: path -> content.
        status: path -> a status that it answers instead.
        redirects: path -> where the file is.
        cuts: for each answer, after how many bytes its connection breaks; then none.
        has_ranges: whether it sends parts of files.
        headers: more headers of each answer.
        asked: each request: its path, and its headers.
        hold: while it is not set, answers wait after their first byte.
    """

    def __init__(self) -> None:
        self.address = ""
        self.files: dict[str, bytes] = {}
        self.status: dict[str, int] = {}
        self.redirects: dict[str, str] = {}
        self.cuts: list[int] = []
        self.has_ranges = True
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.hold = threading.Event()
        self.hold.set()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        """Answer a request."""
        path = request.path
        self.asked.append((path, {name.lower(): value for name, value in request.headers.items()}))
        if path in self.redirects:
            request.send_response(308 if path.endswith("308") else 302)
            request.send_header("Location", self.redirects[path])
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if path in self.status or path not in self.files:
            request.send_error(self.status.get(path, 404))
            return
        data = self.files[path]
        part = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        begin = int(part[1]) if part is not None and self.has_ranges else 0
        request.send_response(206 if begin else 200)
        sent = {"Content-Length": str(len(data) - begin)}
        if begin:
            sent["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        sent.update(self.headers)
        for name, value in sent.items():
            if value:
                request.send_header(name, value)
        request.end_headers()
        body = data[begin:]
        if self.cuts:
            body = body[: self.cuts.pop(0)]
            request.close_connection = True
        request.wfile.write(body[:1])
        request.wfile.flush()
        self.hold.wait(60)
        request.wfile.write(body[1:])


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of `localhost` and 127.0.0.1 that vouches for itself; returns its file, and one with its key, too."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = dt.datetime.now(dt.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=2))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "ca.pem").write_bytes(public)
    (folder / "server.pem").write_bytes(secret + public)
    return folder / "ca.pem", folder / "server.pem"


@contextmanager
def running_file_server(certificate: Path | None = None, address: str = "127.0.0.1") -> Iterator[FileServer]:
    """A server on a free port. `certificate`: the file with key and certificate; None for no TLS."""
    files = FileServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            files.answer(self)

        def log_message(self, *args: object) -> None:
            """Nothing."""

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that went away is what some tests want."""

    server = Server((address, 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        # The handshake is made by the thread of the request.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    files.address = f"{'http' if certificate is None else 'https'}://{address}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield files
    finally:
        files.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()
