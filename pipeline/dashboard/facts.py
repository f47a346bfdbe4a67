"""What the dashboard shows, asked of a lake: a few questions, each summed up in SQL, so that size does not matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pipeline.reports import read_sql
from pipeline.reports.changes import Change
from pipeline.reports.credit_questions import daily_question, unknown_question
from pipeline.reports.forecast import Forecast, forecast_month
from pipeline.reports.questions import Window, ask_runs
from pipeline.reports.rates import Rates, read_rates
from pipeline.rows import fetch_dicts

if TYPE_CHECKING:
    from pipeline.catalog import Lake

Row = dict[str, Any]

RECENT_DAYS = 30
"""What the failure rate at the top of the page is of."""
MOST = 10
_CHANGED_DAYS = 7
_MOST_SLOTS = 800
_FEWEST_TIMED = 5


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the page says. `last_day` is the newest day that there is data of, in the window; null without any.

    `credits` are by time, kind and product, `failures` by time, kind and reason; the time's column is named after
    `grain`: `day`, or for long windows `week` or `month`.
    """

    window: Window
    span: Row
    grain: str
    last_day: date | None
    data_as_of: datetime | None
    rates: Rates | None
    credits: list[Row]
    failures: list[Row]
    daily: Mapping[date, Decimal]
    forecast: Forecast | None
    recent: Row | None
    recent_window: Window
    changes: list[Change]
    changes_window: Window | None
    latency_by_kind: list[Row]
    latency_by_processor: list[Row]
    slowest_runs: list[Row]
    credits_by_processor: list[Row]
    credits_by_basis: list[Row]
    costliest_runs: list[Row]
    costliest_files: list[Row]
    wasted: list[Row]
    unknown: list[Row]
    dead_letters: list[Row]


def gather_facts(
    lake: Lake, *, since: str | None = None, until: str | None = None, rate: str | Decimal | None = None
) -> Facts:
    """Ask the lake all that the page says, within a window of UTC days.

    The forecast and what changed look at the newest days of the window, and back beyond its beginning. The lake is to
    be one opened for this: what it says of runs and credits is held (see `Lake.hold`).
    """
    window = lake.window(since, until)
    lake.hold()
    asked: dict[str, Any] = {"since": window.since, "until": window.until}
    (span,) = fetch_dicts(lake.answer(ask_runs("span", None, window=window)))
    grain = _grain(span)
    last_day, is_whole = _last_day(lake, window)
    daily = {day: credits for day, credits in lake.answer(daily_question()).fetchall() if day and credits}
    recent_window, changes_window = _recent_windows(window, last_day)
    recent = fetch_dicts(lake.failures("all", since=recent_window.since, until=recent_window.until))
    return Facts(
        window=window,
        span=span,
        grain=grain,
        last_day=last_day,
        data_as_of=lake.data_as_of(),
        rates=None if rate is None else read_rates(rate),
        credits=fetch_dicts(lake.credits((grain, "kind", "product"), rate=rate, **asked)),
        failures=fetch_dicts(lake.failures((grain, "kind", "reason"), **asked)),
        daily=daily,
        forecast=_forecast(daily, last_day, is_whole),
        recent=recent[0] if recent else None,
        recent_window=recent_window,
        changes=_changes(lake, changes_window),
        changes_window=changes_window,
        latency_by_kind=fetch_dicts(lake.latency("kind", **asked)),
        latency_by_processor=_slowest_first(fetch_dicts(lake.latency(("kind", "processor"), **asked))),
        slowest_runs=fetch_dicts(lake.answer(ask_runs("slowest_runs", None, window=window, params={"most": MOST}))),
        credits_by_processor=_costliest_first(fetch_dicts(lake.credits(("processor",), rate=rate, **asked))),
        credits_by_basis=fetch_dicts(lake.credits("basis", **asked)),
        costliest_runs=fetch_dicts(lake.costliest_runs(MOST, **asked)),
        costliest_files=fetch_dicts(lake.costliest_files(MOST, **asked)),
        wasted=fetch_dicts(lake.wasted_credits(("kind",), **asked)),
        unknown=fetch_dicts(lake.answer(unknown_question(("kind",), window=window))),
        dead_letters=fetch_dicts(lake.sql(read_sql("dead_letter_reasons"))),
    )


def usd_at(rates: Rates, day: date) -> Decimal | None:
    """Return the rate in force on a day, in USD a credit; null before the first."""
    return next(
        (usd for since, usd in zip(reversed(rates.since), reversed(rates.usd), strict=True) if since <= day), None
    )


def _grain(span: Row) -> str:
    if span["first_day"] is None:
        return "day"
    days = (span["last_day"] - span["first_day"]).days + 1
    return "day" if days <= _MOST_SLOTS else "week" if days <= 7 * _MOST_SLOTS else "month"


def _last_day(lake: Lake, window: Window) -> tuple[date | None, bool]:
    """Return the newest day that there is data of before the window's end, and whether all of it is there."""
    newest, is_whole = lake.newest_day()
    if newest is not None and window.until is not None and window.until <= newest:
        return window.until - timedelta(days=1), True
    return newest, is_whole


def _recent_windows(window: Window, last_day: date | None) -> tuple[Window, Window | None]:
    if last_day is None or (window.since is not None and last_day < window.since):
        return window, None
    end = last_day + timedelta(days=1)
    since = end - timedelta(days=RECENT_DAYS)
    recent = Window(since if window.since is None else max(since, window.since), end)
    return recent, Window(end - timedelta(days=_CHANGED_DAYS), end)


def _forecast(daily: Mapping[date, Decimal], last_day: date | None, is_whole: bool) -> Forecast | None:
    if last_day is None:
        return None
    so_far = {day: credits for day, credits in daily.items() if day <= last_day}
    return forecast_month(so_far, last_day=last_day, is_whole=is_whole)


def _changes(lake: Lake, window: Window | None) -> list[Change]:
    return [] if window is None else lake.find_changes(since=window.since, until=window.until)


def _slowest_first(rows: list[Row]) -> list[Row]:
    """Return the processors slow for the most part, leaving out those with too few runs to tell."""
    timed = [row for row in rows if row["runs"] >= _FEWEST_TIMED]
    return sorted(timed, key=lambda row: (-row["p90"], row["processor"] or ""))[:MOST]


def _costliest_first(rows: list[Row]) -> list[Row]:
    charged = [row for row in rows if row["credits"]]
    return sorted(charged, key=lambda row: (-row["credits"], row["processor"] or ""))
