"""The Parquet files of a lake, each with a checksum of itself (see `sealed`), as they are written and read."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import sealed
from pipeline.errors import LakeDamagedError, NewerLakeError
from pipeline.schema import SCHEMA_VERSION

_DISTINCT = frozenset(
    {
        "run_id", "created_at", "updated_at", "file_id", "file_name", "file_created_at", "dashboard_url", "fetched_at",
        "parse_run_id", "breakdown.list.element.id",
    }
)  # fmt: skip
"""Columns of runs whose values hardly repeat: a dictionary of them makes a file a tenth larger, and takes longer."""
_AT_ONCE_ROWS = 16_384
UNREADABLE = (pa.ArrowException, ValueError, OverflowError, MemoryError, OSError)
"""What pyarrow raises of bytes that are no Parquet file, or a damaged one."""


def parquet_bytes(table: pa.Table, *, head: bytes = b"") -> memoryview:
    """Return a table as a Parquet file with checksums: of each page, and of the whole.

    A `head` stands before the first page, where readers pass it by (see `holding`).
    """
    return parquet_bytes_of_parts([table], table.schema, head=head)


def parquet_bytes_of_parts(parts: Iterable[pa.Table], schema: pa.Schema, *, head: bytes = b"") -> memoryview:
    """Return what `parquet_bytes` does of rows that come in parts, each of which is let go before the next is asked
    for.
    """
    content = io.BytesIO()  # Arrow's own doubles its memory whenever that is full
    sink = pa.PythonFile(content, mode="w")
    parts = iter(parts)
    first = next(parts, None)
    empty = _empty_columns(first) if first is not None and len(first) <= _AT_ONCE_ROWS else set()
    paths = {path: field.name in empty for field in schema for path in _leaves(field.name, field.type)}
    with pq.ParquetWriter(
        sink, schema, write_page_checksum=True,
        compression={path: "none" if is_empty else "zstd" for path, is_empty in paths.items()},
        use_dictionary=[path for path, is_empty in paths.items() if not is_empty and path not in _DISTINCT],
        store_decimal_as_integer=True,  # read in four fifths of the time
    ) as writer:  # fmt: skip
        sink.write(head)
        if first is not None:
            writer.write_table(first, row_group_size=131_072)
            del first
        for part in parts:
            writer.write_table(part, row_group_size=131_072)
            del part
        writer.add_key_value_metadata(
            {"pipeline_schema": str(SCHEMA_VERSION), "pipeline_sha256": sealed.ZEROS.decode()}
        )
    return sealed.seal(content.getbuffer(), sealed.IN_PARQUET)


def _empty_columns(table: pa.Table) -> set[str]:
    """Return the columns without a value: to compress their nothing takes a quarter of the time of a small file."""
    return {name for name in table.column_names if table[name].null_count == len(table)}


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


def read_table(path: Path, schema: pa.Schema, *, is_trusted: bool = False) -> pa.Table:
    """Return a file's rows in the declared schema (see `in_schema`); no rows where there is no file. Columns that the
    schema does not name are not read.

    Raises LakeDamagedError where it is not what was written; its checksum is not asked where it `is_trusted`.
    """
    return StoredTable(path, schema, is_trusted=is_trusted).read()


class StoredTable:
    """A file's rows in the declared schema, to be read all at once or in parts. Raises as `read_table` does, whatever
    of it is read: the whole file is looked at before.
    """

    def __init__(self, path: Path, schema: pa.Schema, *, is_trusted: bool = False) -> None:
        self._path, self._schema = path, schema
        self._file: pq.ParquetFile | None = None
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return
        with self._telling_damage():
            is_whole = sealed.is_parquet_whole(content)
            if is_whole is False and not is_trusted:
                raise LakeDamagedError(sealed.damaged(path, sealed.CHANGED))
            self._file = pq.ParquetFile(pa.BufferReader(content))
            version = _version_of(path, self._file.metadata)
            if is_whole is None and version >= sealed.SEALED_SINCE and not is_trusted:
                raise LakeDamagedError(sealed.damaged(path, sealed.NO_CHECKSUM))

    def __len__(self) -> int:
        return 0 if self._file is None else int(self._file.metadata.num_rows)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all rows, with these columns of the schema alone, if any are named."""
        schema = self._schema if columns is None else pa.schema([self._schema.field(name) for name in columns])
        if self._file is None:
            return schema.empty_table()
        with self._telling_damage():
            return in_schema(_read_columns(self._file, self._names(schema)), schema)

    def iter_parts(self, most_rows: int) -> Iterator[pa.Table]:
        """Yield the rows in their order, so many at a time."""
        if self._file is None:
            return
        with self._telling_damage():
            batches = self._file.iter_batches(most_rows, columns=self._names(self._schema), use_threads=False)
        for _start in range(0, len(self), most_rows):
            yield self._next_of(batches)  # which nothing here holds meanwhile

    def _next_of(self, batches: Iterator[pa.RecordBatch]) -> pa.Table:
        with self._telling_damage():
            return in_schema(pa.Table.from_batches([next(batches)]), self._schema)

    def _names(self, schema: pa.Schema) -> list[str]:
        there = set(self._file.schema_arrow.names) if self._file else ()
        return [name for name in schema.names if name in there]

    @contextlib.contextmanager
    def _telling_damage(self) -> Iterator[None]:
        try:
            yield
        except UNREADABLE as error:
            why = f"not readable as Parquet: {sealed.one_line(error)}"
            raise LakeDamagedError(sealed.damaged(self._path, why)) from error


def _read_columns(file: pq.ParquetFile, names: list[str]) -> pa.Table:
    """Return some columns of a file. Arrow's own threads cost more than they gain with files of a few megabytes."""
    if file.metadata.num_rows <= _AT_ONCE_ROWS:
        return file.read(names, use_threads=False)
    # All at once, the pages of all columns are unpacked at the same time: half as much again as the rows take.
    return pa.table([file.read([name], use_threads=False).column(name) for name in names], names=names)


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
            raise LakeDamagedError(
                sealed.damaged(path, f"not readable as Parquet: {sealed.one_line(error)}")
            ) from error


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
        raise NewerLakeError(sealed.newer(path, version))
    return version
