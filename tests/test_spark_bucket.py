"""Spark with two executors, over a lake in a bucket: loaded by one machine, asked by another."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.catalog import Lake
from pipeline.checks.lake import check_lake
from pipeline.errors import UsageError
from pipeline.fetch import fetch_runs
from pipeline.opening import open_lake
from pipeline.sandbox.server import serve
from tests.bucket import Bucket
from tests.conftest import connect
from tests.spark_reports import cells
from tests.spark_session import MARKS, needs_java, spark_cluster
from tests.test_bucket import rows_of
from tests.worlds import make_squeezed_world

pytest.importorskip("pyspark", reason="the extra `spark` is not installed")

from pyspark.sql import SparkSession

import pipeline.spark
from pipeline.spark.sharing import refuse_unseen

pytestmark = MARKS

KEY = "sk_canary_4vT7qY5wZXj8mK2pL9nR"


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    needs_java()
    with spark_cluster(tmp_path_factory.mktemp("spark"), EXTEND_API_KEY=KEY) as session:
        yield session


def test_spark_loads_a_lake_in_a_bucket_and_answers_from_it_as_it_would_in_a_folder(
    spark: SparkSession, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("EXTEND_")]:
        monkeypatch.delenv(name)
    world = make_squeezed_world(seed=11, runs=200, days=2)
    space = world.workspaces[0]
    run_ids = [run_id for run_id in world.run_ids(space) if not run_id.startswith("vr_")][:60]
    ids = spark.createDataFrame([(run_id,) for run_id in [*run_ids, world.deleted_ids(space)[0]]], "run_id STRING")
    asked: list[str] = []
    with serve(world, key=KEY) as server:
        fetch_runs(run_ids, lake=tmp_path / "fetched", qps=5000, connection=connect(server))
        server.on_request = asked.append
        result = pipeline.spark.load_runs(ids, bucket.url, base_url=server.base_url, qps=2000, partitions=3)
        again = pipeline.spark.load_runs(ids, bucket.url, base_url=server.base_url, qps=2000, partitions=3)
    assert (result.requested, result.landed, result.missing, result.error) == (61, 60, 1, None)
    # What the bucket has finished is seen by the executors, and not asked for again.
    assert (again.landed, again.skipped > 40) == (0, True)
    assert len(asked) == 61 + again.requests < 61 + 21
    with bucket.on("b"):
        assert {run_id: {**row, "fetched_at": None} for run_id, row in rows_of(bucket.url).items()} == {
            run_id: {**row, "fetched_at": None} for run_id, row in rows_of(tmp_path / "fetched").items()
        }
        files = open_lake(bucket.url)
        assert files.read_dead_letters()["reason"].to_pylist() == ["NOT_FOUND"]
        assert [row["command"] for row in files.read_loads().to_pylist()] == ["spark", "spark"]
        files.fetch_logs()
        assert check_lake(files).is_whole
        with Lake(bucket.url) as duck:
            expected = duck.credits("kind").to_arrow_table()
        found = pipeline.spark.SparkLake(spark, bucket.url).credits("kind").toArrow()
        assert cells(found, in_order=True) == cells(expected, in_order=True)
        assert len(expected) > 2
    assert not [name for name in bucket.names() if name.startswith(("loading/", ".turn")) or ".parts" in name]


def test_an_executor_that_does_not_see_the_copy_of_a_bucket_is_told_what_to_share(
    spark: SparkSession, tmp_path: Path
) -> None:
    refuse_unseen(spark, tmp_path)
    with pytest.raises(UsageError, match=r"an executor does not see it; .* set PIPELINE_CACHE to such a folder"):
        refuse_unseen(spark, tmp_path / "of-the-driver-alone")
