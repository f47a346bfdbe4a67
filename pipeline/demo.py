"""Run the whole pipeline on a made-up organization: the embedded default, needing neither key nor network."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TextIO

from pipeline import defaults
from pipeline.catalog import Lake
from pipeline.config import read_connection
from pipeline.credit_summary import forecast_line, write_credits
from pipeline.errors import UsageError
from pipeline.failure_summary import write_failures
from pipeline.fetch import fetch_runs
from pipeline.lake import LakeFiles
from pipeline.loads import LoadResult
from pipeline.progress import Progress, duration
from pipeline.reports.failure_questions import failures_question
from pipeline.reports.questions import Window

_MARK = "made-by-pipeline-demo"
_QPS = 2_000.0
_SHOWN_DAYS = 14
_SHOWN_REASONS = 3


def run_demo(folder: str, *, seed: int, runs: int, progress: Progress, stream: TextIO) -> LoadResult:
    """Pull a sandbox's runs into a lake of the demo's own and report on them; return what came of the load.

    An earlier demo's lake in the folder is made anew. Raises UsageError where the folder holds anything else.
    """
    from pipeline.sandbox.server import serve
    from pipeline.sandbox.world import World

    if not 100 <= runs <= 1_000_000:
        raise UsageError(f"--runs must be from 100 to 1000000, not {runs}")
    if "://" in folder:
        raise UsageError(f"{folder}: the demo's lake is a folder; name one with --lake")
    _clear(Path(folder))
    world = World(seed=seed, runs=runs)
    workspace = world.workspaces[0]
    with serve(world, key=defaults.SANDBOX_KEY) as server:
        stream.write(f"1. A made-up organization is served on {server.base_url}: {runs:,} runs of all kinds.\n")
        connection = read_connection(base_url=server.base_url, env={"EXTEND_API_KEY": server.key})
        run_ids = [*world.run_ids(workspace=workspace), *world.deleted_ids(workspace=workspace)]
        stream.write(f"2. Pulling those of its first workspace by ID, {len(run_ids):,} requests over HTTP …\n")
        stream.flush()
        result = fetch_runs(
            run_ids, lake=folder, qps=_QPS, consume_verify_results=True, connection=connection, progress=progress
        )
    stream.write(
        f"   {result.landed:,} runs landed in {duration(result.seconds)}; {result.missing:,} that were deleted are "
        f"missing, and kept as dead letters; {result.failed:,} did not come.\n\n"
    )
    with Lake(folder) as lake:
        stream.write("3. Credits by day and kind, each credit once (pipeline report credits):\n\n")
        write_credits(lake, lake.credits_question(), stream, last_lines=_SHOWN_DAYS)
        forecast = lake.forecast()
        stream.write(f"{forecast_line(forecast)}\n" if forecast else "")
        stream.write("\n4. Failure rate by kind and reason (pipeline report failures):\n\n")
        question = failures_question(window=Window())
        write_failures(lake, question, stream, most_reasons=_SHOWN_REASONS)
    _write_next_steps(LakeFiles(folder), stream)
    return result


def _clear(folder: Path) -> None:
    if folder.exists():
        if any(folder.iterdir()) and not (folder / _MARK).exists():
            raise UsageError(
                f"{folder}: not the lake of an earlier demo, so it is left alone; name another with --lake"
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / _MARK).touch()


def _write_next_steps(lake: LakeFiles, stream: TextIO) -> None:
    stream.write(
        f"\nThe lake is in {lake.folder}{os.sep}, one Parquet file a day of creation: {len(lake.days()):,} files in "
        f"{lake.runs_folder}{os.sep}.\n"
        "\n"
        "Look around:\n"
        f"  pipeline status --lake {lake.folder}\n"
        f"  pipeline sql 'FROM runs SELECT processor_name, status, count(*) GROUP BY ALL' --lake {lake.folder}\n"
        "\n"
        "With your own key:\n"
        "  export EXTEND_API_KEY=…\n"
        "  pipeline sync\n"
        "  pipeline report credits\n"
    )
