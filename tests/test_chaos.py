"""The network at its worst: real fetches from the real sandbox through a proxy that spoils answers."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import trustme

import pipeline
from pipeline.catalog import Lake
from pipeline.config import Connection, Secret, read_connection
from pipeline.errors import UsageError
from pipeline.fetch import FetchOptions, fetch_planned, plan_fetch
from pipeline.ids import FoundId
from pipeline.kinds import kind_of
from pipeline.lake import LakeFiles
from pipeline.loads import LoadResult, recover
from pipeline.sandbox.server import serve
from pipeline.sandbox.world import World
from pipeline.sync import SyncOptions, run_sync
from tests.chaos_proxy import (
    HARMFUL,
    HARMLESS,
    STALLS,
    ChaosProxy,
    Exchange,
    Plan,
    always,
    at_first,
    chaos_proxy,
    make_bomb,
    mix,
)
from tests.simulated import SpedUp
from tests.test_fetch import assert_answers_are_the_worlds, logged
from tests.worlds import make_squeezed_world


@pytest.fixture(scope="module")
def world() -> World:
    """A world with all kinds of run, of few days."""
    return make_squeezed_world(seed=11, runs=400)


FAST = SpedUp(300)
"""Waits of seconds take milliseconds."""


def fetch(run_ids: Sequence[str], lake: LakeFiles, connection: Connection | ChaosProxy, **options: Any) -> LoadResult:
    """Fetch as `pipeline fetch` does, with waits three hundred times as fast and half a second for each request."""
    if isinstance(connection, ChaosProxy):
        connection = Connection(connection.base_url, Secret("sandbox"))
    fast: dict[str, Any] = {"qps": 5_000.0, "timeout_s": 0.5, "clock": FAST.clock, "sleep": FAST.sleep, **options}
    found = [FoundId(run_id, "here") for run_id in run_ids]
    recover(lake, tell=lambda message: None)
    with plan_fetch(found, lake, FetchOptions(**fast), report=lambda each, why: None) as plan:
        return fetch_planned(plan, lake, connection, FetchOptions(**fast))


def dead_letters(lake: LakeFiles) -> dict[str, tuple[str, int | None]]:
    with Lake(lake.folder) as catalog:
        rows = catalog.sql("SELECT run_id, reason, http_status FROM dead_letters").fetchall()
    return {run_id: (reason, status) for run_id, reason, status in rows}


def landed(lake: LakeFiles) -> list[str]:
    with Lake(lake.folder) as catalog:
        return sorted(run_id for (run_id,) in catalog.sql("SELECT run_id FROM runs").fetchall())


def readable(world: World) -> list[str]:
    """Return the runs that can be asked for twice: a spoiled first answer can cost a verify run's result for good."""
    return [run_id for run_id in world.run_ids(world.workspaces[0]) if not run_id.startswith("vr_")]


# A mix of everything


def check_mix(lake: LakeFiles, world: World, run_ids: list[str], *, seed: int, timeout_s: float) -> None:
    """Let 30 % of all answers be faulty, beside some runs that are deleted and some that never come."""
    deleted = world.deleted_ids(world.workspaces[0])
    gone = [run_id for run_id in deleted if not kind_of(run_id).reading_can_destroy][:5]
    never = {run_ids[number * 7]: fault for number, fault in enumerate(("other_run", "error_500", "reset_in_body"))}
    chance, lost = mix(0.3, seed=seed), always(never)
    with (
        serve(world) as server,
        chaos_proxy(
            server.base_url, lambda asked, before: lost(asked, before) or chance(asked, before), other_ids=run_ids
        ) as proxy,
    ):
        result = fetch([*run_ids, *gone], lake, proxy, timeout_s=timeout_s)
    others = [fault for asked in proxy.asked for n in range(proxy.asked[asked]) if (fault := chance(asked, n))]
    assert 0.2 < len(others) / sum(proxy.asked.values()) < 0.4
    letters = dead_letters(lake)
    # A page in place of the error's JSON leaves the status alone.
    assert [letters.pop(run_id) in (("NOT_FOUND", 404), ("HTTP_404", 404)) for run_id in gone] == [True] * len(gone)
    reasons = [("WRONG_ID", 200), ("INTERNAL_ERROR", 500), ("CONNECTION_LOST", None)]
    assert letters == dict(zip(never, reasons, strict=True))
    rest = sorted({*run_ids} - {*never})
    assert landed(lake) == rest
    assert (result.landed, result.missing + result.failed, result.error) == (len(rest), 8, None)
    assert_answers_are_the_worlds(lake, world, rest)


