"""The reports that a lake answers, whichever engine works them out: DuckDB (`catalog`) or Spark (`spark`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pipeline.errors import UsageError
from pipeline.reports.dimensions import DAY_AND_KIND, KIND_AND_REASON, By

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.reports.changes import Change
    from pipeline.reports.forecast import Forecast
    from pipeline.reports.questions import Question, Window

Day = date | datetime | str | None
R = TypeVar("R")
"""What an engine answers with."""

COMPARED_DAYS = 30
CHANGED_DAYS = 7
"""The windows of a comparison where none is given."""


class Reports(ABC, Generic[R]):
    """Puts the questions of the reports to an engine, and gives its answers.

    Each imports the questions that it puts: all of them take as long as a short question takes to be answered.

    A window is of UTC days, from `since` to before `until`; `where` is a condition in SQL on the columns of
    `credit_ledger` (credits) or `runs` (the others); `by` names dimensions, `metadata.KEY` among them.
    """

    @abstractmethod
    def answer(self, question: Question) -> R:
        """Return the answer to a report's question, worked out at once, of one version of each file."""

    @abstractmethod
    def rows(self, question: Question) -> list[tuple[Any, ...]]:
        """Return the rows of that answer."""

    @abstractmethod
    def from_arrow(self, table: pa.Table) -> R:
        """Return a table as the engine's answers are."""

    @abstractmethod
    def newest_day(self) -> tuple[date | None, bool]:
        """Return the newest day that a run was created on, and whether it was over when the API was last asked."""

    @abstractmethod
    def data_as_of(self) -> datetime | None:
        """Return when the API was last asked, by the loads; null where there are none."""

    def credits(
        self, by: By = DAY_AND_KIND, *, since: Day = None, until: Day = None, where: str | None = None,
        rate: str | Decimal | float | None = None, compare: str | None = None,
    ) -> R:  # fmt: skip
        """Return credits by dimensions, each credit once, with the number of runs whose credits are unknown, by why.

        `rate` is USD a credit, or a file of rates by date; `compare="previous"` puts the window before beside this one
        (of the last 30 days that there is data of, where no window is given).
        """
        return self.answer(self.credits_question(by, since=since, until=until, where=where, rate=rate, compare=compare))

    def credits_question(
        self, by: By = DAY_AND_KIND, *, since: Day = None, until: Day = None, where: str | None = None,
        rate: str | Decimal | float | None = None, compare: str | None = None,
    ) -> Question:  # fmt: skip
        """Return the question that `credits` puts, to be looked at or taken further."""
        from pipeline.reports.credit_questions import credits_question

        if compare not in (None, "previous"):
            raise UsageError(f"--compare {compare}: there is only `previous`, the window before")
        window = self.window(since, until, days=COMPARED_DAYS if compare else None)
        return credits_question(
            by, window=window, where=where, rate=rate, compare=compare is not None, data_as_of=self.data_as_of()
        )

    def costliest_runs(self, most: int = 10, *, since: Day = None, until: Day = None, where: str | None = None) -> R:
        """Return the runs that cost the most, each with what it caused."""
        from pipeline.reports.credit_questions import costliest_question

        return self.answer(costliest_question("runs", most=most, window=self.window(since, until), where=where))

    def costliest_files(self, most: int = 10, *, since: Day = None, until: Day = None, where: str | None = None) -> R:
        """Return the files on which the most was spent."""
        from pipeline.reports.credit_questions import costliest_question

        return self.answer(costliest_question("files", most=most, window=self.window(since, until), where=where))

    def wasted_credits(
        self, by: By = ("kind",), *, since: Day = None, until: Day = None, where: str | None = None
    ) -> R:
        """Return credits spent on runs that failed, or on the same file by the same processor and version again."""
        from pipeline.reports.credit_questions import wasted_question

        return self.answer(wasted_question(by, window=self.window(since, until), where=where))

    def forecast(self, *, where: str | None = None) -> Forecast | None:
        """Return what the newest month that there is data of will come to (see `reports.forecast`); None without runs.

        Credits whose day is not known are in no month.
        """
        from pipeline.reports.credit_questions import daily_question
        from pipeline.reports.forecast import forecast_month

        last_day, is_whole = self.newest_day()
        if last_day is None:
            return None
        rows = self.rows(daily_question(where=where))
        return forecast_month({day: credits for day, credits in rows if day}, last_day=last_day, is_whole=is_whole)

    def failures(
        self, by: By = KIND_AND_REASON, *, since: Day = None, until: Day = None, where: str | None = None
    ) -> R:
        """Return failed runs by dimensions, with the rate and its 95 % Wilson interval.

        With `reason` among the dimensions each group has a total (`is_total`) before its reasons.
        """
        from pipeline.reports.failure_questions import failures_question

        return self.answer(failures_question(by, window=self.window(since, until), where=where))

    def failure_messages(
        self, by: By = ("kind",), *, most: int = 20, since: Day = None, until: Day = None, where: str | None = None
    ) -> R:
        """Return the messages of failed runs, those as one that differ only in numbers, IDs and names."""
        from pipeline.reports.failure_questions import messages_question

        return self.answer(messages_question(by, most=most, window=self.window(since, until), where=where))

    def failure_changes(self, *, since: Day = None, until: Day = None, where: str | None = None) -> R:
        """Return what changed from the window before to this one (of the last seven days, where none is given).

        One row for all runs, then one a kind, processor, version, file type and reason, the surest change first.
        """
        from dataclasses import asdict

        import pyarrow as pa

        names = ("failed_before", "ended_before", "failed_after", "ended_after")
        schema = pa.schema(
            [("dimension", pa.string()), ("value", pa.string())]
            + [(name, pa.int64()) for name in names]
            + [(name, pa.float64()) for name in ("carried", "p", "p_corrected")]
            + [("is_significant", pa.bool_())]
        )
        changes = self.find_changes(since=since, until=until, where=where)
        rows = [{**asdict(change), "is_significant": change.is_significant} for change in changes]
        return self.from_arrow(pa.Table.from_pylist(rows, schema=schema))

    def find_changes(self, *, since: Day = None, until: Day = None, where: str | None = None) -> list[Change]:
        """Return what `failure_changes` does, as objects."""
        from pipeline.reports.changes import find_changes
        from pipeline.reports.failure_questions import changes_question

        window = self.window(since, until, days=CHANGED_DAYS)
        return find_changes(self.rows(changes_question(window=window, where=where)))

    def latency(self, by: By = ("kind",), *, since: Day = None, until: Day = None, where: str | None = None) -> R:
        """Return percentiles of the seconds from created to finished; reviewed runs are left out, and counted."""
        from pipeline.reports.failure_questions import latency_question

        return self.answer(latency_question(by, window=self.window(since, until), where=where))

    def window(self, since: Day = None, until: Day = None, *, days: int | None = None) -> Window:
        """Return a window of days. With `days` an open side is closed: by the newest day, and so many days before."""
        from pipeline.reports.questions import Window, as_date

        first, end = as_date(since, "--since"), as_date(until, "--until")
        if days is not None:
            newest = self.newest_day()[0] or datetime.now(UTC).date()  # without runs any day will do
            end = end or max(newest, first or newest) + timedelta(days=1)
            first = first or end - timedelta(days=days)
        return Window(first, end)


def documented_reasons() -> dict[str, list[str]]:
    """Return kinds and reasons, pair by pair."""
    from pipeline.kinds import KINDS

    pairs = [(kind.object, reason) for kind in KINDS for reason in sorted(kind.failure_reasons)]
    return {"kinds": [kind for kind, _ in pairs], "reasons": [reason for _, reason in pairs]}
