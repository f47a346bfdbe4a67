"""Runs that the API has no more are marked, stay in history, and come back if they do exist after all."""

import json
from datetime import datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog import Lake
from pipeline.errors import LakeDamagedError, RunMissingError
from pipeline.lake import LakeFiles
from pipeline.loads import Load
from pipeline.rebuild import rebuild_lake
from tests.conftest import NOON, classify, land

LATER = NOON + timedelta(hours=1)
LATEST = NOON + timedelta(hours=2)
OLD_LAKE = Path(__file__).parent / "lakes" / "schema-1"


def land_missing(
    lake: LakeFiles, run_id: str, *, at: datetime = LATER, workspace_id: str | None = None, reason: str = "NOT_FOUND"
) -> None:
    """Land that the API answered 404 for a run, in a load of its own."""
    load = Load(lake, command="fetch", source="test", now=lambda: at)
    try:
        error = RunMissingError("gone", run_id=run_id, reason=reason, http_status=404)
        load.take_failure(error, workspace_id=workspace_id)
        load.finish()
    finally:
        load.close()


def rows(lake: LakeFiles, query: str) -> list[Any]:
    with Lake(lake.folder) as catalog:
        return catalog.sql(query).fetchall()


DELETED = "SELECT run_id, deleted_at FROM runs ORDER BY run_id"


def test_a_run_that_is_gone_stays_as_it_was_with_the_time_and_is_no_dead_letter(lake: LakeFiles) -> None:
    land(lake, classify("clr_1", usage={"credits": 1.5}), classify("clr_2"))
    land_missing(lake, "clr_1")
    assert rows(lake, "SELECT run_id, status, credits::VARCHAR, deleted_at FROM runs ORDER BY run_id") == [
        ("clr_1", "PROCESSED", "1.500000", LATER),
        ("clr_2", "PROCESSED", None, None),
    ]
    assert rows(lake, "SELECT sum(credits)::VARCHAR FROM credit_ledger") == [("1.500000",)]
    assert rows(lake, "FROM dead_letters") == []


def test_a_run_that_the_lake_never_had_is_a_dead_letter_and_no_row(lake: LakeFiles) -> None:
    land(lake, classify("clr_1"))
    land_missing(lake, "clr_9")
    assert rows(lake, DELETED) == [("clr_1", None)]
    assert rows(lake, "SELECT run_id, reason FROM dead_letters") == [("clr_9", "NOT_FOUND")]


ORDERS = [
    order if number % 2 == 0 else pytest.param(order, marks=pytest.mark.long)
    for number, order in enumerate(permutations(range(3)))
]
"""Every order; half of them, in which each comes first once, in the ordinary run."""


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_in_whatever_order_they_land_the_last_word_counts(lake: LakeFiles, order: tuple[int, ...]) -> None:
    steps = [
        lambda: land(lake, classify("clr_1"), fetched_at=NOON),
        lambda: land_missing(lake, "clr_1", at=LATER),
        lambda: land(lake, classify("clr_1"), fetched_at=NOON + timedelta(minutes=30), is_detail=False),
    ]
    for number in order:
        steps[number]()
    assert rows(lake, DELETED) == [("clr_1", LATER)]
    assert rows(lake, "FROM dead_letters") == []
    land(lake, classify("clr_1"), fetched_at=LATEST)
    assert rows(lake, DELETED) == [("clr_1", None)]


def test_it_survives_a_move_to_another_day_and_a_rebuild(lake: LakeFiles) -> None:
    parse = {"object": "parse_run", "id": "pr_1", "status": "PROCESSED", "config": {}}
    land(lake, parse)
    land_missing(lake, "pr_1")
    summary = {**parse, "createdAt": "2026-11-01T08:00:00Z", "updatedAt": "2026-11-01T08:01:00Z"}
    land(lake, summary, is_detail=False, fetched_at=NOON + timedelta(minutes=1))
    assert rows(lake, "SELECT created_at::DATE::VARCHAR, deleted_at FROM runs") == [("2026-11-01", LATER)]
    rebuild_lake(lake)
    assert rows(lake, DELETED) == [("pr_1", LATER)]
    for path in lake.raw_logs():
        path.unlink()
    land(lake, classify("clr_1"))
    rebuild_lake(lake)
    assert rows(lake, DELETED) == [("clr_1", None), ("pr_1", LATER)]


