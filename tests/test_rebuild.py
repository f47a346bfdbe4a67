"""Making the lake anew from its raw log: the same answers as before, whatever became of the files in between."""

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from pipeline.arrow_schemas import LOADS_SCHEMA
from pipeline.catalog import Lake
from pipeline.errors import LakeDamagedError, RunFailedError, RunMissingError, UsageError
from pipeline.lake import LakeFiles
from pipeline.loads import Load
from pipeline.rebuild import Rebuilt, rebuild_lake
from tests.conftest import NOON, classify, land

Payload = dict[str, Any]
Answers = dict[str, list[tuple[Any, ...]]]

FILE = {"object": "file", "id": "file_1", "name": "a.pdf", "createdAt": "2026-10-30T08:00:00Z"}
LATER = NOON + timedelta(days=100_000)
"""After any real clock: what is received then settles a dead letter."""


def parse(**fields: Any) -> Payload:
    return {"object": "parse_run", "id": "pr_1", "status": "PROCESSED", "file": FILE, **fields}


def fail(lake: LakeFiles, *run_ids: str, missing: bool = False) -> None:
    load = Load(lake, command="fetch", source="test")
    error = RunMissingError if missing else RunFailedError
    for run_id in run_ids:
        load.take_failure(error(f"run {run_id}: no", run_id=run_id, reason="NO", http_status=500), workspace_id="ws_1")
    load.finish()


def land_history(lake: LakeFiles) -> None:
    """Land five loads: updates, a run that moves to another day, dead letters of which one is settled."""
    hours = [NOON + timedelta(hours=hour) for hour in range(5)]
    land(
        lake,
        classify("clr_1", status="PROCESSING", updatedAt="2026-11-02T09:30:01Z"),
        classify("clr_2", usage={"credits": 0.3}, metadata={"a": "é"}),
        parse(usage={"credits": 2, "totalCredits": 2, "breakdown": [{"object": "parse_run", "id": "pr_1"}]}),
        fetched_at=hours[0],
    )
    fail(lake, "exr_8", "exr_9")
    fail(lake, "clr_gone", missing=True)
    times = {"createdAt": "2026-11-01T10:00:00Z", "updatedAt": "2026-11-01T10:05:00Z"}
    land(lake, classify("clr_1", usage={"credits": 1}), fetched_at=hours[1])
    land(lake, parse(**times), classify("clr_2", updatedAt="2026-11-02T11:00:00Z"), is_detail=False,
         fetched_at=hours[2])  # fmt: skip
    land(lake, classify("exr_8", object="extract_run"), classify("clr_2", updatedAt="2026-11-02T11:00:00Z"),
         fetched_at=LATER)  # fmt: skip
    # An older state of a run that comes late.
    land(lake, classify("clr_1", status="PENDING", updatedAt="2026-11-02T09:30:00Z"), fetched_at=hours[3])


@pytest.fixture(scope="module")
def history_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a lake with that history; tests copy it."""
    lake = LakeFiles(tmp_path_factory.mktemp("history") / "lake")
    land_history(lake)
    return lake.folder


@pytest.fixture
def history(history_once: Path, lake: LakeFiles) -> LakeFiles:
    """A copy of that lake."""
    shutil.copytree(history_once, lake.folder)
    return lake


RUN_IDS = ["clr_1", "clr_2", "exr_8", "pr_1"]


def answers(lake: LakeFiles) -> Answers:
    """Return everything that a lake answers: whole rows, and where a reader finds them that knows no catalog."""
    found: Answers = {}
    with Lake(lake.folder) as catalog:
        for view, order in (("runs", "run_id"), ("dead_letters", "run_id"), ("loads", "load_id"), ("charges", "ALL"),
                            ("credit_ledger", "ALL")):  # fmt: skip
            found[view] = catalog.sql(f"FROM {view} ORDER BY {order}").fetchall()
    glob = str(lake.runs_folder / "*" / "*.parquet")
    query = "SELECT day::VARCHAR, run_id, _sources FROM read_parquet($glob, hive_partitioning = true) ORDER BY ALL"
    found["stored"] = duckdb.sql(query, params={"glob": glob}).fetchall()
    return found


def values(lake: LakeFiles, columns: str, run_id: str = "clr_1") -> tuple[Any, ...]:
    with Lake(lake.folder) as catalog:
        (row,) = catalog.sql(f"SELECT {columns} FROM runs WHERE run_id = $run_id", run_id=run_id).fetchall()
    return row


def spoil(lake: LakeFiles, day: str, **wrong: Any) -> None:
    """Write wrong values into all rows of a day's file, as an older version of the program might have."""
    table = lake.read_day(day).to_pylist()
    lake.write_day(day, pa.Table.from_pylist([{**row, **wrong} for row in table], schema=lake.read_day(day).schema))


