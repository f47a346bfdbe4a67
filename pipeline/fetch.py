"""Pull runs by ID: many at a time, each once, none lost.

    IDs ─▶ worklist ─▶ client ─▶ raw log ─▶ lake

A run that fails for a passing reason waits until all others have had their turn; what still does not come becomes a
dead letter.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import defaults, durable
from pipeline.erased import read_erased
from pipeline.errors import LOGGED_LANDS_NEXT, ApiError, RunError, RunFailedError, RunMissingError
from pipeline.ids import FoundId, why_unusable
from pipeline.kinds import FINISHED, KINDS, Kind, kind_of
from pipeline.lake import LakeFiles
from pipeline.loads import MOST_ROWS, Load, LoadResult, recover
from pipeline.opening import open_lake
from pipeline.progress import Progress, Silent, Standing
from pipeline.session import AskingOptions, Session, Settle, Taking, nothing_to_settle, raise_first, run_in_thread
from pipeline.worklist import Worklist

if TYPE_CHECKING:
    import httpx

    from pipeline.config import Connection
    from pipeline.cover import Listing

_ROUNDS = 3
_STOPPING_S = 5.0
_SKIP_BATCH = 200_000
_FINISHED_IDS = (
    "SELECT run_id FROM runs SEMI JOIN asked USING (run_id) SEMI JOIN finished USING (status) "
    "WHERE is_detail OR NOT $details"
)

Report = Callable[[FoundId, str], None]
"""Takes an ID that cannot be asked for, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchOptions(AskingOptions):
    """How to fetch: how fast, and what to ask for though the lake has it, or though reading it may destroy a result.

    Where no `details` are needed, runs are found in lists as far as that takes fewer requests.
    """

    details: bool = True
    refresh: bool = False
    consume_verify_results: bool = False


@dataclass(slots=True)
class Plan:
    """What a fetch would do: how many IDs are skipped or cannot be used, and how many are asked for of each kind.

    `listings` are the lists to be read first, where no details are needed.
    """

    worklist: Worklist
    requested: int = 0
    invalid: int = 0
    skipped: int = 0
    to_fetch: dict[Kind, int] = field(default_factory=dict)
    listings: list[Listing] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """The fewest requests that this takes: one for each page of a list, and for each ID that none can show."""
        listed = sum(each.wanted for each in self.listings)
        return sum(each.pages for each in self.listings) + sum(self.to_fetch.values()) - listed


@contextlib.contextmanager
def plan_fetch(
    found: Iterable[FoundId], lake: LakeFiles | None, options: FetchOptions, *, report: Report
) -> Iterator[Plan]:
    """Work out which IDs to ask for. Asks for nothing and writes nothing to the lake; `recover` it first. Without a
    lake nothing is skipped.

    `report` is called for each distinct ID that cannot be asked for: it is none, or reading it could destroy a result;
    and once for all that were forgotten.
    """
    with Worklist() as worklist:
        plan = Plan(worklist)
        for each in found:
            if worklist.add(each) and (why := why_unusable(each.text)) is not None:
                plan.invalid += 1
                report(each, why)
        plan.requested = worklist.count()
        if lake is not None:
            plan.skipped = _skip_forgotten(worklist, lake, report)
            if not options.refresh:
                plan.skipped += _skip_finished(worklist, lake, details=options.details)
        if options.details or lake is None:
            plan.invalid += _refuse_dangerous(worklist, options, report)
        else:
            from pipeline.cover import plan_listings

            plan.listings = plan_listings(lake, worklist)
        plan.to_fetch = dict(sorted(worklist.open_by_kind().items(), key=lambda item: KINDS.index(item[0])))
        yield plan


def fetch_planned(
    plan: Plan,
    lake: LakeFiles,
    connection: Connection,
    options: FetchOptions,
    *,
    command: str = "fetch",
    source: str = "arguments",
    progress: Progress | None = None,
) -> LoadResult:
    """Fetch what was planned and land it; return what came of it.

    Ctrl-C (KeyboardInterrupt in the calling thread) stops the asking, lands what has arrived, and makes the rest dead
    letters. Where the API refuses to go on, the same; either way the result's `error` says so. Raises DiskError where
    the disk does not take what arrives.
    """
    progress = progress or Silent()
    load = Load(
        lake,
        command=command,
        source=source,
        requested=plan.requested,
        base_url=connection.base_url,
        workspace_id=connection.workspace_id,
        keep_raw=options.keep_raw,
        most_rows=MOST_ROWS,
        tell=progress.tell,
    )
    try:
        with durable.telling_refusals(lake.folder, LOGGED_LANDS_NEXT):
            fetch_in_thread(plan, load, connection, options, progress)
            load.result.skipped, load.result.invalid = plan.skipped + load.left_out, plan.invalid
            return load.finish()
    finally:
        load.close()


