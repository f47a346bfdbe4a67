"""The credit ledger of a large lake, worked out once and kept beside it.

    LAKE/ledger/manifest.json                      which files are the ledger, and of which files of runs
    LAKE/ledger/day=YYYY-MM-DD/lines-<n>.parquet   the rows of `credit_lines` that come from that day's runs
    LAKE/ledger/day=YYYY-MM-DD/ids-<n>.parquet     hashes of the resources that those runs speak of
    LAKE/ledger/credit_sums-<n>.parquet            the lines of all days, added up by what reports group them by
    LAKE/ledger/run_sums-<n>.parquet               so the runs of all days

It is a cache: who deletes the folder loses nothing. The manifest names the very files of runs (by time, size and inode)
that the ledger was made of. Where one of them has been replaced the ledger is out of date, and readers work the view
out themselves, as they do in small lakes: no reader has to write, and no writer has to know.

To bring it up to date takes the days whose files changed, and the days whose runs speak of a resource of which the
change says something new. Their lines are worked out by the same `credit_lines.sql`, over the days that bear on them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import pyarrow.parquet as pq

from pipeline import durable, sealed
from pipeline.lake import LakeFiles
from pipeline.reports import read_sql
from pipeline.views import WITH_DAY

VERSION = 2
"""1: the first, which the manifest did not say. 2: with checksums."""

WORTH_BYTES = 64 * 1024 * 1024
"""The size of a lake's runs from which on a ledger beside it pays: below, the view takes a second or two."""

_BATCH_BYTES = 40 * 1024 * 1024
_BATCH_ROWS = 250_000
_MEMORY = "1GiB"
_LOCK_WAIT_S = 600.0
_PASSES = 3
SUMS = ("credit_sums", "run_sums")
_QUERIES = ("credit_lines", "ledger_mentions", "ledger_lines", "ledger_credit_sums", "ledger_run_sums")
_WITH_DAY = f"* EXCLUDE (filename), {WITH_DAY}"

Tell = Callable[[str], None]
Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Day:
    """One day of the ledger: the stamp of the runs' file that it was made of, and which of its files are in force."""

    stamp: Stamp
    lines: int
    ids: int


@dataclass(slots=True)
class Manifest:
    """What the ledger consists of. `made_by` changes with whatever else its content depends on."""

    made_by: str
    number: int = 0
    days: dict[str, Day] = field(default_factory=dict)
    sums: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """The files of a ledger that is of the lake as it is: of lines, and by name of sums. Those of lines are there, but
    were not read: see `LedgerFiles.are_whole`.
    """

    lines: tuple[str, ...]
    sums: dict[str, str]


