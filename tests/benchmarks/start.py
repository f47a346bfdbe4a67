"""How long the command takes to begin: whole processes, beside an interpreter that does nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import lakes
from tests.benchmarks.measuring import Spread, Took, in_turn, pipeline_command, ratios, run_child
from tests.benchmarks.options import Options
from tests.benchmarks.results import Line

_IMPORTS = "import duckdb, httpx, pandas, pyarrow"
_BESIDE = {"python": "`python -c pass`", "imports": f"`{_IMPORTS}` alone"}


def measure(options: Options, folder: Path) -> list[Line]:
    """Return how long `pipeline --help` takes, and `pipeline status` on a small lake."""
    lakes.make_lake(folder / "lake", [100] * 10)
    commands = {
        "--help": pipeline_command("--help"),
        "status": pipeline_command("status", "--lake", str(folder / "lake")),
        "python": [sys.executable, "-c", "pass"],
        "imports": [sys.executable, "-c", _IMPORTS],
    }

    def run(command: list[str]) -> Callable[[int], Took]:
        return lambda _turn: run_child(command, folder=folder)

    took = in_turn(options.turns(10), {name: run(command) for name, command in commands.items()}, once_before=True)
    wall = {name: [each.wall_s for each in of] for name, of in took.items()}
    lines = []
    for name, most_s, beside in (("--help", 0.2, "python"), ("status", 0.5, "imports")):
        spread = Spread.of(wall[name])
        lines.append(
            Line(
                f"`pipeline {name}`" + (", lake of 1,000 runs" if name == "status" else ""),
                spread.text(" s"),
                f"{_BESIDE[beside]}: {Spread.of(wall[beside]).text(' s')}",
                ratios(wall[name], wall[beside]).text(" times"),
                f"at most {most_s} s",
                spread.median <= most_s,
                {"pipeline": wall[name], beside: wall[beside]},
            )
        )
    return lines