@pytest.mark.parametrize(
    ("run_id", "options"),
    [
        ("clr_1", {"workspace_id": "ws_other"}),
        ("clr_1", {"reason": "HTTP_404"}),
        ("clr_1", {"at": NOON - timedelta(minutes=1)}),
        ("vr_1", {}),
    ],
    ids=[
        "another workspace's 404",
        "a proxy's 404",
        "a 404 before it was received",
        "a verify run, which may be purged",
    ],
)
def test_what_does_not_say_that_the_run_is_gone_marks_nothing(
    lake: LakeFiles, run_id: str, options: dict[str, Any]
) -> None:
    land(lake, classify("clr_1"), {"object": "verify_run", "id": "vr_1", "status": "PROCESSED"})
    land_missing(lake, run_id, **options)
    assert rows(lake, "SELECT count(*) FROM runs WHERE deleted_at IS NOT NULL") == [(0,)]


# A lake that the first version of the schema wrote


@pytest.fixture
def old_lake(tmp_path: Path) -> LakeFiles:
    """Return a copy of a lake without the column `deleted_at` and without a `lake.json`."""
    folder = tmp_path / "old"
    for path in OLD_LAKE.rglob("*"):
        if path.is_file():
            copy = folder / path.relative_to(OLD_LAKE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    folder.chmod(0o700)
    return LakeFiles(folder)


def test_a_lake_of_the_first_schema_is_read_as_it_is(old_lake: LakeFiles) -> None:
    before = {path: path.read_bytes() for path in old_lake.folder.rglob("*") if path.is_file()}
    assert rows(old_lake, DELETED) == [("clr_1", None), ("exr_1", None), ("pr_1", None)]
    assert rows(old_lake, "SELECT sum(credits)::VARCHAR FROM credit_ledger") == [("3.500000",)]
    assert {path: path.read_bytes() for path in old_lake.folder.rglob("*") if path.is_file()} == before


def test_a_lake_of_the_first_schema_is_brought_up_to_date_by_the_first_writer_even_after_a_crash(
    old_lake: LakeFiles,
) -> None:
    with Lake(old_lake.folder) as catalog:
        assert len(catalog.runs().fetchall()) == 3
        told: list[str] = []
        old_lake.write_day("2026-11-02", old_lake.read_day("2026-11-02"))  # as if it had died after the first file
        with old_lake.writing(tell=told.append):
            pass
        assert told == [f"{old_lake.folder}: an earlier version wrote this lake; bringing its 2 day files up to date"]
        assert old_lake.is_current()
        assert len(catalog.runs().fetchall()) == 3
    land_missing(old_lake, "exr_1")
    assert rows(old_lake, DELETED) == [("clr_1", None), ("exr_1", LATER), ("pr_1", None)]


def test_a_lake_of_a_newer_version_is_refused_by_name(lake: LakeFiles) -> None:
    land(lake, classify("clr_1"))
    lake.version_path.write_text(json.dumps({"schema": 99}))
    with pytest.raises(LakeDamagedError, match=r"lake\.json: written by a newer version"):
        land(lake, classify("clr_2"))
    with pytest.raises(LakeDamagedError, match=r"lake\.json"), Lake(lake.folder) as catalog:
        catalog.runs()
    lake.version_path.write_text("{")
    with pytest.raises(LakeDamagedError, match=r"lake\.json: damaged, or edited by hand"):
        land(lake, classify("clr_2"))
