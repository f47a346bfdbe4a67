"""The raw log: every payload as it arrived, before anything is made of it.

One append-only file a load, `raw/YYYY-MM/<load_id>.jsonl.zst`: JSON lines in zstd frames with checksums, so `zstdcat`
and DuckDB's `read_json` can read it. A frame is written whole at each checkpoint; a crash costs the torn frame at the
end and no more, and damage in the middle costs the frames that it touches.

Records, by their `record`:

    load      first: what was asked, when, by which version
    run       a payload: run_id, fetched_at, detail, workspace_id, payload
    missing   an ID that the API does not have: run_id, at, reason, message, …
    failed    an ID that did not come: the same
    end       last: the load's row of `loads`
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from pipeline import durable

SUFFIX = ".jsonl.zst"
_MAGIC = b"\x28\xb5\x2f\xfd"
_READ_BYTES = 1 << 20
_MAX_FRAME_BYTES = 256 << 20
_FRAME_BYTES = 32 << 20
"""Where a frame that is written ends, at the latest with the line that reaches it: well below what readers take."""
_PACKED_BYTES = 512  # of which zstd can make 16 MiB
_LONE_SURROGATE = re.compile(
    rb"(?P<keep>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})"
    rb"|\\."
)
_LEVEL = 3

Record = dict[str, Any]

_quoted = json.encoder.encode_basestring_ascii


def new_load_id(now: datetime) -> str:
    """Return a load's name: its time in UTC to the millisecond, so that IDs sort by age, and six random digits."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}Z-{os.urandom(3).hex()}"


def raw_path(raw_folder: Path, load_id: str) -> Path:
    """Return where a load's raw log is."""
    return raw_folder / f"{load_id[:4]}-{load_id[4:6]}" / f"{load_id}{SUFFIX}"


def run_record(run_id: str, body: bytes, *, fetched_at: datetime, is_detail: bool, workspace_id: str | None) -> bytes:
    """Return a `run` record as one line; `body` is the payload's JSON text and stays as it arrived but for line ends.

    A line end can only stand between tokens in JSON, so taking it out changes no value. Half of a surrogate pair is no
    character, and for it alone other readers refuse the whole file: it is written out, as `flatten.text_value` does.
    """
    if b"\n" in body or b"\r" in body:
        body = body.replace(b"\n", b" ").replace(b"\r", b" ")
    if b"\\" in body and (b"\\ud" in body or b"\\uD" in body):  # one byte is found much sooner than several
        body = _LONE_SURROGATE.sub(_written_out, body)
    # Not json.dumps of a dict, which takes as long as all the rest of taking a payload.
    head = f'{{"record": "run", "run_id": {_quoted(run_id)}, {_run_fields(fetched_at, is_detail, workspace_id)}'
    return b"".join((head.encode(), body, b"}\n"))


@lru_cache(256)  # the runs of a page have all of it in common
def _run_fields(fetched_at: datetime, is_detail: bool, workspace_id: str | None) -> str:
    workspace = "null" if workspace_id is None else _quoted(workspace_id)
    return (
        f'"fetched_at": "{fetched_at.isoformat()}", "detail": {"true" if is_detail else "false"}, '
        f'"workspace_id": {workspace}, "payload": '
    )


def _written_out(found: re.Match[bytes]) -> bytes:
    lone = found["lone"]
    return found[0] if lone is None else b"\\\\" + lone.lower()


def other_record(record: str, fields: Mapping[str, Any]) -> bytes:
    """Return any other record as one line; times become RFC 3339 text."""
    return json.dumps({"record": record, **fields}, default=_json_default).encode() + b"\n"


def _json_default(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)


def pack_frame(lines: list[bytes]) -> bytes:
    """Return lines, given without their ends, as one frame."""
    return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(
        b"".join(line + b"\n" for line in lines)
    )


