"""Reports, as SQL in `.sql` files; here they are found, and values written as SQL has them.

`charges.sql` and `credit_ledger.sql` are views of the catalog; the others are questions put to it.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent
"""Not by `importlib.resources`, whose import takes longer than all other work of a short question."""


def read_sql(name: str) -> str:
    """Return the text of a report's SQL: `credits`, `failures`, `status_kinds`, …"""
    return (_FOLDER / f"{name}.sql").read_text(encoding="utf-8")


def literal(value: Any) -> str:
    """Return a value as SQL writes it."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return f"TIMESTAMPTZ '{value.isoformat()}'"
    if isinstance(value, date):
        return f"DATE '{value.isoformat()}'"
    if isinstance(value, int | float | Decimal):
        return str(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(literal, value))}]"
    return "'" + str(value).replace("'", "''") + "'"
