"""Does the lake keep its promises? `check`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from pipeline.commands.options import Commands, add_command, add_lake, warn

if TYPE_CHECKING:
    from pipeline.checks.lake import Checked

A_PROMISE_IS_BROKEN = 5


def add_check(commands: Commands) -> None:
    """Add `pipeline check`."""
    parser = add_command(
        commands,
        "check",
        run_check,
        "whether the lake keeps its promises, to the last byte",
        more="Reads every file whole. Each line is ok, broken, or a note: what you should know, and may be as it is.\n"
        "Exit code 5 where a promise is broken. --repair makes anew what can be: from the raw log, without a request.",
        examples="  pipeline check\n  pipeline check --repair\n  pipeline check --format json",
    )
    parser.add_argument(
        "--repair", action="store_true", help="mend what is broken and can be made anew, and check again"
    )
    parser.add_argument("--format", choices=("table", "json"), default="table", help="how to print it (%(default)s)")
    add_lake(parser)


def run_check(arguments: argparse.Namespace) -> int:
    """Check the lake, and mend it if asked to."""
    from pipeline.checks.lake import check_lake
    from pipeline.opening import existing_lake

    lake = existing_lake(arguments.lake)
    checked = check_lake(lake)
    if arguments.repair and not checked.is_whole:
        from pipeline.checks.repair import repair_lake

        for each in checked.findings:
            if each.state == "broken":
                warn(f"{each.check}: {each.message}")
        checked = repair_lake(lake, checked, tell=lambda message: warn(f"repair: {message}"))
    if arguments.format == "json":
        _print_json(checked)
    else:
        _print_list(checked, repaired=arguments.repair)
    return 0 if checked.is_whole else A_PROMISE_IS_BROKEN


def _print_json(checked: Checked) -> None:
    rows = [
        {"check": each.check, "state": each.state, "count": each.count, "message": each.message,
         "offenders": list(each.offenders)}
        for each in checked.findings
    ]  # fmt: skip
    json.dump(rows, sys.stdout, indent=2)
    print()


def _print_list(checked: Checked, *, repaired: bool) -> None:
    from pipeline.render import printable

    for each in checked.findings:
        print(f"{each.state:<7} {each.check:<20} {printable(each.message)}")
        for offender in each.offenders:
            print(f"          {printable(offender)}")
        if each.more:
            print("          …")
    total, broken = len(checked.findings), sum(each.state == "broken" for each in checked.findings)
    counted = f"{broken} of {total} checks found"
    if not broken:
        print(f"{total} checks found no broken promise")
    elif repaired:
        print(f"{counted} a broken promise still: what is left cannot be made anew")
    else:
        print(f"{counted} a broken promise; mend what can be: pipeline check --repair")
