"""Every Parquet file of a lake, to its last byte.

A page carries a checksum, the footer does not, so that a flipped byte there could pass for another statistic and make
a query skip rows. But the lake's files are written in one way alone: their rows written again must give the same bytes.
Where another version of pyarrow wrote the file that need not be so; there the statistics are compared.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.lake import LakeFiles
from pipeline.lake import _parquet_bytes as parquet_bytes  # the one way in which the lake's files are written
from pipeline.schema import DEAD_LETTERS_SCHEMA, LOADS_SCHEMA, RUNS_FILE_SCHEMA

_WRITERS = re.compile(r"parquet-cpp-arrow version \d+\.\d+\.\d+\S*")


@dataclass(frozen=True, slots=True)
class FileState:
    """What became of reading one file. `name` is relative to the lake.

    `damage` is why it cannot be trusted and `is_readable` whether its rows can all the same; `not_whole` is what its
    schema lacks of the declared one; `is_unlike` whether its rows written again gave other bytes, which may be right.
    """

    path: Path
    name: str
    rows: int = 0
    damage: str | None = None
    not_whole: str | None = None
    is_readable: bool = True
    is_unlike: bool = False


def iter_files(lake: LakeFiles) -> Iterator[tuple[Path, pa.Schema]]:
    """Yield the lake's Parquet files and what their schema should be."""
    for day in lake.days():
        yield lake.day_path(day), RUNS_FILE_SCHEMA
    if lake.loads_folder.is_dir():
        for path in sorted(lake.loads_folder.glob("*.parquet")):
            yield path, LOADS_SCHEMA
    if lake.dead_letters_path.exists():
        yield lake.dead_letters_path, DEAD_LETTERS_SCHEMA


def iter_strays(lake: LakeFiles) -> Iterator[str]:
    """Yield files that readers of the folder take for runs, and that are none of the lake's."""
    if lake.runs_folder.is_dir():
        known = {lake.day_path(day) for day in lake.days()}
        for path in sorted(lake.runs_folder.glob("day=*/*.parquet")):
            if path not in known:
                yield path.relative_to(lake.folder).as_posix()


def read_state(lake: LakeFiles, path: Path, schema: pa.Schema) -> FileState | None:
    """Read a whole file, its checksums compared; None where it is there no more."""
    name = path.relative_to(lake.folder).as_posix()
    try:
        content = path.read_bytes()
        with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as file:
            table, metadata = file.read(), file.metadata
        table.validate(full=True)
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        return FileState(path, name, damage=f"cannot be read ({_one_line(error)})", is_readable=False)
    not_whole = _what_is_not_whole(table.schema, schema)
    if not_whole is not None:
        return FileState(path, name, len(table), not_whole=not_whole, is_readable=not _clashes(table.schema, schema))
    try:
        damage, is_same = _footer_damage(content, table, metadata, schema)
    except (pa.ArrowException, ValueError, OverflowError) as error:
        damage, is_same = f"its footer cannot be read ({_one_line(error)})", False
    return FileState(path, name, len(table), damage=damage, is_unlike=not is_same and damage is None)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _what_is_not_whole(found: pa.Schema, declared: pa.Schema) -> str | None:
    names = [field.name for field in declared]
    missing = [name for name in names if name not in found.names]
    more = [name for name in found.names if name not in names]
    other = [f"{name} is {found.field(name).type}" for name in names if name in found.names
             and found.field(name).type != declared.field(name).type]  # fmt: skip
    parts = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has also {', '.join(more)}"] * bool(more) + other
    if not parts and found.names != names:
        parts = ["has its columns in another order"]
    return "; ".join(parts) or None


def _clashes(found: pa.Schema, declared: pa.Schema) -> bool:
    return any(field.name in found.names and found.field(field.name).type != field.type for field in declared)


# The footer, which no checksum covers


def _footer_damage(
    content: bytes, table: pa.Table, metadata: pq.FileMetaData, declared: pa.Schema
) -> tuple[str | None, bool]:
    """Return what is wrong with a footer, or None, and whether the rows written again give the same bytes."""
    plain = table.cast(declared)
    again = bytes(parquet_bytes(plain))
    if again == content:
        return None, True
    with pq.ParquetFile(pa.BufferReader(again)) as file:
        ours = file.metadata
    if metadata.created_by != ours.created_by:
        if not _WRITERS.fullmatch(metadata.created_by):
            return f"its footer names {metadata.created_by!r} as its writer", False
        return _other_statistics(metadata, ours), False
    if bytes(parquet_bytes(plain.cast(_with_texts_of(table.schema, declared)))) != content:
        return "its rows written again give other bytes: one has changed since it was written", False
    # The rows are as they were written: what differs is the text that describes columns.
    if _is_flipped(_texts(table.schema), _texts(declared)):
        return "a character of its footer's text has changed since it was written", False
    return None, False


def _with_texts_of(found: pa.Schema, declared: pa.Schema) -> pa.Schema:
    fields = [field.with_metadata(_text(found.field(field.name).metadata)) for field in declared]
    return pa.schema(fields, metadata=found.metadata)


def _texts(schema: pa.Schema) -> bytes:
    texts = [_text(each) for each in (schema.metadata, *(field.metadata for field in schema))]
    return b"\0".join(part for text in texts for pair in sorted(text.items()) for part in pair)


def _text(metadata: dict[bytes, bytes] | None) -> dict[bytes, bytes]:
    """Return what was given to be written; reading adds numbers of its own."""
    return {key: value for key, value in (metadata or {}).items() if key != b"PARQUET:field_id"}


def _is_flipped(found: bytes, declared: bytes) -> bool:
    """Tell a flipped byte (of base64, so two here) from another version's descriptions, which differ in more."""
    return len(found) == len(declared) and sum(map(operator.ne, found, declared)) <= 2


def _other_statistics(found: pq.FileMetaData, ours: pq.FileMetaData) -> str | None:
    """Compare what two footers say of the same rows, as far as both say it and cut them into the same row groups."""
    if found.num_row_groups != ours.num_row_groups:
        return None
    for group in range(found.num_row_groups):
        for position in range(found.num_columns):
            one, other = (each.row_group(group).column(position) for each in (found, ours))
            if one.num_values != other.num_values or _differ(one.statistics, other.statistics):
                return f"its footer says of {one.path_in_schema} what its rows do not"
    return None


def _differ(found: Any, ours: Any) -> bool:
    if found is None or ours is None:
        return False
    for name in ("has_min_max", "has_null_count"):
        if not (getattr(found, name) and getattr(ours, name)):
            return False
    return any(getattr(found, name) != getattr(ours, name) for name in ("min_raw", "max_raw", "null_count"))
