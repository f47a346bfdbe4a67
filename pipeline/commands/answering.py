"""What `pipeline report` writes, once its options are read: which question, and in which layout."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, TextIO

from pipeline import credit_summary, failure_summary
from pipeline.answers import CHANGED_DAYS, COMPARED_DAYS
from pipeline.html import Page
from pipeline.layout import write_notes
from pipeline.render import write_relation
from pipeline.reports.credit_questions import costliest_question, daily_question, unknown_question, wasted_question
from pipeline.reports.dimensions import TIMES
from pipeline.reports.failure_questions import changes_question, messages_question
from pipeline.reports.failure_questions import failures_question as of_failures
from pipeline.reports.failure_questions import latency_question as of_latency
from pipeline.reports.questions import Question, Window
from pipeline.rows import fetch_dicts

if TYPE_CHECKING:
    import duckdb

    from pipeline.catalog import Lake

_FOR_READING = ("html", "markdown")
_RATE_NOTE = "The rate is failed ÷ (processed + failed), with its 95 % Wilson interval."


def _by(arguments: argparse.Namespace, usual: tuple[str, ...] | None = None) -> tuple[str, ...]:
    if not arguments.by:
        return usual or arguments.usual_by
    return tuple(name for each in arguments.by for name in each.split(","))


# Credits


def credits_question(lake: Lake, arguments: argparse.Namespace) -> Question:
    """Return the question that the options put."""
    window, where = lake.window(arguments.since, arguments.until), arguments.where
    if arguments.show in ("runs", "files"):
        return costliest_question(arguments.show, most=arguments.most, window=window, where=where)
    if arguments.show == "wasted":
        return wasted_question(_by(arguments, ("kind",)), window=window, where=where)
    if arguments.show == "forecast":
        return daily_question(where=where)
    if arguments.show == "unknown":
        return unknown_question(_by(arguments, ("kind",)), window=window, where=where)
    by = _by(arguments, ("kind",)) if arguments.compare else _by(arguments)
    return lake.credits_question(
        by, since=arguments.since, until=arguments.until, where=where, rate=arguments.rate, compare=arguments.compare
    )


def write_credits(lake: Lake, arguments: argparse.Namespace, stream: TextIO) -> None:
    """Write the report on credits."""
    question = credits_question(lake, arguments)
    if arguments.show == "forecast":
        _write_forecast(lake, arguments, stream)
    elif arguments.format != "table":
        _write_rows(lake, question, arguments, stream)
    elif arguments.show == "totals":
        window = _window(lake, arguments)
        credit_summary.write_credits(lake, question, stream, window=window, where=arguments.where)
        forecast = None if arguments.compare else lake.forecast(where=arguments.where)
        if forecast is not None:
            stream.write(f"{credit_summary.forecast_line(forecast)}\n")
    elif arguments.show == "unknown":
        write_relation(lake.answer(question), format="table", stream=stream)
    else:
        relation = lake.answer(question)
        credit_summary.write_ranking(relation, stream)
        wasted = arguments.show == "wasted"
        notes = credit_summary.wasted_notes(fetch_dicts(relation)) if wasted else []
        write_notes([*notes, credit_summary.freshness(lake)], stream)


def _window(lake: Lake, arguments: argparse.Namespace) -> Window:
    return lake.window(arguments.since, arguments.until, days=COMPARED_DAYS if arguments.compare else None)


def _write_rows(lake: Lake, question: Question, arguments: argparse.Namespace, stream: TextIO) -> None:
    relation = lake.answer(question)

    def notes() -> list[str]:
        rows = fetch_dicts(relation) if arguments.show == "totals" else []
        if not rows:
            return [credit_summary.freshness(lake)]
        return credit_summary.credit_notes(lake, rows, _window(lake, arguments), arguments.where)

    title = {"totals": "Credits", "runs": "Costliest runs", "files": "Costliest files", "wasted": "Wasted credits"}
    _write(relation, arguments, stream, title=title.get(arguments.show, "Runs with unknown credits"), notes=notes)


def _write(
    relation: duckdb.DuckDBPyRelation,
    arguments: argparse.Namespace,
    stream: TextIO,
    *,
    title: str,
    notes: Callable[[], list[str]],
) -> None:
    """Write an answer, with the sentences below it where the format is one to be read."""
    page = Page(title, notes() if arguments.format in _FOR_READING else ())
    write_relation(relation, format=arguments.format, stream=stream, page=page)


def _write_forecast(lake: Lake, arguments: argparse.Namespace, stream: TextIO) -> None:
    forecast = lake.forecast(where=arguments.where)
    if arguments.format == "table":
        stream.write("no runs yet\n" if forecast is None else f"{credit_summary.forecast_line(forecast)}\n")
        return
    import pyarrow as pa

    amount = pa.decimal128(38, 9)
    schema = pa.schema(
        [("month", pa.date32()), ("last_day", pa.date32())]
        + [(name, amount) for name in ("so_far", "expected", "low", "high")]
        + [("weeks", pa.int64())]
    )
    rows = [] if forecast is None else [asdict(forecast)]
    relation = lake.from_arrow(pa.Table.from_pylist(rows, schema=schema))
    told = [] if forecast is None else [credit_summary.forecast_line(forecast)]
    title = "Forecast of the month's credits"
    _write(relation, arguments, stream, title=title, notes=lambda: [*told, credit_summary.freshness(lake)])


# Failures


def failures_question(lake: Lake, arguments: argparse.Namespace) -> Question:
    """Return the question that the options put."""
    window, where = lake.window(arguments.since, arguments.until), arguments.where
    if arguments.show == "messages":
        return messages_question(_by(arguments, ("kind",)), most=arguments.most, window=window, where=where)
    if arguments.show == "changes":
        return changes_question(window=_changed_window(lake, arguments), where=where)
    if arguments.show == "trend":
        return of_failures(_by(arguments, ("week",)), window=window, where=where)
    return of_failures(_by(arguments), window=window, where=where)


def _changed_window(lake: Lake, arguments: argparse.Namespace) -> Window:
    return lake.window(arguments.since, arguments.until, days=CHANGED_DAYS)


def write_failures(lake: Lake, arguments: argparse.Namespace, stream: TextIO) -> None:
    """Write the report on failures."""
    asked = {"since": arguments.since, "until": arguments.until, "where": arguments.where}
    if arguments.format != "table":
        relation = (
            lake.failure_changes(**asked)
            if arguments.show == "changes"
            else lake.answer(failures_question(lake, arguments))
        )
        titles = {
            "changes": "What changed in failures",
            "messages": "Messages of failed runs",
            "trend": "Failures by week",
        }
        title = titles.get(arguments.show, "Failures")
        _write(relation, arguments, stream, title=title, notes=lambda: [_RATE_NOTE, credit_summary.freshness(lake)])
        return
    parts = {
        "rates": ("", _write_rates),
        "trend": ("\nThe trend:\n\n", _write_trend),
        "changes": ("\nWhat changed:\n\n", _write_changes),
        "messages": ("\nMessages, those that differ in numbers, IDs and names as one:\n\n", _write_messages),
    }
    shown = list(parts) if arguments.show == "all" else [arguments.show]
    for name in shown:
        heading, write = parts[name]
        stream.write(heading if len(shown) > 1 else "")
        write(lake, arguments, stream)
    stream.write(f"{credit_summary.freshness(lake)}\n")


def _write_rates(lake: Lake, arguments: argparse.Namespace, stream: TextIO) -> None:
    window = lake.window(arguments.since, arguments.until)
    question = of_failures(_by(arguments), window=window, where=arguments.where)
    failure_summary.write_failures(lake, question, stream)


def _write_trend(lake: Lake, arguments: argparse.Namespace, stream: TextIO) -> None:
    window = lake.window(arguments.since, arguments.until)
    time = next((name for name in _by(arguments) if name in TIMES), "week")
    failure_summary.write_trend(lake, stream, time=time, window=window, where=arguments.where)


def _write_changes(lake: Lake, arguments: argparse.Namespace, stream: TextIO) -> None:
    window = _changed_window(lake, arguments)
    changes = lake.find_changes(since=window.since, until=window.until, where=arguments.where)
    failure_summary.write_changes(changes, stream, window=window, most=arguments.most)


def _write_messages(lake: Lake, arguments: argparse.Namespace, stream: TextIO) -> None:
    window = lake.window(arguments.since, arguments.until)
    by = _by(arguments, ("kind",)) if arguments.show == "messages" else ("kind",)
    question = messages_question(by, most=arguments.most, window=window, where=arguments.where)
    failure_summary.write_messages(lake.answer(question), stream)


# Latency


def latency_question(lake: Lake, arguments: argparse.Namespace) -> Question:
    """Return the question that the options put."""
    window = lake.window(arguments.since, arguments.until)
    return of_latency(_by(arguments), window=window, where=arguments.where)


def write_latency(lake: Lake, arguments: argparse.Namespace, stream: TextIO) -> None:
    """Write the report on how long runs took."""
    question = latency_question(lake, arguments)
    if arguments.format == "table":
        failure_summary.write_latency(lake, question, stream)
        stream.write(f"{credit_summary.freshness(lake)}\n")
        return
    relation = lake.answer(question)

    def notes() -> list[str]:
        return [*failure_summary.latency_notes(fetch_dicts(relation)), credit_summary.freshness(lake)]

    _write(relation, arguments, stream, title="Seconds from created to finished", notes=notes)
