"""How cost grows: everything at three sizes, each ten times the one before, with the exponent of a power law fitted.

What begins anew with each command, whatever the size, makes an exponent look small. So the one between the two largest
sizes is told as well, and the greater of both is held to the aim.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import asking, by_id, lakes, landing, sync
from tests.benchmarks.list_server import serving_lists
from tests.benchmarks.measuring import SERVER_CORE, Spread, Took, keep_on, pipeline_command, run_child, say
from tests.benchmarks.options import Options
from tests.benchmarks.results import Line
from tests.fast_server import serving_fast

_MOST = 1.05
_CHANGED = 10_000


@dataclass(frozen=True, slots=True)
class _Series:
    """What is measured at three sizes: CPU seconds, or the peak of memory in MiB."""

    title: str
    sizes: tuple[int, int, int]
    run: Callable[[int, int], Took]  # of a size, in a turn
    is_memory: bool = False


def measure(options: Options, folder: Path) -> list[Line]:
    """Return the exponents with which each cost grows."""
    few = (10, 100, 1_000) if options.small else (1_000, 10_000, 100_000)
    some = (50, 500, 5_000) if options.small else (3_000, 30_000, 300_000)
    of_lakes = (3_000, 30_000, 300_000) if options.small else (100_000, 1_000_000, 10_000_000)
    days = 5 if options.small else lakes.DAYS
    changed_in = of_lakes[1]
    changed = min(_CHANGED, of_lakes[0] // 10)

    def made(size: int) -> lakes.MadeLake:
        return lakes.made_once(options.lakes, size, days)

    def pull(size: int, turn: int) -> Took:
        with serving_fast() as server:
            keep_on(SERVER_CORE, server.pid)
            return by_id.fetch(server, by_id.write_ids(folder, size), size, folder, turn)

    def walk(size: int, turn: int) -> Took:
        with serving_lists(size) as base_url:
            (folder / "sync").mkdir(exist_ok=True)
            return sync.sync(base_url, size, folder / "sync", turn)

    def land(lake_size: int, count: int) -> Took:
        lake = made(lake_size)
        return landing.land(lake, landing.spread_numbers(lake, count), folder)

    def tell_status(size: int, _turn: int) -> Took:
        return run_child(pipeline_command("status", "--lake", str(made(size).folder)), folder=folder)

    def answer(question: str) -> Callable[[int, int], Took]:
        return lambda size, _turn: asking.ask(made(size), question, folder)

    everything = [
        _Series("runs by ID: CPU", few, pull),
        _Series("runs by ID: peak of memory", few, lambda size, turn: pull(size, turn + 1_000), is_memory=True),
        _Series("runs by summaries: CPU", some, walk),
        _Series(f"changed runs landing in a lake of {changed_in:,}: CPU", few, lambda size, _: land(changed_in, size)),
        _Series(f"a lake in which {changed:,} changed runs land: CPU", of_lakes, lambda size, _: land(size, changed)),
        *(
            _Series(f"a lake asked for {title}: CPU", of_lakes, answer(question))
            for question, (title, _arguments, _most_s) in asking.QUESTIONS.items()
        ),
        _Series("a lake asked for its status: CPU", of_lakes, tell_status),
    ]
    for size in of_lakes:
        asking.ask(made(size), "credits", folder)  # makes the ledger, where the lake is large
    return [_line(series, options) for series in everything]


def _line(series: _Series, options: Options) -> Line:
    costs: dict[int, list[float]] = {}
    for size in series.sizes:
        took = [series.run(size, turn) for turn in range(options.turns(1))]
        costs[size] = [each.peak_mib if series.is_memory else each.cpu_s for each in took]
        say(f"  {series.title}, {size:,}: {costs[size]}")
    medians = [statistics.median(of) for of in costs.values()]
    fitted, last = exponent(series.sizes, medians), exponent(series.sizes[1:], medians[1:])
    unit = " MiB" if series.is_memory else " s"
    return Line(
        f"growth: {series.title}",
        "; ".join(f"{size:,}: {Spread.of(of).text(unit)}" for size, of in costs.items()),
        ratio=f"exponent {fitted:.2f}; {last:.2f} between the largest two",
        aim=f"at most {_MOST}",
        reached=max(fitted, last) <= _MOST,
        figures={f"{size}": of for size, of in costs.items()},
    )


def exponent(sizes: tuple[int, ...], costs: list[float]) -> float:
    """Return the exponent of the power law that fits best: the slope of the costs' logarithms over the sizes'."""
    return statistics.linear_regression(list(map(math.log, sizes)), list(map(math.log, costs))).slope
