"""The command line as it is typed: what it prints, where, and with which exit code."""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import cli
from pipeline.sandbox.server import SandboxServer
from tests.commands import environment_of, run_apart, run_here
from tests.conftest import classify

NEEDLESS = {"pandas", "httpx._main", "click", "pygments"}
"""What no command needs, and what we stand on would import."""
ASKING = {"httpx", "httptools", "asyncio", "sqlite3", "pipeline.sync", "pipeline.fetch", "pipeline.client"}
SERVING = {"uvicorn", "starlette", "pipeline.sandbox"}
HEAVY = {
    *NEEDLESS,
    *ASKING,
    *SERVING,
    "ssl",
    "duckdb",
    "numpy",
    "pyarrow",
    "rich",
    "msgspec",
    "zstandard",
    "filelock",
    "opentelemetry",
}


def run(
    *arguments: str, folder: Path, server: SandboxServer | None = None, stdin: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    return run_here(*arguments, folder=folder, environment=environment_of(server, **environment), stdin=stdin)


def test_a_command_is_the_same_in_a_process_of_its_own(landed: Path) -> None:
    for arguments, stdin in (([], ""), (["sql", "-", "--format", "csv"], "SELECT run_id, credits FROM runs")):
        ways = (run_here, run_apart)
        alike = [way(*arguments, folder=landed, environment=environment_of(), stdin=stdin) for way in ways]
        assert len({(done.returncode, done.stdout, done.stderr) for done in alike}) == 1, arguments


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from parsers(each)


ALL = list(parsers(cli.build_parser()))


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder whose data/lake has three runs."""
    folder = tmp_path_factory.mktemp("landed")
    runs = [
        classify("clr_1", usage={"credits": 1.5}),
        classify("clr_2", usage={"credits": 0.3}, createdAt="2026-11-03T00:00:00Z"),
        classify("clr_3", status="FAILED", failureReason="ODD_REASON"),
    ]
    (folder / "saved.jsonl").write_text("\n".join(map(json.dumps, runs)))
    assert run("load", "saved.jsonl", folder=folder).returncode == 0
    return folder


@pytest.mark.parametrize("parser", ALL, ids=lambda parser: parser.prog)
def test_every_help_has_an_example_that_the_parser_takes(parser: argparse.ArgumentParser) -> None:
    help_text = parser.format_help()
    assert "examples:\n" in help_text
    examples = help_text.split("examples:\n")[1]
    lines = re.findall(r"^  .*?(pipeline [a-z].*?)(?:   .*| [|<>].*)?$", examples, re.MULTILINE)
    assert lines
    for line in lines:
        arguments = [word for word in shlex.split(line)[1:] if word != "COMMAND"]
        if "--help" not in arguments:
            cli.build_parser().parse_args(arguments)


@pytest.mark.parametrize("parser", ALL, ids=lambda parser: parser.prog)
def test_every_option_says_what_it_does(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        assert action.help or isinstance(action, argparse._SubParsersAction), action


def test_a_command_alone_has_the_parser_that_it_has_among_all() -> None:
    def helps(parser: argparse.ArgumentParser) -> dict[str, str]:
        return {each.prog: each.format_help() for each in list(parsers(parser))[1:]}

    among_all = helps(cli.build_parser())
    names = [prog.split()[1] for prog in among_all if prog.count(" ") == 1]
    assert len(names) == 16
    alone = [helps(cli.build_parser(name)) for name in names]
    assert [prog for each in alone for prog in each] == [*among_all]
    assert {prog: text for each in alone for prog, text in each.items()} == among_all


# The end of a process: nothing that was to be done at it is left out


AT_ITS_END = """
import atexit, threading, time
from pipeline import cli
atexit.register(print, "at exit")
run, ended = cli._run, threading.Event()
def run_noted(arguments):
    try:
        return run(arguments)
    finally:
        ended.set()
cli._run = run_noted
def late():
    ended.wait()
    time.sleep(0.5)
    print("late")
if {thread}:
    threading.Thread(target=late).start()
cli.run_and_leave()
"""


@pytest.mark.parametrize(("thread", "printed"), [(False, ["at exit"]), (True, ["late", "at exit"])])
def test_a_process_ends_when_all_is_done(thread: bool, printed: list[str], landed: Path) -> None:
    code = AT_ITS_END.format(thread=thread)
    for query, exit_code in (("SELECT 7 AS n", 0), ("SELECT nothing FROM runs", 2)):
        command = [sys.executable, "-c", code, "sql", query, "--format", "csv"]
        done = subprocess.run(command, cwd=landed, env=environment_of(), capture_output=True, text=True, timeout=60)
        answered = ["n", "7"] if exit_code == 0 else []
        assert (done.returncode, done.stdout.splitlines()) == (exit_code, [*answered, *printed]), done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_an_answer_that_the_disk_has_no_room_for_is_an_error(landed: Path) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "pipeline.cli", "status"]
        done = subprocess.run(command, cwd=landed, env=environment_of(), stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "pipeline: No space left on device\n")


def imported_by(*arguments: str, folder: Path, **environment: str) -> set[str]:
    """Return the modules that a command's process has imported by its end, beside those that Python begins with."""
    begun, ended = "import sys; begun = {*sys.modules}", "print(*({*sys.modules} - begun), file=sys.stderr)"
    code = f"{begun}; import atexit; atexit.register(lambda: {ended}); from pipeline.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return set(done.stderr.splitlines()[-1].split())


# What a start takes grows with the modules that it imports: bounded by their number, of which each test leaves a tenth.


@pytest.mark.parametrize(
    ("arguments", "most"),
    [(["--help"], 105), (["--version"], 98), (["status", "--help"], 66), (["sync", "--help"], 91)],
)
def test_help_and_version_import_nothing_heavy(arguments: list[str], most: int, tmp_path: Path) -> None:
    modules = imported_by(*arguments, folder=tmp_path)
    assert HEAVY & modules == set()
    assert len(modules) <= most


@pytest.mark.parametrize(
    "arguments", [["status"], ["sql", "SELECT run_id, created_at, credits FROM runs"], ["sql", "FROM loads"]]
)
def test_status_and_sql_import_nothing_that_asks_or_serves(arguments: list[str], landed: Path) -> None:
    modules = imported_by(*arguments, folder=landed)
    needless = {*NEEDLESS, *ASKING, *SERVING, "numpy", "pyarrow", "filelock", "msgspec", "pipeline.landing"}
    assert {*needless, "pipeline.flatten"} & modules == set()
    # DuckDB, but not the Python around it, which takes three times as long to be imported.
    assert "_duckdb" in modules
    assert "duckdb" not in modules
    # Its table goes to no terminal, so nothing of Rich draws it.
    assert not {"rich.console", "rich.table", "rich.text"} & modules
    # Every dataclass needs `inspect`, which takes as long to be imported as all of ours that a query needs.
    assert arguments == ["status"] or not {"dataclasses", "inspect"} & modules
    assert len(modules) <= 125


def test_a_machine_without_a_list_of_time_zones_reads_and_writes_all_the_same(tmp_path: Path) -> None:
    """As in a small container: DuckDB asks that list for UTC where it makes a time for Python; a package that is
    installed with this one has it.
    """
    commands = [
        ["demo", "--runs", "120"], ["status"], ["report", "credits"], ["report", "credits", "--show", "runs"],
        ["report", "failures", "--format", "html"], ["report", "latency"], ["sql", "FROM loads"], ["check"],
    ]  # fmt: skip
    code = (
        "from pipeline.cli import main; from pipeline import Lake; import zoneinfo\n"
        f"for command in {commands!r}: assert main([*command, '--lake', 'lake']) == 0, command\n"
        "with Lake('lake') as lake: print(*lake.sql('SELECT max(created_at) FROM runs').fetchall()[0])\n"
        "print(zoneinfo.TZPATH)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env={**environment_of(), "PYTHONTZPATH": ""}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"\n\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[.\d]*\+00:00\n\(\)\n$", done.stdout)


READING = [
    ["report", "credits"], ["report", "credits", "--show", "forecast"], ["report", "failures"], ["report", "latency"],
    ["sql", "SELECT run_id, credits, breakdown, failed_reasons FROM runs JOIN loads USING (load_id) ORDER BY run_id"],
]  # fmt: skip


@pytest.mark.long
def test_what_is_read_without_numpy_is_what_is_read_with_it(landed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(landed)
    formats = ("table", "csv", "json", "markdown", "html", "parquet")
    asked = [[*question, "--format", each] for question in READING for each in formats]
    begun = f"import sys; from pipeline.cli import main; asked = {asked!r}; "
    without = begun + (
        "codes = [(setattr(sys, 'argv', ['pipeline', *each]), main())[1] for each in asked]; "
        "assert not any(codes) and 'numpy' not in sys.modules"
    )
    with_it = f"import numpy; {begun}[main(each) for each in asked]"
    done, expected = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=120)
        for code in (without, with_it)
    )
    assert (done.stdout, done.stderr) == (expected.stdout, expected.stderr)
    assert len(done.stdout) > 10_000


def test_a_sync_imports_nothing_that_serves_or_draws(server: SandboxServer, tmp_path: Path) -> None:
    known = {"EXTEND_BASE_URL": server.base_url, "EXTEND_API_KEY": server.key}
    command = ["sync", "--quiet", "--qps", "1000", "--kind", "edit"]
    first, second = (imported_by(*command, folder=tmp_path, **known) for _ in range(2))
    assert {*NEEDLESS, *SERVING, "rich", "urllib.request"} & first == set()
    assert {"_duckdb", "pyarrow", "pipeline.connections", "pipeline.landing"} < first
    assert not {"duckdb"} & {*first, *second}
    # Nothing is new, so nothing is asked of the catalog, and nothing lands.
    needless = {"pipeline.catalog", "pipeline.reports.questions", "pipeline.landing", "pyarrow.compute", "httpx"}
    assert {*NEEDLESS, *SERVING, "rich", *needless} & second == set()
    assert len(second) <= len(first) <= 560


def test_changed_runs_land_where_arrow_was_imported_without_numpy(tmp_path: Path) -> None:
    """Loads import Arrow so; they merge by numpy all the same."""
    first = [classify(f"clr_{n}", status="PROCESSING", usage=None) for n in range(9)]
    second = [classify(f"clr_{n}", updatedAt="2026-11-02T10:00:00Z", usage={"credits": n}) for n in range(3, 12)]
    code = (
        "import sys; from pipeline.cli import main; code = main(); import pyarrow\n"
        "try: pyarrow.array([1]).to_numpy()\n"
        "except ImportError: sys.exit(code)\n"
    )
    for runs in (first, second, second):
        (tmp_path / "saved.jsonl").write_text("\n".join(map(json.dumps, runs)))
        done = subprocess.run(
            [sys.executable, "-c", code, "load", "saved.jsonl", "--json"], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["landed"], told["unchanged"]) == (0, 9)
    assert "numpy" in imported_by("load", "saved.jsonl", "--json", folder=tmp_path)
    found = run("sql", "SELECT run_id, status, credits FROM runs ORDER BY created_at, credits NULLS FIRST, run_id",
                "--format", "csv", folder=tmp_path)  # fmt: skip
    assert found.stdout.splitlines()[1:] == [
        *(f"clr_{n},PROCESSING," for n in range(3)), *(f"clr_{n},PROCESSED,{n}.000000" for n in range(3, 12)),
    ]  # fmt: skip


@pytest.mark.long
def test_fetch_reads_ids_from_wherever_they_are(server: SandboxServer, tmp_path: Path) -> None:
    world = server.world
    run_ids = world.run_ids(world.workspaces[0], kind="classify_run")[:8]
    (tmp_path / "ids.txt").write_text(f"# comment\n\n  {run_ids[0]}  \n{run_ids[0]}\n")
    (tmp_path / "ids.csv").write_text(f"number,id\n1,{run_ids[1]}\n2,{run_ids[2]}\n")
    pq.write_table(pa.table({"which": [run_ids[3], None], "id": ["x", "y"]}), tmp_path / "ids.parquet")
    for arguments, landed in (
        (["--from", "ids.txt"], 1),
        (["--from", "ids.csv"], 2),
        (["--from", "ids.parquet", "--column", "which"], 1),
        ([run_ids[4], run_ids[5]], 2),
    ):
        done = run("fetch", *arguments, "--json", "--qps", "1000", folder=tmp_path, server=server)
        assert (done.returncode, json.loads(done.stdout)["landed"]) == (0, landed), done.stderr
    done = run("fetch", "--from", "-", "--json", folder=tmp_path, server=server, stdin=f"{run_ids[6]}\n")
    assert json.loads(done.stdout)["landed"] == 1


def test_the_summary_as_json_has_exactly_the_promised_fields(server: SandboxServer, tmp_path: Path) -> None:
    world = server.world
    run_id = world.run_ids(world.workspaces[0], kind="classify_run")[0]
    gone = world.deleted_ids(world.workspaces[0])[0]
    arguments = ["fetch", run_id, gone, "oops", "--json", "--lake", "here"]
    done = run_apart(*arguments, folder=tmp_path, environment=environment_of(server))
    assert done.returncode == 3
    summary = json.loads(done.stdout)
    assert list(summary) == [
        "load_id", "requested", "landed", "unchanged", "skipped", "missing", "failed", "invalid",
        "requests", "retries", "rate_limited", "seconds", "lake",
    ]  # fmt: skip
    expected = {"requested": 3, "landed": 1, "missing": 1, "invalid": 1, "failed": 0, "requests": 2, "lake": "here"}
    assert {name: summary[name] for name in expected} == expected
    assert "argument 3: 'oops' is not a run ID" in done.stderr


def test_a_malformed_id_is_reported_with_its_line(server: SandboxServer, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("# one\nclr_../admin\n\nfoo\n")
    done = run("fetch", "--from", "ids.txt", folder=tmp_path, server=server)
    assert done.returncode == 3
    assert "ids.txt:2: 'clr_../admin' is not a run ID" in done.stderr
    assert "ids.txt:4: 'foo' is not a run ID" in done.stderr
    assert server.requests == 0


def test_dry_run_asks_for_nothing_and_needs_no_key(server: SandboxServer, tmp_path: Path) -> None:
    done = run("fetch", "clr_1", "clr_2", "exr_1", "clr_1", "--dry-run", "--qps", "2", folder=tmp_path)
    assert done.returncode == 0
    assert done.stdout == (
        "3 distinct IDs: 3 to ask for, 0 already finished in data/lake, 0 that cannot be asked for\n"
        "  classify_run                  2  GET /classify_runs/…\n"
        "  extract_run                   1  GET /extract_runs/…\n"
        "at least 3 requests, 1.5 s at 2 a second\n"
        "nothing was asked for (--dry-run)\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "words"),
    [
        (["fetch"], {}, 2, "no IDs"),
        (["fetch", "clr_1"], {}, 2, "export EXTEND_API_KEY="),
        (["fetch", "--from", "absent.txt"], {"EXTEND_API_KEY": "k"}, 2, "absent.txt: no such file"),
        (["fetch", "clr_1"], {"EXTEND_API_KEY": "k", "EXTEND_BASE_URL": "http://example.com"}, 2, "--allow-http"),
        (["fetch", "clr_1", "--qps", "0"], {"EXTEND_API_KEY": "k"}, 2, "--qps"),
        (["fetch", "clr_1", "--qps", "lots"], {}, 2, "invalid float value"),
        (["fetch", "clr_1", "--key", "k"], {}, 2, "pipeline fetch: error: unrecognized arguments: --key k"),
        (["report", "credits", "--form", "csv"], {}, 2, "usage: pipeline report credits "),
        (["sql", "FROM runs", "--formt=csv"], {}, 2, "arguments: --formt=csv; did you mean --format?\n"),
        (["sql", "FROM", "format"], {}, 2, "pipeline sql: error: unrecognized arguments: format\n"),
        (["--quiet", "sync"], {}, 2, "pipeline: error: unrecognized arguments: --quiet"),
        (["retry"], {"EXTEND_API_KEY": "k"}, 2, "no lake here"),
        (["load", "absent.json"], {}, 2, "absent.json: no such file"),
        (["rebuild"], {}, 2, "no lake here"),
        (["report", "credits"], {}, 2, "no lake here"),
        (["sql", "SELECT 1"], {}, 2, "no lake here"),
        (["status", "--lake", "elsewhere"], {}, 2, "elsewhere: no lake here"),
        (["demo", "--runs", "5"], {}, 2, "--runs"),
        ([], {}, 2, "COMMAND"),
    ],
)  # fmt: skip
def test_wrong_usage_says_what_is_wrong_and_leaves_nothing_behind(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], code: int, words: str
) -> None:
    done = run(*arguments, folder=tmp_path, **environment)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_refused_key_gives_one_message_and_exit_code_1(server: SandboxServer, tmp_path: Path) -> None:
    world = server.world
    run_ids = world.run_ids(world.workspaces[0], kind="classify_run")[:20]
    environment = environment_of(server, EXTEND_API_KEY="canary-key")
    done = run_apart("fetch", *run_ids, "--concurrency", "2", folder=tmp_path, environment=environment)
    assert done.returncode == 1
    assert done.stderr.count("HTTP 401") == 1
    assert "canary-key" not in done.stderr + done.stdout


def test_pipeline_lake_names_the_lake(landed: Path, tmp_path: Path) -> None:
    done = run("status", folder=tmp_path, PIPELINE_LAKE=str(landed / "data" / "lake"))
    assert done.returncode == 0
    assert " classify_run      3" in done.stdout


QUERY = "SELECT run_id, credits, created_at FROM runs WHERE credits IS NOT NULL ORDER BY run_id"


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        (
            "csv",
            "run_id,credits,created_at\nclr_1,1.500000,2026-11-02T09:30:00Z\nclr_2,0.300000,2026-11-03T00:00:00Z\n",
        ),
        (
            "json",
            '[\n  {"run_id": "clr_1", "credits": "1.500000", "created_at": "2026-11-02T09:30:00Z"},\n'
            '  {"run_id": "clr_2", "credits": "0.300000", "created_at": "2026-11-03T00:00:00Z"}\n]\n',
        ),
        (
            "markdown",
            "| run\\_id | credits | created\\_at |\n| --- | --- | --- |\n"
            "| clr\\_1 | 1.500000 | 2026-11-02T09:30:00Z |\n| clr\\_2 | 0.300000 | 2026-11-03T00:00:00Z |\n",
        ),
    ],
)  # fmt: skip
def test_sql_answers_in_the_format_asked_for(landed: Path, format: str, expected: str) -> None:
    done = run("sql", QUERY, "--format", format, folder=landed)
    assert (done.returncode, done.stdout) == (0, expected), done.stderr