def test_with_three_answers_in_ten_faulty_every_run_lands_that_can_and_the_rest_is_told(
    lake: LakeFiles, world: World
) -> None:
    check_mix(lake, world, readable(world)[::5], seed=1, timeout_s=0.3)


@pytest.mark.long
@pytest.mark.parametrize("seed", [2, 3])
def test_with_three_answers_in_ten_faulty_thousands_of_runs_land(lake: LakeFiles, seed: int) -> None:
    world = make_squeezed_world(seed=seed, runs=3_000)
    check_mix(lake, world, readable(world), seed=seed, timeout_s=1.0)


# Each fault by itself

REASONS: dict[str, tuple[str, int | None]] = {
    **dict.fromkeys(
        (
            "html_200", "empty_200", "error_200", "named_twice", "cut_json", "invalid_utf8", "utf16", "nested_1000",
            "too_many_digits", "gzip_cut", "gzip_wrong_sum", "no_length_and_cut", "length_too_short",
        ),
        ("BROKEN_BODY", 200),
    ),
    **dict.fromkeys(("other_run", "other_kind"), ("WRONG_ID", 200)),
    **dict.fromkeys(
        (
            "reset_before_head", "reset_in_head", "reset_in_body", "half_closed_before_head", "half_closed_in_head",
            "half_closed_in_body", "length_too_long", "length_no_number", "length_negative", "two_lengths",
            "chunks_cut", "no_http",
        ),
        ("CONNECTION_LOST", None),
    ),
    **dict.fromkeys(STALLS, ("TIMEOUT", None)),
    "html_502": ("HTTP_502", 502),
    "empty_503": ("HTTP_503", 503),
    "error_500": ("INTERNAL_ERROR", 500),
    "error_429": ("RATE_LIMIT_EXCEEDED", 429),
    "error_429_wait": ("RATE_LIMIT_EXCEEDED", 429),
}  # fmt: skip


