"""What the page's numbers stand on: how fresh, how much inferred, of no known day, unfinished, not come."""

from __future__ import annotations

from decimal import Decimal

from pipeline.dashboard.facts import Facts
from pipeline.dashboard.series import undocumented
from pipeline.dashboard.words import name_text
from pipeline.layout import counted, percent
from pipeline.render import shown

_BASES = {
    "own": "from the runs themselves",
    "breakdown": "from the run that caused them",
    "workflow": "from a workflow's breakdown",
    "inferred": "inferred",
}


def quality_facts(facts: Facts) -> list[tuple[str, str, str]]:
    """Return what to know beside the totals: a name, a number, and what that is."""
    total, inferred, undated = _credits(facts)
    letters = sum(row["runs"] for row in facts.dead_letters)
    strange = sorted(undocumented(facts))
    as_of = f"{shown(facts.data_as_of)} UTC" if facts.data_as_of else "not known"
    return [
        ("Fresh as of", as_of, f"the newest run is of {facts.last_day}" if facts.last_day else "no run tells its day"),
        ("Inferred", shown(inferred), f"credits{_share(inferred, total)}: a run told its total, and not for what"),
        ("Of a day that is not known", shown(undated), f"credits{_share(undated, total)}{_undated_runs(facts)}"),
        ("Where credits come from", "", _sources(facts)),
        ("Not finished", f"{facts.span['unfinished_runs']:,}", "runs, in no failure rate"),
        ("Dead letters", f"{letters:,}", "IDs that were asked for and did not come"),
        ("Undocumented reasons", f"{len(strange):,}", ", ".join(map(name_text, strange[:5]))),
    ]  # fmt: skip


def _credits(facts: Facts) -> tuple[Decimal, Decimal, Decimal]:
    charged = [row for row in facts.credits if row["credits"] is not None]
    total = sum((row["credits"] for row in charged), Decimal())
    inferred = sum((row["inferred_credits"] for row in charged), Decimal())
    return total, inferred, sum((row["credits"] for row in charged if row[facts.grain] is None), Decimal())


def _undated_runs(facts: Facts) -> str:
    if not facts.span["undated_runs"]:
        return ""
    return f", and {counted(facts.span['undated_runs'], 'run')} told without the time of creation"


def _share(part: Decimal, whole: Decimal) -> str:
    return f" ({percent(float(part / whole))})" if whole else ""


def _sources(facts: Facts) -> str:
    amounts = {row["basis"]: row["credits"] for row in facts.credits_by_basis if row["credits"] is not None}
    whole = sum(amounts.values(), Decimal())
    if not whole:
        return "none"
    return "; ".join(
        f"{percent(float(amounts[name] / whole))} {text}" for name, text in _BASES.items() if amounts.get(name)
    )
