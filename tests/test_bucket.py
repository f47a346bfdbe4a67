"""A lake in a bucket, over a real S3 protocol server: the same rows as in a folder, on every machine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog import Lake
from pipeline.lake import LakeFiles
from pipeline.opening import open_lake
from pipeline.sandbox.server import SandboxServer
from pipeline.sandbox.world import World
from tests.bucket import Bucket
from tests.commands import environment_of, run_here
from tests.conftest import classify, land


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


@pytest.fixture
def team(bucket: Bucket, server: SandboxServer, tmp_path: Path) -> Team:
    return Team(bucket, server, tmp_path)


SAME = "SELECT * EXCLUDE (fetched_at, load_id, deleted_at), deleted_at IS NULL FROM runs ORDER BY run_id"
LETTERS = "SELECT run_id, reason FROM dead_letters ORDER BY run_id"


def test_every_command_gives_over_a_bucket_from_changing_machines_what_it_gives_over_a_folder(
    team: Team, world: World
) -> None:
    space = world.workspaces[0]
    ids = [run_id for run_id in world.run_ids(space) if not run_id.startswith("vr_")]
    (team.folder / "ids.txt").write_text("\n".join([*ids[:120], "clr_000000000000000000000"]))
    saved = [world.summary(run_id) for run_id in ids if world.run(run_id).kind.listed][-40:]
    (team.folder / "saved.json").write_text(json.dumps(saved))
    oldest = sorted(world.run(run_id).created_at for run_id in ids)[30]
    days = (datetime.now(UTC) - oldest).days
    for machine, code, arguments in (
        ("a", 3, ["fetch", "--from", "ids.txt", "--qps", "10000", "--quiet"]),
        ("b", 0, ["load", "saved.json", "--quiet"]),
        ("a", 3, ["retry", "--qps", "10000", "--quiet"]),
        ("c", 0, ["sync", "--qps", "10000", "--quiet", "--since", "2026-06-01"]),
        ("b", 0, ["sync", "--qps", "10000", "--quiet"]),
        ("d", 0, ["rebuild", "--quiet"]),
        ("a", 0, ["forget", ids[0], ids[7]]),
        ("e", 0, ["prune", "--older-than", f"{days}d"]),
    ):
        team.run(*arguments, machine=machine, code=code)
        team.run_beside(*arguments, code=code)
        for question in (SAME, LETTERS):
            asked = ["sql", question, "--format", "json"]
            assert team.run(*asked, machine="reader") == team.run_beside(*asked), arguments
    for report in (["credits"], ["failures"], ["latency"], ["credits", "--show", "files"]):
        asked = ["report", *report, "--format", "csv"]
        assert team.run(*asked, machine="f") == team.run_beside(*asked)
    assert "broken" not in team.run("check", machine="g")
    assert f"in {team.bucket.url}\n" in team.run("status", machine="g")
    assert not [name for name in team.bucket.names() if name.startswith(("loading/", ".turn", ".probe/"))]
