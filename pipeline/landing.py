"""Land what raw logs hold in the lake: flatten, merge, and rewrite the days that change.

There is one way in, for a load that has just run, for one that died, and for a rebuild: read the log, flatten its
records into a staging folder, then go through the days, each of which is read once, merged and replaced. Landing the
same records again changes nothing.

A run whose day becomes better known moves: it is written to its new day first and taken out of the old one next, with
the move noted meanwhile, so that the catalog can hide it and the next writer can finish it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import durable
from pipeline.arrow_schemas import DEAD_LETTERS_SCHEMA, RUNS_FILE_SCHEMA
from pipeline.day_change import Change, Count, is_among, merged_at_once
from pipeline.day_files import StoredDay, packed_day
from pipeline.deletion import mark_deleted
from pipeline.erased import read_erased
from pipeline.errors import LOGGED_LANDS_NEXT, DiskError
from pipeline.flatten import Row
from pipeline.lake import LakeFiles, Move, UnlandedLog
from pipeline.merge import day_of, merge_rows, same_content
from pipeline.movers import find_movers
from pipeline.staging import LARGE, Landing, Portions, Staging

if TYPE_CHECKING:
    import duckdb

_DAYS_AT_ONCE = 2
"""So many days' files are under way: one waits for the disk while the other is made."""
_MADE_AT_ONCE = 2
"""So many of these are being made, and have rows in memory. In a load that lands in parts, while it asks, it is one:
there memory counts more than how soon a landing is done.
"""
_DUCKDB = {"memory_limit": "128MB", "threads": "1"}
"""What DuckDB may take before it goes to the disk: less than 64 MB a thread is too little for ten million IDs."""


def land_log(
    lake: LakeFiles,
    log: UnlandedLog,
    *,
    replace: bool = False,
    most_rows: int | None = None,
    portions: Portions = LARGE,
) -> Landing:
    """Land what a raw log holds beyond an offset; the caller holds the lake's lock.

    With `most_rows`, not much more than so many, and the landing tells whether that was all.
    With `replace` (for a rebuild) a run's row is made of the log's payloads; of what the lake has, only what came from
    payloads that the log does not hold counts.
    """
    return land_logs(lake, [log], replace=replace, most_rows=most_rows, portions=portions)[0]


def land_logs(
    lake: LakeFiles,
    logs: list[UnlandedLog],
    *,
    replace: bool = False,
    most_rows: int | None = None,
    portions: Portions = LARGE,
) -> list[Landing]:
    """Land several raw logs at once; the counts of runs are those of all, in the last one's."""
    finish_moves(lake)
    folder = Path(tempfile.mkdtemp(prefix=".staging-", suffix=durable.TEMPORARY_SUFFIX, dir=lake.folder))
    try:
        staging = Staging(folder, read_erased(lake), portions=portions)
        landings = [staging.read(log, most_rows=most_rows) for log in logs]
        staging.close()
        if staging.rows:
            rewriting = _Rewriting(
                lake, staging, replace=replace, made_at_once=_MADE_AT_ONCE if most_rows is None else 1
            )
            rewriting.run()
            landings[-1].landed, landings[-1].unchanged = rewriting.count.landed, rewriting.count.unchanged
        _settle(lake, staging, folder, replace=replace)
        return landings
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def finish_moves(lake: LakeFiles) -> None:
    """Finish the moves that a writer which died had begun: a run that is in its new day leaves the old one."""
    moves = lake.read_moves()
    leaving: dict[str, set[str]] = defaultdict(set)
    for new, group in _by(moves, 2).items():
        present = set(lake.read_run_ids(new))
        for run_id, old, _new in group:
            if run_id in present:
                leaving[old].add(run_id)
    for old, run_ids in leaving.items():
        _drop(lake, old, run_ids)
    lake.write_moves([])


