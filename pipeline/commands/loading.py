"""Bring runs into the lake: `fetch`, `retry`, `load`, `rebuild`."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from pipeline.commands.options import (
    Commands,
    add_command,
    add_fetching_options,
    add_lake,
    add_landing_options,
    connection_of,
    showing_progress,
    warn,
)
from pipeline.errors import UsageError
from pipeline.progress import duration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.fetch import FetchOptions, Plan
    from pipeline.ids import FoundId
    from pipeline.lake import LakeFiles
    from pipeline.loads import LoadResult

SOME_DID_NOT_LAND = 3


def add_fetch(commands: Commands) -> None:
    """Add `pipeline fetch`."""
    parser = add_command(
        commands,
        "fetch",
        run_fetch,
        "pull runs by ID into the lake",
        more="Each ID is asked for once; runs that the lake has finished and in detail are not asked for again. What\n"
        "does not come is kept with its reason: see `pipeline retry`. The key comes from EXTEND_API_KEY or --key-file.",
        examples="  pipeline fetch --from ids.txt\n"
        "  pipeline fetch clr_Xj8mK2pL9nR4vT7qY5wZ exr_abc123\n"
        "  pipeline fetch --from export.csv --column extract_run --qps 25\n"
        "  psql -At -c 'SELECT run_id FROM jobs' | pipeline fetch --from -\n"
        "  pipeline fetch --from ids.txt --details none\n"
        "  pipeline fetch --from ids.txt --dry-run",
    )
    parser.add_argument("ids", nargs="*", metavar="ID", help="run IDs; kinds may be mixed")
    parser.add_argument(
        "--from",
        dest="source",
        metavar="FILE",
        help="a file of IDs: text (one a line, # comments), CSV, TSV or Parquet by its ending; - is standard input",
    )
    parser.add_argument("--column", help="the column that holds the IDs (else run_id, else id)")
    parser.add_argument(
        "--details",
        choices=("none", "all"),
        default="all",
        help="none: summaries are enough (status, reason, credits, times), and are taken from lists where that takes "
        "fewer requests than asking run by run (%(default)s)",
    )
    parser.add_argument("--refresh", action="store_true", help="ask again also for what the lake has finished")
    parser.add_argument(
        "--dry-run", action="store_true", help="say how many requests and how long, and ask for nothing"
    )
    add_fetching_options(parser)


def add_retry(commands: Commands) -> None:
    """Add `pipeline retry`."""
    parser = add_command(
        commands,
        "retry",
        run_retry,
        "ask again for the runs that did not come",
        more="These are the dead letters: `pipeline sql 'FROM dead_letters'` shows them with their reasons.",
        examples="  pipeline retry\n  pipeline retry --qps 5",
    )
    add_fetching_options(parser)


def add_load(commands: Commands) -> None:
    """Add `pipeline load`."""
    parser = add_command(
        commands,
        "load",
        run_load,
        "land saved payloads, without a request",
        more="Takes JSON, JSON lines, lists, list pages, webhook events and raw logs; plain, gzip or zstd.",
        examples="  pipeline load saved/*.json\n  pipeline load events.jsonl.gz\n"
        "  aws s3 cp s3://bucket/runs.jsonl - | pipeline load -",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="files of payloads; - is standard input")
    parser.add_argument("--workspace", metavar="ws_…", help="the workspace they are of")
    add_landing_options(parser)


def add_rebuild(commands: Commands) -> None:
    """Add `pipeline rebuild`."""
    parser = add_command(
        commands,
        "rebuild",
        run_rebuild,
        "make the lake anew from its raw log, without a request",
        examples="  pipeline rebuild",
    )
    add_lake(parser)
    parser.add_argument("--quiet", action="store_true", help="say only what is wrong")


def run_fetch(arguments: argparse.Namespace) -> int:
    """Pull runs by ID."""
    from pipeline.ids import iter_ids

    if not arguments.ids and arguments.source is None:
        raise UsageError("no IDs; name some, or a file of them: pipeline fetch --from ids.txt")
    found = iter_ids(arguments.ids, arguments.source, column=arguments.column)
    names = {None: "arguments", "-": "standard input"}
    source = names.get(arguments.source, arguments.source)
    return _fetch(
        arguments,
        found,
        command="fetch",
        source=source,
        details=arguments.details == "all",
        refresh=arguments.refresh,
        dry_run=arguments.dry_run,
    )


def run_retry(arguments: argparse.Namespace) -> int:
    """Ask again for the dead letters."""
    from pipeline.ids import FoundId
    from pipeline.loads import recover
    from pipeline.opening import existing_lake

    lake = existing_lake(arguments.lake)
    connection = connection_of(arguments)
    recover(lake, tell=warn)
    letters = lake.read_dead_letters()
    found: list[FoundId] = []
    elsewhere: dict[str, int] = {}
    for run_id, workspace_id in zip(*(letters[name].to_pylist() for name in ("run_id", "workspace_id")), strict=True):
        if workspace_id == connection.workspace_id:
            found.append(FoundId(run_id, f"dead letter {len(found) + 1}"))
        else:
            elsewhere[workspace_id or ""] = elsewhere.get(workspace_id or "", 0) + 1
    for workspace_id, count in sorted(elsewhere.items()):
        warn(
            f"{count:,} dead letters are of workspace {workspace_id}: pipeline retry --workspace {workspace_id}"
            if workspace_id
            else f"{count:,} dead letters are of a workspace key: pipeline retry without a workspace"
        )
    return _fetch(arguments, found, command="retry", source="dead letters", refresh=True)


def run_load(arguments: argparse.Namespace) -> int:
    """Land saved payloads."""
    from pipeline.opening import open_lake
    from pipeline.replay import load_files

    with showing_progress(quiet=arguments.quiet) as progress:
        result = load_files(
            arguments.files,
            open_lake(arguments.lake),
            workspace_id=arguments.workspace,
            keep_raw=not arguments.no_raw,
            report=lambda place, why: progress.tell(f"{place}: {why}"),
            progress=progress,
        )
    return _conclude(arguments, result)


def run_rebuild(arguments: argparse.Namespace) -> int:
    """Make the lake anew from its raw log."""
    from pipeline.opening import existing_lake
    from pipeline.rebuild import rebuild_lake

    done = rebuild_lake(existing_lake(arguments.lake), tell=warn)
    if not arguments.quiet:
        logs = f"{done.logs:,} {'log' if done.logs == 1 else 'logs'}"
        kept = f"; {done.kept:,} that no log holds kept" if done.kept else ""
        print(f"{done.runs:,} runs made anew from {logs}, {done.unchanged:,} of them as they were{kept}")
    return 0


def _fetch(
    arguments: argparse.Namespace,
    found: Iterable[FoundId],
    *,
    command: str,
    source: str,
    details: bool = True,
    refresh: bool,
    dry_run: bool = False,
) -> int:
    from pipeline.fetch import FetchOptions, fetch_planned, plan_fetch
    from pipeline.loads import recover
    from pipeline.opening import open_lake

    options = FetchOptions(
        qps=arguments.qps,
        concurrency=arguments.concurrency,
        details=details,
        refresh=refresh,
        consume_verify_results=arguments.consume_verify_results,
        keep_raw=not arguments.no_raw,
    )
    lake = open_lake(arguments.lake)
    connection = None if dry_run else connection_of(arguments)
    with showing_progress(quiet=arguments.quiet) as progress:
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
    print(f"{plan.requested:,} distinct IDs: {sum(plan.to_fetch.values()):,} to ask for, ", end="")
    print(f"{plan.skipped:,} already finished in {lake.name}, {plan.invalid:,} that cannot be asked for")
    for kind, count in plan.to_fetch.items():
        listings = [each for each in plan.listings if each.kind is kind]
        for each in listings:
            pages = f"{each.pages:,} page{'s' * (each.pages != 1)}{'' if each.filters else ' or more'}"
            print(f"  {kind.object:<20} {each.wanted:>10,}  GET {kind.path}  ({each.label}: {pages})")
        if rest := count - sum(each.wanted for each in listings):
            print(f"  {kind.object:<20} {rest:>10,}  GET {kind.path}/…")
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
        warn(f"pipeline: {result.error}")
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
