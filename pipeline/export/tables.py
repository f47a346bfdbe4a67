"""The lake's tables as one CSV or Parquet file, or all together as a DuckDB database for BI tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.defaults import TABLES
from pipeline.export.files import Tell, bounded_lake, copy_relation, replacing, written_rows
from pipeline.reports import read_sql

if TYPE_CHECKING:
    from pipeline.catalog import Lake

_DATABASE_TABLES = (*TABLES, "unknown_credits", "documented_reasons")
_DATABASE_VIEWS = ("credits_by_day", "failures_by_day")


def export_table(
    folder: Path | str, table: str, path: Path, suffix: str, *, force: bool = False, tell: Tell = lambda _message: None
) -> int:
    """Write one of the lake's tables to a file as CSV or Parquet, by the suffix; return the number of rows."""
    with replacing(path, force=force) as temporary, bounded_lake(folder, path.parent, tell=tell) as lake:
        copy_relation(lake.con, lake.sql(f"FROM {table}"), temporary, suffix)
        ((rows,),) = written_rows(lake.con, temporary, suffix).count("*").fetchall()
    return int(rows)


def export_database(
    folder: Path | str, path: Path, *, force: bool = False, tell: Tell = lambda _message: None
) -> dict[str, int]:
    """Write a DuckDB database that stands alone; return the number of rows of each table.

    It holds the lake's tables as tables, copied: whoever opens it needs neither the lake nor this package, and it stays
    as it was on the day. `credits_by_day` and `failures_by_day` are views over them. Its format is that of DuckDB 1.2,
    which older tools read.
    """
    with replacing(path, force=force) as temporary, bounded_lake(folder, path.parent, tell=tell) as lake:
        lake.con.execute("ATTACH $path AS exported (STORAGE_VERSION 'v1.2.0')", {"path": str(temporary)})
        try:
            return _fill(lake)
        finally:
            lake.con.execute("DETACH exported")


def _fill(lake: Lake) -> dict[str, int]:
    counts: dict[str, int] = {}
    for table in _DATABASE_TABLES:
        lake.sql(f"FROM {table}").create(f"exported.{table}")
        ((counts[table],),) = lake.con.table(f"exported.{table}").count("*").fetchall()
    lake.con.execute("USE exported")
    try:
        for view in _DATABASE_VIEWS:
            lake.con.execute(f"CREATE VIEW {view} AS {read_sql(f'export_{view}')}")
    finally:
        lake.con.execute("USE memory")
    return {table: counts[table] for table in TABLES}
