"""One bit flips in any file of a lake, and `pipeline check` names the file."""

from __future__ import annotations

import random
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from pipeline.checks import notes, parquet_files, raw_logs
from pipeline.checks.lake import check_lake
from pipeline.erased import read_erased
from pipeline.errors import LakeDamagedError, RunFailedError
from pipeline.fetch import fetch_runs
from pipeline.forget import forget_runs
from pipeline.lake import LakeFiles
from pipeline.ledger import LedgerFiles
from pipeline.loads import Load
from pipeline.sandbox.server import serve
from pipeline.sync import SyncOptions, run_sync
from tests.conftest import NOON, classify, connect, land
from tests.worlds import ERAS, make_squeezed_world

LAKES = Path(__file__).parent / "lakes"
NOW = NOON + timedelta(days=1)
KINDS = {
    "runs/", "raw/", "loads/", "dead_letters.parquet", "lake.json", "erased.json", "sync/",
    "ledger/day", "ledger/credit_sums", "ledger/run_sums", "ledger/manifest.json",
}  # fmt: skip
"""How the names of each kind of file begin."""
TOGETHER = (
    ("runs/", "loads/", "dead_letters.parquet", "sync/", "ledger/manifest.json"),
    ("raw/", "lake.json", "erased.json", "ledger/day", "ledger/credit_sums", "ledger/run_sums"),
)
"""Kinds that may be damaged at once, so that fewer checks do: the damage of none of them hides that of another."""


@pytest.fixture(scope="module")
def full_lake(tmp_path_factory: pytest.TempPathFactory) -> LakeFiles:
    """A lake with a file of every kind: synced, fetched with a failure, with a run forgotten, and its ledger kept."""
    lake = LakeFiles(tmp_path_factory.mktemp("bit_rot") / "lake")
    world = make_squeezed_world(seed=5, runs=40, eras=ERAS[-1:], days=1)
    with serve(world) as server:
        connection = connect(server)
        run_sync(lake, [connection], SyncOptions(qps=5_000))
        fetch_runs(["clr_none", *world.run_ids()[:3]], lake=lake.folder, connection=connection, qps=5_000, refresh=True)
    load = Load(lake, command="fetch", source="test")
    load.take_failure(RunFailedError("run clr_9: HTTP 500", run_id="clr_9", reason="HTTP_500"), workspace_id=None)
    load.finish()
    land(lake, {"object": "classify_run", "id": "clr_odd", "status": "PROCESSED", "config": {}})
    forget_runs(lake, world.run_ids()[5:6])
    LedgerFiles(lake).refresh()
    assert broken(lake) == []
    return lake


def upgraded_lake(folder: Path, version: int) -> LakeFiles:
    """Return a kept lake of an earlier version, brought up to date by a writer."""
    shutil.copytree(LAKES / f"schema-{version}", folder)
    lake = LakeFiles(folder)
    with lake.writing():
        pass
    assert broken(lake) == []
    return lake


def broken(lake: LakeFiles) -> list[str]:
    """Return what a check names as broken, as it names it."""
    found = [each for each in check_lake(lake, now=NOW).findings if each.state == "broken"]
    return [offender for each in found for offender in each.offenders]


def files_by_kind(lake: LakeFiles) -> dict[str, list[Path]]:
    """Return the lake's files by the beginning of their names; those that hold nothing are left out."""
    found = defaultdict(list)
    for path in sorted(path for path in lake.folder.rglob("*") if path.is_file() and path.stat().st_size):
        name = path.relative_to(lake.folder).as_posix()
        found[next(kind for kind in KINDS if name.startswith(kind))].append(path)
    return found


@contextmanager
def flipped(places: Iterable[tuple[Path, int, int]]) -> Iterator[None]:
    """Flip a bit of each of some files meanwhile: which file, which byte, which bit."""
    before = {}
    try:
        for path, position, bit in places:
            before[path] = path.read_bytes()
            content = bytearray(before[path])
            content[position] ^= 1 << bit
            path.write_bytes(content)
        yield
    finally:
        for path, content in before.items():
            path.write_bytes(content)


def assert_flips_are_found(lake: LakeFiles, kinds: tuple[str, ...], *, rounds: int, seed: int) -> None:
    dice = random.Random(seed)
    files = files_by_kind(lake)
    for _ in range(rounds):
        places = []
        for kind in kinds:
            if kind in files:
                path = dice.choice(files[kind])
                places.append((path, dice.randrange(path.stat().st_size), dice.randrange(8)))
        with flipped(places):
            told = broken(lake)
        for path, position, bit in places:
            name = path.relative_to(lake.folder).as_posix()
            assert any(f"{name}: " in each for each in told), (name, position, bit, told)


def test_the_lake_has_a_file_of_every_kind(full_lake: LakeFiles) -> None:
    assert set(files_by_kind(full_lake)) == KINDS == {kind for kinds in TOGETHER for kind in kinds}


