"""The made-up organization holds every case of the API, its amounts agree, and its answers are right."""

from __future__ import annotations

import ast
import hashlib
import json
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipeline import sandbox
from pipeline.kinds import BY_OBJECT, KINDS, kind_of
from pipeline.sandbox.answers import Answers
from pipeline.sandbox.material import UNDOCUMENTED_STATUSES
from pipeline.sandbox.model import Charge, File, Run
from pipeline.sandbox.wishes import ODD_CASES, reasons_of
from pipeline.sandbox.world import World

Payload = dict[str, Any]


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=7, runs=2000)


@pytest.fixture(scope="module")
def details(world: World) -> dict[str, Payload]:
    """Every existing run's payload by ID, as one reads it in the place of parse outputs."""
    return {run_id: world.detail(run_id, "url") for run_id in world.run_ids()}


def amount(number: float) -> Decimal:
    return Decimal(str(number))


def digest(world: World) -> str:
    lines = [json.dumps(world.detail(run_id, "url"), sort_keys=True) for run_id in world.run_ids()]
    lines += world.deleted_ids()
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_same_seed_gives_the_same_world_and_another_seed_another() -> None:
    assert digest(World(seed=3, runs=500)) == digest(World(seed=3, runs=500))
    assert World(seed=3, runs=500).run_ids() != World(seed=4, runs=500).run_ids()


def test_world_of_a_seed_is_the_one_it_was() -> None:
    """What was pinned here came from this code: it guards against a change of Python, machine or generator."""
    world = World(seed=3, runs=500)
    assert world.workspaces == ("ws_IWNji1KbSpe3UJI86z_9", "ws_pngsmrw-W3X4KJNfjuws")
    assert world.run_ids()[0] == "pr_gkOPte8nbHn-cJ09DwXs"
    assert world.answers().total == Decimal("6221.350250")
    assert digest(world) == "d025d1f4bfc61c94189bb2c1c89f03f2216dd116e8ec8d4744fb5e77a35be975"


@pytest.mark.parametrize("runs", [0, 1, 40, 500, 1234, 2000])
def test_number_of_runs_is_exact(runs: int) -> None:
    world = World(seed=5, runs=runs)
    assert len(world.run_ids()) == len(set(world.run_ids())) == runs
    assert not set(world.run_ids()) & set(world.deleted_ids())


@pytest.mark.parametrize("runs", [500, 2000])
def test_every_status_of_every_kind_is_there(runs: int) -> None:
    world = World(seed=1, runs=runs)
    found = world.answers(world.workspaces[0]).statuses
    for kind in KINDS:
        for status in (*kind.statuses, *UNDOCUMENTED_STATUSES[kind.object]):
            assert found[kind.object, status] >= 1
    assert {tag for wish in ODD_CASES for tag in wish.tags} - {"plain", "caused", "reused"} == {
        tag for run_id in (*world.run_ids(), *world.deleted_ids()) for tag in world.run(run_id).tags
    } - {"plain", "caused", "reused"}


def test_every_reason_is_there_and_undocumented_and_missing_ones(world: World) -> None:
    found = world.answers(world.workspaces[0]).failures
    for kind in KINDS:
        assert set(kind.failure_reasons) <= set(reasons_of(kind.object))
        for reason in (*reasons_of(kind.object), "MODEL_OVERLOADED", None):
            assert found[kind.object, reason] >= 1, (kind.object, reason)


def test_share_of_failures_workspaces_and_days_is_plausible() -> None:
    world = World(seed=7, runs=5000)
    runs = list(world.iter_runs())
    assert 0.05 < sum(run.status == "FAILED" for run in runs) / 5000 < 0.1
    assert 0.82 < sum(run.workspace == world.workspaces[0] for run in runs) / 5000 < 0.9
    assert runs[0].day < date(2025, 10, 7)
    assert runs[-1].day == date(2026, 11, 20)
    weekend = sum(run.day.weekday() >= 5 for run in runs) / 5000
    assert weekend < 0.15
    assert sum(run.day >= date(2026, 8, 1) for run in runs) > sum(run.day < date(2025, 12, 1) for run in runs)


