"""Addresses that a controller gave are asked over HTTPS, with nothing of the host in the request, and where the user allows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_agent.agent.environments.fetching.https import BrokenError, Opener, RefusedError
from tests.file_server import FileServer, make_certificate, running_file_server

DATA = b"0123456789"
LIMIT = 30.0


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate that hosts trust only if they are told to."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def tls(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server whose certificate this host trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with running_file_server(certificate[1]) as server:
        server.files["/a.whl"] = DATA
        yield server


@pytest.fixture
def plain() -> Iterator[FileServer]:
    """A server without TLS, on loopback."""
    with running_file_server() as server:
        server.files["/a.whl"] = DATA
        yield server


def content(url: str, *, is_named: bool = True, offset: int = 0, size: int = len(DATA)) -> tuple[int, bytes]:
    """What is read of an address, and from which offset on."""
    answer = Opener(url, is_named=is_named, patience=LIMIT).open(offset, size)
    read = b""
    while piece := answer.read(4):
        read += piece
    answer.close()
    return answer.begin, read


def test_a_file_comes_over_tls(tls: FileServer) -> None:
    """Whole, or from an offset on."""
    assert content(f"{tls.address}/a.whl") == (0, DATA)
    assert content(f"{tls.address}/a.whl", offset=4) == (4, DATA[4:])
    tls.has_ranges = False
    assert content(f"{tls.address}/a.whl", offset=4) == (0, DATA)


def test_a_certificate_that_nobody_vouches_for(certificate: tuple[Path, Path]) -> None:
    """The host's own store decides."""
    with running_file_server(certificate[1]) as server, pytest.raises(BrokenError, match="CERTIFICATE_VERIFY_FAILED"):
        content(f"{server.address}/a.whl")
    assert not server.asked


def test_a_request_has_nothing_of_the_host(plain: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No credential of a netrc, no cookie, no Referer; after a redirect, too."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password s3cret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    plain.redirects["/moved.308"] = "/a.whl"
    assert content(f"{plain.address}/moved.308", offset=2) == (2, DATA[2:])
    names = {name for _, headers in plain.asked for name in headers}
    assert names == {"host", "user-agent", "accept-encoding", "range", "connection"}
    assert [path for path, _ in plain.asked] == ["/moved.308", "/a.whl"]


@pytest.mark.parametrize(
    "url",
    ["http://packages.example.org/a", "ftp://packages.example.org/a", "file:///etc/passwd", "https://", "https://[x/a",
     "https://me:word@packages.example.org/a", "https://packages.example.org/a b", "https://packages.example.org/a\n"],
)  # fmt: skip
def test_addresses_that_are_never_asked(url: str) -> None:
    """Whoever named them."""
    with pytest.raises(RefusedError) as refused:
        Opener(url, is_named=True, patience=LIMIT)
    assert "word" not in str(refused.value)


def test_without_tls_only_what_the_user_named_on_loopback(plain: FileServer) -> None:
    """A lock alone opens no door on the host itself."""
    with pytest.raises(RefusedError, match="not https"):
        content(f"{plain.address}/a.whl", is_named=False)
    assert not plain.asked


def test_a_private_network_is_asked_only_if_it_is_named(tls: FileServer) -> None:
    """The connection is looked at before a request is sent: a name that leads to such an address is no way around."""
    for address in (tls.address, tls.address.replace("127.0.0.1", "localhost")):
        with pytest.raises(RefusedError, match=r"127\.0\.0\.1\) is in a private network") as refused:
            content(f"{address}/a.whl", is_named=False)
        assert refused.value.is_of_server
    assert not tls.asked


def test_no_redirect_leads_around_that(tls: FileServer, plain: FileServer) -> None:
    """Not to another server of a private network, not out of TLS, not to a file."""
    elsewhere = tls.address.replace("127.0.0.1", "localhost")
    for target in (f"{elsewhere}/a.whl", f"{plain.address}/a.whl", "file:///etc/passwd", "https://me@127.0.0.1/"):
        tls.redirects["/moved"] = target
        with pytest.raises(RefusedError):
            content(f"{tls.address}/moved")
    assert {path for path, _ in tls.asked} == {"/moved"}
    assert not plain.asked
    tls.redirects["/moved"] = f"{tls.address}/a.whl"
    assert content(f"{tls.address}/moved") == (0, DATA)
    tls.redirects["/a.whl"] = "/a.whl"
    with pytest.raises(RefusedError, match="status 302"):
        content(f"{tls.address}/moved")


def test_a_proxy_of_the_host_is_used(tls: FileServer, plain: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it lets through is its own decision; `no_proxy` counts, too."""
    monkeypatch.setenv("https_proxy", plain.address)
    with pytest.raises(BrokenError, match="Tunnel connection failed: 501"):
        content(f"{tls.address}/a.whl")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert content(f"{tls.address}/a.whl") == (0, DATA)


@pytest.mark.parametrize(("status", "is_of_server"), [(404, False), (401, True), (403, True), (500, False)])
def test_a_status_is_told(plain: FileServer, status: int, is_of_server: bool) -> None:
    """Whoever wants credentials wants them for every file."""
    plain.status["/a.whl"] = status
    with pytest.raises(RefusedError, match=f"status {status}") as refused:
        content(f"{plain.address}/a.whl")
    assert refused.value.is_of_server is is_of_server


@pytest.mark.parametrize(
    ("headers", "offset", "size"),
    [
        ({}, 0, 11),
        ({}, 3, 11),
        ({"Content-Encoding": "gzip"}, 0, 10),
        ({"Content-Range": "bytes 4-9/10"}, 3, 10),
        ({"Content-Range": "nonsense"}, 3, 10),
    ],
)
def test_an_answer_that_is_of_no_use(plain: FileServer, headers: dict[str, str], offset: int, size: int) -> None:
    """Of another size, in another encoding, or of another part: nothing of it is read."""
    plain.headers = headers
    with pytest.raises(RefusedError):
        content(f"{plain.address}/a.whl", offset=offset, size=size)


def test_nobody_answers(plain: FileServer) -> None:
    """The reason is told in the system's words."""
    address = plain.address
    with running_file_server() as gone:
        address = gone.address
    with pytest.raises(BrokenError, match="Connection refused"):
        content(f"{address}/a.whl")