def test_the_history_is_what_it_should_be_before_it_is_rebuilt(history: LakeFiles) -> None:
    found = answers(history)
    assert [row[0] for row in found["runs"]] == RUN_IDS
    assert [row[:2] for row in found["stored"]] == [
        ("2026-11-01", "pr_1"), ("2026-11-02", "clr_1"), ("2026-11-02", "clr_2"), ("2026-11-02", "exr_8"),
    ]  # fmt: skip
    assert [row[0] for row in found["dead_letters"]] == ["clr_gone", "exr_9"]
    assert values(history, "status, credits::VARCHAR") == ("PROCESSED", "1.000000")


def test_a_rebuilt_lake_answers_the_same(history: LakeFiles) -> None:
    before = answers(history)
    told: list[str] = []
    assert rebuild_lake(history, tell=told.append) == Rebuilt(logs=7, runs=4, unchanged=4, kept=0)
    assert answers(history) == before
    assert told == []
    assert rebuild_lake(history).unchanged == 4
    assert answers(history) == before


def test_a_rebuild_that_changes_nothing_writes_no_day_anew(history: LakeFiles) -> None:
    before = {path: Path(path).stat().st_ino for path in history.day_paths()}
    rebuild_lake(history)
    assert {path: Path(path).stat().st_ino for path in history.day_paths()} == before


@pytest.mark.long
@pytest.mark.parametrize("what", ["runs", "runs/day=2026-11-02", "runs/day=2026-11-01"])
def test_what_was_deleted_is_made_anew(history: LakeFiles, what: str) -> None:
    before = answers(history)
    shutil.rmtree(history.folder / what)
    done = rebuild_lake(history)
    assert (done.runs, done.kept) == (4, 0)
    assert answers(history) == before


def test_deleted_dead_letters_are_made_anew(history: LakeFiles) -> None:
    before = answers(history)
    history.dead_letters_path.unlink()
    rebuild_lake(history)
    assert answers(history) == before


@pytest.mark.long
def test_deleted_rows_of_loads_are_made_anew(history: LakeFiles) -> None:
    before = answers(history)
    shutil.rmtree(history.loads_folder)
    rebuild_lake(history)
    after = answers(history)
    # How far a log has landed may be counted to its very end now.
    position = LOADS_SCHEMA.get_field_index("raw_bytes")
    for rows in (before["loads"], after["loads"]):
        rows[:] = [(*row[:position], *row[position + 1 :]) for row in rows]
    assert after == before


def test_everything_but_the_raw_log_can_be_deleted(history: LakeFiles) -> None:
    before = answers(history)
    for path in history.folder.iterdir():
        if path.is_dir() and path != history.raw_folder:
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()
    done = rebuild_lake(history)
    assert (done.logs, done.runs, done.kept) == (7, 4, 0)
    after = answers(history)
    assert {view: after[view] for view in after if view != "loads"} == {
        view: before[view] for view in before if view != "loads"
    }


DAMAGES = {
    "garbage": lambda _content: b"garbage",
    "empty": lambda _content: b"",
    "truncated": lambda content: content[:-100],
    "zeroed within": lambda content: content[:20] + bytes(500) + content[520:],
}


