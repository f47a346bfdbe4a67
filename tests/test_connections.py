"""Connections that stay open: what is asked on which, and what becomes of answers that no proper server gives."""

from __future__ import annotations

import asyncio
import base64
import gc
import socket
import ssl
import time
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from pipeline import connections
from pipeline.config import Connection, Secret
from pipeline.connections import PooledTransport
from pipeline.transport import ConnectionLostError, NoConnectionError
from tests.wire import Serve, ok, serving

AGAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain"


@asynccontextmanager
async def pool(base_url: str, proxy: str | None = None) -> AsyncIterator[PooledTransport]:
    transport = PooledTransport(Connection(base_url, Secret("sk_1")), timeout_s=5, proxy=proxy)
    try:
        yield transport
    finally:
        await transport.close()


async def get(transport: PooledTransport, target: str = "/x") -> bytes:
    response = await transport.get(target)
    try:
        assert response.status == 200
        return b"".join([chunk async for chunk in response.chunks])
    finally:
        await response.close()


class Served:
    """Serves answers in turn, and then `AGAIN` for ever; counts connections by the requests that came on each."""

    def __init__(self, *answers: bytes, close_after: tuple[int, ...] = ()) -> None:
        self.heads: list[str] = []
        self.by_connection: dict[asyncio.StreamWriter, int] = {}
        self._answers, self._close_after = list(answers), close_after

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        self.heads.append(head)
        self.by_connection[writer] = self.by_connection.get(writer, 0) + 1
        writer.write(self._answers.pop(0) if self._answers else AGAIN)
        await writer.drain()
        if len(self.heads) in self._close_after:
            writer.close()

    @property
    def requests(self) -> list[int]:
        """How many requests came on each connection, in the order in which these were opened."""
        return list(self.by_connection.values())


def asked(serve: Serve, *, times: int = 2) -> list[bytes | Exception]:
    """Return what comes of asking a server several times, one after the other."""

    async def main() -> list[bytes | Exception]:
        async with serving(serve) as address, pool(f"http://{address}") as transport:
            outcomes: list[bytes | Exception] = []
            for _ in range(times):
                try:
                    outcomes.append(await get(transport))
                except OSError as error:
                    outcomes.append(error)
            return outcomes

    return asyncio.run(main())


def test_a_request_says_what_it_must_and_no_more() -> None:
    served = Served()

    async def main() -> str:
        async with serving(served) as address:
            connection = Connection(f"http://{address}/v1/api", Secret("sk_1"), "ws_7")
            transport = PooledTransport(connection, timeout_s=5, proxy=None)
            await get(transport, "/runs?a=%20b&c=d")
            await transport.close()
            return address

    address = asyncio.run(main())
    assert served.heads[0].split("\r\n") == [
        "GET /v1/api/runs?a=%20b&c=d HTTP/1.1", f"Host: {address}", "Authorization: Bearer sk_1",
        "x-extend-api-version: 2026-02-09", "Accept: application/json", "Accept-Encoding: gzip",
        "User-Agent: extend-pipeline/0.1.0", "x-extend-workspace-id: ws_7", "", "",
    ]  # fmt: skip


def test_one_after_the_other_go_over_one_connection_and_many_at_once_over_as_many() -> None:
    served = Served()

    async def main() -> None:
        async with serving(served) as address, pool(f"http://{address}") as transport:
            for _ in range(3):
                await get(transport)
            assert served.requests == [3]
            first = [await transport.get("/x") for _ in range(4)]
            for response in first:
                assert [chunk async for chunk in response.chunks] == [b"again"]
                await response.close()
            assert sorted(served.requests) == [1, 1, 1, 4]
            await asyncio.gather(*(get(transport) for _ in range(4)))
            assert sorted(served.requests) == [2, 2, 2, 5]

    asyncio.run(main())


WHOLE = {
    "chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nfi\r\n3\r\nrst\r\n0\r\nA: b\r\n\r\n", [2],
    ),
    "after another answer that says it comes": (
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok(b"first"), [2],
    ),
    "without a body, twice": (ok(b"first"), [2]),
    "not to be kept": (ok(b"first", "Connection: close"), [1, 1]),
    "of an older server": (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nfirst", [1, 1]),
    "longer than it says": (ok(b"first") + b"}}", [1, 1]),
    "with another behind it": (ok(b"first") + b"HTTP/1.1 500 Odd\r\nContent-Length: 5\r\n\r\nother", [1, 1]),
    "with half of another behind it": (ok(b"first") + b"HTTP/1.1 200", [1, 1]),
}  # fmt: skip


@pytest.mark.parametrize("kind", WHOLE)
def test_what_is_whole_is_taken_and_a_connection_is_kept_only_where_nothing_is_odd(kind: str) -> None:
    answer, requests = WHOLE[kind]
    served = Served(answer)
    assert asked(served) == [b"first", b"again"]
    assert served.requests == requests


