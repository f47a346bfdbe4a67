"""Runs fetched by Spark's executors into a lake, with all that a load promises.

Each attempt of a task puts what comes into a part of the load's raw log, under a name of its own (see `parts`). The
driver, which holds the load from beginning to end, appends to its log the parts of the attempts that Spark took as
done, one a partition, and lands it as any other load. What attempts wrote that were lost or were second is removed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, Row

from pipeline import durable
from pipeline.errors import LOGGED_LANDS_NEXT, PipelineError
from pipeline.loads import MOST_ROWS, Load, LoadResult, recover
from pipeline.opening import open_lake
from pipeline.parts import list_parts, part_path, remove_parts
from pipeline.progress import Progress, Silent
from pipeline.spark.asking import Outcome, log_part
from pipeline.spark.reading import in_partitions, iter_found, slots, spark_schema
from pipeline.spark.settings import SparkOptions, read_options
from pipeline.spark.sharing import SHARE, whole_place

_COUNT = pa.int64()
_OUTCOME = pa.schema(
    [
        ("part", pa.string()), ("requested", _COUNT), ("skipped", _COUNT), ("invalid", _COUNT),
        ("requests", _COUNT), ("retries", _COUNT), ("rate_limited", _COUNT), ("error", pa.string()),
    ]
)  # fmt: skip
_SUMMED = ("requested", "skipped", "invalid", "requests", "retries", "rate_limited")


def load_runs(
    ids: DataFrame,
    lake: Path | str,
    column: str = "run_id",
    *,
    keep_raw: bool = True,
    refresh: bool = False,
    source: str = "Spark",
    progress: Progress | None = None,
    **options: Any,
) -> LoadResult:
    """Fetch the runs whose IDs stand in a column of a DataFrame into a lake, and return what came of each.

    The lake's folder must be the same for the driver and the executors; of a lake in a bucket, that is the driver's
    copy of it (in PIPELINE_CACHE). Options are those of `SparkOptions`;
    `partitions` is as many as run at once where nothing is said. Runs that the lake has finished and in detail are
    skipped unless `refresh`. Where the API refuses to go on, the result's `error` says so. Where Spark's job fails or
    is stopped, what had arrived lands all the same, and its error is raised.
    """
    progress = progress or Silent()
    files = open_lake(whole_place(lake))
    settings, _ = read_options({"partitions": slots(ids.sparkSession), **options})
    settings = settings.resolved(os.environ)
    recover(files, tell=progress.tell)
    load = Load(
        files, command="spark", source=source, base_url=settings.base_url, workspace_id=settings.workspace,
        keep_raw=keep_raw, most_rows=MOST_ROWS, tell=progress.tell,
    )  # fmt: skip
    try:
        with durable.telling_refusals(files.folder, LOGGED_LANDS_NEXT):
            return _load(ids, column, load, _Task(settings, str(files.folder), str(load.log_path), refresh))
    finally:
        remove_parts(load.log_path)
        load.close()


def _load(ids: DataFrame, column: str, load: Load, task: _Task) -> LoadResult:
    partitions = in_partitions(ids, column, task.options.partitions)
    try:
        outcomes = partitions.mapInArrow(partial(_map_outcome, task), spark_schema(_OUTCOME)).collect()
    except BaseException as error:  # Ctrl-C included
        for part in list_parts(load.log_path):
            load.take_part(part)
        load.result.error = f"Spark's job did not end well ({type(error).__name__}); what had arrived has landed"
        load.land()
        load.result.requested = load.result.landed + load.result.unchanged + load.result.missing + load.result.failed
        load.finish()
        raise
    _take(load, outcomes)
    return load.finish()


def _take(load: Load, outcomes: list[Row]) -> None:
    """Take the parts of the attempts that count, and add up what they counted."""
    result = load.result
    for outcome in outcomes:
        if outcome["part"] is not None:
            part = part_path(load.log_path, outcome["part"])
            if not part.exists():
                raise PipelineError(f"{part}: an executor wrote it, and it is not here; {SHARE}")
            load.take_part(part)
        for name in _SUMMED:
            setattr(result, name, getattr(result, name) + outcome[name])
        result.error = result.error or outcome["error"]


@dataclass(frozen=True, slots=True)
class _Task:
    """What each partition is to do with its IDs."""

    options: SparkOptions
    folder: str
    log: str
    refresh: bool


def _map_outcome(task: _Task, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    outcome: Outcome = log_part(iter_found(batches), task.options, task.folder, task.log, refresh=task.refresh)
    yield pa.RecordBatch.from_pylist([asdict(outcome)], schema=_OUTCOME)
