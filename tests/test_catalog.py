"""The catalog: what can be asked of a lake, of an empty one too, and that readers and writers never wait."""

import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import cli, render
from pipeline import lake as lake_module
from pipeline.arrow_schemas import RUNS_FILE_SCHEMA
from pipeline.catalog import Lake
from pipeline.errors import LakeDamagedError, LakeError, RunFailedError, UsageError
from pipeline.lake import LakeFiles
from pipeline.loads import Load
from pipeline.reports.failure_questions import failures_question
from pipeline.reports.questions import Window
from tests.conftest import NOON, classify, land

RUNS = (
    "run_id, kind, workspace_id, status, failure_reason, failure_message, credits, total_credits, breakdown, "
    "created_at, updated_at, initial_run_at, started_at, ended_at, reviewed_at, processor_id, processor_name, "
    "processor_version_id, processor_version, base_processor, base_version, file_id, file_name, file_type, file_pages, "
    "file_created_at, file_count, parse_run_id, batch_id, source, source_id, reviewed, edited, output_type, "
    "output_confidence, initial_output_type, reviewed_output_type, risk_level, processing_ms, page_count, metadata, "
    "dashboard_url, is_detail, fetched_at, load_id, deleted_at, day"
)
CHARGES = (
    "run_id, kind, workspace_id, created_at, charged_kind, charged_id, charged_credits, product, unit, quantity, "
    "credits, pages"
)
LEDGER = (
    "resource_kind, resource_id, product, unit, quantity, credits, basis, charged_on, caused_by_run_id, processor_id, "
    "processor_name, processor_version, workspace_id, file_id, file_name, file_type, source, metadata, status, "
    "caused_by_kind, caused_by_status, charged_at, line, is_first_of_product"
)
LOADS = (
    "load_id, command, source, base_url, workspace_id, state, error, started_at, ended_at, seconds, requested, landed, "
    "unchanged, skipped, missing, failed, invalid, failed_reasons, field_problems, requests, retries, rate_limited, "
    "version, raw_file, raw_bytes, raw_sha256"
)
LETTERS = "run_id, kind, workspace_id, reason, message, http_status, request_id, attempts, failed_at, load_id"
VIEWS = {"runs": RUNS, "charges": CHARGES, "credit_ledger": LEDGER, "loads": LOADS, "dead_letters": LETTERS}

PANDAS_3_1 = pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.drop:DeprecationWarning")
"""DuckDB 2.0 makes its frames in a way that pandas 3.1 announces to drop; nobody is shown it but by `-W error`."""


def fail(lake: LakeFiles, run_id: str) -> None:
    load = Load(lake, command="fetch", source="test")
    load.take_failure(RunFailedError(f"run {run_id}: HTTP 500", run_id=run_id, reason="HTTP_500"), workspace_id=None)
    load.finish()


# What is there to ask


def test_day_is_where_a_run_is_stored_in_whatever_folder_the_lake_is(tmp_path: Path) -> None:
    lake = LakeFiles(tmp_path / "day=2020-01-01" / "status=backup" / "it's here")
    undated = {"object": "classify_run", "id": "clr_3", "status": "PENDING"}
    land(lake, classify(), classify("clr_2", createdAt="2026-11-03T00:00:00Z"), undated)
    with Lake(lake.folder) as catalog:
        found = catalog.sql("SELECT run_id, day, status FROM runs ORDER BY run_id").fetchall()
    assert found == [
        ("clr_1", "2026-11-02", "PROCESSED"),
        ("clr_2", "2026-11-03", "PROCESSED"),
        ("clr_3", "unknown", "PENDING"),
    ]


