"""A turn that one process has at a time, on all machines: an object in the bucket, renewed as long as it is held.

    {"holder": …, "who": "host, process 123", "renewed": 7}     held
    (no bytes)                                                  free

Taking, renewing and giving back are conditional writes, so no two have it. Who finds one that was not renewed for
LEASE_S takes it over: its holder died, or is cut off. All times are by the store's clock. What the holder of a lease
that was taken over may still write is bound by conditions of its own (see `mirror`).
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Callable
from datetime import datetime

from pipeline.bucket.store import Entry, Store, Tag
from pipeline.errors import LakeConflictError, LakeLockedError, StoreError

LEASE_S = 30.0
"""So long after it was last renewed a lease counts as its holder's; it is renewed four times in that time."""
_POLL_S = 0.5
_TELL_AFTER_S = 2.0
FREE = b""

Tell = Callable[[str], None]


class Clock:
    """The store's clock, as the time at which it writes a small object."""

    def __init__(self, store: Store, holder: str) -> None:
        self._store, self._name = store, f".clock/{holder}-{os.urandom(4).hex()}"

    def now(self) -> datetime:
        """Return the store's time, to the second."""
        self._store.put_always(self._name, os.urandom(8))
        found = self._store.head(self._name)
        self._store.delete([self._name])
        if found is None:
            raise StoreError(f"{self._store.url}: what was written is not there; try again")
        return found.modified

    def age_s(self, entry: Entry) -> float:
        """Return how long ago an object was written, in seconds."""
        return (self.now() - entry.modified).total_seconds()


class Lease:
    """One turn. `holder` stands for this machine's mirror: who asks holds its local lock, so a lease of the same
    holder is that of a process that died. Where the store has no conditional writes (not `is_conditional`) it is no
    more than a sign: one that is held by another is refused at once.
    """

    def __init__(self, store: Store, name: str, holder: str, *, is_conditional: bool = True) -> None:
        self._store, self.name, self._holder = store, name, holder
        self._is_conditional = is_conditional
        self._clock = Clock(store, holder)
        self._tag: Tag | None = None
        self._renewals = 0
        self._renewed_at = 0.0
        self._lost = False
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, *, wait_s: float, tell: Tell) -> None:
        """Take the turn, after that of whoever has it; raise LakeLockedError where that lasts too long."""
        deadline, tell_at = time.monotonic() + wait_s, time.monotonic() + _TELL_AFTER_S
        while True:
            found = self._store.read(self.name)
            who = self._other(found)
            if who is None:
                try:
                    self._write(None if found is None else found[1].tag)
                    break
                except LakeConflictError:
                    continue  # another one was faster
            if not self._is_conditional or time.monotonic() >= deadline:
                raise LakeLockedError(self._refusal(who))
            if time.monotonic() >= tell_at:
                tell(f"{self._store.url}: {who} is writing; waiting for it")
                tell_at = float("inf")
            time.sleep(_POLL_S)
        self._lost = False
        self._ended.clear()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise LakeConflictError where the turn has passed to another, or may have."""
        if self._lost or time.monotonic() - self._renewed_at > LEASE_S:
            raise LakeConflictError(
                f"{self._store.url}: this process did not reach the store for so long that another one may be writing "
                "now; type the same command again"
            )

    def give_back(self) -> None:
        """Let the next one have it; where the store does not answer, that is after LEASE_S."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if not self._lost:
            try:
                self._put(FREE)
            except (StoreError, LakeConflictError):
                return

    def _keep(self) -> None:
        while not self._ended.wait(LEASE_S / 4):
            try:
                with self._writing:
                    self._write(self._tag)
            except LakeConflictError:
                self._lost = True
                return
            except StoreError:
                continue  # `check` counts how long this goes on

    def _write(self, over: Tag | None) -> None:
        self._renewals += 1
        began = time.monotonic()
        content = {
            "holder": self._holder,
            "who": f"{platform.node() or 'a machine'}, process {os.getpid()}",
            "renewed": self._renewals,
            "nonce": os.urandom(8).hex(),
        }
        self._tag = over
        self._put(json.dumps(content).encode() + b"\n")
        self._renewed_at = began

    def _put(self, content: bytes) -> None:
        if self._is_conditional:
            self._tag = self._store.put(self.name, content, over=self._tag)
        else:
            self._tag = self._store.put_always(self.name, content)

    def _other(self, found: tuple[bytes, Entry] | None) -> str | None:
        """Return who has the turn; None where it can be taken."""
        if found is None or found[0] == FREE:
            return None
        try:
            content = json.loads(found[0])
            holder, who = str(content["holder"]), str(content["who"])
        except (ValueError, KeyError, TypeError):
            holder, who = "", "another program"
        if holder == self._holder or self._clock.age_s(found[1]) > LEASE_S:
            return None
        return who

    def _refusal(self, who: str) -> str:
        if self._is_conditional:
            return f"{self._store.url}: {who} has been writing for too long; wait for it, or stop it, and try again"
        return (
            f"{self._store.url}: {who} is writing, and this store has no conditional writes (If-Match), without which "
            "two writers could lose each other's rows; let it finish, then try again"
        )