def test_one_version_fails_more_from_a_date_on() -> None:
    runs = [run for run in World(seed=7, runs=20_000).iter_runs() if run.version and run.version.fails_more_from]
    before = [run.status == "FAILED" for run in runs if run.day < date(2026, 9, 14)]
    since = [run.status == "FAILED" for run in runs if run.day >= date(2026, 9, 14)]
    assert sum(since) / len(since) > 2 * sum(before) / len(before)


def test_each_shape_carries_the_fields_that_the_table_of_kinds_says(world: World, details: dict[str, Payload]) -> None:
    for run_id, detail in details.items():
        carries = BY_OBJECT[detail["object"]].carries
        beyond = {"outputUrl", "edits"}  # named by the vendor's client alone
        assert {name for name in detail if carries.get(name) not in ("both", "detail")} <= beyond
        if BY_OBJECT[detail["object"]].listed:
            summary = world.summary(run_id)
            assert [name for name in summary if carries.get(name) not in ("both", "list")] == []
            shows = "breakdown" in (summary.get("usage") or {})
            assert not shows or carries["usage.breakdown"] == "both"


def test_ids_belong_to_their_kinds(world: World) -> None:
    for run_id in (*world.run_ids(), *world.deleted_ids()):
        kind = kind_of(run_id)
        assert kind is not None
        assert kind is world.run(run_id).kind


def test_usage_follows_the_dates_from_which_its_parts_exist(world: World, details: dict[str, Payload]) -> None:
    eras: Counter[str] = Counter()
    for run_id, detail in details.items():
        usage, run = detail.get("usage"), world.run(run_id)
        if usage is None:
            eras["none"] += 1
            continue
        assert run.created_at >= datetime(2025, 10, 7, tzinfo=UTC)
        assert not run.legacy_billing
        assert run.status == "PROCESSED" or run.kind.object == "workflow_run"
        later = run.created_at >= datetime(2026, 5, 14, tzinfo=UTC)
        assert ("totalCredits" in usage) == later
        assert ("breakdown" in usage) == (later and not run.breakdown_hidden)
        for line in usage.get("breakdown", ()):
            assert ("charges" in line) == (run.created_at >= datetime(2026, 6, 10, tzinfo=UTC))
        eras["charges" if run.shows_charges else "breakdown" if run.shows_breakdown else "credits"] += 1
    assert min(eras.values()) >= 40
    assert len(eras) == 4


def test_amounts_agree_wherever_they_appear(details: dict[str, Payload]) -> None:
    """Own line, total, lines and charges agree, and a resource costs the same in each payload that names it."""
    costs: dict[str, Decimal] = {}
    shared = 0
    for run_id, detail in details.items():
        usage = detail.get("usage")
        if usage is None:
            continue
        named = {} if detail["object"] == "workflow_run" else {run_id: amount(usage["credits"])}
        lines = usage.get("breakdown")
        if lines is not None:
            assert amount(usage["totalCredits"]) == sum((amount(line["credits"]) for line in lines), Decimal(0))
            assert len({line["id"] for line in lines}) == len(lines)
            own = [amount(line["credits"]) for line in lines if line["id"] == run_id]
            assert own == ([] if detail["object"] == "workflow_run" else [amount(usage["credits"])])
            named.update({line["id"]: amount(line["credits"]) for line in lines})
            for line in lines:
                assert line["object"] == kind_of(line["id"]).object
                for charge in line.get("charges", ()):
                    assert charge["unit"] in ("page", "cell", "usd")
                if "charges" in line:
                    charged = sum((amount(charge["credits"]) for charge in line["charges"]), Decimal(0))
                    assert charged == amount(line["credits"])
        if detail["object"] == "workflow_run" and "totalCredits" in usage:
            assert usage["credits"] == usage["totalCredits"]
        for resource, credits in named.items():
            shared += resource in costs
            assert costs.setdefault(resource, credits) == credits
            assert credits == round(credits, 6)
    assert shared > 200


def test_credits_are_json_numbers_without_binary_noise(details: dict[str, Payload]) -> None:
    text = json.dumps([detail.get("usage") for detail in details.values()])
    assert "00000000" not in text
    assert "99999999" not in text
    assert any(isinstance((detail.get("usage") or {}).get("credits"), float) for detail in details.values())
    assert any(isinstance((detail.get("usage") or {}).get("credits"), int) for detail in details.values())