def test_a_window_of_days_opens_the_files_of_no_other_day(lake: LakeFiles) -> None:
    land(
        lake,
        *(classify(f"clr_{day}", createdAt=f"2026-11-{day:02}T23:59:59Z", status="FAILED") for day in (1, 2, 3, 4)),
    )
    # DuckDB takes the columns from the first file, whatever is asked.
    for day in ("2026-11-03", "2026-11-04"):
        lake.day_path(day).write_bytes(b"not Parquet")
    with Lake(lake.folder) as catalog:
        page = catalog.sql("SELECT run_id FROM runs WHERE day = $day", day="2026-11-02").fetchall()
        # Not the sums, which the query of no condition would be put to: they are made of all runs.
        window: dict[str, Any] = {"since": "2026-11-02", "until": "2026-11-03", "where": "kind = 'classify_run'"}
        failed = catalog.failures(by="kind", **window).fetchall()
        with pytest.raises(LakeDamagedError, match="day=2026-11-03"):
            catalog.failures(by="kind", **(window | {"until": "2026-11-04"})).fetchall()
    assert page == [("clr_2",)]
    assert failed[0][:2] == ("classify_run", 1)


@pytest.mark.parametrize("folder", ["runs", "raw", "loads"])
def test_an_empty_lake_has_all_views_with_all_columns_and_no_rows(lake: LakeFiles, folder: str) -> None:
    (lake.folder / folder).mkdir(parents=True)
    with Lake(lake.folder) as catalog:
        for view, columns in VIEWS.items():
            relation = catalog.sql(f"FROM {view}")
            assert (view, relation.columns, relation.fetchall()) == (view, columns.split(", "), [])


def test_a_lake_with_runs_has_the_same_columns_and_types_as_an_empty_one(lake: LakeFiles, tmp_path: Path) -> None:
    empty = tmp_path / "empty" / "runs"
    empty.mkdir(parents=True)
    land(lake, classify())
    fail(lake, "clr_2")
    with Lake(empty.parent) as before, Lake(lake.folder) as after:
        for view, columns in VIEWS.items():
            one, other = before.sql(f"FROM {view}"), after.sql(f"FROM {view}")
            assert (view, other.columns) == (view, columns.split(", "))
            assert (view, list(map(str, one.types))) == (view, list(map(str, other.types)))
            assert len(other.fetchall()) == {"runs": 1, "loads": 2, "dead_letters": 1}.get(view, 0)


def test_an_open_catalog_sees_the_first_runs_new_loads_and_dead_letters_as_they_come(lake: LakeFiles) -> None:
    lake.runs_folder.mkdir(parents=True)
    query = "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM loads), (SELECT count(*) FROM dead_letters)"
    with Lake(lake.folder) as catalog:
        assert catalog.sql(query).fetchall() == [(0, 0, 0)]
        first = land(lake, classify("clr_1"))
        assert catalog.sql(query).fetchall() == [(1, 1, 0)]
        fail(lake, "clr_9")
        assert catalog.sql(query).fetchall() == [(1, 2, 1)]
        # Another day, in a file that was not there before, and another version of a run that was.
        land(lake, classify("clr_2", createdAt="2026-11-05T00:00:00Z"))
        land(lake, classify("clr_1", status="FAILED", updatedAt="2026-11-02T10:00:00Z"))
        assert catalog.sql(query).fetchall() == [(2, 4, 1)]
        rows = catalog.sql("SELECT run_id, status, load_id = $load FROM runs ORDER BY ALL", load=first.load_id)
        assert rows.fetchall() == [("clr_1", "FAILED", False), ("clr_2", "PROCESSED", False)]
        land(lake, classify("clr_9"), fetched_at=NOON + timedelta(days=100_000))
        assert catalog.sql(query).fetchall() == [(3, 5, 0)]


def views_of(catalog: Lake) -> set[str]:
    rows = catalog.con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    return {name for (name,) in rows}


ALL_VIEWS = {
    "runs", "charges", "credit_ledger", "unknown_credits", "loads", "dead_letters", "credit_lines", "credit_sums",
    "run_sums",
}  # fmt: skip


