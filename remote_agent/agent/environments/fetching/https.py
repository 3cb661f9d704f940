"""Opens addresses that a controller gave, over HTTPS.

Rule: a request has nothing of this host in it: no credential, no cookie, no Referer. The host's proxy variables and its certificates are
used. A server in a private network, or on this machine, is asked only if the user named its address, and no redirect leads to another one.
This module is imported by the thread that fetches: its imports take longer than an agent's start.
"""

import functools
import http.client
import ipaddress
import re
import ssl
import urllib.error
import urllib.request
from typing import Any, Optional
from urllib.parse import SplitResult, urlsplit

__all__ = ["Answer", "BrokenError", "Opener", "RefusedError"]

#: How many redirects are followed.
_MAX_REDIRECTS = 5
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_LOOPBACK = ("127.0.0.1", "::1")


class RefusedError(Exception):
    """This address is not asked, or its answer is of no use. `is_of_server`: nothing else of this server is, either."""

    def __init__(self, message: str, *, is_of_server: bool = False) -> None:
        super().__init__(message)
        self.is_of_server = is_of_server


class BrokenError(Exception):
    """The server cannot be reached, or the connection broke. It may be better the next time."""


class Answer:
    """The content of an address.

    Attributes:
        begin: the offset of the first byte that `read` gives.
    """

    def __init__(self, response: Any, begin: int) -> None:
        self._response = response
        self.begin = begin

    def read(self, count: int) -> bytes:
        """Return what has arrived, at most this many bytes; empty at the end.

        Raises:
            BrokenError: the connection broke.
        """
        try:
            piece: bytes = self._response.read1(count)
        except (OSError, http.client.HTTPException) as error:
            raise BrokenError(_reason(error)) from None
        return piece

    def close(self) -> None:
        """Read no more."""
        self._response.close()


class Opener:
    """Opens one address, as often as it must be opened.

    Args:
        is_named: the user has named the beginning of the address, so its server may be in a private network. Without TLS only this machine
            may be asked then.
        patience: seconds for which the server may be silent.

    Attributes:
        has_answered: whether the server has sent the file, or a part of it, before.

    Raises:
        RefusedError: this address is never asked.
    """

    def __init__(self, url: str, *, is_named: bool, patience: float) -> None:
        self._url = url
        self._patience = patience
        self.has_answered = False
        parts = _checked(url)
        if parts.scheme != "https" and not (is_named and parts.hostname in _LOOPBACK):
            raise RefusedError("its address is not https", is_of_server=True)
        named = parts.hostname if is_named else None
        self._opener = urllib.request.OpenerDirector()
        # They are added one by one, so that there is none for files, for FTP, and for credentials.
        for handler in (
            urllib.request.ProxyHandler(),
            _HttpsHandler(named),
            _Redirects(parts.scheme),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
            *([urllib.request.HTTPHandler()] if parts.scheme == "http" else []),
        ):
            self._opener.add_handler(handler)
        self._opener.addheaders = [("User-Agent", "hydra-remote-launcher")]

    def open(self, offset: int, size: int) -> Answer:
        """Ask for the content from an offset on. A server that cannot do that sends all of it.

        Args:
            size: the bytes of the whole content.

        Raises:
            RefusedError: the answer is of no use.
            BrokenError: the server cannot be reached, or the connection broke.
        """
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = "bytes={}-".format(offset)
        request = urllib.request.Request(self._url, headers=headers)  # noqa: S310 - `__init__` has checked it
        try:
            response = self._opener.open(request, timeout=self._patience)
        except urllib.error.HTTPError as error:
            error.close()
            raise RefusedError("status {}".format(error.code), is_of_server=error.code in (401, 403, 407)) from None
        except (OSError, http.client.HTTPException) as error:
            raise BrokenError(_reason(error)) from None
        try:
            begin = _begin_of(response, offset, size)
        except RefusedError:
            response.close()
            raise
        self.has_answered = True
        return Answer(response, begin)


def _reason(error: Exception) -> str:
    inner: Any = getattr(error, "reason", error)
    return str(getattr(inner, "strerror", None) or inner) or type(inner).__name__


def _begin_of(response: Any, offset: int, size: int) -> int:
    """Return the offset at which an answer begins.

    Raises:
        RefusedError: it is not the content that was asked for.
    """
    begin, total = 0, response.headers.get("Content-Length")
    if response.status == http.client.PARTIAL_CONTENT:
        found = _RANGE.fullmatch(response.headers.get("Content-Range") or "")
        if found is None or int(found.group(1)) != offset:
            raise RefusedError("it sent another part than it was asked for")
        begin, total = offset, found.group(2)
    elif response.status != http.client.OK:
        raise RefusedError("status {}".format(response.status))
    if (response.headers.get("Content-Encoding") or "identity").lower() != "identity":
        raise RefusedError("it sent the file in another encoding")
    if total is not None and total.isdigit() and int(total) != size:
        raise RefusedError("its file has {} bytes, and the lock says {}".format(total, size))
    return begin


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_valid = bool(parts.hostname) and parts.port != 0 and url.isprintable() and " " not in url
    except ValueError:
        is_valid = False
    if not is_valid or parts.scheme not in ("https", "http"):
        raise RefusedError("its address is not https")
    if "@" in parts.netloc:
        raise RefusedError("its address has a credential")
    return parts


class _Connection(http.client.HTTPSConnection):
    """A connection that sends no request to an address of a private network. `named`: the host for which that is allowed."""

    def __init__(self, host: str, *, named: Optional[str], **options: Any) -> None:
        super().__init__(host, **options)
        self._named = named
        self._is_tunnelled = False

    def set_tunnel(self, *given: Any, **named: Any) -> None:
        # The proxy is of this host's own settings, and decides what it lets through.
        self._is_tunnelled = True
        super().set_tunnel(*given, **named)

    def connect(self) -> None:
        super().connect()
        if self._is_tunnelled or self.host.lower().strip("[]") == self._named:
            return
        peer = ipaddress.ip_address(self.sock.getpeername()[0].partition("%")[0])
        if not (getattr(peer, "ipv4_mapped", None) or peer).is_global:
            self.close()
            raise RefusedError(
                "its address there ({}) is in a private network, and 'downloads' does not name it".format(peer),
                is_of_server=True,
            )


class _HttpsHandler(urllib.request.HTTPSHandler):
    def __init__(self, named: Optional[str]) -> None:
        self._tls = ssl.create_default_context()
        super().__init__(context=self._tls)
        self._named = named

    def https_open(self, req: urllib.request.Request) -> Any:
        connection: Any = functools.partial(_Connection, named=self._named, context=self._tls)
        return self.do_open(connection, req)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects from https lead to https alone; from this machine to this machine, too."""

    max_redirections = _MAX_REDIRECTS

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Optional[urllib.request.Request]:
        parts = _checked(newurl)
        if parts.scheme != "https" and not (self._scheme == "http" and parts.hostname in _LOOPBACK):
            raise RefusedError("it redirects to an address that is not https", is_of_server=True)
        # Python does not know the newer 308 everywhere.
        return super().redirect_request(req, fp, 307 if code == 308 else code, msg, headers, newurl)

    def http_error_308(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        return self.http_error_302(req, fp, code, msg, headers)
