"""kill -9 at places told by name, in every command that writes: nothing is lost, nothing twice, nothing asked again.

Each story is a command that is killed, perhaps killed again in what puts the lake right, and run once more. A reader
that knows nothing of the pipeline asks the same folder all the while.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline.lake import LakeFiles
from tests.crash_child import End
from tests.crashes import (
    COUNTED,
    Ended,
    Scene,
    all_ends,
    assert_readable,
    assert_whole,
    count_rows,
    finished_and_logged,
    making_scene,
    measure,
    noted_moves,
    run_child,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it has no SIGKILL, and no server that forks")

KILLED = -9
PAUSE_S = 0.01
ASKING = ("fetch", "sync", "retry")
SOME_DID_NOT_LAND = 3
IN_A_ROW = (1, 1, 2, 3)
"""How often a command may be killed before it comes through."""


@pytest.fixture(autouse=True, scope="module")
def _no_flush() -> Iterator[None]:
    """Do not wait for the disk: a killed process loses nothing that it has written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _handle: None)
        yield


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with making_scene(tmp_path_factory.mktemp("scene"), seed=3, runs=60) as made:
        yield made


# The reader


class Reader(threading.Thread):
    """Asks a lake with DuckDB's `read_parquet` again and again, until it is stopped, and notes what must not be.

    A query may fail where a file is replaced meanwhile, and is asked again then. A query that spans a replacement may
    also meet a moving run in both of its days or in neither: which runs these were is compared with the moves in the
    end. All else is a problem.
    """

    def __init__(self, lake: LakeFiles, there: set[str], twice: set[str]) -> None:
        super().__init__(name="reader")
        self.lake, self.there, self.twice = lake, there, twice
        self.queries = self.failed = 0
        self.problems: list[str] = []
        self.blurred: set[str] = set()
        self._stop_asking = threading.Event()

    def run(self) -> None:
        with duckdb.connect(config={"threads": 1}) as con:
            while not self._stop_asking.is_set():
                self._ask(con)
                self._stop_asking.wait(PAUSE_S)

    def stop(self) -> None:
        self._stop_asking.set()
        self.join()

    def _ask(self, con: duckdb.DuckDBPyConnection) -> None:
        before, moves_before = self._stamps(), noted_moves(self.lake)
        if not before:
            return
        error, counts = "", {}
        try:
            counts = dict(con.execute(COUNTED, {"paths": str(self.lake.runs_folder / "*/*.parquet")}).fetchall())
        except duckdb.Error as failure:
            error = str(failure)
        moving = moves_before & noted_moves(self.lake)
        is_still = before == self._stamps()
        self.queries += 1
        if error:
            self.failed += 1
            if is_still:
                self.problems.append(error)
            return
        odd = {run_id for run_id, count in counts.items() if count > 1} - self.twice | self.there - counts.keys()
        if is_still and not odd <= moving:
            self.problems.append(f"twice or lost: {sorted(odd - moving)}")
        elif not is_still:
            self.blurred |= odd

    def _stamps(self) -> set[tuple[str, int, int]]:
        stamps = set()
        for path in self.lake.runs_folder.glob("*/*.parquet"):
            stat = path.stat()
            stamps.add((str(path), stat.st_mtime_ns, stat.st_ino))
        return stamps


# The stories


@dataclass(slots=True)
class Told:
    """What many stories came to."""

    kills: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)
    queries: int = 0
    failed_queries: int = 0
    not_reached: int = 0


def play(scene: Scene, lake: LakeFiles, steps: list[tuple[str, End | None]], told: Told) -> None:
    """Run commands one after the other, each to its end; the last one comes through, and then all must be whole."""
    before = count_rows(lake)
    moving = noted_moves(lake)
    twice = {run_id for run_id, count in before.items() if count > 1}
    reader = Reader(lake, set(before), twice - moving)
    reader.start()
    story: list[Any] = []
    try:
        for command, end in steps:
            ended = step(scene, lake, command, end)
            story.append((command, end, ended.code, ended.output))
            moving |= ended.moving
            if ended.code == KILLED:
                told.kills[command] += 1
                told.places[end.place if end else ""] += 1
                assert_readable(lake, set(before), twice)
            else:
                assert ended.code in (0, SOME_DID_NOT_LAND)
                told.not_reached += end is not None
        reader.stop()
        assert_whole(scene, lake, command, ended.output)
        assert reader.problems == []
        assert reader.blurred <= moving
    except AssertionError as error:
        error.add_note(f"the story: {story}")
        raise
    finally:
        reader.stop()
    told.queries += reader.queries
    told.failed_queries += reader.failed
    shutil.rmtree(lake.folder)


def step(scene: Scene, lake: LakeFiles, command: str, end: End | None) -> Ended:
    """Run a command up to its end; it asks for nothing that is logged, or for nothing at all."""
    known = finished_and_logged(lake)
    asked, requests = Counter(scene.server.asked), scene.server.requests
    ended = run_child(scene, lake, command, end)
    if command in ASKING:
        assert not known & set(scene.server.asked - asked)
    else:
        assert scene.server.requests == requests
    return ended


def play_many(scene: Scene, folder: Path, *, kills: int, seed: int) -> Told:
    """Play stories of all commands in turn until there were so many kills."""
    chance, told = random.Random(seed), Told()
    left: dict[str, list[End]] = {command: [] for command in scene.commands}
    for command in scene.commands:
        if command not in scene.reached:
            measure(scene, folder, command)
    while told.kills.total() < kills:
        for command in scene.commands:
            steps: list[tuple[str, End | None]] = []
            for _ in range(min(chance.choice(IN_A_ROW), kills - told.kills.total())):
                left[command] = left[command] or all_ends(scene, command, chance)
                steps.append((command, left[command].pop()))
            if steps:
                play(scene, scene.copy(command, folder / "lake"), [*steps, (command, None)], told)
    return told


def test_commands_killed_at_named_places_leave_a_lake_that_readers_can_use_and_the_next_one_completes(
    scene: Scene, tmp_path: Path
) -> None:
    steps: list[tuple[str, End | None]] = [
        ("fetch", End("checkpoint a frame", 2, "middle")),
        ("fetch", End("write a day", 2, "before")),
        ("fetch", None),
        ("load", End("write a day", 3, "after")),
        ("rebuild", End("write a file", 1, "middle")),
        ("load", End("replace", 2, "before")),
        ("load", None),
        ("rebuild", End("land logs", 1, "before")),
        ("rebuild", None),
    ]
    told = Told()
    play(scene, scene.copy("nothing", tmp_path / "lake"), steps, told)
    assert told.kills.total() == 6
    assert told.queries > 10


@pytest.mark.long
def test_killed_forty_times_in_the_writing_stages_nothing_is_lost_nothing_twice_and_nothing_asked_again(
    scene: Scene, tmp_path: Path
) -> None:
    told = play_many(scene, tmp_path, kills=40, seed=2)
    assert len(told.places) > 15


@pytest.mark.soak
def test_killed_two_hundred_times_in_the_writing_stages(scene: Scene, tmp_path: Path) -> None:
    told = play_many(scene, tmp_path, kills=200, seed=3)
    print(told)
    assert set(told.places) == {place for counts in scene.reached.values() for place in counts}
