"""The lake for other programs: `export focus`, `export duckdb`, `export csv`, `export parquet`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import defaults
from pipeline.commands.options import Commands, add_command, add_lake, warn

if TYPE_CHECKING:
    from pipeline.export.focus import FocusTotals

_STANDS_IN = {
    "first run": "the first run of the workflow above",
    "file": "the time their file came",
    "fetched": "the time they were fetched",
}


def add_export(commands: Commands) -> None:
    """Add `pipeline export`."""
    parser = commands.add_parser(
        "export",
        help="write costs as a FOCUS dataset, or the lake as DuckDB, CSV or Parquet",
        description="Write the lake for other programs. Files are written whole or not at all, and never over another\n"
        "one unless --force says so.",
        epilog="examples:\n  pipeline export focus --rate 0.0125 --output focus.parquet\n"
        "  pipeline export duckdb lake.duckdb",
    )
    shapes = parser.add_subparsers(title="shapes", metavar="SHAPE", required=True)
    _add_focus(shapes)
    _add_duckdb(shapes)
    for suffix in ("csv", "parquet"):
        _add_table(shapes, suffix)


def _add_focus(shapes: Commands) -> None:
    parser = add_command(
        shapes,
        "focus",
        run_focus,
        "costs and usage as a FOCUS 1.2 dataset, for FinOps tools",
        more="One row a line of the credit ledger. Costs are USD at the rate that you give; credits stand beside them\n"
        "(PricingCurrency). A charge whose time no answer told stands at the nearest time that is known, marked in\n"
        "x_ChargePeriodBasis, and is counted on standard error. Runs with unknown credits are not in it.",
        examples="  pipeline export focus --rate 0.0125 --output focus.parquet\n"
        "  pipeline export focus --rate 0.008 --list-rate 0.0125 --billing prepaid --output focus.csv",
    )
    parser.add_argument("--rate", metavar="USD", help="what a credit costs you")
    parser.add_argument("--list-rate", metavar="USD", help="what it costs without your discount (as --rate)")
    parser.add_argument(
        "--billing",
        choices=("payg", "prepaid"),
        default="payg",
        help="prepaid: the credits were bought before; usage bills nothing, and costs all the same (%(default)s)",
    )
    parser.add_argument(
        "--account", default="extend", help="the billing account's ID, which the API does not tell (%(default)s)"
    )
    parser.add_argument(
        "--output", metavar="FILE", required=True, type=Path, help="a file that ends in .parquet or .csv"
    )
    _add_common(parser)


def _add_duckdb(shapes: Commands) -> None:
    parser = add_command(
        shapes,
        "duckdb",
        run_duckdb,
        "a DuckDB database with all tables, for BI tools",
        more="The tables are copied: the file stands alone and stays as it is. The views credits_by_day and\n"
        "failures_by_day are over them.",
        examples='  pipeline export duckdb lake.duckdb\n  duckdb lake.duckdb "FROM credits_by_day"',
    )
    parser.add_argument("output", metavar="FILE", type=Path, help="the database to write")
    _add_common(parser)


def _add_table(shapes: Commands, suffix: str) -> None:
    more = {
        "csv": "Times are RFC 3339, what is nested is JSON. A text that a spreadsheet would take for a formula (it\n"
        "begins with =, +, - or @) gets an apostrophe in front.",
        "parquet": "One file, with the types that the lake has.",
    }
    parser = add_command(
        shapes,
        suffix,
        run_table,
        f"one of the lake's tables as {'CSV' if suffix == 'csv' else 'one Parquet file'}",
        more=more[suffix],
        examples=f"  pipeline export {suffix} runs.{suffix}\n"
        f"  pipeline export {suffix} ledger.{suffix} --table credit_ledger",
    )
    parser.set_defaults(suffix=f".{suffix}")
    parser.add_argument("output", metavar="FILE", type=Path, help="the file to write")
    parser.add_argument("--table", choices=defaults.TABLES, default="runs", help="which one (%(default)s)")
    _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="write over a file that is there already")
    add_lake(parser)


def run_focus(arguments: argparse.Namespace) -> int:
    """Write the FOCUS dataset."""
    from pipeline.catalog import Lake
    from pipeline.export.focus import export_focus, read_terms

    terms = read_terms(arguments.rate, arguments.list_rate, arguments.billing, arguments.account)
    totals = export_focus(arguments.lake, arguments.output, terms, force=arguments.force, tell=warn)
    with Lake(arguments.lake) as lake:
        ((unknown,),) = lake.sql("SELECT count(*) FROM unknown_credits").fetchall()
    _print_totals(arguments.output, totals)
    _tell_what_is_not_known(totals, unknown)
    return 0


def run_duckdb(arguments: argparse.Namespace) -> int:
    """Write a DuckDB database."""
    from pipeline.export.tables import export_database

    counts = export_database(arguments.lake, arguments.output, force=arguments.force, tell=warn)
    print(f"{arguments.output}: {', '.join(f'{count:,} {table}' for table, count in counts.items())}")
    return 0


def run_table(arguments: argparse.Namespace) -> int:
    """Write one of the lake's tables."""
    from pipeline.export.tables import export_table

    rows = export_table(
        arguments.lake, arguments.table, arguments.output, arguments.suffix, force=arguments.force, tell=warn
    )
    print(f"{arguments.output}: {rows:,} rows of {arguments.table}")
    return 0


def _print_totals(path: Path, totals: FocusTotals) -> None:
    from pipeline.render import shown

    if not totals.charges:
        print(f"{path}: no charges, since the lake knows of no credits")
        return
    months = (
        totals.first_month
        if totals.first_month == totals.last_month
        else f"{totals.first_month} to {totals.last_month}"
    )
    print(f"{path}: {totals.charges:,} charges of {months}, {shown(totals.credits)} credits, ", end="")
    print(f"{shown(totals.effective_cost)} USD, of which {shown(totals.billed_cost)} USD billed as used")


def _tell_what_is_not_known(totals: FocusTotals, unknown: int) -> None:
    from pipeline.render import shown

    if totals.undated:
        parts = ", ".join(f"{shown(credits)} at {_STANDS_IN[basis]}" for basis, credits in totals.undated.items())
        undated = sum(totals.undated.values())
        warn(f"{shown(undated)} credits have no known time and stand near it: {parts} (x_ChargePeriodBasis)")
    if unknown:
        runs = "1 run has unknown credits and is" if unknown == 1 else f"{unknown:,} runs have unknown credits and are"
        warn(f"{runs} not in it: pipeline report credits says why")
