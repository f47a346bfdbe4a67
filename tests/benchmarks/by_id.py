"""Runs pulled by ID, end to end, beside what a user would write or take instead.

The pipeline asks, logs each answer, flattens it and lands it in Parquet files by day. dlt asks and writes Parquet; a
loop around the vendor's client makes objects of the answers and writes four of their fields; a loop around httpx keeps
bytes. Each is a process of its own on one core, the server on the other; all read the same runs of one server in turn,
and what each wrote is compared.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.benchmarks import rows
from tests.benchmarks.measuring import (
    CLIENT_CORE,
    SERVER_CORE,
    BenchmarkError,
    Spread,
    Took,
    in_turn,
    keep_on,
    pipeline_command,
    ratios,
    run_child,
    say,
)
from tests.benchmarks.options import Options
from tests.benchmarks.results import Line
from tests.fast_server import FastServer, run_id, serving_fast

OURS = "pipeline"
_RUNS, _FEW_RUNS = 10_000, 100
DAYS = 31
"""The runs are those of a month: each of its days is a file for the pipeline, where dlt writes one for all."""


@dataclass(frozen=True, slots=True)
class Peer:
    """What the runs are pulled with instead: the package it needs, its module, and how the rows it wrote are read."""

    title: str
    needs: str
    module: str
    rows: str


PEERS = {
    "dlt": Peer("dlt, 32 at a time", "dlt", "dlt_by_id", rows.DLT),
    "sdk": Peer("loop around `extend-ai`, 64 at a time", "extend_ai", "sdk_by_id", rows.CSV),
    "httpx": Peer("loop around `httpx`, 64 at a time, bytes only", "httpx", "httpx_by_id", rows.JSON_LINES),
}


def measure(options: Options, folder: Path) -> list[Line]:
    """Return how fast runs are pulled by ID, by the pipeline and its peers."""
    number = _FEW_RUNS if options.small else _RUNS
    ids_file = write_ids(folder, number)
    with serving_fast(days=DAYS) as server:
        keep_on(SERVER_CORE, server.pid)
        runs: dict[str, Callable[[int], Took]] = {OURS: partial(fetch, server, ids_file, number, folder)}
        for name, peer in {} if options.alone else PEERS.items():
            if importlib.util.find_spec(peer.needs):
                runs[name] = partial(_pull, name, peer, server, ids_file, number, folder)
            else:
                say(f"  {name} is left out, not installed: pip install -e '.[benchmark]'")
        took = in_turn(options.turns(3), runs)
    return _lines(number, took)


def write_ids(folder: Path, number: int) -> Path:
    """Write the IDs of so many runs of the fast server to a file, one a line."""
    path = folder / f"ids-{number}.txt"
    path.write_text("\n".join(map(run_id, range(number))) + "\n")
    return path


def fetch(server: FastServer, ids_file: Path, number: int, folder: Path, turn: int) -> Took:
    """Pull the runs into a new lake with `pipeline fetch`, and check what it has then."""
    own = _new_folder(folder, OURS, number, turn)
    command = pipeline_command("fetch", "--from", str(ids_file), "--qps", "100000", "--quiet", "--json")
    environment = {"EXTEND_BASE_URL": server.base_url, "EXTEND_API_KEY": "key"}
    took = run_child(command, folder=own, environment=environment, core=CLIENT_CORE)
    told = json.loads(took.output)
    if (told["landed"], told["requests"]) != (number, number):
        raise BenchmarkError(f"{OURS}: {took.output}")
    rows.check_rows(OURS, rows.OURS, own, range(number), server.payload)
    return took


def _pull(name: str, peer: Peer, server: FastServer, ids_file: Path, number: int, folder: Path, turn: int) -> Took:
    own = _new_folder(folder, name, number, turn)
    module = f"tests.benchmarks.peers.{peer.module}"
    command = [sys.executable, "-m", module, server.base_url, str(ids_file), str(own)]
    took = run_child(command, folder=own, core=CLIENT_CORE)
    rows.check_rows(name, peer.rows, own, range(number), server.payload)
    return took


def _new_folder(folder: Path, name: str, number: int, turn: int) -> Path:
    own = folder / f"{name}-{number}-{turn}"
    own.mkdir()
    return own


def _lines(number: int, took: dict[str, list[Took]]) -> list[Line]:
    speed = {name: [number / each.wall_s for each in of] for name, of in took.items()}
    cpu = {name: [1000 * each.cpu_s / number for each in of] for name, of in took.items()}
    what = f"{number:,} runs of {DAYS} days by ID, end to end"
    lines = []
    for name, least in (("dlt", 5), ("sdk", 15), ("httpx", None)):
        if name not in took:
            continue
        times = ratios(speed[OURS], speed[name])
        lines.append(
            Line(
                f"{what}: runs a second",
                Spread.of(speed[OURS]).text(),
                f"{PEERS[name].title}: {Spread.of(speed[name]).text()}",
                times.text(" times"),
                f"at least {least} times" if least else "",
                times.median >= least if least else None,
                {OURS: speed[OURS], name: speed[name]},
            )
        )
        part = ratios(cpu[OURS], cpu[name])
        most = 0.2 if name == "dlt" else None
        lines.append(
            Line(
                f"{what}: CPU a run",
                Spread.of(cpu[OURS]).text(" ms"),
                f"{PEERS[name].title}: {Spread.of(cpu[name]).text(' ms')}",
                part.text(" of it"),
                f"at most {most} of it" if most else "",
                part.median <= most if most else None,
                {OURS: cpu[OURS], name: cpu[name]},
            )
        )
    if not lines:
        figures = {"runs a second": speed[OURS], "CPU ms a run": cpu[OURS]}
        lines.append(Line(f"{what}: runs a second", Spread.of(speed[OURS]).text(), figures=figures))
        lines.append(Line(f"{what}: CPU a run", Spread.of(cpu[OURS]).text(" ms"), figures=figures))
    return lines
