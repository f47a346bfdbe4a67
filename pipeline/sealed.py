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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import LakeDamagedError, NewerLakeError
from pipeline.schema import SCHEMA_VERSION

_READ_BYTES = 1 << 20
_ZEROS = b"0" * 64
_IN_PARQUET = b"pipeline_sha256\x18\x40"
"""The entry's name, and in Thrift's compact protocol: a text follows, of 64 bytes. The entries end the footer but for
the writer's name, so the last place is the one."""
_IN_NOTE = b'"sha256": "'
_DISTINCT = frozenset(
    {
        "run_id", "created_at", "updated_at", "file_id", "file_name", "file_created_at", "dashboard_url", "fetched_at",
        "parse_run_id", "breakdown.list.element.id",
    }
)  # fmt: skip
"""Columns of runs whose values hardly repeat: a dictionary of them makes a file a tenth larger, and takes longer."""
SEALED_SINCE = 3
"""The first schema of which every file has a checksum."""
CHANGED = "its checksum is not that of its bytes: one has changed since it was written"
NO_CHECKSUM = "it has no checksum"
UNREADABLE = (pa.ArrowException, ValueError, OverflowError, MemoryError, OSError)
"""What pyarrow raises of bytes that are no Parquet file, or a damaged one."""


def parquet_bytes(table: pa.Table, *, head: bytes = b"") -> memoryview:
    """Return a table as a Parquet file with checksums: of each page, and of the whole.

    A `head` stands before the first page, where readers pass it by (see `holding`).
    """
    sink = pa.BufferOutputStream()
    paths = (path for field in table.schema for path in _leaves(field.name, field.type))
    repeating = [path for path in paths if path not in _DISTINCT]
    with pq.ParquetWriter(
        sink, table.schema, compression="zstd", write_page_checksum=True, use_dictionary=repeating,
        store_decimal_as_integer=True,  # read in four fifths of the time
    ) as writer:  # fmt: skip
        sink.write(head)
        writer.write_table(table, row_group_size=131_072)
        writer.add_key_value_metadata({"pipeline_schema": str(SCHEMA_VERSION), "pipeline_sha256": _ZEROS.decode()})
    return _sealed(bytearray(sink.getvalue()), _IN_PARQUET)


def _leaves(path: str, type: pa.DataType) -> Iterator[str]:
    """Yield the paths by which Parquet knows the columns that a column consists of."""
    if pa.types.is_struct(type):
        for field in type:
            yield from _leaves(f"{path}.{field.name}", field.type)
    elif pa.types.is_map(type):
        yield from _leaves(f"{path}.key_value.key", type.key_type)
        yield from _leaves(f"{path}.key_value.value", type.item_type)
    elif pa.types.is_list(type):
        yield from _leaves(f"{path}.list.element", type.value_type)
    else:
        yield path


def is_parquet_whole(content: bytes) -> bool | None:
    """Return whether a Parquet file's bytes are those that were written; None where it has no checksum."""
    return _is_whole(content, _IN_PARQUET)


def read_table(path: Path, schema: pa.Schema, *, is_trusted: bool = False) -> pa.Table:
    """Return a file's rows in the declared schema (see `in_schema`); no rows where there is no file. Columns that the
    schema does not name are not read.

    Raises LakeDamagedError where it is not what was written; its checksum is not asked where it `is_trusted`.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return schema.empty_table()
    try:
        is_whole = is_parquet_whole(content)
        if is_whole is False and not is_trusted:
            raise LakeDamagedError(_damaged(path, CHANGED))
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            version = _version_of(path, file.metadata)
            if is_whole is None and version >= SEALED_SINCE and not is_trusted:
                raise LakeDamagedError(_damaged(path, NO_CHECKSUM))
            there = set(file.schema_arrow.names)
            # Arrow's own threads cost more than they gain with files of a few megabytes.
            found = file.read([name for name in schema.names if name in there], use_threads=False)
            return in_schema(found, schema)
    except UNREADABLE as error:
        raise LakeDamagedError(_damaged(path, f"not readable as Parquet: {one_line(error)}")) from error


def read_footer(path: Path) -> None:
    """Raise LakeDamagedError where a file's footer cannot be read, or a newer version wrote it."""
    try:
        content = path.open("rb")
    except FileNotFoundError:
        return
    with content:
        try:
            with pq.ParquetFile(content) as file:
                _version_of(path, file.metadata)
        except UNREADABLE as error:
            raise LakeDamagedError(_damaged(path, f"not readable as Parquet: {one_line(error)}")) from error


def in_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table in the declared schema; columns that an older version did not have are null."""
    return pa.table([_column(table, field) for field in schema], schema=schema)


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    if field.name not in table.column_names:
        return pa.nulls(len(table), field.type)
    column = table[field.name]
    # Even a cast to the same type brings in pyarrow.compute, which takes a twentieth of a second.
    return column if column.type == field.type else column.cast(field.type)


def schema_version(metadata: pq.FileMetaData) -> int:
    """Return the schema version that a file says it has; 0 where it says none."""
    text = (metadata.metadata or {}).get(b"pipeline_schema", b"0")
    return int(text) if text.isdigit() else 0


def _version_of(path: Path, metadata: pq.FileMetaData) -> int:
    version = schema_version(metadata)
    if version > SCHEMA_VERSION:
        raise NewerLakeError(newer(path, version))
    return version


def newer(path: Path, version: int) -> str:
    """Return what to say of a file of a newer version."""
    return (
        f"{path}: written by a newer version of this program (schema {version}, this one knows up to "
        f"{SCHEMA_VERSION}); upgrade with `pip install --upgrade extend-pipeline`"
    )


def _damaged(path: Path, why: str) -> str:
    return f"{path}: damaged, or not written by this program ({why}); mend the lake with `pipeline check --repair`"


def one_line(error: BaseException) -> str:
    """Return an error's text as one line that is not too long."""
    return " ".join(str(error).split())[:200]


def note_bytes(content: Mapping[str, Any]) -> memoryview:
    """Return a note as JSON with its checksum."""
    text = json.dumps({**content, "sha256": _ZEROS.decode()}, indent=2)
    return _sealed(bytearray(text.encode() + b"\n"), _IN_NOTE)


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


def _sealed(content: bytearray, marker: bytes) -> memoryview:
    start = content.rindex(marker + _ZEROS) + len(marker)
    content[start : start + len(_ZEROS)] = hashlib.sha256(content).hexdigest().encode()
    return memoryview(content)


def _is_whole(content: bytes, marker: bytes) -> bool | None:
    start = content.rfind(marker) + len(marker)
    if start < len(marker):
        return None
    view, end = memoryview(content), start + len(_ZEROS)
    digest = hashlib.sha256(view[:start])
    digest.update(_ZEROS)
    digest.update(view[end:])
    return digest.hexdigest().encode() == view[start:end]
