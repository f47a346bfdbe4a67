"""The views of a lake's files that all questions stand on.

They are made by SQL alone: a relation of DuckDB's Python layer is bound anew at each step of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline import duckdb_core
from pipeline.lake import LakeFiles
from pipeline.reports import literal, read_sql
from pipeline.schema import RUN_COLUMNS, RUNS_FILE, TEXT, Column

WITH_DAY = "parse_path(filename)[-2][5:] AS day"
"""The day that a file is of, from its `filename`: a condition on it leaves the files of other days unopened, and is
looked at for each file, which takes half as long as `schema.STORED_DAY` would. DuckDB's `hive_partitioning` does so
too, but takes every `name=value` of a path for a column, those above the lake included.
"""

_STORED = (*RUNS_FILE, Column("filename", TEXT, "The path of the file that the row is in."))
_COLUMNS = ", ".join((*RUN_COLUMNS, WITH_DAY))


def parquet(paths: str | Sequence[str], *, filename: bool = False, by_name: bool = False) -> str:
    """Return what SQL reads Parquet files by; `by_name` puts together files with different columns."""
    options = f"hive_partitioning = false, filename = {filename}, union_by_name = {by_name}"
    return f"read_parquet({literal(paths)}, {options})"


def create_view(
    con: duckdb_core.DuckDBPyConnection, name: str, paths: Sequence[str], columns: Sequence[Column]
) -> None:
    """Make a view of files of any version with all columns of a table; of no files, one without rows."""
    rows = _no_rows(columns)
    if paths:
        rows += f" UNION ALL BY NAME FROM {parquet(paths, by_name=True)}"
    names = ", ".join(column.name for column in columns)
    con.execute(f"CREATE OR REPLACE VIEW {name} AS FROM ({rows}) SELECT {names}")


def create_runs(con: duckdb_core.DuckDBPyConnection, files: LakeFiles, *, has_files: bool) -> None:
    """Make the view `runs`: one row a run, also while some are on their way from one day to another."""
    stored = _stored_runs(files) if has_files else f"({_no_rows(_STORED)})"
    moving = sorted({run_id for run_id, _old, _new in files.read_moves()})
    if moving:
        con.execute(f"CREATE OR REPLACE VIEW stored_runs AS FROM {stored}")
        con.execute("CREATE OR REPLACE TABLE moving_runs AS SELECT unnest($moving) AS run_id", {"moving": moving})
        stored = f"({read_sql('settled_runs')})"
    con.execute(f"CREATE OR REPLACE VIEW runs AS FROM {stored} SELECT {_COLUMNS}")


def _stored_runs(files: LakeFiles) -> str:
    # One pattern for all days: a list is parsed for longer, and `*.parquet` would have each day's folder read.
    paths = files.day_paths() if files.only_days is not None else str(files.day_path("*"))
    if files.is_current():
        return parquet(paths, filename=True)
    # Files of an earlier version lack columns; matching by name opens every file first, so only then.
    return f"({_no_rows(_STORED)} UNION ALL BY NAME FROM {parquet(paths, filename=True, by_name=True)})"


def _no_rows(columns: Sequence[Column]) -> str:
    """Return a query for no rows with all columns of a table."""
    return f"SELECT {', '.join(f'CAST(NULL AS {each.type}) AS {each.name}' for each in columns)} WHERE false"
