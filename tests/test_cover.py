"""Finding wanted runs in lists: fewer requests than asking for each, the same runs in the lake, and none lost."""

from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.catalog import Lake
from pipeline.config import Connection
from pipeline.cover import PATIENCE, Listing, plan_listings
from pipeline.fetch import FetchOptions, fetch_runs, plan_fetch
from pipeline.ids import FoundId
from pipeline.kinds import BY_OBJECT, PAGE_SIZE
from pipeline.lake import LakeFiles
from pipeline.loads import LoadResult
from pipeline.sandbox.server import SandboxServer, serve
from pipeline.sandbox.world import World
from pipeline.worklist import Worklist
from tests.conftest import classify, connect, land

CLASSIFY, PARSE, WORKFLOW = (BY_OBJECT[name] for name in ("classify_run", "parse_run", "workflow_run"))


@pytest.fixture
def server(world: World) -> Iterator[SandboxServer]:
    """The small world, served with full pages."""
    with serve(world, short_pages=False) as running:
        yield running


def fetch(run_ids: list[str], lake: LakeFiles, connection: Connection, **options: Any) -> LoadResult:
    return fetch_runs(run_ids, lake=lake.folder, connection=connection, qps=5_000, details=False, **options)


def workflow(run_id: str, status: str, **fields: Any) -> dict[str, Any]:
    return {"object": "workflow_run", "id": run_id, "status": status, "createdAt": "2026-11-02T09:30:00Z", **fields}


def listings(lake: LakeFiles, run_ids: list[str]) -> list[Listing]:
    with Worklist() as worklist:
        for run_id in run_ids:
            worklist.add(FoundId(run_id, "test"))
        return plan_listings(lake, worklist)


