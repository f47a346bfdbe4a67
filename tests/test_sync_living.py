"""Syncs of an organization that lives meanwhile: runs appear, finish, are reviewed and deleted, and syncs are killed.

Whatever happened and in whatever order, after things settle one more sync leaves the lake equal to the world: every run
that the API can tell of is there once, as the world has it. What the world has is read from its own runs, not from what
the API says of them.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from pipeline.catalog import Lake
from pipeline.kinds import FINISHED, KINDS
from pipeline.lake import LakeFiles
from pipeline.loads import Load
from pipeline.sandbox.life import Life
from pipeline.sandbox.model import Run
from pipeline.sandbox.server import serve
from pipeline.sandbox.world import World
from pipeline.sync import SyncOptions, plan_sync, run_sync
from pipeline.sync_outcome import WorkspaceOutcome
from tests import sync_child
from tests.conftest import connect

OVERLAP = timedelta(seconds=0.5)
"""Small, so that what happened a second or two ago is behind the watermark."""
MOST_LATE_S = 0.4
LISTED = [kind.object for kind in KINDS if kind.listed]
Row = dict[str, Any]

events = st.dictionaries(st.integers(1, 25), st.integers(1, 4), max_size=6)
"""How many events happen just before which of a sync's requests is answered."""


class LivingOrganization(RuleBasedStateMachine):
    """What can happen to an organization and to syncs of its first workspace; `teardown` looks at what came of it."""

    parse_order: ClassVar[Any] = "newest"
    children: ClassVar[Any] = None

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.turn = threading.Lock()  # one at a time leads the life: this thread, or the server's
        self.world: World | None = None

    @initialize(seed=st.integers(0, 99), steps=st.integers(0, 30), killed=st.lists(st.integers(2, 16), max_size=2))
    def begin(self, seed: int, steps: int, killed: list[int]) -> None:
        """Found the organization; the first syncs may be killed after so many requests."""
        self.world = World(seed=seed, runs=60)
        self.life = Life(self.world, seed=seed)
        self.server = self.stack.enter_context(serve(self.world, largest_page=6, parse_order=self.parse_order))
        folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.lake = LakeFiles(Path(folder) / "lake")
        self.live(steps)
        for requests in killed if self.children else ():
            self.kill_sync({requests: 3}, requests, 0.0, False)

    # Life

    @rule(steps=st.integers(1, 12))
    def live(self, steps: int) -> None:
        with self.turn:
            for _ in range(steps):
                self.life.step()

    @rule(kind=st.sampled_from(LISTED), late_by_s=st.floats(0, MOST_LATE_S))
    def create(self, kind: str, late_by_s: float) -> None:
        with self.turn:
            self.life.create(kind, late_by_s=late_by_s)

    @rule(times=st.integers(1, 8))
    def finish(self, times: int) -> None:
        with self.turn:
            for _ in range(times):
                self.life.finish()

    @rule()
    def review(self) -> None:
        with self.turn:
            self.life.review()

    @rule()
    def delete(self) -> None:
        with self.turn:
            self.life.delete()

    @rule(seconds=st.floats(0.2, 1.5))
    def pass_time(self, seconds: float) -> None:
        time.sleep(seconds)

    # Syncs

    @rule(during=events, token_life=st.sampled_from([None, None, 8, 25]))
    def sync(self, during: dict[int, int], token_life: int | None) -> None:
        """Sync to the end while life goes on. Where tokens expire again and again, a kind may be left for later."""
        self.server.app.listing.token_life = token_life
        outcome = self.run_sync(during)
        self.server.app.listing.token_life = None
        assert outcome.error is None
        assert outcome.load is not None
        assert outcome.load.failed == 0
        if token_life is None:
            assert outcome.is_complete

    @precondition(lambda self: self.children is not None)
    @rule(
        during=events, requests=st.integers(0, 30), more_s=st.floats(0, 0.5), full=st.sampled_from([False, False, True])
    )
    def sync_and_kill(self, during: dict[int, int], requests: int, more_s: float, full: bool) -> None:
        self.kill_sync(during, requests, more_s, full)

    def kill_sync(self, during: dict[int, int], requests: int, more_s: float, full: bool) -> None:
        """Kill a sync some time after so many of its requests; it may have come to its end before."""
        reached = self.arrange(during, requests)
        child = self.children.Process(
            target=sync_child.sync,
            args=(str(self.lake.folder), self.server.base_url, self.server.key, OVERLAP, full),
        )
        child.start()
        while child.is_alive() and not reached.wait(0.01):
            pass
        child.join(more_s)
        child.kill()
        child.join()
        self.server.on_request = None
        assert child.exitcode in (0, -9)
        child.close()

    def run_sync(self, during: dict[int, int], *, full: bool = False) -> WorkspaceOutcome:
        self.arrange(during, 0)
        (outcome,) = run_sync(self.lake, [connect(self.server)], SyncOptions(qps=10_000, overlap=OVERLAP, full=full))
        self.server.on_request = None
        return outcome

    def arrange(self, during: dict[int, int], requests: int) -> threading.Event:
        """Let events happen before the answers to requests that come from now on; return what is set at one of them."""
        reached, count = threading.Event(), 0

        def on_request(_path: str) -> None:
            nonlocal count
            count += 1
            if count in during:
                self.live(during[count])
            if count >= requests:
                reached.set()

        if requests == 0:
            reached.set()
        self.server.on_request = on_request
        return reached

    # What came of it

    def teardown(self) -> None:
        with self.stack:
            if self.world is None:
                return
            with self.turn:
                self.life.settle()
            if self.parse_order == "newest":
                assert self.run_sync({}).is_complete
                check(self.lake, self.world, asked=set(self.server.answered), after_full=False)
            assert self.run_sync({}, full=True).is_complete
            check(self.lake, self.world, asked=set(self.server.answered), after_full=True)
            assert not any(run_id.startswith("vr_") for run_id in self.server.asked)


