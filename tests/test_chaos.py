"""The network at its worst: real fetches from the real sandbox through a proxy that spoils answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from pipeline.catalog import Lake
from pipeline.config import Connection, Secret
from pipeline.fetch import FetchOptions, fetch_planned, plan_fetch
from pipeline.ids import FoundId
from pipeline.lake import LakeFiles
from pipeline.loads import LoadResult, recover
from pipeline.sandbox.server import serve
from pipeline.sandbox.world import World
from tests.chaos_proxy import HARMFUL, HARMLESS, STALLS, ChaosProxy, always, at_first, chaos_proxy, mix
from tests.simulated import SpedUp
from tests.test_fetch import assert_answers_are_the_worlds
from tests.worlds import make_squeezed_world


@pytest.fixture(scope="module")
def world() -> World:
    """A world with all kinds of run, of few days."""
    return make_squeezed_world(seed=11, runs=400)


FAST = SpedUp(1000)
"""Waits of seconds take milliseconds."""


def fetch(run_ids: Sequence[str], lake: LakeFiles, connection: Connection | ChaosProxy, **options: Any) -> LoadResult:
    """Fetch as `pipeline fetch` does, with waits a thousand times as fast and half a second for each request."""
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


def check_mix(lake: LakeFiles, world: World, *, seed: int, timeout_s: float) -> None:
    """Let 30 % of all answers be faulty, beside some runs that are deleted and some that never come."""
    run_ids = readable(world)
    gone = world.deleted_ids(world.workspaces[0])[:5]
    never = {run_ids[number * 7]: fault for number, fault in enumerate(("other_run", "error_500", "reset_in_body"))}
    chance, lost = mix(0.3, seed=seed), always(never)
    with (
        serve(world) as server,
        chaos_proxy(
            server.base_url, lambda asked, before: lost(asked, before) or chance(asked, before), other_ids=run_ids
        ) as proxy,
    ):
        result = fetch([*run_ids, *gone], lake, proxy, timeout_s=timeout_s)
    assert 0.25 < sum(proxy.met.values()) / sum(proxy.asked.values()) < 0.4
    assert dead_letters(lake) == {
        **dict.fromkeys(gone, ("NOT_FOUND", 404)),
        **dict(zip(never, [("WRONG_ID", 200), ("INTERNAL_ERROR", 500), ("CONNECTION_LOST", None)], strict=True)),
    }
    rest = sorted({*run_ids} - {*never})
    assert landed(lake) == rest
    assert (result.landed, result.missing, result.failed, result.error) == (len(rest), 5, 3, None)
    assert_answers_are_the_worlds(lake, world, rest)


def test_with_three_answers_in_ten_faulty_every_run_lands_that_can_and_the_rest_is_told(
    lake: LakeFiles, world: World
) -> None:
    check_mix(lake, world, seed=1, timeout_s=0.3)


@pytest.mark.long
@pytest.mark.parametrize("seed", [2, 3])
def test_with_three_answers_in_ten_faulty_thousands_of_runs_land(lake: LakeFiles, seed: int) -> None:
    check_mix(lake, make_squeezed_world(seed=seed, runs=3_000), seed=seed, timeout_s=1.0)


# Each fault by itself

REASONS: dict[str, tuple[str, int | None]] = {
    **dict.fromkeys(
        (
            "html_200", "empty_200", "error_200", "named_twice", "cut_json", "invalid_utf8", "utf16", "nested_1000",
            "too_many_digits", "gzip_cut", "gzip_wrong_sum", "no_length_and_cut",
        ),
        ("BROKEN_BODY", 200),
    ),
    **dict.fromkeys(("other_run", "other_kind"), ("WRONG_ID", 200)),
    **dict.fromkeys(
        (
            "reset_before_head", "reset_in_head", "reset_in_body", "half_closed_before_head", "half_closed_in_head",
            "half_closed_in_body", "length_too_long", "length_no_number", "length_negative", "two_lengths",
            "chunks_cut", "no_http", "length_too_short",
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
    # Behind an answer that is longer than it says, or ends in mid-air, what comes is no answer to the next request.
    assert {faulty[run_id]: proxy.asked[run_id] for run_id in faulty if proxy.asked[run_id] != 2} == {}
    assert landed(lake) == sorted(run_ids)
    assert (result.landed, result.failed, result.error) == (len(run_ids), 0, None)
    assert_answers_are_the_worlds(lake, world, run_ids)


def test_a_run_whose_answers_are_all_faulty_is_a_dead_letter_with_its_reason_and_the_others_land(
    lake: LakeFiles, world: World
) -> None:
    assert set(REASONS) == set(HARMFUL)
    faulty, others = one_each(world, HARMFUL)
    with (
        serve(world) as server,
        chaos_proxy(server.base_url, always(faulty), other_ids=[*faulty, *others]) as proxy,
    ):
        result = fetch([*faulty, *others], lake, proxy, timeout_s=0.15)
    letters = dead_letters(lake)
    assert {faulty[run_id]: letters.get(run_id) for run_id in faulty} == REASONS
    assert landed(lake) == sorted(others)
    assert (result.landed, result.failed, result.error) == (len(others), len(faulty), None)


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
