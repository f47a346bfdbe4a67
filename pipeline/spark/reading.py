"""Runs as DataFrames: the format `extend_runs`, for IDs that the driver holds; `read_runs`, for those of a DataFrame.

Both are lazy, as all of Spark: what is asked twice is fetched twice. Who wants to keep runs loads them into a lake.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition
from pyspark.sql.functions import col
from pyspark.sql.pandas.types import from_arrow_type
from pyspark.sql.types import StructField, StructType

from pipeline import raw
from pipeline.arrow_schemas import RUNS_SCHEMA
from pipeline.errors import UsageError
from pipeline.ids import FoundId, iter_ids
from pipeline.spark.asking import ROWS_SCHEMA, iter_batches
from pipeline.spark.settings import SparkOptions, as_flag, read_options

FORMAT = "extend_runs"
_OF_READING = ("failures", "raw")
_OF_FORMAT = ("path", "ids", "column", *_OF_READING)


def register(spark: SparkSession) -> None:
    """Make the format `extend_runs` known to a session.

    Options: the path of a file of IDs as `pipeline fetch --from` takes it, with `column`, or `ids`, the IDs themselves
    with blanks or commas between; and those of `read_runs`.
    """
    spark.dataSource.register(RunsSource)


def read_runs(ids: DataFrame, column: str = "run_id", **options: Any) -> DataFrame:
    """Return the runs whose IDs stand in a column of a DataFrame, in the schema of `runs`, when it is acted on.

    Each ID is fetched once, by its partition. Options are those of `SparkOptions`; `partitions` is as many as run at
    once where nothing is said. A run that does not come is left out, or with `failures=True` a row with its reason in
    `dead_letter`. With `raw`, a folder that the executors share, payloads are put into raw logs there first, which
    `pipeline load` takes. Raises PipelineError, within Spark's own error, where the API refuses to go on.
    """
    settings, apart = read_options({"partitions": slots(ids.sparkSession), **_as_text(options)}, *_OF_READING)
    wanted = _Wanted.of(settings, apart)
    return in_partitions(ids, column, settings.partitions).mapInArrow(
        partial(_map_batches, wanted), spark_schema(wanted.schema)
    )


def in_partitions(ids: DataFrame, column: str, partitions: int) -> DataFrame:
    """Return the IDs of a column as `run_id`, in so many partitions, each ID in one of them."""
    present = ids.where(col(column).isNotNull())
    return present.select(col(column).cast("string").alias("run_id")).repartition(partitions, "run_id")


def iter_found(batches: Iterable[pa.RecordBatch]) -> Iterator[FoundId]:
    """Yield the IDs of such a partition."""
    for batch in batches:
        for text in batch.column(0).to_pylist():
            yield FoundId(text.strip(), repr(text)[:80])


def slots(spark: SparkSession) -> int:
    """Return how many tasks the session runs at once."""
    return spark.sparkContext.defaultParallelism


def spark_schema(schema: pa.Schema) -> StructType:
    """Return a declared schema in Spark's types, with what each column means."""
    return StructType(
        [
            StructField(field.name, from_arrow_type(field.type), True, _comment(field))
            for field in schema
        ]
    )  # fmt: skip


def _comment(field: pa.Field) -> dict[str, Any]:
    description = (field.metadata or {}).get(b"description")
    return {"comment": description.decode()} if description else {}


def _as_text(options: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value).lower() if isinstance(value, bool) else value for name, value in options.items()}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the partitions of one DataFrame ask for, beside their IDs. `load_id` is what all their rows say."""

    options: SparkOptions
    load_id: str
    raw_folder: str | None
    with_failures: bool

    @classmethod
    def of(cls, options: SparkOptions, apart: dict[str, str]) -> _Wanted:
        """Return what options ask for; raise UsageError where they cannot."""
        resolved, load_id = options.resolved(os.environ), raw.new_load_id(datetime.now(UTC))
        return cls(resolved, load_id, apart.get("raw"), as_flag("failures", apart.get("failures", "false")))

    @property
    def schema(self) -> pa.Schema:
        """The schema of the rows."""
        return ROWS_SCHEMA if self.with_failures else RUNS_SCHEMA

    def iter_batches(self, found: Iterable[FoundId]) -> Iterator[pa.RecordBatch]:
        """Fetch, in an executor, and yield rows."""
        return iter_batches(
            found, self.options, self.load_id, raw_folder=self.raw_folder, with_failures=self.with_failures
        )


def _map_batches(wanted: _Wanted, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    return wanted.iter_batches(iter_found(batches))


class RunsSource(DataSource):
    """The format `extend_runs`. Spark makes one in a Python process of its own beside the driver."""

    @classmethod
    def name(cls) -> str:
        """Return the format's name."""
        return FORMAT

    def schema(self) -> StructType:
        """Return the schema of `runs`, with `dead_letter` where failures are wanted."""
        return spark_schema(self._wanted()[0].schema)

    def reader(self, schema: StructType) -> RunsReader:
        """Return the reader of what the options name."""
        wanted, apart = self._wanted()
        if ("path" in apart) == ("ids" in apart):
            raise UsageError('say which runs: .load("ids.txt"), a file of IDs, or .option("ids", "clr_… exr_…")')
        found = iter_ids(apart.get("ids", "").replace(",", " ").split(), apart.get("path"), column=apart.get("column"))
        return RunsReader(wanted, list({each.text: each for each in found}.values()))

    def _wanted(self) -> tuple[_Wanted, dict[str, str]]:
        options, apart = read_options(dict(self.options), *_OF_FORMAT)
        return _Wanted.of(options, apart), apart


class RunsReader(DataSourceReader):
    """Shares IDs among partitions, and fetches those of one."""

    def __init__(self, wanted: _Wanted, found: list[FoundId]) -> None:
        count = max(1, min(wanted.options.partitions, len(found)))
        self._wanted = replace(wanted, options=replace(wanted.options, partitions=count))
        self._found = found

    def partitions(self) -> list[InputPartition]:
        """Return the shares: as even as they can be."""
        count, found = self._wanted.options.partitions, self._found
        self._found = []  # each partition takes its own along, and this object goes with every one
        return [InputPartition(found[number::count]) for number in range(count)]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Fetch a share, and yield rows."""
        return self._wanted.iter_batches(partition.value)
