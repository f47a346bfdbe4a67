"""What SQL may touch: the lake's own files, to read; whatever a query, a key, a parameter or a folder is called."""

import json
import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import cli
from pipeline.catalog import Lake
from pipeline.errors import UsageError
from pipeline.lake import LakeFiles
from pipeline.reports import literal
from pipeline.reports.credit_questions import credits_question
from pipeline.reports.questions import Question, Window
from tests.conftest import classify, land

Capture = pytest.CaptureFixture[str]
TempPaths = pytest.TempPathFactory


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a lake of one run, and a file beside it that no query may read."""
    folder = tmp_path_factory.mktemp("landed")
    land(LakeFiles(folder / "lake"), classify("clr_1", usage={"credits": 1.5}, metadata={"team": "red"}))
    (folder / "beside.csv").write_text("word\nunreadable\n")
    return folder


@pytest.fixture(scope="module")
def locked(landed: Path) -> Iterator[Lake]:
    """Return that lake, opened as `pipeline sql` and reports open it."""
    with Lake(landed / "lake", locked=True) as catalog:
        yield catalog


@pytest.fixture
def there(landed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return that folder, which is the working directory meanwhile."""
    monkeypatch.chdir(landed)
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
    there: Path, locked: Lake, query: str, first: dict[str, object]
) -> None:
    assert locked.sql(query).to_arrow_table().to_pylist()[0] == first


@pytest.mark.parametrize("query", ["DESCRIBE runs", "SUMMARIZE runs", "SHOW TABLES", "EXPLAIN ANALYZE FROM runs"])
def test_what_describes_is_a_question_too(locked: Lake, query: str) -> None:
    assert len(locked.sql(query).fetchall()) > 0


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
    landed: Path, locked: Lake, query: str
) -> None:
    before = files_below(landed)
    for folder in (landed / "lake", landed):
        with pytest.raises(UsageError, match=r"a locked lake is asked with one SELECT|Binder Error"):
            locked.sql(query.format(folder)).fetchall()
    assert files_below(landed) == before
    assert locked.sql("SELECT run_id FROM runs").fetchall() == [("clr_1",)]


def test_a_question_that_holds_text_of_the_users_is_looked_at_as_a_query_is(landed: Path, locked: Lake) -> None:
    before = files_below(landed)
    for query in ("WITH x AS (COPY runs TO '{}/out.csv') FROM x", "SELECT 1; COPY runs TO '{}/out.csv'"):
        with pytest.raises(UsageError, match="a locked lake is asked with one SELECT"):
            locked.answer(Question(query.format(landed / "lake")))
    assert files_below(landed) == before
    window = Window()
    assert credits_question("all", window=window).is_own
    assert not credits_question("all", window=window, where="credits > 1").is_own


@pytest.mark.parametrize("query", ["WITH x AS (COPY runs TO 'lake/out.csv') FROM x", "FROM read_text('beside.csv')"])
def test_pipeline_sql_asks_a_locked_lake_and_says_how_not_to(there: Path, capsys: Capture, query: str) -> None:
    before = files_below(there)
    assert ask("sql", query) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "a locked lake is asked with one SELECT" in said.err or "`pipeline sql --unlocked` does" in said.err
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
def test_no_other_file_nor_network_nor_environment_can_be_read(there: Path, locked: Lake, query: str) -> None:
    link = there / "lake" / "link.csv"
    link.symlink_to(there / "beside.csv")
    try:
        with pytest.raises(
            (UsageError, duckdb.PermissionException), match=r"Permission Error|does not exist"
        ) as refused:
            locked.sql(query).fetchall()
    finally:
        link.unlink()
    assert "unreadable" not in str(refused.value)


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
    with question.open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert ask("sql", "-", "--format", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["metadata.team"], row["credits"]) == ("red", "1.500000")


# Names and values that look like SQL

