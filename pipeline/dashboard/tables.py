"""The tables of the page, as HTML: one behind each chart, and lists of their own. All text is escaped here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from html import escape
from typing import Any
from urllib.parse import urlsplit

from pipeline.dashboard.facts import MOST, Facts, Row
from pipeline.dashboard.rows import by_kind, change_name, month_days, processor_name, shown_changes
from pipeline.dashboard.series import kind_label
from pipeline.dashboard.words import credits_text, name_text, p_text, seconds_text, usd_text
from pipeline.layout import percent


@dataclass(frozen=True, slots=True)
class Link:
    """Text that leads somewhere, where the address is one that a page may lead to."""

    text: str
    url: str | None


def table(
    name: str, caption: str, header: Sequence[str], rows: Sequence[Sequence[Any]], *,
    texts: int = 1, foot: Sequence[Any] | None = None,
) -> str:  # fmt: skip
    """Return a table whose first `texts` columns are text and the others numbers; the first of a row is its heading."""
    head = "".join(f'<th scope="col"{_numeric(place, texts)}>{escape(each)}</th>' for place, each in enumerate(header))
    body = "".join(_line(row, texts) for row in rows)
    below = f"<tfoot>{_line(foot, texts)}</tfoot>" if foot else "<tfoot></tfoot>"
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table id="table-{escape(name)}"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>{below}</table></div>"
    )


def _numeric(place: int, texts: int) -> str:
    return "" if place < texts else ' class="number"'


def _line(row: Sequence[Any], texts: int) -> str:
    cells = [f'<th scope="row">{_cell(row[0])}</th>']
    cells += [f"<td{_numeric(place, texts)}>{_cell(each)}</td>" for place, each in enumerate(row[1:], start=1)]
    return f"<tr>{''.join(cells)}</tr>"


def _cell(value: Any) -> str:
    if isinstance(value, Link):
        if value.url is None or not _is_safe(value.url):
            return escape(value.text)
        return f'<a href="{escape(value.url)}" rel="noopener noreferrer">{escape(value.text)}</a>'
    return "" if value is None else escape(str(value))


def _is_safe(url: str) -> bool:
    """Tell whether an address from data is plainly one of the web: no script, no file, no name and password."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc and url.isprintable()
    except ValueError:
        return False


def fixed_tables(facts: Facts) -> dict[str, str]:
    """Return the tables that no filter changes, by name."""
    return {
        "forecast": _forecast(facts),
        "changes": _changes(facts),
        "latency": _latency(facts),
        "slow-processors": _slow_processors(facts),
        "slowest": _slowest(facts),
        "processors": _processors(facts),
        "runs": _runs(facts),
        "files": _files(facts),
        "wasted": _wasted(facts),
        "unknown": _unknown(facts),
        "dead-letters": _dead_letters(facts),
    }


def _forecast(facts: Facts) -> str:
    rows: list[tuple[Any, ...]] = [
        (day, credits_text(credits), credits_text(total)) for day, credits, total in month_days(facts)
    ]
    forecast = facts.forecast
    if forecast is not None and forecast.expected is not None:
        ends = (("lowest", forecast.low), ("expected", forecast.expected), ("highest", forecast.high))
        rows += [(f"end of month, {name}", "", credits_text(amount)) for name, amount in ends]
    return table("forecast", "The month by day", ["day", "credits", "month so far"], rows)


def _changes(facts: Facts) -> str:
    rows = [
        (
            change_name(each),
            f"{each.failed_before:,} of {each.ended_before:,}", _share(each.failed_before, each.ended_before),
            f"{each.failed_after:,} of {each.ended_after:,}", _share(each.failed_after, each.ended_after),
            "" if each.carried is None else f"{each.carried * 100:+.2f}".replace("-", "−"),
            p_text(each.p), p_text(each.p if each.p_corrected is None else each.p_corrected),
            "yes" if each.is_significant else "no",
        )
        for each in [*facts.changes[:1], *shown_changes(facts)]
    ]  # fmt: skip
    header = ["", "before", "rate", "after", "rate", "carries, points", "p", "p corrected", "more than chance"]
    return table("changes", "Failures in two windows", header, rows)


def _share(failed: int, ended: int) -> str:
    return percent(failed / ended) if ended else ""


_TIMES = ("p50", "p90", "p95", "p99", "longest", "processing_p50")
_TIMES_HEADER = ["runs", "half within", "90 %", "95 %", "99 %", "longest", "processing, half"]


