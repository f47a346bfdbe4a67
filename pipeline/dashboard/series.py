"""What the page filters in the browser: counts by time, kind and product or reason, in short form.

Credits are whole millionths (as USD are), so that a browser's numbers add them up exactly. An open set (kinds,
products, reasons) is cut to its largest members and `other …`, so that the file stays small whatever a lake holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from pipeline.dashboard.facts import Facts, Row
from pipeline.kinds import KINDS
from pipeline.layout import kind_order
from pipeline.render import printable

MICRO = 1_000_000
NOT_TOLD = "not told"
_MOST_KINDS = len(KINDS) + 4
_MOST_PRODUCTS = 10
_MOST_REASONS = 40
_DAYS_BY_WEEK = 92
_DAYS_BY_MONTH = 400 * 2


@dataclass(frozen=True, slots=True)
class Names:
    """The members of an open set that are named, in order; the last stands for all others where there are too many."""

    values: tuple[str | None, ...]
    other: str | None = None

    def index(self, value: str | None) -> int:
        """Return a value's place; that of the others for one which has none of its own."""
        return self.values.index(value) if value in self.values else len(self.values)

    def labels(self, missing: str = NOT_TOLD) -> list[str]:
        """Return how each is shown."""
        named = [missing if value is None else printable(value) for value in self.values]
        return [*named, *([self.other] if self.other else [])]


def name_members(weights: Counter[str | None], *, most: int, other: str) -> Names:
    """Return the members of a set, the weightiest first, those beyond `most` as others."""
    ranked = sorted(weights, key=lambda value: (-weights[value], value or ""))
    return Names(tuple(ranked)) if len(ranked) <= most else Names(tuple(ranked[: most - 1]), other)


def kind_label(kind: str | None) -> str:
    """Return a kind as people say it: `extract`, `form detection`; one that is not known as it came."""
    return "kind not known" if kind is None else printable(kind.removesuffix("_run").replace("_", " "))


def name_kinds(facts: Facts) -> Names:
    """Return the kinds of run met, the documented ones first and in their own order."""
    weights: Counter[str | None] = Counter()
    for row in facts.credits:
        weights[row["kind"]] += row["charged_runs"] + row["unknown_runs"]
    for row in facts.failures:
        weights[row["kind"]] += (row["ended"] + row["unfinished"]) if row["is_total"] else 0
    documented = {kind.object for kind in KINDS}
    strange = Counter({kind: weight for kind, weight in weights.items() if kind not in documented})
    few = name_members(strange, most=_MOST_KINDS - len(KINDS), other="other kinds")
    met = sorted(documented & {kind for kind in weights if kind is not None}, key=kind_order)
    return Names((*met, *few.values), few.other)


def usual_grain(facts: Facts) -> str:
    """Return the grain that the page shows at first: at most some ninety bars."""
    first, last = facts.span["first_day"], facts.span["last_day"]
    days = 0 if first is None else (last - first).days + 1
    usual = "day" if days <= _DAYS_BY_WEEK else "week" if days <= _DAYS_BY_MONTH else "month"
    order = ("day", "week", "month")
    return max(usual, facts.grain, key=order.index)


def slot_of(day: date | None, grain: str) -> date | None:
    """Return the first day of the day, week (from Monday) or month that a day is in; null of none."""
    if day is None or grain == "day":
        return day
    return day - timedelta(days=day.weekday()) if grain == "week" else day.replace(day=1)


def micros(amount: Decimal | None) -> int:
    """Return an amount in millionths, rounded where it is finer."""
    return 0 if amount is None else round(amount * MICRO)


@dataclass(frozen=True, slots=True)
class Series:
    """The named sets, and the counts as columns of numbers: `t` is a place in `times`, −1 where no day is known."""

    kinds: Names
    products: Names
    reasons: Names
    times: tuple[date, ...]
    credits: dict[str, list[int]]
    unknown: dict[str, list[int]]
    ended: dict[str, list[int]]
    failed: dict[str, list[int]]


def make_series(facts: Facts) -> Series:
    """Return what the page's script adds up."""
    kinds = name_kinds(facts)
    charged = [row for row in facts.credits if row["credits"] is not None]
    totals = [row for row in facts.failures if row["is_total"]]
    reasons_met = [row for row in facts.failures if not row["is_total"]]
    products = name_members(_weights(charged, "product", "credits"), most=_MOST_PRODUCTS, other="other products")
    reasons = name_members(_weights(reasons_met, "reason", "failed"), most=_MOST_REASONS, other="other reasons")
    grain = facts.grain
    times = tuple(sorted({row[grain] for row in (*facts.credits, *totals) if row[grain] is not None}))
    places: dict[date | None, int] = {day: place for place, day in enumerate(times)} | {None: -1}

    def key(row: Row) -> tuple[int, int]:
        return places[row[grain]], kinds.index(row["kind"])

    credits = (
        (*key(row), products.index(row["product"]), micros(row["credits"]), micros(row.get("usd"))) for row in charged
    )
    unknown = ((*key(row), row["unknown_runs"]) for row in facts.credits if row["unknown_runs"])
    ended = ((*key(row), row["failed"], row["ended"]) for row in totals if row["ended"])
    failed = ((*key(row), reasons.index(row["reason"]), row["failed"]) for row in reasons_met)
    return Series(
        kinds, products, reasons, times,
        credits=_columns("tkpcu", credits, keys=3),
        unknown=_columns("tkn", unknown, keys=2),
        ended=_columns("tkfn", ended, keys=2),
        failed=_columns("tkrn", failed, keys=3),
    )  # fmt: skip


def _weights(rows: Iterable[Row], name: str, amount: str) -> Counter[str | None]:
    weights: Counter[str | None] = Counter()
    for row in rows:
        weights[row[name]] += row[amount]
    return weights


def _columns(names: str, rows: Iterable[Sequence[int]], *, keys: int) -> dict[str, list[int]]:
    """Return rows as columns; rows that have become alike in their keys (others, all of them) are added up."""
    summed: dict[tuple[int, ...], list[int]] = {}
    for row in rows:
        amounts = summed.setdefault(tuple(row[:keys]), [0] * (len(names) - keys))
        for place, amount in enumerate(row[keys:]):
            amounts[place] += amount
    flat = [(*key, *amounts) for key, amounts in summed.items()]
    return {name: [line[place] for line in flat] for place, name in enumerate(names)}


def undocumented(facts: Facts) -> set[Any]:
    """Return the reasons that the vendor documents for no kind that failed with them."""
    met = [row for row in facts.failures if not row["is_total"] and row["reason"] is not None]
    return {row["reason"] for row in met} - {row["reason"] for row in met if row["documented"]}
