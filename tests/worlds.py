"""Made-up organizations whose runs are of few days, so that landing them rewrites few files and tests stay fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

from pipeline.sandbox.model import CHARGES_FROM, FIRST_DAY, TOTALS_FROM, USAGE_FROM
from pipeline.sandbox.world import World

ERAS = (FIRST_DAY, USAGE_FROM, TOTALS_FROM, CHARGES_FROM)
"""The days from which on the API tells more of the credits."""


def make_squeezed_world(*, seed: int, runs: int, eras: Sequence[date] = ERAS, days: int = 2) -> World:
    """Return a world in which each run came at its time of the day, but on one of the first days of its era.

    Of the eras that are not among `eras` the runs are moved to the first.
    """
    world = World(seed=seed, runs=runs)
    squeeze(world, eras, days=days)
    return world


def make_late_world(*days: date, seed: int, since: date, runs: int = 2_000) -> World:
    """Return a world whose runs before a day were deleted, and the others moved to the last of some days before them.

    Runs from before the first of these days are moved to it.
    """
    world = World(seed=seed, runs=runs)
    world.change(*(replace(run, deleted=True) for run in world.iter_runs() if run.day < since))
    squeeze(world, days, days=1)
    return world


def squeeze(world: World, starts: Sequence[date], *, days: int) -> None:
    """Move each run to one of so many days from the last of these starts that is not after it, else from the first."""
    moved = []
    for run_id in [*world.run_ids(), *world.deleted_ids()]:
        run = world.run(run_id)
        start = max((start for start in starts if start <= run.day), default=starts[0])
        later = start + timedelta(days=run.day.toordinal() % days) - run.day
        files = tuple(replace(file, created_at=file.created_at + later) for file in run.files)
        moved.append(replace(run, created_at=run.created_at + later, updated_at=run.updated_at + later, files=files))
    world.change(*moved)