def test_a_body_that_ends_with_its_connection_is_whole() -> None:
    served = Served(b"HTTP/1.1 200 OK\r\n\r\nfirst", close_after=(1,))
    assert asked(served) == [b"first", b"again"]


BROKEN = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nfirst",
    "a length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a length that is no number": b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nfirst",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "a header without end": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
    "chunks of nothing but what is about them": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1;" + b"x" * 100_000
    ),
    "trailers without end": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + b"X: y\r\n" * 20_000
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_answer_is_an_error_at_once_and_its_connection_not_used_again(kind: str) -> None:
    served = Served(BROKEN[kind])
    broken, again = asked(served)
    assert isinstance(broken, ConnectionLostError)
    assert again == b"again"
    assert served.requests == [1, 1]


def test_a_connection_closed_while_idle_is_noticed_only_by_the_next_request_and_that_goes_over_another() -> None:
    served = Served(close_after=(2,))

    async def main() -> list[bytes]:
        async with serving(served) as address, pool(f"http://{address}") as transport:
            came = [await get(transport), await get(transport)]
            # Not a moment for the event loop to tell of the end in between.
            return [*came, await get(transport)]

    assert asyncio.run(main()) == [b"again"] * 3
    assert served.requests == [2, 1]


def test_a_connection_that_ends_as_it_is_asked_is_given_up_for_another_but_a_new_one_is_an_error() -> None:
    """Nothing has come, so it was closed while idle, and the request never arrived; a new one was not idle."""
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        nonlocal count
        count += 1
        if count in (2, 4):
            writer.transport.abort()
        else:
            writer.write(AGAIN if count != 5 else ok(b"five", "Connection: close"))

    first, second, third, fourth = asked(serve, times=4)
    assert (first, second, third, fourth) == (b"again", b"again", b"five", b"again")
    assert count == 6

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        writer.transport.abort()

    (failed,) = asked(refuse, times=1)
    assert isinstance(failed, ConnectionLostError)


@pytest.mark.parametrize("begun", [b"HTTP/1.1 2", ok(b"first")[:-2]])
def test_one_that_ends_within_an_answer_is_not_asked_again(begun: bytes) -> None:
    served = Served(AGAIN, begun, close_after=(2,))
    first, second, third = asked(served, times=3)
    assert (first, third) == (b"again", b"again")
    assert isinstance(second, ConnectionLostError)
    assert served.requests == [2, 1]


def test_what_was_idle_for_long_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_MAX_IDLE_S", -1.0)
    served = Served()
    assert asked(served) == [b"again", b"again"]
    assert served.requests == [1, 1]


def test_what_comes_unasked_is_never_taken_for_an_answer_and_ends_its_connection() -> None:
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        writers.add(writer)
        writer.write(ok(head.split()[1].encode()))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(ok(b"unasked"))
        await writer.drain()

    async def main() -> list[bytes]:
        async with serving(serve) as address, pool(f"http://{address}") as transport:
            first = await get(transport, "/1")
            await asyncio.sleep(0.2)
            return [first, await get(transport, "/2")]

    assert asyncio.run(main()) == [b"/1", b"/2"]
    assert len(writers) == 2


def test_no_more_of_a_body_is_held_than_is_read() -> None:
    size, piece = 64 << 20, bytes(1 << 20)
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)

    async def main() -> int:
        async with serving(serve) as address, pool(f"http://{address}") as transport:
            response = await transport.get("/x")
            await asyncio.sleep(0.3)
            assert sent < 16 << 20  # what the kernel's buffers and ours take, whose sizes are the system's
            came = sum([len(chunk) async for chunk in response.chunks])
            await response.close()
            return came

    assert asyncio.run(main()) == size


def test_one_that_is_let_go_unread_is_closed() -> None:
    served = Served(ok(b"first"))

    async def main() -> bytes:
        async with serving(served) as address, pool(f"http://{address}") as transport:
            await (await transport.get("/x")).close()
            return await get(transport)

    assert asyncio.run(main()) == b"again"
    assert served.requests == [1, 1]