class RawWriter:
    """Appends records to one load's raw log.

    What `append` takes is in memory until `checkpoint` has returned; then it survives a crash and a power cut. Both may
    be called from any thread. `safe_bytes` is how much of the file was safe then.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.pending_bytes = 0
        self.safe_bytes = 0
        self._lines: list[bytes] = []
        self._file = file
        self._taking = threading.Lock()
        self._writing = threading.Lock()
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)

    @classmethod
    def create(cls, path: Path) -> RawWriter:
        """Start a new log; raise FileExistsError where there is one already."""
        durable.make_folder(path.parent)
        writer = cls(path, durable.open_new(path, buffering=0))
        try:
            durable.sync_folder(path.parent)
        except OSError:
            writer.close()
            raise
        return writer

    @classmethod
    def reopen(cls, path: Path) -> RawWriter:
        """Go on with a log at its end; what is torn there stays, as damage between frames."""
        file = path.open("r+b", buffering=0)
        file.seek(0, os.SEEK_END)
        return cls(path, file)

    def append(self, *lines: bytes) -> None:
        """Take records, each a line."""
        with self._taking:
            self._lines += lines
            self.pending_bytes += sum(map(len, lines))

    def checkpoint(self) -> int:
        """Write what was taken, flush it to the disk, and return how many bytes of the file are safe.

        Raises OSError where the disk is full or refuses; what was taken stays taken, and the next call tries again.
        """
        with self._writing:
            with self._taking:
                lines, self._lines = self._lines, []
                taken, self.pending_bytes = self.pending_bytes, 0
            try:
                for count, size in _frame_sizes(lines):
                    self._write_frame(b"".join(lines[:count]))
                    del lines[:count]
                    taken -= size
            except OSError:
                with self._taking:
                    self._lines[:0] = lines
                    self.pending_bytes += taken
                raise
            self.safe_bytes = self._file.tell()
            return self.safe_bytes

    def _write_frame(self, content: bytes) -> None:
        frame = memoryview(self._compressor.compress(content))
        start = self._file.tell()
        try:
            with durable.naming(self.path):
                while frame:
                    frame = frame[self._file.write(frame) :]
                os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(start)
            self._file.seek(start)
            raise

    def close(self) -> None:
        """Close the file; what was not checkpointed is dropped."""
        self._file.close()


def _frame_sizes(lines: list[bytes]) -> list[tuple[int, int]]:
    """Return of how many lines, and bytes, each frame is to be made: large payloads may come many at a time."""
    sizes: list[tuple[int, int]] = []
    count = size = 0
    for line in lines:
        count, size = count + 1, size + len(line)
        if size >= _FRAME_BYTES:
            sizes.append((count, size))
            count = size = 0
    return [*sizes, (count, size)] if count else sizes


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame of a raw log: its lines, and the offset in the file at which it ends."""

    lines: list[bytes]
    end: int


@dataclass(frozen=True, slots=True)
class Damage:
    """A part of a raw log that cannot be read: from and to which offset. A torn tail is damage up to the end."""

    start: int
    end: int
    is_tail: bool


def iter_frames(path: Path, offset: int = 0) -> Iterator[Frame | Damage]:
    """Yield the whole frames of a log from an offset on (the end of an earlier frame), and what is damaged between.

    Memory holds one frame at a time. Reading goes up to where the file ended when it was reached: a log that is still
    being written may end in a torn frame, which is told as damage and will be whole later.
    """
    size = path.stat().st_size
    ahead = b""
    with path.open("rb") as file:
        file.seek(offset)
        while offset < size:
            frame, ahead = _read_frame(file, offset, ahead)
            if frame is not None:
                yield frame
                offset = frame.end
                continue
            following = _find_frame(file, offset + 1)
            yield Damage(offset, size if following is None else following, following is None)
            if following is None:
                return
            offset, ahead = following, b""
            file.seek(offset)


def iter_records(lines: list[bytes]) -> Iterator[Record | None]:
    """Yield the records of a frame; None for a line that is no record."""
    from pipeline.strict import read_json  # here, since whoever only asks a lake does without

    for line in lines:
        try:
            record = read_json(line)
        except (ValueError, RecursionError):
            yield None
            continue
        yield record if isinstance(record, dict) and "record" in record else None


def _read_frame(file: BinaryIO, offset: int, ahead: bytes = b"") -> tuple[Frame | None, bytes]:
    """Return the frame at an offset, or None, and what was read past its end; `ahead` is what was read before it."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
    parts: list[bytes] = []
    read = decoded = 0
    chunk = memoryview(b"")
    try:
        while not decompressor.eof:
            chunk = memoryview(ahead or file.read(_READ_BYTES))
            ahead = b""
            if not chunk:
                return None, b""
            read += len(chunk)
            while chunk and not decompressor.eof:
                parts.append(decompressor.decompress(chunk[:_PACKED_BYTES]))
                chunk = chunk[_PACKED_BYTES:]
                decoded += len(parts[-1])
                if decoded > _MAX_FRAME_BYTES:
                    return None, b""
    except zstandard.ZstdError:
        return None, b""
    rest = decompressor.unused_data + bytes(chunk)
    return Frame(b"".join(parts).splitlines(), offset + read - len(rest)), rest


def _find_frame(file: BinaryIO, offset: int) -> int | None:
    """Return the offset of the next whole frame at or after `offset`."""
    while (found := _find_magic(file, offset)) is not None:
        file.seek(found)
        if _read_frame(file, found)[0] is not None:
            return found
        offset = found + 1
    return None


def _find_magic(file: BinaryIO, offset: int) -> int | None:
    file.seek(offset)
    tail = b""
    while chunk := file.read(_READ_BYTES):
        at = (tail + chunk).find(_MAGIC)
        if at >= 0:
            return offset - len(tail) + at
        offset += len(chunk)
        tail = (tail + chunk)[-len(_MAGIC) + 1 :]
    return None
