"""The pipeline on Apache Spark: read runs by ID into a DataFrame, load them into a lake, ask a lake the same questions.

    import pipeline.spark

    pipeline.spark.register(spark)
    runs = spark.read.format("extend_runs").load("ids.txt")         # rows of `runs`, fetched by the executors
    result = pipeline.spark.load_runs(ids, "/shared/lake")          # into a lake; `ids` is a DataFrame
    pipeline.spark.SparkLake(spark, "/shared/lake").credits(by="kind").show()

Needs `pip install 'extend-pipeline[spark]'` on the driver and on the executors, and Java 17 or later.
"""

from __future__ import annotations

from pipeline.errors import UsageError

try:
    import pyspark  # noqa: F401 - only to say what is missing
    import sqlglot  # noqa: F401
except ImportError as error:
    raise UsageError(
        f"{error.name} is not installed: pip install 'extend-pipeline[spark]', here and where the executors run"
    ) from error

from pipeline.spark.lake import SparkLake
from pipeline.spark.loading import load_runs
from pipeline.spark.reading import read_runs, register

__all__ = ["SparkLake", "load_runs", "read_runs", "register"]
