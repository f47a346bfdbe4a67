"""Landing: what the raw log holds comes into the lake, each run once, in the day it belongs to."""

import json
import time
import weakref
import zlib
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import day_change, day_files, holding, landing, sealed_parquet, staging
from pipeline.arrow_schemas import RUNS_FILE_SCHEMA, RUNS_SCHEMA
from pipeline.catalog import Lake
from pipeline.errors import LakeDamagedError, RunFailedError, RunMissingError
from pipeline.lake import LakeFiles, UnlandedLog
from pipeline.landing import land_logs
from pipeline.loads import Load, recover
from pipeline.raw import raw_path
from tests.conftest import NOON, classify, land
from tests.worlds import make_squeezed_world

FILE = {"object": "file", "id": "file_1", "name": "a.pdf", "createdAt": "2026-10-30T08:00:00Z"}


def parse_detail(run_id: str = "pr_1", **fields: Any) -> dict[str, Any]:
    return {"object": "parse_run", "id": run_id, "status": "PROCESSED", "config": {}, "file": FILE, **fields}


def parse_summary(run_id: str = "pr_1", **fields: Any) -> dict[str, Any]:
    times = {"createdAt": "2026-11-01T10:00:00Z", "updatedAt": "2026-11-01T10:05:00Z"}
    return {"object": "parse_run", "id": run_id, "status": "PROCESSED", "file": FILE, **times, **fields}


def stored(lake: LakeFiles) -> list[tuple[str, str]]:
    """Return each row's day and ID, as a reader sees them that knows nothing of this package."""
    glob = str(lake.runs_folder / "*" / "*.parquet")
    query = "SELECT day::VARCHAR, run_id FROM read_parquet($glob, hive_partitioning = true) ORDER BY ALL"
    return duckdb.sql(query, params={"glob": glob}).fetchall()


def test_each_run_is_in_the_file_of_its_day_of_creation_in_utc(lake: LakeFiles) -> None:
    result = land(
        lake,
        classify("clr_1", createdAt="2026-11-02T23:59:59.999999Z"),
        classify("clr_2", createdAt="2026-11-03T00:00:00Z"),
        classify("clr_3", createdAt="2026-11-03T01:30:00+02:00"),
        parse_detail("pr_1"),
        parse_detail("pr_2", file=None),
    )
    assert stored(lake) == [
        ("2026-10-30", "pr_1"),
        ("2026-11-02", "clr_1"),
        ("2026-11-02", "clr_3"),
        ("2026-11-03", "clr_2"),
        ("unknown", "pr_2"),
    ]
    assert (result.landed, result.unchanged) == (5, 0)


def test_the_day_of_the_file_never_stands_in_for_the_time_of_creation(lake: LakeFiles) -> None:
    land(lake, parse_detail())
    with Lake(lake.folder) as catalog:
        assert catalog.sql("SELECT created_at FROM runs").fetchall() == [(None,)]


def test_every_file_has_the_whole_declared_schema_with_descriptions(lake: LakeFiles) -> None:
    land(lake, {"object": "classify_run", "id": "clr_1"}, parse_detail())
    paths = [Path(path) for path in lake.day_paths()]
    assert len(paths) == 2
    for path in paths:
        schema = pq.read_schema(path)
        assert schema.names == RUNS_FILE_SCHEMA.names
        assert schema.types == RUNS_FILE_SCHEMA.types
        assert schema.names[:-1] == RUNS_SCHEMA.names
        assert schema.field("credits").metadata[b"description"].startswith(b"`usage.credits`")


@pytest.mark.parametrize(("at_once", "unpacked"), [(16_384, True), (1, False)])
def test_of_a_small_file_columns_without_a_value_are_not_compressed(
    lake: LakeFiles, monkeypatch: pytest.MonkeyPatch, at_once: int, unpacked: bool
) -> None:
    monkeypatch.setattr(sealed_parquet, "_AT_ONCE_ROWS", at_once)
    land(lake, classify("clr_1", batchId="b_1"), classify("clr_2"))
    (path,) = lake.day_paths()
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = [group.column(place) for place in range(group.num_columns)]
    ways = {column.path_in_schema: column.compression for column in columns}
    assert (ways["run_id"], ways["batch_id"]) == ("ZSTD", "ZSTD")
    empty = "UNCOMPRESSED" if unpacked else "ZSTD"
    assert (ways["parse_run_id"], ways["breakdown.list.element.credits"]) == (empty, empty)
    assert pq.read_table(path, columns=["batch_id", "parse_run_id"]).to_pylist() == [
        {"batch_id": "b_1", "parse_run_id": None}, {"batch_id": None, "parse_run_id": None},
    ]  # fmt: skip


