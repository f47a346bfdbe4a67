"""Asks the API for runs and list pages: one request at a time per caller, checked, retried, and never trusted.

The order of one request: a place among `concurrency`, leave of the breaker (outages), a slot of the limiter (rate),
the exchange under a deadline, and the check of what came. Everything that can go wrong on the way becomes a `Failure`
(see `pipeline.retry`), and at the end one error of `pipeline.errors` with no exception of a lower layer behind it:
those can hold the request's headers, and with them the key.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar
from urllib.parse import urlencode

from pipeline import telemetry
from pipeline.body import Counters, read_bounded, read_page, read_run, too_large
from pipeline.config import Connection, read_proxy
from pipeline.errors import PipelineError
from pipeline.kinds import Kind, kind_of
from pipeline.limiter import Limiter, Ticket, retry_after_s, unix_time
from pipeline.retry import (
    Backoff,
    Breaker,
    BrokenBodyError,
    Failure,
    RetryBudget,
    TooLargeError,
    bug_text,
    clean_text,
    error_of,
    failure_of_body,
    failure_of_exception,
    failure_of_redirect,
    failure_of_status,
)
from pipeline.transport import HttpxTransport, Response, Transport

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
Headers = Mapping[str, str]
"""What is read of an answer's headers, by names in small letters; those of a name that stands twice are joined."""
_READ_HEADERS = frozenset(
    b"content-encoding content-length date location retry-after retry-after-ms x-ratelimit-reset x-request-id".split()
)
_MAX_ERROR_BODY_BYTES = 65_536
_KEY_LENGTH = 12


