"""Spark with two executors, each a process of its own, over real HTTP: what it reads, loads, loses and tells."""

import os
import signal
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import raw
from pipeline.catalog import Lake
from pipeline.checks.lake import check_lake
from pipeline.fetch import fetch_runs
from pipeline.lake import LakeFiles
from pipeline.sandbox.server import SandboxServer, serve
from pipeline.sandbox.world import World
from pipeline.schema import RUN_COLUMNS
from tests.conftest import classify, connect, land
from tests.spark_reports import RATES, call, cells, fill_lake, iter_calls, iter_questions
from tests.spark_session import MARKS, executors_folder, needs_java, spark_cluster
from tests.worlds import make_squeezed_world

pytest.importorskip("pyspark", reason="the extra `spark` is not installed")

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

import pipeline.spark
from pipeline.spark.asking import ROWS_SCHEMA
from pipeline.spark.reading import spark_schema

pytestmark = MARKS

KEY = "sk_canary_4vT7qY5wZXj8mK2pL9nR"
"""The sandbox's key in all these tests: in the executors' environment, and to be found nowhere else."""


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("EXTEND_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def cluster_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spark")


@pytest.fixture(scope="session")
def spark(cluster_folder: Path) -> Iterator[SparkSession]:
    needs_java()
    with spark_cluster(cluster_folder, EXTEND_API_KEY=KEY) as session:
        pipeline.spark.register(session)
        yield session


@pytest.fixture(scope="session")
def few_days() -> World:
    """A world whose runs are of few days, so that landing them rewrites few files."""
    return make_squeezed_world(seed=11, runs=400, days=2)


@pytest.fixture
def served(few_days: World) -> Iterator[SandboxServer]:
    with serve(few_days, key=KEY) as running:
        yield running


def known_ids(world: World) -> list[str]:
    return [run_id for run_id in world.run_ids(world.workspaces[0]) if not run_id.startswith("vr_")]


def as_frame(spark: SparkSession, run_ids: list[str]) -> DataFrame:
    return spark.createDataFrame([(run_id,) for run_id in run_ids], "run_id STRING")


def stored_rows(folder: Path) -> list[dict[str, Any]]:
    """Return all rows of all days' files, but for what differs from load to load: a run twice would be there twice."""
    files = LakeFiles(folder)
    rows = [row for day in files.days() for row in files.read_day(day).to_pylist()]
    told = [name for name in RUN_COLUMNS if name not in ("load_id", "fetched_at")]
    return sorted(({name: row[name] for name in told} for row in rows), key=lambda row: row["run_id"])


def test_the_format_gives_rows_of_runs_in_the_declared_schema(
    spark: SparkSession, served: SandboxServer, few_days: World, tmp_path: Path
) -> None:
    run_ids = known_ids(few_days)[:60]
    (tmp_path / "ids.csv").write_text("id\n" + "\n".join([*run_ids, few_days.deleted_ids(few_days.workspaces[0])[0]]))
    reader = spark.read.format("extend_runs").option("base_url", served.base_url).option("qps", 2000)
    frame = reader.option("partitions", 3).option("failures", "true").load(str(tmp_path / "ids.csv"))
    assert frame.schema == spark_schema(ROWS_SCHEMA)
    assert frame.rdd.getNumPartitions() == 3
    rows = frame.collect()
    assert sorted(row["run_id"] for row in rows if row["dead_letter"] is None) == sorted(run_ids)
    assert [row["dead_letter"]["reason"] for row in rows if row["dead_letter"] is not None] == ["NOT_FOUND"]
    assert "canary" not in frame._jdf.queryExecution().toString()


def test_the_ids_of_a_tables_column_are_read_each_once(
    spark: SparkSession, served: SandboxServer, few_days: World, tmp_path: Path
) -> None:
    asked: list[str] = []
    served.on_request = asked.append
    run_ids = known_ids(few_days)[:40]
    frame = as_frame(spark, [*run_ids, *run_ids]).withColumnRenamed("run_id", "job")
    runs = pipeline.spark.read_runs(frame, "job", base_url=served.base_url, qps=2000, raw=str(tmp_path / "logs"))
    table = runs.toArrow()
    assert sorted(table["run_id"].to_pylist()) == sorted(run_ids)
    assert len(asked) == len(run_ids)
    logged = [
        record["run_id"]
        for path in (tmp_path / "logs").iterdir()
        for frame in raw.iter_frames(path)
        for record in raw.iter_records(frame.lines)
    ]
    assert sorted(logged) == sorted(run_ids)


