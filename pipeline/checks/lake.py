"""All checks of a lake, in turn."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from pipeline.checks import notes, parquet_files, raw_logs, tables
from pipeline.checks.findings import FIRST_FEW, Finding, finding
from pipeline.checks.parquet_files import FileState
from pipeline.checks.raw_logs import LogState
from pipeline.checks.unfinished import unfinished_repair
from pipeline.erased import read_erased
from pipeline.errors import LakeDamagedError
from pipeline.lake import LakeFiles
from pipeline.ledger import LedgerFiles
from pipeline.traces import find_traces

GONE = "gone for good"
_MEMORY_LIMIT = "1GiB"
_TRIES = 3


@dataclass(slots=True)
class Checked:
    """What all checks found, and the states of the files, for who wants to mend them."""

    findings: list[Finding] = field(default_factory=list)
    files: list[FileState] = field(default_factory=list)
    logs: list[LogState] = field(default_factory=list)
    notes: list[tuple[Path, str]] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether no promise is broken."""
        return all(each.state != "broken" for each in self.findings)


def check_lake(lake: LakeFiles, *, now: datetime | None = None) -> Checked:
    """Check every promise of a lake, reading all of it; nothing is written.

    Readers take no lock: where files were replaced meanwhile and something seems broken, the lake is read again.
    Raises NewerLakeError where a newer version of this program wrote the lake.
    """
    notes.refuse_newer(lake)
    lake.fetch_logs()
    for _ in range(_TRIES):
        before = _stamps(lake)
        checked = _check_once(lake, now or datetime.now(UTC))
        if checked.is_whole or _stamps(lake) == before:
            break
    return checked


