"""What can go wrong on the way to an answer, on request and repeatably."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

KINDS = (
    "429_no_hint",  # no Retry-After at all
    "429_seconds",  # Retry-After: 1
    "429_date",  # Retry-After as an HTTP date, one second ahead
    "429_zero",  # Retry-After: 0
    "429_ms",  # retry-after-ms: 50
    "429_reset",  # x-ratelimit-reset: Unix seconds, one second ahead
    "500",  # the API's own error body
    "502_html",  # a proxy's page
    "503_empty",  # no body
    "hang",  # accepted, then silence for `hang_s`, then the connection closes without an answer
    "reset",  # a TCP RST in mid-body
    "short_body",  # the connection closes before Content-Length is reached
    "cut_json",  # a complete 200 whose JSON stops in the middle
    "html_200",  # a 200 that is a proxy's page
    "slow",  # the whole answer, in drips over `slow_s`
    "other_run",  # a 200 with the run of another ID
    "error_200",  # a 200 with an error body
)


@dataclass(frozen=True, slots=True)
class Faults:
    """Which requests go wrong, and how: the same for the same seed and ordinal of the request.

    `share` is from 0 to 1 of all authorized requests. The kinds `reset`, `short_body` and `cut_json` spoil an answer
    that was made, so they can cost the result of a zero-retention verify run, as in reality; the others never do.
    `hang_s` and `slow_s` are seconds.
    """

    share: float = 0.2
    kinds: tuple[str, ...] = KINDS
    seed: int = 0
    hang_s: float = 30.0
    slow_s: float = 0.3

    def __post_init__(self) -> None:
        unknown = set(self.kinds) - set(KINDS)
        if unknown or not self.kinds:
            raise ValueError(f"no such kind of fault: {sorted(unknown)}; there are {', '.join(KINDS)}")
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}; give a number from 0 to 1")

    def draw(self, ordinal: int) -> str | None:
        """Return what goes wrong with the request of this ordinal, or None where nothing does."""
        digest = hashlib.blake2b(f"{self.seed}:{ordinal}".encode(), digest_size=16).digest()
        if int.from_bytes(digest[:8], "big") / 2**64 >= self.share:
            return None
        return self.kinds[int.from_bytes(digest[8:], "big") % len(self.kinds)]
