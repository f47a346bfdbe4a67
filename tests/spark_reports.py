"""Every question that reports put, to be asked of two engines."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.answers import Reports
from pipeline.catalog import Lake
from pipeline.fetch import fetch_runs
from pipeline.kinds import FINISHED
from pipeline.lake import LakeFiles
from pipeline.reports import read_sql
from pipeline.reports.credit_questions import unknown_question
from pipeline.reports.questions import Question, Window, ask_runs
from pipeline.sandbox.server import serve
from pipeline.sandbox.world import World
from tests.conftest import classify, connect, land

SINCE, UNTIL = "2026-05-01", "2026-06-20"
CONDITION = "processor_name IS NOT NULL AND file_type = 'PDF'"

RATES = "date,usd\n2026-01-01,0.0125\n2026-06-11,0.013333333\n"

ASKED: dict[str, list[dict[str, Any]]] = {
    "credits": [
        {},
        {"by": ("week", "processor", "version")},
        {"by": ("month", "product", "basis"), "since": SINCE, "until": UNTIL},
        {"by": ("workspace", "file-type", "source"), "where": CONDITION},
        {"by": ("metadata.team",)},
        {"by": ("kind", 'metadata.it\'s a/b~c."d"')},
        {"by": "all", "rate": "0.0125"},
        {"by": ("day", "kind"), "rate": "rates.csv", "since": SINCE},
        {"by": ("kind",), "compare": "previous"},
        {"by": ("product", "day"), "compare": "previous", "since": "2026-06-10", "until": UNTIL},
    ],
    "costliest_runs": [{}, {"most": 500, "since": SINCE}],
    "costliest_files": [{}, {"most": 500, "where": CONDITION}],
    "wasted_credits": [{}, {"by": ("processor", "product")}, {"by": "month", "since": SINCE, "until": UNTIL}],
    "failures": [
        {},
        {"by": ("day", "processor_id", "version")},
        {"by": "reason"},
        {"by": ("metadata.team", "reason"), "where": "kind <> 'parse_run'"},
        {"by": ("week", "kind"), "since": SINCE, "until": UNTIL},
        {"by": ("status", "source", "workspace", "file_type")},
    ],
    "failure_messages": [{}, {"by": ("processor", "reason"), "most": 500}],
    "failure_changes": [{}, {"since": "2026-06-01", "until": UNTIL}],
    "latency": [{}, {"by": ("kind", "processor", "month")}, {"by": "all", "where": CONDITION}],
}
"""The methods of `Reports`, with what they are called with."""

ALL_TIME, WINDOW = Window(), Window(date(2026, 5, 1), date(2026, 6, 20))

QUESTIONS: dict[str, Question] = {
    "unknown_runs": unknown_question(("kind", "month"), window=ALL_TIME),
    "span": ask_runs("span", None, window=WINDOW),
    "slowest_runs": ask_runs("slowest_runs", None, window=ALL_TIME, params={"most": 50}),
    **{
        name: Question(read_sql(name))
        for name in (
            "charges", "credit_lines", "credit_ledger", "unknown_credits", "credit_sums", "run_sums", "status",
            "dead_letter_reasons", "newest_day", "export_credits_by_day", "export_failures_by_day",
        )
    },
    "related_runs": Question(read_sql("related_runs"), {"run_ids": []}),
    "cover_sizes": Question(read_sql("cover_sizes"), {"finished": sorted(FINISHED)}),
    "cover_wanted": Question(
        read_sql("cover_wanted"),
        {"finished": sorted(FINISHED), "run_ids": [], "kinds": ["extract_run", "parse_run"]},
    ),
    "sync_inferred": Question(read_sql("sync_inferred"), {"workspace": None}),
    "sync_totals_alone": Question(read_sql("sync_totals_alone")),
}  # fmt: skip
"""Those that no method puts; what is to be asked for by ID is filled in by who asks."""

WITHIN: dict[str, str] = {
    "credits_compared": "credits", "credits_priced": "credits", "daily_credits": "forecast",
    "failure_reasons": "failures", "failure_windows": "failure_changes", "settled_runs": "the view of runs",
}  # fmt: skip
"""Files that are asked by another's name."""

