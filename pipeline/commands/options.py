"""What several commands share: options, the connection that they describe, and what shows progress.

A command is one function that adds its parser and one that runs it, in a module of this package. Everything heavy is
imported only when a command runs, since `pipeline --help` needs none of it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from pipeline import defaults
from pipeline.durable import naming_places

if TYPE_CHECKING:
    import threading
    from types import FrameType

    from pipeline.config import Connection
    from pipeline.progress import Progress

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Run = Callable[[argparse.Namespace], int]

_LAKE_HELP = "the lake's folder, or s3://bucket/prefix (gs://, az://); else PIPELINE_LAKE, else %(default)s"


def add_command(
    commands: Commands, name: str, run: Run, summary: str, *, more: str = "", examples: str
) -> argparse.ArgumentParser:
    """Add a command: what runs it and returns its exit code, what it is for in a line, more, and examples."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.{more and chr(10) + chr(10) + more}",
        epilog=f"examples:\n{examples}",
    )
    parser.set_defaults(run=run)
    return parser


def add_fetching_options(parser: argparse.ArgumentParser) -> None:
    """Add what fetching by ID can be told."""
    parser.add_argument(
        "--consume-verify-results",
        action="store_true",
        help="read verify runs (vr_…) by ID too, though the first reading can destroy the result",
    )
    parser.add_argument(
        "--workspace", metavar="ws_…", help="the workspace, for an organization-wide key (EXTEND_WORKSPACE_ID)"
    )
    add_asking_options(parser)


def add_asking_options(parser: argparse.ArgumentParser) -> None:
    """Add where the API is, how fast to ask, and where what comes lands."""
    parser.add_argument(
        "--qps", type=float, default=defaults.QPS, help="requests a second at the most (%(default)g, pay-as-you-go)"
    )
    parser.add_argument(
        "--concurrency", type=int, default=defaults.CONCURRENCY, help="requests under way at once (%(default)s)"
    )
    parser.add_argument("--region", help="us, us2 or eu (EXTEND_REGION; else us)")
    parser.add_argument("--base-url", metavar="URL", help="another address of the API (EXTEND_BASE_URL)")
    parser.add_argument("--key-file", metavar="FILE", help="a file that holds the key, in place of EXTEND_API_KEY")
    parser.add_argument("--allow-http", action="store_true", help="send the key without encryption beyond this machine")
    add_landing_options(parser)


def add_landing_options(parser: argparse.ArgumentParser) -> None:
    """Add where runs land, and what is said of it."""
    parser.add_argument("--no-raw", action="store_true", help="keep no payloads once their runs have landed")
    add_lake(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object on standard output")
    parser.add_argument("--quiet", action="store_true", help="no progress, no summary; only what is wrong")


def add_lake(parser: argparse.ArgumentParser) -> None:
    """Add the lake's folder."""
    parser.add_argument(
        "--lake", metavar="DIR", default=os.environ.get("PIPELINE_LAKE") or defaults.LAKE, help=_LAKE_HELP
    )


def add_format(parser: argparse.ArgumentParser) -> None:
    """Add how an answer is written."""
    parser.add_argument("--format", choices=defaults.FORMATS, default="table", help="how to print it (%(default)s)")


def connection_of(arguments: argparse.Namespace) -> Connection:
    """Return the connection that the options and the environment describe; raise UsageError where they do not."""
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
def showing_progress(*, quiet: bool) -> Iterator[Progress]:
    """Open what shows progress; a request to end (SIGTERM) is taken like Ctrl-C meanwhile."""
    import signal

    from pipeline.progress import open_progress

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    progress = open_progress(quiet=quiet)
    try:
        yield progress
    finally:
        progress.close()
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stopping_on_signals(stopping: threading.Event) -> Iterator[None]:
    """Let SIGTERM and Ctrl-C set an event meanwhile, and nothing else; a second one does as it did before."""
    import signal

    before: dict[int, Any] = {}

    def stop(number: int, _frame: FrameType | None) -> None:
        stopping.set()
        signal.signal(number, before[number])

    before |= {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def warn(message: str) -> None:
    """Say a sentence on standard error."""
    print(naming_places(message), file=sys.stderr)
