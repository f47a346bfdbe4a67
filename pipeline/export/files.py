"""Write what DuckDB answers to a file, as CSV or Parquet: in bounded memory, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import durable
from pipeline.errors import LakeError, UsageError
from pipeline.reports import read_sql

if TYPE_CHECKING:
    import duckdb

    from pipeline.catalog import Lake

Tell = Callable[[str], None]

_MEMORY = "1GiB"
_COPY = {
    ".csv": "COPY (FROM to_export) TO $path (FORMAT csv, HEADER)",
    ".parquet": "COPY (FROM to_export) TO $path (FORMAT parquet, COMPRESSION zstd)",
}


def format_of(path: Path) -> str:
    """Return the ending that says how a file is to be written; raise UsageError where it is neither of the two."""
    if path.suffix not in _COPY:
        raise UsageError(f"{path}: what is to be written? name a file that ends in .csv or .parquet")
    return path.suffix


@contextlib.contextmanager
def replacing(path: Path, *, force: bool) -> Iterator[Path]:
    """Give a name beside `path` to write to; afterwards the file takes its place, flushed to the disk.

    Where anything fails, what was at `path` is as it was and nothing is left behind. Without `force` a file that is
    there already is a UsageError.
    """
    if path.is_dir() or (path.exists() and not force):
        advice = (
            "it is a folder; name a file in it"
            if path.is_dir()
            else "there already; --force puts the new one in its place"
        )
        raise UsageError(f"{path}: {advice}")
    durable.make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}{durable.TEMPORARY_SUFFIX}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if path.exists() and not force:
            raise UsageError(f"{path}: came to be there meanwhile; --force puts the new one in its place")
        temporary.replace(path)
        durable.sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def bounded_lake(folder: Path | str, spill_in: Path, *, tell: Tell) -> Iterator[Lake]:
    """Open a lake whose answers are worked out within 1 GiB; what does not fit goes to a folder in `spill_in`.

    DuckDB cannot change that folder once it has used it, so the lake is not one that somebody else has open. Of a large
    lake the credit ledger is brought up to date first.
    """
    import duckdb

    from pipeline.catalog import Lake

    with contextlib.ExitStack() as stack:
        lake = Lake(folder)
        durable.make_folder(spill_in)
        spill = tempfile.TemporaryDirectory(prefix=".export-", suffix=durable.TEMPORARY_SUFFIX, dir=spill_in)
        settings = {"memory_limit": _MEMORY, "temp_directory": stack.enter_context(spill)}
        stack.enter_context(lake)
        for name, value in settings.items():
            lake.con.execute(f"SET {name} = $value", {"value": value})
        lake.keep_ledger(tell=tell)
        try:
            yield lake
        except duckdb.Error as error:
            lake.files.raise_damage()
            raise LakeError(f"{lake.files.name}: cannot be exported ({error})") from error


def copy_relation(con: duckdb.DuckDBPyConnection, relation: duckdb.DuckDBPyRelation, path: Path, suffix: str) -> None:
    """Write a relation of this connection to a file, as CSV or Parquet by the suffix."""
    if suffix == ".csv":
        con.execute(read_sql("csv_macros"))
        relation = _as_csv_cells(relation)
    relation.create_view("to_export", replace=True)
    con.execute(_COPY[suffix], {"path": str(path)})


def written_rows(con: duckdb.DuckDBPyConnection, path: Path, suffix: str) -> duckdb.DuckDBPyRelation:
    """Return what stands in a file that was written; of CSV all as text."""
    return con.read_csv(str(path), all_varchar=True) if suffix == ".csv" else con.read_parquet(str(path))


def _as_csv_cells(relation: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    from duckdb import ColumnExpression, Expression, FunctionExpression

    def cell(name: str, type_: str) -> Expression:
        column = ColumnExpression(name)
        if type_ == "VARCHAR":
            return FunctionExpression("csv_text", column).alias(name)
        if type_ == "TIMESTAMP WITH TIME ZONE":
            return FunctionExpression("csv_time", column).alias(name)
        if type_.endswith("]") or type_.startswith(("STRUCT", "MAP")):
            return FunctionExpression("csv_json", column).alias(name)
        return column

    return relation.select(
        *(cell(name, str(type_)) for name, type_ in zip(relation.columns, relation.types, strict=True))
    )
