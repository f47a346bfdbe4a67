"""A load while it runs: its client, what goes on beside the asking, and how it is stopped.

Beside the asking, what was taken is made safe every half second and lands once a minute, which never takes more than a
small share of the time. The event loop has a thread of its own; the calling thread waits, and takes Ctrl-C.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from pipeline import defaults, telemetry
from pipeline.errors import LakeError, RunError, UsageError
from pipeline.progress import Progress, Standing

if TYPE_CHECKING:
    from datetime import datetime

    import httpx

    from pipeline.client import ExtendClient
    from pipeline.config import Connection
    from pipeline.limiter import Limiter
    from pipeline.loads import LoadResult

_CHECKPOINT_EVERY_S = 0.5
_CHECKPOINT_BYTES = 1 << 20
_LAND_EVERY_S = 60.0
_LANDING_SHARE = 20  # landing may take one part in so many of the time

Settle = Callable[[bool], None]
"""Told whether it went well, for what had been taken when it was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingOptions:
    """How fast to ask, and through what. `qps` is this process's share of the organization's limit, in requests/s.

    `timeout_s` bounds each request. `clock` and `sleep` are those of rate, retries and outages.
    """

    qps: float = defaults.QPS
    concurrency: int = defaults.CONCURRENCY
    keep_raw: bool = True
    transport: httpx.AsyncBaseTransport | None = None
    timeout_s: float = 60.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep

    def __post_init__(self) -> None:
        if not 0 < self.qps <= 100_000:
            raise UsageError(f"--qps must be above 0 and at most 100000, not {self.qps:g}")
        if not 1 <= self.concurrency <= 1_000:
            raise UsageError(f"--concurrency must be from 1 to 1000, not {self.concurrency}")


class Taking(Protocol):
    """What takes in what comes: a load, or on Spark what a partition's asking goes to."""

    started_at: datetime
    result: LoadResult

    @property
    def pending_bytes(self) -> int:
        """How much was taken since the last checkpoint, in bytes."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing was taken yet, neither a payload nor a failure."""

    def take_run(
        self, run_id: str, body: bytes, *, fetched_at: datetime, is_detail: bool, workspace_id: str | None
    ) -> bool:
        """Take a payload as it arrived; tell whether it was wanted."""

    def take_runs(
        self, runs: Iterable[tuple[str, bytes]], *, fetched_at: datetime, is_detail: bool, workspace_id: str | None
    ) -> int:
        """Take the payloads of an answer; return how many were wanted."""

    def take_failure(self, error: RunError, *, workspace_id: str | None) -> None:
        """Take an ID that did not come, with the reason."""

    def checkpoint(self) -> None:
        """Make all that was taken safe; called in a thread of its own, one call at a time."""

    def land(self, *, while_asking: bool = False) -> None:
        """Bring all that was taken into the lake, where there is one; called as `checkpoint` is."""


def nothing_to_settle() -> Settle:
    """Return what notes nothing."""
    return lambda _well: None


