"""Summaries first and details later, in any order, come to the same ledger as details alone.

The whole ledger, row by row; only the day of a charge can be better known by summaries, and where is worked out here:
a parse, workflow or edit run tells its creation in a list alone.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pipeline.catalog import Lake
from pipeline.lake import LakeFiles
from pipeline.sandbox.model import Run
from pipeline.sandbox.world import World
from tests.test_credit_ledger import (
    Arrival,
    Line,
    charge,
    detail,
    entry,
    land_all,
    line,
    summary,
    usage,
)
from tests.worlds import make_squeezed_world

COLUMNS = (
    "resource_kind, resource_id, product, unit, quantity, credits, basis, charged_on, caused_by_run_id, workspace_id"
)
Row = dict[str, Any]


@pytest.fixture
def lake_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def read_ledger(folder: Path) -> list[Row]:
    with Lake(folder) as catalog:
        return catalog.sql(f"SELECT {COLUMNS} FROM credit_ledger").to_arrow_table().to_pylist()


def ledger_of(loads: list[list[Arrival]]) -> list[Row]:
    """Return the ledger of a new lake in which these loads have landed, each received an hour after the one before."""
    with tempfile.TemporaryDirectory() as folder:
        land_all(LakeFiles(folder), loads, in_one_load=False)
        return read_ledger(Path(folder))


def lines_of(rows: list[Row]) -> Counter[Line]:
    return Counter(tuple(value for name, value in row.items() if name != "workspace_id") for row in rows)


def but_for_the_day(rows: list[Row]) -> Counter[Line]:
    return Counter(tuple(value for name, value in row.items() if name != "charged_on") for row in rows)


def cut(arrivals: list[Arrival], places: list[int]) -> list[list[Arrival]]:
    """Return the arrivals in their order, as loads that end at these places."""
    ends = [*sorted({place % len(arrivals) for place in places} - {0}), len(arrivals)]
    return [arrivals[start:end] for start, end in zip([0, *ends], ends, strict=False)]


NO_SHRINKING = [Phase.explicit, Phase.reuse, Phase.generate]  # each example is several landings
CUTS = st.lists(st.integers(0, 10_000), max_size=3)


# Worked out by hand


@dataclass(frozen=True)
class Story:
    """What lists and by-ID endpoints tell of some runs, and the ledger that both, and details alone, come to."""

    summaries: tuple[Arrival, ...]
    details: tuple[Arrival, ...]
    both: tuple[Line, ...]
    details_alone: tuple[Line, ...]


EXTRACT_1 = usage(3, 5, entry("exr_1", 3, charge("extraction_performance", 3)),
                  entry("pr_1", 2, charge("parse_performance", 2)))  # fmt: skip
EXTRACT_1_LINE = line("exr_1", "3", "own", product="extraction_performance", quantity="1")
FILE = {"object": "file", "id": "file_3", "name": "form.pdf"}

STORIES = (
    # A parse run and the run that caused it, each told twice: the parse run's day becomes its own.
    Story(
        (summary("exr_1", usage(3, 5), parseRunId="pr_1"),
         summary("pr_1", usage(2, 2), created="2026-11-03T00:00:01Z")),
        (detail("exr_1", EXTRACT_1, parseRunId="pr_1"),
         detail("pr_1", usage(2, 2, entry("pr_1", 2, charge("parse_performance", 2))), created=None)),
        (EXTRACT_1_LINE,
         line("pr_1", "2", "own", "2026-11-03", "exr_1", product="parse_performance", quantity="1")),
        (EXTRACT_1_LINE, line("pr_1", "2", "own", "2026-11-02", "exr_1", product="parse_performance", quantity="1")),
    ),
    # A parse run that is gone, and a second run that used its text: inferred from summaries, exact with the detail.
    Story(
        (summary("exr_2", usage(3, 5), parseRunId="pr_2"), summary("clr_2", usage(0.7, 0.7), parseRunId="pr_2")),
        (detail("exr_2", usage(3, 5, entry("exr_2", 3), entry("pr_2", 2)), parseRunId="pr_2"),
         detail("clr_2", usage(0.7, 0.7, entry("clr_2", 0.7)), parseRunId="pr_2")),
        (line("exr_2", "3", "own"), line("pr_2", "2", "breakdown", caused_by="exr_2"), line("clr_2", "0.7", "own")),
        (line("exr_2", "3", "own"), line("pr_2", "2", "breakdown", caused_by="exr_2"), line("clr_2", "0.7", "own")),
    ),
    # An edit run and the form detection that it caused, which no list shows: both days are the edit run's.
    Story(
        (summary("edr_3", usage(2, 3.5), created="2026-11-04T12:00:00Z", file=FILE),),
        (detail("edr_3", usage(2, 3.5, entry("edr_3", 2), entry("sgr_3", 1.5)), created=None, file=FILE),
         detail("sgr_3", usage(1.5, 1.5, entry("sgr_3", 1.5)), created=None, file=FILE)),
        (line("edr_3", "2", "own", "2026-11-04"), line("sgr_3", "1.5", "own", "2026-11-04", "edr_3")),
        (line("edr_3", "2", "own", None), line("sgr_3", "1.5", "own", None, "edr_3")),
    ),
    # A workflow above a run with its parse run, and above a child that is gone: own, the cause's, the workflow's.
    Story(
        (summary("workflow_run_4", usage(6.3, 6.3), created="2026-11-05T00:00:00Z"),
         summary("exr_4", usage(3, 5), parseRunId="pr_4", created="2026-11-05T00:01:00Z")),
        (detail("workflow_run_4", usage(6.3, 6.3, entry("exr_4", 3), entry("pr_4", 2), entry("clr_4", 1.3)),
                created=None),
         detail("exr_4", usage(3, 5, entry("exr_4", 3), entry("pr_4", 2)), parseRunId="pr_4",
                created="2026-11-05T00:01:00Z")),
        (line("exr_4", "3", "own", "2026-11-05", "workflow_run_4"),
         line("pr_4", "2", "breakdown", "2026-11-05", "exr_4"),
         line("clr_4", "1.3", "workflow", "2026-11-05", "workflow_run_4")),
        (line("exr_4", "3", "own", "2026-11-05", "workflow_run_4"),
         line("pr_4", "2", "breakdown", "2026-11-05", "exr_4"),
         line("clr_4", "1.3", "workflow", None, "workflow_run_4")),
    ),
    # No detail tells what lies behind this total either: inferred it stays.
    Story(
        (summary("splr_5", usage(0.7, 1.0), parseRunId="pr_5"),),
        (detail("splr_5", usage(0.7, 1.0), parseRunId="pr_5"),),
        (line("splr_5", "0.7", "own"), line("pr_5", "0.3", "inferred", caused_by="splr_5")),
        (line("splr_5", "0.7", "own"), line("pr_5", "0.3", "inferred", caused_by="splr_5")),
    ),
    # A run whose usage nothing tells is in no line, whatever comes first.
    Story((summary("clr_6"),), (detail("clr_6"),), (), ()),
)  # fmt: skip

SUMMARIES = [arrival for story in STORIES for arrival in story.summaries]
DETAILS = [arrival for story in STORIES for arrival in story.details]
BOTH = Counter(each for story in STORIES for each in story.both)


def test_details_alone_come_to_the_ledger_worked_out_by_hand() -> None:
    assert lines_of(ledger_of([DETAILS])) == Counter(each for story in STORIES for each in story.details_alone)


@given(order=st.permutations([*SUMMARIES, *DETAILS]), places=CUTS)
@settings(max_examples=8, deadline=None, phases=NO_SHRINKING)
def test_in_any_order_and_in_any_loads_both_come_to_the_ledger_worked_out_by_hand(
    order: list[Arrival], places: list[int]
) -> None:
    assert lines_of(ledger_of(cut(order, places))) == BOTH


@pytest.mark.long
def test_lines_inferred_from_summaries_become_exact_one_by_one_and_the_credits_stay(lake_folder: Path) -> None:
    lake = LakeFiles(lake_folder)

    land_all(lake, [SUMMARIES], in_one_load=True)
    catalog = Lake(lake.folder)

    def inferred() -> dict[str, Decimal]:
        found = catalog.sql("SELECT caused_by_run_id, credits FROM credit_ledger WHERE basis = 'inferred'").fetchall()
        return dict(found)

    left = {"exr_2": Decimal(2), "edr_3": Decimal("1.5"), "exr_4": Decimal(2), "splr_5": Decimal("0.3")}
    assert inferred() == left
    for arrival in DETAILS:
        land_all(lake, [[arrival]], in_one_load=True)
        if arrival.payload["id"] == "splr_5":
            continue
        left.pop(arrival.payload["id"], None)
        if arrival.payload["id"] == "workflow_run_4":
            left.pop("exr_4", None)  # the workflow's breakdown names the parse run
        assert inferred() == left
    assert left == {"splr_5": Decimal("0.3")}
    assert lines_of(read_ledger(lake.folder)) == BOTH


# Against the world


def arrivals_of(world: World, workspace: str) -> tuple[list[Arrival], list[Arrival]]:
    """Return the summaries and the details of all runs of a workspace."""
    runs = list(world.iter_runs(workspace))
    summaries = [Arrival(world.summary(run.run_id), is_detail=False) for run in runs if run.kind.listed]
    return summaries, [Arrival(world.detail(run.run_id, "url"), is_detail=True) for run in runs]


def day_told(run: Run, *, by_list: bool) -> date | None:
    """Return the day of a run's creation where its payloads tell it."""
    carried = run.kind.carries.get("createdAt")
    return run.day if carried == "both" or (by_list and carried == "list") else None


