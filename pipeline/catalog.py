"""Ask a lake questions with SQL, through DuckDB over its Parquet files.

The database is in memory and holds views, and answers to reports: a reader never waits for a writer, nor a writer for a
reader.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline import duckdb_core
from pipeline.answers import Reports, documented_reasons
from pipeline.errors import UsageError
from pipeline.ledger import SUMS, Kept, LedgerFiles, Stamp
from pipeline.opening import Choose, existing_lake
from pipeline.reports import literal, read_sql
from pipeline.reports.statements import check_reads_only
from pipeline.rows import Rows, rows_asked, whole_columns
from pipeline.schema import DEAD_LETTERS, LOADS
from pipeline.views import create_runs, create_view, parquet

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from pipeline.reports.questions import Question

T = TypeVar("T")

_HELD_BYTES = 16 << 20
"""Up to this size of a lake's runs, what they charge is worked out once for all questions and held in memory."""

_NO_ROWS = "the query gives no rows; ask with SELECT or FROM"
_BARRED = "\nA locked lake reads its own files and no other; `pipeline sql --unlocked` does."

_WRONG_QUERY = (duckdb_core.ParserException, duckdb_core.BinderException, duckdb_core.CatalogException)
"""What DuckDB says of a query that names or writes something wrongly, once the views of the files are there."""

_OF_FILES = frozenset({"documented_reasons", "runs", "loads", "dead_letters"})
"""The views that stand on no other, and have no query of their own."""

_VIEWS = (*sorted(_OF_FILES), "credit_lines", *SUMS, "charges", "credit_ledger", "unknown_credits")
"""In an order in which each stands on earlier ones alone."""

_OF_ALL = re.compile("show|describe|pragma|information_schema|duckdb_|pg_|sqlite_", re.IGNORECASE)
"""What a query may ask that is about the views themselves."""

_COMMENT = re.compile("--[^\n]*")
_ASKED = "asked_once_more"
"""The view of a query some of whose columns are asked for as text."""
_ANSWERS = "answers"
"""The schema of the tables that answers are kept in."""

_OF_LINES = ("credit_l", "unknown_credits")
"""What a query names that asks for single lines of credits: `credit_lines`, `credit_ledger`, `unknown_credits`."""


