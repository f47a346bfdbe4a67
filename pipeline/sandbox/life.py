"""Life in a served world: runs appear, finish, are reviewed and deleted as in a real organization, one event a call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pipeline.kinds import BY_OBJECT

from .build import FAMILIES, Builder
from .model import Run
from .wishes import PROCESSORS, Wish
from .world import World

Ids = tuple[str, ...]

_SEED_SALT = 0x11FE << 64
"""A life may have the seed of its world, and must not draw the IDs that are there already."""
_FINAL = {"PROCESSED": 80.0, "FAILED": 10.0, "CANCELLED": 4.0, "NEEDS_REVIEW": 12.0}
_ODD_SHARE = 0.15
_ODD = {
    **dict.fromkeys(PROCESSORS, ("parse hides usage", "no breakdown", "zero credits", "inline config", "no file",
                                 "legacy billing")),
    "edit_run": ("form detection",),
    "verify_run": ("zero retention", "caused", "no file"),
    "workflow_run": ("no files", "several files", "parse step", "child hides usage", "form detection"),
}  # fmt: skip
"""The odd cases of a world (see `wishes.ODD_CASES`) that new families are made for, too."""
_TRIES = 40


class LiveBuilder(Builder):
    """Make families as their members will be once they have finished; they all come at the time of their head."""

    end = datetime.max.replace(tzinfo=UTC)

    def __init__(self, seed: int, world: World) -> None:
        super().__init__(seed, like=world.builder)

    def family(self, kind: str, at: datetime, *, parsed: Run | None) -> list[Run]:
        """Return a family, its head first; a processor run may reuse the parse run `parsed`."""
        space = self.workspaces[0 if self.dice.chance(0.85) else 1]
        odd = _ODD.get(kind, ())
        tags = frozenset({self.dice.pick(odd)} if odd and self.dice.chance(_ODD_SHARE) else ())
        self._parsed[space.workspace_id] = [parsed] if parsed and parsed.workspace == space.workspace_id else []
        return self._family(Wish(kind, tags=tags), space, at)

    def _draw_status(self, run: Run) -> str:
        return self.dice.weighted(
            [(status, weight) for status, weight in _FINAL.items() if status in run.kind.statuses]
        )

    def _after(self, at: datetime, most_s: int) -> datetime:
        return at


class Life:
    """Change a world while it is served; every event is one change, and returns the IDs of the runs concerned.

    The same seed, world and clock give the same events. Times are `now`, but each later than all before it, and told to
    the microsecond. A world has one life, or lives of different seeds, and a life is led by one thread at a time.
    """

    def __init__(self, world: World, *, seed: int, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.world = world
        self._now = now
        self._last = datetime.min.replace(tzinfo=UTC)
        self._builder = LiveBuilder(seed ^ _SEED_SALT, world)
        self._dice = self._builder.dice
        self._run_ids = world.run_ids()
        self._unfinished: dict[str, Run] = {}
        """The runs of this life that have not finished yet, as they will be."""
        self._below: dict[str, frozenset[str]] = {}
        """What each of these waits for."""
        self._for_review = [run.run_id for run in world.iter_runs(kind="workflow_run") if run.status == "NEEDS_REVIEW"]
        self._own_reviews: set[str] = set()

    @property
    def unfinished(self) -> Ids:
        """The runs that have not finished because of this life, NEEDS_REVIEW ones among them."""
        running = [run_id for run_id in self._unfinished if self.world.find(run_id)]
        waiting = [run_id for run_id in self._for_review if run_id in self._own_reviews and self._awaits_review(run_id)]
        return (*running, *waiting)

    # Events

    def create(self, kind: str | None = None, late_by_s: float = 0) -> Ids:
        """Let a new family of runs appear, none finished: one of this kind (such as `extract_run`), and what it causes.

        Their times are so many seconds ago, as of runs that lists show late. Raises KeyError for an unknown kind.
        """
        kind = BY_OBJECT[kind].object if kind else self._dice.weighted(FAMILIES)
        parsed = self._pick(lambda run: run.kind.object == "parse_run" and run.status == "PROCESSED" and not run.tags)
        made = self._builder.family(kind, self._now(), parsed=parsed)
        family = [self._born(run, late_by_s) for run in made]
        for run in family:
            self._unfinished[run.run_id] = run
            self._below[run.run_id] = _below(run, family)
        self.world.change(*(self._early(run) for run in family))
        self._run_ids += [run.run_id for run in family]
        return tuple(run.run_id for run in family)

    def finish(self) -> Ids:
        """Let an unfinished run of this life finish, or stop for a review; never before the runs that it caused."""
        waiting = {run_id: run for run_id, run in self._unfinished.items() if self.world.find(run_id)}
        self._unfinished = waiting
        ready = [run for run_id, run in waiting.items() if not any(other in waiting for other in self._below[run_id])]
        if not ready:
            return ()
        run = self._dice.pick(ready)
        del self._unfinished[run.run_id], self._below[run.run_id]
        if run.status == "NEEDS_REVIEW":
            self._for_review.append(run.run_id)
            self._own_reviews.add(run.run_id)
        return self._change(run)

    def review(self) -> Ids:
        """Let somebody review a processed run of a processor, or decide on a workflow run that waits for that."""
        self._for_review = [run_id for run_id in self._for_review if self._awaits_review(run_id)]
        if self._for_review and self._dice.chance(0.4):
            return self._decide(self._dice.pick(self._for_review))
        run = self._pick(lambda run: run.kind.object in PROCESSORS and run.status == "PROCESSED")
        if run is None:
            return self._decide(self._for_review[0]) if self._for_review else ()
        return self._change(replace(run, reviewed=True, edited=run.edited or self._dice.chance(0.5)))

    def delete(self) -> Ids:
        """Let somebody delete a run, finished or not: by ID it answers 404, and no list shows it."""
        run = self._pick(lambda run: True)
        if run is None:
            return ()
        self._unfinished.pop(run.run_id, None)
        self._below.pop(run.run_id, None)
        self.world.change(replace(run, deleted=True))
        return (run.run_id,)

    def step(self) -> Ids:
        """Let something happen: one of the above; where there is nothing for it to happen to, a family appears."""
        events: tuple[tuple[Callable[[], Ids], float], ...] = (
            (self.create, 3.0), (self.finish, 7.0), (self.review, 1.0), (self.delete, 0.5),
        )  # fmt: skip
        return self._dice.weighted(events)() or self.create()

    def settle(self) -> Ids:
        """Finish everything that is unfinished because of this life, reviews too; return the IDs in that order."""
        settled: list[str] = []
        while finished := self.finish():
            settled += finished
        for run_id in self.unfinished:
            settled += self._decide(run_id)
        return tuple(settled)

    # How

    def _born(self, run: Run, late_by_s: float) -> Run:
        """Return the run as it will be in the end, but for the time of its last change."""
        at = self._tick() - timedelta(seconds=late_by_s)
        return replace(run, created_at=at, updated_at=at, precision=6, live=True, reviewed=False, edited=False)

    def _early(self, run: Run) -> Run:
        status = self._dice.pick([name for name in run.kind.statuses if name in ("PENDING", "PROCESSING")])
        steps = () if status == "PENDING" else run.steps
        return replace(run, status=status, steps=steps, charges=None, failure_reason=None, failure_message=None)

    def _decide(self, run_id: str) -> Ids:
        self._for_review.remove(run_id)
        status = "PROCESSED" if self._dice.chance(0.75) else "REJECTED"
        return self._change(replace(self.world.run(run_id), status=status, reviewed=True))

    def _awaits_review(self, run_id: str) -> bool:
        run = self.world.find(run_id)
        return run is not None and run.status == "NEEDS_REVIEW"

    def _change(self, run: Run) -> Ids:
        self.world.change(replace(run, updated_at=self._tick(), updated_precision=6))
        return (run.run_id,)

    def _tick(self) -> datetime:
        self._last = max(self._now(), self._last + timedelta(microseconds=1))
        return self._last

    def _pick(self, fits: Callable[[Run], bool]) -> Run | None:
        """Return one of the existing runs that fit, or None. Most often a few tries find one without a look at all."""
        for _ in range(_TRIES if self._run_ids else 0):
            run = self.world.find(self._dice.pick(self._run_ids))
            if run is not None and fits(run):
                return run
        self._run_ids = [run_id for run_id in self._run_ids if self.world.find(run_id)]
        fitting = [run for run_id in self._run_ids if (run := self.world.find(run_id)) and fits(run)]
        return self._dice.pick(fitting) if fitting else None


def _below(run: Run, family: Iterable[Run]) -> frozenset[str]:
    """Return the members of the family that must finish before this one: those that it caused, or works on."""
    return frozenset(
        other.run_id
        for other in family
        if other is not run and (other.run_id in (*run.caused, run.parse_run_id) or other.workflow_run_id == run.run_id)
    )


@contextmanager
def living(world: World, *, seed: int, events_a_second: float) -> Iterator[Life]:
    """Let so many events a second, more than 0, happen in a thread of their own until the block ends."""
    life, stop = Life(world, seed=seed), threading.Event()

    def live() -> None:
        due = time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            life.step()
            due = max(due + 1 / events_a_second, time.monotonic() - 1)  # after a long stop, catch up on a second only

    thread = threading.Thread(target=live, name="sandbox life", daemon=True)
    thread.start()
    try:
        yield life
    finally:
        stop.set()
        thread.join(timeout=10)
