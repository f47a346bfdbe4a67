"""Small things that the reports share in how they look to a person."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from pipeline.kinds import KINDS
from pipeline.render import printable, write_table

_KIND_ORDER = {kind.object: position for position, kind in enumerate(KINDS)}
_MOST_LINES = 1_000


def percent(rate: float | None) -> str:
    """Return a share as `4.3 %`; nothing for null."""
    return "" if rate is None else f"{rate * 100:.1f} %".replace("-", "−")


def interval(low: float | None, high: float | None) -> str:
    """Return an interval as `1.5 % to 11.9 %`; nothing for null."""
    return "" if low is None or high is None else f"{percent(low)} to {percent(high)}"


def counted(number: int, what: str) -> str:
    """Return `1 run`, `1,234 runs`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def label(value: Any) -> str:
    """Return what stands for a dimension's value."""
    return "not known" if value is None else printable(str(value))


def kind_order(kind: str | None) -> tuple[int, str]:
    """Return where a kind stands among the others: the documented ones first, in their own order."""
    return (_KIND_ORDER.get(kind or "", len(_KIND_ORDER)), kind or "")


def write_lines(names: Sequence[str], lines: Sequence[Sequence[Any]], stream: TextIO) -> None:
    """Write a table of which the last line is the total; where there are very many lines, only the first of them."""
    if len(lines) > _MOST_LINES + 1:
        left_out = len(lines) - _MOST_LINES - 1
        between = (f"… {left_out:,} more; --format csv gives them all", *[None] * (len(names) - 1))
        lines = [*lines[:_MOST_LINES], between, lines[-1]]
    write_table(names, lines, stream=stream)


def write_notes(notes: Iterable[str], stream: TextIO) -> None:
    """Write sentences, a line each."""
    stream.writelines(f"{note}\n" for note in notes)
