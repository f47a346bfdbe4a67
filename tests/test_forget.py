"""Forgotten runs are gone: from every file, and for good."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import zstandard

from pipeline import durable, raw
from pipeline.catalog import Lake
from pipeline.checks.lake import check_lake
from pipeline.checks.repair import repair_lake
from pipeline.config import Connection
from pipeline.erased import Erased, is_pseudonym, read_erased
from pipeline.errors import LakeDamagedError, LakeLockedError, RunFailedError, RunMissingError
from pipeline.fetch import fetch_runs
from pipeline.forget import forget_runs, related_runs
from pipeline.lake import LakeFiles
from pipeline.ledger import LedgerFiles
from pipeline.loads import Load, recover
from pipeline.progress import Silent
from pipeline.rebuild import rebuild_lake
from pipeline.replay import load_files
from pipeline.sandbox.server import SandboxServer
from pipeline.sandbox.world import World
from tests.conftest import NOON, classify, land
from tests.test_cli import run

SECRET = "Anna Example, born 1 May 1980"
NOW = datetime(2026, 11, 25, tzinfo=UTC)


def everything(folder: Path) -> str:
    """Return all that stands in all files of a folder, unpacked by other means than the program's own."""
    parts = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        parts += [str(path), content.decode("latin-1")]
        if path.suffix == ".zst":
            reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content), read_across_frames=True)
            parts.append(reader.read().decode())
        elif path.suffix == ".parquet":
            parts.append(repr(pq.read_table(path).to_pylist()))
    return "\n".join(parts)


def extract(run_id: str, **fields: Any) -> dict[str, Any]:
    return {**classify(run_id), "object": "extract_run", **fields}


def parse(run_id: str, **fields: Any) -> dict[str, Any]:
    return {**classify(run_id), "object": "parse_run", **fields}


def workflow(run_id: str, **fields: Any) -> dict[str, Any]:
    return {**classify(run_id), "object": "workflow_run", **fields}


FILE = {"object": "file", "id": "file_1", "name": "cv.pdf"}
OUTPUT = {"value": {"name": SECRET}}
EXTRACT = extract(
    "exr_secret", file=FILE, output=OUTPUT, parseRunId="pr_shared", metadata={"person": SECRET},
    usage={"credits": 3, "totalCredits": 5, "breakdown": [
        {"object": "extract_run", "id": "exr_secret", "credits": 3},
        {"object": "parse_run", "id": "pr_shared", "credits": 2},
    ]},
)  # fmt: skip
WORKFLOW = workflow(
    "workflow_run_1", files=[FILE], stepRuns=[{"object": "step_run", "id": "step_1", "result": EXTRACT}],
    usage={"credits": 5, "totalCredits": 5, "breakdown": [
        {"object": "extract_run", "id": "exr_secret", "credits": 3,
         "charges": [{"product": "extraction_performance", "unit": "page", "quantity": 1, "credits": 3}]},
        {"object": "parse_run", "id": "pr_shared", "credits": 2},
    ]},
)  # fmt: skip
OTHER = classify("clr_other", usage={"credits": 1})


