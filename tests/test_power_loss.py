"""A power cut costs nothing that was promised: shown by what is asked of the disk, in which order, and by cutting it.

The order (write, flush, rename, flush the folder) is read off the system calls of real commands. The cut is one of a
file system in a file, whose kernel then forgets all that was not flushed; it takes root and a loop device.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.lake import LakeFiles
from tests.crash_child import End
from tests.crashes import (
    KILLED,
    SOME_DID_NOT_LAND,
    Scene,
    all_ends,
    assert_readable,
    assert_whole,
    count_rows,
    making_scene,
    measure,
    step,
)
from tests.logged import logged
from tests.programs import needed_program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="strace and ext4 are Linux's")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with making_scene(tmp_path_factory.mktemp("scene"), seed=3, runs=60) as made:
        yield made


IN_A_ROW = 2
"""How often the power is cut before a command comes through."""


# The order of the system calls


@dataclass(frozen=True, slots=True)
class Call:
    """One system call that did well: its thread, its name, the path it is about, and the one that it renames to."""

    thread: str
    name: str
    path: str
    new_path: str = ""

    @property
    def made(self) -> str:
        """The path that exists, or is gone, by this call."""
        return self.new_path or self.path


_TRACED = "openat,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,ftruncate"
_CALL = re.compile(r"(?P<thread>\d+) +(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>\d+).*")
_BEGUN = re.compile(r"(?P<thread>\d+) +(?P<begun>\w+\(.*) <unfinished \.\.\.>")
_RESUMED = re.compile(r"(?P<thread>\d+) +<\.\.\. \w+ resumed>(?P<rest>.*)")
_HANDLE = re.compile(r"\d+<(?P<path>[^>]*)>")
_QUOTED = re.compile(r'"(?P<path>(?:[^"\\]|\\.)*)"')
_SCRATCH = re.compile(r"/\.staging-|\.lock$")


def parse_calls(lines: Iterable[str], above: Path) -> list[Call]:
    """Return the calls below a folder that did well, as they ended; scratch files and locks need not survive."""
    begun: dict[str, str] = {}
    calls = []
    for line in lines:
        if match := _BEGUN.fullmatch(line):
            begun[match["thread"]] = match["begun"]
            continue
        if match := _RESUMED.fullmatch(line):
            line = f"{match['thread']} {begun.pop(match['thread'])}{match['rest']}"
        call = _parse_call(line)
        if call is not None and Path(call.made).is_relative_to(above) and not _SCRATCH.search(call.made):
            calls.append(call)
    return calls


def _parse_call(line: str) -> Call | None:
    match = _CALL.fullmatch(line)
    if match is None:
        return None
    name, arguments = match["name"], match["arguments"]
    if name in ("write", "pwrite64", "fsync", "fdatasync", "ftruncate"):
        handle = _HANDLE.match(arguments)
        return None if handle is None else Call(match["thread"], name.replace("pwrite64", "write"), handle["path"])
    if name == "openat" and "O_CREAT" not in arguments:
        return None
    paths = [found["path"] for found in _QUOTED.finditer(arguments)]
    plain = {"openat": "create", "fdatasync": "fsync"}.get(name, re.sub(r"at2?$", "", name))
    return Call(match["thread"], plain, *paths)


def iter_broken_orders(calls: list[Call]) -> Iterator[str]:
    """Yield what a power cut could undo though something later relies on it."""
    unflushed: set[str] = set()
    owed: dict[str, Call] = {}  # by thread: what made or took away a name of a folder that is not flushed
    for call in calls:
        if call.name == "fsync":
            unflushed.discard(call.path)
            if call.thread in owed and os.path.dirname(owed[call.thread].made) == call.path:
                del owed[call.thread]
            continue
        if call.thread in owed:
            yield f"{call} before the folder was flushed, after {owed.pop(call.thread)}"
        if call.name == "write" and call.path.endswith(".zst") and call.path in unflushed:
            yield f"{call} before the frame before it was flushed"
        if call.name in ("write", "ftruncate"):
            unflushed.add(call.path)
        elif call.name == "rename" and call.path in unflushed:
            unflushed.discard(call.path)
            yield f"{call} of what was not flushed"
        if call.name in ("rename", "mkdir", "unlink") or (call.name == "create" and not call.path.endswith(".tmp")):
            owed[call.thread] = call
        if call.name == "rename" and (logs := [path for path in unflushed if "/raw/" in path]):
            yield f"{call} before what was logged was flushed: {logs}"
    yield from (f"not flushed in the end: {path}" for path in unflushed if not path.endswith(".tmp"))
    yield from (f"its folder not flushed in the end: {call}" for call in owed.values())


@pytest.fixture(scope="module")
def strace() -> str:
    return needed_program("strace", to_install="apt-get install strace")


def record(strace: str, scene: Scene, lake: LakeFiles, command: str, folder: Path) -> list[Call]:
    """Run a command of the command line as it is, and return what it asks of the disk."""
    output = folder / "calls"
    arguments = [sys.executable, "-m", "pipeline.cli", *scene.commands[command], "--lake", str(lake.folder)]
    done = subprocess.run(
        [strace, "-f", "-y", "-s", "0", "--seccomp-bpf", "-e", f"trace={_TRACED}", "-o", str(output), *arguments],
        env={**os.environ, "EXTEND_BASE_URL": scene.server.base_url, "EXTEND_API_KEY": scene.server.key},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr
    return parse_calls(output.read_text().splitlines(), folder)


def assert_in_order(calls: list[Call]) -> None:
    """Nothing relies on what a power cut could undo; and were any one flush left out, this would tell."""
    assert list(iter_broken_orders(calls)) == []
    flushes = [number for number, call in enumerate(calls) if call.name == "fsync"]
    assert len(flushes) > 10
    needless = [calls[at] for at in flushes if not any(iter_broken_orders([*calls[:at], *calls[at + 1 :]]))]
    assert needless == []


def test_a_fetch_flushes_each_file_before_its_name_and_each_name_before_anything_relies_on_it(
    strace: str, scene: Scene, tmp_path: Path
) -> None:
    lake = LakeFiles(tmp_path / "new" / "lake")
    calls = record(strace, scene, lake, "fetch", tmp_path)
    assert_in_order(calls)
    made = {call.made.removeprefix(f"{lake.folder}/") for call in calls if call.name == "rename"}
    days = {f"runs/day={day}/runs.parquet" for day in lake.days()}
    assert days | {"lake.json", "dead_letters.parquet"} < made


@pytest.mark.long
def test_moves_are_noted_before_the_first_day_and_until_after_the_last(
    strace: str, scene: Scene, tmp_path: Path
) -> None:
    lake = scene.copy("load", tmp_path / "lake")
    calls = record(strace, scene, lake, "load", tmp_path)
    assert_in_order(calls)
    days = [at for at, call in enumerate(calls) if call.name == "rename" and "/runs/day=" in call.made]
    moving = [(at, call.name) for at, call in enumerate(calls) if call.made == str(lake.moving_path)]
    (noted, _rename), (over, _unlink) = moving
    assert [name for _at, name in moving] == ["rename", "unlink"]
    assert noted < days[0]
    assert over > days[-1]
    assert len(days) > 3


# The power of a disk


class Disk:
    """An ext4 file system in a file, mounted, whose power a child cuts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "mounted"
        self._image = folder / "image"
        self.folder.mkdir()
        with self._image.open("wb") as file:
            file.truncate(200 << 20)
        _order("mkfs.ext4", "-q", "-F", str(self._image))
        self.mount()

    def mount(self) -> None:
        _order("mount", "-o", "loop", str(self._image), str(self.folder))

    def unmount(self) -> None:
        for _ in range(50):
            if subprocess.run(["umount", str(self.folder)], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.1)  # who was killed just now may still let go
        _order("umount", str(self.folder))

    def come_back(self) -> None:
        """Have power again: the journal is replayed, and the kernel knows nothing but what is on the disk."""
        self.unmount()
        self.mount()

    def flush(self) -> None:
        _order("sync", "-f", str(self.folder))


