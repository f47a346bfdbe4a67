"""Read JSON from outside, and refuse what other readers would read in another way than this program, or not at all.

Python's own reader takes more than JSON is, and takes some of it in its own way: of a key that stands twice the last
counts, where DuckDB takes the first.
"""

from __future__ import annotations

import json
from typing import Any

MAX_NESTING = 120
"""How deep a payload may be nested. DuckDB's `read_json` gives up at 128, two of which are the raw log's own."""

_NAMES = frozenset({"object", "id"})


def parse_json(text: str) -> Any:
    """Return the value that a JSON text holds; raise ValueError, with the reason as its text, for what is none.

    NaN, Infinity and numbers of any size are values: the fields that they stand in become null. Of a key that stands
    twice the last counts; but an object that is named twice by `object` or `id`, outermost or an entry of a list page,
    is refused: another reader of the raw log would take it for another run.
    """
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error})") from error
    except RecursionError as error:
        raise ValueError("is nested too deep") from error
    except ValueError as error:
        raise ValueError("holds a number of too many digits") from error
    if text.count("{") + text.count("[") > MAX_NESTING and _is_too_deep(value):
        raise ValueError("is nested too deep")
    if any(type(each) is _NamedTwice for each in _named(value)):
        raise ValueError("says `object` or `id` twice")
    return value


class _NamedTwice(dict[str, Any]):
    """An object that is named twice; within another it is like any other."""


def _make(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    names = [name for name, _value in pairs if name in _NAMES]
    return value if len(names) == len(set(names)) else _NamedTwice(value)


_DECODER = json.JSONDecoder(object_pairs_hook=_make)  # once: made anew for each text, it takes a tenth of the time


def _named(value: Any) -> list[Any]:
    """Return what runs may be: the value, its entries, a page's entries, and what an event or a record holds."""
    entries = value if isinstance(value, list) else [value]
    inner = [each[name] for each in entries if isinstance(each, dict) for name in ("data", "payload") if name in each]
    return [*entries, *(each for one in inner for each in (one if isinstance(one, list) else [one]))]


def _is_too_deep(value: Any) -> bool:
    """Tell, without recursion, whether a value is nested deeper than MAX_NESTING."""
    level = [value]
    for _ in range(MAX_NESTING):
        below: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                below += each.values()
            elif isinstance(each, list):
                below += each
        level = [each for each in below if isinstance(each, dict | list)]
        if not level:
            return False
    return True
