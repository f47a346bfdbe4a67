"""The Nth write, flush, rename or removal fails, or the process dies at it, for every N until a pass without: nothing
that was safe is lost, nothing is there twice, and no temporary file is ever read or stays."""

from __future__ import annotations

import errno
import json
import multiprocessing
import shutil
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline.checks.lake import check_lake
from pipeline.errors import LakeError, RunMissingError
from pipeline.lake import LakeFiles
from pipeline.loads import Load, recover
from tests.conftest import NOON, classify, land
from tests.operations import KILL, counted

LATER = NOON + timedelta(hours=1)
BEFORE = {"clr_old": Decimal(1), "clr_stays": Decimal(7), "pr_moves": None}
FIRST = {"clr_old": Decimal(2), "clr_new": Decimal(3)}
SECOND = {"clr_late": Decimal("0.5"), "pr_moves": None}
AFTER = BEFORE | FIRST | SECOND
LETTER = "clr_gone"


def parse(created_at: str | None) -> dict[str, Any]:
    """Return a parse run, which tells no time of creation but that of its file."""
    file = {"id": "file_1", "object": "file", **({"createdAt": created_at} if created_at else {})}
    return {"object": "parse_run", "id": "pr_moves", "status": "PROCESSED", "file": file}


def payload(run_id: str) -> dict[str, Any]:
    """Return a run as it comes in the load under test: `pr_moves` with a better known day than before."""
    if run_id == "pr_moves":
        return parse("2026-10-30T08:00:00Z")
    credits = float(AFTER[run_id])  # only the parse run has none
    return classify(run_id, usage={"credits": credits}, updatedAt="2026-11-02T10:00:00Z")


def make_lake(folder: Path) -> LakeFiles:
    lake = LakeFiles(folder)
    old = [classify(run_id, usage={"credits": float(BEFORE[run_id])}) for run_id in ("clr_old", "clr_stays")]
    land(lake, *old, parse(None))
    return lake


def work(folder: Path, safe: Path) -> None:
    """Load in two landings; note beside the lake what is safe."""
    lake = LakeFiles(folder)
    recover(lake)
    load = Load(lake, command="fetch", source="test", requested=5)
    try:
        for runs in (FIRST, SECOND):
            for run_id in runs:
                body = json.dumps(payload(run_id)).encode()
                load.take_run(run_id, body, fetched_at=LATER, is_detail=True, workspace_id=None)
            if runs is SECOND:
                gone = RunMissingError("run clr_gone: 404", run_id=LETTER, reason="NOT_FOUND", http_status=404)
                load.take_failure(gone, workspace_id=None)
            load.checkpoint()
            with safe.open("a") as file:
                file.write("".join(f"{run_id}\n" for run_id in runs))
            load.land()
        load.finish()
    finally:
        load.close()


def die_at(folder: Path, safe: Path, number: int) -> None:
    """Do the work in a process of its own, which dies at an operation."""
    with counted(folder, fail_at=number, how=KILL):
        work(folder, safe)


def stored(lake: LakeFiles) -> list[tuple[str, Decimal | None]]:
    """Return what anyone reads who knows nothing but the folder of runs."""
    with duckdb.connect() as con:
        return con.sql(
            f"SELECT run_id, credits FROM read_parquet('{lake.runs_folder}/*/*.parquet') ORDER BY ALL"
        ).fetchall()


def assert_nothing_is_harmed(lake: LakeFiles, safe: Path) -> None:
    """Look as a reader does, then go on as a user does."""
    rows = stored(lake)
    moving = {run_id for run_id, _old, _new in lake.read_moves()}
    found = {run_id for run_id, _credits in rows}
    assert len(rows) - len(found) <= len(moving), "a run stands twice"
    assert found >= BEFORE.keys()
    for run_id, credits in rows:
        assert credits in (BEFORE.get(run_id, AFTER[run_id]), AFTER[run_id]), run_id

    recover(lake)
    for run_id in safe.read_text().split() if safe.exists() else ():
        assert (run_id, AFTER[run_id]) in stored(lake), "what was safe is lost"

    work(lake.folder, safe)
    assert dict(stored(lake)) == AFTER
    assert len(stored(lake)) == len(AFTER)
    assert lake.read_dead_letters()["run_id"].to_pylist() == [LETTER]
    assert list(lake.folder.rglob("*.tmp")) == []
    assert [each.title for each in check_lake(lake).findings if each.state == "broken"] == []


def count_operations(tmp_path: Path) -> int:
    lake = make_lake(tmp_path / "counted")
    with counted(lake.folder) as operations:
        work(lake.folder, tmp_path / "counted.txt")
    assert {"write", "fsync", "replace", "unlink", "mkdir"} <= set(operations.done)
    return len(operations.done)


def fail_at(number: int, how: int, tmp_path: Path) -> None:
    """Let one operation fail in the work on a lake of its own, and look."""
    lake = LakeFiles(tmp_path / f"{number}-{how}")
    shutil.copytree(tmp_path / "before", lake.folder)
    safe = tmp_path / f"{number}-{how}.txt"
    if how == KILL:
        children = multiprocessing.get_context("forkserver")
        children.set_forkserver_preload([__name__])
        child = children.Process(target=die_at, args=(lake.folder, safe, number))
        child.start()
        child.join()
        assert child.exitcode == -9
    else:
        with counted(lake.folder, fail_at=number, how=how) as operations:
            told = work_if_it_can(lake, safe)
        assert len(operations.done) >= number
        assert told is None or str(lake.folder) in told, "the message names no file"
    assert_nothing_is_harmed(lake, safe)
    shutil.rmtree(lake.folder)


def work_if_it_can(lake: LakeFiles, safe: Path) -> str | None:
    """Return what an error says, or None where the operation that failed did not matter."""
    try:
        work(lake.folder, safe)
    except (OSError, LakeError) as error:
        return str(error)
    return None


def run_over(numbers: range, hows: tuple[int, ...], tmp_path: Path) -> None:
    make_lake(tmp_path / "before")
    for number in numbers:
        for how in hows:
            fail_at(number, how, tmp_path)


@pytest.mark.long
def test_an_operation_here_and_there_fails_or_kills(tmp_path: Path) -> None:
    run_over(range(1, count_operations(tmp_path) + 1, 37), (errno.EIO, KILL), tmp_path)


@pytest.mark.long
def test_one_operation_in_five_fails(tmp_path: Path) -> None:
    run_over(range(1, count_operations(tmp_path) + 1, 5), (errno.ENOSPC,), tmp_path)


@pytest.mark.soak
def test_every_operation_fails_in_turn(tmp_path: Path) -> None:
    run_over(range(1, count_operations(tmp_path) + 1), (errno.EIO, errno.ENOSPC), tmp_path)


@pytest.mark.long
def test_the_process_dies_at_one_operation_in_nine(tmp_path: Path) -> None:
    run_over(range(5, count_operations(tmp_path) + 1, 9), (KILL,), tmp_path)


@pytest.mark.soak
def test_the_process_dies_at_every_operation_in_turn(tmp_path: Path) -> None:
    run_over(range(1, count_operations(tmp_path) + 1), (KILL,), tmp_path)
