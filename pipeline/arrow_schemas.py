"""The declared tables (see `schema`) as Arrow, and so Parquet, has them."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from pipeline import schema

TIME = pa.timestamp("us", tz="UTC")
CREDITS = pa.decimal128(18, 6)

_TYPES = {
    schema.TEXT: pa.string(),
    schema.INT: pa.int64(),
    schema.FLOAT: pa.float64(),
    schema.FLAG: pa.bool_(),
    schema.TIME: TIME,
    schema.CREDITS: CREDITS,
}


def arrow_type(declared: schema.Type) -> pa.DataType:
    """Return a declared type as Arrow has it."""
    if isinstance(declared, schema.List):
        return pa.list_(arrow_type(declared.of))
    if isinstance(declared, schema.Struct):
        return pa.struct([(name, arrow_type(each)) for name, each in declared.fields])
    if isinstance(declared, schema.Map):
        return pa.map_(arrow_type(declared.key), arrow_type(declared.value))
    return _TYPES[declared]


def _schema(columns: Sequence[schema.Column]) -> pa.Schema:
    return pa.schema(
        [pa.field(each.name, arrow_type(each.type), metadata={"description": each.description}) for each in columns]
    )


CHARGE = arrow_type(schema.CHARGE)
RUNS_SCHEMA = _schema(schema.RUNS)
RUNS_FILE_SCHEMA = _schema(schema.RUNS_FILE)
LOADS_SCHEMA = _schema(schema.LOADS)
DEAD_LETTERS_SCHEMA = _schema(schema.DEAD_LETTERS)
