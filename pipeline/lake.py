"""The files of a lake, and whose turn it is to write them.

    LAKE/runs/day=YYYY-MM-DD/runs.parquet   one row a run, one file a day of creation (UTC), or day=unknown
    LAKE/raw/YYYY-MM/<load_id>.jsonl.zst    the raw log, one file a load
    LAKE/loads/YYYY-MM.parquet              one row a load, one file a month
    LAKE/dead_letters.parquet               one row an ID that did not come
    LAKE/moving.json                        only while runs change their day: which, from where, to where
    LAKE/repairing.json                     only while a repair is at work, or was cut short: what it is to mend
    LAKE/lake.json                          the schema version that all day files have, as JSON
    LAKE/erased.json                        only if needed: what is gone for good, so that nothing brings it back

A lake in a bucket has the same files there, and here a folder that mirrors them (see `bucket.mirror`).

A file is only ever replaced as a whole, and holds a checksum of itself (see `sealed`). Writers hold the lock; readers
need none. Arrow, which reads and writes the tables, is imported by the methods that do so: most questions do without,
and it takes a tenth of half a second.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pipeline import durable, sealed
from pipeline.errors import LakeDamagedError, LakeError, NewerLakeError, UsageError
from pipeline.schema import SCHEMA_VERSION
from pipeline.turns import Tell, Turns
from pipeline.upgrade import bring_up_to_date

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.bucket.mirror import Mirror
    from pipeline.holding import Wanted

UNKNOWN_DAY = "unknown"
_DAY_PREFIX = "day="
_FILE_NAME = "runs.parquet"
_ASKED_AGAIN = 5
_PAUSE_S = 0.2
_CLOCKS_DIFFER_S = 3600.0
"""By so much the clocks of machines that share a lake in a bucket may differ."""

T = TypeVar("T")
_PATTERN = "*?[" if os.sep == "\\" else "*?[\\"
"""What stands for other characters in a path that DuckDB is given."""

Move = tuple[str, str, str]
"""A run that changes its day: its ID, the old day, the new one."""


class UnlandedLog(NamedTuple):
    """A raw log with records that the lake may not have yet, from an offset on."""

    path: Path
    load_id: str
    offset: int


class LakeFiles(Turns):
    """Reads and writes the files of one lake: of a folder, or of a bucket (`s3://…`). Making one touches nothing.

    Raises UsageError for a folder whose name DuckDB would take for a pattern, and read the files of other lakes.
    """

    def __init__(self, folder: Path | str) -> None:
        self.mirror: Mirror | None = _mirror_of(folder)
        self.folder = self.mirror.folder if self.mirror else Path(folder)
        self.name = self.mirror.url if self.mirror else str(folder)
        self.only_days: Collection[str] | None = None  # of a lake in a bucket, those pulled; null where all were
        _refuse_pattern(self.folder)
        self.runs_folder = self.folder / "runs"
        self.raw_folder = self.folder / "raw"
        self.loads_folder = self.folder / "loads"
        self.dead_letters_path = self.folder / "dead_letters.parquet"
        self.moving_path = self.folder / "moving.json"
        self.erased_path = self.folder / "erased.json"
        self.version_path = self.folder / "lake.json"

    def _put_right(self, tell: Tell) -> None:
        self._remove_temporaries()
        bring_up_to_date(self, tell=tell)

    def _remove_temporaries(self) -> None:
        durable.remove_temporaries(self.folder, "", "loads/", "runs/*/", "raw/*/")
        ledger = self.folder / "ledger"
        if ledger.is_dir():
            import filelock  # here, since readers do without

            with contextlib.suppress(filelock.Timeout), filelock.FileLock(ledger / ".lock", timeout=0):
                durable.remove_temporaries(ledger, "", "day=*/")

    def is_current(self) -> bool:
        """Return whether all files are known to be as this version writes them. Readers of others must fill in columns.

        Raises LakeDamagedError where a newer version of this program wrote the lake, or its note is damaged.
        """
        try:
            note = sealed.read_note(self.version_path, is_of_other_version=_is_other_version)
        except FileNotFoundError:
            return not any(path.exists() for path, _schema in self.parquet_files())
        version = int(note["schema"])
        if version > SCHEMA_VERSION:
            raise NewerLakeError(sealed.newer(self.version_path, version))
        return version == SCHEMA_VERSION

    def refuse_newer(self) -> None:
        """Raise NewerLakeError where a newer version of this program wrote the lake, whatever else is damaged."""
        try:
            self.is_current()
        except NewerLakeError:
            raise
        except LakeDamagedError:
            return

    # Runs

    def days(self) -> list[str]:
        """Return the days that have a file, oldest first, `unknown` last."""
        return list(self.day_stats())

    def day_stats(self) -> dict[str, os.stat_result]:
        """Return what the file system tells of each day's file, the oldest day first, `unknown` last."""
        found: dict[str, os.stat_result] = {}
        # In plain text: a Path for each would take ten times as long, and questions ask this again and again.
        runs = str(self.runs_folder)
        names: list[str] = []
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            names = os.listdir(runs)
        for name in names:
            if name.startswith(_DAY_PREFIX):
                try:
                    found[name.removeprefix(_DAY_PREFIX)] = os.stat(os.sep.join((runs, name, _FILE_NAME)))
                except (FileNotFoundError, NotADirectoryError):
                    continue
        days = [day for day in sorted(found) if self.only_days is None or day in self.only_days]
        return {day: found[day] for day in days if stat.S_ISREG(found[day].st_mode)}

    def day_path(self, day: str) -> Path:
        """Return where a day's file is."""
        return Path(self._day_path(day))

    def _day_path(self, day: str) -> str:
        """Return where a day's file is, as text: a `Path` takes ten times as long, and a lake has hundreds of days."""
        return os.path.join(self.runs_folder, f"{_DAY_PREFIX}{day}", _FILE_NAME)

    def day_paths(self) -> list[str]:
        """Return the paths of all days' files."""
        return [self._day_path(day) for day in self.days()]

    def days_of(self, wanted: Wanted) -> list[str]:
        """Return the days whose files may hold one of the runs looked for, where it is not expected."""
        return list(wanted.iter_days((day, self.day_path(day)) for day in self.days()))

    def days_changed_since(self, time: datetime) -> list[str]:
        """Return the days whose files were replaced at that time or later, by this machine's clock.

        Of a lake in a bucket by when they came here, which is later, and some more: its clock may be another one.
        """
        since = time.timestamp() - (_CLOCKS_DIFFER_S if self.mirror else 0.0)
        return [day for day, found in self.day_stats().items() if found.st_mtime >= since]

    def read_day(self, day: str) -> pa.Table:
        """Return a day's rows with the whole declared schema; no rows where there is no file.

        Raises LakeDamagedError where a byte has changed since it was written.
        """
        from pipeline import arrow_schemas, sealed_parquet

        return sealed_parquet.read_table(self.day_path(day), arrow_schemas.RUNS_FILE_SCHEMA)

    def read_run_ids(self, day: str) -> list[str]:
        """Return a day's run IDs; raises as `read_day` does."""
        import pyarrow as pa

        from pipeline import arrow_schemas, sealed_parquet

        schema = pa.schema([arrow_schemas.RUNS_FILE_SCHEMA.field("run_id")])
        ids: list[str] = sealed_parquet.read_table(self.day_path(day), schema)["run_id"].to_pylist()
        return ids

    def write_day(self, day: str, table: pa.Table) -> None:
        """Replace a day's file. It stays where it became empty: a query may have it in its list of files."""
        from pipeline import day_files

        self.write_packed_day(day, day_files.packed_table(table))

    def write_packed_day(self, day: str, content: memoryview) -> None:
        """Replace a day's file, as `write_day` does, by what it is to be (see `day_files`)."""
        durable.write_file(self.day_path(day), content)

    def remove_day(self, day: str) -> None:
        """Remove a day's file and folder. No reader may have it in its list any more: empty it long before."""
        durable.remove_file(self.day_path(day))
        with contextlib.suppress(OSError):  # something else is in it
            self.day_path(day).parent.rmdir()

    # Loads and dead letters

    def read_loads(self) -> pa.Table:
        """Return all loads, oldest first."""
        import pyarrow as pa

        from pipeline import arrow_schemas, sealed_parquet

        schema = arrow_schemas.LOADS_SCHEMA
        tables = [sealed_parquet.read_table(path, schema) for path in self.load_paths()]
        return pa.concat_tables(tables) if tables else schema.empty_table()

    def write_load(self, row: dict[str, Any], *, new_log: Path | None = None) -> None:
        """Write one load's row in place of an earlier one of the same ID, with the checksum of its raw log at rest.

        Where as much of the log had landed before the checksum stays, unless a new log takes the place of what it was.
        """
        import pyarrow as pa

        from pipeline import arrow_schemas, sealed_parquet

        load_id, schema = row["load_id"], arrow_schemas.LOADS_SCHEMA
        path = self.loads_folder / f"{load_id[:4]}-{load_id[4:6]}.parquet"
        loads = sealed_parquet.read_table(path, schema)
        load_ids = loads["load_id"].to_pylist()
        start, end = bisect_left(load_ids, load_id), bisect_right(load_ids, load_id)
        before = None if new_log else next(iter(loads.slice(start, end - start).to_pylist()), None)
        row = row | {"raw_sha256": self.raw_sha256(row, before, new_log)}
        table = pa.Table.from_pylist([row], schema=schema)
        durable.write_file(
            path, sealed_parquet.parquet_bytes(pa.concat_tables([loads.slice(0, start), table, loads.slice(end)]))
        )

    def raw_sha256(self, row: dict[str, Any], before: dict[str, Any] | None, new_log: Path | None) -> str | None:
        """Return the checksum of a load's log, or null where it is not kept or still written; see `write_load`."""
        path = None if row["raw_file"] is None else new_log or self.folder / row["raw_file"]
        if path is None or row["state"] == "running":
            return None
        if before is not None and before["raw_sha256"] and before["raw_bytes"] == row["raw_bytes"]:
            return str(before["raw_sha256"])
        if not path.exists():
            return None
        return sealed.digest_of(path, row["raw_bytes"])

    def read_dead_letters(self) -> pa.Table:
        """Return the IDs that did not come."""
        from pipeline import arrow_schemas, sealed_parquet

        return sealed_parquet.read_table(self.dead_letters_path, arrow_schemas.DEAD_LETTERS_SCHEMA)

    def write_dead_letters(self, table: pa.Table) -> None:
        """Replace the dead letters."""
        from pipeline import arrow_schemas, sealed_parquet

        table = table.cast(arrow_schemas.DEAD_LETTERS_SCHEMA)
        durable.write_file(self.dead_letters_path, sealed_parquet.parquet_bytes(table))

    def load_paths(self) -> list[Path]:
        """Return where the loads are, oldest first."""
        return sorted(self.loads_folder.glob("*.parquet")) if self.loads_folder.is_dir() else []

    def parquet_files(self) -> list[tuple[Path, pa.Schema]]:
        """Return where the Parquet files are, and their declared schemas; that of dead letters may be missing."""
        from pipeline.arrow_schemas import DEAD_LETTERS_SCHEMA, LOADS_SCHEMA, RUNS_FILE_SCHEMA

        files = [(self.day_path(day), RUNS_FILE_SCHEMA) for day in self.days()]
        files += [(path, LOADS_SCHEMA) for path in self.load_paths()]
        return [*files, (self.dead_letters_path, DEAD_LETTERS_SCHEMA)]

    def ask(self, query: Callable[[], T], *, may_wait: bool = True) -> T:
        """Return what a query over the files gives, asked again where one was replaced meanwhile.

        DuckDB opens a file more than once a query: it may fail then, or read the new file by the old one's footer,
        which gives wrong rows. If this goes on, it is asked in a pause of the writers, or, of who may not wait for
        that, refused with LakeError. Raises LakeDamagedError where a file is not what was written.
        """
        from pipeline import duckdb_core

        for _ in range(_ASKED_AGAIN):
            before = self.versions()
            try:
                found = query()
            except (duckdb_core.Error, UsageError) as error:
                if self.versions() == before:
                    if isinstance(error, duckdb_core.Error):
                        self.raise_damage()
                    raise
            else:
                if self.versions() == before:
                    return found
            time.sleep(_PAUSE_S)
        if may_wait:
            with self.locked_here():
                return query()
        raise LakeError(f"{self.name}: its files are being replaced all the while; ask again when the load has landed")

    def versions(self) -> list[tuple[str, int, int]]:
        """Return what changes whenever a Parquet file is replaced."""
        others = [path for path in (*self.load_paths(), self.dead_letters_path) if path.exists()]
        stats = [*self.day_stats().items(), *((str(path), path.stat()) for path in others)]
        versions = [(name, found.st_mtime_ns, found.st_ino) for name, found in stats]
        return [*versions, ("", self.mirror.stamp(), 0)] if self.mirror else versions

    def raise_damage(self, *, footers_only: bool = False) -> None:
        """Raise LakeDamagedError naming the first Parquet file that is not what was written, if there is one."""
        from pipeline import sealed_parquet

        for path, schema in self.parquet_files():
            if footers_only:
                sealed_parquet.read_footer(path)
            else:
                sealed_parquet.read_table(path, schema)

    # Raw logs

    def raw_logs(self) -> list[Path]:
        """Return all raw logs, oldest first; of a lake in a bucket those that are here."""
        from pipeline import raw  # here, since who only asks does without

        return sorted(self.raw_folder.glob(f"*/*{raw.SUFFIX}")) if self.raw_folder.is_dir() else []

    def fetch_logs(self) -> list[Path]:
        """Return all raw logs, oldest first, once those are here that are in a bucket."""
        if self.mirror is not None:
            self.mirror.pull_logs([log.path for log in self.unlanded_logs()])
        return self.raw_logs()

    def fetch_unlanded(self) -> None:
        """Bring here, from a bucket, the logs of loads that died on whichever machine."""
        if self.mirror is not None:
            rows = self.read_loads().select(["load_id", "state", "raw_file", "raw_bytes"]).to_pylist()
            ended = {
                row["load_id"]: math.inf if row["raw_file"] is None else row["raw_bytes"] or 0
                for row in rows
                if row["state"] != "running"
            }
            self.mirror.fetch_unlanded(self.raw_folder, ended)

    def unlanded_logs(self) -> list[UnlandedLog]:
        """Return the raw logs that hold more than has landed, or whose load has not ended, oldest first."""
        logs = self.raw_logs()
        if not logs:
            return []
        from pipeline import raw

        loads = self.read_loads()
        ids, sizes, states = (loads[name].to_pylist() for name in ("load_id", "raw_bytes", "state"))
        landed = dict(zip(ids, sizes, strict=True))
        running = {load_id for load_id, state in zip(ids, states, strict=True) if state == "running"}
        found = []
        for path in logs:
            load_id = path.name.removesuffix(raw.SUFFIX)
            offset = landed.get(load_id) or 0
            if path.stat().st_size > offset or load_id not in landed or load_id in running:
                found.append(UnlandedLog(path, load_id, offset))
        return found

    # Runs that change their day

    def read_moves(self) -> list[Move]:
        """Return the moves under way; empty but for the moment of one, or after a crash in it."""
        try:
            note = sealed.read_note(self.moving_path, is_of_other_version=_is_list)
        except FileNotFoundError:
            return []
        return [(run_id, old, new) for run_id, old, new in (note if _is_list(note) else note["moves"])]

    def write_moves(self, moves: list[Move]) -> None:
        """Note the moves before they begin, or with none that they are over."""
        if moves:
            durable.write_file(self.moving_path, sealed.note_bytes({"moves": moves}))
        elif self.moving_path.exists():
            durable.remove_file(self.moving_path)


def _is_other_version(note: Any) -> bool:
    return int(note["schema"]) != SCHEMA_VERSION


def _is_list(note: Any) -> bool:
    """Tell a note of an earlier version than schema 3, which had the list alone."""
    return isinstance(note, list)


def _refuse_pattern(folder: Path) -> None:
    found = [character for character in _PATTERN if character in str(folder)]
    if found:
        raise UsageError(f"{folder}: a lake's path cannot have {' or '.join(found)} in it; name another folder")


def _mirror_of(place: Path | str) -> Any:
    """Return the mirror of a lake in a bucket; None for a folder that is none."""
    if isinstance(place, str) and "://" in place:
        from pipeline.bucket.mirror import mirror_of  # here, since a lake in a folder needs none of it

        return mirror_of(place)
    # What is made of the mirror's own folder, in the course of a command, is of the same lake.
    return durable.replica_at(Path(place))
