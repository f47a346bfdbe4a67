"""Which runs must be asked for by ID: lakes made by hand, and each rule on its own."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RunError, RunFailedError, RunMissingError
from pipeline.kinds import BY_OBJECT, KINDS, Kind
from pipeline.lake import LakeFiles
from pipeline.loads import Load
from pipeline.needs import LEVELS, YOUNG, Database, Level, Needs, find_needs, find_unfinished
from tests.conftest import NOON
from tests.conftest import land as land_payloads

LATER = NOON + timedelta(days=900)

OLD_LAKE = Path(__file__).parent / "lakes" / "schema-1"
FORM = {"object": "form_detection_run", "id": "sgr_1", "credits": 2}


def run(run_id: str, *, credits: float | None = None, total: float | None = None, **fields: Any) -> dict[str, Any]:
    """Return a summary of the kind that the ID's prefix tells, created on 2 November."""
    kind = next(each for each in KINDS if run_id.startswith(each.prefix))
    usage = {name: value for name, value in (("credits", credits), ("totalCredits", total)) if value is not None}
    return {
        "object": kind.object,
        "id": run_id,
        "status": "PROCESSED",
        "createdAt": "2026-11-02T09:30:00Z",
        "updatedAt": "2026-11-02T09:31:00Z",
        **({"usage": usage} if usage else {}),
        **fields,
    }


def detail(run_id: str, *, breakdown: list[dict[str, Any]] | None = None, **options: Any) -> dict[str, Any]:
    made = run(run_id, **options)
    return {**made, "usage": {**made.get("usage", {}), **({} if breakdown is None else {"breakdown": breakdown})}}


def land(
    lake: LakeFiles,
    *payloads: dict[str, Any],
    is_detail: bool = False,
    workspace_id: str | None = None,
    fetched_at: datetime = NOON,
    failures: tuple[RunError, ...] = (),
    failed_at: datetime = NOON,
) -> None:
    """Land payloads, and failures, in one load."""
    load = Load(lake, command="sync", source="test", now=lambda: failed_at)
    try:
        for each in payloads:
            body = json.dumps(each).encode()
            load.take_run(each["id"], body, fetched_at=fetched_at, is_detail=is_detail, workspace_id=workspace_id)
        for error in failures:
            load.take_failure(error, workspace_id=workspace_id)
        load.finish()
    finally:
        load.close()


def needs(lake: LakeFiles, level: Level = "credits", *, workspace_id: str | None = None, **options: Any) -> Needs:
    options = {"kinds": KINDS, "searched_at": None, "now": NOON + timedelta(hours=1), **options}
    with Database(lake) as database:
        return find_needs(database, workspace_id, level=level, **options)


def find(lake: LakeFiles, workspace_id: str | None, **options: Any) -> tuple[str, ...]:
    with Database(lake) as database:
        return find_unfinished(database, workspace_id, **options)


# --- details ----------------------------------------------------------------------------------------------------------


def test_an_empty_lake_needs_nothing(lake: LakeFiles) -> None:
    for level in LEVELS:
        assert needs(lake, level) == Needs()
    assert len(Needs()) == 0


def test_each_level_asks_for_what_it_says(lake: LakeFiles) -> None:
    statuses = ("PROCESSED", "FAILED", "CANCELLED", "REJECTED", "PENDING", "PROCESSING", "NEEDS_REVIEW", "ODD", None)
    land(lake, *(run(f"workflow_run_{each}", status=each) for each in statuses))
    land(lake, *(run(f"clr_{each}", status=each) for each in statuses))
    finished = ("CANCELLED", "FAILED", "PROCESSED", "REJECTED")
    assert needs(lake, "none") == Needs()
    assert needs(lake, "credits") == Needs(details=tuple(f"workflow_run_{each}" for each in finished))
    everything = (*(f"clr_{each}" for each in finished), *(f"workflow_run_{each}" for each in finished))
    assert needs(lake, "all") == Needs(details=everything)


