"""The credit ledger: every credit once, worked out by hand for each rule, and against the world for all at once."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog import Lake
from pipeline.lake import LakeFiles
from pipeline.loads import Load
from pipeline.sandbox.world import World
from tests.conftest import NOON, land

Payload = dict[str, Any]
Line = tuple[Any, ...]

FIRST_COLUMNS = (
    "resource_kind", "resource_id", "product", "unit", "quantity", "credits", "basis", "charged_on", "caused_by_run_id",
    "processor_id", "processor_name", "processor_version", "workspace_id",
)  # fmt: skip
MORNING = "2026-11-02T09:30:00Z"
OBJECTS = {
    "clr": "classify_run", "exr": "extract_run", "splr": "split_run", "pr": "parse_run", "edr": "edit_run",
    "workflow_run": "workflow_run", "sgr": "form_detection_run", "vr": "verify_run", "trr": "transcribe_run",
}  # fmt: skip


@dataclass(frozen=True)
class Arrival:
    """A payload, and whether it is a by-ID detail or a list summary."""

    payload: Payload
    is_detail: bool


def entry(run_id: str, credits: float, *charges: Payload, **fields: Any) -> Payload:
    """Return an entry of a breakdown."""
    lines = {"charges": list(charges)} if charges else {}
    return {"object": OBJECTS[run_id.rpartition("_")[0]], "id": run_id, "credits": credits, **lines, **fields}


def charge(product: str, credits: float, quantity: float = 1, unit: str = "page") -> Payload:
    """Return a line of an entry's charges."""
    return {"product": product, "unit": unit, "quantity": quantity, "credits": credits}


def usage(credits: float, total: float | None = None, *breakdown: Payload) -> Payload:
    """Return a run's usage; without a total as before 2026-05-14, without a breakdown as a list shows it."""
    totals = {} if total is None else {"totalCredits": total}
    return {"credits": credits, **totals, **({"breakdown": list(breakdown)} if breakdown else {})}


def made(run_id: str, used: Payload | None, *, created: str | None, is_detail: bool, **fields: Any) -> Arrival:
    times = {} if created is None else {"createdAt": created, "updatedAt": created}
    payload = {
        "object": OBJECTS[run_id.rpartition("_")[0]], "id": run_id, "status": "PROCESSED", "usage": used,
        **times, **fields,
    }  # fmt: skip
    return Arrival(payload, is_detail)


def detail(run_id: str, used: Payload | None = None, *, created: str | None = MORNING, **fields: Any) -> Arrival:
    """Return a by-ID detail as it arrives; `created=None` where the endpoint does not say it."""
    return made(run_id, used, created=created, is_detail=True, **fields)


def summary(run_id: str, used: Payload | None = None, *, created: str = MORNING, **fields: Any) -> Arrival:
    """Return an entry of a list page as it arrives."""
    return made(run_id, used, created=created, is_detail=False, **fields)


def line(
    run_id: str, credits: str, basis: str, charged_on: str | None = "2026-11-02", caused_by: str | None = None,
    product: str | None = None, quantity: str | None = None, unit: str | None = None,
) -> Line:  # fmt: skip
    """Return a line of the ledger, without the workspace."""
    kind = OBJECTS[run_id.rpartition("_")[0]]
    counted = None if quantity is None else Decimal(quantity)
    unit = unit or (None if product is None else "page")
    on = None if charged_on is None else date.fromisoformat(charged_on)
    return (kind, run_id, product, unit, counted, Decimal(credits), basis, on, caused_by)


@dataclass(frozen=True)
class Case:
    """Payloads, and the lines that they come to in whatever order they arrive."""

    arrivals: tuple[Arrival, ...]
    lines: tuple[Line, ...]


EXTRACT_OF_1 = usage(3, 5, entry("exr_1", 3, charge("extraction_performance", 3)),
                     entry("pr_1", 2, charge("parse_performance", 2)))  # fmt: skip
EXTRACT_OF_1_LINE = line("exr_1", "3", "own", product="extraction_performance", quantity="1")

