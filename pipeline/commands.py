"""What each command of the command line does."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from pipeline.errors import UsageError
from pipeline.progress import Progress, duration, open_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TextIO

    import duckdb

    from pipeline.catalog import Lake
    from pipeline.config import Connection
    from pipeline.fetch import FetchOptions, Plan
    from pipeline.ids import FoundId
    from pipeline.lake import LakeFiles
    from pipeline.loads import LoadResult

SOME_DID_NOT_LAND = 3


def run_demo(arguments: argparse.Namespace) -> int:
    """Run the whole pipeline against the sandbox."""
    from pipeline.demo import run_demo as run

    with _progress(quiet=arguments.quiet) as progress:
        run(arguments.lake, seed=arguments.seed, runs=arguments.runs, progress=progress, stream=sys.stdout)
    return 0


def run_fetch(arguments: argparse.Namespace) -> int:
    """Pull runs by ID."""
    from pipeline.ids import iter_ids

    if not arguments.ids and arguments.source is None:
        raise UsageError("no IDs; name some, or a file of them: pipeline fetch --from ids.txt")
    found = iter_ids(arguments.ids, arguments.source, column=arguments.column)
    names = {None: "arguments", "-": "standard input"}
    source = names.get(arguments.source, arguments.source)
    return _fetch(
        arguments, found, command="fetch", source=source, refresh=arguments.refresh, dry_run=arguments.dry_run
    )


def run_retry(arguments: argparse.Namespace) -> int:
    """Ask again for the dead letters."""
    from pipeline.ids import FoundId
    from pipeline.lake import existing_lake
    from pipeline.loads import recover

    lake = existing_lake(arguments.lake)
    connection = _connection(arguments)
    recover(lake, tell=_warn)
    letters = lake.read_dead_letters()
    found: list[FoundId] = []
    elsewhere: dict[str, int] = {}
    for run_id, workspace_id in zip(*(letters[name].to_pylist() for name in ("run_id", "workspace_id")), strict=True):
        if workspace_id == connection.workspace_id:
            found.append(FoundId(run_id, f"dead letter {len(found) + 1}"))
        else:
            elsewhere[workspace_id or ""] = elsewhere.get(workspace_id or "", 0) + 1
    for workspace_id, count in sorted(elsewhere.items()):
        _warn(
            f"{count:,} dead letters are of workspace {workspace_id}: pipeline retry --workspace {workspace_id}"
            if workspace_id
            else f"{count:,} dead letters are of a workspace key: pipeline retry without a workspace"
        )
    return _fetch(arguments, found, command="retry", source="dead letters", refresh=True)


def run_load(arguments: argparse.Namespace) -> int:
    """Land saved payloads."""
    from pipeline.lake import LakeFiles
    from pipeline.replay import load_files

    with _progress(quiet=arguments.quiet) as progress:
        result = load_files(
            arguments.files,
            LakeFiles(arguments.lake),
            workspace_id=arguments.workspace,
            keep_raw=not arguments.no_raw,
            report=lambda place, why: progress.tell(f"{place}: {why}"),
            progress=progress,
        )
    return _conclude(arguments, result)


def run_rebuild(arguments: argparse.Namespace) -> int:
    """Make the lake anew from its raw log."""
    from pipeline.lake import existing_lake
    from pipeline.rebuild import rebuild_lake

    done = rebuild_lake(existing_lake(arguments.lake), tell=_warn)
    if not arguments.quiet:
        logs = f"{done.logs:,} {'log' if done.logs == 1 else 'logs'}"
        kept = f"; {done.kept:,} that no log holds kept" if done.kept else ""
        print(f"{done.runs:,} runs made anew from {logs}, {done.unchanged:,} of them as they were{kept}")
    return 0


def run_report_credits(arguments: argparse.Namespace) -> int:
    """Print credits by day and kind."""
    from pipeline.catalog import Lake
    from pipeline.summaries import write_credits

    return _report(arguments, Lake.credits, write_credits)


def run_report_failures(arguments: argparse.Namespace) -> int:
    """Print failures by kind and reason."""
    from pipeline.catalog import Lake
    from pipeline.summaries import write_failures

    return _report(arguments, Lake.failures, write_failures)


def _report(
    arguments: argparse.Namespace,
    ask: Callable[[Lake], duckdb.DuckDBPyRelation],
    write_summary: Callable[[Lake, TextIO], None],
) -> int:
    from pipeline.catalog import Lake
    from pipeline.render import write_relation

    with Lake(arguments.lake) as lake:
        if arguments.format == "table":
            write_summary(lake, sys.stdout)
        else:
            write_relation(ask(lake), format=arguments.format, stream=sys.stdout)
    return 0


def run_sql(arguments: argparse.Namespace) -> int:
    """Answer a query."""
    from pipeline.catalog import Lake
    from pipeline.render import write_relation

    query = sys.stdin.read() if arguments.query == "-" else arguments.query
    with Lake(arguments.lake) as lake:
        write_relation(lake.sql(query), format=arguments.format, stream=sys.stdout)
    return 0


def run_status(arguments: argparse.Namespace) -> int:
    """Say what the lake has."""
    from pipeline.catalog import Lake
    from pipeline.summaries import write_status

    with Lake(arguments.lake) as lake:
        write_status(lake, sys.stdout)
    return 0


def run_sandbox(arguments: argparse.Namespace) -> int:
    """Serve a made-up organization until Ctrl-C."""
    from pipeline.sandbox.server import serve_forever

    serve_forever(
        port=arguments.port,
        seed=arguments.seed,
        runs=arguments.runs,
        key=arguments.key,
        limit_qps=arguments.limit,
        fault_share=arguments.faults,
    )
    return 0


def _fetch(
    arguments: argparse.Namespace,
    found: Iterable[FoundId],
    *,
    command: str,
    source: str,
    refresh: bool,
    dry_run: bool = False,
) -> int:
    from pipeline.fetch import FetchOptions, fetch_planned, plan_fetch
    from pipeline.lake import LakeFiles
    from pipeline.loads import recover

    options = FetchOptions(
        qps=arguments.qps,
        concurrency=arguments.concurrency,
        refresh=refresh,
        consume_verify_results=arguments.consume_verify_results,
        keep_raw=not arguments.no_raw,
    )
    lake = LakeFiles(arguments.lake)
    connection = None if dry_run else _connection(arguments)
    with _progress(quiet=arguments.quiet) as progress:
        if not dry_run:
            recover(lake, tell=progress.tell)

        def report(each: FoundId, why: str) -> None:
            progress.tell(f"{each.where}: {why}")

        with plan_fetch(found, lake, options, report=report) as plan:
            if connection is None:
                _print_plan(plan, options, lake)
                return 0
            result = fetch_planned(plan, lake, connection, options, command=command, source=source, progress=progress)
    return _conclude(arguments, result)


def _print_plan(plan: Plan, options: FetchOptions, lake: LakeFiles) -> None:
    print(f"{plan.requested:,} distinct IDs: {plan.requests:,} to ask for, ", end="")
    print(f"{plan.skipped:,} already finished in {lake.folder}, {plan.invalid:,} that cannot be asked for")
    for kind, count in plan.to_fetch.items():
        print(f"  {kind.object:<20} {count:>10,}  GET {kind.path}/…")
    if plan.requests:
        print(
            f"at least {plan.requests:,} requests, {duration(plan.requests / options.qps)} at {options.qps:g} a second"
        )
    print("nothing was asked for (--dry-run)")


def _conclude(arguments: argparse.Namespace, result: LoadResult) -> int:
    if arguments.json:
        print(json.dumps(result.as_json()))
    elif not arguments.quiet:
        _print_summary(result)
    if result.error is not None:
        _warn(f"pipeline: {result.error}")
    if result.error is not None and not result.interrupted:
        return 1
    return 0 if result.is_complete else SOME_DID_NOT_LAND


def _print_summary(result: LoadResult) -> None:
    print(f"{result.landed:,} landed, {result.unchanged:,} unchanged, {result.skipped:,} already there", end="")
    print(f", {result.missing:,} missing, {result.failed:,} failed, {result.invalid:,} invalid", end="")
    print(f" of {result.requested:,} in {duration(result.seconds)}", end="")
    if result.requests:
        requests = f"{result.requests:,} request{'' if result.requests == 1 else 's'}"
        retries = f"{result.retries:,} {'retry' if result.retries == 1 else 'retries'}"
        print(f" ({requests}, {retries}, {result.rate_limited:,} 429s)", end="")
    print()
    for reason, count in result.failed_reasons.most_common():
        print(f"  {count:>8,}  {reason}")
    for column, count in result.field_problems.most_common():
        print(f"  {count:>8,}  values of {column} were not of the expected type and are null")
    if result.missing or result.failed:
        print(
            f"why: pipeline sql 'FROM dead_letters' --lake {result.lake}    again: pipeline retry --lake {result.lake}"
        )


def _connection(arguments: argparse.Namespace) -> Connection:
    from pipeline.config import read_connection

    return read_connection(
        base_url=arguments.base_url,
        region=arguments.region,
        workspace=arguments.workspace,
        key_file=arguments.key_file,
        allow_http=arguments.allow_http,
        env=os.environ,
    )


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Progress]:
    """Open what shows progress; a request to end (SIGTERM) is taken like Ctrl-C meanwhile."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    progress = open_progress(quiet=quiet)
    try:
        yield progress
    finally:
        progress.close()
        signal.signal(signal.SIGTERM, before)


def _warn(message: str) -> None:
    print(message, file=sys.stderr)
