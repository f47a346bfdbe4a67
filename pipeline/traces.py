"""Search everything that stands in a lake's folder, whatever it is, for what should be gone. Nothing is taken on trust:
neither the note of what was taken out, nor which files the lake should have.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import raw
from pipeline.erased import age_of, iter_mentions, told_times
from pipeline.expiry import made_before
from pipeline.lake import LakeFiles
from pipeline.texts import iter_texts
from pipeline.values import time_value

Named = Callable[[Iterable[str]], set[str]]
"""Given texts that can be IDs, those of runs that should be gone."""


@dataclass(slots=True)
class Search:
    """What was searched, what was found there (a sentence each), and what could not be looked into."""

    files: int = 0
    size_bytes: int = 0
    traces: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether everything could be looked into, and nothing was found."""
        return not self.traces and not self.unreadable


def find_traces(
    lake: LakeFiles,
    gone: Named,
    *,
    before: date | None = None,
    logs: set[Path] | None = None,
    payloads_only: bool = False,
) -> Search:
    """Search all files for mentions of runs that should be gone, and for runs made `before` a day (null: none).

    `size_bytes` counts unpacked text. With `logs`, other raw logs are not looked into for old runs; with
    `payloads_only`, tables are not.
    """
    search = Search()
    for path in sorted(path for path in lake.folder.rglob("*") if path.is_file() and path.name != ".lock"):
        name = path.relative_to(lake.folder).as_posix()
        search.files += 1
        found = gone(iter_mentions(name))
        with contextlib.suppress(FileNotFoundError):  # a writer at work
            for part in _iter_contents(path, name, search):
                search.size_bytes += len(part.text)
                found |= gone(iter_mentions(part.text))
                is_asked = not payloads_only if part.rows is not None else logs is None or path in logs
                if before is not None and is_asked:
                    search.traces += [f"{name}: {text}" for text in _old(part, before)]
        search.traces += [f"{name}: speaks of {run_id}" for run_id in sorted(found)]
    return search


@dataclass(frozen=True, slots=True)
class _Part:
    text: str | bytes
    rows: pa.Table | None = None
    lines: list[bytes] = field(default_factory=list)


def _iter_contents(path: Path, name: str, search: Search) -> Iterator[_Part]:
    yield _Part(path.read_bytes())
    if path.name.endswith(raw.SUFFIX):
        for part in raw.iter_frames(path):
            if isinstance(part, raw.Damage):
                search.unreadable.append(f"{name}: bytes {part.start:,} to {part.end:,} cannot be read")
            else:
                yield _Part(b"\n".join(part.lines), lines=part.lines)
    elif path.suffix == ".parquet":
        try:
            with pq.ParquetFile(path) as file:
                for number in range(file.num_row_groups):
                    table = file.read_row_group(number)
                    yield _Part("\n".join(iter_texts(table)), rows=table if name.startswith("runs/") else None)
        except (pa.ArrowException, OSError) as error:
            search.unreadable.append(f"{name}: cannot be read ({' '.join(str(error).split())[:100]})")


def _old(part: _Part, before: date) -> Iterator[str]:
    if part.rows is not None and len(part.rows):
        count = pc.sum(made_before(part.rows, before)).as_py()
        if count:
            yield f"{count:,} rows of runs made before {before}"
    old = sum(_is_old(record, before) for record in raw.iter_records(part.lines))
    if old:
        yield f"{old:,} payloads of runs made before {before}"


def _is_old(record: Any, before: date) -> bool:
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
        if record["record"] == "run":
            told = told_times(record["payload"])
            return any(told.values()) and age_of({**told, "fetched_at": time_value(record["fetched_at"])}) < before
    return False
