"""kill -9 at places told by name, in every command that writes: nothing is lost, nothing twice, nothing asked again.

Each story is a command that is killed, perhaps killed again in what puts the lake right, and run once more. A reader
that knows nothing of the pipeline asks the same folder all the while.
"""

from __future__ import annotations

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
    KILLED,
    SOME_DID_NOT_LAND,
    Scene,
    all_ends,
    assert_readable,
    assert_whole,
    count_rows,
    making_scene,
    measure,
    noted_moves,
    step,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it has no SIGKILL, and no server that forks")

PAUSE_S = 0.05
IN_A_ROW = (1, 3, 4)
"""How often a command may be killed before it comes through."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with making_scene(tmp_path_factory.mktemp("scene"), seed=3, runs=60) as made:
        yield made


# The reader


class Reader(threading.Thread):
    """Reads a lake again and again until it is stopped, and notes as problems what must not be.

    DuckDB's `read_parquet` opens a file more than once a query: where one was replaced meanwhile, the query may fail,
    or mix the rows of both files, so it is asked again then; at all other times it must be right. pyarrow, with each
    file opened once, must always be. It reads file by file, so it may also meet a run on its way from day to day twice
    or not at all: which runs these were is compared with the moves in the end.
    """

    def __init__(self, lake: LakeFiles, there: set[str], twice: set[str]) -> None:
        super().__init__(name="reader")
        self.lake, self.there, self.twice = lake, there, twice
        self.queries = self.asked_again = 0
        self.problems: list[str] = []
        self.on_their_way: set[str] = set()
        self._stop_reading = threading.Event()

    def run(self) -> None:
        with duckdb.connect(config={"threads": 1}) as con:
            while not self._stop_reading.is_set():
                try:
                    self._ask(con)
                    self.on_their_way |= self._odd(count_rows(self.lake))
                except Exception as error:  # noqa: BLE001 - whatever a reader meets is a problem
                    self.problems.append(repr(error))
                self._stop_reading.wait(PAUSE_S)

    def stop(self) -> None:
        self._stop_reading.set()
        self.join()

    def _ask(self, con: duckdb.DuckDBPyConnection) -> None:
        before, moving = self._stamps(), noted_moves(self.lake)
        if not before:
            return
        error, counts = "", {}
        try:
            counts = dict(con.execute(COUNTED, {"paths": str(self.lake.runs_folder / "*/*.parquet")}).fetchall())
        except duckdb.Error as failure:
            error = str(failure)
        moving &= noted_moves(self.lake)
        self.queries += 1
        if before != self._stamps():
            self.asked_again += 1
        elif error or not self._odd(counts) <= moving:
            self.problems.append(error or f"twice or lost: {sorted(self._odd(counts) - moving)}")

    def _odd(self, counts: dict[str, int]) -> set[str]:
        """Return the runs that stand twice, or do not stand there any more."""
        return {run_id for run_id, count in counts.items() if count > 1} - self.twice | self.there - counts.keys()

    def _stamps(self) -> set[tuple[str, int, int]]:
        stats = [(path, path.stat()) for path in self.lake.runs_folder.glob("*/*.parquet")]
        return {(str(path), stat.st_mtime_ns, stat.st_ino) for path, stat in stats}


# The stories


@dataclass(slots=True)
class Told:
    """What many stories came to."""

    kills: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)
    queries: int = 0
    asked_again: int = 0
    not_reached: int = 0


def play(scene: Scene, lake: LakeFiles, steps: list[tuple[str, End | None]], told: Told) -> None:
    """Run commands one after the other, each to its end; the last one comes through, and then all must be whole."""
    there = set(count_rows(lake))
    moving = noted_moves(lake)
    twice = {run_id for run_id, count in count_rows(lake).items() if count > 1}
    reader = Reader(lake, there, twice - moving)
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
                assert_readable(lake, there, twice)
            else:
                assert ended.code in (0, SOME_DID_NOT_LAND)
                told.not_reached += end is not None
            there = reader.there = there | set(count_rows(lake))
        reader.stop()
        assert_whole(scene, lake, command, ended.output)
        assert reader.problems == []
        assert reader.on_their_way <= moving
    except AssertionError as error:
        error.add_note(f"the story: {story}")
        raise
    finally:
        reader.stop()
    told.queries += reader.queries
    told.asked_again += reader.asked_again
    shutil.rmtree(lake.folder)


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
                # Those that follow a kill may not be reached, so first come places at which nothing was killed yet.
                end = (
                    chance.choice(left[command])
                    if steps
                    else min(left[command], key=lambda each: told.places[each.place])
                )
                left[command].remove(end)
                steps.append((command, end))
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
        ("load", End("replace", 2, "before")),
        ("rebuild", End("write a file", 1, "middle")),
        ("rebuild", End("land logs", 1, "after")),
        ("rebuild", None),
    ]
    told = Told()
    play(scene, scene.copy("nothing", tmp_path / "lake"), steps, told)
    assert told.kills.total() == 6
    assert told.queries > 10


@pytest.mark.long
def test_killed_thirty_times_in_the_writing_stages_nothing_is_lost_nothing_twice_and_nothing_asked_again(
    scene: Scene, tmp_path: Path
) -> None:
    told = play_many(scene, tmp_path, kills=30, seed=2)
    print(told)
    assert len(told.places) > 15


@pytest.mark.soak
def test_killed_two_hundred_times_in_the_writing_stages(scene: Scene, tmp_path: Path) -> None:
    told = play_many(scene, tmp_path, kills=200, seed=3)
    print(told)
    assert set(told.places) == {place for counts in scene.reached.values() for place in counts}