@pytest.mark.long
def test_all_runs_of_a_world_come_from_lists_but_those_that_have_none(
    server: SandboxServer, connection: Connection, lake: LakeFiles
) -> None:
    world = server.world
    run_ids = world.run_ids(world.workspaces[0])
    result = fetch(run_ids, lake, connection)
    assert (result.landed, result.failed, result.invalid) == (len(run_ids), 0, 0)
    assert {run_id.split("_")[0] for run_id in server.asked} == {"sgr"}
    counts: dict[str, int] = {}
    for run in world.iter_runs(world.workspaces[0]):
        counts[run.kind.object] = counts.get(run.kind.object, 0) + 1
    pages = sum(-(-count // PAGE_SIZE) for kind, count in counts.items() if kind != "form_detection_run")
    assert result.requests == pages + counts["form_detection_run"]
    with Lake(lake.folder) as catalog:
        rows = catalog.sql("SELECT run_id, status FROM runs ORDER BY run_id").fetchall()
    assert rows == sorted((run.run_id, run.status) for run in world.iter_runs(world.workspaces[0]))


def test_runs_far_back_cost_at_most_three_pages_in_vain(
    server: SandboxServer, connection: Connection, lake: LakeFiles
) -> None:
    world = server.world
    oldest = sorted(world.iter_runs(world.workspaces[0], "extract_run"), key=lambda run: run.updated_at)[:5]
    result = fetch([run.run_id for run in oldest], lake, connection)
    assert (result.landed, result.failed) == (5, 0)
    assert result.requests <= 5 + PATIENCE


def test_gone_runs_are_missing_and_verify_runs_come_by_list_alone(
    server: SandboxServer, connection: Connection, lake: LakeFiles
) -> None:
    world = server.world
    verify = world.run_ids(world.workspaces[0], kind="verify_run")
    gone = world.deleted_ids(world.workspaces[0])
    no_verify = [run_id for run_id in gone if not run_id.startswith("vr_")]
    result = fetch([*verify, *gone], lake, connection)
    assert (result.landed, result.missing) == (len(verify), len(no_verify))
    assert result.invalid == len(gone) - len(no_verify)
    assert not any(run_id.startswith("vr_") for run_id in server.asked)


def test_a_removed_list_is_told_and_its_runs_are_asked_for_by_id(world: World, lake: LakeFiles) -> None:
    run_ids = world.run_ids(world.workspaces[0], kind="edit_run")
    with serve(world, removed_lists={"edit_run"}) as server:
        result = fetch(run_ids, lake, connect(server))
        assert (result.landed, len(server.asked)) == (len(run_ids), len(run_ids))


def test_finished_runs_that_the_lake_has_as_summaries_are_skipped(lake: LakeFiles) -> None:
    land(lake, classify("clr_1"), is_detail=False)
    found = [FoundId("clr_1", "test")]
    with plan_fetch(found, lake, FetchOptions(details=False), report=lambda *_: None) as plan:
        assert (plan.skipped, plan.requests) == (1, 0)
    with plan_fetch(found, lake, FetchOptions(), report=lambda *_: None) as plan:
        assert (plan.skipped, plan.requests) == (0, 1)


# What is planned, by hand


def test_few_runs_are_asked_for_one_by_one(lake: LakeFiles) -> None:
    assert listings(lake, ["clr_1", "clr_2", "clr_3"]) == []
    assert listings(lake, ["sgr_1", "sgr_2", "sgr_3", "sgr_4"]) == []


def test_many_unknown_runs_are_looked_for_on_the_newest_pages(lake: LakeFiles) -> None:
    assert listings(lake, [f"clr_{number}" for number in range(250)]) == [Listing(CLASSIFY, 250, 3)]


def test_a_status_that_few_have_is_listed_and_one_that_many_have_is_not(lake: LakeFiles) -> None:
    few = [workflow(f"workflow_run_a{number}", "NEEDS_REVIEW") for number in range(4)]
    many = [workflow(f"workflow_run_b{number}", "PENDING") for number in range(250)]
    land(lake, *few, *many, is_detail=False)
    wanted = ["workflow_run_a0", "workflow_run_a1", "workflow_run_b0", "workflow_run_b1"]
    assert listings(lake, wanted) == [Listing(WORKFLOW, 2, 1, {"status": "NEEDS_REVIEW"})]
    # 2 pending ones: 3 pages against 2 requests; 5 pending ones: 3 pages against 5.
    more = [*wanted, "workflow_run_b2", "workflow_run_b3", "workflow_run_b4"]
    assert [each.label for each in listings(lake, more)] == ["status PENDING", "status NEEDS_REVIEW"]


def test_a_batch_is_listed_and_its_unfinished_runs_are_not_counted_twice(lake: LakeFiles) -> None:
    batch = [
        {"object": "parse_run", "id": f"pr_{number}", "status": "PROCESSING" if number < 3 else "FAILED",
         "batchId": "bpar_1", "createdAt": "2026-11-02T09:30:00Z"}
        for number in range(120)
    ]  # fmt: skip
    land(lake, *batch, is_detail=False)
    assert listings(lake, [f"pr_{number}" for number in range(110)]) == [
        Listing(PARSE, 110, 2, {"batchId": "bpar_1"}),
    ]


def test_runs_of_a_batch_come_from_its_list(world: World, lake: LakeFiles) -> None:
    batch_id, run_ids = next(
        (batch_id, run_ids)
        for batch_id in world.batch_ids
        if len(
            run_ids := [
                run.run_id
                for run in world.iter_runs(world.workspaces[0])
                if run.batch_id == batch_id and run.kind in (PARSE, WORKFLOW)
            ]
        )
        > 1
    )
    with serve(world) as server:
        fetch(run_ids, lake, connect(server))
        server.asked.clear()
        before = server.asked_lists.total()
        again = fetch(run_ids, lake, connect(server), refresh=True)
        assert (again.unchanged, server.asked) == (len(run_ids), {})
        assert server.asked_lists.total() - before == 1, batch_id
