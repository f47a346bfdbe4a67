"""How the page writes numbers, days and names; whatever it returns is plain text, to be escaped where it goes."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from pipeline.layout import label
from pipeline.render import shown
from pipeline.reports.questions import Window


def big(amount: Decimal) -> str:
    """Return an amount short enough to be read across a room: whole from a hundred on."""
    return f"{amount:,.0f}" if abs(amount) >= 100 else shown(round(amount, 2))


def credits_text(amount: Decimal | None) -> str:
    """Return credits to their last digit."""
    return "" if amount is None else shown(amount)


def usd_text(amount: Decimal | None) -> str:
    """Return dollars and cents."""
    return "" if amount is None else f"{amount:,.2f} USD"


def seconds_text(seconds: float | None) -> str:
    """Return seconds with a decimal."""
    return "" if seconds is None else f"{seconds:,.1f}"


def p_text(p: float) -> str:
    """Return a p-value; what is below one in ten thousand is said to be so."""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def days_text(window: Window) -> str:
    """Return a window as its first and last day."""
    last = None if window.until is None else window.until - timedelta(days=1)
    if window.since is None and last is None:
        return "all days"
    return f"{window.since or 'the beginning'} to {last or 'today'}"


def name_text(value: Any) -> str:
    """Return a name from data; an empty one is said to be so."""
    return "(empty)" if value == "" else label(value)