def _drop(lake: LakeFiles, day: str, run_ids: set[str]) -> None:
    stored = StoredDay(lake.day_path(day))
    leaving = pa.array(list(run_ids), pa.string())
    kept = stored.run_ids.filter(pc.invert(pc.is_in(stored.run_ids, value_set=leaving)))
    if len(kept) < len(stored.run_ids):
        parts = (part.filter(pc.invert(is_among(part, run_ids))) for part in stored.iter_parts())
        lake.write_packed_day(day, packed_day(parts, kept))


def _by(moves: Iterable[Move], position: int) -> dict[str, list[Move]]:
    groups: dict[str, list[Move]] = defaultdict(list)
    for move in moves:
        groups[move[position]].append(move)
    return groups


class _Rewriting:
    """Goes through the days that staged rows belong to, and replaces each."""

    def __init__(self, lake: LakeFiles, staging: Staging, *, replace: bool, made_at_once: int) -> None:
        self.lake, self.staging, self.replace = lake, staging, replace
        self.count = Count()
        self._places = BoundedSemaphore(made_at_once)
        self._movers: dict[str, list[str]] = {}

    def run(self) -> None:
        """Replace the days' files."""
        added, moves = self._moved_rows()
        self.lake.write_moves(moves)
        # Here, for all threads: whoever found it just made by another would go on before it is safe.
        durable.make_folder(self.lake.runs_folder)
        days = sorted({*self.staging.days(), *added})
        with ThreadPoolExecutor(_DAYS_AT_ONCE, "rewrite-day") as threads:
            # Once one fails, those that have not begun do not.
            for count in threads.map(self._rewrite, days, [added.pop(day, []) for day in days]):
                self.count.add(count)
        for old, group in _by(moves, 1).items():
            _drop(self.lake, old, {run_id for run_id, _old, _new in group})
        self.lake.write_moves([])

    # Runs that the lake or the staged rows have under more than one day

    def _moved_rows(self) -> tuple[dict[str, list[Row]], list[Move]]:
        """Return the merged rows of such runs by their day, and the moves that this makes of old rows."""
        self._movers, stored_by_day = find_movers(self.lake, self.staging)
        self.staging.wanted.clear()
        staged = self._rows_of(self._movers, lambda day: [self.staging.read_day(day)])
        stored = self._rows_of(stored_by_day, lambda day: StoredDay(self.lake.day_path(day)).iter_parts())
        added: dict[str, list[Row]] = defaultdict(list)
        moves: list[Move] = []
        for run_id, rows in staged.items():
            merged = self._merged([row for _day, row in rows], [row for _day, row in stored[run_id]], self.count)
            new = day_of(merged)
            if [row for day, row in stored[run_id] if day == new] != [merged]:
                added[new].append(merged)
            moves += [(run_id, old, new) for old, _row in stored[run_id] if old != new]
        return added, moves

    def _rows_of(
        self, run_ids_by_day: dict[str, list[str]], parts_of: Callable[[str], Iterable[pa.Table]]
    ) -> dict[str, list[tuple[str, Row]]]:
        rows: dict[str, list[tuple[str, Row]]] = defaultdict(list)
        for day, run_ids in run_ids_by_day.items():
            for part in parts_of(day):
                for row in part.filter(is_among(part, run_ids)).to_pylist():
                    rows[row["run_id"]].append((day, row))
        return rows

    def _merged(self, staged: list[Row], stored: list[Row], count: Count) -> Row:
        if self.replace:
            merged = merge_rows(staged, made_before=merge_rows(stored) if stored else None)
        else:
            merged = merge_rows([*staged, *stored])
        before = merge_rows(stored) if len(stored) > 1 else (stored[0] if stored else None)
        if before is not None and same_content(before, merged):
            count.unchanged += 1
        else:
            count.landed += 1
        return merged

    # Day by day

    def _staged_rows(self, day: str) -> pa.Table:
        incoming = self.staging.read_day(day)
        if day not in self._movers:
            return incoming
        return incoming.filter(pc.invert(is_among(incoming, self._movers[day])))

    def _rewrite(self, day: str, added: list[Row]) -> Count:
        """Replace a day's file by what it had, the staged rows and the rows of movers; not if nothing changes."""
        with self._places:
            content, count = self._rewritten(day, added)
        if content is not None:
            self.lake.write_packed_day(day, content)
        return count

    def _rewritten(self, day: str, added: list[Row]) -> tuple[memoryview | None, Count]:
        """Return what a day's file is to be, null if it is that already."""
        incoming, movers, stored = self._staged_rows(day), _rows_table(added), StoredDay(self.lake.day_path(day))
        change = Change(self._merged_anew if self.replace else merged_at_once, incoming, movers)
        run_ids = pc.unique(pa.chunked_array([stored.run_ids, *incoming["run_id"].chunks, *movers["run_id"].chunks]))
        del incoming, movers
        content = packed_day(change.applied(stored), run_ids)
        return (content if change.is_news else None), change.count

    def _merged_anew(self, staged: pa.Table, stored: pa.Table, count: Count) -> tuple[pa.Table, bool]:
        """Return what `merged_at_once` does of rows that are made anew, one by one."""
        before, rows, is_changed = _rows_by_id(stored), [], False
        for run_id, staged_rows in _rows_by_id(staged).items():
            rows.append(self._merged(staged_rows, before[run_id], count))
            is_changed = is_changed or before[run_id] != rows[-1:]
        return _rows_table(rows), is_changed


