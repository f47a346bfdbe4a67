"""A checksum inside each file of a lake, so that a byte that changed since it was written is found.

It is the SHA-256 of the whole file, taken with 64 zeros where the checksum itself stands: an entry of a Parquet file's
footer (`pipeline_sha256`), the last member of a note (a small JSON file that a person can read). So it travels with the
file, is replaced together with it, and other programs need not know of it.

What earlier versions wrote has none. Each file therefore says in a second place that it should have one (by its schema
or its version), so that a byte which hits the checksum's name is found as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import LakeDamagedError
from pipeline.schema import SCHEMA_VERSION

_READ_BYTES = 1 << 20
ZEROS = b"0" * 64
_END_BYTES = 64 << 10
"""Within so much of a file's end its checksum stands."""
IN_PARQUET = b"pipeline_sha256\x18\x40"
"""The entry's name, and in Thrift's compact protocol: a text follows, of 64 bytes. The entries end the footer but for
the writer's name, so the last place is the one."""
_IN_NOTE = b'"sha256": "'
SEALED_SINCE = 3
"""The first schema of which every file has a checksum."""
CHANGED = "its checksum is not that of its bytes: one has changed since it was written"
NO_CHECKSUM = "it has no checksum"


def is_parquet_whole(content: bytes) -> bool | None:
    """Return whether a Parquet file's bytes are those that were written; None where it has no checksum."""
    return _is_whole(content, IN_PARQUET)


def newer(path: Path, version: int) -> str:
    """Return what to say of a file of a newer version."""
    return (
        f"{path}: written by a newer version of this program (schema {version}, this one knows up to "
        f"{SCHEMA_VERSION}); upgrade with `pip install --upgrade extend-pipeline`"
    )


def damaged(path: Path, why: str) -> str:
    """Return what to say of a file that is not what was written."""
    return f"{path}: damaged, or not written by this program ({why}); mend the lake with `pipeline check --repair`"


def one_line(error: BaseException) -> str:
    """Return an error's text as one line that is not too long."""
    return " ".join(str(error).split())[:200]


def note_bytes(content: Mapping[str, Any]) -> memoryview:
    """Return a note as JSON with its checksum."""
    text = json.dumps({**content, "sha256": ZEROS.decode()}, indent=2)
    return seal(memoryview(bytearray(text.encode() + b"\n")), _IN_NOTE)


def read_note(path: Path, *, is_of_other_version: Callable[[Any], bool]) -> Any:
    """Return what a note says, as `parse_note` does.

    Raises FileNotFoundError where there is none, LakeDamagedError where it is not what was written.
    """
    try:
        return parse_note(path.read_bytes(), is_of_other_version=is_of_other_version)
    except ValueError as error:
        raise LakeDamagedError(
            f"{path}: damaged, or edited by hand ({one_line(error)}); mend the lake with `pipeline check --repair`"
        ) from error


def digest_of(path: Path, size: int) -> str:
    """Return the SHA-256 of a file's first bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size > 0 and (part := file.read(min(size, _READ_BYTES))):
            digest.update(part)
            size -= len(part)
    return digest.hexdigest()


def parse_note(text: bytes, *, is_of_other_version: Callable[[Any], bool]) -> Any:
    """Return what a note says; of one without a checksum only if it says itself that another version wrote it.

    Raises ValueError, with why, where it is not what was written.
    """
    try:
        is_whole = _is_whole(text, _IN_NOTE)
        content = json.loads(text)
        if is_whole or (is_whole is None and is_of_other_version(content)):
            return content
    except (RecursionError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not what this program writes: {error!r}") from error
    raise ValueError(CHANGED if is_whole is False else NO_CHECKSUM)


def seal(content: memoryview, marker: bytes) -> memoryview:
    """Put the checksum of a file's bytes where 64 zeros stand behind a marker, near its end; return the file."""
    end = bytes(content[-_END_BYTES:])
    start = len(content) - len(end) + end.rindex(marker + ZEROS) + len(marker)
    content[start : start + len(ZEROS)] = hashlib.sha256(content).hexdigest().encode()
    return content


def _is_whole(content: bytes, marker: bytes) -> bool | None:
    start = content.rfind(marker) + len(marker)
    if start < len(marker):
        return None
    view, end = memoryview(content), start + len(ZEROS)
    digest = hashlib.sha256(view[:start])
    digest.update(ZEROS)
    digest.update(view[end:])
    return digest.hexdigest().encode() == view[start:end]