def test_what_has_been_read_in_detail_is_asked_for_once_more_only_when_it_has_changed(lake: LakeFiles) -> None:
    land(lake, run("workflow_run_1"), run("workflow_run_2"), run("exr_1"), run("exr_2"))
    land(lake, *(detail(run_id) for run_id in ("workflow_run_1", "exr_1")), is_detail=True)
    assert needs(lake).details == ("workflow_run_2",)
    assert needs(lake, "all").details == ("exr_2", "workflow_run_2")
    later = {"updatedAt": "2026-11-04T09:31:00Z"}
    land(lake, run("workflow_run_1", **later), run("exr_1", **later), fetched_at=NOON + timedelta(days=2))
    assert needs(lake).details == ("workflow_run_1", "workflow_run_2")
    assert needs(lake, "all").details == ("exr_1", "exr_2", "workflow_run_1", "workflow_run_2")


TOTALS: list[tuple[dict[str, Any], dict[str, Any] | None, bool]] = [
    # A run, its parse run's own row (null: not in the lake), whether details are needed.
    ({"credits": 1, "total": 3}, {"credits": 2}, False),  # 1 + 2 = 3
    ({"credits": 1, "total": 3}, {"credits": 2, "total": 2}, False),
    ({"credits": 0.3, "total": 2.3}, {"credits": 2.0}, False),
    ({"credits": 0.1, "total": 0.8}, {"credits": 0.7}, False),  # as binary floats, 0.8 - 0.1 is more than 0.7
    ({"credits": 1, "total": 3}, {"credits": 1.999999}, True),
    ({"credits": 1, "total": 3}, {"credits": 4}, True),
    ({"credits": 1, "total": 3}, {}, True),  # its own credits are unknown
    ({"credits": 1, "total": 3}, {"credits": 0}, True),
    ({"credits": 1, "total": 3}, None, True),
    ({"credits": 1, "total": 1}, None, False),
    ({"credits": 1, "total": 1}, {"credits": 2}, False),  # the parse run was another's doing
    ({"credits": 1}, None, False),
    ({"credits": 0, "total": 0}, None, False),
    ({}, None, False),  # unknown, and no detail tells more
    ({"credits": 0, "total": 0.000001}, None, True),
]


def test_totals_that_the_parse_runs_own_row_does_not_explain_need_details(lake: LakeFiles) -> None:
    needed, payloads = [], list[dict[str, Any]]()
    for prefix in ("clr_", "exr_", "splr_"):
        for number, (usage, parse, is_needed) in enumerate(TOTALS):
            run_id, parse_id = f"{prefix}{number:02d}", f"pr_{prefix}{number}"
            payloads.append(run(run_id, parseRunId=parse_id, **usage))
            payloads += [] if parse is None else [run(parse_id, **parse)]
            needed += [run_id] if is_needed else []
    land(lake, *payloads)
    assert needs(lake).details == tuple(needed)


def test_a_total_without_a_parse_run_needs_details_above_all_edit_runs(lake: LakeFiles) -> None:
    land(lake, run("edr_1", credits=2, total=5), run("edr_2", credits=2, total=2), run("clr_1", credits=1, total=3))
    assert needs(lake).details == ("clr_1", "edr_1")


def test_a_breakdown_tells_what_is_beyond_even_after_the_run_has_changed(lake: LakeFiles) -> None:
    entry = {"object": "parse_run", "id": "pr_1", "credits": 2}
    land(lake, detail("exr_1", credits=1, total=3, parseRunId="pr_1", breakdown=[entry]), is_detail=True)
    land(lake, run("exr_1", credits=1, total=3, updatedAt="2026-11-04T09:31:00Z"), fetched_at=NOON + timedelta(days=2))
    assert needs(lake).details == ()
    assert needs(lake, "all").details == ("exr_1",)


def test_the_parse_runs_row_counts_even_when_it_is_gone(lake: LakeFiles) -> None:
    land(lake, run("exr_1", credits=1, total=3, parseRunId="pr_1"), run("pr_1", credits=2))
    land(lake, failures=(missing("pr_1"),), failed_at=NOON + timedelta(minutes=1))
    assert needs(lake).details == ()


@pytest.mark.parametrize("level", LEVELS)
def test_a_verify_run_is_never_asked_for(lake: LakeFiles, level: Level) -> None:
    land(lake, run("vr_1", credits=1, total=3), run("vr_2"), run("vr_3", status="PROCESSING"))
    assert needs(lake, level) == Needs()
    assert find(lake, None, kinds=KINDS, created_since=None, heard_before=LATER) == ()


