"""Work out, before anything is asked, what a sync will ask for: at least, and at most where that can be known.

How many runs an organization has, no endpoint tells: so the most is unknown before a kind has been walked once. After
that it is a walk over every run that is known and as many new ones as the largest plan lets an organization create.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from pipeline.discover import QUIET_PAGES, Bounds
from pipeline.kinds import PAGE_SIZE, Kind, kind_of
from pipeline.needs import Level, Needs
from pipeline.sync_state import KindState

CREATED_A_MINUTE = 300
"""Runs that an organization can create in a minute on the largest plan that the vendor publishes."""


@dataclass(frozen=True, slots=True)
class KindPlan:
    """What a sync will ask for of one kind. `most_…` is null where nothing tells; `walk` says it to a person.

    `by_id` counts the runs that will be asked for by ID in any case, `most_by_id` also those that the walk may bring,
    or show to need it no longer.
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
    states: Mapping[Kind, KindState], needs: Needs, bounds: Bounds, level: Level, *, now: datetime
) -> list[KindPlan]:
    """Return the plan of each kind; `needs` is what the lake says, as it is, must be asked for by ID."""
    sure, needed = Counter(map(kind_of, _sure(needs, level))), Counter(map(kind_of, needs.run_ids()))
    most = {kind: _most_pages(kind, state, bounds, now) for kind, state in states.items()}
    return [
        KindPlan(
            kind,
            _walk(kind, state, bounds) if kind.listed else "no list: runs named in a breakdown",
            1 if kind.listed else 0,
            most[kind],
            sure[kind],
            _most_by_id(kind, needed[kind], most, level, bounds),
        )
        for kind, state in states.items()
    ]


def _sure(needs: Needs, level: Level) -> Iterator[str]:
    """Yield the runs that will be asked for whatever the walks bring.

    They may bring the end of an unfinished run, and the parse run that explains a total.
    """
    yield from needs.found
    for run_id in needs.details:
        kind = kind_of(run_id)
        if level == "all" or (kind is not None and not kind.charged):
            yield run_id
    yield from (run_id for run_id in needs.unfinished if (kind := kind_of(run_id)) is not None and not kind.listed)


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
    goes_on = state.gap and not bounds.full and bounds.until is None
    rest = ", going on where the last walk stopped" if goes_on else ""
    if _is_whole(state, bounds):
        return f"all{'' if bounds.since is None else f' back to {_minute(bounds.since)}'}{rest}"
    if not kind.sortable:
        return f"until {QUIET_PAGES} pages bring nothing new{rest}"
    return f"back to {_minute(state.down_to(bounds.overlap))}{rest}"


def _minute(time: datetime | None) -> str:
    return "the beginning" if time is None else f"{time:%Y-%m-%d %H:%M}"


def _most_pages(kind: Kind, state: KindState, bounds: Bounds, now: datetime) -> int | None:
    if not kind.listed:
        return 0
    if state.walked_at is None or _goes_beyond(kind, state, bounds):
        return None
    minutes = max(0.0, (now - state.walked_at).total_seconds() / 60)
    # One page more, since the walk ends with the first that it has seen before; and one that may be short.
    return math.ceil((state.runs + CREATED_A_MINUTE * minutes) / PAGE_SIZE) + QUIET_PAGES


def _goes_beyond(kind: Kind, state: KindState, bounds: Bounds) -> bool:
    """Return whether the walk may come to runs that no walk has counted, those before `back_to`."""
    if state.back_to is None:
        return False
    return not kind.sortable or (_is_whole(state, bounds) and (bounds.since is None or bounds.since < state.back_to))


def _most_by_id(
    kind: Kind, needed: int, most_pages: Mapping[Kind, int | None], level: Level, bounds: Bounds
) -> int | None:
    if kind.reading_can_destroy:
        return 0
    if not kind.listed:
        # Any run that is listed may name one.
        pages = total(most_pages.values())
        return None if pages is None else needed + pages * PAGE_SIZE
    if level == "none" and kind.sortable and not bounds.full:  # a full walk asks for those that it no longer sees
        return needed
    pages = most_pages[kind]
    return None if pages is None else needed + pages * PAGE_SIZE