@pytest.mark.parametrize(
    ("query", "views"),
    [
        ("SELECT 1", set()),
        ("-- not FROM runs\nSELECT 1 -- nor FROM loads", set()),
        ("SELECT '--' AS mark, count(*) FROM runs", ALL_VIEWS),  # what a comment is, is not looked at so closely
        ("SELECT count(*) FROM Runs", {"runs"}),
        ("FROM runs SEMI JOIN dead_letters USING (run_id)", {"runs", "dead_letters"}),
        ("SHOW TABLES", ALL_VIEWS),
        ("FROM information_schema.tables", ALL_VIEWS),
        ("FROM unknown_credits", {"unknown_credits", "credit_lines", "charges", "runs"}),
    ],
)
def test_only_views_that_a_query_names_are_made_with_what_they_stand_on(
    lake: LakeFiles, query: str, views: set[str]
) -> None:
    land(lake, classify())
    with Lake(lake.folder) as catalog:
        catalog.sql(query).fetchall()
        assert views_of(catalog) == views


def test_a_view_that_is_named_in_a_way_of_its_own_is_there(lake: LakeFiles) -> None:
    land(lake, classify())
    with Lake(lake.folder) as catalog:
        assert catalog.sql("FROM query('SELECT count(*) FROM ru' || 'ns')").fetchall() == [(1,)]
        assert "runs" in [name for name, *_ in catalog.sql("SHOW TABLES").fetchall()]
    with Lake(lake.folder) as catalog, pytest.raises(UsageError, match="ruins does not exist"):
        catalog.sql("FROM ruins")


def test_a_relation_of_before_has_what_came_since(lake: LakeFiles) -> None:
    fail(lake, "clr_3")
    with Lake(lake.folder) as catalog:
        ledger, runs = catalog.credit_ledger(), catalog.runs()
        land(lake, classify(usage={"credits": 1}), classify("clr_2", usage={"credits": 2}))
        # A question that names neither sees that the lake has changed.
        assert catalog.sql("SELECT count(*) FROM loads").fetchall() == [(2,)]
        assert len(runs.fetchall()) == 2
        assert {row[0] for row in ledger.project("resource_id").fetchall()} == {"clr_1", "clr_2"}


def test_loads_of_several_months_are_one_view(lake: LakeFiles) -> None:
    for month in (10, 11):
        Load(
            lake, command="load", source=f"month {month}", now=lambda month=month: datetime(2026, month, 1, tzinfo=UTC)
        ).finish()
    with Lake(lake.folder) as catalog:
        assert sorted(path.name for path in lake.loads_folder.iterdir()) == ["2026-10.parquet", "2026-11.parquet"]
        assert catalog.sql("SELECT source FROM loads ORDER BY load_id").fetchall() == [("month 10",), ("month 11",)]


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_a_lake_is_refused_with_advice(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "somewhere"
    if exists:
        folder.mkdir()
        (folder / "notes.txt").write_text("no lake")
    with pytest.raises(UsageError, match="no lake here; fill one with `pipeline fetch`") as refused:
        Lake(folder)
    assert str(folder) in str(refused.value)
    assert folder.exists() == exists


# How it is asked


def test_parameters_are_bound_and_never_pasted(lake: LakeFiles) -> None:
    hostile = "x' OR true --"
    land(lake, classify("clr_1", status="FAILED"), classify("clr_2", status=hostile), classify("clr_3"))
    query = "SELECT run_id FROM runs WHERE status = $status AND credits IS NOT DISTINCT FROM $credits"
    with Lake(lake.folder) as catalog:
        assert catalog.sql(query, status="FAILED", credits=None).fetchall() == [("clr_1",)]
        assert catalog.sql(query, status=hostile, credits=None).fetchall() == [("clr_2",)]
        listed = catalog.sql("SELECT run_id FROM runs WHERE run_id IN (SELECT unnest($ids)) ORDER BY 1",
                             ids=["clr_3", "clr_1"])  # fmt: skip
        assert listed.fetchall() == [("clr_1",), ("clr_3",)]
        with pytest.raises(UsageError, match="credits"):
            catalog.sql(query, status="FAILED")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELECT nothing FROM runs", 'Binder Error: .*"nothing"'),
        ("FROM no_such_view", "Catalog Error: .*no_such_view"),
        ("SELEC 1", "Parser Error: .*SELEC"),
        ("", "no rows; ask with SELECT or FROM"),
    ],
)
def test_a_wrong_query_is_a_usage_error_with_duckdbs_own_words(lake: LakeFiles, query: str, words: str) -> None:
    land(lake, classify())
    with Lake(lake.folder) as catalog:
        with pytest.raises(UsageError, match=words):
            catalog.sql(query)
        assert catalog.sql("SELECT count(*) FROM runs").fetchall() == [(1,)]


