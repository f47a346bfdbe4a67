"""Reports, as SQL in `.sql` files; this package only finds them.

`charges.sql` and `credit_ledger.sql` are views of the catalog; the others are questions put to it.
"""

from __future__ import annotations

from importlib.resources import files


def read_sql(name: str) -> str:
    """Return the text of a report's SQL: `credits`, `failures`, `status_kinds`, …"""
    return files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
