"""The month's forecast, worked out by hand: averages of weekdays, a range played with the weeks before, limits."""

from datetime import date, timedelta
from decimal import Decimal

import pytest

from pipeline.reports.forecast import forecast_month

MONDAY_1_JUNE = date(2026, 6, 1)


def days(first: date, *amounts: float) -> dict[date, Decimal]:
    return {first + timedelta(days=n): Decimal(str(amount)) for n, amount in enumerate(amounts) if amount}


def test_each_day_to_come_costs_what_its_weekday_did() -> None:
    # Eight equal weeks to Sunday, 14 June: ten a weekday, one a day at the end of the week, 52 a week.
    credits = days(date(2026, 4, 20), *([10, 10, 10, 10, 10, 1, 1] * 8))
    found = forecast_month(credits, last_day=date(2026, 6, 14), is_whole=True)
    assert (found.month, found.so_far, found.weeks) == (MONDAY_1_JUNE, 104, 8)
    # To come: two whole weeks, a Monday and a Tuesday. Weeks that do not differ leave no range.
    assert (found.expected, found.low, found.high) == (104 + 104 + 20, 228, 228)


def test_the_range_is_that_of_weeks_like_those_before() -> None:
    # 16 days to come: 7, 7 and 2, each part played by the week of tens or by that of twenties. All three by the same
    # one in an eighth of the cases, more than the 5 % that are left out on each side.
    credits = days(MONDAY_1_JUNE, *[10] * 7, *[20] * 7)
    found = forecast_month(credits, last_day=date(2026, 6, 14), is_whole=True)
    assert (found.so_far, found.weeks) == (210, 2)
    assert (found.expected, found.low, found.high) == (210 + 16 * 15, 210 + 160, 210 + 320)
    assert found == forecast_month(credits, last_day=date(2026, 6, 14), is_whole=True)


@pytest.mark.parametrize(("so_far_today", "still"), [(0, 10), (4, 6), (10, 0), (15, 0)])
def test_of_a_day_that_has_begun_what_is_missing_to_its_weekday_is_to_come(so_far_today: float, still: int) -> None:
    credits = days(date(2026, 4, 20), *[10] * 70, so_far_today)
    found = forecast_month(credits, last_day=date(2026, 6, 29), is_whole=False)
    # The 29th has begun; the 30th is to come.
    assert found.so_far == 280 + so_far_today
    assert found.expected == 280 + so_far_today + still + 10


def test_days_without_credits_count_as_zero_and_weeks_beyond_the_eighth_not_at_all() -> None:
    credits = days(date(2026, 3, 2), *[1000] * 42, *([14, 0, 0, 0, 0, 0, 0] * 8), *[0] * 7)
    last = date(2026, 6, 14)
    assert max(credits) == date(2026, 6, 1)
    found = forecast_month(credits, last_day=last, is_whole=True)
    # Mondays 20 April to 8 June: seven of 14 and one of nothing, 12.25 a Monday; three Mondays are to come.
    assert found.expected == 14 + 3 * Decimal("12.25")


@pytest.mark.parametrize(("number", "weeks"), [(13, 1), (6, 0)])
def test_with_less_than_two_whole_weeks_there_is_no_forecast(number: int, weeks: int) -> None:
    found = forecast_month(days(MONDAY_1_JUNE, *[1] * number), last_day=date(2026, 6, number), is_whole=True)
    assert (found.so_far, found.expected, found.low, found.high, found.weeks) == (number, None, None, None, weeks)


def test_a_month_that_is_over_needs_no_forecast() -> None:
    found = forecast_month(days(date(2026, 6, 28), 1, 2, 3), last_day=date(2026, 6, 30), is_whole=True)
    assert (found.so_far, found.expected, found.low, found.high) == (6, 6, 6, 6)


def test_december_ends_with_the_year() -> None:
    found = forecast_month(days(date(2026, 12, 1), *[1] * 30), last_day=date(2026, 12, 30), is_whole=True)
    assert (found.month, found.expected) == (date(2026, 12, 1), 31)


def test_credits_of_later_days_than_the_last_do_not_count() -> None:
    credits = {**days(MONDAY_1_JUNE, *[1] * 14), date(2026, 6, 20): Decimal(500)}
    assert forecast_month(credits, last_day=date(2026, 6, 14), is_whole=True).expected == 30