@pytest.mark.long
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_day_is_named_by_what_reads_it_and_is_mended_by_moving_it_away(
    history: LakeFiles, tmp_path: Path, damage: str
) -> None:
    before = answers(history)
    path = history.day_path("2026-11-02")
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    for reads in (lambda: rebuild_lake(history), lambda: history.read_day("2026-11-02")):
        with pytest.raises(LakeDamagedError, match="mend the lake with `pipeline check --repair`") as told:
            reads()
        assert str(path) in str(told.value)
    path.rename(tmp_path / "damaged.parquet")
    assert rebuild_lake(history).runs == 4
    assert answers(history) == before


def test_a_load_into_a_lake_with_a_damaged_day_names_it_and_lands_after_the_mending(
    history: LakeFiles, tmp_path: Path
) -> None:
    path = history.day_path("2026-11-01")
    path.write_bytes(b"garbage")
    load = Load(history, command="load", source="test")
    payload = {"object": "parse_run", "id": "pr_2", "status": "PROCESSED", "file": FILE}
    load.take_run("pr_2", json.dumps(payload).encode(), fetched_at=NOON, is_detail=True, workspace_id=None)
    with pytest.raises(LakeDamagedError, match="mend the lake with `pipeline check --repair`") as told:
        load.finish()
    load.close()
    assert str(path) in str(told.value)
    path.rename(tmp_path / "damaged.parquet")
    done = rebuild_lake(history)
    assert (done.logs, done.runs) == (8, 5)
    assert values(history, "status", "pr_2") == ("PROCESSED",)
    assert values(history, "status", "pr_1") == ("PROCESSED",)


# What the log says goes before what the lake has


def test_wrong_values_are_replaced_by_what_the_log_says(history: LakeFiles) -> None:
    before = answers(history)
    spoil(history, "2026-11-02", status="WRONG", failure_reason="WRONG", credits=None, risk_level="HIGH", file_count=7)
    assert values(history, "status, failure_reason, risk_level") == ("WRONG", "WRONG", "HIGH")
    done = rebuild_lake(history)
    assert (done.runs, done.unchanged, done.kept) == (4, 1, 0)
    assert answers(history) == before


def test_a_run_in_a_wrong_day_goes_where_the_log_says(history: LakeFiles) -> None:
    before = answers(history)
    table = history.read_day("2026-11-02")
    history.write_day("2026-11-02", table.slice(0, 0))
    history.write_day("2026-12-24", table)
    history.write_day("unknown", table.slice(1, 1))
    rebuild_lake(history)
    assert answers(history) == before
    assert not history.moving_path.exists()


def test_what_a_dead_load_had_logged_lands_with_the_rebuild(lake: LakeFiles) -> None:
    land(lake, classify("clr_1"))
    load = Load(lake, command="fetch", source="test")
    load.take_run("clr_2", json.dumps(classify("clr_2")).encode(), fetched_at=NOON, is_detail=True, workspace_id=None)
    load.checkpoint()
    load.close()
    told: list[str] = []
    assert rebuild_lake(lake, tell=told.append) == Rebuilt(logs=2, runs=2, unchanged=2, kept=0)
    assert told == [f"load {load.result.load_id} had been interrupted: 1 runs landed from its log"]


# Logs that were not kept


def test_rows_of_runs_that_no_log_holds_stay_as_they_are(lake: LakeFiles) -> None:
    land(lake, classify("clr_1", usage={"credits": 1}), keep_raw=False)
    land(lake, classify("clr_2"), classify("clr_3", createdAt="2026-11-07T00:00:00Z"))
    before = answers(lake)
    assert rebuild_lake(lake) == Rebuilt(logs=1, runs=2, unchanged=2, kept=1)
    assert answers(lake) == before


def test_what_only_a_lost_log_said_of_a_run_stays(lake: LakeFiles) -> None:
    land(lake, classify(usage={"credits": 1}, metadata={"a": 1}), keep_raw=False)
    summary = {name: value for name, value in classify().items() if name != "config"}
    land(lake, summary, is_detail=False, fetched_at=NOON + timedelta(hours=1))
    before = answers(lake)
    assert values(lake, "credits::VARCHAR, metadata, is_detail") == ("1.000000", '{"a":1}', True)
    rebuild_lake(lake)
    assert values(lake, "credits::VARCHAR, metadata, is_detail") == ("1.000000", '{"a":1}', True)
    assert answers(lake)["runs"] == before["runs"]


