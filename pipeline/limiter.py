"""One adaptive limiter for everything that a process asks of the API.

The rate limit belongs to the organization, so one `Limiter` paces all requests. It starts at the plan's rate, halves
when a 429 comes, climbs back quickly to just below the rate that met it, and from there ever more carefully.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import NewType

Ticket = NewType("Ticket", int)
"""Says when a request was let go, as its number: hand it back with the request's outcome."""

MAX_PAUSE_S = 900.0
"""Longest wait that a server can ask for. A quarter of an hour outlasts every quota window that is counted by the
minute, and is what the outage rule waits too; a mistaken or hostile value must not park a load for a day. Who must
wait longer gets a 429 again, and waits again."""

# Paced at exactly the plan's rate, the least jitter puts one request too many into the server's window. 1.5 % keeps the
# total, with starting and landing, within 3 % of the least possible time of two minutes.
_HEADROOM = 0.985
# No more than the plan's requests leave in a window this much longer than the server's: room for network jitter,
# whatever late timers and catching up do to the even spacing.
_WINDOW_SLACK = 1.01
_MAX_WINDOW = 1000
# How much lateness (a late timer, a busy event loop) is made up for by sending sooner; more than that is lost.
_CATCH_UP_S = 0.1
# No timer is finer than this: at a thousand requests a second and more, some leave together rather than each after a
# sleep that takes longer than the request's own work.
_TIMER_S = 0.001
# Times that are added up are not quite what they are multiplied out: a bunch would leave without its last request.
_ROUNDING_S = 1e-6
# Waking up costs a process more than a request does, so those that are due within so short a time leave together, up to
# so many: at 75 requests a second this takes half the processor time. A server that refuses one of them has no patience
# for that: from then on they leave one by one.
_TOGETHER_S = 0.08
_FEWEST_TOGETHER, _MOST_TOGETHER = 4, 6
# Never below a sixteenth of the plan's rate: further down, 429s are no longer about our pace.
_LOWEST_SHARE = 1 / 16
_CUT = 0.5
_RECOVERY_S = 2.0
# It climbs back to just below what the server let through of late; one cut after the other lowers that by a third at
# the most, since a pause or a burst just before makes it look lower than it is.
_JUST_BELOW = 0.97
_MEASURED_S = 2.0
_SOON_S = 10.0
_LOWEST_STEP = 0.65
# So few answers tell no rate, as at two a second, or at the start: it is lowered by no more than a fifth then.
_FEWEST = 10
_STEP_UNTOLD = 0.8
# Probing adds a tenth after one period and 80 % after two, as CUBIC does. A limit met again doubles the period.
_PROBE_GAIN = 0.1
_PROBE_S, _LONGEST_PROBE_S = 20.0, 600.0

_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")
_DAY_S = 86_400.0


