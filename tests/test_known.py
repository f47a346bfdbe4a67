"""What a lake has of the runs that a list shows: real lakes, and which rows of a page are new or changed."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import filelock
import pytest

from pipeline.errors import LakeDamagedError, RunMissingError
from pipeline.kinds import BY_OBJECT, PAGE_SIZE, Kind
from pipeline.known import Known
from pipeline.lake import LakeFiles
from pipeline.loads import Load
from tests.conftest import NOON, classify, land

CLASSIFY, EXTRACT, PARSE = (BY_OBJECT[f"{name}_run"] for name in ("classify", "extract", "parse"))
USAGE = {"credits": 1.5, "totalCredits": 3}


def summary(run_id: str = "clr_1", **fields: Any) -> dict[str, Any]:
    """Return a summary as a list shows it, whose detail `land` may have brought."""
    made = classify(run_id, usage=dict(USAGE), **fields)
    del made["config"]
    return made


def land_in(lake: LakeFiles, workspace_id: str, *payloads: dict[str, Any]) -> None:
    load = Load(lake, command="load", source="test")
    try:
        for each in payloads:
            body = json.dumps(each).encode()
            load.take_run(each["id"], body, fetched_at=NOON, is_detail=False, workspace_id=workspace_id)
        load.finish()
    finally:
        load.close()


@pytest.fixture
def known(lake: LakeFiles) -> Iterator[Callable[..., Known]]:
    """Makes one of the lake as it is when it is called; all are closed at the end."""
    made: list[Known] = []

    def make(workspace_id: str | None = None) -> Known:
        made.append(Known(lake, workspace_id))
        return made[-1]

    yield make
    for each in made:
        each.close()


Make = Callable[..., Known]


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> LakeFiles:
    """A lake with one run, landed as the summary that `summary` makes; tests only read it."""
    lake = LakeFiles(tmp_path_factory.mktemp("one-run") / "lake")
    land(lake, summary(), is_detail=False)
    return lake


def test_everything_is_new_to_an_empty_lake_and_nothing_a_second_time(known: Make) -> None:
    rows = [summary("clr_1"), summary("clr_2")]
    seen = known()
    assert seen.changed(CLASSIFY, rows) == rows
    assert seen.changed(CLASSIFY, rows) == []
    assert seen.changed(CLASSIFY, []) == []
    assert list(seen.iter_unseen(CLASSIFY)) == []


def test_a_page_may_have_more_runs_than_were_asked_for(known: Make) -> None:
    rows = [summary(f"clr_{number:03}") for number in range(2 * PAGE_SIZE + 7)]
    seen = known()
    assert seen.changed(CLASSIFY, rows) == rows
    assert seen.changed(CLASSIFY, rows) == []


def test_a_run_repeated_on_one_page_is_new_once(known: Make) -> None:
    assert known().changed(CLASSIFY, [summary(), summary()]) == [summary()]


def test_what_the_lake_has_as_it_is_is_not_new(lake: LakeFiles, known: Make) -> None:
    land(lake, summary("clr_1"), summary("clr_2"), is_detail=False)
    assert known().changed(CLASSIFY, [summary("clr_1"), summary("clr_2"), summary("clr_3")]) == [summary("clr_3")]


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "FAILED"},
        {"status": "ARCHIVED"},
        {"updatedAt": "2026-11-02T09:31:00.000001Z"},
        {"updatedAt": "2026-11-02T09:30:59Z"},
        {"usage": {"credits": 1.6, "totalCredits": 3}},
        {"usage": {"credits": 1.500001, "totalCredits": 3}},
        {"usage": {"credits": 1.5, "totalCredits": 4}},
        {"usage": {"credits": 0, "totalCredits": 0}},
    ],
)
def test_status_time_of_change_and_credits_make_a_difference(one_run: LakeFiles, fields: dict[str, Any]) -> None:
    row = summary() | fields
    with Known(one_run, None) as seen:
        assert seen.changed(CLASSIFY, [row]) == [row]
        assert seen.changed(CLASSIFY, [row]) == []
        assert seen.changed(CLASSIFY, [summary()]) == [summary()]  # and back


@pytest.mark.parametrize(
    "fields",
    [
        {"dashboardUrl": "https://dashboard.test/1"},
        {"metadata": {"a": 1}},
        {"reviewed": True},
        {"updatedAt": "2026-11-02T10:31:00+01:00"},
        {"updatedAt": "2026-11-02T09:31:00.000000Z"},
        {"usage": {"credits": 1.50, "totalCredits": 3.0, "more": 1}},
        {"usage": {"credits": 1.5000000001, "totalCredits": 3}},
        {"newField": None},
    ],
)
def test_nothing_else_does(one_run: LakeFiles, fields: dict[str, Any]) -> None:
    with Known(one_run, None) as seen:
        assert seen.changed(CLASSIFY, [summary() | fields]) == []


@pytest.mark.parametrize("usage", [None, {}, {"credits": None}, {"credits": 1.5}, {"credits": "much"}, "much"])
def test_what_a_summary_does_not_tell_is_no_change(one_run: LakeFiles, usage: object) -> None:
    # Such as a list without usage above details that have it: each page would bring something new for ever.
    with Known(one_run, None) as seen:
        assert seen.changed(CLASSIFY, [summary() | {"usage": usage}]) == []
        assert seen.changed(CLASSIFY, [summary()]) == []
        assert len(seen.changed(CLASSIFY, [summary() | {"usage": {"credits": 2}}])) == 1


def test_what_only_the_summary_tells_is_a_change(lake: LakeFiles, known: Make) -> None:
    land(lake, {"object": "parse_run", "id": "pr_1", "status": "PROCESSED", "config": {}})
    told = {"object": "parse_run", "id": "pr_1", "status": "PROCESSED", "usage": {"credits": 0}}
    assert known().changed(PARSE, [told]) == [told]


def test_values_of_a_wrong_type_are_as_the_lake_has_them(lake: LakeFiles, known: Make) -> None:
    values: list[object] = [None, 5, True, [], "", "yesterday", {}, float("inf"), 1e12]
    rows = [
        summary(f"clr_{number}") | {"updatedAt": value, "status": value} | {"usage": {"credits": value}}
        for number, value in enumerate(values)
    ]
    land(lake, *rows, is_detail=False)
    assert known().changed(CLASSIFY, rows) == []


def test_a_value_of_a_wrong_type_is_not_taken_for_a_number_that_is_equal_to_it(known: Make) -> None:
    seen = known()
    of_no_type, told = (summary(status="ODD") | {"usage": {"credits": credits}} for credits in (True, 1))
    assert seen.changed(CLASSIFY, [of_no_type]) == [of_no_type]
    assert seen.changed(CLASSIFY, [told]) == [told]


def test_text_that_is_no_unicode_is_as_the_lake_has_it(lake: LakeFiles, known: Make) -> None:
    row = summary("clr_\udc80", status="P\udc80")
    seen = known()
    assert seen.changed(CLASSIFY, [row]) == [row]
    land(lake, row, is_detail=False)
    assert known().changed(CLASSIFY, [row]) == []


def test_a_status_may_hold_anything(lake: LakeFiles, known: Make) -> None:
    row = summary(status="A|B||'\"\x00;")
    land(lake, row, is_detail=False)
    seen = known()
    assert seen.changed(CLASSIFY, [row]) == []
    assert len(seen.changed(CLASSIFY, [summary(status="A|B")])) == 1


def test_a_run_that_was_found_to_be_gone_is_new_where_a_list_shows_it(lake: LakeFiles, known: Make) -> None:
    land(lake, summary("clr_1"), summary("clr_2"), is_detail=False)
    load = Load(lake, command="fetch", source="test", now=lambda: NOON + timedelta(hours=1))
    error = RunMissingError("gone", run_id="clr_1", reason="NOT_FOUND", http_status=404)
    load.take_failure(error, workspace_id=None)
    load.finish()
    seen = known()
    assert list(seen.iter_unseen(CLASSIFY)) == ["clr_2"]  # what is gone need not be looked for
    assert seen.changed(CLASSIFY, [summary("clr_1"), summary("clr_2")]) == [summary("clr_1")]


def test_workspaces_are_kept_apart(lake: LakeFiles, known: Make) -> None:
    land_in(lake, "ws_a", summary("clr_1"))
    land(lake, summary("clr_2"), is_detail=False)
    rows = [summary("clr_1"), summary("clr_2")]
    assert known("ws_a").changed(CLASSIFY, rows) == [summary("clr_2")]
    assert known("ws_b").changed(CLASSIFY, rows) == rows
    assert known(None).changed(CLASSIFY, rows) == [summary("clr_1")]
    assert list(known("ws_a").iter_unseen(CLASSIFY)) == ["clr_1"]
    assert list(known(None).iter_unseen(CLASSIFY)) == ["clr_2"]


def test_a_run_without_a_time_of_creation_is_found_under_the_unknown_day(lake: LakeFiles, known: Make) -> None:
    bare = {"object": "parse_run", "id": "pr_1", "status": "PROCESSED"}
    land(lake, bare)
    assert lake.days() == ["unknown"]
    assert known().changed(PARSE, [bare]) == []
    # Its summary tells when it was created and changed, which is news.
    told = bare | {"createdAt": "2026-11-02T09:30:00Z", "updatedAt": "2026-11-02T09:31:00Z"}
    assert known().changed(PARSE, [told]) == [told]


def test_a_summary_that_does_not_tell_when_it_was_created_is_found_wherever_it_is(lake: LakeFiles, known: Make) -> None:
    land(lake, summary("clr_1"), is_detail=False)
    assert lake.days() == ["2026-11-02"]
    assert known().changed(CLASSIFY, [summary("clr_1") | {"createdAt": None}]) == []


def test_days_are_those_of_utc(lake: LakeFiles, known: Make) -> None:
    times = ["2026-11-02T23:59:59Z", "2026-11-03T00:00:00+02:00", "2026-11-01T23:00:00-05:00"]
    rows = [summary(f"clr_{number}", createdAt=time) for number, time in enumerate(times)]
    land(lake, *rows, is_detail=False)
    assert lake.days() == ["2026-11-02"]
    for row in rows:
        assert known().changed(CLASSIFY, [row]) == []


def test_from_a_number_of_pages_on_all_runs_of_the_kind_are_looked_up_at_once(
    lake: LakeFiles, known: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.known._WHOLE_FROM", 2)
    rows = [summary(f"clr_{day}", createdAt=f"2026-10-0{day}T08:00:00Z") for day in range(1, 6)]
    land(lake, *rows, is_detail=False)
    new, seen = summary("clr_9", createdAt="2026-10-01T09:00:00Z"), known()
    assert [seen.changed(CLASSIFY, [row]) for row in rows[:2]] == [[], []]
    shutil.rmtree(lake.runs_folder / "day=2026-10-02")  # has been read, and is not read again
    assert seen.changed(CLASSIFY, [rows[2], new]) == [new]
    shutil.rmtree(lake.runs_folder)
    assert seen.changed(CLASSIFY, [rows[3]]) == []
    assert list(seen.iter_unseen(CLASSIFY)) == ["clr_5"]


def test_a_look_at_all_runs_does_not_undo_what_pages_have_shown(lake: LakeFiles, known: Make) -> None:
    land(lake, summary("clr_1"), is_detail=False)
    seen, changed = known(), summary("clr_1", status="FAILED")
    assert seen.changed(CLASSIFY, [changed]) == [changed]
    seen.look_up_all(CLASSIFY)
    assert seen.changed(CLASSIFY, [changed]) == []


def test_only_runs_of_the_kind_are_unseen_those_on_no_page_in_order(lake: LakeFiles, known: Make) -> None:
    land(lake, *(summary(f"clr_{number}") for number in range(9, 0, -1)), is_detail=False)
    land(lake, {**summary("exr_1"), "object": "extract_run"}, is_detail=False)
    seen = known()
    seen.changed(CLASSIFY, [summary("clr_3"), summary("clr_5", status="FAILED"), summary("clr_77")])
    assert list(seen.iter_unseen(CLASSIFY)) == [f"clr_{number}" for number in (1, 2, 4, 6, 7, 8, 9)]
    assert list(seen.iter_unseen(EXTRACT)) == ["exr_1"]


def test_several_threads_may_ask_at_once_and_each_run_is_new_to_one_of_them(lake: LakeFiles, known: Make) -> None:
    def row_of(kind: Kind, number: int) -> dict[str, Any]:
        time = f"2026-10-{number % 4 + 1:02d}T08:00:00Z"
        return summary(f"{kind.prefix}{number}", object=kind.object, createdAt=time)

    land(lake, *(row_of(CLASSIFY, number) for number in range(1, 21)), is_detail=False)
    seen, together = known(), threading.Barrier(8)

    def ask(worker: int) -> list[str]:
        kind = (CLASSIFY, EXTRACT)[worker % 2]
        together.wait()
        rows = [row_of(kind, number) for number in range(1, 31)]
        return [each["id"] for row in rows for each in seen.changed(kind, [row])]

    with ThreadPoolExecutor(8) as pool:
        found = sorted(run_id for each in pool.map(ask, range(8)) for run_id in each)
    assert found == sorted([f"clr_{n}" for n in range(21, 31)] + [f"exr_{n}" for n in range(1, 31)])
    assert list(seen.iter_unseen(CLASSIFY)) == []


def test_a_damaged_file_is_named(lake: LakeFiles, known: Make) -> None:
    land(lake, summary(), is_detail=False)
    lake.day_path("2026-11-02").write_bytes(b"PAR1 not a table")
    with pytest.raises(LakeDamagedError, match=r"day=2026-11-02/runs\.parquet: damaged"):
        known().changed(CLASSIFY, [summary()])


def test_nothing_is_left_on_the_disk(lake: LakeFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Known(lake, None) as seen:
        seen.changed(CLASSIFY, [summary()])
    assert list(tmp_path.glob("pipeline-*")) == []


# While files are replaced


def test_what_is_asked_while_a_file_is_replaced_is_asked_again(lake: LakeFiles) -> None:
    land(lake, classify())
    (day,) = lake.days()
    calls = []

    def query() -> str:
        calls.append(day)
        if len(calls) == 1:
            lake.write_day(day, lake.read_day(day))
            return "perhaps of both files"
        return "of one file"

    assert lake.ask(query) == "of one file"
    assert len(calls) == 2


def test_where_files_are_replaced_again_and_again_it_is_asked_in_a_pause_of_the_writers(lake: LakeFiles) -> None:
    land(lake, classify())
    (day,) = lake.days()

    def query() -> str:
        try:
            with filelock.FileLock(lake.folder / ".lock", timeout=0):
                lake.write_day(day, lake.read_day(day))
                return "perhaps of both files"
        except filelock.Timeout:
            return "of one file"

    assert lake.ask(query) == "of one file"


def test_only_the_answer_counts_that_was_not_given_up(lake: LakeFiles) -> None:
    class Replaced(LakeFiles):
        """A lake of which a file is replaced just after it was asked for the first time."""

        def ask(self, query: Callable[[], Any]) -> Any:
            query()
            self.write_day(day, self.read_day(day).slice(1))
            return super().ask(query)

    land(lake, classify("clr_1"), classify("clr_2"))
    (day,) = lake.days()
    with Known(Replaced(lake.folder), None) as known:
        assert list(known.iter_unseen(CLASSIFY)) == ["clr_2"]
