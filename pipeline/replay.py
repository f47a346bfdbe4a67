"""Land saved payloads: JSON, JSON lines, lists, list pages, webhook events, raw logs; plain, gzip or zstd. No requests.

What counts as a payload is a JSON object with the `object` and `id` of a run, wherever it stands in those shapes.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from pipeline.errors import UsageError
from pipeline.flatten import is_detail_payload
from pipeline.kinds import BY_OBJECT, kind_of
from pipeline.lake import LakeFiles
from pipeline.loads import Load, LoadResult, recover
from pipeline.progress import Progress, Silent
from pipeline.strict import parse_json
from pipeline.values import time_value

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_CHECKPOINT_BYTES = 4 << 20
_MAX_DOCUMENT_BYTES = 48 << 20
_LINE_BYTES = 1 << 20
_PACKED_BYTES = 512  # of which zstd can make 16 MiB
_TOO_LARGE = f"larger than {_MAX_DOCUMENT_BYTES >> 20} MiB"

Report = Callable[[str, str], None]
"""Takes where something unusable stands, and why it is so."""


@dataclass(slots=True)
class SavedRun:
    """A run's payload found in a file; `fetched_at` is null where nothing says when it was received.

    `text` is how it stands there, where a line or the whole file is nothing else; else null.
    """

    payload: dict[str, Any]
    is_detail: bool
    text: bytes | None = None
    fetched_at: datetime | None = None
    workspace_id: str | None = None


class _UnusableError(Exception):
    """Something in a file that is no run; its text says what instead."""


def load_files(
    names: Sequence[str],
    lake: LakeFiles,
    *,
    workspace_id: str | None = None,
    keep_raw: bool = True,
    report: Report,
    progress: Progress | None = None,
    stdin: BinaryIO | None = None,
) -> LoadResult:
    """Land the payloads of saved files (`-` is standard input), and return what came of it.

    A payload counts as received when its file was last changed: of two that do not say when they were updated, the
    later one wins. What is no run is reported, with its place, and the rest goes on. Raises UsageError where a file
    cannot be read at all, before anything lands.
    """
    progress = progress or Silent()
    for name in names:
        if name != "-" and (not Path(name).exists() or Path(name).is_dir()):
            raise UsageError(f"{name}: no such file")
    recover(lake, tell=progress.tell)
    load = Load(
        lake,
        command="load",
        source=", ".join(names),
        workspace_id=workspace_id,
        keep_raw=keep_raw,
        tell=progress.tell,
    )
    try:
        for name in names:
            _take_file(load, name, workspace_id, report, stdin)
        load.land()
        if load.left_out:
            payloads = "1 payload" if load.left_out == 1 else f"{load.left_out:,} payloads"
            progress.tell(f"{payloads} left out: of runs that were forgotten, or are pruned, in this lake")
        result = load.result
        result.requested = result.landed + result.unchanged + result.invalid
        return load.finish()
    finally:
        load.close()


def _take_file(load: Load, name: str, workspace_id: str | None, report: Report, stdin: BinaryIO | None) -> None:
    modified = datetime.now(UTC) if name == "-" else datetime.fromtimestamp(Path(name).stat().st_mtime, UTC)
    for place, found in _iter_file(name, stdin):
        if isinstance(found, _UnusableError):
            load.result.invalid += 1
            report(place, str(found))
            continue
        load.take_run(
            found.payload["id"],
            found.text or json.dumps(found.payload).encode(),
            fetched_at=found.fetched_at or modified,
            is_detail=found.is_detail,
            workspace_id=found.workspace_id or workspace_id,
        )
        if load.pending_bytes > _CHECKPOINT_BYTES:
            load.checkpoint()


def _iter_file(name: str, stdin: BinaryIO | None) -> Iterator[tuple[str, SavedRun | _UnusableError]]:
    """Yield what a file holds with the place where it stands; where it breaks off, that comes last."""
    shown = "standard input" if name == "-" else name
    try:
        with (stdin or sys.stdin.buffer) if name == "-" else Path(name).open("rb") as file:
            for number, value, text in _iter_documents(_decompressed(file)):
                for found in _iter_runs(value):
                    if isinstance(found, SavedRun) and found.payload is value:
                        found.text = text.removeprefix(codecs.BOM_UTF8).strip()
                    yield f"{shown}:{number}", found
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        yield shown, _UnusableError(f"cannot be read to its end ({error}); what came before it lands")


def _decompressed(file: Any) -> Any:
    """Return a buffered binary stream of what a file holds, told by its first bytes, not by its name."""
    reader = file if isinstance(file, io.BufferedReader) else io.BufferedReader(file, 1 << 20)
    magic = reader.peek(4)[:4]
    if magic.startswith(_GZIP):
        return gzip.open(reader)
    if magic == _ZSTD:
        return io.BufferedReader(_ZstdFrames(reader), 1 << 20)
    return reader


class _ZstdFrames(io.RawIOBase):
    """Reads zstd frames one after the other; raises EOFError where the last breaks off, as gzip does."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._frame: Any = None
        self._packed = b""
        self._content = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._content:
            packed = self._packed or self._file.read(_PACKED_BYTES)
            if not packed:
                if self._frame is not None:
                    raise EOFError("Compressed file ended before the end of a frame was reached")
                return 0
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
            self._content = memoryview(self._frame.decompress(packed))
            self._packed = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
        size = min(len(buffer), len(self._content))
        buffer[:size] = self._content[:size]
        self._content = self._content[size:]
        return size