def fetch_runs(
    run_ids: Iterable[str],
    *,
    lake: Path | str = defaults.LAKE,
    qps: float = defaults.QPS,
    concurrency: int = defaults.CONCURRENCY,
    details: bool = True,
    refresh: bool = False,
    consume_verify_results: bool = False,
    connection: Connection | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    progress: Progress | None = None,
) -> LoadResult:
    """Fetch runs by ID into a lake, and return what came of each; also inside a running event loop, as in a notebook.

    The key and the rest come from the environment (`EXTEND_API_KEY`, …), unless a `connection` is given. Runs that the
    lake has finished and in detail are skipped unless `refresh`. Without `details`, summaries are enough, and runs are
    found in lists where that takes fewer requests. IDs that cannot be asked for are counted in `invalid`.
    Raises PipelineError where it could not run at all.
    """
    import os

    from pipeline.config import read_connection

    files = open_lake(lake)
    options = FetchOptions(
        qps=qps,
        concurrency=concurrency,
        details=details,
        refresh=refresh,
        consume_verify_results=consume_verify_results,
        transport=transport,
    )
    progress = progress or Silent()
    connection = connection or read_connection(env=os.environ)
    found = (FoundId(run_id, f"item {number}") for number, run_id in enumerate(run_ids, 1))
    recover(files, tell=progress.tell)
    with plan_fetch(found, files, options, report=lambda each, why: progress.tell(f"{each.where}: {why}")) as plan:
        return fetch_planned(plan, files, connection, options, source="fetch_runs", progress=progress)


def _skip_finished(worklist: Worklist, lake: LakeFiles, *, details: bool) -> int:
    """Take off the list what the lake has as finished, and in detail if that is needed; return how many that were."""
    paths = lake.day_paths()
    if not paths:
        return 0
    import duckdb
    import pyarrow as pa

    skipped = 0
    with duckdb.connect(config={"memory_limit": "256MB"}) as con:
        con.register("finished", pa.table({"status": sorted(FINISHED)}))

        def finished(run_ids: list[str]) -> list[tuple[str]]:
            con.register("asked", pa.table({"run_id": run_ids}))
            con.read_parquet(paths, hive_partitioning=False, union_by_name=True).create_view("runs", replace=True)
            return con.sql(_FINISHED_IDS, params={"details": details}).fetchall()

        for batch in worklist.iter_open_batches(_SKIP_BATCH):
            known = lake.ask(partial(finished, batch))
            worklist.mark_done(run_id for (run_id,) in known)
            skipped += len(known)
    return skipped


def _skip_forgotten(worklist: Worklist, lake: LakeFiles, report: Report) -> int:
    """Take off the list what was forgotten in this lake, and must not come back; return how many that were."""
    erased = read_erased(lake)
    forgotten: list[str] = []
    for batch in worklist.iter_open_batches(_SKIP_BATCH) if erased.runs else ():
        forgotten += [run_id for run_id in batch if erased.has(run_id)]
    if forgotten:
        worklist.mark_done(forgotten)
        shown = ", ".join(forgotten[:3]) + (", …" if len(forgotten) > 3 else "")
        report(FoundId(forgotten[0], shown), "forgotten in this lake, so not asked for")
    return len(forgotten)


def _refuse_dangerous(worklist: Worklist, options: FetchOptions, report: Report) -> int:
    """Take off the list what must not be read by ID, unless that is wanted; return how many that were."""
    if options.consume_verify_results:
        return 0
    return sum(_refuse(worklist, kind, report) for kind in KINDS if kind.reading_can_destroy)


def _refuse(worklist: Worklist, kind: Kind, report: Report) -> int:
    count = 0
    for each in worklist.take_off(kind):
        count += 1
        report(
            each,
            f"{each.text} is a verify run: reading it by ID can destroy its result, so it was not asked for; "
            "--consume-verify-results does it all the same",
        )
    return count


