"""Put a report's question together: its `.sql` file over `asked`, the rows that were asked for.

    WITH asked AS (the table's rows within the window and the condition, with a column `by_…` for each dimension),
    … the report's own query, from its file

Values are bound. Only three things become text of the query: SQL of our own, the condition of `--where` (checked to be
one), and the quoted names of columns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from pipeline.errors import UsageError
from pipeline.reports import literal, read_sql
from pipeline.reports.dimensions import OF_CREDITS, OF_RUNS, By, Dimensions, choose

_LINES = """
        SELECT
            *,
            resource_kind AS kind,
            {moved} AS is_before,
            {counted} AS is_counted,
            charged_on + CASE WHEN is_before THEN CAST($days_back AS INTEGER) ELSE 0 END AS charged_day
        FROM {table}
    """
_EACH_LINE = "(SELECT *, resource_id AS run_id, line = 1 AS is_first, 1 AS lines FROM credit_lines)"
_RUNS = """
        SELECT
            *,
            CAST(coalesce(created_at, initial_run_at) AT TIME ZONE 'UTC' AS DATE) AS created_on,
            deleted_at IS NOT NULL AS is_deleted,
            1 AS number
        FROM runs
    """
_SUMMED = frozenset({"credits", "daily_credits", "failures", "failure_reasons"})
"""The queries that count by `lines` or `number`, and so may be put to `credit_sums` or `run_sums`."""
_MONTH = re.compile(r"\d{4}-\d\d")
_TOKENS = re.compile(
    r"[eE]'(?:\\.|''|[^'\\])*'|'(?:''|[^'])*'|\"(?:\"\"|[^\"])*\"|--[^\n]*|/\*.*?\*/|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$"
    r"|\$(?P<name>\w+)",
    re.DOTALL,
)
"""Where a `$name` is a parameter, and not within text, a quoted name or a comment."""
_COMMENTS = re.compile(r"\A((?:--[^\n]*\n)*)")


@dataclass(frozen=True, slots=True)
class Question:
    """A query with `$name` parameters and their values. Where `is_own`, no text of the user's stands in it."""

    query: str
    params: dict[str, Any] = field(default_factory=dict)
    is_own: bool = False

    def as_sql(self) -> str:
        """Return the query with the values written into it, to be taken further by hand: `pipeline sql -` reads it."""
        return _TOKENS.sub(
            lambda found: literal(self.params[found["name"]]) if found["name"] in self.params else found[0], self.query
        )


@dataclass(frozen=True, slots=True)
class Window:
    """Days from `since` to before `until`; without one of them, open on that side. Days not known are in neither."""

    since: date | None = None
    until: date | None = None

    def __post_init__(self) -> None:
        if self.since and self.until and self.since >= self.until:
            raise UsageError(f"--since {self.since} must be before --until {self.until}, which is not included")

    @property
    def days(self) -> int:
        """How many days it has."""
        if self.since is None or self.until is None:
            raise UsageError("a comparison needs a window: give --since and --until")
        return (self.until - self.since).days

    def before(self) -> Window:
        """Return the window of the same length that ends where this one begins."""
        days = self.days
        return Window(self.since and self.since - timedelta(days=days), self.since)


def as_date(value: date | datetime | str | None, option: str) -> date | None:
    """Return a day given as a date or as text (of a month its first); raise UsageError for anything else."""
    if isinstance(value, datetime):
        return value.date()
    if value is None or isinstance(value, date):
        return value
    try:
        return date.fromisoformat(f"{value}-01" if _MONTH.fullmatch(value) else value)
    except ValueError as error:
        raise UsageError(f"{option} {value}: not a day; write it as 2026-11-03") from error


def ask_credits(
    name: str, by: By | None, *, window: Window, where: str | None = None, compare: bool = False,
    params: Mapping[str, Any] | None = None,
) -> Question:  # fmt: skip
    """Return a question to `credit_lines`. With `compare`, rows of the window before are there too, moved into it."""
    dimensions = Dimensions(()) if by is None else choose(by, OF_CREDITS)
    bound = {"since": window.since, "until": window.until, "days_back": 0}
    if compare:
        bound |= {"since": window.before().since, "days_back": window.days, "turn": window.since}
    lines = _LINES.format(
        table="credit_sums" if _is_summed(name, dimensions, where) else _EACH_LINE,
        moved="charged_on < $turn" if compare else "false",
        counted="is_first_of_product" if "product" in dimensions.names else "is_first",
    )
    return _ask(name, lines, "charged_on", dimensions, where, {**bound, **(params or {})})


def ask_runs(
    name: str, by: By | None, *, window: Window, where: str | None = None,
    params: Mapping[str, Any] | None = None,
) -> Question:  # fmt: skip
    """Return a question to `runs`, whose day is that of their creation (of a workflow run, else of its first run)."""
    dimensions = Dimensions(()) if by is None else choose(by, OF_RUNS)
    bound = {"since": window.since, "until": window.until, **(params or {})}
    if _is_summed(name, dimensions, where):
        rows = "FROM run_sums"
    else:
        # Told in terms of `day`, the window spares opening the files of all other days.
        stored = _within("day", "CAST(CAST({} AS DATE) AS VARCHAR)", bound)
        rows = _RUNS + (f"    WHERE {' AND '.join(stored)}\n" if stored else "")
    return _ask(name, rows, "created_on", dimensions, where, bound)


def _is_summed(name: str, dimensions: Dimensions, where: str | None) -> bool:
    """Tell whether sums answer a question: a condition may name any column, and metadata has too many values."""
    return name in _SUMMED and not where and not dimensions.params


def _ask(
    name: str, rows: str, day: str, dimensions: Dimensions, where: str | None, params: Mapping[str, Any]
) -> Question:
    conditions = _within(day, "CAST({} AS DATE)", params)
    if where:
        from pipeline.reports.conditions import check_condition  # here, since most questions have none

        conditions.append(f"(\n{check_condition(where)}\n)")
    columns = "".join(f",\n        {column}" for column in dimensions.columns)
    filtered = f"\n    WHERE {' AND '.join(conditions)}" if conditions else ""
    comments, body = _split_comments(read_sql(name))
    text = f"asked AS (\n    SELECT\n        *{columns}\n    FROM ({rows}){filtered}\n)"
    query = f"{comments}WITH {text},\n{body[5:]}" if body.startswith("WITH ") else f"{comments}WITH {text}\n{body}"
    bound = {**params, **dimensions.params}
    used = {found["name"] for found in _TOKENS.finditer(query)}
    return Question(query, {key: value for key, value in bound.items() if key in used}, is_own=not where)


def _within(column: str, bound_as: str, params: Mapping[str, Any]) -> list[str]:
    """Return the conditions by which a column is in the window; `bound_as` says how a bound is written."""
    return [
        f"{column} {comparison} {bound_as.format(f'${bound}')}"
        for comparison, bound in ((">=", "since"), ("<", "until"))
        if params.get(bound) is not None
    ]


def _split_comments(text: str) -> tuple[str, str]:
    found = _COMMENTS.match(text)
    end = found.end() if found else 0
    return text[:end], text[end:]
