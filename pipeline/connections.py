"""HTTP/1.1 over connections that stay open, one for each request under way: little but what asking one API takes.

A general client's cookies, redirects, sessions and middleware take several times as long as the request itself. Here
httptools reads what comes, asyncio has the sockets and TLS, and this module what lies between.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Callable
from typing import Self, cast
from urllib.parse import unquote, urlsplit

import httptools

from pipeline.config import Connection
from pipeline.errors import UsageError
from pipeline.transport import (
    CONNECT_TIMEOUT_S,
    ConnectionLostError,
    NoConnectionError,
    Response,
    request_headers,
)

_BUFFERED_BYTES = 262_144
_MAX_HEAD_BYTES = 65_536
# Of a chunk of one byte, five are not the body's.
_MOST_FRAMING = 8
# Servers and what lies between close what is idle for longer, some without a word.
_MAX_IDLE_S = 15.0
_OTHER_ADDRESS_AFTER_S = 3.0


class PooledTransport:
    """Asks one API, on a connection for each request under way that is kept for the next one.

    TLS certificates are always checked, against what SSL_CERT_FILE and SSL_CERT_DIR name where they are set: raises
    UsageError where those cannot be used. Through `proxy`, an http:// or https:// URL, goes a tunnel, in which it sees
    neither the key nor what is asked: so it is for https:// alone. A request has no bound of its own but on connecting.
    """

    def __init__(self, connection: Connection, *, timeout_s: float, proxy: str | None) -> None:
        parts = urlsplit(connection.base_url)
        self._host, is_tls = parts.hostname or "", parts.scheme == "https"
        self._port = parts.port or (443 if is_tls else 80)
        self._tls = _tls_context() if is_tls else None
        self._proxy = _Proxy(proxy) if proxy else None
        self._connect_timeout_s = min(CONNECT_TIMEOUT_S, timeout_s)
        self._head = _Head(connection)
        self._answered: dict[str, str] = {}
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        # One for all connections, since what has come is taken out at once. Else each reading takes so much from the
        # heap anew, and gives it back: a tenth of a request's time.
        self._buffer = memoryview(bytearray(_BUFFERED_BYTES))
        self._is_closed = False

    async def get(self, target: str) -> Response:
        """See `Transport.get`."""
        while True:
            connection = self._pop_idle()
            was_idle = connection is not None
            connection = connection or await self._connect()
            try:
                await connection.ask(self._head.request, target)
            except ConnectionLostError:
                if was_idle and not connection.has_come and not self._is_closed:
                    continue  # it was closed while it was idle, or just then: nothing has come of the request
                raise
            return Response(connection.status, connection.headers, connection, connection.close)

    async def close(self) -> None:
        """See `Transport.close`."""
        self._is_closed = True
        closing = list(self._open)
        for connection in closing:
            connection.abort()
        await asyncio.gather(*(connection.closed for connection in closing))

    def _pop_idle(self) -> _Connection | None:
        since = asyncio.get_running_loop().time() - _MAX_IDLE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since >= since and not connection.is_closing:
                return connection
            connection.abort()
        return None

    def _new(self) -> _Connection:
        return _Connection(self._idle, self._open, self._buffer)

    async def _connect(self) -> _Connection:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                if self._proxy is not None:
                    return await self._tunnel(self._proxy)
                return await self._open_to(self._host, self._port, self._tls)
        except (TimeoutError, ssl.SSLError, socket.gaierror):
            raise
        except OSError as error:
            raise NoConnectionError(str(error)) from error

    async def _open_to(self, host: str, port: int, tls: ssl.SSLContext | None) -> _Connection:
        """Try a host's addresses in turn, the one that last answered first: one that is dead must not hide the others.

        Not asyncio's own race of addresses: cancelled as a connection comes about, it leaves it open (Python 3.11).
        """
        answered = self._answered.get(host)
        *others, last = sorted(await _addresses(host, port), key=lambda address: address != answered)
        for address in others:
            try:
                async with asyncio.timeout(_OTHER_ADDRESS_AFTER_S):
                    return await self._open_at(address, host, port, tls)
            except ssl.SSLError:
                raise
            except OSError:
                continue
        return await self._open_at(last, host, port, tls)

    async def _open_at(self, address: str, host: str, port: int, tls: ssl.SSLContext | None) -> _Connection:
        _transport, connection = await asyncio.get_running_loop().create_connection(
            self._new, address, port, ssl=tls, server_hostname=host if tls else None
        )
        self._answered[host] = address
        return connection

    async def _tunnel(self, proxy: _Proxy) -> _Connection:
        tls = cast("ssl.SSLContext", self._tls)
        outer = await self._open_to(proxy.host, proxy.port, tls if proxy.is_tls else None)
        try:
            await outer.ask(proxy.request, f"{_in_url(self._host)}:{self._port}")
            if not 200 <= outer.status < 300:
                raise NoConnectionError(f"the proxy answers HTTP {outer.status}")
            inner, loop = self._new(), asyncio.get_running_loop()
            transport = await loop.start_tls(outer.transport, inner, tls, server_hostname=self._host)
        except BaseException:
            outer.abort()
            raise
        finally:
            self._open.discard(outer)  # it hears no more of the connection
        inner.connection_made(cast("asyncio.Transport", transport))
        return inner


class _Connection(asyncio.BufferedProtocol):
    """One connection: asked again and again, but for one thing at a time, whose answer's body it then yields.

    `has_come` tells whether anything has come of the present answer, `status` and `headers` are its. Those that are
    open are in `open_`, those of them that nothing is asked for in `idle`. What begins with `on_` is for httptools.
    """

    transport: asyncio.Transport
    closed: asyncio.Future[None]

    def __init__(self, idle: list[_Connection], open_: set[_Connection], buffer: memoryview) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.has_come = False
        self.idle_since = 0.0
        self._idle, self._open, self._buffer = idle, open_, buffer
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._buffered = self._body_bytes = self._other_bytes = 0
        self._has_head, self._is_complete, self._stays_open = False, True, True
        self._error: OSError | None = None
        self._coming: asyncio.Future[None] | None = None

    @property
    def is_closing(self) -> bool:
        """Whether nothing can be asked any more."""
        return self.transport.is_closing()

    async def ask(self, request: Callable[[str], bytes], target: str) -> None:
        """Send what `request` makes of the target, and return once the answer's headers have come."""
        self.headers, self.has_come = [], False
        self._buffered = self._body_bytes = self._other_bytes = 0
        self._has_head = self._is_complete = False
        self.transport.write(request(target))  # in no variable of its own: it holds the key
        try:
            while not self._has_head:
                await self._more()
        except BaseException:
            self.abort()
            raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._parts:
            if self._is_complete:
                raise StopAsyncIteration
            await self._more()
        parts, self._parts = self._parts, []
        if self._buffered > _BUFFERED_BYTES:
            self.transport.resume_reading()
        self._buffered = 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def close(self) -> None:
        """Make ready for the next one, or let go where this answer was not read to its end."""
        if not self._is_complete or self._parts or not self._stays_open or self.is_closing:
            self.abort()
            return
        self.idle_since = asyncio.get_running_loop().time()
        self._idle.append(self)

    def abort(self) -> None:
        """Close at once."""
        self._stays_open = False
        self.transport.abort()

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        self._coming = asyncio.get_running_loop().create_future()
        try:
            await self._coming
        finally:
            self._coming = None

    def _wake(self) -> None:
        if self._coming is not None and not self._coming.done():
            self._coming.set_result(None)

    def _fail(self, text: str, cause: BaseException | None) -> None:
        if self._error is None:
            self._error = ConnectionLostError(text)
            self._error.__cause__ = cause

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.closed = asyncio.get_running_loop().create_future()
        self._open.add(self)

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._is_complete:
            self.abort()  # nothing was asked for: whatever it is, what comes after it cannot be trusted
            return
        self.has_come = True
        self._other_bytes += nbytes
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._is_complete:
                self._fail(f"the answer is no HTTP: {error}", None)
            self.abort()
        if self._other_bytes > _MAX_HEAD_BYTES + _MOST_FRAMING * self._body_bytes:
            self._fail("the answer's headers do not end", None)
            self.abort()
        if self._buffered > _BUFFERED_BYTES:
            self.transport.pause_reading()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._open.discard(self)
        if self._has_head and error is None and not self._tells_its_length():
            self._is_complete = True
        self._fail(str(error or "the server closed the connection before its answer was whole"), error)
        self._wake()
        self.closed.set_result(None)

    def _tells_its_length(self) -> bool:
        return any(name.lower() in (b"content-length", b"transfer-encoding") for name, _value in self.headers)

    # What httptools calls.

    def on_message_begin(self) -> None:
        if self._is_complete:
            self._stays_open = False  # a second answer

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._is_complete:
            return
        self.status = self._parser.get_status_code()
        self._has_head = self.status >= 200

    def on_body(self, body: bytes) -> None:
        if self._is_complete:
            return
        self._parts.append(body)
        self._buffered += len(body)
        self._body_bytes += len(body)
        self._other_bytes -= len(body)

    def on_message_complete(self) -> None:
        if self._has_head:
            self._is_complete, self._stays_open = True, self._stays_open and self._parser.should_keep_alive()
        else:
            self.headers.clear()  # those of an answer that says that another one comes


