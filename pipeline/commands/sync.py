"""Keep a lake up to date: `sync`, `watch`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline.commands.options import (
    Commands,
    add_asking_options,
    add_command,
    showing_progress,
    stopping_on_signals,
    warn,
)
from pipeline.errors import UsageError
from pipeline.kinds import KINDS, Kind

if TYPE_CHECKING:
    from pipeline.config import Connection
    from pipeline.sync import SyncOptions
    from pipeline.sync_outcome import WorkspaceOutcome

_SOME_FAILED = 3
_MORE = """\
Walks the lists of all kinds of run, the latest change first, back to where the last sync began; keeps what is new or
has changed. The first sync walks everything, or back to --since. Then it asks by ID for what a summary cannot give.

What it can miss: the list of parse runs cannot be sorted. After the first sync it is walked until two pages in a row
bring nothing new, so a parse run that the API puts further back is missed, unless a sync of other kinds tells of its
credits; unfinished parse runs are asked for by ID. Form-detection runs have no list: those that were charged are named
in the breakdown of the run that caused them. And no list says that a run was deleted. `--full` walks everything to the
end, finds every parse run, and asks by ID for those that no list shows any more. Do so once a week, say.

A verify run is never read by ID here: that can destroy its result."""


def add_sync(commands: Commands) -> None:
    """Add `pipeline sync`."""
    parser = add_command(
        commands,
        "sync",
        run_sync,
        "find new and changed runs by themselves, and land them",
        more=_MORE,
        examples="  pipeline sync\n"
        "  pipeline sync --dry-run\n"
        "  pipeline sync --since 2026-06-01 --qps 25\n"
        "  pipeline sync --kind extract --kind workflow --details all\n"
        "  pipeline sync --workspace ws_AbC123 --workspace ws_DeF456\n"
        "  pipeline sync --full",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be asked for, and ask for nothing")
    _add_sync_options(parser)


def add_watch(commands: Commands) -> None:
    """Add `pipeline watch`."""
    parser = add_command(
        commands,
        "watch",
        run_watch,
        "sync on a schedule, in one process, until told to stop",
        more="Prints a line after each sync: whether all is well, and since when it is not. What fails is tried again\n"
        "at the next one. SIGTERM and Ctrl-C land what has arrived, and end it with exit code 0.",
        examples="  pipeline watch --every 5m\n  pipeline watch --every 1h --qps 25 --details all",
    )
    parser.add_argument("--every", default="5m", metavar="TIME", help="how often: 30s, 5m, 1h (%(default)s)")
    _add_sync_options(parser)


def _add_sync_options(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(kind.name for kind in KINDS)
    parser.add_argument(
        "--kind", action="append", default=[], metavar="KIND", help=f"only this kind; may be repeated ({names})"
    )
    parser.add_argument(
        "--since", metavar="DATE", help="how far back the first sync goes: runs changed on that day (UTC) or later"
    )
    parser.add_argument(
        "--until",
        metavar="DATE",
        help="leave out runs created on that day (UTC) or later; the next sync then begins where this one did",
    )
    parser.add_argument("--full", action="store_true", help="walk everything again, and find out what has been deleted")
    parser.add_argument(
        "--details",
        choices=("none", "credits", "all"),
        default="credits",
        help="fetch by ID only what no list shows (none), also what the credits need (workflow runs, and totals that "
        "nothing explains), or every finished run once (%(default)s)",
    )
    parser.add_argument(
        "--workspace",
        action="append",
        default=[],
        metavar="ws_…",
        help="a workspace, for an organization-wide key; may be repeated (EXTEND_WORKSPACE_ID, or the workspaces of "
        "EXTEND_API_KEYS, as `ws_a=key ws_b=key`)",
    )
    add_asking_options(parser)


def run_sync(arguments: argparse.Namespace) -> int:
    """Sync once."""
    from pipeline import sync, sync_summary
    from pipeline.loads import recover
    from pipeline.opening import open_lake

    options = _options(arguments)
    lake, connections = open_lake(arguments.lake), _connections(arguments)
    with showing_progress(quiet=arguments.quiet) as progress:
        if not arguments.dry_run:
            recover(lake, tell=progress.tell)
        planned = sync.plan_sync(lake, connections, options, tell=progress.tell)
        if not arguments.quiet and not arguments.json:
            sync_summary.write_plan(planned, options.qps, sys.stdout)
        if arguments.dry_run:
            if arguments.json:
                print(json.dumps(sync_summary.plan_as_json(planned, options.qps)))
            else:
                print("nothing was asked for (--dry-run)")
            return 0
        outcomes = sync.run_sync(lake, connections, options, planned=planned, progress=progress)
    return _conclude(arguments, outcomes)


def run_watch(arguments: argparse.Namespace) -> int:
    """Sync on a schedule."""
    import threading

    from pipeline import sync
    from pipeline.opening import open_lake
    from pipeline.progress import Silent
    from pipeline.watch import parse_interval, watch

    every, options = parse_interval(arguments.every), _options(arguments)
    if options.until is not None:
        raise UsageError("--until does not go with watch, which looks for what is new")
    connections = _connections(arguments)
    open_lake(arguments.lake)  # raises at once where it cannot be
    stopping = threading.Event()

    def sync_once() -> list[WorkspaceOutcome]:
        return sync.run_sync(
            open_lake(arguments.lake), connections, options,
            command="watch", progress=Silent(sys.stderr), stopping=stopping,
        )  # fmt: skip

    def say(line: str) -> None:
        print(line, flush=True)

    with stopping_on_signals(stopping):
        watch(sync_once, every, say=say, stopping=stopping)
    return 0


def _conclude(arguments: argparse.Namespace, outcomes: list[WorkspaceOutcome]) -> int:
    from pipeline import sync_summary

    if arguments.json:
        print(json.dumps(sync_summary.as_json(outcomes, arguments.lake)))
    elif not arguments.quiet:
        sync_summary.write_outcomes(outcomes, arguments.lake, sys.stdout)
    for problem in sync_summary.problems(outcomes):
        warn(f"pipeline: {problem}")
    if all(outcome.is_complete for outcome in outcomes):
        return 0
    could_run = any(outcome.has_asked or (outcome.load and outcome.load.interrupted) for outcome in outcomes)
    if any(outcome.is_refused_by_disk for outcome in outcomes):
        return 1
    return _SOME_FAILED if could_run else 1


def _options(arguments: argparse.Namespace) -> SyncOptions:
    from pipeline.sync import SyncOptions

    since, until = _day(arguments.since, "--since"), _day(arguments.until, "--until")
    if since is not None and until is not None and since >= until:
        raise UsageError(f"--since {arguments.since} is not before --until {arguments.until}")
    return SyncOptions(
        qps=arguments.qps,
        concurrency=arguments.concurrency,
        keep_raw=not arguments.no_raw,
        kinds=_kinds(arguments.kind),
        details=arguments.details,
        full=arguments.full,
        since=since,
        until=until,
    )


def _kinds(names: list[str]) -> tuple[Kind, ...]:
    known = {name: kind for kind in KINDS for name in (kind.name, kind.object)}
    wanted = [name for text in names for name in text.replace(",", " ").split()]
    for name in wanted:
        if name not in known:
            raise UsageError(f"--kind: {name[:40]!r} is no kind of run; choose of {', '.join(k.name for k in KINDS)}")
    chosen = {known[name] for name in wanted}
    return tuple(kind for kind in KINDS if kind in chosen) or KINDS


def _day(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise UsageError(f"{option}: {text[:40]!r} is no date; give one like 2026-06-01") from None


def _connections(arguments: argparse.Namespace) -> list[Connection]:
    from pipeline.config import read_connections

    return read_connections(
        base_url=arguments.base_url,
        region=arguments.region,
        workspaces=arguments.workspace,
        key_file=arguments.key_file,
        allow_http=arguments.allow_http,
        env=os.environ,
    )
