"""Credits as a person reads them in a terminal: a table with bars, what to know beside it, and the month's forecast."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TextIO

from pipeline.layout import counted, kind_order, label, percent, write_lines, write_notes
from pipeline.render import bar, shown, write_table
from pipeline.reports.dimensions import TIMES
from pipeline.reports.forecast import FEWEST_WEEKS, Forecast
from pipeline.reports.questions import Question, Window
from pipeline.rows import fetch_dicts

if TYPE_CHECKING:
    from pipeline.catalog import Lake

Row = dict[str, Any]

_WHY = {
    "unknown_unfinished": "not finished",
    "unknown_failed": "failed or cancelled, for which the API reports no usage",
    "unknown_before_reporting": "created before reporting began (2025-10-07)",
    "unknown_not_reported": "processed but not reported, as under legacy billing",
}


def write_credits(
    lake: Lake,
    question: Question,
    stream: TextIO,
    *,
    window: Window | None = None,
    where: str | None = None,
    last_lines: int | None = None,
) -> None:
    """Write the answer to a question for credits, with its notes; with `last_lines` only so many of the table."""
    window = window or Window()
    relation = lake.answer(question)
    names = list(relation.columns)
    rows = fetch_dicts(relation)
    if not rows:
        stream.write("no runs in this window\n" if window.since or window.until else "no runs yet\n")
        return
    if "credits_before" in names:
        _write_compared(names[: names.index("credits")], rows, stream)
        before = window.before()
        write_notes([f"{_days(window)}, beside {_days(before)}: {window.days} days each."], stream)
    else:
        by = names[: names.index("credits")]
        if len(by) == 2 and by[0] in TIMES and by[1] == "kind" and "usd" not in names:
            header, lines = _by_time_and_kind(by[0], rows)
        else:
            header, lines = _by_dimensions(by, rows, "usd" in names)
        left_out = 0 if last_lines is None else len(lines) - 1 - last_lines
        if left_out > 0:
            lines = [(f"{left_out:,} earlier", *[None] * (len(header) - 1)), *lines[left_out:]]
        write_lines(header, lines, stream)
    write_notes(credit_notes(lake, rows, window, where), stream)


def _by_time_and_kind(time: str, rows: list[Row]) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return a line a day (week, month) and a column a kind."""
    kinds = sorted({row["kind"] for row in rows if row["credits"]}, key=kind_order)
    places: dict[Any, dict[str, Decimal]] = defaultdict(dict)
    unknown: dict[Any, int] = defaultdict(int)
    for row in rows:
        unknown[row[time]] += row["unknown_runs"]
        if row["credits"] is not None:
            places[row[time]][row["kind"]] = row["credits"]
    sums = {place: _sum(credits.values()) for place, credits in places.items()}
    # What is of no day is no bar to the days.
    most = max((each for place, each in sums.items() if each and place is not None), default=Decimal())
    lines = [
        (
            label(place), *(places[place].get(kind) or None for kind in kinds),
            sums.get(place), "" if place is None else bar(sums.get(place), most), unknown[place] or None,
        )
        for place in unknown
    ]  # fmt: skip
    totals = [_sum(credits.get(kind) for credits in places.values()) for kind in kinds]
    lines.append(("total", *totals, _sum(sums.values()), "", sum(unknown.values()) or None))
    return [time, *(label(kind).removesuffix("_run") for kind in kinds), "credits", "", "unknown runs"], lines


