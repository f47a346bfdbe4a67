"""What a locked lake may be asked: one statement that reads, and writes nothing anywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from pipeline import duckdb_core
from pipeline.errors import UsageError
from pipeline.reports import literal

_READING = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
"""What a query is made of, as DuckDB's parser names it. Beside it there are INSERT_QUERY_NODE, COPY_QUERY_NODE, …"""
_EXPLAIN = re.compile(r"\s*EXPLAIN\s+(?:ANALYZE\s+)?", re.IGNORECASE)
_ADVICE = "a locked lake is asked with one SELECT, FROM, WITH, VALUES, DESCRIBE, SUMMARIZE or SHOW"


def check_reads_only(con: duckdb_core.DuckDBPyConnection, query: str) -> None:
    """Raise UsageError for anything but one statement that only reads; a query that cannot be parsed is let through.

    The kind of statement does not tell: since DuckDB 2.0 `WITH x AS (COPY … TO …) FROM x` is a SELECT, and writes.
    """
    try:
        count = len(con.extract_statements(query))
    except duckdb_core.Error:
        return  # whoever asks it says so, in DuckDB's own words
    if count > 1:
        raise UsageError(f"{count} statements at once: {_ADVICE}")
    explained = _EXPLAIN.sub("", query, count=1) if _EXPLAIN.match(query) else query
    ((found,),) = con.execute(f"SELECT json_serialize_sql({literal(explained)})").fetchall()
    parsed: dict[str, Any] = json.loads(found)
    if parsed["error"]:
        raise UsageError(
            f"{query.strip()[:60]!r} is more than a question: {_ADVICE} (PIVOT with its values: ON … IN (…))"
        )
    writing = sorted({name.removesuffix("_QUERY_NODE") for name in _iter_nodes(parsed)} - _READING)
    if writing:
        raise UsageError(f"{', '.join(writing)} within the query: {_ADVICE}")


def _iter_nodes(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        kind = value.get("type")
        if isinstance(kind, str) and kind.endswith("_NODE"):
            yield kind
        for each in value.values():
            yield from _iter_nodes(each)
    elif isinstance(value, list):
        for each in value:
            yield from _iter_nodes(each)