class LedgerFiles:
    """The ledger beside one lake. Making one touches nothing."""

    def __init__(self, files: LakeFiles) -> None:
        self.files = files
        self.folder = files.folder / "ledger"
        self.manifest_path = self.folder / "manifest.json"

    def current_paths(self) -> list[str] | None:
        """Return the files that are the ledger of the lake as it is at this moment; None where there are none, or one
        of them is not what was written.
        """
        kept = self.current()
        return list(kept.lines) if kept is not None and self.are_whole(kept.lines) else None

    def current(self) -> Kept | None:
        """Return the ledger of the lake as it is at this moment; None where there is none. Its lines are not read."""
        manifest = self.read_manifest()
        if not manifest.days or not manifest.sums or self.files.moving_path.exists():
            return None
        if {day: each.stamp for day, each in manifest.days.items()} != self.stamps():
            return None
        sums = {name: self.sums_path(name, manifest.sums) for name in SUMS}
        lines = tuple(str(self.lines_path(day, each.lines)) for day, each in manifest.days.items())
        if not all(map(_is_whole, sums.values())) or not all(map(os.path.exists, lines)):
            return None
        return Kept(lines, {name: str(path) for name, path in sums.items()})

    def are_whole(self, lines: Iterable[str]) -> bool:
        """Tell whether these files are all what was written. One that is not is removed, to be made anew next time."""
        damaged = [path for path in map(Path, lines) if not _is_whole(path)]
        for path in damaged:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        return not damaged

    def is_worthwhile(self) -> bool:
        """Tell whether the lake is so large that a ledger beside it pays."""
        return sum(size for _, size, _ in self.stamps().values()) >= WORTH_BYTES

    def refresh(self, *, tell: Tell = lambda _message: None) -> int:
        """Bring the ledger up to date; return how many days were worked out (again, where loads went on meanwhile).

        One process does it at a time; loads and readers wait for nothing.
        """
        if self.current() is not None:
            return 0
        import filelock  # here, since readers do without where it is current

        durable.make_folder(self.folder)
        days = 0
        with filelock.FileLock(self.folder / ".lock", timeout=_LOCK_WAIT_S):
            for _ in range(_PASSES):
                if self.files.moving_path.exists() or self.current() is not None:
                    break
                days += self._refresh_once(tell)
        return days

    def _refresh_once(self, tell: Tell) -> int:
        """Work out what is out of date. A file of runs that is replaced meanwhile is taken up by the next pass.

        Lines that saw it old and lines that saw it new may then stand side by side, but only of resources of which the
        old and the new file say different things, and those are worked out again.
        """
        before = self.read_manifest()
        number = before.number + 1
        stamps = self.stamps()
        # Without all that the runs spoke of before nobody knows on which days a change bears.
        can_go_on = all(_is_whole(self.ids_path(day, each.ids)) for day, each in before.days.items())
        known = before.days if can_go_on else {}
        changed = {day for day, stamp in stamps.items() if not self._is_there(day, known.get(day), stamp)}
        days = {day: each for day, each in known.items() if day in stamps}
        with _Work(self, known) as work:
            for day in sorted(changed):
                days[day] = Day(work.write_ids(day, number), number, number)
            gone = known.keys() - stamps.keys()
            stale = sorted(changed | work.days_told_anew(changed | gone, days))
            if stale:
                tell(f"{self.files.folder}: working out the credits of {len(stale):,} of {len(stamps):,} days, once")
            days |= {day: Day(days[day].stamp, number, days[day].ids) for day in stale}
            rows = {day: pq.read_metadata(self.files.day_path(day)).num_rows for day in stale if day in stamps}
            for batch in _batches(stale, stamps, rows):
                work.write_lines(batch, days, number)
            # A day's sums are as old as what they add up: its lines, its runs.
            work.write_sums("credit_sums", set(stale), days, before, number)
            work.write_sums("run_sums", changed, days, before, number)
        self._write_manifest(Manifest(before.made_by, number, days, number), before)
        return len(stale)

    def _is_there(self, day: str, made: Day | None, stamp: Stamp) -> bool:
        return made is not None and made.stamp == stamp and _is_whole(self.lines_path(day, made.lines))

    def stamps(self) -> dict[str, Stamp]:
        """Return by day what tells one version of its runs' file from another."""
        return {day: _stamp(found) for day, found in self.files.day_stats().items()}

    def lines_path(self, day: str, number: int) -> Path:
        """Return where a day's rows of `credit_lines` are."""
        return self.folder / f"day={day}" / f"lines-{number}.parquet"

    def ids_path(self, day: str, number: int) -> Path:
        """Return where the hashes are of the resources that a day's runs speak of."""
        return self.folder / f"day={day}" / f"ids-{number}.parquet"

    def sums_path(self, name: str, number: int) -> Path:
        """Return where the sums of all days are."""
        return self.folder / f"{name}-{number}.parquet"

    def read_manifest(self) -> Manifest:
        """Return the manifest; one without days where there is none that this program can go on from."""
        try:
            found = sealed.parse_note(self.manifest_path.read_bytes(), is_of_other_version=is_of_other_version)
            made_by = _made_by()
            days = {
                day: Day((each["stamp"][0], each["stamp"][1], each["stamp"][2]), each["lines"], each["ids"])
                for day, each in found["days"].items()
            }
            is_ours = found["made_by"] == made_by
            return Manifest(made_by, found["number"], days if is_ours else {}, found.get("sums", 0) if is_ours else 0)
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
            return Manifest(_made_by())

    def remove_superseded(self) -> None:
        """Remove the files of earlier versions, which a query that began before may be on."""
        manifest = self.read_manifest()
        self._remove_others(manifest, Manifest(manifest.made_by))

    def _write_manifest(self, manifest: Manifest, before: Manifest) -> None:
        """Put the new files in force. Those of the version before stay until the next time: a query may be on them."""
        durable.write_file(self.manifest_path, sealed.note_bytes({"version": VERSION, **asdict(manifest)}))
        self._remove_others(manifest, before)

    def _remove_others(self, manifest: Manifest, before: Manifest) -> None:
        kept = {
            path
            for each in (manifest, before)
            for day, files in each.days.items()
            for path in (self.lines_path(day, files.lines), self.ids_path(day, files.ids))
        }
        kept |= {self.sums_path(name, each.sums) for each in (manifest, before) for name in SUMS}
        for path in (*self.folder.glob("day=*/*"), *self.folder.glob("*_sums-*.parquet")):
            if path not in kept:
                path.unlink(missing_ok=True)


