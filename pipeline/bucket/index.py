"""What a mirror knows of its objects: which version of each the file here is. Beside the mirror, on this machine alone.

It is a cache of its own: without it everything is downloaded again. A file that is not the one that was noted (by size,
time and inode) counts as not there.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline import durable
from pipeline.bucket.store import Tag

_TABLES = """
    CREATE TABLE IF NOT EXISTS objects (
        name TEXT PRIMARY KEY, e_tag TEXT NOT NULL, mtime_ns INTEGER, size INTEGER, inode INTEGER
    );
    CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Known:
    """A version of an object, and the stamp of the file that holds it."""

    tag: Tag
    stamp: tuple[int, int, int]

    def is_in(self, path: Path) -> bool:
        """Tell whether a file is the one that was noted."""
        try:
            return stamp_of(path) == self.stamp
        except FileNotFoundError:
            return False


def stamp_of(path: Path) -> tuple[int, int, int]:
    """Return what changes whenever a file is replaced."""
    found = os.stat(path)
    return (found.st_mtime_ns, found.st_size, found.st_ino)


class Index:
    """The notes of one mirror. Making one touches nothing; any process and thread of this machine may ask and note."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def holder(self) -> str:
        """Return the name by which this mirror's leases and loads are known; it is made up once."""
        return self.fact("holder") or self._note_fact("holder", os.urandom(8).hex())

    def fact(self, name: str) -> str | None:
        """Return what was found out of the store; None where it was not."""
        with self._opened() as con:
            row = con.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def _note_fact(self, name: str, value: str) -> str:
        with self._opened() as con:
            con.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (name, value))
        return self.fact(name) or value

    def note_fact(self, name: str, value: str) -> None:
        """Note what was found out of the store, once for all."""
        self._note_fact(name, value)

    def known(self) -> dict[str, Known]:
        """Return all objects that are noted, by name."""
        with self._opened() as con:
            rows = con.execute("SELECT name, e_tag, mtime_ns, size, inode FROM objects").fetchall()
        return {name: Known(e_tag, (mtime_ns, size, inode)) for name, e_tag, mtime_ns, size, inode in rows}

    def has(self, name: str) -> bool:
        """Tell whether an object is noted."""
        with self._opened() as con:
            return con.execute("SELECT 1 FROM objects WHERE name = ?", (name,)).fetchone() is not None

    def note(self, name: str, tag: Tag, path: Path) -> None:
        """Note that a file is a version of an object."""
        with self._opened() as con:
            con.execute(
                "INSERT OR REPLACE INTO objects (name, e_tag, mtime_ns, size, inode) VALUES (?, ?, ?, ?, ?)",
                (name, tag, *stamp_of(path)),
            )

    def drop(self, name: str) -> None:
        """Note that there is no file of an object."""
        with self._opened() as con:
            con.execute("DELETE FROM objects WHERE name = ?", (name,))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        con = self._open()
        try:
            with con:
                yield con
        finally:
            con.close()

    def _open(self) -> sqlite3.Connection:
        durable.make_folder(self._path.parent, is_private=True)
        try:
            return self._prepared()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            self._path.unlink(missing_ok=True)  # it is no database any more: what it told is found out again
            return self._prepared()

    def _prepared(self) -> sqlite3.Connection:
        con = sqlite3.connect(self._path, timeout=_WAIT_S)
        try:
            # After a power cut it may be an older one, or none: then the stamps do not fit, and files come again.
            con.execute("PRAGMA synchronous = OFF")
            con.executescript(_TABLES)
        except sqlite3.DatabaseError:
            con.close()
            raise
        return con
