"""A lake in a bucket, mirrored in a folder of this machine, over which everything works as over any lake.

The bucket is the lake. Who reads pulls first: lists it, downloads what has changed, removes what is gone. Who writes
takes the turn of all machines (`lease`), pulls, and puts each file into the bucket before it takes its place here, on
the condition that the object is the version that was pulled: so objects are replaced in the order in which files are,
and a writer that lost its turn without knowing it changes nothing that another has written since.

    CACHE/<scheme>-<bucket>-<digest>/lake/…          the mirror
    CACHE/<scheme>-<bucket>-<digest>/objects.sqlite  which version of each object a file is (see `index`)

An object of no bytes is a file that was removed: so removing has a condition too. Raw logs go their own way (`logs`);
the ledger stays here, since it can be made anew.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock

from pipeline import durable, raw
from pipeline.bucket import lease, logs
from pipeline.bucket.address import Address, cache_folder, read_address
from pipeline.bucket.index import Index, Known
from pipeline.bucket.lease import Clock, Lease
from pipeline.bucket.probe import has_conditions
from pipeline.bucket.store import Entry, Store, Tag
from pipeline.errors import LakeConflictError, LakeError, LakeLockedError

Tell = Callable[[str], None]

_FOLDERS = ("runs", "loads", "sync")
_RAW = "raw/"
_NOT_SHARED = ("ledger/",)
_TURN = ".turn"
_TRIES = 8
_TOGETHER = 8  # so many objects are downloaded side by side
_SET_ASIDE = ".damaged-"
_CONDITIONAL_BYTES = 256 << 20

_opening = threading.Lock()


def mirror_of(url: str) -> Mirror:
    """Return the mirror of a bucket's lake, the same one for all who ask in this process. Touches nothing."""
    address = read_address(url)
    home = cache_folder(address)
    with _opening:
        found = durable.replica_at(home / "lake")
        if isinstance(found, Mirror):
            return found
        mirror = Mirror(address, home)
        durable.add_replica(mirror.folder, mirror)
        return mirror


