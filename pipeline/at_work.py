"""Which loads are at work at this moment: in whichever process, and, of a lake in a bucket, on whichever machine.

A load holds a lock of its own as long as its process lives. In a bucket it gives signs of life instead (`bucket.logs`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import raw

if TYPE_CHECKING:
    import filelock

    from pipeline.lake import LakeFiles


def load_lock_path(lake: LakeFiles, load_id: str) -> Path:
    """Return where a load's lock is."""
    return raw.raw_path(lake.raw_folder, load_id).with_name(f"{load_id}.lock")


def load_lock(lake: LakeFiles, load_id: str) -> filelock.BaseFileLock:
    """Return the lock that a load holds as long as its process lives."""
    import filelock  # here, since readers do without

    return filelock.FileLock(load_lock_path(lake, load_id), thread_local=False)


@contextlib.contextmanager
def at_rest(lake: LakeFiles, load_id: str) -> Iterator[bool]:
    """Hold a load's lock; tell whether that could be had, and nothing is written to its log meanwhile."""
    import filelock  # here, since readers do without

    lock, lock_path = load_lock(lake, load_id), load_lock_path(lake, load_id)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        yield False
        return
    try:
        yield lake.mirror is None or not lake.mirror.is_at_work_elsewhere(
            load_id, lock_path.with_name(f"{load_id}{raw.SUFFIX}")
        )
    finally:
        lock.release()
        lock_path.unlink(missing_ok=True)


def is_running(lake: LakeFiles, load_id: str) -> bool:
    """Tell whether a load holds its lock. Where there is none nothing is written for it on this machine."""
    if not load_lock_path(lake, load_id).exists():
        return False
    import filelock  # here, since readers do without

    lock = load_lock(lake, load_id)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    lock.release()
    return False


def running_loads(lake: LakeFiles) -> set[str]:
    """Return the loads that are at work."""
    found = {path.stem for path in lake.raw_folder.glob("*/*.lock") if is_running(lake, path.stem)}
    return found | (lake.mirror.loads_elsewhere() if lake.mirror else set())