def _times(row: Row) -> tuple[str, ...]:
    return (f"{row['runs']:,}", *(seconds_text(row[name]) for name in _TIMES))


def _latency(facts: Facts) -> str:
    rows = [
        (kind_label(row["kind"]), *_times(row), row["reviewed_left_out"] or "", row["untimed"] or "")
        for row in by_kind(facts.latency_by_kind)
    ]
    header = ["kind", *_TIMES_HEADER, "reviewed", "untimed"]
    return table("latency", "Seconds from created to finished, by kind", header, rows)


def _slow_processors(facts: Facts) -> str:
    rows = [
        (processor_name(row["processor"]), kind_label(row["kind"]), *_times(row)) for row in facts.latency_by_processor
    ]
    header = ["processor", "kind", *_TIMES_HEADER]
    return table("slow-processors", "Seconds from created to finished, the slowest processors", header, rows, texts=2)


def _slowest(facts: Facts) -> str:
    rows = [
        (
            Link(row["run_id"], row["dashboard_url"]), kind_label(row["kind"]), _text(row["processor"]),
            _text(row["file_name"]), row["created_on"], row["status"], row["pages"], seconds_text(row["seconds"]),
        )
        for row in facts.slowest_runs
    ]  # fmt: skip
    header = ["run", "kind", "processor", "file", "day", "status", "pages", "seconds"]
    return table("slowest", "The slowest runs", header, rows, texts=6)


def _processors(facts: Facts) -> str:
    rows = [
        (
            processor_name(row["processor"]), credits_text(row["credits"]),
            *([usd_text(row["usd"])] if "usd" in row else []), f"{row['charged_runs']:,}", row["unknown_runs"] or "",
        )
        for row in facts.credits_by_processor[: 5 * MOST]
    ]  # fmt: skip
    header = ["processor", "credits", *(["USD"] if facts.rates else []), "charged runs", "unknown runs"]
    return table("processors", "Credits by processor", header, rows)


def _runs(facts: Facts) -> str:
    rows = [
        (
            Link(name_text(row["run_id"]), row["dashboard_url"]), kind_label(row["kind"]), _text(row["processor"]),
            _text(row["file_name"]), row["charged_on"], row["status"], row["pages"], credits_text(row["credits"]),
        )
        for row in facts.costliest_runs
    ]  # fmt: skip
    header = ["run", "kind", "processor", "file", "day", "status", "pages", "credits"]
    return table("runs", "The costliest runs, with what they caused", header, rows, texts=6)


def _files(facts: Facts) -> str:
    rows = [
        (
            _text(row["file_name"]),
            row["file_type"],
            row["file_id"],
            f"{row['charged_runs']:,}",
            credits_text(row["credits"]),
        )
        for row in facts.costliest_files
    ]
    return table("files", "The costliest files", ["file", "type", "ID", "charged runs", "credits"], rows, texts=3)


def _wasted(facts: Facts) -> str:
    rows = [
        (row["why"], kind_label(row["kind"]), f"{row['charged_runs']:,}", credits_text(row["credits"]))
        for row in facts.wasted
    ]
    total = sum((row["credits"] for row in facts.wasted), Decimal())
    foot = ("total", "", "", credits_text(total)) if rows else None
    return table(
        "wasted", "Credits that brought nothing new", ["why", "kind", "runs", "credits"], rows, texts=2, foot=foot
    )


def _unknown(facts: Facts) -> str:
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for row in by_kind(facts.unknown):
        counts[kind_label(row["kind"])][row["why"]] = row["runs"]
    whys = sorted({row["why"] for row in facts.unknown})
    rows = [(kind, *(of.get(why, "") for why in whys), f"{sum(of.values()):,}") for kind, of in counts.items()]
    sums = [sum(of.get(why, 0) for of in counts.values()) for why in whys]
    foot = ("total", *(f"{each:,}" for each in sums), f"{sum(sums):,}") if rows else None
    return table("unknown", "Runs with unknown credits, by why", ["kind", *whys, "runs"], rows, foot=foot)


def _dead_letters(facts: Facts) -> str:
    rows = [
        (_text(row["reason"]), kind_label(row["kind"]), f"{row['runs']:,}") for row in facts.dead_letters[: 5 * MOST]
    ]
    return table("dead-letters", "IDs that did not come", ["reason", "kind", "IDs"], rows, texts=2)


def _text(value: Any) -> str:
    return "" if value is None else name_text(value)
