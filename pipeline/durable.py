"""Replace a file so that a crash or a power cut leaves the old one or the new one, whole.

The order is what survives a power cut on ext4 and XFS: write a temporary file in the same folder, flush it to the disk,
rename it, flush the folder. Nothing here knows what is in the files.

Who may read a folder may read what is made in it, and nobody else may; only its owner may ever write.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import DiskError

TEMPORARY_SUFFIX = ".tmp"
"""No temporary name ends in `.parquet`: a query's `*.parquet` would match it."""

_READ = 0o044  # by group and others
_READ_FOLDER = 0o055


def write_file(path: Path, content: bytes | memoryview) -> None:
    """Write a whole file in place of whatever is there, atomically and for good.

    Raises OSError, naming the file, where the disk is full or refuses; then the old file is as it was and nothing is
    left behind.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        with naming(path):
            with open_new(temporary) as file:
                file.write(content)
                file.flush()
                if os.fstat(file.fileno()).st_size != len(content):
                    raise OSError(errno.EIO, f"of {len(content)} bytes written, fewer are there")
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
    with naming(path), open_new(path) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def open_new(path: Path, buffering: int = -1) -> BinaryIO:
    """Open a new file for writing; raise FileExistsError where there is one."""

    def open_private(name: str, flags: int) -> int:
        handle = os.open(name, flags, 0o600)
        if os.name != "nt" and (readers := path.parent.stat().st_mode & _READ):
            os.fchmod(handle, 0o600 | readers)
        return handle

    return open(path, "xb", buffering=buffering, opener=open_private)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError from inside name this file: what the disk refuses in a write or a flush names none."""
    try:
        yield
    except OSError as error:
        is_named = error.filename is not None and not str(error.filename).endswith(TEMPORARY_SUFFIX)
        if error.errno is not None and not is_named:
            error.filename, error.filename2 = str(path), None
        raise


@contextlib.contextmanager
def telling_refusals(folder: Path, what_next: str) -> Iterator[None]:
    """Raise DiskError where the disk refuses inside; `what_next` says what is safe and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            what_next = f"allow more (ulimit -n), or lower --concurrency; {what_next}"
        raise DiskError(f"{error.filename or folder}: {error.strerror or error}; {what_next}") from error


def make_folder(folder: Path, *, is_private: bool = False) -> None:
    """Make a folder and those above it, so that they are still there after a power cut.

    One that `is_private` is its owner's alone; so is one that exists, if nothing is in it.
    """
    if folder.is_dir():
        if is_private and os.name != "nt" and not any(folder.iterdir()):
            with contextlib.suppress(PermissionError):  # another's folder
                folder.chmod(0o700)
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(0o700)
        if not is_private:
            folder.chmod(0o700 | folder.parent.stat().st_mode & _READ_FOLDER)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    sync_folder(folder.parent)


def is_read_by_others(folder: Path) -> bool:
    """Tell whether group or others may read a folder."""
    return os.name != "nt" and bool(folder.stat().st_mode & _READ)


def cut_file(path: Path, size: int) -> None:
    """Keep a file's first bytes alone, for good."""
    with naming(path), path.open("rb+") as file:
        file.truncate(size)
        os.fsync(file.fileno())


def remove_temporaries(folder: Path, *below: str) -> None:
    """Remove what writers that died left in folders, given as patterns below one, each empty or with a slash."""
    for pattern in below:
        for path in folder.glob(f"{pattern}.*{TEMPORARY_SUFFIX}"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def remove_file(path: Path) -> None:
    """Remove a file, if it is there, for good."""
    with naming(path):
        path.unlink(missing_ok=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk (where the operating system lets a folder be opened)."""
    if os.name == "nt":
        return
    with naming(folder):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
