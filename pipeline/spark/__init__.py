"""The pipeline on Apache Spark: read runs by ID into a DataFrame, load them into a lake, ask a lake the same questions.

    import pipeline.spark

    pipeline.spark.register(spark)
    runs = spark.read.format("extend_runs").load("ids.txt")         # rows of `runs`, fetched by the executors
    result = pipeline.spark.load_runs(ids, "/shared/lake")          # into a lake; `ids` is a DataFrame
    pipeline.spark.SparkLake(spark, "/shared/lake").credits(by="kind").show()

Needs `pip install 'extend-pipeline[spark]'` on the driver and on the executors, and Java 17 or later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import UsageError

__all__ = ["SparkLake", "load_runs", "read_runs", "register"]

if TYPE_CHECKING:
    from pipeline.spark.lake import SparkLake
    from pipeline.spark.loading import load_runs
    from pipeline.spark.reading import read_runs, register

_HOMES = {
    "SparkLake": "pipeline.spark.lake",
    "load_runs": "pipeline.spark.loading",
    "read_runs": "pipeline.spark.reading",
    "register": "pipeline.spark.reading",
}
_NEEDED = ("pyspark", "py4j", "sqlglot")


def __getattr__(name: str) -> object:
    """Import what is asked for only now: an executor, which only fetches, begins sooner without the rest."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(_HOMES[name]), name)
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in _NEEDED:
            raise
        raise UsageError(
            f"{error.name} is not installed: pip install 'extend-pipeline[spark]', here and where the executors run"
        ) from error


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
