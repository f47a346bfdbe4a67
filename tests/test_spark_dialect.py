"""The reports' SQL in Spark's words: what each rewriting makes, and that no file is left out unnoticed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.reports import read_sql
from tests.spark_reports import ASKED, NOT_ASKED, QUESTIONS, WITHIN

pytest.importorskip("pyspark", reason="the extra `spark` is not installed")

from pipeline.spark.dialect import spark_sql
from pipeline.spark.lake import spark_params

PACKAGE = Path(__file__).parent.parent / "pipeline"
FILES = sorted(path.stem for path in (PACKAGE / "reports").glob("*.sql"))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("SELECT len(breakdown), len(file_name) FROM runs", "SELECT SIZE(breakdown), LENGTH(file_name) FROM runs"),
        ("SELECT xs[1] FROM t", "SELECT GET(xs, 0) FROM t"),
        ("SELECT unnest(xs) AS x FROM t", "SELECT EXPLODE(xs) AS x FROM t"),
        ("SELECT a, unnest(place) FROM t", "SELECT a, place.* FROM t"),
        (
            "SELECT a FROM t WHERE a IN (SELECT unnest($listed))",
            "SELECT a FROM t WHERE a IN (SELECT EXPLODE(:listed))",
        ),
        (
            "SELECT a, unnest(xs) AS x, b, unnest(ys) AS y FROM t",
            "SELECT a, INLINE(ARRAYS_ZIP(xs, ys)) AS (x, y), b FROM t",
        ),
        (
            "SELECT max(n) FILTER (WHERE ok) OVER (PARTITION BY p) FROM t",
            "SELECT MAX(CASE WHEN ok THEN n END) OVER (PARTITION BY p) FROM t",
        ),
        ("SELECT quantile_cont(s, 0.9) FROM t", "SELECT PERCENTILE(s, 0.9) FROM t"),
        ("SELECT epoch_us(at) FROM t", "SELECT UNIX_MICROS(at) FROM t"),
        ("SELECT any_value(n ORDER BY n) FROM t", "SELECT MIN(n) FROM t"),
        (
            "SELECT json_extract_string(metadata, $key_1) FROM t",
            "SELECT TRY_ELEMENT_AT(FROM_JSON(metadata, 'MAP<STRING, STRING>'), :key_1) FROM t",
        ),
        (
            "SELECT CAST(c AS DECIMAL(28, 6)) * CAST(r AS DECIMAL(10, 9)) FROM t",
            "SELECT CAST(c AS DECIMAL(27, 6)) * CAST(r AS DECIMAL(10, 9)) FROM t",
        ),
        ("SELECT a FROM t ORDER BY a, b DESC", "SELECT a FROM t ORDER BY a NULLS LAST, b DESC"),
        (
            "SELECT regexp_replace(regexp_replace(m, 'a', 'b', 'gi'), 'c', 'd', 'g') FROM t",
            "SELECT REGEXP_REPLACE(REGEXP_REPLACE(m, '(?iu)a', 'b'), 'c', 'd') FROM t",
        ),
        (
            r"SELECT regexp_replace(m, '\bx', '<n>', 'gi') FROM t",
            r"SELECT REGEXP_REPLACE(m, '(?iu)(?:(?<=\\w)(?!\\w)|(?<!\\w)(?=\\w))x', '<n>') FROM t",
        ),
    ],
)
def test_what_spark_has_no_word_for_is_written_out(written: str, expected: str) -> None:
    assert spark_sql(written) == expected


def test_the_dimensions_of_a_question_are_written_out_wherever_they_stand() -> None:
    query = r"""
        WITH asked AS (SELECT *, kind AS "by_kind", m AS "by_metadata.a b" FROM runs)
        SELECT COLUMNS('^by_(.+)$') AS '\1', struct_pack(*COLUMNS('^by_.+$')) AS place, count(*) AS runs
        FROM asked GROUP BY ALL ORDER BY runs, COLUMNS('^by_.+$') NULLS LAST
    """
    assert spark_sql(query) == (
        "WITH asked AS (SELECT *, kind AS `by_kind`, m AS `by_metadata.a b` FROM runs) "
        "SELECT `by_kind` AS `kind`, `by_metadata.a b` AS `metadata.a b`, "
        "STRUCT(`by_kind`, `by_metadata.a b`) AS place, COUNT(*) AS runs FROM asked GROUP BY ALL "
        "ORDER BY runs NULLS LAST, `by_kind` NULLS LAST, `by_metadata.a b` NULLS LAST"
    )


def test_a_replacement_that_refers_to_a_group_is_refused_and_not_put_wrongly() -> None:
    with pytest.raises(UsageError, match="regexp_replace"):
        spark_sql(r"SELECT regexp_replace(m, '(x)', '\1', 'g') FROM t")
    with pytest.raises(UsageError, match="regexp_replace"):
        spark_sql("SELECT regexp_replace(m, 'x', 'y') FROM t")


def test_what_is_no_sql_says_so() -> None:
    with pytest.raises(UsageError, match="cannot be put into Spark's SQL"):
        spark_sql("SELECT FROM WHERE (")


def test_a_key_of_the_metadata_is_the_key_itself() -> None:
    assert spark_params({"key_1": "/a~1b~0c", "since": None}) == {"key_1": "a/b~c", "since": None}


def test_every_file_of_sql_is_asked_of_both_engines_or_said_to_be_no_report() -> None:
    known = {*QUESTIONS, *WITHIN, *NOT_ASKED, *ASKED}
    assert [name for name in FILES if name not in known] == []


@pytest.mark.parametrize("name", [name for name in FILES if name not in NOT_ASKED])
def test_every_report_can_be_put_into_sparks_words(name: str) -> None:
    assert "COLUMNS(" not in spark_sql(read_sql(name))


def test_nothing_else_imports_spark_or_what_it_needs() -> None:
    outside = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "spark"]
    assert len(outside) > 100
    for path in outside:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [n for n in names if n.startswith(("pyspark", "sqlglot", "pipeline.spark"))], path


def test_a_command_runs_without_spark_in_memory(tmp_path: Path) -> None:
    code = (
        "import sys, pipeline, pipeline.catalog, pipeline.fetch; from pipeline import cli; "
        "cli.main(['load', sys.argv[1], '--lake', sys.argv[2]]); "
        "print([name for name in ('pyspark', 'py4j', 'sqlglot') if name in sys.modules])"
    )
    payload = tmp_path / "run.json"
    payload.write_text('{"object": "classify_run", "id": "clr_1", "status": "PENDING"}')
    done = subprocess.run(
        [sys.executable, "-c", code, str(payload), str(tmp_path / "lake")], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