def _order(*arguments: str) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(arguments)}: {done.stderr}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    # Not even continuous integration is promised root and a loop device.
    if os.geteuid() != 0:
        pytest.skip("to mount a file system takes root")
    try:
        mounted = Disk(tmp_path)
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    yield mounted
    mounted.unmount()


def cut_power(scene: Scene, disk: Disk, lake: LakeFiles, command: str, end: End) -> bool:
    """Cut the power at a command's end and look at what is left; tell whether that end was reached."""
    disk.flush()
    before = count_rows(lake)
    twice = {run_id for run_id, count in before.items() if count > 1}
    ended = step(scene, lake, command, end, disk.folder)
    disk.come_back()
    assert ended.code in (0, SOME_DID_NOT_LAND, KILLED)
    assert ended.promised <= {run_id for path in lake.raw_logs() for run_id in logged(path)}
    assert_readable(lake, set(before), twice)
    for day in lake.days():
        lake.read_day(day)  # raises where it is not, to the last byte, what was once written: the old or the new
    return ended.code == KILLED


def complete(scene: Scene, lake: LakeFiles, command: str) -> None:
    """The next command brings all to its end."""
    assert step(scene, lake, command, None).code in (0, SOME_DID_NOT_LAND)
    assert_whole(scene, lake, command)


@pytest.mark.long
def test_a_power_cut_leaves_what_was_promised_and_each_day_old_or_new(scene: Scene, disk: Disk) -> None:
    lake = LakeFiles(disk.folder / "new" / "lake")
    assert cut_power(scene, disk, lake, "fetch", End("stage a log", 1, "before"))
    assert {path.name for path in lake.folder.iterdir()} >= {"raw"}
    assert step(scene, lake, "fetch", None).code == SOME_DID_NOT_LAND
    assert cut_power(scene, disk, lake, "load", End("write a day", 2, "after"))
    complete(scene, lake, "load")


def cut_many(scene: Scene, disk: Disk, folder: Path, *, points: int, seed: int) -> None:
    chance = random.Random(seed)
    left: dict[str, list[End]] = {command: [] for command in scene.commands}
    reached = 0
    for command in itertools.cycle(scene.commands):
        if reached == points:
            break
        if command not in scene.reached:
            measure(scene, folder, command)
        lake = LakeFiles(disk.folder / "lake")
        if command != "fetch":  # it begins with no lake
            scene.copy(command, lake.folder)
        ends = []
        try:
            for _ in range(min(IN_A_ROW, points - reached)):
                left[command] = left[command] or all_ends(scene, command, chance)
                ends.append(left[command].pop())
                reached += cut_power(scene, disk, lake, command, ends[-1])
            complete(scene, lake, command)
        except Exception as error:
            error.add_note(f"the power was cut at {ends} of {command}")
            raise
        shutil.rmtree(lake.folder)


@pytest.mark.long
def test_the_power_is_cut_at_twelve_points_of_all_commands(scene: Scene, disk: Disk, tmp_path: Path) -> None:
    cut_many(scene, disk, tmp_path, points=12, seed=1)


@pytest.mark.soak
def test_the_power_is_cut_at_a_hundred_points_of_all_commands(scene: Scene, disk: Disk, tmp_path: Path) -> None:
    cut_many(scene, disk, tmp_path, points=100, seed=2)