def test_a_query_cannot_read_the_callers_python_variables(lake: LakeFiles) -> None:
    land(lake, classify())
    secret = pa.table({"password": ["hunter2"]})
    assert len(secret) == 1
    with Lake(lake.folder) as catalog, pytest.raises(UsageError, match="secret"):
        catalog.sql("FROM secret")


def test_runs_are_one_row_each_with_every_value(lake: LakeFiles) -> None:
    result = land(lake, classify(metadata={"b": 1, "a": "é"}, usage={"credits": 0.3, "totalCredits": 2.3}))
    with Lake(lake.folder) as catalog:
        relation = catalog.runs()
        (row,) = relation.fetchall()
        assert relation.columns == RUNS.split(", ")
    values = {name: value for name, value in zip(RUNS.split(", "), row, strict=True) if value is not None}
    assert values == {
        "run_id": "clr_1", "kind": "classify_run", "status": "PROCESSED",
        "credits": Decimal("0.300000"), "total_credits": Decimal("2.300000"),
        "created_at": datetime(2026, 11, 2, 9, 30, tzinfo=UTC), "updated_at": datetime(2026, 11, 2, 9, 31, tzinfo=UTC),
        "metadata": '{"a":"é","b":1}', "is_detail": True, "fetched_at": NOON, "load_id": result.load_id,
        "day": "2026-11-02",
    }  # fmt: skip


BREAKDOWN = [
    {"object": "classify_run", "id": "clr_1", "credits": 3.5, "charges": [
        {"product": "classification_performance", "unit": "page", "quantity": 3, "credits": 3, "pages": [1, 2, 5]},
        {"product": "agent_usage", "unit": "usd", "quantity": 0.00625, "credits": 0.5},
    ]},
    {"object": "parse_run", "id": "pr_1", "credits": 2},
    {"object": "parse_run", "id": "pr_2", "credits": 0, "charges": []},
]  # fmt: skip


def test_charges_are_flat_one_row_a_line_and_one_for_an_entry_without_lines(lake: LakeFiles) -> None:
    land(
        lake,
        classify(usage={"credits": 3.5, "totalCredits": 5.5, "breakdown": BREAKDOWN}),
        classify("clr_2", usage={"credits": 1}),
        classify("clr_3", usage={"credits": 1, "totalCredits": 1, "breakdown": []}),
    )
    with Lake(lake.folder) as catalog:
        relation = catalog.charges().order("charged_id, product DESC")
        assert relation.columns == CHARGES.split(", ")
        rows = relation.fetchall()
    run = ("clr_1", "classify_run", None, datetime(2026, 11, 2, 9, 30, tzinfo=UTC))
    own, parse = ("classify_run", "clr_1", Decimal("3.5")), ("parse_run", "pr_1", Decimal(2))
    assert rows == [
        (*run, *own, "classification_performance", "page", Decimal(3), Decimal(3), [1, 2, 5]),
        (*run, *own, "agent_usage", "usd", Decimal("0.00625"), Decimal("0.5"), None),
        (*run, *parse, None, None, None, Decimal(2), None),
        (*run, "parse_run", "pr_2", Decimal(0), None, None, None, Decimal(0), None),
    ]


