"""The rows of an answer, as Python has them: without Arrow, which takes longer to be imported than most questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import duckdb

    from pipeline.duckdb_core import DuckDBPyConnection

Row = tuple[Any, ...]
_FETCHED_ROWS = 10_000


class Rows(NamedTuple):
    """An answer to be read once: its columns' names, their types as DuckDB names them, and its rows."""

    names: list[str]
    types: list[str]
    rows: Iterator[Row]

    def dicts(self) -> list[dict[str, Any]]:
        """Return the rows by the names of their columns."""
        return [dict(zip(self.names, row, strict=True)) for row in self.rows]


_AS_TEXT = {
    "TIMESTAMP_NS": "replace(CAST(#{place} AS VARCHAR), ' ', 'T')",
    "TIME_NS": "CAST(#{place} AS VARCHAR)",
    "INTERVAL": "CAST(#{place} AS VARCHAR)",
}
"""What Python's values would lose a part of: nanoseconds, and how long a month is."""


def whole_columns(types: Sequence[str]) -> str | None:
    """Return what SQL selects columns of these types by so that nothing of them is lost in Python; null where that is
    so as they are.
    """
    if _AS_TEXT.keys().isdisjoint(types):
        return None
    return ", ".join(_AS_TEXT.get(type_, "#{place}").format(place=place) for place, type_ in enumerate(types, 1))


def rows_of(relation: duckdb.DuckDBPyRelation) -> Rows:
    """Return a relation's rows, all of them fetched at once; what Python's values would lose a part of as text."""
    names, types = list(relation.columns), list(map(str, relation.types))
    if columns := whole_columns(types):
        relation = relation.project(columns)
    return Rows(names, types, iter(relation.fetchall()))


def rows_asked(con: DuckDBPyConnection) -> Rows:
    """Return the rows of what was asked last of a connection, fetched as they are read: until then nothing else may be
    asked of it.
    """
    columns = con.description or []
    return Rows([each[0] for each in columns], [str(each[1]) for each in columns], _fetched(con))


def fetch_dicts(relation: duckdb.DuckDBPyRelation) -> list[dict[str, Any]]:
    """Return a relation's rows by the names of their columns."""
    return rows_of(relation).dicts()


def _fetched(con: DuckDBPyConnection) -> Iterator[Row]:
    while rows := con.fetchmany(_FETCHED_ROWS):
        yield from rows