def test_a_shared_parse_run_stands_in_the_breakdown_of_the_run_that_caused_it_alone(
    details: dict[str, Payload],
) -> None:
    users: Counter[str] = Counter()
    listed_by: Counter[str] = Counter()
    for run_id, detail in details.items():
        if detail["object"] == "workflow_run":
            continue
        users[detail.get("parseRunId") or ""] += 1
        lines = (detail.get("usage") or {}).get("breakdown") or ()
        listed_by.update(line["id"] for line in lines if line["id"] != run_id)
    assert max(listed_by.values()) == 1
    assert sum(users[parse_run_id] > 1 for parse_run_id in users if parse_run_id) > 20
    assert sum(listed_by[parse_run_id] and users[parse_run_id] > 1 for parse_run_id in listed_by) > 5


def test_workflow_runs_list_every_child_and_their_parse_runs_by_creation(
    world: World, details: dict[str, Payload]
) -> None:
    shown = 0
    for run_id in world.run_ids(kind="workflow_run"):
        lines = (details[run_id].get("usage") or {}).get("breakdown")
        if not lines:
            continue
        created = [world.run(line["id"]).created_at for line in lines]
        assert created == sorted(created)
        below = [other for other in details if world.run(other).workflow_run_id == run_id]
        charged = {other for other in below if world.run(other).charges is not None}
        assert charged <= {line["id"] for line in lines}
        shown += any(line["object"] == "parse_run" for line in lines)
    assert shown > 10


def test_reviewed_runs_keep_what_there_was_before(world: World, details: dict[str, Payload]) -> None:
    edited = [details[run_id] for run_id in details if world.run(run_id).edited]
    assert len(edited) > 10
    for detail in edited:
        assert detail["reviewed"] is detail["edited"] is True
        assert detail["output"] == detail["reviewedOutput"] != detail["initialOutput"]
        assert detail["updatedAt"] >= detail["createdAt"]
    plain = [detail for detail in details.values() if detail.get("reviewed") is False]
    assert not any("initialOutput" in detail for detail in plain)


def test_odd_payloads_are_there(details: dict[str, Payload]) -> None:
    metadata = [detail["metadata"] for detail in details.values() if detail.get("metadata")]
    assert {"a.b", "", 'weird "key"', "=1+1", "🧾", "nested"} <= {key for data in metadata for key in data}
    names = [detail["file"]["name"] for detail in details.values() if detail.get("file")]
    for part in ("<script>", "=cmd|", "\x1b[31m", "\u202e", "x" * 900):
        assert any(part in name for name in names)
    assert {len(detail.get("files") or ()) for detail in details.values() if "stepRuns" in detail} >= {0, 1, 2, 3}
    assert any(len(detail.get("files") or ()) > 1 for detail in details.values() if detail["object"] == "extract_run")
    assert {len(detail["createdAt"]) for detail in details.values() if "createdAt" in detail} == {20, 24, 27}
    extracts = [detail for detail in details.values() if detail["object"] == "extract_run"]
    assert any("extractor" not in detail for detail in extracts)
    assert any("fields" in detail["config"] for detail in extracts)
    assert {"draft", "1.0", "1.1", "2.1"} <= {
        detail["extractorVersion"]["version"] for detail in extracts if "extractorVersion" in detail
    }
    for field in ("file", "failureMessage", "usage", "parseRunId"):
        assert any(detail.get(field, "") is None for detail in details.values()), field
        assert any(field not in detail for detail in details.values()), field


def test_messages_differ_in_numbers_ids_and_names(details: dict[str, Payload]) -> None:
    messages = {detail["failureMessage"] for detail in details.values() if detail.get("failureMessage")}
    ocr = [message for message in messages if message.startswith("OCR failed on page")]
    assert len(ocr) > 1


def test_huge_outputs_are_made_only_when_asked_for(world: World) -> None:
    huge = world.tagged_ids("huge")
    assert len(huge) >= 2
    assert set(world.detail(huge[0], "url")) & {"output", "outputUrl"} == {"outputUrl"}
    assert 15_000_000 < len(json.dumps(world.detail(huge[0])["output"])) < 60_000_000


# Answers, by hand

