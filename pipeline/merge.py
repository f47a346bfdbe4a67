"""Make one row of all that is known of a run: newer wins, and null never erases.

Each field is a register of its own: of two values the one from the newer payload stays. Newer is the later
`updated_at`; a payload without one (some details have none) says how the run stood when it was received, so it counts
as of `fetched_at`; between equals the later `fetched_at` decides. A null says nothing, with one exception: a status
that rules a field out (a run that is PROCESSED has no failure reason) says that the field is empty.

So the row depends on the set of payloads alone, not on the order in which they came. For that, a row made of several
payloads must remember which field came from which: `_sources`, JSON text of
`[[as_of_us, fetched_us, [column, …]], …]`, newest first, null where one payload gave everything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

from pipeline.schema import RUN_COLUMNS, SOURCES

Row = dict[str, Any]
Clock = tuple[int, int]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_OF_ALL_PAYLOADS = frozenset({"run_id", "fetched_at", "deleted_at", "load_id"})
"""Not registers: the ID is the same in all, the others are the latest of all."""

REGISTERS = tuple(column for column in RUN_COLUMNS if column not in _OF_ALL_PAYLOADS)
CONTENT = tuple(column for column in RUN_COLUMNS if column not in ("fetched_at", "load_id"))

RULES_OUT_FAILURE = frozenset({"PENDING", "PROCESSING", "PROCESSED", "NEEDS_REVIEW"})
RULES_OUT_END = frozenset({"PENDING", "PROCESSING"})


def merge_rows(rows: Iterable[Row], *, made_before: Row | None = None) -> Row:
    """Return the one row that all the given rows of a run come to, in whichever order they are given.

    `made_before` is a row that was made before, perhaps in a wrong way, of these payloads and of others that are lost:
    of it only what came from the lost ones counts. A payload is known by when it was received.
    """
    values: Row = {}
    clocks: dict[str, Clock] = {}
    all_rows = list(rows)
    for row in all_rows:
        _take(values, clocks, row, read_clocks(row))
    if made_before is not None:
        known = {_microseconds(row["fetched_at"]) for row in all_rows}
        lost = {column: clock for column, clock in read_clocks(made_before).items() if clock[1] not in known}
        if lost or _microseconds(made_before["fetched_at"]) not in known:
            _take(values, clocks, made_before, lost)
            all_rows.append(made_before)
    merged = {column: values.get(column) for column in RUN_COLUMNS}
    merged["run_id"] = all_rows[0]["run_id"]
    fetched_at: datetime = max(row["fetched_at"] for row in all_rows)
    merged["fetched_at"] = fetched_at
    merged["deleted_at"] = _deleted_at([*all_rows, made_before or {}], fetched_at)
    merged["load_id"] = max(row["load_id"] for row in all_rows)
    merged["is_detail"] = _is_current(clocks.get("is_detail"), merged["updated_at"])
    merged[SOURCES.name] = _written_clocks(merged, clocks)
    return merged


def same_content(one: Row, other: Row) -> bool:
    """Tell whether two rows say the same of a run, whenever and by whichever load that was received."""
    return all(one[column] == other[column] for column in CONTENT)


def day_of(row: Row) -> str:
    """Return the partition a row belongs to: `YYYY-MM-DD` (UTC), or `unknown`.

    The date of `created_at`, else of `initial_run_at`, else of `file_created_at`.
    """
    return _day(row["created_at"] or row["initial_run_at"] or row["file_created_at"])


def days_of(columns: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return the partitions of rows that are given by column, as `day_of` does."""
    times = zip(columns["created_at"], columns["initial_run_at"], columns["file_created_at"], strict=True)
    return [
        _day(created_at or initial_run_at or file_created_at) for created_at, initial_run_at, file_created_at in times
    ]


def _day(time: datetime | None) -> str:
    return "unknown" if time is None else _date_text(time.date())


@lru_cache(1_024)
def _date_text(date: date) -> str:
    return date.isoformat()


def read_clocks(row: Row) -> dict[str, Clock]:
    """Return, for each column that the row asserts, how new the payload is that it came from."""
    written = row.get(SOURCES.name)
    if written is not None:
        return {
            column: (as_of, fetched)
            for as_of, fetched, columns in json.loads(written)
            for column in columns
        }  # fmt: skip
    fetched_us = _microseconds(row["fetched_at"])
    updated_at = row["updated_at"]
    clock = (fetched_us if updated_at is None else _microseconds(updated_at), fetched_us)
    return dict.fromkeys(_asserted(row), clock)


def _asserted(row: Row) -> list[str]:
    asserted = [column for column in REGISTERS if row[column] is not None]
    status = row["status"]
    if not row["is_detail"]:
        asserted.remove("is_detail")
    if status in RULES_OUT_FAILURE:
        asserted += [column for column in ("failure_reason", "failure_message") if row[column] is None]
    if status in RULES_OUT_END and row["ended_at"] is None:
        asserted.append("ended_at")
    return asserted


def _take(values: Row, clocks: dict[str, Clock], row: Row, row_clocks: dict[str, Clock]) -> None:
    for column, clock in row_clocks.items():
        known = clocks.get(column)
        if known is None or clock > known or (clock == known and _tie(row[column]) > _tie(values[column])):
            clocks[column] = clock
            values[column] = row[column]


def _tie(value: Any) -> tuple[bool, str]:
    """Decide between two values that are equally new, in a way that no order of arrival can change."""
    return (value is not None, value.isoformat() if isinstance(value, datetime) else repr(value))


def _deleted_at(rows: Iterable[Row], fetched_at: datetime) -> datetime | None:
    """Return when the run was last found to be gone, unless it was received again since: then it exists."""
    latest: datetime | None = max(filter(None, (row.get("deleted_at") for row in rows)), default=None)
    return latest if latest is not None and latest > fetched_at else None


def _is_current(detail: Clock | None, updated_at: datetime | None) -> bool:
    return detail is not None and (updated_at is None or detail[0] >= _microseconds(updated_at))


def _written_clocks(merged: Row, clocks: dict[str, Clock]) -> str | None:
    plain = {**merged, SOURCES.name: None}
    if clocks == read_clocks(plain):
        return None
    columns_by_clock: dict[Clock, list[str]] = {}
    for column in REGISTERS:
        if column in clocks:
            columns_by_clock.setdefault(clocks[column], []).append(column)
    newest_first = sorted(columns_by_clock.items(), reverse=True)
    return json.dumps([[*clock, columns] for clock, columns in newest_first], separators=(",", ":"))


def _microseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND
