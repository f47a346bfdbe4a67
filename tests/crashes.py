"""What the tests of crashes share: lakes to crash in, the child that crashes, and what must hold after."""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.context import ForkServerContext
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.catalog import Lake
from pipeline.checks.lake import check_lake
from pipeline.fetch import fetch_runs
from pipeline.kinds import FINISHED
from pipeline.lake import LakeFiles
from pipeline.ledger import LedgerFiles
from pipeline.replay import load_files
from pipeline.sandbox.model import CHARGES_FROM, FIRST_DAY
from pipeline.sandbox.server import SandboxServer, serve
from pipeline.sandbox.world import World
from tests import crash_child
from tests.conftest import connect
from tests.crash_child import HALVES, End, Order
from tests.logged import logged
from tests.worlds import make_squeezed_world

FAST = 10_000.0
KILLED = -9
SOME_DID_NOT_LAND = 3
ASKING = ("fetch", "sync", "retry")
WRITING_ALWAYS = (*ASKING, "load", "rebuild")
"""Commands that hold the lake's lock, and so clear away what the dead left, even where there is nothing to do."""
STALE = "stale"
GONE_IDS = [f"clr_{number:021d}" for number in range(3)]
"""Well-formed, but no runs: they become dead letters."""
COUNTED = "SELECT run_id, count(*) FROM read_parquet($paths, hive_partitioning=false) GROUP BY run_id"


# The organization, and lakes in all states


@dataclass(slots=True)
class Scene:
    """A served organization, and for each command a lake that it has something to do in."""

    server: SandboxServer
    folder: Path
    run_ids: list[str]
    gone_ids: list[str]
    commands: dict[str, list[str]] = field(default_factory=dict)
    reached: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def world(self) -> World:
        return self.server.world

    def lake(self, name: str) -> LakeFiles:
        """Return the lake that a command begins with, made when it is asked for first."""
        lake = LakeFiles(self.folder / name)
        if not lake.folder.exists():
            _MAKING[name](self)
        return lake

    def copy(self, name: str, into: Path) -> LakeFiles:
        """Return a fresh lake in the state that a command begins with."""
        return LakeFiles(shutil.copytree(self.lake(name).folder, into, copy_function=shutil.copy2))


@contextmanager
def making_scene(folder: Path, *, seed: int, runs: int) -> Iterator[Scene]:
    """Serve an organization, and write down what its commands are given."""
    world = make_squeezed_world(seed=seed, runs=runs, eras=(FIRST_DAY, CHARGES_FROM))
    with serve(world) as server:
        mine = [run_id for run_id in world.run_ids(world.workspaces[0]) if not run_id.startswith("vr_")]
        scene = Scene(server, folder, mine, GONE_IDS)
        (folder / "ids.txt").write_text("\n".join([*mine, *scene.gone_ids]))
        summaries = [world.summary(run_id) for run_id in mine if world.run(run_id).kind.listed]
        pages = [{"object": "list", "data": summaries[start : start + 10]} for start in range(0, len(summaries), 10)]
        (folder / "pages.jsonl").write_text("".join(json.dumps(page) + "\n" for page in pages))
        asking = ["--qps", str(FAST), "--quiet"]
        scene.commands = {
            "fetch": ["fetch", "--from", str(folder / "ids.txt"), *asking],
            "sync": ["sync", "--details", "all", *asking],
            "load": ["load", str(folder / "pages.jsonl"), "--quiet"],
            "retry": ["retry", *asking],
            "rebuild": ["rebuild", "--quiet"],
            "check --repair": ["check", "--repair"],
            "ledger": ["ledger"],
        }
        yield scene


def _fetch(scene: Scene, name: str, run_ids: list[str], *, key: str | None = None) -> None:
    connection = connect(scene.server)
    if key is not None:
        connection = replace(connection, api_key=type(connection.api_key)(key))
    fetch_runs(run_ids, lake=scene.folder / name, qps=FAST, connection=connection)


def _make_half_fetched(scene: Scene) -> None:
    """Details alone: those of some kinds tell no time of creation, so that their runs move once lists have told it."""
    _fetch(scene, "fetch", [*scene.run_ids[::2], *scene.gone_ids[:2]])


def _make_refused(scene: Scene) -> None:
    scene.copy("fetch", scene.folder / "retry")
    _fetch(scene, "retry", scene.run_ids[1::2], key="wrong")


def _make_all_fetched(scene: Scene) -> None:
    scene.copy("fetch", scene.folder / "load")
    _fetch(scene, "load", [*scene.run_ids[1::2], *scene.gone_ids])


def _make_listed(scene: Scene) -> None:
    lake = scene.copy("load", scene.folder / "listed")
    load_files([str(scene.folder / "pages.jsonl")], lake, report=lambda place, why: print(place, why))


