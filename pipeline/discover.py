"""Walk the list endpoints: all runs of a kind, the latest change first, a page at a time.

What an endpoint may do on the way is handled here: a page that is short or empty, a token that is refused, an order
that is not the one asked for, an endpoint that is gone. Only a page without a token is the last.

While a list is walked, runs go on being created and changed. Each such run's `updatedAt` is later than the walk's
beginning, so the next walk finds it: that one goes down to where this one began, less an overlap for runs that became
visible late.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pipeline.errors import ListError, ListRemovedError, RunError, TokenRefusedError
from pipeline.kinds import Kind, kind_of
from pipeline.sync_state import Gap, KindState
from pipeline.values import TIME

if TYPE_CHECKING:
    from pipeline.client import ExtendClient, Page

QUIET_PAGES = 2
"""After so many pages in a row that bring nothing new, the walk of a list that cannot be sorted ends."""
OVERLAP = timedelta(minutes=5)
"""How late a run may become visible in a list, after its `updatedAt`."""

_TOLD_TO = timedelta(seconds=1)  # times may be told without fractions of a second, but sorted by them
_PAGE_TRIES = 3  # each with all of the client's own attempts
_RESTARTS = 2
_GONE_STATUSES = (404, 405, 410)

Summary = dict[str, Any]
Take = Callable[["Page", list[Summary]], Awaitable[int]]
"""Takes the rows of a page that the walk is about, and returns how many of them were new or changed."""


async def iter_pages(
    client: ExtendClient, kind: Kind, *, filters: Mapping[str, str] | None = None, token: str | None = None
) -> AsyncIterator[Page]:
    """Yield the pages of a kind's list, from a page token on if one is given.

    Raises ListRemovedError where there is no such list, TokenRefusedError where a token is not taken, ListError where
    a page does not come, and ApiError where nothing can.
    """
    query = {**kind.list_query, **(filters or {})}
    walked: set[str | None] = {token}
    while True:
        page = await _fetch_page(client, kind, query, token)
        yield page
        if page.next_page_token is None:
            return
        token = page.next_page_token
        if token in walked:
            raise ListError(f"list {kind.path}: a page names itself or an earlier one as the next; try again later")
        walked.add(token)


async def _fetch_page(client: ExtendClient, kind: Kind, query: Mapping[str, str], token: str | None) -> Page:
    for _ in range(_PAGE_TRIES):
        try:
            return await client.fetch_page(kind, query if token is None else {**query, "nextPageToken": token})
        except RunError as failure:
            error = failure
            if not error.retryable:
                break
    status = error.http_status or 0
    if error.reason == "ENDPOINT_REMOVED" or (token is None and status in _GONE_STATUSES):
        raise ListRemovedError(f"list {kind.path}: the API has no such list (HTTP {status} {error.reason})") from error
    if token is not None and 400 <= status < 500 and not error.retryable:
        raise TokenRefusedError(f"list {kind.path}: page token refused (HTTP {status} {error.reason})") from error
    raise ListError(str(error), reason=error.reason) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a walk is to cover. `full` is everything, whatever was seen before.

    `since` is how far back a first walk goes, or one that goes further back than those before: to runs updated then.
    `until` leaves out runs created then or later; such a walk moves no watermark.
    """

    full: bool = False
    since: datetime | None = None
    until: datetime | None = None
    overlap: timedelta = OVERLAP