def one_each(world: World, kinds: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return a run for each kind of fault, and as many others."""
    run_ids = world.run_ids(world.workspaces[0], kind="extract_run")
    assert len(run_ids) >= 2 * len(kinds)
    return dict(zip(run_ids, kinds, strict=False)), run_ids[len(kinds) : 2 * len(kinds)]


def test_a_run_whose_first_answer_is_faulty_lands_with_the_next_one(lake: LakeFiles, world: World) -> None:
    faulty, others = one_each(world, HARMFUL)
    run_ids = [*faulty, *others]
    with serve(world) as server, chaos_proxy(server.base_url, at_first(faulty), other_ids=run_ids) as proxy:
        result = fetch(run_ids, lake, proxy)
    assert proxy.met == dict.fromkeys(HARMFUL, 1)
    # Twice; more often only where a kept connection turned out to be spoiled by the answer before.
    assert {faulty[run_id]: proxy.asked[run_id] for run_id in faulty if not 2 <= proxy.asked[run_id] <= 4} == {}
    assert landed(lake) == sorted(run_ids)
    assert (result.landed, result.failed, result.error) == (len(run_ids), 0, None)
    assert_answers_are_the_worlds(lake, world, run_ids)


@pytest.mark.parametrize(
    "kinds", [HARMFUL[::4], pytest.param(HARMFUL, marks=pytest.mark.long)], ids=["one in four", "all"]
)
def test_a_run_whose_answers_are_all_faulty_is_a_dead_letter_with_its_reason_and_the_others_land(
    kinds: Sequence[str], lake: LakeFiles, world: World
) -> None:
    assert set(REASONS) == set(HARMFUL)
    faulty, others = one_each(world, kinds)
    with (
        serve(world) as server,
        chaos_proxy(server.base_url, always(faulty), other_ids=[*faulty, *others]) as proxy,
    ):
        result = fetch([*faulty, *others], lake, proxy, timeout_s=0.15)
    letters = dead_letters(lake)
    assert {faulty[run_id]: letters.get(run_id) for run_id in faulty} == {kind: REASONS[kind] for kind in kinds}
    assert landed(lake) == sorted(others)
    assert (result.landed, result.failed, result.error) == (len(others), len(faulty), None)


@pytest.mark.long
def test_a_few_runs_that_never_come_are_no_outage_and_hold_up_nothing(lake: LakeFiles, world: World) -> None:
    run_ids = world.run_ids(world.workspaces[0], kind="classify_run")[:20]
    faulty = dict.fromkeys(run_ids[5:9], "error_500")
    slow = SpedUp(100)
    began = slow.clock()
    with serve(world) as server, chaos_proxy(server.base_url, always(faulty)) as proxy:
        result = fetch(run_ids, lake, proxy, clock=slow.clock, sleep=slow.sleep)
    assert dead_letters(lake) == dict.fromkeys(faulty, ("INTERNAL_ERROR", 500))
    assert (result.landed, result.failed, result.error) == (16, 4, None)
    assert slow.clock() - began < 800  # an outage would be waited for for 900 s


def test_odd_answers_that_are_the_right_runs_land_at_the_first_attempt(lake: LakeFiles, world: World) -> None:
    odd, others = one_each(world, HARMLESS)
    run_ids = [*odd, *others]
    with serve(world) as server, chaos_proxy(server.base_url, always(odd), other_ids=run_ids) as proxy:
        fetch(run_ids, lake, proxy, concurrency=1)
    assert proxy.met == dict.fromkeys(HARMLESS, 1)
    assert landed(lake) == sorted(run_ids)
    assert_answers_are_the_worlds(lake, world, run_ids)


# What an answer says


def test_the_answer_for_another_run_is_never_filed_under_the_one_that_was_asked_for(
    lake: LakeFiles, world: World
) -> None:
    asked, other = world.run_ids(world.workspaces[0], kind="split_run")[:2]
    with serve(world) as server, chaos_proxy(server.base_url, always({asked: "other_run"}), other_ids=[other]) as proxy:
        result = fetch([asked], lake, proxy)
    assert (result.landed, result.failed) == (0, 1)
    assert proxy.met == {"other_run": 18}
    assert dead_letters(lake) == {asked: ("WRONG_ID", 200)}
    for path in lake.raw_logs():
        assert logged(path) == {}


def test_numbers_that_are_none_null_their_field_are_told_and_the_true_ones_come_with_the_next_answer(
    lake: LakeFiles, world: World
) -> None:
    run_id = next(
        run_id
        for run_id in world.run_ids(world.workspaces[0], kind="parse_run")
        if world.detail(run_id).get("usage") and world.detail(run_id).get("metrics")
    )
    detail = world.detail(run_id)
    query = "SELECT credits, page_count, processing_ms FROM runs"

    async def spoil(way: Exchange) -> None:
        payload = json.loads(way.answer.body)
        payload["usage"] = {"credits": float("nan")}
        payload["metrics"] = {"processingTimeMs": 2**70, "pageCount": float("inf")}
        answer = replace(way.answer, body=json.dumps(payload).encode())
        await way.send(answer.head() + answer.body)

    with serve(world) as server, chaos_proxy(server.base_url, at_first({run_id: "numbers"})) as proxy:
        proxy.extra_faults["numbers"] = spoil
        spoiled = fetch([run_id], lake, proxy)
        with Lake(lake.folder) as catalog:
            assert catalog.sql(query).fetchall() == [(None, None, None)]
        again = fetch([run_id], lake, proxy, refresh=True)
    assert (spoiled.landed, again.landed) == (1, 1)
    assert {"credits", "page_count", "processing_ms"} <= set(spoiled.field_problems)
    with Lake(lake.folder) as catalog:
        (row,) = catalog.sql(query).fetchall()
    metrics = detail["metrics"]
    assert row == (Decimal(str(detail["usage"]["credits"])), metrics["pageCount"], round(metrics["processingTimeMs"]))


# Bodies without end


_IN_A_CHILD = """
import sys, time
from tests.test_chaos import fetch
from pipeline.config import Connection, Secret
from pipeline.lake import LakeFiles

def peak_mib():
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024

folder, url, good, bad = sys.argv[1], sys.argv[2], sys.argv[3].split(","), sys.argv[4].split(",")
lake, connection = LakeFiles(folder), Connection(url, Secret("sandbox"))
fetch([*good[:5], "exr_nowhere"], lake, connection)  # with what dead letters take, which only some loads have
open("/proc/self/clear_refs", "w").write("5")  # the peak from now on
before, began = peak_mib(), time.monotonic()
result = fetch(good[5:] + bad, lake, connection, timeout_s=30.0)
print(result.landed, result.failed, peak_mib() - before, time.monotonic() - began)
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory can only be read so on Linux")
def test_gzip_bombs_of_300_mb_are_refused_in_time_and_with_at_most_64_mib_more_memory(
    lake: LakeFiles, world: World
) -> None:
    run_ids = world.run_ids(world.workspaces[0], kind="extract_run")
    good, bad = run_ids[:10], run_ids[10:13]
    bomb = make_bomb(300_000_000)
    assert len(bomb) < 400_000

    async def explode(way: Exchange) -> None:
        answer = replace(way.answer, body=bomb, headers={"Content-Encoding": "gzip"})
        await way.send(answer.head() + answer.body)

    with serve(world) as server, chaos_proxy(server.base_url, always(dict.fromkeys(bad, "bomb"))) as proxy:
        proxy.extra_faults["bomb"] = explode
        done = subprocess.run(
            [sys.executable, "-c", _IN_A_CHILD, str(lake.folder), proxy.base_url, ",".join(good), ",".join(bad)],
            capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    landed_runs, failed, growth_mib, seconds = map(float, done.stdout.split())
    assert (landed_runs, failed) == (5, 3)
    assert proxy.met == {"bomb": 3}  # never asked for again by itself
    refused = dict.fromkeys(bad, ("RESPONSE_TOO_LARGE", 200))
    assert dead_letters(lake) == refused | {"exr_nowhere": ("NOT_FOUND", 404)}
    assert growth_mib <= 64
    assert seconds < 20


# Certificates

SWITCHES = {
    "PYTHONHTTPSVERIFY": "0", "CURL_CA_BUNDLE": "", "REQUESTS_CA_BUNDLE": "", "SSL_VERIFY": "false",
    "SSL_CERT_FILE": "", "NODE_TLS_REJECT_UNAUTHORIZED": "0", "GIT_SSL_NO_VERIFY": "1", "HTTPX_VERIFY": "false",
    "AIOHTTP_SSL": "false", "VERIFY_SSL": "0", "EXTEND_VERIFY": "false", "EXTEND_VERIFY_SSL": "false",
    "EXTEND_INSECURE": "1", "EXTEND_ALLOW_HTTP": "1", "PIPELINE_INSECURE": "1", "PIPELINE_ALLOW_HTTP": "1",
}  # fmt: skip
"""What switches the check of certificates off in this or another program."""


def certified(authority: trustme.CA, name: str = "localhost", **options: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, **options).configure_cert(context)
    return context


@pytest.mark.parametrize(
    "wrong",
    [
        "another name",
        *(pytest.param(each, marks=pytest.mark.long) for each in ("another authority", "expired", "not yet")),
    ],
)
def test_a_wrong_certificate_ends_the_load_before_anything_is_sent_and_the_right_one_lets_it_go_on(
    wrong: str, lake: LakeFiles, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "pem"))
    now, day = datetime.now(UTC), timedelta(days=1)
    contexts = {
        "another authority": lambda: certified(trustme.CA()),
        "another name": lambda: certified(authority, "api.extend.ai"),
        "expired": lambda: certified(authority, not_before=now - 3 * day, not_after=now - day),
        "not yet": lambda: certified(authority, not_before=now + day),
    }
    run_ids = world.run_ids(world.workspaces[0], kind="classify_run")[:5]
    with serve(world) as server:
        with chaos_proxy(server.base_url, context=contexts[wrong]()) as proxy:
            result = fetch(run_ids, lake, proxy)
        assert (result.landed, result.failed, server.requests, proxy.arrivals) == (0, 5, 0, [])
        assert result.error is not None
        assert "certificate cannot be verified" in result.error
        assert dead_letters(lake) == dict.fromkeys(run_ids, ("NOT_ASKED", None))
        with chaos_proxy(server.base_url, context=certified(authority)) as proxy:
            assert fetch(run_ids, lake, proxy).landed == 5


@pytest.mark.long
def test_no_setting_of_the_environment_switches_certificates_off(lake: LakeFiles, world: World) -> None:
    run_id = world.run_ids(world.workspaces[0], kind="classify_run")[0]
    with serve(world) as server, chaos_proxy(server.base_url, context=certified(trustme.CA())) as proxy:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", "fetch", run_id, "--lake", str(lake.folder)],
            env={**os.environ, **SWITCHES, "EXTEND_BASE_URL": proxy.base_url, "EXTEND_API_KEY": "sandbox"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode != 0
    assert "certificate cannot be verified" in done.stderr
    assert (proxy.arrivals, proxy.connections, server.requests) == ([], 0, 0)


def test_no_setting_of_the_environment_sends_the_key_over_plain_http_to_another_machine() -> None:
    for url in ("http://api.extend.ai", "HTTP://192.168.0.7:8080", "http://127.0.0.1.nip.io", "http://0.0.0.0"):
        with pytest.raises(UsageError, match="plain http"):
            read_connection(env={**SWITCHES, "EXTEND_BASE_URL": url, "EXTEND_API_KEY": "k"})


def lenient_places(source: str) -> list[int]:
    """Return the lines on which Python code stops certificates from being checked."""
    switches = {"verify", "verify_ssl", "ssl", "ssl_context", "check_hostname", "verify_mode", "trust_env_ssl"}
    loose = {"CERT_NONE", "CERT_OPTIONAL", "_create_unverified_context", "_create_stdlib_context", "check_hostname"}
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg in switches:
            lenient = isinstance(node.value, ast.Constant) and not node.value.value
        else:
            lenient = getattr(node, "attr", getattr(node, "id", None)) in loose
        if lenient:
            found.append(node.lineno)
    return found


def test_certificates_are_checked_everywhere_in_the_code() -> None:
    for sample in (
        "httpx.AsyncClient(verify=False)", "aiohttp.TCPConnector(ssl=False)", "context.check_hostname = False",
        "context.verify_mode = ssl.CERT_NONE", "ssl._create_unverified_context()",
    ):  # fmt: skip
        assert lenient_places(sample) == [1], sample
    assert lenient_places("httpx.create_ssl_context(); Transport(verify=context)") == []
    files = sorted(Path(pipeline.__file__).parent.rglob("*.py"))
    assert len(files) > 100
    assert {str(path): lines for path in files if (lines := lenient_places(path.read_text("utf-8")))} == {}


# Names


def test_a_name_that_cannot_be_resolved_is_told_and_one_that_can_be_again_is_asked(
    lake: LakeFiles, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_ids = world.run_ids(world.workspaces[0], kind="classify_run")[:3]
    key = Secret("sandbox")
    unknown = fetch(run_ids[:1], lake, Connection("http://host.invalid", key), timeout_s=30.0)
    assert (unknown.landed, unknown.failed, unknown.error) == (0, 1, None)
    assert dead_letters(lake) == {run_ids[0]: ("DNS_FAILED", None)}
    asked: list[str] = []
    resolve = socket.getaddrinfo

    def fail_twice(host: Any, *arguments: Any, **named: Any) -> Any:
        asked.append(host)
        if host == "localhost" and asked.count(host) <= 2:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return resolve(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", fail_twice)
    with serve(world) as server:
        result = fetch(run_ids, lake, Connection(f"http://localhost:{server.base_url.rsplit(':')[-1]}", key))
    assert (result.landed, result.failed) == (3, 0)
    assert asked.count("localhost") >= 3
    assert result.retries >= 1
    assert dead_letters(lake) == {}


@pytest.mark.long
def test_where_no_name_is_resolved_for_long_the_load_ends_and_the_next_one_brings_every_run(
    lake: LakeFiles, world: World
) -> None:
    run_ids = world.run_ids(world.workspaces[0], kind="extract_run")[:30]
    result = fetch(run_ids, lake, Connection("http://host.invalid", Secret("sandbox")), timeout_s=30.0)
    assert result.error is not None
    assert "the host name cannot be resolved" in result.error
    letters = dead_letters(lake)
    assert sorted(letters) == sorted(run_ids)
    assert {reason for reason, _status in letters.values()} <= {"NOT_ASKED", "DNS_FAILED"}
    with serve(world) as server, chaos_proxy(server.base_url) as proxy:
        assert fetch(list(letters), lake, proxy).landed == 30
    assert dead_letters(lake) == {}


# Ten minutes without the API, in a fortieth of the time


class Outage:
    """Takes the API away for ten minutes, twenty seconds after the first request."""

    BEGIN_S, END_S = 20.0, 620.0

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began: float | None = None

    def elapsed_s(self) -> float:
        """Return the seconds since the first request."""
        if self._began is None:
            self._began = self._clock()
        return self._clock() - self._began

    def plan(self, fault: str) -> Plan:
        """Return the plan in which every answer meanwhile has this fault."""
        return lambda asked, before: fault if self.BEGIN_S <= self.elapsed_s() < self.END_S else None

    def take_down(self, proxy: ChaosProxy, time: SpedUp) -> None:
        """Make the proxy refuse connections meanwhile."""

        async def main() -> None:
            await time.sleep(self.BEGIN_S - self.elapsed_s())
            await asyncio.to_thread(proxy.go_down)
            await time.sleep(self.END_S - self.elapsed_s())
            await asyncio.to_thread(proxy.come_up)

        asyncio.run(main())


@pytest.mark.long
@pytest.mark.parametrize("fault", ["error_429", "error_429_wait", "empty_503", "down"])
def test_ten_minutes_without_the_api_are_probed_once_a_second_and_cost_no_run(
    fault: str, lake: LakeFiles, world: World
) -> None:
    time, qps = SpedUp(40), 3.0
    run_ids = readable(world)
    outage = Outage(time.clock)
    with serve(world) as server, chaos_proxy(server.base_url, clock=outage.elapsed_s) as proxy:
        stopping = threading.Thread(target=outage.take_down, args=(proxy, time))
        if fault == "down":
            outage.elapsed_s()
            stopping.start()
        else:
            proxy.plan = outage.plan(fault)
        result = fetch(run_ids, lake, proxy, qps=qps, clock=time.clock, sleep=time.sleep)
        if fault == "down":
            stopping.join()
    assert (result.landed, result.failed, result.error) == (len(run_ids), 0, None)
    assert landed(lake) == sorted(run_ids)
    assert dead_letters(lake) == {}
    arrivals = proxy.arrivals
    if fault == "down":
        # What was refused never arrived: twenty failures to notice, then probes.
        assert 100 < result.requests - len(arrivals) <= 30 + 600
    else:
        # Half a minute to notice, then probes; those that are answered 429 come at the limiter's lowest rate at most.
        assert 20 < len([at for at in arrivals if 50 <= at < outage.END_S]) <= outage.END_S - 50 + 1
    # The plan's rate again within half a minute after it. The middle one of the gaps is looked at, not their number:
    # at this speed a processor that is busy elsewhere for half a second takes away a dozen and more.
    again = [at for at in arrivals if at >= outage.END_S + 30]
    assert len(again) > 60
    assert 0.9 / qps < median(after - before for before, after in pairwise(again)) < 1.25 / qps


# The lists


@pytest.mark.long
def test_a_sync_through_three_faulty_answers_in_ten_finds_every_run(lake: LakeFiles) -> None:
    world = make_squeezed_world(seed=4, runs=1_000)
    kinds = [kind for kind in (*HARMFUL, *HARMLESS) if kind not in ("other_run", "answered_twice", "other_kind")]
    options = SyncOptions(qps=5_000, timeout_s=1.0, clock=FAST.clock, sleep=FAST.sleep, details="all")
    with serve(world, largest_page=10) as server, chaos_proxy(server.base_url, mix(0.3, seed=4, kinds=kinds)) as proxy:
        (outcome,) = run_sync(lake, [Connection(proxy.base_url, Secret("sandbox"))], options)
    assert outcome.is_complete
    assert sum(proxy.met.values()) > 200
    # Only what a breakdown names and is deleted did not come.
    assert {*dead_letters(lake).values()} <= {("NOT_FOUND", 404)}
    assert {*dead_letters(lake)} <= {*world.deleted_ids(world.workspaces[0])}
    listed = [run_id for run_id in readable(world) if not run_id.startswith("sgr_")]
    assert set(listed) <= set(landed(lake))
    right = world.answers(world.workspaces[0], known="detail", run_ids=landed(lake))
    with Lake(lake.folder) as catalog:
        (total,) = catalog.sql("SELECT sum(credits) FROM credit_ledger").fetchall()
    assert total[0] == right.total