def test_a_run_moves_when_its_day_becomes_better_known(lake: LakeFiles) -> None:
    land(lake, parse_detail(usage={"credits": 2, "breakdown": []}))
    assert stored(lake) == [("2026-10-30", "pr_1")]
    result = land(lake, parse_summary(), is_detail=False)
    assert stored(lake) == [("2026-11-01", "pr_1")]
    assert (result.landed, result.unchanged) == (1, 0)
    assert lake.read_day("2026-10-30").num_rows == 0
    assert not lake.moving_path.exists()
    with Lake(lake.folder) as catalog:
        row = catalog.sql(
            "SELECT credits::VARCHAR, created_at::VARCHAR, len(breakdown), is_detail FROM runs"
        ).fetchall()
    assert row == [("2.000000", "2026-11-01 10:00:00+00", 0, True)]


def test_a_detail_without_a_creation_time_finds_its_run_where_the_summary_put_it(lake: LakeFiles) -> None:
    land(lake, parse_summary(), classify("clr_1"), is_detail=False)
    land(lake, parse_detail(usage={"credits": 2}))
    assert stored(lake) == [("2026-11-01", "pr_1"), ("2026-11-02", "clr_1")]


def test_summary_and_detail_of_different_days_in_one_load_make_one_row(lake: LakeFiles) -> None:
    load = Load(lake, command="load", source="test")
    for payload, is_detail in ((parse_detail(), True), (parse_summary(), False)):
        load.take_run("pr_1", json.dumps(payload).encode(), fetched_at=NOON, is_detail=is_detail, workspace_id=None)
    assert load.finish().landed == 1
    assert stored(lake) == [("2026-11-01", "pr_1")]


def test_landing_the_same_payloads_again_changes_no_byte(lake: LakeFiles) -> None:
    load = Load(lake, command="load", source="test")
    for payload in (classify("clr_1"), classify("clr_2"), parse_detail(), parse_summary()):
        load.take_run(payload["id"], json.dumps(payload).encode(), fetched_at=NOON, is_detail=True, workspace_id=None)
    load.finish()
    before = {path: (Path(path).read_bytes(), Path(path).stat().st_ino) for path in lake.day_paths()}
    with lake.writing():
        again = land_logs(lake, [UnlandedLog(lake.raw_logs()[0], load.result.load_id, 0)])[0]
    assert (again.landed, again.unchanged) == (0, 3)
    assert {path: (Path(path).read_bytes(), Path(path).stat().st_ino) for path in lake.day_paths()} == before


def test_a_run_that_comes_again_as_it_was_is_unchanged_and_fetched_later(lake: LakeFiles) -> None:
    land(lake, classify())
    result = land(lake, classify(), fetched_at=NOON + timedelta(hours=1))
    assert (result.landed, result.unchanged) == (0, 1)
    with Lake(lake.folder) as catalog:
        rows = catalog.sql("SELECT fetched_at::VARCHAR, load_id FROM runs").fetchall()
    assert rows == [("2026-11-03 13:00:00+00", result.load_id)]


def test_a_run_that_changed_is_landed(lake: LakeFiles) -> None:
    land(lake, classify(status="PROCESSING"))
    result = land(lake, classify(updatedAt="2026-11-02T10:00:00Z"), fetched_at=NOON + timedelta(hours=1))
    assert (result.landed, result.unchanged) == (1, 0)


def test_fields_of_the_wrong_type_are_counted_by_column_and_lose_no_run(lake: LakeFiles) -> None:
    result = land(lake, classify("clr_1", createdAt=5), classify("clr_2", createdAt="soon", reviewed="yes"))
    assert result.landed == 2
    assert result.field_problems == {"created_at": 2, "reviewed": 1}
    with Lake(lake.folder) as catalog:
        (problems,) = catalog.sql("SELECT field_problems FROM loads").fetchall()[0]
    assert problems == {"created_at": 2, "reviewed": 1}


