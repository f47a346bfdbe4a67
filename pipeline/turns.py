"""Whose turn it is to write a lake: one process at a time on this machine, and in a bucket one on all machines."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pipeline import durable
from pipeline.errors import LakeConflictError, LakeLockedError

if TYPE_CHECKING:
    from pipeline.bucket.mirror import Mirror

T = TypeVar("T")
Tell = Callable[[str], None]

_LOCK_WAIT_S = 600.0
_TELL_AFTER_S = 2.0
_AGAIN = 4


def _tell_nobody(_message: str) -> None:
    pass


class Turns:
    """What a lake's writers hold. `mirror` is that of a lake in a bucket, null for any other; `name` is how the user
    calls the lake.
    """

    folder: Path
    name: str
    mirror: Mirror | None

    @abstractmethod
    def _put_right(self, tell: Tell) -> None:
        """Put right what a writer that died left behind, and upgrade an older lake."""

    def make_folder(self) -> None:
        """Make the lake's folder, its owner's alone, if there is none."""
        durable.make_folder(self.folder, is_private=True)

    @contextlib.contextmanager
    def writing(self, *, tell: Tell = _tell_nobody) -> Iterator[None]:
        """Hold the lake's lock; what a writer that died left behind is put right first, and an older lake upgraded."""
        with self.locked(tell=tell):
            self._put_right(tell)
            yield

    def write(self, step: Callable[[], T], *, tell: Tell = _tell_nobody) -> T:
        """Do a step as `writing`, and return what it gives.

        In a bucket, where another machine took this one for dead and replaced something meanwhile, all is read again
        and the step done again: it must be one that can be. Raises LakeConflictError where that happens every time.
        """
        for _ in range(_AGAIN):
            try:
                with self.writing(tell=tell):
                    return step()
            except LakeConflictError as error:
                tell(f"{str(error).partition(';')[0]}: reading it again, and merging again")
        with self.writing(tell=tell):
            return step()

    @contextlib.contextmanager
    def locked(self, *, tell: Tell = _tell_nobody) -> Iterator[None]:
        """Hold the lake's lock: one writer at a time, the next waits its turn (for ten minutes, then LakeLockedError).

        For who mends a lake that cannot be written yet; all others want `writing`.
        """
        with self.locked_here(tell=tell), contextlib.ExitStack() as stack:
            if self.mirror is not None:
                stack.enter_context(self.mirror.turn(wait_s=_LOCK_WAIT_S, tell=tell))
            yield

    @contextlib.contextmanager
    def locked_here(self, *, tell: Tell = _tell_nobody) -> Iterator[None]:
        """Keep the writers of this machine out, for who reads."""
        import filelock  # here, since readers do without

        self.make_folder()
        lock = filelock.FileLock(self.folder / ".lock")
        try:
            try:
                lock.acquire(timeout=_TELL_AFTER_S)
            except filelock.Timeout:
                tell(f"{self.name}: another process is writing; waiting for it")
                lock.acquire(timeout=_LOCK_WAIT_S)
        except filelock.Timeout as error:
            raise LakeLockedError(
                f"{self.name}: another process has been writing for {_LOCK_WAIT_S / 60:.0f} minutes; "
                "wait for it, or stop it, and try again"
            ) from error
        try:
            yield
        finally:
            lock.release()
