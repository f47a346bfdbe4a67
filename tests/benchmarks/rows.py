"""Whether what was written is, row by row, what the server gave."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import duckdb

from tests.benchmarks.measuring import BenchmarkError

OURS = "SELECT run_id, status, failure_reason, credits FROM read_parquet('{folder}/data/lake/runs/*/runs.parquet')"
DLT = (
    "SELECT id, status, failure_reason, CAST(usage__credits AS DECIMAL(18, 6)) "
    "FROM read_parquet('{folder}/files/extend/runs/*.parquet')"
)
CSV = (
    "SELECT id, status, reason, CAST(credits AS DECIMAL(18, 6)) FROM read_csv('{folder}/runs.csv', header = false, "
    "names = ['id', 'status', 'reason', 'credits'], nullstr = '')"
)
JSON_LINES = (
    "SELECT id, status, failureReason, CAST(usage.credits AS DECIMAL(18, 6)) "
    "FROM read_json('{folder}/runs.jsonl', format = 'newline_delimited')"
)
"""How the rows are read that each has written to its folder: ID, status, reason, credits."""

_BATCH = 10_000


def check_rows(name: str, query: str, folder: Path, numbers: range, payload: Callable[[int], dict[str, Any]]) -> None:
    """Raise BenchmarkError where the rows that a query reads are not those of the runs of these numbers."""
    with duckdb.connect() as con:
        con.execute("CREATE TABLE given (id VARCHAR, status VARCHAR, reason VARCHAR, credits DECIMAL(18, 6))")
        for start in range(0, len(numbers), _BATCH):
            _insert(con, map(payload, numbers[start : start + _BATCH]))
        con.sql(query.format(folder=folder)).to_table("written")
        differing = con.sql("(FROM written EXCEPT ALL FROM given) UNION ALL (FROM given EXCEPT ALL FROM written)")
        if found := differing.limit(3).fetchall():
            raise BenchmarkError(f"{name}: what it wrote and what the server gave differ in rows such as {found}")


def _insert(con: duckdb.DuckDBPyConnection, runs: Iterable[dict[str, Any]]) -> None:
    rows = [
        (run["id"], run["status"], run["failureReason"], str(run["usage"]["credits"]) if run["usage"] else None)
        for run in runs
    ]
    ids, statuses, reasons, credits = (list(column) for column in zip(*rows, strict=True))
    con.execute(
        "INSERT INTO given SELECT unnest($ids), unnest($statuses), unnest($reasons), "
        "CAST(unnest($credits) AS DECIMAL(18, 6))",
        {"ids": ids, "statuses": statuses, "reasons": reasons, "credits": credits},
    )