NOT_ASKED: dict[str, str] = {
    "csv_macros": "macros for CSV files, which DuckDB writes",
    "hold": "statements that hold tables in DuckDB's memory",
    "focus": "an export, which DuckDB writes",
    "focus_totals": "of a file that the export has written",
    "ledger_credit_sums": "of the ledger's own files, which DuckDB makes",
    "ledger_lines": "the same",
    "ledger_mentions": "the same, by DuckDB's own hashes",
    "ledger_run_sums": "the same",
    "ledger_told_anew": "the same",
    "sync_inferred_part": "a part of the lake, by DuckDB's own hashes",
    "sync_needs": "of views that a sync makes while it runs",
    "sync_unfinished": "the same",
}
"""Files that are no reports, and why nobody asks them of Spark."""


def iter_calls() -> list[tuple[str, dict[str, Any]]]:
    """Return every call of a report's method."""
    return [(name, given) for name, calls in ASKED.items() for given in calls]


def cells(table: pa.Table, *, in_order: bool) -> list[tuple[Any, ...]]:
    rows = [tuple(plain(value) for value in row.values()) for row in table.to_pylist()]
    return rows if in_order else sorted(rows, key=repr)


def plain(value: Any) -> Any:
    """Return a value with decimals as numbers alone: 1.50 and 1.500000 are the same."""
    if isinstance(value, Decimal):
        return value.normalize()
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


def iter_questions(duck: Lake) -> Iterator[tuple[str, Question]]:
    """Yield the questions that no method puts, filled in."""
    found = duck.sql("SELECT run_id FROM runs ORDER BY md5(run_id) LIMIT 60").fetchall()
    asked_for = {"run_ids": [run_id for (run_id,) in found]}
    for name, question in QUESTIONS.items():
        yield name, Question(question.query, {**question.params, **(asked_for if "run_ids" in question.params else {})})


def fill_lake(folder: Path, world: World) -> None:
    """Fill a lake with all kinds of run, some gone, some as summaries alone, and texts that are odd."""
    workspace = world.workspaces[0]
    with serve(world) as server:
        run_ids = [run_id for run_id in world.run_ids(workspace) if not run_id.startswith("vr_")]
        gone = world.deleted_ids(workspace)[:2]
        fetch_runs([*run_ids, *gone], lake=folder, qps=5000, connection=connect(server))
    odd = {
        "updatedAt": "2026-06-12T09:31:00.123457Z",
        "createdAt": "2026-06-12T09:30:00Z",
        "status": "FAILED",
        "failureReason": "ODD",
        "metadata": {"team": "ünïcode", 'it\'s a/b~c."d"': "x", "n": 1.5},
        "usage": {"credits": 0.333333},
    }
    messages = [
        "Datei Ünter.pdf: Seite 3 of 17 failed", "naïve-scan.PDF and ſcan.pdf, run exr_9aBc",
        "größe 12,5.3 bei 'Kopf' x",
        "id 0123456789abcdef0 in “quoted” and `ticks` \\ $1 <b>", "", "line\none 7\ttab é1 1é K.pdf",
    ]  # fmt: skip
    land(
        LakeFiles(folder),
        *(classify(f"clr_odd{number}", **odd, failureMessage=text) for number, text in enumerate(messages)),
        classify("clr_summary", createdAt="2026-06-12T23:59:59.999999Z", usage={"credits": 1}),
        is_detail=False,
        fetched_at=datetime(2026, 6, 13, tzinfo=UTC),
    )


def call(lake: Reports[Any], name: str, given: dict[str, Any]) -> Any:
    """Return what a lake answers."""
    return getattr(lake, name)(**given)