def test_only_the_kinds_asked_for_are_looked_at(lake: LakeFiles) -> None:
    land(lake, run("workflow_run_1"), run("edr_1", credits=2, total=5), run("pr_1", status="PENDING"))
    land(lake, detail("edr_2", breakdown=[FORM]), is_detail=True)
    edit, form, workflow = (BY_OBJECT[f"{name}_run"] for name in ("edit", "form_detection", "workflow"))
    assert needs(lake, kinds=[edit]) == Needs(details=("edr_1",))
    assert needs(lake, kinds=[form]) == Needs(found=("sgr_1",))
    assert needs(lake, kinds=[workflow, edit]) == Needs(details=("edr_1", "workflow_run_1"))
    assert find(lake, None, kinds=[edit], created_since=None, heard_before=LATER) == ()


def test_workspaces_are_kept_apart(lake: LakeFiles) -> None:
    for workspace_id, number in ((None, 1), ("ws_a", 2), ("ws_b", 3)):
        land(lake, run(f"workflow_run_{number}"), run(f"pr_{number}", status="PENDING"), workspace_id=workspace_id)
        form = {**FORM, "id": f"sgr_{number}"}
        land(lake, detail(f"edr_{number}", breakdown=[form]), is_detail=True, workspace_id=workspace_id)
    assert needs(lake, workspace_id="ws_a") == Needs(("workflow_run_2",), ("sgr_2",))
    assert needs(lake) == Needs(("workflow_run_1",), ("sgr_1",))
    assert find(lake, "ws_b", kinds=KINDS, created_since=None, heard_before=LATER) == ("pr_3",)


# --- what the API refused ---------------------------------------------------------------------------------------------


def missing(run_id: str, reason: str = "NOT_FOUND") -> RunError:
    return RunMissingError("gone", run_id=run_id, reason=reason, http_status=404)


def refused(run_id: str, status: int | None, reason: str = "") -> RunError:
    return RunFailedError("refused", run_id=run_id, reason=reason or f"HTTP_{status}", http_status=status)


def test_a_run_that_is_gone_is_not_asked_for_again(lake: LakeFiles) -> None:
    land(lake, run("workflow_run_1"), run("workflow_run_2"), run("pr_1", status="PENDING"))
    land(lake, failures=(missing("workflow_run_1"), missing("pr_1")), failed_at=NOON + timedelta(minutes=1))
    for level in ("credits", "all"):
        assert needs(lake, level, now=NOON + timedelta(days=400)).details == ("workflow_run_2",)
    assert find(lake, None, kinds=KINDS, created_since=None, heard_before=LATER) == ()


def test_a_form_detection_that_the_lake_never_had_and_that_is_gone_is_not_asked_for_again(lake: LakeFiles) -> None:
    land(lake, detail("edr_1", breakdown=[FORM]), is_detail=True)
    land(lake, failures=(missing("sgr_1"),), failed_at=NOON + timedelta(minutes=1))
    assert needs(lake, now=NOON + timedelta(days=400)) == Needs()


@pytest.mark.parametrize("status", [400, 403, 405, 410, 418, 422, 499])
@pytest.mark.parametrize(("hours", "is_asked"), [(1, False), (23.9, False), (24.1, True)])
def test_what_the_api_refused_is_asked_for_again_after_a_day(
    refusals: LakeFiles, status: int, hours: float, is_asked: bool
) -> None:
    asked = needs(refusals, now=NOON + timedelta(hours=hours)).details
    assert (f"workflow_run_{status}" in asked) is is_asked


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, None, 200])
def test_what_failed_for_a_passing_reason_is_asked_for_again_at_once(refusals: LakeFiles, status: int | None) -> None:
    assert f"workflow_run_{status}" in needs(refusals, now=NOON).details


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> LakeFiles:
    """A lake of workflow runs whose details failed at noon, each with the status that its ID ends in."""
    lake = LakeFiles(tmp_path_factory.mktemp("refusals") / "lake")
    statuses = (400, 403, 405, 408, 409, 410, 418, 422, 429, 499, 500, 503, None, 200)
    land(lake, *(run(f"workflow_run_{status}") for status in statuses), fetched_at=NOON - timedelta(minutes=1))
    land(lake, failures=tuple(refused(f"workflow_run_{status}", status) for status in statuses))
    return lake