CLASSIFY, EXTRACT, PARSE = BY_OBJECT["classify_run"], BY_OBJECT["extract_run"], BY_OBJECT["parse_run"]
WORKFLOW, EDIT, FORM = BY_OBJECT["workflow_run"], BY_OBJECT["edit_run"], BY_OBJECT["form_detection_run"]
PAPER = File("file_1", "a.pdf", "PDF", 1, datetime(2026, 7, 1, tzinfo=UTC))


def a_run(run_id: str, day: date, credits: str | None, **more: Any) -> Run:
    kind = kind_of(run_id)
    assert kind is not None
    at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    charges = None if credits is None else (Charge("x", "page", Decimal(1), Decimal(credits)),)
    given: dict[str, Any] = {
        "workspace": "ws_a", "status": "PROCESSED", "updated_at": at + timedelta(hours=1), "seed": 1, "precision": 3,
        "files": (PAPER,), "charges": charges,
    }  # fmt: skip
    return Run(run_id=run_id, kind=kind, created_at=at, **{**given, **more})


def answers_of(*runs: Run, known: str = "detail") -> Answers:
    world = World(seed=1, runs=0)
    world.change(*runs)
    return world.answers(known=known)


D1, D2, D3 = date(2026, 7, 1), date(2026, 7, 2), date(2026, 7, 3)


def a_family() -> list[Run]:
    """A workflow run above a classify run that caused a parse run, and an extract run that reused the parse run."""
    return [
        a_run("workflow_run_1", D1, None, caused=("clr_1", "pr_1", "exr_1")),
        a_run("clr_1", D2, "0.3", caused=("pr_1",), parse_run_id="pr_1"),
        a_run("pr_1", D3, "2", parse_run_id=None),
        a_run("exr_1", D3, "0.7", parse_run_id="pr_1"),
    ]


def test_each_resource_is_charged_once_with_the_day_that_payloads_tell() -> None:
    by_id = answers_of(*a_family())
    # The parse run's own creation is in no detail: the day is that of the classify run that caused it.
    assert by_id.credits == {
        (D2, "classify_run"): Decimal("0.3"), (D2, "parse_run"): Decimal("2"), (D3, "extract_run"): Decimal("0.7"),
    }  # fmt: skip
    assert by_id.total == Decimal("3.0")
    both = answers_of(*a_family(), known="both")
    assert both.credits[D3, "parse_run"] == Decimal("2")
    assert both.total == Decimal("3.0")
    assert both.unknown == {}


def test_deleted_runs_are_known_through_the_run_that_caused_them_then_through_the_workflow_run() -> None:
    workflow, classify, parse, extract = a_family()
    parse.deleted = True
    assert answers_of(workflow, classify, parse, extract).credits[D2, "parse_run"] == Decimal("2")
    classify.deleted = True
    gone = answers_of(workflow, classify, parse, extract)
    # No payload by ID tells when a workflow run was created.
    assert gone.credits == {
        (None, "classify_run"): Decimal("0.3"), (None, "parse_run"): Decimal("2"), (D3, "extract_run"): Decimal("0.7"),
    }  # fmt: skip
    assert answers_of(workflow, classify, parse, extract, known="both").credits[D1, "parse_run"] == Decimal("2")
    workflow.deleted = True
    assert answers_of(workflow, classify, parse, extract).total == Decimal("0.7")


def test_a_total_without_breakdown_charges_the_parse_run_unless_that_is_charged_already() -> None:
    def pair(**parse: Any) -> list[Run]:
        cause = a_run("exr_1", D1, "3", caused=("pr_1",), parse_run_id="pr_1", breakdown_hidden=True)
        return [cause, a_run("pr_1", D2, "2.1", **parse)]

    assert answers_of(*pair()).credits == {(D1, "extract_run"): Decimal(3), (None, "parse_run"): Decimal("2.1")}
    assert answers_of(*pair(), known="both").credits[D2, "parse_run"] == Decimal("2.1")
    inferred = {(D1, "extract_run"): Decimal(3), (D1, "parse_run"): Decimal("2.1")}
    assert answers_of(*pair(deleted=True)).credits == inferred
    assert answers_of(*pair(usage_hidden=True)).credits == inferred
    assert answers_of(*pair(usage_hidden=True)).unknown == {}