@pytest.mark.parametrize("lost", ["not kept", "pruned"])
def test_a_newer_state_whose_log_was_lost_is_not_undone_by_an_older_one_that_is_there(
    lake: LakeFiles, lost: str
) -> None:
    land(lake, classify(status="PROCESSING", updatedAt="2026-11-02T09:30:01Z"))
    newer = classify(usage={"credits": 1})
    land(lake, newer, fetched_at=NOON + timedelta(hours=1), keep_raw=lost != "not kept")
    if lost == "pruned":
        lake.raw_logs()[1].unlink()
    before = answers(lake)
    assert values(lake, "status, credits::VARCHAR") == ("PROCESSED", "1.000000")
    rebuild_lake(lake)
    assert values(lake, "status, credits::VARCHAR") == ("PROCESSED", "1.000000")
    assert answers(lake)["runs"] == before["runs"]


def test_wrong_values_of_a_kept_log_are_replaced_though_another_log_was_lost(lake: LakeFiles) -> None:
    land(lake, classify("clr_9"), keep_raw=False)
    land(lake, classify("clr_1"), fetched_at=NOON + timedelta(hours=1))
    spoil(lake, "2026-11-02", status="WRONG")
    rebuild_lake(lake)
    assert values(lake, "status") == ("PROCESSED",)
    assert values(lake, "status", "clr_9") == ("WRONG",)


def test_a_dead_letter_that_a_lost_log_had_settled_does_not_come_back(lake: LakeFiles) -> None:
    fail(lake, "clr_1", "clr_2")
    land(lake, classify("clr_1"), fetched_at=LATER, keep_raw=False)
    before = answers(lake)
    assert [row[0] for row in before["dead_letters"]] == ["clr_2"]
    rebuild_lake(lake)
    assert answers(lake)["dead_letters"] == before["dead_letters"]


def test_a_dead_letter_whose_log_was_lost_stays(lake: LakeFiles) -> None:
    fail(lake, "clr_1")
    lake.raw_logs()[0].unlink()
    land(lake, classify("clr_2"))
    before = answers(lake)
    rebuild_lake(lake)
    assert answers(lake)["dead_letters"] == before["dead_letters"] != []


@pytest.mark.parametrize("kept", [True, False])
def test_without_a_raw_log_there_is_nothing_to_rebuild_from(lake: LakeFiles, kept: bool) -> None:
    lake.runs_folder.mkdir(parents=True)
    if kept:
        land(lake, classify(), keep_raw=False)
    with pytest.raises(UsageError, match="no raw log here, so there is nothing to rebuild the lake from") as refused:
        rebuild_lake(lake)
    assert str(lake.raw_folder) in str(refused.value)
    assert len(answers(lake)["runs"]) == 1 if kept else lake.days() == []


# Loads that are still running


def running(lake: LakeFiles, *payloads: Payload) -> Load:
    load = Load(lake, command="fetch", source="test")
    for payload in payloads:
        body = json.dumps(payload).encode()
        load.take_run(
            payload["id"], body, fetched_at=NOON + timedelta(hours=2), is_detail=True, workspace_id=None
        )  # fmt: skip
    load.checkpoint()
    return load


def test_the_log_of_a_running_load_is_left_alone(lake: LakeFiles) -> None:
    land(lake, classify("clr_1"))
    load = running(lake, classify("clr_2"))
    told: list[str] = []
    assert rebuild_lake(lake, tell=told.append) == Rebuilt(logs=1, runs=1, unchanged=1, kept=0)
    assert told == [f"load {load.result.load_id} is still running; it lands by itself"]
    assert [row[0] for row in answers(lake)["runs"]] == ["clr_1"]
    result = load.finish()
    assert (result.landed, result.unchanged) == (1, 0)
    assert [row[0] for row in answers(lake)["runs"]] == ["clr_1", "clr_2"]
    assert lake.unlanded_logs() == []


