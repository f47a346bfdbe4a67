"""The client: its logic over httpx.MockTransport in simulated time, its wire over real sockets on loopback."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import random
import ssl
import subprocess
import sys
import traceback
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from pipeline.body import Counters, read_bounded, read_page, read_run
from pipeline.client import Answer, ExtendClient
from pipeline.config import Connection, Secret
from pipeline.errors import AccessError, ApiError, OutageError, RunError, RunFailedError, RunMissingError, UsageError
from pipeline.kinds import BY_OBJECT, kind_of
from pipeline.limiter import Limiter
from pipeline.retry import (
    Backoff,
    Breaker,
    BrokenBodyError,
    RetryBudget,
    TooLargeError,
    clean_text,
    failure_of_exception,
)
from pipeline.sandbox.limits import TokenBucket, retry_headers
from tests.simulated import now, run_simulated
from tests.wire import Serve, ok, raw, serving

CANARY = "sk_canary_7f3a"
RUN = {"object": "classify_run", "id": "clr_1", "status": "PROCESSED"}
CLASSIFY = BY_OBJECT["classify_run"]

Handler = Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]


def make_client(handler: Handler, *, qps: float = 1000.0, **options: Any) -> ExtendClient:
    """Return a client in simulated time whose requests go to `handler`."""
    return ExtendClient(
        Connection("https://api.test", Secret(CANARY), options.pop("workspace_id", None)),
        limiter=Limiter(qps, clock=now, wall_clock=lambda: 1_800_000_000.0),
        transport=httpx.MockTransport(handler),
        rng=random.Random(7),
        clock=now,
        **options,
    )


def fetch(handler: Handler, run_id: str = "clr_1", **options: Any) -> tuple[Answer, Counters]:
    async def main() -> tuple[Answer, Counters]:
        async with make_client(handler, **options) as client:
            return await client.fetch_run(run_id), client.stats

    return run_simulated(main())


def run_of(request: httpx.Request) -> httpx.Response:
    run_id = request.url.path.rsplit("/", 1)[-1]
    kind = kind_of(run_id)
    assert kind is not None
    return httpx.Response(200, json={"object": kind.object, "id": run_id, "status": "PROCESSED"})


def error(status: int, code: str = "", *, message: str = "told", **more: Any) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "message": message, "requestId": "req_9", **more})


def sequence(*answers: httpx.Response | Exception) -> Handler:
    """Give the answers in turn, then the run."""
    left = list(answers)

    def handler(request: httpx.Request) -> httpx.Response:
        answer = left.pop(0) if left else run_of(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handler


def always(status: int, code: str = "", **more: Any) -> Handler:
    return lambda request: error(status, code, **more)


# --- one request ------------------------------------------------------------------------------------------------------


def test_a_run_comes_with_its_body_as_received() -> None:
    body = b'\xef\xbb\xbf{"object": "classify_run", "id": "clr_1", "x": NaN, "d": 1, "d": 2, "n": 1.10}'
    headers = {"content-encoding": "gzip", "x-request-id": "req_1"}
    wire = gzip.compress(body)
    answer, stats = fetch(lambda request: httpx.Response(200, content=wire, headers=headers))
    assert answer.body == body[3:]
    assert answer.payload["d"] == 2
    assert (answer.kind, answer.run_id, answer.request_id, answer.attempts) == (CLASSIFY, "clr_1", "req_1", 1)
    assert answer.fetched_at.isoformat() == "2027-01-15T08:00:00+00:00"
    assert stats == Counters(requests=1, retries=0, rate_limited=0, bytes_received=len(wire))


def test_a_request_says_who_asks_in_which_version() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return run_of(request)

    fetch(handler, "pr_7", workspace_id="ws_1")
    fetch(handler, "clr_1")
    assert str(seen[0].url) == "https://api.test/parse_runs/pr_7?responseType=url"
    assert str(seen[1].url) == "https://api.test/classify_runs/clr_1"
    assert seen[0].headers["authorization"] == f"Bearer {CANARY}"
    assert seen[0].headers["x-extend-api-version"] == "2026-02-09"
    assert seen[0].headers["x-extend-workspace-id"] == "ws_1"
    assert "x-extend-workspace-id" not in seen[1].headers
    assert seen[0].headers["accept-encoding"] == "gzip"
    assert seen[0].headers["user-agent"].startswith("extend-pipeline/")


@pytest.mark.parametrize(
    "run_id",
    ["", "x_1", "clr_", "clr_../admin", "clr_1?x=1", "clr_%2f", "clr_1\n", "clr_\0", "https://evil.test/clr_1"],
)
def test_what_is_no_id_is_never_sent(run_id: str) -> None:
    with pytest.raises(ValueError, match="is no run's ID"):
        fetch(lambda request: pytest.fail("sent"), run_id)


def test_a_page_comes_with_its_token() -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(200, json={"object": "list", "data": [RUN], "nextPageToken": "t/2"})

    async def main() -> Any:
        async with make_client(handler) as client:
            with pytest.raises(ValueError, match="cannot be listed"):
                await client.fetch_page(BY_OBJECT["form_detection_run"], {})
            return await client.fetch_page(CLASSIFY, {"nextPageToken": "a&b=/+", "maxPageSize": "100"})

    page = run_simulated(main())
    assert (page.rows, page.next_page_token, page.attempts) == ([RUN], "t/2", 1)
    assert httpx.URL(seen[0]).params.multi_items() == [("nextPageToken", "a&b=/+"), ("maxPageSize", "100")]


def test_a_list_endpoint_that_is_gone_says_so_by_its_path() -> None:
    async def main() -> RunError:
        async with make_client(always(404, "ENDPOINT_REMOVED")) as client:
            with pytest.raises(RunFailedError) as caught:
                await client.fetch_page(CLASSIFY, {})
            return caught.value

    gone = run_simulated(main())
    assert (gone.run_id, gone.reason, gone.http_status) == ("/classify_runs", "ENDPOINT_REMOVED", 404)


# --- the check of a body ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "reason", "says"),
    [
        (b"", "BROKEN_BODY", "not JSON"),
        (b"<html>Sorry</html>", "BROKEN_BODY", "not JSON"),
        (b'{"object": "classify_run", "id": "clr_1"', "BROKEN_BODY", "not JSON"),
        (b'{"object": "classify_run", "id": "clr_1", "x": "\xff"}', "BROKEN_BODY", "not UTF-8"),
        (b"[" * 100_000 + b"]" * 100_000, "BROKEN_BODY", "nested too deep"),
        (b'["clr_1"]', "BROKEN_BODY", "no JSON object"),
        (b'{"object": "classify_run"}', "BROKEN_BODY", "no classify_run in it"),
        (b'{"object": "classify_run", "id": 1}', "BROKEN_BODY", "no classify_run in it"),
        (b'{"code": "INTERNAL_ERROR", "message": "oh\\u0007"}', "BROKEN_BODY", "but: INTERNAL_ERROR oh"),
        (b'{"object": "classify_run", "id": "clr_2"}', "WRONG_ID", "the answer is classify_run clr_2"),
        (b'{"object": "extract_run", "id": "clr_1"}', "WRONG_ID", "the answer is extract_run clr_1"),
    ],
)
def test_a_body_that_is_not_the_run_asked_for_is_refused(body: bytes, reason: str, says: str) -> None:
    with pytest.raises(BrokenBodyError, match=says) as caught:
        read_run(body, CLASSIFY, "clr_1")
    assert caught.value.reason == reason


def test_an_odd_body_of_the_right_run_is_accepted() -> None:
    deep = "[" * 100 + "]" * 100
    body = '{"object": "classify_run", "id": "clr_1", "n": 123456789012345678901234567890, "inf": Infinity, "deep": '
    assert read_run(f"{body}{deep}}}".encode(), CLASSIFY, "clr_1")["n"] == 123456789012345678901234567890


@pytest.mark.parametrize(
    "page",
    [
        {"object": "list"},
        {"object": "list", "data": {}},
        {"object": "list", "data": ["clr_1"]},
        {"object": "lists", "data": []},
        {"object": "list", "data": [], "nextPageToken": 7},
    ],
)
def test_a_body_that_is_no_page_is_refused(page: dict[str, Any]) -> None:
    with pytest.raises(BrokenBodyError):
        read_page(json.dumps(page).encode())


def test_no_token_means_the_last_page() -> None:
    for last in ({}, {"nextPageToken": None}, {"nextPageToken": ""}):
        assert read_page(json.dumps({"object": "list", "data": [RUN], **last}).encode()) == (
            [RUN],
            [json.dumps(RUN).encode()],
            None,
        )


def read_chunks(*chunks: bytes, encoding: str = "gzip", limit: int = 1000) -> bytes:
    async def stream() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return asyncio.run(read_bounded(stream(), encoding=encoding, limit_bytes=limit, counters=Counters()))


def test_gzip_is_read_byte_by_byte_and_in_several_members() -> None:
    packed = gzip.compress(b"one ") + gzip.compress(b"two")
    assert read_chunks(*(packed[i : i + 1] for i in range(len(packed)))) == b"one two"
    assert read_chunks(packed) == b"one two"
    assert read_chunks(b"plain", encoding="") == b"plain"
    large = random.Random(1).randbytes(300_000) + b"\0" * 1_000_000
    packed = gzip.compress(large)
    for size in (1000, 65_536, len(packed)):
        chunks = [packed[i : i + size] for i in range(0, len(packed), size)]
        assert read_chunks(*chunks, limit=len(large)) == large


def test_damaged_compression_is_refused() -> None:
    packed = gzip.compress(b"x" * 500)
    for wrong in (packed[:-1], packed[:-8], packed[:5], b"", packed[:-8] + b"\0" * 8, b"plain text", packed + b"tail"):
        with pytest.raises(BrokenBodyError, match="gzip data"):
            read_chunks(wrong)
    with pytest.raises(BrokenBodyError, match="Content-Encoding br was not asked for"):
        read_chunks(b"x", encoding="br")


def test_the_bound_holds_to_the_byte() -> None:
    assert len(read_chunks(gzip.compress(b"x" * 1000))) == 1000
    assert len(read_chunks(b"x" * 1000, encoding="identity")) == 1000
    for wrong, encoding in ((gzip.compress(b"x" * 1001), "gzip"), (b"x" * 1001, "")):
        with pytest.raises(TooLargeError):
            read_chunks(wrong, encoding=encoding)


def test_a_gzip_bomb_takes_no_more_memory_than_the_bound() -> None:
    bomb = gzip.compress(b"\0" * (100 * 2**20), 1)
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError, match="larger than 8 MiB"):
            read_chunks(bomb, limit=8 * 2**20)
        assert tracemalloc.get_traced_memory()[1] < 12 * 2**20
    finally:
        tracemalloc.stop()


# --- what is tried again ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        error(408),
        error(409),
        error(429, "RATE_LIMIT_EXCEEDED"),
        error(500),
        error(503),
        error(400, "ODD", retryable=True),
        httpx.Response(502, text="<html>"),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json={**RUN, "id": "clr_2"}),
        httpx.Response(204),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("closed"),
    ],
)
def test_what_may_be_tried_again_is(answer: httpx.Response | Exception) -> None:
    got, stats = fetch(sequence(answer, answer))
    assert got.payload == RUN
    assert got.attempts == 3
    assert (stats.requests, stats.retries) == (3, 2)


@pytest.mark.parametrize(
    ("answer", "reason", "says"),
    [
        (error(400, "INVALID_REQUEST"), "INVALID_REQUEST", r"run clr_1: HTTP 400 INVALID_REQUEST \(told\) after 1 att"),
        (error(422), "HTTP_422", "would again"),
        (error(500, "ODD", retryable=False), "ODD", "after 1 attempt "),
        (error(400, "not a code\n"), "HTTP_400", "HTTP 400"),
        (error(302), "REDIRECTED", "--base-url"),
        (error(404, "ENDPOINT_REMOVED"), "ENDPOINT_REMOVED", "newer version"),
        (httpx.Response(200, content=b"x" * 1001), "RESPONSE_TOO_LARGE", "larger than"),
    ],
)
def test_what_may_not_be_tried_again_is_not(answer: httpx.Response, reason: str, says: str) -> None:
    with pytest.raises(RunFailedError, match=says) as caught:
        fetch(sequence(answer), max_response_bytes=1000)
    assert (caught.value.reason, caught.value.attempts, caught.value.retryable) == (reason, 1, False)


def test_a_missing_run_is_missing_at_once() -> None:
    for answer in (error(404, "NOT_FOUND"), httpx.Response(404, text="<html>")):
        with pytest.raises(RunMissingError, match="run clr_1: HTTP 404") as caught:
            fetch(sequence(answer))
        assert caught.value.reason in ("NOT_FOUND", "HTTP_404")


@pytest.mark.parametrize(("status", "advice"), [(401, "EXTEND_API_KEY"), (402, "credits"), (403, "--workspace")])
def test_refused_access_ends_the_load_with_one_clear_message(status: int, advice: str) -> None:
    message = f"key {CANARY} \x1b[31mbad\n" + "x" * 5000
    with pytest.raises(AccessError, match=advice) as caught:
        fetch(always(status, "UNAUTHORIZED", message=message, retryable=True))
    text = str(caught.value)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert text.startswith(f"HTTP {status} UNAUTHORIZED (key [secret] [31mbad xxx")
    assert "request req_9" in text
    assert len(text) < 500


def test_a_run_that_never_comes_says_what_happened_and_what_to_do() -> None:
    with pytest.raises(RunFailedError) as caught:
        fetch(always(429, "RATE_LIMIT_EXCEEDED", message=""), max_attempts=3)
    assert str(caught.value).startswith("run clr_1: HTTP 429 RATE_LIMIT_EXCEEDED after 3 attempts (")
    assert str(caught.value).endswith("s), request req_9; lower --qps")
    assert (caught.value.request_id, caught.value.retryable, caught.value.http_status) == ("req_9", True, 429)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (error(503), "HTTP_503"),
        (error(500, "INTERNAL_ERROR"), "INTERNAL_ERROR"),
        (httpx.Response(200, json={**RUN, "id": "clr_2"}), "WRONG_ID"),
        (httpx.Response(200, text=""), "BROKEN_BODY"),
        (httpx.ReadTimeout("slow"), "TIMEOUT"),
        (httpx.ConnectError("refused"), "CONNECTION_FAILED"),
        (httpx.ReadError("reset"), "CONNECTION_LOST"),
    ],
)
def test_each_failure_has_its_reason(answer: httpx.Response | Exception, reason: str) -> None:
    with pytest.raises(RunFailedError) as caught:
        fetch(sequence(*[answer] * 6))
    assert (caught.value.reason, caught.value.attempts, caught.value.retryable) == (reason, 6, True)


def test_a_request_that_drips_ends_at_its_deadline() -> None:
    async def drip() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(1)
            yield b" "

    with pytest.raises(RunFailedError) as caught:
        fetch(lambda request: httpx.Response(200, content=drip()), max_attempts=1, timeout_s=30)
    assert caught.value.reason == "TIMEOUT"
    assert "(30.0 s)" in str(caught.value)


def test_a_redirect_is_not_followed_and_shows_no_query() -> None:
    hosts: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        hosts.append(request.url.host)
        return httpx.Response(307, headers={"location": "https://me:pw@evil.test/x?token=1"})

    with pytest.raises(RunFailedError, match=r"HTTP 307 redirects to evil\.test, which is not followed") as caught:
        fetch(handler)
    assert hosts == ["api.test"]
    assert "token" not in str(caught.value)
    assert "pw" not in str(caught.value)


def test_a_failed_certificate_ends_the_load_at_once() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("x") from ssl.SSLCertVerificationError(1, "self-signed certificate")

    with pytest.raises(ApiError, match=r"certificate cannot be verified.*SSL_CERT_FILE") as caught:
        fetch(handler)
    assert not isinstance(caught.value, OutageError)


def test_foreign_text_becomes_one_short_printable_line() -> None:
    assert clean_text("a\r\n\x1b[1mb\u202ec\u2028d\ud800e") == "a [1mb c d e"
    assert clean_text("x" * 300) == "x" * 199 + "…"
    assert clean_text(None) == clean_text({"a": 1}) == ""


def test_failures_are_told_apart_by_what_lies_beneath() -> None:
    def reason(outer: Exception, inner: Exception | None = None) -> str:
        outer.__cause__ = inner
        return failure_of_exception(outer).reason

    # What httpx-aiohttp, for one, makes of a reset, a refusal and a timeout.
    assert reason(httpx.ConnectTimeout(""), ConnectionResetError("reset")) == "CONNECTION_LOST"
    assert reason(httpx.ConnectError(""), ConnectionRefusedError("no")) == "CONNECTION_FAILED"
    assert reason(httpx.ReadTimeout(""), TimeoutError()) == "TIMEOUT"
    assert reason(TimeoutError()) == "TIMEOUT"
    assert reason(httpx.ConnectError(""), ssl.SSLError(1, "wrong version")) == "TLS"
    loop = httpx.ReadError("")
    loop.__context__ = loop
    assert failure_of_exception(loop).reason == "CONNECTION_LOST"


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_waits_are_full_jitter_and_capped() -> None:
    backoff = Backoff(rng=random.Random(1))
    for attempts, most in ((1, 0.5), (2, 1.0), (5, 8.0), (7, 30.0), (1000, 30.0)):
        waits = [backoff.wait_s(attempts) for _ in range(500)]
        assert min(waits) < most * 0.05
        assert most * 0.95 < max(waits) <= most
    assert backoff.wait_s(1, 10.0) == 10.0
    assert backoff.wait_s(1, 900.0) == 30.0


def test_an_empty_budget_lets_one_retry_a_second_through() -> None:
    async def main() -> list[float]:
        budget = RetryBudget(saved=3, clock=now, sleep=asyncio.sleep)
        started, left = now(), []
        for _ in range(7):
            await budget.spend()
            left.append(now() - started)
        for _ in range(2):
            budget.earn()
        await budget.spend()
        return [*left, now() - started]

    assert run_simulated(main()) == pytest.approx([0, 0, 0, 0, 1, 2, 3, 3])


def test_retry_after_holds_all_runs() -> None:
    async def main() -> tuple[list[float], Counters]:
        sent: list[float] = []
        started = now()
        answers = sequence(httpx.Response(429, headers={"retry-after": "20"}))

        def handler(request: httpx.Request) -> httpx.Response:
            sent.append(now() - started)
            return answers(request)

        async with make_client(handler, qps=10) as client:
            await asyncio.gather(*(client.fetch_run(f"clr_{n}") for n in range(5)))
            return sent, client.stats

    sent, stats = run_simulated(main())
    assert sent[0] == 0
    assert all(at > 20 for at in sent[1:])
    assert stats == Counters(requests=6, retries=1, rate_limited=1, bytes_received=stats.bytes_received)


def fetch_many(handler: Handler, runs: int, *, workers: int = 64, **options: Any) -> tuple[list[Any], ExtendClient]:
    """Return one outcome a run: the answer, or its error."""

    async def main() -> tuple[list[Any], ExtendClient]:
        outcomes: list[Any] = []
        left = iter(range(runs))

        async def worker(client: ExtendClient) -> None:
            for number in left:
                try:
                    outcomes.append(await client.fetch_run(f"clr_{number}"))
                except RunError as failed:
                    outcomes.append(failed)

        async with make_client(handler, concurrency=workers, **options) as client, asyncio.TaskGroup() as tasks:
            for _ in range(workers):
                tasks.create_task(worker(client))
        return outcomes, client

    return run_simulated(main())


DOWN: dict[str, Callable[[], httpx.Response]] = {
    "503": lambda: error(503),
    "429": lambda: error(429, "RATE_LIMIT_EXCEEDED"),
    "429 with Retry-After": lambda: httpx.Response(429, headers={"retry-after": "30"}),
}


@pytest.mark.parametrize(
    "down",
    [
        "503",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("429", "429 with Retry-After", "refused", "hangs")),
    ],
)
def test_ten_minutes_without_the_api_lose_nothing(down: str) -> None:
    sent: list[float] = []
    landed: list[float] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        at = now() - 1000
        sent.append(at)
        if not 20 <= at < 620:
            await asyncio.sleep(0.05)
            landed.append(at)
            return run_of(request)
        if down == "refused":
            raise httpx.ConnectError("refused")
        if down == "hangs":
            await asyncio.sleep(3600)
        return DOWN[down]()

    outcomes, client = fetch_many(handler, 4000, qps=50, timeout_s=30)
    assert len(outcomes) == 4000
    assert not [outcome for outcome in outcomes if not isinstance(outcome, Answer)]
    assert client.outage is None
    # Half a minute to notice (a hanging server takes a timeout), then one probe a second.
    assert len([at for at in sent if 100 <= at < 620]) <= 521
    assert len([at for at in sent if 610 <= at < 620]) <= 11
    # Within a minute after it, the plan's rate again.
    resumed = min(at for at in landed if at > 600)
    assert resumed < 651
    assert 490 * 0.97 <= len([at for at in landed if resumed + 20 <= at < resumed + 30]) <= 500


@pytest.mark.parametrize("limit", [10, 25, pytest.param(75, marks=pytest.mark.long)])
def test_a_server_that_enforces_its_limit_costs_three_percent_and_not_one_429(limit: int) -> None:
    buckets: list[TokenBucket] = []
    answers: list[tuple[float, int]] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        if not buckets:  # its clock is the simulated loop's
            buckets.append(TokenBucket(limit, clock=now))
        wait_s = buckets[0].wait_s()
        answers.append((now() - 1000, 429 if wait_s else 200))
        await asyncio.sleep(0.2)
        return httpx.Response(429, headers=retry_headers("seconds", wait_s)) if wait_s else run_of(request)

    outcomes, _client = fetch_many(handler, 100 * limit, qps=limit)
    assert len([outcome for outcome in outcomes if isinstance(outcome, Answer)]) == 100 * limit
    # At the least it takes 100 seconds, less the second's requests that a full bucket gives at once.
    assert 99 < max(at for at, _status in answers) <= 103
    assert {status for _at, status in answers} == {200}


def test_attempts_made_in_an_outage_do_not_count_against_a_run() -> None:
    # Down from the start, so that nothing has come that could be probed with: the runs themselves are the probes.
    outcomes, client = fetch_many(lambda request: error(503) if now() < 1120 else run_of(request), 5, qps=50)
    assert [type(outcome) for outcome in outcomes] == [Answer] * 5
    assert client.stats.requests > 5 * 6 + 50


def rate_after_outage(down: httpx.Response, *, seconds: float, qps: float) -> tuple[list[float], float]:
    """Return when requests left, with 64 waiting and the API down from the start, and the rate at the first answer."""

    async def main() -> tuple[list[float], float]:
        sent: list[float] = []
        started = now()

        def handler(request: httpx.Request) -> httpx.Response:
            sent.append(now() - started)
            return down if sent[-1] < seconds else run_of(request)

        async with make_client(handler, qps=qps) as client:
            tasks = [asyncio.create_task(client.fetch_run(f"clr_{n}")) for n in range(64)]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            rate = client._limiter.rate
            await asyncio.gather(*tasks)
            return sent, rate

    return run_simulated(main())


def test_requests_that_wait_for_their_slot_when_an_outage_begins_are_not_sent() -> None:
    sent, _ = rate_after_outage(error(503), seconds=60, qps=10)
    opened = sent[19]  # twenty failures in a row
    assert opened < 3
    assert len([at for at in sent if opened < at <= opened + 20]) <= 20


def test_the_first_answer_after_an_outage_of_429s_brings_the_plans_rate_back() -> None:
    sent, rate = rate_after_outage(error(429), seconds=8, qps=100)
    assert sent[20] - sent[19] >= 1  # it was an outage
    assert rate == 98.5


def test_an_outage_without_end_says_how_long_and_how_to_go_on() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        fetch_many(always(503, "DOWN"), 1000, qps=50, max_outage_s=120)
    assert {type(error) for error in caught.value.exceptions} == {OutageError}
    assert "has not answered for 12" in str(caught.value.exceptions[0])
    assert "HTTP 503 DOWN (told)" in str(caught.value.exceptions[0])
    assert "type the same command again" in str(caught.value.exceptions[0])


def test_an_outage_is_told_while_it_lasts() -> None:
    async def main() -> str | None:
        async with make_client(always(503), qps=100) as client:
            tasks = [asyncio.create_task(client.fetch_run(f"clr_{n}")) for n in range(30)]
            await asyncio.sleep(60)
            outage = client.outage
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return outage

    assert run_simulated(main()) == "no answer for 60 s (HTTP 503 (told)); trying once a second"


def test_runs_that_always_fail_are_no_outage() -> None:
    # 40 bad runs are left at the end, when nothing else is asked for: more failures in a row than an outage needs.
    def handler(request: httpx.Request) -> httpx.Response:
        return error(500) if int(request.url.path.rsplit("_", 1)[-1]) % 20 == 5 else run_of(request)

    outcomes, client = fetch_many(handler, 800)
    failed = [outcome for outcome in outcomes if isinstance(outcome, RunFailedError)]
    assert len(failed) == 40
    assert {failure.attempts for failure in failed} == {6}
    assert client.stats.requests == 760 + 6 * 40


def test_many_runs_that_always_fail_beside_few_that_come_are_no_outage() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return run_of(request) if int(request.url.path.rsplit("_", 1)[-1]) < 5 else error(500)

    async def main() -> tuple[list[Any], float, int]:
        async with make_client(handler) as client:
            for number in range(5):
                await client.fetch_run(f"clr_{number}")
            started = now()
            tries = [client.fetch_run(f"clr_{number}") for number in range(5, 45)]
            return await asyncio.gather(*tries, return_exceptions=True), now() - started, client.stats.requests

    failed, seconds, requests = run_simulated(main())
    assert {(type(each), each.reason) for each in failed} == {(RunFailedError, "HTTP_500")}
    # At least six attempts each, and beside them one look in twenty at what has come before.
    assert requests <= 5 + 6 * 40 * 1.6
    assert seconds < 300


def test_an_outage_is_probed_with_a_run_that_came_but_never_with_a_verify_run() -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path.rsplit("/", 1)[-1])
        return run_of(request) if len(asked) < 3 else error(503)

    async def main() -> None:
        async with make_client(handler, max_outage_s=60) as client:
            await client.fetch_run("clr_1")
            await client.fetch_run("vr_1")
            tries = [client.fetch_run(f"clr_a{number}") for number in range(30)]
            assert {type(each) for each in await asyncio.gather(*tries, return_exceptions=True)} == {OutageError}

    run_simulated(main())
    assert asked.count("vr_1") == 1
    assert set(asked[-50:]) == {"clr_1"}


def test_with_a_third_of_the_answers_faulty_nearly_every_run_comes_soon() -> None:
    rng = random.Random(3)

    def handler(request: httpx.Request) -> httpx.Response:
        if rng.random() < 0.3:
            fault = rng.choice([error(500), error(503), httpx.Response(200, text="<"), httpx.ReadError("reset")])
            if isinstance(fault, Exception):
                raise fault
            return fault
        return run_of(request)

    async def timed() -> float:
        started = now()
        async with make_client(handler, qps=100) as client:
            results = await asyncio.gather(*(client.fetch_run(f"clr_{n}") for n in range(2000)), return_exceptions=True)
        failed = [result for result in results if not isinstance(result, Answer)]
        assert all(isinstance(result, RunFailedError) and result.attempts == 6 for result in failed)
        assert len(failed) <= 6  # 2,000 × 0.3^6 = 1.5 are to be expected
        return now() - started

    # 2,000 ÷ 0.7 requests at 98.5 a second are 29 s; the rest is the last runs' waits.
    assert run_simulated(timed()) < 29 + 30


def test_no_more_requests_than_places_are_under_way() -> None:
    async def main() -> int:
        under_way = most = 0

        async def handler(request: httpx.Request) -> httpx.Response:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(1)
            under_way -= 1
            return run_of(request)

        async with make_client(handler, concurrency=4) as client:
            await asyncio.gather(*(client.fetch_run(f"clr_{n}") for n in range(20)))
        return most

    assert run_simulated(main()) == 4


# --- real sockets -----------------------------------------------------------------------------------------------------

BODY = json.dumps(RUN).encode()


async def no_wait(seconds: float) -> None:
    await asyncio.sleep(0)


def real_client(base_url: str, **options: Any) -> ExtendClient:
    options = {"max_attempts": 2, "sleep": no_wait, "timeout_s": 5.0} | options
    return ExtendClient(Connection(base_url, Secret(CANARY)), limiter=Limiter(10_000), **options)


def fetch_really(serve: Serve, **options: Any) -> tuple[Answer | RunError, ExtendClient]:
    async def main() -> tuple[Answer | RunError, ExtendClient]:
        async with serving(serve) as address, real_client(f"http://{address}", **options) as client:
            try:
                return await client.fetch_run("clr_1"), client
            except RunError as failed:
                return failed, client

    return asyncio.run(main())


def test_a_run_comes_over_a_real_socket_and_no_cookie_is_kept() -> None:
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        heads.append(head)
        writer.write(ok(gzip.compress(BODY), "Content-Encoding: gzip", "Set-Cookie: a=b"))

    async def main() -> list[Answer]:
        async with serving(serve) as address, real_client(f"http://{address}/api") as client:
            return [await client.fetch_run("clr_1") for _ in range(3)]

    answers = asyncio.run(main())
    assert [answer.body for answer in answers] == [BODY] * 3
    assert heads[0].startswith("GET /api/classify_runs/clr_1 HTTP/1.1\r\n")
    assert f"Authorization: Bearer {CANARY}\r\n" in heads[0]
    assert heads[0] == heads[2]


async def _reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
    writer.transport.abort()


async def _reset_in_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
    writer.write(ok(BODY)[:-5])
    await writer.drain()
    await asyncio.sleep(0.01)
    writer.transport.abort()


async def _drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def _stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Le")
    await writer.drain()
    await asyncio.sleep(60)


_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_GZIPPED = gzip.compress(BODY)
WIRE_FAULTS: dict[str, tuple[Serve, str]] = {
    "closed without a word": (raw(b""), "CONNECTION_LOST"),
    "reset": (_reset, "CONNECTION_LOST"),
    "reset in the body": (_reset_in_body, "CONNECTION_LOST"),
    "shorter than said": (raw(ok(BODY)[:-1]), "CONNECTION_LOST"),
    "chunks cut short": (raw(_CHUNKED + b"40\r\n" + BODY), "CONNECTION_LOST"),
    "chunk of no size": (raw(_CHUNKED + b"zz\r\n" + BODY), "CONNECTION_LOST"),
    "no HTTP": (raw(b"SSH-2.0-OpenSSH\r\n\r\n"), "CONNECTION_LOST"),
    "longer than said": (raw(ok(BODY).replace(b": %d" % len(BODY), b": 20")), "CONNECTION_LOST|BROKEN_BODY"),
    "cut where closing is the end": (raw(b"HTTP/1.1 200 OK\r\n\r\n" + BODY[:-3]), "BROKEN_BODY"),
    "gzip without its end": (raw(ok(_GZIPPED[:-8], "Content-Encoding: gzip")), "BROKEN_BODY"),
    "gzip that is none": (raw(ok(BODY, "Content-Encoding: gzip")), "BROKEN_BODY"),
    "another encoding": (raw(ok(BODY, "Content-Encoding: br")), "BROKEN_BODY"),
    "said to be huge": (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"), "RESPONSE_TOO_LARGE"),
    "a dripping body": (_drip, "TIMEOUT"),
    "a stall in the headers": (_stall, "TIMEOUT"),
}


@pytest.mark.parametrize("fault", WIRE_FAULTS)
def test_each_fault_of_the_wire_is_told_and_no_key_with_it(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    serve, reason = WIRE_FAULTS[fault]
    caplog.set_level(logging.DEBUG)
    failed, client = fetch_really(serve, timeout_s=0.4)
    assert isinstance(failed, RunFailedError), failed
    assert failed.reason in reason.split("|")
    assert client.stats.requests == (1 if reason == "RESPONSE_TOO_LARGE" else 2)
    shown = "".join(traceback.TracebackException.from_exception(failed, capture_locals=True).format())
    assert "outcome = Failure(" in shown  # locals are there, as rich would show them
    assert CANARY not in shown + repr(failed) + caplog.text
    assert failed.__cause__ is None
    assert failed.__context__ is None


def test_a_kept_connection_that_the_server_closed_is_no_failure() -> None:
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        nonlocal served
        served += 1
        writer.write(ok(BODY))  # says nothing of closing, and does
        await writer.drain()
        writer.close()

    async def main() -> None:
        async with serving(serve) as address, real_client(f"http://{address}") as client:
            for _ in range(5):
                await client.fetch_run("clr_1")

    asyncio.run(main())
    assert served == 5


def test_a_bomb_over_the_wire_is_refused() -> None:
    bomb = ok(gzip.compress(b"\0" * 20_000_000), "Content-Encoding: gzip")
    failed, client = fetch_really(raw(bomb), max_response_bytes=2**20)
    assert isinstance(failed, RunFailedError)
    assert failed.reason == "RESPONSE_TOO_LARGE"
    assert client.stats.requests == 1


def test_a_refused_connection_and_an_unknown_host_are_told() -> None:
    async def main() -> list[RunFailedError]:
        async with serving(_reset) as address:
            pass  # nobody listens there any more
        failures = []
        for url in (f"http://{address}", "http://host.invalid"):
            async with real_client(url) as client:
                with pytest.raises(RunFailedError) as caught:
                    await client.fetch_run("clr_1")
                failures.append(caught.value)
        return failures

    refused, unknown = asyncio.run(main())
    assert (refused.reason, unknown.reason) == ("CONNECTION_FAILED", "DNS_FAILED")
    assert CANARY not in "".join(traceback.format_exception(refused) + traceback.format_exception(unknown))


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    async def main() -> Answer:
        async with serving(raw(ok(BODY)), ssl=context) as address:
            url = f"https://localhost:{address.rsplit(':')[-1]}"
            async with real_client(url) as client:
                with pytest.raises(ApiError, match="certificate cannot be verified"):
                    await client.fetch_run("clr_1")
                assert client.stats.requests == 1
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "pem"))
            async with real_client(url) as client:
                return await client.fetch_run("clr_1")

    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    assert asyncio.run(main()).payload == RUN


@pytest.mark.parametrize("content", ["no certificate\n", None])
def test_a_file_of_certificates_that_cannot_be_used_is_told(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "pem"))
    if content is not None:
        (tmp_path / "pem").write_text(content)

    async def main() -> None:
        async with real_client("https://localhost:1"):
            pass

    with pytest.raises(UsageError, match=r"SSL_CERT_FILE or SSL_CERT_DIR cannot be used .*; name a file in PEM form"):
        asyncio.run(main())


def test_plain_http_goes_through_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    through: list[str] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        through.append(head)
        writer.write(ok(BODY))

    async def main() -> Answer:
        async with serving(proxy) as between, serving(raw(ok(BODY))) as address:
            for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
                monkeypatch.setenv(name, f"http://{between}")
                monkeypatch.setenv(name.lower(), f"http://{between}")
            for name in ("NO_PROXY", "no_proxy"):
                monkeypatch.delenv(name, raising=False)
            async with real_client(f"http://{address}") as client:
                return await client.fetch_run("clr_1")

    assert asyncio.run(main()).payload == RUN
    assert through == []


def test_a_proxy_sees_a_tunnel_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        heads.append(head)
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def main() -> RunFailedError:
        async with serving(serve) as address:
            monkeypatch.setenv("HTTPS_PROXY", f"http://{address}")
            monkeypatch.delenv("NO_PROXY", raising=False)
            monkeypatch.delenv("no_proxy", raising=False)
            async with real_client("https://api.invalid", max_attempts=1) as client:
                with pytest.raises(RunFailedError) as caught:
                    await client.fetch_run("clr_1")
                return caught.value

    failed = asyncio.run(main())
    assert failed.reason == "CONNECTION_FAILED"
    assert heads[0].startswith("CONNECT api.invalid:443 HTTP/1.1\r\n")
    assert CANARY not in heads[0] + "".join(traceback.format_exception(failed))


def test_cancelling_leaves_nothing_behind() -> None:
    async def main() -> Answer:
        stall = True

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
            if stall:
                await asyncio.sleep(60)
            writer.write(ok(BODY))

        async with serving(serve) as address, real_client(f"http://{address}", concurrency=2) as client:
            tasks = [asyncio.create_task(client.fetch_run("clr_1")) for _ in range(6)]
            await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(result) for result in results] == [asyncio.CancelledError] * 6
            stall = False
            return await client.fetch_run("clr_1")

    assert asyncio.run(main()).payload == RUN


def test_reading_settings_needs_no_http_library() -> None:
    code = "import sys, pipeline.config, pipeline.limiter; print({'httpx', 'aiohttp'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_failures_that_took_long_by_themselves_are_no_outage_before_anything_was_probed() -> None:
    now = [0.0]

    async def sleep(_seconds: float) -> None:
        raise AssertionError("nothing waits here")

    breaker = Breaker(concurrency=4, max_outage_s=900, window=20, clock=lambda: now[0], sleep=sleep)
    for _ in range(20):
        now[0] += 60
        breaker.failed(failure_of_exception(TimeoutError()), answers_before=0)
    assert breaker.is_open
    now[0] += 899
    breaker.failed(failure_of_exception(TimeoutError()), answers_before=0)
    now[0] += 1
    with pytest.raises(OutageError):
        breaker.failed(failure_of_exception(TimeoutError()), answers_before=0)
