"""Runs, or their payloads, that are older than they are to be kept: gone, and not taken in again."""

import json
import shutil
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline import raw
from pipeline.catalog import Lake
from pipeline.checks.lake import check_lake
from pipeline.erased import read_erased
from pipeline.errors import RunFailedError
from pipeline.expiry import Expiry
from pipeline.lake import LakeFiles
from pipeline.loads import Load
from pipeline.prune import prune_runs
from pipeline.rebuild import rebuild_lake
from pipeline.sandbox.server import SandboxServer
from pipeline.sandbox.world import World
from tests.conftest import classify, land
from tests.test_cli import run
from tests.test_forget import everything

LIMIT = date(2026, 6, 1)
RECEIVED = datetime(2026, 11, 3, 12, tzinfo=UTC)


def of(run_id: str, day: str | None, **fields: Any) -> dict[str, Any]:
    """Return a payload of a run made on a day; of a kind whose details do not tell it where that is null."""
    payload = classify(run_id, createdAt=f"{day}T10:00:00Z", updatedAt=f"{day}T10:01:00Z", **fields)
    if day is None:
        del payload["createdAt"], payload["updatedAt"]
    return payload | {"object": "parse_run"} if run_id.startswith("pr_") else payload


def run_ids(lake: LakeFiles) -> list[str]:
    with Lake(lake.folder) as reader:
        return [run_id for (run_id,) in reader.sql("SELECT run_id FROM runs ORDER BY run_id").fetchall()]


def logged(lake: LakeFiles) -> list[str]:
    """Return the runs of which the raw log has payloads, each as often as it has them."""
    parts = [part for path in lake.raw_logs() for part in raw.iter_frames(path)]
    frames = [part for part in parts if isinstance(part, raw.Frame)]
    assert frames == parts  # nothing is damaged
    records = [record for frame in frames for record in raw.iter_records(frame.lines)]
    return sorted(record["run_id"] for record in records if record and record["record"] == "run")


