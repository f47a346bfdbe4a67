"""Parts of a load's log that other processes wrote: what counts lands, what is left over lands or goes, none twice."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline import raw
from pipeline.errors import RunMissingError
from pipeline.intake import failure_record
from pipeline.lake import LakeFiles
from pipeline.loads import Load, recover
from pipeline.parts import list_parts, part_path, parts_folder
from tests.conftest import NOON, classify


def write_part(load: Load, name: str, *payloads: dict[str, object], torn: bool = False) -> Path:
    """Write a part as an executor does; with `torn`, end it as one that is killed does."""
    import json

    path = part_path(load.log_path, name)
    writer = raw.RawWriter.create(path)
    for payload in payloads:
        body = json.dumps(payload).encode()
        writer.append(raw.run_record(str(payload["id"]), body, fetched_at=NOON, is_detail=True, workspace_id=None))
    writer.checkpoint()
    writer.close()
    if torn:
        with path.open("ab") as file:
            file.write(raw.pack_frame([b'{"record": "run"}'])[:-7])
    return path


def start(lake: LakeFiles) -> Load:
    return Load(lake, command="spark", source="test")


def rows(lake: LakeFiles) -> list[tuple[str, str]]:
    """Return each run with the load that wrote it, over all days' files: one that stands twice is there twice."""
    return sorted((row["run_id"], row["load_id"]) for day in lake.days() for row in lake.read_day(day).to_pylist())


def test_a_part_that_is_taken_is_in_the_loads_log_and_lands_with_it(lake: LakeFiles) -> None:
    load = start(lake)
    load.take_part(write_part(load, "00000-1", classify("clr_1"), classify("clr_2")))
    result = load.finish()
    load.close()
    assert (result.landed, result.is_complete) == (2, True)
    assert rows(lake) == [("clr_1", result.load_id), ("clr_2", result.load_id)]
    (log,) = lake.raw_logs()
    records = [record for frame in raw.iter_frames(log) for record in raw.iter_records(frame.lines)]
    assert [record["record"] for record in records] == ["load", "run", "run", "end"]
    (row,) = lake.read_loads().to_pylist()
    assert (row["state"], row["landed"], row["raw_bytes"]) == ("complete", 2, log.stat().st_size)


def test_failures_of_a_part_become_dead_letters(lake: LakeFiles) -> None:
    load = start(lake)
    path = part_path(load.log_path, "00000-1")
    writer = raw.RawWriter.create(path)
    gone = RunMissingError("run clr_9: HTTP 404", run_id="clr_9", reason="NOT_FOUND", http_status=404)
    writer.append(failure_record(gone, workspace_id=None, failed_at=datetime(2026, 11, 4, tzinfo=UTC)))
    writer.checkpoint()
    writer.close()
    load.take_part(path)
    result = load.finish()
    load.close()
    assert (result.missing, result.failed_reasons) == (1, {"NOT_FOUND": 1})
    assert lake.read_dead_letters()["run_id"].to_pylist() == ["clr_9"]


def test_of_a_load_whose_driver_died_all_that_had_arrived_lands_once(lake: LakeFiles) -> None:
    load = start(lake)
    write_part(load, "00000-1", classify("clr_1"), classify("clr_2"))
    write_part(load, "00001-2", classify("clr_3"), torn=True)
    write_part(load, "00000-3", classify("clr_1"))  # the same partition, tried again
    load.close()
    told: list[str] = []
    assert recover(lake, tell=told.append) == 1
    assert [run_id for run_id, _load in rows(lake)] == ["clr_1", "clr_2", "clr_3"]
    assert not parts_folder(load.log_path).exists()
    assert [row["state"] for row in lake.read_loads().to_pylist()] == ["interrupted"]
    assert recover(lake) == 0


def test_parts_of_a_load_at_work_are_left_alone(lake: LakeFiles) -> None:
    load = start(lake)
    part = write_part(load, "00000-1", classify("clr_1"))
    assert recover(lake) == 0
    assert part.exists()
    assert rows(lake) == []
    load.close()


def test_what_an_attempt_wrote_after_its_load_had_ended_is_removed_and_never_lands(lake: LakeFiles) -> None:
    load = start(lake)
    load.take_part(write_part(load, "00000-1", classify("clr_1")))
    load.finish()
    load.close()
    write_part(load, "00001-9", classify("clr_2"))
    recover(lake)
    assert not parts_folder(load.log_path).exists()
    assert [run_id for run_id, _load in rows(lake)] == ["clr_1"]


def test_an_adoption_that_was_cut_short_is_done_again_and_each_run_lands_once(
    lake: LakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = start(lake)
    write_part(load, "00000-1", classify("clr_1"))
    write_part(load, "00001-2", classify("clr_2"))
    load.close()
    kept = raw.RawWriter.checkpoint
    calls = []

    def fail_once(writer: raw.RawWriter) -> int:
        calls.append(writer)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return kept(writer)

    monkeypatch.setattr(raw.RawWriter, "checkpoint", fail_once)
    with pytest.raises(OSError, match="No space"):
        recover(lake)
    assert len(list_parts(load.log_path)) == 2
    assert recover(lake) == 1
    assert [run_id for run_id, _load in rows(lake)] == ["clr_1", "clr_2"]
