"""What the driver and the executors of Spark must have in common: the folder of a lake.

Of a lake in a bucket that is the driver's copy of it (see `bucket.mirror`): the driver pulls and pushes, and the
executors work on the copy as on any folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from pyspark.sql import SparkSession

from pipeline.errors import UsageError

SHARE = "name a lake in a folder that they share; for one in a bucket, set PIPELINE_CACHE to such a folder"


def whole_place(place: Path | str) -> Path | str:
    """Return where a lake is, as other processes find it too: the whole path of a folder; the URL of a bucket as is."""
    return place if isinstance(place, str) and "://" in place else Path(place).absolute()


def refuse_unseen(spark: SparkSession, folder: Path) -> None:
    """Raise UsageError where a task of an executor finds no such folder; it is asked by as many as run at once."""
    path, context = str(folder), spark.sparkContext
    tasks = context.parallelize(range(context.defaultParallelism), context.defaultParallelism)
    seen = tasks.map(lambda _task: os.path.isdir(path)).collect()
    if not all(seen):
        raise UsageError(f"{folder}: the driver has the lake here, and an executor does not see it; {SHARE}")
