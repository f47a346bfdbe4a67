"""Reports on failures and latency: dimensions, messages folded into groups, what changed, times without reviews."""

from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from pipeline.catalog import Lake
from pipeline.errors import UsageError
from pipeline.lake import LakeFiles
from pipeline.sandbox.world import World
from tests.conftest import classify, land

_NUMBERS = count()


def runs(number: int, status: str = "PROCESSED", day: str = "2026-11-02", **fields: Any) -> list[dict[str, Any]]:
    created = {"createdAt": f"{day}T09:00:00Z", "updatedAt": f"{day}T09:01:00Z"}
    return [classify(f"clr_{next(_NUMBERS)}", status=status, **{**created, **fields}) for _ in range(number)]


def by(name: str, version: str = "1.0") -> dict[str, Any]:
    return {"classifier": {"id": f"cl_{name}", "name": name}, "classifierVersion": {"id": "clv_1", "version": version}}


PDF = {"object": "file", "id": "file_1", "name": "a.pdf", "type": "PDF", "createdAt": "2026-11-02T09:00:00Z"}


# By what


PLACES: dict[str, list[Any]] = {
    "kind": [("classify_run", 3, 10)],
    "processor": [("Mail", 2, 4), (None, 1, 6)],
    "version": [("1.0", 0, 2), ("2.0", 2, 2), (None, 1, 6)],
    "file_type": [("PDF", 1, 4), (None, 2, 6)],
    "day": [(date(2026, 11, 2), 2, 8), (date(2026, 11, 9), 1, 2)],
    "week": [(date(2026, 11, 2), 2, 8), (date(2026, 11, 9), 1, 2)],
    "month": [(date(2026, 11, 1), 3, 10)],
    "metadata.team": [("ops", 0, 2), (None, 3, 8)],
    "all": [("all", 3, 10)],
}


def test_failures_by_one_dimension(lake: LakeFiles) -> None:
    land(
        lake,
        *runs(2, **by("Mail"), metadata={"team": "ops"}), *runs(2, "FAILED", **by("Mail", "2.0")),
        *runs(3, file=PDF), *runs(1, "FAILED", "2026-11-09", file=PDF), *runs(1), *runs(1, day="2026-11-09"),
        *runs(1, "CANCELLED"), *runs(1, "PENDING"),
    )  # fmt: skip
    with Lake(lake.folder) as catalog:
        for dimension, expected in PLACES.items():
            relation = catalog.failures(dimension)
            assert relation.columns[:3] == [dimension, "failed", "ended"]
            assert [row[:3] for row in relation.fetchall()] == expected
            totals = [row[:2] for row in catalog.failures([dimension, "reason"]).fetchall() if row[2]]
            assert totals == [(place, None) for place, *_ in expected]


def test_a_reason_is_counted_within_each_place_of_the_other_dimensions(lake: LakeFiles) -> None:
    land(
        lake,
        *runs(2, "FAILED", failureReason="ABORTED"), *runs(2),
        *runs(1, "FAILED", "2026-11-03", failureReason="ABORTED"), *runs(1, "FAILED", "2026-11-03"),
        *runs(2, day="2026-11-03"), *runs(1, "CANCELLED", "2026-11-03"),
    )  # fmt: skip
    first, second = date(2026, 11, 2), date(2026, 11, 3)
    with Lake(lake.folder) as catalog:
        relation = catalog.failures(["reason", "day"])
        names = ("day", "reason", "is_total", "failed", "ended", "cancelled")
        places = [relation.columns.index(name) for name in names]
        assert [tuple(row[at] for at in places) for row in relation.fetchall()] == [
            (first, None, True, 2, 4, 0), (first, "ABORTED", False, 2, 4, 0),
            (second, None, True, 2, 4, 1), (second, "ABORTED", False, 1, 4, 1), (second, None, False, 1, 4, 1),
        ]  # fmt: skip
        total, reason, _none = catalog.failures("reason").fetchall()
        assert (total[1:3], reason[1:3]) == ((None, True), ("ABORTED", False))


def test_failures_are_narrowed_by_window_and_condition(lake: LakeFiles) -> None:
    land(lake, *runs(1, "FAILED", "2026-11-02"), *runs(1, "FAILED", "2026-11-03"), *runs(4, day="2026-11-03", file=PDF))
    with Lake(lake.folder) as catalog:
        assert catalog.failures("all", since="2026-11-03").fetchall()[0][1:3] == (1, 5)
        assert catalog.failures("all", until="2026-11-03").fetchall()[0][1:3] == (1, 1)
        assert catalog.failures("all", where="file_type = 'PDF'").fetchall()[0][1:3] == (0, 4)
        with pytest.raises(UsageError, match="no subqueries"):
            catalog.failures(where="run_id IN (FROM runs SELECT run_id)")


# Messages


