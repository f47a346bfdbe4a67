"""Take out of a lake what its note `erased.json` says is gone: rows, payloads, dead letters, lines of the kept ledger.

The note is written first, so an erasure that was cut short is finished by whatever comes next. Rows go before payloads:
what the lake still has then tells which payloads without a time of their own stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import durable, raw
from pipeline.arrow_schemas import DEAD_LETTERS_SCHEMA, LOADS_SCHEMA, RUNS_FILE_SCHEMA
from pipeline.at_work import at_rest
from pipeline.erased import Erased, read_erased, write_erased
from pipeline.errors import LakeConflictError
from pipeline.expiry import Expiry, made_before
from pipeline.lake import LakeFiles
from pipeline.ledger import LedgerFiles
from pipeline.raw_edit import Change, Edited, edit_log
from pipeline.texts import mentioned

Tell = Callable[[str], None]
_DAMAGED = ".damaged-"
_SCRUB_ROWS = 500


@dataclass(slots=True)
class Swept:
    """What was taken out. `rows` and `dead_letters` are of runs that are gone, `days` the day files they were in,
    `altered` the rows of other runs that spoke of them, `payloads` the records left out of raw logs, `logs` the logs
    written anew, `removed_logs` those of which nothing was left, `busy` the loads at work, whose logs were left alone.
    """

    rows: int = 0
    days: int = 0
    altered: int = 0
    dead_letters: int = 0
    payloads: int = 0
    logs: int = 0
    removed_logs: int = 0
    busy: tuple[str, ...] = ()


def finish_erasure(lake: LakeFiles, erased: Erased, *, tell: Tell = lambda _message: None) -> None:
    """Finish an erasure that was cut short."""
    tell(f"{lake.name}: an erasure had been cut short; finishing it")
    sweep(lake, erased, tell=tell)


def sweep(
    lake: LakeFiles, erased: Erased, *, forgotten: bool = True, pruned: bool = True, tell: Tell = lambda _message: None
) -> Swept:
    """Take out what is forgotten and what is pruned, all that is not said otherwise; the note is then finished, unless
    a load is at work whose log may hold forgotten runs.
    """
    swept = Swept()
    names_forgotten, before = forgotten and bool(erased.runs), erased.pruned_before if pruned else None

    def sweep_tables() -> None:
        _sweep_rows(lake, erased, swept, forgotten=names_forgotten, pruned=before is not None)
        _sweep_dead_letters(lake, erased, swept, pruned=before is not None)
        if names_forgotten:
            _sweep_loads(lake, erased)
            _remove_set_aside(lake, tell)

    lake.write(sweep_tables, tell=tell)
    _sweep_ledger(lake, tell)
    if names_forgotten:
        sweep_logs(
            lake, lake.fetch_logs(), lambda _log: _without_forgotten(erased), swept, tell=tell, drops_damage=True
        )
    if before is not None:
        expire_payloads(lake, Expiry(lake, before, keeps_rows=False), swept, tell=tell)
    if not (names_forgotten and swept.busy):
        _finish(lake, erased, tell)
    return swept


def _finish(lake: LakeFiles, erased: Erased, tell: Tell) -> None:
    def note() -> None:
        now = read_erased(lake)
        if now.unfinished and (now.runs, now.pruned_before) == (erased.runs, erased.pruned_before):
            write_erased(lake, replace(now, unfinished=False))

    lake.write(note, tell=tell)


# Rows


def _sweep_rows(lake: LakeFiles, erased: Erased, swept: Swept, *, forgotten: bool, pruned: bool) -> None:
    before = None if erased.pruned_before is None else erased.pruned_before.isoformat()
    for day in lake.days():
        may_be_old = pruned and before is not None and (day < before or day == "unknown")
        if may_be_old and day != "unknown" and not pq.read_metadata(lake.day_path(day)).num_rows:
            # An earlier erasure emptied it: no query that began before can still be at work on it.
            lake.remove_day(day)
        elif forgotten or may_be_old:
            _sweep_day(lake, day, erased, swept, forgotten=forgotten, pruned=may_be_old)


def _sweep_day(lake: LakeFiles, day: str, erased: Erased, swept: Swept, *, forgotten: bool, pruned: bool) -> None:
    table = lake.read_day(day)
    kept = table
    if pruned and erased.pruned_before is not None:
        kept = table.filter(pc.invert(made_before(table, erased.pruned_before)))
    named = mentioned(kept, erased) if forgotten else set()
    if named:
        kept = kept.filter(pc.invert(pc.is_in(kept["run_id"], value_set=pa.array(sorted(named), pa.string()))))
    removed = len(table) - len(kept)
    altered = 0
    if named:
        kept, altered = _scrubbed(kept, erased, RUNS_FILE_SCHEMA)
    if removed or altered:
        lake.write_day(day, kept)
        swept.rows += removed
        swept.days += removed > 0
        swept.altered += altered


def _scrubbed(table: pa.Table, erased: Erased, schema: pa.Schema) -> tuple[pa.Table, int]:
    """Return a table whose rows speak of no forgotten run, and how many rows that changed."""
    places: list[int] = []
    rows: list[dict[str, Any]] = []
    for start in range(0, len(table), _SCRUB_ROWS):
        part = table.slice(start, _SCRUB_ROWS)
        if mentioned(part, erased):
            for place, row in enumerate(part.to_pylist(), start):
                scrubbed = {name: erased.scrub(value) for name, value in row.items()}
                if scrubbed != row:
                    places.append(place)
                    rows.append(scrubbed)
    if not rows:
        return table, 0
    is_changed = pc.is_in(pa.array(range(len(table))), value_set=pa.array(places))
    changed = pa.Table.from_pylist(rows, schema=schema)
    return pa.concat_tables([table.filter(pc.invert(is_changed)), changed]), len(rows)


def _sweep_dead_letters(lake: LakeFiles, erased: Erased, swept: Swept, *, pruned: bool) -> None:
    letters = lake.read_dead_letters()
    kept = letters
    if pruned and erased.pruned_before is not None:
        limit = datetime.combine(erased.pruned_before, time(), UTC)
        kept = kept.filter(pc.greater_equal(kept["failed_at"], pa.scalar(limit, kept["failed_at"].type)))
    rows = [row for row in kept.to_pylist() if not erased.has(row["run_id"])]
    table = pa.Table.from_pylist([erased.scrub(row) for row in rows], schema=DEAD_LETTERS_SCHEMA)
    if not table.equals(letters):
        swept.dead_letters += len(letters) - len(table)
        lake.write_dead_letters(table)


def _sweep_loads(lake: LakeFiles, erased: Erased) -> None:
    loads = lake.read_loads()
    if mentioned(loads, erased):
        for row in loads.cast(LOADS_SCHEMA).to_pylist():
            scrubbed = {name: erased.scrub(value) for name, value in row.items()}
            if scrubbed != row:
                lake.write_load(scrubbed)


def _sweep_ledger(lake: LakeFiles, tell: Tell) -> None:
    ledger = LedgerFiles(lake)
    if ledger.folder.is_dir():
        ledger.refresh(tell=tell)
        ledger.remove_superseded()


def _remove_set_aside(lake: LakeFiles, tell: Tell) -> None:
    """Remove damaged files that a repair has set aside: nobody can say what they hold."""
    for path in sorted(lake.folder.rglob(f"*{_DAMAGED}*")):
        durable.remove_file(path)
        tell(f"{path}: a damaged file, set aside by a repair, is removed: what it holds cannot be looked into")


# Raw logs


def _without_forgotten(erased: Erased) -> Change:
    def change(frame: raw.Frame) -> list[bytes | None] | None:
        text = b"\n".join(frame.lines)
        if not erased.mentions(text) and b"\\u00" not in text:
            return None
        lines = [None if _is_of_forgotten(line, erased) else erased.scrub_line(line) for line in frame.lines]
        return None if lines == frame.lines else lines

    return change


def _is_of_forgotten(line: bytes, erased: Erased) -> bool:
    record = next(raw.iter_records([line]))
    if record is None:
        return bool(erased.mentions(line))
    payload = record.get("payload")
    named = {record.get("run_id"), payload.get("id") if isinstance(payload, dict) else None}
    return any(isinstance(run_id, str) and erased.has(run_id) for run_id in named)


def sweep_logs(
    lake: LakeFiles,
    logs: Iterable[Path],
    change_of: Callable[[Path], Change],
    swept: Swept,
    *,
    tell: Tell,
    drops_damage: bool = False,
) -> None:
    """Write the logs anew of which something changes; those of loads at work are left alone, and named in `busy`."""
    for path in logs:
        with at_rest(lake, path.name.removesuffix(raw.SUFFIX)) as is_at_rest:
            if not is_at_rest:
                swept.busy = (*swept.busy, path.name.removesuffix(raw.SUFFIX))
            elif path.exists() and _would_change(path, change_of(path), drops_damage=drops_damage):
                lake.write(partial(_edit_newest, lake, path, change_of(path), swept, tell), tell=tell)


def _would_change(path: Path, change: Change, *, drops_damage: bool) -> bool:
    return any(
        drops_damage if isinstance(part, raw.Damage) else change(part) is not None for part in raw.iter_frames(path)
    )


def _edit_newest(lake: LakeFiles, path: Path, change: Change, swept: Swept, tell: Tell) -> None:
    """Edit a log as of now: where another machine has edited it since it was fetched, that one."""
    try:
        _edit(lake, path, change, swept, tell)
    except LakeConflictError:
        lake.fetch_logs()
        if path.exists():
            raise  # to be done again, with what was fetched


def _edit(lake: LakeFiles, path: Path, change: Change, swept: Swept, tell: Tell) -> None:
    load_id = path.name.removesuffix(raw.SUFFIX)
    row = next((row for row in lake.read_loads().to_pylist() if row["load_id"] == load_id), None)

    def settle(edited: Edited, new_log: Path) -> None:
        if row is not None:
            kept = {"raw_bytes": edited.landed_bytes} if edited.payloads else {"raw_bytes": None, "raw_file": None}
            lake.write_load(row | kept, new_log=new_log)

    edited = edit_log(path, (row or {}).get("raw_bytes") or 0, change, settle=settle)
    if edited.lost_bytes:
        tell(f"{path}: {edited.lost_bytes:,} bytes that could not be read are left out: nobody can say what they held")
    swept.payloads += edited.removed
    if edited.payloads:
        swept.logs += 1
    else:
        durable.remove_file(path)
        swept.removed_logs += 1


def expire_payloads(lake: LakeFiles, expiry: Expiry, swept: Swept, *, tell: Tell) -> None:
    """Leave out of the raw logs the payloads of runs made before a day; note of each log how old its oldest is now."""
    known = read_erased(lake).oldest
    due = [path for path in lake.fetch_logs() if expiry.is_due(path, known)]
    for group in expiry.groups(due):
        sweep_logs(lake, group, expiry.change_of, swept, tell=tell)
        lake.write(partial(_note_oldest, lake, group, swept), tell=tell)


def _note_oldest(lake: LakeFiles, group: dict[Path, date], swept: Swept) -> None:
    erased = read_erased(lake)
    noted = dict(erased.oldest)
    for path, oldest in group.items():
        load_id = path.name.removesuffix(raw.SUFFIX)
        if load_id not in swept.busy and path.exists():
            noted[load_id] = (path.stat().st_size, oldest.isoformat())
    there = {path.name.removesuffix(raw.SUFFIX) for path in lake.raw_logs()}
    write_erased(lake, replace(erased, oldest={name: each for name, each in noted.items() if name in there}))
