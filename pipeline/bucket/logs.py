"""Raw logs on their way to the bucket, in parts of whole frames, while their load is at work.

    loading/<load_id>/alive-<holder>     written when the load begins, and as long as it is at work
    loading/<load_id>/<offset>           the bytes of its log from an offset on, up to the next part
    raw/YYYY-MM/<load_id>.jsonl.zst      the whole log, once the load has ended; then the parts go

An object cannot be added to. A log that is sent whole every ten seconds would be sent n/2 times over in n rounds; parts
send each byte twice, once as they are and once in the whole.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.bucket import lease
from pipeline.bucket.lease import Clock
from pipeline.bucket.store import Entry, Store
from pipeline.errors import LakeConflictError, LakeError, StoreError

SHIP_EVERY_S = 10.0
"""What was taken reaches the bucket within about this time."""
FOLDER = "loading"
_ALIVE = "alive-"
_LOAD_ID = re.compile(r"[0-9TZ]{19}-[0-9a-f]{6}")
_PART_BYTES = 32 << 20


@dataclass(slots=True)
class Loading:
    """What the bucket has of a load that has not ended: signs of life, and parts of its log, in their order."""

    load_id: str
    alive: list[Entry] = field(default_factory=list)
    parts: list[Entry] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The names of all of its objects."""
        return [each.name for each in (*self.parts, *self.alive)]

    @property
    def end(self) -> int:
        """The offset up to which parts of the log are there."""
        return max((_offset(part) + part.size for part in self.parts), default=0)

    def is_alive(self, now: Callable[[], float]) -> bool:
        """Tell whether its process has given a sign of life lately; `now` is the store's time, as a POSIX time."""
        return (
            bool(self.alive)
            and now() - max(each.modified.timestamp() for each in (*self.alive, *self.parts)) <= lease.LEASE_S
        )

    def is_of(self, holder: str) -> bool:
        """Tell whether it was begun on a machine's own mirror."""
        return any(each.name.endswith(f"{_ALIVE}{holder}") for each in self.alive)


def list_loading(store: Store) -> list[Loading]:
    """Return the loads that have not ended, or whose parts are still there, the oldest first."""
    found: dict[str, Loading] = defaultdict(lambda: Loading(""))
    for entry in store.list_below(FOLDER):
        load_id, _, last = entry.name.removeprefix(f"{FOLDER}/").partition("/")
        if not _LOAD_ID.fullmatch(load_id):
            continue
        loading = found[load_id]
        loading.load_id = load_id
        if last.isdigit():
            loading.parts.append(entry)
        elif last.startswith(_ALIVE):
            loading.alive.append(entry)
    return [found[load_id] for load_id in sorted(found)]


def assemble(store: Store, loading: Loading, path: Path) -> None:
    """Add to a file, which may have the beginning of a load's log, what the bucket has of the rest."""
    with path.open("ab") as file:
        size = file.tell()
        for part in loading.parts:
            if _offset(part) + part.size <= size:
                continue
            if _offset(part) > size or (content := store.read(part.name)) is None:
                return  # a part is not there: what follows would not be whole frames
            file.write(content[0][size - _offset(part) :])
            size = file.tell()


def _offset(part: Entry) -> int:
    return int(part.name.rpartition("/")[2])


class Shipping:
    """Brings one load's log to the bucket while it grows, in a thread of its own."""

    def __init__(self, store: Store, load_id: str, path: Path, holder: str) -> None:
        self._store, self._path = store, path
        self._folder = f"{FOLDER}/{load_id}"
        self._alive = f"{self._folder}/{_ALIVE}{holder}"
        self._beats = 0
        self._shipped = 0
        self._beat_at = 0.0
        self._is_whole = False
        self._shipping = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Say that the load is at work. Raises StoreError where the bucket cannot be written."""
        self._beat()

    def follow(self, safe_bytes: Callable[[], int]) -> None:
        """Send what is safe on this machine, again and again, until `end`; what fails is sent the next time."""

        def keep_shipping() -> None:
            while not self._ended.wait(min(SHIP_EVERY_S, lease.LEASE_S / 3)):
                with contextlib.suppress(LakeError, OSError):
                    self.ship(safe_bytes())

        self._thread = threading.Thread(target=keep_shipping, name="shipping", daemon=True)
        self._thread.start()

    def ship(self, size: int) -> None:
        """Send the log's first bytes, as far as they have not been; now and then, say that the load lives."""
        with self._shipping:
            while self._shipped < size and not self._is_whole:
                with self._path.open("rb") as file:
                    file.seek(self._shipped)
                    part = file.read(min(size - self._shipped, _PART_BYTES))
                self._store.put_always(f"{self._folder}/{self._shipped:015d}", part)
                self._shipped += len(part)
            if time.monotonic() - self._beat_at >= lease.LEASE_S / 3:
                self._beat()

    def send_no_more(self) -> None:
        """Send signs of life alone from now on: the log is about to be whole in the bucket, or gone, and its parts with
        it. One sent after them would stay.
        """
        with self._shipping:
            self._is_whole = True

    def end(self) -> None:
        """Stop sending, and say that the load is no longer at work; its parts stay."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(StoreError, LakeConflictError):
            self._store.delete([self._alive])

    def _beat(self) -> None:
        self._beats += 1
        self._store.put_always(self._alive, b"%d\n" % self._beats)
        self._beat_at = time.monotonic()


def now_of(clock: Clock) -> Callable[[], float]:
    """Return the store's time as a POSIX time, asked for once, and only if it is needed."""
    times: list[float] = []

    def now() -> float:
        if not times:
            times.append(clock.now().timestamp())
        return times[0]

    return now
