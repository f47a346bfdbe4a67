"""Which days' files may hold a run: told by each file itself, never wrong where it says no."""

import zlib
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import holding
from pipeline.arrow_schemas import RUNS_FILE_SCHEMA
from pipeline.catalog import Lake
from pipeline.errors import RunMissingError
from pipeline.lake import LakeFiles
from pipeline.loads import Load
from pipeline.sealed_parquet import parquet_bytes
from tests.conftest import NOON, classify, land
from tests.test_landing import FILE, parse_detail, parse_summary, stored

DAYS = [f"2026-10-{day:02d}" for day in range(1, 11)]


def parse_of(day: str, run_id: str) -> dict[str, Any]:
    return parse_summary(run_id, createdAt=f"{day}T10:00:00Z", file={**FILE, "createdAt": f"{day}T08:00:00Z"})


@pytest.fixture
def ten_days(lake: LakeFiles) -> LakeFiles:
    """A lake of ten days with three parse runs each, all as lists give them."""
    land(lake, *(parse_of(day, f"pr_{day}_{number}") for day in DAYS for number in range(3)), is_detail=False)
    return lake


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The days whose run IDs were looked at, or that DuckDB was told to look at."""
    days: list[str] = []
    read_run_ids, read_parquet = LakeFiles.read_run_ids, duckdb.DuckDBPyConnection.read_parquet

    def noting_ids(lake: LakeFiles, day: str) -> list[str]:
        days.append(day)
        return read_run_ids(lake, day)

    def noting_paths(con: duckdb.DuckDBPyConnection, paths: Any, **options: Any) -> duckdb.DuckDBPyRelation:
        days.extend(Path(path).parent.name.removeprefix("day=") for path in paths)
        return read_parquet(con, paths, **options)

    monkeypatch.setattr(LakeFiles, "read_run_ids", noting_ids)
    monkeypatch.setattr(duckdb.DuckDBPyConnection, "read_parquet", noting_paths)
    return days


def days_of(lake: LakeFiles, run_id: str, expected: str | None = None) -> list[str]:
    wanted = holding.Wanted()
    wanted.add([run_id], [expected])
    return lake.days_of(wanted)


def test_a_file_tells_the_hashes_of_its_run_ids_and_reads_as_any_other(lake: LakeFiles) -> None:
    land(lake, classify("clr_2"), classify("clr_1"))
    path = lake.day_path("2026-11-02")
    hashes = holding.read_hashes(path)
    assert hashes is not None
    assert hashes.tolist() == sorted([zlib.crc32(b"clr_1"), zlib.crc32(b"clr_2")])
    assert pq.read_table(path)["run_id"].to_pylist() == ["clr_1", "clr_2"]
    assert duckdb.read_parquet(str(path)).aggregate("count(*)").fetchall() == [(2,)]


def test_many_hashes_are_read_whole(tmp_path: Path) -> None:
    run_ids = [f"clr_{number}" for number in range(20_000)]
    rows = pa.Table.from_pylist([{"run_id": run_id} for run_id in run_ids])
    path = tmp_path / "runs.parquet"
    path.write_bytes(parquet_bytes(rows, head=holding.head_bytes(rows["run_id"])))
    hashes = holding.read_hashes(path)
    assert hashes is not None
    assert hashes.tolist() == sorted(zlib.crc32(run_id.encode()) for run_id in run_ids)


@pytest.mark.parametrize(
    ("expected", "days"), [(None, ["2026-10-04"]), ("2026-10-04", []), ("2026-10-09", ["2026-10-04"])]
)
def test_the_days_of_a_run_are_those_that_hold_it_but_the_one_where_it_is_expected(
    ten_days: LakeFiles, expected: str | None, days: list[str]
) -> None:
    assert days_of(ten_days, "pr_2026-10-04_1", expected) == days


def test_a_run_expected_under_two_days_is_looked_for_in_both(ten_days: LakeFiles) -> None:
    wanted = holding.Wanted()
    wanted.add(["pr_2026-10-04_1"] * 2, ["2026-10-04", "2026-10-05"])
    assert ten_days.days_of(wanted) == ["2026-10-04"]


def test_nothing_is_known_of_a_file_without_hashes_or_with_damaged_ones(ten_days: LakeFiles) -> None:
    first, second, third = (ten_days.day_path(day) for day in DAYS[:3])
    first.write_bytes(parquet_bytes(ten_days.read_day(DAYS[0])))
    content = bytearray(second.read_bytes())
    content[25] ^= 1
    second.write_bytes(content)
    third.write_bytes(third.read_bytes()[:22])
    assert days_of(ten_days, "clr_nowhere") == DAYS[:3]


def test_a_file_without_run_ids_holds_no_run(ten_days: LakeFiles) -> None:
    pq.write_table(pa.table({"amount": [1]}), ten_days.day_path(DAYS[0]))
    assert days_of(ten_days, "clr_nowhere") == []


def test_new_runs_of_a_kind_that_may_not_tell_when_it_was_made_open_no_other_day(
    ten_days: LakeFiles, opened: list[str]
) -> None:
    land(ten_days, parse_of("2026-10-05", "pr_new"), is_detail=False)
    land(ten_days, parse_detail("pr_newer", file={**FILE, "createdAt": "2026-10-06T08:00:00Z"}))
    assert opened == []
    assert ("2026-10-05", "pr_new") in stored(ten_days)
    assert ("2026-10-06", "pr_newer") in stored(ten_days)


def test_a_detail_that_tells_no_time_finds_its_row_and_opens_that_day_alone(
    ten_days: LakeFiles, opened: list[str]
) -> None:
    land(ten_days, parse_detail("pr_2026-10-04_1", file=None, status="FAILED"))
    assert set(opened) == {"2026-10-04"}
    assert [each for each in stored(ten_days) if each[1] == "pr_2026-10-04_1"] == [("2026-10-04", "pr_2026-10-04_1")]
    with Lake(ten_days.folder) as catalog:
        found = catalog.sql("SELECT status FROM runs WHERE run_id = 'pr_2026-10-04_1'").fetchall()
    assert found == [("FAILED",)]


def test_a_lake_without_hashes_doubles_no_run_and_has_them_for_what_is_written_next(ten_days: LakeFiles) -> None:
    for day in DAYS:
        ten_days.day_path(day).write_bytes(parquet_bytes(ten_days.read_day(day)))
    land(ten_days, parse_detail("pr_2026-10-04_1", file=None, status="FAILED"))
    assert [each for each in stored(ten_days) if each[1] == "pr_2026-10-04_1"] == [("2026-10-04", "pr_2026-10-04_1")]
    assert [day for day in DAYS if holding.read_hashes(ten_days.day_path(day)) is not None] == ["2026-10-04"]


def test_a_run_that_stands_under_two_days_is_made_one(ten_days: LakeFiles) -> None:
    row = ten_days.read_day("2026-10-04").to_pylist()[1]
    older = {**row, "fetched_at": row["fetched_at"].replace(hour=1), "source": "STUDIO", "status": "PROCESSING"}
    rows = [*ten_days.read_day("2026-10-05").to_pylist(), older]
    ten_days.write_day("2026-10-05", pa.Table.from_pylist(rows, schema=RUNS_FILE_SCHEMA))
    land(ten_days, parse_of("2026-10-04", row["run_id"]), is_detail=False)
    assert [each for each in stored(ten_days) if each[1] == row["run_id"]] == [("2026-10-04", row["run_id"])]
    with Lake(ten_days.folder) as catalog:
        found = catalog.sql("SELECT status, source FROM runs WHERE run_id = $run_id", run_id=row["run_id"]).fetchall()
    assert found == [("PROCESSED", "STUDIO")]


def test_runs_that_are_gone_are_looked_for_in_their_own_days_alone(ten_days: LakeFiles, opened: list[str]) -> None:
    load = Load(ten_days, command="fetch", source="test", now=lambda: NOON.replace(hour=13))
    load.take_failure(
        RunMissingError("gone", run_id="pr_2026-10-07_0", reason="NOT_FOUND", http_status=404), workspace_id=None
    )
    load.finish()
    load.close()
    assert "2026-10-07" in opened
    assert not set(opened) & (set(DAYS) - {"2026-10-07"})
    with Lake(ten_days.folder) as catalog:
        assert catalog.sql("SELECT run_id FROM runs WHERE deleted_at IS NOT NULL").fetchall() == [("pr_2026-10-07_0",)]


def test_only_runs_expected_under_another_day_are_elsewhere() -> None:
    wanted = holding.Wanted()
    wanted.add(["a", "b", "c", "c", "d"], ["2026-10-01", "2026-10-02", "2026-10-01", "2026-10-02", "2026-10-01"])
    assert wanted.elsewhere("2026-10-01", ["a", "b", "c", "x"]) == ["b", "c"]
    assert wanted.elsewhere("2026-10-02", ["d", "c", "b", "a"]) == ["d", "c", "a"]
    assert wanted.elsewhere("2026-10-03", ["x", "a"]) == ["a"]
    several = wanted.hashes_of_several_days()
    assert several.tolist() == [zlib.crc32(b"c")]
    assert wanted.days_of(several) == ["2026-10-01", "2026-10-02"]
    wanted.add(["d"], ["2026-10-03"])  # what is added later counts as well
    assert sorted(wanted.hashes_of_several_days().tolist()) == sorted([zlib.crc32(b"c"), zlib.crc32(b"d")])


def test_runs_whose_ids_have_one_hash_stay_apart(lake: LakeFiles) -> None:
    # crc32("clr_plumless") and crc32("clr_buckeroo") are one number.
    one, other = "clr_plumless", "clr_buckeroo"
    assert zlib.crc32(one.encode()) == zlib.crc32(other.encode())
    land(lake, classify(one, createdAt="2026-11-02T10:00:00Z"))
    land(lake, classify(other, createdAt="2026-11-03T10:00:00Z"))
    land(lake, classify(one, createdAt="2026-11-02T10:00:00Z"), classify(other, createdAt="2026-11-03T10:00:00Z"))
    assert stored(lake) == [("2026-11-02", one), ("2026-11-03", other)]
