"""What several test modules stand on: made-up worlds served over real HTTP, and payloads made by hand."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.config import Connection, read_connection
from pipeline.lake import LakeFiles
from pipeline.loads import Load, LoadResult
from pipeline.sandbox.server import SandboxServer, serve
from pipeline.sandbox.world import World

if TYPE_CHECKING:
    from tests.bucket import Bucket

NOON = datetime(2026, 11, 3, 12, 0, tzinfo=UTC)


# Processes that tests start wait for the disk at every flush: as long again as the tests themselves take. In memory
# a flush takes no time. What survives a power cut is tested on a file system of its own.
_IN_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 4 << 30
if _IN_MEMORY.is_dir() and os.access(_IN_MEMORY, os.W_OK) and shutil.disk_usage(_IN_MEMORY).free > _ROOM_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_IN_MEMORY))

# Set, as in some containers, it has each process that a test starts compile all modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

_LONGEST = ("test_readme.py", "test_soak.py", "test_sync_living.py", "test_crashes.py", "test_power_loss.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests: at the end, one worker would do them alone."""
    items.sort(key=lambda item: item.path.name not in _LONGEST)


@pytest.fixture(scope="session", autouse=True)
def _no_flush() -> Iterator[None]:
    """Do not wait for the disk here: flushes and their order are counted by tests of their own, and in processes that
    tests start they are real.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which also fails where the file is not open
        yield


@pytest.fixture(scope="session")
def world() -> World:
    """A small world with all kinds of run; tests only read it."""
    return World(seed=11, runs=600)


@pytest.fixture
def server(world: World) -> Iterator[SandboxServer]:
    """That world, served."""
    with serve(world) as running:
        yield running


@pytest.fixture
def connection(server: SandboxServer) -> Connection:
    """The way to the served world, with the key of its first workspace."""
    return connect(server)


@pytest.fixture
def lake(tmp_path: Path) -> LakeFiles:
    """An empty lake."""
    return LakeFiles(tmp_path / "lake")


def connect(server: SandboxServer) -> Connection:
    """Return the way to a served world."""
    return read_connection(base_url=server.base_url, env={"EXTEND_API_KEY": server.key})


def classify(run_id: str = "clr_1", **fields: Any) -> dict[str, Any]:
    """Return a classify run's detail, made by hand."""
    return {
        "object": "classify_run",
        "id": run_id,
        "status": "PROCESSED",
        "createdAt": "2026-11-02T09:30:00Z",
        "updatedAt": "2026-11-02T09:31:00Z",
        "config": {},
        **fields,
    }


def land(
    lake: LakeFiles,
    *payloads: dict[str, Any],
    is_detail: bool = True,
    fetched_at: datetime = NOON,
    keep_raw: bool = True,
) -> LoadResult:
    """Land payloads in one load of their own."""
    load = Load(lake, command="load", source="test", keep_raw=keep_raw)
    try:
        for payload in payloads:
            body = json.dumps(payload).encode()
            load.take_run(payload["id"], body, fetched_at=fetched_at, is_detail=is_detail, workspace_id=None)
        return load.finish()
    finally:
        load.close()


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """A server of the S3 protocol on loopback: host and port."""
    from tests.bucket import serving_moto

    with serving_moto() as upstream:
        yield upstream


@pytest.fixture
def bucket(moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket, and an environment that leads to it."""
    from pipeline.bucket import store
    from tests.bucket import making_bucket

    monkeypatch.setattr(store, "_RETRIES", 3)  # else a store that is down on purpose is asked for a quarter of a minute
    with making_bucket(moto, tmp_path) as made:
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        yield made
