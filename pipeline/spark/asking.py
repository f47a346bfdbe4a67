"""What one partition asks of the API, in a Python worker of an executor, and what becomes of what comes.

It is the same asking as that of `pipeline fetch`: the same client, limiter, retries and rounds. What comes goes to
Arrow batches, for a query, or to a part of the load's raw log, for the lake.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark import TaskContext

from pipeline import raw
from pipeline.arrow_schemas import DEAD_LETTERS_SCHEMA, RUNS_SCHEMA
from pipeline.erased import Erased, read_erased
from pipeline.errors import ApiError, RunError, RunFailedError, UsageError
from pipeline.fetch import FetchOptions, Plan, fetch_in_thread, plan_fetch
from pipeline.flatten import flatten_run
from pipeline.ids import FoundId
from pipeline.intake import Intake, failure_record
from pipeline.kinds import kind_of
from pipeline.lake import LakeFiles
from pipeline.loads import LoadResult
from pipeline.parts import part_path
from pipeline.progress import Silent
from pipeline.spark.settings import SparkOptions
from pipeline.spark.sharing import SHARE
from pipeline.values import time_value

DEAD_LETTER = pa.struct(
    [
        DEAD_LETTERS_SCHEMA.field(name).remove_metadata()
        for name in ("reason", "message", "http_status", "request_id", "attempts", "failed_at")
    ]
)
ROWS_SCHEMA = RUNS_SCHEMA.append(
    pa.field(
        "dead_letter", DEAD_LETTER, metadata={"description": "Why the run did not come. Null where it came."}
    )
)  # fmt: skip
"""Rows of runs, and of IDs that did not come."""

_WAITING_BATCHES = 4
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt of a partition did: the name of its part (null: it has nothing), and what it counted."""

    part: str | None
    requested: int
    skipped: int
    invalid: int
    requests: int
    retries: int
    rate_limited: int
    error: str | None


def attempt_name() -> str:
    """Return a name that no other attempt of any task has."""
    task = TaskContext.get()
    partition, attempt = (task.partitionId(), task.taskAttemptId()) if task else (0, 0)
    return f"{partition:05d}-{attempt:08d}-{os.urandom(3).hex()}"


def log_part(found: Iterable[FoundId], options: SparkOptions, folder: str, log: str, *, refresh: bool) -> Outcome:
    """Ask for the IDs that a lake in a folder lacks, put what comes into a part of a load's log, and say what was done.

    Where the API refuses to go on, what was not asked for becomes dead letters, and the outcome says why.
    """
    lake, name = LakeFiles(folder), attempt_name()
    if not Path(log).exists():
        raise UsageError(f"{log}: the driver wrote it, and this executor does not see it; {SHARE}")
    fetch_options, connection = options.fetch_options(refresh=refresh), options.connection(os.environ)
    part = _Part(lake, raw.RawWriter.create(part_path(Path(log), name)))
    try:
        with plan_fetch(found, lake, fetch_options, report=_report) as plan:
            fetch_in_thread(plan, part, connection, fetch_options, Silent())
            part.checkpoint()
            result, skipped = part.result, plan.skipped + part.left_out
            return Outcome(
                None if part.is_empty else name, plan.requested, skipped, plan.invalid,
                result.requests, result.retries, result.rate_limited, result.error,
            )  # fmt: skip
    finally:
        part.close()


def _report(each: FoundId, why: str) -> None:
    print(f"{each.where}: {why}", file=sys.stderr, flush=True)


class _Part(Intake):
    """Takes what comes into a part of a load's raw log; it lands with the load."""

    def __init__(self, lake: LakeFiles, writer: raw.RawWriter) -> None:
        super().__init__(writer, read_erased(lake))
        self.started_at = datetime.now(UTC)
        self.result = LoadResult(writer.path.name, str(lake.folder))

    def land(self, *, while_asking: bool = False) -> None:
        """Leave it to the load."""


def iter_batches(
    found: Iterable[FoundId], options: SparkOptions, load_id: str, *, raw_folder: str | None, with_failures: bool
) -> Iterator[pa.RecordBatch]:
    """Ask for runs, and yield their rows as they come; with failures, a row each also for what did not come.

    With a folder for it, payloads are put into a raw log there first. Raises PipelineError where the API refuses to go
    on.
    """
    connection, fetch_options = options.connection(os.environ), options.fetch_options(refresh=True)
    log = None
    if raw_folder is not None:
        path = Path(raw_folder) / f"{load_id}-{attempt_name()}{raw.SUFFIX}"
        log = Intake(raw.RawWriter.create(path), Erased())
    rows = _Rows(load_id, connection.workspace_id, log, with_failures=with_failures)

    def ask() -> None:
        with plan_fetch(found, None, fetch_options, report=rows.take_refusal) as plan:
            _fetch(plan, rows, options, fetch_options)

    try:
        yield from rows.iter_while(ask)
    finally:
        if log is not None:
            log.close()


def _fetch(plan: Plan, rows: _Rows, options: SparkOptions, fetch_options: FetchOptions) -> None:
    fetch_in_thread(plan, rows, options.connection(os.environ), fetch_options, Silent(), stopping=rows.stopping)
    rows.checkpoint()
    if rows.result.error is not None and not rows.stopping.is_set():
        raise ApiError(rows.result.error)