CASES: dict[str, Case] = {
    "a run's own line, from the time before totals": Case(
        (summary("pr_1", usage(2)),),
        (line("pr_1", "2", "own"),),
    ),
    "a run's own line is split by its charges": Case(
        (detail("clr_1", usage(7.5, 7.5, entry("clr_1", 7.5, charge("classification_performance", 5, 5),
                                               charge("agent_usage", 2.5, 0.03125, "usd")))),),
        (line("clr_1", "5", "own", product="classification_performance", quantity="5"),
         line("clr_1", "2.5", "own", product="agent_usage", quantity="0.03125", unit="usd")),
    ),
    "charges that do not add up to the own line leave it whole and without a product": Case(
        (detail("clr_1", usage(3, 3, entry("clr_1", 3, charge("classification_performance", 1),
                                           charge("review_agent", 1)))),),
        (line("clr_1", "3", "own"),),
    ),
    "an entry without charges, from the time before them, is one line without a product": Case(
        (detail("exr_1", usage(3, 5, entry("exr_1", 3), entry("pr_1", 2, charges=[]))),),
        (line("exr_1", "3", "own"), line("pr_1", "2", "breakdown", caused_by="exr_1")),
    ),
    "a run that is known from a breakdown alone is charged by it, on the day of the run that caused it": Case(
        (detail("exr_1", EXTRACT_OF_1),),
        (EXTRACT_OF_1_LINE,
         line("pr_1", "2", "breakdown", caused_by="exr_1", product="parse_performance", quantity="1")),
    ),
    "a run's own row goes before the breakdown of the run that caused it, and so does its day": Case(
        (detail("exr_1", EXTRACT_OF_1), summary("pr_1", usage(2.5), created="2026-11-05T00:00:00Z")),
        (EXTRACT_OF_1_LINE, line("pr_1", "2.5", "own", "2026-11-05", caused_by="exr_1")),
    ),
    "a run whose own row has no usage is charged by the breakdown, on the day of its own creation": Case(
        (detail("exr_1", EXTRACT_OF_1), summary("pr_1", created="2026-11-05T00:00:00Z")),
        (EXTRACT_OF_1_LINE,
         line("pr_1", "2", "breakdown", "2026-11-05", caused_by="exr_1", product="parse_performance", quantity="1")),
    ),
    "a run whose detail does not tell its creation takes the day of the run that caused it": Case(
        (detail("exr_1", EXTRACT_OF_1), detail("pr_1", usage(2), created=None)),
        (EXTRACT_OF_1_LINE, line("pr_1", "2", "own", caused_by="exr_1")),
    ),
    "a run whose creation nothing tells has no day": Case(
        (detail("pr_1", usage(2), created=None, file={"object": "file", "id": "file_1",
                                                      "createdAt": "2026-10-30T08:00:00Z"}),),
        (line("pr_1", "2", "own", None),),
    ),
    "a summary that comes as well tells the day": Case(
        (detail("edr_1", usage(2, 3, entry("edr_1", 2), entry("sgr_1", 1)), created=None),
         summary("edr_1", usage(2, 3), created="2026-11-04T12:00:00Z")),
        (line("edr_1", "2", "own", "2026-11-04"), line("sgr_1", "1", "breakdown", "2026-11-04", caused_by="edr_1")),
    ),
    "own row, then the run that caused it, then the workflow above both, which is not charged itself": Case(
        (detail("workflow_run_1", usage(6.5, 6.5, entry("exr_1", 3.25), entry("pr_1", 2.25), entry("clr_1", 1)),
                created=None),
         summary("workflow_run_1", usage(6.5, 6.5), created="2026-11-01T00:00:00Z"),
         detail("exr_1", usage(3, 5, entry("exr_1", 3), entry("pr_1", 2)))),
        (line("exr_1", "3", "own", caused_by="workflow_run_1"), line("pr_1", "2", "breakdown", caused_by="exr_1"),
         line("clr_1", "1", "workflow", "2026-11-01", caused_by="workflow_run_1")),
    ),
    "a workflow's children have no day where neither they nor it tell a creation": Case(
        (detail("workflow_run_1", usage(1, 1, entry("clr_1", 1)), created=None,
                initialRunAt="2026-11-01T00:00:00Z"),),
        (line("clr_1", "1", "workflow", None, caused_by="workflow_run_1"),),
    ),
    "the run that caused another stands nearer to it than the workflow does": Case(
        (detail("workflow_run_1", usage(5, 5, entry("exr_1", 3), entry("pr_1", 2)), created="2026-11-01T00:00:00Z"),
         detail("exr_1", usage(3, 5, entry("exr_1", 3), entry("pr_1", 2)), created="2026-11-03T00:00:00Z"),
         detail("pr_1", usage(2), created=None)),
        (line("exr_1", "3", "own", "2026-11-03", caused_by="workflow_run_1"),
         line("pr_1", "2", "own", "2026-11-03", caused_by="exr_1")),
    ),
    "a workflow run alone charges nothing, whatever its total": Case(
        (summary("workflow_run_1", usage(6, 9), parseRunId="pr_1"),),
        (),
    ),
    "where only a total is known, what lies beyond the own line is charged to the parse run as inferred": Case(
        (summary("exr_1", usage(3, 5), parseRunId="pr_1"),),
        (line("exr_1", "3", "own"), line("pr_1", "2", "inferred", caused_by="exr_1")),
    ),
    "an inferred line takes the day of the parse run's own creation": Case(
        (summary("exr_1", usage(3, 5), parseRunId="pr_1"), summary("pr_1", created="2026-11-05T00:00:00Z")),
        (line("exr_1", "3", "own"), line("pr_1", "2", "inferred", "2026-11-05", caused_by="exr_1")),
    ),
    "nothing is inferred for a parse run whose own row tells its credits": Case(
        (summary("exr_1", usage(3, 5), parseRunId="pr_1"), summary("pr_1", usage(2))),
        (line("exr_1", "3", "own"), line("pr_1", "2", "own")),
    ),
    "nothing is inferred for a parse run that a workflow's breakdown charges": Case(
        (summary("exr_1", usage(3, 5), parseRunId="pr_1"),
         detail("workflow_run_1", usage(5, 5, entry("exr_1", 3), entry("pr_1", 2)), created=None)),
        (line("exr_1", "3", "own", caused_by="workflow_run_1"),
         line("pr_1", "2", "workflow", None, caused_by="workflow_run_1")),
    ),
    "a parse run shared by two runs is charged once, to the one that caused it": Case(
        (detail("exr_1", EXTRACT_OF_1, parseRunId="pr_1"),
         detail("clr_1", usage(1, 1, entry("clr_1", 1)), parseRunId="pr_1")),
        (EXTRACT_OF_1_LINE,
         line("pr_1", "2", "breakdown", caused_by="exr_1", product="parse_performance", quantity="1"),
         line("clr_1", "1", "own")),
    ),
    "a parse run shared by two runs of which only totals are known is inferred once": Case(
        (summary("exr_2", usage(3, 5), parseRunId="pr_1"), summary("exr_1", usage(3, 3), parseRunId="pr_1")),
        (line("exr_1", "3", "own"), line("exr_2", "3", "own"), line("pr_1", "2", "inferred", caused_by="exr_2")),
    ),
    "a parse run that two totals both hold is inferred once": Case(
        (summary("exr_2", usage(3, 5), parseRunId="pr_1"), summary("exr_1", usage(3, 5), parseRunId="pr_1")),
        (line("exr_1", "3", "own"), line("exr_2", "3", "own"), line("pr_1", "2", "inferred", caused_by="exr_1")),
    ),
    "an inferred line becomes exact when the detail comes": Case(
        (summary("exr_1", usage(3, 5), parseRunId="pr_1"), detail("exr_1", EXTRACT_OF_1, parseRunId="pr_1")),
        (EXTRACT_OF_1_LINE,
         line("pr_1", "2", "breakdown", caused_by="exr_1", product="parse_performance", quantity="1")),
    ),
    "a run without usage is in no line": Case((detail("clr_1"), summary("clr_1")), ()),
    "a run that was charged nothing has a line of zero": Case(
        (detail("clr_1", usage(0)),),
        (line("clr_1", "0", "own"),),
    ),
    "a credit belongs to the UTC day of creation": Case(
        (summary("pr_1", usage(1), created="2026-10-31T23:59:59.999999Z"),
         summary("pr_2", usage(1), created="2026-11-01T00:00:00Z")),
        (line("pr_1", "1", "own", "2026-10-31"), line("pr_2", "1", "own", "2026-11-01")),
    ),
    "a credit belongs to the UTC day of creation, in whichever zone it is told": Case(
        (summary("pr_3", usage(1), created="2026-11-01T01:30:00+02:00"),
         summary("pr_4", usage(1), created="2026-10-31T19:00:00-05:00")),
        (line("pr_3", "1", "own", "2026-10-31"), line("pr_4", "1", "own", "2026-11-01")),
    ),
    # In binary floats 0.3 + 0.3 + 0.3 is 0.8999999999999999, and 1.0 - 0.7 is 0.30000000000000004.
    "three charges of 0.3 add up to 0.9": Case(
        (detail("clr_1", usage(0.9, 0.9, entry("clr_1", 0.9, charge("a", 0.3), charge("b", 0.3), charge("c", 0.3)))),),
        tuple(line("clr_1", "0.3", "own", product=product, quantity="1") for product in "abc"),
    ),
    "what lies beyond 0.7 of 1.0 is 0.3": Case(
        (summary("exr_1", usage(0.7, 1.0), parseRunId="pr_1"),),
        (line("exr_1", "0.7", "own"), line("pr_1", "0.3", "inferred", caused_by="exr_1")),
    ),
    "credits that a review changed go before the charges of the version before": Case(
        (detail("exr_1", EXTRACT_OF_1, parseRunId="pr_1"),
         summary("exr_1", usage(4, 6), parseRunId="pr_1", updatedAt="2026-11-02T10:00:00Z")),
        (line("exr_1", "4", "own"),
         line("pr_1", "2", "breakdown", caused_by="exr_1", product="parse_performance", quantity="1")),
    ),
    "a run whose kind nothing tells is charged like any other": Case(
        (Arrival({"id": "trr_1", "status": "PROCESSED", "usage": {"credits": 2}, "createdAt": MORNING}, True),),
        ((None, "trr_1", None, None, None, Decimal(2), "own", date(2026, 11, 2), None),),
    ),
    "of two runs whose breakdowns both tell of a third, the first by ID has caused it": Case(
        (detail("exr_2", usage(3, 5, entry("exr_2", 3), entry("pr_1", 2)), created="2026-11-01T00:00:00Z"),
         detail("exr_1", usage(3, 6, entry("exr_1", 3), entry("pr_1", 3)))),
        (line("exr_1", "3", "own"), line("exr_2", "3", "own", "2026-11-01"),
         line("pr_1", "3", "breakdown", caused_by="exr_1")),
    ),
    "an entry that does not tell its credits leaves them to whoever does": Case(
        (detail("exr_1", usage(3, 5, entry("exr_1", 3), {"object": "parse_run", "id": "pr_1"}), parseRunId="pr_1"),
         detail("workflow_run_1", usage(5, 5, entry("pr_1", 2)), created="2026-11-01T00:00:00Z")),
        (line("exr_1", "3", "own"), line("pr_1", "2", "workflow", "2026-11-01", caused_by="workflow_run_1")),
    ),
    "an edit run's total beyond its own line is inferred for the form detection that it caused": Case(
        (summary("edr_1", usage(2, 3), file={"object": "file", "id": "file_1"}),),
        (line("edr_1", "2", "own"),
         ("form_detection_run", None, None, None, None, Decimal(1), "inferred", date(2026, 11, 2), "edr_1")),
    ),
    "nothing is inferred for a form detection of the same file whose own row tells its credits": Case(
        (summary("edr_1", usage(2, 3), file={"object": "file", "id": "file_2"}),
         detail("sgr_1", usage(1), created=None, file={"object": "file", "id": "file_2"})),
        (line("edr_1", "2", "own"), line("sgr_1", "1", "own", None)),
    ),
    "a total beyond the own line without a parse run is inferred for one that is not known": Case(
        (summary("exr_1", usage(3, 5)), summary("exr_2", usage(3, 4))),
        (line("exr_1", "3", "own"), line("exr_2", "3", "own"),
         ("parse_run", None, None, None, None, Decimal(2), "inferred", date(2026, 11, 2), "exr_1"),
         ("parse_run", None, None, None, None, Decimal(1), "inferred", date(2026, 11, 2), "exr_2")),
    ),
    "a kind of run that is not known yet is charged as it is told": Case(
        (detail("exr_1", usage(3, 5, entry("exr_1", 3), entry("trr_1", 2))),),
        (line("exr_1", "3", "own"), line("trr_1", "2", "breakdown", caused_by="exr_1")),
    ),
}  # fmt: skip

