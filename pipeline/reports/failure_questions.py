"""The questions that `pipeline report failures` and `latency`, and the like of `Lake`, put."""

from __future__ import annotations

from pipeline.reports.dimensions import KIND_AND_REASON, By
from pipeline.reports.questions import Question, Window, ask_runs


def failures_question(by: By = KIND_AND_REASON, *, window: Window, where: str | None = None) -> Question:
    """Ask for failed runs by dimensions. With `reason` among them, each group's total comes before its reasons."""
    names = [by] if isinstance(by, str) else list(by)
    if "reason" not in names:
        return ask_runs("failures", names, window=window, where=where)
    groups = [name for name in names if name != "reason"]
    return ask_runs("failure_reasons", groups or ["all"], window=window, where=where)


def messages_question(by: By = ("kind",), *, most: int, window: Window, where: str | None = None) -> Question:
    """Ask for the messages of failed runs, alike ones as one."""
    return ask_runs("failure_messages", by, window=window, where=where, params={"most": most})


def changes_question(*, window: Window, where: str | None = None) -> Question:
    """Ask for what `find_changes` needs: counts in a window and in the one before it."""
    before = window.before()
    both = Window(before.since, window.until)
    return ask_runs("failure_windows", None, window=both, where=where, params={"turn": window.since})


def latency_question(by: By = ("kind",), *, window: Window, where: str | None = None) -> Question:
    """Ask for the time from created to finished, by dimensions."""
    return ask_runs("latency", by, window=window, where=where)
