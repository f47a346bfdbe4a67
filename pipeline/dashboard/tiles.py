"""The big numbers at the top of the page: the month's credits, its forecast, the failure rate, what is unknown."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from html import escape

from pipeline.dashboard.facts import Facts, usd_at
from pipeline.dashboard.words import big, usd_text
from pipeline.layout import interval, percent
from pipeline.render import shown
from pipeline.reports.forecast import FEWEST_WEEKS

Tile = tuple[str, str, list[str]]


def tiles(facts: Facts) -> str:
    """Return the tiles as HTML."""
    makers: tuple[Callable[[Facts], Tile], ...] = (_month, _forecast, _failures, _unknown)
    made = []
    for title, number, notes in (make(facts) for make in makers):
        said = "".join(f'<p class="note">{escape(note)}</p>' for note in notes if note)
        made.append(f'<li class="tile"><h2>{escape(title)}</h2><p class="big">{escape(number)}</p>{said}</li>')
    return f'<ul class="tiles" aria-label="At a glance">{"".join(made)}</ul>\n'


def _month(facts: Facts) -> Tile:
    forecast = facts.forecast
    if forecast is None:
        return "Credits this month", "–", ["no run tells when it was created"]
    notes = [f"{shown(forecast.so_far)} credits to {forecast.last_day}"]
    if facts.rates:
        notes.insert(0, usd_text(_usd(facts, forecast.month, forecast.last_day)))
    return f"Credits, {forecast.month:%B %Y}", big(forecast.so_far), [*notes, _beside_last_month(facts)]


def _beside_last_month(facts: Facts) -> str:
    """Return how the month so far stands beside as many days of the month before."""
    forecast = facts.forecast
    if forecast is None:
        return ""
    first = (forecast.month - timedelta(days=1)).replace(day=1)
    last = min(first + (forecast.last_day - forecast.month), forecast.month - timedelta(days=1))
    before = sum((credits for day, credits in facts.daily.items() if first <= day <= last), Decimal())
    if not before:
        return ""
    change = float((forecast.so_far - before) / before)
    sign = "+" if change >= 0 else ""
    return f"{sign}{percent(change)} beside the same days of {first:%B} ({big(before)})"


def _usd(facts: Facts, first: date, last: date) -> Decimal | None:
    """Return what the credits of these days cost; null where a day that was charged has no rate."""
    total = Decimal()
    for day, credits in facts.daily.items():
        if not facts.rates or not first <= day <= last:
            continue
        usd = usd_at(facts.rates, day)
        if usd is None:
            return None
        total += credits * usd
    return total


def _forecast(facts: Facts) -> Tile:
    forecast = facts.forecast
    if forecast is None:
        return "Forecast of the month", "–", []
    title = f"Forecast, all of {forecast.month:%B}"
    if forecast.expected is None or forecast.low is None or forecast.high is None:
        return title, "–", [f"too little to go by: {forecast.weeks} of at least {FEWEST_WEEKS} whole weeks"]
    notes = [f"90 % sure: {big(forecast.low)} to {big(forecast.high)}", _forecast_usd(facts)]
    if forecast.weeks:
        notes.append(f"if weeks go on as the last {forecast.weeks} did")
    return title, big(forecast.expected), notes


def _forecast_usd(facts: Facts) -> str:
    forecast = facts.forecast
    if facts.rates is None or forecast is None or forecast.expected is None:
        return ""
    spent = _usd(facts, forecast.month, forecast.last_day)
    usd = usd_at(facts.rates, forecast.last_day)
    if spent is None or usd is None:
        return ""
    return f"{usd_text(spent + (forecast.expected - forecast.so_far) * usd)} at {shown(usd)} USD a credit"


def _failures(facts: Facts) -> Tile:
    recent, window = facts.recent, facts.recent_window
    dated = window.since is not None and window.until is not None
    title = f"Failure rate, last {window.days} days" if dated else "Failure rate"
    if recent is None or recent["rate"] is None:
        return title, "–", ["no run has ended"]
    counts = f"{recent['failed']:,} of {recent['ended']:,} ended runs failed"
    beside = [f"{recent[name]:,} {name}" for name in ("rejected", "cancelled", "unfinished") if recent[name]]
    sure = f"95 % interval: {interval(recent['rate_low'], recent['rate_high'])}"
    return title, percent(recent["rate"]), [sure, counts, f"beside them {', '.join(beside)}" if beside else ""]


def _unknown(facts: Facts) -> Tile:
    runs = sum(row["runs"] for row in facts.unknown)
    share = f"{percent(runs / facts.span['runs'])} of all runs" if facts.span["runs"] else ""
    return "Runs with unknown credits", f"{runs:,}", [share, "unknown is not zero: they are in no sum"]