MOST = max(len(case.arrivals) for case in CASES.values())
_IDS = re.compile(rf'"({"|".join(OBJECTS)})_(\d+)"')


def tagged(payload: Payload, number: int) -> Payload:
    """Return a payload with its IDs marked by the number of its case, so that all cases can share a lake."""
    renamed: Payload = json.loads(_IDS.sub(rf'"\1_{number}x\2"', json.dumps(payload)))
    return renamed


def untagged(run_id: str | None, number: int) -> str | None:
    return run_id and run_id.replace(f"_{number}x", "_")


def read_ledger(folder: Path) -> dict[str, Counter[Line]]:
    """Return each case's lines of a lake that all cases share."""
    columns = (
        "resource_kind, resource_id, product, unit, quantity, credits, basis, charged_on, caused_by_run_id, "
        "workspace_id"
    )
    found: dict[str, Counter[Line]] = {name: Counter() for name in CASES}
    names = list(CASES)
    with Lake(folder) as catalog:
        assert catalog.credit_ledger().columns[:13] == list(FIRST_COLUMNS)
        for row in catalog.sql(f"SELECT {columns} FROM credit_ledger").fetchall():
            kind, run_id, *rest, cause, workspace_id = row
            assert workspace_id is None
            # A resource without an ID is of the case of the run that tells of it.
            number = int((run_id or cause).rpartition("_")[2].partition("x")[0])
            found[names[number]][(kind, untagged(run_id, number), *rest, untagged(cause, number))] += 1
    return found


