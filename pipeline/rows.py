"""The rows of a small answer, as Python has them."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

_ZONED = "TIMESTAMP WITH TIME ZONE"


def fetch_rows(relation: duckdb.DuckDBPyRelation) -> list[tuple[Any, ...]]:
    """Return a relation's rows; times are in UTC.

    Arrow, which a stream of rows is read by, need not be imported for this. DuckDB would look up the zone of a time in
    the machine's list of zones, which need not be there.
    """
    zoned = [place for place, type_ in enumerate(relation.types) if str(type_) == _ZONED]
    if not zoned:
        return list(relation.fetchall())
    columns = ['"' + name.replace('"', '""') + '"' for name in relation.columns]
    for place in zoned:
        columns[place] += " AT TIME ZONE 'UTC'"
    rows = []
    for found in relation.project(", ".join(columns)).fetchall():
        row = list(found)
        for place in zoned:
            row[place] = None if row[place] is None else row[place].replace(tzinfo=UTC)
        rows.append(tuple(row))
    return rows


def fetch_dicts(relation: duckdb.DuckDBPyRelation) -> list[dict[str, Any]]:
    """Return a relation's rows by the names of their columns, as `fetch_rows`."""
    names = relation.columns
    return [dict(zip(names, row, strict=True)) for row in fetch_rows(relation)]
