"""Over the wire and back: one GET at a time, by aiohttp, or by any transport of httpx that a caller brings.

Both answer with the status, the headers and the body's bytes as they come, not decompressed: what they mean is for
`pipeline.client` to say. Redirects are not followed and cookies not kept.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

import httpx

from pipeline.errors import UsageError

if TYPE_CHECKING:
    import aiohttp

_CONNECT_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Response:
    """The beginning of an answer; its body comes by `chunks`. `close` must be called, read to its end or not."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    chunks: AsyncIterable[bytes]
    close: Callable[[], Awaitable[object]]


class Transport(Protocol):
    """Opened by whoever made it, asked many times at once, closed at the end."""

    errors: tuple[type[BaseException], ...]
    """What `get` and the chunks of its answer raise where the connection is at fault."""

    async def get(self, url: str) -> Response:
        """Send a GET, and return what comes once the headers are there."""
        ...

    async def close(self) -> None:
        """Let go of all connections."""
        ...


class AiohttpTransport:
    """One connection for each of `concurrency` requests under way, kept open between them.

    httpx's own connections slow down steeply at 64 at a time; through httpx's interface aiohttp takes twice its own
    time. TLS certificates are always checked, against what SSL_CERT_FILE and SSL_CERT_DIR name where they are set:
    raises UsageError where those cannot be used. A request has no bound of its own but that on connecting.
    `is_tls` tells whether https:// is asked at all: else no certificates are read, which takes a while.
    """

    def __init__(
        self, headers: httpx.Headers, *, concurrency: int, timeout_s: float, proxy: str | None, is_tls: bool
    ) -> None:
        # Here and not above: it takes a tenth of a second to import, and other transports do without.
        import aiohttp
        from multidict import CIMultiDict

        self.errors: tuple[type[BaseException], ...] = (httpx.HTTPError, OSError, aiohttp.ClientError)
        self._connect_error, self._proxy_error = aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError
        # Not the session's own headers: those go to a proxy as well, and with them the key.
        self._headers = CIMultiDict(headers)
        via = httpx.Proxy(proxy) if proxy else None
        self._session = aiohttp.ClientSession(
            # True is aiohttp's own way to check certificates, should https:// be asked all the same.
            connector=aiohttp.TCPConnector(limit=concurrency, ssl=_tls_context() if is_tls else True),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(_CONNECT_TIMEOUT_S, timeout_s)),
            proxy=str(via.url) if via else None,
            proxy_auth=aiohttp.BasicAuth(*via.auth) if via and via.auth else None,
        )

    async def get(self, url: str) -> Response:
        """See `Transport.get`; the URL must be quoted as it is to be sent."""
        from yarl import URL

        try:
            answer = await self._session.get(URL(url, encoded=True), headers=self._headers, allow_redirects=False)
        except self._proxy_error as error:
            raise httpx.ProxyError(str(error)) from error
        except self._connect_error as error:
            raise httpx.ConnectError(str(error)) from error
        return Response(answer.status, answer.raw_headers, _chunks(answer), partial(_release, answer))

    async def close(self) -> None:
        """See `Transport.close`."""
        await self._session.close()


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterable[bytes]:
    while chunk := await answer.content.readany():
        yield chunk


async def _release(answer: aiohttp.ClientResponse) -> None:
    answer.release()  # a connection with more to read on it is closed


class HttpxTransport:
    """Any `httpx.AsyncBaseTransport`: a simulated API, another HTTP library, a recorder. Its own limits hold."""

    def __init__(self, transport: httpx.AsyncBaseTransport, headers: httpx.Headers, *, timeout_s: float) -> None:
        self.errors: tuple[type[BaseException], ...] = (httpx.HTTPError, OSError)
        if aiohttp := sys.modules.get("aiohttp"):
            self.errors += (aiohttp.ClientError,)  # httpx-aiohttp lets some through, as for a malformed status line
        self._transport = transport
        self._headers = headers
        timeout = httpx.Timeout(timeout_s, connect=min(_CONNECT_TIMEOUT_S, timeout_s))
        self._extensions = {"timeout": timeout.as_dict()}

    async def get(self, url: str) -> Response:
        """See `Transport.get`."""
        request = httpx.Request("GET", url, headers=self._headers, extensions=self._extensions)
        answer = await self._transport.handle_async_request(request)
        return Response(
            answer.status_code, answer.headers.raw, cast("AsyncIterable[bytes]", answer.stream), answer.aclose
        )

    async def close(self) -> None:
        """See `Transport.close`."""
        await self._transport.aclose()


def _tls_context() -> ssl.SSLContext:
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        raise UsageError(f"SSL_CERT_FILE or SSL_CERT_DIR cannot be used ({error}); name a file in PEM form") from error
