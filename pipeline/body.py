"""Read the body of an answer: bounded while it streams, and checked to be what was asked for.

Pure but for the stream: what is wrong with a body becomes BrokenBodyError or TooLargeError.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.kinds import Kind
from pipeline.retry import BrokenBodyError, TooLargeError, clean_text
from pipeline.strict import parse_json, parse_page

Rows = tuple[list[dict[str, Any]], list[bytes], str | None]

_PIECE_BYTES = 262_144
_SMALL_BYTES = 262_144
"""What of a body may be held by each request under way. Larger bodies take turns, so that 64 at a time do not hold 64
times the bound."""


@dataclass(slots=True)
class Counters:
    """What the client has done so far. `bytes_received` counts bodies as they came over the wire."""

    requests: int = 0
    retries: int = 0
    rate_limited: int = 0
    bytes_received: int = 0


def read_run(body: bytes, kind: Kind, run_id: str) -> dict[str, Any]:
    """Return the run that a body holds, or raise BrokenBodyError where it is not exactly the one that was asked for."""
    payload, _texts = _read_object(body, lambda content: (parse_json(content), []))
    found = payload.get("object"), payload.get("id")
    if found == (kind.object, run_id):
        return payload
    if isinstance(found[0], str) and isinstance(found[1], str):
        # Another run's payload must never be filed under this ID.
        raise BrokenBodyError(f"the answer is {clean_text(found[0], 40)} {clean_text(found[1], 140)}", "WRONG_ID")
    raise BrokenBodyError(_unexpected(payload, kind.object))


def read_page(body: bytes) -> Rows:
    """Return a list page's rows, their texts and the next page token, or raise BrokenBodyError where it is no page."""
    payload, texts = _read_object(body, parse_page)
    rows, token = payload.get("data"), payload.get("nextPageToken")
    if payload.get("object") != "list" or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BrokenBodyError(_unexpected(payload, "list"))
    if token is not None and not isinstance(token, str):
        raise BrokenBodyError("the list's nextPageToken is no text")
    return rows, texts, token or None


def _read_object(body: bytes, parse: Callable[[bytes], tuple[Any, list[bytes]]]) -> tuple[dict[str, Any], list[bytes]]:
    try:
        payload, texts = parse(body)
    except UnicodeDecodeError:
        raise BrokenBodyError("the answer is not UTF-8") from None
    except ValueError as error:
        raise BrokenBodyError(f"the answer {str(error).partition(' (')[0]}") from None
    if not isinstance(payload, dict):
        raise BrokenBodyError("the answer is no JSON object")
    return payload, texts


def _unexpected(payload: Mapping[str, Any], expected: str) -> str:
    text = f"HTTP 200 with no {expected} in it"
    told = " ".join(filter(None, (clean_text(payload.get("code"), 64), clean_text(payload.get("message"), 100))))
    return f"{text} but: {told}" if told else text


async def read_bounded(
    chunks: AsyncIterable[bytes],
    *,
    encoding: str,
    limit_bytes: int,
    counters: Counters,
    large: asyncio.Lock | None = None,
) -> bytes:
    """Return the decompressed body, holding at most `limit_bytes` and one piece of it at any moment.

    What is beyond a small body's size is read only while holding `large`, which those under way share. Raises
    TooLargeError above the bound, BrokenBodyError for gzip data that is damaged or ends early.
    """
    encoding = encoding.strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise BrokenBodyError(f"Content-Encoding {clean_text(encoding, 40)} was not asked for")
    gunzip = _Gunzip() if encoding.endswith("gzip") else None
    parts: list[bytes] = []
    size, has_turn = 0, False
    try:
        async for chunk in chunks:
            counters.bytes_received += len(chunk)
            for piece in gunzip.feed(chunk, limit_bytes + 1 - size) if gunzip else (chunk,):
                size += len(piece)
                parts.append(piece)
                if large is not None and size > _SMALL_BYTES and not has_turn:
                    has_turn = await large.acquire()
            if size > limit_bytes:
                raise TooLargeError(too_large(limit_bytes))
    finally:
        if large is not None and has_turn:
            large.release()
    if gunzip and not gunzip.is_complete:
        raise BrokenBodyError("the answer's gzip data ends early")
    return parts[0] if len(parts) == 1 else b"".join(parts)


class _Gunzip:
    """Decompresses gzip of one or more members, never more than asked for at a time."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)

    @property
    def is_complete(self) -> bool:
        return self._member.eof

    def feed(self, data: bytes, room: int) -> Iterator[bytes]:
        """Yield what the data unpacks to, in small pieces, until `room` bytes are out; the rest is then let go."""
        while data and room > 0:
            if self._member.eof:
                self._member = zlib.decompressobj(wbits=31)
            try:
                piece = self._member.decompress(data, min(room, _PIECE_BYTES))
            except zlib.error:
                raise BrokenBodyError("the answer's gzip data is damaged") from None
            yield piece
            room -= len(piece)
            data = self._member.unconsumed_tail or self._member.unused_data


def too_large(limit_bytes: int) -> str:
    """Return what to say of a body above the bound."""
    return f"the answer is larger than {limit_bytes / 2**20:.0f} MiB"
