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
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from pipeline import durable, raw
from pipeline.bucket import lease, logs, store
from pipeline.bucket.address import Address, cache_folder, read_address
from pipeline.bucket.lease import Lease
from pipeline.bucket.probe import has_conditions
from pipeline.bucket.pulling import RAW, SET_ASIDE, TRIES, Came, Copy, is_hidden
from pipeline.bucket.store import Tag
from pipeline.errors import LakeConflictError, LakeLockedError

Tell = Callable[[str], None]

_NOT_SHARED = ("ledger/",)
_TURN = ".turn"
_LOGS_KEPT_S = 86_400.0
_COMPARED_BYTES = 1 << 20
"""So long raw logs stay here that came for a command: longer than any that reads them."""

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


class Mirror(Copy):
    """One lake in a bucket, and its mirror. Making one touches nothing."""

    def __init__(self, address: Address, home: Path) -> None:
        super().__init__(address, home)
        self._tags: dict[str, Tag] = {}
        """The versions that this process's writers have read or written: what their puts are conditional on."""
        self._turn: Lease | None = None
        self._sync_turns: dict[str, Lease] = {}

    def __repr__(self) -> str:
        return f"<Mirror of {self.url}>"

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
        for _ in range(TRIES):
            known = self.index.known()
            listed = self.listing()
            if self.apply(listed, known) is Came.AS_LISTED:
                self._tags |= {name: each.tag for name, each in listed.items() if name.startswith(prefix)}
                return
        raise LakeConflictError(f"{self.url}: its files are being replaced all the while; type the same command again")

    def replace(self, temporary: Path, path: Path) -> None:
        """Put a file that was written into the bucket, then in its place here. Raises LakeConflictError where the
        object is not what this process has read or written last.
        """
        name = self.name_of(path)
        tag = self._put(name, temporary)
        with self.swapping():
            temporary.replace(path)
            durable.sync_folder(path.parent)
            self.index.note(name, tag, path)

    def remove(self, path: Path) -> None:
        """Remove a file, from the bucket first."""
        name = self.name_of(path)
        if name.startswith(RAW) or SET_ASIDE in name:
            # Named once and never again, so nobody else's can be meant.
            self.store.delete([name])
            self.settle(path.name.removesuffix(raw.SUFFIX))
        elif name in self._tags:
            self._put(name, None)
        with self.swapping():
            path.unlink(missing_ok=True)
            self.index.drop(name)

    def holds(self, path: Path) -> bool:
        """Tell whether a path in the mirror's folder is one that the bucket has too."""
        name = self.name_of(path)
        return not is_hidden(name) and not name.startswith(_NOT_SHARED)

    def _put(self, name: str, content: Path | None) -> Tag:
        turn = self._sync_turns.get(name.split("/")[1]) if name.startswith("sync/") else None
        turn = turn or self._turn
        if turn is not None:
            turn.check()
        over = self._tags.get(name)
        is_one_put = content is None or content.stat().st_size <= store.ONE_PUT_BYTES
        if is_one_put and self._is_conditional(lambda _message: None):
            tag = self.store.put(name, content or b"", over=over)
        else:
            # The store has no conditions, or none for what takes several requests: the turn alone keeps others out.
            there = self.store.head(name)
            if (None if there is None else there.tag) != over:
                raise LakeConflictError(f"{self.url}: another writer has replaced {name}; type the same command again")
            tag = self.store.put_always(name, content or b"")
        self._tags[name] = tag
        return tag

    # Raw logs

    def pull_logs(self, unlanded: Collection[Path]) -> None:
        """Download the raw logs that are not here, and remove those that are not in the bucket any more.

        Those here that have not landed are in no bucket yet, and stay; but for one that is what the bucket once had: it
        only seems longer than what has landed, since another machine has taken out what was forgotten.
        """
        known = self.index.known()
        listed = {each.name: each for each in self.store.list_below("raw") if not is_hidden(each.name)}
        own = {name for path in unlanded if (name := self.name_of(path)) not in known or not known[name].is_in(path)}
        for name in [name for name in known if name.startswith(RAW) and name not in listed and name not in own]:
            self.remove_here(name)
        for name, entry in listed.items():
            self._tags[name] = entry.tag
        changed = [each for name, each in listed.items() if name not in own and not self.is_here(each, known.get(name))]
        self.take(changed, [], known)

    def let_go(self, unlanded: Callable[[], Collection[Path]]) -> None:
        """Remove raw logs from here that the bucket has, and that no command has needed for a day."""
        since = time.time() - _LOGS_KEPT_S
        old = [path for path in self.folder.glob(f"{RAW}*/*{raw.SUFFIX}") if path.stat().st_mtime < since]
        if old:
            known, needed = self.index.known(), set(unlanded())
            for path in old:
                if self.name_of(path) in known and path not in needed:
                    self.remove_here(self.name_of(path))

    def begin_load(self, load_id: str, path: Path) -> logs.Shipping:
        """Say that a load is at work, and return what brings its log to the bucket."""
        if not self._is_conditional(lambda _message: None) and (others := self.loads_elsewhere()):
            raise LakeLockedError(
                f"{self.url}: load {', '.join(sorted(others))} is at work on another machine, and this store has no "
                "conditional writes, without which two writers could lose each other's rows; let it finish"
            )
        shipping = logs.Shipping(self.store, load_id, path, self.index.holder())
        shipping.begin()
        # Who forgets runs waits for the loads at work that are seen; and this one must see what is forgotten already.
        known = self.index.known()
        if (erased := self.store.head("erased.json")) is not None and not self.is_here(erased, known.get(erased.name)):
            self.take([erased], [], known)
        return shipping

    def is_at_work_elsewhere(self, load_id: str, path: Path) -> bool:
        """Tell whether a load is at work on another machine. One whose whole log the bucket has is not."""
        return not self.index.has(self.name_of(path)) and load_id in self.loads_elsewhere()

    def loads_elsewhere(self) -> set[str]:
        """Return the loads that are at work on other machines."""
        holder, now = self.index.holder(), logs.now_of(self.clock)
        found = logs.list_loading(self.store)
        return {each.load_id for each in found if not each.is_of(holder) and each.is_alive(now)}

    def fetch_unlanded(self, raw_folder: Path, ended: Mapping[str, float]) -> None:
        """Bring here what the bucket has of the logs of loads that died before their end, on whichever machine.

        `ended` has the loads that need nothing more, and up to which size of their logs: such parts are removed.
        """
        holder, now = self.index.holder(), logs.now_of(self.clock)
        for loading in logs.list_loading(self.store):
            path = raw.raw_path(raw_folder, loading.load_id)
            is_longer_here = path.exists() and path.stat().st_size >= loading.end
            if is_longer_here or (not loading.is_of(holder) and loading.is_alive(now)):
                continue
            has_landed = loading.end <= ended.get(loading.load_id, -1)
            if has_landed or (not loading.parts and not loading.is_alive(now)):
                self.store.delete(loading.names)
            elif loading.parts:
                self._assemble(loading, path)

    def _assemble(self, loading: logs.Loading, path: Path) -> None:
        durable.make_folder(path.parent)
        with self.downloads() as scratch:
            # There is a whole one where another machine landed the first part, or this load died at its very end.
            self.store.download(self.name_of(path), scratch / "whole")
            logs.assemble(self.store, loading, scratch / "whole")
            (scratch / "whole").replace(path)

    def publish(self, path: Path) -> bool:
        """Put a whole log into the bucket; tell whether that could be: not over one that this one does not go on from,
        such as one of which another machine has taken out what was forgotten.
        """
        name = self.name_of(path)
        with self.downloads() as scratch:
            there = self.store.download(name, scratch / "there")
            if there is not None and not _begins_with(path, scratch / "there"):
                return False
        if there is not None:
            self._tags[name] = there.tag
        tag = self._put(name, path)
        self.index.note(name, tag, path)
        return True

    def settle(self, load_id: str) -> None:
        """Remove the parts of a log that is whole in the bucket, or not kept."""
        names = [each.name for each in self.store.list_below(f"{logs.FOLDER}/{load_id}")]
        self.store.delete(names)


def _begins_with(path: Path, other: Path) -> bool:
    """Tell whether a file begins with all that another one holds."""
    with path.open("rb") as file, other.open("rb") as beginning:
        while part := beginning.read(_COMPARED_BYTES):
            if file.read(len(part)) != part:
                return False
    return True
