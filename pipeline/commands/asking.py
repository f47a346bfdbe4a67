"""Ask the lake: `sql`, `status`."""

from __future__ import annotations

import argparse
import sys

from pipeline.commands.options import Commands, add_command, add_format, add_lake, warn
from pipeline.errors import PipelineError


def add_sql(commands: Commands) -> None:
    """Add `pipeline sql`."""
    parser = add_command(
        commands,
        "sql",
        run_sql,
        "ask the lake a question in SQL (DuckDB's)",
        more="The tables: runs, charges, credit_ledger (every credit once), unknown_credits, loads, dead_letters.\n"
        "Times are UTC.\n\n"
        "A query reads these tables and the files in the lake's folder, and nothing else: no other file, no network,\n"
        "no environment. It is one SELECT (or FROM, WITH, DESCRIBE, …) and writes nothing. --unlocked lifts that.",
        examples='  pipeline sql "SELECT kind, status, count(*) FROM runs GROUP BY ALL ORDER BY ALL"\n'
        "  pipeline sql 'FROM dead_letters' --format json\n"
        "  pipeline sql 'FROM runs' --format parquet > runs.parquet\n"
        "  pipeline sql - < question.sql\n"
        "  pipeline sql --unlocked \"FROM runs SEMI JOIN 'vip.csv' USING (file_name)\"",
    )
    parser.add_argument("query", help="the query; - reads it from standard input")
    parser.add_argument(
        "--unlocked", action="store_true", help="let the query do what you can do: read and write any file (COPY … TO)"
    )
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


def run_sql(arguments: argparse.Namespace) -> int:
    """Answer a query."""
    from pipeline.catalog import Lake
    from pipeline.render import write_parquet, write_rows

    query = sys.stdin.read() if arguments.query == "-" else arguments.query
    # As long as there are the arguments, it is open: to close it takes longer than the end of the process.
    lake = arguments.open_lake = Lake(arguments.lake, locked=not arguments.unlocked)
    try:
        if arguments.format == "parquet":
            write_parquet(lake.sql(query), sys.stdout)
        else:
            write_rows(lake.read(query), format=arguments.format, stream=sys.stdout)
    except PipelineError as error:
        lake.raise_damage(error)
        raise
    if lake.has_changed():
        warn(f"pipeline: {lake.files.name}: a load landed meanwhile; ask again, to be sure of the answer")
    return 0


def run_status(arguments: argparse.Namespace) -> int:
    """Say what the lake has."""
    from pipeline.catalog import Lake
    from pipeline.summaries import write_status

    with Lake(arguments.lake) as lake:
        write_status(lake, sys.stdout)
    return 0
