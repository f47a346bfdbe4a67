"""A load from its beginning to its end, and what is done for one whose process died."""

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import filelock
import pytest

from pipeline import durable
from pipeline import lake as lake_module
from pipeline.catalog import Lake
from pipeline.checks.lake import check_lake
from pipeline.errors import LakeError, RunFailedError
from pipeline.lake import LakeFiles
from pipeline.landing import land_log
from pipeline.loads import Load, recover
from pipeline.raw import Damage, iter_frames
from tests.conftest import NOON, classify, land


def loads(lake: LakeFiles, columns: str) -> list[tuple[Any, ...]]:
    with Lake(lake.folder) as catalog:
        return catalog.sql(f"SELECT {columns} FROM loads ORDER BY load_id").fetchall()


def begin(lake: LakeFiles, *run_ids: str) -> Load:
    """Begin a load, take some runs and make them safe, but do not land them."""
    load = Load(lake, command="fetch", source="ids.txt", requested=5, base_url="https://api.extend.ai")
    for run_id in run_ids:
        body = json.dumps(classify(run_id)).encode()
        load.take_run(run_id, body, fetched_at=NOON, is_detail=True, workspace_id="ws_1")
    load.checkpoint()
    return load


def test_a_load_is_recorded_with_what_came_of_it(lake: LakeFiles) -> None:
    load = begin(lake, "clr_1", "clr_2")
    load.take_failure(RunFailedError("run clr_3: HTTP 500", run_id="clr_3", reason="HTTP_500"), workspace_id="ws_1")
    result = load.finish()
    columns = "load_id, command, source, base_url, state, requested, landed, failed, failed_reasons, version, raw_bytes"
    month = f"{result.load_id[:4]}-{result.load_id[4:6]}"
    path = lake.raw_folder / month / f"{result.load_id}.jsonl.zst"
    assert loads(lake, columns) == [
        (result.load_id, "fetch", "ids.txt", "https://api.extend.ai", "complete", 5, 2, 1, {"HTTP_500": 1}, "0.1.0",
         path.stat().st_size),
    ]  # fmt: skip
    assert loads(lake, "raw_file") == [(str(path.relative_to(lake.folder)),)]
    with Lake(lake.folder) as catalog:
        assert catalog.sql("SELECT DISTINCT load_id, workspace_id FROM runs").fetchall() == [(result.load_id, "ws_1")]


