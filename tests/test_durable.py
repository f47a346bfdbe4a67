"""Durable writes: the old file or the new one, whole, and nothing left behind."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline import durable
from pipeline.durable import TEMPORARY_SUFFIX, make_folder, remove_file, write_file

needs_limits = pytest.mark.skipif(sys.platform == "win32", reason="limits on the size of files are of POSIX")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run_with_small_files(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own that may write files of at most 1,000 bytes: root is bound by that as well."""
    limited = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from pipeline.durable import write_file\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))\n"
        "folder = Path(sys.argv[1])\n"
    )
    command = [sys.executable, "-B", "-c", limited + code, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_new_file_is_there_whole(tmp_path: Path) -> None:
    write_file(tmp_path / "a.parquet", b"\x00new\xff")
    assert (tmp_path / "a.parquet").read_bytes() == b"\x00new\xff"
    assert names(tmp_path) == ["a.parquet"]


@pytest.mark.parametrize("content", [b"", b"n", b"longer than the old one" * 1_000, memoryview(b"from a view")])
def test_an_old_file_is_replaced_whole(tmp_path: Path, content: bytes | memoryview) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"the old one")
    write_file(path, content)
    assert path.read_bytes() == bytes(content)
    assert names(tmp_path) == ["a.parquet"]


def test_the_folders_above_are_made(tmp_path: Path) -> None:
    write_file(tmp_path / "lake" / "runs" / "day=2026-11-03" / "runs.parquet", b"x")
    assert (tmp_path / "lake" / "runs" / "day=2026-11-03" / "runs.parquet").read_bytes() == b"x"


@needs_limits
def test_a_disk_that_refuses_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"the old one")
    done = run_with_small_files(
        "try: write_file(folder / 'a.parquet', b'x' * 5_000)\nexcept OSError as error: print(error.strerror)\n",
        tmp_path,
    )
    assert done.stdout == "File too large\n", done.stderr
    assert (tmp_path / "a.parquet").read_bytes() == b"the old one"
    assert names(tmp_path) == ["a.parquet"]


@needs_limits
def test_a_disk_that_refuses_a_new_file_leaves_none(tmp_path: Path) -> None:
    done = run_with_small_files(
        "try: write_file(folder / 'a.parquet', b'x' * 5_000)\nexcept OSError as error: print(error.strerror)\n",
        tmp_path,
    )
    assert done.stdout == "File too large\n", done.stderr
    assert names(tmp_path) == []


@needs_limits
def test_a_process_that_dies_while_writing_leaves_the_old_file_and_no_name_that_a_query_would_read(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.parquet").write_bytes(b"the old one")
    done = run_with_small_files(
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\nwrite_file(folder / 'a.parquet', b'x' * 5_000)\n", tmp_path
    )
    assert done.returncode < 0, done.stderr
    assert (tmp_path / "a.parquet").read_bytes() == b"the old one"
    (left,) = [name for name in names(tmp_path) if name != "a.parquet"]
    assert left.startswith(".a.parquet.")
    assert left.endswith(TEMPORARY_SUFFIX)
    assert list(tmp_path.glob("*.parquet")) == [tmp_path / "a.parquet"]


def test_the_temporary_suffix_is_no_parquet() -> None:
    assert TEMPORARY_SUFFIX == ".tmp"


def test_what_cannot_take_the_place_of_a_folder_leaves_it_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").mkdir()
    (tmp_path / "a.parquet" / "inside").write_bytes(b"x")
    with pytest.raises(OSError, match="directory"):
        write_file(tmp_path / "a.parquet", b"new")
    assert names(tmp_path) == ["a.parquet"]
    assert names(tmp_path / "a.parquet") == ["inside"]


def test_content_of_a_wrong_type_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_file(tmp_path / "a.json", b"old")
    with pytest.raises(TypeError):
        write_file(tmp_path / "a.json", "text")
    assert (tmp_path / "a.json").read_bytes() == b"old"
    assert names(tmp_path) == ["a.json"]


def test_a_reader_sees_one_version_or_the_other_and_never_a_part(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    versions = {letter * 200_000 for letter in (b"a", b"b")}
    write_file(path, b"a" * 200_000)
    stop, seen = threading.Event(), set()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(40):
            write_file(path, (b"b", b"a")[number % 2] * 200_000)
    finally:
        stop.set()
        reader.join()
    assert seen <= versions
    assert seen


def test_writers_at_the_same_time_do_not_meet(tmp_path: Path) -> None:
    contents = [bytes([number]) * 50_000 for number in range(8)]
    writers = [threading.Thread(target=write_file, args=(tmp_path / "a.bin", content)) for content in contents]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert (tmp_path / "a.bin").read_bytes() in contents
    assert names(tmp_path) == ["a.bin"]


# ---------------------------------------------------------------------------------------------------------------------
# Folders and removing


def test_a_folder_is_made_with_those_above_it_and_may_be_there_already(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b" / "c")
    (tmp_path / "a" / "b" / "c" / "kept").write_bytes(b"x")
    make_folder(tmp_path / "a" / "b" / "c")
    assert names(tmp_path / "a" / "b" / "c") == ["kept"]


def test_a_file_in_the_way_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(OSError, match="a"):
        make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a").read_bytes() == b"x"


def test_removing_takes_the_file_alone_and_may_be_done_twice(tmp_path: Path) -> None:
    write_file(tmp_path / "a", b"x")
    write_file(tmp_path / "b", b"y")
    remove_file(tmp_path / "a")
    remove_file(tmp_path / "a")
    assert names(tmp_path) == ["b"]


def test_the_file_is_flushed_before_it_takes_its_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def flush(handle: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        done.append("new" if (tmp_path / "a.json").read_bytes() == b"new" else "old")

    (tmp_path / "a.json").write_bytes(b"old")
    monkeypatch.setattr(durable.os, "fsync", flush)
    write_file(tmp_path / "a.json", b"new")
    assert done == ["file", "old", "folder", "new"]
