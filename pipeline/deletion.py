"""Mark runs that the API has no more: the row stays as it was, with the time at which that was said.

Only a plain NOT_FOUND counts, asked for in the workspace that the row is of: a proxy's 404, or another workspace's,
says nothing about the run. Nor does it for a kind whose result is purged when it is read.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import holding
from pipeline.arrow_schemas import TIME
from pipeline.day_files import StoredDay, packed_day
from pipeline.kinds import KINDS
from pipeline.lake import LakeFiles

if TYPE_CHECKING:
    import duckdb

_PURGED_KINDS = [kind.object for kind in KINDS if kind.reading_can_destroy]
_MISSING = """
    SELECT run_id, workspace_id, max(failed_at) AS failed_at
    FROM (FROM letters SEMI JOIN staged USING (run_id) UNION ALL BY NAME FROM failures)
    WHERE reason = 'NOT_FOUND' AND kind NOT IN (SELECT unnest($purged))
    GROUP BY ALL
"""
_GONE = """
    SELECT
        missing.run_id,
        missing.failed_at,
        regexp_extract(landed.filename, 'day=([^/\\\\]+)', 1) AS day,
        landed.deleted_at IS NULL OR landed.deleted_at < missing.failed_at AS is_news
    FROM missing
    INNER JOIN landed
        ON landed.run_id = missing.run_id
        AND landed.workspace_id IS NOT DISTINCT FROM missing.workspace_id
        AND landed.fetched_at < missing.failed_at
"""


def mark_deleted(lake: LakeFiles, con: duckdb.DuckDBPyConnection) -> None:
    """Mark the lake's rows of runs that were found to be gone; the view `gone` then has the IDs of all such.

    Stands on the views `letters` (the lake's dead letters), `staged` and `failures` (what is being landed), and on the
    files being as the landing left them.
    """
    missing = con.sql(_MISSING, params={"purged": _PURGED_KINDS}).to_arrow_table()
    con.register("missing", missing)
    wanted = holding.Wanted()
    wanted.add(missing["run_id"].to_pylist(), [None] * len(missing))
    paths = [str(lake.day_path(day)) for day in lake.days_of(wanted)]
    if not paths:
        con.execute("CREATE TEMP VIEW gone AS SELECT NULL::VARCHAR AS run_id WHERE false")
        return
    con.read_parquet(paths, filename=True, hive_partitioning=False).create_view("landed")
    found = con.execute(_GONE).fetchall()
    con.register("gone", pa.table({"run_id": pa.array([run_id for run_id, *_ in found], pa.string())}))
    by_day: dict[str, dict[str, datetime]] = defaultdict(dict)
    for run_id, failed_at, day, is_news in found:
        if is_news:
            by_day[day][run_id] = failed_at
    for day, times in by_day.items():
        stored = StoredDay(lake.day_path(day))
        parts = (_marked(part, times) for part in stored.iter_parts())
        lake.write_packed_day(day, packed_day(parts, stored.run_ids))


def _marked(table: pa.Table, times: dict[str, datetime]) -> pa.Table:
    position = table.column_names.index("deleted_at")
    places = pc.index_in(table["run_id"], value_set=pa.array(list(times), pa.string()))
    told = pc.take(pa.array(list(times.values()), TIME), places.combine_chunks())
    field = table.schema.field(position)
    return table.set_column(position, field, pc.coalesce(told, table["deleted_at"].combine_chunks()))
