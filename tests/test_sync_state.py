"""What sync knows of how far it has come: files that a person can read, and a machine can trust."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import durable
from pipeline.errors import LakeDamagedError, LakeLockedError
from pipeline.kinds import BY_OBJECT
from pipeline.lake import LakeFiles
from pipeline.sync_state import DetailState, Gap, KindState, SyncFiles

NOON = datetime(2026, 11, 3, 12, 0, tzinfo=UTC)
CLASSIFY, PARSE = BY_OBJECT["classify_run"], BY_OBJECT["parse_run"]
API = "https://api.test"
GAP = Gap("t/2+=", NOON - timedelta(seconds=1), NOON, NOON - timedelta(days=30))
STATE = KindState(
    watermark=NOON.replace(microsecond=250_000), walked_at=NOON, back_to=None, gap=GAP, followed_at=NOON, runs=1_234
)  # fmt: skip


@pytest.fixture
def files(lake: LakeFiles) -> SyncFiles:
    return SyncFiles(lake, None, API)


def read(files: SyncFiles) -> tuple[KindState, list[str]]:
    """Return a kind's state, and what was told."""
    told: list[str] = []
    return files.read_kind(CLASSIFY, tell=told.append), told


# --- the files --------------------------------------------------------------------------------------------------------


def test_before_the_first_sync_nothing_was_walked_and_nothing_is_told(files: SyncFiles) -> None:
    assert read(files) == (KindState(), [])
    assert files.read_details(tell=pytest.fail) == DetailState()
    assert not files.folder.exists()


def test_a_file_is_readable_json_with_all_that_is_known(files: SyncFiles) -> None:
    files.write_kind(CLASSIFY, STATE)
    text = (files.folder / "classify_run.json").read_text()
    sha256 = json.loads(text)["sha256"]
    assert hashlib.sha256(text.replace(sha256, "0" * 64).encode()).hexdigest() == sha256
    assert text == (
        "{\n"
        '  "version": 2,\n'
        '  "base_url": "https://api.test",\n'
        '  "workspace_id": null,\n'
        '  "watermark": "2026-11-03T12:00:00.250000Z",\n'
        '  "walked_at": "2026-11-03T12:00:00Z",\n'
        '  "back_to": null,\n'
        '  "gap": {\n'
        '    "token": "t/2+=",\n'
        '    "watermark": "2026-11-03T11:59:59Z",\n'
        '    "walked_at": "2026-11-03T12:00:00Z",\n'
        '    "down_to": "2026-10-04T12:00:00Z"\n'
        "  },\n"
        '  "followed_at": "2026-11-03T12:00:00Z",\n'
        '  "runs": 1234,\n'
        f'  "sha256": "{sha256}"\n'
        "}\n"
    )


@pytest.mark.parametrize("state", [KindState(), STATE, replace(STATE, gap=None), replace(STATE, watermark=None)])
def test_what_was_written_is_read(files: SyncFiles, state: KindState) -> None:
    files.write_kind(CLASSIFY, state)
    assert read(files) == (state, [])


TIMES = st.none() | st.datetimes(
    min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.sampled_from(  # noqa: DTZ001 - the zones are given
        [UTC, timezone(timedelta(hours=5, minutes=30))]
    ),
)  # fmt: skip
GAPS = st.none() | st.builds(Gap, st.text(), TIMES, TIMES.filter(bool), TIMES)


@settings(max_examples=25, deadline=None)  # each is flushed to the disk
@given(state=st.builds(KindState, TIMES, TIMES, TIMES, GAPS, TIMES, st.integers(0, 10**9)))
def test_whatever_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, state: KindState) -> None:
    files = SyncFiles(LakeFiles(tmp_path_factory.mktemp("state")), "ws_1", API)
    files.write_kind(CLASSIFY, state)
    assert read(files) == (state, [])


def test_details_are_a_file_of_their_own(files: SyncFiles) -> None:
    state = DetailState(none=None, credits=NOON, all=NOON - timedelta(days=1))
    files.write_details(state)
    assert files.read_details(tell=pytest.fail) == state
    assert json.loads((files.folder / "details.json").read_text())["credits"] == "2026-11-03T12:00:00Z"