def day_of_charge(world: World, row: Row, *, by_list: bool) -> date | None:
    """Return the day that a ledger's row must have: the resource's own, else that of the run that caused it."""
    tellers = (row["resource_id"], row["caused_by_run_id"])
    runs = (world.find(run_id) for run_id in tellers if run_id is not None)
    return next((day for run in runs if run is not None and (day := day_told(run, by_list=by_list))), None)


@pytest.mark.long
@pytest.mark.parametrize(("seed", "workspace"), [(1, 0), (2, 1)])
def test_in_any_order_and_in_any_loads_a_worlds_ledger_is_that_of_its_details_but_for_days_that_lists_alone_tell(
    seed: int, workspace: int
) -> None:
    world = make_squeezed_world(seed=seed, runs=400)
    summaries, details = arrivals_of(world, world.workspaces[workspace])
    alone = ledger_of([details])
    assert sum(row["credits"] for row in alone) == world.answers(world.workspaces[workspace]).total
    assert all(row["charged_on"] == day_of_charge(world, row, by_list=False) for row in alone)
    expected = but_for_the_day(alone)

    @given(random=st.randoms(use_true_random=False), places=CUTS)
    @settings(max_examples=3, deadline=None, phases=NO_SHRINKING)
    def check(random: Random, places: list[int]) -> None:
        order = [*summaries, *details]
        random.shuffle(order)
        both = ledger_of(cut(order, places))
        assert but_for_the_day(both) == expected
        assert all(row["charged_on"] == day_of_charge(world, row, by_list=True) for row in both)

    check()