FOLDED = [
    ("Page 12 of 300 is 1.5 MB", "Page <n> of <n> is <n> MB"),
    ("at 2026-11-02 09:30:15", "at <n>-<n>-<n> <n>"),
    ("run exr_F5yPCnu5fWefsaoxiMAU failed", "run <id> failed"),
    ("see workflow_run_2FGdw8-WhzIE_6mHGHPT.", "see <id>."),
    ("id 123e4567-e89b-12d3-a456-426614174000!", "id <id>!"),
    ("hash 9f86d081884c7d65", "hash <id>"),
    ('file "Q3 report (final)" is locked', "file <name> is locked"),
    ("the classifier 'Mail room' is gone", "the classifier <name> is gone"),
    ("don't know what it's for", "don't know what it's for"),
    ("cannot open scan_0017.TIFF", "cannot open <file>"),
    ("cannot open a b.pdf", "cannot open <file>"),
    ("processor Mail is busy", "processor <processor> is busy"),
    ("TOO_LARGE for snake_case words", "TOO_LARGE for snake_case words"),
    ("", ""),
    (None, None),
]


def test_messages_are_folded(lake: LakeFiles) -> None:
    file = {**PDF, "name": "a b.pdf"}
    failed: list[dict[str, Any]] = []
    for number, (message, _) in enumerate(FOLDED):
        fields = {"failureMessage": message, "file": file, "metadata": {"case": str(number)}}
        failed += runs(1, "FAILED", **fields, **by("Mail"))
    land(lake, *failed)
    with Lake(lake.folder) as catalog:
        rows = catalog.failure_messages(["metadata.case"], most=100).fetchall()
    assert {FOLDED[int(row[0])][0]: row[1] for row in rows} == dict(FOLDED)


def test_messages_that_differ_in_numbers_ids_and_names_are_one_group_with_an_example(lake: LakeFiles) -> None:
    messages = [
        "Page 9 of file_9aB is bad",
        "Page 10 of file_1xY is bad",
        "Page 11 of file_7qQ is bad",
        "Out of memory",
    ]
    land(lake, *(run for message in messages for run in runs(1, "FAILED", failureMessage=message)))
    land(
        lake, *runs(2, failureMessage="Page 1 of file_1 is bad"), *runs(1, "CANCELLED", failureMessage="Out of memory")
    )
    with Lake(lake.folder) as catalog:
        found = catalog.failure_messages().fetchall()
        assert [row[:4] for row in found] == [
            ("classify_run", "Page <n> of <id> is bad", 3, 0), ("classify_run", "Out of memory", 1, 0),
        ]  # fmt: skip
        assert found[0][6] == "Page 10 of file_1xY is bad"
        assert len(catalog.failure_messages(most=1).fetchall()) == 1


# What changed


def test_what_changed_between_two_windows_is_found_with_its_place(lake: LakeFiles) -> None:
    before, after = "2026-11-04", "2026-11-11"
    land(
        lake,
        *runs(50, day=before, **by("Mail")), *runs(50, day=before, **by("Forms")),
        *runs(50, day=after, **by("Forms")),
        *runs(30, day=after, **by("Mail", "2.0")),
        *runs(20, "FAILED", after, failureReason="ABORTED", **by("Mail", "2.0")),
        # Outside both windows, and not ended.
        *runs(5, "FAILED", "2026-10-28"), *runs(5, "FAILED", "2026-11-15"), *runs(5, "PENDING", after),
    )  # fmt: skip
    with Lake(lake.folder) as catalog:
        found = catalog.failure_changes(since="2026-11-08", until="2026-11-15")
        assert found.columns[:6] == [
            "dimension", "value", "failed_before", "ended_before", "failed_after", "ended_after",
        ]  # fmt: skip
        rows = found.fetchall()
        # 0 of 100 before, 20 of 100 after.
        assert rows[0][:7] == ("all", "all", 0, 100, 20, 100, pytest.approx(0.2))
        assert {row[:6] for row in rows[1:] if row[-1]} == {
            ("kind", "classify_run", 0, 100, 20, 100),
            ("file_type", None, 0, 100, 20, 100),
            ("reason", "ABORTED", 0, 100, 20, 100),
            ("processor", "Mail", 0, 50, 20, 50),
        }
        # A version that there was not before can be held against nothing.
        assert ("version", "Mail 2.0", 0, 0, 20, 50) in {row[:6] for row in rows if not row[-1]}
        for dimension in ("kind", "processor", "version", "file_type", "reason"):
            assert sum(row[6] for row in rows if row[0] == dimension) == pytest.approx(0.2)
        # Without a window the last seven days, 9 to 15 November, and the seven before.
        assert catalog.failure_changes().fetchall()[0][:6] == ("all", "all", 0, 100, 25, 105)


# Latency


