"""Fetching by ID from the sandbox, over real HTTP: each run lands once, whatever happens on the way."""

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipeline import session, staging
from pipeline.catalog import Lake
from pipeline.config import Connection
from pipeline.errors import LakeDamagedError, UsageError
from pipeline.fetch import fetch_runs
from pipeline.kinds import FINISHED
from pipeline.lake import LakeFiles
from pipeline.loads import LoadResult
from pipeline.sandbox.faults import KINDS as FAULT_KINDS
from pipeline.sandbox.faults import Faults
from pipeline.sandbox.server import SandboxServer, serve
from pipeline.sandbox.world import World
from tests.conftest import connect
from tests.logged import logged
from tests.worlds import make_squeezed_world

FAST = 5_000.0
PAUSES = ("429_seconds", "429_date", "429_reset")
"""Faults that stop everybody for a second or two: a few of them have a test of their own."""
OUTCOMES = ("landed", "unchanged", "skipped", "missing", "failed", "invalid")


def fetch(run_ids: Iterable[str], lake: LakeFiles, connection: Connection, **options: Any) -> LoadResult:
    options = {"qps": FAST, "consume_verify_results": True, **options}
    return fetch_runs(run_ids, lake=lake.folder, connection=connection, **options)


def assert_adds_up(result: LoadResult) -> None:
    assert sum(getattr(result, name) for name in OUTCOMES) == result.requested


def assert_answers_are_the_worlds(lake: LakeFiles, world: World, run_ids: list[str] | None = None) -> None:
    """Compare credits by day and kind, unknown runs and failures with what the world knows."""
    right = world.answers(world.workspaces[0], known="detail", run_ids=run_ids)
    with Lake(lake.folder) as catalog:
        credits = catalog.credits().to_arrow_table().to_pylist()
        by_day = {(row["day"], row["kind"]): row["credits"] for row in credits if row["credits"]}
        assert by_day == {key: amount for key, amount in right.credits.items() if amount}
        assert sum(by_day.values(), Decimal()) == right.total
        unknown: Counter[str] = Counter()
        for row in credits:
            unknown[row["kind"]] += row["unknown_runs"]
        assert +unknown == +Counter(right.unknown)
        failures = catalog.failures().to_arrow_table().to_pylist()
        assert {
            (row["kind"], row["reason"]): row["failed"] for row in failures if not row["is_total"]
        } == right.failures
        assert {
            tuple(row): count
            for *row, count in catalog.sql("SELECT kind, status, count(*) FROM runs GROUP BY ALL").fetchall()
        } == right.statuses


def test_all_kinds_land_once_with_the_credits_and_failures_that_the_world_knows(
    lake: LakeFiles,
) -> None:
    world = make_squeezed_world(seed=11, runs=600)
    run_ids = world.run_ids(world.workspaces[0])
    with serve(world) as server:
        result = fetch(run_ids, lake, connect(server))
    assert (result.landed, result.requests, result.field_problems) == (len(run_ids), len(run_ids), {})
    assert_adds_up(result)
    with Lake(lake.folder) as catalog:
        assert sorted(run_id for (run_id,) in catalog.sql("SELECT run_id FROM runs").fetchall()) == sorted(run_ids)
    assert_answers_are_the_worlds(lake, world)


