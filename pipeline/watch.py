"""Sync on a schedule, in one process, until told to stop."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipeline.errors import PipelineError, UsageError
from pipeline.progress import duration
from pipeline.sync import WorkspaceOutcome
from pipeline.sync_summary import problems

_UNITS = {"s": 1, "m": 60, "h": 3600}
_LONGEST_S = 86_400


@dataclass(slots=True)
class Health:
    """How the syncs have gone. `failing_since` is when the first of the present row of failed ones began."""

    syncs: int = 0
    failed_in_a_row: int = 0
    failing_since: datetime | None = None
    last_good: datetime | None = None

    def note(self, outcomes: list[WorkspaceOutcome], began: datetime, error: str | None) -> str:
        """Take note of a sync, and return the line that says how things are."""
        self.syncs += 1
        went_wrong = [error] if error else list(problems(outcomes))
        failed = sum(each.load.failed for each in outcomes if each.load)
        if failed and not went_wrong:
            went_wrong = [f"{failed:,} runs did not come; the next sync asks again"]
        if went_wrong:
            self.failed_in_a_row += 1
            self.failing_since = self.failing_since or began
        else:
            self.failed_in_a_row, self.failing_since, self.last_good = 0, None, began
        if not went_wrong:
            return f"{_clock(began)} ok: {_counts(outcomes)}"
        state = f"failing since {_clock(self.failing_since)} ({self.failed_in_a_row:,} in a row)"
        last_good = "" if self.last_good is None else f"; last good {_clock(self.last_good)}"
        return f"{_clock(began)} {state}: {_counts(outcomes)}{last_good}; {'; '.join(went_wrong)}"


def parse_interval(text: str) -> timedelta:
    """Return the length of time that `30s`, `5m` or `1h` says; raise UsageError for anything else, or over a day."""
    match = re.fullmatch(r"([0-9]{1,6})([smh])", text.strip())
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 1 <= seconds <= _LONGEST_S:
        raise UsageError(f"--every: {text[:40]!r} is no length of time from 1s to 24h; give one like 30s, 5m or 1h")
    return timedelta(seconds=seconds)


def watch(
    sync_once: Callable[[], list[WorkspaceOutcome]],
    every: timedelta,
    *,
    say: Callable[[str], None],
    stopping: threading.Event,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Health:
    """Sync again and again until `stopping` is set, each beginning `every` after the one before did (or at once, where
    that took longer), and say after each how things are. What fails is said, and tried again at the next.
    """
    health = Health()
    while not stopping.is_set():
        began = now()
        outcomes: list[WorkspaceOutcome] = []
        error = None
        try:
            outcomes = sync_once()
        except (PipelineError, OSError) as caught:
            error = str(caught)
        if stopping.is_set() and any(each.load is not None and each.load.interrupted for each in outcomes):
            say(f"{_clock(now())} stopped: {_counts(outcomes)}; the next sync goes on from here")
            break
        wait = max(0.0, (began + every - now()).total_seconds())
        say(f"{health.note(outcomes, began, error)}; next in {duration(wait)}")
        stopping.wait(wait)
    return health


def _clock(time: datetime | None) -> str:
    return "" if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _counts(outcomes: list[WorkspaceOutcome]) -> str:
    loads = [each.load for each in outcomes if each.load is not None]
    gone = sum(kind.gone for each in outcomes for kind in each.kinds.values())
    parts = [f"{sum(load.landed for load in loads):,} landed"]
    if gone:
        parts.append(f"{gone:,} deleted")
    parts.append(f"{sum(load.requests for load in loads):,} requests")
    if limited := sum(load.rate_limited for load in loads):
        parts.append(f"{limited:,} 429s")
    parts.append(duration(max((load.seconds for load in loads), default=0.0)))
    return ", ".join(parts)
