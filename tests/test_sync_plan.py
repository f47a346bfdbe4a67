"""What a sync is planned to take: numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline.discover import Bounds
from pipeline.kinds import BY_OBJECT, KINDS, Kind
from pipeline.needs import LEVELS, Level, Needs
from pipeline.sync_plan import KindPlan, plan_kinds, total
from pipeline.sync_state import Gap, KindState

NOON = datetime(2026, 11, 3, 12, 0, tzinfo=UTC)
CLASSIFY, EXTRACT, PARSE, WORKFLOW, EDIT, VERIFY, FORM = (
    BY_OBJECT[f"{name}_run"]
    for name in ("classify", "extract", "parse", "workflow", "edit", "verify", "form_detection")
)
WALKED = KindState(watermark=NOON - timedelta(minutes=30), walked_at=NOON - timedelta(minutes=10), runs=1_000)
"""Walked ten minutes before noon, with a thousand runs: since then 300 a minute may have come, so 4,000 at most."""


def plan(
    kind: Kind, state: KindState, *, needs: Needs | None = None, level: Level = "credits", **bounds: Any
) -> KindPlan:
    """Return the plan of one kind alone, at noon."""
    (made,) = plan_kinds({kind: state}, needs or Needs(), Bounds(**bounds), level, now=NOON)
    return made


def test_before_the_first_walk_nobody_knows_the_most() -> None:
    made = plan(CLASSIFY, KindState())
    assert made == KindPlan(CLASSIFY, "all", 1, None, 0, None)
    assert (made.least_requests, made.most_requests) == (1, None)


def test_after_it_the_most_is_all_runs_and_as_many_new_ones_as_can_have_been_made() -> None:
    made = plan(CLASSIFY, WALKED)
    # (1,000 + 10 x 300) / 100 pages, the one that ends the walk, and one that may be short; each run may need details.
    assert (made.least_pages, made.most_pages) == (1, 42)
    assert (made.by_id, made.most_by_id) == (0, 4_200)
    assert (made.least_requests, made.most_requests) == (1, 4_242)


@pytest.mark.parametrize(
    ("runs", "minutes", "pages"),
    [(0, 0, 2), (1, 0, 3), (100, 0, 3), (101, 0, 4), (0, 1, 5), (50, 0.5, 4), (1_000, -60, 12)],
)
def test_pages_are_counted_up(runs: int, minutes: float, pages: int) -> None:
    # The last: the API's clock is an hour before this one.
    state = KindState(walked_at=NOON - timedelta(minutes=minutes), runs=runs)
    assert plan(CLASSIFY, state).most_pages == pages


@pytest.mark.parametrize("level", LEVELS)
def test_a_verify_run_is_never_planned_to_be_read(level: Level) -> None:
    made = plan(VERIFY, WALKED, level=level)
    assert (made.by_id, made.most_by_id, made.most_requests) == (0, 0, 42)


def test_without_details_only_what_is_known_is_asked_for_by_id() -> None:
    needs = Needs(unfinished=("clr_1", "clr_2", "pr_1"))
    made = plan(CLASSIFY, WALKED, needs=needs, level="none")
    assert (made.by_id, made.most_by_id) == (0, 2)
    # Unfinished parse runs, though, may come with the walk; and a full walk asks for those that it no longer sees.
    assert plan(PARSE, WALKED, needs=needs, level="none").most_by_id == 1 + 4_200
    assert plan(CLASSIFY, WALKED, needs=needs, level="none", full=True).most_by_id == 2 + 4_200


def test_the_least_by_id_is_what_no_walk_can_settle() -> None:
    needs = Needs(
        details=("workflow_run_1", "workflow_run_2", "exr_1", "edr_1"),
        found=("sgr_1", "sgr_2", "sgr_3"),
        unfinished=("pr_1", "workflow_run_3", "sgr_4"),
    )
    states = dict.fromkeys((EXTRACT, PARSE, WORKFLOW, EDIT, FORM), WALKED) | {FORM: KindState()}
    made = {each.kind: each for each in plan_kinds(states, needs, Bounds(), "credits", now=NOON)}
    assert {kind: each.by_id for kind, each in made.items()} == {EXTRACT: 0, PARSE: 0, WORKFLOW: 2, EDIT: 0, FORM: 4}
    assert {kind: each.most_by_id for kind, each in made.items()} == {
        EXTRACT: 4_201, PARSE: 4_201, WORKFLOW: 4_203, EDIT: 4_201,
        FORM: 4 + 4 * 4_200,  # any run of the others may name one
    }  # fmt: skip
    everything = plan_kinds(states, needs, Bounds(), "all", now=NOON)
    assert [each.by_id for each in everything] == [1, 0, 2, 1, 4]


def test_a_kind_without_a_list_takes_no_pages() -> None:
    made = plan(FORM, KindState(), needs=Needs(found=("sgr_1",)))
    assert made == KindPlan(FORM, "no list: runs named in a breakdown", 0, 0, 1, 1)


def test_the_most_of_all_kinds_is_known_once_each_list_was_walked() -> None:
    states = {kind: WALKED if kind.listed else KindState(followed_at=NOON) for kind in KINDS}
    plans = plan_kinds(states, Needs(), Bounds(), "credits", now=NOON)
    # Seven lists of 42 pages; 4,200 by ID of six kinds, none of verify, and 7 x 4,200 form detections.
    assert total(each.most_requests for each in plans) == 7 * 42 + 6 * 4_200 + 7 * 4_200
    assert sum(each.least_requests for each in plans) == 7
    states[PARSE] = KindState()
    assert total(each.most_requests for each in plan_kinds(states, Needs(), Bounds(), "credits", now=NOON)) is None


@pytest.mark.parametrize(
    ("kind", "bounds", "is_known"),
    [
        (CLASSIFY, {}, True),
        (CLASSIFY, {"since": NOON - timedelta(days=5)}, True),
        (CLASSIFY, {"since": NOON - timedelta(days=20)}, False),
        (CLASSIFY, {"full": True}, False),
        (CLASSIFY, {"full": True, "since": NOON - timedelta(days=10)}, True),
        (PARSE, {}, False),  # its list holds the older ones, too, in no order
    ],
)
def test_nobody_knows_how_many_runs_there_are_before_since(kind: Kind, bounds: dict[str, Any], is_known: bool) -> None:
    state = KindState(walked_at=NOON, back_to=NOON - timedelta(days=10), runs=1_000)
    assert plan(kind, state, **bounds).most_pages == (12 if is_known else None)


GAP = Gap("t2", NOON, NOON, None)


@pytest.mark.parametrize(
    ("kind", "state", "bounds", "walk"),
    [
        (CLASSIFY, KindState(), {}, "all"),
        (CLASSIFY, KindState(), {"since": NOON}, "all back to 2026-11-03 12:00"),
        (CLASSIFY, KindState(gap=GAP), {}, "all, going on where the last walk stopped"),
        (CLASSIFY, WALKED, {"full": True}, "all"),
        (CLASSIFY, KindState(gap=GAP), {"full": True}, "all"),
        (CLASSIFY, KindState(gap=GAP), {"until": NOON}, "all"),
        (CLASSIFY, replace(WALKED, gap=GAP), {}, "back to 2026-11-03 11:30, going on where the last walk stopped"),
        (PARSE, replace(WALKED, gap=GAP), {}, "until 2 pages bring nothing new, going on where the last walk stopped"),
        # The watermark is older than the overlap before the last walk began, 11:45.
        (CLASSIFY, WALKED, {}, "back to 2026-11-03 11:30"),
        (CLASSIFY, KindState(walked_at=NOON), {}, "back to 2026-11-03 11:55"),
        (CLASSIFY, KindState(walked_at=NOON), {"overlap": timedelta(minutes=20)}, "back to 2026-11-03 11:40"),
        (CLASSIFY, WALKED, {"since": NOON - timedelta(days=9)}, "back to 2026-11-03 11:30"),
        (PARSE, WALKED, {}, "until 2 pages bring nothing new"),
        (PARSE, WALKED, {"full": True}, "all"),
        (FORM, KindState(), {}, "no list: runs named in a breakdown"),
    ],
)
def test_a_person_reads_what_will_be_walked(kind: Kind, state: KindState, bounds: dict[str, Any], walk: str) -> None:
    assert plan(kind, state, **bounds).walk == walk


def test_a_sum_with_an_unknown_is_unknown() -> None:
    assert total([1, 2, 3]) == 6
    assert total([]) == 0
    assert total([1, None, 3]) is None
