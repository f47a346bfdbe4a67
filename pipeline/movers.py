"""Find the runs that the lake, or what is being landed, has under more than one day.

A run's day may become better known: its file's date stands for it until a payload tells when the run was made.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from pipeline.holding import Wanted, among, hash_ids
from pipeline.lake import LakeFiles
from pipeline.staging import Staging

RunsByDay = dict[str, list[str]]


def find_movers(lake: LakeFiles, staging: Staging) -> tuple[RunsByDay, RunsByDay]:
    """Return the IDs of such runs, by the days that they are staged for, and by the lake's days that hold them.

    Hashes of run IDs, eight bytes a run, tell where to look; the IDs themselves decide.
    """
    stored: dict[str, set[str]] = defaultdict(set)
    for day in lake.days_of(staging.wanted):
        for run_id in staging.wanted.elsewhere(day, lake.read_run_ids(day)):
            stored[run_id].add(day)
    suspects = np.union1d(staging.wanted.hashes_of_several_days(), hash_ids(stored))
    staged: dict[str, set[str]] = defaultdict(set)
    for day in staging.wanted.days_of(suspects):
        for run_id in among(staging.read_day(day)["run_id"].to_pylist(), suspects):
            staged[run_id].add(day)
    movers = {run_id: days for run_id, days in staged.items() if len(days | stored.get(run_id, set())) > 1}
    return _by_day(movers), _stored(lake, list(movers))


def _by_day(movers: dict[str, set[str]]) -> RunsByDay:
    by_day: RunsByDay = defaultdict(list)
    for run_id, days in sorted(movers.items()):
        for day in days:
            by_day[day].append(run_id)
    return by_day


def _stored(lake: LakeFiles, movers: list[str]) -> RunsByDay:
    """Return by day which of the runs the lake has, those under the day that they are staged for included."""
    wanted = Wanted()
    wanted.add(movers, [None] * len(movers))
    looked_for = set(movers)
    found = {day: looked_for.intersection(lake.read_run_ids(day)) for day in lake.days_of(wanted)}
    return {day: sorted(run_ids) for day, run_ids in found.items() if run_ids}
