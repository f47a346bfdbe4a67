"""Replace a file so that a crash or a power cut leaves the old one or the new one, whole.

The order is what survives a power cut on ext4 and XFS: write a temporary file in the same folder, flush it to the disk,
rename it, flush the folder. Nothing here knows what is in the files.

Who may read a folder may read what is made in it, and nobody else may; only its owner may ever write.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from pipeline.errors import DiskError, StoreError

TEMPORARY_SUFFIX = ".tmp"
"""No temporary name ends in `.parquet`: a query's `*.parquet` would match it."""

_READ = 0o044  # by group and others
_READ_FOLDER = 0o055


class Replica(Protocol):
    """What keeps a folder the same as a place elsewhere: it is told of each replacing and removing before it happens
    here, and does it in its own way.
    """

    url: str

    def holds(self, path: Path) -> bool:
        """Tell whether a path in the folder is kept elsewhere too."""

    def replace(self, temporary: Path, path: Path) -> None:
        """Put a new file in place of whatever is there; it is on the disk already."""

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there."""


_replicas: dict[Path, Replica] = {}
"""By folder; there is none where all lakes are folders of this machine's own."""


def add_replica(folder: Path, replica: Replica) -> None:
    """Have a folder kept elsewhere too, as long as this process lives."""
    _replicas[folder] = replica


def replica_at(folder: Path) -> Replica | None:
    """Return what keeps a folder elsewhere too; None where nothing does."""
    return _replicas.get(folder)


def _replica_of(path: Path) -> Replica | None:
    for folder, replica in _replicas.items():
        if path.is_relative_to(folder) and replica.holds(path):
            return replica
    return None


def naming_places(text: str) -> str:
    """Return a text in which folders that are kept elsewhere go by the name of that place."""
    for folder, replica in _replicas.items():
        text = text.replace(str(folder), replica.url)
    return text


def write_file(path: Path, content: bytes | memoryview) -> None:
    """Write a whole file in place of whatever is there, atomically and for good.

    Raises OSError, naming the file, where the disk is full or refuses; then the old file is as it was and nothing is
    left behind.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}{TEMPORARY_SUFFIX}")
    try:
        with naming(path):
            with open_new(temporary) as file:
                file.write(content)
                file.flush()
                if os.fstat(file.fileno()).st_size != len(content):
                    raise OSError(errno.EIO, f"of {len(content)} bytes written, fewer are there")
                os.fsync(file.fileno())
            replace_file(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def replace_file(temporary: Path, path: Path) -> None:
    """Put a file that is on the disk in place of whatever is there, for good."""
    replica = _replica_of(path)
    if replica is None:
        temporary.replace(path)
        sync_folder(path.parent)
    else:
        replica.replace(temporary, path)


def rename_file(path: Path, new: Path) -> None:
    """Give a file another name, for good; nothing may be there."""
    replica = _replica_of(path)
    if replica is None:
        path.rename(new)
        sync_folder(path.parent)
    else:
        import shutil  # here, since mostly nothing is copied

        with naming(new), path.open("rb") as old, creating(new) as file:
            shutil.copyfileobj(old, file)
        replica.replace(new, new)
        replica.remove(path)


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
    """Raise DiskError where the disk refuses inside, StoreError where a bucket does; `what_next` says what is safe and
    what to do.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            what_next = f"allow more (ulimit -n), or lower --concurrency; {what_next}"
        raise DiskError(f"{error.filename or folder}: {error.strerror or error}; {what_next}") from error
    except StoreError as error:
        raise StoreError(f"{error}; {what_next}") from error


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
    if (replica := _replica_of(path)) is not None:
        replica.replace(path, path)


def remove_temporaries(folder: Path, *below: str) -> None:
    """Remove what writers that died left in folders, given as patterns below one, each empty or with a slash."""
    for pattern in below:
        for path in folder.glob(f"{pattern}.*{TEMPORARY_SUFFIX}"):
            if path.is_dir():
                import shutil

                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def remove_file(path: Path) -> None:
    """Remove a file, if it is there, for good."""
    replica = _replica_of(path)
    if replica is not None:
        replica.remove(path)
        return
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
