"""The ledger that is kept beside a large lake: always what the view would say, or not used; and brought up to date."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import pipeline.ledger
import pipeline.ledger_work
from pipeline.catalog import Lake
from pipeline.lake import LakeFiles
from pipeline.ledger import LedgerFiles, Manifest
from pipeline.sandbox.world import World
from tests.conftest import classify, land
from tests.test_credit_ledger import (
    CASES,
    EXTRACT_OF_1,
    MOST,
    assert_report_is_the_worlds,
    detail,
    details_of,
    differing,
    in_order,
    land_all,
    read_ledger,
    summaries_of,
    summary,
    usage,
)

EXPECTED = {name: Counter(case.lines) for name, case in CASES.items()}


def is_kept(lake: LakeFiles) -> bool:
    return LedgerFiles(lake).current_paths() is not None


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)], ids=str)
def test_the_kept_ledger_is_what_was_worked_out_by_hand_after_each_arrival(
    lake: LakeFiles, order: tuple[int, ...]
) -> None:
    assert len(order) == MOST
    rounds = in_order(order)
    for number, arrivals in enumerate(rounds):
        land_all(lake, [[]] * number + [arrivals], in_one_load=True)
        assert not is_kept(lake)
        before = lines_of(lake)
        assert LedgerFiles(lake).refresh() > 0
        assert is_kept(lake)
        assert lines_of(lake) == before
    assert differing(read_ledger(lake.folder), EXPECTED) == {}


def lines_of(lake: LakeFiles) -> Counter[str]:
    with Lake(lake.folder) as catalog:
        return Counter(map(repr, catalog.sql("FROM credit_lines").fetchall()))


@pytest.mark.long
def test_the_kept_ledger_is_the_worlds_and_stays_it_as_summaries_come(lake: LakeFiles) -> None:
    world = World(seed=5, runs=120)
    name = world.workspaces[0]
    run_ids = world.run_ids(name)
    received = datetime(2026, 11, 21, tzinfo=UTC)
    land(lake, *details_of(world, run_ids), fetched_at=received)
    LedgerFiles(lake).refresh()
    assert is_kept(lake)
    assert_report_is_the_worlds(lake, world, name, "detail")
    land(lake, *summaries_of(world, run_ids), is_detail=False, fetched_at=received + timedelta(hours=1))
    assert not is_kept(lake)
    assert_report_is_the_worlds(lake, world, name, "both")
    LedgerFiles(lake).refresh()
    assert is_kept(lake)
    assert_report_is_the_worlds(lake, world, name, "both")


def test_the_kept_ledger_is_right_in_a_folder_whose_own_path_names_a_day(tmp_path: Path) -> None:
    lake = LakeFiles(tmp_path / "day=2020-01-01" / "credits=0" / "lake")
    three_days(lake)
    land(
        lake,
        classify("clr_3", createdAt="2026-11-04T00:00:00Z", updatedAt="2026-11-05T00:00:00Z", usage={"credits": 16}),
    )
    expected = lines_of(lake)
    LedgerFiles(lake).refresh()
    assert is_kept(lake)
    assert lines_of(lake) == expected


def three_days(lake: LakeFiles) -> None:
    land(
        lake,
        detail("exr_1", EXTRACT_OF_1).payload,
        classify("clr_2", createdAt="2026-11-03T00:00:00Z", usage={"credits": 4}),
        classify("clr_3", createdAt="2026-11-04T00:00:00Z", usage={"credits": 8}),
    )
    LedgerFiles(lake).refresh()


def total(lake: LakeFiles) -> Any:
    with Lake(lake.folder) as catalog:
        return catalog.sql("SELECT sum(credits) FROM credit_ledger").fetchall()[0][0]


def test_only_days_on_which_a_change_bears_are_worked_out_again(lake: LakeFiles) -> None:
    three_days(lake)
    assert LedgerFiles(lake).refresh() == 0
    # A run that nothing else speaks of: its own day alone.
    land(lake, classify("clr_4", createdAt="2026-11-03T00:00:00Z", usage={"credits": 16}))
    assert LedgerFiles(lake).refresh() == 1
    # The parse run's own row, of another day: the day of the run whose breakdown told of it as well.
    land(lake, summary("pr_1", usage(32), created="2026-11-06T00:00:00Z").payload, is_detail=False)
    assert LedgerFiles(lake).refresh() == 2
    assert is_kept(lake)
    # 3 + 32 (not the breakdown's 2) + 4 + 8 + 16
    assert total(lake) == 63
    # A day rewritten without a change that the ledger would know of.
    land(lake, classify("clr_2", createdAt="2026-11-03T00:00:00Z", usage={"credits": 4}, dashboardUrl="https://x"))
    assert LedgerFiles(lake).refresh() == 1
    assert total(lake) == 63


def test_readers_take_the_kept_ledger_and_only_as_long_as_it_is_up_to_date(lake: LakeFiles) -> None:
    three_days(lake)
    ledger = LedgerFiles(lake)
    day = ledger.read_manifest().days["2026-11-04"]
    # Make it tell something else, to see who reads it.
    shutil.copy(ledger.lines_path("2026-11-03", day.lines), ledger.lines_path("2026-11-04", day.lines))
    with Lake(lake.folder) as open_before:
        query = "SELECT sum(credits) FROM credit_ledger"
        assert open_before.sql(query).fetchall() == [(5 + 4 + 4,)]
        land(lake, classify("clr_9", createdAt="2026-11-05T00:00:00Z", usage={"credits": 16}))
        assert open_before.sql(query).fetchall() == [(5 + 4 + 8 + 16,)]


def test_the_kept_ledger_is_looked_at_by_questions_on_credits_alone(
    lake: LakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    three_days(lake)
    looked = []
    of_the_file = LedgerFiles.read_manifest

    def noted(ledger: LedgerFiles) -> Manifest:
        looked.append(ledger)
        return of_the_file(ledger)

    monkeypatch.setattr(LedgerFiles, "read_manifest", noted)
    with Lake(lake.folder) as asked:
        runs = asked.sql("SELECT sum(credits) FROM runs -- not of the ledger")
        assert len(asked.sql("FROM loads, dead_letters").columns) > 20
        assert looked == []
        assert asked.sql("SELECT sum(credits) FROM credit_ledger").fetchall() == [(5 + 4 + 8,)]
        assert len(looked) == 1
        # What was handed out before is still answered, and by now the ledger is kept in mind.
        assert runs.fetchall() == [(3 + 4 + 8,)]
        assert asked.sql("SELECT count(*) FROM runs").fetchall() == [(3,)]
        assert len(looked) == 1


def break_manifest(ledger: LedgerFiles) -> None:
    (ledger.folder / "manifest.json").write_text('{"number": 1, "days": []}')


def remove_a_file(ledger: LedgerFiles) -> None:
    next(ledger.folder.glob("day=2026-11-03/lines-*")).unlink()


def damage_lines(ledger: LedgerFiles) -> None:
    path = next(ledger.folder.glob("day=2026-11-03/lines-*"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove_all(ledger: LedgerFiles) -> None:
    shutil.rmtree(ledger.folder)


def age(ledger: LedgerFiles) -> None:
    path = ledger.folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "made_by": "an older version"}))


def touch_runs(ledger: LedgerFiles) -> None:
    os.utime(ledger.files.day_path("2026-11-03"))


def begin_a_move(ledger: LedgerFiles) -> None:
    ledger.files.write_moves([("clr_2", "2026-11-03", "2026-11-04")])


@pytest.mark.parametrize(
    "harm", [break_manifest, remove_a_file, damage_lines, remove_all, age, touch_runs, begin_a_move]
)
def test_a_ledger_that_cannot_be_trusted_is_not_used_and_is_made_anew(
    lake: LakeFiles, harm: Callable[[LedgerFiles], None]
) -> None:
    three_days(lake)
    ledger = LedgerFiles(lake)
    harm(ledger)
    assert not is_kept(lake)
    assert total(lake) == 17
    lake.write_moves([])
    assert ledger.refresh() >= (harm is not begin_a_move)
    assert is_kept(lake)
    assert total(lake) == 17


def test_what_lands_while_the_ledger_is_worked_out_is_in_it_at_the_end(
    lake: LakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    three_days(lake)
    land(lake, classify("clr_4", createdAt="2026-11-03T00:00:00Z", usage={"credits": 16}))
    late = [
        lambda: land(lake, summary("pr_1", usage(32), created="2026-11-03T00:00:00Z").payload, is_detail=False),
        lambda: land(lake, classify("clr_5", createdAt="2026-11-03T00:00:00Z", usage={"credits": 64})),
    ]
    write_lines, write_ids = pipeline.ledger_work._Work.write_lines, pipeline.ledger_work._Work.write_ids

    def landing_before(method: Any) -> Any:
        def run(self: Any, *arguments: Any) -> Any:
            if late:
                late.pop(0)()
            return method(self, *arguments)

        return run

    monkeypatch.setattr(pipeline.ledger_work._Work, "write_lines", landing_before(write_lines))
    monkeypatch.setattr(pipeline.ledger_work._Work, "write_ids", landing_before(write_ids))
    assert LedgerFiles(lake).refresh() >= 2
    assert late == []
    assert is_kept(lake)
    # 3 + 32 + 4 + 8 + 16 + 64
    assert total(lake) == 127


def test_what_a_change_bears_on_is_not_taken_from_damaged_files(lake: LakeFiles) -> None:
    # A breakdown of the one day and the parse run's own row of the other speak of one charge.
    land(lake, detail("exr_1", EXTRACT_OF_1).payload)
    land(lake, summary("pr_1", usage(32), created="2026-11-03T00:00:00Z").payload, is_detail=False)
    ledger = LedgerFiles(lake)
    ledger.refresh()
    assert total(lake) == 3 + 32
    ids = next(ledger.folder.glob("day=2026-11-03/ids-*"))
    pq.write_table(pq.read_table(ids).slice(0, 0), ids)
    # The parse run is gone from its day: its charge is again what the breakdown tells.
    lake.write_day("2026-11-03", lake.read_day("2026-11-03").slice(0, 0))
    ledger.refresh()
    assert is_kept(lake)
    assert total(lake) == 3 + 2


def test_files_that_are_not_in_force_any_more_go_with_the_next_change(lake: LakeFiles) -> None:
    three_days(lake)
    for number in range(4):
        land(lake, classify("clr_2", createdAt="2026-11-03T00:00:00Z", usage={"credits": number}))
        LedgerFiles(lake).refresh()
    assert len(list((lake.folder / "ledger" / "day=2026-11-03").iterdir())) == 4
    assert not list(lake.folder.rglob("*.tmp"))


def test_a_small_lake_keeps_no_ledger_and_a_large_one_does(lake: LakeFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    land(lake, classify("clr_1", usage={"credits": 1}))
    with Lake(lake.folder) as catalog:
        catalog.keep_ledger()
        assert not (lake.folder / "ledger").exists()
        monkeypatch.setattr(pipeline.ledger, "WORTH_BYTES", 1)
        told: list[str] = []
        catalog.keep_ledger(tell=told.append)
        assert told == [f"{lake.folder}: working out the credits of 1 of 1 days, once"]
        assert is_kept(lake)
        assert catalog.credits("all").fetchall()[0][1] == Decimal(1)


def test_a_lake_that_cannot_be_written_is_read_all_the_same(lake: LakeFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    land(lake, classify("clr_1", usage={"credits": 1}))
    monkeypatch.setattr(pipeline.ledger, "WORTH_BYTES", 1)
    (lake.folder / "ledger").write_text("no folder")
    told: list[str] = []
    with Lake(lake.folder) as catalog:
        catalog.keep_ledger(tell=told.append)
        assert "the credit ledger cannot be kept" in told[0]
        assert catalog.credits("all").fetchall()[0][1] == Decimal(1)


def test_batches_of_days_come_to_the_same(lake: LakeFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    land_all(lake, in_order(tuple(range(MOST))), in_one_load=True)
    monkeypatch.setattr(pipeline.ledger_work, "_BATCH_BYTES", 1)
    assert LedgerFiles(lake).refresh() == len(lake.days()) > 5
    assert differing(read_ledger(lake.folder), EXPECTED) == {}
