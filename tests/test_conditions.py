"""Conditions: whatever is a condition goes through as it stands, and nothing that is more than one does."""

from pathlib import Path

import pytest

from pipeline.catalog import Lake
from pipeline.errors import UsageError
from pipeline.lake import LakeFiles
from pipeline.reports.conditions import check_condition
from tests.conftest import classify, land


@pytest.mark.parametrize(
    "text",
    [
        "credits > 1",
        "kind IN ('parse_run', 'extract_run') AND NOT basis = 'inferred'",
        "file_name LIKE '%; DROP TABLE runs; --%'",
        "charged_on BETWEEN DATE '2026-11-01' AND DATE '2026-11-30' OR charged_on IS NULL",
        "metadata ->> '$.team' = 'ops' -- only theirs",
        "(credits > 1) OR (credits < 0)",
        "CASE WHEN true THEN lower(status) = 'x' END",
        "list_contains(['a'], product)",
        "true\n/* all */",
    ],
)
def test_a_condition_goes_through_as_it_stands(text: str) -> None:
    assert check_condition(text) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a condition"),
        ("credits >", "not a condition"),
        ("true; DROP TABLE runs", "not a condition"),
        ("true); COPY runs TO 'out.csv'; SELECT (1", "more than a condition|not a condition"),
        ("true) UNION ALL (SELECT 1", "more than a condition|not a condition|subqueries"),
        ("true) UNION ALL SELECT * FROM (VALUES (1)", "more than a condition|not a condition|subqueries"),
        ("-- all", "not a condition"),
        ("true) OR (true", "not a condition"),
        ("true) GROUP BY ALL HAVING (true", "more than a condition"),
        ("true) ORDER BY (1", "more than a condition"),
        ("true) LIMIT (1", "more than a condition"),
        ("true) QUALIFY (true", "more than a condition"),
        ("true) -- ", "not a condition"),
        ("credits > (SELECT 1)", "no subqueries"),
        ("EXISTS (FROM read_text('/etc/passwd'))", "no subqueries"),
        ("credits IN (FROM runs SELECT credits)", "no subqueries"),
        ("list_contains([(SELECT 1)], 1)", "no subqueries"),
        ("credits > $since", "no parameters"),
        ("credits > ?", "no parameters"),
    ],
)  # fmt: skip
def test_what_is_more_than_a_condition_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        check_condition(text)
    assert "--where" in str(refused.value)


def test_a_condition_on_a_column_that_is_not_there_is_refused_in_duckdbs_words(lake: LakeFiles) -> None:
    land(lake, classify())
    with Lake(lake.folder) as catalog, pytest.raises(UsageError, match="nothing"):
        catalog.credits(where="nothing = 1")


def test_a_locked_lake_reads_itself_and_no_other_file(lake: LakeFiles, tmp_path: Path) -> None:
    land(lake, classify("clr_1"))
    (tmp_path / "secret.csv").write_text("a\n1\n")
    queries = (
        f"FROM read_csv('{tmp_path}/secret.csv')",
        f"FROM read_text('{tmp_path}/secret.csv')",
        f"COPY (SELECT 1) TO '{tmp_path}/out.csv'",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "INSTALL httpfs",
    )
    with Lake(lake.folder, locked=True) as catalog:
        assert catalog.sql("SELECT count(*) FROM runs").fetchall() == [(1,)]
        for query in queries:
            with pytest.raises(UsageError):
                catalog.sql(query).fetchall()
        # What lands later is still seen.
        land(lake, classify("clr_2", createdAt="2026-11-05T00:00:00Z"))
        assert catalog.sql("SELECT count(*) FROM runs").fetchall() == [(2,)]
        assert len(catalog.failure_changes().fetchall()) > 0
    assert not (tmp_path / "out.csv").exists()
