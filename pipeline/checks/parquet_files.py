"""Every Parquet file of a lake, to its last byte: it holds a checksum of itself (see `sealed`).

What versions before schema 3 wrote has none, only checksums of its pages: that is told apart, and no damage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import sealed, sealed_parquet
from pipeline.lake import LakeFiles
from pipeline.ledger import SUMS, LedgerFiles


@dataclass(frozen=True, slots=True)
class FileState:
    """What became of reading one file. `name` is relative to the lake.

    `damage` is why it cannot be trusted and `is_readable` whether its rows can be read all the same; `not_whole` is
    what its schema lacks of the declared one; `is_unsealed` whether it is of a version that wrote no checksums.
    """

    path: Path
    name: str
    rows: int = 0
    damage: str | None = None
    not_whole: str | None = None
    is_readable: bool = True
    is_unsealed: bool = False


def iter_files(lake: LakeFiles) -> Iterator[tuple[Path, pa.Schema]]:
    """Yield the lake's Parquet files and what their schema should be."""
    for path, schema in lake.parquet_files():
        if path.exists():
            yield path, schema


def iter_strays(lake: LakeFiles) -> Iterator[str]:
    """Yield files that readers of the folder take for runs, and that are none of the lake's."""
    if lake.runs_folder.is_dir():
        known = {lake.day_path(day) for day in lake.days()}
        for path in sorted(lake.runs_folder.glob("day=*/*.parquet")):
            if path not in known:
                yield path.relative_to(lake.folder).as_posix()


def read_state(lake: LakeFiles, path: Path, schema: pa.Schema, *, is_current: bool) -> FileState | None:
    """Read a whole file, its checksums compared; None where it is there no more.

    In a lake that `is_current` every file has a checksum. A file that this user may not read is an OSError, no damage.
    """
    name = path.relative_to(lake.folder).as_posix()
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    is_whole = sealed.is_parquet_whole(content)
    changed = sealed.CHANGED if is_whole is False else None
    try:
        with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as file:
            table, version = file.read(), sealed_parquet.schema_version(file.metadata)
        table.validate(full=True)
    except sealed_parquet.UNREADABLE as error:
        return FileState(path, name, damage=changed or f"cannot be read ({sealed.one_line(error)})", is_readable=False)
    is_older = is_whole is None and not is_current and version < sealed.SEALED_SINCE
    clashes = _clashes(table.schema, schema)
    not_whole = None if is_older and not clashes else _what_is_not_whole(table.schema, schema)
    if is_whole is None and not is_older and not_whole is None:
        changed = sealed.NO_CHECKSUM
    return FileState(
        path, name, len(table), damage=changed, not_whole=not_whole, is_readable=not clashes, is_unsealed=is_older
    )


def iter_ledger_damage(ledger: LedgerFiles) -> Iterator[str]:
    """Yield the files of the ledger beside the lake that are not what was written, and why."""
    manifest = ledger.read_manifest()
    in_force = {
        path
        for day, each in manifest.days.items()
        for path in (ledger.lines_path(day, each.lines), ledger.ids_path(day, each.ids))
    } | {ledger.sums_path(name, manifest.sums) for name in SUMS}
    for path in sorted([*ledger.folder.glob("day=*/*.parquet"), *ledger.folder.glob("*_sums-*.parquet")]):
        content = path.read_bytes()
        is_whole = sealed.is_parquet_whole(content)
        if is_whole is False or (is_whole is None and (path in in_force or not _is_older(content))):
            name = path.relative_to(ledger.files.folder).as_posix()
            yield f"{name}: {sealed.CHANGED if is_whole is False else sealed.NO_CHECKSUM}"


def _is_older(content: bytes) -> bool:
    """Tell whether a file without a checksum is of a version that wrote none."""
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            return sealed_parquet.schema_version(file.metadata) < sealed.SEALED_SINCE
    except sealed_parquet.UNREADABLE:
        return False


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
