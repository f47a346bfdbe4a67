"""The raw log: what a checkpoint wrote is read back, and damage costs no more than what it touches."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from pipeline import raw

NOON = datetime(2026, 11, 3, 12, 0, 0, 123456, tzinfo=UTC)


def record(number: int) -> bytes:
    body = json.dumps({"id": f"clr_{number}", "text": "ü" * 50}, ensure_ascii=False).encode()
    return raw.run_record(f"clr_{number}", body, fetched_at=NOON, is_detail=True, workspace_id="ws_1")


def write_frames(path: Path, *frames: range) -> list[int]:
    writer = raw.RawWriter.create(path)
    ends = []
    for numbers in frames:
        for number in numbers:
            writer.append(record(number))
        ends.append(writer.checkpoint())
    writer.close()
    return ends


def read_ids(path: Path, offset: int = 0) -> list[str]:
    frames = [part for part in raw.iter_frames(path, offset) if isinstance(part, raw.Frame)]
    return [each["run_id"] for frame in frames for each in raw.iter_records(frame.lines) if each]


def test_what_was_checkpointed_is_read_back_whole(tmp_path: Path) -> None:
    path = raw.raw_path(tmp_path, "20261103T120000123Z-abc123")
    ends = write_frames(path, range(3), range(3, 5))
    assert path == tmp_path / "2026-11" / "20261103T120000123Z-abc123.jsonl.zst"
    parts = list(raw.iter_frames(path))
    assert [part.end for part in parts if isinstance(part, raw.Frame)] == ends
    assert isinstance(parts[0], raw.Frame)
    assert list(raw.iter_records(parts[0].lines))[1] == {
        "record": "run",
        "run_id": "clr_1",
        "fetched_at": "2026-11-03T12:00:00.123456+00:00",
        "detail": True,
        "workspace_id": "ws_1",
        "payload": {"id": "clr_1", "text": "ü" * 50},
    }


def test_reading_goes_on_from_the_end_of_an_earlier_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    ends = write_frames(path, range(3), range(3, 5), range(5, 6))
    assert read_ids(path, ends[0]) == ["clr_3", "clr_4", "clr_5"]
    assert read_ids(path, ends[2]) == []


def test_what_was_not_checkpointed_is_not_in_the_file(tmp_path: Path) -> None:
    writer = raw.RawWriter.create(tmp_path / "a.jsonl.zst")
    writer.append(record(1))
    assert (tmp_path / "a.jsonl.zst").stat().st_size == 0
    writer.close()


@pytest.mark.parametrize("missing_bytes", [1, 5, 40])
def test_a_torn_tail_costs_that_tail_alone(tmp_path: Path, missing_bytes: int) -> None:
    path = tmp_path / "a.jsonl.zst"
    ends = write_frames(path, range(3), range(3, 5))
    path.write_bytes(path.read_bytes()[:-missing_bytes])
    assert read_ids(path) == ["clr_0", "clr_1", "clr_2"]
    damage = list(raw.iter_frames(path))[-1]
    assert damage == raw.Damage(ends[0], ends[1] - missing_bytes, is_tail=True)


def test_a_flipped_byte_in_the_middle_costs_its_frame_and_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    ends = write_frames(path, range(3), range(3, 5), range(5, 9))
    content = bytearray(path.read_bytes())
    content[(ends[0] + ends[1]) // 2] ^= 0xFF
    path.write_bytes(content)
    assert read_ids(path) == ["clr_0", "clr_1", "clr_2", "clr_5", "clr_6", "clr_7", "clr_8"]
    damages = [part for part in raw.iter_frames(path) if isinstance(part, raw.Damage)]
    assert damages == [raw.Damage(ends[0], ends[1], is_tail=False)]


def test_a_second_writer_cannot_take_over_a_log(tmp_path: Path) -> None:
    write_frames(tmp_path / "a.jsonl.zst", range(1))
    with pytest.raises(FileExistsError):
        raw.RawWriter.create(tmp_path / "a.jsonl.zst")


def test_line_ends_between_tokens_do_not_break_the_line() -> None:
    line = raw.run_record(
        "clr_1", b'{\r\n "id": "clr_1",\n "n": "a\\nb"}', fetched_at=NOON, is_detail=False, workspace_id=None
    )
    assert line.count(b"\n") == 1
    assert json.loads(line)["payload"] == {"id": "clr_1", "n": "a\nb"}


def test_a_line_that_is_no_record_is_told_and_the_rest_goes_on() -> None:
    lines = [b"{not json", b"[1]", b'{"no": "record"}', b"[" * 100_000, b'{"record": "end"}']
    assert list(raw.iter_records(lines)) == [None, None, None, None, {"record": "end"}]


def test_a_record_with_what_is_no_json_elsewhere_is_read_as_python_reads_it() -> None:
    texts = [b"-Infinity", b"1e400", b"9" * 40, b'"\\ud800"', b'"\xed\xa0\x80"', b"-0.0", b'1, "x": 2']
    lines = [b'{"record": "run", "x": %s}' % text for text in texts]
    read = [each["x"] for each in raw.iter_records(lines) if each]
    assert repr(read) == repr([float("-inf"), float("inf"), int("9" * 40), "\ud800", "\ud800", -0.0, 2])


def test_duckdb_reads_the_log_as_it_is(tmp_path: Path) -> None:
    write_frames(tmp_path / "a.jsonl.zst", range(3), range(3, 5))
    query = "SELECT count(*), max(payload.id) FROM read_json($path)"
    assert duckdb.sql(query, params={"path": str(tmp_path / "a.jsonl.zst")}).fetchall() == [(5, "clr_4")]


def test_load_ids_sort_by_time() -> None:
    first = raw.new_load_id(NOON)
    assert first.startswith("20261103T120000123Z-")
    assert first < raw.new_load_id(NOON.replace(microsecond=124000))


@pytest.mark.skipif(sys.platform == "win32", reason="/dev/full is a device of Linux")
def test_a_full_disk_loses_nothing_that_was_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    code = (
        "import sys; from pathlib import Path; from pipeline import raw\n"
        "writer = raw.RawWriter(Path('/dev/full'), open('/dev/full', 'wb', buffering=0))\n"
        "writer.append(b'{}\\n')\n"
        "try: writer.checkpoint()\n"
        "except OSError as error: print(type(error).__name__, writer.pending_bytes)\n"
        "writer._file = open(sys.argv[1], 'xb', buffering=0)\n"
        "writer.checkpoint()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.stdout == "OSError 3\n", done.stderr
    assert [part.lines for part in raw.iter_frames(path) if isinstance(part, raw.Frame)] == [[b"{}"]]
