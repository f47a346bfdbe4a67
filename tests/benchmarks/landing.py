"""Changed runs landing in lakes of millions, by `pipeline load` of saved payloads: reading, logging, merging, writing.

First a hundred thousand of them, spread over all days of a lake of five million. Then a thousand of one day, in lakes
of one and of ten million: the same day in both, and one that is ten times as large. Last a thousand of a day of a
million.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import duckdb

from tests.benchmarks import lakes
from tests.benchmarks.lakes import MadeLake
from tests.benchmarks.measuring import BenchmarkError, Spread, Took, in_turn, pipeline_command, ratios, run_child
from tests.benchmarks.options import Options
from tests.benchmarks.results import Line

_MOST_S, _MOST_MIB = 30, 1024
_MOST_TIMES = 1.2
"""Times the cost in a lake of a tenth: room for what two measurements of the same thing differ by."""


@dataclass(frozen=True, slots=True)
class _Sizes:
    small_lake: int
    middle_lake: int
    large_lake: int
    days: int
    spread: int
    of_a_day: int


_FULL = _Sizes(1_000_000, 5_000_000, 10_000_000, lakes.DAYS, 100_000, 1_000)
_SMALL = _Sizes(20_000, 20_000, 40_000, 5, 500, 100)


def measure(options: Options, folder: Path) -> list[Line]:
    """Return what it takes to land many changed runs of all days, and some of one day."""
    sizes = _SMALL if options.small else _FULL
    middle = lakes.made_once(options.lakes, sizes.middle_lake, sizes.days)
    spread = spread_numbers(middle, sizes.spread)
    took = in_turn(options.turns(3), {"spread": lambda _turn: land(middle, spread, folder)})["spread"]
    return [_line_of_spread(middle, len(spread), took), *_lines_of_a_day(sizes, options, folder)]


def spread_numbers(lake: MadeLake, count: int) -> list[int]:
    """Return the numbers of so many runs, spread evenly over a lake's days and over each day."""
    days = len(lake.sizes)
    of_a_day = [count // days + (place < count % days) for place in range(days)]
    return [
        lake.numbers(place)[each * lake.sizes[place] // wanted]
        for place, wanted in enumerate(of_a_day)
        for each in range(wanted)
    ]


def land(lake: MadeLake, numbers: list[int], folder: Path) -> Took:
    """Land these runs, changed, in a copy of a lake, and check what it has then."""
    payloads, copy = folder / "payloads.jsonl", folder / "copy"
    lakes.write_payloads(payloads, numbers, len(lake.sizes))
    try:
        lake.copied(copy)
        command = pipeline_command("load", str(payloads), "--lake", str(copy), "--quiet", "--json")
        took = run_child(command, folder=folder)
        landed = json.loads(took.output)["landed"]
        if landed != len(numbers):
            raise BenchmarkError(f"{landed:,} runs landed of {len(numbers):,}")
        _check(copy, lake, numbers)
    finally:
        shutil.rmtree(copy)
        payloads.unlink()
    return took


def _check(folder: Path, lake: MadeLake, numbers: list[int]) -> None:
    """Raise unless the lake has each run once, and those of these numbers, and no others, are changed."""
    with duckdb.connect() as con:
        con.read_parquet(str(folder / "runs/*/runs.parquet"), hive_partitioning=False).create_view("runs")
        counted = con.sql("SELECT count(*), count(DISTINCT run_id), sum(credits + total_credits) FROM runs").fetchall()
        changed = {run_id for (run_id,) in con.sql("SELECT run_id FROM runs WHERE reviewed").fetchall()}
    by_kind = dict.fromkeys(("extract_run", "parse_run"), Decimal())
    for (_day, kind), credits in lakes.credits_by_day_and_kind(lake).items():
        by_kind[kind] += credits
    expected = [(lake.runs, lake.runs, 2 * by_kind["extract_run"] + by_kind["parse_run"])]
    if counted != expected or changed != set(map(lakes.run_id, numbers)):
        raise BenchmarkError(f"the lake has {counted} and {len(changed):,} changed runs, which is not {expected}")


def _line_of_spread(lake: MadeLake, number: int, took: list[Took]) -> Line:
    wall, peak = Spread.of(each.wall_s for each in took), Spread.of(each.peak_mib for each in took)
    return Line(
        f"landing {number:,} changed runs of {len(lake.sizes)} days in a lake of {lake.runs:,}",
        f"{wall.text(' s')}, {peak.text(' MiB')}",
        aim=f"under {_MOST_S} s and {_MOST_MIB:,} MiB",
        reached=wall.median < _MOST_S and peak.median < _MOST_MIB,
        figures=_figures(took),
    )


def _lines_of_a_day(sizes: _Sizes, options: Options, folder: Path) -> list[Line]:
    small = lakes.made_once(options.lakes, sizes.small_lake, sizes.days)
    large = lakes.made_once(options.lakes, sizes.large_lake, sizes.days)
    busy = lakes.made_once(options.lakes, sizes.small_lake, 2)
    last = sizes.days - 1
    took = in_turn(
        options.turns(5),
        {
            "small lake": lambda _turn: land(small, list(small.numbers(last)[: sizes.of_a_day]), folder),
            "large lake": lambda _turn: land(large, list(large.numbers(last)[: sizes.of_a_day]), folder),
            "large day": lambda _turn: land(large, list(large.numbers(0)[: sizes.of_a_day]), folder),
            "busy day": lambda _turn: land(busy, list(busy.numbers(0)[: sizes.of_a_day]), folder),
        },
        once_before=True,
    )
    small_size, large_size = large.sizes[last], large.sizes[0]
    what = f"landing {sizes.of_a_day:,} changed runs of one day"
    return [
        _line_of_a_day(
            f"{what} of {small_size:,} runs, lake of {large.runs:,}", took["large lake"],
            f"the same in a lake of {small.runs:,}", took["small lake"], most=_MOST_TIMES,
        ),
        _line_of_a_day(
            f"{what} of {large_size:,} runs, lake of {large.runs:,}", took["large day"],
            f"a day of {small_size:,} in the same lake", took["large lake"],
        ),
        _line_of_memory(
            f"{what} of {busy.sizes[0]:,} runs", took["busy day"],
            f"a day of {small_size:,}", took["large lake"],
        ),
    ]  # fmt: skip


def _line_of_a_day(what: str, took: list[Took], other: str, beside: list[Took], most: float | None = None) -> Line:
    cpu, other_cpu = ([each.cpu_s for each in of] for of in (took, beside))
    times = ratios(cpu, other_cpu)
    return Line(
        f"{what}: CPU",
        Spread.of(cpu).text(" s"),
        f"{other}: {Spread.of(other_cpu).text(' s')}",
        times.text(" times"),
        f"at most {most} times: the day's cost, not the lake's" if most else "",
        times.median <= most if most else None,
        _figures(took),
    )


def _line_of_memory(what: str, took: list[Took], other: str, beside: list[Took]) -> Line:
    peaks, other_peaks = ([each.peak_mib for each in of] for of in (took, beside))
    return Line(
        f"{what}: peak of memory",
        Spread.of(peaks).text(" MiB"),
        f"{other}: {Spread.of(other_peaks).text(' MiB')}",
        ratios(peaks, other_peaks).text(" times"),
        figures=_figures(took),
    )


def _figures(took: list[Took]) -> dict[str, list[float]]:
    return {
        "wall_s": [each.wall_s for each in took],
        "cpu_s": [each.cpu_s for each in took],
        "peak_mib": [each.peak_mib for each in took],
    }
