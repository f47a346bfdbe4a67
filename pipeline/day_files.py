"""The file of one day's runs, read and made a bounded number of rows at a time: a day may have millions.

Its rows stand by ID, in groups that a reader can take one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import holding, sealed_parquet
from pipeline.arrow_schemas import RUNS_FILE_SCHEMA

PART_ROWS = 32_768
"""How many rows are read, and put into a group, at a time: some 20 MB. Questions that read few columns take longer of
small groups (measured beside 131,072 rows: up to a third of these, up to 2.7 times of 8,192); one run is found sooner.
"""


class StoredDay:
    """What a day's file holds; nothing where there is no file.

    `run_ids` are all IDs, `up_to` the last one of each part, null of the last: new rows beyond belong to it.
    Raises LakeDamagedError where a byte has changed since it was written.
    """

    def __init__(self, path: Path) -> None:
        self._stored = sealed_parquet.StoredTable(path, RUNS_FILE_SCHEMA)
        self.run_ids: pa.Array = self._stored.read(["run_id"])["run_id"].combine_chunks()
        self._is_sorted = _is_sorted(self.run_ids)
        is_whole = len(self.run_ids) <= PART_ROWS or not self._is_sorted
        ends = () if is_whole else range(PART_ROWS, len(self.run_ids), PART_ROWS)
        self.up_to: list[str | None] = [*(self.run_ids[end - 1].as_py() for end in ends), None]

    def iter_parts(self) -> Iterator[pa.Table]:
        """Yield the rows by ID, in parts; at least one, which may be empty."""
        if len(self.up_to) > 1:
            yield from self._stored.iter_parts(PART_ROWS)
        else:
            yield self._stored.read() if self._is_sorted else self._stored.read().sort_by("run_id")


def packed_day(parts: Iterable[pa.Table], run_ids: pa.Array | pa.ChunkedArray) -> memoryview:
    """Return a day's file of parts of its rows, which come by ID, and of all their IDs, in any order."""
    return sealed_parquet.parquet_bytes_of_parts(parts, RUNS_FILE_SCHEMA, head=holding.head_bytes(run_ids))


def packed_table(table: pa.Table) -> memoryview:
    """Return a day's file of its rows, in any order."""
    table = table.cast(RUNS_FILE_SCHEMA)
    if not _is_sorted(table["run_id"].combine_chunks()):
        table = table.sort_by("run_id")
    parts = (table.slice(start, PART_ROWS) for start in range(0, len(table), PART_ROWS))
    return packed_day(parts, table["run_id"])


def _is_sorted(run_ids: pa.Array) -> bool:
    return bool(pc.all(pc.less_equal(run_ids[:-1], run_ids[1:]), min_count=0).as_py())
