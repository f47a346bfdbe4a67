"""Bring the files of a lake that an earlier version wrote up to date."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline import durable, sealed
from pipeline.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from pipeline.lake import LakeFiles


def bring_up_to_date(lake: LakeFiles, *, tell: Callable[[str], None]) -> None:
    """Write all files of an earlier version as this one does; what they cannot know is null. The caller has the lock.

    Where this is cut short, some files are as they were and some as they will be: readers take both until the version
    is noted, which comes last, and the next writer begins anew.
    """
    if not lake.is_current():
        _rewrite(lake, tell)
    elif lake.version_path.exists():
        return
    if lake.mirror is None and durable.is_read_by_others(lake.folder):
        tell(
            f"{lake.folder}: others on this machine may read this folder, and so what is kept in it; "
            f"if that is not meant: chmod -R go-rwx {shlex.quote(str(lake.folder))}"
        )
    durable.write_file(lake.version_path, sealed.note_bytes({"schema": SCHEMA_VERSION}))


def _rewrite(lake: LakeFiles, tell: Callable[[str], None]) -> None:
    # Here, since who only reads a lake does without.
    import pyarrow as pa

    from pipeline import sealed_parquet
    from pipeline.arrow_schemas import LOADS_SCHEMA
    from pipeline.sync_state import seal_states

    days = lake.days()
    tell(f"{lake.name}: an earlier version wrote this lake; bringing its {len(days):,} day files up to date")
    for day in days:
        lake.write_day(day, lake.read_day(day))
    for path in lake.load_paths():
        rows = sealed_parquet.read_table(path, LOADS_SCHEMA).to_pylist()
        rows = [row | {"raw_sha256": lake.raw_sha256(row, row, None)} for row in rows]
        durable.write_file(path, sealed_parquet.parquet_bytes(pa.Table.from_pylist(rows, schema=LOADS_SCHEMA)))
    if lake.dead_letters_path.exists():
        lake.write_dead_letters(lake.read_dead_letters())
    durable.remove_file(lake.folder / "odd_days.json")  # what it told, the day files tell now
    lake.write_moves(lake.read_moves())
    seal_states(lake)
    import shutil  # here, since only an upgrade needs it

    shutil.rmtree(lake.folder / "ledger", ignore_errors=True)  # it was of the files as they were