def _by_dimensions(by: list[str], rows: list[Row], priced: bool) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return a line a place; those without a time before all others by credits, the most first."""
    if not set(by) & set(TIMES):
        rows = sorted(rows, key=lambda row: -(row["credits"] or Decimal()))
    timed = [row for row in rows if all(row[name] is not None for name in by if name in TIMES)]
    most = max((row["credits"] for row in timed if row["credits"]), default=Decimal())
    lines = [
        _dimension_line([label(row[name]) for name in by], row, most if row in timed else Decimal()) for row in rows
    ]
    names = ("credits", *(["usd"] if priced else []), "charged_runs", "inferred_credits", "unknown_runs")
    total = {name: _sum(row[name] for row in rows) for name in names}
    if "product" in by:
        # A run with lines of two products is one run, and counted with both.
        total["charged_runs"] = None
    lines.append(_dimension_line(["total", *[""] * (len(by) - 1)], total, Decimal()))
    return [*by, "credits", "", *(["USD"] if priced else []), "charged runs", "inferred", "unknown runs"], lines


def _dimension_line(places: Sequence[str], row: Row, most: Decimal) -> tuple[Any, ...]:
    usd = [None if row["usd"] is None else round(row["usd"], 2)] if "usd" in row else []
    counts = (row["charged_runs"], row["inferred_credits"] or None, row["unknown_runs"] or None)
    return (*places, row["credits"], bar(row["credits"], most), *usd, *counts)


def _write_compared(by: list[str], rows: list[Row], stream: TextIO) -> None:
    if not set(by) & set(TIMES):
        rows = sorted(rows, key=lambda row: -abs(row["change"]))
    most = max((abs(row["change"]) for row in rows), default=Decimal())
    lines = [_compared_line([label(row[name]) for name in by], row, most) for row in rows]
    names = ("credits", "credits_before", "change", "unknown_runs")
    total = {name: _sum(row[name] for row in rows) for name in names}
    lines.append(_compared_line(["total", *[""] * (len(by) - 1)], total, Decimal()))
    write_lines([*by, "credits", "before", "change", "in %", "", "unknown runs"], lines, stream)


def _compared_line(places: Sequence[str], row: Row, most: Decimal) -> tuple[Any, ...]:
    share = percent(float(row["change"] / row["credits_before"])) if row["credits_before"] else "new"
    figures = (row["credits"], row["credits_before"], row["change"], share if row["change"] else "")
    return (*places, *figures, bar(abs(row["change"]), most), row["unknown_runs"] or None)


def credit_notes(lake: Lake, rows: list[Row], window: Window, where: str | None = None) -> list[str]:
    """Return what to know beside the totals: what is unknown, inferred or left out, and how fresh the data is."""
    notes = []
    if unknown := _sum(row["unknown_runs"] for row in rows):
        why = [(_sum(row[name] for row in rows), text) for name, text in _WHY.items()]
        told = "; ".join(f"{count:,} {text}" for count, text in why if count)
        notes.append(f"Unknown is not zero: nothing tells the credits of {counted(int(unknown), 'run')}: {told}.")
    if inferred := _sum(row["inferred_credits"] for row in rows):
        notes.append(f"{shown(inferred)} of these credits are inferred: a run told its total, and not for what.")
    if unpriced := _sum(row.get("unpriced_credits") for row in rows):
        notes.append(
            f"{shown(unpriced)} of these credits have no rate: they are of no day, or of one before the first."
        )
    notes += _day_notes(lake, rows, window, where)
    return [*notes, freshness(lake)]


def _day_notes(lake: Lake, rows: list[Row], window: Window, where: str | None) -> list[str]:
    told = "no answer told when those runs were created (parse, edit, form detection by ID)"
    if window.since or window.until:
        is_undated = "charged_on IS NULL" + (f" AND (\n{where}\n)" if where else "")
        undated = _sum(row["credits"] for row in fetch_dicts(lake.credits("all", where=is_undated)))
        return [f"{shown(undated)} more credits are in no window: {told}."] if undated else []
    times = [name for name in TIMES if name in rows[0]]
    if any(row[name] is None for row in rows for name in times):
        return [f"Of a day that is not known: {told}."]
    return []


def _days(window: Window) -> str:
    return f"{window.since} to {window.until and window.until - timedelta(days=1)}"


def freshness(lake: Lake) -> str:
    """Return how fresh the data is, as a sentence."""
    day, _ = lake.newest_day()
    as_of = lake.data_as_of()
    asked = f"The data is as of {shown(as_of)} UTC" if as_of else "No load says when the data was asked for"
    return f"{asked}; the newest run is of {day}." if day else f"{asked}."


def forecast_line(forecast: Forecast) -> str:
    """Return what the month will come to, as a sentence."""
    month = f"{forecast.month:%B %Y}"
    so_far = f"{month}: {shown(round(forecast.so_far, 6))} credits to {forecast.last_day}"
    if forecast.expected is None or forecast.low is None or forecast.high is None:
        return f"{so_far}; too little to forecast from ({forecast.weeks} of at least {FEWEST_WEEKS} whole weeks)."
    return (
        f"{so_far}; forecast for the whole month {shown(round(forecast.expected, 1))}, and 90 % sure from "
        f"{shown(round(forecast.low, 1))} to {shown(round(forecast.high, 1))} if weeks go on as the last "
        f"{forecast.weeks} did."
    )


def write_ranking(relation: Any, stream: TextIO) -> None:
    """Write costliest runs or files, or wasted credits, with bars."""
    hidden = ("dashboard_url", "inferred_credits")
    names = [name for name in relation.columns if name not in hidden]
    rows = fetch_dicts(relation)
    most = max((row["credits"] for row in rows), default=Decimal())
    at = names.index("credits") + 1
    lines = []
    for row in rows:
        cells = [row[name] for name in names]
        lines.append([*cells[:at], bar(row["credits"], most), *cells[at:]])
    header = [name.replace("_", " ") for name in names]
    write_table([*header[:at], "", *header[at:]], lines, stream=stream)


def wasted_notes(rows: list[Row]) -> list[str]:
    """Return what wasted credits are, and how many."""
    total = {why: _sum(row["credits"] for row in rows if row["why"] == why) for why in ("failed", "repeated")}
    return [
        f"Failed, {shown(total['failed'])} credits: the run, the one that caused it, or all that used it as their "
        "parse run failed or were cancelled.",
        f"Repeated, {shown(total['repeated'])} credits: the same file by the same kind, processor and version again.",
    ]


def _sum(values: Any) -> Any:
    return sum((value for value in values if value is not None), Decimal())