def took(seconds: float, **fields: Any) -> dict[str, Any]:
    done = timedelta(seconds=seconds)
    return classify(
        f"clr_{next(_NUMBERS)}",
        **{"createdAt": "2026-11-02T00:00:00Z", "updatedAt": f"2026-11-02T0{done}Z", **fields},
    )


def latency(lake: LakeFiles, *names: str, by: Any = ("kind",), **options: Any) -> list[tuple[Any, ...]]:
    with Lake(lake.folder) as catalog:
        relation = catalog.latency(by, **options)
        return [tuple(row[relation.columns.index(name)] for name in names) for row in relation.fetchall()]


def test_percentiles_are_between_the_runs_around_them(lake: LakeFiles) -> None:
    land(lake, *(took(seconds) for seconds in (40, 10, 30, 20)))
    # Of four, the 90th lies 0.9 × 3 = 2.7 steps from the first: 30 + 0.7 × 10.
    assert latency(lake, "runs", "p50", "p90", "p95", "p99", "longest") == [
        (4, 25.0, pytest.approx(37.0), pytest.approx(38.5), pytest.approx(39.7), 40.0)
    ]


def test_reviewed_runs_are_left_out_and_counted_and_so_are_those_without_times(lake: LakeFiles) -> None:
    land(
        lake,
        took(10), took(20, status="FAILED"), took(30, status="CANCELLED"),
        took(5000, reviewed=True), took(5000, edited=True),
        took(1, status="PENDING"), took(1, status="NEW"),
        took(0, createdAt=None), took(0, updatedAt=None), took(0, createdAt="2026-11-03T00:00:00Z"),
    )  # fmt: skip
    assert latency(lake, "runs", "p50", "longest", "reviewed_left_out", "untimed") == [(3, 20.0, 30.0, 2, 3)]


def test_a_workflow_run_ends_when_it_says_so_unless_a_person_had_to_see_it(lake: LakeFiles) -> None:
    def flow(number: int, **fields: Any) -> dict[str, Any]:
        times = {"createdAt": None, "initialRunAt": "2026-11-02T00:00:00Z", "endTime": "2026-11-02T00:01:00Z"}
        return classify(f"workflow_run_{number}", object="workflow_run", **{**times, **fields})

    land(
        lake,
        flow(1), flow(2, endTime="2026-11-02T00:03:00Z", updatedAt="2026-11-09T00:00:00Z"),
        flow(3, reviewedAt="2026-11-04T00:00:00Z", endTime="2026-11-04T00:00:00Z"), flow(4, status="REJECTED"),
    )  # fmt: skip
    assert latency(lake, "kind", "runs", "p50", "reviewed_left_out") == [("workflow_run", 2, 120.0, 2)]


def test_the_apis_own_measure_stands_beside_where_it_gives_one(lake: LakeFiles) -> None:
    for number, milliseconds in enumerate((1000, 3000)):
        land(
            lake,
            {"object": "parse_run", "id": f"pr_{number}", "status": "PROCESSED",
             "metrics": {"processingTimeMs": milliseconds}},
        )  # fmt: skip
    assert latency(lake, "runs", "p50", "processing_p50", "untimed") == [(0, None, 2.0, 2)]


def test_latency_by_other_dimensions_within_a_window(lake: LakeFiles) -> None:
    land(lake, took(10, **by("Mail")), took(20, **by("Forms")), took(60, **by("Mail")), *runs(1, day="2026-12-01"))
    options = {"by": "processor", "until": "2026-12"}
    assert latency(lake, "processor", "runs", "p50", **options) == [("Forms", 1, 20.0), ("Mail", 2, 35.0)]


# Against the world


@pytest.mark.parametrize("seed", [1, 6])
def test_failures_are_those_that_the_world_knows(lake: LakeFiles, seed: int) -> None:
    world = World(seed=seed, runs=150)
    right = world.answers()
    land(
        lake,
        *(world.detail(run_id, "url") for run_id in world.run_ids()),
        fetched_at=datetime(2026, 11, 21, tzinfo=UTC),
    )
    with Lake(lake.folder) as catalog:
        names = ("kind", "reason", "is_total", "failed", "ended", "cancelled", "rejected", "unfinished")
        relation = catalog.failures()
        found = [tuple(row[relation.columns.index(name)] for name in names) for row in relation.fetchall()]
    assert {(kind, reason): failed for kind, reason, is_total, failed, *_ in found if not is_total} == right.failures

    def of(kind: str, *statuses: str) -> int:
        return sum(right.statuses.get((kind, status), 0) for status in statuses)

    ends = ("PROCESSED", "FAILED", "CANCELLED", "REJECTED")
    for kind, _reason, is_total, *counts in found:
        if is_total:
            assert counts == [
                of(kind, "FAILED"), of(kind, "PROCESSED", "FAILED"), of(kind, "CANCELLED"), of(kind, "REJECTED"),
                sum(runs for (other, status), runs in right.statuses.items() if other == kind and status not in ends),
            ]  # fmt: skip
