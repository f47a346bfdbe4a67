"""A long load stays as it began: its memory, its threads and open files, its speed.

`pytest -m soak tests/test_soak.py` fetches a million runs by the real command over real HTTP, `-m long` sixty thousand.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fast_server import FastServer, run_id, serving_fast

ROOT = Path(__file__).parent.parent


@dataclass
class Watched:
    """What a process was seen to take: the peak in KiB, and by the second, threads, open files, and answers so far."""

    peak_kib: int = 0
    seconds: list[float] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)
    told: dict[str, int] = field(default_factory=dict)

    def while_asking(self, values: list[int], number: int) -> list[int]:
        """Return what was seen between the first answers and the last."""
        pairs = zip(values, self.answered, strict=True)
        return [value for value, answered in pairs if number * 0.02 < answered < number * 0.98]

    def runs_a_second(self, start: float, end: float, number: int) -> float:
        """Return how fast answers came between two parts of the whole."""
        points = list(zip(self.seconds, self.answered, strict=True))
        first = next(point for point in points if point[1] >= start * number)
        last = next(point for point in points if point[1] >= end * number)
        return (last[1] - first[1]) / (last[0] - first[0])


def watch_fetch(folder: Path, server: FastServer, number: int) -> Watched:
    """Fetch so many runs with the command, and watch its process."""
    folder.mkdir()
    (folder / "ids.txt").write_text("\n".join(run_id(each) for each in range(number)))
    before, began, seen = server.answered(), time.monotonic(), Watched()
    command = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "fetch",
        "--from",
        "ids.txt",
        "--qps",
        "100000",
        "--quiet",
        "--json",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "EXTEND_BASE_URL": server.base_url, "EXTEND_API_KEY": "key"}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    while process.poll() is None:
        time.sleep(0.25)
        try:
            status = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
            files = len(os.listdir(f"/proc/{process.pid}/fd"))
            threads, peak = int(status["Threads"]), int(status["VmHWM"].split()[0])
        except (OSError, KeyError):
            continue  # it has just ended
        seen.peak_kib = max(seen.peak_kib, peak)
        seen.seconds.append(time.monotonic() - began)
        seen.threads.append(threads)
        seen.files.append(files)
        seen.answered.append(server.answered() - before)
    assert process.stdout is not None
    with process.stdout as told:
        seen.told = json.loads(told.read())
    assert process.returncode == 0
    return seen


def _soak(folder: Path, number: int, *, most: float) -> None:
    with serving_fast() as server:
        few = watch_fetch(folder / "few", server, 10_000)
        many = watch_fetch(folder / "many", server, number)
    assert (few.told["landed"], many.told["landed"], many.told["requests"]) == (10_000, number, number)
    ratio = many.peak_kib / few.peak_kib
    speed = many.runs_a_second(0.8, 0.95, number) / many.runs_a_second(0.05, 0.2, number)
    files, threads = many.while_asking(many.files, number), many.while_asking(many.threads, number)
    print(
        f"\n10,000 runs: {few.peak_kib / 1024:.0f} MiB; {number:,}: {many.peak_kib / 1024:.0f} MiB, {ratio:.2f} times; "
        f"speed at the end {speed:.2f} times; open files {min(files)} to {max(files)}, threads {min(threads)} to "
        f"{max(threads)}; {number / many.seconds[-1]:,.0f} runs a second to the end"
    )
    assert ratio < most
    # 64 connections, the raw log and its lock, the worklist, and what one landing has open at a time.
    assert max(files) < 64 + 40
    assert max(threads) < 40
    if number >= 1_000_000:
        # Only where each half has landings of its own: what one takes, 5 to 16 threads and some files, is no growth.
        half = len(files) // 2
        assert max(files[half:]) <= max(files[:half]) + 3
        assert max(threads[half:]) <= max(threads[:half]) + 3


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_sixty_thousand_runs_take_little_more_memory_than_ten_thousand(tmp_path: Path) -> None:
    _soak(tmp_path, 60_000, most=1.2)


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_million_runs_take_little_more_memory_than_ten_thousand(tmp_path: Path) -> None:
    _soak(tmp_path, 1_000_000, most=1.2)