@dataclass(frozen=True, slots=True)
class Answer:
    """One run as it came. `body` is its JSON as received: decompressed, UTF-8, without a byte order mark."""

    run_id: str
    kind: Kind
    payload: dict[str, Any]
    body: bytes
    fetched_at: datetime
    request_id: str | None
    attempts: int


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list endpoint. `next_page_token` is null on the last page, `texts` has the rows' JSON as received.

    `served_at` is when it was served, by the API's own clock (where it does not say, by this machine's).
    """

    kind: Kind
    rows: list[dict[str, Any]]
    texts: list[bytes]
    next_page_token: str | None
    body: bytes
    fetched_at: datetime
    served_at: datetime
    request_id: str | None
    attempts: int


@dataclass(slots=True)
class _Received(Generic[T]):
    value: T
    body: bytes
    fetched_at: datetime
    request_id: str | None
    http_date: str | None
    attempts: int = 0


class ExtendClient:
    """An async context manager that fetches runs by ID and pages of the list endpoints.

    Any `httpx.AsyncBaseTransport` may be given; the default has one connection for each of `concurrency` requests under
    way. TLS certificates are always checked (SSL_CERT_FILE and SSL_CERT_DIR are
    honoured). HTTPS_PROXY, ALL_PROXY and NO_PROXY are honoured for https:// base URLs, where a proxy sees only an
    encrypted tunnel; a plain http:// one is never asked through a proxy, which would read the key. Redirects are
    never followed and cookies never kept. `timeout_s` bounds a whole request, body included. `max_response_bytes`
    bounds the decompressed body; of those larger than 256 KiB one is read at a time. `clock` and `sleep` should be
    those of the limiter.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        limiter: Limiter,
        concurrency: int = 64,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout_s: float = 60.0,
        max_response_bytes: int = 48 * 2**20,
        max_attempts: int = 6,
        max_outage_s: float = 900.0,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.stats = Counters()
        self._connection = connection
        self._limiter = limiter
        self._given_transport = transport
        self._transport: Transport | None = None
        self._timeout_s = timeout_s
        self._max_response_bytes = max_response_bytes
        self._max_attempts = max_attempts
        self._clock = clock
        self._sleep = sleep
        self._redact = connection.api_key.redact
        self._places = asyncio.Semaphore(concurrency)
        self._large = asyncio.Lock()
        self._backoff = Backoff(rng=rng or random.SystemRandom())
        self._budget = RetryBudget(clock=clock, sleep=sleep)
        self._breaker = Breaker(concurrency=concurrency, max_outage_s=max_outage_s, clock=clock, sleep=sleep)
        self._known: str | None = None

    async def __aenter__(self) -> Self:
        connection, given = self._connection, self._given_transport
        if given is not None:
            self._transport = HttpxTransport(given, connection, timeout_s=self._timeout_s)
        else:
            from pipeline.connections import PooledTransport

            proxy = read_proxy(connection.base_url)
            self._transport = PooledTransport(connection, timeout_s=self._timeout_s, proxy=proxy)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    @property
    def outage(self) -> str | None:
        """What to tell the user while nothing answers, such as in a progress line; null while all is well."""
        if not self._breaker.is_open:
            return None
        return f"no answer for {self._breaker.outage_s:.0f} s ({self._breaker.cause}); trying once a second"

    async def fetch_run(self, run_id: str) -> Answer:
        """Return one run as the API has it now, checked to be the one that was asked for.

        Raises RunMissingError or RunFailedError for this run alone, ApiError where no run can be fetched, and
        ValueError for what is no run's ID, before anything is sent. Whether a verify run may be read is for the
        caller to decide: reading can destroy its result.
        """
        kind = kind_of(run_id)
        if kind is None:
            raise ValueError(f"{run_id[:80]!r} is no run's ID")
        target = _target(f"{kind.path}/{run_id}", kind.query)
        with telemetry.span("fetch", {"run_id": run_id}):
            got = await self._fetch(f"run {run_id}", run_id, target, lambda body: read_run(body, kind, run_id))
        return Answer(run_id, kind, got.value, got.body, got.fetched_at, got.request_id, got.attempts)

    async def fetch_page(self, kind: Kind, params: Mapping[str, str]) -> Page:
        """Return one page of a kind's list endpoint.

        Raises as `fetch_run` does; the errors' `run_id` is then the endpoint's path, such as `/classify_runs`.
        """
        if not kind.listed:
            raise ValueError(f"{kind.name} runs cannot be listed")
        target = _target(kind.path, params)
        with telemetry.span("page", {"path": kind.path}):
            got = await self._fetch(f"list {kind.path}", kind.path, target, read_page)
        rows, texts, token = got.value
        served = unix_time(got.http_date)
        served_at = got.fetched_at if served is None else datetime.fromtimestamp(served, UTC)
        return Page(kind, rows, texts, token, got.body, got.fetched_at, served_at, got.request_id, got.attempts)

    async def _fetch(self, label: str, run_id: str, target: str, check: Callable[[bytes], T]) -> _Received[T]:
        """Try until it comes or may not be tried again. Attempts made in an outage do not count against the run."""
        started, requests, used, answers_before = self._clock(), 0, 0, -1
        while True:
            outcome = await self._attempt(target, check)
            requests += 1
            if isinstance(outcome, _Received):
                self._note_answer()
                self._budget.earn()
                kind = kind_of(run_id)
                if kind is None or not kind.reading_can_destroy:
                    self._known = target
                outcome.attempts = requests
                return outcome
            if answers_before < 0:
                answers_before = self._breaker.answers
            if outcome.alive or not (outcome.retryable or outcome.fatal):
                self._note_answer()
            else:
                self._breaker.failed(outcome, answers_before=answers_before)
            used += not self._breaker.is_open
            if outcome.fatal or not outcome.retryable or used >= self._max_attempts:
                seconds = self._clock() - started
                raise error_of(outcome, label, run_id=run_id, attempts=requests, seconds=seconds, redact=self._redact)
            if not self._breaker.is_open:
                await self._budget.spend()
                await self._sleep(self._backoff.wait_s(used, outcome.retry_after_s))
            self.stats.retries += 1
            telemetry.retries.add(1)

    def _note_answer(self) -> None:
        if self._breaker.answered():
            self._limiter.restore()

    async def _attempt(self, target: str, check: Callable[[bytes], T]) -> _Received[T] | Failure:
        """Send one request and return what came of it; nothing but cancellation and bugs leaves as an exception."""
        async with self._places:
            return await self._send(target, check, await self._leave())

    async def _send(self, target: str, check: Callable[[bytes], T], ticket: Ticket) -> _Received[T] | Failure:
        transport = self._transport
        if transport is None:
            raise RuntimeError("use the client as `async with ExtendClient(…) as client:`")
        self.stats.requests += 1
        telemetry.requests.add(1)
        try:
            async with asyncio.timeout(self._timeout_s):
                status, headers, body = await self._exchange(transport, target)
        except (BrokenBodyError, TooLargeError) as error:
            self._limiter.succeeded(ticket)
            return failure_of_body(error, 200)
        except OSError as error:
            return failure_of_exception(error)
        except Exception as error:  # noqa: BLE001 - a bug beneath: its frames hold the headers, and in them the key
            raise PipelineError(bug_text(error, self._redact)) from None
        if status == 429:
            self.stats.rate_limited += 1
            telemetry.rate_limited.add(1)
            self._limiter.rejected(ticket, retry_after_s(headers, now=self._limiter.wall_clock()))
        else:
            self._limiter.succeeded(ticket)
        return self._judge(status, headers, body, check)

    async def _leave(self) -> Ticket:
        """Wait for leave to send. A slot that came only after an outage began is let go: only probes are sent then."""
        while True:
            probe = await self._breaker.admit()
            try:
                ticket = await self._limiter.acquire()
            finally:
                if probe:
                    self._breaker.probe_left()
            if probe and self._known is not None:
                await self._probe(self._known, ticket)
            elif probe or not self._breaker.is_open:
                return ticket

    async def _probe(self, target: str, ticket: Ticket) -> None:
        """Ask again for what has come before: where a few runs fail by themselves, they tell nothing of an outage."""
        outcome = await self._send(target, bytes, ticket)
        if isinstance(outcome, _Received) or outcome.alive:
            self._note_answer()
        else:
            self._breaker.failed(outcome, answers_before=self._breaker.answers)

    async def _exchange(self, transport: Transport, target: str) -> tuple[int, Headers, bytes]:
        """Return status, headers and decompressed body of one GET; an error's body may be missing."""
        response = await transport.get(target)
        try:
            status, headers = response.status, self._masked_headers(response.headers)
            if 300 <= status < 400:
                return status, headers, b""
            limit = self._max_response_bytes if status == 200 else _MAX_ERROR_BODY_BYTES
            try:
                body = await self._read_body(response, headers, limit)
            except (BrokenBodyError, TooLargeError):
                if status == 200:
                    raise
                body = b""
            # The API may quote the key. It goes before anything is cut to length, logged or landed; of an answer that
            # is wanted, only what is long enough to be a real key, since it would be found in other words.
            at_least = _KEY_LENGTH if status == 200 else 1
            return status, headers, self._connection.api_key.redact_body(body, at_least=at_least)
        finally:
            await response.close()

    def _masked_headers(self, headers: Sequence[tuple[bytes, bytes]]) -> Headers:
        masked: dict[str, str] = {}
        for raw_name, raw_value in headers:
            if (name_bytes := raw_name.lower()) in _READ_HEADERS:
                name, value = name_bytes.decode("latin-1"), self._redact(raw_value.decode("latin-1"))
                masked[name] = f"{masked[name]}, {value}" if name in masked else value
        return masked

    async def _read_body(self, response: Response, headers: Headers, limit_bytes: int) -> bytes:
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > limit_bytes:
            raise TooLargeError(too_large(limit_bytes))
        encoding = headers.get("content-encoding", "")
        return await read_bounded(
            response.chunks, encoding=encoding, limit_bytes=limit_bytes, counters=self.stats, large=self._large
        )

    def _judge(self, status: int, headers: Headers, body: bytes, check: Callable[[bytes], T]) -> _Received[T] | Failure:
        now = self._limiter.wall_clock()
        if 300 <= status < 400:
            return failure_of_redirect(status, headers)
        if status >= 400:
            # A 429's wait is the limiter's, for everybody alike.
            wait = retry_after_s(headers, now=now) if status >= 500 else None
            return failure_of_status(status, headers, body, retry_after_s=wait)
        try:
            if status != 200:
                raise BrokenBodyError(f"HTTP {status} where JSON was expected")
            body = body.removeprefix(b"\xef\xbb\xbf")
            request_id = clean_text(headers.get("x-request-id"), 100) or None
            return _Received(check(body), body, datetime.fromtimestamp(now, UTC), request_id, headers.get("date"))
        except BrokenBodyError as error:
            return failure_of_body(error, status)


def _target(path: str, params: Mapping[str, str]) -> str:
    return f"{path}?{urlencode(params)}" if params else path
