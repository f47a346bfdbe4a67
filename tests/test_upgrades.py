"""Lakes of every earlier schema version, kept as small files: they open, are brought up to date, and are never misread.

Whatever a newer version wrote is refused by name, and what is none of the lake's files too; the rest still works.
"""

import json
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import cli, sealed
from pipeline.catalog import Lake
from pipeline.checks.lake import check_lake
from pipeline.lake import LakeFiles
from pipeline.schema import SCHEMA_VERSION
from tests.conftest import classify, land

LAKES = Path(__file__).parent / "lakes"

CREDITS = {
    1: {"clr_1": Decimal("1.5"), "pr_1": Decimal(2)},
    2: {"clr_1": Decimal("1.5"), "clr_2": Decimal("0.25"), "clr_3": Decimal(4), "pr_1": Decimal(2)},
}
"""What the payloads in the raw logs say, read by eye; `exr_1` tells no credits."""
FAILED = {1: ("exr_1", "OUT_OF_CREDITS"), 2: ("exr_1", "INTERNAL_ERROR")}
DEAD = {1: ("exr_gone", "NOT_FOUND"), 2: ("exr_9", "HTTP_500")}
VERSIONS = sorted(CREDITS)


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> int:
    """Each earlier version in turn."""
    return int(request.param)


@pytest.fixture
def old(version: int, tmp_path: Path) -> LakeFiles:
    """Return a copy of the kept lake of a version."""
    shutil.copytree(LAKES / f"schema-{version}", tmp_path / "lake")
    return LakeFiles(tmp_path / "lake")


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def assert_answers(lake: LakeFiles, version: int) -> None:
    with Lake(lake.folder) as catalog:
        ledger = catalog.sql(
            "SELECT resource_id, sum(credits) FROM credit_ledger WHERE credits IS NOT NULL GROUP BY ALL"
        )
        assert dict(ledger.fetchall()) == CREDITS[version]
        (total,) = catalog.credits(by="kind").aggregate("sum(credits)").fetchall()[0]
        assert total == sum(CREDITS[version].values())
        assert catalog.sql("SELECT run_id, failure_reason FROM runs WHERE status = 'FAILED'").fetchall() == [
            FAILED[version]
        ]
        assert catalog.sql("SELECT run_id, reason FROM dead_letters").fetchall() == [DEAD[version]]


def test_a_lake_of_every_earlier_version_is_kept() -> None:
    assert list(range(1, SCHEMA_VERSION)) == VERSIONS
    assert sorted(path.name for path in LAKES.iterdir()) == [f"schema-{version}" for version in VERSIONS]


def test_an_old_lake_answers_as_it_is_and_is_not_touched_by_that(old: LakeFiles, version: int) -> None:
    before = content(old.folder)
    assert_answers(old, version)
    assert content(old.folder) == before


def test_one_command_brings_an_old_lake_up_to_date(
    old: LakeFiles, version: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["rebuild", "--lake", str(old.folder)]) == 0
    assert "an earlier version wrote this lake; bringing its" in capsys.readouterr().err
    assert json.loads(old.version_path.read_text())["schema"] == SCHEMA_VERSION
    assert_answers(old, version)
    assert check_lake(old).is_whole
    assert old.is_current()


def test_an_old_lake_is_brought_up_to_date_by_whatever_writes_next(old: LakeFiles, version: int) -> None:
    land(old, classify("clr_new", createdAt="2026-11-05T00:00:00Z", usage={"credits": 8}))
    assert old.is_current()
    with Lake(old.folder) as catalog:
        assert catalog.credits(by="kind").aggregate("sum(credits)").fetchall() == [
            (sum(CREDITS[version].values()) + 8,)
        ]
    assert check_lake(old).is_whole


# ---------------------------------------------------------------------------------------------------------------------
# Newer ones


def newer_lake(lake: LakeFiles) -> Path:
    lake.version_path.write_bytes(sealed.note_bytes({"schema": SCHEMA_VERSION + 1}))
    return lake.version_path


def newer_erased(lake: LakeFiles) -> Path:
    lake.erased_path.write_bytes(sealed.note_bytes({"version": 99, "salt": "00", "runs": []}))
    return lake.erased_path


@pytest.mark.parametrize("write", [newer_lake, newer_erased])
@pytest.mark.parametrize(
    "command",
    [
        ["load", "saved.jsonl"],
        ["rebuild"],
        ["check"],
        ["check", "--repair"],
        ["prune", "--older-than", "400d"],
    ],
)
def test_what_a_newer_version_wrote_is_refused_by_name_and_stays_as_it_is(
    lake: LakeFiles,
    write: Callable[[LakeFiles], Path],
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    land(lake, classify())
    path = write(lake)
    (tmp_path / "saved.jsonl").write_text(json.dumps(classify("clr_2")))
    monkeypatch.chdir(tmp_path)
    before = content(lake.folder)
    assert cli.main([*command, "--lake", str(lake.folder)]) == 1
    told = capsys.readouterr().err
    assert str(path) in told
    assert "newer version" in told
    assert content(lake.folder) == before


# ---------------------------------------------------------------------------------------------------------------------
# Foreign and broken files


@pytest.mark.parametrize("name", ["runs.parquet", "mine.parquet", "empty.parquet", "cut.parquet"])
def test_a_file_that_is_none_of_the_lakes_is_told_by_name_and_the_rest_still_works(lake: LakeFiles, name: str) -> None:
    land(lake, classify(usage={"credits": 1.5}), classify("clr_2", createdAt="2026-10-01T00:00:00Z"))
    folder = lake.day_path("2026-09-09").parent if name == "runs.parquet" else lake.day_path("2026-10-01").parent
    folder.mkdir(exist_ok=True)
    path = folder / name
    if name in ("runs.parquet", "mine.parquet"):
        pq.write_table(pa.table({"amount": [1, 2]}), path)
    elif name == "cut.parquet":
        path.write_bytes(lake.day_path("2026-10-01").read_bytes()[:-9])
    else:
        path.write_bytes(b"")
    checked = check_lake(lake)
    assert not checked.is_whole
    offenders = [offender for each in checked.findings if each.state == "broken" for offender in each.offenders]
    assert any(path.relative_to(lake.folder).as_posix() in offender for offender in offenders), offenders
    land(lake, classify("clr_3"))
    assert {run_id for day in ("2026-11-02", "2026-10-01") for run_id in lake.read_day(day)["run_id"].to_pylist()} == {
        "clr_1", "clr_2", "clr_3"
    }  # fmt: skip
