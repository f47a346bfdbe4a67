"""Whole processes, measured by what the kernel counted of them; pairs of them in turn; and what is printed of both."""

from __future__ import annotations

import contextlib
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
MIB = 1024 * 1024
_SAMPLED_S = 0.02

CLIENT_CORE, SERVER_CORE = 0, 1
# With it, each process would compile all modules anew, as no installed program does.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | {
    "PYTHONPATH": str(ROOT)
}


class BenchmarkError(Exception):
    """What was measured did not do what it was to do, so its time means nothing."""


@dataclass(frozen=True, slots=True)
class Took:
    """What one whole process took, its start included: wall and CPU seconds (user and system), peak memory, output."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    output: str


def run_child(
    command: Sequence[str], *, folder: Path, environment: dict[str, str] | None = None, core: int | None = None
) -> Took:
    """Run a command to its end and return what it took, children that it waited for included.

    With `core` it is kept on that core, where there are two. Raises BenchmarkError where it fails.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as told:
        began = time.perf_counter()
        with _kept_on(core):  # what is started inherits it
            process = subprocess.Popen(
                command, cwd=folder, stdout=output, stderr=told, stdin=subprocess.DEVNULL,
                env=_ENVIRONMENT | (environment or {}),
            )  # fmt: skip
        with _Sampling(process.pid) as sampling:
            # Not `process.wait`: the resources that the kernel counted are asked for with the end.
            _pid, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        told.seek(0)
        if process.returncode != 0:
            raise BenchmarkError(f"{' '.join(command)}: exit code {process.returncode}\n{told.read()[-3000:]}")
        peak_kib = max(sampling.peak_kib, _exact_peak_kib(used.ru_maxrss))
        return Took(wall_s, used.ru_utime + used.ru_stime, peak_kib / 1024, output.read())


def _exact_peak_kib(maxrss_kib: int) -> int:
    """Return a child's `ru_maxrss`, or 0 where it says nothing: it begins with what its parent had when it forked."""
    own = _peak_kib(os.getpid())
    return maxrss_kib if maxrss_kib > own else 0


def _peak_kib(pid: int) -> int:
    """Return a process's peak of resident memory so far; 0 where it has ended or this is no Linux."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


class _Sampling:
    """Asks for a process's peak memory all the while; what it grew by in its last moments is in `ru_maxrss`."""

    def __init__(self, pid: int) -> None:
        self.peak_kib = 0
        self._pid, self._ended = pid, threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> _Sampling:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(_SAMPLED_S):
            self.peak_kib = max(self.peak_kib, _peak_kib(self._pid))


@contextlib.contextmanager
def _kept_on(core: int | None) -> Iterator[None]:
    if core is None or not has_cores_to_keep():
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def has_cores_to_keep() -> bool:
    """Tell whether processes can be kept on cores of their own: one for the client, one for the server."""
    return sys.platform == "linux" and {CLIENT_CORE, SERVER_CORE} <= os.sched_getaffinity(0)


def keep_on(core: int, pid: int) -> None:
    """Keep a process on a core from now on, where there are two."""
    if has_cores_to_keep():
        os.sched_setaffinity(pid, {core})


def pipeline_command(*arguments: str) -> list[str]:
    """Return the pipeline's command, by this very interpreter and from this source."""
    return [sys.executable, "-m", "pipeline.cli", *arguments]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some numbers, the least and the greatest."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        values = list(values)
        return cls(statistics.median(values), min(values), max(values))

    def text(self, unit: str = "", digits: int | None = None) -> str:
        """Return it as text: the median, and the spread behind it unless there is but one number."""
        median = f"{_number(self.median, digits)}{unit}"
        if self.least == self.greatest:
            return median
        return f"{median} ({_number(self.least, digits)} – {_number(self.greatest, digits)})"


def _number(value: float, digits: int | None) -> str:
    """Return a number with about three figures, a small one with two, or so many decimals."""
    if digits is None:
        places = math.floor(math.log10(abs(value))) if value else 0  # of the first figure, before the point
        digits = 1 - places if places < 0 else 2 - min(places, 2)
    return f"{value:,.{digits}f}"


def in_turn(times: int, runs: dict[str, Callable[[int], Took]], *, once_before: bool = False) -> dict[str, list[Took]]:
    """Run each, then each again, and so on, so that whatever the machine does meanwhile meets all of them alike.

    Each is told the number of its turn. Returns what they took, in order. With `once_before` each is run once before
    several turns, so that in short ones nothing is compiled, or read from the disk for the first time.
    """
    took: dict[str, list[Took]] = {name: [] for name in runs}
    for name, run in runs.items() if once_before and times > 1 else ():
        say(f"  {name}, once before it counts")
        run(-1)
    for turn in range(times):
        for name, run in runs.items():
            one = run(turn)
            took[name].append(one)
            say(f"  {name}, {turn + 1} of {times}: {one.wall_s:.2f} s, CPU {one.cpu_s:.2f} s, {one.peak_mib:.0f} MiB")
    return took


def ratios(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Return the ratios of numbers taken in turn, pair by pair."""
    return Spread.of(a / b for a, b in zip(over, under, strict=True))


def say(text: str) -> None:
    """Tell how it goes on standard error: standard output is for the results."""
    print(text, file=sys.stderr, flush=True)
