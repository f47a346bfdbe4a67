"""Over the wire and back, one GET at a time: what that is, and how any transport of httpx that a caller brings does it.

What does it otherwise is in `pipeline.connections`. Both answer with the status, the headers and the body's bytes as
they come, not decompressed: what they mean is for `pipeline.client` to say. Redirects are not followed and cookies not
kept. Where the connection is at fault, an OSError is raised: a TimeoutError, one of ssl or socket, or one of these.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from pipeline import __version__
from pipeline.kinds import API_VERSION

if TYPE_CHECKING:
    import httpx

    from pipeline.config import Connection

CONNECT_TIMEOUT_S = 15.0


class NoConnectionError(OSError):
    """No connection came about; what lies beneath says why."""


class ConnectionLostError(ConnectionError):
    """A connection ended, or what came on it was no HTTP, before the answer was whole."""


@dataclass(frozen=True, slots=True)
class Response:
    """The beginning of an answer; its body comes by `chunks`. `close` must be called, read to its end or not."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    chunks: AsyncIterator[bytes]
    close: Callable[[], Awaitable[object]]


class Transport(Protocol):
    """Opened by whoever made it, asked many times at once, closed at the end."""

    async def get(self, target: str) -> Response:
        """Send a GET for a path and query, quoted as they are to be sent, and return what comes with the headers."""
        ...

    async def close(self) -> None:
        """Let go of all connections."""
        ...


def request_headers(connection: Connection) -> list[tuple[str, str]]:
    """Return the headers of every request; they hold the key, so no local variable may keep them."""
    return [
        ("Authorization", f"Bearer {connection.api_key.reveal()}"),
        ("x-extend-api-version", API_VERSION),
        ("Accept", "application/json"),
        ("Accept-Encoding", "gzip"),
        ("User-Agent", f"extend-pipeline/{__version__}"),
        *([("x-extend-workspace-id", connection.workspace_id)] if connection.workspace_id else []),
    ]


class HttpxTransport:
    """Any `httpx.AsyncBaseTransport`: a simulated API, another HTTP library, a recorder. Its own limits hold."""

    def __init__(self, transport: httpx.AsyncBaseTransport, connection: Connection, *, timeout_s: float) -> None:
        import httpx  # here: who brings no transport does without, and it takes a tenth of a second

        self._httpx = httpx
        self._transport = transport
        self._base_url = connection.base_url
        self._headers = httpx.Headers(request_headers(connection))
        timeout = httpx.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))
        self._extensions = {"timeout": timeout.as_dict()}

    async def get(self, target: str) -> Response:
        """See `Transport.get`."""
        url = f"{self._base_url}{target}"
        request = self._httpx.Request("GET", url, headers=self._headers, extensions=self._extensions)
        with self._telling():
            answer = await self._transport.handle_async_request(request)
        return Response(answer.status_code, answer.headers.raw, self._chunks(answer), answer.aclose)

    async def _chunks(self, answer: httpx.Response) -> AsyncIterator[bytes]:
        with self._telling():
            async for chunk in cast("AsyncIterator[bytes]", answer.stream):
                yield chunk

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Raise what httpx, or aiohttp below it, says of a connection as `Transport` does."""
        aiohttp = sys.modules.get("aiohttp")  # httpx-aiohttp lets some through, as for a malformed status line
        others = (self._httpx.HTTPError, aiohttp.ClientError) if aiohttp else (self._httpx.HTTPError,)
        try:
            yield
        except self._httpx.TimeoutException as error:
            # Some report a connection that was reset or closed as a timeout.
            raise (TimeoutError if error.__cause__ is None else ConnectionLostError)(str(error)) from error
        except (self._httpx.ConnectError, self._httpx.ProxyError) as error:
            raise NoConnectionError(str(error)) from error
        except others as error:
            raise ConnectionLostError(str(error)) from error

    async def close(self) -> None:
        """See `Transport.close`."""
        await self._transport.aclose()
