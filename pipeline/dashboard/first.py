"""The tables that the filters change, as they stand at first: what the script makes of the same numbers unfiltered.

They are in the page for whoever reads it without a script, and a test holds the two together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from pipeline.dashboard.facts import Facts
from pipeline.dashboard.series import MICRO, Series, kind_label, slot_of
from pipeline.dashboard.tables import table
from pipeline.dashboard.words import credits_text
from pipeline.layout import interval, percent

Z = 1.959963984540054


def first_tables(facts: Facts, series: Series, grain: str) -> dict[str, str]:
    """Return the tables of credits, failure rates and reasons, by name."""
    return {"credits": _credits(series, grain), "rates": _rates(series, grain), "reasons": _reasons(series)}


def kind_names(series: Series) -> list[str]:
    """Return how the kinds of a series are shown, in its order."""
    named = [kind_label(kind) for kind in series.kinds.values]
    return [*named, *([series.kinds.other] if series.kinds.other else [])]


def total_credits(series: Series) -> Decimal:
    """Return all credits of a series."""
    return Decimal(sum(series.credits["c"])) / MICRO


def wilson(failed: int, ended: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a rate; as `failures.sql` has it, for sums that SQL has not made."""
    rate = failed / ended
    middle = (rate + Z * Z / (2 * ended)) / (1 + Z * Z / ended)
    margin = Z * ((rate * (1 - rate) / ended + Z * Z / (4 * ended * ended)) ** 0.5) / (1 + Z * Z / ended)
    return max(0.0, middle - margin), min(1.0, middle + margin)


def _slot(series: Series, place: int, grain: str) -> date | None:
    return None if place < 0 else slot_of(series.times[place], grain)


def _in_order(slots: Mapping[date | None, Any]) -> list[date | None]:
    return sorted(slots, key=lambda slot: (slot is None, slot or date.min))


def _name(slot: date | None) -> str:
    return "not known" if slot is None else str(slot)


def _credits(series: Series, grain: str) -> str:
    sums: dict[date | None, Counter[int]] = defaultdict(Counter)
    silent: Counter[date | None] = Counter()
    columns = series.credits
    for place, kind, amount in zip(columns["t"], columns["k"], columns["c"], strict=True):
        sums[_slot(series, place, grain)][kind] += amount
    for place, runs in zip(series.unknown["t"], series.unknown["n"], strict=True):
        silent[_slot(series, place, grain)] += runs
    met = sorted({kind for parts in sums.values() for kind, amount in parts.items() if amount})
    names = kind_names(series)

    def line(name: str, parts: Mapping[int, int], runs: int) -> tuple[str, ...]:
        amounts = [*(parts.get(kind, 0) for kind in met), sum(parts.values())]
        return (
            name,
            *(credits_text(Decimal(each) / MICRO) if each else "" for each in amounts),
            f"{runs:,}" if runs else "",
        )

    rows = [line(_name(slot), sums.get(slot, {}), silent[slot]) for slot in _in_order({**silent, **sums})]
    whole: Counter[int] = sum(sums.values(), Counter())
    header = [grain, *(names[kind] for kind in met), "credits", "unknown runs"]
    return table("credits", f"Credits by {grain} and kind", header, rows, foot=line("total", whole, silent.total()))


def _rates(series: Series, grain: str) -> str:
    sums: dict[date | None, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for place, failed, ended in zip(series.ended["t"], series.ended["f"], series.ended["n"], strict=True):
        slot = _slot(series, place, grain)
        sums[slot] = (sums[slot][0] + failed, sums[slot][1] + ended)

    def line(name: str, failed: int, ended: int) -> tuple[str, ...]:
        return (name, f"{failed:,}", f"{ended:,}", percent(failed / ended), interval(*wilson(failed, ended)))

    rows = [line(_name(slot), *sums[slot]) for slot in _in_order(sums)]
    foot = line("total", sum(series.ended["f"]), sum(series.ended["n"])) if rows else None
    header = [grain, "failed", "of", "rate", "95 % interval"]
    return table("rates", f"Failure rate by {grain}", header, rows, foot=foot)


def _reasons(series: Series) -> str:
    sums: dict[int, Counter[int]] = defaultdict(Counter)
    columns = series.failed
    for kind, reason, failed in zip(columns["k"], columns["r"], columns["n"], strict=True):
        sums[reason][kind] += failed
    met = sorted({kind for parts in sums.values() for kind in parts})
    names, reasons = kind_names(series), reason_names(series)

    def line(name: str, parts: Counter[int]) -> tuple[str, ...]:
        return (name, *(f"{parts[kind]:,}" if parts[kind] else "" for kind in met), f"{parts.total():,}")

    ranked = sorted(sums, key=lambda reason: (-sums[reason].total(), reason))
    rows = [line(reasons[reason], sums[reason]) for reason in ranked]
    whole: Counter[int] = sum(sums.values(), Counter())
    header = ["reason", *(names[kind] for kind in met), "failed"]
    return table("reasons", "Failed runs by reason and kind", header, rows, foot=line("total", whole))


def reason_names(series: Series) -> list[str]:
    """Return how the reasons of a series are shown, in its order; an undocumented one is marked."""
    return series.reasons.labels("(none given)")