class Limiter:
    """Lets requests go at an even pace, few at a time, first come first served, and learns from 429s.

    `qps` is the plan's rate in requests a second, or this process's share of it: never exceeded. A limiter belongs to
    one event loop. `clock` counts seconds, `wall_clock` is Unix time (for servers that name a date).
    """

    # Set by `restore`: the present rate, the one that met the last 429, the one to climb back to, the one cut to.
    _rate: float
    _met: float
    _goal: float
    _cut_to: float
    _cut_at: float
    _probe_s: float
    _last_cut_ticket: int
    _passed_since_cut: bool

    def __init__(
        self,
        qps: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        if not (math.isfinite(qps) and qps > 0):
            raise ValueError(f"qps must be a number above 0, not {qps}")
        self.qps = qps
        self.wall_clock = wall_clock
        self._clock = clock
        self._sleep = sleep
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._ceiling = qps * _HEADROOM
        self._sent = 0
        self._last_slot = -math.inf
        self._paused_until = -math.inf
        window = min(_MAX_WINDOW, max(1, int(qps)))
        self._recent: deque[float] = deque([-math.inf] * window, maxlen=window)
        self._window_s = window / qps * _WINDOW_SLACK
        # Only a whole number of bunches fills a window.
        sizes = range(_FEWEST_TOGETHER, min(_MOST_TOGETHER, int(qps * _TOGETHER_S)) + 1)
        self._bunch = max((size for size in sizes if window % size == 0), default=1)
        self._has_bunched = False
        self._started_at = clock()
        self._accepted: deque[float] = deque()
        self.restore()

    @property
    def rate(self) -> float:
        """The present pace in requests a second."""
        return self._rate

    @property
    def paused_s(self) -> float:
        """Seconds until the pause that a server asked for is over; 0 if there is none."""
        return max(0.0, self._paused_until - self._clock())

    async def acquire(self) -> Ticket:
        """Wait for this request's turn and return its ticket. A waiter that is cancelled takes up no turn."""
        if not self._waiting and (now := self._clock()) >= self._due_at():
            return self._take(now, waited=False)
        waited = self._waiting > 0
        self._waiting += 1
        try:
            async with self._turn:  # hands over in the order of arrival
                while (now := self._clock()) < self._due_at() - _ROUNDING_S:
                    waited = True
                    is_bunch = 1 < self._bunch <= self._waiting
                    self._has_bunched |= is_bunch
                    await self._sleep(self._due_at(self._bunch if is_bunch else 1) - now)
                return self._take(now, waited=waited)
        finally:
            self._waiting -= 1

    def rejected(self, ticket: Ticket, retry_after_s: float | None = None) -> None:
        """Take note of a 429: everybody waits `retry_after_s`, and the rate halves.

        It halves once per congestion: a request that had left before the last cut says nothing about the new rate.
        Where requests have left together, the first 429 makes them leave one by one instead.
        """
        now = self._clock()
        if retry_after_s:
            self._paused_until = max(self._paused_until, now + min(retry_after_s, MAX_PAUSE_S))
            # Nothing is caught up on after a pause.
            self._last_slot = max(self._last_slot, self._paused_until)
        if self._has_bunched:
            # It may be the bunch that was too much, not the rate: the next 429 will tell, after a short rest.
            self._last_slot = max(self._last_slot, now + self._bunch / self._rate)
            self._bunch, self._has_bunched = 1, False
            self._last_cut_ticket = self._sent
        if ticket > self._last_cut_ticket:
            self._cut(now)

    def succeeded(self, ticket: Ticket) -> None:
        """Take note of an answer that was no 429: the rate may climb."""
        self._accepted.append(self._clock())
        self._forget_old()
        if ticket <= self._last_cut_ticket:
            return
        self._passed_since_cut = True
        if self._rate < self._ceiling:
            self._rate = max(self._rate, min(self._ceiling, self._climbed(self._clock() - self._cut_at)))

    def restore(self) -> None:
        """Go back to the plan's rate at once and forget what was learned, as after an outage."""
        self._rate = self._met = self._goal = self._cut_to = self._ceiling
        self._probe_s = _PROBE_S
        self._cut_at = -math.inf
        self._last_cut_ticket = self._sent
        self._passed_since_cut = True
        self._paused_until = -math.inf
        self._last_slot = min(self._last_slot, self._clock())

    def _due_at(self, number: int = 1) -> float:
        """Return when so many more requests may have left. Times are absolute, so that late timers do not add up."""
        spacing_s = 1 / self._rate
        early_s = _TIMER_S if spacing_s < _TIMER_S else 0.0
        return max(
            self._last_slot + number * spacing_s - early_s,
            self._recent[number - 1] + self._window_s,
            self._paused_until,
        )

    def _take(self, now: float, *, waited: bool) -> Ticket:
        earliest = now - _CATCH_UP_S if waited else now
        self._last_slot = max(self._last_slot + 1 / self._rate, earliest)
        self._recent.append(now)
        self._sent += 1
        return Ticket(self._sent)

    def _cut(self, now: float) -> None:
        met, since = self._rate, now - self._cut_at
        # Refused again with nothing let through in between: that tells nothing about what rate would do.
        if self._passed_since_cut:
            self._learn(met, since, now)
        self._rate = self._cut_to = max(self._ceiling * _LOWEST_SHARE, met * _CUT)
        self._cut_at = now
        self._last_cut_ticket = self._sent
        self._passed_since_cut = False

    def _learn(self, met: float, since: float, now: float) -> None:
        # The limit that was known is met again: probe for more half as often. Else it has moved: learn it anew.
        again = 0.8 * self._met <= met <= 1.2 * self._met
        self._probe_s = min(_LONGEST_PROBE_S, self._probe_s * 2) if again and since > _SOON_S else _PROBE_S
        self._met = met
        if since < _SOON_S:
            lowest = self._goal * _LOWEST_STEP
        elif len(self._accepted) < _FEWEST:
            lowest = self._goal * _STEP_UNTOLD
        else:
            lowest = met * _CUT
        self._goal = _JUST_BELOW * max(lowest, min(met, self._accepted_rate(now)))

    def _accepted_rate(self, now: float) -> float:
        """Return how many requests a second the server has let through of late."""
        self._forget_old()
        return len(self._accepted) / max(0.1, min(_MEASURED_S, now - self._started_at))

    def _forget_old(self) -> None:
        oldest = self._clock() - _MEASURED_S
        while self._accepted and self._accepted[0] < oldest:
            self._accepted.popleft()

    def _climbed(self, since_cut_s: float) -> float:
        if since_cut_s < _RECOVERY_S:
            return self._cut_to + (self._goal - self._cut_to) * since_cut_s / _RECOVERY_S
        periods = (since_cut_s - _RECOVERY_S) / self._probe_s
        return self._goal * (1 + _PROBE_GAIN * periods**3)


def retry_after_s(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return how many seconds the server asks to wait, or null where it says nothing that makes sense.

    Reads `retry-after-ms`, `Retry-After` (seconds or HTTP date) and `x-ratelimit-reset` (Unix seconds), the first that
    makes sense; header names as `httpx.Headers` matches them. `now` is Unix time, used where the answer has no `Date`
    of its own, so that a wrong clock here matters little. 0 means at once; never more than MAX_PAUSE_S.
    """
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return min(milliseconds / 1000, MAX_PAUSE_S)
    text = headers.get("retry-after")
    if (seconds := _number(text)) is not None:
        return min(seconds, MAX_PAUSE_S)
    server_now = unix_time(headers.get("date"))
    here = now if server_now is None else server_now
    if (until := unix_time(text)) is not None:
        return min(max(0.0, until - here), MAX_PAUSE_S)
    reset = _number(headers.get("x-ratelimit-reset"))
    if reset is not None and abs(reset - here) < _DAY_S:  # else it is no Unix time in seconds
        return min(max(0.0, reset - here), MAX_PAUSE_S)
    return None


def _number(text: str | None) -> float | None:
    """Return a plain non-negative decimal; what `float()` also takes (nan, inf, 1_0, 1e9) is no number here."""
    return float(text) if text and _NUMBER.fullmatch(text := text.strip()) else None


def unix_time(text: str | None) -> float | None:
    """Return the Unix time that an HTTP date says, or null where it is none."""
    if not text:
        return None
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


__all__ = ["MAX_PAUSE_S", "Limiter", "Ticket", "retry_after_s", "unix_time"]
