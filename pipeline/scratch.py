"""A table on the disk that lasts as long as one command, so that memory does not grow with what it holds."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self


class Scratch:
    """A temporary SQLite file, gone when it is closed; nothing in it need survive a crash."""

    def __init__(self, schema: str, folder: Path | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="pipeline-", dir=folder)
        path = Path(self._folder.name) / "scratch.sqlite"
        self._con = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._con.executescript(
            f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -8000; {schema}"
        )

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