def test_each_workspace_and_kind_has_its_own(lake: LakeFiles) -> None:
    SyncFiles(lake, None, API).write_kind(CLASSIFY, STATE)
    SyncFiles(lake, "ws_a", API).write_kind(PARSE, STATE)
    assert sorted(str(path.relative_to(lake.folder)) for path in lake.folder.rglob("*.json")) == [
        "sync/default/classify_run.json",
        "sync/ws_a/parse_run.json",
    ]
    assert SyncFiles(lake, "ws_a", API).read_kind(CLASSIFY, tell=pytest.fail) == KindState()


def test_a_lake_that_was_moved_goes_on_where_it_stopped(lake: LakeFiles, tmp_path: Path) -> None:
    SyncFiles(lake, "ws_a", API).write_kind(CLASSIFY, STATE)
    lake.folder.rename(tmp_path / "elsewhere")
    moved = SyncFiles(LakeFiles(tmp_path / "elsewhere"), "ws_a", API)
    assert moved.read_kind(CLASSIFY, tell=pytest.fail) == STATE


def test_a_file_is_replaced_as_a_whole_or_not_at_all(files: SyncFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_kind(CLASSIFY, STATE)

    def no_space(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        files.write_kind(CLASSIFY, KindState())
    assert read(files) == (STATE, [])
    assert [path.name for path in files.folder.iterdir()] == ["classify_run.json"]


def test_a_file_is_synced_before_it_takes_its_place(files: SyncFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def noting_fsync(handle: int) -> None:
        steps.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
        fsync(handle)

    def noting_rename(path: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(path, target)

    durable.make_folder(files.folder)
    monkeypatch.setattr("os.fsync", noting_fsync)
    monkeypatch.setattr(Path, "replace", noting_rename)
    files.write_kind(CLASSIFY, STATE)
    assert steps == ["file", "rename", "folder"]


# --- files that cannot be used ----------------------------------------------------------------------------------------


def test_the_state_of_another_api_is_told_and_not_used(lake: LakeFiles, files: SyncFiles) -> None:
    SyncFiles(lake, None, "https://eu.test").write_kind(CLASSIFY, STATE)
    state, told = read(files)
    assert state == KindState()
    path = files.folder / "classify_run.json"
    assert told == [f"{path}: of another API (https://eu.test), so everything is walked"]


VALID: dict[str, Any] = {
    "version": 1, "base_url": API, "workspace_id": None, "watermark": None, "walked_at": "2026-11-03T12:00:00Z",
    "back_to": None, "gap": None, "followed_at": None, "runs": 3,
}  # fmt: skip


def test_a_file_of_the_first_version_without_a_checksum_is_read(files: SyncFiles) -> None:
    durable.write_file(files.folder / "classify_run.json", json.dumps(VALID).encode())
    assert read(files) == (KindState(walked_at=NOON, runs=3), [])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"7",
        b"{}",
        b'{"version": 1}',
        *(
            json.dumps(VALID | fields).encode()
            for fields in (
                {"version": "new"},
                {"walked_at": "yesterday"},
                {"walked_at": 1_790_000_000},
                {"walked_at": ["2026-11-03T12:00:00Z"]},
                {"gap": "t2"},
                {"gap": {"token": "t2"}},
                {"gap": {"token": 2, "watermark": None, "walked_at": "2026-11-03T12:00:00Z", "down_to": None}},
                {"gap": {"token": "t2", "watermark": None, "walked_at": None, "down_to": None}},
                {"runs": "many"},
                {"runs": None},
                {"base_url": None},
            )
        ),
        json.dumps({name: value for name, value in VALID.items() if name != "watermark"}).encode(),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_everything_walked(files: SyncFiles, content: bytes) -> None:
    path = files.folder / "classify_run.json"
    durable.write_file(path, content)
    state, told = read(files)
    assert state == KindState()
    assert len(told) == 1
    assert told[0].startswith(f"{path}: ")
    assert told[0].endswith(", so everything is walked")


def test_a_folder_in_a_files_place_is_named(files: SyncFiles) -> None:
    (files.folder / "classify_run.json").mkdir(parents=True)
    state, told = read(files)
    assert state == KindState()
    assert "classify_run.json: cannot be used" in told[0]


def test_a_file_of_a_newer_version_is_not_overwritten_but_named(files: SyncFiles) -> None:
    path = files.folder / "classify_run.json"
    durable.write_file(path, json.dumps(VALID | {"version": 3}).encode())
    with pytest.raises(LakeDamagedError) as caught:
        read(files)
    assert str(caught.value) == (
        f"{path}: written by a newer version of this program (state 3, this one knows up to 2); "
        "upgrade with `pip install --upgrade extend-pipeline`"
    )


# --- where the next walk may stop -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("watermark", "walked_at", "down_to"),
    [
        (None, None, None),
        (NOON, None, None),
        (None, NOON, NOON - timedelta(minutes=5)),
        (NOON - timedelta(seconds=1), NOON, NOON - timedelta(minutes=5)),
        (NOON - timedelta(minutes=5), NOON, NOON - timedelta(minutes=5)),
        (NOON - timedelta(days=3), NOON, NOON - timedelta(days=3)),
        (NOON + timedelta(days=9_000), NOON, NOON - timedelta(minutes=5)),
    ],
)
def test_the_next_walk_may_stop_where_all_has_been_seen(
    watermark: datetime | None, walked_at: datetime | None, down_to: datetime | None
) -> None:
    assert KindState(watermark=watermark, walked_at=walked_at).down_to(timedelta(minutes=5)) == down_to


@pytest.mark.parametrize(("back_to", "minutes"), [(NOON - timedelta(days=9), 5), (NOON - timedelta(minutes=2), 2)])
def test_it_never_goes_back_beyond_where_the_first_one_was_told_to(back_to: datetime, minutes: int) -> None:
    state = KindState(watermark=NOON, walked_at=NOON, back_to=back_to)
    assert state.down_to(timedelta(minutes=5)) == NOON - timedelta(minutes=minutes)


# --- whose turn it is -------------------------------------------------------------------------------------------------

OTHER = """
import sys
from pipeline.errors import LakeLockedError
from pipeline.lake import LakeFiles
from pipeline.sync_state import SyncFiles
try:
    with SyncFiles(LakeFiles(sys.argv[1]), sys.argv[2] or None, "https://api.test").locked():
        print("at work", flush=True)
        if sys.argv[3] == "wait":
            sys.stdin.read()
except LakeLockedError as error:
    print(error)
"""


def other_process(lake: LakeFiles, workspace_id: str = "", *, wait: bool = False) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", OTHER, str(lake.folder), workspace_id, "wait" if wait else "go"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_second_sync_of_a_workspace_says_so_at_once(lake: LakeFiles, files: SyncFiles) -> None:
    message = f"{files.folder}: another sync of this workspace is at work on this lake; let it finish, then try again"
    with files.locked():
        begun = time.monotonic()
        with pytest.raises(LakeLockedError) as caught, SyncFiles(lake, None, API).locked():
            pass
        assert time.monotonic() - begun < 2.5
        assert str(caught.value) == message
        assert other_process(lake).communicate()[0] == f"{message}\n"
    assert other_process(lake).communicate()[0] == "at work\n"


def test_another_workspace_does_not_wait(lake: LakeFiles, files: SyncFiles) -> None:
    with files.locked(), SyncFiles(lake, "ws_a", API).locked():
        assert other_process(lake, "ws_b").communicate()[0] == "at work\n"


def test_a_sync_that_was_killed_holds_no_lock(lake: LakeFiles, files: SyncFiles) -> None:
    other = other_process(lake, wait=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "at work\n"
    with pytest.raises(LakeLockedError), files.locked():
        pass
    other.kill()
    other.communicate()
    with files.locked():
        pass


def test_the_lock_is_let_go_after_an_error(files: SyncFiles) -> None:
    with pytest.raises(ZeroDivisionError), files.locked():
        raise ZeroDivisionError
    with files.locked():
        pass


def test_what_a_crash_left_behind_is_removed_and_nothing_else(lake: LakeFiles, files: SyncFiles) -> None:
    files.write_kind(CLASSIFY, STATE)
    leftover = files.folder / f".classify_run.json.123-abcd{durable.TEMPORARY_SUFFIX}"
    leftover.write_text("{")
    others = lake.folder / "sync" / "ws_a" / leftover.name
    others.parent.mkdir()
    others.write_text("{")
    with files.locked():
        assert not leftover.exists()
    assert others.exists()
    assert read(files) == (STATE, [])
