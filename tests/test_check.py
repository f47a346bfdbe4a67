"""Each promise of the lake is broken on purpose, found, named, and mended where it can be."""

import json
import random
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import raw
from pipeline.arrow_schemas import RUNS_FILE_SCHEMA
from pipeline.catalog import Lake
from pipeline.checks.findings import Finding
from pipeline.checks.lake import Checked, check_lake
from pipeline.checks.repair import repair_lake
from pipeline.cli import main
from pipeline.errors import RunFailedError
from pipeline.lake import LakeFiles
from pipeline.ledger import LedgerFiles
from pipeline.loads import Load
from pipeline.sandbox.world import World
from tests.conftest import NOON, classify, land

pytestmark = pytest.mark.long

NOW = NOON + timedelta(days=1)
ALL_CHECKS = (
    "files undamaged", "checksums", "schema whole", "no other files", "no move cut short", "no repair cut short",
    "raw log landed", "raw log kept", "each run once", "each run in its day", "charges = credits",
    "breakdown = total", "ledger = runs", "ledger kept", "loads named", "dead letters", "sources agree", "statuses",
    "failure reasons", "days without runs", "unfinished runs",
)  # fmt: skip
SECOND, THIRD = "2026-11-02", "2026-11-03"


@pytest.fixture(scope="module")
def filled_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a lake that keeps its promises: three charged runs of two days in two loads, an ID that did not come."""
    lake = LakeFiles(tmp_path_factory.mktemp("filled") / "lake")
    land(lake, charged("clr_1", SECOND), charged("clr_2", SECOND))
    land(lake, charged("clr_3", THIRD))
    fail(lake, "clr_9")
    return lake.folder


@pytest.fixture
def filled(filled_once: Path, lake: LakeFiles) -> LakeFiles:
    """A copy of that lake."""
    shutil.copytree(filled_once, lake.folder)
    return lake


def charged(run_id: str, day: str, credits: float = 0.3, **usage: Any) -> dict[str, Any]:
    charge = {"product": "classification_light", "unit": "page", "quantity": 1, "credits": credits}
    entry = {"object": "classify_run", "id": run_id, "credits": credits, "charges": [charge]}
    usage = {"credits": credits, "totalCredits": credits, "breakdown": [entry], **usage}
    return classify(run_id, createdAt=f"{day}T09:30:00Z", updatedAt=f"{day}T09:31:00Z", usage=usage)


def fail(lake: LakeFiles, run_id: str) -> None:
    load = Load(lake, command="fetch", source="test")
    load.take_failure(RunFailedError(f"run {run_id}: HTTP 500", run_id=run_id, reason="HTTP_500"), workspace_id=None)
    load.finish()


def of(checked: Checked, check: str) -> Finding:
    (found,) = [each for each in checked.findings if each.check == check]
    return found


def broken(checked: Checked) -> set[str]:
    return {each.check for each in checked.findings if each.state == "broken"}


def repair(lake: LakeFiles) -> tuple[Checked, list[str]]:
    told: list[str] = []
    return repair_lake(lake, check_lake(lake, now=NOW), tell=told.append), told


def rows_of(lake: LakeFiles) -> list[dict[str, Any]]:
    return [row for day in lake.days() for row in lake.read_day(day).to_pylist()]


def write_rows(lake: LakeFiles, day: str, rows: list[dict[str, Any]]) -> None:
    lake.write_day(day, pa.Table.from_pylist(rows, schema=RUNS_FILE_SCHEMA))


# A lake that keeps them


def test_a_lake_that_keeps_its_promises_passes_every_check(filled: LakeFiles) -> None:
    before = {path: path.read_bytes() for path in filled.folder.rglob("*") if path.is_file()}
    checked = check_lake(filled, now=NOW)
    assert [(each.check, each.state, each.offenders) for each in checked.findings] == [
        (check, "ok", ()) for check in ALL_CHECKS
    ]
    assert of(checked, "files undamaged").message == "8 files read to the last byte, 3 runs in them"
    assert {path: path.read_bytes() for path in filled.folder.rglob("*") if path.is_file()} == before


def test_an_empty_lake_passes(lake: LakeFiles) -> None:
    lake.runs_folder.mkdir(parents=True)
    assert broken(check_lake(lake)) == set()


def test_the_worlds_lake_keeps_its_promises_and_its_oddities_are_noted(world: World, lake: LakeFiles) -> None:
    land(lake, *(world.detail(run_id) for run_id in world.run_ids()))
    checked = check_lake(lake, now=NOW)
    assert broken(checked) == set()
    known = {"PENDING", "PROCESSING", "PROCESSED", "FAILED", "CANCELLED", "NEEDS_REVIEW", "REJECTED", "CANCELLING"}
    odd = sum(count for (_kind, status), count in world.answers().statuses.items() if status not in known)
    assert of(checked, "statuses").count == odd > 0


# Files


@pytest.mark.parametrize("which", ["runs", "loads", "dead_letters"])
def test_a_flipped_byte_anywhere_in_a_parquet_file_is_found_and_named(filled: LakeFiles, which: str) -> None:
    path = {"runs": filled.day_path(SECOND), "dead_letters": filled.dead_letters_path}.get(which) or next(
        filled.loads_folder.iterdir()
    )
    content = path.read_bytes()
    name = path.relative_to(filled.folder).as_posix()
    dice = random.Random(7)
    for _ in range(6):
        position = dice.randrange(len(content))
        path.write_bytes(flipped(content, position))
        checked = check_lake(filled, now=NOW)
        found = [offender for check in ("files undamaged", "schema whole")
                 for offender in of(checked, check).offenders]  # fmt: skip
        assert [offender for offender in found if offender.startswith(name)], (position, found)


def flipped(content: bytes, position: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 0b0100_0001
    return bytes(changed)


def test_a_statistic_that_does_not_fit_the_rows_is_found_though_the_rows_can_be_read(filled: LakeFiles) -> None:
    path = filled.day_path(SECOND)
    content = path.read_bytes()
    # The greatest run_id in the footer's statistics: with it changed a query for clr_2 would skip the file.
    position = content.rindex(b"clr_2")
    path.write_bytes(content[:position] + b"clr_1" + content[position + 5 :])
    assert pq.read_table(path)["run_id"].to_pylist() == ["clr_1", "clr_2"]
    assert of(check_lake(filled, now=NOW), "files undamaged").offenders == (
        "runs/day=2026-11-02/runs.parquet: its checksum is not that of its bytes: one has changed since it was written",
    )
    checked, told = repair(filled)
    assert broken(checked) == set()
    assert "runs/day=2026-11-02/runs.parquet is written again from its rows" in told
    assert path.read_bytes() == content


@pytest.mark.parametrize("damage", [lambda content: content[:200], lambda content: b"", lambda content: b"PAR1" * 9])
def test_a_days_file_that_cannot_be_read_is_set_aside_and_made_anew(
    filled: LakeFiles, damage: Callable[[bytes], bytes]
) -> None:
    path = filled.day_path(SECOND)
    content = path.read_bytes()
    path.write_bytes(damage(content))
    found = check_lake(filled, now=NOW)
    assert of(found, "files undamaged").offenders[0].startswith("runs/day=2026-11-02/runs.parquet: cannot be read (")
    assert of(found, "raw log landed").count == 2
    checked, told = repair(filled)
    assert broken(checked) == set()
    assert path.read_bytes() == content
    assert told[0].startswith("runs/day=2026-11-02/runs.parquet is set aside as runs.parquet.damaged-")
    assert len(list(path.parent.glob("runs.parquet.damaged-*"))) == 1
    with Lake(filled.folder) as lake:
        assert lake.sql("SELECT count(*) FROM runs").fetchall() == [(3,)]


@pytest.mark.parametrize("which", ["loads", "dead_letters"])
def test_damaged_loads_and_dead_letters_are_made_anew_from_the_raw_log(filled: LakeFiles, which: str) -> None:
    path = filled.dead_letters_path if which == "dead_letters" else next(filled.loads_folder.iterdir())
    before = pq.read_table(path).to_pylist()
    path.write_bytes(path.read_bytes()[:60])
    assert "files undamaged" in broken(check_lake(filled, now=NOW))
    checked, _told = repair(filled)
    assert broken(checked) == set()
    assert pq.read_table(path).to_pylist() == before


@pytest.mark.parametrize("note_is_damaged", [False, True])
def test_a_repair_that_was_cut_short_is_told_and_ended_by_the_next(
    filled: LakeFiles, monkeypatch: pytest.MonkeyPatch, note_is_damaged: bool
) -> None:
    before = filled.read_dead_letters().to_pylist()
    path = filled.dead_letters_path
    path.write_bytes(path.read_bytes()[:60])

    def killed(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.checks.repair.rebuild_lake", killed)
        with pytest.raises(KeyboardInterrupt):
            repair(filled)
    assert not path.exists()
    note = filled.folder / "repairing.json"
    if note_is_damaged:
        note.write_bytes(note.read_bytes()[:-5])
    found = check_lake(filled, now=NOW)
    assert broken(found) == {"no repair cut short"}
    assert "files undamaged" in of(found, "no repair cut short").offenders
    checked, _told = repair(filled)
    assert broken(checked) == set()
    assert filled.read_dead_letters().to_pylist() == before
    assert not note.exists()


def test_a_flipped_byte_in_a_raw_log_is_found_and_named(filled: LakeFiles) -> None:
    path = filled.raw_logs()[0]
    content = path.read_bytes()
    frames = [part for part in raw.iter_frames(path) if isinstance(part, raw.Frame)]
    second = frames[0].end
    path.write_bytes(flipped(content, second + 40))
    found = of(check_lake(filled, now=NOW), "files undamaged")
    name = path.relative_to(filled.folder).as_posix()
    assert found.offenders == (f"{name}: bytes {second:,} to {frames[1].end:,} cannot be read",)
    # The payloads of that frame are lost; the rows made of them are not.
    checked, _told = repair(filled)
    assert "files undamaged" in broken(checked)
    assert len(rows_of(filled)) == 3
    assert of(checked, "raw log kept").state == "note"


def test_a_reserved_bit_in_a_raw_logs_header_is_found(filled: LakeFiles) -> None:
    path = filled.raw_logs()[0]
    content = bytearray(path.read_bytes())
    content[4] ^= 0b0001_0000
    path.write_bytes(bytes(content))
    assert len(list(raw.iter_frames(path))) == 3
    assert "header at byte 0" in of(check_lake(filled, now=NOW), "files undamaged").offenders[0]


def test_a_file_that_lacks_a_column_is_found_and_made_whole(filled: LakeFiles) -> None:
    path = filled.day_path(SECOND)
    pq.write_table(filled.read_day(SECOND).drop_columns(["metadata", "status"]), path)
    found = check_lake(filled, now=NOW)
    assert of(found, "schema whole").offenders == ("runs/day=2026-11-02/runs.parquet lacks status, metadata",)
    checked, _told = repair(filled)
    assert broken(checked) == set()
    assert pq.read_schema(path).names == RUNS_FILE_SCHEMA.names
    assert {row["status"] for row in rows_of(filled)} == {"PROCESSED"}


def test_a_column_of_another_type_is_found_and_made_anew(filled: LakeFiles) -> None:
    path = filled.day_path(SECOND)
    table = filled.read_day(SECOND)
    position = table.column_names.index("credits")
    pq.write_table(table.set_column(position, "credits", table["credits"].cast(pa.float64())), path)
    found = check_lake(filled, now=NOW)
    assert of(found, "schema whole").offenders == ("runs/day=2026-11-02/runs.parquet credits is double",)
    checked, _told = repair(filled)
    assert broken(checked) == set()
    assert [row["credits"] for row in rows_of(filled)] == [Decimal("0.3")] * 3


def test_a_file_beside_a_days_own_is_found(filled: LakeFiles) -> None:
    copy = filled.day_path(SECOND).with_name("runs (1).parquet")
    copy.write_bytes(filled.day_path(SECOND).read_bytes())
    found = of(check_lake(filled, now=NOW), "no other files")
    assert found.offenders == ("runs/day=2026-11-02/runs (1).parquet: readers take it for runs",)


def test_a_damaged_note_is_found_and_set_aside(filled: LakeFiles) -> None:
    filled.moving_path.write_text('["2026-11-0')
    assert "moving.json" in of(check_lake(filled, now=NOW), "files undamaged").offenders[0]
    checked, _told = repair(filled)
    assert broken(checked) == set()


# Rows in their place


def test_a_run_that_stands_twice_is_found_and_made_one(filled: LakeFiles) -> None:
    row = filled.read_day(SECOND).to_pylist()[0]
    write_rows(filled, THIRD, [*filled.read_day(THIRD).to_pylist(), row])
    found = check_lake(filled, now=NOW)
    assert of(found, "each run once").offenders == (
        "clr_1 stands 2 times, in runs/day=2026-11-02/runs.parquet, runs/day=2026-11-03/runs.parquet",
    )
    assert of(found, "each run in its day").offenders == (
        "clr_1 is in runs/day=2026-11-03/runs.parquet and belongs to day=2026-11-02",
    )
    checked, _told = repair(filled)
    assert broken(checked) == set()
    assert sorted(row["run_id"] for row in rows_of(filled)) == ["clr_1", "clr_2", "clr_3"]


@pytest.mark.parametrize("keep_raw", [True, False])
def test_a_run_in_another_days_file_is_brought_to_its_own_with_and_without_a_raw_log(
    lake: LakeFiles, keep_raw: bool
) -> None:
    land(lake, charged("clr_1", SECOND), charged("clr_2", SECOND), keep_raw=keep_raw)
    before = rows_of(lake)
    rows = lake.read_day(SECOND).to_pylist()
    write_rows(lake, SECOND, rows[:1])
    write_rows(lake, "unknown", rows[1:])
    write_rows(lake, "2026-11-09", rows[1:])
    # A run that stands three times is charged three times: the ledger tells as well.
    assert broken(check_lake(lake, now=NOW)) == {"each run once", "each run in its day", "ledger = runs"}
    checked, _told = repair(lake)
    assert broken(checked) == set()
    assert rows_of(lake) == before


def test_a_move_cut_short_is_found_and_finished(filled: LakeFiles) -> None:
    row = filled.read_day(SECOND).to_pylist()[0]
    write_rows(filled, "unknown", [row])
    filled.write_moves([("clr_1", "unknown", SECOND)])
    found = check_lake(filled, now=NOW)
    assert of(found, "no move cut short").offenders == ("clr_1 from day=unknown to day=2026-11-02",)
    checked, _told = repair(filled)
    assert broken(checked) == set()
    assert filled.read_moves() == []


# The raw log and the lake


def test_a_load_that_died_is_found_and_landed(filled: LakeFiles) -> None:
    load = Load(filled, command="fetch", source="test")
    payload = json.dumps(charged("clr_4", THIRD)).encode()
    load.take_run("clr_4", payload, fetched_at=NOON, is_detail=True, workspace_id=None)
    load.checkpoint()
    # While it is at work nothing is wrong; when it has died its log has not landed.
    running = check_lake(filled, now=NOW)
    assert broken(running) == set()
    assert "1 still at work" in of(running, "raw log landed").message
    load.close()
    found = of(check_lake(filled, now=NOW), "raw log landed")
    assert found.offenders == (f"{filled.raw_logs()[-1].relative_to(filled.folder).as_posix()} has not landed",)
    checked, _told = repair(filled)
    assert broken(checked) == set()
    assert "clr_4" in {row["run_id"] for row in rows_of(filled)}


def test_a_run_of_the_log_that_the_lake_lost_is_found_and_made_anew(filled: LakeFiles) -> None:
    before = rows_of(filled)
    write_rows(filled, SECOND, filled.read_day(SECOND).to_pylist()[1:])
    found = of(check_lake(filled, now=NOW), "raw log landed")
    assert found.count == 1
    assert found.offenders[0].startswith("clr_1 is in no file of runs, and 2026-11-03 12:00:00 by raw/")
    checked, _told = repair(filled)
    assert broken(checked) == set()
    assert rows_of(filled) == before


def test_a_row_older_than_the_logs_payload_is_found_and_made_anew(filled: LakeFiles) -> None:
    rows = filled.read_day(THIRD).to_pylist()
    write_rows(filled, THIRD, [{**rows[0], "fetched_at": NOON - timedelta(hours=2), "status": "PROCESSING"}])
    found = of(check_lake(filled, now=NOW), "raw log landed")
    assert "clr_3 was last received 2026-11-03 10:00:00 by the lake, and 2026-11-03 12:00:00" in found.offenders[0]
    checked, _told = repair(filled)
    assert broken(checked) == set()
    assert [(row["status"], row["fetched_at"]) for row in filled.read_day(THIRD).to_pylist()] == [("PROCESSED", NOON)]


def test_a_log_cut_short_is_found(filled: LakeFiles) -> None:
    path = filled.raw_logs()[0]
    frames = [part for part in raw.iter_frames(path) if isinstance(part, raw.Frame)]
    path.write_bytes(path.read_bytes()[: frames[-2].end])
    found = of(check_lake(filled, now=NOW), "raw log landed")
    assert found.state == "broken"
    assert f"ends at byte {frames[-2].end:,}, and had {frames[-1].end:,}" in found.offenders[0]


def test_a_payload_that_cannot_be_flattened_is_no_run_that_is_missing(filled: LakeFiles) -> None:
    load = Load(filled, command="load", source="test")
    load.take_run("clr_5", b'{"object": "classify_run"}', fetched_at=NOON, is_detail=True, workspace_id=None)
    load.finish()
    assert of(check_lake(filled, now=NOW), "raw log landed").state == "ok"


def test_a_pruned_log_is_a_note(filled: LakeFiles) -> None:
    path = filled.raw_logs()[0]
    path.unlink()
    found = of(check_lake(filled, now=NOW), "raw log kept")
    assert (found.state, found.count) == ("note", 2)
    load_id = path.name.removesuffix(raw.SUFFIX)
    name = path.relative_to(filled.folder).as_posix()
    assert found.offenders == (f"2 runs of load {load_id}, as clr_1", f"{name} is gone")


def test_a_row_of_a_load_that_nobody_knows_is_found_and_known_again(filled: LakeFiles) -> None:
    rows = filled.read_loads().to_pylist()
    next(filled.loads_folder.iterdir()).unlink()
    for row in rows[1:]:
        filled.write_load(row)
    found = of(check_lake(filled, now=NOW), "loads named")
    assert found.count == 2
    assert found.offenders == (f"2 runs name load {rows[0]['load_id']}, as clr_1 in runs/day=2026-11-02/runs.parquet",)
    checked, _told = repair(filled)
    assert broken(checked) == set()
    assert filled.read_loads().to_pylist() == rows


def test_a_dead_letter_of_a_run_that_came_is_found_and_settled(filled: LakeFiles) -> None:
    letters = filled.read_dead_letters().to_pylist()
    late = {**letters[0], "run_id": "clr_1", "failed_at": NOON - timedelta(days=1)}
    schema = filled.read_dead_letters().schema
    filled.write_dead_letters(pa.Table.from_pylist([*letters, late], schema=schema))
    found = of(check_lake(filled, now=NOW), "dead letters")
    assert found.offenders == ("clr_1 is a dead letter and has come since, in runs/day=2026-11-02/runs.parquet",)
    checked, _told = repair(filled)
    assert broken(checked) == set()
    assert filled.read_dead_letters()["run_id"].to_pylist() == ["clr_9"]


# Credits


def test_charges_that_do_not_add_up_are_found_and_stay_as_the_api_told_them(lake: LakeFiles) -> None:
    run = charged("clr_1", SECOND)
    run["usage"]["breakdown"][0]["charges"][0]["credits"] = 0.2
    land(lake, run)
    found = of(check_lake(lake, now=NOW), "charges = credits")
    assert found.offenders == (
        "clr_1 in runs/day=2026-11-02/runs.parquet: the charges of clr_1 are 0.200000 credits, and not 0.300000",
    )
    checked, _told = repair(lake)
    assert broken(checked) == {"charges = credits"}


def test_a_breakdown_that_does_not_add_up_is_found(lake: LakeFiles) -> None:
    land(lake, charged("clr_1", SECOND, totalCredits=2.3))
    found = of(check_lake(lake, now=NOW), "breakdown = total")
    assert (found.state, found.offenders) == (
        "broken", ("clr_1 in runs/day=2026-11-02/runs.parquet: its breakdown is 0.300000 credits, and not 2.300000",)
    )  # fmt: skip


def test_sources_that_disagree_are_noted(lake: LakeFiles) -> None:
    def causing(run_id: str, credits: float) -> dict[str, Any]:
        run = charged(run_id, SECOND, totalCredits=0.3 + credits)
        run["usage"]["breakdown"].append({"object": "parse_run", "id": "pr_1", "credits": credits})
        return run

    parse = {"object": "parse_run", "id": "pr_1", "status": "PROCESSED", "usage": {"credits": 2}}
    land(lake, causing("clr_1", 2), causing("clr_2", 4))
    found = of(check_lake(lake, now=NOW), "sources agree")
    assert (found.state, found.offenders) == ("note", ("pr_1: 2.000000 credits by clr_1, 4.000000 by clr_2",))
    land(lake, parse)
    found = of(check_lake(lake, now=NOW), "sources agree")
    assert found.offenders == ("pr_1: 2.000000 credits by itself, 4.000000 by clr_2",)


def test_a_ledger_beside_the_lake_that_says_otherwise_is_found_and_taken_away(filled: LakeFiles) -> None:
    ledger = LedgerFiles(filled)
    ledger.refresh()
    assert of(check_lake(filled, now=NOW), "ledger kept").message == (
        "the ledger beside the lake is what its runs give: 3 lines"
    )
    path = Path((ledger.current_paths() or [])[0])
    pq.write_table(pq.read_table(path).slice(0, 1), path)
    assert broken(check_lake(filled, now=NOW)) == {"ledger kept"}
    path.write_bytes(b"nothing")
    assert broken(check_lake(filled, now=NOW)) == {"ledger kept"}
    checked, _told = repair(filled)
    assert broken(checked) == set()


# What a person should know


def test_unknown_statuses_and_reasons_gaps_and_unfinished_runs_are_noted(lake: LakeFiles) -> None:
    land(
        lake,
        classify("clr_1", status="EXPIRED", createdAt="2026-10-20T00:00:00Z"),
        classify("clr_2", status="FAILED", failureReason="TOO_TIRED", createdAt="2026-10-24T00:00:00Z"),
        classify("clr_3", status="FAILED", failureReason="ABORTED", createdAt="2026-10-26T00:00:00Z"),
        classify("clr_4", status="PENDING", createdAt="2026-10-28T00:00:01Z"),
        classify("clr_5", status="PENDING", createdAt="2026-10-29T00:00:00Z"),
    )
    checked = check_lake(lake, now=datetime(2026, 11, 4, tzinfo=UTC))
    assert broken(checked) == set()
    notes = {each.check: (each.count, each.offenders) for each in checked.findings if each.state == "note"}
    # Until 4 November 0 h: clr_1 is 15 days old, clr_4 seven days less a second, clr_5 six.
    assert notes == {
        "statuses": (1, ("classify_run EXPIRED: 1 run, clr_1",)),
        "failure reasons": (1, ("classify_run TOO_TIRED: 1 run, clr_2",)),
        "days without runs": (5, ("2026-10-21 to 2026-10-23 (3 days)", "2026-10-25", "2026-10-27")),
        "unfinished runs": (1, ("clr_1 is EXPIRED, of 2026-10-20, last asked 2026-11-03",)),
    }


# The command


def test_the_command_lists_all_and_its_exit_code_tells(filled: LakeFiles, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["check", "--lake", str(filled.folder)]
    assert main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[0] == (
        "ok      files undamaged      8 files read to the last byte, 3 runs in them"
    )
    write_rows(filled, SECOND, filled.read_day(SECOND).to_pylist()[1:])
    assert main([*arguments, "--format", "json"]) == 5
    rows = json.loads(capsys.readouterr().out)
    assert [row["check"] for row in rows] == list(ALL_CHECKS)
    assert [(row["check"], row["count"]) for row in rows if row["state"] == "broken"] == [("raw log landed", 1)]
    assert main(arguments) == 5
    out = capsys.readouterr().out
    assert "broken  raw log landed       what the raw log holds, or held, and the lake has not: 1\n" in out
    assert "\n          clr_1 is in no file of runs, and 2026-11-03 12:00:00 by raw/" in out
    assert out.endswith("1 of 21 checks found a broken promise; mend what can be: pipeline check --repair\n")
    assert main([*arguments, "--repair"]) == 0
    told = capsys.readouterr()
    assert "repair: 3 runs made anew from 3 raw logs; 0 that no log holds kept" in told.err
    assert main(arguments) == 0


def test_without_a_lake_nothing_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--lake", str(tmp_path / "none")]) == 2
    assert "no lake here" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
