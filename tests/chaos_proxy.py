"""A proxy on loopback between the pipeline and the sandbox, that spoils answers in every way a network has.

Each fault has a name; which one a request meets is said by a plan, from the ID asked for (of a list: its path's name)
and how often it was asked for before, so it is the same however requests overtake each other.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import socket
import ssl
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from pipeline.kinds import kind_of

HOST = "127.0.0.1"
Plan = Callable[[str, int], str | None]
"""Takes what is asked for and how often it was before; returns the name of a fault, or None for none."""


@dataclass(slots=True)
class Answer:
    """The sandbox's answer, or what is made of it."""

    body: bytes
    status: str = "200 OK"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    length: str | None = None

    def head(self) -> bytes:
        """Return status line and headers, with the body's own length unless `length` says another."""
        length = str(len(self.body)) if self.length is None else self.length
        lines = [f"HTTP/1.1 {self.status}", *(f"{name}: {value}" for name, value in self.headers.items())]
        return "\r\n".join([*lines, *([f"Content-Length: {length}"] if length else []), "", ""]).encode()


@dataclass(slots=True)
class Exchange:
    """One request on its way back: what was asked for, the true answer, another run's, and the client's connection."""

    asked: str
    answer: Answer
    other: Answer | None
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Send bytes at once."""
        self.writer.write(data)
        await self.writer.drain()

    async def reset(self) -> None:
        """Break the connection with a TCP RST, after what was sent had time to leave."""
        await asyncio.sleep(0.005)
        connection: socket.socket = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def half_close(self) -> None:
        """Say that nothing more will be sent, and go on listening until the client leaves."""
        self.writer.write_eof()
        await self.until_left()

    async def until_left(self) -> None:
        """Wait until the client closes, and close too."""
        while await self.reader.read(65_536):
            pass
        self.writer.close()


# Faults of the body: another answer, properly sent


def _put(members: bytes) -> Callable[[Exchange], Answer]:
    """Put members in front of those of the JSON object."""
    return lambda way: replace(way.answer, body=b"{" + members + b"," + way.answer.body.lstrip(b"\xef\xbb\xbf{"))


def _say(status: str, body: bytes, **headers: str) -> Callable[[Exchange], Answer]:
    """Answer something else altogether."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda way: Answer(body, status, {"Content-Type": "application/json", **named})


def _gzipped(way: Exchange, *, keep: int | None = None, wrong_sum: bool = False) -> Answer:
    body = gzip.compress(way.answer.body)
    if wrong_sum:
        body = body[:-8] + bytes(each ^ 255 for each in body[-8:])
    return replace(way.answer, body=body[:keep], headers={**way.answer.headers, "Content-Encoding": "gzip"})


def _other(way: Exchange) -> Answer:
    assert way.other is not None, f"no other run of the kind of {way.asked} was given"
    return way.other


def make_bomb(unpacked_bytes: int) -> bytes:
    """Return gzip data that unpacks to so many blanks."""
    packer, piece = zlib.compressobj(9, wbits=31), b" " * (1 << 20)
    parts = [packer.compress(piece[: min(len(piece), unpacked_bytes - at)]) for at in range(0, unpacked_bytes, 1 << 20)]
    return b"".join([*parts, packer.flush()])


_HTML = b"<html><head><title>Just a moment...</title></head><body>Checking your browser</body></html>"
_ERROR = b'{"code": "INTERNAL_ERROR", "message": "An unexpected error", "retryable": true, "requestId": "req_chaos"}'
_LIMITED = b'{"code": "RATE_LIMIT_EXCEEDED", "message": "Too many requests", "retryable": true}'