class Mirror:
    """One lake in a bucket, and its mirror. Making one touches nothing."""

    def __init__(self, address: Address, home: Path) -> None:
        self.url, self.home, self.folder = address.url, home, home / "lake"
        self.index = Index(home / "objects.sqlite")
        self._address = address
        self._opened: Store | None = None
        self._tags: dict[str, Tag] = {}
        """The versions that this process's writers have read or written: what their puts are conditional on."""
        self._turn: Lease | None = None
        self._sync_turns: dict[str, Lease] = {}

    def __repr__(self) -> str:
        return f"<Mirror of {self.url}>"

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

    # Reading

    def pull(self) -> None:
        """Make the mirror what the bucket is, as of one moment; raw logs are left out.

        Raises LakeError where files are being replaced all the while.
        """
        for _ in range(_TRIES):
            known = self.index.known()  # before the list: what is noted after it is no older than the list
            listed = self._list()
            if self._apply(listed, known) and _versions(self._list()) == _versions(listed):
                return
        raise LakeError(f"{self.url}: its files are being replaced all the while; ask again when the load has landed")

    def pull_days(self, choose: Callable[[list[str]], Collection[str]]) -> Collection[str] | None:
        """Make the mirror what the bucket is, but of the days' files only those that are chosen of all; return which
        these are. None, where that cannot be: while runs are on their way from day to day.
        """
        for _ in range(_TRIES):
            known = self.index.known()
            listed = self._list()
            if (moving := listed.get("moving.json")) is not None and moving.size:
                return None
            days = {name: day for name, each in listed.items() if (day := _day_of(name)) is not None and each.size}
            chosen = choose(sorted(days.values()))
            kept = {name: each for name, each in listed.items() if name not in days or days[name] in chosen}
            if self._apply(kept, known, is_all=False) and _versions(self._list()) == _versions(listed):
                return chosen
        return None

    def pull_logs(self, unlanded: Collection[Path]) -> None:
        """Download the raw logs that are not here, and remove those that are not in the bucket any more.

        Those here that have not landed are in no bucket yet, and stay.
        """
        known = self.index.known()
        listed = {each.name: each for each in self.store.list_below("raw") if not _is_hidden(each.name)}
        own = {self._name(path) for path in unlanded}
        for name in [name for name in known if name.startswith(_RAW) and name not in listed and name not in own]:
            self._remove_here(name)
        for name, entry in listed.items():
            self._tags[name] = entry.tag
        changed = [
            each for name, each in listed.items() if name not in own and not self._is_here(each, known.get(name))
        ]
        self._replace(changed, [], known)

    def sizes(self) -> tuple[int, int, int]:
        """Return how many bytes the bucket holds: of runs, of raw logs, of everything."""
        everything = self.store.list_below("")
        runs, raw_logs = (sum(each.size for each in everything if each.name.startswith(of)) for of in ("runs/", _RAW))
        return runs, raw_logs, sum(each.size for each in everything)

    def _list(self) -> dict[str, Entry]:
        return {each.name: each for each in self.store.list_but("raw") if not _is_apart(each.name)}

    def _apply(self, listed: dict[str, Entry], known: dict[str, Known], *, is_all: bool = True) -> bool:
        """Make the mirror what was listed; tell whether it is that now. Without `is_all`, other days stay as is."""
        changed = [each for name, each in listed.items() if each.size and not self._is_here(each, known.get(name))]
        gone = [
            name
            for name in self._names_here()
            if (each := listed.get(name)) is None or not each.size
            if is_all or _day_of(name) is None
        ]
        return self._replace(changed, gone, known) if changed or gone or self.stamp() else True

    def _replace(self, changed: list[Entry], gone: list[str], known: dict[str, Known]) -> bool:
        as_listed = True
        scratch = self.home / f"downloads-{os.getpid()}-{secrets.token_hex(4)}"
        durable.make_folder(scratch, is_private=True)
        try:
            came = self._download(changed, scratch)
            with self._swapping() as noted:
                for listed, entry, path in came:
                    if entry is None or noted.get(listed.name) != known.get(listed.name):
                        as_listed = False  # gone meanwhile, or a writer of this machine was here
                        continue
                    as_listed = as_listed and entry.tag == listed.tag
                    into = self.folder / entry.name
                    durable.make_folder(into.parent)
                    path.replace(into)
                    self.index.note(entry.name, entry.tag, into)
                for name in gone:
                    if noted.get(name) == known.get(name):
                        self._remove_here(name)
                    else:
                        as_listed = False
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return as_listed

    def _download(self, entries: list[Entry], scratch: Path) -> list[tuple[Entry, Entry | None, Path]]:
        def download(numbered: tuple[int, Entry]) -> tuple[Entry, Entry | None, Path]:
            number, entry = numbered
            path = scratch / str(number)
            return entry, self.store.download(entry.name, path), path

        if len(entries) < 2:
            return [download(each) for each in enumerate(entries)]
        with ThreadPoolExecutor(_TOGETHER, "download") as pool:
            return list(pool.map(download, enumerate(entries)))

    def _is_here(self, entry: Entry, known: Known | None) -> bool:
        return known is not None and known.tag == entry.tag and known.is_in(self.folder / entry.name)

    def _names_here(self) -> list[str]:
        names = [path.name for path in self.folder.glob("*") if path.is_file()] if self.folder.is_dir() else []
        for folder in _FOLDERS:
            names += [self._name(path) for path in (self.folder / folder).rglob("*") if path.is_file()]
        return [name for name in names if not _is_hidden(name)]

    def _remove_here(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)
        if _day_of(name) is not None:
            with contextlib.suppress(OSError):
                (self.folder / name).parent.rmdir()
        self.index.drop(name)

    @contextlib.contextmanager
    def _swapping(self) -> Iterator[dict[str, Known]]:
        """Hold what whoever changes files and their notes holds, for moments; give the notes as they are then.

        Readers of the mirror see by the mark that files are just now being replaced (see `stamp`).
        """
        mark = self.home / "swapping"
        with filelock.FileLock(self.home / ".swap.lock"):
            mark.touch()
            yield self.index.known()
            mark.unlink()

    def stamp(self) -> int:
        """Return zero; while files are being replaced, or were not to the end, another number each time."""
        return time.monotonic_ns() if (self.home / "swapping").exists() else 0

    # Writing

    @contextlib.contextmanager
    def turn(self, *, wait_s: float, tell: Tell) -> Iterator[None]:
        """Hold the turn of all machines; the mirror is then what the bucket is, and stays it."""
        turn = self._lease(_TURN, tell)
        turn.take(wait_s=wait_s, tell=tell)
        self._turn = turn
        try:
            self._pull_to_write()
            yield
        finally:
            self._turn = None
            turn.give_back()

    @contextlib.contextmanager
    def sync_turn(self, workspace: str, *, tell: Tell) -> Iterator[None]:
        """Hold the turn of a workspace's sync; its states here are then those of the bucket.

        Raises LakeLockedError where another machine is at it: one that died is waited for as long as that takes to see.
        """
        turn = self._lease(f"sync/{workspace}/{_TURN}", tell)
        try:
            turn.take(wait_s=lease.LEASE_S * 1.2, tell=lambda _message: None)
        except LakeLockedError as error:
            raise LakeLockedError(
                f"{self.url}: another machine's sync of workspace {workspace} is at work on this lake; let it finish, "
                "then try again"
            ) from error
        self._sync_turns[workspace] = turn
        try:
            self._pull_to_write(f"sync/{workspace}/")
            yield
        finally:
            del self._sync_turns[workspace]
            turn.give_back()

    def _lease(self, name: str, tell: Tell) -> Lease:
        return Lease(self.store, name, self.index.holder(), is_conditional=self._is_conditional(tell))

    def _is_conditional(self, tell: Tell) -> bool:
        """Return whether the store has conditional writes, as was found out by the first writer."""
        found = self.index.fact("conditional")
        if found is None:
            found = "yes" if has_conditions(self.store) else "no"
            self.index.note_fact("conditional", found)
            if found == "no":
                tell(f"{self.url}: this store has no conditional writes; only one machine may write here at a time")
        return found == "yes"

    def _pull_to_write(self, prefix: str = "") -> None:
        for _ in range(_TRIES):
            known = self.index.known()
            listed = self._list()
            if self._apply(listed, known):
                self._tags |= {name: each.tag for name, each in listed.items() if name.startswith(prefix)}
                return
        raise LakeConflictError(f"{self.url}: its files are being replaced all the while; type the same command again")

    def replace(self, temporary: Path, path: Path) -> None:
        """Put a file that was written into the bucket, then in its place here. Raises LakeConflictError where the
        object is not what this process has read or written last.
        """
        name = self._name(path)
        tag = self._put(name, temporary)
        with self._swapping():
            temporary.replace(path)
            durable.sync_folder(path.parent)
            self.index.note(name, tag, path)

    def remove(self, path: Path) -> None:
        """Remove a file, from the bucket first."""
        name = self._name(path)
        if name.startswith(_RAW) or _SET_ASIDE in name:
            # Named once and never again, so nobody else's can be meant.
            self.store.delete([name])
            self.settle(path.name.removesuffix(raw.SUFFIX))
        elif name in self._tags:
            self._put(name, None)
        with self._swapping():
            path.unlink(missing_ok=True)
            self.index.drop(name)

    def holds(self, path: Path) -> bool:
        """Tell whether a path in the mirror's folder is one that the bucket has too."""
        name = self._name(path)
        return not _is_hidden(name) and not name.startswith(_NOT_SHARED)

    def _put(self, name: str, content: Path | None) -> Tag:
        turn = self._sync_turns.get(name.split("/")[1]) if name.startswith("sync/") else None
        turn = turn or self._turn
        if turn is not None:
            turn.check()
        over = self._tags.get(name)
        if content is not None and name.startswith(_RAW) and content.stat().st_size > _CONDITIONAL_BYTES:
            tag = self.store.put_always(name, content)  # in several requests, which can have no condition
        elif self._is_conditional(lambda _message: None):
            tag = self.store.put(name, b"" if content is None else content.read_bytes(), over=over)
        else:
            there = self.store.head(name)
            if (None if there is None else there.tag) != over:
                raise LakeConflictError(f"{self.url}: another writer has replaced {name}; type the same command again")
            tag = self.store.put_always(name, b"" if content is None else content.read_bytes())
        self._tags[name] = tag
        return tag

    # Raw logs

    def begin_load(self, load_id: str, path: Path) -> logs.Shipping:
        """Say that a load is at work, and return what brings its log to the bucket."""
        if not self._is_conditional(lambda _message: None) and (others := self.loads_elsewhere()):
            raise LakeLockedError(
                f"{self.url}: load {', '.join(sorted(others))} is at work on another machine, and this store has no "
                "conditional writes, without which two writers could lose each other's rows; let it finish"
            )
        shipping = logs.Shipping(self.store, load_id, path, self.index.holder())
        shipping.begin()
        return shipping

    def loads_elsewhere(self) -> set[str]:
        """Return the loads that are at work on other machines."""
        holder, now = self.index.holder(), logs.now_of(self.clock)
        found = logs.list_loading(self.store)
        return {each.load_id for each in found if not each.is_of(holder) and each.is_alive(now)}

    def fetch_unlanded(self, raw_folder: Path, ended: Collection[str]) -> None:
        """Bring here what the bucket has of the logs of loads that died before their end, on whichever machine.

        `ended` are loads that need nothing more: of these, parts that were left are removed.
        """
        holder, now = self.index.holder(), logs.now_of(self.clock)
        for loading in logs.list_loading(self.store):
            path = raw.raw_path(raw_folder, loading.load_id)
            is_longer_here = path.exists() and path.stat().st_size >= loading.size
            if is_longer_here or (not loading.is_of(holder) and loading.is_alive(now)):
                continue
            if loading.load_id in ended:
                self.store.delete(loading.names)
            elif loading.parts:
                self._assemble(loading, path)

    def _assemble(self, loading: logs.Loading, path: Path) -> None:
        scratch = self.home / f"downloads-{os.getpid()}-{secrets.token_hex(4)}"
        durable.make_folder(scratch, is_private=True)
        durable.make_folder(path.parent)
        try:
            whole = self.store.download(self._name(path), scratch / "whole")
            if whole is None or whole.size < loading.size:
                logs.assemble(self.store, loading, scratch / "whole", scratch / "part")
            (scratch / "whole").replace(path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def publish(self, path: Path) -> bool:
        """Put a whole log into the bucket; tell whether that could be: not over one that this one does not go on from,
        such as one of which another machine has taken out what was forgotten.
        """
        name = self._name(path)
        there = self.store.read(name)
        if there is not None:
            with path.open("rb") as file:
                if file.read(len(there[0])) != there[0]:
                    return False
            self._tags[name] = there[1].tag
        tag = self._put(name, path)
        self.index.note(name, tag, path)
        return True

    def settle(self, load_id: str) -> None:
        """Remove the parts of a log that is whole in the bucket, or not kept."""
        names = [each.name for each in self.store.list_below(f"{logs.FOLDER}/{load_id}")]
        self.store.delete(names)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _is_apart(name: str) -> bool:
    """Tell what of the bucket is no file of the mirror."""
    return _is_hidden(name) or name.startswith(f"{logs.FOLDER}/")


def _day_of(name: str) -> str | None:
    """Return the day whose file this is; None for any other."""
    parts = name.split("/")
    is_day = len(parts) == 3 and parts[0] == "runs" and parts[1].startswith("day=")
    return parts[1].removeprefix("day=") if is_day else None


def _versions(listed: dict[str, Entry]) -> dict[str, Tag]:
    return {name: each.tag for name, each in listed.items()}
