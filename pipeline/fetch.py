"""Pull runs by ID: many at a time, each once, none lost.

    IDs ─▶ worklist ─▶ client ─▶ raw log ─▶ lake

A run that fails for a passing reason waits until all others have had their turn; what still does not come becomes a
dead letter. Landing goes on while runs are being fetched, and never takes more than a small share of the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import defaults
from pipeline.errors import ApiError, LakeError, RunError, RunFailedError, RunMissingError, UsageError
from pipeline.ids import FoundId, why_unusable
from pipeline.kinds import FINISHED, KINDS, Kind
from pipeline.lake import LakeFiles
from pipeline.loads import Load, LoadResult, recover
from pipeline.progress import Progress, Silent, Standing
from pipeline.worklist import Worklist

if TYPE_CHECKING:
    import httpx

    from pipeline.client import ExtendClient
    from pipeline.config import Connection

_ROUNDS = 3
_CHECKPOINT_EVERY_S = 0.5
_CHECKPOINT_BYTES = 1 << 20
_LAND_EVERY_S = 60.0
_LANDING_SHARE = 20  # landing may take one part in so many of the time
_STOPPING_S = 5.0
_SKIP_BATCH = 200_000
_FINISHED_IDS = (
    "SELECT run_id FROM runs SEMI JOIN asked USING (run_id) SEMI JOIN finished USING (status) WHERE is_detail"
)

Report = Callable[[FoundId, str], None]
"""Takes an ID that cannot be asked for, and why."""


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How to fetch. `qps` is this process's share of the organization's limit, in requests a second."""

    qps: float = defaults.QPS
    concurrency: int = defaults.CONCURRENCY
    refresh: bool = False
    consume_verify_results: bool = False
    keep_raw: bool = True
    transport: httpx.AsyncBaseTransport | None = None

    def __post_init__(self) -> None:
        if not 0 < self.qps <= 100_000:
            raise UsageError(f"--qps must be above 0 and at most 100000, not {self.qps:g}")
        if not 1 <= self.concurrency <= 1_000:
            raise UsageError(f"--concurrency must be from 1 to 1000, not {self.concurrency}")


@dataclass(slots=True)
class Plan:
    """What a fetch would do: how many IDs are skipped or cannot be used, and how many are asked for of each kind."""

    worklist: Worklist
    requested: int = 0
    invalid: int = 0
    skipped: int = 0
    to_fetch: dict[Kind, int] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """The fewest requests that this takes: one for each ID."""
        return sum(self.to_fetch.values())


@contextlib.contextmanager
def plan_fetch(found: Iterable[FoundId], lake: LakeFiles, options: FetchOptions, *, report: Report) -> Iterator[Plan]:
    """Work out which IDs to ask for. Asks for nothing and writes nothing to the lake; `recover` it first.

    `report` is called for each distinct ID that cannot be asked for: it is none, or reading it could destroy a result.
    """
    with Worklist() as worklist:
        plan = Plan(worklist)
        for each in found:
            if worklist.add(each) and (why := why_unusable(each.text)) is not None:
                plan.invalid += 1
                report(each, why)
        plan.requested = worklist.count()
        if not options.refresh:
            plan.skipped = _skip_finished(worklist, lake)
        if not options.consume_verify_results:
            for kind in KINDS:
                if kind.reading_can_destroy:
                    plan.invalid += _refuse(worklist, kind, report)
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
    letters. Where the API refuses to go on, the same; either way the result's `error` says so. Raises LakeError where
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
        tell=progress.tell,
    )
    try:
        fetching = _Fetching(plan, load, connection, options, progress)
        _run_in_thread(fetching)
        load.result.skipped, load.result.invalid = plan.skipped, plan.invalid
        return load.finish(keep_raw=options.keep_raw)
    except OSError as error:
        raise LakeError(
            f"{lake.folder}: the disk did not take what arrived ({error.strerror or error}); "
            "what had been logged lands with the next command, once this is mended"
        ) from error
    finally:
        load.close()


