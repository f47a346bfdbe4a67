"""What one partition does, without Spark around it: the same asking as by `pipeline fetch`, over real HTTP."""

import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import raw
from pipeline.arrow_schemas import RUNS_SCHEMA
from pipeline.catalog import Lake
from pipeline.errors import ApiError, UsageError
from pipeline.ids import FoundId
from pipeline.lake import LakeFiles
from pipeline.loads import Load
from pipeline.parts import part_path
from pipeline.replay import load_files
from pipeline.sandbox.server import SandboxServer
from pipeline.sandbox.world import World
from pipeline.schema import RUN_COLUMNS
from tests.conftest import NOON

pytest.importorskip("pyspark", reason="the extra `spark` is not installed")

from pipeline.spark.asking import ROWS_SCHEMA, _Rows, iter_batches, log_part
from pipeline.spark.settings import SparkOptions, read_options


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, server: SandboxServer) -> None:
    for name in [name for name in os.environ if name.startswith("EXTEND_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("EXTEND_API_KEY", server.key)


@pytest.fixture
def options(server: SandboxServer) -> SparkOptions:
    return SparkOptions(base_url=server.base_url, qps=4000, partitions=1)


def found(*run_ids: str) -> list[FoundId]:
    return [FoundId(run_id, "test") for run_id in run_ids]


def some_ids(world: World, count: int = 40) -> list[str]:
    workspace = world.workspaces[0]
    return [run_id for run_id in world.run_ids(workspace) if not run_id.startswith("vr_")][:count]


def test_rows_are_what_a_lake_has_of_the_same_runs(
    world: World, options: SparkOptions, lake: LakeFiles, tmp_path: Path
) -> None:
    run_ids = some_ids(world)
    logs = tmp_path / "logs"
    batches = list(
        iter_batches(found(*run_ids), options, "20261103T120000000Z-abcdef", raw_folder=str(logs), with_failures=False)
    )
    table = pa.Table.from_batches(batches)
    assert table.schema.equals(RUNS_SCHEMA)
    assert sorted(table["run_id"].to_pylist()) == sorted(run_ids)
    # The raw logs that were written on the way make the same rows.
    result = load_files([str(path) for path in logs.iterdir()], lake, report=lambda _place, _why: None)
    assert result.landed == len(run_ids)
    with Lake(lake.folder) as stored:
        rows = stored.runs().to_arrow_table().to_pylist()
    told = [name for name in RUN_COLUMNS if name not in ("load_id", "workspace_id")]
    by_id = {row["run_id"]: row for row in table.to_pylist()}
    assert [{name: row[name] for name in told} for row in rows] == [
        {name: by_id[row["run_id"]][name] for name in told} for row in rows
    ]


def test_what_does_not_come_is_a_row_with_its_reason_where_that_is_wanted(world: World, options: SparkOptions) -> None:
    run_ids = [*some_ids(world, 3), world.deleted_ids(world.workspaces[0])[0], "oops", "vr_1"]
    asked = found(*run_ids)
    batches = list(iter_batches(asked, options, "load", raw_folder=None, with_failures=True))
    table = pa.Table.from_batches(batches)
    assert table.schema.equals(ROWS_SCHEMA)
    letters = {row["run_id"]: row["dead_letter"] for row in table.to_pylist() if row["dead_letter"] is not None}
    assert {run_id: letter["reason"] for run_id, letter in letters.items()} == {
        run_ids[3]: "NOT_FOUND", "oops": "NOT_ASKED", "vr_1": "NOT_ASKED",
    }  # fmt: skip
    assert letters[run_ids[3]]["http_status"] == 404
    plain = list(iter_batches(asked, options, "load", raw_folder=None, with_failures=False))
    assert sum(len(batch) for batch in plain) == 3


def test_who_takes_no_more_ends_the_asking(world: World, options: SparkOptions, server: SandboxServer) -> None:
    asked: list[str] = []
    server.on_request = asked.append
    slow = SparkOptions(base_url=options.base_url, qps=20, concurrency=1, partitions=1)
    run_ids = some_ids(world, 200)
    batches = iter_batches(found(*run_ids), slow, "load", raw_folder=None, with_failures=False)
    next(batches)
    batches.close()
    count = len(asked)
    assert 0 < count < len(run_ids)
    assert len(asked) == count


def test_where_the_api_refuses_the_key_the_partition_fails_and_shows_no_key(
    world: World, options: SparkOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXTEND_API_KEY", "sk_wrong_canary")
    with pytest.raises(ApiError, match="401") as caught:
        list(iter_batches(found(*some_ids(world, 3)), options, "load", raw_folder=None, with_failures=False))
    assert "canary" not in str(caught.value)


def test_a_partition_of_a_load_puts_all_in_its_part_and_counts(
    world: World, options: SparkOptions, lake: LakeFiles
) -> None:
    run_ids = [*some_ids(world, 10), *world.deleted_ids(world.workspaces[0])[:2], "oops"]
    load = Load(lake, command="spark", source="test")
    outcome = log_part(found(*run_ids, run_ids[0]), options, str(lake.folder), str(load.log_path), refresh=False)
    assert (outcome.requested, outcome.skipped, outcome.invalid) == (13, 0, 1)
    assert (outcome.requests, outcome.error) == (12, None)
    assert outcome.part is not None
    part = part_path(load.log_path, outcome.part)
    records = [record for frame in raw.iter_frames(part) for record in raw.iter_records(frame.lines)]
    assert Counter(record["record"] for record in records) == {"run": 10, "missing": 2}
    load.take_part(part)
    load.finish()
    load.close()
    # A second load asks for nothing that the lake has.
    again = Load(lake, command="spark", source="test")
    outcome = log_part(found(*run_ids[:10]), options, str(lake.folder), str(again.log_path), refresh=False)
    finished = outcome.skipped
    assert finished + outcome.requests == 10
    assert finished > 0
    again.close()


def test_a_lake_that_the_executor_does_not_see_is_named(options: SparkOptions, tmp_path: Path) -> None:
    log = tmp_path / "elsewhere" / "raw" / "2026-11" / "x.jsonl.zst"
    with pytest.raises(UsageError, match="share"):
        log_part(found("clr_1"), options, str(tmp_path / "elsewhere"), str(log), refresh=False)
    assert not log.parent.exists()


def test_partitions_share_the_rate_and_the_concurrency() -> None:
    share = SparkOptions(qps=30, concurrency=64, partitions=12).fetch_options()
    assert (share.qps, share.concurrency) == (2.5, 5)
    assert SparkOptions(concurrency=2, partitions=8).fetch_options().concurrency == 1


def test_options_are_texts_or_values_and_their_capitals_make_no_difference() -> None:
    options, apart = read_options({"QPS": "25", "keyfile": "/run/key", "allow_http": True, "Path": "ids.txt"}, "path")
    assert options == SparkOptions(qps=25.0, key_file="/run/key", allow_http=True)
    assert apart == {"path": "ids.txt"}


@pytest.mark.parametrize("name", ["api_key", "apiKey", "key", "token", "EXTEND_API_KEY"])
def test_a_key_is_taken_from_no_option_and_not_shown(name: str) -> None:
    with pytest.raises(UsageError, match="EXTEND_API_KEY in the environment of the executors") as caught:
        read_options({name: "sk_canary"})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"qqps": "1"}, "no option 'qqps' here; there are .*qps"),
        ({"qps": "fast"}, "'fast' is no number"),
        ({"qps": "0"}, "above 0"),
        ({"partitions": "0"}, "from 1 to"),
        ({"allow_http": "yes"}, "true or false"),
    ],
)
def test_wrong_options_say_what_is_right(given: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_options(given)


def test_where_to_ask_is_looked_up_by_the_driver_and_only_the_key_by_the_executor() -> None:
    told = SparkOptions().resolved({"EXTEND_BASE_URL": "https://one.test", "EXTEND_WORKSPACE_ID": "ws_1"})
    executor = {"EXTEND_API_KEY": "sk_1", "EXTEND_BASE_URL": "https://two.test", "EXTEND_WORKSPACE_ID": "ws_2"}
    connection = told.connection(executor)
    assert (connection.base_url, connection.workspace_id) == ("https://one.test", "ws_1")
    assert connection.api_key.reveal() == "sk_1"
    assert SparkOptions().resolved({}).connection(executor).workspace_id is None


def test_a_payload_that_no_row_can_be_made_of_costs_its_run_alone() -> None:
    def ask() -> None:
        for run_id, body in (("clr_1", b"[]"), ("clr_2", b'{"object": "classify_run", "id": "clr_2"}')):
            rows.take_run(run_id, body, fetched_at=NOON, is_detail=True, workspace_id=None)
        rows.checkpoint()

    rows = _Rows("load", None, None, with_failures=True)
    (batch,) = rows.iter_while(ask)
    told = {row["run_id"]: row["dead_letter"] for row in batch.to_pylist()}
    assert told["clr_1"]["reason"] == "BROKEN_BODY"
    assert told["clr_2"] is None
    rows = _Rows("load", None, None, with_failures=False)
    (batch,) = rows.iter_while(ask)
    assert batch["run_id"].to_pylist() == ["clr_2"]
