"""A served organization lives: what lists and by-ID answers show of every event, and what a life adds up to."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import extend_ai
import httpx
import pytest
from extend_ai import types as vendor
from sandbox_organization import START, UNFINISHED, Clock, Organization, Payload, organization, read_time
from sandbox_strict import MISREAD_BY_CLIENT, MODELS, problems, unexpected

from pipeline.kinds import API_VERSION, BY_OBJECT, FINISHED, KINDS, Kind
from pipeline.sandbox.life import Life
from pipeline.sandbox.world import World

LISTED = [kind for kind in KINDS if kind.listed]


@pytest.fixture
def org() -> Iterator[Organization]:
    with organization() as made:
        yield made


def digest(world: World) -> str:
    """Return a digest of every payload of a world, byte for byte, and of its batches."""
    made = hashlib.sha256()
    for run_id in (*world.run_ids(), *world.deleted_ids()):
        run = world.run(run_id)
        made.update(json.dumps(world.detail(run_id, "url")).encode())
        if run.kind.listed:
            made.update(json.dumps(world.summary(run_id)).encode())
        if run.kind.object == "parse_run" and "huge" not in run.tags:
            made.update(json.dumps(world.detail(run_id)).encode())
    for batch_id in world.batch_ids:
        made.update(repr([world.batch(batch_id, workspace) for workspace in world.workspaces]).encode())
    return made.hexdigest()


@pytest.mark.long
@pytest.mark.parametrize(
    ("seed", "runs", "was"),
    [
        (3, 500, "c3a7a6b9bd9a7dfacbd5ed1d6caa79bd141e6105f18ed19c8d8b5bd8ed842764"),
        (7, 2000, "f3f04514adcc60b0ebe3139c4a01ca76891e528dc0ffe27f84aff890e0014efd"),
        (11, 2400, "1459c1069a3501bece7ac58c062952f1d281540b5453f0f82c6b99252ddc5d96"),
    ],
)
def test_worlds_as_they_are_made_are_what_they_were_before_there_was_life(seed: int, runs: int, was: str) -> None:
    """The digests were taken from the code as it was before."""
    assert digest(World(seed=seed, runs=runs)) == was


# Events, as the API shows them


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_new_runs_are_listed_first_and_have_nothing_yet_but_their_status_and_times(
    org: Organization, kind: Kind
) -> None:
    families = []
    for _ in range(25):
        version = org.world.version
        families.append(org.life.create(kind.object))
        assert org.world.version == version + 1
    assert {org.world.run(family[0]).kind.object for family in families} == {kind.object}
    new = {run_id for family in families for run_id in family}
    for run_id in new:
        detail = org.detail(run_id)
        assert detail["status"] in UNFINISHED
        for field in ("usage", "failureReason", "failureMessage", "output", "metrics", "reviewedOutput", "endTime"):
            assert detail.get(field) is None, field
        assert not detail.get("reviewed")
    listed = {run_id for run_id in new if org.world.run(run_id).kind.listed}
    for shown in LISTED:
        for workspace in org.world.workspaces:
            rows = org.rows(shown, workspace, sortBy="createdAt")
            mine = [row for row in rows if row["id"] in new]
            assert shown.object == "parse_run" or rows[: len(mine)] == mine
            for row in mine:
                assert START <= read_time(row["createdAt"]) < START + timedelta(milliseconds=1)
                assert row["createdAt"] == row["updatedAt"]
                assert row["status"] in UNFINISHED
            listed -= {row["id"] for row in mine}
    assert not listed


def test_kinds_of_family_are_drawn_where_none_is_given_and_an_unknown_one_is_refused(org: Organization) -> None:
    heads = Counter(org.world.run(org.life.create()[0]).kind.object for _ in range(120))
    assert set(heads) == {kind.object for kind in KINDS}
    assert max(heads, key=lambda name: heads[name]) in ("classify_run", "extract_run")
    with pytest.raises(KeyError):
        org.life.create("classify")


def test_a_run_can_appear_late_behind_others_that_were_listed_before(org: Organization) -> None:
    first = org.life.create("edit_run")[0]
    late = org.life.create("edit_run", late_by_s=90)[0]
    workspace = org.world.run(late).workspace
    row = org.row(late)
    assert row is not None
    assert read_time(row["updatedAt"]) == read_time(row["createdAt"]) == org.world.run(late).updated_at
    assert START - timedelta(seconds=90) <= read_time(row["createdAt"]) < START - timedelta(seconds=89)
    if org.world.run(first).workspace == workspace:
        assert [row["id"] for row in org.rows(BY_OBJECT["edit_run"], workspace)[:2]] == [first, late]
    org.clock.pass_s(5)
    while late not in org.life.finish():
        pass
    row = org.row(late)
    assert row is not None
    assert read_time(row["updatedAt"]) >= START + timedelta(seconds=5)


def test_runs_finish_one_by_one_after_those_that_they_caused(org: Organization) -> None:
    for kind in ("workflow_run", "classify_run", "edit_run", "verify_run") * 6:
        org.life.create(kind)
    expected = set(org.life.unfinished)
    finished: list[str] = []
    waited: Counter[str] = Counter()
    while ended := org.life.finish():
        assert len(ended) == 1
        assert org.detail(ended[0])["status"] not in UNFINISHED
        run = org.world.run(ended[0])
        children = [other.run_id for other in org.world.iter_runs() if other.workflow_run_id == run.run_id]
        below = {*run.caused, *run.steps, *children, run.parse_run_id} & expected
        waited[run.kind.object] += len(below)
        assert below <= set(finished)
        finished.append(run.run_id)
    assert set(finished) == expected
    assert len(finished) == len(expected)
    assert min(waited[kind] for kind in ("workflow_run", "classify_run", "edit_run", "verify_run")) > 0


def test_a_workflow_run_shows_what_it_caused_as_that_finishes(org: Organization) -> None:
    while len(family := org.life.create("workflow_run")) < 4 or org.world.run(family[0]).status == "PENDING":
        pass
    done: set[str] = set()
    while family[0] not in done:
        detail = org.detail(family[0])
        steps = [step for step in detail["stepRuns"] if step["stepType"] in ("CLASSIFY", "EXTRACT", "SPLIT")]
        shown = {run["id"] for step in steps for run in (step["result"] or {}).values()}
        assert shown == {run_id for run_id in done if not run_id.startswith(("pr_", "sgr_"))}
        assert sum(step["status"] == "PROCESSING" for step in steps) == len(steps) - len(shown)
        assert detail.get("usage") is None
        done |= set(org.life.finish()) & set(family)
    detail = org.detail(family[0])
    lines = {line["id"] for line in detail["usage"]["breakdown"]}
    assert lines == {run_id for run_id in family if org.world.run(run_id).charges is not None} != set()


def test_a_finished_run_has_its_usage_or_its_reason_and_moves_to_the_front(org: Organization) -> None:
    seen: Counter[str] = Counter()
    for _ in range(60):
        org.life.create("extract_run")
        org.clock.pass_s(1)
    while ended := org.life.finish():
        run = org.world.run(ended[0])
        seen[run.status] += 1
        if run.kind.object != "extract_run" or seen[run.status] > 4:
            continue
        front = org.rows(run.kind, run.workspace)[0]
        assert front["id"] == run.run_id
        assert front["status"] == run.status
        assert read_time(front["updatedAt"]) == run.updated_at >= START + timedelta(seconds=60)
        assert read_time(front["createdAt"]) == run.created_at < START + timedelta(seconds=60)
        detail = org.detail(run.run_id)
        assert (detail.get("usage") is not None) == (run.status == "PROCESSED" and not run.legacy_billing)
        assert (detail.get("output") is not None) == (run.status == "PROCESSED")
        assert run.status == "FAILED" or detail.get("failureMessage") is None
    assert seen["PROCESSED"] > seen["FAILED"] > 0
    assert set(seen) == {"PROCESSED", "FAILED", "CANCELLED"}


def test_a_review_edits_a_processed_run_and_moves_it_to_the_front(org: Organization) -> None:
    org.clock.pass_s(60)
    for _ in range(12):
        before = {run.run_id: run for run in org.world.iter_runs()}
        run_id = org.life.review()[0]
        old, run = before[run_id], org.world.run(run_id)
        if run.kind.object == "workflow_run":
            continue
        assert old.status == run.status == "PROCESSED"
        front, detail = org.rows(run.kind, run.workspace)[0], org.detail(run_id)
        assert front["id"] == run_id
        assert front["reviewed"] is detail["reviewed"] is True
        assert front["edited"] is detail["edited"] is run.edited
        assert (detail["output"] != detail["initialOutput"]) == run.edited
        assert read_time(front["updatedAt"]) >= START + timedelta(seconds=60)
        assert front["createdAt"] == org.world.summary(run_id)["createdAt"]
        assert run.charges == old.charges
    assert {run.edited for run in org.world.iter_runs() if run.updated_at >= START} == {True, False}


def test_a_workflow_run_that_waits_for_review_is_decided_on() -> None:
    with organization(runs=500) as org:
        waiting = {run.run_id for run in org.world.iter_runs(kind="workflow_run") if run.status == "NEEDS_REVIEW"}
        before = {run_id: org.row(run_id) for run_id in waiting}
        decided: set[str] = set()
        while decided != waiting:
            decided |= set(org.life.review()) & waiting
        for run_id in decided:
            row, old = org.row(run_id), before[run_id]
            assert row is not None
            assert old is not None
            assert row["status"] in ("PROCESSED", "REJECTED")
            assert old["status"] == "NEEDS_REVIEW"
            assert row["reviewedAt"] == row["endTime"] == row["updatedAt"] > old["updatedAt"]
            assert (row["rejectionNote"] is not None) == (row["status"] == "REJECTED")
            # What had happened before is told as it was, to the digit.
            for field in ("createdAt", "initialRunAt", "startTime", "usage"):
                assert row.get(field) == old.get(field)


def test_a_deleted_run_answers_404_and_is_in_no_list(org: Organization) -> None:
    org.life.create("classify_run")
    gone: set[str] = set()
    for _ in range(25):
        there = set(org.world.run_ids())
        (run_id,) = org.life.delete()
        assert run_id in there - gone
        gone.add(run_id)
        answer = org.read(run_id)
        assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
        assert not org.world.run(run_id).kind.listed or org.row(run_id) is None
    assert not gone & set(org.world.run_ids())
    org.life.settle()
    assert not gone & set(org.world.run_ids())


def test_nothing_happens_to_runs_that_are_not_there() -> None:
    world = World(seed=1, runs=0)
    life = Life(world, seed=1, now=Clock())
    assert (life.finish(), life.review(), life.delete(), life.settle()) == ((), (), (), ())
    assert world.version == 0
    assert life.step()
    while life.delete():
        pass
    assert (life.finish(), life.unfinished) == ((), ())


def test_unfinished_runs_of_a_family_do_not_wait_for_deleted_ones() -> None:
    world = World(seed=1, runs=0)
    life = Life(world, seed=1, now=Clock())
    while len(family := life.create("workflow_run")) < 4:
        pass
    child = world.run(family[1])
    world.change(replace(child, deleted=True))
    life.settle()
    assert world.run(family[0]).status not in UNFINISHED
    assert world.run(child.run_id).status in UNFINISHED
    lines = (world.detail(family[0]).get("usage") or {}).get("breakdown", ())
    assert child.run_id not in {line["id"] for line in lines}  # it was deleted before it was charged


def test_settling_finishes_what_life_began_and_leaves_the_rest_as_it_was() -> None:
    world = World(seed=2, runs=500)
    before = {run.run_id: run for run in world.iter_runs() if run.status not in FINISHED}
    life = Life(world, seed=2, now=Clock())
    for _ in range(40):
        life.create()
    for _ in range(10):
        life.create("workflow_run")
    began = set(life.unfinished)
    assert began == {run.run_id for run in world.iter_runs() if run.live}
    settled = life.settle()
    assert set(settled) == began
    assert life.unfinished == ()
    assert {run.status for run in world.iter_runs() if run.live} <= FINISHED
    assert any(count == 2 for count in Counter(settled).values())  # a workflow run that stopped for a review
    assert {run.run_id: run for run in world.iter_runs() if run.status not in FINISHED} == before
    assert any(run.status == "NEEDS_REVIEW" for run in before.values())


# Times, chance


def test_each_change_is_later_than_all_before_it_though_the_clock_stands_still_or_goes_back() -> None:
    world, clock = World(seed=4, runs=300), Clock()
    life = Life(world, seed=9, now=clock)
    last = START - timedelta(seconds=1)
    for number in range(400):
        before = {run.run_id: run.updated_at for run in world.iter_runs()}
        run_ids = life.step()
        changed = [run for run_id in run_ids if (run := world.find(run_id))]
        for run in changed:
            assert run.updated_at > last
            assert run.updated_at > before.get(run.run_id, START - timedelta(days=1))
            if run.kind.listed:
                assert read_time(world.summary(run.run_id)["updatedAt"]) == run.updated_at
            last = run.updated_at
        clock.pass_s(-30 if number % 50 == 49 else number % 3)


@pytest.mark.parametrize("at", [START, datetime(2026, 11, 3, 12, 0, tzinfo=UTC)], ids=["after", "before"])
def test_no_time_is_yet_to_come_and_a_beginning_stays_what_it_was(at: datetime) -> None:
    """Whether the clock is after the end of the world as it was made, or before."""
    world, clock = World(seed=4, runs=0), Clock(at)
    life = Life(world, seed=3, now=clock)
    began: dict[str, Payload] = {}
    for _ in range(500):
        for run_id in life.step():
            run = world.run(run_id)
            summary = world.summary(run_id) if run.kind.listed else {}
            times = [read_time(summary[name]) for name in ("createdAt", "updatedAt", "initialRunAt", "startTime",
                     "endTime", "reviewedAt") if summary.get(name)]  # fmt: skip
            assert all(at <= time <= clock.at + timedelta(milliseconds=1) for time in times)
            if run.kind.object == "workflow_run" and summary["initialRunAt"]:
                told = {name: summary[name] for name in ("createdAt", "initialRunAt", "startTime")}
                assert began.setdefault(run_id, told) == told
        clock.pass_s(0.25)
    assert len(began) > 5


def lived(world_seed: int, seed: int, steps: int = 200) -> tuple[list[tuple[str, ...]], str]:
    world, clock = World(seed=world_seed, runs=200), Clock()
    life = Life(world, seed=seed, now=clock)
    events = []
    for _ in range(steps):
        events.append(life.step())
        clock.pass_s(1.5)
    return events, digest(world)


def test_same_seed_world_and_clock_give_the_same_life_and_another_seed_another() -> None:
    first, again, other = lived(6, 1), lived(6, 1), lived(6, 2)
    assert first == again
    assert first[0] != other[0]
    assert first[1] != other[1]


def test_a_life_with_the_seed_of_its_world_makes_runs_of_its_own() -> None:
    world = World(seed=6, runs=2000)
    there = {*world.run_ids(), *world.deleted_ids()}
    life = Life(world, seed=6, now=Clock())
    made = [run_id for _ in range(1500) for run_id in life.create()]
    assert len(set(made)) == len(made)
    assert not there & set(made)


def test_all_kinds_of_event_happen_and_unfinished_runs_do_not_pile_up() -> None:
    world = World(seed=6, runs=500)
    life = Life(world, seed=1, now=Clock())
    deleted = len(world.deleted_ids())
    piled = 0
    for _ in range(1500):
        life.step()
        piled = max(piled, len(life.unfinished))
    live = [run for run in world.iter_runs() if run.live]
    assert len(live) > 400
    assert piled < 150
    assert len(world.deleted_ids()) - deleted > 30
    assert sum(run.reviewed for run in live) > 10
    assert any(run.parse_run_id and not world.run(run.parse_run_id).live for run in live)  # a parse run used again
    batched = [run for run in live if run.batch_id]
    assert batched
    assert all(world.batch(run.batch_id or "", run.workspace) for run in batched)
    assert {run.workspace for run in live} == set(world.workspaces)


# What a world is after much has happened


@pytest.fixture(scope="module")
def busy() -> Iterator[Organization]:
    """An organization after 300 steps, some runs unfinished; tests only read it, and by ID only once."""
    with organization(seed=8, runs=150) as org:
        for _ in range(300):
            org.life.step()
            org.clock.pass_s(40)
        org.life.create("workflow_run")
        yield org


@pytest.mark.long
def test_vendors_client_reads_every_answer_of_an_organization_that_lived(busy: Organization) -> None:
    world = busy.world
    live = [run for run in world.iter_runs() if run.live or run.updated_at >= START]
    assert {run.kind.object for run in live} == {kind.object for kind in KINDS}
    with httpx.Client(timeout=20) as transport:
        client = extend_ai.Extend(token=busy.server.org_key, base_url=busy.server.base_url, httpx_client=transport)
        for run in live:
            model = getattr(client, f"{run.kind.object}s").retrieve(run.run_id, extend_workspace_id=run.workspace)
            legacy = any(world.run(part).legacy_config for part in (run.run_id, *run.steps))
            found = unexpected(problems(model, type(model)))
            assert [problem for problem in found if not (legacy and problem[0] in MISREAD_BY_CLIENT)] == [], run.run_id
            assert (type(model).__name__, model.id) == (MODELS[run.kind.object], run.run_id)
        for kind in LISTED:
            page = getattr(client, f"{kind.object}s").list(max_page_size=100, extend_workspace_id=world.workspaces[0])
            assert len(page.data) >= 5
            for row in page.data:
                assert unexpected(problems(row, type(row))) == [], row.id


def test_payloads_of_an_organization_that_lived_hold_to_the_types_of_the_client(busy: Organization) -> None:
    for run in busy.world.iter_runs():
        payload = busy.world.detail(run.run_id, "url")
        assert unexpected(problems(payload, getattr(vendor, MODELS[run.kind.object]))) == [], run.run_id
        if run.kind.listed:
            summary = busy.world.summary(run.run_id)
            assert unexpected(problems(summary, getattr(vendor, f"{MODELS[run.kind.object]}Summary"))) == []


@pytest.mark.long
def test_answers_agree_with_a_plain_reading_over_http_before_and_after_things_settle() -> None:
    with organization(seed=8, runs=150) as org:
        for _ in range(300):
            org.life.step()
            org.clock.pass_s(40)
        for _ in range(5):
            org.life.create("workflow_run")
        assert sum(run.status in UNFINISHED for run in org.world.iter_runs()) > 10
        for _ in range(2):
            # Reading takes the result of a zero-retention run away: it can be done once only.
            details = [org.detail(run.run_id) if not run.zero_retention else org.world.detail(run.run_id)
                       for run in org.world.iter_runs()]  # fmt: skip
            check_answers(org.world, details)
            org.life.settle()
        assert not [run for run in org.world.iter_runs() if run.live and run.status not in FINISHED]


def check_answers(world: World, details: list[Payload]) -> None:
    """Compare the answers with all resources that any of these payloads names, each once."""
    costs: dict[str, Decimal] = {}
    excess: dict[str, Decimal] = {}
    for detail in details:
        usage = detail.get("usage")
        if usage is None:
            continue
        if detail["object"] != "workflow_run":
            costs[detail["id"]] = Decimal(str(usage["credits"]))
        costs.update({line["id"]: Decimal(str(line["credits"])) for line in usage.get("breakdown", ())})
        if "totalCredits" in usage and "breakdown" not in usage and detail.get("parseRunId"):
            beyond = Decimal(str(usage["totalCredits"])) - Decimal(str(usage["credits"]))
            if beyond:
                excess[detail["parseRunId"]] = beyond
    answers = world.answers()
    total = sum({**excess, **costs}.values(), Decimal(0))
    silent = Counter(d["object"] for d in details if d.get("usage") is None and d["id"] not in {**excess, **costs})
    assert total > 100
    assert answers.total == total
    assert answers.unknown == dict(silent)
    assert answers.statuses == dict(Counter((detail["object"], detail["status"]) for detail in details))
    failed = [(d["object"], d.get("failureReason")) for d in details if d["status"] == "FAILED"]
    assert answers.failures == dict(Counter(failed))


# The command


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Any]:
    """Start `pipeline sandbox` with these arguments."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "pipeline.cli", "sandbox", *arguments]
        started.append(
            subprocess.Popen(
                command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_command_serves_an_organization_that_lives(command: Any) -> None:
    process = command("--runs", "200", "--live", "200")
    url = process.stdout.readline().strip().removeprefix("export EXTEND_BASE_URL=")
    assert process.stdout.readline() == "export EXTEND_API_KEY=sandbox\n"
    headers = {"authorization": "Bearer sandbox", "x-extend-api-version": API_VERSION}
    began = datetime.now(UTC) - timedelta(minutes=1)
    deadline = time.monotonic() + 20
    changed: set[str] = set()
    with httpx.Client(base_url=url, headers=headers) as client:
        while len(changed) < 8 and time.monotonic() < deadline:
            rows = client.get("/extract_runs?sortBy=updatedAt").json()["data"]
            changed |= {row["id"] for row in rows if read_time(row["updatedAt"]) > began}
    assert len(changed) >= 8
    process.terminate()
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (0, "")
    said = "Serving 200 made-up runs (seed 7); Ctrl-C stops. Meanwhile 200 events a second change them.\n"
    assert err == said


@pytest.mark.parametrize("rate", ["-1", "1001", "nan"])
def test_the_command_refuses_a_rate_that_cannot_be(command: Any, rate: str) -> None:
    process = command("--runs", "10", f"--live={rate}")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "the events a second must be from 0 to 1000" in err
