"""Forget runs: take every trace of them out of a lake, for good, and show that none is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.at_work import running_loads
from pipeline.catalog import Lake
from pipeline.erased import Erased, read_erased, write_erased
from pipeline.erasure import Swept, sweep
from pipeline.errors import LakeLockedError
from pipeline.lake import LakeFiles
from pipeline.traces import Search, find_traces

Tell = Callable[[str], None]
_WAIT_S = 600.0
_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What forgetting did: how many runs are forgotten, what was taken out, and what a search for them finds now."""

    runs: int
    swept: Swept
    search: Search


def forget_runs(
    lake: LakeFiles,
    run_ids: Iterable[str],
    *,
    tell: Tell = lambda _message: None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    wait_s: float = _WAIT_S,
) -> Forgotten:
    """Take runs out of a lake's tables, raw log, dead letters and kept ledger, and keep them from coming back.

    Where other runs speak of them, in a breakdown say, a pseudonym takes their place. Loads at work may hold them:
    they are waited for, `wait_s` seconds; then LakeLockedError says so. From the first moment on nothing takes these
    runs in, and whatever command comes next finishes what was cut short.
    """
    wanted = sorted(set(run_ids))

    def note() -> tuple[Erased, set[str]]:
        erased = read_erased(lake).with_runs(wanted, now())
        write_erased(lake, erased)
        return erased, running_loads(lake)

    erased, at_work = lake.write(note, tell=tell)
    _wait_for(lake, at_work, tell, wait_s)
    swept = sweep(lake, erased, pruned=False, tell=tell)
    return Forgotten(len(wanted), swept, find_traces(lake, set(wanted).intersection))


def _wait_for(lake: LakeFiles, load_ids: set[str], tell: Tell, wait_s: float) -> None:
    if load_ids:
        tell(f"loads at work may hold these runs; waiting for their end: {', '.join(sorted(load_ids))}")
    deadline = time.monotonic() + wait_s
    while at_work := load_ids & running_loads(lake):
        if time.monotonic() > deadline:
            raise LakeLockedError(
                f"{lake.name}: still at work: load {', '.join(sorted(at_work))}. The runs are noted, and nothing "
                "takes them in any more; when that load has ended, the next command takes them out"
            )
        time.sleep(_POLL_S)


def related_runs(lake: LakeFiles, run_ids: Iterable[str]) -> list[str]:
    """Return other runs of the same files, or that these were made for or used: they may tell of the same documents."""
    if not lake.days():
        return []
    with Lake(lake.folder) as reader:
        found = list(reader.ask("related_runs", run_ids=sorted(set(run_ids))).rows)
    return [run_id for (run_id,) in found]
