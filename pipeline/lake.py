"""The files of a lake, and whose turn it is to write them.

    LAKE/runs/day=YYYY-MM-DD/runs.parquet   one row a run, one file a day of creation (UTC), or day=unknown
    LAKE/raw/YYYY-MM/<load_id>.jsonl.zst    the raw log, one file a load
    LAKE/loads/YYYY-MM.parquet              one row a load, one file a month
    LAKE/dead_letters.parquet               one row an ID that did not come
    LAKE/moving.json                        only while runs change their day: which, from where, to where
    LAKE/lake.json                          the schema version that all day files have, as JSON
    LAKE/erased.json                        only if needed: what is gone for good, so that nothing brings it back
    LAKE/odd_days.json                      only if needed: days of runs whose creation time should be known and is not

A file is only ever replaced as a whole. Writers hold the lock; readers need none.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import filelock
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import durable, raw
from pipeline.errors import LakeDamagedError, LakeLockedError, UsageError
from pipeline.schema import (
    DEAD_LETTERS_SCHEMA,
    LOADS_SCHEMA,
    RUNS_FILE_SCHEMA,
    SCHEMA_VERSION,
)

UNKNOWN_DAY = "unknown"
_DAY_PREFIX = "day="
_FILE_NAME = "runs.parquet"
_LOCK_WAIT_S = 600.0
_TELL_AFTER_S = 2.0

Move = tuple[str, str, str]
"""A run that changes its day: its ID, the old day, the new one."""


@dataclass(frozen=True, slots=True)
class UnlandedLog:
    """A raw log with records that the lake may not have yet, from an offset on."""

    path: Path
    load_id: str
    offset: int


class LakeFiles:
    """Reads and writes the files of one lake. Making one touches nothing."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.runs_folder = self.folder / "runs"
        self.raw_folder = self.folder / "raw"
        self.loads_folder = self.folder / "loads"
        self.dead_letters_path = self.folder / "dead_letters.parquet"
        self.moving_path = self.folder / "moving.json"
        self.odd_days_path = self.folder / "odd_days.json"
        self.erased_path = self.folder / "erased.json"
        self.version_path = self.folder / "lake.json"

    # Whose turn it is

    @contextlib.contextmanager
    def writing(self, *, tell: Callable[[str], None] = lambda _message: None) -> Iterator[None]:
        """Hold the lake's lock: one writer at a time, the next waits its turn (for ten minutes, then LakeLockedError).

        What a writer that died left behind is put right first.
        """
        durable.make_folder(self.folder)
        lock = filelock.FileLock(self.folder / ".lock")
        try:
            try:
                lock.acquire(timeout=_TELL_AFTER_S)
            except filelock.Timeout:
                tell(f"{self.folder}: another process is writing; waiting for it")
                lock.acquire(timeout=_LOCK_WAIT_S)
        except filelock.Timeout as error:
            raise LakeLockedError(
                f"{self.folder}: another process has been writing for {_LOCK_WAIT_S / 60:.0f} minutes; "
                "wait for it, or stop it, and try again"
            ) from error
        try:
            self._remove_temporaries()
            self._upgrade(tell)
            yield
        finally:
            lock.release()

    def _remove_temporaries(self) -> None:
        for pattern in ("", "loads/", "runs/*/", "raw/*/"):
            for path in self.folder.glob(f"{pattern}.*{durable.TEMPORARY_SUFFIX}"):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)

    def is_current(self) -> bool:
        """Return whether all day files are known to have this version's columns. Readers of others must fill them in.

        Raises LakeDamagedError where a newer version of this program wrote the lake.
        """
        try:
            version = int(json.loads(self.version_path.read_text())["schema"])
        except FileNotFoundError:
            return not self.days()
        except (ValueError, KeyError, TypeError) as error:
            raise LakeDamagedError(f"{self.version_path}: not what this program wrote ({error}); remove it") from error
        if version > SCHEMA_VERSION:
            raise LakeDamagedError(_newer(self.version_path, version))
        return version == SCHEMA_VERSION

    def _upgrade(self, tell: Callable[[str], None]) -> None:
        """Give all day files of an earlier version the columns of this one; what they cannot know is null."""
        if not self.is_current():
            days = self.days()
            tell(f"{self.folder}: an earlier version wrote this lake; bringing its {len(days):,} day files up to date")
            for day in days:
                self.write_day(day, self.read_day(day))
        elif self.version_path.exists():
            return
        durable.write_file(self.version_path, json.dumps({"schema": SCHEMA_VERSION}).encode())

    def load_lock(self, load_id: str) -> filelock.BaseFileLock:
        """Return the lock that a load holds as long as its process lives."""
        return filelock.FileLock(self.load_lock_path(load_id), thread_local=False)

    def running_loads(self) -> set[str]:
        """Return the loads that are at work at this moment, in whichever process."""
        found = set()
        for path in self.raw_folder.glob("*/*.lock"):
            lock = self.load_lock(path.stem)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                found.add(path.stem)
            else:
                lock.release()
        return found

    def load_lock_path(self, load_id: str) -> Path:
        """Return where that lock is."""
        return raw.raw_path(self.raw_folder, load_id).with_name(f"{load_id}.lock")

    # Runs

    def days(self) -> list[str]:
        """Return the days that have a file, oldest first, `unknown` last."""
        if not self.runs_folder.is_dir():
            return []
        names = (path.name for path in self.runs_folder.iterdir() if path.name.startswith(_DAY_PREFIX))
        days = (name.removeprefix(_DAY_PREFIX) for name in names)
        return sorted(day for day in days if self.day_path(day).is_file())

    def day_path(self, day: str) -> Path:
        """Return where a day's file is."""
        return self.runs_folder / f"{_DAY_PREFIX}{day}" / _FILE_NAME

    def day_paths(self) -> list[str]:
        """Return the paths of all days' files."""
        return [str(self.day_path(day)) for day in self.days()]

    def days_changed_since(self, time: datetime) -> list[str]:
        """Return the days whose files were replaced at that time or later, by this machine's clock."""
        return [day for day in self.days() if self.day_path(day).stat().st_mtime >= time.timestamp()]

    def read_day(self, day: str) -> pa.Table:
        """Return a day's rows with the whole declared schema; no rows where there is no file."""
        return _read_table(self.day_path(day), RUNS_FILE_SCHEMA)

    def write_day(self, day: str, table: pa.Table) -> None:
        """Replace a day's file. It stays where it became empty: a query may have it in its list of files."""
        table = table.cast(RUNS_FILE_SCHEMA).sort_by("run_id")
        durable.write_file(self.day_path(day), _parquet_bytes(table))

    def remove_day(self, day: str) -> None:
        """Remove a day's file and folder. No reader may have it in its list any more: empty it long before."""
        durable.remove_file(self.day_path(day))
        with contextlib.suppress(OSError):  # something else is in it
            self.day_path(day).parent.rmdir()

    # Loads and dead letters

    def read_loads(self) -> pa.Table:
        """Return all loads, oldest first."""
        tables = [_read_table(path, LOADS_SCHEMA) for path in self._load_paths()]
        return pa.concat_tables(tables) if tables else LOADS_SCHEMA.empty_table()

    def write_load(self, row: dict[str, Any]) -> None:
        """Write one load's row in place of an earlier one of the same ID."""
        load_id = row["load_id"]
        path = self.loads_folder / f"{load_id[:4]}-{load_id[4:6]}.parquet"
        others = _read_table(path, LOADS_SCHEMA)
        others = others.filter(pc.not_equal(others["load_id"], load_id))
        table = pa.concat_tables([others, pa.Table.from_pylist([row], schema=LOADS_SCHEMA)]).sort_by("load_id")
        durable.write_file(path, _parquet_bytes(table))

    def read_dead_letters(self) -> pa.Table:
        """Return the IDs that did not come."""
        return _read_table(self.dead_letters_path, DEAD_LETTERS_SCHEMA)

    def write_dead_letters(self, table: pa.Table) -> None:
        """Replace the dead letters."""
        durable.write_file(self.dead_letters_path, _parquet_bytes(table.cast(DEAD_LETTERS_SCHEMA)))

    def _load_paths(self) -> list[Path]:
        return sorted(self.loads_folder.glob("*.parquet")) if self.loads_folder.is_dir() else []

    def raise_damage(self, *, footers_only: bool = False) -> None:
        """Raise LakeDamagedError naming the first Parquet file that cannot be read, if there is one."""
        tables = [(self.day_path(day), RUNS_FILE_SCHEMA) for day in self.days()]
        tables += [(path, LOADS_SCHEMA) for path in self._load_paths()]
        for path, schema in [*tables, (self.dead_letters_path, DEAD_LETTERS_SCHEMA)]:
            _read_table(path, schema, footer_only=footers_only)

    # Raw logs

    def raw_logs(self) -> list[Path]:
        """Return all raw logs, oldest first."""
        return sorted(self.raw_folder.glob(f"*/*{raw.SUFFIX}")) if self.raw_folder.is_dir() else []

    def unlanded_logs(self) -> list[UnlandedLog]:
        """Return the raw logs that hold more than has landed, oldest first; loads that are still running too."""
        logs = self.raw_logs()
        if not logs:
            return []
        loads = self.read_loads()
        landed = dict(zip(loads["load_id"].to_pylist(), loads["raw_bytes"].to_pylist(), strict=True))
        found = []
        for path in logs:
            load_id = path.name.removesuffix(raw.SUFFIX)
            offset = landed.get(load_id) or 0
            if path.stat().st_size > offset or load_id not in landed:
                found.append(UnlandedLog(path, load_id, offset))
        return found

    # Runs that change their day, or may stand under another than their kind's runs do

    def read_odd_days(self) -> list[str]:
        """Return the days that may hold runs without a creation time of kinds whose payloads always tell it."""
        try:
            return [str(day) for day in json.loads(self.odd_days_path.read_text())]
        except FileNotFoundError:
            return []

    def write_odd_days(self, days: set[str]) -> None:
        """Note such days, before their runs are written."""
        if sorted(days) != self.read_odd_days():
            durable.write_file(self.odd_days_path, json.dumps(sorted(days)).encode())

    def read_moves(self) -> list[Move]:
        """Return the moves under way; empty but for the moment of one, or after a crash in it."""
        try:
            text = self.moving_path.read_text()
        except FileNotFoundError:
            return []
        try:
            return [(run_id, old, new) for run_id, old, new in json.loads(text)]
        except ValueError as error:
            raise LakeDamagedError(f"{self.moving_path}: not what this program wrote ({error}); remove it") from error

    def write_moves(self, moves: list[Move]) -> None:
        """Note the moves before they begin, or with none that they are over."""
        if moves:
            durable.write_file(self.moving_path, json.dumps(moves).encode())
        elif self.moving_path.exists():
            durable.remove_file(self.moving_path)