def test_what_a_worlds_summaries_leave_inferred_its_details_make_exact_with_the_same_credits(lake_folder: Path) -> None:
    world = make_squeezed_world(seed=3, runs=500)
    workspace = world.workspaces[0]
    summaries, details = arrivals_of(world, workspace)
    lake = LakeFiles(lake_folder)
    land_all(lake, [summaries], in_one_load=True)
    inferred = [row for row in read_ledger(lake.folder) if row["basis"] == "inferred"]
    assert len(inferred) > 5
    land_all(lake, [details], in_one_load=True)
    credits: Counter[str] = Counter()
    bases: dict[str, set[str]] = defaultdict(set)
    for row in read_ledger(lake.folder):
        credits[row["resource_id"]] += row["credits"]
        bases[row["resource_id"]].add(row["basis"])
    for row in inferred:
        cause = world.run(row["caused_by_run_id"])
        (resource_id,) = cause.caused  # what an edit run causes, no summary names
        assert row["resource_id"] in (resource_id, None)
        assert (row["resource_id"] is None) == (cause.kind.object == "edit_run")
        assert row["credits"] == credits[resource_id] == world.run(resource_id).own_credits
        assert (bases[resource_id] == {"inferred"}) == (cause.breakdown_hidden and not is_told(world, resource_id))
    still = [row for row in read_ledger(lake.folder) if row["basis"] == "inferred"]
    assert 0 < len(still) < len(inferred)
    assert all(world.run(row["caused_by_run_id"]).breakdown_hidden for row in still)


def is_told(world: World, run_id: str) -> bool:
    """Return whether a run tells its own credits, or another than its cause has it in a breakdown."""
    run = world.find(run_id)
    return (run is not None and run.shows_usage) or any(
        each.shows_breakdown and run_id in each.caused for each in world.iter_runs()
    )
