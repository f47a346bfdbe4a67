"""`pipeline sync` as it is typed: the plan, what happened beside it, exit codes, and JSON."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from pipeline.sandbox.server import SandboxServer, serve
from tests.test_cli import run
from tests.worlds import make_late_world


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    """The last weeks of a small world, in two days, served."""
    world = make_late_world(date(2026, 11, 5), date(2026, 11, 15), seed=11, since=date(2026, 11, 1))
    with serve(world, short_pages=False) as running:
        yield running


def test_a_sync_prints_its_plan_and_what_happened_beside_it(server: SandboxServer, tmp_path: Path) -> None:
    first = run("sync", "--qps", "500", folder=tmp_path, server=server)
    assert first.returncode == 0, first.stderr
    assert " classify_run         all                                  1 or more   0 or more" in first.stdout
    assert "at most nobody knows: no endpoint tells how many runs there are" in first.stdout
    assert " landed, " in first.stdout
    second = run("sync", "--qps", "500", folder=tmp_path, server=server)
    assert second.returncode == 0, second.stderr
    assert "until 2 pages bring nothing new" in second.stdout
    assert "0 landed, 0 unchanged, 0 failed in" in second.stdout
    assert "Traceback" not in second.stderr


def test_a_dry_run_asks_for_nothing_and_writes_nothing(server: SandboxServer, tmp_path: Path) -> None:
    before = server.requests
    done = run("sync", "--dry-run", folder=tmp_path, server=server)
    assert (done.returncode, server.requests) == (0, before)
    assert done.stdout.endswith("nothing was asked for (--dry-run)\n")
    assert "at least 7 requests, 0.7 s at 10 a second" in done.stdout
    plan = json.loads(run("sync", "--dry-run", "--json", "--qps", "2", folder=tmp_path, server=server).stdout)
    assert (plan["least_requests"], plan["most_requests"], plan["least_seconds"]) == (7, None, 3.5)
    assert list(tmp_path.iterdir()) == []


def test_the_summary_as_json_tells_each_kind(server: SandboxServer, tmp_path: Path) -> None:
    done = run("sync", "--kind", "classify", "--kind", "split_run", "--json", folder=tmp_path, server=server)
    (workspace,) = json.loads(done.stdout)["workspaces"]
    assert [kind["kind"] for kind in workspace["kinds"]] == ["classify_run", "split_run"]
    count = len(server.world.run_ids(server.world.workspaces[0], "classify_run"))
    assert workspace["kinds"][0]["changed"] == count
    assert workspace["load"]["landed"] == sum(kind["changed"] + kind["by_id"] for kind in workspace["kinds"])


def test_several_workspaces_with_keys_from_the_environment(server: SandboxServer, tmp_path: Path) -> None:
    first, second = server.world.workspaces
    keys = f"{first}={server.app.org_key} {second}=wrong-canary"
    done = run("sync", "--details", "none", folder=tmp_path, server=server, EXTEND_API_KEYS=keys)
    assert done.returncode == 3
    assert f"pipeline: {second}: HTTP 401" in done.stderr
    assert f" {first}   classify_run " in done.stdout
    assert "canary" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--kind", "nonsense"], "--kind: 'nonsense' is no kind of run; choose of classify, extract"),
        (["--since", "yesterday"], "--since: 'yesterday' is no date; give one like 2026-06-01"),
        (["--since", "2026-02-30"], "no date"),
        (["--since", "2026-06-01", "--until", "2026-06-01"], "is not before --until"),
        (["--workspace", "nonsense"], "--workspace: this is no workspace ID"),
        (["--qps", "0"], "--qps"),
        (["--details", "some"], "invalid choice"),
    ],
)
def test_wrong_usage_says_what_is_wrong(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = run("sync", *arguments, folder=tmp_path, EXTEND_API_KEY="k")
    assert done.returncode == 2
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_refuses_every_list_is_said_once_with_exit_code_1(server: SandboxServer, tmp_path: Path) -> None:
    refused = run("sync", folder=tmp_path, server=server, EXTEND_API_KEY="canary")
    assert (refused.returncode, refused.stderr.count("HTTP 401")) == (1, 1)
    unnamed = run("sync", folder=tmp_path, server=server, EXTEND_API_KEY=server.app.org_key)
    assert unnamed.returncode == 1
    assert unnamed.stderr.count("x-extend-workspace-id is required") == 1
    assert "(and 6 more lists)" in unnamed.stderr