def test_many_loads_of_one_process_land_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way, most, counting = 0, 0, threading.Lock()

    def land_slowly(*args: Any, **options: Any) -> Any:
        nonlocal under_way, most
        with counting:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.02)  # so that others come meanwhile, if they can
        landing = land_log(*args, **options)
        with counting:
            under_way -= 1
        return landing

    monkeypatch.setattr("pipeline.loads._LANDING_HERE", threading.BoundedSemaphore(2))
    monkeypatch.setattr("pipeline.landing.land_log", land_slowly)
    loads = [begin(LakeFiles(tmp_path / str(number)), f"clr_{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(Load.finish, loads))
    assert [result.landed for result in results] == [1] * 8
    assert most == 2


def test_a_finished_load_leaves_nothing_to_recover_and_no_lock(lake: LakeFiles) -> None:
    begin(lake, "clr_1").finish()
    assert lake.unlanded_logs() == []
    assert recover(lake) == 0
    assert [path.name for path in lake.raw_folder.rglob("*.lock")] == []


def test_what_a_dead_load_had_logged_lands_with_the_next_command(lake: LakeFiles) -> None:
    load = begin(lake, "clr_1", "clr_2")
    load.close()
    told: list[str] = []
    assert recover(lake, tell=told.append) == 1
    assert told == [f"load {load.result.load_id} had been interrupted: 2 runs landed from its log"]
    assert loads(lake, "command, source, state, requested, landed, ended_at::VARCHAR") == [
        ("fetch", "ids.txt", "interrupted", 5, 2, "2026-11-03 12:00:00+00")
    ]
    assert recover(lake) == 0


def test_a_torn_tail_is_told_and_costs_that_tail_alone(lake: LakeFiles) -> None:
    load = begin(lake, "clr_1")
    body = json.dumps(classify("clr_2")).encode()
    load.take_run("clr_2", body, fetched_at=NOON, is_detail=True, workspace_id=None)
    load.checkpoint()
    load.close()
    (path,) = lake.raw_logs()
    path.write_bytes(path.read_bytes()[:-3])
    told: list[str] = []
    recover(lake, tell=told.append)
    assert "torn at its end" in told[0]
    assert str(path) in told[0]
    assert loads(lake, "state, landed") == [("interrupted", 1)]
    assert loads(lake, "raw_bytes") == [(path.stat().st_size,)]
    assert not any(isinstance(part, Damage) for part in iter_frames(path)), "the tail is cut off"
    assert recover(lake, tell=told.append) == 0
    assert len(told) == 2
    assert check_lake(lake).is_whole


def test_a_recovery_that_dies_before_the_tail_is_cut_off_is_finished_by_the_next(
    lake: LakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(lake, "clr_1").close()
    (path,) = lake.raw_logs()
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    with monkeypatch.context() as patched:
        patched.setattr(durable, "cut_file", lambda _path, _size: pytest.fail("dies here"))
        with pytest.raises(pytest.fail.Exception):
            recover(lake)
    before = loads(lake, "state, landed, raw_bytes, ended_at")
    assert before[0][:3] == ("interrupted", 1, len(whole))
    recover(lake)
    assert path.read_bytes() == whole
    assert loads(lake, "state, landed, raw_bytes, ended_at") == before
    assert check_lake(lake).is_whole


def test_a_torn_tail_after_a_finished_load_leaves_its_row_as_it_was(lake: LakeFiles) -> None:
    load = begin(lake, "clr_1")
    load.finish()
    before = loads(lake, "* EXCLUDE (raw_file)")
    (path,) = lake.raw_logs()
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    recover(lake)
    assert path.read_bytes() == whole
    assert loads(lake, "* EXCLUDE (raw_file)") == before


def test_a_query_is_asked_again_where_a_file_was_replaced_meanwhile_whether_it_failed_or_answered(
    lake: LakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lake_module, "_PAUSE_S", 0.0)
    land(lake, classify())
    (day,) = lake.days()
    asked = []

    def query() -> int:
        asked.append(len(asked))
        if len(asked) < 4:
            lake.write_day(day, lake.read_day(day))
        if len(asked) == 1:
            raise duckdb.Error("don't know what type")
        return len(asked)

    assert lake.ask(query) == 4

    def failing() -> int:
        asked.append(len(asked))
        raise duckdb.Error("whatever the files")

    with pytest.raises(duckdb.Error, match="whatever the files"):
        lake.ask(failing)
    assert len(asked) == 5, "what no file explains is not asked again"


def test_a_query_during_which_files_are_always_replaced_waits_for_its_turn_or_is_refused(
    lake: LakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lake_module, "_PAUSE_S", 0.0)
    land(lake, classify())
    (day,) = lake.days()

    def query() -> bool:
        with lake.locked() if not is_locked(lake) else contextlib.nullcontext():
            lake.write_day(day, lake.read_day(day))
        return is_locked(lake)

    assert lake.ask(query)
    with pytest.raises(LakeError, match="are being replaced all the while"):
        lake.ask(query, may_wait=False)


def is_locked(lake: LakeFiles) -> bool:
    lock = filelock.FileLock(lake.folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    lock.release()
    return False


def test_a_load_that_died_before_its_first_record_leaves_no_trace(lake: LakeFiles) -> None:
    load = begin(lake)
    load.close()
    (path,) = lake.raw_logs()
    path.write_bytes(b"")
    assert recover(lake) == 0
    assert lake.raw_logs() == []
    assert loads(lake, "*") == []


def test_a_load_that_is_still_running_is_left_alone(lake: LakeFiles) -> None:
    running = begin(lake, "clr_1")
    code = (
        "import sys; from pipeline.lake import LakeFiles; from pipeline.loads import recover\n"
        "print(recover(LakeFiles(sys.argv[1])))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(lake.folder)], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
    assert lake.days() == []
    assert running.finish().landed == 1


def test_landing_twice_within_a_load_counts_each_run_once(lake: LakeFiles) -> None:
    load = begin(lake, "clr_1")
    load.land()
    assert loads(lake, "state, landed") == [("running", 1)]
    body = json.dumps(classify("clr_2")).encode()
    load.take_run("clr_2", body, fetched_at=NOON, is_detail=True, workspace_id=None)
    assert load.finish().landed == 2
    assert loads(lake, "state, landed") == [("complete", 2)]


def test_a_load_of_many_runs_lands_in_parts_and_a_crash_between_two_loses_nothing(
    lake: LakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Load(lake, command="fetch", source="test", most_rows=2)
    for number in range(1, 8):
        payload = classify(f"clr_{number}")
        load.take_run(payload["id"], json.dumps(payload).encode(), fetched_at=NOON, is_detail=True, workspace_id=None)
        load.checkpoint()
    rows_at_landings: list[int] = []
    write_load = LakeFiles.write_load

    def write_and_look(self: LakeFiles, row: dict[str, Any], **options: Any) -> None:
        write_load(self, row, **options)
        rows_at_landings.append(len(lake.read_day("2026-11-02")))
        if len(rows_at_landings) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(LakeFiles, "write_load", write_and_look)
    with pytest.raises(KeyboardInterrupt):
        load.land()
    load.land()
    assert rows_at_landings == [2, 4, 6, 7]
    result = load.finish()
    assert (result.landed, result.unchanged) == (7, 0)
    assert loads(lake, "landed, state") == [(7, "complete")]


def test_a_load_that_died_after_a_landing_goes_on_from_there(lake: LakeFiles) -> None:
    load = begin(lake, "clr_1")
    load.land()
    body = json.dumps(classify("clr_2")).encode()
    load.take_run("clr_2", body, fetched_at=NOON, is_detail=True, workspace_id=None)
    load.checkpoint()
    load.close()
    recover(lake)
    assert loads(lake, "state, landed, unchanged") == [("interrupted", 2, 0)]


def test_a_load_that_died_between_its_last_record_and_its_row_keeps_its_counts(lake: LakeFiles) -> None:
    result = begin(lake, "clr_1").finish()
    expected = loads(lake, "* EXCLUDE raw_bytes, CAST(raw_bytes > 0 AS INTEGER)")
    (path,) = lake.loads_folder.glob("*.parquet")
    path.unlink()
    assert recover(lake) == 0
    assert loads(lake, "* EXCLUDE raw_bytes, CAST(raw_bytes > 0 AS INTEGER)") == expected
    assert expected[0][0] == result.load_id


def test_payloads_can_be_dropped_once_they_have_landed(lake: LakeFiles) -> None:
    result = land(lake, classify(), keep_raw=False)
    assert result.landed == 1
    assert lake.raw_logs() == []
    assert loads(lake, "state, raw_file, raw_bytes") == [("complete", None, None)]
    assert recover(lake) == 0


def test_two_processes_that_write_at_once_both_land(lake: LakeFiles, tmp_path: Path) -> None:
    names = []
    for number in range(2):
        path = tmp_path / f"{number}.jsonl"
        runs = [classify(f"clr_{number}_{each}", createdAt=f"2026-11-0{each % 9 + 1}T00:00:00Z") for each in range(200)]
        path.write_text("\n".join(map(json.dumps, runs)))
        names.append(str(path))
    command = [sys.executable, "-m", "pipeline.cli", "load", "--lake", str(lake.folder), "--quiet"]
    processes = [subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in names]
    for process in processes:
        told = process.communicate(timeout=60)[1]
        # On a busy machine the wait for the other may be long enough to be told.
        assert re.sub(r".*: another process is writing; waiting for it\n", "", told) == ""
        assert process.returncode == 0
    with Lake(lake.folder) as catalog:
        assert catalog.sql("SELECT count(*), count(DISTINCT run_id) FROM runs").fetchall() == [(400, 400)]
        assert catalog.sql("SELECT sum(landed)::INTEGER FROM loads").fetchall() == [(400,)]


def test_a_later_load_is_named_by_the_rows_it_wrote(lake: LakeFiles) -> None:
    land(lake, classify("clr_1"), classify("clr_2"))
    later = land(lake, classify("clr_1", updatedAt="2026-11-03T00:00:00Z"), fetched_at=NOON + timedelta(hours=1))
    with Lake(lake.folder) as catalog:
        rows = catalog.sql("SELECT run_id FROM runs WHERE load_id = $load_id", load_id=later.load_id).fetchall()
    assert rows == [("clr_1",)]


@pytest.mark.parametrize("is_landed", [False, True])
def test_a_load_that_is_not_to_keep_its_payloads_does_not_keep_them_if_it_dies(
    lake: LakeFiles, monkeypatch: pytest.MonkeyPatch, is_landed: bool
) -> None:
    load = Load(lake, command="fetch", source="ids.txt", keep_raw=False)
    body = json.dumps(classify("clr_1")).encode()
    load.take_run("clr_1", body, fetched_at=NOON, is_detail=True, workspace_id=None)
    load.checkpoint()
    if is_landed:
        load.land()
    load.close()
    with monkeypatch.context() as patched:  # the recovery dies as well, between the load's row and the removal
        patched.setattr(durable, "remove_file", lambda _path: pytest.fail("dies here"))
        with pytest.raises(pytest.fail.Exception):
            recover(lake)
    before = loads(lake, "state, landed, unchanged, raw_file, raw_bytes")
    assert before == [("interrupted", 1, 0, None, None)]
    recover(lake)
    assert loads(lake, "state, landed, unchanged, raw_file, raw_bytes") == before
    assert lake.raw_logs() == []
    assert [row["run_id"] for row in lake.read_day("2026-11-02").to_pylist()] == ["clr_1"]
