"""A Spark for tests: two executors, each a process of its own, on this machine.

One for all tests of a process, since it takes many seconds to begin.
"""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from tests.programs import needed_program

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).parent.parent
EXECUTORS = 2
MARKS = [
    pytest.mark.long,
    # pyspark leaves sockets to be collected, and warns of pandas 3.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::DeprecationWarning"),
]
"""Of a module whose tests need a Spark."""
_JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


def needs_java() -> None:
    """Skip a test where there is no Java, or fail it in CI."""
    if "JAVA_HOME" not in os.environ:
        needed_program("java", to_install="apt-get install openjdk-17-jre-headless")


@contextmanager
def spark_cluster(folder: Path, **environment: str) -> Iterator[SparkSession]:
    """Start a driver and two executors, with so much more of an environment, which they alone have; events and what
    they keep go to a folder.
    """
    from pyspark.sql import SparkSession

    options = {
        "spark.app.name": "tests",
        "spark.ui.enabled": "false",
        "spark.driver.memory": "1g",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.shuffle.partitions": "2",
        # Java compiles little: of a minute of tests most would go into that.
        "spark.driver.extraJavaOptions": _JAVA,
        "spark.executor.extraJavaOptions": _JAVA,
        # Of small tables most of the time would go into compiling code for them.
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.local.dir": str(folder / "local"),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": str(folder / "events"),
        "spark.ui.showConsoleProgress": "false",
        # A lost executor is replaced: with the standard ten failures a test could not be told from a loop.
        "spark.task.maxFailures": "4",
    }
    (folder / "events").mkdir(parents=True)
    builder = SparkSession.builder.master(f"local-cluster[{EXECUTORS},1,1024]")
    for name, value in options.items():
        builder = builder.config(name, value)
    known = {name: value for name, value in os.environ.items() if not name.startswith("EXTEND_")}
    known |= {"PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable, **environment}
    with warnings.catch_warnings(), mock.patch.dict(os.environ, known, clear=True):
        warnings.simplefilter("ignore")  # of pyspark's own: of pandas 3, and of sockets that it leaves to be collected
        session = builder.getOrCreate()
    logs = executors_folder(session)
    try:
        session.sparkContext.setLogLevel("WARN")
        yield session
    finally:
        session.stop()
        shutil.rmtree(logs, ignore_errors=True)


def executors_folder(spark: SparkSession) -> Path:
    """Return where this Spark's executors have their logs: it is no option of a cluster on one machine."""
    import pyspark

    home = Path(os.environ.get("SPARK_HOME") or next(iter(pyspark.__path__)))
    return home / "work" / spark.sparkContext.applicationId