class Walk:
    """One walk of one kind's list. `state` is what may be noted once all that was taken has landed."""

    def __init__(
        self,
        client: ExtendClient,
        kind: Kind,
        before: KindState,
        bounds: Bounds,
        *,
        take: Take,
        tell: Callable[[str], None],
        is_stopping: Callable[[], bool],
        was_cut_short: bool = False,
    ) -> None:
        """`was_cut_short` where a walk after the one of `before` may have left a part of what it saw in the lake."""
        self.kind, self.before, self.bounds = kind, before, bounds
        self.state = before
        self.pages = self.rows = self.taken = self._counted = 0
        self.is_complete = False
        self._client, self._take, self._tell, self._is_stopping = client, take, tell, is_stopping
        self._sorted = kind.sortable
        self._was_cut_short = was_cut_short or before.gap is not None
        self._walked_to_end = self._goes_on = False
        goes_further = bounds.since is not None and before.back_to is not None and bounds.since < before.back_to
        self._is_whole = bounds.full or before.walked_at is None or goes_further
        self._since = bounds.since if self._is_whole else before.back_to
        if self._is_whole and before.gap is not None and self._may_go_on_from(before.gap):
            self._since = before.gap.down_to

    @property
    def down_to(self) -> datetime | None:
        """The `updatedAt` at which the walk of a sorted list ends; null where it goes to the end of the list."""
        return self._since if self._is_whole else self.before.down_to(self.bounds.overlap)

    @property
    def covers_all(self) -> bool:
        """Whether the walk came to the end of the list, having left nothing out."""
        return self.is_complete and self.bounds.until is None and self.state.back_to is None and self._walked_to_end

    async def run(self) -> None:
        """Walk. Raises as `iter_pages` does; `state` then still tells how far it has come."""
        gap = self.before.gap
        self._goes_on = gap is not None and self._may_go_on_from(gap)
        if gap is not None and self._goes_on:
            await self._finish(gap)
        else:
            await self._walk_from_top(self.down_to)

    def _may_go_on_from(self, gap: Gap) -> bool:
        if self.bounds.full or self.bounds.until is not None:
            return False
        since = self.bounds.since
        return since is None or gap.down_to is None or since >= gap.down_to

    async def _walk_from_top(self, down_to: datetime | None) -> None:
        for restart in range(_RESTARTS + 1):
            if self._is_whole:
                self._goes_on, self._counted = False, 0
            try:
                edge = await self._go(_Part(down_to=down_to, seen_at=self.before.walked_at, is_noted=True))
                break
            except TokenRefusedError:
                if restart == _RESTARTS:
                    raise
                self._tell(
                    f"list {self.kind.path}: a page token was refused at page {self.pages:,}; from the top again"
                )
        if edge is not None:
            self._note_end(edge, down_to)

    async def _finish(self, gap: Gap) -> None:
        """Walk what is new since a walk that was cut short began, and then its rest."""
        begun = replace(self.before, watermark=gap.watermark, walked_at=gap.walked_at)
        try:
            ended = await self._go(_Part(down_to=begun.down_to(self.bounds.overlap), seen_at=gap.walked_at))
            if ended is not None:
                ended = await self._go(_Part(token=gap.token, down_to=gap.down_to, edge=ended, is_noted=True))
        except TokenRefusedError:
            self._tell(f"list {self.kind.path}: the page token of an earlier walk was refused; from the top again")
            await self._walk_from_top(gap.down_to)
            return
        if ended is not None:
            self._note_end(ended, gap.down_to)

    async def _go(self, part: _Part) -> _Edge | None:
        """Walk one part of the list and return where it began; null where the walk was stopped on the way."""
        edge, quiet = part.edge, 0
        async for page in iter_pages(self._client, self.kind, token=part.token):
            times = _Times(page)
            edge = (edge or _Edge(page.served_at)).seen(times)
            self.pages += 1
            rows = self._rows_within(page, times, part)
            new = await self._take(page, rows)
            self.rows, self.taken = self.rows + len(rows), self.taken + new
            self._counted += len(rows) if self._is_whole and part.is_noted else new
            # A page of which nothing was looked at says nothing of what comes after it.
            quiet = 0 if new or self._may_hide_more(rows, part) else quiet + bool(rows)
            if page.next_page_token is None:
                self._walked_to_end = True
                break
            if self._is_through(times, part, quiet):
                break
            if part.is_noted:
                self._note_gap(edge, page.next_page_token, part.down_to)
            if self._is_stopping():
                return None
        return edge

    def _rows_within(self, page: Page, times: _Times, part: _Part) -> list[Summary]:
        self._check_order(times)
        oldest, until = part.down_to if self._sorted else self._since, self.bounds.until
        if oldest is None and until is None:
            return page.rows
        created = row_times(page.rows, "createdAt")
        return [
            row for row, updated_at, created_at in zip(page.rows, times.updated_at, created, strict=True)
            if not (oldest is not None and updated_at is not None and updated_at < oldest)
            and not (until is not None and created_at is not None and created_at >= until)
        ]  # fmt: skip

    def _may_hide_more(self, rows: list[Summary], part: _Part) -> bool:
        """Return whether that the lake has these rows says nothing, since a walk that was cut short may have brought
        them: those that were created since the last one that was not."""
        if not self._was_cut_short or part.seen_at is None:
            return False
        since = part.seen_at - self.bounds.overlap
        return any(time is not None and time >= since for time in row_times(rows, "createdAt"))

    def _check_order(self, times: _Times) -> None:
        if self._sorted and any(later - earlier >= _TOLD_TO for earlier, later in pairwise(times.told)):
            self._sorted = False
            self._tell(f"list {self.kind.path}: not in the order asked for, so it is walked to its end")

    def _is_through(self, times: _Times, part: _Part, quiet: int) -> bool:
        if self._sorted:
            return part.down_to is not None and bool(times.told) and times.told[-1] < part.down_to
        # Not in an order. Where one was promised, only the end of the list is sure; where none was, only a first walk,
        # or a full one, goes there.
        is_whole = self.kind.sortable or (self._is_whole and part.is_noted)
        return not is_whole and part.token is None and quiet >= QUIET_PAGES

    def _count(self) -> int:
        """Return how many runs the list has at most, by all walks so far; those that the lake had before count too."""
        goes_on = not self._is_whole or self._goes_on
        return self.before.runs + self._counted if goes_on else max(self.before.runs, self._counted)

    def _note_gap(self, edge: _Edge, token: str, down_to: datetime | None) -> None:
        if self.bounds.until is None:
            gap = Gap(token, edge.newest if self._sorted else None, edge.served_at, down_to)
            self.state = replace(self.before, gap=gap, runs=self._count())

    def _note_end(self, edge: _Edge, down_to: datetime | None) -> None:
        """Note that the list was walked. A walk that left out what is newer than `until` says nothing of later ones."""
        self.is_complete = True
        if self.bounds.until is not None:
            return
        self.state = replace(
            self.before,
            watermark=edge.newest if self._sorted else None,
            walked_at=edge.served_at,
            back_to=down_to if self._is_whole else self.before.back_to,
            gap=None,
            runs=self._count(),
        )


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a list to be walked: from a token on (null: from the top), down to a time.

    `seen_at` is when the last walk began that saw all of this part. `edge` is where the walk as a whole began, if that
    was before; `is_noted` whether its progress may be noted as a gap.
    """

    token: str | None = None
    down_to: datetime | None = None
    seen_at: datetime | None = None
    edge: _Edge | None = None
    is_noted: bool = False


@dataclass(frozen=True, slots=True)
class _Edge:
    """Where a walk began: when the first page was served, and the newest `updatedAt` on the first page with rows."""

    served_at: datetime
    newest: datetime | None = None

    def seen(self, times: _Times) -> _Edge:
        return replace(self, newest=max(times.told)) if self.newest is None and times.told else self


class _Times:
    """When the rows of a page were last updated; null where a row does not tell. `told` are those that are told."""

    def __init__(self, page: Page) -> None:
        self.updated_at = row_times(page.rows, "updatedAt")
        self.told = [time for time in self.updated_at if time is not None]


def is_entry(row: Summary, kind: Kind) -> bool:
    """Tell whether a page's row is a run of a kind: one whose ID tells another kind would be filed under it."""
    run_id = row.get("id")
    if row.get("object") != kind.object or not isinstance(run_id, str):
        return False
    # No prefix begins with another: what begins as the kind's IDs do is of no other kind.
    return run_id.startswith(kind.prefix) or kind_of(run_id) is None


def row_times(rows: list[Summary], name: str) -> list[datetime | None]:
    """Return a time that each summary tells, null where it tells none."""
    times: list[datetime | None] = TIME.column([row.get(name) for row in rows])[0]
    return times
