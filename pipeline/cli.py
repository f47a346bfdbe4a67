"""The command line: what can be typed. What each command does is in `commands`, imported only when it runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from pipeline import __version__, defaults

_LAKE_HELP = "the lake's folder (else PIPELINE_LAKE, else %(default)s)"

_DESCRIPTION = """\
Pull the runs of your Extend organization, keep them as Parquet, and see where the credits go, and what fails, and why.
"""
_EPILOG = """\
examples:
  pipeline demo                         try it all on made-up data, without a key
  export EXTEND_API_KEY=…               then, with your own key:
  pipeline fetch --from ids.txt         pull the runs of a list of IDs
  pipeline report credits               where the credits went
  pipeline report failures              what failed, and why

exit codes: 0 all landed; 1 it could not run; 2 wrong usage; 3 some runs did not land
`pipeline COMMAND --help` tells more of each.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 all landed, 1 it could not run, 2 wrong usage, 3 some did not."""
    arguments = build_parser().parse_args(argv)
    from pipeline import commands
    from pipeline.errors import PipelineError

    run: Callable[[argparse.Namespace], int] = getattr(commands, arguments.run)
    try:
        return run(arguments)
    except PipelineError as error:
        print(f"pipeline: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("pipeline: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough, as in `pipeline sql … | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"pipeline: {error}", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="pipeline",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"pipeline {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_fetch(commands)
    _add_retry(commands)
    _add_load(commands)
    _add_rebuild(commands)
    _add_report(commands)
    _add_sql(commands)
    _add_status(commands)
    _add_sandbox(commands)
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: str,
    summary: str,
    *,
    more: str = "",
    examples: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.{more and chr(10) + chr(10) + more}",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _add(
        commands,
        "demo",
        "run_demo",
        "run everything on a made-up organization, without a key",
        more="Starts the sandbox on a free port of this machine, pulls its runs by ID, writes a lake of its own and\n"
        "reports on it. Needs no network, may be repeated, and leaves your own lake alone.",
        examples="  pipeline demo\n  pipeline demo --runs 10000 --seed 3",
    )
    parser.add_argument("--lake", default=defaults.DEMO_LAKE, help="where the demo's lake goes (%(default)s)")
    parser.add_argument(
        "--runs", type=int, default=3000, help="how many runs the made-up organization has (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=7, help="another seed makes another organization (%(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _add_fetch(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _add(
        commands,
        "fetch",
        "run_fetch",
        "pull runs by ID into the lake",
        more="Each ID is asked for once; runs that the lake has finished and in detail are not asked for again. What\n"
        "does not come is kept with its reason: see `pipeline retry`. The key comes from EXTEND_API_KEY or --key-file.",
        examples="  pipeline fetch --from ids.txt\n"
        "  pipeline fetch clr_Xj8mK2pL9nR4vT7qY5wZ exr_abc123\n"
        "  pipeline fetch --from export.csv --column extract_run --qps 25\n"
        "  psql -At -c 'SELECT run_id FROM jobs' | pipeline fetch --from -\n"
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
    parser.add_argument("--refresh", action="store_true", help="ask again also for what the lake has finished")
    parser.add_argument(
        "--dry-run", action="store_true", help="say how many requests and how long, and ask for nothing"
    )
    _add_fetching_options(parser)


def _add_retry(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _add(
        commands,
        "retry",
        "run_retry",
        "ask again for the runs that did not come",
        more="These are the dead letters: `pipeline sql 'FROM dead_letters'` shows them with their reasons.",
        examples="  pipeline retry\n  pipeline retry --qps 5",
    )
    _add_fetching_options(parser)


def _add_fetching_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--consume-verify-results",
        action="store_true",
        help="read verify runs (vr_…) by ID too, though the first reading can destroy the result",
    )
    parser.add_argument(
        "--qps", type=float, default=defaults.QPS, help="requests a second at the most (%(default)g, pay-as-you-go)"
    )
    parser.add_argument(
        "--concurrency", type=int, default=defaults.CONCURRENCY, help="requests under way at once (%(default)s)"
    )
    parser.add_argument(
        "--workspace", metavar="ws_…", help="the workspace, for an organization-wide key (EXTEND_WORKSPACE_ID)"
    )
    parser.add_argument("--region", help="us, us2 or eu (EXTEND_REGION; else us)")
    parser.add_argument("--base-url", metavar="URL", help="another address of the API (EXTEND_BASE_URL)")
    parser.add_argument("--key-file", metavar="FILE", help="a file that holds the key, in place of EXTEND_API_KEY")
    parser.add_argument("--allow-http", action="store_true", help="send the key without encryption beyond this machine")
    _add_landing_options(parser)


def _add_landing_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-raw", action="store_true", help="keep no payloads once their runs have landed")
    _add_lake(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object on standard output")
    parser.add_argument("--quiet", action="store_true", help="no progress, no summary; only what is wrong")


def _add_load(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _add(
        commands,
        "load",
        "run_load",
        "land saved payloads, without a request",
        more="Takes JSON, JSON lines, lists, list pages, webhook events and raw logs; plain, gzip or zstd.",
        examples="  pipeline load saved/*.json\n  pipeline load events.jsonl.gz\n"
        "  aws s3 cp s3://bucket/runs.jsonl - | pipeline load -",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="files of payloads; - is standard input")
    parser.add_argument("--workspace", metavar="ws_…", help="the workspace they are of")
    _add_landing_options(parser)


def _add_rebuild(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _add(
        commands,
        "rebuild",
        "run_rebuild",
        "make the lake anew from its raw log, without a request",
        examples="  pipeline rebuild",
    )
    _add_lake(parser)
    parser.add_argument("--quiet", action="store_true", help="say only what is wrong")


def _add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "report",
        help="where the credits went; what failed, and why",
        description="Where the credits went; what failed, and why.",
        epilog="examples:\n  pipeline report credits\n  pipeline report failures --format csv > failures.csv",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    reports = parser.add_subparsers(title="reports", metavar="REPORT", required=True)
    credits = _add(
        reports,
        "credits",
        "run_report_credits",
        "credits by day and kind, each credit once",
        more="Runs whose credits the API does not report are counted apart: unknown is not zero.",
        examples="  pipeline report credits\n  pipeline report credits --format csv > credits.csv",
    )
    failures = _add(
        reports,
        "failures",
        "run_report_failures",
        "failed runs by kind and reason, with the rate and its 95 %% interval",
        more="The rate is failed ÷ (processed + failed); a reason that the vendor does not document is marked.",
        examples="  pipeline report failures\n  pipeline report failures --format json",
    )
    for each in (credits, failures):
        _add_format(each)
        _add_lake(each)


def _add_sql(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _add(
        commands,
        "sql",
        "run_sql",
        "ask the lake a question in SQL (DuckDB's)",
        more="The tables: runs, charges, credit_ledger (every credit once), loads, dead_letters. Times are UTC.",
        examples='  pipeline sql "SELECT kind, status, count(*) FROM runs GROUP BY ALL ORDER BY ALL"\n'
        "  pipeline sql 'FROM dead_letters' --format json\n"
        "  pipeline sql 'FROM runs' --format parquet > runs.parquet\n"
        "  pipeline sql - < question.sql",
    )
    parser.add_argument("query", help="the query; - reads it from standard input")
    _add_format(parser)
    _add_lake(parser)


def _add_status(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _add(
        commands,
        "status",
        "run_status",
        "what the lake has: runs, days, dead letters, the last load, size",
        examples="  pipeline status",
    )
    _add_lake(parser)


def _add_sandbox(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _add(
        commands,
        "sandbox",
        "run_sandbox",
        "serve a made-up organization on this machine, as the API would",
        more="Prints the two export lines that point any client at it, and serves until Ctrl-C. The key followed by\n"
        "-org is organization-wide and needs a workspace.",
        examples="  pipeline sandbox --port 8900\n  pipeline sandbox --runs 20000 --limit 10 --faults 0.2\n"
        "  curl -H 'Authorization: Bearer sandbox' -H 'x-extend-api-version: 2026-02-09' \\\n"
        "       http://127.0.0.1:8900/classify_runs",
    )
    parser.add_argument("--port", type=int, default=0, help="the port on 127.0.0.1 (a free one if not given)")
    parser.add_argument("--seed", type=int, default=7, help="the same seed makes the same organization (%(default)s)")
    parser.add_argument("--runs", type=int, default=5000, help="how many runs it has (%(default)s)")
    parser.add_argument("--key", default=defaults.SANDBOX_KEY, help="the key that it takes (%(default)s)")
    parser.add_argument("--limit", type=float, default=0.0, help="requests a second before it answers 429 (no limit)")
    parser.add_argument(
        "--faults", type=float, default=0.0, metavar="SHARE", help="share of faulty answers, 0 to 1 (0)"
    )


def _add_lake(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--lake", metavar="DIR", default=os.environ.get("PIPELINE_LAKE") or defaults.LAKE, help=_LAKE_HELP
    )


def _add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=defaults.FORMATS, default="table", help="how to print it (%(default)s)")


if __name__ == "__main__":
    sys.exit(main())
