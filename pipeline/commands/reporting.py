"""Report on the lake: `report credits`, `report failures`, `report latency`."""

from __future__ import annotations

import argparse
import sys
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from pipeline.commands.options import Commands, add_command, add_format, add_lake, warn
from pipeline.rows import fetch_dicts

if TYPE_CHECKING:
    from pipeline.catalog import Lake
    from pipeline.reports.questions import Question

PASSED_LIMIT = 4
"""Exit code where a limit that the user set is passed."""

_TIME_BY = "day, week, month"
_COMMON_BY = "kind, processor, processor_id, version, workspace, file_type, source, metadata.KEY"


def add_report(commands: Commands) -> None:
    """Add `pipeline report`."""
    parser = commands.add_parser(
        "report",
        help="where the credits went; what failed, and why; how long runs took",
        description="Where the credits went; what failed, and why; how long runs took.",
        epilog="examples:\n  pipeline report credits --by month\n"
        "  pipeline report failures --format csv > failures.csv\n"
        "  pipeline report latency --by processor",
    )
    reports = parser.add_subparsers(title="reports", metavar="REPORT", required=True)
    _add_credits(reports)
    _add_failures(reports)
    _add_latency(reports)


def _add_credits(reports: Commands) -> None:
    parser = add_command(
        reports,
        "credits",
        run_report_credits,
        "credits, each once, by day and kind or as you say; the month's forecast; where they were wasted",
        more="Runs whose credits the API does not report are counted apart: unknown is not zero.\n"
        "A line without a processor, file, source or metadata of its own has that of the run that caused it.\n"
        "The forecast: each day to come costs what its weekday did on average in the eight weeks before; its range is\n"
        "that of a thousand months played with those weeks, less the outer 5 % on each side.",
        examples="  pipeline report credits --by month,product --since 2026-01\n"
        "  pipeline report credits --by metadata.team --rate 0.0125\n"
        "  pipeline report credits --by kind --compare previous\n"
        "  pipeline report credits --show runs --since 2026-11 --most 5\n"
        "  pipeline report credits --budget 20000 > /dev/null || echo over",
    )
    _add_asked(parser, "day,kind", f"{_TIME_BY}, {_COMMON_BY}, product, basis", "credit_ledger")
    parser.add_argument(
        "--show",
        choices=("totals", "runs", "files", "wasted", "unknown", "forecast"),
        default="totals",
        help="totals; the costliest runs or files; credits wasted on runs that failed, or on the same file again; runs "
        "with unknown credits; the month's forecast (%(default)s)",
    )
    parser.add_argument("--most", type=_count, default=10, metavar="N", help="how many runs or files (%(default)s)")
    parser.add_argument(
        "--rate", metavar="USD", help="USD a credit, or a CSV file of rates: lines of a day and the rate from then on"
    )
    parser.add_argument(
        "--compare", choices=("previous",), help="beside the window of the same length before (if none: 30 days)"
    )
    parser.add_argument(
        "--budget",
        type=_credits,
        metavar="CREDITS",
        help="exit with 4 where the newest month is forecast above it, or is so already",
    )
    _add_output(parser)


def _add_failures(reports: Commands) -> None:
    parser = add_command(
        reports,
        "failures",
        run_report_failures,
        "failed runs by kind and reason or as you say, with the rate and its interval; what changed",
        more="The rate is failed ÷ (processed + failed); a reason that the vendor does not document is marked.\n"
        "What changed: two windows beside each other; Fisher's exact test, corrected for how many were looked at.",
        examples="  pipeline report failures --by processor,version --since 2026-11\n"
        "  pipeline report failures --show changes --since 2026-11-01 --until 2026-11-08\n"
        "  pipeline report failures --show messages --where \"kind = 'extract_run'\"\n"
        "  pipeline report failures --since 2026-11-20 --fail-above 0.05 > /dev/null",
    )
    _add_asked(parser, "kind,reason", f"{_TIME_BY}, {_COMMON_BY}, reason, status", "runs")
    parser.add_argument(
        "--show",
        choices=("all", "rates", "trend", "changes", "messages"),
        default="all",
        help="rates; the trend by week (--by day or month); what changed since the window before (if none is given: 7 "
        "days); messages, alike ones as one (%(default)s; in other formats than a table: rates)",
    )
    parser.add_argument(
        "--most", type=_count, default=10, metavar="N", help="how many changes or messages (%(default)s)"
    )
    parser.add_argument(
        "--fail-above",
        type=_rate,
        metavar="RATE",
        help="exit with 4 where the rate of all runs asked for is above it: 0.05 or 5%%",
    )
    _add_output(parser)


def _add_latency(reports: Commands) -> None:
    parser = add_command(
        reports,
        "latency",
        run_report_latency,
        "how long runs took from created to finished, in percentiles",
        more="A run's end is the last change that the API tells (`updatedAt`); workflows tell their end.\n"
        "A review moves that, so reviewed runs are left out, and counted.",
        examples="  pipeline report latency --by kind,version --since 2026-11\n"
        "  pipeline report latency --by week --format csv",
    )
    _add_asked(parser, "kind", f"{_TIME_BY}, {_COMMON_BY}, reason, status", "runs")
    _add_output(parser)


