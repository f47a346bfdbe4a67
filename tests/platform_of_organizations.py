"""A platform of many organizations, each with a key, a limit and a lake of its own, pulled at once by one process.

    python -m tests.platform_of_organizations                               200 organizations, 120 runs each at 2/s
    python -m tests.platform_of_organizations --organizations 20 --runs 50  a quick look

Real HTTP to a server of its own process that holds each key to its limit. Prints what it took, as JSON, and fails where
a lake has not each of its runs once.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline.config import read_connection
from pipeline.fetch import fetch_runs
from pipeline.lake import LakeFiles
from pipeline.loads import LoadResult
from tests.fast_server import run_id, serving_fast

_DAYS = 7
_FILES_EACH = 24
"""Open files that one organization's load takes at most: its connections, its log and lock, its loop, SQLite."""


def pull(organizations: int, runs: int, qps: float, folder: Path) -> dict[str, Any]:
    """Pull all runs of all organizations, and return what that took."""
    _allow_files(organizations * _FILES_EACH + 256)
    with serving_fast(qps, days=_DAYS) as server:

        def load(number: int) -> LoadResult:
            connection = read_connection(base_url=server.base_url, env={"EXTEND_API_KEY": f"sk_organization_{number}"})
            ids = [run_id(number * runs + each) for each in range(runs)]
            return fetch_runs(ids, lake=folder / str(number), qps=qps, concurrency=2, connection=connection)

        watch = _Watch()
        began, cpu_began = time.monotonic(), _cpu_s()
        with ThreadPoolExecutor(organizations) as pool, watch:
            results = list(pool.map(load, range(organizations)))
        seconds, cpu_s = time.monotonic() - began, _cpu_s() - cpu_began
        counts = server.counts()
    for number in range(organizations):
        found = [row for day in LakeFiles(folder / str(number)).days() for row in _run_ids(folder / str(number), day)]
        if sorted(found) != [run_id(number * runs + each) for each in range(runs)]:
            raise SystemExit(f"organization {number}: {len(found)} rows of {runs} runs")
    asking = max(result.seconds for result in results)
    return {
        "organizations": organizations, "runs": organizations * runs, "qps_each": qps,
        "seconds": round(seconds, 1), "least_seconds": round(runs / qps, 1), "slowest_load_s": round(asking, 1),
        "cpu_s": round(cpu_s, 1), "cpu_ms_a_run": round(1000 * cpu_s / (organizations * runs), 2),
        "answered": counts.answered, "refused_429": counts.refused,
        "most_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "most_threads": watch.threads, "most_open_files": watch.files,
    }  # fmt: skip


class _Watch:
    """Looks twice a second at how many threads and open files there are, and keeps the most."""

    def __init__(self) -> None:
        self.threads = self.files = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.5):
            self.threads = max(self.threads, threading.active_count())
            self.files = max(self.files, len(os.listdir("/proc/self/fd")))


def _run_ids(folder: Path, day: str) -> list[str]:
    return LakeFiles(folder).read_run_ids(day)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (count if hard == resource.RLIM_INFINITY else min(count, hard), hard)
        )


def main() -> int:
    """Pull, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--organizations", type=int, default=200)
    parser.add_argument("--runs", type=int, default=120, help="of each (%(default)s)")
    parser.add_argument("--qps", type=float, default=2.0, help="each one's limit (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where the lakes go meanwhile (a temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        print(json.dumps(pull(arguments.organizations, arguments.runs, arguments.qps, Path(folder)), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
