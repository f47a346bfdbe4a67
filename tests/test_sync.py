"""Syncing with a served organization: what is found, what is asked for, what is remembered, and what is said."""

import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pipeline.catalog import Lake
from pipeline.config import Connection, Secret
from pipeline.errors import LakeLockedError
from pipeline.kinds import BY_OBJECT, FINISHED, KINDS
from pipeline.lake import LakeFiles
from pipeline.loads import Load
from pipeline.sandbox.life import Life
from pipeline.sandbox.model import Run
from pipeline.sandbox.server import SandboxServer, serve
from pipeline.sandbox.world import World
from pipeline.sync import SyncOptions, plan_sync, run_sync
from pipeline.sync_outcome import WorkspaceOutcome, count_inferred
from pipeline.sync_state import SyncFiles
from tests.conftest import NOON, connect
from tests.test_credit_ledger import CASES, MOST, in_order, land_all
from tests.worlds import make_late_world, make_squeezed_world

CLASSIFY, EXTRACT, PARSE, WORKFLOW, EDIT = (
    BY_OBJECT[name] for name in ("classify_run", "extract_run", "parse_run", "workflow_run", "edit_run")
)
DAYS = tuple(date(2026, 11, day) for day in (1, 6, 12, 17))
LISTED = [kind for kind in KINDS if kind.listed]
SHOWN = "run_id, status, credits, total_credits, created_at, updated_at"


@pytest.fixture
def world() -> World:
    """A world of the test's own, which may change it: the last weeks of one, in four days, for fewer files."""
    return make_late_world(*DAYS, seed=26, since=date(2026, 9, 25))


@pytest.fixture
def server(world: World) -> Iterator[SandboxServer]:
    """That world, served with full pages, parse runs newest first."""
    with serve(world, short_pages=False, parse_order="newest") as running:
        yield running


def sync(lake: LakeFiles, server: SandboxServer, **options: Any) -> WorkspaceOutcome:
    (outcome,) = run_sync(lake, [connect(server)], SyncOptions(qps=5_000, **options))
    return outcome


def rows(lake: LakeFiles, query: str, **params: Any) -> list[Any]:
    with Lake(lake.folder) as catalog:
        return catalog.sql(query, **params).fetchall()


def existing(world: World, *, but: tuple[str, ...] = ("form_detection_run",)) -> list[Run]:
    return [run for run in world.iter_runs(world.workspaces[0]) if run.kind.object not in but]


def assert_lists_are_in_the_lake(lake: LakeFiles, world: World) -> None:
    """Compare every listed run with what the service knows of it."""
    found = {row[0]: row[1:] for row in rows(lake, f"SELECT {SHOWN} FROM runs WHERE deleted_at IS NULL")}
    for run in existing(world):
        status, credits, _total, created_at, updated_at = found[run.run_id]
        payload = world.summary(run.run_id)
        times = tuple(datetime.fromisoformat(payload[name]) for name in ("createdAt", "updatedAt"))
        assert (status, created_at, updated_at) == (run.status, *times), run.run_id
        if run.kind is not WORKFLOW:
            assert credits == (run.own_credits if run.shows_usage else None), run.run_id


def assert_credits_are_the_worlds(lake: LakeFiles, world: World) -> None:
    run_ids = {run_id for (run_id,) in rows(lake, "SELECT run_id FROM runs WHERE deleted_at IS NULL")}
    right = world.answers(world.workspaces[0], known="both", run_ids=run_ids)
    found = rows(lake, "SELECT charged_on, resource_kind, sum(credits) FROM credit_ledger GROUP BY ALL")
    assert {(day, kind): credits for day, kind, credits in found if credits} == {
        key: credits for key, credits in right.credits.items() if credits
    }


# What is found, and what it costs