def differing(found: dict[str, Counter[Line]], expected: dict[str, Counter[Line]]) -> dict[str, Any]:
    """Return the cases that came out wrong: the lines that are there and should not be, and those that are missing."""
    return {
        name: (dict(found[name] - expected[name]), dict(expected[name] - found[name]))
        for name in expected
        if found[name] != expected[name]
    }


def land_all(lake: LakeFiles, rounds: list[list[Arrival]], *, in_one_load: bool) -> None:
    """Land the rounds one after the other, each received an hour after the one before."""
    load = Load(lake, command="load", source="test")
    for hour, arrivals in enumerate(rounds):
        for arrival in arrivals:
            body = json.dumps(arrival.payload).encode()
            received = NOON + timedelta(hours=hour)
            load.take_run(
                arrival.payload["id"], body, fetched_at=received, is_detail=arrival.is_detail, workspace_id=None
            )
        if not in_one_load and hour + 1 < len(rounds):
            load.finish()
            load = Load(lake, command="load", source="test")
    load.finish()


def in_order(order: tuple[int, ...]) -> list[list[Arrival]]:
    """Return all cases' arrivals in one order: first the first of each, and so on."""
    return [
        [
            Arrival(tagged(case.arrivals[place].payload, number), case.arrivals[place].is_detail)
            for number, case in enumerate(CASES.values())
            if place < len(case.arrivals)
        ]
        for place in order
    ]


