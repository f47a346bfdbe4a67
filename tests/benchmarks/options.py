"""How to measure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`small` is a quick pass over everything, whose numbers mean little. `alone` leaves the peers out.

    `times` is how often each is run; null leaves it to the question. `lakes` is a folder for lakes that several
    questions ask.
    """

    lakes: Path

    small: bool = False
    alone: bool = False
    times: int | None = None

    def turns(self, usual: int) -> int:
        """Return how often to run each thing, if nothing else is said so often."""
        return self.times or (1 if self.small else usual)