FOLDERS = ["a'; DROP VIEW runs; --b", 'a" b', "a$name", "{a,b}", "a]b", "~", "a%2fb", "日本", "a\nb"]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_lake_in_a_folder_of_any_name_can_be_asked(landed: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(landed / "lake", tmp_path / name)
    with Lake(tmp_path / name, locked=True) as catalog:
        assert catalog.sql("SELECT runs.run_id, loads.landed FROM runs, loads").fetchall() == [("clr_1", 1)]
        assert catalog.credits("all").project("credits").fetchall() == [(Decimal("1.5"),)]
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a*", "*", "a?", "[ab]b", "a[b", "a\\b"])
def test_a_folder_that_would_be_a_pattern_is_refused_before_another_lake_is_read(
    there: Path, capsys: Capture, name: str
) -> None:
    before = files_below(there)
    (there / "saved.json").write_text(json.dumps(classify("clr_9")))
    try:
        for arguments in (["sql", "FROM runs"], ["status"], ["load", "saved.json"]):
            assert cli.main([*arguments, "--lake", name]) == 2
            assert "a lake's path cannot have" in capsys.readouterr().err
    finally:
        (there / "saved.json").unlink()
    assert files_below(there) == before


PIECES = [
    "'",
    '"',
    ";",
    "--",
    "/*",
    "*/",
    "$",
    "$key_1",
    "\\",
    "(",
    ")",
    ".",
    "~",
    "~1",
    "/",
    "x",
    " ",
    "%",
    "[0]",
    "*",
]
WORDS = ["true", "1 = 1", "COPY", "runs", "TO", "UNION", "SELECT", "LIMIT 1", "ORDER BY 1", "kind", "=", "OR"]
HOSTILE = [
    *PIECES,
    "a'; DROP VIEW runs; --",
    "x' OR true --",
    '$."a"',
    "''",
    '"" = ""',
    "a~0b~1c",
    "E'\\x'",
    "$$",
    "%s",
]


def check_texts(lake: LakeFiles, texts: list[str]) -> None:
    """Land runs with each text as a metadata key and the next one as its value, and ask for them by key and value."""
    values = [*texts[1:], texts[0]]
    metadata = dict(zip(texts, values, strict=True))
    land(
        lake,
        classify("clr_1", usage={"credits": 1.5}, metadata=metadata),
        classify("clr_2", usage={"credits": 1}, metadata={"unlike": "unlike"}),
    )
    keys = [key for key in metadata if key.isprintable()]
    with Lake(lake.folder, locked=True) as catalog:
        question = catalog.credits_question([f"metadata.{key}" for key in keys])
        for answer in (catalog.answer(question), catalog.sql(question.as_sql())):
            rows = answer.project(", ".join(f"#{number}" for number in range(1, len(keys) + 1))).fetchall()
            assert sorted(rows, key=str) == sorted([tuple(metadata[key] for key in keys), (None,) * len(keys)], key=str)
        for value in texts:
            found = catalog.sql("SELECT run_id FROM runs WHERE contains(metadata, $v)", v=json.dumps(value)[1:-1])
            written = f"metadata IS NOT NULL AND {literal(value)} = $v AND kind <> {literal(value)}"
            assert catalog.sql(f"SELECT count(*) FROM runs WHERE {written}", v=value).fetchall() == [(2,)]
            assert ("clr_1",) in found.fetchall() or not value.isascii()


def test_metadata_keys_and_values_of_any_text_are_only_ever_text(lake: LakeFiles) -> None:
    check_texts(lake, HOSTILE)


ANY_TEXT = st.one_of(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12),
)


@pytest.mark.long
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts=st.lists(ANY_TEXT, min_size=10, max_size=30, unique=True))
def test_drawn_metadata_keys_and_values_are_only_ever_text(tmp_path_factory: TempPaths, texts: list[str]) -> None:
    check_texts(LakeFiles(tmp_path_factory.mktemp("any") / "lake"), texts)


def check_condition_writes_nothing(catalog: Lake, folder: Path, condition: str) -> None:
    before = files_below(folder)
    try:
        rows = catalog.credits("all", where=condition).project("credits").fetchall()
    except duckdb.ConversionException:
        pass  # as with `WHERE 'x'`: it can be read, and is no truth value
    except UsageError as error:
        assert any(word in str(error) for word in ("--where", "cannot be answered")), error  # noqa: PT017 — or none is raised
    else:
        assert rows in ([], [(Decimal("1.5"),)])
    assert files_below(folder) == before
    assert catalog.sql("SELECT run_id FROM runs").fetchall() == [("clr_1",)]


@pytest.mark.parametrize(
    "condition",
    [
        "true) OR (1 = 1",
        "true); COPY runs TO 'lake/out.csv'; SELECT (true",
        "true UNION SELECT 1",
        "kind IN (WITH x AS (COPY runs TO 'lake/out.csv') SELECT 'a' FROM x)",
        "true /*",
        "true -- ",
        "$since",
        "getenv('HOME') IS NULL",
        "read_text('/etc/passwd') IS NULL",
    ],
)
def test_a_condition_is_a_condition_or_refused_and_writes_nothing(there: Path, locked: Lake, condition: str) -> None:
    check_condition_writes_nothing(locked, there, condition)


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.sampled_from([*PIECES, *WORDS]), max_size=8))
def test_a_condition_of_drawn_pieces_writes_nothing(landed: Path, locked: Lake, parts: list[str]) -> None:
    check_condition_writes_nothing(locked, landed, " ".join(parts))


@pytest.mark.parametrize("option", ["--by", "--since", "--until", "--rate"])
def test_what_a_report_is_told_is_refused_where_it_is_not_what_it_should_be(
    there: Path, capsys: Capture, option: str
) -> None:
    before = files_below(there)
    for text in ("x'; DROP VIEW runs; --", "1; COPY runs TO 'out.csv'", "(SELECT 1)", "$since"):
        assert ask("report", "credits", f"{option}={text}") == 2
    assert capsys.readouterr().out == ""
    assert files_below(there) == before
