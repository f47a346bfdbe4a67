"""A copy of a bucket's lake in a folder of this machine, brought up to date: what changed comes, what is gone goes."""

from __future__ import annotations

import contextlib
import enum
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock

from pipeline import durable
from pipeline.bucket.address import Address
from pipeline.bucket.index import Index, Known
from pipeline.bucket.lease import Clock
from pipeline.bucket.store import Entry, Store, Tag
from pipeline.errors import LakeError

RAW = "raw/"
TRIES = 8
"""So often a copy is brought up to date anew where files were replaced meanwhile."""
_STRICT_TRIES = 3
SET_ASIDE = ".damaged-"
"""In the names of damaged files that a repair has set aside."""
_NOTES = (".json", ".parquet")
_FOLDERS = ("runs", "loads", "sync")
_TOGETHER = 8  # so many objects are downloaded side by side


class Came(enum.Enum):
    """What became of files that were listed."""

    AS_LISTED = enum.auto()
    NEWER = enum.auto()
    """All are here, some as they were replaced since."""
    NOT = enum.auto()
    """Some are not."""


class Copy:
    """A folder that is what a bucket was at the last pull. Making one touches nothing."""

    def __init__(self, address: Address, home: Path) -> None:
        self.url, self.home, self.folder = address.url, home, home / "lake"
        self.index = Index(home / "objects.sqlite")
        self._address = address
        self._opened: Store | None = None

    @property
    def store(self) -> Store:
        """The bucket, opened when it is asked for first."""
        if self._opened is None:
            self._opened = Store(self._address)
        return self._opened

    @property
    def clock(self) -> Clock:
        """The store's clock."""
        return Clock(self.store, self.index.holder())

    def pull(self) -> None:
        """Make the mirror what the bucket is, as of one moment; raw logs are left out.

        While a landing goes on there may be no such moment: then each file as of some moment since this began, provided
        that no run moved from day to day meanwhile, is taken for good. Raises LakeError where there is no end of moves.
        """
        for attempt in range(TRIES):
            known = self.index.known()  # before the list: what is noted after it is no older than the list
            listed = self.listing()
            came = self.apply(listed, known)
            again = self.listing()
            if came is Came.AS_LISTED and _versions(again) == _versions(listed):
                return
            if came is not Came.NOT and attempt >= _STRICT_TRIES and _has_no_moves(listed, again):
                return
        raise LakeError(f"{self.url}: its files are being replaced all the while; ask again when the load has landed")

    def pull_days(self, choose: Callable[[list[str]], Collection[str]]) -> Collection[str] | None:
        """Make the mirror what the bucket is, but of the days' files only those that are chosen of all; return which
        these are. None, where that cannot be: while runs are on their way from day to day.
        """
        for _ in range(TRIES):
            known = self.index.known()
            listed = self.listing()
            if not _has_no_moves(listed, listed):
                return None
            days = {name: day for name, each in listed.items() if (day := _day_of(name)) is not None and each.size}
            chosen = choose(sorted(days.values()))
            kept = {name: each for name, each in listed.items() if name not in days or days[name] in chosen}
            came = self.apply(kept, known, is_all=False)
            if came is Came.AS_LISTED and _versions(self.listing()) == _versions(listed):
                return chosen
        return None

    def fetch_again(self, paths: Iterable[Path]) -> None:
        """Take files for not being here, so that those of the bucket come in their place."""
        for path in paths:
            self.index.drop(self.name_of(path))
        self.pull()

    def sizes(self) -> tuple[int, int, int]:
        """Return how many bytes the bucket holds: of runs, of raw logs, of everything."""
        everything = self.store.list_below("")
        runs, raw_logs = (sum(each.size for each in everything if each.name.startswith(of)) for of in ("runs/", RAW))
        return runs, raw_logs, sum(each.size for each in everything)

    def listing(self) -> dict[str, Entry]:
        """Return what the bucket has of the mirror's files, by name; those of no bytes were removed."""
        return {each.name: each for each in self.store.list_but("raw") if _is_of_lake(each.name)}

    def apply(self, listed: dict[str, Entry], known: dict[str, Known], *, is_all: bool = True) -> Came:
        """Make the mirror what was listed; tell whether it is that now. Without `is_all`, other days stay as is."""
        changed = [each for name, each in listed.items() if each.size and not self.is_here(each, known.get(name))]
        gone = [
            name
            for name in self._names_here()
            if (each := listed.get(name)) is None or not each.size
            if is_all or _day_of(name) is None
        ]
        return self.take(changed, gone, known) if changed or gone or self.stamp() else Came.AS_LISTED

    def take(self, changed: list[Entry], gone: list[str], known: dict[str, Known]) -> Came:
        """Download what changed, remove what is gone; `known` is what was noted before that was found out."""
        came_as = Came.AS_LISTED
        with self.downloads() as scratch:
            came = self._download(changed, scratch)
            with self.swapping():
                noted = self.index.known()
                for listed, entry, path in came:
                    if entry is None or not entry.size or noted.get(listed.name) != known.get(listed.name):
                        came_as = Came.NOT  # gone meanwhile, or a writer of this machine was here
                        continue
                    if entry.tag != listed.tag and came_as is Came.AS_LISTED:
                        came_as = Came.NEWER
                    into = self.folder / entry.name
                    durable.make_folder(into.parent)
                    path.replace(into)
                    self.index.note(entry.name, entry.tag, into)
                for name in gone:
                    if noted.get(name) == known.get(name):
                        self.remove_here(name)
                    else:
                        came_as = Came.NOT
        return came_as

    @contextlib.contextmanager
    def downloads(self) -> Iterator[Path]:
        """Make a folder for what is downloaded, and remove it afterwards."""
        folder = self.home / f"downloads-{os.getpid()}-{os.urandom(4).hex()}"
        durable.make_folder(folder, is_private=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _download(self, entries: list[Entry], scratch: Path) -> list[tuple[Entry, Entry | None, Path]]:
        def download(numbered: tuple[int, Entry]) -> tuple[Entry, Entry | None, Path]:
            number, entry = numbered
            path = scratch / str(number)
            return entry, self.store.download(entry.name, path), path

        if len(entries) < 2:
            return [download(each) for each in enumerate(entries)]
        with ThreadPoolExecutor(_TOGETHER, "download") as pool:
            return list(pool.map(download, enumerate(entries)))

    def is_here(self, entry: Entry, known: Known | None) -> bool:
        """Tell whether the file here is this version of the object."""
        return known is not None and known.tag == entry.tag and known.is_in(self.folder / entry.name)

    def _names_here(self) -> list[str]:
        names = [path.name for path in self.folder.glob("*") if path.is_file()] if self.folder.is_dir() else []
        for folder in _FOLDERS:
            names += [self.name_of(path) for path in (self.folder / folder).rglob("*") if path.is_file()]
        return [name for name in names if not is_hidden(name)]

    def remove_here(self, name: str) -> None:
        """Remove the file here alone."""
        (self.folder / name).unlink(missing_ok=True)
        if _day_of(name) is not None:
            with contextlib.suppress(OSError):
                (self.folder / name).parent.rmdir()
        self.index.drop(name)

    @contextlib.contextmanager
    def swapping(self) -> Iterator[None]:
        """Hold what whoever changes files and their notes holds, for moments.

        Readers of the mirror see by the mark that files are just now being replaced (see `stamp`).
        """
        mark = self.home / "swapping"
        with filelock.FileLock(self.home / ".swap.lock"):
            mark.touch()
            yield
            mark.unlink()

    def stamp(self) -> int:
        """Return zero; while files are being replaced, or were not to the end, another number each time."""
        return time.monotonic_ns() if (self.home / "swapping").exists() else 0

    def name_of(self, path: Path) -> str:
        """Return the object's name of a file."""
        return path.relative_to(self.folder).as_posix()


def is_hidden(name: str) -> bool:
    """Tell what stands for itself in a folder or a bucket: locks, leases, temporary files; and what leads elsewhere."""
    return any(not part or part.startswith(".") for part in name.split("/"))


def _is_of_lake(name: str) -> bool:
    """Tell what of the bucket is a file of the mirror: it may have anything beside."""
    first, _, rest = name.partition("/")
    return not is_hidden(name) and (first in _FOLDERS if rest else first.endswith(_NOTES) or SET_ASIDE in first)


def _day_of(name: str) -> str | None:
    """Return the day whose file this is; None for any other."""
    parts = name.split("/")
    is_day = len(parts) == 3 and parts[0] == "runs" and parts[1].startswith("day=")
    return parts[1].removeprefix("day=") if is_day else None


def _has_no_moves(listed: dict[str, Entry], again: dict[str, Entry]) -> bool:
    """Tell whether no run was on its way from day to day at any moment between two lists: each move writes and removes
    the note of it.
    """
    before, after = (each.get("moving.json") for each in (listed, again))
    if before is None or after is None:
        return before is after
    return not before.size and (before.tag, before.modified) == (after.tag, after.modified)


def _versions(listed: dict[str, Entry]) -> dict[str, Tag]:
    return {name: each.tag for name, each in listed.items()}
