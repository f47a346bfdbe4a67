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
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from pipeline import duckdb_core, durable, sealed
from pipeline.lake import LakeFiles
from pipeline.reports import read_sql

VERSION = 2
"""1: the first, which the manifest did not say. 2: with checksums."""

WORTH_BYTES = 64 * 1024 * 1024
"""The size of a lake's runs from which on a ledger beside it pays: below, the view takes a second or two."""

_LOCK_WAIT_S = 600.0
_PASSES = 3
SUMS = ("credit_sums", "run_sums")
_QUERIES = ("credit_lines", "ledger_mentions", "ledger_lines", "ledger_credit_sums", "ledger_run_sums")

Tell = Callable[[str], None]
Stamp = tuple[int, int, int]


class Day(NamedTuple):
    """One day of the ledger: the stamp of the runs' file that it was made of, and which of its files are in force."""

    stamp: Stamp
    lines: int
    ids: int


class Manifest(NamedTuple):
    """What the ledger consists of. `made_by` changes with whatever else its content depends on."""

    made_by: str
    number: int = 0
    days: Mapping[str, Day] = MappingProxyType({})
    sums: int = 0


class Kept(NamedTuple):
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
        self._found: tuple[tuple[Stamp, dict[str, Stamp]], Kept] | None = None

    def current_paths(self) -> list[str] | None:
        """Return the files that are the ledger of the lake as it is at this moment; None where there are none, or one
        of them is not what was written.
        """
        kept = self.current()
        return list(kept.lines) if kept is not None and self.are_whole(kept.lines) else None

    def current(self, stamps: dict[str, Stamp] | None = None) -> Kept | None:
        """Return the ledger of the lake as it is at this moment (as these `stamps` say, where they are given); None
        where there is none. Its lines are not read.
        """
        try:
            manifest_stamp = stamp_of(self.manifest_path)
        except OSError:
            return None
        if self.files.moving_path.exists():
            return None
        of = (manifest_stamp, self.stamps() if stamps is None else stamps)
        if self._found is None or self._found[0] != of:
            kept = self._read_current(of[1])
            self._found = None if kept is None else (of, kept)
        elif not all(map(is_whole, map(Path, self._found[1].sums.values()))):
            self._found = None
        return self._found[1] if self._found else None

    def _read_current(self, stamps: dict[str, Stamp]) -> Kept | None:
        manifest = self.read_manifest()
        if not manifest.days or not manifest.sums or {day: each.stamp for day, each in manifest.days.items()} != stamps:
            return None
        sums = {name: self.sums_path(name, manifest.sums) for name in SUMS}
        lines = tuple(str(self.lines_path(day, each.lines)) for day, each in manifest.days.items())
        if not all(map(is_whole, sums.values())) or not all(map(os.path.exists, lines)):
            return None
        return Kept(lines, {name: str(path) for name, path in sums.items()})

    def are_whole(self, lines: Iterable[str]) -> bool:
        """Tell whether these files are all what was written. One that is not is removed, to be made anew next time."""
        damaged = [path for path in map(Path, lines) if not is_whole(path)]
        if damaged:
            self._found = None
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

        from pipeline import ledger_work

        durable.make_folder(self.folder)
        days = 0
        with filelock.FileLock(self.folder / ".lock", timeout=_LOCK_WAIT_S):
            for _ in range(_PASSES):
                if self.files.moving_path.exists() or self.current() is not None:
                    break
                days += ledger_work.bring_up_to_date(self, tell)
        return days

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

    def write_manifest(self, manifest: Manifest, before: Manifest) -> None:
        """Put the new files in force. Those of the version before stay until the next time: a query may be on them."""
        days = {day: each._asdict() for day, each in manifest.days.items()}
        note = {"version": VERSION, **manifest._asdict(), "days": days}
        durable.write_file(self.manifest_path, sealed.note_bytes(note))
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


def is_whole(path: Path) -> bool:
    """Tell whether a file of the ledger is there and what was written; each version of it is read once for that."""
    try:
        return _is_whole_file(path, stamp_of(path))
    except FileNotFoundError:
        return False


@lru_cache(maxsize=16_384)
def _is_whole_file(path: Path, _stamp: Stamp) -> bool:
    return sealed.is_parquet_whole(path.read_bytes()) is True


def is_of_other_version(manifest: Any) -> bool:
    """Tell a manifest that another version wrote, which may have no checksum."""
    return bool(manifest.get("version") != VERSION)


@cache
def _made_by() -> str:
    """Return what the ledger's content depends on beside the runs: the queries, and whose hashes the hashes are."""
    queries = "".join(read_sql(name) for name in _QUERIES)
    return f"{VERSION} duckdb {duckdb_core.__version__} {hashlib.sha256(queries.encode()).hexdigest()[:16]}"
