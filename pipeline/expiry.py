"""Which records of raw logs are of runs made before a day.

A payload mostly says when its run was made. Some by-ID details do not: of those the lake's row decides, which knows it
from a list summary, else when they were received. So the logs are gone through in groups: first what they hold, then
one question to the lake, then what to leave out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import raw
from pipeline.erased import age_of, told_times
from pipeline.lake import LakeFiles
from pipeline.raw_edit import Change
from pipeline.values import time_value

_GROUP_IDS = 200_000
_AGES = """
    SELECT run_id, CAST(coalesce(created_at, initial_run_at, fetched_at) AT TIME ZONE 'UTC' AS DATE)
    FROM stored SEMI JOIN undated USING (run_id)
"""


@dataclass(slots=True)
class _Survey:
    """What one log holds: the oldest day of its dated runs that stay, and its undated runs with when they came."""

    oldest: date | None = None
    undated: dict[str, date] = field(default_factory=dict)


class Expiry:
    """Tells which records are of runs made before a day. With `keeps_rows` payloads alone expire; what the lake does
    not have then counts as of when it came, else as expired with its row.
    """

    def __init__(self, lake: LakeFiles, before: date, *, keeps_rows: bool) -> None:
        self.before = before
        self._lake, self._keeps_rows = lake, keeps_rows
        self._ages: dict[str, date] = {}
        loads = lake.read_loads()
        self._landed = dict(zip(loads["load_id"].to_pylist(), loads["raw_bytes"].to_pylist(), strict=True))

    def is_due(self, path: Path, known: Mapping[str, tuple[int, str]]) -> bool:
        """Tell whether a log may hold what expires; `known` has what was noted of logs: size, and oldest run's day."""
        size, oldest = known.get(path.name.removesuffix(raw.SUFFIX), (-1, ""))
        return size != path.stat().st_size or oldest < self.before.isoformat()

    def groups(self, paths: list[Path]) -> Iterator[dict[Path, date]]:
        """Yield logs in groups, with the day of the oldest run that stays in each; `change_of` then knows of these."""
        group: dict[Path, _Survey] = {}
        for number, path in enumerate(paths, 1):
            group[path] = self._survey(path)
            if number == len(paths) or sum(len(each.undated) for each in group.values()) >= _GROUP_IDS:
                self._ages = self._ask_ages({run_id for each in group.values() for run_id in each.undated})
                yield {path: self._oldest(survey) for path, survey in group.items()}
                group = {}

    def change_of(self, path: Path) -> Change:
        """Return what leaves out of a log what is expired."""
        landed = self._landed.get(path.name.removesuffix(raw.SUFFIX)) or 0

        def change(frame: raw.Frame) -> list[bytes | None] | None:
            lines: list[bytes | None] = [
                None if self._is_expired(record, is_landed=frame.end <= landed) else line
                for line, record in zip(frame.lines, raw.iter_records(frame.lines), strict=True)
            ]
            return lines if None in lines else None

        return change

    def _survey(self, path: Path) -> _Survey:
        survey = _Survey()
        for part in raw.iter_frames(path):
            for record in raw.iter_records(part.lines) if isinstance(part, raw.Frame) else ():
                with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
                    if record is not None and record["record"] == "run":
                        self._note(survey, record)
        return survey

    def _note(self, survey: _Survey, record: raw.Record) -> None:
        age, is_told = _age(record)
        if not is_told:
            survey.undated[record["run_id"]] = age
        elif age >= self.before:
            survey.oldest = min(age, survey.oldest or age)

    def _oldest(self, survey: _Survey) -> date:
        ages = [self._ages.get(run_id, came) for run_id, came in survey.undated.items()]
        staying = [age for age in (*ages, survey.oldest) if age is not None and age >= self.before]
        return min(staying, default=date.max)

    def _ask_ages(self, run_ids: set[str]) -> dict[str, date]:
        paths = self._lake.day_paths()
        if not paths or not run_ids:
            return {}
        with duckdb.connect(config={"memory_limit": "512MB"}) as con:
            con.execute("SET TimeZone = 'UTC'")
            con.register("undated", pa.table({"run_id": pa.array(sorted(run_ids), pa.string())}))
            con.read_parquet(paths, hive_partitioning=False).create_view("stored")
            return dict(con.sql(_AGES).fetchall())

    def _is_expired(self, record: raw.Record | None, *, is_landed: bool) -> bool:
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
            if record is not None and record["record"] == "run":
                age, is_told = _age(record)
                if is_told:
                    return age < self.before
                known = self._ages.get(record["run_id"])
                if known is None and is_landed and not self._keeps_rows:
                    return True  # its row was pruned
                return (known or age) < self.before
            if record is not None and record["record"] in ("missing", "failed") and not self._keeps_rows:
                return time_value(record["failed_at"]).date() < self.before
        return False


def made_before(table: pa.Table, day: date) -> pa.ChunkedArray:
    """Return for each row whether its run counts as made before a day (UTC), by the rule of `erased.age_of`."""
    made_at = pc.coalesce(table["created_at"], table["initial_run_at"], table["fetched_at"])
    return pc.less(made_at, pa.scalar(datetime.combine(day, time(), UTC), made_at.type))


def _age(record: raw.Record) -> tuple[date, bool]:
    """Return the day on which a record's run counts as made by the record alone, and whether its payload says so."""
    told: dict[str, Any] = told_times(record["payload"])
    fetched_at = time_value(record["fetched_at"]).astimezone(UTC)
    return age_of({**told, "fetched_at": fetched_at}), any(told.values())
