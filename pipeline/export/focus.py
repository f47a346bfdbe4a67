"""The FOCUS 1.2 dataset of costs and usage (FinOps Open Cost and Usage Specification), made of the credit ledger."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UsageError
from pipeline.export.files import Tell, bounded_lake, copy_relation, format_of, replacing, written_rows
from pipeline.reports import read_sql

if TYPE_CHECKING:
    import duckdb

    from pipeline.catalog import Lake

_RATE_PLACES = 6
_RATE_BELOW = 1_000_000
_WHY_A_RATE = (
    "no rate: FOCUS allows no charge without its cost, and 0 would be false; say what a credit costs you in USD, as in "
    "--rate 0.0125 (pay-as-you-go; 0.01 on Scale; else your contract says)"
)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a credit costs: `rate` in USD, `list_rate` before any discount, and how it is billed.

    With `payg` usage is billed as it happens. With `prepaid` the credits were bought before: usage bills nothing (the
    purchase did, and the API does not tell of it), and its cost is the effective one.
    """

    rate: Decimal
    list_rate: Decimal
    billing: str = "payg"
    account: str = "extend"


@dataclass(frozen=True, slots=True)
class FocusTotals:
    """What a written dataset comes to. `undated` is credits by what stands in for a time that is not known."""

    charges: int
    credits: Decimal
    effective_cost: Decimal
    billed_cost: Decimal
    first_month: str | None
    last_month: str | None
    undated: dict[str, Decimal]


def read_terms(rate: str | None, list_rate: str | None, billing: str, account: str) -> Terms:
    """Return the terms that the options describe; raise UsageError where there is no rate, or none that can be used."""
    if rate is None:
        raise UsageError(_WHY_A_RATE)
    own = _read_rate("--rate", rate)
    if not account.strip():
        raise UsageError("--account: FOCUS wants a name here; give your organization's")
    return Terms(own, own if list_rate is None else _read_rate("--list-rate", list_rate), billing, account)


def _read_rate(option: str, text: str) -> Decimal:
    try:
        rate = Decimal(text)
    except InvalidOperation:
        rate = Decimal("NaN")
    if not rate.is_finite() or not 0 < rate < _RATE_BELOW:
        raise UsageError(f"{option} {text}: not what a credit can cost; give US dollars above 0, as in {option} 0.0125")
    if rate != round(rate, _RATE_PLACES):
        raise UsageError(f"{option} {text}: at most {_RATE_PLACES} decimals, so that costs stay exact")
    return rate


def focus(lake: Lake, terms: Terms) -> duckdb.DuckDBPyRelation:
    """Return the dataset: one row a ledger line, ordered by time."""
    import pyarrow as pa

    rate_type = pa.decimal128(12, _RATE_PLACES)
    row = {
        "rate": pa.array([terms.rate], rate_type),
        "list_rate": pa.array([terms.list_rate], rate_type),
        "billing": [terms.billing],
        "account": [terms.account],
    }
    lake.con.register("focus_terms", pa.table(row))
    return lake.sql(read_sql("focus"))


def export_focus(
    folder: Path | str, path: Path, terms: Terms, *, force: bool = False, tell: Tell = lambda _message: None
) -> FocusTotals:
    """Write a lake's dataset to a file that ends in .csv or .parquet; return what the file comes to."""
    suffix = format_of(path)
    with replacing(path, force=force) as temporary, bounded_lake(folder, path.parent, tell=tell) as lake:
        copy_relation(lake.con, focus(lake, terms), temporary, suffix)
        return _read_totals(lake.con, temporary, suffix)


def _read_totals(con: duckdb.DuckDBPyConnection, path: Path, suffix: str) -> FocusTotals:
    """Add up what stands in the file, not what should."""
    written_rows(con, path, suffix).create_view("focus_written", replace=True)
    rows: list[tuple[Any, ...]] = con.sql(read_sql("focus_totals")).fetchall()
    undated = {basis: credits for basis, _, credits, *_ in rows if basis != "created"}
    months = [month for *_, first, last in rows for month in (first, last)]
    return FocusTotals(
        charges=sum(row[1] for row in rows),
        credits=sum((row[2] for row in rows), Decimal(0)),
        effective_cost=sum((row[3] for row in rows), Decimal(0)),
        billed_cost=sum((row[4] for row in rows), Decimal(0)),
        first_month=min(months, default=None),
        last_month=max(months, default=None),
        undated=undated,
    )