def _make_changed_since_its_ledger(scene: Scene) -> None:
    lake = scene.copy("listed", scene.folder / "ledger")
    LedgerFiles(lake).refresh()
    for day in lake.days()[::2]:
        lake.write_day(day, lake.read_day(day))


def _make_broken(scene: Scene) -> None:
    lake = scene.copy("listed", scene.folder / "check --repair")
    LedgerFiles(lake).refresh()
    _break(lake)


_MAKING: dict[str, Callable[[Scene], object]] = {
    "nothing": lambda scene: (scene.folder / "nothing").mkdir(),
    "fetch": _make_half_fetched,
    "sync": lambda scene: scene.copy("fetch", scene.folder / "sync"),
    "retry": _make_refused,
    "load": _make_all_fetched,
    "listed": _make_listed,
    "rebuild": lambda scene: _spoil_rows(scene.copy("listed", scene.folder / "rebuild")),
    "ledger": _make_changed_since_its_ledger,
    "check --repair": _make_broken,
}


def _spoil_rows(lake: LakeFiles) -> None:
    """Let all rows say something wrong, as by an earlier way of flattening, and some stand in a wrong day."""
    column = pa.field("dashboard_url", pa.string())
    for day in lake.days():
        table = lake.read_day(day)
        place = table.schema.get_field_index(column.name)
        lake.write_day(day, table.set_column(place, column, pa.array([STALE] * len(table), pa.string())))
    first, last = lake.days()[0], lake.days()[-1]
    table = lake.read_day(first)
    lake.write_day(last, pa.concat_tables([lake.read_day(last), table.slice(0, 3)]))
    lake.write_day(first, table.slice(3))


def _break(lake: LakeFiles) -> None:
    """Break all that `check --repair` can mend, and that leaves the runs readable."""
    first, second, last = lake.days()[0], lake.days()[1], lake.days()[-1]
    table = lake.read_day(first)
    lake.write_day(last, pa.concat_tables([lake.read_day(last), table.slice(0, 2)]))  # twice, once in a wrong day
    other = lake.read_day(second)
    lake.write_day(second, pa.concat_tables([other.slice(3), other.slice(3, 2)]))  # twice, and three are missing
    lake.write_moves([(other["run_id"][5].as_py(), last, second)])
    flip(lake.dead_letters_path)
    flip(next(lake.loads_folder.glob("*.parquet")))
    flip(next((lake.folder / "ledger").glob("day=*/lines-*.parquet")))


