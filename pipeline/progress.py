"""Say on standard error how a load is getting on: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TextIO

from pipeline.durable import naming_places

_PLAIN_EVERY_S = 5.0
_BAR_EVERY_S = 0.1


@dataclass(slots=True)
class Standing:
    """How far a load is: runs done of those asked for, and what was met on the way; `note` is what keeps it waiting.

    `asked` is null while nobody knows: `pages` of lists are being read.
    """

    asked: int | None
    done: int = 0
    pages: int = 0
    retries: int = 0
    rate_limited: int = 0
    failed: int = 0
    note: str | None = None


class Progress(Protocol):
    """Where a load says how it is getting on."""

    def show(self, standing: Standing) -> None:
        """Take the present standing; called often."""

    def tell(self, message: str) -> None:
        """Say a sentence, without disturbing what is shown."""

    def close(self) -> None:
        """Leave the screen tidy."""


class Silent:
    """Says nothing but what it is told to."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def show(self, standing: Standing) -> None:
        """Show nothing."""

    def tell(self, message: str) -> None:
        """Print a sentence, if there is a stream to print to."""
        if self._stream is not None:
            print(naming_places(message), file=self._stream, flush=True)

    def close(self) -> None:
        """Do nothing."""


class PlainProgress:
    """Prints a line every few seconds, for logs and pipes."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._began = self._last = clock()

    def show(self, standing: Standing) -> None:
        """Print where the load stands, if the last line is some seconds old."""
        now = self._clock()
        if now - self._last >= _PLAIN_EVERY_S:
            self._last = now
            self.tell(_line(standing, now - self._began))

    def tell(self, message: str) -> None:
        """Print a sentence."""
        print(naming_places(message), file=self._stream, flush=True)

    def close(self) -> None:
        """Do nothing: lines stay."""


class BarProgress:
    """Shows a bar on a terminal."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._clock = clock
        self._began = clock()
        self._last = 0.0
        self._bar = Progress(
            BarColumn(),
            TextColumn("{task.description}", markup=False),
            console=Console(file=stream, emoji=False),
            transient=True,
        )
        self._task = self._bar.add_task("", total=None)
        self._bar.start()

    def show(self, standing: Standing) -> None:
        """Move the bar."""
        now = self._clock()
        if now - self._last >= _BAR_EVERY_S:
            self._last = now
            line = _line(standing, now - self._began)
            self._bar.update(self._task, total=standing.asked, completed=standing.done, description=line)

    def tell(self, message: str) -> None:
        """Print a sentence above the bar."""
        self._bar.console.print(naming_places(message), markup=False, highlight=False, emoji=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()


def open_progress(*, quiet: bool, stream: TextIO | None = None) -> Progress:
    """Return what suits the stream (standard error, if none is given): a bar, plain lines, or with `quiet` neither."""
    stream = sys.stderr if stream is None else stream
    if quiet:
        return Silent(stream)
    return BarProgress(stream) if stream.isatty() else PlainProgress(stream)


def _line(standing: Standing, seconds: float) -> str:
    rate = standing.done / seconds if seconds > 0 else 0.0
    of = "" if standing.asked is None else f" of {standing.asked:,}"
    parts = [f"{standing.done:,}{of} runs", f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"]
    if rate > 0 and standing.asked is not None:
        parts.append(f"{duration((standing.asked - standing.done) / rate)} left")
    for count, one, many in (
        (standing.pages, "page", "pages"),
        (standing.retries, "retry", "retries"),
        (standing.rate_limited, "429", "429s"),
        (standing.failed, "failure", "failures"),
    ):
        if count:
            parts.append(f"{count:,} {one if count == 1 else many}")
    if standing.note:
        parts.append(standing.note)
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Return a length of time as people say it: `45 s`, `3 min 20 s`, `28 h 5 min`, `3 d 4 h`."""
    whole = round(seconds)
    for unit, length, smaller, smaller_length in (
        ("d", 86_400, "h", 3_600),
        ("h", 3_600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= length:
            rest = whole % length // smaller_length
            return f"{whole // length} {unit} {rest} {smaller}" if rest else f"{whole // length} {unit}"
    return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{whole} s"
