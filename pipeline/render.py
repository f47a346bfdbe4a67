"""Write a table for people or for programs: aligned text, CSV, JSON, Markdown, Parquet, HTML.

Decimals and times become text that loses nothing; text from outside cannot steer a terminal, become a formula in a
spreadsheet, or markup in a page.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from pipeline import duckdb_core
from pipeline.errors import UsageError
from pipeline.rows import Rows, rows_of

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from pipeline.html import Page

_BATCH_ROWS = 10_000
_TABLE_ROWS = 1_000
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_NUMBERS = ("DECIMAL", "DOUBLE", "FLOAT", "BIGINT", "INTEGER", "SMALLINT", "TINYINT", "HUGEINT", "U")
_JSON = json.JSONEncoder(ensure_ascii=False)  # once: made anew for each row, it takes a third of the time
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def write_relation(relation: duckdb.DuckDBPyRelation, *, format: str, stream: TextIO, page: Page | None = None) -> None:
    """Write a relation's rows, few enough to be read at once, as `write_rows` does, or as Parquet (`write_parquet`)."""
    if format == "parquet":
        write_parquet(relation, stream)
        return
    try:
        answer = rows_of(relation)
    except duckdb_core.Error as error:
        raise UsageError(f"the query cannot be answered: {error}") from error
    write_rows(answer, format=format, stream=stream, page=page)


def write_rows(answer: Rows, *, format: str, stream: TextIO, page: Page | None = None) -> None:
    """Write rows to a stream, as they are read, in one of `defaults.FORMATS` but Parquet.

    The sentences of `page` stand below the rows in Markdown and HTML, its title above them in HTML. A table shows its
    first thousand rows and says that there are more. Raises UsageError where the query turns out to fail while it is
    read.
    """
    names, rows = answer.names, _maps_as_pairs(answer)
    try:
        if format == "csv":
            _write_csv(names, rows, stream)
        elif format == "json":
            _write_json(names, rows, stream)
        elif format == "markdown":
            _write_markdown(names, rows, stream)
            stream.writelines(f"\n{_markdown_cell(note)}\n" for note in (page.notes if page else ()))
        elif format == "html":
            from pipeline import html  # here, since it is seldom asked for

            numbers = [type_.startswith(_NUMBERS) for type_ in answer.types]
            page = page or html.Page("pipeline")
            html.write_page(page, names, rows, cell=shown, numbers=numbers, stream=stream)
        else:
            _write_first_rows(names, rows, stream)
    except duckdb_core.Error as error:
        raise UsageError(f"the query cannot be answered: {error}") from error
    except OverflowError as error:
        raise UsageError(f"a time cannot be shown ({error}); cast it to VARCHAR in the query") from error


def write_parquet(relation: duckdb.DuckDBPyRelation, stream: TextIO) -> None:
    """Write a relation as a Parquet file, as it is read. Raises UsageError for a terminal, and where the query turns
    out to fail.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if stream.isatty():
        raise UsageError("Parquet is not for a terminal; send it to a file: … --format parquet > FILE")
    target: BinaryIO | TextIO = getattr(stream, "buffer", stream)
    try:
        reader = relation.to_arrow_reader(_BATCH_ROWS)
        with pq.ParquetWriter(target, reader.schema, compression="zstd") as writer:
            for batch in _iter_batches(reader):
                writer.write_batch(batch)
    except (duckdb_core.Error, pa.ArrowException, _QueryFailedError) as error:
        raise UsageError(f"the query cannot be answered: {error}") from error


class _QueryFailedError(Exception):
    """The query failed while its answer was read; the text is DuckDB's."""


def _iter_batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """Yield a reader's batches. What fails in DuckDB meanwhile comes through Arrow as an OSError, like a full disk."""
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except OSError as error:
            raise _QueryFailedError(str(error)) from error
        yield batch


def write_table(names: Sequence[str], rows: Iterable[Sequence[Any]], *, stream: TextIO | None = None) -> None:
    """Print an aligned table; numbers stand to the right. Nothing is cut off, and only a terminal's width folds it."""
    stream = sys.stdout if stream is None else stream
    rows = list(rows)
    columns = [_column_cells(printable(name), [row[at] for row in rows]) for at, name in enumerate(names)]
    lines = _folded(columns, stream) if stream.isatty() else _aligned(columns)
    stream.write("\n".join(line.rstrip() for line in lines) + "\n")


def _aligned(columns: list[list[str]]) -> list[str]:
    """Return the lines of a table as wide as it is. Rich would take a tenth of a second to be imported and more to
    draw it, so only a terminal gets it: to fold what is too wide, and for the colors.
    """
    widths = [[_width(cell) for cell in cells] for cells in columns]
    most = [max(column) for column in widths]
    padded = [
        [cell + " " * (full - width) for cell, width in zip(cells, column, strict=True)]
        for cells, column, full in zip(columns, widths, most, strict=True)
    ]
    head, *lines = [" " + "   ".join(cells) for cells in zip(*padded, strict=True)]
    return [head, " " + "─" * max(1, sum(most) + 3 * (len(most) - 1)), *lines]