def fetch_runs(
    run_ids: Iterable[str],
    *,
    lake: Path | str = defaults.LAKE,
    qps: float = defaults.QPS,
    concurrency: int = defaults.CONCURRENCY,
    refresh: bool = False,
    consume_verify_results: bool = False,
    connection: Connection | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    progress: Progress | None = None,
) -> LoadResult:
    """Fetch runs by ID into a lake, and return what came of each; also inside a running event loop, as in a notebook.

    The key and the rest come from the environment (`EXTEND_API_KEY`, …), unless a `connection` is given. Runs that the
    lake has finished and in detail are skipped unless `refresh`. IDs that cannot be asked for are counted in `invalid`.
    Raises PipelineError where it could not run at all.
    """
    import os

    from pipeline.config import read_connection

    files = LakeFiles(lake)
    options = FetchOptions(
        qps=qps,
        concurrency=concurrency,
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


def _skip_finished(worklist: Worklist, lake: LakeFiles) -> int:
    """Take off the list what the lake has as finished and in detail; return how many that were."""
    paths = lake.day_paths()
    if not paths:
        return 0
    import duckdb
    import pyarrow as pa

    skipped = 0
    try:
        with duckdb.connect(config={"memory_limit": "256MB"}) as con:
            con.read_parquet(paths, hive_partitioning=False, union_by_name=True).create_view("runs")
            con.register("finished", pa.table({"status": sorted(FINISHED)}))
            for batch in worklist.iter_open_batches(_SKIP_BATCH):
                con.register("asked", pa.table({"run_id": batch}))
                known = con.sql(_FINISHED_IDS).fetchall()
                worklist.mark_done(run_id for (run_id,) in known)
                skipped += len(known)
    except duckdb.Error:
        lake.raise_damage(footers_only=True)
        raise
    return skipped


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


class _Fetching:
    """The asynchronous part of one fetch."""

    def __init__(
        self, plan: Plan, load: Load, connection: Connection, options: FetchOptions, progress: Progress
    ) -> None:
        self.plan, self.load, self.connection = plan, load, connection
        self.options, self.progress = options, progress
        self.standing = Standing(plan.requests)
        self.stopping = asyncio.Event()
        self.why_stopped: str | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._ids: Iterator[str] = iter(())
        self._done: list[str] = []
        self._is_last_round = False
        self._checkpointing = asyncio.Lock()

    def stop(self, why: str) -> None:
        """Ask for no more; may be called from any thread. What is under way has a few seconds left."""
        self.why_stopped = self.why_stopped or why
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: there is nothing left to stop
                self.loop.call_soon_threadsafe(self.stopping.set)

    async def run(self) -> None:
        """Fetch everything on the list; what does not come is in the log as a failure when this returns."""
        from pipeline.client import ExtendClient
        from pipeline.limiter import Limiter

        self.loop = asyncio.get_running_loop()
        if self.why_stopped is not None:
            self.stopping.set()
        client = ExtendClient(
            self.connection,
            limiter=Limiter(self.options.qps),
            concurrency=self.options.concurrency,
            transport=self.options.transport,
        )
        async with client:
            await self._run_rounds(client)
            self._count(client)
        self._give_up_the_rest()

    async def _run_rounds(self, client: ExtendClient) -> None:
        background = [asyncio.create_task(self._checkpoint_often(client)), asyncio.create_task(self._land_often())]
        try:
            for number in range(_ROUNDS):
                self._is_last_round = number == _ROUNDS - 1
                self._ids = self.plan.worklist.iter_open()
                await self._run_workers(client)
                await self._checkpoint()
                if self.stopping.is_set() or not any(self.plan.worklist.open_by_kind().values()):
                    break
        finally:
            for task in background:
                task.cancel()
            outcomes = await asyncio.gather(*background, return_exceptions=True)
        _raise_first(outcomes)

    async def _run_workers(self, client: ExtendClient) -> None:
        count = min(self.options.concurrency, max(1, self.plan.requests))
        workers = [asyncio.create_task(self._work(client)) for _ in range(count)]
        ending = [
            asyncio.create_task(self.stopping.wait()),
            asyncio.create_task(asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)),
        ]
        try:
            await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(workers, timeout=_STOPPING_S)
        finally:
            for task in (*workers, *ending):
                task.cancel()
            outcomes = await asyncio.gather(*workers, *ending, return_exceptions=True)
        _raise_first(outcomes)

    async def _work(self, client: ExtendClient) -> None:
        while not self.stopping.is_set():
            run_id = next(self._ids, None)
            if run_id is None:
                return
            try:
                await self._fetch_one(client, run_id)
            except ApiError as error:
                self.why_stopped = self.why_stopped or str(error)
                self.stopping.set()
            self._count(client)
            if self.load.pending_bytes >= _CHECKPOINT_BYTES:
                await self._checkpoint()

    async def _fetch_one(self, client: ExtendClient, run_id: str) -> None:
        workspace_id = self.connection.workspace_id
        try:
            answer = await client.fetch_run(run_id)
        except RunError as error:
            is_missing = isinstance(error, RunMissingError)
            if error.retryable and not is_missing and not self._is_last_round:
                return
            self.load.take_failure(error, workspace_id=workspace_id)
            self.standing.failed += 1
        else:
            self.load.take_run(
                run_id, answer.body, fetched_at=answer.fetched_at, is_detail=True, workspace_id=workspace_id
            )
        self.standing.done += 1
        self._done.append(run_id)

    def _count(self, client: ExtendClient) -> None:
        result, stats = self.load.result, client.stats
        result.requests, result.retries, result.rate_limited = stats.requests, stats.retries, stats.rate_limited
        self.standing.retries, self.standing.rate_limited = stats.retries, stats.rate_limited
        self.standing.note = client.outage
        self.progress.show(self.standing)

    async def _checkpoint(self) -> None:
        async with self._checkpointing:
            done, self._done = self._done, []
            try:
                await asyncio.to_thread(self.load.checkpoint)
            except BaseException:  # cancellation included: what came must not be taken for what was not asked for
                self._done[:0] = done
                raise
            self.plan.worklist.mark_done(done)

    async def _checkpoint_often(self, client: ExtendClient) -> None:
        while True:
            await asyncio.sleep(_CHECKPOINT_EVERY_S)
            self._count(client)
            await self._guarded(self._checkpoint())

    async def _land_often(self) -> None:
        pause = _LAND_EVERY_S
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            await self._guarded(asyncio.to_thread(self.load.land))
            pause = max(_LAND_EVERY_S, _LANDING_SHARE * (time.monotonic() - began))

    async def _guarded(self, step: Awaitable[None]) -> None:
        try:
            await step
        except (OSError, LakeError) as error:
            self.stop(str(error))
            raise

    def _give_up_the_rest(self) -> None:
        """Make dead letters of what was not asked for, so that `pipeline retry` goes on from here."""
        if self.why_stopped is None:
            return
        self.load.result.error = self.why_stopped
        for batch in self.plan.worklist.iter_open_batches(_SKIP_BATCH):
            for run_id in batch:
                message = f"run {run_id}: not asked for, since the load stopped before its turn"
                error = RunFailedError(message, run_id=run_id, reason="NOT_ASKED", attempts=0, retryable=True)
                self.load.take_failure(error, workspace_id=self.connection.workspace_id)
            self.load.checkpoint()


def _raise_first(outcomes: Iterable[object]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome


def _run_in_thread(fetching: _Fetching) -> None:
    """Run a fetch on an event loop of its own, in a thread, since the caller may be inside a running loop.

    The calling thread waits, and takes Ctrl-C.
    """
    failure: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(fetching.run())
        except BaseException as error:  # noqa: BLE001 - it is raised again in the calling thread
            failure.append(error)
        finally:
            ended.set()

    ended = threading.Event()
    threading.Thread(target=run, name="pipeline-fetch", daemon=True).start()
    # Not Thread.join: interrupted by Ctrl-C, it takes the thread for dead (Python 3.11).
    while not ended.is_set():
        try:
            ended.wait(0.2)
        except KeyboardInterrupt:
            fetching.progress.tell("stopping: landing what has arrived …")
            fetching.load.result.interrupted = True
            fetching.stop("stopped by Ctrl-C; go on with: pipeline retry")
    if failure:
        raise failure[0]
