"""The sandbox over real HTTP: who may ask what, pages, limits, and every fault as it is on the wire."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest

from pipeline.errors import UsageError
from pipeline.kinds import API_VERSION, KINDS
from pipeline.sandbox import faults as fault_kinds
from pipeline.sandbox.faults import Faults
from pipeline.sandbox.limits import HINTS, TokenBucket, retry_headers
from pipeline.sandbox.server import SandboxServer, serve
from pipeline.sandbox.world import World

LISTED = [kind for kind in KINDS if kind.listed]


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=7, runs=1500)


@pytest.fixture(scope="module")
def running(world: World) -> Iterator[SandboxServer]:
    with serve(world) as server:
        yield server


@pytest.fixture
def server(running: SandboxServer) -> Iterator[SandboxServer]:
    yield running
    running.faults = None


def headers(key: str, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", "x-extend-api-version": API_VERSION, **more}


@pytest.fixture
def client(server: SandboxServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base_url, headers=headers(server.key), timeout=10) as made:
        yield made


@pytest.fixture
def run_id(world: World) -> str:
    return world.run_ids(world.workspaces[0], "classify_run")[3]


def assert_refused(answer: httpx.Response, status: int, code: str, *, retryable: bool = False) -> None:
    assert answer.status_code == status
    body = answer.json()
    assert set(body) == {"code", "message", "retryable", "requestId"}
    assert body["code"] == code
    assert body["retryable"] is retryable
    assert body["requestId"].startswith("req_")
    assert body["message"]


def test_every_kind_answers_by_id_what_the_world_holds(world: World, client: httpx.Client) -> None:
    for kind in KINDS:
        run_id = world.run_ids(world.workspaces[0], kind.object)[0]
        answer = client.get(f"{kind.path}/{run_id}")
        assert answer.status_code == 200
        assert answer.json() == world.detail(run_id)
        assert answer.headers["content-type"].startswith("application/json")


def test_parse_output_is_a_link_only_where_asked_for(world: World, client: httpx.Client) -> None:
    run_id = next(run.run_id for run in world.iter_runs(world.workspaces[0], "parse_run") if run.status == "PROCESSED")
    assert "chunks" in client.get(f"/parse_runs/{run_id}").json()["output"]
    linked = client.get(f"/parse_runs/{run_id}?responseType=url").json()
    assert "output" not in linked
    assert linked["outputUrl"].startswith("https://")
    assert_refused(client.get(f"/parse_runs/{run_id}?responseType=xml"), 400, "INVALID_REQUEST")


def test_huge_parse_output_is_streamed_whole(world: World, client: httpx.Client) -> None:
    run_id = world.tagged_ids("huge")[0]
    answer = client.get(f"/parse_runs/{run_id}")
    assert len(answer.content) > 15_000_000
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.json() == world.detail(run_id)


def test_huge_answer_that_nobody_waits_for_is_not_counted_as_answered(world: World, server: SandboxServer) -> None:
    run_id = world.tagged_ids("huge")[1]
    url = f"{server.base_url}/parse_runs/{run_id}"
    with httpx.stream("GET", url, headers=headers(server.key)) as answer:
        next(answer.iter_raw())
    time.sleep(0.1)
    assert (server.asked[run_id], server.answered[run_id]) == (1, 0)


# Who may ask what


def test_key_is_required(server: SandboxServer, run_id: str) -> None:
    url = f"{server.base_url}/classify_runs/{run_id}"
    assert_refused(httpx.get(url, headers={"x-extend-api-version": API_VERSION}), 401, "UNAUTHORIZED")
    assert_refused(httpx.get(url, headers=headers("wrong")), 401, "UNAUTHORIZED")


def test_version_is_required(server: SandboxServer, run_id: str) -> None:
    url = f"{server.base_url}/classify_runs/{run_id}"
    for version in ({}, {"x-extend-api-version": "2025-04-21"}):
        asked = {"authorization": f"Bearer {server.key}", **version}
        assert_refused(httpx.get(url, headers=asked), 400, "INVALID_REQUEST")


def test_workspace_key_reaches_its_own_workspace_alone(world: World, client: httpx.Client, run_id: str) -> None:
    first, second = world.workspaces
    path = f"/classify_runs/{run_id}"
    assert client.get(path, headers={"x-extend-workspace-id": first}).status_code == 200
    assert_refused(client.get(path, headers={"x-extend-workspace-id": second}), 403, "FORBIDDEN")
    elsewhere = world.run_ids(second, "classify_run")[0]
    assert_refused(client.get(f"/classify_runs/{elsewhere}"), 404, "NOT_FOUND")


def test_organization_key_needs_the_workspace_and_reaches_both(world: World, server: SandboxServer) -> None:
    with httpx.Client(base_url=server.base_url, headers=headers(server.org_key)) as owner:
        for workspace in world.workspaces:
            run_id = world.run_ids(workspace, "extract_run")[0]
            path = f"/extract_runs/{run_id}"
            refused = owner.get(path)
            assert_refused(refused, 400, "INVALID_REQUEST")
            assert "x-extend-workspace-id" in refused.json()["message"]
            assert owner.get(path, headers={"x-extend-workspace-id": workspace}).json()["id"] == run_id
            others = [other for other in world.workspaces if other != workspace]
            assert_refused(owner.get(path, headers={"x-extend-workspace-id": others[0]}), 404, "NOT_FOUND")
            assert_refused(owner.get(path, headers={"x-extend-workspace-id": "ws_none"}), 403, "FORBIDDEN")


def test_deleted_and_unknown_runs_and_paths_answer_404(world: World, client: httpx.Client, run_id: str) -> None:
    for gone in world.deleted_ids(world.workspaces[0]):
        kind = world.run(gone).kind
        assert_refused(client.get(f"{kind.path}/{gone}"), 404, "NOT_FOUND")
    for path in (
        "/classify_runs/clr_nothing", f"/extract_runs/{run_id}", "/nothing", "/", "/classify_runs/a/b",
        "/batch_runs", "/batch_runs/bpr_nothing", "/form_detection_runs",
    ):  # fmt: skip
        assert_refused(client.get(path), 404, "NOT_FOUND")


def test_only_get_is_allowed(client: httpx.Client, run_id: str) -> None:
    for method in ("POST", "DELETE", "PUT", "PATCH"):
        assert_refused(client.request(method, f"/classify_runs/{run_id}"), 405, "METHOD_NOT_ALLOWED")
    assert client.head(f"/classify_runs/{run_id}").status_code == 405


def test_zero_retention_result_is_delivered_once() -> None:
    world = World(seed=2, runs=500)
    run_id = world.tagged_ids("zero retention")[0]
    with serve(world) as server, httpx.Client(base_url=server.base_url, headers=headers(server.key)) as client:
        summary = world.summary(run_id)
        listed = client.get("/verify_runs?maxPageSize=100").json()["data"]
        assert [row for row in listed if row["id"] == run_id] == [summary]
        assert summary["riskLevel"] in ("LOW", "MEDIUM", "HIGH")
        assert client.get(f"/verify_runs/{run_id}").json()["output"]["riskLevel"] == summary["riskLevel"]
        assert_refused(client.get(f"/verify_runs/{run_id}"), 404, "NOT_FOUND")
        risk = client.get(f"/verify_runs?maxPageSize=100&riskLevel={summary['riskLevel']}").json()["data"]
        assert run_id not in {row["id"] for row in risk}
        listed = client.get("/verify_runs?maxPageSize=100").json()["data"]
        assert [row for row in listed if row["id"] == run_id] == [{**summary, "riskLevel": None}]
        assert server.asked[run_id] == 2
        assert server.answered[run_id] == 1


def test_zero_retention_result_is_given_to_one_of_many_who_ask_at_once(world: World) -> None:
    run_id = world.tagged_ids("zero retention")[1]
    given: list[bool] = []
    threads = [threading.Thread(target=lambda: given.append(world.take(run_id))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(given) == 1


# Lists


def pages_of(client: httpx.Client, path: str, **query: str) -> Iterator[dict[str, Any]]:
    token: dict[str, str] = {}
    while True:
        answer = client.get(path, params={**query, **token})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        yield page
        if "nextPageToken" not in page:
            return
        token = {"nextPageToken": page["nextPageToken"]}


@pytest.mark.parametrize("kind", LISTED, ids=lambda kind: kind.name)
def test_every_run_is_listed_exactly_once_over_pages(world: World, client: httpx.Client, kind: Any) -> None:
    query = {"limit": "7", "maxPageSize": "3"} if kind.object == "parse_run" else {"maxPageSize": "7"}
    pages = list(pages_of(client, kind.path, **query))
    rows = [row for page in pages for row in page["data"]]
    assert Counter(row["id"] for row in rows) == Counter(world.run_ids(world.workspaces[0], kind.object))
    assert all(page["object"] == "list" for page in pages)
    assert max(len(page["data"]) for page in pages) == 7
    assert rows[0] == world.summary(rows[0]["id"])


def test_pages_are_sometimes_shorter_than_asked_for_before_the_last(client: httpx.Client) -> None:
    lengths = [len(page["data"]) for page in pages_of(client, "/parse_runs", limit="3")]
    assert Counter(lengths[:-1])[3] > len(lengths) * 0.7
    assert set(lengths[:-1]) >= {0, 1, 3}


def test_page_size_is_bounded(world: World, client: httpx.Client) -> None:
    assert len(client.get("/parse_runs?limit=5000").json()["data"]) in (50, 100)
    assert len(client.get("/parse_runs?maxPageSize=50").json()["data"]) in (10, 20)
    with serve(world, largest_page=10) as small:
        asked = headers(small.key)
        page = httpx.get(f"{small.base_url}/extract_runs?maxPageSize=50", headers=asked).json()
        assert len(page["data"]) in (5, 10)
    for size in ("0", "-1", "x", "²"):
        assert_refused(client.get("/extract_runs", params={"maxPageSize": size}), 400, "INVALID_REQUEST")


@pytest.mark.parametrize("by", ["updatedAt", "createdAt"])
@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_lists_are_sorted_as_asked_for(client: httpx.Client, by: str, direction: str) -> None:
    pages = pages_of(client, "/extract_runs", sortBy=by, sortDir=direction, maxPageSize="100")
    # Times differ in their decimal places: compared as text, "…01Z" would follow "…01.5Z".
    times = [row[by].removesuffix("Z").ljust(26, "0").replace(":0000000", ":00.000000")[:19] for page in pages
             for row in page["data"]]  # fmt: skip
    assert times == sorted(times, reverse=direction == "desc")


def test_parse_runs_come_in_an_order_that_cannot_be_chosen(client: httpx.Client) -> None:
    plain = client.get("/parse_runs?limit=100").json()["data"]
    asked = client.get("/parse_runs?limit=100&sortBy=createdAt&sortDir=asc").json()["data"]
    created = [row["createdAt"] for row in plain]
    assert created not in (sorted(created), sorted(created, reverse=True))
    shorter = min(len(plain), len(asked))
    assert plain[:shorter] == asked[:shorter]


def test_filters_keep_what_matches(world: World, client: httpx.Client) -> None:
    failed = [row for page in pages_of(client, "/extract_runs", status="FAILED") for row in page["data"]]
    assert {row["status"] for row in failed} == {"FAILED"}
    ours = list(world.iter_runs(world.workspaces[0], "extract_run"))
    assert len(failed) == sum(run.status == "FAILED" for run in ours)
    version = next(run.version for run in ours if run.version is not None)
    rows = [row for page in pages_of(client, "/extract_runs", extractorId=version.processor_id) for row in page["data"]]
    assert len(rows) == sum(
        run.version is not None and run.version.processor_id == version.processor_id for run in ours
    )
    named = [row for page in pages_of(client, "/extract_runs", fileNameContains="invoice") for row in page["data"]]
    assert all("invoice" in json.dumps([row.get("file"), row.get("files")]) for row in named)
    workflow = [row for page in pages_of(client, "/extract_runs", source="WORKFLOW_RUN") for row in page["data"]]
    assert {row["id"] for row in workflow} == {run.run_id for run in ours if run.workflow_run_id}
    batch_id = next(run.batch_id for run in world.iter_runs(world.workspaces[0], "parse_run") if run.batch_id)
    batch = [row for page in pages_of(client, "/parse_runs", batchId=batch_id) for row in page["data"]]
    assert {row["batchId"] for row in batch} == {batch_id}
    assert_refused(client.get("/extract_runs?sortBy=name"), 400, "INVALID_REQUEST")
    assert_refused(client.get("/extract_runs?sortDir=up"), 400, "INVALID_REQUEST")


def test_removed_list_says_so_and_its_runs_are_still_there(world: World) -> None:
    run_id = world.run_ids(world.workspaces[0], "edit_run")[0]
    with serve(world, removed_lists=["edit_run"]) as server:
        asked = headers(server.key)
        assert_refused(httpx.get(f"{server.base_url}/edit_runs", headers=asked), 410, "ENDPOINT_REMOVED")
        assert httpx.get(f"{server.base_url}/edit_runs/{run_id}", headers=asked).status_code == 200
        assert httpx.get(f"{server.base_url}/extract_runs", headers=asked).status_code == 200


def test_tokens_are_good_for_the_request_that_they_came_from_alone(world: World, client: httpx.Client) -> None:
    token = client.get("/extract_runs?maxPageSize=5").json()["nextPageToken"]
    assert client.get("/extract_runs", params={"maxPageSize": "5", "nextPageToken": token}).status_code == 200
    for path, query in (
        ("/extract_runs", {"maxPageSize": "6"}),
        ("/extract_runs", {"maxPageSize": "5", "status": "FAILED"}),
        ("/extract_runs", {"maxPageSize": "5", "sortDir": "asc"}),
        ("/classify_runs", {"maxPageSize": "5"}),
    ):
        assert_refused(client.get(path, params={**query, "nextPageToken": token}), 400, "INVALID_REQUEST")
    spoilt = ("A" if token[20] != "A" else "B").join((token[:20], token[21:]))
    for wrong in ("", "x", "é", token[:-4], spoilt, "A" * 64):
        query = {"maxPageSize": "5", "nextPageToken": wrong}
        assert_refused(client.get("/extract_runs", params=query), 400, "INVALID_REQUEST")


def test_list_shows_what_changed_between_pages() -> None:
    world = World(seed=2, runs=500)
    with serve(world) as server, httpx.Client(base_url=server.base_url, headers=headers(server.key)) as client:
        before = client.get("/classify_runs?sortBy=createdAt&maxPageSize=100").json()["data"]
        run = world.run(before[0]["id"])
        run.deleted = True
        world.change(run)
        after = client.get("/classify_runs?sortBy=createdAt&maxPageSize=100").json()["data"]
        assert before[0]["id"] not in {row["id"] for row in after}


# Limits


def test_rate_limit_counts_over_all_endpoints_and_says_when_to_come_back(world: World, run_id: str) -> None:
    with serve(world, limit_qps=0.2) as server, httpx.Client(base_url=server.base_url) as client:
        keys = [headers(server.key), headers(server.org_key, **{"x-extend-workspace-id": world.workspaces[1]})]
        paths = [f"/classify_runs/{run_id}", "/extract_runs"]
        answers = [client.get(paths[n % 2], headers=keys[n // 2 % 2]) for n in range(5)]
        assert [answer.status_code for answer in answers] == [200, 429, 429, 429, 429]
        assert server.rate_limited == 4
        for answer in answers[1:]:
            assert_refused(answer, 429, "RATE_LIMIT_EXCEEDED", retryable=True)
            assert 1 <= int(answer.headers["retry-after"]) <= 5


def test_token_bucket_lets_through_its_rate() -> None:
    now = [100.0]
    bucket = TokenBucket(10, clock=lambda: now[0])
    assert [bucket.wait_s() for _ in range(10)] == [0.0] * 10
    assert bucket.wait_s() == pytest.approx(0.1)
    now[0] += 0.35
    assert [bucket.wait_s() > 0 for _ in range(4)] == [False, False, False, True]
    now[0] += 1000
    assert sum(bucket.wait_s() == 0 for _ in range(50)) == 10
    assert TokenBucket(0).wait_s() == 0


def test_each_hint_is_one_header() -> None:
    made = {hint: dict(retry_headers(hint, 1.2)) for hint in HINTS}
    assert made["absent"] == {}
    assert made["seconds"] == {b"retry-after": b"2"}
    assert made["zero"] == {b"retry-after": b"0"}
    assert made["ms"] == {b"retry-after-ms": b"1200"}
    assert 0 < int(made["reset"][b"x-ratelimit-reset"]) - time.time() < 3
    when = parsedate_to_datetime(made["date"][b"retry-after"].decode())
    assert 0 < when.timestamp() - time.time() < 3


def test_answers_are_compressed_only_where_that_is_switched_on(world: World, run_id: str) -> None:
    for compress in (False, True):
        with serve(world, compress=compress) as server:
            asked = headers(server.key, **{"accept-encoding": "gzip"})
            answer = httpx.get(f"{server.base_url}/classify_runs/{run_id}", headers=asked)
            assert ("content-encoding" in answer.headers) is compress
            assert answer.json() == world.detail(run_id)


# Faults on the wire


def raw_answer(server: SandboxServer, path: str, *, timeout: float = 5) -> tuple[bytes, str]:
    """Return every byte that the server sends, and how the connection ended: `closed`, `reset` or `silent`."""
    port = int(server.base_url.rsplit(":", 1)[1])
    lines = [f"GET {path} HTTP/1.1", "host: sandbox", *(f"{k}: {v}" for k, v in headers(server.key).items())]
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall("\r\n".join([*lines, "connection: close", "", ""]).encode())
        received = b""
        try:
            while piece := connection.recv(65536):
                received += piece
        except ConnectionResetError:
            return received, "reset"
        except TimeoutError:
            return received, "silent"
        return received, "closed"


def test_short_body_ends_before_its_length(world: World, server: SandboxServer, run_id: str) -> None:
    server.faults = Faults(share=1, kinds=("short_body",))
    received, end = raw_answer(server, f"/classify_runs/{run_id}")
    head, body = received.split(b"\r\n\r\n", 1)
    length = len(json.dumps(world.detail(run_id), ensure_ascii=False, separators=(",", ":")).encode())
    assert f"content-length: {length}".encode() in head
    assert len(body) == length // 2
    assert end == "closed"


def test_reset_is_a_tcp_reset_in_mid_body(server: SandboxServer, run_id: str) -> None:
    server.faults = Faults(share=1, kinds=("reset",))
    received, end = raw_answer(server, f"/classify_runs/{run_id}")
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert len(received.split(b"\r\n\r\n", 1)[1]) > 100
    assert end == "reset"


def test_hang_accepts_and_stays_silent(server: SandboxServer, run_id: str) -> None:
    server.faults = Faults(share=1, kinds=("hang",))
    assert raw_answer(server, f"/classify_runs/{run_id}", timeout=0.3) == (b"", "silent")
    server.faults = Faults(share=1, kinds=("hang",), hang_s=0.1)
    assert raw_answer(server, f"/classify_runs/{run_id}", timeout=3) == (b"", "closed")


def test_cut_json_is_a_complete_answer_that_stops_in_the_middle(client: httpx.Client, server: SandboxServer) -> None:
    server.faults = Faults(share=1, kinds=("cut_json",))
    answer = client.get("/extract_runs")
    assert answer.status_code == 200
    assert int(answer.headers["content-length"]) == len(answer.content)
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def test_slow_answer_is_right_and_slow(world: World, client: httpx.Client, server: SandboxServer, run_id: str) -> None:
    server.faults = Faults(share=1, kinds=("slow",), slow_s=0.2)
    before = time.monotonic()
    answer = client.get(f"/classify_runs/{run_id}")
    assert time.monotonic() - before >= 0.2
    assert answer.json() == world.detail(run_id)


def test_wrong_answers_with_status_200(client: httpx.Client, server: SandboxServer, run_id: str) -> None:
    answered = server.answered[run_id]
    path = f"/classify_runs/{run_id}"
    server.faults = Faults(share=1, kinds=("other_run",))
    other = client.get(path)
    assert other.status_code == 200
    assert other.json()["object"] == "classify_run"
    assert other.json()["id"] != run_id
    server.faults = Faults(share=1, kinds=("error_200",))
    assert_refused(client.get(path), 200, "INTERNAL_ERROR", retryable=True)
    server.faults = Faults(share=1, kinds=("html_200",))
    page = client.get(path)
    assert page.status_code == 200
    assert page.text.startswith("<html>")
    assert server.answered[run_id] == answered


def test_errors_of_api_and_proxies(client: httpx.Client, server: SandboxServer, run_id: str) -> None:
    path = f"/classify_runs/{run_id}"
    server.faults = Faults(share=1, kinds=("500",))
    assert_refused(client.get(path), 500, "INTERNAL_ERROR", retryable=True)
    server.faults = Faults(share=1, kinds=("502_html",))
    answer = client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (502, "text/html")
    server.faults = Faults(share=1, kinds=("503_empty",))
    answer = client.get(path)
    assert (answer.status_code, answer.content) == (503, b"")


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        ("429_no_hint", None), ("429_seconds", "retry-after"), ("429_date", "retry-after"),
        ("429_zero", "retry-after"), ("429_ms", "retry-after-ms"), ("429_reset", "x-ratelimit-reset"),
    ],
)  # fmt: skip
def test_each_429_hints_in_its_own_way(
    client: httpx.Client, server: SandboxServer, run_id: str, kind: str, header: str | None
) -> None:
    server.faults = Faults(share=1, kinds=(kind,))
    limited = server.rate_limited
    answer = client.get(f"/classify_runs/{run_id}")
    assert_refused(answer, 429, "RATE_LIMIT_EXCEEDED", retryable=True)
    hints = {"retry-after", "retry-after-ms", "x-ratelimit-reset"} & set(answer.headers)
    assert hints == ({header} if header else set())
    assert server.rate_limited == limited + 1


def test_faults_are_the_same_for_the_same_seed_and_hit_about_their_share() -> None:
    drawn = [Faults(share=0.2, seed=5).draw(ordinal) for ordinal in range(5000)]
    assert drawn == [Faults(share=0.2, seed=5).draw(ordinal) for ordinal in range(5000)]
    assert drawn != [Faults(share=0.2, seed=6).draw(ordinal) for ordinal in range(5000)]
    hit = [kind for kind in drawn if kind]
    assert 0.18 < len(hit) / 5000 < 0.22
    assert set(hit) == set(fault_kinds.KINDS)
    assert not any(Faults(share=0).draw(ordinal) for ordinal in range(100))


def test_wrong_faults_are_refused() -> None:
    with pytest.raises(ValueError, match="no such kind"):
        Faults(kinds=("503",))
    with pytest.raises(ValueError, match="from 0 to 1"):
        Faults(share=20)


def test_asked_counts_every_attempt_and_answered_the_right_answers(world: World, run_id: str) -> None:
    with serve(world, faults=Faults(share=1, kinds=("500",))) as server:
        asked = headers(server.key)
        url = f"{server.base_url}/classify_runs/{run_id}"
        assert [httpx.get(url, headers=asked).status_code for _ in range(3)] == [500] * 3
        server.faults = None
        assert httpx.get(url, headers=asked).status_code == 200
        assert httpx.get(url).status_code == 401
        assert httpx.get(f"{server.base_url}/classify_runs", headers=asked).status_code == 200
        assert server.asked == {run_id: 5}
        assert server.answered == {run_id: 1}
        assert server.requests == 6


# The server itself


def test_serving_ends_at_once_though_requests_hang(world: World, run_id: str) -> None:
    outcome: list[str] = []

    def ask(url: str, key: str) -> None:
        try:
            httpx.get(url, headers=headers(key), timeout=30)
        except httpx.TransportError as error:
            outcome.append(type(error).__name__)

    with serve(world, faults=Faults(share=1, kinds=("hang",))) as server:
        threads = [
            threading.Thread(target=ask, args=(f"{server.base_url}/classify_runs/{run_id}", server.key))
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        while server.requests < 5:
            time.sleep(0.01)
        before = time.monotonic()
    assert time.monotonic() - before < 3
    for thread in threads:
        thread.join()
    assert len(outcome) == 5


def test_serving_is_on_loopback_and_a_taken_port_is_a_usage_error(world: World, server: SandboxServer) -> None:
    assert server.base_url.startswith("http://127.0.0.1:")
    port = int(server.base_url.rsplit(":", 1)[1])
    with pytest.raises(UsageError, match=f"port {port} is in use"), serve(world, port=port):
        pass


@pytest.mark.skipif(os.name == "nt", reason="signals of this kind are not sent on Windows")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_line_server_prints_two_exports_and_ends_cleanly(number: signal.Signals) -> None:
    code = (
        "from pipeline.sandbox.server import serve_forever\n"
        "serve_forever(port=0, seed=7, runs=500, key='mine', limit_qps=0, fault_share=0)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        exports = [process.stdout.readline().strip() for _ in range(2)]
        url = exports[0].removeprefix("export EXTEND_BASE_URL=")
        assert exports[1] == "export EXTEND_API_KEY=mine"
        assert httpx.get(f"{url}/classify_runs", headers=headers("mine")).status_code == 200
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (0, "")
    assert err == "Serving 500 made-up runs (seed 7); Ctrl-C stops.\n"


def test_command_line_server_refuses_wrong_numbers() -> None:
    from pipeline.sandbox.server import serve_forever

    with pytest.raises(UsageError, match="share of faults"):
        serve_forever(port=0, seed=7, runs=500, key="k", limit_qps=0, fault_share=20)
