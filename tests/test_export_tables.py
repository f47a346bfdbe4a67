"""Tables as CSV and Parquet, the DuckDB database, and that files are written whole or not at all."""

import csv
import json
import shutil
import subprocess
import sys
import threading
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from pipeline.cli import main
from pipeline.errors import LakeDamagedError, RunFailedError, UsageError
from pipeline.export.files import replacing
from pipeline.export.tables import export_database, export_table
from pipeline.lake import LakeFiles
from pipeline.loads import Load
from tests.conftest import classify, land

pytestmark = pytest.mark.long

TABLES = ("runs", "charges", "credit_ledger", "loads", "dead_letters")


@pytest.fixture(scope="module")
def filled_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a lake with two charged runs, one that failed, and an ID that did not come."""
    lake = LakeFiles(tmp_path_factory.mktemp("filled") / "lake")
    for number, day in ((1, "02"), (2, "03")):
        charge = {"product": "classification_light", "unit": "page", "quantity": 1, "credits": 0.3, "pages": [1]}
        entry = {"object": "classify_run", "id": f"clr_{number}", "credits": 0.3, "charges": [charge]}
        land(lake, classify(f"clr_{number}", createdAt=f"2026-11-{day}T09:30:00.5Z",
                            usage={"credits": 0.3, "totalCredits": 0.3, "breakdown": [entry]}))  # fmt: skip
    land(lake, classify("clr_3", status="FAILED", failureReason="ABORTED"))
    load = Load(lake, command="fetch", source="test")
    load.take_failure(RunFailedError("run clr_9: HTTP 500", run_id="clr_9", reason="HTTP_500"), workspace_id=None)
    load.finish()
    return lake.folder


@pytest.fixture
def filled(filled_once: Path, lake: LakeFiles) -> LakeFiles:
    """A copy of that lake."""
    shutil.copytree(filled_once, lake.folder)
    return lake


def read_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_table_becomes_a_csv_and_a_parquet_file_with_all_its_columns_and_rows(
    filled: LakeFiles, tmp_path: Path
) -> None:
    counts = {}
    for table in TABLES:
        for suffix in (".csv", ".parquet"):
            path = tmp_path / f"{table}{suffix}"
            counts[table] = export_table(filled.folder, table, path, suffix)
        rows = read_csv(tmp_path / f"{table}.csv")
        written = pq.read_table(tmp_path / f"{table}.parquet")
        assert len(rows) == written.num_rows == counts[table]
        assert list(rows[0]) == written.column_names
    assert counts == {"runs": 3, "charges": 2, "credit_ledger": 2, "loads": 4, "dead_letters": 1}


def test_parquet_keeps_types_and_csv_writes_them_out(filled: LakeFiles, tmp_path: Path) -> None:
    export_table(filled.folder, "runs", tmp_path / "runs.parquet", ".parquet")
    export_table(filled.folder, "runs", tmp_path / "runs.csv", ".csv")
    row = next(row for row in pq.read_table(tmp_path / "runs.parquet").to_pylist() if row["run_id"] == "clr_2")
    cells = next(row for row in read_csv(tmp_path / "runs.csv") if row["run_id"] == "clr_2")
    assert row["credits"] == Decimal("0.300000")
    assert row["created_at"] == datetime(2026, 11, 3, 9, 30, 0, 500_000, tzinfo=UTC)
    assert row["breakdown"][0]["charges"][0]["pages"] == [1]
    assert (cells["credits"], cells["created_at"], cells["updated_at"], cells["is_detail"], cells["file_id"]) == (
        "0.300000", "2026-11-03T09:30:00.500000Z", "2026-11-02T09:31:00Z", "true", "",
    )  # fmt: skip
    assert json.loads(cells["breakdown"])[0]["charges"][0]["product"] == "classification_light"


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("=HYPERLINK(\"http://x\")", "'=HYPERLINK(\"http://x\")"),
        ("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0"),
        ("-2+3.pdf", "'-2+3.pdf"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("\n=1", "'\n=1"),
        ("＝1", "'＝1"),
        ("a=1.pdf", "a=1.pdf"),
        ("'quoted'", "'quoted'"),
        ('with "quotes", commas\nand lines', 'with "quotes", commas\nand lines'),
        ("", ""),
    ],
)  # fmt: skip
def test_no_text_becomes_a_formula_in_csv(lake: LakeFiles, tmp_path: Path, name: str, cell: str) -> None:
    file = {"object": "file", "id": "file_1", "name": name}
    land(lake, classify("clr_1", file=file, usage={"credits": -1}))
    export_table(lake.folder, "runs", tmp_path / "runs.csv", ".csv")
    (row,) = read_csv(tmp_path / "runs.csv")
    assert row["file_name"] == cell
    assert row["credits"] == "-1.000000"


# The database


def test_the_database_stands_alone_and_has_the_tables_and_views(filled: LakeFiles, tmp_path: Path) -> None:
    path = tmp_path / "lake.duckdb"
    counts = export_database(filled.folder, path)
    assert counts == {"runs": 3, "charges": 2, "credit_ledger": 2, "loads": 4, "dead_letters": 1}
    moved = tmp_path / "elsewhere.duckdb"
    path.rename(moved)
    filled.folder.rename(tmp_path / "gone")
    with duckdb.connect(str(moved), read_only=True) as con:
        for table, count in counts.items():
            assert con.table(table).count("*").fetchall() == [(count,)]
        assert con.sql("SELECT day, kind, credits, charged_runs, unknown_runs FROM credits_by_day").fetchall() == [
            (datetime(2026, 11, 2, tzinfo=UTC).date(), "classify_run", Decimal("0.300000"), 1, 1),
            (datetime(2026, 11, 3, tzinfo=UTC).date(), "classify_run", Decimal("0.300000"), 1, 0),
        ]
        assert con.sql("SELECT failed, ended FROM failures_by_day ORDER BY day").fetchall() == [(1, 2), (0, 1)]


def test_an_empty_lake_gives_a_database_of_empty_tables(lake: LakeFiles, tmp_path: Path) -> None:
    lake.runs_folder.mkdir(parents=True)
    assert export_database(lake.folder, tmp_path / "lake.duckdb") == dict.fromkeys(TABLES, 0)


# Whole or not at all


def test_a_file_that_is_there_is_left_alone_without_force(filled: LakeFiles, tmp_path: Path) -> None:
    for name, command in (("a.csv", ["csv"]), ("a.parquet", ["parquet"]), ("a.duckdb", ["duckdb"]),
                          ("b.csv", ["focus", "--rate", "1", "--output"])):  # fmt: skip
        path = tmp_path / name
        path.write_text("mine")
        arguments = ["export", *command, str(path), "--lake", str(filled.folder)]
        assert main(arguments) == 2
        assert path.read_text() == "mine"
        assert main([*arguments, "--force"]) == 0
        assert path.read_bytes() != b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.duckdb", "a.parquet", "b.csv", "lake"]


def test_a_folder_is_not_written_over(filled: LakeFiles, tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(UsageError, match="it is a folder"):
        export_table(filled.folder, "runs", tmp_path / "a.csv", ".csv", force=True)


def test_a_damaged_lake_leaves_the_old_file_and_nothing_else(filled: LakeFiles, tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("mine")
    day = filled.day_path("2026-11-02")
    day.write_bytes(day.read_bytes()[:100])
    with pytest.raises(LakeDamagedError, match="day=2026-11-02"):
        export_table(filled.folder, "runs", path, ".csv", force=True)
    assert path.read_text() == "mine"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["lake", "runs.csv"]


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path, force=True) as temporary:
            temporary.write_text("half")
            assert temporary.suffix == ".tmp"
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write_half()
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.csv"]


def test_a_file_that_came_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"

    def write() -> None:
        with replacing(path, force=False) as temporary:
            temporary.write_text("new")
            path.write_text("of somebody else")

    with pytest.raises(UsageError, match="meanwhile"):
        write()
    assert path.read_text() == "of somebody else"
    assert [each.name for each in tmp_path.iterdir()] == ["a.csv"]


def test_the_disks_limit_leaves_the_old_file(filled: LakeFiles, tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("old")
    code = (
        "import resource, sys\n"
        "from pipeline.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", code, "export", "csv", str(path), "--lake", str(filled.folder), "--force"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert path.read_text() == "old"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["lake", "runs.csv"]


def test_readers_of_the_file_see_the_old_or_the_new_one(filled: LakeFiles, tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    export_table(filled.folder, "runs", path, ".csv")
    first = path.read_bytes()
    seen, stop = set(), threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(5):
            export_table(filled.folder, "runs", path, ".csv", force=True)
    finally:
        stop.set()
        reader.join()
    assert seen == {first}
