"""What SQL may touch: the lake's own files, to read; whatever a query, a key, a parameter or a folder is called."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline import cli
from pipeline.catalog import Lake
from pipeline.errors import UsageError
from pipeline.lake import LakeFiles
from pipeline.reports.questions import literal
from tests.conftest import classify, land

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a lake of one run, and a file beside it that no query may read."""
    folder = tmp_path_factory.mktemp("landed")
    land(LakeFiles(folder / "lake"), classify("clr_1", usage={"credits": 1.5}, metadata={"team": "red"}))
    (folder / "beside.csv").write_text("word\nunreadable\n")
    return folder


@pytest.fixture
def there(landed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return that folder, which is the working directory meanwhile."""
    monkeypatch.chdir(landed)
    monkeypatch.delenv("PIPELINE_LAKE", raising=False)
    return landed


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def ask(*arguments: str) -> int:
    return cli.main([*arguments, "--lake", "lake"])


# What `pipeline sql` answers, and what it refuses


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("SELECT count(*) AS n FROM runs", {"n": 1}),
        ("  -- how many\nFROM runs SELECT count(*) AS n;  ", {"n": 1}),
        ("WITH x AS (FROM runs) SELECT run_id FROM x UNION ALL SELECT 'b' ORDER BY 1 DESC", {"run_id": "clr_1"}),
        ("WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r WHERE i < 3) SELECT max(i) AS i FROM r",
         {"i": 3}),
        ("WITH x AS MATERIALIZED (SELECT 7 AS i) FROM x", {"i": 7}),
        ("VALUES ('SELECT_NODE')", {"col0": "SELECT_NODE"}),
        ("PIVOT (SELECT kind FROM runs) ON kind IN ('classify_run') USING count(*)", {"classify_run": 1}),
        ("SELECT payload.id FROM read_json('lake/raw/*/*.jsonl.zst') WHERE payload.id IS NOT NULL", {"id": "clr_1"}),
        ("SELECT run_id FROM read_parquet('lake/runs/*/*.parquet')", {"run_id": "clr_1"}),
    ],
)  # fmt: skip
def test_a_question_is_answered_also_of_the_lakes_own_files(
    there: Path, capsys: Capture, query: str, first: dict[str, object]
) -> None:
    assert ask("sql", query, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)[0] == first


@pytest.mark.parametrize("query", ["DESCRIBE runs", "SUMMARIZE runs", "SHOW TABLES", "EXPLAIN ANALYZE FROM runs"])
def test_what_describes_is_a_question_too(there: Path, capsys: Capture, query: str) -> None:
    assert ask("sql", query, "--format", "csv") == 0
    assert len(capsys.readouterr().out.splitlines()) > 1


WRITES = [
    "COPY runs TO '{}/out.csv'",
    "COPY (PIVOT runs ON kind) TO '{}/out.csv'",
    "WITH x AS (COPY runs TO '{}/out.csv') FROM x",
    "with X as (Copy (SELECT 1) to '{}/out.csv') select * from X",
    "EXPLAIN ANALYZE COPY runs TO '{}/out.csv'",
    "/* EXPLAIN */ EXPLAIN ANALYZE COPY runs TO '{}/out.csv'",
    "EXPLAIN ANALYZE WITH x AS (COPY runs TO '{}/out.csv') FROM x",
    "SELECT 1; COPY runs TO '{}/out.csv'",
    "FROM query('WITH x AS (COPY runs TO ''{}/out.csv'') FROM x')",
    "EXPORT DATABASE '{}/out'",
    "ATTACH '{}/out.db' AS other",
    "ATTACH ':memory:' AS other",
    "PREPARE p AS COPY runs TO '{}/out.csv'",
    "CREATE TABLE mine AS FROM runs",
    "CREATE OR REPLACE VIEW runs AS SELECT 1",
    "WITH x AS (DELETE FROM documented_reasons RETURNING *) FROM x",
    "DROP VIEW runs",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "PRAGMA enable_profiling",
    "CALL enable_logging()",
    "INSTALL httpfs",
    "LOAD httpfs",
    "BEGIN",
]


@pytest.mark.parametrize("query", WRITES)
def test_a_query_that_writes_or_changes_anything_is_refused_inside_the_lake_and_outside(
    there: Path, capsys: Capture, query: str
) -> None:
    before = files_below(there)
    for folder in (there / "lake", there):
        assert ask("sql", query.format(folder)) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert "a locked lake is asked with one SELECT" in said.err or "Binder Error" in said.err
    assert files_below(there) == before


@pytest.mark.parametrize(
    "query",
    [
        "FROM read_text('/etc/passwd')",
        "FROM read_csv('beside.csv')",
        "FROM 'beside.csv'",
        "FROM read_blob('lake/../beside.csv')",
        "FROM read_text('lake/runs/../../beside.csv')",
        "FROM glob('*')",
        "FROM glob('/**')",
        "FROM sniff_csv('beside.csv')",
        "FROM parquet_metadata('beside.csv')",
        "FROM query('FROM read_text(''beside.csv'')')",
        "SELECT getenv('HOME')",
        "FROM read_csv('http://127.0.0.1:9/x')",
        "FROM read_duckdb('beside.csv')",
        "FROM duckdb_secrets()",
        "FROM read_text('lake/link.csv')",
    ],
)
def test_no_other_file_nor_network_nor_environment_can_be_read(there: Path, capsys: Capture, query: str) -> None:
    link = there / "lake" / "link.csv"
    link.symlink_to(there / "beside.csv")
    try:
        assert ask("sql", query) == 2
    finally:
        link.unlink()
    said = capsys.readouterr()
    assert said.out == ""
    assert "unreadable" not in said.err
    if "Permission Error" in said.err and "secrets" not in query:
        assert "`pipeline sql --unlocked` does" in said.err


def test_unlocked_the_same_query_reads_and_writes_other_files(there: Path, capsys: Capture) -> None:
    assert ask("sql", "--unlocked", "FROM 'beside.csv'", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) == [{"word": "unreadable"}]
    assert ask("sql", "--unlocked", "COPY (SELECT run_id FROM runs) TO 'out.csv'") == 0
    written = there / "out.csv"
    assert written.read_text() == "run_id\nclr_1\n"
    written.unlink()


def test_the_help_says_what_a_query_may_touch(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        cli.main(["sql", "--help"])
    said = capsys.readouterr().out
    assert "the files in the lake's folder, and nothing else: no other file, no network" in said
    assert "writes nothing. --unlocked lifts that" in said


def test_a_reports_printed_query_is_one_that_the_locked_lake_answers(
    there: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = ["report", "credits", "--by", "metadata.team", "--since", "2026-01-01", "--where", "kind <> 'it''s; --'"]
    assert ask(*asked, "--sql") == 0
    question = tmp_path / "question.sql"
    question.write_text(capsys.readouterr().out)
    monkeypatch.setattr("sys.stdin", question.open())
    assert ask("sql", "-", "--format", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["by_metadata.team"] == "red"


# Names and values that look like SQL

HOSTILE = ["a'; DROP VIEW runs; --b", 'a" b', "a$name", "a\\b", "a?b", "a%2fb", "[a]", "日本", "a\nb"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_lake_in_a_folder_of_any_name_answers_sql_reports_and_status(
    landed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(landed / "lake", tmp_path / name)
    for arguments in (
        ["sql", "SELECT run_id, credits FROM runs, dead_letters RIGHT JOIN loads ON true", "--format", "csv"],
        ["report", "credits", "--by", "all", "--format", "csv"],
        ["status"],
    ):
        assert cli.main([*arguments, "--lake", name]) == 0, capsys.readouterr().err
        assert "1.5" in capsys.readouterr().out or arguments == ["status"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


PIECES = st.sampled_from(["'", '"', ";", "--", "/*", "*/", "$", "$key_1", "\\", "(", ")", ".", "~", "/", "x", " ", "%"])
TEXTS = st.one_of(st.lists(PIECES, min_size=1, max_size=8).map("".join), st.text(min_size=1, max_size=12))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=TEXTS, value=TEXTS)
@example(key="a'; DROP VIEW runs; --", value="x' OR true --")
@example(key='$."a"', value="$key_1")
def test_metadata_keys_and_values_of_any_text_are_only_ever_text(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: str
) -> None:
    lake = LakeFiles(tmp_path_factory.mktemp("any") / "lake")
    value = value.replace("\0", "").encode("utf-8", "replace").decode()
    land(
        lake,
        classify("clr_1", usage={"credits": 1.5}, metadata={key.encode("utf-8", "replace").decode(): value}),
        classify("clr_2", usage={"credits": 1}, metadata={"other": "x"}),
    )
    with Lake(lake.folder, locked=True) as catalog:
        try:
            question = catalog.credits_question([f"metadata.{key}"])
        except UsageError as error:
            assert "write a key of the metadata" in str(error)  # noqa: PT017 — which keys are refused is beside the point
            return
        rows = {row[0]: float(row[1]) for row in catalog.answer(question).project("#1, credits").fetchall()}
        assert rows == {value: 1.5, None: 1.0}
        printed = catalog.sql(question.as_sql()).project("#1, credits").fetchall()
        assert {row[0]: float(row[1]) for row in printed} == rows
        # A condition with the value written as SQL writes it finds that one run.
        where = f"json_extract_string(metadata, '/' || {literal(_pointer(key))}) = {literal(value)}"
        assert [float(row[0]) for row in catalog.credits("all", where=where).project("credits").fetchall()] == [1.5]


def _pointer(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


@settings(max_examples=40, deadline=None)
@given(text=st.lists(PIECES | st.sampled_from(["true", "1 = 1", "COPY", "runs", "TO", "UNION", "SELECT"]), max_size=8))
def test_a_condition_of_any_text_is_a_condition_or_refused_and_writes_nothing(landed: Path, text: list[str]) -> None:
    before = files_below(landed)
    with Lake(landed / "lake", locked=True) as catalog:
        try:
            assert len(catalog.credits("all", where=" ".join(text)).fetchall()) <= 1
        except UsageError as error:
            assert "--where" in str(error) or "cannot be answered" in str(error)  # noqa: PT017 — either is right
    assert files_below(landed) == before


@pytest.mark.parametrize("option", ["--by", "--since", "--until", "--rate", "--where"])
@pytest.mark.parametrize("text", ["x'; DROP VIEW runs; --", "(SELECT 1)", "1; COPY runs TO 'out.csv'", "$since"])
def test_what_a_report_is_told_is_refused_where_it_is_not_what_it_should_be(
    there: Path, capsys: Capture, option: str, text: str
) -> None:
    before = files_below(there)
    assert ask("report", "credits", f"{option}={text}") == 2
    assert capsys.readouterr().out == ""
    assert files_below(there) == before
