"""Which processor, version, file type, kind or reason carries a change of the failure rate, and if chance would do.

Each value's runs are a table of two by two, failed or not, before and after, put to Fisher's exact test (two-sided).
Looking at many values finds something by chance alone, so the p-values are corrected for how many were looked at
(Holm's method): where nothing changed at all, anything is called significant at most one time in twenty.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class Change:
    """One value in two windows. `carried` is its part of the whole rate's change: those of a dimension add up to it.

    Of a reason `ended` is that of the whole: its rate is how often a run fails with it. `p_corrected` is null for the
    whole itself, which is looked at alone.
    """

    dimension: str
    value: str | None
    failed_before: int
    ended_before: int
    failed_after: int
    ended_after: int
    carried: float | None
    p: float
    p_corrected: float | None

    @property
    def is_significant(self) -> bool:
        """Whether chance alone is a poor explanation."""
        return (self.p if self.p_corrected is None else self.p_corrected) < SIGNIFICANT


Counts = tuple[str, str | None, int, int, int, int]


def find_changes(rows: Iterable[Counts]) -> list[Change]:
    """Return the whole first, then the values, those first that differ the most surely; from `failure_windows.sql`."""
    counted = list(rows)
    whole = next((row for row in counted if row[0] == "all"), ("all", "all", 0, 0, 0, 0))
    _, _, _, all_before, _, all_after = whole
    values = []
    for dimension, value, failed_before, ended_before, failed_after, ended_after in counted:
        if dimension == "reason":
            if value is None:
                continue
            ended_before, ended_after = all_before, all_after
        if dimension != "all":
            values.append((dimension, value, failed_before, ended_before, failed_after, ended_after))
    ps = [fisher_exact(*row[2:]) for row in values]
    changes = [
        Change(*row, _carried(row[2], all_before, row[4], all_after), p, corrected)
        for row, p, corrected in zip(values, ps, holm(ps), strict=True)
    ]
    changes.sort(
        key=lambda change: (round(change.p, 9), -abs(change.carried or 0), change.dimension, change.value or "")
    )
    total = Change(*whole, _carried(whole[2], all_before, whole[4], all_after), fisher_exact(*whole[2:]), None)
    return [total, *changes]


def _carried(failed_before: int, all_before: int, failed_after: int, all_after: int) -> float | None:
    if not all_before or not all_after:
        return None
    return failed_after / all_after - failed_before / all_before


def fisher_exact(failed_before: int, ended_before: int, failed_after: int, ended_after: int) -> float:
    """Return the two-sided p-value: how likely, had nothing changed, a table at least as improbable would be."""
    failed, ended = failed_before + failed_after, ended_before + ended_after
    low, high = max(0, failed - ended_after), min(failed, ended_before)
    if low == high:
        return 1.0

    def log_p(k: int) -> float:
        return _log_choose(ended_before, k) + _log_choose(ended_after, failed - k) - _log_choose(ended, failed)

    # Equal probabilities come out of logarithms a little unequal.
    bound = log_p(failed_before) + 1e-9
    inside = sum(math.exp(each) for each in map(log_p, range(low, high + 1)) if each <= bound)
    return min(1.0, inside)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def holm(ps: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number, in the same order: the smallest times all, the next one fewer"""
    order = sorted(range(len(ps)), key=ps.__getitem__)
    corrected = [0.0] * len(ps)
    highest = 0.0
    for position, index in enumerate(order):
        highest = max(highest, min(1.0, ps[index] * (len(ps) - position)))
        corrected[index] = highest
    return corrected
