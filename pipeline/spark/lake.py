"""The same reports over the same files, worked out by Spark.

The views are made by the same `.sql` files as those of `catalog`, put into Spark's words by `dialect`, in a session of
its own: no setting, and no view, of the caller's is touched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import array, col, lit, regexp_extract

from pipeline.answers import Reports, documented_reasons
from pipeline.arrow_schemas import DEAD_LETTERS_SCHEMA, LOADS_SCHEMA, RUNS_FILE_SCHEMA
from pipeline.errors import LakeError, UsageError
from pipeline.opening import existing_lake
from pipeline.reports import read_sql
from pipeline.reports.questions import Question
from pipeline.schema import DAY, RUN_COLUMNS, STORED_DAY
from pipeline.spark.dialect import spark_sql
from pipeline.spark.reading import spark_schema
from pipeline.spark.sharing import refuse_unseen, whole_place

_VIEWS = ("credit_lines", "credit_sums", "run_sums", "charges", "credit_ledger", "unknown_credits")
"""In this order: the later ones stand on the first."""

_HELD = "credit_lines"
"""Worked out once for all questions, until the files change; Spark puts on the disk what its memory does not hold."""

_RUNS_COLUMNS = (*RUN_COLUMNS, DAY.name)

_SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    # Beyond so many paths Spark looks at files in a job of its own, with a task each: a lake of a year has 365.
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "10000",
}
_ASKED_AGAIN = 5
_PAUSE_S = 0.2


class SparkLake(Reports[DataFrame]):
    """A lake to ask through Spark: `.credits()`, `.failures()`, … as of `pipeline.Lake`, with DataFrames for answers.

    `sql` takes Spark's own SQL over the same views: `runs`, `charges`, `credit_ledger`, `unknown_credits`, `loads`,
    `dead_letters`. The lake's folder must be the same for the driver and the executors; of a lake in a bucket, that is
    the driver's copy of it (in PIPELINE_CACHE), which is as of the moment when this was made. Raises UsageError where
    there is no lake, or an executor does not see the copy, NewerLakeError where a newer version of this program wrote
    it.
    """

    def __init__(self, spark: SparkSession, path: Path | str) -> None:
        self.files = existing_lake(whole_place(path))
        self.files.refuse_newer()
        if self.files.mirror is not None:
            refuse_unseen(spark, self.files.folder)
        self._spark = spark
        self._session = spark.newSession()
        for name, value in _SETTINGS.items():
            self._session.conf.set(name, value)
        self._seen: object = None
        self._create_view("documented_reasons", pa.table(documented_reasons()).rename_columns(["kind", "reason"]))

    def sql(self, query: str, **params: Any) -> DataFrame:
        """Return the answer to a query in Spark's SQL, its `:name` parameters bound; it is worked out when it is read.

        It belongs to this lake's own session.
        """
        self._refresh()
        return self._session.sql(query, args=params or None)

    def table(self, question: Question) -> pa.Table:
        """Return the answer to a report's question as an Arrow table."""
        query, params = spark_sql(question.query), spark_params(question.params)
        return self._ask(lambda: self._session.sql(query, args=params or None))

    def answer(self, question: Question) -> DataFrame:
        """Return the answer to a report's question, worked out at once, of one version of each file.

        Raises LakeError where the files are being replaced all the while.
        """
        return self.from_arrow(self.table(question))

    def ask(self, name: str, **params: Any) -> DataFrame:
        """Return the answer to a query of this package, by the name of its file, as `answer` does."""
        return self.answer(Question(read_sql(name), params))

    def rows(self, question: Question) -> list[tuple[Any, ...]]:
        """Return the rows of the answer to a question."""
        return [tuple(row.values()) for row in self.table(question).to_pylist()]

    def from_arrow(self, table: pa.Table) -> DataFrame:
        """Return a table as a DataFrame of the caller's session."""
        return self._spark.createDataFrame(table)

    def newest_day(self) -> tuple[date | None, bool]:
        """Return the newest day that a run was created on, and whether it was over when the API was last asked."""
        ((day, fetched_on),) = self.rows(Question(read_sql("newest_day")))
        return day, day is not None and fetched_on is not None and fetched_on > day

    def data_as_of(self) -> datetime | None:
        """Return when the API was last asked, by the loads; null where there are none."""
        ended = [each for each in self.files.read_loads()["ended_at"].to_pylist() if each is not None]
        return max(ended, default=None)

    def _ask(self, query: Callable[[], DataFrame]) -> pa.Table:
        """Work out a query again where a file was replaced meanwhile: Spark reads some more than once."""
        for _ in range(_ASKED_AGAIN):
            before = self.files.versions()
            try:
                self._refresh()
                found = query().toArrow()
            except PySparkException:
                if self.files.versions() == before:
                    self.files.raise_damage()
                    raise
            else:
                if self.files.versions() == before:
                    return found
            time.sleep(_PAUSE_S)
        raise LakeError(
            f"{self.files.name}: its files are being replaced all the while; ask again when the load has landed"
        )

    def _refresh(self) -> None:
        """Make the views anew where files were replaced, or runs are on their way from one day to another."""
        moving = sorted({run_id for run_id, _old, _new in self.files.read_moves()})
        seen = (self.files.versions(), moving)
        if seen == self._seen:
            return
        if self._seen is not None:
            self._session.catalog.uncacheTable(_HELD)
        self._seen = None
        self._create_runs(moving)
        self._create_view("loads", self.files.read_loads().cast(LOADS_SCHEMA))
        self._create_view("dead_letters", self.files.read_dead_letters().cast(DEAD_LETTERS_SCHEMA))
        for name in _VIEWS:
            self._session.sql(spark_sql(read_sql(name))).createOrReplaceTempView(name)
            if name == _HELD:
                self._session.catalog.cacheTable(name)
        self._seen = seen

    def _create_runs(self, moving: list[str]) -> None:
        paths = self.files.day_paths()
        reader = self._session.read.schema(spark_schema(RUNS_FILE_SCHEMA))
        empty = spark_schema(RUNS_FILE_SCHEMA)
        stored = reader.parquet(*paths) if paths else self._session.createDataFrame([], empty)
        path = col("_metadata.file_path") if paths else lit(None).cast("string")
        stored = stored.withColumn(DAY.name, regexp_extract(path, STORED_DAY, 1))
        if not moving:
            stored.select(*_RUNS_COLUMNS).createOrReplaceTempView("runs")
            return
        stored.createOrReplaceTempView("stored_runs")
        self._create_view("moving_runs", pa.table({"run_id": moving}))
        settled = self._session.sql(spark_sql(read_sql("settled_runs")))
        settled.select(*_RUNS_COLUMNS).createOrReplaceTempView("runs")

    def _create_view(self, name: str, table: pa.Table) -> None:
        self._session.createDataFrame(table).createOrReplaceTempView(name)


def spark_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a question's parameters as the query in Spark's words needs them.

    A key of the metadata is a JSON pointer for DuckDB; for Spark it is the key itself. Days, times and decimals go as
    text, which the queries cast: PySpark takes no day before the year 1000, and no decimal in a list, which must be
    made of literals.
    """
    return {name: _key(value) if name.startswith("key_") else _value(value) for name, value in params.items()}


def _value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return array(*(lit(_value(each)) for each in value))
    return str(value) if isinstance(value, date | Decimal) else value  # a datetime is a date


def _key(pointer: str) -> str:
    if not pointer.startswith("/"):
        raise UsageError(f"{pointer!r} is no JSON pointer")
    return pointer[1:].replace("~1", "/").replace("~0", "~")