def test_sql_gives_parquet_to_a_pipe(landed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline.cli", "sql", QUERY, "--format", "parquet"]
    with (tmp_path / "out.parquet").open("wb") as file:
        subprocess.run(command, cwd=landed, env=environment_of(), stdout=file, check=True)
    table = pq.read_table(tmp_path / "out.parquet")
    assert [str(value) for value in table["credits"].to_pylist()] == ["1.500000", "0.300000"]


def test_sql_reads_a_question_from_standard_input(landed: Path) -> None:
    done = run("sql", "-", "--format", "csv", folder=landed, stdin="SELECT count(*) AS n FROM runs")
    assert done.stdout == "n\n3\n"


def test_a_wrong_question_is_wrong_usage(landed: Path) -> None:
    done = run("sql", "SELECT nothing FROM runs", folder=landed)
    assert done.returncode == 2
    assert "nothing" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(landed: Path) -> None:
    command = f"{sys.executable} -m pipeline.cli sql 'SELECT range FROM range(2000000)' --format csv | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=landed,
        env=environment_of(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "range\n", "")


def test_reports_and_status_are_tables_that_say_what_to_know(landed: Path) -> None:
    credits = run("report", "credits", folder=landed).stdout
    assert [line.split() for line in credits.splitlines()[2:5]] == [
        ["2026-11-02", "1.5", "1.5", "██████████", "1"],
        ["2026-11-03", "0.3", "0.3", "██"],
        ["total", "1.8", "1.8", "1"],
    ]
    assert (
        "Unknown is not zero: nothing tells the credits of 1 run: 1 failed or cancelled, for which the API reports no "
        "usage.\n"
    ) in credits
    assert " UTC; the newest run is of 2026-11-03.\n" in credits
    assert (
        "November 2026: 1.8 credits to 2026-11-03; too little to forecast from (0 of at least 2 whole weeks).\n"
        in credits
    )
    failures = run("report", "failures", folder=landed).stdout
    assert "ODD_REASON *" in failures
    assert "33.3 %" in failures
    status = run("status", folder=landed).stdout
    assert "dead letters  0\n" in status
    assert "load complete, 3 landed, 0 unchanged" in status


def test_a_report_in_another_format_has_the_rows_themselves(landed: Path) -> None:
    rows: list[dict[str, Any]] = json.loads(run("report", "credits", "--format", "json", folder=landed).stdout)
    assert [(row["day"], row["kind"], row["credits"], row["unknown_runs"]) for row in rows] == [
        ("2026-11-02", "classify_run", "1.500000", 1),
        ("2026-11-03", "classify_run", "0.300000", 0),
    ]


def test_load_reports_what_it_cannot_use_and_lands_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f'{json.dumps(classify("clr_1"))}\nnot json\n{{"id": "clr_2"}}\n')
    done = run("load", "a.jsonl", "--json", folder=tmp_path)
    assert done.returncode == 3
    summary = json.loads(done.stdout)
    assert (summary["landed"], summary["invalid"], summary["requested"]) == (2, 1, 3)
    assert "a.jsonl:2: not JSON" in done.stderr