ORDERS = [
    order if number % 2 == 0 else pytest.param(order, marks=pytest.mark.long)
    for number, order in enumerate(permutations(range(MOST)))
]
"""Every order; half of them, in which each comes first once, in the ordinary run."""


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_the_ledger_is_what_was_worked_out_by_hand_in_every_order_of_arrival(
    lake: LakeFiles, tmp_path: Path, order: tuple[int, ...]
) -> None:
    expected = {name: Counter(case.lines) for name, case in CASES.items()}
    rounds = in_order(order)
    land_all(lake, rounds, in_one_load=False)
    assert differing(read_ledger(lake.folder), expected) == {}
    together = LakeFiles(tmp_path / "together")
    land_all(together, rounds, in_one_load=True)
    assert differing(read_ledger(together.folder), expected) == {}


def test_payloads_that_arrive_again_change_no_line(lake: LakeFiles) -> None:
    rounds = in_order(tuple(range(MOST)))
    land_all(lake, [*rounds, *rounds, [*rounds[-1], *rounds[0]]], in_one_load=False)
    assert differing(read_ledger(lake.folder), {name: Counter(case.lines) for name, case in CASES.items()}) == {}


def total_and_inferred(lake: LakeFiles) -> tuple[Any, ...]:
    with Lake(lake.folder) as catalog:
        (row,) = catalog.sql(
            "SELECT sum(credits), coalesce(sum(credits) FILTER (WHERE basis = 'inferred'), 0) FROM credit_ledger"
        ).fetchall()
    return row


