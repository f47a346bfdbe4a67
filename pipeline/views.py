"""The views of a lake's files that all questions stand on."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from pipeline.lake import LakeFiles
from pipeline.reports import read_sql
from pipeline.schema import RUN_COLUMNS, RUNS_FILE_SCHEMA, STORED_DAY

WITH_DAY = f"regexp_extract(filename, '{STORED_DAY}', 1) AS day"
"""The day that a file is of, from its `filename`: a condition on it leaves the files of other days unopened. DuckDB's
`hive_partitioning` does so too, but takes every `name=value` of a path for a column, those above the lake included.
"""

_STORED_SCHEMA = RUNS_FILE_SCHEMA.append(pa.field("filename", pa.string()))
_COLUMNS = ", ".join((*RUN_COLUMNS, WITH_DAY))


def _stored_runs(con: duckdb.DuckDBPyConnection, files: LakeFiles, paths: str | list[str]) -> duckdb.DuckDBPyRelation:
    if files.is_current():
        return con.read_parquet(paths, hive_partitioning=False, filename=True)
    # Files of an earlier version lack columns; matching by name opens every file first, so only then.
    old = con.read_parquet(paths, hive_partitioning=False, filename=True, union_by_name=True)
    old.create_view("old_runs", replace=True)
    con.register("no_runs", _no_rows(_STORED_SCHEMA))
    return con.sql("FROM no_runs UNION ALL BY NAME FROM old_runs")


def create_view(con: duckdb.DuckDBPyConnection, name: str, paths: list[str], schema: pa.Schema) -> None:
    """Make a view of files of any version with all columns of a schema; of no files, one without rows."""
    if not paths:
        con.register(f"no_{name}", _no_rows(schema))
        relation = con.table(f"no_{name}")
    else:
        found = con.read_parquet(paths, hive_partitioning=False, union_by_name=True)
        found.create_view(f"found_{name}", replace=True)
        con.register(f"no_{name}", _no_rows(schema))
        relation = con.sql(f"FROM no_{name} UNION ALL BY NAME FROM found_{name}")
    relation.project(", ".join(schema.names)).create_view(name, replace=True)


def create_runs(con: duckdb.DuckDBPyConnection, files: LakeFiles, *, has_files: bool) -> None:
    """Make the view `runs`: one row a run, also while some are on their way from one day to another."""
    if has_files:
        glob = str(files.runs_folder / "day=*" / "*.parquet")
        stored = _stored_runs(con, files, glob if files.only_days is None else files.day_paths())
    else:
        con.register("no_runs", _no_rows(_STORED_SCHEMA))
        stored = con.table("no_runs")
    moving = sorted({run_id for run_id, _old, _new in files.read_moves()})
    if not moving:
        stored.project(_COLUMNS).create_view("runs", replace=True)
        return
    stored.create_view("stored_runs", replace=True)
    con.register("moving_runs", pa.table({"run_id": moving}))
    con.sql(read_sql("settled_runs")).project(_COLUMNS).create_view("runs", replace=True)


def _no_rows(schema: pa.Schema) -> pa.Table:
    """Return a table without rows. `Schema.empty_table` would import pandas, which takes longer than most questions."""
    return pa.Table.from_batches([], schema=schema)