def flip(path: Path) -> None:
    """Change one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


# The child


@dataclass(slots=True)
class Ended:
    """How a child ended: its exit code (-9: killed), and what it had told."""

    code: int
    counts: Counter[str]
    promised: set[str]
    moving: set[str]
    output: str


def forking_children() -> ForkServerContext:
    """Return what starts children in milliseconds."""
    children = multiprocessing.get_context("forkserver")
    children.set_forkserver_preload(crash_child.PRELOADED)
    return children


def run_child(
    scene: Scene, place: LakeFiles | str, command: str, end: End | None = None, disk: Path | None = None,
    environment: dict[str, str] | None = None,
) -> Ended:  # fmt: skip
    """Run a command in a child up to its end, or to where it is killed; of a bucket with an environment to reach it."""
    beside, server = scene.folder / "beside", scene.server
    beside.mkdir(exist_ok=True)
    cut = None if disk is None else str(disk)
    name = place if isinstance(place, str) else str(place.folder)
    order = Order(
        scene.commands[command], name, str(beside), server.base_url, server.key, end, cut, environment or {}
    )  # fmt: skip
    children = forking_children()
    mine, its = children.Pipe(duplex=False)
    child = children.Process(target=crash_child.run, args=(order, its))
    child.start()
    its.close()
    ended = Ended(0, Counter(), set(), set(), "")
    with mine:
        try:
            while True:
                what, value = mine.recv()
                if what == "counts":
                    ended.counts.update(value)
                else:
                    getattr(ended, what).update(value)
        except (EOFError, OSError):  # it has ended, perhaps in the middle of telling something
            pass
    child.join()
    ended.code = child.exitcode or 0
    child.close()
    ended.output = (beside / "output").read_text()
    return ended


def step(scene: Scene, lake: LakeFiles, command: str, end: End | None, disk: Path | None = None) -> Ended:
    """Run a command up to its end; it asks for nothing that is logged, or for nothing at all."""
    known = finished_and_logged(lake)
    asked, requests = Counter(scene.server.asked), scene.server.requests
    ended = run_child(scene, lake, command, end, disk)
    if command in ASKING:
        assert not known & set(scene.server.asked - asked)
    else:
        assert scene.server.requests == requests
    return ended


def measure(scene: Scene, folder: Path, command: str) -> None:
    """Run a command undisturbed, noting how often it passes each place."""
    lake = scene.copy(command, folder / f"measured {command}")
    ended = run_child(scene, lake, command)
    scene.reached[command] = ended.counts
    assert ended.code in (0, SOME_DID_NOT_LAND), ended.output
    shutil.rmtree(lake.folder)


def all_ends(scene: Scene, command: str, chance: random.Random) -> list[End]:
    """Return an end of every sort that a command can come to, each at a passing chosen by chance, in a random order."""
    ends = [
        End(place, chance.randint(1, count), when)
        for place, count in scene.reached[command].items()
        for when in ("before", "after", *(["middle"] if place in HALVES else []))
    ]
    chance.shuffle(ends)
    return ends


# What must hold


def finished_and_logged(lake: LakeFiles) -> set[str]:
    """Return the runs of which a log holds a finished detail: nobody may ask for them again."""
    return {
        run_id
        for path in lake.raw_logs()
        for run_id, payload in logged(path).items()
        if payload["status"] in FINISHED and "config" in payload
    }


def count_rows(lake: LakeFiles) -> Counter[str]:
    """Count the rows of each run with pyarrow alone, and each file opened once (`pq.read_table` of a path does not)."""
    rows: Counter[str] = Counter()
    for path in lake.runs_folder.glob("*/*.parquet"):
        with path.open("rb") as file:
            rows.update(pq.ParquetFile(file).read(["run_id"])["run_id"].to_pylist())
    return rows


def noted_moves(lake: LakeFiles) -> set[str]:
    """Return the runs that are noted as moving at this moment."""
    try:
        return {run_id for run_id, _old, _new in json.loads(lake.moving_path.read_bytes())["moves"]}
    except FileNotFoundError:
        return set()


def assert_readable(lake: LakeFiles, at_least: set[str], but: set[str]) -> None:
    """Nothing is lost of what was there, nothing there twice but what is noted as moving: for a bare reader."""
    paths = [str(path) for path in lake.runs_folder.glob("*/*.parquet")]
    counts = dict(duckdb.connect().execute(COUNTED, {"paths": paths}).fetchall()) if paths else {}
    assert counts == count_rows(lake)
    assert at_least <= counts.keys()
    assert {run_id for run_id, count in counts.items() if count > 1} <= noted_moves(lake) | but


def assert_whole(scene: Scene, lake: LakeFiles, command: str, output: str = "") -> None:
    """The lake is what the world is: every run once, its credits and failures; and no promise is broken."""
    rows = count_rows(lake)
    assert set(rows.values()) == {1}
    expected = set(scene.run_ids)
    if command == "sync":
        space = scene.world.workspaces[0]
        expected = {run.run_id for run in scene.world.iter_runs(space) if run.kind.listed} | set(scene.run_ids[::2])
        assert expected <= rows.keys() <= set(scene.world.run_ids(space))
    else:
        assert rows.keys() == expected
    assert_credits_are_the_worlds(scene, lake, by_list=command not in ("fetch", "retry"), run_ids=set(rows))
    letters = {row["run_id"]: row["reason"] for row in lake.read_dead_letters().to_pylist()}
    asked = scene.gone_ids[:2] if command in ("sync", "retry") else scene.gone_ids
    assert letters == dict.fromkeys(asked, "NOT_FOUND"), output
    if command == "ledger":
        assert LedgerFiles(lake).current_paths() is not None
    broken = [each for each in check_lake(lake).findings if each.state == "broken"]
    assert broken == [], output
    if command in WRITING_ALWAYS:
        assert not [path for path in lake.folder.rglob("*.tmp") if "ledger" not in path.parts]


def assert_credits_are_the_worlds(scene: Scene, lake: LakeFiles, *, by_list: bool, run_ids: set[str]) -> None:
    """Compare credits by day and kind, failures and statuses with what the world knows; nothing spoiled is left."""
    world = scene.world
    stale = "SELECT count(*) FROM runs WHERE dashboard_url = $stale"
    right = world.answers(world.workspaces[0], known="both" if by_list else "detail", run_ids=run_ids)
    with Lake(lake.folder) as catalog:
        credits = catalog.credits().to_arrow_table().to_pylist()
        by_day = {(row["day"], row["kind"]): row["credits"] for row in credits if row["credits"]}
        assert by_day == {key: amount for key, amount in right.credits.items() if amount}
        failures = catalog.failures().to_arrow_table().to_pylist()
        told = {(row["kind"], row["reason"]): row["failed"] for row in failures if not row["is_total"]}
        assert told == right.failures
        assert catalog.sql(stale, stale=STALE).fetchall() == [(0,)]
        statuses = catalog.sql("SELECT kind, status, count(*) FROM runs GROUP BY ALL").fetchall()
        assert {(kind, status): count for kind, status, count in statuses} == right.statuses