# The lake against the world


def check(lake: LakeFiles, world: World, *, asked: set[str], after_full: bool) -> None:
    """Compare the lake with the world's first workspace; `asked` are the runs that were ever answered by ID."""
    with Lake(lake.folder) as catalog:
        all_rows = catalog.runs().to_arrow_table().to_pylist()
        ledger = dict(catalog.sql(LEDGER).fetchall())
    rows = {row["run_id"]: row for row in all_rows}
    assert len(rows) == len(all_rows)
    existing = {run.run_id: run for run in world.iter_runs(world.workspaces[0])}
    wrong = {}
    for run_id in existing.keys() & rows.keys():
        run, found = existing[run_id], told(rows[run_id])
        right = as_it_is(run, world)
        if found != right and (after_full or not is_followed_alone(run, found, right, asked)):
            wrong[run_id] = (found, right)
    assert wrong == {}
    check_presence(rows, world, after_full)
    check_details(rows, world)
    check_ledger(rows, ledger, world, after_full)


LEDGER = """
    SELECT coalesce(resource_id, 'form of ' || caused_by_run_id), sum(credits)
    FROM credit_ledger
    GROUP BY ALL
"""


def told(row: Row) -> tuple[Any, ...]:
    """Return what a row of the lake says of what the world knows as well."""
    names = ("deleted_at", "status", "failure_reason", "credits", "total_credits", "created_at", "updated_at")
    return tuple(row[name] for name in names)


def as_it_is(run: Run, world: World) -> tuple[Any, ...]:
    """Return what the lake must say of an existing run, from what the service itself knows of it."""
    total = sum((line.own_credits for line in lines_of(run, world)), Decimal(0))
    credits = (run.own_credits if run.kind.charged else total) if run.shows_usage else None
    times = (None, None)
    if run.kind.listed:
        times = (cut(run.created_at, run.precision), cut(run.updated_at, run.updated_precision or run.precision))
    return (None, run.status, run.failure_reason, credits, total if run.shows_totals else None, *times)


def lines_of(run: Run, world: World) -> list[Run]:
    """Return the resources that were charged for a run: itself, and what it caused."""
    resources = [run, *map(world.run, run.caused)]
    return [resource for resource in resources if resource.charges is not None]


