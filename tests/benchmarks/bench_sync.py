"""Measure syncs against the sandbox: how close to the least possible time, and how many summaries a second.

    python -m tests.benchmarks.bench_sync                 # all of it, a few minutes
    python -m tests.benchmarks.bench_sync --seconds 30    # shorter runs at each rate
    python -m tests.benchmarks.bench_sync --rate 25       # one rate only

Prints a Markdown table. The server is a process of its own on this machine; requests and 429s are counted by it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from pipeline.config import read_connection
from pipeline.lake import LakeFiles
from pipeline.sandbox.model import CHARGES_FROM
from pipeline.sandbox.server import serve
from pipeline.sync import SyncOptions, run_sync
from tests.worlds import make_squeezed_world

RATES = (10, 25, 75)
_KEY = "sandbox"
_DAYS = 30
_UNLIMITED_QPS = 100_000


@dataclass(frozen=True)
class Measured:
    """One whole sync into a new lake, and what the server counted of it."""

    seconds: float
    requests: int
    rate_limited: int
    summaries: int


def serve_world(pipe: Pipe, runs: int, limit_qps: float, page: int) -> None:
    """Serve in this process until told to end, then tell what was counted."""
    world = make_squeezed_world(seed=7, runs=runs, eras=[CHARGES_FROM], days=_DAYS)
    with serve(world, key=_KEY, limit_qps=limit_qps, largest_page=page, short_pages=False) as server:
        pipe.send(server.base_url)
        pipe.recv()
        pipe.send((server.requests, server.rate_limited))


@contextmanager
def served(runs: int, limit_qps: float, page: int) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Yield the address of a server in a process of its own, and the list that its counts will be in after the end."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve_world, args=(theirs, runs, limit_qps, page))
    process.start()
    counts: list[tuple[int, int]] = []
    try:
        yield ours.recv(), counts
        ours.send("end")
        counts.append(ours.recv())
    finally:
        process.terminate()
        process.join()


def measure(*, runs: int, limit_qps: float, qps: float, page: int, details: bool = True) -> Measured:
    """Sync a world of so many runs once, and return how long it took."""
    with served(runs, limit_qps, page) as (base_url, counts), tempfile.TemporaryDirectory() as folder:
        connection = read_connection(base_url=base_url, env={"EXTEND_API_KEY": _KEY})
        options = SyncOptions(qps=qps, details="credits" if details else "none")
        began = time.monotonic()
        (outcome,) = run_sync(LakeFiles(Path(folder) / "lake"), [connection], options)
        seconds = time.monotonic() - began
        if not outcome.is_complete:
            raise SystemExit(f"the sync did not come to its end: {outcome.error}")
        summaries = sum(kind.listed for kind in outcome.kinds.values())
    ((requests, rate_limited),) = counts
    return Measured(seconds, requests, rate_limited, summaries)


def at_rate(rate: float, seconds: float) -> str:
    """Measure at a server that lets so many requests a second through, for about so many seconds; return table rows."""
    # A page of two runs: many requests, and few runs to land. With what is read by ID, about 0.55 requests a run.
    runs = round(rate * seconds / 0.55)
    rows = []
    for told in (rate, 4 * rate):
        got = measure(runs=runs, limit_qps=rate, qps=told, page=2)
        least = (got.requests - got.rate_limited) / rate
        rows.append(
            f"| {rate:g} | {told:g} | {got.requests:,} | {got.seconds:.1f} | {least:.1f} | {got.seconds / least:.3f} "
            f"| {got.rate_limited / got.requests:.2%} |"
        )
    return "\n".join(rows)


def print_rates(rates: list[float], seconds: float) -> None:
    """Print the table of syncs at servers that limit."""
    print("| limit, requests/s | told with `--qps` | requests | seconds | least possible | times the least | 429s |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for rate in rates:
        print(at_rate(rate, seconds), flush=True)


def print_unlimited(runs: int) -> None:
    """Print how many summaries a second are synced where nothing limits it."""
    got = measure(runs=runs, limit_qps=0, qps=_UNLIMITED_QPS, page=100, details=False)
    print("| limit | summaries | requests | seconds | summaries/s |")
    print("| --- | ---: | ---: | ---: | ---: |")
    print(f"| none | {got.summaries:,} | {got.requests:,} | {got.seconds:.1f} | {got.summaries / got.seconds:,.0f} |")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=float, action="append", help="only at this rate; may be repeated")
    parser.add_argument("--seconds", type=float, default=60.0, help="about how long at each rate (%(default)g)")
    parser.add_argument("--runs", type=int, default=20_000, help="how many where nothing limits (%(default)s)")
    arguments = parser.parse_args()
    cores, load = os.cpu_count(), os.getloadavg()[0]
    print(
        f"Measured on {datetime.now(UTC):%Y-%m-%d} with Python {platform.python_version()} on {platform.system()} "
        f"{platform.machine()}, {cores} cores, load {load:.1f} before it began.\n"
    )
    # What is imported and started once is not measured.
    measure(runs=50, limit_qps=0, qps=1_000, page=100)
    print_rates(arguments.rate or list(RATES), arguments.seconds)
    if not arguments.rate:
        print()
        print_unlimited(arguments.runs)


if __name__ == "__main__":
    main()