def test_the_total_stays_while_details_come_after_summaries_and_inferred_lines_become_exact(lake: LakeFiles) -> None:
    def land_one(arrival: Arrival) -> None:
        land(lake, arrival.payload, is_detail=arrival.is_detail)

    land_one(summary("exr_1", usage(3, 5), parseRunId="pr_1"))
    land_one(summary("exr_2", usage(0.7, 1.0), parseRunId="pr_2"))
    assert total_and_inferred(lake) == (Decimal(6), Decimal("2.3"))
    land_one(detail("exr_1", EXTRACT_OF_1, parseRunId="pr_1"))
    assert total_and_inferred(lake) == (Decimal(6), Decimal("0.3"))
    land_one(detail("pr_2", usage(0.3), created=None))
    assert total_and_inferred(lake) == (Decimal(6), Decimal(0))
    land_one(summary("exr_2", usage(0.7, 1.0), parseRunId="pr_2"))
    assert total_and_inferred(lake) == (Decimal(6), Decimal(0))


def test_a_line_is_of_the_workspace_of_its_resource_else_of_the_run_that_caused_it(lake: LakeFiles) -> None:
    load = Load(lake, command="load", source="test")
    for arrival, workspace_id in (
        (detail("exr_1", usage(3, 6, entry("exr_1", 3), entry("pr_1", 2), entry("pr_2", 1))), "ws_1"),
        (summary("pr_2"), "ws_2"),
        (summary("exr_2", usage(3, 5), parseRunId="pr_3"), "ws_3"),
    ):
        body = json.dumps(arrival.payload).encode()
        load.take_run(
            arrival.payload["id"], body, fetched_at=NOON, is_detail=arrival.is_detail, workspace_id=workspace_id
        )
    load.finish()
    with Lake(lake.folder) as catalog:
        rows = catalog.sql("SELECT resource_id, workspace_id FROM credit_ledger ORDER BY ALL").fetchall()
    assert rows == [("exr_1", "ws_1"), ("exr_2", "ws_3"), ("pr_1", "ws_1"), ("pr_2", "ws_2"), ("pr_3", "ws_3")]


# The report by day and kind


def report(lake: LakeFiles) -> list[tuple[Any, ...]]:
    with Lake(lake.folder) as catalog:
        relation = catalog.credits()
        assert relation.columns == [
            "day", "kind", "credits", "charged_runs", "inferred_credits", "unknown_runs", "unknown_unfinished",
            "unknown_failed", "unknown_before_reporting", "unknown_not_reported", "data_as_of",
        ]  # fmt: skip
        return [row[:6] for row in relation.fetchall()]


