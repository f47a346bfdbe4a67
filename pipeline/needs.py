"""What a sync asks its lake: which runs must be asked for by ID, since their summaries cannot give all or no list shows
them, and how many charges are inferred.

Asked of the lake itself, so it is the same for what a sync has just landed and for what others have.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from pipeline import duckdb_core
from pipeline.erased import is_pseudonym
from pipeline.kinds import FINISHED, KINDS, Kind, kind_of
from pipeline.reports import read_sql
from pipeline.schema import DEAD_LETTERS, RUN_COLUMNS
from pipeline.views import create_runs, create_view, parquet

if TYPE_CHECKING:
    from pipeline.lake import LakeFiles

Level = Literal["none", "credits", "all"]
LEVELS: tuple[Level, ...] = ("none", "credits", "all")

YOUNG = timedelta(days=1)
"""Unfinished runs that no list shows reliably are asked for at each sync until they are this old, then once a day."""

_TOTALS_ALONE = 50_000
"""So many runs that tell a total alone are looked at at once: for each, what else is told takes half a kilobyte."""

_SLACK = timedelta(seconds=2)  # a file's time may be a little behind the clock


@dataclass(frozen=True, slots=True)
class Needs:
    """The IDs to ask for: for their details, because they were found in a breakdown, because they were not finished."""

    details: tuple[str, ...] = ()
    found: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.details) + len(self.found) + len(self.unfinished)

    def run_ids(self) -> list[str]:
        """Return all of them."""
        return [*self.details, *self.found, *self.unfinished]


class Database:
    """A lake to put these questions to; the database is made with the first one that is not answered without.

    Not a `catalog.Lake`, whose views of credits take longer to make than these questions take to answer.
    """

    def __init__(self, files: LakeFiles) -> None:
        self.files = files
        self._con: duckdb_core.DuckDBPyConnection | None = None

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        if self._con is not None:
            self._con.close()

    @property
    def con(self) -> duckdb_core.DuckDBPyConnection:
        """The database; to make one takes longer than a question."""
        if self._con is None:
            self._con = duckdb_core.connect()
            self._con.execute("SET TimeZone = 'UTC'")
        return self._con


def find_needs(
    database: Database,
    workspace_id: str | None,
    *,
    level: Level,
    kinds: Collection[Kind],
    searched_at: datetime | None,
    now: datetime,
) -> Needs:
    """Return what a workspace's runs lack, among those that landed since `searched_at` (null: among all)."""
    # What did not come lately may stand in any file.
    is_settled = all(reason == "NOT_FOUND" for reason in database.files.read_dead_letters()["reason"].to_pylist())
    rows = _ask(
        database,
        "sync_needs",
        kinds,
        searched_at if is_settled else None,
        level=level,
        unlisted=[kind.object for kind in KINDS if not kind.listed],
        workspace=workspace_id,
        now=now.isoformat(),
    )
    details = tuple(sorted(run_id for run_id, why in rows if why == "details"))
    # A breakdown is text from outside: an entry's `object` does not make its ID one of that kind.
    found = tuple(sorted(run_id for run_id, why in rows if why == "found" and _is_unlisted(run_id)))
    return Needs(details, found)


def _is_unlisted(run_id: str) -> bool:
    kind = kind_of(run_id)
    return kind is not None and not kind.listed and not is_pseudonym(run_id)


def find_unfinished(
    database: Database,
    workspace_id: str | None,
    *,
    kinds: Collection[Kind],
    created_since: datetime | None,
    heard_before: datetime,
) -> tuple[str, ...]:
    """Return the runs of some kinds that were not finished when last heard of, before a time; never a verify run."""
    since = None if created_since is None else created_since.astimezone(UTC).isoformat()
    # A run created since then landed since then.
    rows = _ask(
        database,
        "sync_unfinished",
        kinds,
        created_since,
        workspace=workspace_id,
        since=since,
        heard_before=heard_before.isoformat(),
    )
    return tuple(run_id for (run_id,) in rows)


def count_in_parts(database: Database, workspace_id: str | None) -> int:
    """Return how many charges of a workspace are known as the rest of a total alone; memory holds a part at a time."""
    files = database.files

    def ask() -> int:
        con = database.con
        create_runs(con, files, has_files=bool(files.days()))
        ((alone,),) = con.execute(read_sql("sync_totals_alone")).fetchall()
        inferred, parts = 0, -(-alone // _TOTALS_ALONE)
        for part in range(parts):
            asked = {"parts": parts, "part": part, "workspace": workspace_id}
            ((count,),) = con.execute(read_sql("sync_inferred_part"), asked).fetchall()
            inferred += count
        return inferred

    return files.ask(ask, may_wait=False)


def _ask(
    database: Database, name: str, kinds: Collection[Kind], changed_since: datetime | None, **params: object
) -> list[tuple[str, ...]]:
    """Ask a query about the kinds that may be read by ID, with the view `changed` of the days that changed since."""
    files = database.files
    days = files.days() if changed_since is None else files.days_changed_since(changed_since - _SLACK)
    readable = [kind.object for kind in kinds if not kind.reading_can_destroy]
    if not days or not readable:
        return []
    paths = [str(files.day_path(day)) for day in days]
    params |= {"kinds": readable, "finished": sorted(FINISHED)}

    def ask() -> list[tuple[str, ...]]:
        _create_views(database.con, files, paths)
        return database.con.execute(read_sql(name), params).fetchall()

    return files.ask(ask, may_wait=False)


def _create_views(con: duckdb_core.DuckDBPyConnection, files: LakeFiles, changed: list[str]) -> None:
    create_runs(con, files, has_files=True)
    letters = [str(files.dead_letters_path)] if files.dead_letters_path.exists() else []
    create_view(con, "dead_letters", letters, DEAD_LETTERS)
    # Files of an earlier version lack columns.
    rows = f"FROM {parquet(changed)} SELECT {', '.join(RUN_COLUMNS)}" if files.is_current() else "FROM runs"
    con.execute(f"CREATE OR REPLACE VIEW changed AS {rows}")
