"""Work out the ledger beside a large lake (see `ledger`), once for whoever asks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType

import duckdb
import pyarrow.parquet as pq

from pipeline import durable, sealed_parquet
from pipeline.ledger import Day, LedgerFiles, Manifest, Stamp, Tell, is_whole, stamp_of
from pipeline.reports import read_sql
from pipeline.views import WITH_DAY

_BATCH_BYTES = 40 * 1024 * 1024
_BATCH_ROWS = 250_000
_MEMORY = "1GiB"
_WITH_DAY = f"* EXCLUDE (filename), {WITH_DAY}"


def bring_up_to_date(ledger: LedgerFiles, tell: Tell) -> int:
    """Work out what is out of date. A file of runs that is replaced meanwhile is taken up by the next pass.

    Lines that saw it old and lines that saw it new may then stand side by side, but only of resources of which the
    old and the new file say different things, and those are worked out again.
    """
    before = ledger.read_manifest()
    number = before.number + 1
    stamps = ledger.stamps()
    # Without all that the runs spoke of before nobody knows on which days a change bears.
    can_go_on = all(is_whole(ledger.ids_path(day, each.ids)) for day, each in before.days.items())
    known = before.days if can_go_on else {}
    changed = {day for day, stamp in stamps.items() if not _is_there(ledger, day, known.get(day), stamp)}
    days = {day: each for day, each in known.items() if day in stamps}
    with _Work(ledger, known) as work:
        for day in sorted(changed):
            days[day] = Day(work.write_ids(day, number), number, number)
        gone = known.keys() - stamps.keys()
        stale = sorted(changed | work.days_told_anew(changed | gone, days))
        if stale:
            tell(f"{ledger.files.folder}: working out the credits of {len(stale):,} of {len(stamps):,} days, once")
        days |= {day: Day(days[day].stamp, number, days[day].ids) for day in stale}
        rows = {day: pq.read_metadata(ledger.files.day_path(day)).num_rows for day in stale if day in stamps}
        for batch in _batches(stale, stamps, rows):
            work.write_lines(batch, days, number)
        # A day's sums are as old as what they add up: its lines, its runs.
        work.write_sums("credit_sums", set(stale), days, before, number)
        work.write_sums("run_sums", changed, days, before, number)
    ledger.write_manifest(Manifest(before.made_by, number, days, number), before)
    return len(stale)


def _is_there(ledger: LedgerFiles, day: str, made: Day | None, stamp: Stamp) -> bool:
    return made is not None and made.stamp == stamp and is_whole(ledger.lines_path(day, made.lines))


class _Work:
    """One pass: a database of its own, in little memory, that sees only the runs it is told to look at."""

    def __init__(self, ledger: LedgerFiles, before: Mapping[str, Day]) -> None:
        self._ledger = ledger
        self._before = before
        self._con = duckdb.connect()
        self._spill = tempfile.TemporaryDirectory()

    def __enter__(self) -> _Work:
        self._con.execute(
            "SET TimeZone = 'UTC'; SET python_enable_replacements = false; SET preserve_insertion_order = false"
        )
        self._con.execute(f"SET memory_limit = '{_MEMORY}'")
        self._con.execute("SET temp_directory = $folder", {"folder": self._spill.name})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._con.close()
        self._spill.cleanup()

    def write_ids(self, day: str, number: int) -> Stamp:
        """Write which resources a day's runs speak of; return the stamp of the file that was read."""
        path = self._ledger.files.day_path(day)
        while True:
            stamp = stamp_of(path)
            self._see_runs([day])
            table = self._con.sql(read_sql("ledger_mentions")).to_arrow_table()
            if stamp_of(path) == stamp:
                durable.write_file(self._ledger.ids_path(day, number), sealed_parquet.parquet_bytes(table))
                return stamp

    def days_told_anew(self, changed: set[str], days: dict[str, Day]) -> set[str]:
        """Return the other days whose runs speak of a resource of which the changed days say something new."""
        others = days.keys() - changed
        if not others:
            return set()
        self._see_ids("old_facts", (day for day in changed if day in self._before), self._before)
        self._see_ids("new_facts", (day for day in changed if day in days), days)
        self._see_ids("other_facts", others, days)
        found = self._con.sql(read_sql("ledger_told_anew")).fetchall()
        return {day for (day,) in found}

    def write_lines(self, batch: list[str], days: dict[str, Day], number: int) -> None:
        """Write the lines that come from the runs of some days, worked out over all days that bear on them."""
        self._see_ids("batch_facts", batch, days)
        self._see_ids("all_facts", days, days)
        bearing = self._con.sql("SELECT DISTINCT day FROM all_facts SEMI JOIN batch_facts USING (id)").fetchall()
        self._see_runs([day for (day,) in bearing] + batch)
        self._con.execute(f"CREATE OR REPLACE VIEW credit_lines AS {read_sql('credit_lines')}")
        self._con.execute(f"CREATE OR REPLACE TEMP TABLE batch_lines AS {read_sql('ledger_lines')}", {"days": batch})
        for day in batch:
            lines = self._con.sql(
                "SELECT * EXCLUDE (day) FROM batch_lines WHERE day = $day ORDER BY basis = 'unknown', resource_kind, "
                "resource_id, line",
                params={"day": day},
            )
            durable.write_file(
                self._ledger.lines_path(day, number), sealed_parquet.parquet_bytes(lines.to_arrow_table())
            )

    def write_sums(self, name: str, stale: set[str], days: dict[str, Day], before: Manifest, number: int) -> None:
        """Write the sums of all days: of the stale ones worked out, of the others as they were."""
        path = self._ledger.sums_path(name, before.sums)
        is_there = before.sums > 0 and is_whole(path)
        stale = stale & days.keys() if is_there else set(days)
        parts = []
        if stale:
            self._see_runs(stale)
            self._see_lines(stale, days)
            parts.append(f"({read_sql(f'ledger_{name}')})")
        if is_there:
            self._con.read_parquet(str(path)).create_view("sums_before", replace=True)
            parts.append("FROM sums_before WHERE stored_day IN (SELECT unnest($others))")
        params = {"others": sorted(days.keys() - stale)} if is_there else None
        sums = self._con.sql(f"{' UNION ALL BY NAME '.join(parts)} ORDER BY ALL", params=params)
        durable.write_file(self._ledger.sums_path(name, number), sealed_parquet.parquet_bytes(sums.to_arrow_table()))

    def _see_lines(self, days: Iterable[str], known: Mapping[str, Day]) -> None:
        paths = sorted(str(self._ledger.lines_path(day, known[day].lines)) for day in days)
        self._con.read_parquet(paths, hive_partitioning=False, filename=True).project(_WITH_DAY).create_view(
            "lines", replace=True
        )

    def _see_runs(self, days: Iterable[str]) -> None:
        paths = sorted({str(self._ledger.files.day_path(day)) for day in days})
        self._con.read_parquet(paths, hive_partitioning=False, filename=True, union_by_name=True).project(
            _WITH_DAY
        ).create_view("runs", replace=True)

    def _see_ids(self, name: str, days: Iterable[str], known: Mapping[str, Day]) -> None:
        paths = sorted(str(self._ledger.ids_path(day, known[day].ids)) for day in days)
        if paths:
            self._con.read_parquet(paths, hive_partitioning=False, filename=True).project(_WITH_DAY).create_view(
                name, replace=True
            )
        else:
            self._con.execute(
                f"CREATE OR REPLACE VIEW {name} AS "
                "FROM (VALUES (0::UBIGINT, 0::UBIGINT, '')) AS no(id, fact, day) LIMIT 0"
            )


def _batches(days: list[str], stamps: dict[str, Stamp], rows: dict[str, int]) -> Iterator[list[str]]:
    """Yield the days in runs of neighbours, which share the most, each small enough for the memory."""
    batch: list[str] = []
    size_bytes = size_rows = 0
    for day in days:
        is_full = size_bytes + stamps[day][1] > _BATCH_BYTES or size_rows + rows.get(day, 0) > _BATCH_ROWS
        if batch and is_full:
            yield batch
            batch, size_bytes, size_rows = [], 0, 0
        batch.append(day)
        size_bytes += stamps[day][1]
        size_rows += rows.get(day, 0)
    if batch:
        yield batch
