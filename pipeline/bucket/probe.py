"""Does a store have conditional writes? It is tried: many that do not have them take the condition, and ignore it."""

from __future__ import annotations

import os

from pipeline.bucket.store import Store, Tag
from pipeline.errors import LakeConflictError, StoreError

_NEVER = "00000000000000000000000000000000"
"""The ETag of no object."""


def has_conditions(store: Store) -> bool:
    """Return whether the store refuses to write where there is an object already, and over one that was replaced.

    Raises StoreError where it cannot be written at all.
    """
    name = f".probe/{os.urandom(8).hex()}"
    store.put_always(name, b"is it there?")
    try:
        return _is_refused(store, name, over=None) and _is_refused(store, name, over=_NEVER)
    finally:
        store.delete([name])


def _is_refused(store: Store, name: str, *, over: Tag | None) -> bool:
    try:
        store.put(name, os.urandom(8), over=over)
    except LakeConflictError:
        return True
    except StoreError as error:
        if error.is_unsupported:
            return False
        raise
    return False
