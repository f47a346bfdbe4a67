"""The declared tables: the columns of the issue, in its order, with their types, each described."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import arrow_schemas, schema

# Copied by hand from the issue that asked for the table.
RUN_COLUMNS = (
    "run_id, kind, workspace_id, status, failure_reason, failure_message, credits, total_credits, breakdown, "
    "created_at, updated_at, initial_run_at, started_at, ended_at, reviewed_at, processor_id, processor_name, "
    "processor_version_id, processor_version, base_processor, base_version, file_id, file_name, file_type, file_pages, "
    "file_created_at, file_count, parse_run_id, batch_id, source, source_id, reviewed, edited, output_type, "
    "output_confidence, initial_output_type, reviewed_output_type, risk_level, processing_ms, page_count, metadata, "
    "dashboard_url, is_detail, fetched_at, load_id, deleted_at"
)

TIMES = [
    "created_at",
    "updated_at",
    "initial_run_at",
    "started_at",
    "ended_at",
    "reviewed_at",
    "file_created_at",
    "fetched_at",
    "deleted_at",
]
WHOLE_NUMBERS = ["file_pages", "file_count", "processing_ms", "page_count"]
FLAGS = ["reviewed", "edited", "is_detail"]
OTHERS = {
    "credits": "decimal128(18, 6)",
    "total_credits": "decimal128(18, 6)",
    "output_confidence": "double",
    "breakdown": "list<item: struct<object: string, id: string, credits: decimal128(18, 6), charges: list<item: "
    "struct<product: string, unit: string, quantity: decimal128(18, 6), credits: decimal128(18, 6), pages: "
    "list<item: int64>>>>>",
}


def types_by_hand() -> dict[str, str]:
    types = dict.fromkeys(RUN_COLUMNS.split(", "), "string")
    types.update(dict.fromkeys(TIMES, "timestamp[us, tz=UTC]"))
    types.update(dict.fromkeys(WHOLE_NUMBERS, "int64"))
    types.update(dict.fromkeys(FLAGS, "bool"))
    return types | OTHERS


def test_runs_has_the_columns_of_the_issue_in_its_order() -> None:
    assert ", ".join(arrow_schemas.RUNS_SCHEMA.names) == RUN_COLUMNS
    assert ", ".join(schema.RUN_COLUMNS) == RUN_COLUMNS
    assert len(arrow_schemas.RUNS_SCHEMA.names) == 46


def test_every_column_of_runs_has_its_declared_type() -> None:
    assert {field.name: str(field.type) for field in arrow_schemas.RUNS_SCHEMA} == types_by_hand()


def test_the_files_have_the_table_and_the_bookkeeping_of_the_merge() -> None:
    assert arrow_schemas.RUNS_FILE_SCHEMA.names == [*RUN_COLUMNS.split(", "), "_sources"]
    assert arrow_schemas.RUNS_FILE_SCHEMA.field("_sources").type == pa.string()


@pytest.mark.parametrize(
    "table",
    [arrow_schemas.RUNS_FILE_SCHEMA, arrow_schemas.LOADS_SCHEMA, arrow_schemas.DEAD_LETTERS_SCHEMA],
    ids=["runs", "loads", "dead"],
)
def test_every_column_is_described(table: pa.Schema) -> None:
    for field in table:
        description = field.metadata[b"description"].decode()
        assert description == description.strip()
        assert len(description) > 10, field.name
        assert description[-1] in ".…", field.name


def test_descriptions_are_still_there_in_a_parquet_file() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(arrow_schemas.RUNS_FILE_SCHEMA.empty_table(), sink)
    read = pq.read_schema(pa.BufferReader(sink.getvalue()))
    assert read.field("run_id").metadata[b"description"].startswith(b"The run's ID")
    assert [field.name for field in read if not (field.metadata or {}).get(b"description")] == []


def test_loads_says_what_the_design_asks_of_it() -> None:
    asked = (
        "load_id command source base_url workspace_id state started_at ended_at seconds requested landed unchanged "
        "skipped missing failed invalid failed_reasons requests retries rate_limited version"
    )
    assert set(asked.split()) <= set(arrow_schemas.LOADS_SCHEMA.names)
    assert arrow_schemas.LOADS_SCHEMA.field("failed_reasons").type == pa.map_(pa.string(), pa.int64())


def test_dead_letters_say_which_run_and_why() -> None:
    assert arrow_schemas.DEAD_LETTERS_SCHEMA.names == (
        "run_id kind workspace_id reason message http_status request_id attempts failed_at load_id".split()
    )


def test_no_table_names_a_column_twice() -> None:
    for table in (arrow_schemas.RUNS_FILE_SCHEMA, arrow_schemas.LOADS_SCHEMA, arrow_schemas.DEAD_LETTERS_SCHEMA):
        assert len(set(table.names)) == len(table.names), json.dumps(table.names)
