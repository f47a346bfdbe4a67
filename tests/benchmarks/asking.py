"""Questions to a lake of ten million runs, of two ledger lines each: whole commands, beside pandas on the same files.

The answers are compared with what the runs were made of. The ledger that stands beside a large lake is made by the
first question; how long that takes is a line of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from typing import Any

from tests.benchmarks import lakes
from tests.benchmarks.lakes import MadeLake
from tests.benchmarks.measuring import BenchmarkError, Spread, Took, in_turn, pipeline_command, ratios, run_child
from tests.benchmarks.options import Options
from tests.benchmarks.results import Line

_RUNS, _FEW_RUNS, _FEW_DAYS = 10_000_000, 20_000, 5
_TURNS = 15  # a tenth of a second each: a single one hangs on the moment
_PLACE = 2  # the place of the day whose page is asked for
_DAY = lakes.day_name(_PLACE)
_PAGE = (
    "SELECT run_id, status, credits, processor_name, created_at FROM runs "
    f"WHERE day = '{_DAY}' ORDER BY created_at DESC, run_id LIMIT 100"
)
QUESTIONS: dict[str, tuple[str, list[str], float]] = {
    "credits": ("credits by day and kind", ["report", "credits", "--by", "day,kind"], 2.0),
    "reason": ("failures by reason", ["report", "failures", "--show", "rates", "--by", "reason"], 0.5),
    "processor": ("failures by processor", ["report", "failures", "--show", "rates", "--by", "processor"], 0.5),
    "page": ("one day's page of a hundred runs", ["sql", _PAGE], 0.1),
}
"""What is asked: its title, its command, and how many seconds it may take."""


def measure(options: Options, folder: Path) -> list[Line]:
    """Return how long each question takes, by the pipeline and by pandas."""
    days = _FEW_DAYS if options.small else lakes.DAYS
    lake = lakes.made_once(options.lakes, _FEW_RUNS if options.small else _RUNS, days)
    first = ask(lake, "credits", folder)
    lines = [
        Line(
            f"the first question to {lake.runs:,} runs, which makes the ledger",
            f"{first.wall_s:,.1f} s, {first.peak_mib:,.0f} MiB",
            figures={"wall_s": [first.wall_s], "cpu_s": [first.cpu_s], "peak_mib": [first.peak_mib]},
        )
    ]
    for question in QUESTIONS:
        runs: dict[str, Callable[[int], Took]] = {"pipeline": partial(_ask_once, lake, question, folder)}
        took = in_turn(options.turns(_TURNS), runs, once_before=True)
        if not options.alone:  # fewer times: it takes minutes
            took |= in_turn(1, {"pandas": partial(_ask_pandas, lake, question, folder)})
        lines.append(_line(lake, question, took))
    return lines


def _ask_once(lake: MadeLake, question: str, folder: Path, _turn: int) -> Took:
    return ask(lake, question, folder)


def ask(lake: MadeLake, question: str, folder: Path) -> Took:
    """Ask by the pipeline's command, and check its answer."""
    _title, arguments, _most_s = QUESTIONS[question]
    took = run_child(pipeline_command(*arguments, "--format", "json", "--lake", str(lake.folder)), folder=folder)
    rows = json.loads(took.output)
    given: Any
    if question == "credits":
        given = {(row["day"], row["kind"]): Decimal(row["credits"]) for row in rows}
    elif question == "page":
        given = [row["run_id"] for row in rows]
    else:
        given = {row[question]: row["failed"] for row in rows if row[question] is not None and row["failed"]}
    _check("pipeline", question, given, _expected(lake, question))
    return took


def _ask_pandas(lake: MadeLake, question: str, folder: Path, _turn: int) -> Took:
    command = [sys.executable, "-m", "tests.benchmarks.peers.pandas_asking", str(lake.folder), question]
    took = run_child([*command, _DAY] if question == "page" else command, folder=folder)
    given = json.loads(took.output)
    if question == "credits":
        given = {(day, kind): round(Decimal(credits), 6) for day, kind, credits in given}
    _check("pandas", question, given, _expected(lake, question))
    return took


@cache
def _expected(lake: MadeLake, question: str) -> Any:
    """Return the right answer, from what the runs were made of."""
    if question == "credits":
        return lakes.credits_by_day_and_kind(lake)
    if question == "page":
        numbers, days = lake.numbers(_PLACE), len(lake.sizes)
        keys = ((-lakes.created_at(number, days).timestamp(), lakes.run_id(number)) for number in numbers)
        return [run_id for _created_at, run_id in sorted(keys)[:100]]
    return dict(lakes.failures(lake, lakes.reason_of if question == "reason" else lakes.processor_of))


def _check(name: str, question: str, given: Any, expected: Any) -> None:
    if given != expected:
        what = f"{str(given)[:500]} is not {str(expected)[:500]}"
        raise BenchmarkError(f"{name}: its answer on {question} is not right: {what}")


def _line(lake: MadeLake, question: str, took: dict[str, list[Took]]) -> Line:
    title, _arguments, most_s = QUESTIONS[question]
    wall = {name: [each.wall_s for each in of] for name, of in took.items()}
    own = Spread.of(wall["pipeline"])
    peak = max(each.peak_mib for each in took["pipeline"])
    beside = ratio = ""
    if "pandas" in took:
        other = Spread.of(wall["pandas"])
        beside = f"pandas: {other.text(' s')}, {max(each.peak_mib for each in took['pandas']):,.0f} MiB"
        ratio = ratios([own.median], [other.median]).text(" of it")
    return Line(
        f"{title}, {lake.runs:,} runs",
        f"{own.text(' s')}, {peak:,.0f} MiB",
        beside,
        ratio,
        f"at most {most_s:g} s",
        own.median <= most_s,
        wall,
    )