def test_unknown_counts_runs_that_nothing_tells_the_credits_of() -> None:
    found = answers_of(
        a_run("clr_1", date(2025, 10, 6), "1"),
        a_run("clr_2", date(2025, 10, 7), "0"),
        a_run("clr_3", D1, None, status="FAILED", failure_reason="ABORTED"),
        a_run("exr_1", D1, "3", legacy_billing=True, caused=("pr_1",), parse_run_id="pr_1"),
        a_run("pr_1", D1, "2", usage_hidden=True),
        a_run("exr_2", D2, "3", caused=("pr_2",), parse_run_id="pr_2"),
        a_run("pr_2", D2, "2", usage_hidden=True),
        a_run("workflow_run_1", D1, None, status="PENDING"),
        a_run("workflow_run_2", D1, None),
    )
    assert found.unknown == {"classify_run": 2, "extract_run": 1, "parse_run": 1, "workflow_run": 1}
    assert found.credits == {
        (date(2025, 10, 7), "classify_run"): Decimal(0),
        (D2, "extract_run"): Decimal(3),
        (D2, "parse_run"): Decimal(2),
    }
    assert found.failures == {("classify_run", "ABORTED"): 1}
    assert found.statuses[("classify_run", "PROCESSED")] == 2


def test_form_detection_is_dated_by_the_edit_run_once_that_was_listed() -> None:
    runs = [a_run("edr_1", D1, "2", caused=("sgr_1",)), a_run("sgr_1", D2, "1")]
    by_id = {(None, "edit_run"): Decimal(2), (None, "form_detection_run"): Decimal(1)}
    assert answers_of(*runs).credits == by_id
    listed = {(D1, "edit_run"): Decimal(2), (D1, "form_detection_run"): Decimal(1)}
    assert answers_of(*runs, known="both").credits == listed


def test_answers_can_be_for_some_of_the_runs() -> None:
    workflow, classify, parse, extract = a_family()
    world = World(seed=1, runs=0)
    world.change(workflow, classify, parse, extract)
    found = world.answers(run_ids=["clr_1", "clr_none"])
    assert found.credits == {(D2, "classify_run"): Decimal("0.3"), (D2, "parse_run"): Decimal(2)}
    assert found.statuses == {("classify_run", "PROCESSED"): 1}


def test_sandbox_stands_on_the_table_of_kinds_and_the_errors_alone() -> None:
    """Its answers check the pipeline, so nothing of the pipeline may have a part in them."""
    names: set[str] = set()
    for path in Path(sandbox.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module or "")
            elif isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            assert not isinstance(node, ast.ImportFrom) or node.level < 2
    assert {name for name in names if name.split(".")[0] == "pipeline"} == {"pipeline.kinds", "pipeline.errors"}


def test_answers_agree_with_a_plain_reading_of_the_payloads(world: World, details: dict[str, Payload]) -> None:
    """The same total from the payloads, by a second and simpler way: every resource that any payload names, once."""
    costs: dict[str, Decimal] = {}
    for run_id, detail in details.items():
        usage = detail.get("usage")
        if usage is None:
            continue
        if detail["object"] != "workflow_run":
            costs[run_id] = amount(usage["credits"])
        costs.update({line["id"]: amount(line["credits"]) for line in usage.get("breakdown", ())})
    for detail in details.values():
        usage = detail.get("usage") or {}
        if "totalCredits" in usage and "breakdown" not in usage and detail["parseRunId"] not in costs:
            costs[detail["parseRunId"]] = amount(usage["totalCredits"]) - amount(usage["credits"])
    assert world.answers().total == sum(costs.values(), Decimal(0))
    assert world.answers(known="both").total == world.answers().total
    parts = [world.answers(workspace).total for workspace in world.workspaces]
    assert sum(parts, Decimal(0)) == world.answers().total
    silent = Counter(
        detail["object"] for run_id, detail in details.items() if detail.get("usage") is None and run_id not in costs
    )
    assert world.answers().unknown == dict(silent)


def test_a_change_is_seen_at_once(world: World) -> None:
    mine = World(seed=1, runs=50)
    run = a_run("clr_new", D1, "1", workspace=mine.workspaces[0])
    mine.change(run)
    assert "clr_new" in mine.run_ids(mine.workspaces[0], "classify_run")
    assert mine.version == 1
    run.deleted = True
    mine.change(run)
    assert mine.find("clr_new") is None
    assert mine.deleted_ids()[-1] == "clr_new"