def test_what_a_running_load_has_landed_already_is_not_undone(lake: LakeFiles) -> None:
    land(lake, classify(status="PROCESSING", updatedAt="2026-11-02T09:30:01Z"))
    load = running(lake, classify(usage={"credits": 1}), classify("clr_2"))
    load.land()
    before = answers(lake)
    rebuild_lake(lake)
    assert answers(lake)["runs"] == before["runs"]
    load.finish()
    assert values(lake, "status, credits::VARCHAR") == ("PROCESSED", "1.000000")


def test_where_the_only_log_is_of_a_running_load_nothing_is_made_anew(lake: LakeFiles) -> None:
    land(lake, classify("clr_1"), keep_raw=False)
    load = running(lake, classify("clr_2"))
    assert rebuild_lake(lake) == Rebuilt(logs=0, runs=0, unchanged=0, kept=1)
    assert load.finish().landed == 1
    assert [row[0] for row in answers(lake)["runs"]] == ["clr_1", "clr_2"]


# Damaged logs


def logged_in_frames(lake: LakeFiles, *payloads: Payload) -> list[int]:
    """Land payloads in one load, each in a frame of its own, and return the offsets at which these begin and end."""
    load = Load(lake, command="load", source="test")
    (path,) = [path for path in lake.raw_logs() if load.result.load_id in path.name]
    offsets = [path.stat().st_size]
    for payload in payloads:
        body = json.dumps(payload).encode()
        load.take_run(
            payload["id"], body, fetched_at=NOON + timedelta(hours=1), is_detail=True, workspace_id=None
        )  # fmt: skip
        load.checkpoint()
        offsets.append(path.stat().st_size)
    load.finish()
    return offsets


def test_damage_in_the_middle_of_a_log_is_told_and_costs_no_row_that_the_lake_still_has(lake: LakeFiles) -> None:
    offsets = logged_in_frames(lake, classify("clr_1"), classify("clr_2"), classify("clr_3"))
    before = answers(lake)
    (path,) = lake.raw_logs()
    content = bytearray(path.read_bytes())
    content[offsets[1] + 20 : offsets[1] + 30] = bytes(10)
    path.write_bytes(content)
    told: list[str] = []
    done = rebuild_lake(lake, tell=told.append)
    load_id = path.name.removesuffix(".jsonl.zst")
    assert told == [f"load {load_id}: bytes {offsets[1]} to {offsets[2]} of its log are damaged, and lost"]
    assert (done.runs, done.kept) == (2, 1)
    assert answers(lake) == before
    shutil.rmtree(lake.runs_folder)
    rebuild_lake(lake)
    assert [row[0] for row in answers(lake)["runs"]] == ["clr_1", "clr_3"]


def test_damage_does_not_bring_back_an_older_state_from_another_log(lake: LakeFiles) -> None:
    land(lake, classify("clr_1", status="PROCESSING", updatedAt="2026-11-02T09:30:01Z"))
    offsets = logged_in_frames(lake, classify("clr_1", usage={"credits": 1}), classify("clr_2"))
    before = answers(lake)
    path = lake.raw_logs()[1]
    content = bytearray(path.read_bytes())
    content[offsets[0] + 20 : offsets[0] + 30] = bytes(10)
    path.write_bytes(content)
    rebuild_lake(lake)
    assert answers(lake) == before


def test_a_log_that_lost_its_end_after_it_had_landed_is_told(lake: LakeFiles) -> None:
    offsets = logged_in_frames(lake, classify("clr_1"), classify("clr_2"))
    before = answers(lake)
    (path,) = lake.raw_logs()
    path.write_bytes(path.read_bytes()[: offsets[1] + 20])
    told: list[str] = []
    done = rebuild_lake(lake, tell=told.append)
    assert (done.runs, done.kept) == (1, 1)
    assert answers(lake)["runs"] == before["runs"]
    assert len(told) == 1
    assert path.name.removesuffix(".jsonl.zst") in told[0]
