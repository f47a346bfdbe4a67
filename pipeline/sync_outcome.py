"""What became of a sync, beside what was planned, and what is still inferred of credits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from pipeline.errors import ListError
from pipeline.kinds import Kind
from pipeline.lake import LakeFiles
from pipeline.loads import LoadResult
from pipeline.needs import Database, Needs, count_in_parts
from pipeline.sync_plan import KindPlan


@dataclass(slots=True)
class KindOutcome:
    """What became of one kind: pages read, runs listed on them, how many of those were new or changed; runs asked for
    by ID, and how many of them are gone. `error` is why its list was not walked to where it should, null where it was.
    """

    plan: KindPlan
    pages: int = 0
    listed: int = 0
    changed: int = 0
    by_id: int = 0
    gone: int = 0
    error: ListError | None = None
    is_removed: bool = False


@dataclass(slots=True)
class WorkspaceOutcome:
    """What became of one workspace. `load` is null where it could not begin; `error` is why it did not come to its end.

    `needs` is what had to be asked for by ID before anything was walked, as the lake was at `needed_at`. `inferred`
    counts charges that are known as the rest of a total alone; null where nothing landed, so none changed.
    """

    workspace_id: str | None
    kinds: dict[Kind, KindOutcome]
    needs: Needs
    needed_at: datetime | None = None
    load: LoadResult | None = None
    error: str | None = None
    is_refused_by_disk: bool = False
    inferred: int | None = None

    @property
    def has_asked(self) -> bool:
        """Whether anything came: a page, or a run by ID."""
        return any(kind.pages or kind.by_id for kind in self.kinds.values())

    @property
    def is_complete(self) -> bool:
        """Whether everything that was to be brought is in the lake."""
        kinds_ok = all(kind.error is None for kind in self.kinds.values())
        return self.error is None and kinds_ok and self.load is not None and not self.load.failed


def count_inferred(lake: LakeFiles, workspace_id: str | None, *, tell: Callable[[str], None]) -> int:
    """Return how many charges of a workspace are known as the rest of a total alone, and keep a large lake's ledger."""
    from pipeline.ledger import LedgerFiles  # here and not above: a sync with nothing new does without

    if not LedgerFiles(lake).is_worthwhile():
        with Database(lake) as database:
            return count_in_parts(database, workspace_id)
    from pipeline.catalog import Lake

    with Lake(lake.folder) as catalog:
        catalog.keep_ledger(tell=tell)
        (row,) = catalog.ask("sync_inferred", workspace=workspace_id).rows
    return int(row[0])
