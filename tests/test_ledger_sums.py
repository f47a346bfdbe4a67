"""Reports that read kept sums say what they say without; sums that are not what was written are not read."""

import os
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline.catalog import Lake
from pipeline.lake import LakeFiles
from pipeline.ledger import SUMS, LedgerFiles
from pipeline.sandbox.world import World
from tests.conftest import classify, land
from tests.test_credit_ledger import details_of, summaries_of

OF_BOTH = ["day", "week", "month", "kind", "processor", "processor_id", "version", "workspace", "file_type", "source"]
CREDITS_BY = [*OF_BOTH, "product", "basis", "all"]
FAILURES_BY = [*OF_BOTH, "status", "reason", "all"]


@pytest.fixture(autouse=True)
def _no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk: a power cut is the matter of other tests, and here are hundreds of files."""
    monkeypatch.setattr(os, "fsync", lambda _handle: None)


@pytest.fixture
def filled(lake: LakeFiles) -> LakeFiles:
    """A lake of a world's runs, half of them in detail."""
    world = World(seed=5, runs=150)
    run_ids = world.run_ids(world.workspaces[0])
    land(lake, *details_of(world, run_ids[::2]))
    land(lake, *summaries_of(world, run_ids), is_detail=False)
    land(lake, classify("clr_failed", status="FAILED", failureReason="OCR_ERROR", usage=None))
    return lake


def answers(lake: LakeFiles) -> dict[str, Any]:
    with Lake(lake.folder) as catalog:
        found: dict[str, Any] = {}
        for by in [*CREDITS_BY, ["day", "kind"], ["month", "product"]]:
            found[f"credits {by}"] = catalog.credits(by).fetchall()
        for by in [*FAILURES_BY, ["kind", "reason"], ["processor", "reason"]]:
            found[f"failures {by}"] = catalog.failures(by).fetchall()
        found["window"] = catalog.credits(["day"], since="2026-06-01", until="2026-09-01").fetchall()
        found["failures in a window"] = catalog.failures(["kind"], since="2026-06-01").fetchall()
        found["forecast"], found["newest day"] = catalog.forecast(), catalog.newest_day()
        return found


@pytest.mark.long
def test_all_reports_say_the_same_with_and_without_kept_sums(filled: LakeFiles) -> None:
    without = answers(filled)
    LedgerFiles(filled).refresh()
    assert LedgerFiles(filled).current() is not None
    assert answers(filled) == without
    assert sum(row[1] or 0 for row in without["credits kind"]) > 0
    assert sum(row[1] for row in without["failures kind"]) > 0, "the fixture has a failed run"


def test_sums_are_brought_up_to_date_for_the_days_that_changed(filled: LakeFiles) -> None:
    LedgerFiles(filled).refresh()
    land(
        filled,
        classify("clr_new", status="FAILED", failureReason="OCR_ERROR"),
        classify("clr_newer", usage={"credits": 7}),
    )
    assert LedgerFiles(filled).current() is None
    without = answers(filled)
    assert 0 < LedgerFiles(filled).refresh() < len(filled.days())
    assert answers(filled) == without


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that DuckDB was told to look at."""
    names: list[str] = []
    execute = duckdb.DuckDBPyConnection.execute

    def noting(con: duckdb.DuckDBPyConnection, query: str, *values: Any) -> duckdb.DuckDBPyConnection:
        names.extend(re.findall(r"[^/\\']+\.parquet", query))
        return execute(con, query, *values)

    monkeypatch.setattr(duckdb.DuckDBPyConnection, "execute", noting)
    return names


def test_a_report_by_day_and_kind_looks_at_no_line_and_one_on_single_lines_does(
    filled: LakeFiles, opened: list[str]
) -> None:
    LedgerFiles(filled).refresh()
    opened.clear()
    with Lake(filled.folder) as catalog:
        catalog.credits(["day", "kind"])
        catalog.failures(["kind", "reason"])
        catalog.forecast()
        assert [name for name in opened if name.startswith("credit_sums-")]
        assert not [name for name in opened if name.startswith(("lines-", "ids-"))]
        catalog.credit_ledger().fetchall()
        assert [name for name in opened if name.startswith("lines-")]


@pytest.mark.parametrize("name", SUMS)
def test_damaged_sums_are_not_read_and_are_made_anew(filled: LakeFiles, name: str) -> None:
    without = answers(filled)
    ledger = LedgerFiles(filled)
    ledger.refresh()
    path = ledger.sums_path(name, ledger.read_manifest().sums)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert ledger.current() is None
    assert answers(filled) == without
    ledger.refresh()
    assert ledger.current() is not None
    assert answers(filled) == without


def test_damaged_lines_are_found_when_they_are_asked_for_and_made_anew(filled: LakeFiles) -> None:
    ledger = LedgerFiles(filled)
    with Lake(filled.folder) as catalog:
        without = sorted(map(repr, catalog.credit_ledger().fetchall()))
    ledger.refresh()
    kept = ledger.current()
    assert kept is not None
    path = Path(kept.lines[3])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with Lake(filled.folder) as catalog:
        assert sorted(map(repr, catalog.credit_ledger().fetchall())) == without
    assert not path.exists()
    ledger = LedgerFiles(filled)
    assert ledger.current() is None
    assert ledger.refresh() == 1
    with Lake(filled.folder) as catalog:
        assert sorted(map(repr, catalog.credit_ledger().fetchall())) == without


def test_what_sums_leave_out_is_asked_of_the_lines(filled: LakeFiles) -> None:
    LedgerFiles(filled).refresh()
    with Lake(filled.folder) as catalog:
        whole = catalog.credits("all").fetchall()[0][1]
        parts = catalog.credits(["metadata.team"]).fetchall()
        assert sum(row[1] or 0 for row in parts) == whole
        halves = [catalog.credits("all", where=f"credits {sign} 1").fetchall()[0][1] for sign in ("<", ">=")]
        assert sum(halves) == whole
