"""Seeded chance that gives the same on every machine and Python version."""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Draw from one seeded stream, by `random()` and `getrandbits` alone: what builds on them has changed before."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def share(self) -> float:
        """Return a number from 0 up to, not including, 1."""
        return self._random.random()

    def chance(self, probability: float) -> bool:
        """Return True with this probability, 0 to 1."""
        return self._random.random() < probability

    def between(self, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`, both included."""
        return low + int(self._random.random() * (high - low + 1))

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options, each as likely as the others."""
        return options[int(self._random.random() * len(options))]

    def weighted(self, options: Sequence[tuple[T, float]]) -> T:
        """Return one of the options, each as likely as its weight says."""
        rest = self._random.random() * sum(weight for _, weight in options)
        for option, weight in options:
            rest -= weight
            if rest < 0:
                return option
        return options[-1][0]

    def shuffle(self, items: list[T]) -> None:
        """Put the items into another order, in place."""
        for last in range(len(items) - 1, 0, -1):
            other = int(self._random.random() * (last + 1))
            items[last], items[other] = items[other], items[last]

    def bits(self) -> int:
        """Return 32 random bits, as a seed for another stream."""
        return self._random.getrandbits(32)

    def identifier(self, prefix: str) -> str:
        """Return the prefix and 20 characters out of letters, digits, `_` and `-`, as the API's own IDs look."""
        return prefix + base64.urlsafe_b64encode(self._random.getrandbits(120).to_bytes(15, "big")).decode()