def fetch_in_thread(
    plan: Plan, load: Taking, connection: Connection, options: FetchOptions, progress: Progress,
    *, stopping: threading.Event | None = None,
) -> None:  # fmt: skip
    """Ask for what was planned, and let the load take what comes. Stops, as by Ctrl-C, when `stopping` is set."""
    from pipeline.limiter import Limiter

    session = Session(
        load, connection, options,
        limiter=Limiter(options.qps, clock=options.clock, sleep=options.sleep),
        progress=progress, standing=Standing(sum(plan.to_fetch.values())),
    )  # fmt: skip

    async def main() -> None:
        async with session:
            if plan.listings:
                from pipeline.cover import cover

                await cover(session, plan.worklist, plan.listings)
            if not options.details:
                plan.invalid += _refuse_dangerous(plan.worklist, options, report)
            await Rounds(session, plan.worklist).run()
        if session.why_stopped is not None:
            load.result.error = session.why_stopped
            give_up_open(session, plan.worklist)

    def report(each: FoundId, why: str) -> None:
        progress.tell(f"{each.where}: {why}")

    def interrupt() -> None:
        progress.tell("stopping: landing what has arrived …")
        load.result.interrupted = True
        session.stop("stopped by Ctrl-C; go on with: pipeline retry")

    run_in_thread(main, on_interrupt=interrupt, stopping=stopping)


class Rounds:
    """Asks for every open ID of a worklist, in up to three rounds, and puts what comes into the session's load.

    What fails for a passing reason stays open until the last round. `missing` counts the 404s.
    """

    def __init__(self, session: Session, worklist: Worklist) -> None:
        self.session, self.worklist = session, worklist
        self._ids: Iterator[str] = iter(())
        self.missing: Counter[Kind] = Counter()
        self._done: list[str] = []
        self._is_last_round = False

    async def run(self) -> None:
        """Ask, until nothing is open or the session stops; what came is safe when this returns."""
        self.session.before_checkpoint = self._take_done
        try:
            for number in range(_ROUNDS):
                if self.session.stopping.is_set() or not self.worklist.count_open():
                    break
                self._is_last_round = number == _ROUNDS - 1
                self._ids = self.worklist.iter_open()
                await self._run_workers()
                await self.session.checkpoint()
        finally:
            self.session.before_checkpoint = nothing_to_settle

    async def _run_workers(self) -> None:
        count = min(self.session.options.concurrency, max(1, self.worklist.count_open()))
        workers = [asyncio.create_task(self._work()) for _ in range(count)]
        ending = [
            asyncio.create_task(self.session.stopping.wait()),
            asyncio.create_task(asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)),
        ]
        try:
            await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(workers, timeout=_STOPPING_S)
        finally:
            for task in (*workers, *ending):
                task.cancel()
            outcomes = await asyncio.gather(*workers, *ending, return_exceptions=True)
        raise_first(outcomes)

    async def _work(self) -> None:
        session = self.session
        while not session.stopping.is_set():
            run_id = next(self._ids, None)
            if run_id is None:
                return
            try:
                await self._fetch_one(run_id)
            except ApiError as error:
                session.stop(str(error))
            if session.has_much:
                await session.checkpoint(if_much=True)

    async def _fetch_one(self, run_id: str) -> None:
        load, standing = self.session.load, self.session.standing
        workspace_id = self.session.connection.workspace_id
        try:
            answer = await self.session.client.fetch_run(run_id)
        except RunError as error:
            is_missing = isinstance(error, RunMissingError)
            if error.retryable and not is_missing and not self._is_last_round:
                return
            load.take_failure(error, workspace_id=workspace_id)
            standing.failed += 1
            if is_missing and (kind := kind_of(run_id)) is not None:
                self.missing[kind] += 1
        else:
            load.take_run(run_id, answer.body, fetched_at=answer.fetched_at, is_detail=True, workspace_id=workspace_id)
        standing.done += 1
        self._done.append(run_id)

    def _take_done(self) -> Settle:
        done, self._done = self._done, []

        def settle(well: bool) -> None:
            if well:
                self.worklist.mark_done(done)
            else:
                self._done[:0] = done

        return settle


def give_up_open(session: Session, worklist: Worklist) -> None:
    """Make dead letters of what was not asked for, so that `pipeline retry` goes on from here."""
    for batch in worklist.iter_open_batches(_SKIP_BATCH):
        for run_id in batch:
            message = f"run {run_id}: not asked for, since the load stopped before its turn"
            error = RunFailedError(message, run_id=run_id, reason="NOT_ASKED", attempts=0, retryable=True)
            session.load.take_failure(error, workspace_id=session.connection.workspace_id)
        session.load.checkpoint()