def cut(at: datetime, precision: int) -> datetime:
    """Return a time as it is told, with so many decimal places of the seconds."""
    return at.replace(microsecond=at.microsecond // 10 ** (6 - precision) * 10 ** (6 - precision))


def is_followed_alone(run: Run, found: tuple[Any, ...], right: tuple[Any, ...], asked: set[str]) -> bool:
    """Return whether a run is right but for the time of its last change, as of a parse run that finished after it had
    gone down the list: it was asked for by ID, and that answer does not tell the time."""
    return run.kind.object == "parse_run" and run.run_id in asked and found[:-1] == right[:-1] and found[-1] < right[-1]


def check_presence(rows: dict[str, Row], world: World, after_full: bool) -> None:
    """Every run that the API can tell of is there, and what is there and not marked deleted exists.

    Of a finished run that was deleted only a full sync hears; of a verify run, which is never read by ID, not even that
    one, nor of a form detection, which no list shows.
    """
    runs = {run_id: world.run(run_id) for run_id in rows}
    existing = {run.run_id: run for run in world.iter_runs(world.workspaces[0])}
    listed = {run_id for run_id, run in existing.items() if run.kind.listed}
    assert {run.workspace for run in runs.values()} <= {world.workspaces[0]}
    assert listed | named_forms(world, existing.values(), after_full) <= set(rows)
    assert set(rows) & set(existing) <= listed | {caused for run in world_runs(world) for caused in run.caused}
    for run_id, run in runs.items():
        if rows[run_id]["deleted_at"] is not None:
            assert run.deleted
        elif run.deleted and after_full:
            is_form = not run.kind.listed and rows[run_id]["status"] in FINISHED
            assert run.kind.reading_can_destroy or is_form, run


def world_runs(world: World) -> list[Run]:
    return [world.run(run_id) for run_id in [*world.run_ids(), *world.deleted_ids()]]


def named_forms(world: World, existing: Iterable[Run], after_full: bool) -> set[str]:
    """Return the existing form detections that the breakdown of a run names that sync must have read by ID.

    A workflow run that waits for a review is not finished, so only a full sync reads it.
    """
    read = {"edit_run": {"PROCESSED"}, "workflow_run": FINISHED | ({"NEEDS_REVIEW"} if after_full else set())}
    named = {
        resource.run_id
        for run in existing
        if run.shows_breakdown and run.status in read.get(run.kind.object, ())
        for resource in lines_of(run, world)
    }
    return {run_id for run_id in named if world.find(run_id) and not world.run(run_id).kind.listed}


def check_details(rows: dict[str, Row], world: World) -> None:
    """The details that the credits need were read: those of finished workflow runs, and of unexplained totals."""
    for run in world.iter_runs(world.workspaces[0]):
        row = rows.get(run.run_id)
        if row is None or run.kind.reading_can_destroy or not run.kind.listed:
            continue
        if not run.kind.charged:
            assert row["is_detail"] or run.status not in FINISHED
        beyond = sum((line.own_credits for line in lines_of(run, world)), -run.own_credits)
        parse = rows.get(run.parse_run_id or "", {})
        if run.kind.charged and run.shows_totals and beyond > 0 and parse.get("credits") != beyond:
            # A review after the details were read makes them those of an older version; what was charged stays known.
            assert row["is_detail"] or row["breakdown"] is not None, (run, row)
            assert (row["breakdown"] is not None) == run.shows_breakdown


def check_ledger(rows: dict[str, Row], ledger: dict[str, Decimal], world: World, after_full: bool) -> None:
    """The ledger has the true credits of each resource that a row tells of, of deleted runs as last seen, once."""
    existing, everything = {}, {}
    for run_id, row in rows.items():
        run = replace(world.run(run_id), status=row["status"])
        if not run.shows_usage:
            continue
        charged = {run_id: run.own_credits} if run.kind.charged else {}
        for resource in lines_of(run, world):
            if resource.run_id == run_id:
                continue
            if row["breakdown"] is not None or (run.shows_totals and run.parse_run_id):
                charged[resource.run_id] = resource.own_credits
            elif run.shows_totals and run.kind.object == "edit_run":
                charged[f"form of {run_id}"] = resource.own_credits
        everything.update(charged)
        if not world.run(run_id).deleted:
            existing.update(charged)
    assert ledger == everything
    if after_full:
        right = world.answers(world.workspaces[0], known="both", run_ids=rows)
        assert sum(existing.values()) == right.total


# What a sync leaves that was killed at an unhappy moment, made by hand


@pytest.fixture
def organization(tmp_path: Path) -> Iterator[LivingOrganization]:
    """An organization that has been synced once, with two parse runs a page."""
    machine = LivingOrganization()
    with machine.stack:
        machine.world = World(seed=1, runs=60)
        machine.life = Life(machine.world, seed=1)
        machine.server = machine.stack.enter_context(serve(machine.world, largest_page=2, parse_order="newest"))
        machine.lake = LakeFiles(tmp_path / "lake")
        assert machine.run_sync({}).is_complete
        yield machine


def leave_logged(machine: LivingOrganization, run_ids: list[str]) -> None:
    """Leave summaries in the log of a sync that died before it landed them."""
    load = Load(machine.lake, command="sync", source="lists", base_url=machine.server.base_url)
    for run_id in run_ids:
        body = json.dumps(machine.world.summary(run_id)).encode()
        load.take_run(run_id, body, fetched_at=datetime.now(UTC), is_detail=False, workspace_id=None)
    load.checkpoint()
    load.close()


@pytest.mark.long
def test_new_parse_runs_are_found_below_those_that_a_killed_sync_had_logged(organization: LivingOrganization) -> None:
    world, life = organization.world, organization.life
    time.sleep(OVERLAP.total_seconds() + 2)  # the API's clock is told in whole seconds
    new = [run_id for _ in range(20) for run_id in life.create("parse_run")]
    mine = [run_id for run_id in new if world.run(run_id).workspace == world.workspaces[0]]
    assert len(mine) > 8
    life.settle()  # unfinished ones would be asked for as well
    leave_logged(organization, mine[-6:])  # three pages
    assert organization.run_sync({}).is_complete
    check(organization.lake, world, asked=set(organization.server.answered), after_full=False)
    # What was created within the overlap is looked at once more; after that it is as if nothing had been.
    time.sleep(OVERLAP.total_seconds() + 2)
    organization.run_sync({})
    before = organization.server.asked_lists["/parse_runs"]
    organization.run_sync({})
    assert organization.server.asked_lists["/parse_runs"] - before <= 3  # one page may be empty


@pytest.mark.long
def test_details_are_read_of_what_a_killed_sync_had_logged_also_where_the_plan_came_first(
    organization: LivingOrganization,
) -> None:
    world, life = organization.world, organization.life
    life.create("workflow_run")
    life.settle()
    mine = [run.run_id for run in world.iter_runs(world.workspaces[0]) if run.live and run.kind.listed]
    workflows = [run_id for run_id in mine if run_id.startswith("workflow_run_")]
    assert workflows
    time.sleep(2.5)  # more than the slack within which a search looks at the same files again
    leave_logged(organization, mine)
    options = SyncOptions(qps=10_000, overlap=OVERLAP)
    connections = [connect(organization.server)]
    planned = plan_sync(organization.lake, connections, options, tell=print)
    (outcome,) = run_sync(organization.lake, connections, options, planned=planned)
    assert outcome.is_complete
    assert organization.server.answered[workflows[0]] == 1
    check(organization.lake, world, asked=set(organization.server.answered), after_full=False)


# The tests

NOT_ONE_BY_ONE = [Phase.explicit, Phase.reuse, Phase.generate]  # no shrinking: each step of an example is real time


def run_machine(machine: type[LivingOrganization], *, examples: int, steps: int) -> None:
    children = None
    if sys.platform != "win32":
        children = multiprocessing.get_context("forkserver")
        children.set_forkserver_preload(sync_child.PRELOADED)
    machine.children = children
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            phases=NOT_ONE_BY_ONE,
            suppress_health_check=list(HealthCheck),
        ),
    )


class ScatteredOrganization(LivingOrganization):
    """The same where parse runs are listed in an order that means nothing: only a full sync finds them all."""

    parse_order = "scattered"


@pytest.mark.long
def test_whatever_happens_one_more_sync_leaves_the_lake_equal_to_the_world() -> None:
    run_machine(LivingOrganization, examples=3, steps=10)


@pytest.mark.long
def test_where_parse_runs_have_no_order_a_full_sync_leaves_the_lake_equal_to_the_world() -> None:
    run_machine(ScatteredOrganization, examples=2, steps=6)


@pytest.mark.soak
@pytest.mark.parametrize("machine", [LivingOrganization, ScatteredOrganization])
def test_whatever_happens_in_many_examples(machine: type[LivingOrganization]) -> None:
    run_machine(machine, examples=60, steps=25)
