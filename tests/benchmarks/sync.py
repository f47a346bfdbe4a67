"""Syncs by summaries: how many runs a second come out of pages of a hundred, and how soon a sync with nothing new ends.

The server, on a core of its own, makes its pages of templates; what it takes is aside as far as the client does not
wait for it. dlt walks the same list beside it.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.benchmarks import rows
from tests.benchmarks.list_server import PAGE, serving_lists, summary
from tests.benchmarks.measuring import (
    CLIENT_CORE,
    BenchmarkError,
    Spread,
    Took,
    in_turn,
    pipeline_command,
    ratios,
    run_child,
    say,
)
from tests.benchmarks.options import Options
from tests.benchmarks.results import Line

_RUNS, _FEW_RUNS = 100_000, 1_000
_MORE = 3
_LEAST_A_SECOND = 30_000
_MOST_S = 0.5
_MOST_MIB = 250.0


def measure(options: Options, folder: Path) -> list[Line]:
    """Return how fast summaries are synced, and how long a sync with nothing new takes."""
    number = _FEW_RUNS if options.small else _RUNS
    with serving_lists(number) as base_url:
        runs: dict[str, Callable[[int], Took]] = {"pipeline": partial(sync, base_url, number, folder)}
        if not options.alone and importlib.util.find_spec("dlt"):
            runs["dlt"] = partial(_dlt, base_url, number, folder)
        elif not options.alone:
            say("  dlt is left out, not installed: pip install -e '.[benchmark]'")
        took = in_turn(options.turns(3), runs)
        lake = folder / f"pipeline-{number}-0"
        asking = {"nothing new": partial(_sync_again, base_url, lake)}
        again = in_turn(options.turns(10), asking, once_before=True)["nothing new"]
    alone = {times: _sync_alone(times * number, folder) for times in (1, _MORE)}
    return [*_lines(number, took), _line_of_nothing_new(number, again), _line_of_totals_alone(number, alone)]


def sync(base_url: str, number: int, folder: Path, turn: int) -> Took:
    """Sync all summaries into a new lake, and check what it has then."""
    own = folder / f"pipeline-{number}-{turn}"
    own.mkdir()
    took, landed, requests = _sync(base_url, own)
    # A page of each kind's list, at the least; two of parse runs, whose list cannot be sorted.
    if landed != number or requests < -(-number // PAGE):
        raise BenchmarkError(f"pipeline: {landed} landed with {requests} requests")
    rows.check_rows("pipeline", rows.OURS, own, range(number), summary)
    return took


def _sync_again(base_url: str, folder: Path, _turn: int) -> Took:
    took, landed, _requests = _sync(base_url, folder)
    if landed:
        raise BenchmarkError(f"{landed} landed where nothing was new")
    return took


def _sync_alone(number: int, folder: Path) -> Took:
    """Sync summaries that all tell a total alone, so that what lies beyond their own credits is inferred."""
    own = folder / f"alone-{number}"
    own.mkdir()
    say(f"  pipeline, {number:,} totals alone")
    with serving_lists(number, alone=True) as base_url:
        took, landed, _requests = _sync(base_url, own)
    (told,) = json.loads(took.output)["workspaces"]
    if (landed, told["inferred"]) != (number, number):
        raise BenchmarkError(f"pipeline: {landed} landed, {told['inferred']} inferred of {number} totals alone")
    return took


def _sync(base_url: str, folder: Path) -> tuple[Took, int, int]:
    command = pipeline_command("sync", "--details", "none", "--qps", "100000", "--quiet", "--json")
    environment = {"EXTEND_BASE_URL": base_url, "EXTEND_API_KEY": "key"}
    took = run_child(command, folder=folder, environment=environment, core=CLIENT_CORE)
    (told,) = json.loads(took.output)["workspaces"]
    load = told["load"]
    return took, load["landed"], load["requests"]


def _dlt(base_url: str, number: int, folder: Path, turn: int) -> Took:
    own = folder / f"dlt-{number}-{turn}"
    own.mkdir()
    command = [sys.executable, "-m", "tests.benchmarks.peers.dlt_lists", base_url, str(own)]
    took = run_child(command, folder=own, core=CLIENT_CORE)
    rows.check_rows("dlt", rows.DLT, own, range(number), summary)
    return took


def _lines(number: int, took: dict[str, list[Took]]) -> list[Line]:
    what = f"{number:,} runs by summaries, end to end"
    speed = {name: [number / each.wall_s for each in of] for name, of in took.items()}
    of_cpu = {name: [number / each.cpu_s for each in of] for name, of in took.items()}
    lines = []
    for title, figures, aimed in (
        ("runs a second", speed, True),
        ("runs a second of the client's CPU", of_cpu, False),
    ):
        own = Spread.of(figures["pipeline"])
        lines.append(
            Line(
                f"{what}: {title}",
                own.text(),
                f"dlt: {Spread.of(figures['dlt']).text()}" if "dlt" in figures else "",
                ratios(figures["pipeline"], figures["dlt"]).text(" times") if "dlt" in figures else "",
                f"at least {_LEAST_A_SECOND:,}" if aimed else "",
                own.median >= _LEAST_A_SECOND if aimed else None,
                figures,
            )
        )
    return lines


def _line_of_nothing_new(number: int, took: list[Took]) -> Line:
    wall = Spread.of(each.wall_s for each in took)
    return Line(
        f"sync with nothing new, lake of {number:,} runs",
        wall.text(" s"),
        aim=f"under {_MOST_S} s",
        reached=wall.median < _MOST_S,
        figures={"wall_s": [each.wall_s for each in took], "cpu_s": [each.cpu_s for each in took]},
    )


def _line_of_totals_alone(number: int, took: dict[int, Took]) -> Line:
    few, many = (each.peak_mib for each in took.values())
    return Line(
        f"{_MORE * number:,} runs by summaries that tell a total alone: peak of memory",
        Spread.of([many]).text(" MiB"),
        f"{number:,} such runs: {Spread.of([few]).text(' MiB')}",
        ratios([many], [few]).text(" times"),
        "at most 250 MiB",
        many <= _MOST_MIB,
        {str(times * number): [each.peak_mib] for times, each in took.items()},
    )
