"""Every raw log of a lake, to its last byte, and what it says the lake should have."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import zstandard

from pipeline import raw, sealed
from pipeline.arrow_schemas import TIME
from pipeline.at_work import is_running
from pipeline.flatten import flatten_run
from pipeline.lake import LakeFiles
from pipeline.values import time_value

_HEAD = re.compile(rb'\{"record": "run", "run_id": ("(?:[^"\\]|\\.)*"), "fetched_at": "([^"\\]*)"')
_LOGGED = pa.schema([("run_id", pa.string()), ("fetched_at", TIME), ("log", pa.string())])
_BATCH_ROWS = 100_000
HARMLESS = "a byte has changed since it was written; all payloads can be read and are as they were"
Landed = tuple[int | None, str | None]
"""How much of a log has landed, in bytes, and the SHA-256 of that."""
_RESERVED_BITS = 0b0001_1000
"""Of a zstd frame's descriptor: its readers do not look at the one and its writers leave both zero."""


@dataclass(slots=True)
class LogState:
    """What became of reading one log. `name` is relative to the lake; `damage` names offsets in bytes.

    `landed_bytes` is how far the lake says that it landed, null where it has no such load. `is_running` tells that the
    load is at work at this moment.
    """

    path: Path
    name: str
    load_id: str
    size: int
    landed_bytes: int | None
    is_running: bool
    damage: list[str]


def read_logs(lake: LakeFiles, con: duckdb.DuckDBPyConnection, landed: dict[str, Landed]) -> list[LogState]:
    """Read every log; what runs they hold payloads of, as far as these have landed, becomes the table `logged`."""
    con.execute("CREATE OR REPLACE TABLE logged (run_id VARCHAR, fetched_at TIMESTAMPTZ, log VARCHAR)")
    return [_read_log(lake, path, con, landed) for path in lake.raw_logs()]


def unusable_runs(lake: LakeFiles, run_ids: set[str]) -> set[str]:
    """Return those of the runs of which no log holds a payload that can be flattened: these cannot land."""
    usable: set[str] = set()
    for path in lake.raw_logs() if run_ids else ():
        for part in raw.iter_frames(path):
            lines = [line for line in getattr(part, "lines", ()) if _run_id(line) in run_ids]
            usable.update(_flattened(lines))
    return run_ids - usable


def _flattened(lines: list[bytes]) -> Iterator[str]:
    for record in raw.iter_records(lines):
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
            if record is not None:
                time, is_detail = time_value(record["fetched_at"]), record["detail"]
                flat = flatten_run(record["payload"], fetched_at=time, load_id="", is_detail=is_detail)
                yield str(flat.row()["run_id"])


def _read_log(lake: LakeFiles, path: Path, con: duckdb.DuckDBPyConnection, loads: dict[str, Landed]) -> LogState:
    load_id = path.name.removesuffix(raw.SUFFIX)
    landed, sha256 = loads.get(load_id, (None, None))
    name = path.relative_to(lake.folder).as_posix()
    state = LogState(path, name, load_id, path.stat().st_size, landed, is_running(lake, load_id), [])
    batch: list[tuple[str, datetime]] = []
    for part in _iter_parts(path, state):
        if part.end <= (landed or 0):
            batch += _runs_of(part.lines)
        if len(batch) >= _BATCH_ROWS:
            _keep(con, batch, name)
            batch = []
    _keep(con, batch, name)
    if not state.damage and sha256 and landed and state.size >= landed and sealed.digest_of(path, landed) != sha256:
        # Some bits of a compressed frame mean nothing to who unpacks it.
        state.damage.append(HARMLESS)
    return state


def _iter_parts(path: Path, state: LogState) -> Iterator[raw.Frame]:
    start = 0
    for part in raw.iter_frames(path):
        if isinstance(part, raw.Damage):
            # What a load at work is writing just now ends in the middle of a frame.
            if not (part.is_tail and state.is_running):
                state.damage.append(f"bytes {part.start:,} to {part.end:,} cannot be read")
        else:
            if _has_odd_header(path, start):
                state.damage.append(f"the header at byte {start:,} is not what was written")
            yield part
        start = part.end


def _has_odd_header(path: Path, start: int) -> bool:
    with path.open("rb") as file:
        file.seek(start)
        head = file.read(18)
    parameters = zstandard.get_frame_parameters(head)
    return bool(head[4] & _RESERVED_BITS) or not parameters.has_checksum or parameters.dict_id != 0


def _runs_of(lines: Iterable[bytes]) -> list[tuple[str, datetime]]:
    found = []
    for line in lines:
        match = _HEAD.match(line)
        if match is not None:
            with contextlib.suppress(ValueError):
                found.append((json.loads(match[1]), time_value(match[2].decode())))
    return found


def _run_id(line: bytes) -> str | None:
    match = _HEAD.match(line)
    return None if match is None else str(json.loads(match[1]))


def _keep(con: duckdb.DuckDBPyConnection, runs: list[tuple[str, datetime]], name: str) -> None:
    if runs:
        run_ids, times = zip(*runs, strict=True)
        con.register("logged_batch", pa.table([run_ids, times, [name] * len(runs)], schema=_LOGGED))
        con.execute("INSERT INTO logged FROM logged_batch")
        con.unregister("logged_batch")
