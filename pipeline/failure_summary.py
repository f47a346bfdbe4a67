"""Failures and latency as a person reads them in a terminal: rates, the trend, what changed, the messages."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TextIO

from pipeline.layout import interval, kind_order, label, percent, write_lines, write_notes
from pipeline.render import bar, write_table
from pipeline.reports.changes import SIGNIFICANT, Change
from pipeline.reports.dimensions import TIMES
from pipeline.reports.questions import Question, Window
from pipeline.rows import fetch_dicts

if TYPE_CHECKING:
    from pipeline.catalog import Lake

Row = dict[str, Any]

_TREND_DAYS = {"day": 13, "week": 49, "month": 335}
"""How far back a trend goes: two weeks of days, eight weeks, a year of months."""
_BESIDE = ("rejected", "cancelled", "unfinished")


def write_failures(lake: Lake, question: Question, stream: TextIO, *, most_reasons: int | None = None) -> None:
    """Write the answer to a question for failures; with `most_reasons`, only so many of each group."""
    relation = lake.answer(question)
    names, rows = list(relation.columns), fetch_dicts(relation)
    if not rows:
        stream.write("no runs yet\n")
        return
    if "reason" in names:
        header, lines = _by_reason(names[: names.index("reason")], rows, most_reasons)
    else:
        header, lines = _by_dimensions(names[: names.index("failed")], rows)
    write_table(header, lines, stream=stream)
    stream.write("The rate is failed ÷ (processed + failed).\n")
    if any(str(cell).endswith(" *") for line in lines for cell in line):
        stream.write("* not among the reasons that the vendor documents\n")


def _by_reason(by: list[str], rows: list[Row], most: int | None) -> tuple[list[str], list[tuple[Any, ...]]]:
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in by)].append(row)
    order = sorted(groups, key=lambda place: kind_order(place[0])) if by[0] == "kind" else list(groups)
    lines: list[tuple[Any, ...]] = []
    for place in order:
        total, *reasons = groups[place]
        shown_reasons = reasons if most is None else reasons[:most]
        lines.append((*map(label, place), "all", *_measured(total), *(total[name] or None for name in _BESIDE)))
        lines += [(*[""] * len(by), _reason(row), *_measured(row), None, None, None) for row in shown_reasons]
        if rest := reasons[len(shown_reasons) :]:
            failed = sum(row["failed"] for row in rest)
            lines.append((*[""] * len(by), f"… {len(rest)} more reasons", failed, *[None] * 7))
    return [*by, "reason", "failed", "of", "rate", "", "95 % interval", *_BESIDE], lines


def _by_dimensions(by: list[str], rows: list[Row]) -> tuple[list[str], list[tuple[Any, ...]]]:
    if not set(by) & set(TIMES):
        rows = sorted(rows, key=lambda row: (-(row["rate"] or 0), -row["ended"]))
    lines = [
        (*(label(row[name]) for name in by), *_measured(row), *(row[name] or None for name in _BESIDE)) for row in rows
    ]
    return [*by, "failed", "of", "rate", "", "95 % interval", *_BESIDE], lines


def _measured(row: Row) -> tuple[Any, ...]:
    rate = row["rate"]
    beside = interval(row["rate_low"], row["rate_high"])
    return (row["failed"], row["ended"], percent(rate), bar(rate, 1.0), beside)


def _reason(row: Row) -> str:
    mark = "" if row["documented"] or row["reason"] is None else " *"
    return f"{'(none given)' if row['reason'] is None else label(row['reason'])}{mark}"


def write_trend(lake: Lake, stream: TextIO, *, time: str, window: Window, where: str | None) -> None:
    """Write the rate by day, week or month; without a first day, of the last that there is data of."""
    newest, _ = lake.newest_day()
    since = window.since
    if since is None and newest is not None:
        first = newest - timedelta(days=_TREND_DAYS[time])
        since = {"week": first - timedelta(days=first.weekday()), "month": first.replace(day=1)}.get(time, first)
    rows = fetch_dicts(lake.failures(time, since=since, until=window.until, where=where))
    rows = [row for row in rows if row[time] is not None]
    most = max((row["rate"] for row in rows if row["rate"]), default=0.0)
    lines = [
        (str(row[time]), *_measured(row)[:3], bar(row["rate"], most), interval(row["rate_low"], row["rate_high"]))
        for row in rows
    ]
    write_table(
        [time if time == "day" else f"{time} from", "failed", "of", "rate", "", "95 % interval"], lines, stream=stream
    )


def write_changes(changes: list[Change], stream: TextIO, *, window: Window, most: int) -> None:
    """Write what changed from the window before to this one, the surest first."""
    whole, *values = changes
    stream.write(f"{_days(window)} beside {_days(window.before())}: {_sentence(whole)}.\n")
    sure = [change for change in values if change.is_significant]
    if not sure:
        stream.write("No kind, processor, version, file type or reason has changed more than chance would do.\n")
    lines = [_change_line(change) for change in values[:most]]
    header = ["", "", "before", "", "after", "", "carries", "p", "p corrected", ""]
    write_lines([*header], [*lines], stream)
    write_notes(
        [
            "Carries: its part of the whole rate's change, in points; those of one dimension add up to it.",
            "p: how often chance alone would bring a change as great (Fisher's exact test); corrected (Holm) for the "
            f"{len(values)} looked at; * below {SIGNIFICANT}.",
        ],
        stream,
    )


def _change_line(change: Change) -> tuple[Any, ...]:
    carried = "" if change.carried is None else f"{change.carried * 100:+.2f}".replace("-", "−")
    corrected = change.p if change.p_corrected is None else change.p_corrected
    return (
        change.dimension.replace("_", " "), label(change.value),
        f"{change.failed_before:,} of {change.ended_before:,}", _rate(change.failed_before, change.ended_before),
        f"{change.failed_after:,} of {change.ended_after:,}", _rate(change.failed_after, change.ended_after),
        carried, _p(change.p), _p(corrected), "*" if change.is_significant else "",
    )  # fmt: skip


def _sentence(whole: Change) -> str:
    after = f"{_rate(whole.failed_after, whole.ended_after) or 'no'} failed of {whole.ended_after:,}"
    before = f"{_rate(whole.failed_before, whole.ended_before) or 'no'} of {whole.ended_before:,} before"
    sure = "more than chance would do" if whole.is_significant else "no more than chance would do"
    return f"{after}, {before}: {sure} (p {_p(whole.p)})"


def _rate(failed: int, ended: int) -> str:
    return percent(failed / ended) if ended else ""


def _p(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def _days(window: Window) -> str:
    return f"{window.since} to {window.until and window.until - timedelta(days=1)}"


def write_messages(relation: Any, stream: TextIO) -> None:
    """Write messages, alike ones as one."""
    by = relation.columns[: relation.columns.index("pattern")]
    rows = fetch_dicts(relation)
    lines = [
        (row["failed"], *(label(row[name]) for name in by), _short(row["pattern"]), row["first_day"], row["last_day"],
         row["example_run_id"])
        for row in rows
    ]  # fmt: skip
    write_table(["failed", *by, "message", "first day", "last day", "for example"], lines, stream=stream)


def _short(text: str | None, most: int = 72) -> str:
    if not text:
        return "(none given)"
    return text if len(text) <= most else f"{text[: most - 1]}…"


def write_latency(lake: Lake, question: Question, stream: TextIO) -> None:
    """Write the answer to a question for latency."""
    relation = lake.answer(question)
    names, rows = list(relation.columns), fetch_dicts(relation)
    if not rows:
        stream.write("no finished runs yet\n")
        return
    by = names[: names.index("runs")]
    if by == ["kind"]:
        rows = sorted(rows, key=lambda row: kind_order(row["kind"]))
    most = max((row["p50"] for row in rows if row["p50"]), default=0.0)
    times = ("p90", "p95", "p99", "longest", "processing_p50")
    lines = [
        (
            *(label(row[name]) for name in by), row["runs"], _seconds(row["p50"]), bar(row["p50"], most),
            *(_seconds(row[name]) for name in times), row["reviewed_left_out"] or None, row["untimed"] or None,
        )
        for row in rows
    ]  # fmt: skip
    header = [
        *by,
        "runs",
        "half within",
        "",
        "90 %",
        "95 %",
        "99 %",
        "longest",
        "processing, half",
        "reviewed",
        "untimed",
    ]
    write_lines(header, lines, stream)
    write_notes(latency_notes(rows), stream)


def latency_notes(rows: list[Row]) -> list[str]:
    """Return what to know beside times."""
    notes = [
        "Seconds from created to finished: a workflow run's own end, else the last change (`updatedAt`). Processing is "
        "the API's own measure, where it gives one."
    ]
    if reviewed := sum(row["reviewed_left_out"] for row in rows):
        notes.append(
            f"{reviewed:,} reviewed runs are left out: their end is the review's, for which they waited for a person."
        )
    if untimed := sum(row["untimed"] for row in rows):
        notes.append(
            f"{untimed:,} runs are untimed: no answer told when they were created (parse, edit, form detection by ID)."
        )
    return notes


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"