def test_a_reader_meets_a_run_once_while_it_moves_and_the_next_writer_finishes_the_move(lake: LakeFiles) -> None:
    land(lake, parse_detail(), parse_detail("pr_2"))
    old = lake.read_day("2026-10-30")
    with Lake(lake.folder) as catalog:
        assert catalog.sql("SELECT count(*) FROM runs").fetchall() == [(2,)]
        land(lake, parse_summary(), is_detail=False)
        # As a crash would leave it that comes after the new place and before the old one:
        lake.write_day("2026-10-30", old)
        lake.write_moves([("pr_1", "2026-10-30", "2026-11-01")])
        assert stored(lake) == [("2026-10-30", "pr_1"), ("2026-10-30", "pr_2"), ("2026-11-01", "pr_1")]
        rows = catalog.sql("SELECT run_id, created_at::VARCHAR FROM runs ORDER BY ALL").fetchall()
        assert rows == [("pr_1", "2026-11-01 10:00:00+00"), ("pr_2", None)]
        land(lake, classify())
        assert stored(lake) == [("2026-10-30", "pr_2"), ("2026-11-01", "pr_1"), ("2026-11-02", "clr_1")]
        assert catalog.sql("SELECT count(*) FROM runs").fetchall() == [(3,)]


def test_a_move_that_had_not_reached_the_new_place_leaves_the_run_in_the_old_one(lake: LakeFiles) -> None:
    land(lake, parse_detail())
    lake.write_moves([("pr_1", "2026-10-30", "2026-11-01")])
    with Lake(lake.folder) as catalog:
        assert catalog.sql("SELECT count(*) FROM runs").fetchall() == [(1,)]
    land(lake, classify())
    assert stored(lake) == [("2026-10-30", "pr_1"), ("2026-11-02", "clr_1")]


def fail(lake: LakeFiles, run_id: str, reason: str, *, missing: bool = False) -> None:
    load = Load(lake, command="fetch", source="test")
    error = RunMissingError if missing else RunFailedError
    load.take_failure(
        error(f"run {run_id}: {reason}", run_id=run_id, reason=reason, http_status=500, request_id="req_1", attempts=6),
        workspace_id="ws_1",
    )
    load.finish()


def letters(lake: LakeFiles) -> list[tuple[Any, ...]]:
    with Lake(lake.folder) as catalog:
        return catalog.sql(
            "SELECT run_id, kind, workspace_id, reason, http_status, attempts FROM dead_letters"
        ).fetchall()


def test_what_did_not_come_is_a_dead_letter_with_its_last_reason(lake: LakeFiles) -> None:
    fail(lake, "clr_1", "HTTP_500")
    fail(lake, "exr_2", "NOT_FOUND", missing=True)
    fail(lake, "clr_1", "TIMEOUT")
    assert letters(lake) == [
        ("clr_1", "classify_run", "ws_1", "TIMEOUT", 500, 6),
        ("exr_2", "extract_run", "ws_1", "NOT_FOUND", 500, 6),
    ]
    with Lake(lake.folder) as catalog:
        loads = catalog.sql("SELECT missing, failed, failed_reasons FROM loads ORDER BY load_id").fetchall()
    assert loads == [(0, 1, {"HTTP_500": 1}), (1, 0, {"NOT_FOUND": 1}), (0, 1, {"TIMEOUT": 1})]


def test_a_dead_letter_is_settled_by_a_payload_that_came_later_and_not_by_an_earlier_one(lake: LakeFiles) -> None:
    fail(lake, "clr_1", "HTTP_500")
    land(lake, classify("clr_1"), fetched_at=NOON - timedelta(days=100_000))
    assert [letter[0] for letter in letters(lake)] == ["clr_1"]
    land(lake, classify("clr_1"), fetched_at=NOON + timedelta(days=100_000))
    assert letters(lake) == []


VERSIONS = st.integers(0, 4)


