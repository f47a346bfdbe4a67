"""Read raw logs and flatten what they hold into a staging folder, on its way to the lake."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import raw
from pipeline.flatten import Row, flatten_run, text_value, time_value
from pipeline.kinds import kind_of
from pipeline.lake import UnlandedLog
from pipeline.merge import day_of
from pipeline.schema import DEAD_LETTERS_SCHEMA, RUNS_FILE_SCHEMA

STAGED_SCHEMA = RUNS_FILE_SCHEMA.append(pa.field("_day", pa.string()))
"""A row on its way: as in a day's file, with the day that this payload alone would put it in."""

_STAGE_ROWS = 4_096


@dataclass(slots=True)
class Landing:
    """What came of landing one raw log.

    `landed` counts runs that were new or changed, `unchanged` those that were as the lake had them, `invalid` records
    that could not be used; `field_problems` counts values of an unexpected type by column, `failed_reasons` IDs that
    did not come by reason. `header` and `end` are the log's first and last records, null where they are not there;
    `raw_bytes` is how far the log was read, `last_record_at` when its last payload or failure came.
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


class Staging:
    """Flattened rows and failures of the logs on their way to the lake, as Parquet files in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = 0
        self.failures = 0
        self._rows: list[Row] = []
        self._failures: list[Row] = []

    def read(self, log: UnlandedLog) -> Landing:
        """Stage what a log holds beyond its offset."""
        landing = Landing(log.load_id, raw_bytes=log.offset)
        for part in raw.iter_frames(log.path, log.offset):
            if isinstance(part, raw.Damage):
                landing.damaged.append(part)
                continue
            landing.raw_bytes = part.end
            for record in raw.iter_records(part.lines):
                self._take(landing, record)
        return landing

    def close(self) -> None:
        """Write what is still in memory."""
        self._write_rows()
        self._write_failures()

    def rows_glob(self) -> str:
        return str(self.folder / "rows-*.parquet")

    def failures_glob(self) -> str:
        return str(self.folder / "failures-*.parquet")

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
        except (KeyError, TypeError, ValueError, AttributeError):
            landing.invalid += 1

    def _take_run(self, landing: Landing, record: raw.Record) -> None:
        flat = flatten_run(
            record["payload"],
            fetched_at=time_value(record["fetched_at"]),
            load_id=landing.load_id,
            workspace_id=record["workspace_id"],
            is_detail=record["detail"],
        )
        landing.field_problems.update(flat.problems)
        landing.last_record_at = flat.row["fetched_at"]
        flat.row["_day"] = day_of(flat.row)
        self._rows.append(flat.row)
        self.rows += 1
        if len(self._rows) >= _STAGE_ROWS:
            self._write_rows()

    def _take_failure(self, landing: Landing, record: raw.Record) -> None:
        kind = kind_of(record["run_id"])
        row = {name: record.get(name) for name in DEAD_LETTERS_SCHEMA.names}
        row |= {
            "kind": kind.object if kind else None,
            "message": text_value(record["message"]),
            "failed_at": time_value(record["failed_at"]),
            "load_id": landing.load_id,
        }
        if record["record"] == "missing":
            landing.missing += 1
        else:
            landing.failed += 1
        landing.failed_reasons[record["reason"]] += 1
        landing.last_record_at = row["failed_at"]
        self._failures.append(row)
        self.failures += 1
        if len(self._failures) >= _STAGE_ROWS:
            self._write_failures()

    def _write_rows(self) -> None:
        self._write("rows", self.rows, self._rows, STAGED_SCHEMA)
        self._rows = []

    def _write_failures(self) -> None:
        self._write("failures", self.failures, self._failures, DEAD_LETTERS_SCHEMA)
        self._failures = []

    def _write(self, name: str, number: int, rows: list[Row], schema: pa.Schema) -> None:
        if rows:
            path = self.folder / f"{name}-{number:012d}.parquet"
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="lz4")
