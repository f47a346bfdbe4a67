"""Rows for the charts that no filter changes: each with the `head` and `tip` that the pointer shows, as text."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from pipeline.dashboard.facts import MOST, Facts, Row
from pipeline.dashboard.series import Names, kind_label
from pipeline.dashboard.words import credits_text, name_text, p_text, seconds_text
from pipeline.layout import kind_order, percent
from pipeline.reports.changes import Change

Rows = dict[str, list[Row]]

_TIMES = {"p50": "half within", "p90": "90 %", "p95": "95 %", "p99": "99 %", "longest": "longest"}


def fixed_rows(facts: Facts, kinds: Names) -> dict[str, Rows]:
    """Return the rows of each chart, by the chart's name and the name of its data set."""
    return {
        "forecast": _forecast(facts),
        "changes": {"rows": [_change(each) for each in shown_changes(facts) if each.ended_before and each.ended_after]},
        "latency": {"rows": [_latency(row, kinds) for row in by_kind(facts.latency_by_kind) if row["runs"]]},
        "processors": {"ranked": _processors(facts)},
        "unknown": {"ranked": _unknown(facts, kinds)},
    }


def shown_changes(facts: Facts) -> list[Change]:
    """Return the surest changes of single values that are a change at all."""
    return [change for change in facts.changes[1:] if change.failed_before or change.failed_after][:MOST]


def by_kind(rows: Iterable[Row]) -> list[Row]:
    """Return rows in the order of kinds that all of the project has."""
    return sorted(rows, key=lambda row: kind_order(row["kind"]))


def change_name(change: Change) -> str:
    """Return what a change is of, with its dimension: `version Invoices 2.1`."""
    value = kind_label(change.value) if change.dimension == "kind" else name_text(change.value)
    return f"{change.dimension.replace('_', ' ')} {value}"


def month_days(facts: Facts) -> list[tuple[date, Decimal, Decimal]]:
    """Return each day of the newest month so far, with its credits and those of the month until then."""
    if facts.forecast is None:
        return []
    days, total = [], Decimal()
    day = facts.forecast.month
    while day <= facts.forecast.last_day:
        credits = facts.daily.get(day, Decimal())
        total += credits
        days.append((day, credits, total))
        day += timedelta(days=1)
    return days


def _ms(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp()) * 1000


def _forecast(facts: Facts) -> Rows:
    forecast, days = facts.forecast, month_days(facts)
    if forecast is None:
        return {"days": [], "cone": [], "slots": []}
    next_day = timedelta(days=1)
    sums = [{"t": _ms(forecast.month), "sum": 0.0}]
    sums += [{"t": _ms(day + next_day), "sum": float(total)} for day, _, total in days]
    slots = [
        {
            "t": _ms(day), "t2": _ms(day + next_day), "head": str(day),
            "tip": [["credits", credits_text(credits)], ["month so far", credits_text(total)]],
        }
        for day, credits, total in days
    ]  # fmt: skip
    if forecast.expected is None or forecast.low is None or forecast.high is None:
        return {"days": sums, "cone": [], "slots": slots}
    end, so_far = _ms((forecast.month + timedelta(days=32)).replace(day=1)), float(forecast.so_far)
    low, expected, high = forecast.low, forecast.expected, forecast.high
    cone = [
        {"t": sums[-1]["t"], "low": so_far, "expected": so_far, "high": so_far},
        {"t": end, "low": float(low), "expected": float(expected), "high": float(high)},
    ]
    tip = [["expected", _rounded(expected)], ["90 % sure", f"{_rounded(low)} to {_rounded(high)}"]]
    if sums[-1]["t"] < end:
        slots.append({"t": sums[-1]["t"], "t2": end, "head": f"end of {forecast.month:%B}", "tip": tip})
    return {"days": sums, "cone": cone, "slots": slots}


def _rounded(credits: Decimal) -> str:
    return credits_text(round(credits, 1))


def _change(change: Change) -> Row:
    before, after = change.failed_before / change.ended_before, change.failed_after / change.ended_after
    corrected = change.p if change.p_corrected is None else change.p_corrected
    return {
        "label": change_name(change),
        "before": before,
        "after": after,
        "tone": ("bad" if after >= before else "good") if change.is_significant else "muted",
        "head": change_name(change),
        "tip": [
            ["before", f"{percent(before)}, {change.failed_before:,} of {change.ended_before:,}"],
            ["after", f"{percent(after)}, {change.failed_after:,} of {change.ended_after:,}"],
            ["p, corrected", f"{p_text(corrected)}{'' if change.is_significant else ', may be chance'}"],
        ],
    }


def _latency(row: Row, kinds: Names) -> Row:
    names = {
        "p50": "half within",
        "p90": "90 % within",
        "p95": "95 % within",
        "p99": "99 % within",
        "longest": "longest",
    }
    return {
        "label": kind_label(row["kind"]),
        "kind": kinds.index(row["kind"]),
        **{name: row[name] for name in ("p50", "p90", "p99")},
        "head": kind_label(row["kind"]),
        "tip": [
            *([text, f"{seconds_text(row[name])} s"] for name, text in names.items()),
            ["runs", f"{row['runs']:,}"],
        ],
    }


def _processors(facts: Facts) -> list[Row]:
    return [
        _ranked(processor_name(row["processor"]), [{"name": "credits", "amount": row["credits"]}])
        for row in facts.credits_by_processor[:MOST]
    ]


def processor_name(name: str | None) -> str:
    """Return a processor's name, or what it means that there is none."""
    return "no processor" if name is None else name_text(name)


def _unknown(facts: Facts, kinds: Names) -> list[Row]:
    whys: dict[str, list[dict[str, Any]]] = {}
    for row in by_kind(facts.unknown):
        part = {"name": kind_label(row["kind"]), "kind": kinds.index(row["kind"]), "amount": row["runs"]}
        whys.setdefault(row["why"], []).append(part)
    ranked = [_ranked(why, parts) for why, parts in whys.items()]
    return sorted(ranked, key=lambda row: -sum(part["amount"] for part in row["parts"]))


def _ranked(label: str, parts: list[dict[str, Any]]) -> Row:
    total = sum(part["amount"] for part in parts)
    told = [{**part, "amount": float(part["amount"]), "text": _text(part["amount"])} for part in parts]
    return {"label": label, "parts": told, "text": _text(total)}


def _text(amount: Decimal | int) -> str:
    return credits_text(amount) if isinstance(amount, Decimal) else f"{amount:,}"