class Session:
    """An async context manager around the asking of one load.

    `before_checkpoint` and `before_landing` are called, on the event loop, just before what was taken is made safe or
    lands, and what they return just after: so whoever asks can note what is settled, and only that.
    """

    client: ExtendClient

    def __init__(
        self,
        load: Taking,
        connection: Connection,
        options: AskingOptions,
        *,
        limiter: Limiter,
        progress: Progress,
        standing: Standing,
    ) -> None:
        self.load, self.connection, self.options = load, connection, options
        self.progress, self.standing = progress, standing
        self.stopping = asyncio.Event()
        self.why_stopped: str | None = None
        self.before_checkpoint: Callable[[], Settle] = nothing_to_settle
        self.before_landing: Callable[[], Settle] = nothing_to_settle
        self._limiter = limiter
        self._checkpointing = asyncio.Lock()
        self._landing = asyncio.Lock()
        self._background: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        from pipeline.client import ExtendClient

        told = {"load_id": self.load.result.load_id, "workspace_id": self.connection.workspace_id or ""}
        self._span = telemetry.span("load", told)
        self._span.__enter__()
        self.client = await ExtendClient(
            self.connection,
            limiter=self._limiter,
            concurrency=self.options.concurrency,
            transport=self.options.transport,
            timeout_s=self.options.timeout_s,
            clock=self.options.clock,
            sleep=self.options.sleep,
        ).__aenter__()
        self._background = [asyncio.create_task(self._checkpoint_often()), asyncio.create_task(self._land_often())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._background:
            task.cancel()
        outcomes = await asyncio.gather(*self._background, return_exceptions=True)
        await self.client.__aexit__(kind, error, trace)
        self.count()
        self._span.__exit__(kind, error, trace)
        raise_first(outcomes)

    def stop(self, why: str) -> None:
        """Ask for no more, on the event loop's thread. What is under way has a few seconds left."""
        self.why_stopped = self.why_stopped or why
        self.stopping.set()

    def count(self) -> None:
        """Take over the client's counts, and show where the load stands."""
        result, stats = self.load.result, self.client.stats
        result.requests, result.retries, result.rate_limited = stats.requests, stats.retries, stats.rate_limited
        self.standing.retries, self.standing.rate_limited = stats.retries, stats.rate_limited
        self.standing.note = self.client.outage
        self.progress.show(self.standing)

    @property
    def has_much(self) -> bool:
        """Whether so much was taken since the last checkpoint that the next one should not wait for its time."""
        return self.load.pending_bytes >= _CHECKPOINT_BYTES

    async def checkpoint(self, *, if_much: bool = False) -> None:
        """Make what was taken safe; with `if_much` not if another has just done that."""
        async with self._checkpointing:
            if if_much and not self.has_much:
                return
            await self._settled(self.before_checkpoint(), self.load.checkpoint)

    async def land(self, *, while_asking: bool = False) -> None:
        """Bring what was taken into the lake; `while_asking` with as little memory as it can."""
        async with self._landing:
            await self._settled(self.before_landing(), partial(self.load.land, while_asking=while_asking))

    async def _settled(self, settle: Settle, step: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(step)
        except BaseException:  # cancellation included: what came must not be taken for what was not asked for
            settle(False)
            raise
        settle(True)

    async def _checkpoint_often(self) -> None:
        while True:
            await asyncio.sleep(_CHECKPOINT_EVERY_S)
            self.count()
            await self._guarded(self.checkpoint())

    async def _land_often(self) -> None:
        pause = _LAND_EVERY_S
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            await self._guarded(self.land(while_asking=True))
            pause = max(_LAND_EVERY_S, _LANDING_SHARE * (time.monotonic() - began))

    async def _guarded(self, step: Awaitable[None]) -> None:
        try:
            await step
        except (OSError, LakeError) as error:
            self.stop(str(error))
            raise


def raise_first(outcomes: Iterable[object]) -> None:
    """Raise the first exception among what `gather` returned; a cancellation is none."""
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome


def run_in_thread(
    main: Callable[[], Coroutine[Any, Any, None]],
    *,
    on_interrupt: Callable[[], None],
    stopping: threading.Event | None = None,
) -> None:
    """Run a coroutine on an event loop of its own, in a thread, since the caller may be inside a running loop.

    The calling thread waits, and takes Ctrl-C: then, or when `stopping` is set, `on_interrupt` is called on the event
    loop, once each time.
    """
    failure: list[BaseException] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def noting_loop() -> None:
        loops.append(asyncio.get_running_loop())
        await main()

    def run() -> None:
        try:
            asyncio.run(noting_loop())
        except BaseException as error:  # noqa: BLE001 - it is raised again in the calling thread
            failure.append(error)
        finally:
            ended.set()

    ended = threading.Event()
    threading.Thread(target=run, name="pipeline-asking", daemon=True).start()
    # Not Thread.join: interrupted by Ctrl-C, it takes the thread for dead (Python 3.11).
    interrupted, stopping = False, stopping or threading.Event()
    was_told = False
    while not ended.is_set():
        try:
            ended.wait(0.2)
            interrupted, was_told = interrupted or (stopping.is_set() and not was_told), stopping.is_set()
            if interrupted and loops:
                interrupted = False
                with contextlib.suppress(RuntimeError):  # the loop has ended: there is nothing left to stop
                    loops[0].call_soon_threadsafe(on_interrupt)
        except KeyboardInterrupt:
            interrupted = True
    if failure:
        raise failure[0]