@pytest.mark.long
@pytest.mark.parametrize("kinds", TOGETHER, ids=["tables and states", "logs and notes"])
def test_a_flipped_bit_in_any_file_is_found_and_the_file_named(full_lake: LakeFiles, kinds: tuple[str, ...]) -> None:
    assert_flips_are_found(full_lake, kinds, rounds=5, seed=7)
    assert broken(full_lake) == []


@pytest.mark.long
@pytest.mark.parametrize("kinds", TOGETHER, ids=["tables and states", "logs and notes"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_flipped_bit_in_any_file_of_an_upgraded_lake_is_found(
    tmp_path: Path, version: int, kinds: tuple[str, ...]
) -> None:
    lake = upgraded_lake(tmp_path / "lake", version)
    LedgerFiles(lake).refresh()
    assert_flips_are_found(lake, kinds, rounds=5, seed=version)


# Every byte, by the part of the check that reads such a file: a whole check for each would take hours.


class Parts:
    """The parts of a check that look into files, one by one."""

    def __init__(self, lake: LakeFiles) -> None:
        self._lake = lake
        self._schemas = dict(lake.parquet_files())
        loads = lake.read_loads().to_pylist()
        self._landed = {row["load_id"]: (row["raw_bytes"], row["raw_sha256"]) for row in loads}
        self._con = duckdb.connect()

    def is_found(self, path: Path) -> bool:
        """Tell whether a file's part of the check calls it damaged."""
        name = path.relative_to(self._lake.folder).as_posix()
        if path in self._schemas:
            state = parquet_files.read_state(self._lake, path, self._schemas[path], is_current=True)
            return state is not None and state.damage is not None
        part: Callable[[Path, str], bool] = {
            "raw": self._is_found_in_logs, "ledger": self._is_found_in_ledger, "erased.json": self._is_found_in_erased,
        }.get(name.partition("/")[0], self._is_found_in_notes)  # fmt: skip
        return part(path, name)

    def _is_found_in_logs(self, _path: Path, name: str) -> bool:
        logs = raw_logs.read_logs(self._lake, self._con, self._landed)
        return any(log.damage for log in logs if log.name == name)

    def _is_found_in_ledger(self, path: Path, name: str) -> bool:
        ledger = LedgerFiles(self._lake)
        if path == ledger.manifest_path:
            return notes.ledger_damage(ledger) is not None
        return any(told.startswith(f"{name}: ") for told in parquet_files.iter_ledger_damage(ledger))

    def _is_found_in_erased(self, _path: Path, _name: str) -> bool:
        try:
            read_erased(self._lake)
        except LakeDamagedError:
            return True
        return False

    def _is_found_in_notes(self, path: Path, _name: str) -> bool:
        return path in {found for found, _why in notes.iter_damaged(self._lake)}


def missed_flips(lake: LakeFiles, *, small_bytes: int, most: int, seed: int) -> list[tuple[str, int, int]]:
    """Return the flips that no part of the check finds: of a bit of each byte, of larger files of some."""
    dice = random.Random(seed)
    parts = Parts(lake)
    missed = []
    for path in (path for paths in files_by_kind(lake).values() for path in paths):
        assert not parts.is_found(path)
        size = path.stat().st_size
        for position in range(size) if size <= small_bytes else sorted(dice.sample(range(size), min(size, most))):
            place = (path, position, dice.randrange(8))
            with flipped([place]):
                if not parts.is_found(path):
                    missed.append((path.relative_to(lake.folder).as_posix(), *place[1:]))
    return missed


@pytest.mark.long
def test_a_flipped_bit_of_each_byte_of_small_files_is_found(full_lake: LakeFiles) -> None:
    assert missed_flips(full_lake, small_bytes=300, most=40, seed=1) == []


@pytest.mark.long
def test_a_flipped_bit_of_each_byte_of_small_files_of_an_upgraded_lake_is_found(tmp_path: Path) -> None:
    assert missed_flips(upgraded_lake(tmp_path / "lake", 2), small_bytes=300, most=40, seed=2) == []


@pytest.mark.soak
def test_a_flipped_bit_of_each_byte_of_every_file_is_found(full_lake: LakeFiles) -> None:
    assert missed_flips(full_lake, small_bytes=100_000, most=0, seed=2) == []


# Before and after


def test_a_lake_of_an_earlier_version_gets_its_checksums_from_the_first_writer(tmp_path: Path) -> None:
    lake = upgraded_lake(tmp_path / "lake", 2)
    log = lake.raw_logs()[0]
    state = lake.folder / "sync" / "default" / "classify_run.json"
    # A bit of a zstd frame that means nothing to its readers, and the year of a watermark: 2026 becomes 2027.
    places = [(log, 484, 7), (state, state.read_bytes().index(b"2026-11-03T12") + 3, 0)]
    with flipped(places):
        told = broken(lake)
    for path, _position, _bit in places:
        name = path.relative_to(lake.folder).as_posix()
        assert any(each.startswith(f"{name}: ") for each in told), name
    land(lake, classify("clr_7"))
    assert broken(lake) == []