def test_a_charge_that_two_runs_report_is_in_charges_twice_and_in_the_ledger_once(lake: LakeFiles) -> None:
    parse = {"object": "parse_run", "id": "pr_1", "credits": 2}
    for run_id in ("clr_1", "clr_2"):
        own = {"object": "classify_run", "id": run_id, "credits": 1}
        land(lake, classify(run_id, usage={"credits": 1, "totalCredits": 3, "breakdown": [own, parse]}))
    with Lake(lake.folder) as catalog:
        assert catalog.charges().aggregate("sum(credits)").fetchall() == [(Decimal(6),)]
        assert catalog.credit_ledger().aggregate("sum(credits)").fetchall() == [(Decimal(4),)]


@PANDAS_3_1
def test_answers_come_as_frames_and_as_arrow_with_decimals_and_utc(lake: LakeFiles) -> None:
    land(lake, classify(usage={"credits": 0.1}), classify("clr_2"))
    with Lake(lake.folder) as catalog:
        relation = catalog.sql("SELECT run_id, credits, created_at FROM runs ORDER BY run_id")
        frame = relation.df()
        assert list(frame["run_id"]) == ["clr_1", "clr_2"]
        assert str(frame["created_at"].dt.tz) == "UTC"
        assert frame["created_at"][0].isoformat() == "2026-11-02T09:30:00+00:00"
        arrow = relation.arrow()
        table = arrow if isinstance(arrow, pa.Table) else arrow.read_all()
    assert table.schema.field("credits").type == pa.decimal128(18, 6)
    assert table.schema.field("created_at").type == pa.timestamp("us", tz="UTC")
    assert table["credits"].to_pylist() == [Decimal("0.100000"), None]


