"""Counts what a process does to the disk under one folder, and makes the Nth operation fail, as SQLite's tests do.

Operations are writes and flushes of the files that `durable.open_new` opens, flushes of folders, renames, removals, new
folders, and cutting a file. A write that fails has written half.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from unittest import mock

from pipeline import durable

KILL = -1
"""In place of an errno: the process dies."""


class Operations:
    """What was done so far, by name; the one numbered `fail_at` (from 1) fails with an errno, or kills."""

    def __init__(self, folder: Path, *, fail_at: int | None = None, how: int = KILL) -> None:
        self.done: list[str] = []
        self._folder, self._fail_at, self._how = str(folder), fail_at, how

    def is_due(self, name: str) -> bool:
        """Count an operation, and tell whether it is the one that fails."""
        self.done.append(name)
        return len(self.done) == self._fail_at

    def fail(self, path: Any = None) -> None:
        """Fail, as was asked for; as the system does, name a path where the call had one."""
        if self._how == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(self._how, os.strerror(self._how), *([] if path is None else [str(path)]))

    def concerns(self, path: Any) -> bool:
        """Tell whether a path is in the folder."""
        return isinstance(path, str | Path) and str(path).startswith(self._folder)


class _File:
    """A file whose writes and cuts are operations."""

    def __init__(self, file: BinaryIO, operations: Operations) -> None:
        self._file, self._operations = file, operations

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    def write(self, content: bytes | memoryview) -> int:
        if self._operations.is_due("write"):
            self._file.write(content[: len(content) // 2])
            self._file.flush()
            self._operations.fail()
        return self._file.write(content)


@contextmanager
def counted(folder: Path, *, fail_at: int | None = None, how: int = KILL) -> Iterator[Operations]:
    """Count the operations of this process under a folder, and let one fail."""
    operations = Operations(folder, fail_at=fail_at, how=how)
    open_new = durable.open_new

    def watching(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            is_ours = name == "fsync" or operations.concerns(arguments[0])
            if is_ours and operations.is_due(name):
                operations.fail(None if name == "fsync" else arguments[0])
            return function(*arguments, **options)

        return watched

    def opening(path: Path, buffering: int = -1) -> Any:
        file = open_new(path, buffering)
        return _File(file, operations) if operations.concerns(path) else file

    names = ("fsync", "replace", "unlink", "mkdir")
    patches = [mock.patch.object(os, name, watching(name, getattr(os, name))) for name in names]
    patches += [
        mock.patch.object(durable, "open_new", opening),
        mock.patch.object(durable, "cut_file", watching("cut", durable.cut_file)),
    ]
    for patch in patches:
        patch.start()
    try:
        yield operations
    finally:
        for patch in patches:
            patch.stop()
