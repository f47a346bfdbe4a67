"""Take runs out of the lake for good: `forget`, `prune`."""

from __future__ import annotations

import argparse
import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pipeline.commands.options import Commands, add_command, add_lake, warn
from pipeline.errors import LakeError, UsageError

if TYPE_CHECKING:
    from pipeline.erasure import Swept
    from pipeline.lake import LakeFiles
    from pipeline.traces import Search

_FEW = 5
_AGE = re.compile(r"([1-9][0-9]{0,4})d")
_ELSEWHERE = "what was written elsewhere (exports, dashboards, notebooks, backups, other lakes) is yours to remove"


def add_forget(commands: Commands) -> None:
    """Add `pipeline forget`."""
    parser = add_command(
        commands,
        "forget",
        run_forget,
        "take every trace of runs out of the lake, for good",
        more="Out of tables, raw log, dead letters and kept ledger. Where other runs speak of them, a pseudonym takes\n"
        "their place, so that credits are still counted, and once. Nothing brings them back: no rebuild, no sync, no\n"
        "saved file. Then every file of the lake is searched for them. The API is not asked: to delete runs there is\n"
        "another matter. A document may stand in several runs: those of the same file are named, and stay.",
        examples="  pipeline forget clr_Xj8mK2pL9nR4vT7qY5wZ\n"
        "  pipeline forget --from ids.txt --dry-run\n"
        "  pipeline sql \"SELECT run_id FROM runs WHERE file_name = 'cv.pdf'\" --format csv > cv.csv\n"
        "  pipeline forget --from cv.csv",
    )
    parser.add_argument("ids", nargs="*", metavar="RUN_ID", help="run IDs; kinds may be mixed")
    parser.add_argument("--from", dest="source", metavar="FILE", help="a file of IDs, as in `pipeline fetch`")
    parser.add_argument("--column", help="the column that holds the IDs (else run_id, else id)")
    _add_common(parser)


def add_prune(commands: Commands) -> None:
    """Add `pipeline prune`."""
    parser = add_command(
        commands,
        "prune",
        run_prune,
        "take runs out of the lake that are older than they are to be kept",
        more="Out of tables, raw log, dead letters and kept ledger; and nothing takes runs of that age in again,\n"
        "until a prune with a greater age. A run counts from the start of the UTC day on which it was made; where the\n"
        "API never told that, from when it was last received. Say it once a day, from cron: it reads only what is due.",
        examples="  pipeline prune --older-than 400d\n  pipeline prune --older-than 30d --raw-only",
    )
    parser.add_argument("--older-than", required=True, metavar="DAYS", help="how long runs are kept: 400d")
    parser.add_argument("--raw-only", action="store_true", help="only the payloads in the raw log; the tables stay")
    _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="say what would be taken out, and change nothing")
    add_lake(parser)
    parser.add_argument("--json", action="store_true", help="print what was done as one JSON object")


def run_forget(arguments: argparse.Namespace) -> int:
    """Forget runs."""
    from pipeline.forget import forget_runs, related_runs
    from pipeline.loads import recover
    from pipeline.opening import existing_lake

    lake, run_ids = existing_lake(arguments.lake), _read_ids(arguments)
    related = related_runs(lake, run_ids)
    if arguments.dry_run:
        there = _count(lake, "SELECT count(*) FROM runs WHERE run_id IN (SELECT unnest($run_ids))", run_ids=run_ids)
        print(f"{_counted(len(run_ids), 'distinct ID')}, {there:,} of them with a row in {lake.name}")
        _print_related(related)
        print("nothing was changed (--dry-run)")
        return 0
    recover(lake, tell=warn)
    done = forget_runs(lake, run_ids, tell=warn)
    if arguments.json:
        _print_json(done.swept, done.search, runs=done.runs, related=related)
    else:
        print(f"{done.runs:,} run{'s' * (done.runs != 1)} forgotten: {_what_went(done.swept)}")
        if done.swept.altered:
            print(f"{_counted(done.swept.altered, 'row')} of other runs spoke of them, and now of pseudonyms")
        _print_related(related)
    return _conclude(arguments, done.search, done.swept)


