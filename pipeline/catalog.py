"""Ask a lake questions with SQL, through DuckDB over its Parquet files.

The database is in memory and holds views only: a reader never waits for a writer, nor a writer for a reader.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.errors import UsageError
from pipeline.kinds import KINDS
from pipeline.lake import existing_lake
from pipeline.reports import read_sql
from pipeline.schema import DEAD_LETTERS_SCHEMA, LOADS_SCHEMA, RUN_COLUMNS, RUNS_FILE_SCHEMA


class Lake:
    """A lake to ask. `.sql(…)`, `.runs()`, `.charges()`, … give DuckDB relations: `.df()`, `.arrow()`, `.pl()`.

    The views are `runs` (one row a run), `charges` (one row a charge line, as each run reports it), `credit_ledger`
    (every credit once), `loads` and `dead_letters`. Times are UTC. Raises UsageError where there is no lake.

        lake = Lake("data/lake")
        lake.sql("SELECT kind, count(*) FROM runs WHERE status = $status GROUP BY ALL", status="FAILED").df()
    """

    def __init__(self, path: Path | str) -> None:
        self.files = existing_lake(path)
        self.con = duckdb.connect()
        self.con.execute("SET TimeZone = 'UTC'; SET python_enable_replacements = false")
        self.con.register("documented_reasons", _documented_reasons())
        self._seen: tuple[object, ...] | None = None

    def __enter__(self) -> Lake:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the database go; relations taken from it can no longer be asked."""
        self.con.close()

    def sql(self, query: str, **params: Any) -> duckdb.DuckDBPyRelation:
        """Return the answer to a query, its `$name` parameters bound; it is worked out when it is read.

        Raises UsageError with DuckDB's own words where the query is wrong, LakeDamagedError where a file is.
        """
        try:
            self._refresh()
            relation = self.con.sql(query, params=params or None)
        except duckdb.Error as error:
            self.files.raise_damage(footers_only=True)
            raise UsageError(f"the query cannot be answered: {error}") from error
        if relation is None:
            raise UsageError("the query gives no rows; ask with SELECT or FROM")
        return relation

    def runs(self) -> duckdb.DuckDBPyRelation:
        """Return all runs, one row each."""
        return self.sql("FROM runs")

    def charges(self) -> duckdb.DuckDBPyRelation:
        """Return all charge lines as runs report them; a charge that several runs report is there several times."""
        return self.sql("FROM charges")

    def credit_ledger(self) -> duckdb.DuckDBPyRelation:
        """Return every credit once: one row a charged resource and product line."""
        return self.sql("FROM credit_ledger")

    def credits(self) -> duckdb.DuckDBPyRelation:
        """Return credits by day and kind, with the number of runs whose credits are unknown."""
        return self.sql(read_sql("credits"))

    def failures(self) -> duckdb.DuckDBPyRelation:
        """Return failed runs by kind and reason, with the rate and its 95 % Wilson interval."""
        return self.sql(read_sql("failures"))

    def _refresh(self) -> None:
        """Make the views anew where what they stand on has changed: the first files, new loads, a move under way."""
        files = self.files
        seen = (
            bool(files.day_paths()),
            *(_stamp(path) for path in (files.moving_path, files.dead_letters_path, files.loads_folder)),
        )
        if seen == self._seen:
            return
        self._create_runs(bool(seen[0]))
        for name in ("charges", "credit_lines", "credit_ledger", "unknown_credits"):
            self.con.execute(f"CREATE OR REPLACE VIEW {name} AS {read_sql(name)}")
        self._create_view("loads", sorted(map(str, files.loads_folder.glob("*.parquet"))), LOADS_SCHEMA)
        letters = [str(files.dead_letters_path)] if files.dead_letters_path.exists() else []
        self._create_view("dead_letters", letters, DEAD_LETTERS_SCHEMA)
        self._seen = seen

    def _create_view(self, name: str, paths: list[str], schema: pa.Schema) -> None:
        if not paths:
            self.con.register(f"no_{name}", schema.empty_table())
            relation = self.con.table(f"no_{name}")
        else:
            relation = self.con.read_parquet(paths, union_by_name=len(paths) > 1)
        relation.project(", ".join(schema.names)).create_view(name, replace=True)

    def _create_runs(self, has_files: bool) -> None:
        columns = ", ".join(RUN_COLUMNS)
        if has_files:
            glob = str(self.files.runs_folder / "day=*" / "*.parquet")
            stored = self.con.read_parquet(glob, hive_partitioning=False)
        else:
            self.con.register("no_runs", RUNS_FILE_SCHEMA.empty_table())
            stored = self.con.table("no_runs")
        moving = sorted({run_id for run_id, _old, _new in self.files.read_moves()})
        if not moving:
            stored.project(columns).create_view("runs", replace=True)
            return
        # For this moment a run may stand in two files: the row that was written last is the run's.
        stored.create_view("stored_runs", replace=True)
        self.con.register("moving_runs", pa.table({"run_id": moving}))
        settled = self.con.sql("FROM stored_runs ANTI JOIN moving_runs USING (run_id)")
        moved = self.con.sql(
            "FROM stored_runs SEMI JOIN moving_runs USING (run_id) "
            "QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY load_id DESC, created_at NULLS LAST) = 1"
        )
        settled.project(columns).union(moved.project(columns)).create_view("runs", replace=True)


def _stamp(path: Path) -> object:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return (stat.st_mtime_ns, stat.st_ino, stat.st_size)


def _documented_reasons() -> pa.Table:
    pairs = [(kind.object, reason) for kind in KINDS for reason in sorted(kind.failure_reasons)]
    return pa.table({"kind": [kind for kind, _ in pairs], "reason": [reason for _, reason in pairs]})
