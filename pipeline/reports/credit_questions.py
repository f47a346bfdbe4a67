"""The questions that `pipeline report credits` and `Lake.credits` put."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from pipeline.errors import UsageError
from pipeline.reports.dimensions import DAY_AND_KIND, By
from pipeline.reports.questions import Question, Window, ask_credits
from pipeline.reports.rates import read_rates


def credits_question(
    by: By = DAY_AND_KIND, *, window: Window, where: str | None = None, rate: str | Decimal | float | None = None,
    compare: bool = False, data_as_of: datetime | None = None,
) -> Question:  # fmt: skip
    """Ask for credits by dimensions: plain, at rates, or beside the window before."""
    params: dict[str, object] = {"data_as_of": data_as_of}
    if compare and rate is not None:
        raise UsageError("--compare and --rate do not go together; compare credits, or price one window at a time")
    if compare:
        return ask_credits("credits_compared", by, window=window, where=where, compare=True, params=params)
    if rate is None:
        return ask_credits("credits", by, window=window, where=where, params=params)
    rates = read_rates(rate)
    params |= {"rate_since": list(rates.since), "rate_usd": list(rates.usd)}
    return ask_credits("credits_priced", by, window=window, where=where, params=params)


def costliest_question(what: str, *, most: int, window: Window, where: str | None = None) -> Question:
    """Ask for the costliest `runs` or `files`."""
    return ask_credits(f"costliest_{what}", None, window=window, where=where, params={"most": most})


def wasted_question(by: By = ("kind",), *, window: Window, where: str | None = None) -> Question:
    """Ask for credits spent on runs that failed, or on the same file again."""
    return ask_credits("wasted_credits", by, window=window, where=where)


def unknown_question(by: By = ("kind",), *, window: Window, where: str | None = None) -> Question:
    """Ask for runs whose credits nothing tells, by why."""
    return ask_credits("unknown_runs", by, window=window, where=where)


def daily_question(*, where: str | None = None) -> Question:
    """Ask for credits by day, of all days."""
    return ask_credits("daily_credits", None, window=Window(), where=where)
