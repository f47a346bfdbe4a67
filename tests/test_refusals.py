"""A disk that is full, read-only, forbidden or gone, too few descriptors, a clock that goes back.

Each gives a clear error with exit code 1, harms nothing, and the work goes on once it is mended.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.catalog import Lake
from pipeline.errors import RunFailedError
from pipeline.kinds import FINISHED, kind_of
from pipeline.lake import LakeFiles
from pipeline.loads import Load
from pipeline.sandbox.server import SandboxServer
from pipeline.sandbox.world import World
from tests.conftest import NOON, classify, land
from tests.refusing import bound_by_permissions, few_files, run_refused, start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts, limits and capabilities are of Linux")

FETCH = ("fetch", "--from", "ids.txt", "--quiet", "--qps", "2000")
NEXT = "what had been logged lands with the next command, once this is mended"


@pytest.fixture
def run_ids(world: World, tmp_path: Path) -> list[str]:
    """Write a file of runs of few days to fetch, in the folder of the test."""
    found = sorted(world.run_ids(world.workspaces[0]), key=lambda run_id: world.run(run_id).created_at)
    wanted = [run_id for run_id in found if not kind_of(run_id).reading_can_destroy][-60:]
    (tmp_path / "ids.txt").write_text("\n".join(wanted))
    return wanted


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """Mount a file system in memory; who may not is not tested: the Nth operation fails in test_nth_operation."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def stored(folder: Path) -> list[str]:
    with Lake(folder) as lake:
        return [run_id for (run_id,) in lake.sql("SELECT run_id FROM runs ORDER BY run_id").fetchall()]


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("command", [FETCH, ("sync", "--quiet", "--qps", "2000", "--since", "2026-11-01")])
def test_a_full_disk_is_told_and_what_was_logged_lands_once_there_is_room(
    command: tuple[str, ...], run_ids: list[str], server: SandboxServer, tmp_path: Path
) -> None:
    lake = tmp_path / "data" / "lake"
    with mounted(lake, "size=160k"):
        assert_refused(run_refused(*command, folder=tmp_path, server=server), str(Path("data/lake")), "No space left")
        remount(lake, "size=200m")
        done = run_refused(*command, folder=tmp_path, server=server)
        assert done.returncode == 0, done.stderr
        found = stored(lake)
        assert len(found) == len(set(found))
        assert set(found) >= set(run_ids) or command != FETCH
        assert run_refused("check", folder=tmp_path, server=server).returncode == 0


@pytest.mark.long
def test_a_disk_that_became_read_only_is_told_and_reports_still_answer(
    run_ids: list[str], server: SandboxServer, tmp_path: Path
) -> None:
    lake = tmp_path / "data" / "lake"
    with mounted(lake, "size=200m"):
        assert run_refused(*FETCH, folder=tmp_path, server=server).returncode == 0
        remount(lake, "ro")
        assert_refused(run_refused(*FETCH, folder=tmp_path, server=server), "data/lake", "Read-only file system")
        told = run_refused("report", "credits", folder=tmp_path, server=server)
        assert told.returncode == 0, told.stderr
        assert stored(lake) == sorted(run_ids)