class Lake(Reports["duckdb.DuckDBPyRelation"]):
    """A lake to ask. `.sql(…)`, `.runs()`, `.credits()`, … give DuckDB relations: `.df()`, `.arrow()`, `.pl()`.

    The views are `runs` (one row a run), `charges` (one row a charge line, as each run reports it), `credit_ledger`
    (every credit once), `unknown_credits` (runs whose credits nothing tells), `loads` and `dead_letters`. Times are
    UTC. With `locked`, queries can read the lake's files and no other, and write nothing. One in a bucket is as of when
    it was opened; `choose` says which of its days are needed. Raises UsageError where there is no lake, NewerLakeError
    where a newer version of this program wrote it.

        lake = Lake("data/lake")
        lake.sql("SELECT kind, count(*) FROM runs WHERE status = $status GROUP BY ALL", status="FAILED").df()
    """

    def __init__(self, path: Path | str, *, locked: bool = False, choose: Choose | None = None) -> None:
        self.files = existing_lake(path, choose=choose)
        self.files.refuse_newer()
        self.con = duckdb_core.connect()
        self.con.execute("SET TimeZone = 'UTC'; SET python_enable_replacements = false")
        self._ledger = LedgerFiles(self.files)
        self._answers = 0
        self._is_locked = False
        self._is_to_be_locked = locked
        self._newest: tuple[dict[str, Stamp], date | None, bool] | None = None
        self._seen: tuple[object, ...] | None = None
        self._asked_of: tuple[dict[str, Stamp], tuple[object, ...]] | None = None
        self._made: set[str] = set()
        self._held: object = None
        self._is_held = False
        self._asks_credits = self._asks_lines = False
        self._is_query_wrong = False

    def __enter__(self) -> Lake:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if error is not None:
            self.raise_damage(error)

    def raise_damage(self, error: BaseException) -> None:
        """Raise LakeDamagedError where an error of DuckDB's comes of a damaged file: an answer is worked out when it is
        read, which may be the first time that a page of the file is.
        """
        errors = (error, getattr(error, "__cause__", None))
        if any(isinstance(each, duckdb_core.Error) for each in errors) and not self._is_query_wrong:
            self.files.raise_damage()

    def has_changed(self) -> bool:
        """Tell whether files were replaced since a query was last put."""
        return self._asked_of != self._state(self._ledger.stamps())

    def close(self) -> None:
        """Let the database go; relations taken from it can no longer be asked."""
        self.con.close()

    def sql(self, query: str, **params: Any) -> duckdb.DuckDBPyRelation:
        """Return the answer to a query, its `$name` parameters bound; it is worked out when it is read.

        Raises UsageError with DuckDB's own words where the query is wrong, LakeDamagedError where a file is.
        """
        duckdb_core.have_relations()
        with self._saying_what_is_wrong(query):
            relation = self._answered(query, lambda: self.con.sql(query, params=params or None))
        if relation is None:
            raise UsageError(_NO_ROWS)
        return relation

    def read(self, query: str) -> Rows:
        """Return the rows of the answer to a query, fetched as they are read; until then nothing else may be asked.

        Raises as `sql` does, and DuckDB's errors where the query fails while it is read.
        """
        with self._saying_what_is_wrong(query):
            self._answered(query, lambda: self.con.execute(query))
        found = rows_asked(self.con)
        if not found.names:
            raise UsageError(_NO_ROWS)
        columns = whole_columns(found.types)
        if columns is None:
            return found
        with self._saying_what_is_wrong(query):
            self.con.execute(f"CREATE OR REPLACE TEMP VIEW {_ASKED} AS {query}")
            self.con.execute(f"FROM {_ASKED} SELECT {columns}")
        return found._replace(rows=rows_asked(self.con).rows)

    def runs(self) -> duckdb.DuckDBPyRelation:
        """Return all runs, one row each."""
        return self.sql("FROM runs")

    def charges(self) -> duckdb.DuckDBPyRelation:
        """Return all charge lines as runs report them; a charge that several runs report is there several times."""
        return self.sql("FROM charges")

    def credit_ledger(self) -> duckdb.DuckDBPyRelation:
        """Return every credit once: one row a charged resource and product line."""
        return self.sql("FROM credit_ledger")

    def unknown_credits(self) -> duckdb.DuckDBPyRelation:
        """Return the runs whose credits nothing tells, one row each, and why."""
        return self.sql("FROM unknown_credits")

    def answer(self, question: Question) -> duckdb.DuckDBPyRelation:
        """Return the answer to a report's question, worked out at once: of one version of each file (see
        `LakeFiles.ask`). It is held in memory until the lake is closed. Raises as `sql` does, and LakeError where the
        files are being replaced all the while.
        """
        duckdb_core.have_relations()
        return self.con.table(self._worked_out(question))

    def ask(self, name: str, **params: Any) -> Rows:
        """Return the answer to a query of this package, by the name of its file, worked out as by `answer`."""
        from pipeline.reports.questions import Question

        self.con.execute(f"FROM {self._worked_out(Question(read_sql(name), params, is_own=True))}")
        return rows_asked(self.con)

    def rows(self, question: Question) -> list[tuple[Any, ...]]:
        """Return the rows of the answer to a question."""
        return self.con.execute(f"FROM {self._worked_out(question)}").fetchall()

    def from_arrow(self, table: pa.Table) -> duckdb.DuckDBPyRelation:
        """Return a table as a relation."""
        duckdb_core.have_relations()
        return self.con.from_arrow(table)

    def data_as_of(self) -> datetime | None:
        """Return when the API was last asked, by the loads; null where there are none."""
        ((last,),) = self.read("SELECT max(ended_at) AS last FROM loads").rows
        return last if isinstance(last, datetime) else None

    def keep_ledger(self, *, tell: Callable[[str], None] = lambda _message: None) -> None:
        """Work out the credit ledger and keep it beside a large lake, so that questions to it are answered at once.

        Of a small lake, or where the folder cannot be written, nothing is kept: the ledger is worked out each time.
        """
        if self.files.only_days is not None or self._ledger.current() is not None or not self._ledger.is_worthwhile():
            return
        try:
            self._ledger.refresh(tell=tell)
        except (OSError, duckdb_core.Error) as error:
            tell(f"{self._ledger.folder}: the credit ledger cannot be kept ({error}); working it out takes a while")

    def hold(self) -> None:
        """Take the runs and the lines of credits of a small lake into memory, so that each file is read once.

        A large lake is too large for that, and has its ledger kept beside it. A load that lands meanwhile makes the
        views anew: then the questions that follow read the files again.
        """
        if self._ledger.is_worthwhile():
            return
        self._refresh("", with_all=True)
        self.con.execute(read_sql("hold"))
        self._is_held = True

    def newest_day(self) -> tuple[date | None, bool]:
        """Return the newest day that a run was created on, and whether it was over when the API was last asked."""
        stamps = self._ledger.stamps()
        if self._newest is None or self._newest[0] != stamps or self.files.moving_path.exists():
            ((day, fetched_on),) = self.ask("newest_day").rows
            self._newest = (stamps, day, day is not None and fetched_on is not None and fetched_on > day)
        return self._newest[1:]

    def _worked_out(self, question: Question) -> str:
        """Put the answer to a question into a table, and return its name; raise as `answer` does."""
        try:
            self.files.ask(lambda: self._keep(question), may_wait=False)
        except duckdb_core.Error as error:
            self._is_query_wrong = True  # no file is damaged: a value is not what the query takes it for
            raise _unanswerable(error) from error
        return f"{_ANSWERS}.answer_{self._answers}"

    def _keep(self, question: Question) -> None:
        """Put the answer to a question into a table. What DuckDB says of the query is as it says it, but where it is
        clear that no file is the cause.
        """
        self._answers += 1
        table = f"CREATE TABLE {_ANSWERS}.answer_{self._answers} AS {question.query}"
        self.con.execute(f"CREATE SCHEMA IF NOT EXISTS {_ANSWERS}")
        with self._saying_what_is_wrong(question.query, is_own=question.is_own, is_asked=True):
            self._answered(question.query, lambda: self.con.execute(table, question.params or None))

    @contextlib.contextmanager
    def _saying_what_is_wrong(self, query: str, *, is_own: bool = False, is_asked: bool = False) -> Iterator[None]:
        """Make the views that a query names, and say in the user's terms what is wrong where it cannot be answered.

        With `is_asked` the query is worked out here: then an error may be of a file that is being replaced, or damaged.
        """
        self._is_query_wrong, has_views = False, False
        try:
            named = self._refresh(query)
            has_views = True
            if self._is_locked and not is_own:
                check_reads_only(self.con, query)
            if "credit_lines" in named:
                self._hold_credit_lines()
            yield
        except duckdb_core.Error as error:
            # Whoever mistypes a name need not wait until all files are read.
            self._is_query_wrong = has_views and isinstance(error, _WRONG_QUERY)
            if has_views and is_asked and not isinstance(error, (*_WRONG_QUERY, duckdb_core.PermissionException)):
                raise
            if not self._is_query_wrong:
                self.files.raise_damage(footers_only=True)
            raise _unanswerable(error, is_locked=self._is_locked) from error

    def _answered(self, query: str, ask: Callable[[], T]) -> T:
        """Return what a query gives, asked again with all views where it may name one in a way of its own."""
        try:
            return ask()
        except duckdb_core.CatalogException:
            if self._made.issuperset(_VIEWS):
                raise
            self._refresh(query, with_all=True)
            return ask()

    def _refresh(self, query: str, *, with_all: bool = False) -> set[str]:
        """Make the views that a query names, and all anew where what they stand on has changed: the first files, new
        loads, a move under way. Return those that are named. To make all of them takes longer than many a question.

        A kept ledger is only looked at where a query asks for credits, and its lines only read to see whether they are
        whole where one asks for them.
        """
        ledger = self._ledger
        stamps = ledger.stamps()
        is_of_all = with_all or _OF_ALL.search(query) is not None
        self._asks_credits = self._asks_credits or is_of_all or not _OF_FILES.issuperset(_named(query))
        kept = ledger.current(stamps) if self._asks_credits else None
        self._asks_lines = self._asks_lines or any(name in query for name in _OF_LINES)
        lines = kept.lines if kept and self._asks_lines and ledger.are_whole(kept.lines) else None
        self._asked_of = self._state(stamps)
        seen = (bool(stamps), self._asked_of[1], kept, lines)
        named = wanted = set(_VIEWS) if is_of_all else _named(query, kept, lines)
        if seen != self._seen:
            # What was made before too: a relation that was handed out may stand on it.
            wanted = _named("\n".join((*self._made, query)), kept, lines) | named
            self._made, self._held, self._is_held = set(), None, False
        for name in _VIEWS:
            if name in wanted - self._made:
                self._make(name, kept, lines, has_files=bool(seen[0]))
                self._made.add(name)
        self._seen = seen
        if self._is_to_be_locked:
            self._lock_down()
        return named

    def _state(self, stamps: dict[str, Stamp]) -> tuple[dict[str, Stamp], tuple[object, ...]]:
        """Return what changes when a load lands: of the days' files, and of the others."""
        files = self.files
        others = (files.moving_path, files.version_path, files.dead_letters_path, files.loads_folder)
        return stamps, tuple(map(_stamp, others))

    def _make(self, name: str, kept: Kept | None, lines: Sequence[str] | None, *, has_files: bool) -> None:
        files = self.files
        if name == "documented_reasons":
            pairs = "SELECT unnest($kinds) AS kind, unnest($reasons) AS reason"
            self.con.execute(f"CREATE OR REPLACE TABLE {name} AS {pairs}", documented_reasons())
        elif name == "runs":
            create_runs(self.con, files, has_files=has_files)
        elif name == "loads":
            create_view(self.con, name, list(map(str, files.load_paths())), LOADS)
        elif name == "dead_letters":
            letters = [str(files.dead_letters_path)] if files.dead_letters_path.exists() else []
            create_view(self.con, name, letters, DEAD_LETTERS)
        elif name == "credit_lines":
            self._create_view(name, list(lines or []))
        else:
            self._create_view(name, [kept.sums[name]] if kept and name in SUMS else [])

    def _create_view(self, name: str, kept: list[str]) -> None:
        """Make a view of files that have it worked out, else of its own query."""
        query = f"FROM {parquet(kept)}" if kept else read_sql(name)
        self.con.execute(f"CREATE OR REPLACE VIEW {name} AS {query}")

    def _hold_credit_lines(self) -> None:
        """Work out the credit lines of a small lake once, for all questions until its files change."""
        if self._is_held:
            return
        stamps = self._ledger.stamps()
        is_small = sum(size for _, size, _ in stamps.values()) <= _HELD_BYTES
        if not is_small or self.files.moving_path.exists() or self._ledger.current_paths() is not None:
            return
        if stamps != self._held:
            self.con.execute(f"CREATE OR REPLACE TABLE held_credit_lines AS {read_sql('credit_lines')}")
            self.con.execute("CREATE OR REPLACE VIEW credit_lines AS FROM held_credit_lines")
            self._held = stamps

    def _lock_down(self) -> None:
        """Let no query from now on read anything beside the lake's own files, or turn that back on."""
        # Written out: to bind the first value takes DuckDB's Python several milliseconds.
        self.con.execute(
            f"SET allowed_directories = {literal([str(self.files.folder)])}; "
            "SET enable_external_access = false; SET lock_configuration = true"
        )
        self._is_to_be_locked, self._is_locked = False, True


def _named(text: str, kept: Kept | None = None, lines: Sequence[str] | None = None) -> set[str]:
    """Return the views that a query names, and those that these stand on."""
    found: set[str] = set()
    texts = [text]
    while texts:
        text = _COMMENT.sub("", texts.pop()).lower()
        for name in _VIEWS:
            if name in text and name not in found:
                found.add(name)
                is_kept = (kept and name in SUMS) or (lines and name == "credit_lines")
                if not is_kept and name not in _OF_FILES:
                    texts.append(read_sql(name))
    return found


def _unanswerable(error: duckdb_core.Error, *, is_locked: bool = False) -> UsageError:
    barred = is_locked and isinstance(error, duckdb_core.PermissionException)
    return UsageError(f"the query cannot be answered: {error}{_BARRED if barred else ''}")


def _stamp(path: Path) -> object:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return (stat.st_mtime_ns, stat.st_ino, stat.st_size)
