"""All texts of a table, nested ones too, to search them for what should be gone."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.erased import Erased


def mentioned(table: pa.Table, erased: Erased) -> set[str]:
    """Return the forgotten runs of which a table speaks, in whichever column."""
    found: set[str] = set()
    for text in iter_texts(table):
        found |= erased.mentions(text)
    return found


def iter_texts(table: pa.Table) -> Iterator[str]:
    """Yield the distinct texts of each column of text, or column within a column, line by line in one."""
    for column in table.columns:
        for chunk in column.chunks:
            for texts in _text_arrays(chunk):
                yield "\n".join(filter(None, pc.unique(texts).to_pylist()))


def _text_arrays(array: pa.Array) -> Iterator[pa.Array]:
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield array
    elif pa.types.is_struct(kind):
        for each in array.flatten():
            yield from _text_arrays(each)
    elif pa.types.is_map(kind):
        yield from _text_arrays(array.keys)
        yield from _text_arrays(array.items)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _text_arrays(array.flatten())