def test_a_404_that_is_not_the_apis_own_word_holds_for_a_day(lake: LakeFiles) -> None:
    land(lake, run("workflow_run_1"))
    proxys = missing("workflow_run_1", "HTTP_404")
    land(lake, failures=(proxys,), failed_at=NOON + timedelta(minutes=1))
    assert needs(lake, now=NOON + timedelta(hours=1)).details == ()
    # Whatever has been searched: nothing but the time has changed since.
    soon = needs(lake, now=NOON + timedelta(days=2), searched_at=datetime.now(NOON.tzinfo) + timedelta(hours=1))
    assert soon.details == ("workflow_run_1",)


def test_what_another_workspace_was_told_counts_for_nothing(lake: LakeFiles) -> None:
    land(lake, run("workflow_run_1"), workspace_id="ws_a")
    land(lake, failures=(missing("workflow_run_1"),), workspace_id="ws_b", failed_at=NOON + timedelta(minutes=1))
    assert needs(lake, workspace_id="ws_a").details == ("workflow_run_1",)


# --- form detections --------------------------------------------------------------------------------------------------


def test_form_detections_that_a_breakdown_names_are_found_once_each(lake: LakeFiles) -> None:
    entries = [FORM, {**FORM, "id": "sgr_2"}, {"object": "edit_run", "id": "edr_1", "credits": 1}]
    land(lake, detail("edr_1", breakdown=entries), detail("workflow_run_1", breakdown=[FORM]), is_detail=True)
    for level in LEVELS:
        assert needs(lake, level) == Needs(found=("sgr_1", "sgr_2"))
    land(lake, detail("sgr_1", credits=2), is_detail=True)
    assert needs(lake) == Needs(found=("sgr_2",))


def test_a_breakdown_names_no_run_that_can_be_listed_or_that_must_not_be_read(lake: LakeFiles) -> None:
    entries = [
        {"object": "parse_run", "id": "pr_1", "credits": 1},
        {"object": "verify_run", "id": "vr_1", "credits": 1},
        {"object": "form_detection_run", "id": "vr_2", "credits": 1},
        {"object": "form_detection_run", "id": "pr_2", "credits": 1},
        {"object": "form_detection_run", "id": "sgr_../admin", "credits": 1},
        {"object": "form_detection_run", "id": None, "credits": 1},
        {"object": None, "id": "sgr_9", "credits": 1},
    ]
    land(lake, detail("edr_1", breakdown=entries), is_detail=True)
    assert needs(lake, "all") == Needs()


# --- what changed since -----------------------------------------------------------------------------------------------


def set_time(lake: LakeFiles, day: str, time: datetime) -> None:
    os.utime(lake.day_path(day), (time.timestamp(), time.timestamp()))


def test_only_days_that_changed_since_the_last_search_are_searched_again(lake: LakeFiles) -> None:
    land(lake, run("workflow_run_1"), run("workflow_run_2", createdAt="2026-11-01T09:30:00Z"))
    set_time(lake, "2026-11-02", NOON)
    set_time(lake, "2026-11-01", NOON - timedelta(hours=1))
    assert needs(lake, searched_at=NOON - timedelta(minutes=30)).details == ("workflow_run_1",)
    # The file's time may be a little behind the clock.
    assert needs(lake, searched_at=NOON + timedelta(seconds=1)).details == ("workflow_run_1",)
    assert needs(lake, searched_at=NOON + timedelta(seconds=3)).details == ()
    assert needs(lake, searched_at=None).details == ("workflow_run_1", "workflow_run_2")


def test_while_something_failed_for_a_passing_reason_all_days_are_searched(lake: LakeFiles) -> None:
    land(lake, run("workflow_run_1"), run("workflow_run_2"))
    land(lake, failures=(refused("workflow_run_1", 503),), failed_at=NOON + timedelta(minutes=1))
    set_time(lake, "2026-11-02", NOON)
    assert needs(lake, searched_at=NOON + timedelta(hours=1)).details == ("workflow_run_1", "workflow_run_2")
    land(lake, failures=(missing("workflow_run_1"),), failed_at=NOON + timedelta(minutes=2))
    set_time(lake, "2026-11-02", NOON)
    assert needs(lake, searched_at=NOON + timedelta(hours=1)).details == ()