class _Rows:
    """Takes what comes, and hands it to another thread as batches of rows; few wait, so that the asking slows down
    with whoever takes them.
    """

    def __init__(self, load_id: str, workspace_id: str | None, log: Intake | None, *, with_failures: bool) -> None:
        self.started_at = datetime.now(UTC)
        self.result = LoadResult(load_id, "")
        self.stopping = threading.Event()
        self.pending_bytes = 0
        self._workspace_id, self._log, self._with_failures = workspace_id, log, with_failures
        self._schema = ROWS_SCHEMA if with_failures else RUNS_SCHEMA
        self._lines: list[bytes] = []
        self._taking = threading.Lock()
        self._batches: queue.Queue[pa.RecordBatch | BaseException | None] = queue.Queue(_WAITING_BATCHES)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits to become a batch."""
        return not self._lines

    def take_run(
        self, run_id: str, body: bytes, *, fetched_at: datetime, is_detail: bool, workspace_id: str | None
    ) -> bool:
        """Take a payload."""
        if self._log is not None:
            self._log.take_run(run_id, body, fetched_at=fetched_at, is_detail=is_detail, workspace_id=workspace_id)
        self._take(raw.run_record(run_id, body, fetched_at=fetched_at, is_detail=is_detail, workspace_id=workspace_id))
        return True

    def take_runs(
        self, runs: Iterable[tuple[str, bytes]], *, fetched_at: datetime, is_detail: bool, workspace_id: str | None
    ) -> int:
        """Take the payloads of an answer."""
        return sum(
            self.take_run(run_id, body, fetched_at=fetched_at, is_detail=is_detail, workspace_id=workspace_id)
            for run_id, body in runs
        )

    def take_failure(self, error: RunError, *, workspace_id: str | None) -> None:
        """Take an ID that did not come, with the reason."""
        if self._log is not None:
            self._log.take_failure(error, workspace_id=workspace_id)
        if self._with_failures:
            self._take(failure_record(error, workspace_id=workspace_id, failed_at=datetime.now(UTC)))

    def take_refusal(self, each: FoundId, why: str) -> None:
        """Take a text that cannot be asked for."""
        error = RunFailedError(why, run_id=each.text, reason="NOT_ASKED", attempts=0)
        self.take_failure(error, workspace_id=self._workspace_id)

    def checkpoint(self) -> None:
        """Make a batch of what was taken; a raw log has it first."""
        with self._taking:
            lines, self._lines = self._lines, []
            self.pending_bytes = 0
        if self._log is not None:
            self._log.checkpoint()
        if lines:
            rows = [row for line in lines if (row := self._row(json.loads(line))) is not None]
            self._put(pa.RecordBatch.from_pylist(rows, schema=self._schema))

    def land(self, *, while_asking: bool = False) -> None:
        """Do nothing: there is no lake."""

    def iter_while(self, ask: Callable[[], None]) -> Iterator[pa.RecordBatch]:
        """Yield the batches that come while something runs in a thread of its own; raise what goes wrong there.

        Who takes no more ends the asking.
        """

        def run() -> None:
            try:
                ask()
                self._put(None)
            except BaseException as error:  # noqa: BLE001 - of a thread: raised again by who takes the batches
                self._put(error)

        thread = threading.Thread(target=run, name="pipeline-partition", daemon=True)
        thread.start()
        try:
            while (batch := self._batches.get()) is not None:
                if isinstance(batch, BaseException):
                    raise batch
                yield batch
        finally:
            self.stopping.set()
            thread.join()

    def _take(self, line: bytes) -> None:
        with self._taking:
            self._lines.append(line)
            self.pending_bytes += len(line)

    def _put(self, batch: pa.RecordBatch | BaseException | None) -> None:
        while not self.stopping.is_set():
            with contextlib.suppress(queue.Full):
                self._batches.put(batch, timeout=_LOOK_S)
                return

    def _row(self, record: raw.Record) -> dict[str, Any] | None:
        if record["record"] != "run":
            return self._letter(record, record)
        try:
            flat = flatten_run(
                record["payload"], fetched_at=time_value(record["fetched_at"]), load_id=self.result.load_id,
                workspace_id=record["workspace_id"], is_detail=record["detail"],
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            message = f"run {record['run_id']}: its payload cannot be made a row of ({type(error).__name__})"
            why = {"reason": "BROKEN_BODY", "message": message, "failed_at": record["fetched_at"]}
            return self._letter(record, why) if self._with_failures else None
        return flat.row()

    def _letter(self, record: raw.Record, why: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row that says why a run did not come."""
        kind = kind_of(record["run_id"])
        letter = {name: why.get(name) for name in DEAD_LETTER.names} | {"failed_at": time_value(why["failed_at"])}
        return {
            "run_id": record["run_id"], "kind": kind.object if kind else None, "load_id": self.result.load_id,
            "workspace_id": record["workspace_id"], "dead_letter": letter,
        }  # fmt: skip


__all__ = ["DEAD_LETTER", "ROWS_SCHEMA", "Outcome", "attempt_name", "iter_batches", "log_part"]
