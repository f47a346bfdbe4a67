"""Syncing on a schedule: when, what is said, and how it ends."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.errors import LakeError, UsageError
from pipeline.lake import LakeFiles
from pipeline.loads import LoadResult
from pipeline.needs import Needs
from pipeline.sandbox.server import serve
from pipeline.sync_outcome import WorkspaceOutcome
from pipeline.watch import parse_interval, watch
from tests.worlds import make_squeezed_world

NOON = datetime(2026, 11, 3, 12, 0, tzinfo=UTC)


def outcome(*, error: str | None = None, interrupted: bool = False, failed: int = 0) -> WorkspaceOutcome:
    load = LoadResult("L", "lake", landed=3, requests=8, seconds=1.5, interrupted=interrupted, failed=failed)
    return WorkspaceOutcome(None, {}, Needs(), load=load, error=error)


class Clock:
    """Time passes while a sync works, and while the next is waited for."""

    def __init__(self, stopping: threading.Event) -> None:
        self.now = NOON
        self.waited: list[float] = []
        self._stopping = stopping
        stopping.wait = self._wait  # a wait that costs no time

    def _wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout or 0.0)
        self.now += timedelta(seconds=timeout or 0.0)
        return self._stopping.is_set()


def watched(results: list[WorkspaceOutcome | Exception], lasting_s: float = 2.0) -> tuple[list[str], list[float]]:
    """Watch until the results are used up; return the lines said and the waits."""
    stopping = threading.Event()
    clock = Clock(stopping)
    lines: list[str] = []

    def sync_once() -> list[WorkspaceOutcome]:
        clock.now += timedelta(seconds=lasting_s)
        result = results.pop(0)
        if not results:
            stopping.set()
        if isinstance(result, Exception):
            raise result
        return [result]

    watch(sync_once, timedelta(minutes=5), say=lines.append, stopping=stopping, now=lambda: clock.now)
    return lines, clock.waited


def test_each_sync_begins_so_long_after_the_one_before_and_a_line_says_that_all_is_well() -> None:
    lines, waited = watched([outcome(), outcome()])
    assert waited == [298.0, 298.0]
    assert lines == [
        "2026-11-03 12:00:00 UTC ok: 3 landed, 8 requests, 1.5 s; next in 4 min 58 s",
        "2026-11-03 12:05:00 UTC ok: 3 landed, 8 requests, 1.5 s; next in 4 min 58 s",
    ]


def test_a_sync_that_takes_longer_than_the_interval_is_followed_at_once() -> None:
    _lines, waited = watched([outcome(), outcome()], lasting_s=400)
    assert waited == [0.0, 0.0]


def test_failures_are_said_since_when_and_tried_again() -> None:
    results: list[WorkspaceOutcome | Exception] = [
        outcome(), LakeError("the disk is full"), outcome(error="HTTP 401"), outcome(failed=2), outcome(),
    ]  # fmt: skip
    lines, _waited = watched(results)
    assert lines[1:] == [
        "2026-11-03 12:05:00 UTC failing since 2026-11-03 12:05:00 UTC (1 in a row): 0 landed, 0 requests, 0 s; "
        "last good 2026-11-03 12:00:00 UTC; the disk is full; next in 4 min 58 s",
        "2026-11-03 12:10:00 UTC failing since 2026-11-03 12:05:00 UTC (2 in a row): 3 landed, 8 requests, 1.5 s; "
        "last good 2026-11-03 12:00:00 UTC; HTTP 401; next in 4 min 58 s",
        "2026-11-03 12:15:00 UTC failing since 2026-11-03 12:05:00 UTC (3 in a row): 3 landed, 8 requests, 1.5 s; "
        "last good 2026-11-03 12:00:00 UTC; 2 runs did not come; the next sync asks again; next in 4 min 58 s",
        "2026-11-03 12:20:00 UTC ok: 3 landed, 8 requests, 1.5 s; next in 4 min 58 s",
    ]


def test_a_sync_that_was_told_to_stop_is_no_failure() -> None:
    lines, waited = watched([outcome(error="stopped by Ctrl-C", interrupted=True)])
    assert lines == [
        "2026-11-03 12:00:02 UTC stopped: 3 landed, 8 requests, 1.5 s; the next sync goes on from here",
    ]
    assert waited == []


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("5m", 300), ("1h", 3600), (" 24h ", 86_400)])
def test_an_interval_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert parse_interval(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "0s", "25h", "5 m", "-5m", "1.5h", "5min", "9999999s"])
def test_any_other_interval_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--every"):
        parse_interval(text)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lands_what_has_arrived_and_ends_it_with_exit_code_0(lake: LakeFiles, number: int) -> None:
    with serve(make_squeezed_world(seed=6, runs=600)) as server:
        environment = {
            **os.environ,
            "EXTEND_BASE_URL": server.base_url,
            "EXTEND_API_KEY": server.key,
            "PYTHONPATH": str(Path(__file__).parent.parent),
        }
        command = [sys.executable, "-m", "pipeline.cli", "watch", "--every", "1s", "--qps", "30"]
        process = subprocess.Popen(
            [*command, "--lake", str(lake.folder)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        end = time.monotonic() + 60
        while server.requests < 12 and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    (line,) = output.splitlines()
    assert re.fullmatch(r".* UTC stopped: [\d,]+ landed, \d+ requests, .*; the next sync goes on from here", line)
    assert lake.days()
    assert lake.read_loads()["state"].to_pylist() == ["stopped"]