def test_rebuild_says_what_it_did(landed: Path) -> None:
    done = run("rebuild", folder=landed)
    assert (done.returncode, done.stdout) == (0, "3 runs made anew from 1 log, 3 of them as they were\n")


def test_the_sandbox_prints_the_two_lines_that_point_a_client_at_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline.cli", "sandbox", "--runs", "100", "--key", "mine"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment_of(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        assert re.fullmatch(r"export EXTEND_BASE_URL=http://127\.0\.0\.1:\d+\n", lines[0])
        assert lines[1] == "export EXTEND_API_KEY=mine\n"
        exports = dict(line.removeprefix("export ").strip().split("=", 1) for line in lines)
        done = run("fetch", "clr_absent", folder=tmp_path, **exports)
        assert "1 missing" in done.stdout
        process.terminate()
        assert process.wait(timeout=10) == 0


@pytest.mark.long
def test_the_demo_does_it_all_may_be_repeated_and_leaves_other_lakes_alone(landed: Path) -> None:
    before = sorted(path.stat().st_mtime_ns for path in (landed / "data" / "lake").rglob("*"))
    for _ in range(2):
        done = run("demo", "--runs", "600", "--quiet", folder=landed, PIPELINE_LAKE="data/lake")
        assert done.returncode == 0, done.stderr
        assert "Credits by day and kind" in done.stdout
        assert "Failure rate by kind and reason" in done.stdout
        assert "export EXTEND_API_KEY=" in done.stdout
    assert sorted(path.stat().st_mtime_ns for path in (landed / "data" / "lake").rglob("*")) == before
    refused = run("demo", "--lake", "data/lake", folder=landed)
    assert refused.returncode == 2
    assert "not the lake of an earlier demo" in refused.stderr
