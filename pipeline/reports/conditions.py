"""What `--where` may be: one condition on the columns of a report's table, and nothing more than that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pipeline import duckdb_core
from pipeline.errors import UsageError

_PLAIN: dict[str, Any] = {
    "modifiers": [],
    "group_expressions": [],
    "group_sets": [],
    "having": None,
    "sample": None,
    "qualify": None,
}


def check_condition(text: str) -> str:
    """Return a condition as it stands; raise UsageError for text that is anything else, or looks anywhere else.

    DuckDB's own parser decides. A second statement, a clause after the condition, and a subquery (which could read
    files) are refused; so is a parameter, for which there is no value.
    """
    parsed = _parse(text, f"(\n{text}\n)")
    statements = parsed["statements"]
    node = statements[0]["node"] if len(statements) == 1 else {}
    if node.get("type") != "SELECT_NODE" or any(node.get(part) != plain for part, plain in _PLAIN.items()):
        raise UsageError(f"--where {text!r}: more than a condition; write what would stand behind WHERE, and no more")
    # In parentheses nothing at all would do, and out of them what closes them early does not.
    _parse(text, text)
    classes = set(_iter_classes(node["where_clause"]))
    if "SUBQUERY" in classes:
        raise UsageError(f"--where {text!r}: no subqueries here; ask such a question with `pipeline sql`")
    if "PARAMETER" in classes:
        raise UsageError(f"--where {text!r}: no parameters here; write the value itself")
    return text


def _parse(text: str, condition: str) -> dict[str, Any]:
    query = f"FROM asked WHERE {condition}"  # only parsed, and never run
    with duckdb_core.connect() as con:
        ((found,),) = con.execute("SELECT json_serialize_sql($query)", {"query": query}).fetchall()
    parsed: dict[str, Any] = json.loads(found)
    if parsed["error"]:
        raise UsageError(f"--where {text!r}: not a condition in SQL ({parsed['error_message']})")
    return parsed


def _iter_classes(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "class" in node:
            yield node["class"]
        for each in node.values():
            yield from _iter_classes(each)
    elif isinstance(node, list):
        for each in node:
            yield from _iter_classes(each)
