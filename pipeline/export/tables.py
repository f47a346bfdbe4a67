"""The lake's tables as one CSV or Parquet file, or all together as a DuckDB database for BI tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.defaults import TABLES
from pipeline.export.files import bounded_lake, copy_relation, replacing, written_rows
from pipeline.reports import read_sql

if TYPE_CHECKING:
    from pipeline.catalog import Lake

_DATABASE_REPORTS = ("credits", "failures")


def export_table(folder: Path | str, table: str, path: Path, suffix: str, *, force: bool = False) -> int:
    """Write one of the lake's tables to a file as CSV or Parquet, by the suffix; return the number of rows."""
    with replacing(path, force=force) as temporary, bounded_lake(folder, path.parent) as lake:
        copy_relation(lake.con, lake.sql(f"FROM {table}"), temporary, suffix)
        ((rows,),) = written_rows(lake.con, temporary, suffix).count("*").fetchall()
    return int(rows)


def export_database(folder: Path | str, path: Path, *, force: bool = False) -> dict[str, int]:
    """Write a DuckDB database that stands alone; return the number of rows of each table.

    It holds the lake's tables as tables, copied: whoever opens it needs neither the lake nor this package, and it stays
    as it was on the day. The reports are views over them. Its format is that of DuckDB 1.2, which older tools read.
    """
    with replacing(path, force=force) as temporary, bounded_lake(folder, path.parent) as lake:
        lake.con.execute("ATTACH $path AS exported (STORAGE_VERSION 'v1.2.0')", {"path": str(temporary)})
        try:
            return _fill(lake)
        finally:
            lake.con.execute("DETACH exported")


def _fill(lake: Lake) -> dict[str, int]:
    counts = {}
    for table in (*TABLES, "documented_reasons"):
        lake.sql(f"FROM {table}").create(f"exported.{table}")
        ((counts[table],),) = lake.con.table(f"exported.{table}").count("*").fetchall()
    del counts["documented_reasons"]
    lake.con.execute("USE exported")
    try:
        for report in _DATABASE_REPORTS:
            lake.con.execute(f"CREATE VIEW {report} AS {read_sql(report)}")
    finally:
        lake.con.execute("USE memory")
    return counts