def run_prune(arguments: argparse.Namespace) -> int:
    """Prune the lake."""
    from pipeline.loads import recover
    from pipeline.opening import existing_lake
    from pipeline.prune import prune_runs

    match = _AGE.fullmatch(arguments.older_than)
    if match is None:
        raise UsageError(f"--older-than takes a number of days, such as 400d, not {arguments.older_than!r}")
    before = (datetime.now(UTC) - timedelta(days=int(match[1]))).date()
    lake = existing_lake(arguments.lake)
    if arguments.dry_run:
        there = _count(
            lake,
            "SELECT count(*) FROM runs "
            "WHERE coalesce(created_at, initial_run_at, fetched_at) < CAST($before AS TIMESTAMPTZ)",
            before=f"{before} 00:00:00+00",
        )
        print(f"{there:,} runs in {lake.name} were made before {before}")
        print("nothing was changed (--dry-run)")
        return 0
    recover(lake, tell=warn)
    done = prune_runs(lake, before, raw_only=arguments.raw_only, tell=warn)
    if arguments.json:
        _print_json(done.swept, done.search, before=before.isoformat())
    else:
        print(f"runs made before {before}: {_what_went(done.swept)}")
    return _conclude(arguments, done.search, done.swept)


def _read_ids(arguments: argparse.Namespace) -> list[str]:
    """Return the distinct IDs that were given; raise UsageError where one is none: a typo must not pass for done."""
    from pipeline.ids import iter_ids, why_unusable

    found = list(iter_ids(arguments.ids, arguments.source, column=arguments.column))
    if not found:
        raise UsageError("no IDs; name some, or a file of them: pipeline forget --from ids.txt")
    unusable = [f"{each.where}: {why}" for each in found if (why := why_unusable(each.text)) is not None]
    if unusable:
        raise UsageError("; ".join(unusable[:_FEW]) + "; nothing was forgotten")
    return list(dict.fromkeys(each.text for each in found))


def _count(lake: LakeFiles, query: str, **params: object) -> int:
    from pipeline.catalog import Lake

    with Lake(lake.folder) as reader:
        return int(reader.sql(query, **params).fetchall()[0][0])


def _what_went(swept: Swept) -> str:
    parts = [_counted(swept.rows, "row"), _counted(swept.payloads, "record") + " of raw logs"]
    if swept.removed_logs:
        parts.append(f"{_counted(swept.removed_logs, 'log')} removed whole")
    return ", ".join([*parts, _counted(swept.dead_letters, "dead letter")])


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _print_related(related: list[str]) -> None:
    if related:
        shown = ", ".join(related[:_FEW]) + (f", … ({len(related):,} in all)" if len(related) > _FEW else "")
        print(f"other runs of the same files, or made for these, stay: {shown}")


def _print_json(swept: Swept, search: Search, **more: object) -> None:
    from dataclasses import asdict

    print(json.dumps({**more, **asdict(swept), "search": asdict(search)}))


def _conclude(arguments: argparse.Namespace, search: Search, swept: Swept) -> int:
    if not arguments.json:
        searched = f"searched {_counted(search.files, 'file')} ({search.size_bytes / 1e6:,.1f} MB unpacked)"
        print(f"{searched}: {'no trace' if search.is_clean else 'NOT ALL IS GONE'}")
        print(_ELSEWHERE)
    if swept.busy:
        warn(f"loads at work were left alone; say it again when they have ended: {', '.join(swept.busy)}")
    if not search.is_clean:
        found = "; ".join([*search.traces, *search.unreadable][:_FEW])
        raise LakeError(
            f"{arguments.lake}: not all is gone: {found}; mend it with `pipeline check --repair`, and say this again"
        )
    return 0