def _rows_by_id(table: pa.Table) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in table.to_pylist():
        rows[row["run_id"]].append(row)
    return rows


def _rows_table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=RUNS_FILE_SCHEMA)


def _settle(lake: LakeFiles, staging: Staging, folder: Path, *, replace: bool) -> None:
    """Settle what failed: mark the runs that are gone, and renew the dead letters. Most landings have none of that."""
    letters = lake.read_dead_letters()
    if not len(letters) and not staging.failures:
        return
    import duckdb  # here, since it takes a tenth of a second

    try:
        with duckdb.connect(config={**_DUCKDB, "temp_directory": str(folder)}) as con:
            con.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
            staging.create_views(con)
            con.register("letters", letters)
            mark_deleted(lake, con)
            _settle_dead_letters(lake, con, letters, with_stored=replace)
    except duckdb.Error as error:
        lake.raise_damage()
        if isinstance(error, duckdb.IOException):
            raise DiskError(f"{folder}: {error}; {LOGGED_LANDS_NEXT}") from error
        raise


def _settle_dead_letters(
    lake: LakeFiles, con: duckdb.DuckDBPyConnection, letters: pa.Table, *, with_stored: bool
) -> None:
    """Add the IDs that did not come, and take out those that have come since, or are gone and marked so in the lake.

    `with_stored` where failures are read anew whose runs may have come by a log that was not kept.
    """
    came = con.table("staged").project("run_id, fetched_at")
    paths = lake.day_paths()
    if with_stored and paths:
        came = came.union(con.read_parquet(paths, hive_partitioning=False).project("run_id, fetched_at"))
    came.create_view("came")
    settled = con.sql(
        """
        WITH every AS (
            FROM letters UNION ALL BY NAME FROM failures
        ), came_of_them AS (
            FROM came SEMI JOIN every USING (run_id)
        ), last AS (
            FROM every
            QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY failed_at DESC, load_id DESC) = 1
        )
        FROM last
        WHERE NOT EXISTS (
            FROM came_of_them AS came WHERE came.run_id = last.run_id AND came.fetched_at >= last.failed_at
        ) AND NOT EXISTS (FROM gone WHERE gone.run_id = last.run_id)
        ORDER BY run_id
        """
    )
    table = settled.to_arrow_table().cast(DEAD_LETTERS_SCHEMA)
    if not table.equals(letters):
        lake.write_dead_letters(table)
