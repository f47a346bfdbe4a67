"""What the made-up organization consists of: runs, files, processors, and what each run was charged."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal

from pipeline.kinds import FINISHED, Kind

USAGE_FROM = date(2025, 10, 7)
"""Runs created before have no `usage`."""
TOTALS_FROM = date(2026, 5, 14)
"""Runs persisted before have neither `totalCredits` nor `breakdown`."""
CHARGES_FROM = date(2026, 6, 10)
"""Runs persisted before have no `charges` in their breakdown."""
FIRST_DAY = date(2025, 8, 18)
LAST_DAY = date(2026, 11, 20)
END = datetime(2026, 11, 20, 23, 59, 59, tzinfo=UTC)
"""Nothing in a world as it is made happens later: it never looks at the real clock. Only life (see `life`) does."""


@dataclass(frozen=True, slots=True)
class Charge:
    """One cost driver of a resource; `pages` is empty where the charge is not tied to single pages."""

    product: str
    unit: str
    quantity: Decimal
    credits: Decimal
    pages: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class File:
    """An uploaded file; the API tells its `pages` for PDF and DOCX only, but charges by them all the same."""

    file_id: str
    name: str
    type: str | None
    pages: int
    created_at: datetime
    parent_file_id: str | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a processor or workflow, with what its summary says of the processor itself."""

    processor_id: str
    name: str
    version_id: str
    version: str
    description: str | None
    base_processor: str | None
    base_version: str | None
    created_at: datetime
    processor_created_at: datetime
    created_by: str | None
    fails_more_from: date | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What `GET /batch_runs/{id}` knows, but for the number of its runs, which is counted when asked."""

    batch_id: str
    workspace: str
    status: str
    created_at: datetime


@dataclass(slots=True)
class Run:
    """One run as the service itself knows it, from which every shape that the API gives of it is rendered.

    `charges` is null where nothing was charged, and always for a workflow run. `caused` lists the runs whose lines
    stand in this one's breakdown (for a workflow run all its children and their parse runs, by creation).
    `usage_hidden` and `breakdown_hidden` are rare gaps that the API allows. `seed` draws what is rendered lazily.
    """

    run_id: str
    kind: Kind
    workspace: str
    status: str
    created_at: datetime
    updated_at: datetime
    seed: int
    precision: int
    """Decimal places of the seconds in this run's times: 0, 3 or 6."""
    updated_precision: int | None = None
    """Those of `updated_at`, and of what is told from it, where life changed a run of the world as it was made."""
    live: bool = False
    """Made by life, while the world is served: it begins as soon as it is created, so that no time is yet to come."""
    files: tuple[File, ...] = ()
    version: Version | None = None
    source: str = "API"
    source_id: str | None = None
    batch_id: str | None = None
    failure_reason: str | None = None
    failure_message: str | None = None
    charges: tuple[Charge, ...] | None = None
    caused: tuple[str, ...] = ()
    parse_run_id: str | None = None
    workflow_run_id: str | None = None
    steps: tuple[str, ...] = ()
    """For a workflow run: the IDs of its children in the order of its steps."""
    reviewed: bool = False
    edited: bool = False
    multifile: bool = False
    legacy_billing: bool = False
    legacy_config: bool = False
    usage_hidden: bool = False
    breakdown_hidden: bool = False
    zero_retention: bool = False
    deleted: bool = False
    result_chunks: int = 1
    """For a parse run: how many chunks its output has; thousands make an answer of tens of megabytes."""
    chunk_chars: int = 400
    tags: tuple[str, ...] = field(default=())
    """Odd cases that this run was made for, for tests to find."""

    @property
    def day(self) -> date:
        """The UTC day of creation."""
        return self.created_at.date()

    @property
    def own_credits(self) -> Decimal:
        """What this resource itself was charged; 0 where nothing."""
        return sum((charge.credits for charge in self.charges or ()), Decimal(0))

    @property
    def shows_usage(self) -> bool:
        """Whether the API answers `usage` for this run at all."""
        if self.usage_hidden or self.legacy_billing or self.day < USAGE_FROM:
            return False
        if not self.kind.charged:
            return self.status in FINISHED or self.status == "NEEDS_REVIEW"
        return self.status == "PROCESSED" and self.charges is not None

    @property
    def shows_totals(self) -> bool:
        """Whether `usage` comes with `totalCredits`."""
        return self.shows_usage and self.day >= TOTALS_FROM

    @property
    def shows_breakdown(self) -> bool:
        """Whether `usage`, where it is asked for by ID, comes with `breakdown`."""
        return self.shows_totals and not self.breakdown_hidden

    @property
    def shows_charges(self) -> bool:
        """Whether the lines of `breakdown` come with `charges`."""
        return self.shows_breakdown and self.day >= CHARGES_FROM


_TIMESPECS = {0: "seconds", 3: "milliseconds", 6: "microseconds"}


def instant(at: datetime, precision: int) -> str:
    """Return an RFC 3339 time in UTC with so many decimal places of the seconds (0, 3 or 6)."""
    return at.isoformat(timespec=_TIMESPECS[precision]).removesuffix("+00:00") + "Z"
