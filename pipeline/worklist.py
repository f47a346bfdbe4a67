"""The IDs of one load: each once, in the order given, on disk, so that memory does not grow with their number."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.ids import FoundId
from pipeline.kinds import BY_OBJECT, Kind, kind_of
from pipeline.scratch import Scratch
from pipeline.values import text_value

_BATCH = 1_000


_TABLE = """
    CREATE TABLE ids (
        number INTEGER PRIMARY KEY, run_id TEXT NOT NULL UNIQUE, place TEXT NOT NULL,
        kind TEXT, done INTEGER NOT NULL DEFAULT 0
    );
"""


class Worklist(Scratch):
    """A list of distinct IDs in a temporary SQLite file; each is open until it is done."""

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(_TABLE, folder)

    def add(self, found: FoundId) -> bool:
        """Add an ID at the end, unless it is there already; return whether it was new. A text that is no ID is done."""
        kind = kind_of(found.text)
        row = (text_value(found.text), text_value(found.where), None if kind is None else kind.object, kind is None)
        insert = "INSERT OR IGNORE INTO ids (run_id, place, kind, done) VALUES (?, ?, ?, ?)"
        return self._con.execute(insert, row).rowcount > 0

    def mark_done(self, run_ids: Iterable[str]) -> None:
        """Take IDs off the open ones."""
        self._con.executemany("UPDATE ids SET done = 1 WHERE run_id = ?", ((run_id,) for run_id in run_ids))

    def take_off(self, kind: Kind) -> Iterator[FoundId]:
        """Take all open IDs of one kind off the list, and yield them with the places where they were found."""
        rows = self._con.execute(
            "SELECT run_id, place FROM ids WHERE kind = ? AND done = 0 ORDER BY number", (kind.object,)
        )
        for run_id, place in rows.fetchall():
            yield FoundId(run_id, place)
        self._con.execute("UPDATE ids SET done = 1 WHERE kind = ?", (kind.object,))

    def count(self) -> int:
        """Return how many distinct IDs there are, done or not."""
        return int(self._con.execute("SELECT count(*) FROM ids").fetchone()[0])

    def open_by_kind(self) -> Counter[Kind]:
        """Return how many open IDs there are of each kind."""
        rows = self._con.execute("SELECT kind, count(*) FROM ids WHERE done = 0 GROUP BY kind")
        return Counter({BY_OBJECT[kind]: count for kind, count in rows})

    def count_open(self) -> int:
        """Return how many open IDs there are."""
        return sum(self.open_by_kind().values())

    def open_among(self, run_ids: Iterable[str]) -> list[str]:
        """Return those of the given IDs that are open."""
        query = "SELECT 1 FROM ids WHERE run_id = ? AND done = 0"
        return [run_id for run_id in run_ids if self._con.execute(query, (run_id,)).fetchone() is not None]

    def iter_open(self) -> Iterator[str]:
        """Yield the open IDs in the order given; what is marked meanwhile does not disturb it."""
        last = 0
        query = "SELECT number, run_id FROM ids WHERE number > ? AND done = 0 ORDER BY number LIMIT ?"
        while rows := self._con.execute(query, (last, _BATCH)).fetchall():
            for number, run_id in rows:
                last = number
                yield run_id

    def iter_open_batches(self, size: int) -> Iterator[list[str]]:
        """Yield the open IDs in lists of at most `size`."""
        run_ids = self.iter_open()
        while batch := list(itertools.islice(run_ids, size)):
            yield batch
