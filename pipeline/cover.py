"""Find wanted runs in the lists, where that takes fewer requests than asking for each of them by ID.

What the lake knows of them tells where to look: a batch that they are of, an unfinished status that few runs have. Of
the others nothing is known but that they may be new, so the newest pages are read as long as that pays: never more than
three requests in vain. What no list shows is left for asking by ID. A summary is no detail: this is only for
whoever needs none.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.discover import is_entry, iter_pages
from pipeline.errors import ApiError, ListError
from pipeline.kinds import BY_OBJECT, FINISHED, KINDS, PAGE_SIZE, Kind

if TYPE_CHECKING:
    from pipeline.client import Page
    from pipeline.lake import LakeFiles
    from pipeline.session import Session
    from pipeline.worklist import Worklist

PATIENCE = 3
"""So many newest pages may be read beyond the number of wanted runs that they showed."""

_BATCH = 200_000


@dataclass(frozen=True, slots=True)
class Listing:
    """A list to be read for `wanted` runs; `pages` is how many that takes, as far as the lake tells (at the least)."""

    kind: Kind
    wanted: int
    pages: int
    filters: Mapping[str, str] = field(default_factory=dict)

    @property
    def patience(self) -> int:
        """How many more pages than runs that they showed may be read."""
        return max(self.pages, PATIENCE) if self.filters else PATIENCE

    @property
    def label(self) -> str:
        """What is read, for a person."""
        if not self.filters:
            return "newest pages"
        ((name, value),) = self.filters.items()
        return f"batch {value}" if name == "batchId" else f"status {value}"


def plan_listings(files: LakeFiles, worklist: Worklist, *, but: Collection[Kind] = ()) -> list[Listing]:
    """Return the lists that are worth reading for the open IDs of a worklist, not of the kinds in `but`."""
    wanted, sizes = _count_groups(files, worklist)
    listings: list[Listing] = []
    for kind, count in worklist.open_by_kind().items():
        if kind.listed and kind not in but:
            listings += _listings_of(kind, count, wanted.get(kind, Counter()), sizes)
    return sorted(listings, key=lambda each: (KINDS.index(each.kind), -each.wanted))


_Group = tuple[str | None, str | None]  # batch ID and unfinished status, as the lake has them


def _listings_of(
    kind: Kind, count: int, groups: Counter[_Group], sizes: Mapping[tuple[str, str, str], int]
) -> list[Listing]:
    listings: list[Listing] = []
    for name, position in (("batchId", 0), ("status", 1)):
        by_value: Counter[str] = Counter()
        for group, wanted in groups.items():
            if (value := group[position]) is not None:
                by_value[value] += wanted
        for value, wanted in by_value.items():
            pages = math.ceil(max(wanted, sizes.get((kind.object, name, value), 0)) / PAGE_SIZE)
            if pages < wanted:
                listings.append(Listing(kind, wanted, pages, {name: value}))
                groups = Counter({group: each for group, each in groups.items() if group[position] != value})
                count -= wanted
    if count > PATIENCE:
        listings.append(Listing(kind, count, math.ceil(count / PAGE_SIZE)))
    return listings


def _count_groups(
    files: LakeFiles, worklist: Worklist
) -> tuple[dict[Kind, Counter[_Group]], dict[tuple[str, str, str], int]]:
    """Return how many wanted runs there are of each batch and unfinished status, and how many the lake has in all."""
    from pipeline.catalog import Lake  # here and not above: a sync with nothing new does without

    wanted: dict[Kind, Counter[_Group]] = {}
    if not files.days():
        return wanted, {}
    with Lake(files.folder) as lake:
        sizes = list(lake.ask("cover_sizes", finished=sorted(FINISHED)).rows)
        for run_ids in worklist.iter_open_batches(_BATCH):
            answer = lake.ask("cover_wanted", run_ids=run_ids, finished=sorted(FINISHED), kinds=sorted(BY_OBJECT))
            for kind, batch_id, status, count in answer.rows:
                wanted.setdefault(BY_OBJECT[kind], Counter())[batch_id, status] += count
    return wanted, {(kind, name, value): count for kind, name, value, count in sizes}


async def cover(session: Session, worklist: Worklist, listings: Iterable[Listing]) -> Counter[Kind]:
    """Read the lists side by side, land what is wanted, and take it off the worklist; return the pages read by kind.

    A list that does not give its pages is told, and its runs stay on the worklist.
    """
    listings = list(listings)
    pages: Counter[Kind] = Counter()
    for listing, count in zip(
        listings, await asyncio.gather(*(_cover(session, worklist, each) for each in listings)), strict=True
    ):
        pages[listing.kind] += count
    return pages


async def _cover(session: Session, worklist: Worklist, listing: Listing) -> int:
    pages = found = 0
    try:
        async for page in iter_pages(session.client, listing.kind, filters=listing.filters):
            pages += 1
            found += await _take(session, worklist, listing.kind, page)
            if found >= listing.wanted or pages - found >= listing.patience or session.stopping.is_set():
                break
    except ListError as error:
        session.progress.tell(f"{error}; its runs are asked for by ID")
    except ApiError as error:
        session.stop(str(error))
    return pages


async def _take(session: Session, worklist: Worklist, kind: Kind, page: Page) -> int:
    texts = {row["id"]: text for row, text in zip(page.rows, page.texts, strict=True) if is_entry(row, kind)}
    wanted = worklist.open_among(texts)
    session.load.take_runs(
        ((run_id, texts[run_id]) for run_id in wanted),
        fetched_at=page.fetched_at,
        is_detail=False,
        workspace_id=session.connection.workspace_id,
    )
    await session.checkpoint()
    worklist.mark_done(wanted)
    session.standing.pages += 1
    session.standing.done += len(wanted)
    session.count()
    return len(wanted)
