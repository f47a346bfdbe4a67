"""What a lake has, as a person reads it in a terminal: `pipeline status`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pipeline.layout import kind_order
from pipeline.render import shown, write_table

if TYPE_CHECKING:
    from pipeline.catalog import Lake


def write_status(lake: Lake, stream: TextIO) -> None:
    """Write what a lake has: runs by kind, dead letters, the last load, the size on disk."""
    rows = lake.ask("status").dicts()
    if rows:
        names = ["kind", "runs", "in detail", "failed", "unfinished", "first day", "last day", "day not known"]
        lines = [tuple(row.values()) for row in sorted(rows, key=lambda row: kind_order(row["kind"]))]
        total = ("total", *(sum(line[position] for line in lines) for position in range(1, 5)), None, None)
        write_table(names, [*lines, (*total, sum(line[7] for line in lines))], stream=stream)
    else:
        stream.write("no runs yet\n")
    _write_dead_letters(lake, stream)
    _write_last_load(lake, stream)
    _write_size(lake, stream)


def _write_dead_letters(lake: Lake, stream: TextIO) -> None:
    asked = "SELECT reason, count(*) FROM dead_letters GROUP BY reason ORDER BY count(*) DESC, reason"
    letters = list(lake.read(asked).rows)
    total = sum(count for _, count in letters)
    reasons = ", ".join(f"{shown(count)} {shown(reason)}" for reason, count in letters)
    stream.write(f"dead letters  {shown(total)}{f' ({reasons}); pipeline retry asks again' if total else ''}\n")


def _write_last_load(lake: Lake, stream: TextIO) -> None:
    loads = lake.read("FROM loads ORDER BY load_id DESC LIMIT 1").dicts()
    for load in loads:
        when = f"{shown(load['started_at'])} UTC"
        what = (
            f"{load['command']} {load['state']}, {shown(load['landed'])} landed, {shown(load['unchanged'])} unchanged"
        )
        stream.write(f"last load     {load['load_id']}: {when}, {what}{_error(load)}\n")
    if not loads:
        stream.write("last load     none\n")


def _error(load: dict[str, Any]) -> str:
    return f"; {shown(load['error'])}" if load["error"] else ""


def _write_size(lake: Lake, stream: TextIO) -> None:
    files = lake.files
    if files.mirror is not None:
        label, (runs, raw, whole) = "size         ", files.mirror.sizes()
    else:
        label, runs, raw = "size on disk ", _size_bytes(files.runs_folder), _size_bytes(files.raw_folder)
        whole = _size_bytes(files.folder)
    stream.write(f"{label} {_megabytes(whole)} (runs {_megabytes(runs)}, raw log {_megabytes(raw)}) in {files.name}\n")


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"
