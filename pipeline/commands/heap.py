"""Keep the memory of a command that loads as small as what it holds, and the search for garbage short."""

from __future__ import annotations

import contextlib
import gc
import sys

_ARENA_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD = -8, -3, -1  # as malloc.h numbers them
_LARGE_BYTES = 128 << 10


def keep_heap_small() -> None:
    """Let glibc give back at once what is freed, and let all threads share one heap (elsewhere nothing is done).

    By itself it keeps a heap for each thread, and for ever larger blocks: a load held 18 MB more after two landings
    (measured), and was no faster for it.
    """
    if sys.platform != "linux":
        return
    import ctypes  # here, since other commands do without

    with contextlib.suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL(None)
        for option, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _LARGE_BYTES), (_TRIM_THRESHOLD, _LARGE_BYTES)):
            library.mallopt(option, value)


def collect_seldom() -> None:
    """Let Python look seldom for garbage that holds itself. Modules, and payloads for a moment, are thousands of
    objects, and none of them is such garbage: to look again and again took a twentieth of a short question, and a
    thirtieth of a sync (measured).
    """
    gc.set_threshold(10_000, 10, 10)
