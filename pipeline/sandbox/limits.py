"""The organization's rate limit: one token bucket over all endpoints, and the ways to say when to come back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Literal

Hint = Literal["absent", "seconds", "date", "zero", "ms", "reset"]
HINTS: tuple[Hint, ...] = ("absent", "seconds", "date", "zero", "ms", "reset")


class TokenBucket:
    """Let through `qps` requests a second, and as many at once after a rest; 0 lets everything through."""

    def __init__(self, qps: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.qps = qps
        self._clock = clock
        self._tokens = max(qps, 1.0)
        self._at = clock()

    def wait_s(self) -> float:
        """Take a token and return 0, or take none and return the seconds until there will be one."""
        if self.qps <= 0:
            return 0.0
        now = self._clock()
        self._tokens = min(max(self.qps, 1.0), self._tokens + (now - self._at) * self.qps)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self.qps


def retry_headers(hint: Hint, wait_s: float) -> list[tuple[bytes, bytes]]:
    """Return the response headers that say, in this way, to come back after so many seconds."""
    later = time.time() + wait_s
    values: dict[Hint, list[tuple[bytes, bytes]]] = {
        "absent": [],
        "seconds": [(b"retry-after", str(math.ceil(wait_s)).encode())],
        "date": [(b"retry-after", formatdate(math.ceil(later), usegmt=True).encode())],
        "zero": [(b"retry-after", b"0")],
        "ms": [(b"retry-after-ms", str(math.ceil(wait_s * 1000)).encode())],
        "reset": [(b"x-ratelimit-reset", str(math.ceil(later)).encode())],
    }
    return values[hint]
