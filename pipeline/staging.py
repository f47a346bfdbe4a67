"""Read raw logs and flatten what they hold, on its way to the lake: kept by day, on the disk where it is much."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

from pipeline import holding, raw
from pipeline.arrow_schemas import DEAD_LETTERS_SCHEMA, RUNS_FILE_SCHEMA
from pipeline.erased import Erased
from pipeline.flatten import Payload, Row, flatten_runs
from pipeline.kinds import kind_of
from pipeline.lake import UnlandedLog
from pipeline.merge import days_of
from pipeline.schema import SOURCES
from pipeline.values import text_value, time_value

if TYPE_CHECKING:
    import duckdb

_DAY = pa.field("_day", pa.string())
_STAGED_SCHEMA = RUNS_FILE_SCHEMA.append(_DAY).remove_metadata()
_NO_ROWS = pa.RecordBatch.from_pylist([], schema=_STAGED_SCHEMA)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KEYS = ("run_id", "fetched_at")
_KEYS_SCHEMA = pa.schema([_STAGED_SCHEMA.field(name).remove_metadata() for name in _KEYS])
_PAYLOADS_BYTES = 4 << 20
_BATCH_BYTES = 32 << 20
_FAILURES = 1_024
_CODEC = "lz4"


@dataclass(frozen=True, slots=True)
class Portions:
    """How much of what is staged is in memory: how many payloads are flattened at once (they take far more of it than
    their rows), how many rows are put into columns at once, and how many bytes of rows wait to go to the disk.
    """

    payloads: int
    rows: int
    held_bytes: int


LARGE = Portions(256, 1_024, 4 << 20)
SMALL = Portions(64, 256, 2 << 20)
"""For a landing beside the asking: 5 MiB less at the peak of a load of a million runs, which took 4 % longer."""


@dataclass(slots=True)
class Landing:
    """What came of landing one raw log.

    `landed` counts runs that were new or changed, `unchanged` those that were as the lake had them, `invalid` records
    that could not be used; `field_problems` counts values of an unexpected type by column, `failed_reasons` IDs that
    did not come by reason. `header` and `end` are the log's first and last records, null where they are not there;
    `raw_bytes` is how far the log was read, `last_record_at` when its last payload or failure came. `is_all` is false
    where more was left for another landing.
    """

    load_id: str
    landed: int = 0
    unchanged: int = 0
    invalid: int = 0
    missing: int = 0
    failed: int = 0
    field_problems: Counter[str] = field(default_factory=Counter)
    failed_reasons: Counter[str] = field(default_factory=Counter)
    header: Row | None = None
    end: Row | None = None
    raw_bytes: int = 0
    damaged: list[raw.Damage] = field(default_factory=list)
    last_record_at: datetime | None = None
    is_all: bool = True


class Staging:
    """Flattened rows and failures of raw logs. Rows are kept by the day that their own payload puts them in.

    What is gone from the lake for good is left out. `wanted` has all rows' runs with their days. Some megabytes stay in
    memory; beyond that they go to a file in `folder`, and one day at a time comes back.
    """

    def __init__(self, folder: Path, erased: Erased, *, portions: Portions = LARGE) -> None:
        self._erased, self._portions = erased, portions
        self.wanted = holding.Wanted()
        self.rows = 0
        self.failures = 0
        self._folder = folder
        self._payloads_bytes = self._columns_bytes = 0  # of the lines that they came in
        self._payloads: list[tuple[Payload, datetime, str | None, bool]] = []
        self._columns: dict[str, list[Any]] = {}
        self._batches: list[pa.RecordBatch] = []
        self._batches_bytes = 0
        self._failure_batch: list[Row] = []
        self._spilled: dict[str, array[int]] = defaultdict(partial(array, "q"))  # as three numbers a batch
        self._in_memory: tuple[pa.RecordBatch, dict[str, tuple[int, int]]] = (_NO_ROWS, {})

    def read(self, log: UnlandedLog, *, most_rows: int | None = None) -> Landing:
        """Stage what a log holds beyond its offset; with `most_rows`, up to the end of the frame that reaches them."""
        landing, began = Landing(log.load_id, raw_bytes=log.offset), self.rows
        for part in raw.iter_frames(log.path, log.offset):
            if most_rows is not None and self.rows - began >= most_rows:
                landing.is_all = False
                break
            if isinstance(part, raw.Damage):
                landing.damaged.append(part)
                continue
            landing.raw_bytes = part.end
            for line, record in zip(part.lines, raw.iter_records(part.lines), strict=True):
                self._payloads_bytes += len(line)
                self._take(landing, record)
        self._flatten(landing)
        return landing

    def close(self) -> None:
        """Make ready to be asked: nothing more will be read."""
        self._make_batch()
        if self._batches and self._spilled:
            self._spill()  # else the last rows would be in memory until all days are written
        elif self._batches:
            self._in_memory = self._sorted_by_day()
        self._write_failures()

    def days(self) -> list[str]:
        """Return the days that rows are staged for, oldest first."""
        return sorted({*self._spilled, *self._in_memory[1]})

    def read_day(self, day: str) -> pa.Table:
        """Return the rows staged for a day, in the schema of a day's file."""
        rows, days = self._in_memory
        parts = [rows.slice(*days[day])] if day in days else []
        if day in self._spilled:
            codec = pa.Codec(_CODEC)  # not one for all: days are read in threads
            with self._rows_path.open("rb") as file:
                told = iter(self._spilled[day])
                for offset, length, unpacked in zip(told, told, told, strict=True):
                    file.seek(offset)
                    content = codec.decompress(file.read(length), unpacked)
                    parts.append(pa.ipc.read_record_batch(content, _STAGED_SCHEMA))
        table = pa.Table.from_batches(parts, _STAGED_SCHEMA)
        return table.drop_columns([_DAY.name]).cast(RUNS_FILE_SCHEMA)

    def create_views(self, con: duckdb.DuckDBPyConnection) -> None:
        """Make the table `staged` (of each row the run's ID and when it came) and the view `failures`."""
        con.register("keys", pa.RecordBatchReader.from_batches(_KEYS_SCHEMA, self._iter_keys()))
        con.execute("CREATE TABLE staged AS FROM keys")
        con.unregister("keys")
        if self.failures:
            con.read_parquet(str(self._folder / "failures-*.parquet")).create_view("failures")
        else:
            con.register("failures", DEAD_LETTERS_SCHEMA.empty_table())

    def _iter_keys(self) -> Iterator[pa.RecordBatch]:
        for day in self.days():
            yield from self.read_day(day).select(_KEYS).cast(_KEYS_SCHEMA).to_batches()

    @property
    def _rows_path(self) -> Path:
        return self._folder / "rows.arrows"

    def _take(self, landing: Landing, record: raw.Record | None) -> None:
        name = None if record is None else record["record"]
        try:
            if record is None:
                landing.invalid += 1
            elif name == "run":
                self._take_run(landing, record)
            elif name in ("missing", "failed"):
                self._take_failure(landing, record)
            elif name == "load":
                landing.header = record
            elif name == "end":
                landing.end = record
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
            landing.invalid += 1

    def _take_run(self, landing: Landing, record: raw.Record) -> None:
        run_id, payload, fetched_at = record["run_id"], record["payload"], _known_time(record["fetched_at"])
        if self._erased.has(run_id):
            return
        if not isinstance(record["detail"], bool) or not isinstance(run_id, str):
            raise TypeError("detail, run_id")
        if payload["id"] != run_id and text_value(payload["id"]) != text_value(run_id):
            # What goes by the record's ID, such as `forget`, must mean the run that the payload is filed under.
            raise ValueError(run_id)
        if self._erased.is_pruned(payload, fetched_at):
            return
        self._payloads.append((payload, fetched_at, _text_or_null(record["workspace_id"]), record["detail"]))
        self.rows += 1
        landing.last_record_at = fetched_at
        if len(self._payloads) >= self._portions.payloads or self._payloads_bytes >= _PAYLOADS_BYTES:
            self._flatten(landing)

    def _flatten(self, landing: Landing) -> None:
        if not self._payloads:
            return
        payloads, fetched_at, workspace_ids, are_details = zip(*self._payloads, strict=True)
        self._columns_bytes += self._payloads_bytes
        self._payloads, self._payloads_bytes = [], 0
        flat = flatten_runs(
            payloads, fetched_at=fetched_at, load_id=landing.load_id,
            workspace_ids=workspace_ids, are_details=are_details,
        )  # fmt: skip
        landing.field_problems.update(flat.problems)
        days = days_of(flat.columns)
        columns = {**flat.columns, SOURCES.name: [None] * len(days), _DAY.name: days}
        if self._columns:
            for name, values in columns.items():
                self._columns[name] += values
        else:
            self._columns = columns
        if len(self._columns[_DAY.name]) >= self._portions.rows or self._columns_bytes >= _BATCH_BYTES:
            self._make_batch()

    def _make_batch(self) -> None:
        if not self._columns:
            return
        batch = pa.RecordBatch.from_arrays(
            [_array(self._columns[field.name], field.type) for field in _STAGED_SCHEMA], schema=_STAGED_SCHEMA
        )
        self.wanted.add(self._columns["run_id"], self._columns[_DAY.name])
        self._columns, self._columns_bytes = {}, 0
        self._batches.append(batch)
        self._batches_bytes += batch.nbytes
        if self._batches_bytes >= self._portions.held_bytes:
            self._spill()

    def _spill(self) -> None:
        rows, days = self._sorted_by_day()
        codec = pa.Codec(_CODEC)
        with self._rows_path.open("ab") as file:
            for day, (start, length) in days.items():
                # Not a stream of its own, which repeats the schema: it takes ten times as long.
                content = rows.slice(start, length).serialize()
                offset = file.tell()
                file.write(codec.compress(content))
                self._spilled[day].extend((offset, file.tell() - offset, content.size))

    def _sorted_by_day(self) -> tuple[pa.RecordBatch, dict[str, tuple[int, int]]]:
        """Return the rows in memory, sorted by day, and where each day begins and how many rows it has; they are held
        here no more.
        """
        table = pa.Table.from_batches(self._batches)
        self._batches, self._batches_bytes = [], 0
        table = table.sort_by(_DAY.name)  # at most two copies of the rows at any moment
        (rows,) = table.combine_chunks().to_batches()
        runs = pc.run_end_encode(rows[_DAY.name])
        ends = runs.run_ends.to_pylist()
        starts = [0, *ends[:-1]]
        places = [(start, end - start) for start, end in zip(starts, ends, strict=True)]
        return rows, dict(zip(runs.values.to_pylist(), places, strict=True))

    def _take_failure(self, landing: Landing, record: raw.Record) -> None:
        if self._erased.has(record["run_id"]):
            return
        kind = kind_of(record["run_id"])
        reason, failed_at = text_value(record["reason"]), time_value(record["failed_at"])
        row: Row = {
            "run_id": text_value(record["run_id"]),
            "kind": kind.object if kind else None,
            "workspace_id": _text_or_null(record.get("workspace_id")),
            "reason": reason,
            "message": text_value(record["message"]),
            "http_status": _count_or_null(record.get("http_status")),
            "request_id": _text_or_null(record.get("request_id")),
            "attempts": _count_or_null(record.get("attempts")),
            "failed_at": failed_at,
            "load_id": landing.load_id,
        }
        if record["record"] == "missing":
            landing.missing += 1
        else:
            landing.failed += 1
        landing.failed_reasons[reason] += 1
        landing.last_record_at = failed_at
        self._failure_batch.append(row)
        self.failures += 1
        if len(self._failure_batch) >= _FAILURES:
            self._write_failures()

    def _write_failures(self) -> None:
        if self._failure_batch:
            table = pa.Table.from_pylist(self._failure_batch, schema=DEAD_LETTERS_SCHEMA)
            pq.write_table(table, self._folder / f"failures-{self.failures:012d}.parquet")
        self._failure_batch = []


_known_time = lru_cache(64)(time_value)
"""The runs of a page came at one time."""


def _array(values: list[Any], type_: pa.DataType) -> pa.Array:
    """Return values as Arrow's; times, all of them in UTC, in a third of the time that Arrow takes to ask each for its
    zone.
    """
    if not pa.types.is_timestamp(type_):
        return pa.array(values, type_)
    since = [None if value is None else value - _EPOCH for value in values]
    return pa.array(since, pa.duration(type_.unit)).view(type_)


def _text_or_null(value: object) -> str | None:
    return text_value(value) if isinstance(value, str) else None


def _count_or_null(value: object) -> int | None:
    return value if type(value) is int and abs(value) < 2**31 else None
