"""Work out, before anything is asked, what a sync will ask for: at least, and at most where that can be known.

How many runs an organization has, no endpoint tells: so the most is unknown before a kind has been walked once. After
that it is a walk over every run that is known and as many new ones as the largest plan lets an organization create.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from pipeline.discover import QUIET_PAGES, Bounds
from pipeline.kinds import PAGE_SIZE, Kind, kind_of
from pipeline.needs import Level
from pipeline.sync_state import KindState

CREATED_A_MINUTE = 300
"""Runs that an organization can create in a minute on the largest plan that the vendor publishes."""


@dataclass(frozen=True, slots=True)
class KindPlan:
    """What a sync will ask for of one kind. `most_…` is null where nothing tells; `walk` says it to a person.

    `by_id` counts the runs that are known to be asked for by ID, `most_by_id` also those that the walk may bring.
    """

    kind: Kind
    walk: str
    least_pages: int
    most_pages: int | None
    by_id: int
    most_by_id: int | None

    @property
    def least_requests(self) -> int:
        """The fewest requests that this takes."""
        return self.least_pages + self.by_id

    @property
    def most_requests(self) -> int | None:
        """The most requests that this takes, retries aside; null where nothing tells."""
        if self.most_pages is None or self.most_by_id is None:
            return None
        return self.most_pages + self.most_by_id


def plan_kinds(
    states: Mapping[Kind, KindState], run_ids: Iterable[str], bounds: Bounds, level: Level, *, now: datetime
) -> list[KindPlan]:
    """Return the plan of each kind; `run_ids` are those that the lake already says must be asked for by ID."""
    needed = Counter(kind for run_id in run_ids if (kind := kind_of(run_id)) is not None)
    most = {kind: _most_pages(state, bounds, now) for kind, state in states.items()}
    return [
        KindPlan(
            kind,
            _walk(kind, state, bounds) if kind.listed else "no list: runs named in a breakdown",
            1 if kind.listed else 0,
            most[kind] if kind.listed else 0,
            needed[kind],
            _most_by_id(kind, needed[kind], most, level),
        )
        for kind, state in states.items()
    ]


def total(counts: Iterable[int | None]) -> int | None:
    """Return the sum; null where one of them is."""
    result = 0
    for count in counts:
        if count is None:
            return None
        result += count
    return result


def _is_whole(state: KindState, bounds: Bounds) -> bool:
    further = bounds.since is not None and state.back_to is not None and bounds.since < state.back_to
    return bounds.full or state.walked_at is None or further


def _walk(kind: Kind, state: KindState, bounds: Bounds) -> str:
    if _is_whole(state, bounds):
        rest = ", going on where the last walk stopped" if state.gap and not bounds.full else ""
        return f"all{'' if bounds.since is None else f' back to {_minute(bounds.since)}'}{rest}"
    if not kind.sortable:
        return f"until {QUIET_PAGES} pages bring nothing new"
    return f"back to {_minute(state.down_to(bounds.overlap))}"


def _minute(time: datetime | None) -> str:
    return "the beginning" if time is None else f"{time:%Y-%m-%d %H:%M}"


def _most_pages(state: KindState, bounds: Bounds, now: datetime) -> int | None:
    if state.walked_at is None:
        return None
    minutes = max(0.0, (now - state.walked_at).total_seconds() / 60)
    # One page more, since the walk ends with the first that it has seen before; and one that may be short.
    return math.ceil((state.runs + CREATED_A_MINUTE * minutes) / PAGE_SIZE) + QUIET_PAGES


def _most_by_id(kind: Kind, needed: int, most_pages: Mapping[Kind, int | None], level: Level) -> int | None:
    if kind.reading_can_destroy:
        return 0
    if not kind.listed:
        # Any run that is listed may name one.
        pages = total(most_pages.values())
        return None if pages is None else needed + pages * PAGE_SIZE
    if level == "none" and kind.sortable:
        return needed
    pages = most_pages[kind]
    return None if pages is None else needed + pages * PAGE_SIZE
