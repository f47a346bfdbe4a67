"""Pulling runs by ID at a server that enforces a rate: how close to the least possible time, and at what cost.

The least possible is one request a run at exactly that rate. The pipeline is told the rate itself, as from the plan,
and four times as much, as by somebody who does not know it: then it has to find it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import by_id
from tests.benchmarks.measuring import (
    CLIENT_CORE,
    SERVER_CORE,
    BenchmarkError,
    Spread,
    Took,
    keep_on,
    pipeline_command,
    run_child,
    say,
)
from tests.benchmarks.options import Options
from tests.benchmarks.results import Line
from tests.fast_server import serving_fast

_RATES = (10, 25, 75)
_SECONDS, _FEW_SECONDS = 120, 3
_MOST_TIMES, _MOST_REFUSED, _MOST_OF_A_CORE = 1.03, 0.01, 0.05


@dataclass(frozen=True, slots=True)
class _AtRate:
    took: Took
    times_least: float
    refused: float
    of_a_core: float


def measure(options: Options, folder: Path) -> list[Line]:
    """Return, at each rate, the time beside the least possible, the part of 429s, and the part of a core."""
    seconds = _FEW_SECONDS if options.small else _SECONDS
    lines = []
    for rate in _RATES:
        for told in (rate, 4 * rate):
            found = [_fetch(rate, told, rate * seconds, folder, turn) for turn in range(options.turns(1))]
            lines.append(_line(rate, told, rate * seconds, found))
    return lines


def _fetch(rate: int, told: int, number: int, folder: Path, turn: int) -> _AtRate:
    own = folder / f"pipeline-{rate}-{told}-{turn}"
    own.mkdir()
    command = pipeline_command(
        "fetch", "--from", str(by_id.write_ids(folder, number)), "--qps", str(told), "--quiet", "--json"
    )
    with serving_fast(limit_qps=rate, days=by_id.DAYS) as server:
        keep_on(SERVER_CORE, server.pid)
        environment = {"EXTEND_BASE_URL": server.base_url, "EXTEND_API_KEY": "key"}
        took = run_child(command, folder=own, environment=environment, core=CLIENT_CORE)
        counts = server.counts()
    if (json.loads(took.output)["landed"], counts.answered) != (number, number):
        raise BenchmarkError(f"{counts} of {number} runs, and: {took.output}")
    found = _AtRate(
        took, took.wall_s * rate / number, counts.refused / (counts.answered + counts.refused), took.cpu_s / took.wall_s
    )
    say(
        f"  {rate} a second, told {told}: {found.times_least:.3f} times the least, {found.refused:.2%} 429s, "
        f"{found.of_a_core:.1%} of a core"
    )
    return found


def _line(rate: int, told: int, number: int, found: list[_AtRate]) -> Line:
    times = Spread.of(each.times_least for each in found)
    refused = Spread.of(each.refused for each in found)
    core = Spread.of(each.of_a_core for each in found)
    is_bound = rate == max(_RATES)
    is_reached = times.median <= _MOST_TIMES and refused.median < _MOST_REFUSED
    return Line(
        f"{number:,} runs by ID at {rate} requests a second, `--qps {told}`",
        f"{Spread.of(each.took.wall_s for each in found).text(' s')}, {100 * refused.median:.2f} % 429s, "
        f"{100 * core.median:.1f} % of a core",
        f"least possible: {number / rate:.0f} s",
        times.text(" times", digits=3),
        f"at most {_MOST_TIMES} times, under 1 % 429s" + (", under 5 % of a core" if is_bound else ""),
        is_reached and (core.median < _MOST_OF_A_CORE or not is_bound),
        {
            "wall_s": [each.took.wall_s for each in found],
            "cpu_s": [each.took.cpu_s for each in found],
            "refused": [each.refused for each in found],
        },
    )