def test_what_lands_beside_the_asking_is_staged_in_small_portions(
    lake: LakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_squeezed_world(seed=12, runs=400)
    run_ids = world.run_ids(world.workspaces[0])
    small = staging.Portions(payloads=2, rows=3, held_bytes=1)
    seen: list[staging.Portions] = []
    begin = staging.Staging.__init__

    def noting(self: staging.Staging, *arguments: Any, portions: staging.Portions) -> None:
        seen.append(portions)
        begin(self, *arguments, portions=portions)

    monkeypatch.setattr(staging.Staging, "__init__", noting)
    monkeypatch.setattr(staging, "SMALL", small)
    monkeypatch.setattr(session, "_LAND_EVERY_S", 0.1)
    monkeypatch.setattr(session, "_LANDING_SHARE", 0)
    with serve(world) as server:
        result = fetch(run_ids, lake, connect(server), qps=500)
    assert result.landed == len(run_ids)
    # Several landings while it asked, and one of what is left at the end, when nothing else is in memory.
    assert len(seen) > 2
    assert set(seen[:-1]) == {small}
    assert_answers_are_the_worlds(lake, world)


@pytest.mark.long
def test_five_thousand_runs_land_once_though_a_fifth_of_the_answers_is_faulty(lake: LakeFiles) -> None:
    world = make_squeezed_world(seed=5, runs=5_000)
    # A faulty first answer can cost a verify run's result, which no client can mend: those are left to other tests.
    run_ids = [run_id for run_id in world.run_ids(world.workspaces[0]) if not run_id.startswith("vr_")]
    kinds = tuple(kind for kind in FAULT_KINDS if kind not in PAUSES)
    with serve(world, faults=Faults(0.2, kinds, seed=1, hang_s=1.0, slow_s=0.05)) as server:
        result = fetch(run_ids, lake, connect(server))
        assert (result.landed, result.missing, result.failed) == (len(run_ids), 0, 0)
        assert result.retries > len(run_ids) // 10
        assert_answers_are_the_worlds(lake, world, run_ids)
        server.faults = None
        unfinished = [run_id for run_id in run_ids if world.detail(run_id)["status"] not in FINISHED]
        before = Counter(server.asked)
        again = fetch(run_ids, lake, connect(server))
        assert sorted((server.asked - before).elements()) == sorted(unfinished)
        assert (again.skipped, again.unchanged) == (len(run_ids) - len(unfinished), len(unfinished))
        assert_adds_up(again)


@pytest.mark.long
def test_all_runs_land_though_the_server_asks_everybody_to_wait(lake: LakeFiles, world: World) -> None:
    run_ids = world.run_ids(world.workspaces[0], kind="extract_run")[:40]
    with serve(world, faults=Faults(0.2, PAUSES, seed=2)) as server:
        result = fetch(run_ids, lake, connect(server))
        assert (result.landed, result.failed) == (40, 0)
        assert result.rate_limited == server.rate_limited > 0


def test_refresh_asks_for_all_again(server: SandboxServer, connection: Connection, lake: LakeFiles) -> None:
    run_ids = server.world.run_ids(server.world.workspaces[0], kind="classify_run")[:20]
    fetch(run_ids, lake, connection)
    result = fetch(run_ids, lake, connection, refresh=True)
    assert (result.unchanged, result.skipped, result.requests) == (20, 0, 20)


def test_a_repeated_id_is_asked_for_once(server: SandboxServer, connection: Connection, lake: LakeFiles) -> None:
    run_id, other = server.world.run_ids(server.world.workspaces[0], kind="extract_run")[:2]
    result = fetch([run_id, other, run_id, run_id], lake, connection)
    assert (result.requested, result.landed) == (2, 2)
    assert server.asked == {run_id: 1, other: 1}


def test_what_is_missing_or_no_id_does_not_stop_the_rest(
    server: SandboxServer, connection: Connection, lake: LakeFiles
) -> None:
    world = server.world
    good = world.run_ids(world.workspaces[0], kind="split_run")[:3]
    gone = world.deleted_ids(world.workspaces[0])[:2]
    result = fetch([*good, "nonsense", *gone, "clr_../admin", "nonsense"], lake, connection)
    assert {name: getattr(result, name) for name in OUTCOMES} == {
        "landed": 3, "unchanged": 0, "skipped": 0, "missing": 2, "failed": 0, "invalid": 2,
    }  # fmt: skip
    assert_adds_up(result)
    assert not result.is_complete
    with Lake(lake.folder) as catalog:
        rows = catalog.sql("SELECT run_id, reason, http_status, request_id <> '' FROM dead_letters").fetchall()
    assert rows == [(run_id, "NOT_FOUND", 404, True) for run_id in sorted(gone)]


def test_verify_runs_are_refused_unless_their_loss_is_accepted(
    server: SandboxServer, connection: Connection, lake: LakeFiles
) -> None:
    run_ids = server.world.run_ids(server.world.workspaces[0], kind="verify_run")[:3]
    refused = fetch(run_ids, lake, connection, consume_verify_results=False)
    assert (refused.invalid, refused.requests) == (3, 0)
    assert server.asked == {}
    accepted = fetch(run_ids, lake, connection)
    assert (accepted.landed, accepted.requests) == (3, 3)


def test_verify_runs_that_the_lake_has_are_skipped_and_not_refused(
    server: SandboxServer, connection: Connection, lake: LakeFiles
) -> None:
    world = server.world
    run_ids = [
        run_id
        for run_id in world.run_ids(world.workspaces[0], kind="verify_run")
        if world.summary(run_id)["status"] in FINISHED
    ][:2]
    fetch(run_ids, lake, connection)
    result = fetch(run_ids, lake, connection, consume_verify_results=False)
    assert (result.skipped, result.invalid) == (2, 0)


def test_parse_runs_are_asked_for_without_their_output(
    server: SandboxServer, connection: Connection, lake: LakeFiles
) -> None:
    world = server.world
    run_id = next(
        run_id
        for run_id in world.run_ids(world.workspaces[0], kind="parse_run")
        if world.detail(run_id)["status"] == "PROCESSED"
    )
    fetch([run_id], lake, connection)
    (path,) = lake.raw_logs()
    payload = logged(path)[run_id]
    assert "outputUrl" in payload
    assert "output" not in payload


@pytest.mark.parametrize(("key", "status"), [("wrong", "401"), ("sandbox-org", "400")])
def test_a_key_that_is_refused_gives_one_clear_message(
    server: SandboxServer, connection: Connection, lake: LakeFiles, key: str, status: str
) -> None:
    run_ids = server.world.run_ids(server.world.workspaces[0], kind="classify_run")[:30]
    refused = replace(connection, api_key=type(connection.api_key)(key))
    result = fetch(run_ids, lake, refused, concurrency=4)
    assert_adds_up(result)
    assert (result.landed, result.failed) == (0, 30)
    if status == "401":
        assert result.error is not None
        assert "HTTP 401" in result.error
        assert server.requests <= 4
        with Lake(lake.folder) as catalog:
            assert catalog.sql("SELECT DISTINCT reason, attempts FROM dead_letters").fetchall() == [("NOT_ASKED", 0)]
            assert catalog.sql("SELECT state FROM loads").fetchall() == [("stopped",)]
    else:
        with Lake(lake.folder) as catalog:
            assert catalog.sql("SELECT DISTINCT http_status FROM dead_letters").fetchall() == [(400,)]


def test_what_the_load_did_not_come_to_lands_with_a_retry_of_the_dead_letters(
    server: SandboxServer, connection: Connection, lake: LakeFiles
) -> None:
    run_ids = server.world.run_ids(server.world.workspaces[0], kind="classify_run")[:30]
    fetch(run_ids, lake, replace(connection, api_key=type(connection.api_key)("wrong")), concurrency=4)
    result = fetch(lake.read_dead_letters()["run_id"].to_pylist(), lake, connection, refresh=True)
    assert result.landed == 30
    assert len(lake.read_dead_letters()) == 0


def test_fetching_works_inside_a_running_event_loop(connection: Connection, world: World, lake: LakeFiles) -> None:
    run_ids = world.run_ids(world.workspaces[0], kind="classify_run")[:5]

    async def notebook_cell() -> LoadResult:
        return fetch(run_ids, lake, connection)

    assert asyncio.run(notebook_cell()).landed == 5


def test_runs_of_an_organization_wide_key_carry_their_workspace(server: SandboxServer, lake: LakeFiles) -> None:
    workspace = server.world.workspaces[1]
    run_ids = server.world.run_ids(workspace, kind="classify_run")[:3]
    connection = replace(connect(server), workspace_id=workspace)
    organization = replace(connection, api_key=type(connection.api_key)(server.org_key))
    assert fetch(run_ids, lake, organization).landed == 3
    with Lake(lake.folder) as catalog:
        assert catalog.sql("SELECT DISTINCT workspace_id FROM runs").fetchall() == [(workspace,)]


def test_options_out_of_range_are_refused(connection: Connection, lake: LakeFiles) -> None:
    for options, words in (
        ({"qps": 0.0}, "--qps"),
        ({"qps": float("nan")}, "--qps"),
        ({"concurrency": 0}, "--concurrency"),
    ):
        with pytest.raises(UsageError, match=words):
            fetch(["clr_1"], lake, connection, **options)


# Killed at any moment


def command(lake: LakeFiles, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipeline.cli", *arguments, "--lake", str(lake.folder)]


def environment(server: SandboxServer) -> dict[str, str]:
    return {**os.environ, "EXTEND_BASE_URL": server.base_url, "EXTEND_API_KEY": server.key}


def hear_ctrl_c() -> None:
    """Hear Ctrl-C also where the tests run in the background of a shell, which makes its commands deaf to it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def wait_until(server: SandboxServer, requests: int, process: subprocess.Popen[str], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while server.requests < requests and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)


@pytest.mark.long
def test_killed_at_ten_random_moments_nothing_is_lost_nothing_twice_and_nothing_asked_again_that_was_logged(
    lake: LakeFiles, tmp_path: Path
) -> None:
    chance = random.Random(20261123)
    world = make_squeezed_world(seed=6, runs=5_000, days=15)  # landing must take long enough to be hit
    run_ids = [run_id for run_id in world.run_ids(world.workspaces[0]) if not run_id.startswith("vr_")]
    finished = {run_id for run_id in run_ids if world.detail(run_id)["status"] in FINISHED}
    file = tmp_path / "ids.txt"
    file.write_text("\n".join(run_ids))
    with serve(world) as server:
        arguments = command(lake, "fetch", "--from", str(file), "--qps", "1500", "--quiet")
        known: set[str] = set()
        for number in range(10):
            before = Counter(server.asked)
            process = subprocess.Popen(arguments, env=environment(server), stderr=subprocess.DEVNULL, text=True)
            # Six times while it asks, and four times while it lands: the log of those before it, or its own.
            if number < 6:
                wait_until(server, server.requests + chance.randint(1, 700), process)
                time.sleep(chance.choice([0, 0.01, 0.1]))
            else:
                time.sleep(chance.uniform(0.6, 4))
            process.kill()
            process.wait()
            assert not known & set(server.asked - before)
            known = {run_id for path in lake.raw_logs() for run_id in logged(path)} & finished
            if lake.days():
                with Lake(lake.folder) as catalog:
                    assert catalog.sql("SELECT count(*) = count(DISTINCT run_id) FROM runs").fetchall() == [(True,)]
        before = Counter(server.asked)
        done = subprocess.run(arguments, env=environment(server), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert not known & set(server.asked - before)
    assert len(known) > 500
    with Lake(lake.folder) as catalog:
        assert sorted(run_id for (run_id,) in catalog.sql("SELECT run_id FROM runs").fetchall()) == sorted(run_ids)
        states = dict(catalog.sql("SELECT state, count(*) FROM loads GROUP BY ALL").fetchall())
    assert states["interrupted"] >= 4
    assert_answers_are_the_worlds(lake, world, run_ids)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_lands_what_has_arrived_and_says_how_to_go_on(lake: LakeFiles, tmp_path: Path, number: int) -> None:
    world = make_squeezed_world(seed=6, runs=600)
    run_ids = [run_id for run_id in world.run_ids(world.workspaces[0]) if not run_id.startswith("vr_")]
    file = tmp_path / "ids.txt"
    file.write_text("\n".join(run_ids))
    with serve(world) as server:
        arguments = command(lake, "fetch", "--from", str(file), "--qps", "20", "--json")
        process = subprocess.Popen(
            arguments, env=environment(server), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=hear_ctrl_c,
        )  # fmt: skip
        wait_until(server, 10, process)
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
        assert process.returncode == 3, errors
        summary = json.loads(output)
        assert 10 <= summary["landed"] < len(run_ids)
        assert summary["landed"] + summary["failed"] == summary["requested"] == len(run_ids)
        assert "pipeline retry" in errors
        done = subprocess.run(
            command(lake, "retry", "--qps", "5000", "--json"),
            env=environment(server), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["landed"] == summary["failed"]
        assert max(server.asked.values()) <= 2


@pytest.mark.long
def test_the_memory_of_a_load_does_not_hold_its_payloads(lake: LakeFiles, tmp_path: Path) -> None:
    """Fetch 300 runs of 1 MB each: all together they are three times what memory may grow by."""
    code = """
import json, resource, sys, httpx
from pipeline import fetch_runs
from pipeline.config import read_connection

def answer(request):
    run_id = request.url.path.rsplit("/", 1)[1]
    payload = {"object": "classify_run", "id": run_id, "status": "PROCESSED", "output": {"value": "x" * 1_000_000}}
    return httpx.Response(200, json=payload)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

connection = read_connection(base_url="http://127.0.0.1:1", env={"EXTEND_API_KEY": "k"})
options = {"lake": sys.argv[1], "qps": 5000, "concurrency": 4, "connection": connection}
options["transport"] = httpx.MockTransport(answer)
fetch_runs([f"clr_a{number}" for number in range(20)], **options)
before = peak()
result = fetch_runs([f"clr_b{number}" for number in range(300)], **options)
print(result.landed, peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code, str(lake.folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    landed, growth_mib = map(int, done.stdout.split())
    assert landed == 300
    assert growth_mib < 100


def test_a_second_fetch_while_one_is_running_waits_its_turn_and_both_land(
    server: SandboxServer, connection: Connection, lake: LakeFiles
) -> None:
    run_ids = server.world.run_ids(server.world.workspaces[0], kind="extract_run")
    halves = [run_ids[::2], run_ids[1::2]]
    results: list[LoadResult] = []
    threads = [
        threading.Thread(target=lambda half=half: results.append(fetch(half, lake, connection))) for half in halves
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.landed for result in results) == sorted(map(len, halves))
    with Lake(lake.folder) as catalog:
        assert catalog.sql("SELECT count(*), count(DISTINCT run_id) FROM runs").fetchall() == [(len(run_ids),) * 2]


def test_a_damaged_file_is_named_before_anything_is_asked(
    server: SandboxServer, connection: Connection, lake: LakeFiles
) -> None:
    run_ids = server.world.run_ids(server.world.workspaces[0], kind="classify_run")[:2]
    fetch(run_ids[:1], lake, connection)
    (path,) = lake.day_paths()
    Path(path).write_bytes(b"PAR1 no more")
    with pytest.raises(LakeDamagedError, match=re.escape(path)):
        fetch(run_ids, lake, connection)
    assert server.asked == {run_ids[0]: 1}