def _add_asked(parser: argparse.ArgumentParser, by: str, known: str, table: str) -> None:
    parser.add_argument(
        "--by", action="append", metavar="NAME[,NAME…]", help=f"by what: {known} ({by}; may be given several times)"
    )
    parser.add_argument("--since", metavar="DAY", help="from this UTC day on (2026-11-03, or 2026-11 for its first)")
    parser.add_argument("--until", metavar="DAY", help="up to this UTC day, which is not included")
    parser.add_argument("--where", metavar="CONDITION", help=f"only where this is true: SQL on the columns of {table}")
    parser.set_defaults(usual_by=tuple(by.split(",")))


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sql", action="store_true", help="print the query, to be taken further with `pipeline sql -`")
    add_format(parser)
    add_lake(parser)


def run_report_credits(arguments: argparse.Namespace) -> int:
    """Report on credits; 4 where the month is forecast above the budget."""
    from pipeline.commands import answering

    with _open(arguments) as lake:
        if arguments.sql:
            return _print_sql(answering.credits_question(lake, arguments))
        answering.write_credits(lake, arguments, sys.stdout)
        return _check_budget(lake, arguments) if arguments.budget is not None else 0


def run_report_failures(arguments: argparse.Namespace) -> int:
    """Report on failures; 4 where the rate is above what it may be."""
    from pipeline.commands import answering

    with _open_window(arguments) as lake:
        if arguments.sql:
            return _print_sql(answering.failures_question(lake, arguments))
        answering.write_failures(lake, arguments, sys.stdout)
        return _check_rate(lake, arguments) if arguments.fail_above is not None else 0


def run_report_latency(arguments: argparse.Namespace) -> int:
    """Report on how long runs took."""
    from pipeline.commands import answering

    with _open_window(arguments) as lake:
        if arguments.sql:
            return _print_sql(answering.latency_question(lake, arguments))
        answering.write_latency(lake, arguments, sys.stdout)
    return 0


def _open(arguments: argparse.Namespace) -> Lake:
    from pipeline.catalog import Lake

    lake = Lake(arguments.lake, locked=True)
    lake.keep_ledger(tell=warn)
    return lake


def _open_window(arguments: argparse.Namespace) -> Lake:
    """Open a lake for a question about runs created in a window. Of a bucket, the files of its days are enough, with
    those of the window before, to compare with, and the newest one: a condition can only be one on a run's own columns.
    """
    from pipeline.catalog import Lake
    from pipeline.lake import UNKNOWN_DAY
    from pipeline.reports.questions import as_date

    since, until = as_date(arguments.since, "--since"), as_date(arguments.until, "--until")
    if "://" not in arguments.lake or since is None:
        return _open(arguments)

    def choose(days: list[str]) -> set[str]:
        newest = max((day for day in days if day != UNKNOWN_DAY), default=f"{since}")
        end = until or max(since, date.fromisoformat(newest)) + timedelta(days=1)
        first = since - max(end - since, timedelta())
        return {day for day in days if f"{first}" <= day < f"{end}"} | {newest}

    lake = Lake(arguments.lake, locked=True, choose=choose)
    if lake.files.only_days is None or f"{lake.newest_day()[0]}" == max(lake.files.only_days):
        return lake
    lake.close()
    return _open(arguments)  # the newest file has no run that tells when it was created


def _print_sql(question: Question) -> int:
    sys.stdout.write(question.as_sql())
    return 0


def _check_budget(lake: Lake, arguments: argparse.Namespace) -> int:
    from pipeline.credit_summary import forecast_line

    forecast = lake.forecast(where=arguments.where)
    if forecast is None:
        warn("no runs yet, so nothing to hold against the budget")
        return 0
    if max(forecast.so_far, forecast.expected or Decimal()) <= arguments.budget:
        return 0
    warn(f"above the budget of {arguments.budget:,f} credits: {forecast_line(forecast)}")
    return PASSED_LIMIT


def _check_rate(lake: Lake, arguments: argparse.Namespace) -> int:
    from pipeline.layout import interval, percent

    asked = {"since": arguments.since, "until": arguments.until, "where": arguments.where}
    rows = fetch_dicts(lake.failures("all", **asked))
    if not rows or rows[0]["rate"] is None:
        warn("no run has ended here, so there is no failure rate")
        return 0
    row = rows[0]
    if row["rate"] <= arguments.fail_above:
        return 0
    warn(
        f"failure rate above {percent(arguments.fail_above)}: {row['failed']:,} of {row['ended']:,} failed, "
        f"{percent(row['rate'])} ({interval(row['rate_low'], row['rate_high'])})"
    )
    return PASSED_LIMIT


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000000")
    return int(text)


def _credits(text: str) -> Decimal:
    try:
        amount = Decimal(text.replace(",", ""))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of credits")
    return amount


def _rate(text: str) -> float:
    try:
        rate = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate; write 0.05 or 5%")
    return rate
