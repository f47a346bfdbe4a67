"""What comes to a day: put together with what its file has, a part at a time.

A run that came once, and that the day does not have, is a new row. What came of any other is merged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrow_schemas import RUNS_FILE_SCHEMA
from pipeline.day_files import StoredDay
from pipeline.merge_tables import is_same_content, is_same_row, merge_runs

_MERGE_ROWS = 2_000


@dataclass(slots=True)
class Count:
    """How many runs were new or changed, and how many were as the lake had them."""

    landed: int = 0
    unchanged: int = 0

    def add(self, other: Count) -> None:
        """Add another count to this one."""
        self.landed += other.landed
        self.unchanged += other.unchanged


Merge = Callable[[pa.Table, pa.Table, Count], tuple[pa.Table, bool]]
"""Takes the rows that came of some runs, and those that the day has; returns the rows that they come to, and whether
these are others than it has. Counts the runs."""


class Change:
    """What comes to a day: rows that are merged with what it has, and rows of movers that take its place.

    `is_news` tells, once it was applied, whether anything is not as it was.
    """

    def __init__(self, merge: Merge, incoming: pa.Table, movers: pa.Table) -> None:
        self.count = Count()
        self.is_news = len(movers) > 0
        self._merge, self._incoming, self._movers = merge, incoming, movers
        self._repeated = _repeated_ids(incoming)

    def applied(self, stored: StoredDay) -> Iterator[pa.Table]:
        """Yield the rows that the day has from now on, by ID, in parts. Of what it had, one part is held at a time."""
        parts, after = stored.iter_parts(), None
        for up_to in stored.up_to:
            rows, movers = [next(parts)], _between(self._movers, after, up_to)
            fresh, merged = self._merged(rows[0], _between(self._incoming, after, up_to))
            replaced = [each for each in (movers, *merged) if len(each)]
            rows += [fresh, *replaced]
            del fresh, merged, movers
            yield _put_together(rows, replaced)
            after = up_to

    def _merged(self, stored: pa.Table, incoming: pa.Table) -> tuple[pa.Table, list[pa.Table]]:
        """Return those of the rows that come whose runs are not there, and what the others are merged to."""
        clashing = pc.or_(is_among(incoming, self._repeated), pc.is_in(incoming["run_id"], value_set=_ids(stored)))
        is_clashing = pc.any(clashing).as_py()
        fresh = incoming.filter(pc.invert(clashing)) if is_clashing else incoming
        self.count.landed += len(fresh)
        self.is_news = self.is_news or len(fresh) > 0
        merged = []
        for some, its in _clashes(incoming.filter(clashing), stored) if is_clashing else ():
            rows, is_changed = self._merge(some, its, self.count)
            merged.append(rows)
            self.is_news = self.is_news or is_changed
        return fresh, merged


def merged_at_once(staged: pa.Table, stored: pa.Table, count: Count) -> tuple[pa.Table, bool]:
    """Return the rows that runs come to, and whether they are others than those stored; count them."""
    before, merged = merge_runs(stored), merge_runs(pa.concat_tables([staged, stored]))
    is_new = len(before) < len(merged)
    after = merged.take(pc.index_in(before["run_id"], value_set=_ids(merged))) if is_new else merged
    unchanged = int(is_same_content(after, before).sum())
    count.unchanged += unchanged
    count.landed += len(merged) - unchanged
    is_changed = len(merged) != len(stored) or unchanged < len(before) or not is_same_row(after, before).all()
    return merged, is_changed


def _between(table: pa.Table, after: str | None, up_to: str | None) -> pa.Table:
    """Return the rows whose IDs come after one, up to another; null is no bound."""
    for bound, is_within in ((after, pc.greater), (up_to, pc.less_equal)):
        if bound is not None and len(table):
            table = table.filter(is_within(table["run_id"], bound))
    return table


def _put_together(parts: list[pa.Table], replaced: list[pa.Table]) -> pa.Table:
    """Return the rows that a day has from now on, by ID: those it had, but of the runs that are replaced, and new ones.
    The first part is what it had; `replaced` are those of the others that may take the place of some of that.

    Which rows, and in which order, is worked out of the IDs; then each column is copied once, and what it was made of
    let go: the lists are empty then.
    """
    order = pc.sort_indices(_column(parts, "run_id"))
    if replaced and len(parts[0]):
        run_ids = _column(replaced, "run_id").combine_chunks()
        is_left = pc.is_in(parts[0]["run_id"], value_set=run_ids)
        order = order.filter(pc.invert(pc.is_in(order, value_set=pc.indices_nonzero(is_left))))
    columns = [_column(parts, name) for name in reversed(RUNS_FILE_SCHEMA.names)]
    parts.clear()
    replaced.clear()
    return pa.table([_in_order(columns.pop(), order) for _ in RUNS_FILE_SCHEMA], schema=RUNS_FILE_SCHEMA)


def _in_order(column: pa.ChunkedArray, order: pa.Array) -> pa.Array | pa.ChunkedArray:
    """Return some of a column's values, by their places. Of runs that only lists told of, half of the columns are
    null.
    """
    return pa.nulls(len(order), column.type) if column.null_count == len(column) else column.take(order)


def _column(tables: list[pa.Table], name: str) -> pa.ChunkedArray:
    """Return a column of several tables, one below the other; nothing is copied."""
    chunks = [chunk for table in tables for chunk in table[name].chunks]
    return pa.chunked_array(chunks, RUNS_FILE_SCHEMA.field(name).type)


def _repeated_ids(table: pa.Table) -> list[str]:
    counts = pc.value_counts(_ids(table))
    repeated: list[str] = counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist()
    return repeated


def _clashes(incoming: pa.Table, existing: pa.Table) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield the rows of runs that came more than once or are there already, those of a bounded number at a time."""
    run_ids = pc.unique(incoming["run_id"]).sort()
    for start in range(0, len(run_ids), _MERGE_ROWS):
        part = run_ids.slice(start, _MERGE_ROWS)
        yield (
            incoming.filter(pc.is_in(incoming["run_id"], value_set=part)),
            existing.filter(pc.is_in(existing["run_id"], value_set=part)),
        )


def is_among(table: pa.Table, run_ids: Iterable[str]) -> Any:
    """Tell, row by row, whether it is of one of these runs."""
    return pc.is_in(table["run_id"], value_set=pa.array(list(run_ids), pa.string()))


def _ids(table: pa.Table) -> pa.Array:
    return table["run_id"].combine_chunks()
