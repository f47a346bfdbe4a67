"""What a month will come to, from the days so far: the method is plain enough to be checked by hand.

Each day still to come is expected to cost what its weekday cost on average in the eight weeks before (fewer where
there are fewer, two at the least). The range comes from those weeks themselves: a thousand times, each week still to
come is played by one of them, drawn by a fixed seed, day by day as it was; nine in ten of the sums lie in the range. It
knows how much weeks differ, and nothing of growth, holidays or plans.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

WEEKS = 8
FEWEST_WEEKS = 2
_DRAWS = 1_000
_TAIL = 0.05
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Forecast:
    """A month's credits: those so far, and with what is still to come, the range of it, and from how many weeks.

    `expected`, `low` and `high` are null where there is too little to go by: `weeks` is below two then.
    """

    month: date
    last_day: date
    so_far: Decimal
    expected: Decimal | None
    low: Decimal | None
    high: Decimal | None
    weeks: int


def forecast_month(credits: Mapping[date, Decimal], *, last_day: date, is_whole: bool) -> Forecast:
    """Return the forecast for the month of `last_day`, the last day that there is data of, whole or begun.

    A day without credits between the first and the last counts as zero. Of a day that has only begun, what is still
    missing to what its weekday costs is expected to come.
    """
    month = last_day.replace(day=1)
    end = (month + timedelta(days=32)).replace(day=1)
    so_far = sum((amount for day, amount in credits.items() if month <= day <= last_day), Decimal())
    whole_until = last_day + _DAY if is_whole else last_day
    first = min(credits, default=last_day)
    weeks = min(WEEKS, max(0, (whole_until - first).days) // 7)
    if weeks < FEWEST_WEEKS and whole_until < end:
        return Forecast(month, last_day, so_far, None, None, None, weeks)
    played = [
        [credits.get(whole_until + timedelta(days=n - 7 * back), Decimal()) for n in range(7)]
        for back in range(weeks, 0, -1)
    ]
    to_come = (end - whole_until).days
    begun = Decimal() if is_whole else credits.get(last_day, Decimal())
    means = [sum(day) / weeks for day in zip(*played, strict=True)] if weeks else []
    expected = so_far + _to_come([means[n % 7] for n in range(to_come)], begun)
    dice = random.Random(0)  # noqa: S311 - no secret: the same data must give the same range
    sums = sorted(
        so_far + _to_come([day for _ in range(0, to_come, 7) for day in dice.choice(played)][:to_come], begun)
        for _ in range(_DRAWS)
    )
    low, high = sums[int(_DRAWS * _TAIL)], sums[_DRAWS - 1 - int(_DRAWS * _TAIL)]
    low, high = min(low, expected), max(high, expected)
    return Forecast(month, last_day, so_far, round(expected, 6), round(low, 6), round(high, 6), weeks)


def _to_come(days: list[Decimal], begun: Decimal) -> Decimal:
    if not days:
        return Decimal()
    return max(Decimal(), days[0] - begun) + sum(days[1:], Decimal())
