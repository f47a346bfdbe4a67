"""The reports as a person reads them in a terminal: what a relation says, laid out, with what to know beside it."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pipeline.kinds import KINDS
from pipeline.render import shown, write_table
from pipeline.reports import read_sql

if TYPE_CHECKING:
    from pipeline.catalog import Lake

_KIND_ORDER = {kind.object: position for position, kind in enumerate(KINDS)}


def write_credits(lake: Lake, stream: TextIO, *, last_days: int | None = None) -> None:
    """Write credits, a line a day and a column a kind; with `last_days`, only so many, and a total of all the same."""
    rows = lake.credits().to_arrow_table().to_pylist()
    if not rows:
        stream.write("no runs yet\n")
        return
    kinds = sorted({row["kind"] for row in rows if row["credits"]}, key=_kind_order)
    days: dict[Any, dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    unknown: dict[Any, int] = defaultdict(int)
    for row in rows:
        if row["charged_runs"]:
            days[row["day"]][row["kind"]] += row["credits"]
        unknown[row["day"]] += int(row["unknown_runs"])
    ordered = sorted(unknown, key=lambda day: (day is None, day))
    lines = [_credit_line(day, days[day], kinds, unknown[day]) for day in ordered]
    left_out = 0 if last_days is None else max(0, len(lines) - last_days)
    if left_out:
        lines = [(f"{left_out} earlier days", *("…" for _ in kinds), "…", "…"), *lines[left_out:]]
    totals = {kind: sum((days[day][kind] for day in ordered), Decimal()) for kind in kinds}
    lines.append(_credit_line("total", totals, kinds, sum(unknown.values())))
    write_table(
        ["day", *(kind.removesuffix("_run") for kind in kinds), "credits", "unknown runs"], lines, stream=stream
    )
    _write_credit_notes(rows, stream)


def _credit_line(day: Any, credits: dict[str, Decimal], kinds: list[str], unknown: int) -> tuple[Any, ...]:
    shares = [credits.get(kind) or None for kind in kinds]
    total = sum(credits.values(), Decimal()) if credits else None
    return ("not known" if day is None else str(day), *shares, total, unknown or None)


def _write_credit_notes(rows: list[dict[str, Any]], stream: TextIO) -> None:
    unknown: dict[str, int] = defaultdict(int)
    for row in rows:
        unknown[row["kind"]] += int(row["unknown_runs"])
    if count := sum(unknown.values()):
        kinds = ", ".join(f"{shown(each)} {kind}" for kind, each in sorted(unknown.items(), key=_by_count) if each)
        stream.write(
            f"Unknown is not zero: the API reports no usage for {shown(count)} run{'s' * (count > 1)} ({kinds}).\n"
        )
    inferred = sum((row["inferred_credits"] for row in rows), Decimal())
    if inferred:
        stream.write(f"{shown(inferred)} of these credits are inferred: a run told its total, and not for what.\n")
    if any(row["day"] is None for row in rows):
        stream.write(
            "Not known is the day of runs whose creation time no answer told (parse, edit, form detection by ID).\n"
        )


def write_failures(lake: Lake, stream: TextIO, *, most_reasons: int | None = None) -> None:
    """Write failures, a line a kind and below it one a reason; with `most_reasons`, only so many of each kind."""
    rows = lake.failures().to_arrow_table().to_pylist()
    if not rows:
        stream.write("no runs yet\n")
        return
    by_kind: dict[str | None, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_kind[row["kind"]].append(row)
    lines = []
    for kind in sorted(by_kind, key=_kind_order):
        total, *reasons = by_kind[kind]
        shown_reasons = reasons if most_reasons is None else reasons[:most_reasons]
        lines += [_failure_line(row) for row in (total, *shown_reasons)]
        if len(reasons) > len(shown_reasons):
            rest = reasons[len(shown_reasons) :]
            lines.append(("", f"… {len(rest)} more reasons", sum(row["failed"] for row in rest), *[None] * 6))
    names = ["kind", "reason", "failed", "of", "rate", "95 % interval", "rejected", "cancelled", "unfinished"]
    write_table(names, lines, stream=stream)
    stream.write("The rate is failed ÷ (processed + failed).\n")
    if any(line[1].endswith(" *") for line in lines):
        stream.write("* not among the reasons that the vendor documents\n")


def _failure_line(row: dict[str, Any]) -> tuple[Any, ...]:
    interval = "" if row["rate"] is None else f"{_percent(row['rate_low'])} to {_percent(row['rate_high'])}"
    measured = (row["failed"], row["ended"], _percent(row["rate"]), interval)
    if row["is_total"]:
        beside = (row[name] or None for name in ("rejected", "cancelled", "unfinished"))
        return (row["kind"], "all", *measured, *beside)
    mark = "" if row["documented"] or row["reason"] is None else " *"
    return ("", f"{row['reason'] or '(none given)'}{mark}", *measured, None, None, None)


def write_status(lake: Lake, stream: TextIO) -> None:
    """Write what a lake has: runs by kind, dead letters, the last load, the size on disk."""
    rows = lake.sql(read_sql("status")).to_arrow_table().to_pylist()
    if rows:
        names = ["kind", "runs", "in detail", "failed", "unfinished", "first day", "last day", "day not known"]
        lines = [tuple(row.values()) for row in sorted(rows, key=lambda row: _kind_order(row["kind"]))]
        total = ("total", *(sum(line[position] for line in lines) for position in range(1, 5)), None, None)
        write_table(names, [*lines, (*total, sum(line[7] for line in lines))], stream=stream)
    else:
        stream.write("no runs yet\n")
    _write_dead_letters(lake, stream)
    _write_last_load(lake, stream)
    _write_size(lake, stream)


def _write_dead_letters(lake: Lake, stream: TextIO) -> None:
    letters = lake.sql(
        "SELECT reason, count(*) FROM dead_letters GROUP BY reason ORDER BY count(*) DESC, reason"
    ).fetchall()
    total = sum(count for _, count in letters)
    reasons = ", ".join(f"{shown(count)} {shown(reason)}" for reason, count in letters)
    stream.write(f"dead letters  {shown(total)}{f' ({reasons}); pipeline retry asks again' if total else ''}\n")


def _write_last_load(lake: Lake, stream: TextIO) -> None:
    loads = lake.sql("FROM loads ORDER BY load_id DESC LIMIT 1").to_arrow_table().to_pylist()
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
    runs, raw = _size_bytes(files.runs_folder), _size_bytes(files.raw_folder)
    whole = _size_bytes(files.folder)
    stream.write(
        f"size on disk  {_megabytes(whole)} (runs {_megabytes(runs)}, raw log {_megabytes(raw)}) in {files.folder}\n"
    )


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"


def _percent(rate: float | None) -> str:
    return "" if rate is None else f"{rate * 100:.1f} %"


def _kind_order(kind: str | None) -> tuple[int, str]:
    return (_KIND_ORDER.get(kind or "", len(_KIND_ORDER)), kind or "")


def _by_count(item: tuple[str, int]) -> tuple[int, str]:
    return (-item[1], item[0] or "")