def test_the_parse_runs_row_may_stand_in_a_day_that_has_not_changed(lake: LakeFiles) -> None:
    land(lake, run("pr_1", credits=2, createdAt="2026-11-01T09:30:00Z"))
    land(lake, run("exr_1", credits=1, total=3, parseRunId="pr_1"))
    set_time(lake, "2026-11-01", NOON - timedelta(days=9))
    set_time(lake, "2026-11-02", NOON)
    assert needs(lake, searched_at=NOON).details == ()


@pytest.mark.parametrize("level", LEVELS)
def test_a_lake_of_the_first_schema_can_be_asked(tmp_path: Path, level: Level) -> None:
    shutil.copytree(OLD_LAKE, tmp_path / "lake")
    lake = LakeFiles(tmp_path / "lake")
    before = needs(lake, level)
    unfinished = find(lake, None, kinds=KINDS, created_since=None, heard_before=LATER)
    with lake.writing():
        pass  # brings it up to date
    assert needs(lake, level) == before
    assert find(lake, None, kinds=KINDS, created_since=None, heard_before=LATER) == unfinished


# --- unfinished runs --------------------------------------------------------------------------------------------------

PARSE = [BY_OBJECT["parse_run"]]


def test_unfinished_is_what_has_no_final_status(lake: LakeFiles) -> None:
    statuses = ("PROCESSED", "FAILED", "CANCELLED", "REJECTED", "PENDING", "PROCESSING", "NEEDS_REVIEW", "ODD", None)
    land(lake, *(run(f"pr_{each}", status=each) for each in statuses))
    assert find(lake, None, kinds=PARSE, created_since=None, heard_before=LATER) == (
        "pr_NEEDS_REVIEW", "pr_None", "pr_ODD", "pr_PENDING", "pr_PROCESSING",
    )  # fmt: skip
    assert find(lake, None, kinds=[], created_since=None, heard_before=LATER) == ()


def test_what_was_heard_of_meanwhile_is_not_unfinished_business(lake: LakeFiles) -> None:
    run = {"object": "parse_run", "id": "pr_1", "status": "PROCESSING", "createdAt": "2026-11-03T11:00:00Z"}
    land_payloads(lake, run, is_detail=False)
    for heard_before, expected in ((NOON, ()), (NOON + timedelta(seconds=1), ("pr_1",))):
        assert find(lake, None, kinds=KINDS, created_since=None, heard_before=heard_before) == expected


def test_of_the_young_ones_the_time_of_creation_counts_or_what_comes_nearest(lake: LakeFiles) -> None:
    def times(**fields: Any) -> dict[str, Any]:
        return {"status": "PENDING", "createdAt": None, "updatedAt": None, **fields}

    old, young = "2026-11-02T11:59:59Z", "2026-11-02T12:00:00Z"
    land(
        lake,
        run("pr_old", **times(createdAt=old)),
        run("pr_young", **times(createdAt=young)),
        run("workflow_run_old", **times(initialRunAt=old)),
        run("workflow_run_young", **times(initialRunAt=young)),
        run("sgr_old", **times(file={"object": "file", "id": "file_1", "createdAt": old})),
        run("sgr_young", **times(file={"object": "file", "id": "file_1", "createdAt": young})),
        run("sgr_fetched", **times()),
        run("pr_both", **times(createdAt=old, file={"object": "file", "id": "file_1", "createdAt": young})),
        run("pr_done", **{**times(createdAt=young), "status": "PROCESSED"}),
        fetched_at=NOON,
    )
    assert timedelta(days=1) == YOUNG
    kinds: list[Kind] = list(KINDS)
    assert find(lake, None, kinds=kinds, created_since=NOON - timedelta(days=1), heard_before=LATER) == (
        "pr_young", "sgr_fetched", "sgr_young", "workflow_run_young",
    )  # fmt: skip
    assert find(lake, None, kinds=kinds, created_since=NOON, heard_before=LATER) == ("sgr_fetched",)
