"""What the lake has of the runs that a list shows: so that only what is new or has changed is kept.

A run is as the lake has it where its `updatedAt`, status and credits are the same, as far as a summary tells them: what
it leaves out takes nothing from the lake. What was looked up stays in a
temporary SQLite file, so that memory does not grow with the number of runs.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from pipeline import duckdb_core
from pipeline.discover import Summary, row_times
from pipeline.kinds import PAGE_SIZE, Kind
from pipeline.lake import UNKNOWN_DAY, LakeFiles
from pipeline.scratch import Scratch
from pipeline.values import decimal_value, text_value
from pipeline.views import parquet

_WHOLE_FROM = 30
"""After so many pages of a kind, all its runs are looked up at once: cheaper than on and on a page's days."""

_FETCHED_ROWS = 10_000

_MARKS = """
    SELECT
        run_id,
        concat(
            epoch_us(updated_at), '|', CAST(credits AS VARCHAR), '|', CAST(total_credits AS VARCHAR), '|', status
        ) AS mark
    FROM stored
    WHERE kind = $kind AND workspace_id IS NOT DISTINCT FROM $workspace AND deleted_at IS NULL
"""


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NO_USAGE: Summary = {}

_TABLE = """
    CREATE TABLE known (
        run_id TEXT PRIMARY KEY, kind TEXT NOT NULL, mark TEXT NOT NULL, seen INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE TABLE asked (run_id TEXT NOT NULL, kind TEXT NOT NULL, mark TEXT NOT NULL);
"""

_SEEN = "INSERT INTO known VALUES {rows} ON CONFLICT DO UPDATE SET mark = excluded.mark, seen = 1"


class Known(Scratch):
    """The runs of one workspace as the lake has them, and which of them a list has shown."""

    def __init__(self, lake: LakeFiles, workspace_id: str | None) -> None:
        self._lake, self._workspace_id = lake, workspace_id
        days = frozenset(lake.days())
        self._left: dict[Kind, frozenset[str]] = defaultdict(lambda: days)
        self._pages: Counter[Kind] = Counter()
        super().__init__(_TABLE)
        self._stored: duckdb_core.DuckDBPyConnection | None = None
        self._turn = threading.Lock()

    def close(self) -> None:
        """Remove it from the disk."""
        if self._stored is not None:
            self._stored.close()
        super().close()

    def is_at_hand(self, kind: Kind) -> bool:
        """Return whether `changed` need not wait: nothing of a kind is left to be looked up, and nothing else is."""
        return not self._left[kind] and not self._turn.locked()

    def look_up_all(self, kind: Kind) -> None:
        """Look up all runs of a kind."""
        self._look_up(kind, self._left[kind])

    def changed(self, kind: Kind, rows: list[Summary]) -> list[Summary]:
        """Return those of a page's rows that the lake, and earlier pages, do not have as they are; note all as seen.

        May be called from several threads.
        """
        with self._turn:
            return self._changed(kind, rows) if rows else []

    def _changed(self, kind: Kind, rows: list[Summary]) -> list[Summary]:
        self._pages[kind] += 1
        if self._left[kind]:
            days = {_day(time) for time in row_times(rows, "createdAt")}
            is_whole = self._pages[kind] > _WHOLE_FROM or None in days
            self._look_up(kind, self._left[kind] if is_whole else self._left[kind] & {*days, UNKNOWN_DAY})
        run_ids = [text_value(row["id"]) for row in rows]
        query = "SELECT run_id, mark FROM known WHERE run_id IN (SELECT value FROM json_each(?))"
        marks = dict(self._con.execute(query, (json.dumps(run_ids),)))
        changed = []
        for run_id, row, mark in zip(run_ids, rows, _marks(rows), strict=True):
            known = marks.get(run_id)
            if known is not None and known != mark:
                mark = _joined(mark, known)
            if known != mark:
                changed.append(row)
            marks[run_id] = mark
        self._note_seen(kind, list(marks.items()))
        return changed

    def _note_seen(self, kind: Kind, marks: list[tuple[str, str]]) -> None:
        for start in range(0, len(marks), PAGE_SIZE):
            part = marks[start : start + PAGE_SIZE]
            # One statement for all of them takes half the time of one for each.
            rows = ", ".join([f"(?, '{kind.object}', ?, 1)"] * len(part))
            self._con.execute(_SEEN.format(rows=rows), [value for each in part for value in each])

    def iter_unseen(self, kind: Kind) -> Iterator[str]:
        """Yield the runs of a kind that the lake has and no page has shown."""
        self.look_up_all(kind)
        query = "SELECT run_id FROM known WHERE kind = ? AND NOT seen ORDER BY run_id"
        for (run_id,) in self._con.execute(query, (kind.object,)):
            yield run_id

    def _look_up(self, kind: Kind, days: frozenset[str]) -> None:
        """Look up a kind's runs of some days, each day once: what comes later has been shown by a page."""
        if not days:
            return
        self._left[kind] -= days
        paths = [str(self._lake.day_path(day)) for day in sorted(days)]
        if self._stored is None:
            self._stored = duckdb_core.connect(config={"memory_limit": "256MB"})
        stored = self._stored

        def look_up() -> None:
            stored.execute(f"CREATE OR REPLACE VIEW stored AS FROM {parquet(paths)}")
            self._keep(kind, stored.execute(_MARKS, {"kind": kind.object, "workspace": self._workspace_id}))

        self._lake.ask(look_up)
        self._con.execute("INSERT OR IGNORE INTO known (run_id, kind, mark) SELECT run_id, kind, mark FROM asked")
        self._con.execute("DELETE FROM asked")

    def _keep(self, kind: Kind, answer: duckdb_core.DuckDBPyConnection) -> None:
        """Keep the answer, in place of one that turned out to be of files that were being replaced."""
        self._con.execute("DELETE FROM asked")
        while rows := answer.fetchmany(_FETCHED_ROWS):
            self._con.executemany(
                "INSERT INTO asked VALUES (?, ?, ?)", ((run_id, kind.object, mark) for run_id, mark in rows)
            )


def _day(time: datetime | None) -> str | None:
    return None if time is None else time.date().isoformat()


def _marks(rows: list[Summary]) -> list[str]:
    usages = [usage if isinstance(usage := row.get("usage"), dict) else _NO_USAGE for row in rows]
    told = [
        (usage.get("credits"), usage.get("totalCredits"), row.get("status"))
        for row, usage in zip(rows, usages, strict=True)
    ]
    try:
        ends = [_known_end(*each) for each in told]
    except TypeError:  # one is a list, or an object
        ends = [_end(*each) for each in told]
    times = row_times(rows, "updatedAt")
    return [
        f"{'' if time is None else (time - _EPOCH) // _MICROSECOND}|{end}"
        for time, end in zip(times, ends, strict=True)
    ]  # fmt: skip


def _end(credits: Any, total: Any, status: Any) -> str:
    """Return what a mark has behind the time."""
    return f"{_credits(credits)}|{_credits(total)}|{text_value(status) if isinstance(status, str) else ''}"


_known_end = lru_cache(256, typed=True)(_end)
"""Most runs cost one of a few amounts."""


def _joined(mark: str, known: str) -> str:
    """Return what is known once a mark has come: what the mark does not tell stays. Only the status may hold a bar."""
    return "|".join(new or old for new, old in zip(mark.split("|", 3), known.split("|", 3), strict=True))


def _credits(value: Any) -> str:
    try:
        return f"{decimal_value(value):f}" if type(value) in (int, float) else ""
    except ValueError:
        return ""
