"""Replace a file so that a crash or a power cut leaves the old one or the new one, whole.

The order is what survives a power cut on ext4 and XFS: write a temporary file in the same folder, flush it to the disk,
rename it, flush the folder. Nothing here knows what is in the files.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

TEMPORARY_SUFFIX = ".tmp"
"""No temporary name ends in `.parquet`: a query's `*.parquet` would match it."""


def write_file(path: Path, content: bytes | memoryview) -> None:
    """Write a whole file in place of whatever is there, atomically and for good.

    Raises OSError where the disk is full or refuses; then the old file is as it was and nothing is left behind.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            if os.fstat(file.fileno()).st_size != len(content):
                raise OSError(f"{temporary}: {len(content)} bytes were written, but fewer are there")
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def creating(path: Path) -> Iterator[BinaryIO]:
    """Open a new file, to be written bit by bit; it is on the disk at the end. Its name is not: see `sync_folder`."""
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they are still there after a power cut."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def remove_file(path: Path) -> None:
    """Remove a file, if it is there, for good."""
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk (where the operating system lets a folder be opened)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
