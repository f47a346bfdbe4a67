"""A table on the disk that lasts as long as one command, so that memory does not grow with what it holds."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.errors import DiskError


class Scratch:
    """A temporary SQLite file, gone when it is closed, or when the process ends in whatever way.

    Raises DiskError where there is no room for it.
    """

    def __init__(self, schema: str, folder: Path | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="pipeline-", dir=folder, ignore_cleanup_errors=True)
        path = Path(self._folder.name) / "scratch.sqlite"
        self._con = sqlite3.connect(path, check_same_thread=False, isolation_level=None, factory=_Connection)
        # All of it is one transaction, never ended: else each statement locks the file and writes what it changed.
        self._con.executescript(
            f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -500; {schema}; BEGIN"
        )
        if os.name == "posix":
            # An open file needs no name, and without one a killed command leaves nothing. (On a network's disk it keeps
            # one until it is closed.)
            self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove it from the disk."""
        self._con.close()
        self._folder.cleanup()


class _Connection(sqlite3.Connection):
    """Tells where it is that there is no room."""

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        try:
            return super().execute(*arguments)
        except sqlite3.OperationalError as error:
            raise _refusal(error) from error

    def executemany(self, *arguments: Any) -> sqlite3.Cursor:
        try:
            return super().executemany(*arguments)
        except sqlite3.OperationalError as error:
            raise _refusal(error) from error

    def executescript(self, script: Any) -> sqlite3.Cursor:
        try:
            return super().executescript(script)
        except sqlite3.OperationalError as error:
            raise _refusal(error) from error


def _refusal(error: sqlite3.OperationalError) -> DiskError:
    where = tempfile.gettempdir()
    return DiskError(f"{where}: {error}; TMPDIR can name another folder for what is kept for a while")
