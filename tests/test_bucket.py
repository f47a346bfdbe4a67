"""A lake in a bucket, over a real S3 protocol server: the same rows as in a folder, on every machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog import Lake
from pipeline.lake import LakeFiles
from pipeline.opening import open_lake
from pipeline.sandbox.model import CHARGES_FROM, FIRST_DAY
from pipeline.sandbox.server import SandboxServer, serve
from tests.bucket import Bucket
from tests.commands import environment_of, run_here
from tests.conftest import classify, land
from tests.worlds import make_squeezed_world


def rows_of(place: Path | str) -> dict[str, Any]:
    """Return what a lake says of its runs, by ID, but for which load brought it."""
    with Lake(place) as lake:
        rows = lake.runs().to_arrow_table().to_pylist()
    assert len({row["run_id"] for row in rows}) == len(rows)
    return {row["run_id"]: {name: value for name, value in row.items() if name != "load_id"} for row in rows}


def test_what_lands_in_a_bucket_is_there_for_another_machine_as_it_is_in_a_folder(
    bucket: Bucket, tmp_path: Path
) -> None:
    payloads = [classify("clr_1"), classify("clr_2", createdAt="2026-11-03T01:00:00Z")]
    land(LakeFiles(tmp_path / "folder"), *payloads)
    land(open_lake(bucket.url), *payloads)
    with bucket.on("b") as url:
        assert rows_of(url) == rows_of(tmp_path / "folder")
        assert len(rows_of(url)) == 2
    names = [name for name in bucket.names() if not name.startswith(".") and not name.startswith("raw/")]
    assert names == [
        "lake.json", "loads/" + names[1].removeprefix("loads/"),
        "runs/day=2026-11-02/runs.parquet", "runs/day=2026-11-03/runs.parquet",
    ]  # fmt: skip


@dataclass(slots=True)
class Team:
    """Commands typed on several machines, against one organization."""

    bucket: Bucket
    server: SandboxServer
    folder: Path

    def run(self, *arguments: str, machine: str = "a", code: int = 0, stdin: str = "") -> str:
        """Run a command on a machine with the lake in the bucket; return what it printed."""
        environment = environment_of(self.server, **self.bucket.environment(machine), PIPELINE_LAKE=self.bucket.url)
        done = run_here(*arguments, folder=self.folder, environment=environment, stdin=stdin)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def run_beside(self, *arguments: str, code: int = 0, stdin: str = "") -> str:
        """Run a command with a lake in a folder."""
        environment = environment_of(self.server, PIPELINE_LAKE=str(self.folder / "beside"))
        done = run_here(*arguments, folder=self.folder, environment=environment, stdin=stdin)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def served() -> Iterator[SandboxServer]:
    """An organization whose runs are of few days."""
    with serve(make_squeezed_world(seed=3, runs=100, eras=(FIRST_DAY, CHARGES_FROM))) as running:
        yield running


@pytest.fixture
def team(bucket: Bucket, served: SandboxServer, tmp_path: Path) -> Team:
    return Team(bucket, served, tmp_path)


def plain(text: str) -> str:
    """Return a text without what differs from lake to lake: what stands for forgotten runs, and when it was asked."""
    return re.sub(r"erased[0-9a-f]{24}|20\d\d-\d\d-\d\dT[0-9:.]+Z", "…", text)


SAME = "SELECT * EXCLUDE (fetched_at, load_id, deleted_at), deleted_at IS NULL FROM runs ORDER BY run_id"
LETTERS = "SELECT run_id, reason FROM dead_letters ORDER BY run_id"


def test_every_command_gives_over_a_bucket_from_changing_machines_what_it_gives_over_a_folder(
    team: Team,
) -> None:
    world = team.server.world
    space = world.workspaces[0]
    ids = [run_id for run_id in world.run_ids(space) if not run_id.startswith("vr_")]
    (team.folder / "ids.txt").write_text("\n".join([*ids[:40], "clr_000000000000000000000"]))
    saved = [world.summary(run_id) for run_id in ids if world.run(run_id).kind.listed][-20:]
    (team.folder / "saved.json").write_text(json.dumps(saved))
    first_day = min(world.run(run_id).day for run_id in ids)
    days = (datetime.now(UTC).date() - first_day).days - 1
    for machine, code, *arguments in (
        ("a", 3, "fetch", "--from", "ids.txt", "--qps", "10000", "--quiet"),
        ("b", 0, "load", "saved.json", "--quiet"),
        ("a", 3, "retry", "--qps", "10000", "--quiet"),
        ("c", 0, "sync", "--qps", "10000", "--quiet", "--since", f"{CHARGES_FROM}"),
        ("b", 0, "sync", "--qps", "10000", "--quiet"),
        ("reader", 0, "sql", SAME, "--format", "json"),
        ("reader", 0, "report", "credits", "--format", "csv"),
        ("d", 0, "rebuild", "--quiet"),
        ("a", 0, "forget", ids[0], ids[7], "--json"),
        ("e", 0, "prune", "--older-than", f"{days}d", "--json"),
        ("reader", 0, "sql", SAME, "--format", "json"),
        ("reader", 0, "sql", LETTERS),
        ("f", 0, "report", "failures", "--format", "csv"),
    ):
        told, beside = team.run(*arguments, machine=machine, code=code), team.run_beside(*arguments, code=code)
        if machine in ("reader", "f"):
            assert len(told.splitlines()) > 2
            assert plain(told) == plain(beside), arguments
    assert "found no broken promise" in team.run("check", machine="g")
    assert f"in {team.bucket.url}\n" in team.run("status", machine="g")
    assert not [name for name in team.bucket.names() if name.startswith(("loading/", ".turn", ".probe/"))]