def _iter_documents(file: BinaryIO) -> Iterator[tuple[int, Any, bytes]]:
    """Yield the JSON values of a file with the line they begin at, and their texts: one a line, or else the whole as
    one document.
    """
    lines = enumerate(_iter_lines(file), 1)
    number, first = next(((number, line) for number, line in lines if line is None or line.strip()), (0, b""))
    if number == 0:
        return
    value = _parse_line(first)
    if isinstance(value, _UnusableError) and first is not None:
        rest = _read_bounded(file, _MAX_DOCUMENT_BYTES - len(first))
        if rest is None:
            advice = "write one run a line (jq -c '.data? // . | .[]' does)"
            yield (
                number,
                _UnusableError(f"its first line is not JSON, and as one document it is {_TOO_LARGE}; {advice}"),
                b"",
            )
        else:
            yield from _whole_document(first + rest, number)
        return
    yield number, value, first or b""
    for number, line in lines:
        if line is None or line.strip():
            yield number, _parse_line(line), line or b""


def _iter_lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Yield the lines of a file; null for one that is too large, which is passed over without being held."""
    while line := file.readline(_LINE_BYTES):
        parts, size = [line], len(line)
        while line and not line.endswith(b"\n"):
            line = file.readline(_LINE_BYTES)
            size += len(line)
            if size <= _MAX_DOCUMENT_BYTES:
                parts.append(line)
            else:
                parts.clear()
        yield b"".join(parts) if size <= _MAX_DOCUMENT_BYTES else None


def _read_bounded(file: BinaryIO, room: int) -> bytes | None:
    """Return the rest of a file; null, with no more than `room` bytes held, where it is longer."""
    parts: list[bytes] = []
    while part := file.read(_LINE_BYTES):
        room -= len(part)
        if room < 0:
            return None
        parts.append(part)
    return b"".join(parts)


def _whole_document(content: bytes, number: int) -> Iterator[tuple[int, Any, bytes]]:
    """Yield the one value of a document; where it is none, its lines, if one of them alone can hold a run."""
    try:
        yield number, _parse(content), content
        return
    except ValueError as error:
        broken = _UnusableError(f"not JSON ({error})")
    lines = [(number + place, line) for place, line in enumerate(content.split(b"\n")) if line.strip()]
    values = [(at, _parse_line(line), line) for at, line in lines]
    if any(isinstance(value, dict | list) and value for _at, value, _line in values):
        yield from values
    else:
        yield number, broken, b""


def _parse_line(line: bytes | None) -> Any:
    if line is None:
        return _UnusableError(f"a line {_TOO_LARGE}")
    try:
        return _parse(line)
    except ValueError as error:
        return _UnusableError(f"not JSON ({error})")


def _parse(content: bytes) -> Any:
    return parse_json(content.removeprefix(codecs.BOM_UTF8))


def _iter_runs(value: Any, *, in_page: bool = False) -> Iterator[SavedRun | _UnusableError]:
    if isinstance(value, _UnusableError):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _iter_runs(each, in_page=in_page)
    elif not isinstance(value, dict):
        yield _UnusableError(f"a JSON object was expected, not {type(value).__name__}")
    elif value.get("object") == "list" and isinstance(value.get("data"), list):
        yield from _iter_runs(value["data"], in_page=True)
    elif "eventType" in value and "payload" in value:
        yield from _iter_event(value)
    elif "record" in value:
        yield from _iter_record(value)
    else:
        yield _run(value, is_detail=not in_page and is_detail_payload(value))


def _iter_event(event: dict[str, Any]) -> Iterator[SavedRun | _UnusableError]:
    payload = event["payload"]
    if isinstance(payload, dict) and "id" in payload and "object" in payload:
        yield _run(payload, is_detail=True)
    else:
        yield _UnusableError(f"a webhook event {event['eventType']!r} that does not hold a run, but a link or less")


def _iter_record(record: dict[str, Any]) -> Iterator[SavedRun | _UnusableError]:
    """Take a record of a raw log, as another lake has it."""
    if record["record"] != "run":
        return
    try:
        fetched_at = time_value(record["fetched_at"])
        run = _run(record["payload"], is_detail=bool(record["detail"]))
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        yield _UnusableError("a record of a raw log that is not whole")
        return
    if isinstance(run, SavedRun):
        run.fetched_at, run.workspace_id = fetched_at, record.get("workspace_id")
    yield run


def _run(payload: dict[str, Any], *, is_detail: bool) -> SavedRun | _UnusableError:
    run_id, named = payload.get("id"), payload.get("object")
    if not isinstance(run_id, str) or not run_id:
        return _UnusableError(f"a JSON object without the `id` of a run (object: {named!r})"[:200])
    if kind_of(run_id) is None and not (isinstance(named, str) and named in BY_OBJECT):
        return _UnusableError(f"{run_id[:60]!r} is not of a known kind of run (object: {named!r})"[:200])
    return SavedRun(payload, is_detail)
