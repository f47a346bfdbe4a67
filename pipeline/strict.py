"""Read JSON from outside, and refuse what other readers would read in another way than this program, or not at all.

Python's own reader takes more than JSON is, and takes some of it in its own way: of a key that stands twice the last
counts, where DuckDB takes the first.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from typing import Any

MAX_NESTING = 120
"""How deep a payload may be nested. DuckDB's `read_json` gives up at 128, two of which are the raw log's own."""

_SPACE = re.compile(r"[ \t\n\r]*")
_NAMES = frozenset({"object", "id"})


def parse_json(text: str) -> Any:
    """Return the value that a JSON text holds; raise ValueError, with the reason as its text, for what is none.

    NaN, Infinity and numbers of any size are values: the fields that they stand in become null. Of a key that stands
    twice the last counts; but an object that is named twice by `object` or `id`, outermost or an entry of a list page,
    is refused: another reader of the raw log would take it for another run.
    """
    return _checked(text, _DECODER.decode, lambda: _brackets(text))


def parse_page(text: str) -> tuple[Any, list[str]]:
    """Return what `parse_json` does, and beside it the texts of the entries of its `data`, as they stand there.

    There are no texts where the value is no object, or its `data` no list.
    """
    reader = _PageReader(text)
    return _checked(text, lambda _text: reader.read(), reader.most_levels), reader.texts


def _checked(text: str, decode: Callable[[str], Any], most_levels: Callable[[], int]) -> Any:
    """Return what `decode` makes of a text, if it may be taken; its value has no more than `most_levels`."""
    try:
        value = decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error})") from error
    except RecursionError as error:
        raise ValueError("is nested too deep") from error
    except ValueError as error:
        raise ValueError("holds a number of too many digits") from error
    if most_levels() > MAX_NESTING and _is_too_deep(value):
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


class _PageReader:
    """Reads an object member by member, and its `data` entry by entry, to see where in the text each entry stands."""

    def __init__(self, text: str) -> None:
        self.texts: list[str] = []
        self._text = text
        self._entries: list[Any] = []
        self._members: list[tuple[str, Any]] = []

    def read(self) -> Any:
        """Return the object, or whatever else the text holds."""
        start = self._skip(0)
        if self._text[start : start + 1] == "{":
            with contextlib.suppress(json.JSONDecodeError, IndexError):  # where the text ends too early
                if self._skip(self._between(start, "}", self._member)) == len(self._text):
                    return _make(self._members)
        return _DECODER.decode(self._text)  # which says what is wrong with it

    def most_levels(self) -> int:
        """Return a bound of how deep the object is nested: entries lie beside one another."""
        each = [_brackets(text) for text in self.texts]
        return _brackets(self._text) - sum(each) + max(each, default=0)

    def _between(self, at: int, end: str, item: Callable[[int], int]) -> int:
        """Read the items from an opening bracket on, and return where the closing one ends."""
        at = self._skip(at + 1)
        while self._text[at] != end:
            at = self._skip(item(at))
            if self._text[at] == ",":
                at = self._skip(at + 1)
                if self._text[at] == end:
                    raise json.JSONDecodeError("a comma before the end", self._text, at)
            elif self._text[at] != end:
                raise json.JSONDecodeError("no comma", self._text, at)
        return at + 1

    def _member(self, at: int) -> int:
        name, at = _DECODER.raw_decode(self._text, at)
        at = self._skip(at)
        if not isinstance(name, str) or self._text[at] != ":":
            raise json.JSONDecodeError("no name", self._text, at)
        at = self._skip(at + 1)
        if name == "data":
            self._entries, self.texts = [], []
        if name == "data" and self._text[at] == "[":
            value, at = self._entries, self._between(at, "]", self._entry)
        else:
            value, at = _DECODER.raw_decode(self._text, at)
        self._members.append((name, value))
        return at

    def _entry(self, at: int) -> int:
        value, end = _DECODER.raw_decode(self._text, at)
        self._entries.append(value)
        self.texts.append(self._text[at:end])
        return int(end)

    def _skip(self, at: int) -> int:
        space = _SPACE.match(self._text, at)
        return space.end() if space else at


def _brackets(text: str) -> int:
    return text.count("{") + text.count("[")


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