def test_a_load_by_spark_fills_a_lake_as_fetch_does_and_holds_the_organizations_limit(
    spark: SparkSession, few_days: World, tmp_path: Path
) -> None:
    run_ids = [*known_ids(few_days)[:150], *few_days.deleted_ids(few_days.workspaces[0])[:2], "oops"]
    with serve(few_days, key=KEY) as plain:
        fetch_runs(run_ids, lake=tmp_path / "fetched", qps=5000, connection=connect(plain))
    with serve(few_days, key=KEY, limit_qps=30) as limited:
        # More partitions than run at once; without shares they would ask at 60 a second.
        result = pipeline.spark.load_runs(
            as_frame(spark, run_ids), tmp_path / "lake", base_url=limited.base_url, qps=30, partitions=4
        )
    assert (result.requested, result.landed, result.missing, result.invalid) == (153, 150, 2, 1)
    assert (result.requests, result.rate_limited, result.error) == (152, 0, None)
    assert stored_rows(tmp_path / "lake") == stored_rows(tmp_path / "fetched")
    files = LakeFiles(tmp_path / "lake")
    assert files.read_dead_letters()["reason"].to_pylist() == ["NOT_FOUND"] * 2
    (row,) = files.read_loads().to_pylist()
    assert (row["command"], row["state"], row["landed"]) == ("spark", "complete", 150)
    assert [path for path in files.raw_folder.rglob("*") if path.is_file()] == files.raw_logs()
    assert check_lake(files).is_whole


def executor_pids() -> list[int]:
    """Return the processes of this Spark's executors, which are below this process."""
    parents: dict[int, int] = {}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if b"CoarseGrainedExecutorBackend" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue

    def is_ours(pid: int) -> bool:
        while pid > 1 and pid != os.getpid():
            pid = parents.get(pid, 0)
        return pid == os.getpid()

    return sorted(pid for pid in found if is_ours(pid))


def test_of_an_executor_killed_in_the_midst_of_a_fetch_all_runs_land_once(
    spark: SparkSession, few_days: World, tmp_path: Path
) -> None:
    asked: list[str] = []
    killed: list[int] = []

    def kill_in_the_midst(path: str) -> None:
        asked.append(path)
        if len(asked) == 60:
            killed.append(executor_pids()[0])
            os.kill(killed[0], signal.SIGKILL)

    run_ids = known_ids(few_days)[:160]
    with serve(few_days, key=KEY, on_request=kill_in_the_midst) as server:
        result = pipeline.spark.load_runs(
            as_frame(spark, run_ids), tmp_path / "lake", base_url=server.base_url, qps=60, partitions=2
        )
    assert killed
    assert killed[0] not in executor_pids()
    assert len(asked) > len(run_ids)  # what the lost attempt had asked for was asked for again
    assert (result.landed, result.unchanged, result.error) == (len(run_ids), 0, None)
    assert [row["run_id"] for row in stored_rows(tmp_path / "lake")] == sorted(run_ids)
    files = LakeFiles(tmp_path / "lake")
    (log,) = files.raw_logs()
    logged = [
        record["run_id"]
        for frame in raw.iter_frames(log)
        for record in raw.iter_records(frame.lines)
        if record["record"] == "run"
    ]
    assert sorted(logged) == sorted(run_ids)  # the lost attempt's part is not among it
    assert [path for path in files.raw_folder.rglob("*") if path.is_file()] == [log]
    assert check_lake(files).is_whole


def test_of_a_job_that_is_stopped_what_had_arrived_lands(spark: SparkSession, few_days: World, tmp_path: Path) -> None:
    asked: list[str] = []

    def stop_in_the_midst(path: str) -> None:
        asked.append(path)
        if len(asked) == 60:
            threading.Thread(target=spark.sparkContext.cancelAllJobs).start()

    run_ids = known_ids(few_days)[:200]
    with serve(few_days, key=KEY, on_request=stop_in_the_midst) as server, pytest.raises(Exception, match="cancel"):
        pipeline.spark.load_runs(as_frame(spark, run_ids), tmp_path / "lake", base_url=server.base_url, qps=40)
    landed = [row["run_id"] for row in stored_rows(tmp_path / "lake")]
    assert 20 < len(landed) < len(run_ids)
    assert len(set(landed)) == len(landed)
    (row,) = LakeFiles(tmp_path / "lake").read_loads().to_pylist()
    assert (row["state"], row["landed"], row["requested"]) == ("stopped", len(landed), len(landed))
    assert check_lake(LakeFiles(tmp_path / "lake")).is_whole


