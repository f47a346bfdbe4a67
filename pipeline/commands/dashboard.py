"""Put the lake on a page: `dashboard`."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.commands.options import Commands, add_command, add_lake, warn

_OUTPUT = "dashboard.html"


def add_dashboard(commands: Commands) -> None:
    """Add `pipeline dashboard`."""
    parser = add_command(
        commands,
        "dashboard",
        run_dashboard,
        "one web page with charts: credits, forecast, failures, what changed, how sure it is",
        more="The page is one file that loads nothing and connects to nothing. Its charts need the package\n"
        "vl-convert-python: pip install 'extend-pipeline[dashboard]'.",
        examples="  pipeline dashboard --open\n"
        "  pipeline dashboard --since 2026-09 --rate 0.0125 --output quarter.html",
    )
    parser.add_argument(
        "--output", metavar="FILE", default=_OUTPUT, help="the file to write, in place of an older one (%(default)s)"
    )
    parser.add_argument("--open", action="store_true", help="show it in the browser")
    parser.add_argument("--since", metavar="DAY", help="from this UTC day on: 2026-11-03, or 2026-11 for its first")
    parser.add_argument("--until", metavar="DAY", help="to before this UTC day")
    parser.add_argument(
        "--rate", metavar="USD", help="USD a credit, or a CSV file of rates: lines of a day and the rate from then on"
    )
    add_lake(parser)


def run_dashboard(arguments: argparse.Namespace) -> int:
    """Write the page, and show it where that was asked for."""
    import webbrowser

    from pipeline.catalog import Lake
    from pipeline.dashboard.facts import gather_facts
    from pipeline.dashboard.page import render_page
    from pipeline.durable import write_file

    with Lake(arguments.lake, locked=True) as lake:
        lake.keep_ledger(tell=warn)
        facts = gather_facts(lake, since=arguments.since, until=arguments.until, rate=arguments.rate)
    content = render_page(facts).encode()
    path = Path(arguments.output).resolve()
    write_file(path, content)
    print(f"{arguments.output}: {facts.span['runs']:,} runs on one page, {len(content) / 1e6:.1f} MB")
    if arguments.open and not webbrowser.open(path.as_uri()):
        warn(f"no browser could be opened; open {arguments.output} in one")
    return 0