@pytest.mark.long
def test_a_first_sync_brings_every_listed_run_in_as_few_pages_as_there_are(
    lake: LakeFiles, server: SandboxServer
) -> None:
    outcome = sync(lake, server)
    assert (outcome.error, outcome.is_complete) == (None, True)
    for kind in LISTED:
        count = len(server.world.run_ids(server.world.workspaces[0], kind.object))
        assert server.asked_lists[kind.path] <= -(-count // 100) + 2
        assert (outcome.kinds[kind].listed, outcome.kinds[kind].changed) == (count, count)
    assert_lists_are_in_the_lake(lake, server.world)
    assert_credits_are_the_worlds(lake, server.world)


def test_with_nothing_new_a_sync_asks_for_two_pages_of_a_kind_at_most_and_leaves_no_log(
    lake: LakeFiles, server: SandboxServer
) -> None:
    sync(lake, server)
    files = sorted(lake.folder.rglob("*.parquet")), lake.raw_logs()
    before = {path: path.stat().st_mtime_ns for path in lake.runs_folder.rglob("*.parquet")}
    server.asked_lists.clear()
    server.asked.clear()
    outcome = sync(lake, server)
    assert max(server.asked_lists.values()) <= 2
    assert server.asked == {}
    assert outcome.load is not None
    assert (outcome.load.landed, outcome.load.requested) == (0, 0)
    assert (sorted(lake.folder.rglob("*.parquet")), lake.raw_logs()) == files
    assert {path: path.stat().st_mtime_ns for path in lake.runs_folder.rglob("*.parquet")} == before
    assert rows(lake, "SELECT state, landed, raw_file FROM loads ORDER BY load_id")[-1] == ("complete", 0, None)


@pytest.mark.long
def test_only_what_is_new_or_has_changed_lands(lake: LakeFiles, server: SandboxServer) -> None:
    sync(lake, server)
    life = Life(server.world, seed=3)
    touched = {*life.create("extract_run"), *life.review(), *life.review(), *life.review()}
    changed = {run_id for run_id in touched if server.world.run(run_id).workspace == server.world.workspaces[0]}
    outcome = sync(lake, server, details="none")
    assert outcome.load is not None
    assert outcome.load.landed == len(changed)
    load_id = outcome.load.load_id
    assert {run_id for (run_id,) in rows(lake, "SELECT run_id FROM runs WHERE load_id = $id", id=load_id)} == changed
    assert_lists_are_in_the_lake(lake, server.world)


@pytest.mark.parametrize(
    "moment", [2, 5, *(pytest.param(each, marks=pytest.mark.long) for each in (1, 3, 4, 6, 7, 8, 9, 10, 11))]
)
def test_what_is_created_or_changed_while_pages_are_read_comes_with_the_next_sync(
    lake: LakeFiles, server: SandboxServer, moment: int
) -> None:
    life, calls = Life(server.world, seed=moment), iter(range(1, 10_000))

    def live(path: str) -> None:
        if next(calls) == moment:
            life.create("extract_run")
            life.create("parse_run")
            life.review()

    server.on_request = live
    sync(lake, server, details="none", overlap=timedelta(seconds=2))
    server.on_request = None
    sync(lake, server, details="none", overlap=timedelta(seconds=2))
    assert_lists_are_in_the_lake(lake, server.world)


@pytest.mark.long
def test_a_run_that_becomes_visible_late_is_found_within_the_overlap(lake: LakeFiles, server: SandboxServer) -> None:
    life = Life(server.world, seed=1)
    life.create("extract_run")
    sync(lake, server)
    late = life.create("extract_run", late_by_s=200)
    sync(lake, server)
    assert set(late) <= {run_id for (run_id,) in rows(lake, "SELECT run_id FROM runs")}


# Details


def test_details_none_asks_for_nothing_by_id_but_form_detections_that_are_known(
    lake: LakeFiles, server: SandboxServer
) -> None:
    sync(lake, server, details="none")
    assert server.asked == {}


def test_details_credits_asks_for_exactly_what_summaries_cannot_tell(lake: LakeFiles, server: SandboxServer) -> None:
    world = server.world
    sync(lake, server)
    by_id = {run.run_id: run for run in existing(world)}
    expected = set()
    for run in by_id.values():
        if run.kind is WORKFLOW:
            if run.status in FINISHED:
                expected.add(run.run_id)
        elif run.shows_totals and run.kind.object != "verify_run":
            beyond = sum((world.run(other).own_credits for other in run.caused), Decimal(0))
            parse = by_id.get(run.parse_run_id or "")
            told = parse is not None and parse.shows_usage and parse.own_credits == beyond
            if beyond and not told:
                expected.add(run.run_id)
    assert {run_id for run_id in expected if not run_id.startswith("workflow_run_")}
    assert {run_id for run_id in server.asked if not run_id.startswith("sgr_")} == expected
    assert set(server.asked.values()) == {1}


@pytest.mark.long
def test_details_all_asks_for_every_finished_run_once_and_never_for_a_verify_run(
    lake: LakeFiles, server: SandboxServer
) -> None:
    sync(lake, server, details="all")
    finished = {run.run_id for run in existing(server.world) if run.status in FINISHED}
    asked = {run_id for run_id in server.asked if not run_id.startswith("sgr_")}
    assert asked == {run_id for run_id in finished if not run_id.startswith("vr_")}
    server.asked.clear()
    sync(lake, server, details="all")
    assert server.asked == {}
    assert_lists_are_in_the_lake(lake, server.world)


@pytest.mark.long
def test_a_higher_level_asks_for_what_the_lower_one_left(lake: LakeFiles, server: SandboxServer) -> None:
    sync(lake, server, details="none")
    sync(lake, server, details="credits")
    assert_credits_are_the_worlds(lake, server.world)
    before = set(server.asked)
    sync(lake, server, details="all")
    assert len(server.asked) > len(before)
    assert set(server.asked.values()) == {1}


@pytest.mark.long
def test_form_detections_named_in_a_breakdown_are_found(lake: LakeFiles, server: SandboxServer) -> None:
    world = server.world
    outcome = sync(lake, server)
    named = {
        other
        for run in existing(world)
        if run.shows_breakdown and (run.kind is not WORKFLOW or run.status in FINISHED)
        for other in run.caused
        if other.startswith("sgr_")
    }
    found = {run_id for (run_id,) in rows(lake, "SELECT run_id FROM runs WHERE kind = 'form_detection_run'")}
    assert found == {run_id for run_id in named if not world.run(run_id).deleted}
    gone = {run_id for run_id in named if world.run(run_id).deleted}
    assert found
    assert gone
    assert {run_id for (run_id,) in rows(lake, "SELECT run_id FROM dead_letters")} == gone
    assert (outcome.kinds[BY_OBJECT["form_detection_run"]].gone, outcome.is_complete) == (len(gone), True)
    server.asked.clear()
    sync(lake, server, full=True)
    assert not gone & set(server.asked)


@pytest.mark.parametrize(
    ("fields", "inferred"),
    [
        ({"usage": {"credits": 0.7, "totalCredits": 1}}, 1),
        ({"usage": {"credits": 0.7, "totalCredits": 0.7}}, 0),
        ({"usage": {"credits": 0.7}}, 0),
        ({"usage": {"credits": 0.7, "totalCredits": 1, "breakdown": []}}, 0),
        ({"usage": {"credits": 0.7, "totalCredits": 1}, "workspace_id": "ws_2"}, 0),
        ({"usage": {"credits": 0, "totalCredits": 1}, "object": "workflow_run", "id": "workflow_run_1"}, 0),
    ],
)
def test_what_is_inferred_is_counted(lake: LakeFiles, fields: dict[str, Any], inferred: int) -> None:
    payload = {"object": "extract_run", "id": "exr_1", "status": "PROCESSED", "parseRunId": "pr_1", **fields}
    land_summaries(lake, payload, workspace_id=fields.get("workspace_id"))
    assert count_inferred(lake, None, tell=pytest.fail) == inferred


def land_summaries(lake: LakeFiles, *payloads: dict[str, Any], workspace_id: str | None = None) -> None:
    load = Load(lake, command="sync", source="lists")
    for payload in payloads:
        body = json.dumps(payload).encode()
        load.take_run(payload["id"], body, fetched_at=NOON, is_detail=False, workspace_id=workspace_id)
    load.finish()


def extract(number: int, parse_run_id: str) -> dict[str, Any]:
    usage = {"credits": 1, "totalCredits": 3}
    return {"object": "extract_run", "id": f"exr_{number}", "status": "PROCESSED", "usage": usage,
            "parseRunId": parse_run_id}  # fmt: skip


def test_what_a_run_tells_of_itself_in_a_breakdown_alone_is_inferred_all_the_same(lake: LakeFiles) -> None:
    """As the ledger has it: a run's own credits are those that it tells as its own."""
    told = {"breakdown": [{"object": "parse_run", "id": "pr_1", "credits": 2}]}
    land_summaries(
        lake, {"object": "parse_run", "id": "pr_1", "status": "PROCESSED", "usage": told}, extract(1, "pr_1")
    )
    assert rows(lake, "SELECT basis FROM credit_ledger WHERE resource_id = 'pr_1'") == [("inferred",)]
    assert count_inferred(lake, None, tell=pytest.fail) == 1


def test_an_inferred_charge_is_of_its_own_runs_workspace_else_of_the_nearest_that_tells_it(lake: LakeFiles) -> None:
    unknown = {"object": "parse_run", "id": "pr_own", "status": "PROCESSING"}
    land_summaries(lake, unknown, extract(4, "pr_both"), workspace_id="ws_1")
    land_summaries(lake, extract(1, "pr_own"), extract(2, "pr_2"), extract(3, "pr_both"), workspace_id="ws_2")
    land_summaries(lake, extract(5, "pr_both"), extract(6, "pr_6"))
    counted = {each: count_inferred(lake, each, tell=pytest.fail) for each in ("ws_1", "ws_2", None)}
    assert counted == {"ws_1": 1, "ws_2": 2, None: 1}


@pytest.mark.parametrize("at_once", [1, 3, 1_000])
def test_what_is_inferred_is_counted_in_parts_as_the_ledger_has_it(
    lake: LakeFiles, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """All cases of the ledger, whose lines are worked out by hand, in one lake."""
    monkeypatch.setattr("pipeline.needs._TOTALS_ALONE", at_once)
    land_all(lake, in_order(tuple(range(MOST))), in_one_load=True)
    expected = sum(basis == "inferred" for case in CASES.values() for *_, basis, _day, _cause in case.lines)
    assert expected > 5
    assert count_inferred(lake, None, tell=pytest.fail) == expected


def drawn_run(random: Random, group: int) -> dict[str, Any]:
    """Return a run of a few that speak of each other, odd ones among them."""
    kinds = {"extract_run": "exr_", "edit_run": "edr_", "parse_run": "pr_", "workflow_run": "workflow_run_",
             "form_detection_run": "sgr_"}  # fmt: skip

    def named() -> tuple[str, str]:
        kind, prefix = random.choice([*kinds.items()])
        return kind, f"{prefix}{group}_{random.randrange(3)}"

    def entry() -> dict[str, Any]:
        kind, run_id = named()
        credits = {"credits": random.choice([1, 2])} if random.random() < 0.7 else {}
        return {"object": random.choice([kind, kind, "workflow_run"]), "id": run_id, **credits}

    kind, run_id = named()
    usage: dict[str, Any] = {"credits": random.choice([0, 1]), "totalCredits": random.choice([1, 2, 3])}
    if random.random() < 0.2:
        del usage["credits"]
    if random.random() < 0.3:
        usage["breakdown"] = [entry() for _ in range(random.randrange(4))]
    payload = {"object": kind, "id": run_id, "status": "PROCESSED"}
    if random.random() < 0.7:
        payload["usage"] = usage
    if random.random() < 0.7:
        payload["parseRunId"] = f"pr_{group}_{random.randrange(3)}"
    return payload | {"file": {"id": f"file_{group}_{random.randrange(2)}"}}


@pytest.mark.parametrize("seed", range(4))
def test_what_is_counted_in_parts_is_what_the_ledger_infers(
    lake: LakeFiles, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    random = Random(seed)
    monkeypatch.setattr("pipeline.needs._TOTALS_ALONE", 40)
    for workspace_id in ("ws_1", None, "ws_2"):
        load = Load(lake, command="load", source="test")
        for group in range(150):
            for payload in (drawn_run(random, group) for _ in range(3)):
                load.take_run(
                    payload["id"], json.dumps(payload).encode(), fetched_at=NOON, is_detail="breakdown" in str(payload),
                    workspace_id=workspace_id,
                )  # fmt: skip
        load.finish()
    query = "SELECT workspace_id, count(*) FROM credit_ledger WHERE basis = 'inferred' GROUP BY ALL"
    expected = dict(rows(lake, query))
    assert min(expected.values()) > 20
    assert {each: count_inferred(lake, each, tell=pytest.fail) for each in ("ws_1", "ws_2", None)} == expected


@pytest.mark.long
def test_the_outcome_counts_the_charges_that_are_still_inferred(lake: LakeFiles) -> None:
    with serve(make_squeezed_world(seed=11, runs=600)) as server:
        outcome = sync(lake, server)
    assert [(outcome.inferred,)] == rows(lake, "SELECT count(*) FROM credit_ledger WHERE basis = 'inferred'")
    assert outcome.inferred is not None
    assert outcome.inferred > 0


# Unfinished and deleted runs


@pytest.mark.long
def test_unfinished_runs_are_followed_until_they_finish(lake: LakeFiles, server: SandboxServer) -> None:
    life = Life(server.world, seed=2)
    for kind in ("classify_run", "parse_run", "edit_run", "workflow_run"):
        life.create(kind)
    sync(lake, server)
    life.settle()
    sync(lake, server)
    assert_lists_are_in_the_lake(lake, server.world)
    assert_credits_are_the_worlds(lake, server.world)


@pytest.mark.long
def test_unfinished_runs_that_no_list_is_sure_to_show_are_asked_for_until_they_are_a_day_old_then_daily(
    lake: LakeFiles, server: SandboxServer
) -> None:
    life = Life(server.world, seed=2)
    (run_id,) = life.create("parse_run")
    clock = [datetime.now(UTC)]
    heard = f"SELECT fetched_at FROM runs WHERE run_id = '{run_id}'"

    def is_asked_for(**later: float) -> bool:
        clock[0] += timedelta(**later)
        before = rows(lake, heard)
        sync(lake, server, now=lambda: clock[0])
        return rows(lake, heard) != before

    sync(lake, server)
    assert is_asked_for(minutes=5)
    assert is_asked_for(minutes=5)
    assert is_asked_for(days=1, minutes=1)
    assert not is_asked_for(minutes=5)
    assert not is_asked_for(hours=20)
    assert is_asked_for(hours=5)


def delete(world: World, *run_ids: str) -> None:
    world.change(*(replace(world.run(run_id), deleted=True) for run_id in run_ids))


@pytest.mark.long
def test_runs_that_are_gone_are_marked_kept_and_not_asked_for_again(lake: LakeFiles, server: SandboxServer) -> None:
    life = Life(server.world, seed=2)
    (unfinished,) = life.create("parse_run")
    sync(lake, server)
    finished = next(run.run_id for run in existing(server.world) if run.kind is EXTRACT and run.status == "PROCESSED")
    delete(server.world, unfinished, finished)
    outcome = sync(lake, server)
    marked = "SELECT run_id FROM runs WHERE deleted_at IS NOT NULL ORDER BY run_id"
    assert rows(lake, marked) == [(unfinished,)]
    assert (outcome.kinds[PARSE].gone, outcome.is_complete) == (1, True)
    full = sync(lake, server, full=True)
    assert rows(lake, marked) == sorted([(unfinished,), (finished,)])
    assert full.kinds[EXTRACT].gone == 1
    server.asked.clear()
    sync(lake, server, full=True, details="all")
    assert not {unfinished, finished} & set(server.asked)
    assert rows(lake, f"SELECT status FROM runs WHERE run_id = '{finished}'") == [("PROCESSED",)]


# Parse runs, in no order


@pytest.mark.long
def test_a_full_sync_finds_the_parse_runs_that_a_short_walk_missed(lake: LakeFiles, world: World) -> None:
    with serve(world, parse_order="scattered", largest_page=20) as server:
        sync(lake, server)
        life = Life(world, seed=4)
        life.create("parse_run")
        life.settle()
        outcome = sync(lake, server, details="none")
        assert (outcome.kinds[PARSE].pages, outcome.kinds[PARSE].changed) == (2, 0)
        sync(lake, server, full=True)
    assert_lists_are_in_the_lake(lake, world)
    assert_credits_are_the_worlds(lake, world)


# What an endpoint may do


@pytest.mark.long
def test_a_walk_whose_page_token_has_expired_meanwhile_begins_again(
    lake: LakeFiles, world: World, tmp_path: Path
) -> None:
    with serve(world, largest_page=10, token_life=25) as server:
        interrupt(lake, server)
        assert any(json.loads(path.read_text())["gap"] for path in lake.folder.glob("sync/default/*_run.json"))
        for number in range(3):  # so many pages that no token of before is taken
            sync(LakeFiles(tmp_path / f"other {number}"), server, details="none", kinds=(CLASSIFY, EXTRACT))
        assert sync(lake, server, details="none", kinds=(CLASSIFY,)).is_complete
        assert sync(lake, server, details="none", kinds=(EXTRACT,)).is_complete
    assert len(rows(lake, "SELECT run_id FROM runs WHERE kind = 'extract_run'")) == len(
        world.run_ids(world.workspaces[0], "extract_run")
    )


@pytest.mark.long
def test_a_list_that_is_gone_does_not_stop_the_other_kinds(lake: LakeFiles, world: World) -> None:
    with serve(world, removed_lists={"edit_run"}) as server:
        outcome = sync(lake, server)
    assert outcome.is_complete
    assert outcome.kinds[EDIT].is_removed
    assert outcome.kinds[EXTRACT].changed == len(world.run_ids(world.workspaces[0], "extract_run"))


def test_a_list_that_fails_does_not_stop_the_others_and_the_next_sync_finishes_it(
    lake: LakeFiles, world: World
) -> None:
    class Down:
        paths: frozenset[str] = frozenset({"/extract_runs"})

    with serve(world, largest_page=20) as server:
        broken = server.app.listing.page

        def page(kind: Any, *arguments: Any) -> Any:
            if kind.path in Down.paths and server.asked_lists[kind.path] > 2:
                from pipeline.sandbox.listing import InvalidRequestError

                raise InvalidRequestError("no")
            return broken(kind, *arguments)

        server.app.listing.page = page
        outcome = sync(lake, server, details="none")
        assert outcome.kinds[EXTRACT].error is not None
        assert not outcome.is_complete
        assert outcome.kinds[CLASSIFY].changed == len(world.run_ids(world.workspaces[0], "classify_run"))
        Down.paths = frozenset()
        assert sync(lake, server, details="none").is_complete
    assert_lists_are_in_the_lake(lake, world)


# What is remembered


def test_the_state_is_readable_json_in_the_lake_and_another_machine_goes_on_from_it(
    lake: LakeFiles, server: SandboxServer, tmp_path: Path
) -> None:
    sync(lake, server)
    state = json.loads((lake.folder / "sync" / "default" / "classify_run.json").read_text())
    newest = max(run.updated_at for run in existing(server.world) if run.kind is CLASSIFY)
    assert datetime.fromisoformat(state["watermark"]).replace(microsecond=0) == newest.replace(microsecond=0)
    assert (state["base_url"], state["workspace_id"], state["gap"]) == (server.base_url, None, None)
    copy = shutil.copytree(lake.folder, tmp_path / "copy")
    server.asked_lists.clear()
    sync(LakeFiles(copy), server)
    assert max(server.asked_lists.values()) <= 2


@pytest.mark.long
def test_the_watermark_does_not_move_where_the_disk_did_not_take_the_pages(
    lake: LakeFiles, server: SandboxServer
) -> None:
    lake.folder.mkdir(parents=True)
    lake.runs_folder.write_text("in the way")
    outcome = sync(lake, server)
    assert outcome.error is not None
    assert not list(lake.folder.glob("sync/*/*.json"))
    lake.runs_folder.unlink()
    server.asked_lists.clear()
    assert sync(lake, server).is_complete
    assert_lists_are_in_the_lake(lake, server.world)


@pytest.mark.long
def test_a_first_sync_goes_back_to_since_and_an_earlier_since_goes_further_back(
    lake: LakeFiles, server: SandboxServer
) -> None:
    since, earlier = datetime(2026, 11, 17, tzinfo=UTC), datetime(2026, 11, 12, tzinfo=UTC)

    def updated_since(time: datetime) -> set[str]:
        return {run.run_id for run in existing(server.world) if run.updated_at >= time}

    def in_the_lake() -> set[str]:
        return {run_id for (run_id,) in rows(lake, "SELECT run_id FROM runs WHERE kind <> 'form_detection_run'")}

    sync(lake, server, since=since)
    assert in_the_lake() == updated_since(since)
    server.asked_lists.clear()
    sync(lake, server)
    sync(lake, server, since=since)
    assert in_the_lake() == updated_since(since)
    assert max(server.asked_lists.values()) <= 4
    sync(lake, server, since=earlier)
    assert in_the_lake() == updated_since(earlier)
    sync(lake, server, full=True)
    assert in_the_lake() == {run.run_id for run in existing(server.world)}


@pytest.mark.long
def test_until_leaves_out_what_was_created_later_and_moves_no_watermark(lake: LakeFiles, server: SandboxServer) -> None:
    until = datetime(2026, 11, 12, tzinfo=UTC)
    sync(lake, server, until=until, details="none")
    assert {run_id for (run_id,) in rows(lake, "SELECT run_id FROM runs")} == {
        run.run_id for run in existing(server.world) if run.created_at < until
    }
    sync(lake, server, details="none")
    assert_lists_are_in_the_lake(lake, server.world)


def test_two_syncs_at_once_do_not_spoil_each_other_the_second_says_so(lake: LakeFiles, server: SandboxServer) -> None:
    files = SyncFiles(lake, None, server.base_url)
    with files.locked():
        outcome = sync(lake, server)
        assert outcome.error is not None
        assert "another sync of this workspace is at work" in outcome.error
        with pytest.raises(LakeLockedError), files.locked():
            pass
    assert sync(lake, server).is_complete


# Several workspaces


def organization(server: SandboxServer, workspace_id: str, key: str | None = None) -> Connection:
    return replace(connect(server), workspace_id=workspace_id, api_key=Secret(key or server.org_key))


@pytest.mark.long
def test_workspaces_are_kept_apart_and_one_that_fails_does_not_stop_the_others(
    lake: LakeFiles, server: SandboxServer
) -> None:
    world = server.world
    first, second = world.workspaces
    connections = [
        organization(server, first),
        organization(server, second, key="wrong"),
        organization(server, second),
    ]
    good, bad, other = run_sync(lake, connections, SyncOptions(qps=5_000))
    assert (good.is_complete, other.is_complete or other.error is not None) == (True, True)
    assert bad.error is not None
    found = rows(lake, "SELECT workspace_id, run_id FROM runs WHERE kind <> 'form_detection_run'")
    expected = {(first, run.run_id) for run in existing(world)}
    assert {row for row in found if row[0] == first} == expected
    run_sync(lake, connections[2:], SyncOptions(qps=5_000))
    found = rows(lake, "SELECT workspace_id, run_id FROM runs WHERE kind <> 'form_detection_run'")
    assert {row for row in found if row[0] == second} == {
        (second, run.run_id) for run in world.iter_runs(second) if run.kind.listed
    }
    assert sorted(path.name for path in (lake.folder / "sync").iterdir()) == sorted([first, second])


# The plan


def test_the_plan_before_a_first_sync_knows_the_least_alone(lake: LakeFiles, server: SandboxServer) -> None:
    (planned,) = plan_sync(lake, [connect(server)], SyncOptions(), tell=print)
    plans = [each.plan for each in planned.kinds.values()]
    assert [(plan.least_pages, plan.most_pages) for plan in plans] == [(1, None)] * 7 + [(0, 0)]
    assert server.requests == 0
    assert not lake.folder.exists()


@pytest.mark.long
def test_what_happens_lies_between_the_least_and_the_most_that_were_planned(
    lake: LakeFiles, server: SandboxServer
) -> None:
    sync(lake, server)
    life = Life(server.world, seed=9)
    for _ in range(40):
        life.step()
    outcome = sync(lake, server)
    for each in outcome.kinds.values():
        assert each.plan.most_pages is not None
        assert each.plan.least_pages <= each.pages <= each.plan.most_pages
        assert each.plan.by_id <= each.by_id
        assert each.plan.most_by_id is None or each.by_id <= each.plan.most_by_id


def interrupt(lake: LakeFiles, server: SandboxServer) -> WorkspaceOutcome:
    """Sync slowly, and tell it to stop after some pages."""
    stopping = threading.Event()
    server.on_request = lambda _path: stopping.set() if server.requests > 12 else None
    (outcome,) = run_sync(lake, [connect(server)], SyncOptions(qps=40, details="none"), stopping=stopping)
    server.on_request = None
    return outcome


def test_ctrl_c_lands_what_has_arrived_and_the_next_sync_goes_on_from_there(lake: LakeFiles, world: World) -> None:
    with serve(world, largest_page=10) as server:
        outcome = interrupt(lake, server)
        assert outcome.load is not None
        ((some,),) = rows(lake, "SELECT count(*) FROM runs")
        assert 0 < some < len(existing(world))
        before = server.asked_lists.total()
        assert sync(lake, server, details="none").is_complete
        pages = sum(-(-len(world.run_ids(world.workspaces[0], kind.object)) // 10) for kind in LISTED)
        assert server.asked_lists.total() - before < pages
    assert_lists_are_in_the_lake(lake, world)
