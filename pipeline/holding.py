"""Which days' files may hold a run, told by a few bytes of each.

Each day's file begins, between the mark that begins a Parquet file and its first page, with short hashes of its run
IDs; a reader of Parquet goes where the footer points, and passes them by. So they are written with the very rows that
they tell of, and can be neither stale nor missing for some of them. Of a file that has none (an earlier version wrote
it) or whose are damaged nothing is known: it may hold any run. Different IDs may have the same hash: a day may be named
that does not hold a run, but none is left out that does.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.sealed_parquet import UNREADABLE

Hashes = npt.NDArray[np.uint32]

_PARQUET = b"PAR1"
_MARK = b"run IDs1"
_NUMBER = np.dtype("<u4")
_START = len(_PARQUET) + len(_MARK) + 2 * _NUMBER.itemsize
_READ_BYTES = 1 << 16
_SHIFT = np.uint64(32)
_LOW = np.uint64(0xFFFF_FFFF)
_UPPER = 1 if sys.byteorder == "little" else 0
_SLICE = 1 << 14


def hash_ids(run_ids: Iterable[str]) -> Hashes:
    """Return the hashes of IDs, in their order."""
    return np.fromiter(map(zlib.crc32, map(str.encode, run_ids)), _NUMBER)


def head_bytes(run_ids: pa.Array | pa.ChunkedArray) -> bytes:
    """Return what a day's file has of its run IDs after its first four bytes."""
    # As Python's objects, IDs take four times what they take here.
    parts = [hash_ids(run_ids.slice(start, _SLICE).to_pylist()) for start in range(0, len(run_ids), _SLICE)]
    hashes = np.sort(np.concatenate([np.zeros(0, _NUMBER), *parts])).tobytes()
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


def among(run_ids: list[str], hashes: Hashes) -> list[str]:
    """Return those of the IDs that have one of these hashes, which are sorted."""
    return [run_ids[at] for at in np.flatnonzero(_is_among(hash_ids(run_ids), hashes))]


class Wanted:
    """Runs that are looked for, each with the day under which it is expected: None where nothing is expected.

    Takes eight bytes a run: its hash, and which of the days it is.
    """

    def __init__(self) -> None:
        # One that grows in place: many small ones would lie between what is freed, and keep it from going back.
        self._packed = array("Q")
        self._is_sorted = True
        self._places: dict[str | None, int] = {}

    def add(self, run_ids: Iterable[str], days: Iterable[str | None]) -> None:
        """Look for more runs."""
        places = [self._places.setdefault(day, len(self._places)) for day in days]
        self._packed.frombytes(_packed(hash_ids(run_ids), np.array(places, np.uint64)).tobytes())
        self._is_sorted = False

    def clear(self) -> None:
        """Look for no runs any more."""
        self._packed, self._places = array("Q"), {}

    def iter_days(self, paths: Iterable[tuple[str, Path]]) -> Iterator[str]:
        """Yield those of the days (with their files) that may hold one of the runs and where it is not expected."""
        hashes = _hashes(self._sorted())
        wanted = hashes[_is_first(hashes)]
        if not len(wanted):
            return
        for day, path in paths:
            found = read_hashes(path)
            if found is None:
                if _has_runs(path):
                    yield day
            elif self._is_elsewhere(found if len(found) < len(wanted) else _among(wanted, found), day).any():
                yield day

    def elsewhere(self, day: str, run_ids: list[str]) -> list[str]:
        """Return those of a day's run IDs that may be among the runs, expected under another day."""
        return [run_ids[at] for at in np.flatnonzero(self._is_elsewhere(hash_ids(run_ids), day))]

    def hashes_of_several_days(self) -> Hashes:
        """Return the hashes of all runs that are expected under more than one day; sorted."""
        hashes = _hashes(self._sorted())
        return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])

    def days_of(self, hashes: Hashes) -> list[str]:
        """Return the days under which runs of one of these hashes, sorted, are expected; oldest first."""
        known, places = self._sorted(), set[int]()
        for start in range(0, len(known) if len(hashes) else 0, _SLICE):
            part = known[start : start + _SLICE]
            places.update(np.unique(part[_is_among(_hashes(part), hashes)] & _LOW).tolist())
        return sorted(day for day, place in self._places.items() if day is not None and place in places)

    def _sorted(self) -> npt.NDArray[np.uint64]:
        known = np.frombuffer(self._packed, np.uint64) if self._packed else np.zeros(0, np.uint64)
        if not self._is_sorted:
            known.sort()
            is_first = _is_first(known)
            if not is_first.all():
                self._packed = array("Q", known[is_first].tobytes())
                known = np.frombuffer(self._packed, np.uint64)
            self._is_sorted = True
        return known

    def _is_elsewhere(self, hashes: Hashes, day: str) -> npt.NDArray[np.bool_]:
        known, place = self._sorted(), self._places.get(day, len(self._places))
        own = _packed(hashes, np.uint64(place))
        at = np.searchsorted(known, _packed(hashes, np.uint64(0)))
        # The first of the hash is of another day, or there is a second.
        first, second = known[at.clip(max=len(known) - 1)], known[(at + 1).clip(max=len(known) - 1)]
        is_known = (at < len(known)) & (_hashes(first) == hashes)
        has_second = (at + 1 < len(known)) & (_hashes(second) == hashes)
        elsewhere: npt.NDArray[np.bool_] = is_known & ((first != own) | has_second)
        return elsewhere


def _packed(hashes: Hashes, places: Any) -> npt.NDArray[np.uint64]:
    packed: npt.NDArray[np.uint64] = (hashes.astype(np.uint64) << _SHIFT) | places
    return packed


def _hashes(packed: npt.NDArray[np.uint64]) -> Hashes:
    """Return the hashes, which are the upper halves, where they are: without a copy."""
    return packed.view(np.uint32)[_UPPER::2]


def _is_first(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Tell of each of sorted values whether it is the first of its like. A byte each: np.unique would take some 20."""
    is_first = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=is_first[1:])
    return is_first


def _among(some: Hashes, others: Hashes) -> Hashes:
    return some[_is_among(some, others)]


def _is_among(some: Hashes, others: Hashes) -> npt.NDArray[np.bool_]:
    """Tell of each whether it is among others, which are sorted."""
    if not len(others):
        return np.zeros(len(some), np.bool_)
    at = np.searchsorted(others, some).clip(max=len(others) - 1)
    is_among: npt.NDArray[np.bool_] = others[at] == some
    return is_among


def _has_runs(path: Path) -> bool:
    """Tell whether a file has run IDs, as one that is none of the lake's has not; a broken file may have had some."""
    try:
        return "run_id" in pq.read_schema(path).names
    except UNREADABLE:
        return True