def _stamps(lake: LakeFiles) -> set[tuple[str, int, int]]:
    paths = [path for path, _schema in parquet_files.iter_files(lake)] + lake.raw_logs() + notes.note_paths(lake)
    paths += LedgerFiles(lake).folder.rglob("*")
    return {(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in paths if path.exists()}


def _check_once(lake: LakeFiles, now: datetime) -> Checked:
    checked = Checked()
    checked.notes = list(notes.iter_damaged(lake))
    is_current = any(path == lake.version_path for path, _why in checked.notes) or lake.is_current()
    states = (
        parquet_files.read_state(lake, path, schema, is_current=is_current)
        for path, schema in parquet_files.iter_files(lake)
    )
    checked.files = [state for state in states if state is not None]
    with (
        tempfile.TemporaryDirectory(prefix="pipeline-check-") as spill,
        duckdb.connect(config={"memory_limit": _MEMORY_LIMIT, "temp_directory": spill}) as con,
    ):
        damaged_ledger = list(_damaged_ledger(LedgerFiles(lake)))
        ledger_paths = None if damaged_ledger else LedgerFiles(lake).current_paths()
        tables.create_views(con, checked.files, ledger_paths)
        loads = con.sql("SELECT load_id, raw_bytes, raw_sha256 FROM loads").fetchall()
        landed = {load_id: (size or 0, sha256) for load_id, size, sha256 in loads}
        checked.logs = raw_logs.read_logs(lake, con, landed)
        checked.findings += _check_files(lake, checked)
        checked.findings += _check_tables(con, checked, ledger_paths, now, damaged_ledger)
        checked.findings[_AFTER_FILES:_AFTER_FILES] = _check_logs(lake, con, checked.logs)
        checked.findings += _check_gone(lake)
    return checked


_AFTER_FILES = 6


def _check_tables(
    con: duckdb.DuckDBPyConnection,
    checked: Checked,
    ledger_paths: list[str] | None,
    now: datetime,
    damaged_ledger: list[str],
) -> Iterator[Finding]:
    is_large = sum(state.rows for state in checked.files) > tables.ROWS_IN_MEMORY
    for check in tables.CHECKS:
        if check.sql != "ledger":
            yield tables.run_check(con, check, now=now)
        elif is_large and ledger_paths is None:
            yield Finding(check.check, "note", "not asked: a large lake needs `pipeline report credits` first")
            if damaged_ledger:
                yield _check_kept_ledger(con, None, is_large, damaged_ledger)
        else:
            yield tables.run_check(con, check, now=now)
            yield _check_kept_ledger(con, ledger_paths, is_large, damaged_ledger)


def _damaged_ledger(ledger: LedgerFiles) -> Iterator[str]:
    if (why := notes.ledger_damage(ledger)) is not None:
        yield f"{ledger.manifest_path.relative_to(ledger.files.folder).as_posix()}: {why}"
    yield from parquet_files.iter_ledger_damage(ledger)


def _check_kept_ledger(
    con: duckdb.DuckDBPyConnection, paths: list[str] | None, is_large: bool, damaged: list[str]
) -> Finding:
    name = "ledger kept"
    if damaged:
        return finding(name, damaged, ok="", broken="files of the ledger beside the lake that are damaged: {}")
    if paths is None:
        return Finding(name, "ok", "no ledger beside the lake speaks for it")
    try:
        kept = con.read_parquet(paths, hive_partitioning=False)
        lines, credits = kept.aggregate("count(*), sum(credits)").fetchall()[0]
        if is_large:
            return Finding(name, "ok", f"the ledger beside the lake can be read: {lines:,} lines")
        if (lines, credits) == con.table("credit_lines").aggregate("count(*), sum(credits)").fetchall()[0]:
            return Finding(name, "ok", f"the ledger beside the lake is what its runs give: {lines:,} lines")
        offender = f"{lines:,} lines of {credits} credits"
    except duckdb.Error as error:
        offender = " ".join(str(error).split())[:200]
    return Finding(name, "broken", "the ledger beside the lake is not what its runs give", 1, (offender,))


# Files


def _check_files(lake: LakeFiles, checked: Checked) -> Iterator[Finding]:
    damaged = [f"{state.name}: {state.damage}" for state in checked.files if state.damage]
    damaged += [f"{log.name}: {damage}" for log in checked.logs for damage in log.damage]
    damaged += [f"{path.relative_to(lake.folder).as_posix()}: {why}" for path, why in checked.notes]
    total = len(checked.files) + len(checked.logs) + len(notes.note_paths(lake))
    rows = sum(state.rows for state in checked.files if state.name.startswith("runs/"))
    yield finding(
        "files undamaged",
        damaged,
        ok=f"{total:,} files read to the last byte, {rows:,} runs in them",
        broken="damaged places in files (what cannot be read is left out below): {}",
    )
    yield finding(
        "checksums",
        [state.name for state in checked.files if state.is_unsealed],
        ok="every file has a checksum of its own",
        broken="files without a checksum of their own (an earlier version wrote them; the next load adds it): {}",
        state="note",
    )
    yield finding(
        "schema whole",
        [f"{state.name} {state.not_whole}" for state in checked.files if state.not_whole],
        ok="every file has all columns, of their types",
        broken="files that do not have all columns, of their types: {}",
    )
    yield finding(
        "no other files",
        [f"{name}: readers take it for runs" for name in parquet_files.iter_strays(lake)],
        ok="no file stands among those of runs that is none of the lake's",
        broken="files among those of runs that are none of the lake's (move them away): {}",
    )
    yield _check_moves(lake)
    yield finding(
        "no repair cut short",
        sorted(unfinished_repair(lake)),
        ok="no repair is under way, or was cut short",
        broken="checks that failed before a repair that has not ended (--repair ends it): {}",
    )


def _check_moves(lake: LakeFiles) -> Finding:
    try:
        moves = lake.read_moves()
    except LakeDamagedError:
        moves = []
    return finding(
        "no move cut short",
        [f"{run_id} from day={old} to day={new}" for run_id, old, new in moves],
        ok="no run is on its way from one day to another",
        broken="runs on their way from one day to another (the next load, or --repair, ends it): {}",
    )


def _check_gone(lake: LakeFiles) -> Iterator[Finding]:
    """What was forgotten or pruned must be nowhere; where nothing was, there is nothing to search for."""
    try:
        erased = read_erased(lake)
    except LakeDamagedError as error:
        yield Finding(GONE, "broken", "what was forgotten or pruned cannot be told", 1, (str(error),))
        return
    if erased:
        search = find_traces(
            lake, lambda found: {each for each in found if erased.has(each)}, before=erased.pruned_before
        )
        yield finding(
            GONE,
            search.traces,
            ok="no file speaks of what was forgotten or pruned",
            broken="traces of what was forgotten or pruned: {}",
        )


# The raw log and the lake


def _check_logs(lake: LakeFiles, con: duckdb.DuckDBPyConnection, logs: list[LogState]) -> Iterator[Finding]:
    at_rest = [log for log in logs if not log.is_running]
    behind = [f"{log.name} has not landed" for log in at_rest if log.landed_bytes is None]
    behind += [
        f"{log.name}: {log.size - (log.landed_bytes or 0):,} bytes at its end have not landed"
        for log in at_rest
        if log.landed_bytes is not None and log.size > log.landed_bytes
    ]
    behind += [
        f"{log.name} ends at byte {log.size:,}, and had {log.landed_bytes:,}"
        for log in at_rest
        if log.landed_bytes is not None and log.size < log.landed_bytes
    ]
    missing = con.sql(tables.read_check("unlanded")).fetchall()
    unusable = raw_logs.unusable_runs(lake, {run_id for run_id, _log, _text in missing})
    behind += [text for run_id, _log, text in missing if run_id not in unusable]
    running = len(logs) - len(at_rest)
    yield finding(
        "raw log landed",
        behind,
        ok=f"the lake has all that {len(logs):,} raw logs hold{f' ({running:,} still at work)' if running else ''}",
        broken="what the raw log holds, or held, and the lake has not: {}",
    )
    yield _check_kept(lake, con)


def _check_kept(lake: LakeFiles, con: duckdb.DuckDBPyConnection) -> Finding:
    """What could not be rebuilt: rows of which no log holds a payload, and logs that are gone."""
    count, offenders, more = tables.ask(con, "unlogged")
    logs = con.sql("SELECT raw_file, state FROM loads WHERE raw_file IS NOT NULL ORDER BY raw_file").fetchall()
    gone = [
        f"{name} is gone"
        for name, state in logs
        if not (lake.folder / name).exists()
        and (lake.mirror is None or state != "running")  # which another machine may have
    ]
    if not count and not gone:
        return Finding("raw log kept", "ok", "every run could be made anew from the raw log")
    message = f"runs of which the raw log has no payload (not kept, pruned or lost), so not to be made anew: {count:,}"
    return Finding("raw log kept", "note", message, count, (*offenders, *gone)[:FIRST_FEW], more)