def _width(text: str) -> int:
    """Return how many places text takes on a screen: Chinese characters, say, take two each."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _folded(columns: list[list[str]], stream: TextIO) -> list[str]:
    """Return the lines of a table on this terminal, as wide as that at most."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for header, *_cells in columns:
        table.add_column(Text(header), overflow="fold")
    for cells in zip(*(cells for _header, *cells in columns), strict=True):
        table.add_row(*map(Text, cells))
    console = Console(file=stream, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get().splitlines()[1:-1]  # the box has an empty line above and below


def _column_cells(name: str, values: list[Any]) -> list[str]:
    """Return a column's header and cells. Numbers stand to the right, the points of decimals below each other."""
    cells = [shown(value) for value in values]
    if not any(isinstance(value, int | float | Decimal) and not isinstance(value, bool) for value in values):
        return [name, *cells]
    places = [
        len(cell.partition(".")[2]) if isinstance(value, Decimal) else 0
        for value, cell in zip(values, cells, strict=True)
    ]
    most = max(places)
    if most:
        cells = [cell + " " * (most - own + (own == 0)) for cell, own in zip(cells, places, strict=True)]
    width = max(len(cell) for cell in (name, *cells))
    return [cell.rjust(width) for cell in (name, *cells)]


def shown(value: Any) -> str:
    """Return a value as a person reads it: `1,234.5`, `2026-11-03 09:30:00`, nothing for null."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Decimal):
        text = f"{value:,f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, datetime):
        _check_ends(value)
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if value.tzinfo else str(value)
    return printable(str(plain(value)) if not isinstance(value, list | dict) else _json_text(plain(value)))


def printable(text: str) -> str:
    """Return text with everything that a terminal could take as a command, or that turns its direction, written out."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def bar(value: Decimal | float | None, most: Decimal | float, *, width: int = 10) -> str:
    """Return a bar that is as long beside `width` as the value beside the most; anything above nothing can be seen."""
    if not value or value < 0 or not most:
        return ""
    eighths = min(width * 8, max(1, round(float(value) / float(most) * width * 8)))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def plain(value: Any) -> Any:
    """Return a value as JSON holds it: whole numbers, floats, booleans and text stay, all else becomes text."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        _check_ends(value)
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z") if value.tzinfo else value.isoformat()
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    if value is None or isinstance(value, int | float | str):
        return value
    return str(value)


def _check_ends(time: datetime) -> None:
    """Raise OverflowError where a time is infinite: DuckDB gives such a one as the last, or the first, of Python's
    calendar, and without a zone.
    """
    if time in (datetime.max, datetime.min):  # noqa: DTZ901 - infinite times come without a zone
        raise OverflowError("it is infinite, or at an end of the calendar")


def _maps_as_pairs(answer: Rows) -> Iterator[Sequence[Any]]:
    """Yield rows in which a map is a list of pairs: the keys of an object of JSON could only be text."""
    maps = [place for place, type_ in enumerate(answer.types) if type_.startswith("MAP(")]
    if not maps:
        yield from answer.rows
        return
    for found in answer.rows:
        row = [*found]
        for place in maps:
            row[place] = None if row[place] is None else list(row[place].items())
        yield row


def _write_csv(names: Sequence[str], rows: Iterable[Sequence[Any]], stream: TextIO) -> None:
    # The writer puts into quotes what holds a part of its line end, and to a spreadsheet a bare \r ends a line as well.
    line = io.StringIO()
    import csv  # here, since other formats do without

    writer = csv.writer(line, lineterminator="\r\n")
    for cells in chain([names], rows):
        writer.writerow([no_formula(value) if isinstance(value, str) else _cell(value) for value in cells])
        stream.write(line.getvalue().removesuffix("\r\n") + "\n")
        line.seek(0)
        line.truncate()


def no_formula(text: str) -> str:
    """Return text that a spreadsheet takes for text: behind an apostrophe where it would take it for a formula.

    That is where it begins with `=`, `+`, `-` or `@` (wide ones too), or with a tab or the end of a line. Numbers need
    none, so they are not to be given here.
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def _write_json(names: Sequence[str], rows: Iterable[Sequence[Any]], stream: TextIO) -> None:
    between = "["
    names = _distinct(names)
    for row in rows:
        stream.write(between + "\n  " + _json_text(dict(zip(names, map(plain, row), strict=True))))
        between = ","
    stream.write("[]\n" if between == "[" else "\n]\n")


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the names with a number behind those that were there already: an object can hold each only once."""
    distinct: list[str] = []
    for name in names:
        number = 0
        while (candidate := f"{name}_{number}" if number else name) in distinct:
            number += 1
        distinct.append(candidate)
    return distinct


def _write_markdown(names: Sequence[str], rows: Iterable[Sequence[Any]], stream: TextIO) -> None:
    stream.write(f"| {' | '.join(map(_markdown_cell, names))} |\n|{' --- |' * len(names)}\n")
    for row in rows:
        stream.write(f"| {' | '.join(_markdown_cell(_cell(value)) for value in row)} |\n")


def _markdown_cell(text: str) -> str:
    for special in "\\|<`*_[":
        text = text.replace(special, f"\\{special}")
    return printable(text)


def _write_first_rows(names: Sequence[str], rows: Iterator[Sequence[Any]], stream: TextIO) -> None:
    first = [row for _, row in zip(range(_TABLE_ROWS), rows, strict=False)]
    write_table(names, first, stream=stream)
    if next(rows, None) is not None:
        stream.write(f"… and more than these {_TABLE_ROWS:,} rows; --format csv gives them all\n")


def _cell(value: Any) -> str:
    value = plain(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return _json_text(value) if isinstance(value, dict | list) else str(value)


def _json_text(value: Any) -> str:
    """Return JSON text in which whatever could steer a terminal is written as `\\u…`: the same to any program."""
    text = _JSON.encode(value)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)