def test_of_a_hosts_addresses_one_that_answers_is_found_and_asked_first_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served, tried = Served(close_after=(1,)), []
    true_getaddrinfo, true_connect = socket.getaddrinfo, asyncio.selector_events.BaseSelectorEventLoop.sock_connect

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host != "threefold.test":
            return true_getaddrinfo(host, port, *arguments, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{n}", port)) for n in (3, 2, 1)]

    async def connect(loop: Any, sock: Any, address: tuple[str, int]) -> None:
        tried.append(address[0])
        if address[0] == "127.0.0.3":
            await asyncio.sleep(60)  # as where nobody says anything; at .2 nobody listens
        await true_connect(loop, sock, address)

    async def main() -> list[bytes]:
        async with serving(served) as address, pool(f"http://threefold.test:{address.rpartition(':')[2]}") as transport:
            return [await get(transport), await get(transport)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_connect", connect)
    monkeypatch.setattr(connections, "_OTHER_ADDRESS_AFTER_S", 0.05)
    assert asyncio.run(main()) == [b"again", b"again"]
    assert tried == ["127.0.0.3", "127.0.0.2", "127.0.0.1", "127.0.0.1"]


def test_connections_that_come_about_as_they_are_given_up_are_closed() -> None:
    async def main() -> None:
        async with serving(Served()) as address, pool(f"http://{address}") as transport:
            for turns in range(8):
                tasks = [asyncio.create_task(get(transport)) for _ in range(20)]
                for _ in range(turns):
                    await asyncio.sleep(0)
                time.sleep(0.01)  # noqa: ASYNC251 - all that is under way has come when the loop goes on
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        asyncio.run(main())
        gc.collect()
    assert [str(each.message) for each in caught] == []


# --- proxies ----------------------------------------------------------------------------------------------------------


def contexts() -> tuple[ssl.SSLContext, trustme.CA]:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context, authority


class Tunnel:
    """A proxy that opens a tunnel to wherever it is asked for, once `Proxy-Authorization` is as it should be."""

    def __init__(self, wanted: str | None = None, answer: str = "200 Connection established") -> None:
        self.heads: list[str] = []
        self._wanted, self._answer = wanted, answer

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        self.heads.append(head)
        if self._wanted is not None and f"Proxy-Authorization: {self._wanted}\r\n" not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        host, _, port = head.split()[1].rpartition(":")
        upstream_reader, upstream = await asyncio.open_connection(host, int(port))
        writer.write(f"HTTP/1.1 {self._answer}\r\n\r\n".encode())
        back = asyncio.create_task(self._copy(upstream_reader, writer))
        await self._copy(reader, upstream)
        upstream.close()
        await back

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()


def through(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, tunnel: Tunnel, url: Callable[[str], str], *, is_tls: bool = False
) -> tuple[list[bytes], Served]:
    """Return what comes of three requests to an https:// server through a proxy, and what arrived there."""
    context, authority = contexts()
    authority.cert_pem.write_to_path(tmp_path / "pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "pem"))
    served = Served()

    async def main() -> list[bytes]:
        options = {"ssl": context} if is_tls else {}
        async with serving(served, ssl=context) as address, serving(tunnel, **options) as between:
            base_url = f"https://localhost:{address.rpartition(':')[2]}"
            async with pool(base_url, url(between.rpartition(":")[2])) as transport:
                return [await get(transport) for _ in range(3)]

    return asyncio.run(main()), served


@pytest.mark.parametrize("is_tls", [False, True])
def test_https_goes_through_a_proxys_tunnel_which_stays_open(
    is_tls: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    tunnel = Tunnel()
    scheme = "https" if is_tls else "http"
    came, served = through(monkeypatch, tmp_path, tunnel, lambda port: f"{scheme}://localhost:{port}", is_tls=is_tls)
    assert came == [b"again"] * 3
    assert served.requests == [3]
    assert len(tunnel.heads) == 1
    assert "sk_1" not in tunnel.heads[0]
    assert "Authorization: Bearer sk_1" in served.heads[0]


def test_a_proxys_user_and_password_are_told_to_it_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    told = base64.b64encode("ann:p@ss:wörd".encode()).decode()
    tunnel = Tunnel(wanted=f"Basic {told}")
    came, served = through(
        monkeypatch, tmp_path, tunnel, lambda port: f"http://ann:p%40ss%3Aw%C3%B6rd@localhost:{port}"
    )
    assert came == [b"again"] * 3
    assert told not in "".join(served.heads)


def test_a_proxy_that_refuses_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    tunnel = Tunnel(wanted="Basic other")
    with pytest.raises(NoConnectionError, match=r"^the proxy answers HTTP 407$"):
        through(monkeypatch, tmp_path, tunnel, lambda port: f"http://ann:secret@localhost:{port}")


def test_nothing_is_left_open_at_the_end() -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        if head.startswith("GET /stall"):
            await asyncio.sleep(60)
        writer.write(AGAIN)

    async def main() -> None:
        async with serving(stall) as address, pool(f"http://{address}") as transport:
            await asyncio.gather(*(get(transport) for _ in range(3)))
            waiting = asyncio.create_task(get(transport, "/stall"))
            await asyncio.sleep(0.05)
            assert len(transport._open) == 3
            await transport.close()
            assert transport._open == set()
            with pytest.raises(ConnectionLostError):
                await waiting

    asyncio.run(asyncio.wait_for(main(), 30))