@pytest.fixture(scope="session")
def asked_lake(few_days: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked") / "lake"
    fill_lake(folder, few_days)
    return folder


def test_every_report_comes_to_the_same_on_both_engines_to_the_last_digit(
    spark: SparkSession, asked_lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rates.csv").write_text(RATES)
    with Lake(asked_lake) as duck:
        sparked = pipeline.spark.SparkLake(spark, asked_lake)
        rows = 0
        for name, given in iter_calls():
            expected, found = call(duck, name, given).to_arrow_table(), call(sparked, name, given).toArrow()
            assert found.column_names == expected.column_names, (name, given)
            assert cells(found, in_order=True) == cells(expected, in_order=True), (name, given)
            rows += len(expected)
        assert rows > 400
        assert sparked.forecast() == duck.forecast() is not None
        for name, question in iter_questions(duck):
            expected, found = duck.answer(question).to_arrow_table(), sparked.table(question)
            assert found.column_names == expected.column_names, name
            assert cells(found, in_order=False) == cells(expected, in_order=False), name
            assert len(expected) > 0, name


def test_sparks_own_reader_reads_the_days_files_as_they_are(spark: SparkSession, asked_lake: Path) -> None:
    frame = spark.read.parquet(str(asked_lake / "runs"))
    types = dict(frame.dtypes)
    assert (types["credits"], types["created_at"]) == ("decimal(18,6)", "timestamp")
    assert types["breakdown"].startswith("array<struct<object:string,id:string,credits:decimal(18,6),charges:array<")
    expected = [row["run_id"] for row in stored_rows(asked_lake)]
    assert sorted(row["run_id"] for row in frame.select("run_id").collect()) == expected
    of_a_day = frame.where("day = '2026-06-12'").select("run_id").collect()
    assert sorted(row["run_id"] for row in of_a_day) == sorted(
        LakeFiles(asked_lake).read_day("2026-06-12")["run_id"].to_pylist()
    )


def test_while_runs_change_their_day_each_is_counted_once(spark: SparkSession, tmp_path: Path) -> None:
    files = LakeFiles(tmp_path / "lake")
    land(files, classify("clr_1", createdAt="2026-11-02T09:30:00Z", usage={"credits": 2}), classify("clr_2"))
    old = files.read_day("2026-11-02")
    files.write_day("2026-11-03", old.filter(pa.compute.equal(old["run_id"], "clr_1")))
    files.write_moves([("clr_1", "2026-11-02", "2026-11-03")])
    lake = pipeline.spark.SparkLake(spark, files.folder)
    assert [tuple(row) for row in lake.sql("SELECT count(*), sum(credits) FROM runs").collect()] == [(2, Decimal(2))]
    files.write_day("2026-11-02", old.filter(pa.compute.equal(old["run_id"], "clr_2")))
    files.write_moves([])
    assert [tuple(row) for row in lake.sql("SELECT count(*) FROM runs").collect()] == [(2,)]


def test_the_key_stands_in_no_plan_no_log_no_event_and_no_error(
    spark: SparkSession, served: SandboxServer, few_days: World, cluster_folder: Path, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run_ids = known_ids(few_days)[:5]
    told = []
    with serve(few_days, key="another") as refusing:
        frame = pipeline.spark.read_runs(as_frame(spark, run_ids), base_url=refusing.base_url)
        with pytest.raises(PySparkException, match="401") as caught:
            frame.collect()
        told.append(repr(caught.value) + str(caught.value))
        refused = pipeline.spark.load_runs(as_frame(spark, run_ids), tmp_path / "lake", base_url=refusing.base_url)
        assert "401" in str(refused.error)
        told.append(repr(refused))
    good = spark.read.format("extend_runs").option("ids", " ".join(run_ids)).option("base_url", served.base_url).load()
    good.explain(extended=True)
    assert good.count() == len(run_ids)
    told += [good._jdf.queryExecution().toString(), frame._jdf.queryExecution().toString()]
    with pytest.raises(PySparkException, match="no key may be an option") as caught:
        spark.read.format("extend_runs").option("ids", run_ids[0]).option("api_key", "sk_typed").load()
    assert "sk_typed" not in str(caught.value)
    told += [str(caught.value), *capfd.readouterr()]
    folders = (cluster_folder, executors_folder(spark), tmp_path)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert {"stdout", "stderr"} <= {path.name for path in files}
    assert any("events" in path.parts for path in files)
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert not [text for text in told if KEY in text]
