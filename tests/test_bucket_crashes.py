"""kill -9 at places told by name, over a lake in a bucket; then the next command, from another machine.

Nothing is lost, nothing twice, and what had reached the bucket is asked for by nobody again.
"""

from __future__ import annotations

import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import obstore
import pytest

from pipeline.bucket import logs
from pipeline.opening import open_lake
from tests.bucket import Bucket, making_bucket
from tests.crash_child import BUCKET_LEASE_S, HALVES, End
from tests.crashes import (
    ASKING,
    KILLED,
    SOME_DID_NOT_LAND,
    Scene,
    assert_whole,
    finished_and_logged,
    making_scene,
    run_child,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it has no SIGKILL, and no server that forks")

Step = tuple[str, End | None]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with making_scene(tmp_path_factory.mktemp("scene"), seed=3, runs=60) as made:
        yield made


@dataclass(slots=True)
class Told:
    """What stories came to: kills by place, and how many runs of the bucket's logs were there after them; the last."""

    kills: Counter[str] = field(default_factory=Counter)
    shipped: int = 0
    story: list[object] = field(default_factory=list)


def fill(bucket: Bucket, folder: Path) -> None:
    """Copy a lake in a folder to the bucket, as any program would."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and name.parts[0] != "ledger" and not any(part.startswith(".") for part in name.parts):
            obstore.put(bucket.store(), name.as_posix(), path.read_bytes())


def logged_in_bucket(bucket: Bucket, scratch: Path) -> set[str]:
    """Return the finished details that the bucket's logs hold, those of loads that died too, by looking at its objects
    alone.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    for name in bucket.names():
        parts = name.split("/")
        if parts[0] == "raw":
            path = scratch / name
        elif parts[0] == logs.FOLDER and parts[2].isdigit():
            path = scratch / "raw" / f"{parts[1][:4]}-{parts[1][4:6]}" / f"{parts[1]}.jsonl.zst"
        else:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        content = bytes(obstore.get(bucket.store(), name).bytes())
        if parts[0] == "raw":
            path.write_bytes(content)
        else:
            with path.open("r+b" if path.exists() else "wb") as file:
                file.seek(int(parts[2]))
                file.write(content)
    from pipeline.lake import LakeFiles

    return finished_and_logged(LakeFiles(scratch))


def play(scene: Scene, bucket: Bucket, steps: list[Step], told: Told, *, machines: str = "abcdefgh") -> None:
    """Run commands one after the other, each on another machine; the last one comes through, and then all is whole."""
    story = told.story = []
    for number, (command, end) in enumerate(steps):
        known = logged_in_bucket(bucket, scene.folder / "seen")
        asked = Counter(scene.server.asked)
        ended = run_child(
            scene, bucket.url, command, end, environment=bucket.environment(machines[number % len(machines)])
        )
        story.append((command, end, ended.code, ended.output))
        if command in ASKING:
            assert not known & set(scene.server.asked - asked), story
        if ended.code == KILLED:
            told.kills[end.place if end else ""] += 1
            told.shipped += len(logged_in_bucket(bucket, scene.folder / "seen"))
            # Until then another machine cannot tell a load that died from one that is at work.
            time.sleep(BUCKET_LEASE_S + 1)
        else:
            assert ended.code in (0, SOME_DID_NOT_LAND), story
    with bucket.on("z"):
        lake = open_lake(bucket.url)
        lake.fetch_logs()
        try:
            assert_whole(scene, lake, command, ended.output)
        except AssertionError as error:
            error.add_note(f"the story: {story}")
            raise
    assert not [name for name in bucket.names() if name.startswith((f"{logs.FOLDER}/", ".turn"))], story


def test_a_writer_killed_at_named_places_is_completed_by_the_next_machine(scene: Scene, bucket: Bucket) -> None:
    told = Told()
    steps: list[Step] = [
        ("fetch", End("checkpoint a frame", 3, "after")),
        ("fetch", End("write a day", 2, "before")),
        ("fetch", End("publish a log", 1, "after")),
        ("fetch", None),
        ("load", End("write a day", 2, "after")),
        ("rebuild", End("note an object", 2, "before")),
        ("rebuild", None),
    ]
    play(scene, bucket, steps, told)
    # On a machine that halts for a moment, all may have come and landed before the first one is killed; then the second
    # has no second day to write.
    assert told.kills.keys() == {end.place for _command, end in steps if end is not None}, told.story
    assert told.kills.total() >= 4, told.story
    assert told.shipped > 50


@pytest.mark.long
def test_writers_killed_twenty_times_on_changing_machines_lose_nothing_and_ask_for_nothing_twice(
    scene: Scene, moto: str, tmp_path: Path
) -> None:
    told, chance = Told(), random.Random(5)
    commands = ("fetch", "load", "sync", "retry", "rebuild")
    reached: dict[str, Counter[str]] = {}
    for command in commands:
        with making_bucket(moto, tmp_path / f"measured-{command}") as bucket:
            fill(bucket, scene.lake(command).folder)
            ended = run_child(scene, bucket.url, command, environment=bucket.environment())
            assert ended.code in (0, SOME_DID_NOT_LAND), ended.output
            reached[command] = ended.counts
    number = 0
    while told.kills.total() < 20:
        number += 1
        command = commands[number % len(commands)]
        steps: list[Step] = []
        for _ in range(chance.choice((1, 2, 3))):
            place = min(reached[command], key=lambda each: (told.kills[each], chance.random()))
            whens = ("before", "after", *(["middle"] if place in HALVES else []))
            steps.append((command, End(place, chance.randint(1, reached[command][place]), chance.choice(whens))))
        with making_bucket(moto, tmp_path / f"story-{number}") as bucket:
            fill(bucket, scene.lake(command).folder)
            play(scene, bucket, [*steps, (command, None)], told)
    print(told)
    assert len(told.kills) > 12
