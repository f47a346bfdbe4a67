"""The pace of requests, in simulated time against simulated servers: minutes pass in milliseconds."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import deque
from dataclasses import dataclass

import httpx
import pytest

from pipeline.limiter import MAX_PAUSE_S, Limiter, Ticket, retry_after_s
from tests.simulated import now, run_simulated


class TokenBucket:
    def __init__(self, rate: float, capacity: float) -> None:
        self.rate, self.capacity, self.tokens, self.at = rate, capacity, capacity, 0.0

    def accepts(self, at: float) -> bool:
        self.tokens = min(self.capacity, self.tokens + (at - self.at) * self.rate)
        self.at = at
        if self.tokens < 1 - 1e-9:
            return False
        self.tokens -= 1
        return True


class SlidingWindow:
    def __init__(self, rate: int) -> None:
        self.rate, self.times = rate, deque[float]()

    def accepts(self, at: float) -> bool:
        while self.times and self.times[0] <= at - 1:
            self.times.popleft()
        if len(self.times) >= self.rate:
            return False
        self.times.append(at)
        return True


@dataclass
class Outcome:
    seconds: float
    requests: int
    rejected: int

    @property
    def rejected_share(self) -> float:
        return self.rejected / self.requests


def run_load(
    server: TokenBucket | SlidingWindow,
    *,
    qps: float,
    runs: int,
    jitter_s: float = 0.01,
    oversleep_s: float = 0.0,
    retry_after: float | None = None,
) -> Outcome:
    """Fetch `runs` with 64 workers, each request taking 20 ms and up to `jitter_s` more, each way."""
    rng = random.Random(7)

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds + rng.uniform(0, oversleep_s))

    async def main() -> Outcome:
        limiter = Limiter(qps, clock=now, sleep=sleep)
        left, outcome, started = iter(range(runs)), Outcome(0, 0, 0), now()

        async def worker() -> None:
            for _ in left:
                while True:
                    ticket = await limiter.acquire()
                    outcome.requests += 1
                    await asyncio.sleep(0.02 + rng.uniform(0, jitter_s))
                    accepted = server.accepts(now())
                    await asyncio.sleep(0.02 + rng.uniform(0, jitter_s))
                    if accepted:
                        limiter.succeeded(ticket)
                        break
                    outcome.rejected += 1
                    limiter.rejected(ticket, retry_after)
                    await asyncio.sleep(rng.uniform(0, 0.5))

        await asyncio.gather(*(worker() for _ in range(64)))
        outcome.seconds = now() - started
        return outcome

    return run_simulated(main())


@pytest.mark.parametrize("qps", [10, 25, 75])
@pytest.mark.parametrize("server", ["bucket", "bucket of 2", "window"])
def test_at_the_plans_rate_a_server_never_says_429(qps: int, server: str) -> None:
    servers = {"bucket": TokenBucket(qps, qps), "bucket of 2": TokenBucket(qps, 2), "window": SlidingWindow(qps)}
    outcome = run_load(servers[server], qps=qps, runs=qps * 40)
    # Of the first five that leave together at 75 a second, a bucket of two refuses three.
    assert outcome.rejected == (3 if (qps, server) == (75, "bucket of 2") else 0)
    assert 1.0 < outcome.seconds / 40 <= 1.03


@pytest.mark.parametrize("burst", [1, 2, 3, 4])
def test_a_server_that_takes_no_bunch_refuses_part_of_one_and_costs_no_rate(burst: int) -> None:
    outcome = run_load(TokenBucket(75, burst), qps=75, runs=75 * 40, jitter_s=0.0002)
    assert outcome.rejected == 5 - burst
    assert 1.0 < outcome.seconds / 40 <= 1.03


@pytest.mark.parametrize(("qps", "size"), [(10, 1), (40, 1), (75, 5), (77, 1), (100, 5), (300, 6), (500, 5)])
@pytest.mark.parametrize("waiting", [3, 64])
def test_who_waits_leaves_together_where_many_wait_and_that_is_soon(qps: int, size: int, waiting: int) -> None:
    async def main() -> list[float]:
        limiter, left, turns = Limiter(qps, clock=now), [], iter(range(121))

        async def work() -> None:
            for _ in turns:
                await limiter.acquire()
                left.append(now())

        await asyncio.gather(*(work() for _ in range(waiting)))
        return left

    left = run_simulated(main())
    bunches = [len(list(group)) for _at, group in itertools.groupby(left)]
    # The first two find nobody waiting; at the end fewer wait than a bunch has.
    assert set(bunches[2 : -2 * size]) == {size if waiting > 3 else 1}
    assert left[-1] - left[0] == pytest.approx(120 / (0.985 * qps), rel=0.006)


def test_even_spacing_satisfies_a_server_that_allows_no_burst_at_all() -> None:
    outcome = run_load(TokenBucket(25, 1), qps=25, runs=1000, jitter_s=0.0002)
    assert outcome.rejected == 0
    assert outcome.seconds / 40 <= 1.03


@pytest.mark.parametrize("server", [TokenBucket(75, 75), SlidingWindow(75)])
def test_late_timers_do_not_add_up(server: TokenBucket | SlidingWindow) -> None:
    # Each sleep takes up to 15 ms longer than asked, which is more than the 13 ms between two requests.
    outcome = run_load(server, qps=75, runs=75 * 40, oversleep_s=0.015)
    assert outcome.rejected == 0
    assert outcome.seconds / 40 <= 1.03


@pytest.mark.parametrize("limit", [10, 25, pytest.param(75, marks=pytest.mark.long)])
@pytest.mark.parametrize("server", ["bucket", "window"])
@pytest.mark.parametrize("retry_after", [None, 1.0])
def test_told_four_times_the_limit_it_settles_at_it(limit: int, server: str, retry_after: float | None) -> None:
    limits = TokenBucket(limit, limit) if server == "bucket" else SlidingWindow(limit)
    outcome = run_load(limits, qps=4 * limit, runs=150 * limit, retry_after=retry_after)
    # A bucket gives its first second's requests for nothing, which makes good for what finding the limit takes.
    assert outcome.seconds / 150 <= (1.04 if server == "bucket" else 1.13)
    assert outcome.rejected_share < 0.01


def test_jitter_that_a_strict_server_cannot_bear_slows_down_but_no_more_than_needed() -> None:
    # Gaps vary by 20 ms, so only every 60 ms is safe where one each 40 ms is allowed: 1.5 times as long at best.
    outcome = run_load(TokenBucket(25, 1), qps=25, runs=1500, jitter_s=0.02)
    assert outcome.rejected_share < 0.01
    assert outcome.seconds / 60 < 1.75


def test_requests_are_evenly_spaced_in_the_order_of_arrival() -> None:
    async def main() -> list[tuple[int, float]]:
        limiter, left = Limiter(10, clock=now), []

        async def take(number: int) -> None:
            await limiter.acquire()
            left.append((number, now()))

        await asyncio.gather(*(take(number) for number in range(20)))
        return left

    left = run_simulated(main())
    assert [number for number, _ in left] == list(range(20))
    gaps = [after - before for (_, before), (_, after) in itertools.pairwise(left)]
    assert gaps == pytest.approx([1 / 9.85] * 19)


def test_a_cancelled_waiter_gives_its_slot_back() -> None:
    async def main() -> list[float]:
        limiter, left = Limiter(10, clock=now), []
        await limiter.acquire()
        started = now()

        async def take() -> None:
            await limiter.acquire()
            left.append(now() - started)

        tasks = [asyncio.create_task(take()) for _ in range(5)]
        await asyncio.sleep(0.01)
        tasks[0].cancel()  # the one whose turn is next
        tasks[2].cancel()  # one in the middle
        await asyncio.gather(*tasks, return_exceptions=True)
        return left

    assert run_simulated(main()) == pytest.approx([1 / 9.85, 2 / 9.85, 3 / 9.85])


def test_idle_time_is_not_saved_up_for_a_burst() -> None:
    async def main() -> float:
        limiter = Limiter(10, clock=now)
        await limiter.acquire()
        await asyncio.sleep(60)
        started = now()
        for _ in range(11):
            await limiter.acquire()
        return now() - started

    assert run_simulated(main()) == pytest.approx(10 / 9.85)


def test_a_429_halves_once_per_congestion() -> None:
    async def main() -> list[float]:
        limiter, rates = Limiter(100, clock=now), []
        before = [await limiter.acquire() for _ in range(5)]
        for ticket in before:  # all five left before the first of them was refused
            limiter.rejected(ticket)
            rates.append(limiter.rate)
        limiter.rejected(await limiter.acquire())
        return [*rates, limiter.rate]

    assert run_simulated(main()) == pytest.approx([49.25] * 5 + [24.625])


def test_the_rate_has_a_floor() -> None:
    async def main() -> float:
        limiter = Limiter(16, clock=now)
        for _ in range(50):
            limiter.rejected(await limiter.acquire())
        return limiter.rate

    assert run_simulated(main()) == pytest.approx(0.985)


def test_it_climbs_back_quickly_to_just_below_and_then_with_growing_caution() -> None:
    async def main() -> tuple[list[float], list[float]]:
        limiter = Limiter(100, clock=now)
        left: list[Ticket] = []

        async def go_on(seconds: float) -> None:
            end = now() + seconds
            while now() < end:
                left.append(await limiter.acquire())
                limiter.succeeded(left[-1])

        courses: list[list[float]] = []
        for _ in range(2):
            await go_on(30)
            limiter.rejected(await limiter.acquire())
            course = [limiter.rate]
            for seconds in (3, 3, 12, 12):
                await go_on(seconds)
                course.append(limiter.rate)
            courses.append(course)
        return courses[0], courses[1]

    first, second = run_simulated(main())
    assert first[0] == pytest.approx(49.25)
    assert 94 < first[1] <= 98.5  # three seconds after the cut, just below where it met the 429
    assert first == sorted(first)
    assert max(first + second) <= 98.5  # never above the plan's rate
    assert second[2] / second[1] <= first[2] / first[1]  # the same limit again: probing gets slower


def test_a_429_with_few_answers_before_it_costs_a_fifth_of_the_rate_and_not_half() -> None:
    async def main() -> list[float]:
        limiter, rates = Limiter(2, clock=now), []
        await asyncio.sleep(3)  # many loads begin at once, and answers come late
        limiter.rejected(await limiter.acquire())
        rates.append(limiter.rate)
        for _ in range(8):
            limiter.succeeded(await limiter.acquire())
            rates.append(limiter.rate)
        return rates

    rates = run_simulated(main())
    assert rates[0] == pytest.approx(0.985)
    # Two seconds later it is back at 97 % of four fifths, 1.97 × 0.8 × 0.97 = 1.529, and climbs on slowly.
    assert 1.528 < rates[-1] < 1.538


def test_retry_after_makes_everybody_wait() -> None:
    async def main() -> list[float]:
        limiter, left = Limiter(100, clock=now), []
        limiter.rejected(await limiter.acquire(), 5.0)
        started = now()
        assert limiter.paused_s == pytest.approx(5)

        async def take() -> None:
            await limiter.acquire()
            left.append(now() - started)

        await asyncio.gather(*(take() for _ in range(3)))
        return left

    left = run_simulated(main())
    assert left[0] >= 5.0
    assert left == pytest.approx([5 + 1 / 49.25, 5 + 2 / 49.25, 5 + 3 / 49.25])  # no burst after the pause


def test_a_pause_that_comes_while_others_wait_holds_them_too() -> None:
    async def main() -> float:
        limiter = Limiter(1, clock=now)
        ticket = await limiter.acquire()
        started = now()
        waiter = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0.5)
        limiter.rejected(ticket, 10.0)
        await waiter
        return now() - started

    assert run_simulated(main()) >= 10.5


def test_zero_retry_after_cuts_but_does_not_wait() -> None:
    async def main() -> tuple[float, float]:
        limiter = Limiter(100, clock=now)
        limiter.rejected(await limiter.acquire(), 0.0)
        return limiter.paused_s, limiter.rate

    assert run_simulated(main()) == (0.0, pytest.approx(49.25))


def test_restore_goes_back_to_the_plans_rate() -> None:
    async def main() -> tuple[float, float]:
        limiter = Limiter(100, clock=now)
        for _ in range(3):
            limiter.rejected(await limiter.acquire(), 60.0)
        limiter.restore()
        started = now()
        await limiter.acquire()
        return limiter.rate, now() - started

    rate, waited = run_simulated(main())
    assert rate == 98.5
    assert waited < 0.1


@pytest.mark.parametrize("qps", [0, -1, float("nan"), float("inf")])
def test_a_senseless_rate_is_refused(qps: float) -> None:
    with pytest.raises(ValueError, match="qps"):
        Limiter(qps)


NOW = 1_800_000_000.0  # 2027-01-15 08:00:00 UTC


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 1.5 "}, 1.5),
        ({"Retry-After": "0"}, 0.0),
        ({"retry-after-ms": "250", "Retry-After": "7"}, 0.25),
        ({"retry-after-ms": "nan", "Retry-After": "7"}, 7.0),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "1e3"}, None),
        ({"Retry-After": "1_0"}, None),
        ({"Retry-After": "٣"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "99999999"}, MAX_PAUSE_S),
        ({"Retry-After": "9" * 400}, None),
        ({"Retry-After": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30.0),
        ({"Retry-After": "Fri, 15 Jan 2027 07:00:00 GMT"}, 0.0),
        ({"Retry-After": "Fri, 99 Jan 2027 08:00:30 GMT"}, None),
        # The server's own clock counts, if it tells: here it is an hour behind ours.
        ({"Retry-After": "Fri, 15 Jan 2027 07:00:30 GMT", "Date": "Fri, 15 Jan 2027 07:00:00 GMT"}, 30.0),
        ({"x-ratelimit-reset": "1800000012"}, 12.0),
        ({"x-ratelimit-reset": "1799999990"}, 0.0),
        ({"x-ratelimit-reset": "30"}, None),
        ({"x-ratelimit-reset": "1800000012000"}, None),
        ({"Retry-After": "x", "x-ratelimit-reset": "1800000012"}, 12.0),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], expected: float | None) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert retry_after_s(httpx.Headers(raw), now=NOW) == expected