@st.composite
def payloads(draw: st.DrawFn) -> tuple[dict[str, Any], bool, int]:
    """Draw a payload of one of four runs, in one of its shapes and versions, received at one of a few times."""
    run_id = draw(st.sampled_from(["clr_1", "clr_2", "pr_1", "workflow_run_1"]))
    version, is_detail = draw(VERSIONS), draw(st.booleans())
    payload: dict[str, Any] = {
        "id": run_id,
        "status": draw(st.sampled_from(["PROCESSING", "PROCESSED", "FAILED", "ODD"])),
    }
    names = {"clr": "classify_run", "pr": "parse_run", "workflow": "workflow_run"}
    payload["object"] = names[run_id.split("_")[0]]
    optional = {
        "failureReason": f"REASON_{version}",
        "usage": {"credits": version, "totalCredits": version + 1},
        "metadata": {"version": version},
        "endTime": f"2026-11-05T00:00:0{version}Z",
        "initialRunAt": "2026-10-31T00:00:00Z",
        "file": FILE,
    }
    payload |= {name: value for name, value in optional.items() if draw(st.booleans())}
    if payload["object"] == "classify_run" or not is_detail:
        payload |= {"createdAt": "2026-11-01T00:00:00Z", "updatedAt": f"2026-11-01T00:0{version}:00Z"}
    return payload, is_detail, draw(st.integers(0, 3))


