"""Open a lake by the name that the user gave it: a folder, or the URL of a bucket."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.lake import LakeFiles

Choose = Callable[[list[str]], Collection[str]]
"""Given all days that have a file, `unknown` last, those that a question needs."""


def open_lake(place: Path | str, *, choose: Choose | None = None) -> LakeFiles:
    """Return the lake in a folder or a bucket, which need not be there yet.

    A bucket's is then here as of this moment; opened again, as of that one. A mirror's own folder is taken as it is.
    With `choose`, the lake has of a bucket's days only those chosen, if it can be had so.
    """
    lake = LakeFiles(place)
    if lake.mirror is not None and lake.folder != Path(place):
        lake.make_folder()
        lake.only_days = lake.mirror.pull_days(choose) if choose else None
        if lake.only_days is None:
            lake.mirror.pull()
        lake.mirror.let_go(lambda: [log.path for log in lake.unlanded_logs()])
    return lake


def existing_lake(place: Path | str, *, choose: Choose | None = None) -> LakeFiles:
    """Return the lake in a folder or a bucket, as `open_lake`; raise UsageError where there is none yet."""
    lake = open_lake(place, choose=choose)
    if not any(path.exists() for path in (lake.runs_folder, lake.raw_folder, lake.loads_folder)):
        raise UsageError(
            f"{lake.name}: no lake here; fill one with `pipeline fetch`, or try `pipeline demo`, "
            "or name another folder with --lake"
        )
    return lake