BODY_FAULTS: Mapping[str, Callable[[Exchange], Answer]] = {
    "html_200": _say("200 OK", _HTML),
    "html_502": _say("502 Bad Gateway", _HTML),
    "empty_200": _say("200 OK", b""),
    "empty_503": _say("503 Service Unavailable", b""),
    "error_200": _say("200 OK", _ERROR),
    "error_500": _say("500 Internal Server Error", _ERROR),
    "error_429": _say("429 Too Many Requests", _LIMITED),
    "error_429_wait": _say("429 Too Many Requests", _LIMITED, Retry_After="5"),
    "other_run": _other,
    "other_kind": lambda way: replace(way.answer, body=way.answer.body.replace(b'_run"', b'_walk"', 1)),
    "named_twice": _put(b'"id":"clr_0"'),
    "cut_json": lambda way: replace(way.answer, body=way.answer.body[: len(way.answer.body) // 2]),
    "invalid_utf8": _put(b'"x":"\xc3\x28"'),
    "utf16": lambda way: replace(way.answer, body=way.answer.body.decode().encode("utf-16")),
    "nested_1000": _put(b'"x":' + b"[" * 1000 + b"]" * 1000),
    "too_many_digits": _put(b'"x":' + b"9" * 5000),
    "gzip_cut": lambda way: _gzipped(way, keep=-9),
    "gzip_wrong_sum": lambda way: _gzipped(way, wrong_sum=True),
    "length_no_number": lambda way: replace(way.answer, length="many"),
    "length_negative": lambda way: replace(way.answer, length="-1"),
    "two_lengths": lambda way: replace(way.answer, length=f"{len(way.answer.body)}\r\nContent-Length: 7"),
    # What a run must bear
    "gzip": _gzipped,
    "byte_order_mark": lambda way: replace(way.answer, body=b"\xef\xbb\xbf" + way.answer.body),
    "duplicate_key": _put(b'"x":1,"x":2'),
    "nan_and_infinity": _put(b'"x":[NaN,Infinity,-Infinity]'),
    "beyond_64_bits": _put(b'"x":[18446744073709551616,-9223372036854775809,1e999,' + b"9" * 400 + b"]"),
    "nested_100": _put(b'"x":' + b"[" * 99 + b"]" * 99),
    "lone_surrogate": _put(b'"x":"\\ud83d"'),
}


# Faults of the wire


async def _reset_before_head(way: Exchange) -> None:
    await way.reset()


async def _reset_in_head(way: Exchange) -> None:
    await way.send(way.answer.head()[:20])
    await way.reset()


async def _reset_in_body(way: Exchange) -> None:
    await way.send(way.answer.head() + way.answer.body[: len(way.answer.body) // 2])
    await way.reset()


async def _half_closed_before_head(way: Exchange) -> None:
    await way.half_close()


async def _half_closed_in_head(way: Exchange) -> None:
    await way.send(way.answer.head()[:20])
    await way.half_close()


async def _half_closed_in_body(way: Exchange) -> None:
    await way.send(way.answer.head() + way.answer.body[:-1])
    await way.half_close()


async def _stall_before_head(way: Exchange) -> None:
    await way.until_left()


async def _stall_in_head(way: Exchange) -> None:
    await way.send(way.answer.head()[:20])
    await way.until_left()


async def _stall_in_body(way: Exchange) -> None:
    await way.send(way.answer.head() + way.answer.body[:-1])
    await way.until_left()


async def _drip(way: Exchange) -> None:
    """Send blanks before the JSON, which is allowed, without ever coming to it."""
    await way.send(replace(way.answer, length="1000000").head())
    while not way.writer.is_closing():
        await way.send(b" ")
        await asyncio.sleep(0.01)


async def _length_too_long(way: Exchange) -> None:
    await way.send(replace(way.answer, length=str(len(way.answer.body) + 10)).head() + way.answer.body)
    way.writer.close()


async def _length_too_long_and_open(way: Exchange) -> None:
    await way.send(replace(way.answer, length=str(len(way.answer.body) + 10)).head() + way.answer.body)
    await way.until_left()


async def _length_too_short(way: Exchange) -> None:
    """Say fewer bytes than come; the connection stays open, so that the rest could be taken for the next answer."""
    await way.send(replace(way.answer, length=str(len(way.answer.body) - 10)).head() + way.answer.body)


async def _no_length_and_cut(way: Exchange) -> None:
    await way.send(replace(way.answer, length="").head() + way.answer.body[:-3])
    way.writer.close()


async def _chunks_cut(way: Exchange) -> None:
    head = replace(way.answer, length="", headers={**way.answer.headers, "Transfer-Encoding": "chunked"}).head()
    await way.send(head + b"%x\r\n" % len(way.answer.body) + way.answer.body + b"\r\n")
    way.writer.close()


async def _no_http(way: Exchange) -> None:
    await way.send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    way.writer.close()


async def _byte_by_byte(way: Exchange) -> None:
    whole = way.answer.head() + way.answer.body
    for at in range(len(whole)):
        await way.send(whole[at : at + 1])
        if at % 64 == 0:
            await asyncio.sleep(0)


async def _closed_after(way: Exchange) -> None:
    """Close without having said so, as a balancer that is restarted does."""
    await way.send(way.answer.head() + way.answer.body)
    way.writer.close()


async def _answered_twice(way: Exchange) -> None:
    """Send another run's answer behind the true one, which the next request must not take for its own."""
    other = way.other or way.answer
    await way.send(way.answer.head() + way.answer.body + other.head() + other.body)


WIRE_FAULTS: Mapping[str, Callable[[Exchange], Awaitable[None]]] = {
    "reset_before_head": _reset_before_head,
    "reset_in_head": _reset_in_head,
    "reset_in_body": _reset_in_body,
    "half_closed_before_head": _half_closed_before_head,
    "half_closed_in_head": _half_closed_in_head,
    "half_closed_in_body": _half_closed_in_body,
    "stall_before_head": _stall_before_head,
    "stall_in_head": _stall_in_head,
    "stall_in_body": _stall_in_body,
    "drip": _drip,
    "length_too_long": _length_too_long,
    "length_too_long_and_open": _length_too_long_and_open,
    "length_too_short": _length_too_short,
    "no_length_and_cut": _no_length_and_cut,
    "chunks_cut": _chunks_cut,
    "no_http": _no_http,
    # What a run must bear
    "byte_by_byte": _byte_by_byte,
    "closed_after": _closed_after,
    "answered_twice": _answered_twice,
}

HARMLESS = (
    "gzip", "byte_order_mark", "duplicate_key", "nan_and_infinity", "beyond_64_bits", "nested_100", "lone_surrogate",
    "byte_by_byte", "closed_after", "answered_twice",
)  # fmt: skip
"""Odd answers that are the right run's nevertheless, and must land at the first attempt."""
HARMFUL = tuple(name for name in (*BODY_FAULTS, *WIRE_FAULTS) if name not in HARMLESS)
STALLS = ("stall_before_head", "stall_in_head", "stall_in_body", "drip", "length_too_long_and_open")
"""Those that cost a whole timeout each time."""


def mix(share: float, *, seed: int, kinds: Sequence[str] = (*HARMFUL, *HARMLESS)) -> Plan:
    """Return the plan in which a `share`, 0 to 1, of all requests meets one of the faults, each as likely."""

    def plan(asked: str, before: int) -> str | None:
        digest = hashlib.blake2b(f"{seed}:{asked}:{before}".encode(), digest_size=16).digest()
        if int.from_bytes(digest[:8], "big") / 2**64 >= share:
            return None
        return kinds[int.from_bytes(digest[8:], "big") % len(kinds)]

    return plan


def always(faults: Mapping[str, str]) -> Plan:
    """Return the plan in which every answer for these has its fault."""
    return lambda asked, before: faults.get(asked)


def at_first(faults: Mapping[str, str]) -> Plan:
    """Return the plan in which the first answer for each of these has its fault."""
    return lambda asked, before: None if before else faults.get(asked)


class ChaosProxy:
    """A running proxy. `plan` and `extra_faults` may be assigned while it runs.

    `asked` counts requests by what they ask for, `met` those that met a fault by its name, and `arrivals` holds when
    each came, by `clock`. `connections` counts those that were accepted.
    """

    def __init__(
        self,
        upstream: str,
        plan: Plan,
        *,
        other_ids: Collection[str],
        context: ssl.SSLContext | None,
        clock: Callable[[], float],
    ) -> None:
        self.plan = plan
        self.extra_faults: dict[str, Callable[[Exchange], Awaitable[None]]] = {}
        self.asked: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        self.arrivals: list[float] = []
        self.connections = 0
        self.port = 0
        self._upstream = upstream.removeprefix("http://").split(":")
        self._other_ids = tuple(other_ids)
        self._context = context
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None

    @property
    def base_url(self) -> str:
        """Where it is; with a certificate by the name `localhost`."""
        return f"https://localhost:{self.port}" if self._context else f"http://{HOST}:{self.port}"

    def go_down(self) -> None:
        """Break every connection and refuse new ones, until `come_up`."""
        self._do(self._stop())

    def come_up(self) -> None:
        """Listen, at the same port as before if there was one."""
        self._do(self._start())

    def run_forever(self) -> None:
        """Run the event loop until `close`, in a thread of its own."""
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def close(self) -> None:
        """End it all."""
        self.go_down()
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _do(self, step: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(step, self._loop).result(timeout=10)

    async def _start(self) -> None:
        self._server = await asyncio.start_server(
            self._connected, HOST, self.port, ssl=self._context, limit=1 << 24, backlog=512
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        upstream = None
        try:
            upstream = await asyncio.open_connection(*self._upstream, limit=1 << 24)
            while not writer.is_closing():
                await self._exchange(reader, writer, upstream)
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass  # the client has left, or the proxy goes down
        finally:
            self._tasks.discard(task)
            writer.transport.abort()
            if upstream is not None:
                upstream[1].transport.abort()

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.arrivals.append(self._clock())
        asked = head.split(b" ", 2)[1].split(b"?")[0].rsplit(b"/", 1)[1].decode()
        before = self.asked[asked]
        self.asked[asked] += 1
        fault = self.plan(asked, before)
        if fault is not None:
            self.met[fault] += 1
        other = None
        if fault in ("other_run", "answered_twice") and (other_id := self._another(asked)):
            other = await _ask(upstream, head.replace(asked.encode(), other_id.encode(), 1))
        way = Exchange(asked, await _ask(upstream, head), other, reader, writer)
        if fault is None:
            await way.send(way.answer.head() + way.answer.body)
        elif fault in BODY_FAULTS:
            answer = BODY_FAULTS[fault](way)
            await way.send(answer.head() + answer.body)
        else:
            await (self.extra_faults | dict(WIRE_FAULTS))[fault](way)

    def _another(self, asked: str) -> str | None:
        return next((each for each in self._other_ids if each != asked and kind_of(each) == kind_of(asked)), None)


async def _ask(upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter], head: bytes) -> Answer:
    """Return the sandbox's own answer."""
    reader, writer = upstream
    writer.write(head)
    await writer.drain()
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = await reader.readexactly(int(headers.pop("content-length")))
    return Answer(body, first.split(" ", 1)[1], headers)


@contextmanager
def chaos_proxy(
    upstream: str,
    plan: Plan = lambda asked, before: None,
    *,
    other_ids: Collection[str] = (),
    context: ssl.SSLContext | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[ChaosProxy]:
    """Run a proxy before a sandbox, in a thread of its own, until the block ends.

    Of `other_ids` those are taken that an answer for another run needs; `context` is for who wants TLS.
    """
    proxy = ChaosProxy(upstream, plan, other_ids=other_ids, context=context, clock=clock)
    thread = threading.Thread(target=proxy.run_forever, name="chaos-proxy", daemon=True)
    thread.start()
    try:
        proxy.come_up()
        yield proxy
    finally:
        with suppress(TimeoutError):
            proxy.close()
        thread.join(timeout=10)
        proxy._loop.close()