def stamp_of(path: Path) -> Stamp:
    """Return what changes whenever a file is replaced."""
    return _stamp(path.stat())


def _stamp(found: os.stat_result) -> Stamp:
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _is_whole(path: Path) -> bool:
    """Tell whether a file of the ledger is there and what was written; each version of it is read once for that."""
    try:
        return _is_whole_file(path, stamp_of(path))
    except FileNotFoundError:
        return False


@lru_cache(maxsize=16_384)
def _is_whole_file(path: Path, _stamp: Stamp) -> bool:
    return sealed.is_parquet_whole(path.read_bytes()) is True


class _Work:
    """One pass: a database of its own, in little memory, that sees only the runs it is told to look at."""

    def __init__(self, ledger: LedgerFiles, before: dict[str, Day]) -> None:
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
                durable.write_file(self._ledger.ids_path(day, number), sealed.parquet_bytes(table))
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
            durable.write_file(self._ledger.lines_path(day, number), sealed.parquet_bytes(lines.to_arrow_table()))

    def write_sums(self, name: str, stale: set[str], days: dict[str, Day], before: Manifest, number: int) -> None:
        """Write the sums of all days: of the stale ones worked out, of the others as they were."""
        path = self._ledger.sums_path(name, before.sums)
        is_there = before.sums > 0 and _is_whole(path)
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
        durable.write_file(self._ledger.sums_path(name, number), sealed.parquet_bytes(sums.to_arrow_table()))

    def _see_lines(self, days: Iterable[str], known: dict[str, Day]) -> None:
        paths = sorted(str(self._ledger.lines_path(day, known[day].lines)) for day in days)
        self._con.read_parquet(paths, hive_partitioning=False, filename=True).project(_WITH_DAY).create_view(
            "lines", replace=True
        )

    def _see_runs(self, days: Iterable[str]) -> None:
        paths = sorted({str(self._ledger.files.day_path(day)) for day in days})
        self._con.read_parquet(paths, hive_partitioning=False, filename=True, union_by_name=True).project(
            _WITH_DAY
        ).create_view("runs", replace=True)

    def _see_ids(self, name: str, days: Iterable[str], known: dict[str, Day]) -> None:
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


def is_of_other_version(manifest: Any) -> bool:
    """Tell a manifest that another version wrote, which may have no checksum."""
    return bool(manifest.get("version") != VERSION)


@cache
def _made_by() -> str:
    """Return what the ledger's content depends on beside the runs: the queries, and whose hashes the hashes are."""
    queries = "".join(read_sql(name) for name in _QUERIES)
    return f"{VERSION} duckdb {duckdb.__version__} {hashlib.sha256(queries.encode()).hexdigest()[:16]}"
