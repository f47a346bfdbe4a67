"""The made-up organization: all its runs, what the API answers about each, and what a pipeline should find.

A world is made from a seed: the same seed and number of runs give the same world on every machine. It is the one
place that holds the sandbox's state, so runs may be added, changed or removed while it is being served.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from typing import Any

from pipeline.kinds import Kind

from .answers import Answers, Known, work_out
from .build import build
from .model import Batch, Run
from .payloads import render_detail, render_summary

Payload = dict[str, Any]


class World:
    """A made-up organization with exactly `runs` existing runs.

    From 500 runs on it holds every case of the API, from 2,000 on every documented failure reason as well.

    `version` grows with every change made through `change`, and `changed_since` tells what changed after a version, so
    that whatever was derived from the runs can follow them. `builder` made the world, and can be taken after.
    """

    def __init__(self, seed: int = 7, runs: int = 5000) -> None:
        self.builder, made = build(seed, runs)
        self.seed = seed
        self.workspaces: tuple[str, ...] = tuple(space.workspace_id for space in self.builder.workspaces)
        self._runs: dict[str, Run] = {run.run_id: run for run in made}
        self._batches: dict[str, Batch] = self.builder.batches
        self._changes: list[tuple[str, ...]] = []
        self._purged: set[str] = set()
        self.lock = threading.RLock()
        """Held while an answer is made and while a run is changed, so that no answer shows half of a change."""

    # Looking at it

    def iter_runs(self, workspace: str | None = None, kind: str | None = None) -> Iterator[Run]:
        """Yield the existing runs of one workspace and one kind (`classify_run`) if these are given.

        They come oldest first, and those that were added later at the end. A change meanwhile is not seen.
        """
        for run in list(self._runs.values()):
            if not run.deleted and workspace in (None, run.workspace) and kind in (None, run.kind.object):
                yield run

    def run_ids(self, workspace: str | None = None, kind: str | None = None) -> list[str]:
        """Return the IDs of the existing runs, as `iter_runs` yields them."""
        return [run.run_id for run in self.iter_runs(workspace, kind)]

    def deleted_ids(self, workspace: str | None = None) -> list[str]:
        """Return the IDs of runs that were deleted: by ID they answer 404, and no list shows them."""
        return [run.run_id for run in list(self._runs.values()) if run.deleted and workspace in (None, run.workspace)]

    def tagged_ids(self, tag: str) -> list[str]:
        """Return the IDs of the runs, deleted ones too, of families made for this odd case (see `wishes.ODD_CASES`)."""
        return [run.run_id for run in list(self._runs.values()) if tag in run.tags]

    def find(self, run_id: str, kind: Kind | None = None) -> Run | None:
        """Return the run as the service knows it; None where it does not exist, was deleted, or is of another kind."""
        run = self._runs.get(run_id)
        if run is None or run.deleted or (kind is not None and run.kind is not kind):
            return None
        return run

    def run(self, run_id: str) -> Run:
        """Return the run as the service knows it, a deleted one too; KeyError where there never was one."""
        return self._runs[run_id]

    def detail(self, run_id: str, response_type: str | None = None) -> Payload:
        """Return the by-ID payload, without the purge that a first read of some verify runs brings; KeyError if none.

        A parse run's `output` can be tens of megabytes: `response_type` `url` gives a link instead.
        """
        with self.lock:
            return render_detail(self._runs[run_id], self._runs, response_type=response_type)

    def summary(self, run_id: str) -> Payload:
        """Return the run as its list endpoint shows it; KeyError where there never was one."""
        with self.lock:
            return render_summary(self._runs[run_id], self._runs, purged=run_id in self._purged)

    def batch(self, batch_id: str, workspace: str) -> tuple[Batch, int] | None:
        """Return a batch of that workspace with the number of its runs, deleted ones too, or None."""
        batch = self._batches.get(batch_id)
        if batch is None or batch.workspace != workspace:
            return None
        return batch, sum(run.batch_id == batch_id for run in list(self._runs.values()))

    @property
    def batch_ids(self) -> list[str]:
        """The IDs of all batches, in a fixed order."""
        return list(self._batches)

    def answers(
        self, workspace: str | None = None, *, known: Known = "detail", run_ids: Collection[str] | None = None
    ) -> Answers:
        """Return what a pipeline should find that read every existing run of the workspace (or of the organization).

        `known` is `detail` where all were read by ID and nothing else (verify runs too, once), and `both` where the
        list endpoints' summaries were read as well. `run_ids` are the runs that were read, where not all were: those
        of them that do not exist count for nothing.
        """
        chosen = None if run_ids is None else set(run_ids)
        with self.lock:
            runs = dict(self._runs)
        read = [
            run
            for run in runs.values()
            if not run.deleted and workspace in (None, run.workspace) and (chosen is None or run.run_id in chosen)
        ]
        return work_out(read, runs, known)

    # Changing it

    def take(self, run_id: str) -> bool:
        """Return whether the result of this run can still be delivered; a zero-retention one is so only once."""
        run = self._runs[run_id]
        if not run.zero_retention or run.status != "PROCESSED":
            return True
        with self.lock:
            first = run_id not in self._purged
            self._purged.add(run_id)
        return first

    @property
    def version(self) -> int:
        """How many changes there were."""
        return len(self._changes)

    def changed_since(self, version: int) -> set[str]:
        """Return the IDs of the runs that were added or changed after that version."""
        return {run_id for change in self._changes[version:] for run_id in change}

    def change(self, *runs: Run) -> None:
        """Add these runs, or put them in place of the ones with their IDs; from now on they are served.

        Any thread may. A run that is being served is to be replaced by a changed copy, not changed itself, or an answer
        that is being made could show half of the change.
        """
        changed = {run.run_id: run for run in runs}
        with self.lock:
            self._runs.update(changed)  # in place: a copy of 100,000 runs would cost more than an answer
            self._changes.append(tuple(changed))


__all__ = ["Answers", "World"]
