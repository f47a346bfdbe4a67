"""What the lake's tables must be, asked in SQL (the `.sql` files beside this) over the files that can be read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any

import duckdb
import pyarrow as pa
from duckdb import ColumnExpression, ConstantExpression, SQLExpression

from pipeline.arrow_schemas import DEAD_LETTERS_SCHEMA, LOADS_SCHEMA, RUNS_FILE_SCHEMA
from pipeline.checks.findings import FIRST_FEW, Finding, State
from pipeline.checks.parquet_files import FileState
from pipeline.kinds import KINDS
from pipeline.reports import read_sql
from pipeline.schema import RUN_COLUMNS

STALE_AFTER_DAYS = 7
ROWS_IN_MEMORY = 500_000
_RELATIVE = r"replace(regexp_extract(filename, '(runs[/\\]day=[^/\\]*|loads)?[/\\]?[^/\\]*$'), '\', '/')"


@dataclass(frozen=True, slots=True)
class TableCheck:
    """A check in SQL: the file that gives its offenders, and how it is told. `{}` is how many runs (or days) offend."""

    check: str
    sql: str
    ok: str
    found: str
    state: State = "broken"


CHECKS: tuple[TableCheck, ...] = (
    TableCheck("each run once", "once", "no run stands twice", "runs that stand more than once: {}"),
    TableCheck("each run in its day", "day", "every run is in its day's file", "runs in another day's file: {}"),
    TableCheck("charges = credits", "charges", "the charges of every resource add up to its credits",
               "entries whose charges do not add up to their credits, as the API told them: {}"),
    TableCheck("breakdown = total", "breakdown", "every breakdown adds up to its run's total",
               "runs whose breakdown does not add up to their total, as the API told it: {}"),
    TableCheck("ledger = runs", "ledger", "every credit that a run tells of itself is in the ledger, once",
               "resources whose credits in the ledger are not what they say of themselves: {}"),
    TableCheck("loads named", "loads", "every run names the load that wrote it",
               "runs that name an unknown load, or loads there twice: {}"),
    TableCheck("dead letters", "letters", "no dead letter is of a run that came",
               "dead letters of runs that came, or there twice: {}"),
    TableCheck("sources agree", "sources", "where several runs tell of a resource, they tell the same",
               "resources of which runs tell different credits (the ledger takes the nearest): {}", "note"),
    TableCheck("statuses", "statuses", "every status is one that the vendor documents",
               "runs with a status that the vendor does not document, kept as it came: {}", "note"),
    TableCheck("failure reasons", "reasons", "every failure reason is one that the vendor documents",
               "runs with a failure reason that the vendor does not document, kept as it came: {}", "note"),
    TableCheck("days without runs", "gaps", "no day is without runs between the first and the last",
               "days without runs between the first and the last (none made, or none asked for): {}", "note"),
    TableCheck("unfinished runs", "stale", f"no run is unfinished after {STALE_AFTER_DAYS} days",
               f"runs unfinished after {STALE_AFTER_DAYS} days (stuck, or not asked for since): {{}}", "note"),
)  # fmt: skip


def read_check(name: str) -> str:
    """Return the text of a check's SQL."""
    return files("pipeline.checks").joinpath(f"{name}.sql").read_text(encoding="utf-8")


def create_views(
    con: duckdb.DuckDBPyConnection, states: Iterable[FileState], ledger_paths: list[str] | None = None
) -> None:
    """Make the views that the checks ask, of the files that can be read; they have also the `file` of each row.

    The credits of a large lake are those of the ledger beside it, where there is one: it is made in parts.
    """
    con.execute("SET TimeZone = 'UTC'")
    usable = [state for state in states if state.is_readable and not state.damage]
    rows = sum(state.rows for state in usable)
    for name, prefix, schema in (
        ("stored_runs", "runs/", RUNS_FILE_SCHEMA),
        ("loads", "loads/", LOADS_SCHEMA),
        ("dead_letters", "dead_letters", DEAD_LETTERS_SCHEMA),
    ):
        paths = [str(state.path) for state in usable if state.name.startswith(prefix)]
        relation = _rows(con, paths, schema)
        if rows <= ROWS_IN_MEMORY:
            # Hundreds of small files would be opened again by each check.
            relation.create(name)
        else:
            relation.create_view(name)
    con.table("stored_runs").select(*RUN_COLUMNS).create_view("runs")
    con.execute(f"CREATE VIEW credit_lines AS {read_sql('credit_lines')}")
    if rows > ROWS_IN_MEMORY and ledger_paths:
        con.read_parquet(ledger_paths, hive_partitioning=False).create_view("credit_lines", replace=True)
    con.execute(f"CREATE VIEW credit_ledger AS {read_sql('credit_ledger')}")
    con.register("documented_statuses", _pairs("status", {kind.object: kind.statuses for kind in KINDS}))
    con.register("documented_reasons", _pairs("reason", {kind.object: kind.failure_reasons for kind in KINDS}))


def _rows(con: duckdb.DuckDBPyConnection, paths: list[str], schema: pa.Schema) -> duckdb.DuckDBPyRelation:
    """Return the rows of files in the declared columns (null where a file lacks one), and the `file` of each."""
    con.register("nothing", schema.empty_table())
    empty = con.table("nothing")
    types = dict(zip(empty.columns, empty.types, strict=True))
    if not paths:
        return con.from_arrow(schema.empty_table()).select("*", ConstantExpression(None).cast("VARCHAR").alias("file"))
    found = con.read_parquet(paths, filename=True, hive_partitioning=False, union_by_name=True)
    columns = [
        ColumnExpression(name) if name in found.columns else ConstantExpression(None).cast(types[name]).alias(name)
        for name in schema.names
    ]
    return found.select(*columns, SQLExpression(_RELATIVE).alias("file"))


def _pairs(name: str, values: dict[str, Any]) -> pa.Table:
    pairs = [(kind, value) for kind, of_kind in values.items() for value in sorted(of_kind)]
    return pa.table({"kind": [kind for kind, _ in pairs], name: [value for _, value in pairs]})


def run_check(con: duckdb.DuckDBPyConnection, check: TableCheck, *, now: datetime) -> Finding:
    """Return what a check in SQL found."""
    params = {"now": now, "days": STALE_AFTER_DAYS} if check.sql == "stale" else {}
    count, offenders, more = ask(con, check.sql, **params)
    if not count:
        return Finding(check.check, "ok", check.ok)
    return Finding(check.check, check.state, check.found.format(f"{count:,}"), count, offenders, more)


def ask(con: duckdb.DuckDBPyConnection, name: str, **params: Any) -> tuple[int, tuple[str, ...], bool]:
    """Return how many runs a check's query finds, the first few rows that say which, and whether there are more."""
    con.execute(f"CREATE OR REPLACE TEMP TABLE offenders AS {read_check(name)}", params or None)
    ((count,),) = con.sql("SELECT coalesce(sum(amount), 0) FROM offenders").fetchall()
    first = con.sql("SELECT offender FROM offenders").limit(FIRST_FEW + 1).fetchall()
    return int(count), tuple(offender for (offender,) in first[:FIRST_FEW]), len(first) > FIRST_FEW
