"""What a credit costs, by the user's word: one rate, or a small file of rates by date."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path

from pipeline.errors import UsageError

_ALWAYS = date(1, 1, 1)
_MOST = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Rates:
    """USD a credit, each rate from a day on until the next; `since` and `usd` run side by side, oldest first."""

    since: tuple[date, ...]
    usd: tuple[Decimal, ...]


def read_rates(text: str | Decimal | float) -> Rates:
    """Return the rates that `--rate` names: `0.0125`, or a CSV file of lines `date,usd`, each in force from its date.

    Raises UsageError for anything else. Credits charged before the file's first date have no rate.
    """
    rate = _amount(str(text))
    if rate is not None:
        return Rates((_ALWAYS,), (rate,))
    path = Path(str(text))
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except FileNotFoundError as error:
        raise UsageError(f"--rate {text}: neither a positive number of USD a credit nor a file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"--rate {text}: cannot be read ({error})") from error
    rates: dict[date, Decimal] = {}
    for number, line in enumerate(lines, start=1):
        if not line or line[0].lstrip().startswith("#") or (number == 1 and line[0].strip().lower() == "date"):
            continue
        day, amount = _line(f"{path}:{number}", line)
        if day in rates:
            raise UsageError(f"{path}:{number}: {day} has a rate already")
        rates[day] = amount
    if not rates:
        raise UsageError(f"{path}: no rates; write a line each, as in 2026-01-01,0.0125")
    days = sorted(rates)
    return Rates(tuple(days), tuple(rates[day] for day in days))


def _line(where: str, line: list[str]) -> tuple[date, Decimal]:
    try:
        day = date.fromisoformat(line[0].strip())
    except ValueError as error:
        raise UsageError(f"{where}: {line[0]!r} is not a day; write a line as 2026-01-01,0.0125") from error
    amount = _amount(line[1].strip()) if len(line) == 2 else None
    if amount is None:
        raise UsageError(f"{where}: needs one positive number behind the day; write a line as 2026-01-01,0.0125")
    return day, amount


def _amount(text: str) -> Decimal | None:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        return None
    if not amount.is_finite() or not 0 < amount < _MOST or amount != round(amount, 9):
        return None
    return amount
