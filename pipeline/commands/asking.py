"""Ask the lake: `report`, `sql`, `status`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from pipeline.commands.options import Commands, add_command, add_format, add_lake

if TYPE_CHECKING:
    import duckdb

    from pipeline.catalog import Lake


def add_report(commands: Commands) -> None:
    """Add `pipeline report`."""
    parser = commands.add_parser(
        "report",
        help="where the credits went; what failed, and why",
        description="Where the credits went; what failed, and why.",
        epilog="examples:\n  pipeline report credits\n  pipeline report failures --format csv > failures.csv",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    reports = parser.add_subparsers(title="reports", metavar="REPORT", required=True)
    credits = add_command(
        reports,
        "credits",
        run_report_credits,
        "credits by day and kind, each credit once",
        more="Runs whose credits the API does not report are counted apart: unknown is not zero.",
        examples="  pipeline report credits\n  pipeline report credits --format csv > credits.csv",
    )
    failures = add_command(
        reports,
        "failures",
        run_report_failures,
        "failed runs by kind and reason, with the rate and its 95 %% interval",
        more="The rate is failed ÷ (processed + failed); a reason that the vendor does not document is marked.",
        examples="  pipeline report failures\n  pipeline report failures --format json",
    )
    for each in (credits, failures):
        add_format(each)
        add_lake(each)


def add_sql(commands: Commands) -> None:
    """Add `pipeline sql`."""
    parser = add_command(
        commands,
        "sql",
        run_sql,
        "ask the lake a question in SQL (DuckDB's)",
        more="The tables: runs, charges, credit_ledger (every credit once), loads, dead_letters. Times are UTC.",
        examples='  pipeline sql "SELECT kind, status, count(*) FROM runs GROUP BY ALL ORDER BY ALL"\n'
        "  pipeline sql 'FROM dead_letters' --format json\n"
        "  pipeline sql 'FROM runs' --format parquet > runs.parquet\n"
        "  pipeline sql - < question.sql",
    )
    parser.add_argument("query", help="the query; - reads it from standard input")
    add_format(parser)
    add_lake(parser)


def add_status(commands: Commands) -> None:
    """Add `pipeline status`."""
    parser = add_command(
        commands,
        "status",
        run_status,
        "what the lake has: runs, days, dead letters, the last load, size",
        examples="  pipeline status",
    )
    add_lake(parser)


def run_report_credits(arguments: argparse.Namespace) -> int:
    """Print credits by day and kind."""
    from pipeline.catalog import Lake
    from pipeline.summaries import write_credits

    return _report(arguments, Lake.credits, write_credits)


def run_report_failures(arguments: argparse.Namespace) -> int:
    """Print failures by kind and reason."""
    from pipeline.catalog import Lake
    from pipeline.summaries import write_failures

    return _report(arguments, Lake.failures, write_failures)


def run_sql(arguments: argparse.Namespace) -> int:
    """Answer a query."""
    from pipeline.catalog import Lake
    from pipeline.render import write_relation

    query = sys.stdin.read() if arguments.query == "-" else arguments.query
    with Lake(arguments.lake) as lake:
        write_relation(lake.sql(query), format=arguments.format, stream=sys.stdout)
    return 0


def run_status(arguments: argparse.Namespace) -> int:
    """Say what the lake has."""
    from pipeline.catalog import Lake
    from pipeline.summaries import write_status

    with Lake(arguments.lake) as lake:
        write_status(lake, sys.stdout)
    return 0


def _report(
    arguments: argparse.Namespace,
    ask: Callable[[Lake], duckdb.DuckDBPyRelation],
    write_summary: Callable[[Lake, TextIO], None],
) -> int:
    from pipeline.catalog import Lake
    from pipeline.render import write_relation

    with Lake(arguments.lake) as lake:
        if arguments.format == "table":
            write_summary(lake, sys.stdout)
        else:
            write_relation(ask(lake), format=arguments.format, stream=sys.stdout)
    return 0
