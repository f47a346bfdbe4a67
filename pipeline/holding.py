"""Which days' files may hold a run, told by a few bytes of each.

Each day's file begins, between the mark that begins a Parquet file and its first page, with short hashes of its run
IDs; a reader of Parquet goes where the footer points, and passes them by. So they are written with the very rows that
they tell of, and can be neither stale nor missing for some of them. Of a file that has none (an earlier version wrote
it) or whose are damaged nothing is known: it may hold any run. Different IDs may have the same hash: a day may be named
that does not hold a run, but none is left out that does.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.sealed import UNREADABLE

Hashes = npt.NDArray[np.uint32]

_PARQUET = b"PAR1"
_MARK = b"run IDs1"
_NUMBER = np.dtype("<u4")
_START = len(_PARQUET) + len(_MARK) + 2 * _NUMBER.itemsize
_READ_BYTES = 1 << 16


def hash_ids(run_ids: Iterable[str]) -> Hashes:
    """Return the hashes of IDs, in their order."""
    return np.fromiter((zlib.crc32(run_id.encode()) for run_id in run_ids), _NUMBER)


def head_bytes(run_ids: pa.ChunkedArray) -> bytes:
    """Return what a day's file has of its run IDs after its first four bytes."""
    hashes = np.sort(hash_ids(run_ids.to_pylist())).tobytes()
    told = np.array([len(run_ids), zlib.crc32(hashes)], _NUMBER).tobytes()
    return _MARK + told + hashes


def read_hashes(path: Path | str) -> Hashes | None:
    """Return the sorted hashes of a file's run IDs; None where it does not tell them."""
    with open(path, "rb", buffering=0) as file:
        head = file.read(_READ_BYTES)
        if head[: len(_PARQUET) + len(_MARK)] != _PARQUET + _MARK or len(head) < _START:
            return None
        count, checksum = np.frombuffer(head, _NUMBER, count=2, offset=_START - 2 * _NUMBER.itemsize).tolist()
        end = _START + count * _NUMBER.itemsize
        if len(head) < end:
            head += file.read(end - len(head))
    found = head[_START:end]
    return np.frombuffer(found, _NUMBER) if zlib.crc32(found) == checksum else None


class Wanted:
    """Runs that are looked for, each with the day under which it is expected: None where nothing is expected."""

    def __init__(self) -> None:
        self._hashes: list[Hashes] = []
        self._places: list[npt.NDArray[np.int32]] = []
        self._place_of: dict[str | None, int] = {}

    def add(self, run_ids: Iterable[str], days: Iterable[str | None]) -> None:
        """Look for more runs."""
        places = [self._place_of.setdefault(day, len(self._place_of)) for day in days]
        self._hashes.append(hash_ids(run_ids))
        self._places.append(np.array(places, np.int32))

    def iter_days(self, paths: Iterable[tuple[str, Path]]) -> Iterator[str]:
        """Yield those of the days (with their files) that may hold one of the runs and where it is not expected."""
        if not self._hashes:
            return
        hashes, places = np.concatenate(self._hashes), np.concatenate(self._places)
        order = np.argsort(hashes, kind="stable")
        wanted, starts = np.unique(hashes[order], return_index=True)
        if not len(wanted):
            return
        # Runs of one hash may be expected under several days.
        lowest: Any = np.minimum.reduceat(places[order], starts)
        highest: Any = np.maximum.reduceat(places[order], starts)
        for day, path in paths:
            found = read_hashes(path)
            if found is None:
                if _has_runs(path):
                    yield day
                continue
            at = _places_of(found, wanted)
            place = self._place_of.get(day, -1)
            if ((lowest[at] != place) | (highest[at] != place)).any():
                yield day


def _has_runs(path: Path) -> bool:
    """Tell whether a file has run IDs, as one that is none of the lake's has not; a broken file may have had some."""
    try:
        return "run_id" in pq.read_schema(path).names
    except UNREADABLE:
        return True


def _places_of(some: Hashes, wanted: Hashes) -> npt.NDArray[np.int64]:
    """Return where in the wanted hashes those stand that are among others; both are sorted, the fewer are looked up."""
    if len(some) < len(wanted):
        at = np.searchsorted(wanted, some).clip(max=len(wanted) - 1)
        found: npt.NDArray[np.int64] = at[wanted[at] == some]
        return found
    if not len(some):
        return np.zeros(0, np.int64)
    in_some = np.searchsorted(some, wanted).clip(max=len(some) - 1)
    return np.flatnonzero(some[in_some] == wanted)