def existing_lake(folder: Path | str) -> LakeFiles:
    """Return the lake in a folder; raise UsageError where nothing says that there is one."""
    lake = LakeFiles(folder)
    if not any(path.exists() for path in (lake.runs_folder, lake.raw_folder, lake.loads_folder)):
        raise UsageError(
            f"{lake.folder}: no lake here; fill one with `pipeline fetch`, or try `pipeline demo`, "
            "or name another folder with --lake"
        )
    return lake


def _parquet_bytes(table: pa.Table) -> memoryview:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True, row_group_size=131_072)
    return memoryview(sink.getvalue())


def _read_table(path: Path, schema: pa.Schema, *, footer_only: bool = False) -> pa.Table:
    """Return a file's rows in the declared schema; columns that an older version did not have are null.

    With `footer_only` no rows are read, and none returned.
    """
    try:
        with pq.ParquetFile(path) as file:
            _check_version(path, file.schema_arrow)
            table = file.schema_arrow.empty_table() if footer_only else file.read()
    except FileNotFoundError:
        return schema.empty_table()
    except (pa.ArrowException, OSError) as error:
        raise LakeDamagedError(
            f"{path}: cannot be read as Parquet ({error}); move it away and run `pipeline rebuild`"
        ) from error
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _check_version(path: Path, found: pa.Schema) -> None:
    version = (found.metadata or {}).get(b"pipeline_schema")
    if version is not None and int(version) > SCHEMA_VERSION:
        raise LakeDamagedError(_newer(path, int(version)))


def _newer(path: Path, version: int) -> str:
    return (
        f"{path}: written by a newer version of this program (schema {version}, this one knows up to "
        f"{SCHEMA_VERSION}); upgrade with `pip install --upgrade extend-pipeline`"
    )
