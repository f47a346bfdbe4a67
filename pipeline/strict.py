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

import msgspec

MAX_NESTING = 120
"""How deep a payload may be nested. DuckDB's `read_json` gives up at 128, two of which are the raw log's own."""

_SPACE = re.compile(r"[ \t\n\r]*")
_NAMES = frozenset({"object", "id"})


def parse_json(content: bytes) -> Any:
    """Return the value that a JSON text in UTF-8 holds; raise ValueError, whose text is the reason, for what is none.

    NaN, Infinity and numbers of any size are values: the fields that they stand in become null. Of a key that stands
    twice the last counts; but an object that is named twice by `object` or `id`, outermost or an entry of a list page,
    is refused: another reader of the raw log would take it for another run.
    """
    value = _read_plain(content)
    if value is None:
        return _checked(content.decode(), _DECODER.decode, lambda: _brackets(content))
    return _within_bounds(value, lambda: _brackets(content))


def parse_page(content: bytes) -> tuple[Any, list[bytes]]:
    """Return what `parse_json` does, and beside it the texts of the entries of its `data`, as they stand there.

    There are no texts where the value is no object, or its `data` no list.
    """
    value = _read_plain(content)
    if value is None:
        reader = _PageReader(content.decode())
        value = _checked(reader.text, lambda _text: reader.read(), reader.most_levels)
        return value, [text.encode() for text in reader.texts]
    texts: list[bytes] = []
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        texts = [bytes(raw) for raw in _ENTRIES.decode(content).data]
    if not texts:
        return _within_bounds(value, lambda: _brackets(content)), texts
    # To count the brackets of all entries a second time, as a part of the page, takes longer than to write it without.
    around = _ENCODER.encode({**value, "data": None})
    return _within_bounds(value, lambda: 1 + _brackets(around) + _most_brackets(texts)), texts


def read_json(line: bytes) -> Any:
    """Return the value of a JSON text that was written by this program; raise ValueError or RecursionError for what is
    none.
    """
    try:
        return _PLAIN.decode(line)
    except _NOT_PLAIN:
        return json.loads(line)


class _Page(msgspec.Struct):
    data: list[msgspec.Raw]


_PLAIN, _ENTRIES, _ENCODER = msgspec.json.Decoder(), msgspec.json.Decoder(_Page), msgspec.json.Encoder()
_COLONS = (b"\\u003a", b"\\u003A")
_NOT_PLAIN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def _read_plain(content: bytes) -> Any:
    """Return the value of a text that all readers read in one way, as by far most are; null for any other.

    What msgspec takes it reads as Python's own reader does, in a fifth of the time; but it does not tell of a key that
    stands twice. A member of an object takes a colon: where one was dropped, the value written out has fewer of them
    than the text, unless a colon of the text is written as an escape.
    """
    try:
        value = _PLAIN.decode(content)
        # One byte is found much sooner than several, and most texts have no escape.
        if b"\\" in content and any(colon in content for colon in _COLONS):
            return None
        if content.count(b":") != _ENCODER.encode(value).count(b":"):
            return None
    except _NOT_PLAIN:
        return None
    return value


def _within_bounds(value: Any, most_levels: Callable[[], int]) -> Any:
    """Return a value that has no more than `most_levels`; raise ValueError where it is nested too deep."""
    if most_levels() > MAX_NESTING and _is_too_deep(value):
        raise ValueError("is nested too deep")
    return value


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
    _within_bounds(value, most_levels)
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
        self.text = text
        self._entries: list[Any] = []
        self._members: list[tuple[str, Any]] = []

    def read(self) -> Any:
        """Return the object, or whatever else the text holds."""
        start = self._skip(0)
        if self.text[start : start + 1] == "{":
            with contextlib.suppress(json.JSONDecodeError, IndexError):  # where the text ends too early
                if self._skip(self._between(start, "}", self._member)) == len(self.text):
                    return _make(self._members)
        return _DECODER.decode(self.text)  # which says what is wrong with it

    def most_levels(self) -> int:
        """Return a bound of how deep the object is nested."""
        entries = [text.encode() for text in self.texts]
        return _brackets(self.text.encode()) - sum(map(_brackets, entries)) + _most_brackets(entries)

    def _between(self, at: int, end: str, item: Callable[[int], int]) -> int:
        """Read the items from an opening bracket on, and return where the closing one ends."""
        at = self._skip(at + 1)
        while self.text[at] != end:
            at = self._skip(item(at))
            if self.text[at] == ",":
                at = self._skip(at + 1)
                if self.text[at] == end:
                    raise json.JSONDecodeError("a comma before the end", self.text, at)
            elif self.text[at] != end:
                raise json.JSONDecodeError("no comma", self.text, at)
        return at + 1

    def _member(self, at: int) -> int:
        name, at = _DECODER.raw_decode(self.text, at)
        at = self._skip(at)
        if not isinstance(name, str) or self.text[at] != ":":
            raise json.JSONDecodeError("no name", self.text, at)
        at = self._skip(at + 1)
        if name == "data":
            self._entries, self.texts = [], []
        if name == "data" and self.text[at] == "[":
            value, at = self._entries, self._between(at, "]", self._entry)
        else:
            value, at = _DECODER.raw_decode(self.text, at)
        self._members.append((name, value))
        return at

    def _entry(self, at: int) -> int:
        value, end = _DECODER.raw_decode(self.text, at)
        self._entries.append(value)
        self.texts.append(self.text[at:end])
        return int(end)

    def _skip(self, at: int) -> int:
        space = _SPACE.match(self.text, at)
        return space.end() if space else at


def _most_brackets(texts: list[bytes]) -> int:
    return max(map(_brackets, texts), default=0)


def _brackets(content: bytes) -> int:
    return content.count(b"{") + content.count(b"[")


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