def test_credits_are_summed_by_day_and_kind_with_unknown_runs_apart(lake: LakeFiles) -> None:
    details = [
        detail("exr_1", usage(3, 5, entry("exr_1", 3), entry("pr_1", 2))),
        detail("exr_2", usage(0)),
        detail("exr_3"),
        detail("exr_4", created="2026-11-03T00:00:00Z"),
        detail("pr_1", created=None),
        detail("pr_2", created=None),
        detail("pr_3", usage(1.5), created=None),
        detail("workflow_run_1", created=None),
        detail("workflow_run_2", usage(3, 3), created=None),
        detail("workflow_run_3", usage(0, 0), created=None),
    ]
    summaries = [summary("clr_1", usage(1, 3), parseRunId="pr_9"), summary("clr_2", usage(1, 1), parseRunId="pr_9")]
    land(lake, *(arrival.payload for arrival in details))
    land(lake, *(arrival.payload for arrival in summaries), is_detail=False)
    first, second = date(2026, 11, 2), date(2026, 11, 3)
    assert report(lake) == [
        (first, "classify_run", Decimal(2), 2, Decimal(0), 0),
        (first, "extract_run", Decimal(3), 2, Decimal(0), 1),
        (first, "parse_run", Decimal(4), 2, Decimal(2), 0),
        (second, "extract_run", None, 0, Decimal(0), 1),
        (None, "parse_run", Decimal("1.5"), 1, Decimal(0), 1),
        (None, "workflow_run", None, 0, Decimal(0), 1),
    ]


def test_ten_runs_of_a_tenth_of_a_credit_are_one_credit(lake: LakeFiles) -> None:
    # In binary floats the sum is 0.9999999999999999.
    land(lake, *(detail(f"clr_{number}", usage(0.1)).payload for number in range(10)))
    assert report(lake) == [(date(2026, 11, 2), "classify_run", Decimal("1.000000"), 10, Decimal(0), 0)]


def test_a_lake_without_runs_has_no_credits(lake: LakeFiles) -> None:
    lake.runs_folder.mkdir(parents=True)
    assert report(lake) == []


# Against the world

RECEIVED = datetime(2026, 11, 21, tzinfo=UTC)


def details_of(world: World, run_ids: list[str]) -> list[Payload]:
    return [world.detail(run_id, "url") for run_id in run_ids]


def summaries_of(world: World, run_ids: list[str]) -> list[Payload]:
    return [world.summary(run_id) for run_id in run_ids if world.run(run_id).kind.listed]


def assert_report_is_the_worlds(lake: LakeFiles, world: World, workspace: str, known: Any) -> None:
    right = world.answers(workspace, known=known)
    rows = report(lake)
    charged = {(day, kind): credits for day, kind, credits, runs, _inferred, _unknown in rows if runs}
    assert charged == right.credits
    assert sum(charged.values(), Decimal()) == right.total > 0
    unknown: Counter[str] = Counter()
    for _day, kind, *_rest, runs in rows:
        unknown[kind] += runs
    assert +unknown == Counter(right.unknown)
    assert unknown.total() > 0


@pytest.mark.long
@pytest.mark.parametrize(("seed", "workspace"), [(1, 0), (2, 1), (3, 1)])
def test_credits_are_those_that_the_world_knows_after_its_details_and_after_its_summaries_too(
    lake: LakeFiles, seed: int, workspace: int
) -> None:
    world = World(seed=seed, runs=400)
    name = world.workspaces[workspace]
    run_ids = world.run_ids(name)
    land(lake, *details_of(world, run_ids), fetched_at=RECEIVED)
    assert_report_is_the_worlds(lake, world, name, "detail")
    land(lake, *summaries_of(world, run_ids), is_detail=False, fetched_at=RECEIVED + timedelta(hours=1))
    assert_report_is_the_worlds(lake, world, name, "both")


@pytest.mark.long
@pytest.mark.parametrize(("seed", "workspace"), [(1, 1), (4, 0)])
def test_credits_are_those_that_the_world_knows_when_its_summaries_came_first(
    lake: LakeFiles, seed: int, workspace: int
) -> None:
    world = World(seed=seed, runs=400)
    name = world.workspaces[workspace]
    run_ids = world.run_ids(name)
    land(lake, *summaries_of(world, run_ids), is_detail=False, fetched_at=RECEIVED)
    land(lake, *details_of(world, run_ids), fetched_at=RECEIVED + timedelta(hours=1))
    assert_report_is_the_worlds(lake, world, name, "both")
