"""Read run IDs from wherever users have them: arguments, standard input, text, CSV and Parquet files.

Everything is lazy: a file of any length takes no more memory than a short one.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from pipeline.errors import UsageError
from pipeline.kinds import KINDS, kind_of

ID_COLUMNS = ("run_id", "id")
"""The columns looked for in CSV and Parquet files, in this order, where the user names none."""

_BATCH_ROWS = 50_000


@dataclass(frozen=True, slots=True)
class FoundId:
    """A text that stands where a run ID should, and where that is (`ids.txt:17`)."""

    text: str
    where: str


def iter_ids(
    arguments: Iterable[str], source: str | None, *, column: str | None = None, stdin: TextIO | None = None
) -> Iterator[FoundId]:
    """Yield the IDs among the arguments, then those of a file (`-` is standard input), repeated ones too.

    `column` names the column of a CSV or Parquet file. Raises UsageError where the file or its column is not there.
    """
    for number, text in enumerate(arguments, 1):
        yield FoundId(text.strip(), f"argument {number}")
    if source is None:
        return
    if source == "-":
        # Standard input itself is not ours to close.
        with nullcontext(stdin) if stdin else _standard_input() as lines:
            yield from _from_csv(lines, "standard input", column) if column else _from_text(lines, "standard input")
        return
    path = Path(source)
    suffix = path.suffix.lower()
    try:
        if suffix in (".parquet", ".pq"):
            yield from _from_parquet(path, column)
            return
        with path.open(encoding="utf-8-sig", errors="backslashreplace", newline="") as file:
            if suffix in (".csv", ".tsv"):
                yield from _from_csv(file, source, column, delimiter="\t" if suffix == ".tsv" else ",")
            elif column:
                raise UsageError(f"{source}: --column goes with a CSV, TSV or Parquet file, named so by its ending")
            else:
                yield from _from_text(file, source)
    except FileNotFoundError as error:
        raise UsageError(f"{source}: no such file") from error
    except OSError as error:
        raise UsageError(f"{source}: cannot be read ({error.strerror or error})") from error


def why_unusable(text: str) -> str | None:
    """Return why a text cannot be asked for as a run ID; None where it can."""
    if kind_of(text) is not None:
        return None
    shown = f"{text[:60]!r}{'…' if len(text) > 60 else ''}"
    prefixes = ", ".join(kind.prefix for kind in KINDS)
    if any(text.startswith(kind.prefix) for kind in KINDS):
        return f"{shown} is not a run ID: only letters, digits, `_` and `-` may follow the prefix (at most 128)"
    return f"{shown} is not a run ID: it begins with none of {prefixes}"


def _standard_input() -> TextIO:
    return open(sys.stdin.fileno(), encoding="utf-8-sig", errors="backslashreplace", newline="", closefd=False)


def _from_text(lines: Iterable[str], name: str) -> Iterator[FoundId]:
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not text.startswith("#"):
            yield FoundId(text, f"{name}:{number}")


def _from_csv(lines: Iterable[str], name: str, column: str | None, delimiter: str = ",") -> Iterator[FoundId]:
    reader = csv.reader(lines, delimiter=delimiter)
    try:
        header = next(reader, [])
        position = header.index(_id_column(header, name, column))
        for row in reader:
            text = row[position].strip() if position < len(row) else ""
            if text:
                yield FoundId(text, f"{name}:{reader.line_num}")
    except csv.Error as error:
        raise UsageError(f"{name}:{reader.line_num}: not CSV ({error})") from error


def _from_parquet(path: Path, column: str | None) -> Iterator[FoundId]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            name = _id_column(file.schema_arrow.names, str(path), column)
            number = 0
            for batch in file.iter_batches(_BATCH_ROWS, columns=[name]):
                for value in batch.column(0).to_pylist():
                    number += 1
                    if value is not None:
                        yield FoundId(str(value).strip(), f"{path}: row {number}")
    except pa.ArrowException as error:
        raise UsageError(f"{path}: cannot be read as Parquet ({error})") from error


def _id_column(names: list[str], name: str, column: str | None) -> str:
    wanted = (column,) if column else ID_COLUMNS
    for each in wanted:
        if each in names:
            return each
    has = ", ".join(names[:20]) or "none"
    if column:
        raise UsageError(f"{name}: no column {column!r}; it has: {has}")
    raise UsageError(f"{name}: no column run_id or id; name one of its columns with --column ({has})")