def test_no_right_to_write_is_told_and_nothing_was_asked_for(
    run_ids: list[str], server: SandboxServer, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir(mode=0o500)
    before = server.requests
    done = run_refused(*FETCH, folder=tmp_path, server=server, before=bound_by_permissions)
    assert_refused(done, "data/lake", "Permission denied")
    assert server.requests == before
    (tmp_path / "data").chmod(0o700)
    assert run_refused(*FETCH, folder=tmp_path, server=server, before=bound_by_permissions).returncode == 0
    assert stored(tmp_path / "data" / "lake") == sorted(run_ids)


@pytest.mark.long
def test_no_right_to_write_loads_leaves_what_came_in_the_raw_log(
    run_ids: list[str], server: SandboxServer, tmp_path: Path
) -> None:
    land(LakeFiles(tmp_path / "data" / "lake"), classify())
    loads = tmp_path / "data" / "lake" / "loads"
    loads.chmod(0o500)
    done = run_refused(*FETCH, folder=tmp_path, server=server, before=bound_by_permissions)
    assert_refused(done, "data/lake/loads/", "Permission denied", NEXT)
    loads.chmod(0o700)
    asked = server.requests
    assert run_refused(*FETCH, folder=tmp_path, server=server).returncode == 0
    unfinished = sum(server.world.run(run_id).status not in FINISHED for run_id in run_ids)
    assert server.requests - asked == unfinished
    assert stored(tmp_path / "data" / "lake") == sorted(["clr_1", *run_ids])


@pytest.mark.long
def test_a_lake_that_is_removed_in_mid_load_is_told_and_the_next_load_begins_anew(
    run_ids: list[str], server: SandboxServer, tmp_path: Path
) -> None:
    slowly = ("fetch", "--from", "ids.txt", "--quiet", "--qps", "20")
    process = start(*slowly, folder=tmp_path, server=server)
    began = server.requests
    waiting = threading.Event()
    while server.requests < began + 10 and process.poll() is None:
        waiting.wait(0.02)
    shutil.rmtree(tmp_path / "data")
    told, warned = process.communicate(timeout=60)
    assert_refused(subprocess.CompletedProcess(slowly, process.returncode, told, warned), "data/lake", "No such file")
    assert run_refused(*FETCH, folder=tmp_path, server=server).returncode == 0
    assert stored(tmp_path / "data" / "lake") == sorted(run_ids)


@pytest.mark.long
def test_too_few_descriptors_are_told_with_what_to_do(
    run_ids: list[str], server: SandboxServer, tmp_path: Path
) -> None:
    done = run_refused(*FETCH, folder=tmp_path, server=server, before=few_files(9))
    assert_refused(done, "Too many open files", "ulimit -n")
    assert run_refused(*FETCH, folder=tmp_path, server=server).returncode == 0
    assert stored(tmp_path / "data" / "lake") == sorted(run_ids)


# ---------------------------------------------------------------------------------------------------------------------
# The clock


def test_a_clock_that_goes_back_in_a_load_and_between_loads_loses_nothing(lake: LakeFiles) -> None:
    clock = iter([NOON, *[NOON - timedelta(days=2)] * 20])
    load = Load(lake, command="fetch", source="test", now=lambda: next(clock))
    payload = classify(updatedAt="2026-11-02T09:31:00Z", usage={"credits": 1})
    load.take_run("clr_1", json.dumps(payload).encode(), fetched_at=NOON, is_detail=True, workspace_id=None)
    failed = RunFailedError("run clr_2: HTTP 500", run_id="clr_2", reason="HTTP_500")
    load.take_failure(failed, workspace_id=None)
    result = load.finish()
    assert result.seconds == 0
    newer = classify(updatedAt="2026-11-02T11:00:00Z", usage={"credits": 2})
    land(lake, newer, classify("clr_2"), fetched_at=NOON - timedelta(days=1))
    with Lake(lake.folder) as catalog:
        found = catalog.sql("SELECT run_id, credits FROM runs ORDER BY run_id").fetchall()
        assert [(run_id, None if credits is None else float(credits)) for run_id, credits in found] == [
            ("clr_1", 2.0), ("clr_2", None)
        ]  # fmt: skip
        assert catalog.sql("FROM dead_letters").fetchall() == []


# ---------------------------------------------------------------------------------------------------------------------
# Who may read


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")] if path.name != ".lock"}


def test_what_is_in_a_lake_is_its_owners_alone(lake: LakeFiles) -> None:
    old = os.umask(0)
    try:
        land(lake, classify())
    finally:
        os.umask(old)
    assert modes(lake.folder) == {0o700, 0o600}


def test_an_empty_folder_becomes_its_owners_alone_and_one_with_files_in_it_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    for name in ("empty", "full"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o755)
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for name in ("empty", "full"):
        with LakeFiles(tmp_path / name).writing(tell=told.append):
            pass
    assert stat.S_IMODE((tmp_path / "empty").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "full").stat().st_mode) == 0o755
    (only,) = told
    assert str(tmp_path / "full") in only
    assert "chmod -R go-rwx" in only


def test_a_lake_that_was_opened_to_a_group_stays_so(lake: LakeFiles) -> None:
    land(lake, classify())
    for path in [lake.folder, *lake.folder.rglob("*")]:
        path.chmod(path.stat().st_mode | (0o050 if path.is_dir() else 0o040))
    land(lake, classify("clr_2", createdAt="2026-10-01T00:00:00Z"), classify(status="FAILED"))
    assert modes(lake.folder) == {0o750, 0o640}