def answers(
    folder: Path, deliveries: list[tuple[dict[str, Any], bool, int]], loads: int
) -> list[list[tuple[Any, ...]]]:
    lake = LakeFiles(folder)
    size = max(1, -(-len(deliveries) // loads))
    for start in range(0, len(deliveries), size):
        load = Load(lake, command="load", source="test")
        for payload, is_detail, hour in deliveries[start : start + size]:
            load.take_run(
                payload["id"],
                json.dumps(payload).encode(),
                fetched_at=NOON + timedelta(hours=hour),
                is_detail=is_detail,
                workspace_id=None,
            )
        load.finish()
    with Lake(folder) as catalog:
        return [
            catalog.sql("SELECT COLUMNS(* EXCLUDE load_id)::VARCHAR FROM runs ORDER BY run_id").fetchall(),
            catalog.sql("SELECT COLUMNS(*)::VARCHAR FROM credit_ledger ORDER BY ALL").fetchall(),
            stored(lake),
        ]


@pytest.mark.long
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(payloads(), min_size=1, max_size=7).flatmap(lambda them: st.tuples(st.just(them), st.permutations(them))),
    st.integers(1, 4),
)
def test_the_order_in_which_payloads_land_changes_no_answer(
    tmp_path_factory: Any, orders: tuple[list[Any], list[Any]], loads: int
) -> None:
    folder = tmp_path_factory.mktemp("lake")
    one, other = orders
    assert answers(folder / "one", one, 1) == answers(folder / "other", other, loads)


@pytest.mark.long
def test_what_does_not_fit_in_memory_lands_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_squeezed_world(seed=11, runs=600)
    run_ids = world.run_ids(world.workspaces[0])
    payloads = [
        *map(world.detail, run_ids),
        *(world.summary(run_id) for run_id in run_ids if run_id[:2] in ("pr", "ed")),
    ]
    folders = [tmp_path / "in_memory", tmp_path / "on_disk"]
    for folder in folders:
        load = Load(LakeFiles(folder), command="load", source="test")
        for payload in payloads:
            load.take_run(
                payload["id"], json.dumps(payload).encode(), fetched_at=NOON, is_detail=True, workspace_id=None
            )
        assert load.finish().landed == len(run_ids)
        # What comes next is flattened three runs at a time and staged nine at a time, each batch on the disk.
        monkeypatch.setattr(staging, "LARGE", staging.Portions(payloads=3, rows=7, held_bytes=1))
    runs = "SELECT COLUMNS(* EXCLUDE load_id)::VARCHAR FROM runs ORDER BY run_id"
    with Lake(folders[0]) as one, Lake(folders[1]) as other:
        for query in (runs, "FROM credit_ledger ORDER BY ALL"):
            assert one.sql(query).fetchall() == other.sql(query).fetchall()
    assert stored(LakeFiles(folders[0])) == stored(LakeFiles(folders[1]))


def test_rows_that_are_left_once_others_have_gone_to_the_disk_go_there_too(
    lake: LakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    spilled: list[int] = []
    spill = staging.Staging._spill

    def noting(self: staging.Staging) -> None:
        spilled.append(sum(len(batch) for batch in self._batches))
        spill(self)

    monkeypatch.setattr(staging.Staging, "_spill", noting)
    monkeypatch.setattr(staging, "LARGE", staging.Portions(payloads=5, rows=5, held_bytes=1 << 20))
    batch_bytes = batch_size(lake.folder.parent / "measured", monkeypatch)
    monkeypatch.setattr(staging, "LARGE", staging.Portions(payloads=5, rows=5, held_bytes=2 * batch_bytes))
    run_ids = [f"clr_{number:02}" for number in range(27)]
    land(lake, *map(classify, run_ids))
    # Two batches of five at a time, and in the end what was left: a batch, and two rows.
    assert spilled == [10, 10, 7]
    assert stored(lake) == [("2026-11-02", run_id) for run_id in run_ids]


def batch_size(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many bytes a batch of five such rows has, by Arrow's word."""
    sizes: list[int] = []
    make_batch = staging.Staging._make_batch

    def noting(self: staging.Staging) -> None:
        make_batch(self)
        sizes.append(self._batches_bytes)

    with monkeypatch.context() as patched:
        patched.setattr(staging.Staging, "_make_batch", noting)
        land(LakeFiles(folder), *(classify(f"clr_{number:02}") for number in range(5)))
    return sizes[0]


@pytest.mark.parametrize(("most_rows", "made_at_once"), [(None, 2), (100, 1)])
def test_two_days_are_written_at_a_time_and_two_are_made_but_in_a_load_in_parts_one(
    lake: LakeFiles, monkeypatch: pytest.MonkeyPatch, most_rows: int | None, made_at_once: int
) -> None:
    at_once: dict[str, int] = defaultdict(int)
    most_at_once: dict[str, int] = defaultdict(int)

    def slowed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def slow(*arguments: Any) -> Any:
            names = (name, "either")
            for each in names:
                at_once[each] += 1
            time.sleep(0.1)
            for each in names:
                most_at_once[each] = max(most_at_once[each], at_once[each])
            result = function(*arguments)
            for each in names:
                at_once[each] -= 1
            return result

        return slow

    monkeypatch.setattr(LakeFiles, "write_packed_day", slowed("written", LakeFiles.write_packed_day))
    monkeypatch.setattr(landing, "packed_day", slowed("made", landing.packed_day))
    load = Load(lake, command="fetch", source="test", most_rows=most_rows)
    for day in range(1, 7):
        payload = classify(f"clr_{day}", createdAt=f"2026-11-0{day}T08:00:00Z")
        load.take_run(payload["id"], json.dumps(payload).encode(), fetched_at=NOON, is_detail=True, workspace_id=None)
    assert load.finish().landed == 6
    assert (most_at_once["made"], most_at_once["either"]) == (made_at_once, 2)


def test_once_a_day_cannot_be_written_no_other_is_begun_and_all_land_later(
    lake: LakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def refusing(_lake: LakeFiles, day: str, _content: memoryview) -> None:
        begun.append(day)
        time.sleep(0.05)  # the other thread's is under way as well
        raise OSError("refused")

    payloads = [classify(f"clr_{day}", createdAt=f"2026-11-{day:02}T08:00:00Z") for day in range(1, 21)]
    with monkeypatch.context() as patched:
        patched.setattr(LakeFiles, "write_packed_day", refusing)
        with pytest.raises(OSError, match="refused"):
            land(lake, *payloads)
    assert 1 <= len(begun) < 20
    assert lake.days() == []
    assert recover(lake) == 1
    assert len(stored(lake)) == 20


PARTS_DAY = "2026-11-02"


def of_day(number: int, minute: int, **fields: Any) -> dict[str, Any]:
    """Return a run of PARTS_DAY, as it was at a minute past twelve."""
    return classify(f"clr_{number:02}", updatedAt=f"2026-11-02T12:{minute:02}:00Z", **fields)


@pytest.mark.parametrize("rows", [1, 2, 3, 10, 11, 100])
def test_a_day_is_rewritten_in_parts_to_the_rows_that_it_should_have(
    lake: LakeFiles, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(day_files, "PART_ROWS", rows)
    minutes = dict.fromkeys(range(10, 31), 10)
    land(lake, *(of_day(number, minute) for number, minute in minutes.items()))
    # Before, between, after those there, at the ends of parts; newer and older; twice; unchanged; one of another day.
    coming = [(5, 1), (9, 1), (10, 20), (12, 5), (13, 20), (19, 20), (20, 5), (30, 20), (31, 1), (31, 2), (40, 1)]
    mover = {"object": "parse_run", "id": "pr_1", "status": "PROCESSED"}
    land(lake, {**mover, "file": {**FILE, "createdAt": "2026-10-30T08:00:00Z"}})
    result = land(
        lake,
        *(of_day(number, minute) for number, minute in coming),
        {**mover, "createdAt": "2026-11-02T08:00:00Z", "updatedAt": "2026-11-02T12:59:00Z"},
        fetched_at=NOON + timedelta(minutes=1),
    )
    for number, minute in coming:
        minutes[number] = max(minute, minutes.get(number, 0))
    expected = {f"clr_{number:02}": f"2026-11-02 12:{minute:02}:00" for number, minute in sorted(minutes.items())}
    expected["pr_1"] = "2026-11-02 12:59:00"
    found = lake.read_day(PARTS_DAY)
    told = [str(time)[:19] for time in found["updated_at"].to_pylist()]
    assert list(zip(found["run_id"].to_pylist(), told, strict=True)) == list(expected.items())
    # 12 and 20 come older than they are known: fewer news of the same content; the other nine runs are new or newer.
    assert (result.landed, result.unchanged) == (9, 2)
    assert len(lake.read_day("2026-10-30")) == 0
    file = pq.ParquetFile(lake.day_path(PARTS_DAY))
    groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert max(groups) <= rows + len(coming)
    assert holding.read_hashes(lake.day_path(PARTS_DAY)).tolist() == sorted(  # type: ignore[union-attr]
        zlib.crc32(run_id.encode()) for run_id in expected
    )


def test_a_day_that_is_not_in_order_is_put_in_order_by_whatever_writes_it(
    lake: LakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(day_files, "PART_ROWS", 3)
    land(lake, *(of_day(number, 10) for number in range(10)), parse_detail("pr_2", createdAt="2026-11-02T08:00:00Z"))
    land(lake, {**parse_detail(), "file": {**FILE, "createdAt": "2026-11-02T08:00:00Z"}})
    in_order = lake.read_day(PARTS_DAY)
    mixed = in_order.take([5, 11, 3, 9, 0, 1, 10, 2, 8, 7, 6, 4])

    def mix() -> None:
        lake.write_packed_day(PARTS_DAY, day_files.packed_day([mixed], mixed["run_id"]))

    mix()
    land(lake, of_day(9, 20))
    assert lake.read_day(PARTS_DAY)["run_id"].equals(in_order["run_id"])
    mix()
    land(lake, parse_detail(createdAt="2026-10-29T08:00:00Z"))  # leaves this day
    assert lake.read_day(PARTS_DAY)["run_id"].to_pylist() == [*in_order["run_id"].to_pylist()[:-2], "pr_2"]
    left_here = sorted(zlib.crc32(run_id.encode()) for run_id in in_order["run_id"].to_pylist() if run_id != "pr_1")
    assert holding.read_hashes(lake.day_path(PARTS_DAY)).tolist() == left_here  # type: ignore[union-attr]
    mix()
    load = Load(lake, command="fetch", source="test", now=lambda: NOON + timedelta(hours=1))
    gone = RunMissingError("gone", run_id="clr_03", reason="NOT_FOUND", http_status=404)
    load.take_failure(gone, workspace_id=None)
    load.finish()
    found = lake.read_day(PARTS_DAY)
    assert found["run_id"].equals(in_order["run_id"])
    assert [row["run_id"] for row in found.to_pylist() if row["deleted_at"]] == ["clr_03"]


def test_of_a_large_day_no_more_than_a_part_is_in_memory(lake: LakeFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(day_files, "PART_ROWS", 5)
    land(lake, *(of_day(number, 10) for number in range(40)))
    parts, left = [], []

    def noted(function: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*arguments: Any) -> Any:
            part = function(*arguments)
            parts.append(weakref.ref(part))
            return part

        return noting

    def looking(self: sealed_parquet.StoredTable, batches: Any) -> Any:
        left.append(sum(part() is not None for part in parts))
        return next_of(self, batches)

    next_of = noted(sealed_parquet.StoredTable._next_of)
    monkeypatch.setattr(sealed_parquet.StoredTable, "_next_of", looking)
    monkeypatch.setattr(day_change, "_put_together", noted(day_change._put_together))
    land(lake, of_day(22, 20), of_day(50, 1))
    assert left == [0] * 8
    assert len(parts) == 16  # what was there, and what it became


@pytest.mark.parametrize("changed", [0, 5, 9])
def test_a_change_in_one_part_of_a_day_lands_though_all_else_comes_as_it_is(
    lake: LakeFiles, monkeypatch: pytest.MonkeyPatch, changed: int
) -> None:
    monkeypatch.setattr(day_files, "PART_ROWS", 3)
    load_ids = [land(lake, *(of_day(number, 10) for number in range(10))).load_id]
    before = lake.read_day(PARTS_DAY)
    load_ids.append(land(lake, of_day(changed, 20)).load_id)
    after = lake.read_day(PARTS_DAY)
    lake.write_day(PARTS_DAY, before)
    *_, last = land_logs(lake, [UnlandedLog(raw_path(lake.raw_folder, each), each, 0) for each in load_ids])
    assert (last.landed, last.unchanged) == (1, 9)
    assert lake.read_day(PARTS_DAY).equals(after)


@pytest.mark.parametrize("rows", [3, 100])
def test_a_day_that_comes_as_it_is_is_not_written(lake: LakeFiles, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(day_files, "PART_ROWS", rows)
    payloads = [of_day(number, 10) for number in range(10)]
    load = Load(lake, command="fetch", source="test")
    for payload in payloads:
        load.take_run(payload["id"], json.dumps(payload).encode(), fetched_at=NOON, is_detail=True, workspace_id=None)
    load.finish()
    before = lake.versions()
    (again,) = land_logs(lake, [UnlandedLog(load.log_path, load.result.load_id, 0)])
    assert (again.landed, again.unchanged) == (0, 10)
    assert lake.versions() == before  # by time and inode; that it was read changes the time of its last reading


def test_a_day_of_many_rows_is_read_column_by_column_to_the_same_rows(
    lake: LakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = {"credits": 1.5, "totalCredits": 2, "breakdown": [{"object": "classify_run", "id": "clr_2", "credits": 2}]}
    land(lake, classify(usage=usage, metadata={"team": "red"}), classify("clr_2", status="FAILED"))
    at_once = lake.read_day("2026-11-02")
    assert len(at_once) == 2
    monkeypatch.setattr(sealed_parquet, "_AT_ONCE_ROWS", 1)
    assert lake.read_day("2026-11-02").equals(at_once, check_metadata=True)
    assert lake.read_run_ids("2026-11-02") == ["clr_1", "clr_2"]


def test_a_landing_cut_short_in_the_middle_of_a_move_shows_the_run_once_and_is_finished_by_the_next(
    lake: LakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_short(*_arguments: Any) -> None:
        raise OSError("cut short")

    land(lake, parse_detail())
    with monkeypatch.context() as patched:
        patched.setattr(landing, "_drop", cut_short)
        with pytest.raises(OSError, match="cut short"):
            land(lake, parse_summary(), is_detail=False)
    assert stored(lake) == [("2026-10-30", "pr_1"), ("2026-11-01", "pr_1")]
    with Lake(lake.folder) as catalog:
        assert catalog.sql("SELECT count(*) FROM runs").fetchall() == [(1,)]
    land(lake, classify())
    assert stored(lake) == [("2026-11-01", "pr_1"), ("2026-11-02", "clr_1")]


def test_a_run_that_once_came_without_its_creation_time_is_found_though_its_file_is_gone(lake: LakeFiles) -> None:
    land(lake, classify(createdAt=None, file=FILE))
    assert stored(lake) == [("2026-10-30", "clr_1")]
    land(lake, classify(file=None))
    assert stored(lake) == [("2026-11-02", "clr_1")]


def test_what_a_dead_writer_left_half_written_is_gone_after_the_next_start(lake: LakeFiles) -> None:
    land(lake, classify())
    day = lake.day_path("2026-11-02").parent
    left = [day / ".runs.parquet.1-ab.tmp", lake.loads_folder / ".x.parquet.1-ab.tmp", lake.folder / ".staging-1.tmp"]
    left[0].write_bytes(b"half")
    left[1].write_bytes(b"half")
    left[2].mkdir()
    with Lake(lake.folder) as catalog:
        assert catalog.sql("SELECT count(*) FROM runs").fetchall() == [(1,)]
    land(lake, classify("clr_2"))
    assert not any(path.exists() for path in left)


def test_a_file_of_a_newer_schema_is_told_and_not_misread(lake: LakeFiles) -> None:
    land(lake, classify())
    path = lake.day_path("2026-11-02")
    pq.write_table(lake.read_day("2026-11-02").replace_schema_metadata({"pipeline_schema": "99"}), path)
    with pytest.raises(LakeDamagedError, match=r"runs\.parquet: written by a newer version"):
        land(lake, classify("clr_2"))