def test_times_are_utc_whichever_zone_the_process_has(lake: LakeFiles) -> None:
    land(lake, classify(createdAt="2026-11-03T02:30:00Z", usage={"credits": 1}))
    code = """
import json, sys, time
from pipeline.catalog import Lake
catalog = Lake(sys.argv[1])
row = catalog.sql("SELECT created_at::VARCHAR, created_at, strftime(created_at, '%d'), created_at::DATE FROM runs")
[(text, at, day, date)] = row.fetchall()
[(charged,)] = catalog.sql("SELECT charged_on FROM credit_ledger").fetchall()
reported = catalog.credits().fetchall()[0][0]
print(json.dumps([time.tzname[0], text, at.isoformat(), day, str(date), str(charged), str(reported)]))
"""
    environment = {**os.environ, "TZ": "America/New_York"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(lake.folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        "EST", "2026-11-03 02:30:00+00", "2026-11-03T02:30:00+00:00", "03", "2026-11-03", "2026-11-03", "2026-11-03",
    ]  # fmt: skip


# Readers and writers


def test_a_reader_does_not_wait_for_a_writer_that_holds_the_lock(lake: LakeFiles) -> None:
    land(lake, classify())
    code = "import sys; from pipeline.catalog import Lake; print(len(Lake(sys.argv[1]).runs().fetchall()))"
    with lake.writing():
        done = subprocess.run(
            [sys.executable, "-c", code, str(lake.folder)], capture_output=True, text=True, check=False, timeout=60
        )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_a_writer_does_not_wait_for_a_reader_in_the_middle_of_an_answer(lake: LakeFiles) -> None:
    land(lake, *(classify(f"clr_{number}") for number in range(5)))
    with Lake(lake.folder) as catalog:
        reading = catalog.sql("SELECT run_id, status FROM runs ORDER BY run_id").arrow(2)
        assert reading.read_next_batch().to_pylist()[0] == {"run_id": "clr_0", "status": "PROCESSED"}
        changed = [
            classify(f"clr_{number}", status="FAILED", updatedAt="2026-11-03T00:00:00Z") for number in range(5)
        ]  # fmt: skip
        assert land(lake, *changed).landed == 5
        assert reading.read_all()["status"].to_pylist() == ["PROCESSED"] * 3
        assert catalog.sql("SELECT DISTINCT status FROM runs").fetchall() == [("FAILED",)]


def test_reading_leaves_no_file_behind_and_changes_none(lake: LakeFiles) -> None:
    def listing() -> dict[str, Any]:
        return {str(path): path.stat().st_mtime_ns for path in lake.folder.rglob("*")}

    land(lake, classify())
    before = listing()
    with Lake(lake.folder) as catalog:
        for view in VIEWS:
            catalog.sql(f"FROM {view}").fetchall()
        catalog.credits().fetchall()
        catalog.failures().fetchall()
    assert listing() == before


@pytest.mark.parametrize("query", ["SELEC 1", "SELECT runid FROM runs", "FROM run", "SELECT nothing(kind) FROM runs"])
def test_a_mistyped_query_is_told_of_without_a_look_at_all_files(lake: LakeFiles, query: str) -> None:
    land(lake, classify("clr_1"), classify("clr_2", createdAt="2026-11-05T00:00:00Z"))
    # Whoever looked at all files would tell of this one.
    lake.day_path("2026-11-05").write_bytes(b"not Parquet")
    with pytest.raises(UsageError, match="the query cannot be answered"), Lake(lake.folder) as catalog:
        catalog.sql(query)
    with pytest.raises(LakeDamagedError, match="day=2026-11-05"), Lake(lake.folder) as catalog:
        catalog.sql("SELECT count(credits) FROM runs").fetchall()


@pytest.mark.parametrize("where", ["CAST(run_id AS INT) > 1", "created_at > 'abc'"])
def test_a_condition_that_a_value_does_not_fit_is_told_of_in_its_line(lake: LakeFiles, where: str) -> None:
    land(lake, classify("clr_1", status="FAILED"))
    with Lake(lake.folder, locked=True) as catalog:
        line = failures_question(window=Window(), where=where).query.split("\n").index(where) + 1
        with pytest.raises(UsageError, match=f"the query cannot be answered: Conversion Error(.|\n)*LINE {line}:"):
            catalog.failures(where=where)
        assert catalog.failures().fetchall() != []


def test_answers_stay_what_they_are_beside_later_ones(lake: LakeFiles) -> None:
    land(lake, classify("clr_1", usage={"credits": 1.5}))
    with Lake(lake.folder) as catalog:
        first = catalog.credits("all")
        land(lake, classify("clr_2", usage={"credits": 2}))
        second = catalog.credits("all")
        assert [row[1] for row in first.fetchall()] == [Decimal("1.5")]
        assert [row[1] for row in second.fetchall()] == [Decimal("3.5")]
        assert first.filter("credits > 1").aggregate("sum(credits)").fetchall() == [(Decimal("1.5"),)]
        # They are no tables of the lake.
        assert not [name for name, *_ in catalog.sql("SHOW TABLES").fetchall() if name.startswith("answer")]


@pytest.mark.parametrize("content", [b"", b"garbage", b"PAR1" + b"\xff" * 200])
@pytest.mark.parametrize("is_open", [True, False])
def test_a_damaged_file_is_named_with_the_way_to_mend_it(lake: LakeFiles, content: bytes, is_open: bool) -> None:
    land(lake, classify("clr_1"), classify("clr_2", createdAt="2026-11-05T00:00:00Z"))
    path = lake.day_path("2026-11-02")
    with Lake(lake.folder) as catalog:
        if is_open:
            catalog.runs().fetchall()
        path.write_bytes(content)
        with pytest.raises(LakeDamagedError, match="mend the lake with `pipeline check --repair`") as told:
            catalog.runs().fetchall()
    assert str(path) in str(told.value)


def test_pipeline_sql_names_the_file_whose_page_is_damaged(lake: LakeFiles, capsys: pytest.CaptureFixture[str]) -> None:
    """Its footer is whole: that a page is not turns out when it is read."""
    land(lake, *(classify(f"clr_{number}", failureMessage=f"message {number}") for number in range(300)))
    path = lake.day_path("2026-11-02")
    content = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(0).column(RUNS_FILE_SCHEMA.names.index("failure_message"))
    place = column.dictionary_page_offset or column.data_page_offset
    content[place : place + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(content)
    assert cli.main(["sql", "SELECT failure_message FROM runs", "--lake", str(lake.folder)]) == 1
    told = capsys.readouterr().err
    assert str(path) in told
    assert "mend the lake with `pipeline check --repair`" in told


# ---------------------------------------------------------------------------------------------------------------------
# While files are replaced


def test_a_report_gives_the_rows_of_one_version_though_a_file_is_replaced_all_the_while(
    lake: LakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lake_module, "_PAUSE_S", 0.0)
    land(lake, *(classify(f"clr_{number}", status="FAILED") for number in range(300)))
    (day,) = lake.days()
    many, few = lake.read_day(day), lake.read_day(day).slice(0, 7)
    stop, allowed = threading.Event(), threading.Event()
    allowed.set()

    def replace() -> None:
        while not stop.is_set():
            for table in (few, many):
                lake.write_day(day, table)
                stop.wait(0.02)

    writer = threading.Thread(target=replace)
    writer.start()
    found, refused = [], 0
    try:
        with Lake(lake.folder) as catalog:
            for _ in range(25):
                try:
                    found += catalog.failures(by="kind").df()["failed"].tolist()
                except LakeError:  # it was replaced in each of some tries
                    refused += 1
    finally:
        stop.set()
        writer.join()
    assert set(found) <= {7, 300}
    assert found


def test_rows_are_fetched_as_they_are_read(lake: LakeFiles) -> None:
    land(lake, classify())
    with Lake(lake.folder) as catalog:
        found = catalog.read("SELECT range AS n, range / 2 AS half FROM range(100_000_000_000)")
        assert (found.names, found.types) == (["n", "half"], ["BIGINT", "DOUBLE"])
        assert [next(found.rows) for _ in range(3)] == [(0, 0.0), (1, 0.5), (2, 1.0)]


def test_what_python_would_lose_a_part_of_is_read_as_text(lake: LakeFiles) -> None:
    land(lake, classify())
    query = 'SELECT 1 AS t, TIMESTAMP_NS \'2026-11-03 09:30:00.123456789\' AS t, INTERVAL 1 MONTH AS "a ""b"; -- so'
    with Lake(lake.folder) as catalog:
        found = catalog.read(query)
        assert (found.names, found.types) == (["t", "t", 'a "b'], ["INTEGER", "TIMESTAMP_NS", "INTERVAL"])
        assert list(found.rows) == [(1, "2026-11-03T09:30:00.123456789", "1 month")]


def test_a_query_that_gives_no_rows_is_told(lake: LakeFiles) -> None:
    land(lake, classify())
    with Lake(lake.folder) as catalog:
        for query in ("", "-- nothing"):
            with pytest.raises(UsageError, match="gives no rows"):
                catalog.read(query)


def test_pipeline_sql_says_where_a_load_landed_while_it_answered(
    lake: LakeFiles, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    land(lake, classify())
    write = render.write_rows

    def write_while_landing(answer: Any, **options: Any) -> None:
        write(answer, **options)
        land(lake, classify("clr_2"))

    assert cli.main(["sql", "SELECT run_id FROM runs", "--lake", str(lake.folder)]) == 0
    assert "ask again" not in capsys.readouterr().err
    monkeypatch.setattr(render, "write_rows", write_while_landing)
    assert cli.main(["sql", "SELECT run_id FROM runs", "--lake", str(lake.folder)]) == 0
    told = capsys.readouterr()
    assert "clr_1" in told.out
    assert "a load landed meanwhile; ask again" in told.err