class _Head:
    """What every request says, the key with it: in an object of its own, which shows nothing of it."""

    def __init__(self, connection: Connection) -> None:
        parts = urlsplit(connection.base_url)
        host = _in_url(parts.hostname or "") + (f":{parts.port}" if parts.port else "")
        self._start = f"GET {parts.path}".encode()
        self._end = (
            "".join(
                (
                    f" HTTP/1.1\r\nHost: {host}\r\n",
                    *(f"{name}: {value}\r\n" for name, value in request_headers(connection)),
                )
            ).encode()
            + b"\r\n"
        )

    def request(self, target: str) -> bytes:
        """Return a GET for a path and query below the base URL's."""
        return b"".join((self._start, target.encode(), self._end))


class _Proxy:
    """Where a proxy is, and how it is asked for a tunnel: with the password that its URL may hold."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.is_tls = parts.hostname or "", parts.scheme == "https"
        self.port = parts.port or (443 if self.is_tls else 80)
        user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}".encode()
        told = b"Proxy-Authorization: Basic " + base64.b64encode(user) + b"\r\n"
        self._end = (told if parts.username or parts.password else b"") + b"\r\n"

    def request(self, authority: str) -> bytes:
        """Return what asks for a tunnel to a host and port."""
        return f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n".encode() + self._end


async def _addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a host, in the order in which the system would try them; raise OSError for none."""
    with contextlib.suppress(ValueError):
        return [str(ipaddress.ip_address(host))]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list({str(each[4][0]): None for each in found})


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _tls_context() -> ssl.SSLContext:
    import httpx  # here: for plain http:// it is not needed, and takes a tenth of a second

    try:
        return httpx.create_ssl_context()
    except OSError as error:
        raise UsageError(f"SSL_CERT_FILE or SSL_CERT_DIR cannot be used ({error}); name a file in PEM form") from error
