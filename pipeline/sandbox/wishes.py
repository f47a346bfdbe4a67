"""The cases that every world must hold, whatever chance draws: each status, each reason, each oddity of the API."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from pipeline.kinds import BY_OBJECT, KINDS

from .material import UNDOCUMENTED_REASONS, UNDOCUMENTED_STATUSES, WORKFLOW_REASONS
from .model import FIRST_DAY, LAST_DAY

PROCESSORS = ("classify_run", "extract_run", "split_run")
RANDOM_REASON = object()


@dataclass(frozen=True, slots=True)
class Wish:
    """A case that the world must hold. What is not wished for is drawn; `tags` name odd cases of a family."""

    kind: str
    status: str | None = None
    reason: object = RANDOM_REASON
    day: date | None = None
    tags: frozenset[str] = frozenset()


def wish_for(kind: str, *tags: str, status: str | None = None, day: date | None = None) -> Wish:
    """Return the wish for a family of this kind with these tags."""
    return Wish(kind, status=status, day=day, tags=frozenset(tags))


_EARLY, _USAGE, _TOTALS, _CHARGES = date(2025, 9, 10), date(2026, 1, 20), date(2026, 5, 27), date(2026, 8, 5)

ODD_CASES: tuple[Wish, ...] = (
    *(wish_for(kind.object, "plain", status="PROCESSED", day=day)
      for day in (_EARLY, _USAGE, _TOTALS, _CHARGES) for kind in KINDS),
    wish_for("parse_run", "plain", status="PROCESSED", day=FIRST_DAY),
    wish_for("classify_run", "caused", status="PROCESSED", day=LAST_DAY),
    *(wish_for(kind, tag, status="PROCESSED", day=day)
      for kind in PROCESSORS for tag in ("caused", "reused") for day in (_TOTALS, _CHARGES)),
    *(wish_for(kind, tag, status="PROCESSED", day=_CHARGES + timedelta(days=n))
      for n, kind in enumerate(PROCESSORS)
      for tag in ("parse deleted", "parse hides usage", "no breakdown", "no breakdown, parse deleted", "legacy billing",
                  "zero credits", "reviewed", "edited", "inline config", "no file")),
    wish_for("extract_run", "legacy config", status="PROCESSED"),
    wish_for("extract_run", "several files", status="PROCESSED"),
    *(wish_for("workflow_run", tag, status="PROCESSED", day=_CHARGES + timedelta(days=n))
      for n, tag in enumerate(("no files", "several files", "parse step", "child deleted", "child hides usage",
                               "deleted", "form detection", "reviewed", "parse step, parse deleted"))),
    wish_for("workflow_run", "child failed", status="FAILED", day=_CHARGES),
    wish_for("workflow_run", "reviewed", status="REJECTED", day=_CHARGES),
    wish_for("edit_run", "form detection", status="PROCESSED", day=_TOTALS),
    wish_for("edit_run", "form detection", status="PROCESSED", day=_CHARGES),
    wish_for("edit_run", "form detection deleted", status="PROCESSED", day=_CHARGES),
    wish_for("parse_run", "huge", status="PROCESSED", day=_CHARGES),
    wish_for("parse_run", "huge", status="PROCESSED", day=_USAGE),
    wish_for("verify_run", "zero retention", status="PROCESSED", day=_CHARGES),
    wish_for("verify_run", "zero retention", status="PROCESSED", day=_USAGE),
    wish_for("verify_run", "caused", status="PROCESSED", day=_CHARGES),
    wish_for("verify_run", "no file", status="PROCESSED", day=_CHARGES),
    *(wish_for(kind.object, "deleted", status="PROCESSED") for kind in KINDS),
)  # fmt: skip


def reasons_of(kind: str) -> tuple[str, ...]:
    """Return the failure reasons that runs of this kind fail with, in a fixed order, without the undocumented ones."""
    return tuple(sorted(BY_OBJECT[kind].failure_reasons)) or WORKFLOW_REASONS


def all_wishes(runs: int) -> list[Wish]:
    """Return every case that a world of this many runs must hold; each reason takes part from 2,000 runs on."""
    every_status = [
        Wish(kind.object, status=status)
        for kind in KINDS
        for status in (*kind.statuses, *UNDOCUMENTED_STATUSES[kind.object])
    ]
    every_reason = [
        Wish(kind.object, status="FAILED", reason=reason)
        for kind in KINDS
        for reason in (*reasons_of(kind.object), UNDOCUMENTED_REASONS[0], None)
    ]
    return [*ODD_CASES, *every_status, *(every_reason if runs >= 2000 else ())]