@pytest.fixture(scope="module")
def filled_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a lake in which one run stands in every place where a run can stand."""
    lake = LakeFiles(tmp_path_factory.mktemp("filled") / "lake")
    land(lake, OTHER, EXTRACT, WORKFLOW)
    land(lake, parse("pr_shared", file=FILE, usage={"credits": 2}))
    load = Load(lake, command="fetch", source="exr_secret, clr_other")
    failed = RunFailedError("run exr_secret: HTTP 500", run_id="exr_secret", reason="HTTP_500", attempts=1)
    spoken = RunFailedError("run exr_late: made from exr_secret", run_id="exr_late", reason="HTTP_500", attempts=1)
    load.take_failure(failed, workspace_id=None)
    load.take_failure(spoken, workspace_id=None)
    load.finish()
    load.close()
    LedgerFiles(lake).refresh()
    return lake.folder


@pytest.fixture
def filled(filled_once: Path, lake: LakeFiles) -> LakeFiles:
    """A copy of that lake."""
    shutil.copytree(filled_once, lake.folder)
    return lake


def credits(lake: LakeFiles) -> Decimal:
    with Lake(lake.folder) as reader:
        return reader.sql("SELECT sum(credits) FROM credit_ledger").fetchall()[0][0]


def test_the_run_stands_in_many_places_before(filled: LakeFiles) -> None:
    text = everything(filled.folder)
    assert text.count("exr_secret") > 10
    assert SECRET in text
    assert filled.read_dead_letters()["run_id"].to_pylist() == ["exr_late", "exr_secret"]


def test_a_forgotten_run_is_in_no_file_any_more(filled: LakeFiles) -> None:
    done = forget_runs(filled, ["exr_secret"], now=lambda: NOW)
    text = everything(filled.folder)
    assert "exr_secret" not in text
    assert SECRET not in text
    assert (done.runs, done.swept.rows, done.swept.dead_letters, done.swept.altered) == (1, 1, 1, 1)
    assert done.swept.payloads == 2  # its payload, and the failure
    assert done.search.is_clean
    assert done.search.files == len(
        [path for path in filled.folder.rglob("*") if path.is_file() and path.name != ".lock"]
    )


def test_other_runs_keep_everything_but_its_name(filled: LakeFiles) -> None:
    forget_runs(filled, ["exr_secret"])
    with Lake(filled.folder) as reader:
        rows = reader.sql("SELECT run_id, total_credits, breakdown FROM runs ORDER BY run_id").fetchall()
    assert [row[0] for row in rows] == ["clr_other", "pr_shared", "workflow_run_1"]
    entry = rows[2][2][0]
    assert entry["object"] == "extract_run"
    assert is_pseudonym(entry["id"])
    assert entry["charges"][0]["product"] == "extraction_performance"
    assert filled.read_dead_letters()["message"].to_pylist() == [f"run exr_late: made from {entry['id']}"]
    source = [row["source"] for row in filled.read_loads().to_pylist()][-1]
    assert source == f"{entry['id']}, clr_other"


def test_its_credits_are_still_counted_once_where_another_run_tells_of_them(filled: LakeFiles) -> None:
    assert credits(filled) == Decimal(6)  # 1 of clr_other, 3 of exr_secret, 2 of pr_shared
    forget_runs(filled, ["exr_secret"])
    assert credits(filled) == Decimal(6)
    forget_runs(filled, ["workflow_run_1"])
    assert credits(filled) == Decimal(3)


def test_a_rebuild_does_not_bring_it_back(filled: LakeFiles) -> None:
    forget_runs(filled, ["exr_secret"])
    rebuild_lake(filled)
    for day in filled.days():
        filled.day_path(day).unlink()
    rebuild_lake(filled)
    assert "exr_secret" not in everything(filled.folder)
    with Lake(filled.folder) as reader:
        assert reader.sql("SELECT count(*) FROM runs").fetchall() == [(3,)]


def test_neither_a_saved_payload_nor_an_old_copy_of_its_log_brings_it_back(filled: LakeFiles, tmp_path: Path) -> None:
    copies = tmp_path / "backup"
    shutil.copytree(filled.raw_folder, copies)
    forget_runs(filled, ["exr_secret"])
    (tmp_path / "saved.json").write_text(json.dumps([EXTRACT, WORKFLOW]))
    told = io.StringIO()
    result = load_files([str(tmp_path / "saved.json")], filled, report=lambda *_: None, progress=Silent(told))
    assert (result.landed, result.unchanged, result.requested) == (0, 1, 1)
    assert told.getvalue() == "1 payload left out: of runs that were forgotten, or are pruned, in this lake\n"
    assert "exr_secret" not in everything(filled.folder)
    shutil.copytree(copies, filled.raw_folder, dirs_exist_ok=True)
    rebuild_lake(filled)
    with Lake(filled.folder) as reader:
        assert reader.sql("SELECT count(*) FROM runs WHERE run_id = 'exr_secret'").fetchall() == [(0,)]


def test_a_restored_log_is_found_by_check_and_mended_by_its_repair(filled: LakeFiles, tmp_path: Path) -> None:
    shutil.copytree(filled.raw_folder, tmp_path / "backup")
    forget_runs(filled, ["exr_secret"])
    gone = {each.check: each for each in check_lake(filled).findings}["gone for good"]
    assert gone.state == "ok"
    shutil.copytree(tmp_path / "backup", filled.raw_folder, dirs_exist_ok=True)
    checked = check_lake(filled)
    gone = {each.check: each for each in checked.findings}["gone for good"]
    assert gone.state == "broken"
    assert any("exr_secret" in each for each in gone.offenders)
    repaired = repair_lake(filled, checked, tell=lambda _message: None)
    assert [each for each in repaired.findings if each.state == "broken"] == []
    assert "exr_secret" not in everything(filled.folder)


def test_a_fetch_does_not_ask_for_it(
    world: World, server: SandboxServer, connection: Connection, lake: LakeFiles
) -> None:
    run_ids = [run_id for run_id in world.run_ids(world.workspaces[0]) if run_id.startswith("clr_")][:5]
    fetch_runs(run_ids, lake=lake.folder, qps=500, connection=connection)
    forget_runs(lake, run_ids[:2])
    before = Counter(server.asked)
    result = fetch_runs(run_ids, lake=lake.folder, qps=500, connection=connection, refresh=True)
    assert (result.requested, result.skipped, result.unchanged) == (5, 2, 3)
    assert server.asked - before == Counter(run_ids[2:])


def test_a_run_that_the_lake_never_had_is_kept_out_all_the_same(filled: LakeFiles) -> None:
    done = forget_runs(filled, ["clr_never"])
    assert (done.swept.rows, done.swept.payloads, done.search.is_clean) == (0, 0, True)
    land(filled, classify("clr_never"))
    assert "clr_never" not in everything(filled.folder)


def test_a_dead_letter_of_it_is_not_taken_in_again(filled: LakeFiles) -> None:
    forget_runs(filled, ["exr_secret"])
    load = Load(filled, command="retry", source="test")
    load.take_failure(
        RunMissingError("run exr_secret: gone", run_id="exr_secret", reason="NOT_FOUND"), workspace_id=None
    )
    assert load.is_empty
    load.finish()
    load.close()
    assert filled.read_dead_letters()["run_id"].to_pylist() == ["exr_late"]


def test_an_id_within_another_or_with_escapes_is_found_and_a_longer_one_is_left(lake: LakeFiles) -> None:
    land(
        lake,
        classify(
            "clr_a", metadata={"of": "x-exr_secret/1", "next": "exr_secret2"}, file={**FILE, "name": "exr_secret.pdf"}
        ),
        extract("exr_secret"),
        extract("exr_secret2"),
    )
    load = Load(lake, command="load", source="test")
    body = (
        json.dumps(classify("clr_b", metadata={"of": "exr_secret"})).replace("exr_secret", "exr\\u005fsecret").encode()
    )
    load.take_run("clr_b", body, fetched_at=NOON, is_detail=True, workspace_id=None)
    load.finish()
    load.close()
    done = forget_runs(lake, ["exr_secret"])
    assert done.search.is_clean
    text = everything(lake.folder)
    assert "exr_secret2" in text
    assert "exr_secret" not in text.replace("exr_secret2", "")
    assert "u005fsecret" not in text


def test_frames_that_do_not_speak_of_it_stay_byte_for_byte(lake: LakeFiles) -> None:
    load = Load(lake, command="load", source="test")
    for run_id in ("clr_1", "exr_secret", "clr_2"):
        body = json.dumps(extract(run_id) if run_id.startswith("exr") else classify(run_id))
        load.take_run(run_id, body.encode(), fetched_at=NOON, is_detail=True, workspace_id=None)
        load.checkpoint()
    load.finish()
    load.close()
    (path,) = lake.raw_logs()
    frames = [part for part in raw.iter_frames(path) if isinstance(part, raw.Frame)]
    content = path.read_bytes()
    first, last = content[: frames[1].end], content[frames[2].end :]
    forget_runs(lake, ["exr_secret"])
    assert path.read_bytes() == first + last
    assert lake.read_loads()["raw_bytes"].to_pylist() == [len(first + last)]
    assert lake.unlanded_logs() == []


def test_a_log_of_which_nothing_is_left_is_removed(lake: LakeFiles) -> None:
    land(lake, EXTRACT)
    land(lake, OTHER)
    done = forget_runs(lake, ["exr_secret"])
    assert (done.swept.removed_logs, done.swept.logs, len(lake.raw_logs())) == (1, 0, 1)
    assert lake.read_loads()["raw_file"].to_pylist()[0] is None
    assert check_lake(lake).is_whole


def test_damage_in_a_log_is_left_out_and_told(lake: LakeFiles) -> None:
    load = Load(lake, command="load", source="test")
    for payload in (classify("clr_1"), EXTRACT, classify("clr_2")):
        load.take_run(payload["id"], json.dumps(payload).encode(), fetched_at=NOON, is_detail=True, workspace_id=None)
        load.checkpoint()
    load.finish()
    load.close()
    (path,) = lake.raw_logs()
    frames = [part for part in raw.iter_frames(path) if isinstance(part, raw.Frame)]
    content = bytearray(path.read_bytes())
    content[frames[1].end + 20] ^= 1
    path.write_bytes(content)
    told: list[str] = []
    done = forget_runs(lake, ["exr_secret"], tell=told.append)
    assert done.search.is_clean
    lost = frames[2].end - frames[1].end
    assert any(f"{lost:,} bytes that could not be read are left out" in message for message in told)
    assert not any(isinstance(part, raw.Damage) for part in raw.iter_frames(path))


def test_a_damaged_file_set_aside_is_removed(filled: LakeFiles) -> None:
    day = filled.days()[0]
    aside = filled.day_path(day).with_name("runs.parquet.damaged-20261101T000000")
    aside.write_bytes(filled.day_path(day).read_bytes()[:-100])
    forget_runs(filled, ["exr_secret"])
    assert not aside.exists()


def test_a_load_at_work_is_waited_for(filled: LakeFiles) -> None:
    load = Load(filled, command="load", source="test")
    load.take_run("exr_secret", json.dumps(EXTRACT).encode(), fetched_at=NOON, is_detail=True, workspace_id=None)
    load.checkpoint()
    told: list[str] = []
    waits = threading.Event()

    def tell(message: str) -> None:
        told.append(message)
        waits.set()

    forgetting = threading.Thread(target=forget_runs, args=(filled, ["exr_secret"]), kwargs={"tell": tell})
    forgetting.start()
    assert waits.wait(10)
    assert told == [f"loads at work may hold these runs; waiting for their end: {load.result.load_id}"]
    load.finish()
    load.close()
    forgetting.join(30)
    assert "exr_secret" not in everything(filled.folder)


def test_a_load_that_does_not_end_is_named_and_the_next_command_finishes(filled: LakeFiles) -> None:
    load = Load(filled, command="load", source="test")
    load.take_run("exr_secret", json.dumps(EXTRACT).encode(), fetched_at=NOON, is_detail=True, workspace_id=None)
    load.checkpoint()
    with pytest.raises(LakeLockedError, match=load.result.load_id):
        forget_runs(filled, ["exr_secret"], wait_s=0)
    land(filled, EXTRACT)  # it is noted: nothing takes it in any more
    load.finish()
    load.close()
    assert "exr_secret" in everything(filled.folder)
    recover(filled)
    assert "exr_secret" not in everything(filled.folder)


@pytest.mark.long
@pytest.mark.parametrize("step", ["write_file", "sync_folder", "remove_file"])
def test_cut_short_at_any_write_the_next_command_finishes(
    filled: LakeFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    land(filled, EXTRACT | {"updatedAt": "2026-11-02T10:00:00Z"})  # a log of which nothing will be left
    real: Callable[..., None] = getattr(durable, step)
    shutil.copytree(filled.folder, tmp_path / "before")
    for number in range(1, 100):
        shutil.rmtree(filled.folder)
        shutil.copytree(tmp_path / "before", filled.folder)
        left = number

        def fails(*arguments: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise OSError("cut short")
            real(*arguments)

        monkeypatch.setattr(durable, step, fails)
        try:
            forget_runs(filled, ["exr_secret"])
        except OSError:
            monkeypatch.setattr(durable, step, real)
        else:
            break
        was_noted = read_erased(filled).has("exr_secret")
        recover(filled)
        if was_noted:
            assert "exr_secret" not in everything(filled.folder), number
            assert not read_erased(filled).unfinished
            rebuild_lake(filled)
            assert credits(filled) == Decimal(6)
        assert check_lake(filled).is_whole, number
    assert number > 1


def test_killed_in_the_midst_the_next_command_finishes(filled: LakeFiles) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom pipeline.forget import forget_runs\n"
        "from pipeline.lake import LakeFiles\nreal = Path.replace\n"
        "def replace(self, target):\n"
        "    if str(target).endswith('.zst'): os.kill(os.getpid(), signal.SIGKILL)\n    return real(self, target)\n"
        "Path.replace = replace\nforget_runs(LakeFiles(sys.argv[1]), ['exr_secret'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(filled.folder)],
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert done.returncode == -signal.SIGKILL
    assert read_erased(filled).unfinished
    told: list[str] = []
    recover(filled, tell=told.append)
    assert told[0].endswith("an erasure had been cut short; finishing it")
    assert "exr_secret" not in everything(filled.folder)
    assert list(filled.folder.rglob("*.tmp")) == []
    assert check_lake(filled).is_whole


def test_related_runs_are_named(filled: LakeFiles) -> None:
    assert related_runs(filled, ["exr_secret"]) == ["pr_shared", "workflow_run_1"]
    assert related_runs(filled, ["pr_shared"]) == ["exr_secret", "workflow_run_1"]
    assert related_runs(filled, ["clr_other"]) == []


def test_a_note_that_cannot_be_read_is_told_by_name(filled: LakeFiles) -> None:
    forget_runs(filled, ["exr_secret"])
    filled.erased_path.write_text("{")
    with pytest.raises(LakeDamagedError, match=r"erased\.json.*restore it from a copy"):
        land(filled, OTHER)


def test_the_note_names_no_run(filled: LakeFiles) -> None:
    forget_runs(filled, ["exr_secret"], now=lambda: NOW)
    note = json.loads(filled.erased_path.read_text())
    assert list(note["runs"].values()) == ["2026-11-25T00:00:00+00:00"]
    assert "secret" not in filled.erased_path.read_text()
    assert read_erased(filled).has("exr_secret")
    assert not Erased().has("exr_secret")  # another salt, and nothing forgotten


def test_a_time_of_which_the_day_in_utc_is_before_all_times_is_none() -> None:
    pruned = Erased(pruned_before=date(2026, 1, 1))
    assert not pruned.is_pruned({"createdAt": "0001-01-01T00:00:00+14:00"}, NOON)
    assert pruned.is_pruned({"createdAt": "0001-01-02T00:00:00+14:00"}, NOON)


# The command


def test_the_command_says_what_went_and_what_stays(filled: LakeFiles, tmp_path: Path) -> None:
    done = run("forget", "exr_secret", "--lake", str(filled.folder), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "1 run forgotten: 1 row, 2 records of raw logs, 1 dead letter"
    assert lines[1] == "1 row of other runs spoke of them, and now of pseudonyms"
    assert lines[2] == "other runs of the same files, or made for these, stay: pr_shared, workflow_run_1"
    assert lines[3].endswith("no trace")


def test_the_command_shows_what_it_would_do(filled: LakeFiles, tmp_path: Path) -> None:
    before = everything(filled.folder)
    (tmp_path / "ids.txt").write_text("exr_secret\nclr_never\nexr_secret\n")
    done = run("forget", "--from", "ids.txt", "--dry-run", "--lake", str(filled.folder), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"2 distinct IDs, 1 of them with a row in {filled.folder}\n")
    assert everything(filled.folder) == before


def test_the_command_speaks_json(filled: LakeFiles, tmp_path: Path) -> None:
    done = run("forget", "exr_secret", "--json", "--lake", str(filled.folder), folder=tmp_path)
    told = json.loads(done.stdout)
    assert (told["runs"], told["rows"], told["search"]["traces"]) == (1, 1, [])


def test_what_is_no_id_is_refused_before_anything_is_forgotten(filled: LakeFiles, tmp_path: Path) -> None:
    before = everything(filled.folder)
    done = run("forget", "exr_secret", "../x", "--lake", str(filled.folder), folder=tmp_path)
    assert done.returncode == 2
    assert "argument 2: '../x' is not a run ID" in done.stderr
    assert done.stderr.rstrip().endswith("nothing was forgotten")
    assert everything(filled.folder) == before


def test_a_trace_that_is_left_is_told_with_exit_code_1(filled: LakeFiles, tmp_path: Path) -> None:
    (filled.folder / "notes.txt").write_text("ask about exr_secret")
    done = run("forget", "exr_secret", "--lake", str(filled.folder), folder=tmp_path)
    assert done.returncode == 1
    assert "NOT ALL IS GONE" in done.stdout
    assert "notes.txt: speaks of exr_secret" in done.stderr


@pytest.mark.long
def test_a_sync_walks_no_further_for_a_forgotten_run(
    server: SandboxServer, connection: Connection, tmp_path: Path
) -> None:
    folder = tmp_path / "lake"
    lake = LakeFiles(folder)
    done = run(
        "sync", "--kind", "parse", "--qps", "500", "--quiet", "--lake", str(folder), folder=tmp_path, server=server
    )
    assert done.returncode == 0, done.stderr
    with Lake(folder) as reader:
        newest = reader.sql("SELECT run_id FROM runs ORDER BY created_at DESC LIMIT 3").fetchall()
    forget_runs(lake, [run_id for (run_id,) in newest])
    done = run(
        "sync", "--kind", "parse", "--qps", "500", "--json", "--lake", str(folder), folder=tmp_path, server=server
    )
    (told,) = json.loads(done.stdout)["workspaces"][0]["kinds"]
    assert (told["pages"], told["changed"]) == (2, 0)
