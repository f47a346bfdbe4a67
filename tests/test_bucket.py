"""A lake in a bucket, over a real S3 protocol server: the same rows as in a folder, on every machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import obstore
import pytest

from pipeline.bucket import pulling, store
from pipeline.catalog import Lake
from pipeline.errors import UsageError
from pipeline.lake import LakeFiles
from pipeline.loads import recover
from pipeline.opening import open_lake
from pipeline.sandbox.model import CHARGES_FROM, FIRST_DAY
from pipeline.sandbox.server import SandboxServer, serve
from tests.bucket import KEY_ID, SECRET_KEY, Bucket, Spoilt
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


FAST = ("--qps", "10000", "--quiet")
SHORT = [
    ("a", 3, "fetch", "--from", "ids.txt", *FAST),
    ("b", 0, "load", "saved.json", "--quiet"),
    ("c", 0, "report", "credits", "--format", "csv"),
    ("d", 0, "rebuild", "--quiet"),
    ("e", 0, "forget", "{forgotten}", "--json"),
    ("c", 0, "sql", SAME, "--format", "json"),
]
LONG = [
    *SHORT[:2],
    ("a", 3, "retry", *FAST),
    ("c", 0, "sync", *FAST, "--since", f"{CHARGES_FROM}"),
    ("b", 0, "sync", *FAST),
    ("reader", 0, "sql", SAME, "--format", "json"),
    *SHORT[2:],
    ("e", 0, "prune", "--older-than", "{days}d", "--json"),
    ("reader", 0, "sql", SAME, "--format", "json"),
    ("reader", 0, "sql", LETTERS),
    ("f", 0, "report", "failures", "--format", "csv"),
]


@pytest.mark.parametrize(
    ("ids", "story"), [pytest.param(15, SHORT), pytest.param(40, LONG, marks=pytest.mark.long)], ids=["short", "long"]
)
def test_commands_give_over_a_bucket_from_changing_machines_what_they_give_over_a_folder(
    team: Team, ids: int, story: list[tuple[str, int, str]]
) -> None:
    world = team.server.world
    space = world.workspaces[0]
    run_ids = [run_id for run_id in world.run_ids(space) if not run_id.startswith("vr_")]
    (team.folder / "ids.txt").write_text("\n".join([*run_ids[:ids], "clr_000000000000000000000"]))
    saved = [world.summary(run_id) for run_id in run_ids if world.run(run_id).kind.listed][-20:]
    (team.folder / "saved.json").write_text(json.dumps(saved))
    first_day = min(world.run(run_id).day for run_id in run_ids)
    days = (datetime.now(UTC).date() - first_day).days - 1
    for machine, code, *arguments in story:
        typed = [each.replace("{forgotten}", run_ids[7]).replace("{days}", f"{days}") for each in arguments]
        told, beside = team.run(*typed, machine=machine, code=code), team.run_beside(*typed, code=code)
        if typed[0] in ("sql", "report"):
            assert len(told.splitlines()) > 2
            assert plain(told) == plain(beside), typed
    assert "found no broken promise" in team.run("check", machine="g")
    assert f"in {team.bucket.url}\n" in team.run("status", machine="g")
    assert not [name for name in team.bucket.names() if name.startswith(("loading/", ".turn", ".probe/", ".clock/"))]


@pytest.mark.long
def test_a_report_on_a_window_downloads_the_files_of_its_days_alone_and_says_the_same(team: Team) -> None:
    days = [f"2026-10-{number:02d}" for number in range(1, 13)]
    runs = [
        classify(
            f"clr_{day[-2:]}{status}", createdAt=f"{day}T09:00:00Z", status=status,
            failureReason="ODD" if status == "FAILED" else None,
        )
        for day in days
        for status in ("PROCESSED", "FAILED")
    ]  # fmt: skip
    undated = classify("clr_undated", createdAt=None)
    land(open_lake(team.bucket.url), *runs, undated)
    land(LakeFiles(team.folder / "beside"), *runs, undated)
    for number, (report, first, count) in enumerate(
        [("failures", 5, 1 + 8), ("latency", 5, 1 + 8), ("failures", 12, 2)]
    ):
        where = ["--where", "status <> 'CANCELLED'"] if number == 1 else []
        window = [*where, "--since", f"2026-10-{first:02d}", *(["--until", "2026-10-09"] if first == 5 else [])]
        arguments = ["report", report, *window, "--format", "csv"]
        team.bucket.proxy.asked.clear()
        told = team.run(*arguments, machine=f"fresh{number}")
        assert plain(told) == plain(team.run_beside(*arguments))
        assert team.bucket.proxy.count("GET", "runs/") == count
        # What is here of other days is looked at by nobody, and comes when it is asked for.
        assert plain(team.run("report", report, "--format", "csv", machine=f"fresh{number}")) == plain(
            team.run_beside("report", report, "--format", "csv")
        )
        assert team.bucket.proxy.count("GET", "runs/") == len(days) + 1


def test_what_else_stands_in_the_bucket_is_left_alone_and_reaches_no_other_folder(bucket: Bucket) -> None:
    lake = open_lake(bucket.url)
    land(lake, classify("clr_1"))
    others = (".bashrc", "runs/.x.parquet", "notes.txt", "other/lake.json", "loading/odd/000000", "loading/odd")
    for name in others:
        obstore.put(bucket.store(), name, b"x")
    for escaping in ("../evil.json", "/etc/evil.json", "runs/../../../evil.json"):
        assert not pulling._is_of_lake(escaping)
    with bucket.on("b"):
        assert set(rows_of(bucket.url)) == {"clr_1"}
        theirs = open_lake(bucket.url)
        recover(theirs)
        here = {path.relative_to(theirs.folder).as_posix() for path in theirs.folder.rglob("*") if path.is_file()}
    assert not here & set(others)
    assert set(others) <= set(bucket.names())


def test_a_listing_passes_over_raw_logs_however_many_there_are(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = open_lake(bucket.url)
    land(lake, classify("clr_1"))
    for number in range(5):
        obstore.put(bucket.store(), f"raw/2026-10/{number}.jsonl.zst", b"x")
    listed = lake.mirror.store.list_but("raw")
    assert not [each.name for each in listed if each.name.startswith("raw/")]
    monkeypatch.setattr(store, "_PAGE", 2)
    assert lake.mirror.store.list_but("raw") == listed
    assert "runs/day=2026-11-02/runs.parquet" in {each.name for each in listed}


def test_a_file_removed_in_the_bucket_is_removed_here_and_what_was_spoilt_here_comes_again(bucket: Bucket) -> None:
    lake = open_lake(bucket.url)
    land(lake, classify("clr_1"), classify("clr_2", createdAt="2026-11-03T01:00:00Z"))
    with bucket.on("b"):
        theirs = open_lake(bucket.url)
        theirs.day_path("2026-11-03").write_bytes(b"spoilt")
        assert set(rows_of(bucket.url)) == {"clr_1", "clr_2"}
    with lake.writing():
        lake.remove_day("2026-11-02")
    with bucket.on("b"):
        assert set(rows_of(bucket.url)) == {"clr_2"}
        assert not theirs.day_path("2026-11-02").parent.exists()
    land(lake, classify("clr_3"))  # over what stands for the file that was removed
    with bucket.on("b"):
        assert set(rows_of(bucket.url)) == {"clr_2", "clr_3"}


def test_a_bucket_that_keeps_old_versions_is_as_any_other(bucket: Bucket) -> None:
    bucket.keep_versions()
    with bucket.on("b"):
        theirs = open_lake(bucket.url)
    for number in range(3):
        land(open_lake(bucket.url) if number % 2 else theirs, classify(f"clr_{number}"))
    bucket.proxy.asked.clear()
    assert set(rows_of(bucket.url)) == {"clr_0", "clr_1", "clr_2"}
    came = bucket.proxy.count("GET", "runs/")
    assert set(rows_of(bucket.url)) == {"clr_0", "clr_1", "clr_2"}
    assert bucket.proxy.count("GET", "runs/") == came  # what came once does not come again


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://bucket/lake", "a lake is a folder, or one of s3://bucket/prefix, gs://"),
        ("s3://AKID:secret@bucket/lake", "credentials by the environment"),
        ("s3://bucket/../other", "this is no bucket and prefix"),
        ("s3://bucket/lake?key=secret", "this is no bucket and prefix"),
    ],
)
def test_what_is_no_bucket_is_refused_without_being_shown(url: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)) as refused:
        LakeFiles(url)
    assert "secret" not in str(refused.value)


def test_plain_http_beyond_this_machine_is_refused_unless_it_is_wished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.example:9000")
    with pytest.raises(UsageError, match="AWS_ALLOW_HTTP=true"):
        open_lake("s3://bucket/lake")


def test_without_the_package_the_message_says_what_to_install(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    told = team.run("status", code=2)
    assert told == (
        "pipeline: a lake in a bucket needs one more package: pip install 'extend-pipeline[s3]' (or [gs], [az])\n"
    )


def test_a_lake_in_a_folder_imports_nothing_of_it(tmp_path: Path, served: SandboxServer) -> None:
    ran = subprocess.run(
        [
            sys.executable, "-c",
            "import sys; from pipeline import cli; cli.main(['load', 'saved.json', '--quiet']); cli.main(['status']);"
            "print([name for name in sys.modules if 'bucket' in name or name.startswith(('obstore', 'boto', 'moto'))])",
        ],
        cwd=tmp_path, env=environment_of(PIPELINE_LAKE="lake"), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout.splitlines()[-1] == "[]"


def test_a_store_that_cannot_be_reached_ends_the_command_and_the_message_says_so(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = environment_of(team.server, **{**team.bucket.environment(), "AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    done = run_here("sync", "--lake", "s3://lake/x", folder=team.folder, environment=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "pipeline: s3://lake/x: listing: the store does not answer, or not as it should (it cannot be reached); check "
        "the bucket, the network and the credentials, and try again\n"
    )


def test_who_may_only_read_a_bucket_can_report_on_it(team: Team) -> None:
    land(open_lake(team.bucket.url), classify("clr_1"))
    team.bucket.proxy.plan = lambda asked: None if asked.method in ("GET", "LIST", "HEAD") else Spoilt(403)
    for arguments in (["report", "credits"], ["sql", "FROM runs"], ["status"], ["check"]):
        team.run(*arguments, machine="reader")
    (team.folder / "saved.json").write_text(json.dumps(classify("clr_2")))
    assert "(HTTP 403" in team.run("load", "saved.json", machine="reader", code=1)


def test_credentials_may_come_from_a_profile(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text(f"[team]\naws_access_key_id={KEY_ID}\naws_secret_access_key={SECRET_KEY}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "team")
    lake = open_lake(bucket.url)
    land(lake, classify("clr_1"))
    assert KEY_ID not in repr(vars(lake.mirror.store))


def test_the_demo_is_made_in_a_folder_alone(team: Team) -> None:
    assert team.run("demo", "--lake", team.bucket.url, code=2) == (
        f"pipeline: {team.bucket.url}: the demo's lake is a folder; name one with --lake\n"
    )
