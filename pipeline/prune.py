"""Prune a lake: take out runs made longer ago than they are to be kept, or their payloads alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date

from pipeline.erased import Erased, read_erased, write_erased
from pipeline.erasure import Swept, expire_payloads, sweep
from pipeline.expiry import Expiry
from pipeline.lake import LakeFiles
from pipeline.traces import Search, find_traces

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Pruned:
    """What pruning did: the day before which runs are gone, what was taken out, and what a search finds now."""

    before: date
    swept: Swept
    search: Search


def prune_runs(lake: LakeFiles, before: date, *, raw_only: bool = False, tell: Tell = lambda _message: None) -> Pruned:
    """Take out of a lake the runs made before a day (UTC), or with `raw_only` their payloads alone.

    A run of which the API never told when it was made counts as made when it was last received. Runs made before that
    day are not taken in any more, until a prune with an earlier day; logs of loads at work are left for the next prune.
    """
    due = Expiry(lake, before, keeps_rows=True)
    logs = {path for path in lake.fetch_logs() if due.is_due(path, read_erased(lake).oldest)}
    if raw_only:
        swept = Swept()
        expire_payloads(lake, due, swept, tell=tell)
    else:

        def note() -> Erased:
            erased = replace(read_erased(lake), pruned_before=before, unfinished=True)
            write_erased(lake, erased)
            return erased

        swept = sweep(lake, lake.write(note, tell=tell), forgotten=False, tell=tell)
    busy = {path for path in logs if path.name.split(".")[0] in swept.busy}
    search = find_traces(lake, lambda _ids: set(), before=before, logs=logs - busy, payloads_only=raw_only)
    return Pruned(before, swept, search)
