"""Mend what can be made anew: from the raw log, and from the rows themselves."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import durable, sealed_parquet
from pipeline.arrow_schemas import RUNS_FILE_SCHEMA
from pipeline.checks import raw_logs
from pipeline.checks.lake import GONE, Checked, check_lake
from pipeline.checks.raw_logs import LogState
from pipeline.checks.tables import read_check
from pipeline.checks.unfinished import begin_repair, end_repair, unfinished_repair
from pipeline.day_files import packed_table
from pipeline.erased import read_erased
from pipeline.erasure import sweep
from pipeline.errors import UsageError
from pipeline.flatten import Row
from pipeline.lake import LakeFiles, Move
from pipeline.landing import finish_moves
from pipeline.ledger import LedgerFiles
from pipeline.loads import recover
from pipeline.merge import day_of, merge_rows
from pipeline.rebuild import rebuild_lake

Tell = Callable[[str], None]

_FROM_THE_LOG = {"files undamaged", "schema whole", "raw log landed", "each run once", "each run in its day",
                 "dead letters", "loads named"}  # fmt: skip


def repair_lake(lake: LakeFiles, checked: Checked, *, tell: Tell) -> Checked:
    """Mend what is broken and can be made anew, say each step, and return what another check finds.

    A damaged file is kept beside, under another name. What the API told wrongly stays as it was told.
    """
    if lake.mirror is not None:
        # What is damaged may be so on this machine alone.
        damaged = [state.path for state in checked.files if state.damage]
        damaged += [log.path for log in checked.logs if log.damage]
        lake.mirror.fetch_again([*damaged, *(path for path, _why in checked.notes)])
        checked = check_lake(lake)
    broken = {each.check for each in checked.findings if each.state == "broken"} | unfinished_repair(lake)
    with lake.locked(tell=tell):
        # From here on nothing but this note tells of a file that is set aside, should the repair be cut short.
        begin_repair(lake, broken)
        # A damaged file must not keep an older lake from being upgraded.
        _set_aside(lake, checked, tell)
        _rewrite(lake, checked, tell)

    def finish_moves_cut_short() -> None:
        if "no move cut short" in broken:
            finish_moves(lake)
            tell("moves that had been cut short are finished")

    lake.write(finish_moves_cut_short, tell=tell)
    recover(lake, tell=tell)
    if GONE in broken:
        swept = sweep(lake, read_erased(lake), tell=tell)
        tell(f"taken out again: {swept.rows:,} rows, {swept.payloads:,} records of raw logs")
    if "ledger kept" in broken and LedgerFiles(lake).folder.exists():
        shutil.rmtree(LedgerFiles(lake).folder)
        tell("the ledger beside the lake is taken away; the next report makes it anew")
    if broken & _FROM_THE_LOG:
        try:
            done = rebuild_lake(lake, tell=tell)
            tell(f"{done.runs:,} runs made anew from {done.logs:,} raw logs; {done.kept:,} that no log holds kept")
        except UsageError as error:
            tell(f"nothing made anew: {error}")
    if broken & {"each run once", "each run in its day"}:
        lake.write(partial(_settle, lake, tell), tell=tell)
    lake.write(partial(end_repair, lake), tell=tell)
    return check_lake(lake)


def _set_aside(lake: LakeFiles, checked: Checked, tell: Tell) -> None:
    """Give files that cannot be read another name, which no reader takes for the lake's."""
    unreadable = [state.path for state in checked.files if not state.is_readable]
    unreadable += [path for path, _why in checked.notes]
    for path in unreadable:
        aside = path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S}")
        durable.rename_file(path, aside)
        tell(f"{_name(lake, path)} is set aside as {aside.name}")


def _rewrite(lake: LakeFiles, checked: Checked, tell: Tell) -> None:
    """Write files again whose rows can be read, though not all of the file is what was written, or lacks a column."""
    schemas = dict(lake.parquet_files())
    for state in checked.files:
        if state.is_readable and (state.damage or state.not_whole):
            table = sealed_parquet.read_table(state.path, schemas[state.path], is_trusted=True)
            pack = packed_table if schemas[state.path] is RUNS_FILE_SCHEMA else sealed_parquet.parquet_bytes
            durable.write_file(state.path, pack(table))
            tell(f"{state.name} is written again from its rows")
    for log in checked.logs:
        if raw_logs.HARMLESS in log.damage:
            _accept(lake, log)
            tell(f"{log.name}: the changed byte harms nothing; its checksum is taken anew")


def _accept(lake: LakeFiles, log: LogState) -> None:
    for row in lake.read_loads().to_pylist():
        if row["load_id"] == log.load_id:
            lake.write_load(row, new_log=log.path)


def _settle(lake: LakeFiles, tell: Tell) -> None:
    """Bring each run that stands twice, or in another day's file, to its day in one row."""
    rows = _unsettled_rows(lake)
    moves: list[Move] = []
    arriving: dict[str, list[Row]] = defaultdict(list)
    for run_id, found in rows.items():
        merged = merge_rows([row for _day, row in found])
        own_day = day_of(merged)
        arriving[own_day].append(merged)
        moves += [(run_id, day, own_day) for day, _row in found if day != own_day]
    if not rows:
        return
    lake.write_moves(moves)
    for day, merged_rows in arriving.items():
        kept = _without(lake.read_day(day), [row["run_id"] for row in merged_rows])
        lake.write_day(day, pa.concat_tables([kept, pa.Table.from_pylist(merged_rows, schema=RUNS_FILE_SCHEMA)]))
    finish_moves(lake)
    tell(f"{len(rows):,} runs brought to their day, each in one row")


def _unsettled_rows(lake: LakeFiles) -> dict[str, list[tuple[str, Row]]]:
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        paths = lake.day_paths()
        if not paths:
            return {}
        con.read_parquet(paths, filename=True, hive_partitioning=False).create_view("stored_rows")
        found = con.sql(read_check("unsettled")).fetchall()
    rows: dict[str, list[tuple[str, Row]]] = defaultdict(list)
    wanted = pa.array([run_id for run_id, _days in found], pa.string())
    for day in sorted({day for _run_id, days in found for day in days}):
        table = lake.read_day(day)
        for row in table.filter(pc.is_in(table["run_id"], value_set=wanted)).to_pylist():
            rows[row["run_id"]].append((day, row))
    return rows


def _without(table: pa.Table, run_ids: list[str]) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table["run_id"], value_set=pa.array(run_ids, pa.string()))))


def _name(lake: LakeFiles, path: Path) -> str:
    return path.relative_to(lake.folder).as_posix()