@pytest.fixture(scope="module")
def filled_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a lake with runs of both sides of the limit, some of which do not tell on which."""
    lake = LakeFiles(tmp_path_factory.mktemp("filled") / "lake")
    file = {"object": "file", "id": "file_1", "name": "x.pdf", "createdAt": "2026-01-05T00:00:00Z"}
    land(lake, of("clr_old", "2026-05-31"), of("clr_new", "2026-06-01"), fetched_at=RECEIVED)
    land(lake, of("pr_old", "2026-03-01"), of("pr_new", "2026-07-01"), is_detail=False, fetched_at=RECEIVED)
    land(lake, of("pr_old", None), of("pr_new", None), of("pr_file", None, file=file), fetched_at=RECEIVED)
    land(lake, of("pr_long_ago", None), fetched_at=datetime(2026, 2, 1, tzinfo=UTC))
    return lake.folder


@pytest.fixture
def filled(filled_once: Path, lake: LakeFiles) -> LakeFiles:
    """A copy of that lake."""
    shutil.copytree(filled_once, lake.folder)
    return lake


def test_runs_made_before_the_day_are_gone_with_their_payloads(filled: LakeFiles) -> None:
    done = prune_runs(filled, LIMIT)
    # pr_file is of an old file, but when it was made nobody told: it counts as of when it came.
    assert run_ids(filled) == ["clr_new", "pr_file", "pr_new"]
    assert logged(filled) == ["clr_new", "pr_file", "pr_new", "pr_new"]
    assert (done.swept.rows, done.swept.payloads, done.swept.removed_logs) == (3, 4, 1)
    text = everything(filled.folder)
    assert not [name for name in ("clr_old", "pr_old", "pr_long_ago") if name in text]
    assert done.search.is_clean
    assert check_lake(filled).is_whole


def test_a_rebuild_does_not_bring_them_back(filled: LakeFiles) -> None:
    prune_runs(filled, LIMIT)
    rebuild_lake(filled)
    assert run_ids(filled) == ["clr_new", "pr_file", "pr_new"]


def test_they_are_not_taken_in_again_until_a_prune_with_an_earlier_day(filled: LakeFiles) -> None:
    prune_runs(filled, LIMIT)
    land(filled, of("clr_old", "2026-05-31"), of("clr_late", "2026-08-01"))
    assert run_ids(filled) == ["clr_late", "clr_new", "pr_file", "pr_new"]
    assert "clr_old" not in logged(filled)
    prune_runs(filled, date(2026, 5, 1))
    land(filled, of("clr_old", "2026-05-31"))
    assert "clr_old" in run_ids(filled)


def test_payloads_alone_can_be_pruned(filled: LakeFiles) -> None:
    before = run_ids(filled)
    done = prune_runs(filled, LIMIT, raw_only=True)
    assert run_ids(filled) == before
    assert logged(filled) == ["clr_new", "pr_file", "pr_new", "pr_new"]
    assert (done.swept.rows, done.search.is_clean) == (0, True)
    rebuild_lake(filled)
    assert run_ids(filled) == before
    assert check_lake(filled).is_whole


def test_dead_letters_that_failed_before_the_day_go_and_stay_gone(lake: LakeFiles) -> None:
    land(lake, of("clr_new", "2026-07-01"))
    for run_id, month in (("clr_a", 5), ("clr_b", 7)):
        load = Load(lake, command="fetch", source="test", now=lambda month=month: datetime(2026, month, 2, tzinfo=UTC))
        error = RunFailedError(f"run {run_id}: HTTP 500", run_id=run_id, reason="HTTP_500", attempts=1)
        load.take_failure(error, workspace_id=None)
        load.finish()
        load.close()
    assert prune_runs(lake, LIMIT).swept.dead_letters == 1
    lake.dead_letters_path.unlink()
    rebuild_lake(lake)
    assert lake.read_dead_letters()["run_id"].to_pylist() == ["clr_b"]


def test_a_day_that_became_empty_keeps_its_file_until_the_next_prune(filled: LakeFiles) -> None:
    prune_runs(filled, LIMIT)
    assert "2026-05-31" in filled.days()
    prune_runs(filled, LIMIT)
    assert filled.days() == ["2026-01-05", "2026-06-01", "2026-07-01", "unknown"]
    assert not filled.day_path("2026-05-31").parent.exists()


def test_a_log_of_which_nothing_is_due_is_not_read_again(filled: LakeFiles) -> None:
    prune_runs(filled, LIMIT)
    # Of three logs that are left; the details of pr_new are as old as the lake's row says.
    assert sorted(day for _size, day in read_erased(filled).oldest.values()) == [
        "2026-06-01",
        "2026-07-01",
        "2026-07-01",
    ]

    def due(day: date) -> list[str]:
        expiry, known = Expiry(filled, day, keeps_rows=False), read_erased(filled).oldest
        return [path.name for path in filled.raw_logs() if expiry.is_due(path, known)]

    assert due(date(2026, 6, 1)) == []
    assert len(due(date(2026, 6, 2))) == 1
    assert len(due(date(2026, 7, 2))) == 3


def test_an_unlanded_log_is_not_taken_for_pruned(lake: LakeFiles) -> None:
    load = Load(lake, command="fetch", source="test")
    load.take_run("pr_1", json.dumps(of("pr_1", None)).encode(), fetched_at=RECEIVED, is_detail=True, workspace_id=None)
    load.checkpoint()
    load.close()
    prune_runs(lake, LIMIT)
    assert logged(lake) == ["pr_1"]


@pytest.mark.long
def test_a_sandbox_lake_keeps_exactly_the_runs_of_the_days_that_are_kept(tmp_path: Path, server: SandboxServer) -> None:
    world: World = server.world
    folder = tmp_path / "lake"
    done = run("sync", "--qps", "500", "--quiet", "--lake", str(folder), folder=tmp_path, server=server)
    assert done.returncode == 0, done.stderr
    age = (datetime.now(UTC).date() - LIMIT).days
    done = run("prune", "--older-than", f"{age}d", "--lake", str(folder), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    lake = LakeFiles(folder)
    made_at = {
        each.run_id: each.created_at
        for each in world.iter_runs(world.workspaces[0])
        if each.kind.listed and each.run_id not in world.deleted_ids()
    }
    expected = sorted(run_id for run_id, time in made_at.items() if time.date() >= LIMIT)
    assert [run_id for run_id in run_ids(lake) if not run_id.startswith("sgr_")] == expected
    assert 0 < len(expected) < len(made_at)
    done = run("sync", "--full", "--qps", "500", "--quiet", "--lake", str(folder), folder=tmp_path, server=server)
    assert done.returncode == 0, done.stderr
    assert [run_id for run_id in run_ids(lake) if not run_id.startswith("sgr_")] == expected


def test_the_command_says_what_went(filled: LakeFiles, tmp_path: Path) -> None:
    age = (datetime.now(UTC).date() - LIMIT).days
    done = run("prune", "--older-than", f"{age}d", "--dry-run", "--lake", str(filled.folder), folder=tmp_path)
    assert done.stdout.splitlines()[0] == f"3 runs in {filled.folder} were made before 2026-06-01"
    done = run("prune", "--older-than", f"{age}d", "--lake", str(filled.folder), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("runs made before 2026-06-01: 3 rows, ")
    assert "no trace" in done.stdout


@pytest.mark.parametrize("text", ["400", "0d", "-3d", "1y", "", "400d "])
def test_a_length_of_time_that_is_none_is_refused(filled: LakeFiles, tmp_path: Path, text: str) -> None:
    done = run("prune", f"--older-than={text}", "--lake", str(filled.folder), folder=tmp_path)
    assert done.returncode == 2
    assert "--older-than takes a number of days, such as 400d" in done.stderr
    assert len(run_ids(filled)) == 6


def test_an_old_copy_of_the_raw_log_does_not_bring_them_back(filled: LakeFiles, tmp_path: Path) -> None:
    shutil.copytree(filled.raw_folder, tmp_path / "backup")
    prune_runs(filled, LIMIT)
    shutil.copytree(tmp_path / "backup", filled.raw_folder, dirs_exist_ok=True)
    rebuild_lake(filled)
    assert "clr_old" not in run_ids(filled)
    assert not check_lake(filled).is_whole
    prune_runs(filled, LIMIT)
    assert check_lake(filled).is_whole
    assert "clr_old" not in logged(filled)
