"""Bring a lake up to date: find what is new or has changed through the lists, and fetch by ID what they cannot give.

    lists ─▶ what is new or changed ─▶ raw log ─▶ lake ─▶ what is still lacking ─▶ by ID ─▶ raw log ─▶ lake

Each workspace is a load of its own: one that fails does not stop the others. All share one limiter, since the rate
limit belongs to the organization.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pipeline import durable
from pipeline.cover import cover, plan_listings
from pipeline.discover import OVERLAP, Bounds, Summary, Walk, is_entry
from pipeline.errors import (
    LOGGED_LANDS_NEXT,
    ApiError,
    DiskError,
    ListError,
    ListRemovedError,
    PipelineError,
    StoreError,
)
from pipeline.fetch import Rounds
from pipeline.ids import FoundId
from pipeline.kinds import KINDS, Kind
from pipeline.known import Known
from pipeline.lake import LakeFiles
from pipeline.loads import MOST_ROWS, Load, recover
from pipeline.needs import YOUNG, Database, Level, Needs, find_needs, find_unfinished
from pipeline.progress import Progress, Silent, Standing
from pipeline.session import AskingOptions, Session, Settle, run_in_thread
from pipeline.sync_outcome import KindOutcome, WorkspaceOutcome, count_inferred
from pipeline.sync_plan import plan_kinds
from pipeline.sync_state import KindState, SyncFiles
from pipeline.worklist import Worklist

if TYPE_CHECKING:
    from pipeline.client import Page
    from pipeline.config import Connection
    from pipeline.limiter import Limiter

_TOGETHER = 8  # so many workspaces are synced side by side
_SEARCHES = 3  # details name runs that were not known; those name none any more
_COUNTED = ("landed", "unchanged", "missing", "failed", "invalid")


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncOptions(AskingOptions):
    """What to sync, how far, in what detail, and how fast.

    `full` walks all lists to their ends and finds what is gone; `since` bounds a first walk (see `discover.Bounds`),
    `until` leaves out runs created then or later. `now` is this machine's clock.
    """

    kinds: tuple[Kind, ...] = KINDS
    details: Level = "credits"
    full: bool = False
    since: datetime | None = None
    until: datetime | None = None
    overlap: timedelta = OVERLAP
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


def plan_sync(
    lake: LakeFiles, connections: Sequence[Connection], options: SyncOptions, *, tell: Callable[[str], None]
) -> list[WorkspaceOutcome]:
    """Return what a sync would do in each workspace. Asks for nothing and writes nothing."""
    outcomes = []
    for connection in connections:
        files = SyncFiles(lake, connection.workspace_id, connection.base_url)
        states = {kind: files.read_kind(kind, tell=tell) for kind in options.kinds}
        needed_at = options.now()
        needs = _needs(
            lake, files, states, connection.workspace_id, options, tell, heard_before=datetime.now(UTC)
        )  # fmt: skip
        plans = plan_kinds(states, needs, _bounds(options), options.details, now=options.now())
        kinds = {plan.kind: KindOutcome(plan) for plan in plans}
        outcomes.append(WorkspaceOutcome(connection.workspace_id, kinds, needs, needed_at))
    return outcomes


def run_sync(
    lake: LakeFiles,
    connections: Sequence[Connection],
    options: SyncOptions,
    *,
    planned: list[WorkspaceOutcome] | None = None,
    command: str = "sync",
    progress: Progress | None = None,
    stopping: threading.Event | None = None,
) -> list[WorkspaceOutcome]:
    """Sync the workspaces of these connections, and return what became of each.

    Ctrl-C (KeyboardInterrupt in the calling thread), or `stopping` being set, stops the asking and lands what has
    arrived; the next sync goes on from there. Raises LakeError where the lake cannot be used at all.
    """
    from pipeline.limiter import Limiter

    progress = progress or Silent()
    if recover(lake, tell=progress.tell):
        planned = None  # it did not know of what has landed just now
    if not lake.is_current():
        with lake.writing(tell=progress.tell):
            pass
    outcomes = planned or plan_sync(lake, connections, options, tell=progress.tell)
    syncs: list[_WorkspaceSync] = []

    async def main() -> None:
        limiter, standing = Limiter(options.qps, clock=options.clock, sleep=options.sleep), Standing(None)
        places = asyncio.Semaphore(_TOGETHER)
        for connection, outcome in zip(connections, outcomes, strict=True):
            syncs.append(_WorkspaceSync(lake, connection, options, outcome, command, limiter, progress, standing))
        await asyncio.gather(*(each.run(places) for each in syncs))

    def interrupt() -> None:
        progress.tell("stopping: landing what has arrived …")
        for each in syncs:
            each.interrupt()

    run_in_thread(main, on_interrupt=interrupt, stopping=stopping)
    return outcomes


def _bounds(options: SyncOptions) -> Bounds:
    return Bounds(full=options.full, since=options.since, until=options.until, overlap=options.overlap)


def _needs(
    lake: LakeFiles,
    files: SyncFiles,
    states: dict[Kind, KindState],
    workspace_id: str | None,
    options: SyncOptions,
    tell: Callable[[str], None],
    *,
    removed: Collection[Kind] = (),
    heard_before: datetime,
) -> Needs:
    """Return what must be asked for by ID, as the lake is now; of unfinished runs those not heard of since a time."""
    now = options.now()
    searched_at = None if options.full else getattr(files.read_details(tell=tell), options.details)
    if searched_at is not None and searched_at > now:
        searched_at = None  # the clock has gone back: the times of files do not tell what came since
    due = [kind for kind, state in states.items() if options.full or _is_due(state, now)]
    unsure = [kind for kind in states if not kind.sortable or kind in removed]
    with Database(lake) as database:
        needs = find_needs(
            database, workspace_id, level=options.details, kinds=options.kinds, searched_at=searched_at, now=now
        )
        unfinished = {
            run_id
            for kinds, created_since in ((due, None), (unsure, now - YOUNG))
            for run_id in find_unfinished(
                database, workspace_id, kinds=kinds, created_since=created_since, heard_before=heard_before
            )
        }
    return replace(needs, unfinished=tuple(sorted(unfinished - {*needs.details, *needs.found})))


def _is_due(state: KindState, now: datetime) -> bool:
    """Whether all unfinished runs of a kind must be seen to again."""
    return state.followed_at is not None and now - state.followed_at >= YOUNG


class _WorkspaceSync:
    """The sync of one workspace."""

    def __init__(
        self,
        lake: LakeFiles,
        connection: Connection,
        options: SyncOptions,
        outcome: WorkspaceOutcome,
        command: str,
        limiter: Limiter,
        progress: Progress,
        standing: Standing,
    ) -> None:
        self.lake, self.connection, self.options, self.outcome = lake, connection, options, outcome
        self.files = SyncFiles(lake, connection.workspace_id, connection.base_url)
        self.progress = progress
        self._command, self._limiter, self._standing = command, limiter, standing
        self._states: dict[Kind, KindState] = {}
        self._walks: dict[Kind, Walk] = {}
        self._session: Session | None = None
        self._interrupted = False

    def interrupt(self) -> None:
        """Stop the asking, as by Ctrl-C."""
        self._interrupted = True
        if self.outcome.load is not None:
            self.outcome.load.interrupted = True
        if self._session is not None:
            self._session.stop("stopped by Ctrl-C; the next `pipeline sync` goes on from here")

    async def run(self, places: asyncio.Semaphore) -> None:
        """Sync; what goes wrong is in the outcome, and stops no other workspace."""
        try:
            async with places:
                if not self._interrupted:
                    with (
                        durable.telling_refusals(self.lake.folder, LOGGED_LANDS_NEXT),
                        self.files.locked(tell=self.progress.tell),
                    ):
                        await self._run_load()
        except PipelineError as error:
            self.outcome.error = str(error)
            self.outcome.is_refused_by_disk = isinstance(error, DiskError | StoreError)

    async def _run_load(self) -> None:
        self._states = {kind: self.files.read_kind(kind, tell=self.progress.tell) for kind in self.options.kinds}
        load = Load(
            self.lake,
            command=self._command,
            source="lists",
            base_url=self.connection.base_url,
            workspace_id=self.connection.workspace_id,
            keep_raw=self.options.keep_raw,
            most_rows=MOST_ROWS,
            tell=self.progress.tell,
        )
        self.outcome.load = load.result
        try:
            await self._ask(load)
            await asyncio.to_thread(load.land)
            load.result.requested = sum(getattr(load.result, name) for name in _COUNTED)
            await asyncio.to_thread(load.finish)
            if load.result.landed:
                self.outcome.inferred = await asyncio.to_thread(
                    count_inferred, self.lake, self.outcome.workspace_id, tell=self.progress.tell
                )
        finally:
            load.close()

    async def _ask(self, load: Load) -> None:
        session = self._session = Session(
            load, self.connection, self.options,
            limiter=self._limiter, progress=self.progress, standing=self._standing,
        )  # fmt: skip
        session.before_landing = self._take_states
        if self._interrupted:
            self.interrupt()
        async with session:
            unseen = await self._walk_all(session)
            await session.land()
            await self._fetch_lacking(session, unseen)
        self.outcome.error = session.why_stopped
        errors = [session.why_stopped, *(each.error for each in self.outcome.kinds.values())]
        load.result.error = "; ".join(str(error) for error in errors if error is not None) or None

    # Lists

    async def _walk_all(self, session: Session) -> list[str]:
        """Walk all kinds side by side, and return the runs that a full walk no longer showed."""
        with Known(self.lake, self.connection.workspace_id) as known:
            for kind, state in self._states.items():
                if kind.listed:
                    self._walks[kind] = self._make_walk(session, known, kind, state)
            await asyncio.gather(*(self._walk(session, walk) for walk in self._walks.values()))
            if not self.options.full:
                return []
            walked = [kind for kind, walk in self._walks.items() if walk.covers_all and not kind.reading_can_destroy]
            return [run_id for kind in walked for run_id in known.iter_unseen(kind)]

    def _make_walk(self, session: Session, known: Known, kind: Kind, state: KindState) -> Walk:
        async def take(page: Page, rows: list[Summary]) -> int:
            return await self._take(session, known, kind, page, rows)

        return Walk(
            session.client, kind, state, _bounds(self.options),
            take=take, tell=self.progress.tell, is_stopping=session.stopping.is_set,
            was_cut_short=not kind.sortable and self._was_cut_short(state),
        )  # fmt: skip

    def _was_cut_short(self, state: KindState) -> bool:
        """Return whether a sync of this workspace died since a kind was walked (by clocks that may be a day apart)."""
        died = [
            row["started_at"] for row in self.lake.read_loads().to_pylist()
            if row["state"] == "interrupted" and row["source"] == "lists"
            and row["workspace_id"] == self.connection.workspace_id
        ]  # fmt: skip
        return bool(died) and (state.walked_at is None or max(died) >= state.walked_at - timedelta(days=1))

    async def _walk(self, session: Session, walk: Walk) -> None:
        outcome = self.outcome.kinds[walk.kind]
        try:
            await walk.run()
        except ListRemovedError as error:
            outcome.is_removed = True
            self.progress.tell(f"{error}; its runs are known by ID alone")
        except ListError as error:
            outcome.error = error
        except ApiError as error:
            session.stop(str(error))
        outcome.pages, outcome.listed, outcome.changed = walk.pages, walk.rows, walk.taken

    async def _take(self, session: Session, known: Known, kind: Kind, page: Page, rows: list[Summary]) -> int:
        usable = [row for row in rows if is_entry(row, kind)]
        if len(usable) < len(rows):
            session.load.result.invalid += len(rows) - len(usable)
            self.progress.tell(f"list {kind.path}: {len(rows) - len(usable)} entries that are no {kind.object}")
        if known.is_at_hand(kind):
            changed = known.changed(kind, usable)
        else:
            changed = await asyncio.to_thread(known.changed, kind, usable)
        texts = {id(row): text for row, text in zip(page.rows, page.texts, strict=True)}
        taken = session.load.take_runs(
            ((row["id"], texts[id(row)]) for row in changed),
            fetched_at=page.fetched_at,
            is_detail=False,
            workspace_id=self.connection.workspace_id,
        )
        self._standing.pages += 1
        self._standing.done += len(usable)
        session.count()
        if session.has_much:
            await session.checkpoint(if_much=True)
        return taken

    def _take_states(self) -> Settle:
        """Take how far the walks have come; once what they brought has landed, note it."""
        states = {
            kind: replace(walk.state, followed_at=self._states[kind].followed_at)
            for kind, walk in self._walks.items()
            if walk.state is not walk.before
        }

        def settle(well: bool) -> None:
            if well:
                self._write_states(states)

        return settle

    def _write_states(self, states: dict[Kind, KindState]) -> None:
        for kind, state in states.items():
            self.files.write_kind(kind, state)
            self._states[kind] = state

    # By ID

    async def _fetch_lacking(self, session: Session, unseen: Iterable[str]) -> None:
        """Ask by ID for what the lake lacks, until it names nothing more."""
        asked: set[str] = set()
        more = set(unseen)
        for _ in range(_SEARCHES):
            if session.stopping.is_set():
                return
            searched_at, needs = await self._search(session)
            run_ids = [run_id for run_id in sorted({*needs.run_ids(), *more}) if run_id not in asked]
            if not run_ids:
                break
            asked.update(run_ids)
            await self._fetch(session, run_ids, no_details_of={*needs.unfinished, *more})
            await session.land()
        if not session.stopping.is_set():
            self._note_searched(searched_at)

    async def _search(self, session: Session) -> tuple[datetime, Needs]:
        searched_at = self.options.now()
        removed = {kind for kind, each in self.outcome.kinds.items() if each.is_removed}
        if session.load.is_empty and not removed:
            # Nothing came, so they are what they were; but what others landed since then was not looked at.
            return self.outcome.needed_at or searched_at, self.outcome.needs
        needs = await asyncio.to_thread(
            _needs, self.lake, self.files, self._states, self.connection.workspace_id, self.options,
            self.progress.tell, removed=removed, heard_before=session.load.started_at,
        )  # fmt: skip
        return searched_at, needs

    async def _fetch(self, session: Session, run_ids: list[str], *, no_details_of: set[str]) -> None:
        """Ask for runs, in lists where no details are needed and it takes fewer requests; else by ID."""
        with Worklist() as worklist:
            for run_id in run_ids:
                if run_id in no_details_of:
                    worklist.add(FoundId(run_id, "the lake"))
            removed = {kind for kind, each in self.outcome.kinds.items() if each.is_removed}
            listings = [each for each in plan_listings(self.lake, worklist, but=removed) if each.filters]
            for kind, pages in (await cover(session, worklist, listings)).items():
                self.outcome.kinds[kind].pages += pages
            for run_id in run_ids:
                worklist.add(FoundId(run_id, "the lake"))
            for kind, count in worklist.open_by_kind().items():
                self.outcome.kinds[kind].by_id += count
            rounds = Rounds(session, worklist)
            await rounds.run()
            for kind, count in rounds.missing.items():
                self.outcome.kinds[kind].gone += count

    def _note_searched(self, searched_at: datetime) -> None:
        if set(self.options.kinds) == set(KINDS):
            details = self.files.read_details(tell=self.progress.tell)
            self.files.write_details(replace(details, **{self.options.details: searched_at}))
        followed = {
            kind: replace(state, followed_at=searched_at) for kind, state in self._states.items()
            if self.options.full or state.followed_at is None or _is_due(state, searched_at)
        }  # fmt: skip
        self._write_states(followed)
