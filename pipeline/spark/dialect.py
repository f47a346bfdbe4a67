"""Put the reports' SQL, which is DuckDB's, into Spark's words. There is no second copy of it.

sqlglot knows most of both dialects. What it leaves as it is, or puts so that Spark would come to another number, is put
right here first, each by a function that says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache

import pyarrow as pa
import sqlglot
from sqlglot import exp

from pipeline.arrow_schemas import RUNS_SCHEMA
from pipeline.errors import UsageError

_DIMENSION = "by_"
_SPARK_PRECISION = 38
_NOT_PLAIN_REPLACEMENT = ("\\", "$")


def spark_sql(query: str) -> str:
    """Return a query of this package as Spark SQL; its `$name` parameters become `:name`.

    Raises UsageError where it cannot be put so.
    """
    try:
        tree = sqlglot.parse_one(query, read="duckdb")
        _expand_dimensions(tree)
        for rewrite in _REWRITES:
            tree = _rewritten(tree, rewrite)
        return tree.sql(dialect="spark", comments=False)
    except sqlglot.errors.SqlglotError as error:
        raise UsageError(f"the query cannot be put into Spark's SQL: {' '.join(str(error).split())[:300]}") from error


def _rewritten(tree: exp.Expr, rewrite: Callable[[exp.Expr], exp.Expr]) -> exp.Expr:
    """Return a query with each node rewritten, what is within it first. (sqlglot's own `transform` does not look into
    what it has put in a node's place, and leaves what is nested there as it is.)
    """
    for node in reversed(list(tree.walk())):
        other = rewrite(node)
        if node is tree:
            tree = other
        elif other is not node:
            node.replace(other)
    return tree


def _expand_dimensions(tree: exp.Expr) -> None:
    """Write out `COLUMNS('^by_…')`: Spark has nothing like it. The columns are those that `asked` names so."""
    names = _dimension_names(tree)
    for columns in list(tree.find_all(exp.Columns)):
        parent = columns.parent
        if isinstance(parent, exp.Alias):  # AS '\1': without the prefix
            _replace(parent, [exp.alias_(_column(name), name.removeprefix(_DIMENSION), quoted=True) for name in names])
        elif isinstance(parent, exp.Ordered):
            nulls_first = parent.args.get("nulls_first")
            _replace(parent, [exp.Ordered(this=_column(name), nulls_first=nulls_first) for name in names])
        else:
            _replace(columns, [_column(name) for name in names])


def _dimension_names(tree: exp.Expr) -> list[str]:
    asked = next((each for each in tree.find_all(exp.CTE) if each.alias == "asked"), None)
    select = None if asked is None else asked.this
    return [name for name in select.named_selects if name.startswith(_DIMENSION)] if select is not None else []


def _column(name: str) -> exp.Column:
    return exp.column(exp.to_identifier(name, quoted=True))


def _replace(node: exp.Expr, others: Sequence[exp.Expr]) -> None:
    """Put others in a node's place within its list."""
    parent, key = node.parent, node.arg_key
    if parent is None or key is None:
        raise UsageError("COLUMNS stands where it cannot be written out")
    siblings = parent.args[key]
    position = next(at for at, each in enumerate(siblings) if each is node)
    parent.set(key, [*siblings[:position], *others, *siblings[position + 1 :]])


@cache
def _list_names() -> frozenset[str]:
    """Return the names that are of lists wherever they stand in `runs`, or are made of such."""
    return frozenset(_iter_lists(RUNS_SCHEMA))


def _iter_lists(fields: pa.Schema | pa.StructType) -> Iterator[str]:
    for field in fields:
        inner = field.type
        if pa.types.is_list(inner):
            yield field.name
            inner = inner.value_type
        if pa.types.is_struct(inner):
            yield from _iter_lists(inner)


def _plain_cte(node: exp.Expr) -> exp.Expr:
    """Spark decides by itself whether to keep what a query names; it has no word for it."""
    if isinstance(node, exp.CTE):
        node.set("materialized", None)
    return node


def _size_of_list(node: exp.Expr) -> exp.Expr:
    """`len` is of texts and lists alike; Spark has a word for each."""
    if isinstance(node, exp.Length) and isinstance(node.this, exp.Column | exp.Dot) and node.this.name in _list_names():
        return exp.func("SIZE", node.this, dialect="spark")
    return node


def _safe_element(node: exp.Expr) -> exp.Expr:
    """An element beyond the end is null; Spark's own brackets raise."""
    if isinstance(node, exp.Bracket) and len(node.expressions) == 1:
        return exp.Anonymous(this="GET", expressions=[node.this, node.expressions[0]])
    return node


def _list_functions(node: exp.Expr) -> exp.Expr:
    """Spark has no sum of a list, and does not look for null in one."""
    if not isinstance(node, exp.Anonymous):
        return node
    name, given = node.name.lower(), node.expressions
    if name == "list_sum":
        return sqlglot.parse_one(
            f"AGGREGATE({given[0].sql(dialect='spark')}, CAST(NULL AS DECIMAL(38, 6)), "
            "(total, each) -> CAST(COALESCE(total + each, total, each) AS DECIMAL(38, 6)))",
            read="spark",
        )
    if name == "list_position":
        listed, wanted = (each.sql(dialect="spark") for each in given)
        return sqlglot.parse_one(
            f"NULLIF(IF({wanted} IS NULL, ARRAY_POSITION(TRANSFORM({listed}, each -> each IS NULL), TRUE), "
            f"ARRAY_POSITION({listed}, {wanted})), 0)",
            read="spark",
        )
    if name == "epoch_us":
        return exp.Anonymous(this="UNIX_MICROS", expressions=given)
    return node


def _unnested(node: exp.Expr) -> exp.Expr:
    """`unnest` of a struct, the one of a column that gets no name, gives its fields. Spark explodes one list a query:
    two side by side are zipped.
    """
    if not isinstance(node, exp.Select):
        return node
    lists = [each for each in node.expressions if isinstance(each, exp.Alias) and isinstance(each.this, exp.Explode)]
    expressions: list[exp.Expr] = []
    for each in node.expressions:
        if isinstance(each, exp.Explode) and isinstance(each.this, exp.Column):
            expressions.append(exp.Column(this=exp.Star(), table=exp.to_identifier(each.this.name)))
        elif len(lists) < 2 or each not in lists:
            expressions.append(each)
        elif each is lists[0]:
            zipped = exp.Anonymous(this="ARRAYS_ZIP", expressions=[other.this.this for other in lists])
            inlined = exp.Anonymous(this="INLINE", expressions=[zipped])
            expressions.append(exp.Aliases(this=inlined, expressions=[exp.to_identifier(x.alias) for x in lists]))
    node.set("expressions", expressions)
    return node


def _filtered_window(node: exp.Expr) -> exp.Expr:
    """Spark has no FILTER in a window function. Aggregates leave nulls out, so what is filtered becomes null."""
    if isinstance(node, exp.Window) and isinstance(node.this, exp.Filter):
        aggregate, condition = node.this.this, node.this.expression.this
        aggregate.set("this", exp.case().when(condition, aggregate.this))
        node.set("this", aggregate)
    return node


def _percentile(node: exp.Expr) -> exp.Expr:
    """`quantile_cont` goes between two values on a straight line; so does `percentile`, but for the last bit."""
    if isinstance(node, exp.PercentileCont) and node.expression is not None:
        return exp.Anonymous(this="PERCENTILE", expressions=[node.this, node.expression])
    return node


def _first_by_itself(node: exp.Expr) -> exp.Expr:
    """`any_value(x ORDER BY x)` is the least."""
    if isinstance(node, exp.IgnoreNulls) and isinstance(node.this, exp.AnyValue):
        order = node.this.this
        if isinstance(order, exp.Order) and [each.this for each in order.expressions] == [order.this]:
            return exp.Min(this=order.this)
    return node


def _metadata(node: exp.Expr) -> exp.Expr:
    """A key of a JSON object: Spark's own path language has no way to write some keys. See `spark_params`."""
    if isinstance(node, exp.JSONExtractScalar):
        parsed = exp.Anonymous(
            this="FROM_JSON", expressions=[node.this, exp.Literal.string("MAP<STRING, STRING>")]
        )  # fmt: skip
        return exp.Anonymous(this="TRY_ELEMENT_AT", expressions=[parsed, node.expression])
    return node


_WORD_EDGE = r"(?:(?<=\w)(?!\w)|(?<!\w)(?=\w))"
_NO_WORD_EDGE = r"(?:(?<=\w)(?=\w)|(?<!\w)(?!\w))"


def _java_pattern(node: exp.Expr) -> exp.Expr:
    """Patterns are RE2's. Java's `\\b` goes by all letters of the world, beside a `\\w` that knows ASCII's alone, so it
    is written out; and where capitals make no difference, RE2 means those of all the world.
    """
    if not isinstance(node, exp.RegexpReplace):
        return node
    flags = node.args["modifiers"].name if node.args.get("modifiers") else ""
    replacement = node.args["replacement"]
    if set(flags) - {"g", "i"} or "g" not in flags or any(each in replacement.name for each in _NOT_PLAIN_REPLACEMENT):
        raise UsageError(
            f"regexp_replace with flags {flags!r} and {replacement.name!r}: not put into Spark's words yet"
        )
    pattern = node.expression.name.replace(r"\b", _WORD_EDGE).replace(r"\B", _NO_WORD_EDGE)
    prefix = "(?iu)" if "i" in flags else ""
    return exp.Anonymous(
        this="REGEXP_REPLACE", expressions=[node.this, exp.Literal.string(prefix + pattern), replacement]
    )


def _exact_product(node: exp.Expr) -> exp.Expr:
    """A product of decimals has in Spark one digit more before the point than in DuckDB; where that makes it more than
    38, Spark rounds behind the point. So the first factor is taken with fewer digits before it, still far too many.
    """
    if not (isinstance(node, exp.Mul) and isinstance(node.left, exp.Cast) and isinstance(node.right, exp.Cast)):
        return node
    one, other = (_precision(each.to) for each in (node.left, node.right))
    if one and other and (beyond := one[0] + other[0] + 1 - _SPARK_PRECISION) > 0:
        node.left.set("to", exp.DataType.build(f"DECIMAL({one[0] - beyond}, {one[1]})"))
    return node


def _precision(kind: exp.DataType) -> tuple[int, int] | None:
    if not kind.is_type(exp.DataType.Type.DECIMAL) or len(kind.expressions) != 2:
        return None
    digits, behind = (int(each.name) for each in kind.expressions)
    return digits, behind


_REWRITES: tuple[Callable[[exp.Expr], exp.Expr], ...] = (
    _plain_cte, _size_of_list, _safe_element, _list_functions, _unnested, _filtered_window, _percentile,
    _first_by_itself, _metadata, _java_pattern, _exact_product,
)  # fmt: skip
