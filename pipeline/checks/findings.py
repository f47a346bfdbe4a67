"""What a check found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "broken", "note"]
FIRST_FEW = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: `ok`, a `broken` promise, or a `note` of what a person should know and may be as it is.

    `count` says how many offend (for ok: 0), `offenders` names the first few, by ID and file, and `more` tells whether
    there are more.
    """

    check: str
    state: State
    message: str
    count: int = 0
    offenders: tuple[str, ...] = ()
    more: bool = False


def finding(check: str, offenders: Iterable[str], *, ok: str, broken: str, state: State = "broken") -> Finding:
    """Return what a check found that gives its offenders one by one: `{}` in `broken` is how many there are."""
    found = list(offenders)
    if not found:
        return Finding(check, "ok", ok)
    return Finding(
        check, state, broken.format(f"{len(found):,}"), len(found), tuple(found[:FIRST_FEW]), len(found) > FIRST_FEW
    )
