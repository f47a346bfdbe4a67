"""What the values of a payload become in a row: text, times, numbers, one by one and a column at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from operator import attrgetter, itemgetter
from types import NoneType
from typing import Any

_MICRO = Decimal("0.000001")
_CREDITS_BOUND = Decimal(10) ** 12
INT_BOUND = 2**63


def text_value(value: str) -> str:
    """Return text that every store can hold: a lone surrogate, which is no character, is written out as `\\udc80`."""
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def time_value(value: str) -> datetime:
    """Return an RFC 3339 time in UTC; a time without a zone is taken as UTC. Raise ValueError for anything else."""
    if len(value) < 19 or value[10] not in "Tt ":
        raise ValueError(value)
    parsed = datetime.fromisoformat(value.upper())
    if parsed.tzinfo is UTC:
        return parsed
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def decimal_value(value: int | float | Decimal) -> Decimal:
    """Return a number with six decimals, free of binary noise. Raise ValueError where 18 digits cannot hold it."""
    exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not exact.is_finite() or exact.copy_abs() >= _CREDITS_BOUND:
        raise ValueError(value)
    rounded = exact.quantize(_MICRO)
    if rounded.copy_abs() >= _CREDITS_BOUND:
        raise ValueError(value)
    return rounded


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(value)
    return text_value(value)


def _texts(values: list[Any]) -> list[Any]:
    "".join(filter(None, values)).encode()  # where half of a surrogate pair is no character: a ValueError
    return values


def _time(value: Any) -> datetime:
    if type(value) is not str:
        raise ValueError(value)
    return time_value(value)


def _times(values: list[Any]) -> list[Any]:
    texts = [value for value in values if value is not None]
    if min(map(len, texts)) < 19 or {*map(itemgetter(10), texts)} != {"T"}:
        raise ValueError(values)
    times = [*map(datetime.fromisoformat, texts)]
    if {*map(attrgetter("tzinfo"), times)} != {UTC}:
        raise ValueError(values)
    if len(times) == len(values):
        return times
    found = iter(times)
    return [None if value is None else next(found) for value in values]


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(value)
    return value


def _decimal(value: Any) -> Decimal:
    if type(value) not in (int, float, Decimal):
        raise ValueError(value)
    return decimal_value(value) if type(value) is Decimal else _known_decimal(value)


_known_decimal = lru_cache(maxsize=4_096, typed=True)(decimal_value)
"""What runs are charged repeats: mostly it is known already."""


def _decimals(values: list[Any]) -> list[Any]:
    return [None if value is None else _known_decimal(value) for value in values]


def _integer(value: Any) -> int:
    whole = int(_number(value))
    if whole != value or not -INT_BOUND <= whole < INT_BOUND:
        raise ValueError(value)
    return whole


def _integers(values: list[Any]) -> list[Any]:
    whole = [value for value in values if value is not None]
    if min(whole) < -INT_BOUND or max(whole) >= INT_BOUND:
        raise ValueError(values)
    return values


def _rounded(value: Any) -> int:
    return _integer(round(_number(value)))


def _finite(value: Any) -> float:
    number = float(_number(value))
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def _number(value: Any) -> int | float:
    if type(value) is int or type(value) is float:
        return value
    raise ValueError(value)


@dataclass(frozen=True, slots=True)
class ColumnType:
    """What the values of a column are made by: `one` makes one, `all` many at once, nulls among them, where they are of
    `types`. Both raise ValueError (OverflowError too, as of an infinite number) where a value is not of the type.
    """

    one: Callable[[Any], Any]
    types: frozenset[type] = frozenset()
    all: Callable[[list[Any]], list[Any]] = list

    def column(self, values: list[Any]) -> tuple[list[Any], int]:
        """Return what the values are as a column, null where one is not of the type, and how many are not."""
        types = {*map(type, values)}
        if types <= ALL_NULL:
            return values, 0
        if types <= self.types:
            try:
                return self.all(values), 0
            except (ValueError, OverflowError):
                pass  # one of them is not, or is written in an odd way
        column: list[Any] = []
        for value in values:
            try:
                column.append(None if value is None else self.one(value))
            except (ValueError, OverflowError):
                column.append(None)
        return column, column.count(None) - values.count(None)


ALL_NULL = frozenset({NoneType})
TEXT = ColumnType(_text, frozenset({str, NoneType}), _texts)
TIME = ColumnType(_time, frozenset({str, NoneType}), _times)
FLAG = ColumnType(_flag, frozenset({bool, NoneType}))
DECIMAL = ColumnType(_decimal, frozenset({int, float, NoneType}), _decimals)
INTEGER = ColumnType(_integer, frozenset({int, NoneType}), _integers)
ROUNDED = ColumnType(_rounded, frozenset({int, NoneType}), _integers)
FINITE = ColumnType(_finite)
