"""The command line: all commands together, and what becomes of their errors."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from pipeline import __version__
from pipeline.commands import asking, check, dashboard, erasing, export, loading, reporting, sandbox, sync
from pipeline.commands.heap import keep_heap_small
from pipeline.commands.options import Run
from pipeline.durable import naming_places
from pipeline.errors import PipelineError

_DESCRIPTION = """\
Pull the runs of your Extend organization, keep them as Parquet, and see where the credits go, and what fails, and why.
"""
_EPILOG = """\
examples:
  pipeline demo                         try it all on made-up data, without a key
  export EXTEND_API_KEY=…               then, with your own key:
  pipeline sync                         find all runs, and from then on what is new
  pipeline report credits               where the credits went
  pipeline report failures              what failed, and why

exit codes: 0 all landed; 1 it could not run; 2 wrong usage; 3 some runs did not land; 4 a limit of yours is passed;
  5 a promise of the lake is broken
`pipeline COMMAND --help` tells more of each.
"""


_NEEDLESS = ("pandas", "httpx._main")
"""What others import if they can, and no command needs: pyarrow pandas at the first value that it makes or reads, which
takes a quarter of a second and 35 MB for as long as the process lives; httpx a command line of its own."""

_READERS = frozenset({asking.run_sql, asking.run_status, *reporting.RUN_REPORTS})
"""The commands that do without numpy as well, which pyarrow imports if it can: a tenth of a second."""


_LOADERS = frozenset(
    {loading.run_fetch, loading.run_retry, loading.run_load, loading.run_rebuild, sync.run_sync, sync.run_watch}
)


class _Finder:
    """Says of some modules that they are not there; they are optional to whoever imports them."""

    def __init__(self) -> None:
        self.not_found = {*_NEEDLESS}

    def find_spec(self, name: str, _path: object, _target: object = None) -> None:
        if name in self.not_found:
            raise ModuleNotFoundError(f"the command line does without {name}", name=name)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (see the epilogue of `pipeline --help`).

    Without `argv` it is the process's own command, and keeps from it what no command needs.
    """
    finder = _Finder()
    if argv is None:
        sys.meta_path.insert(0, finder)
    # Arrow's own allocator keeps what a landing has used: 65 MB more at its peak, and no faster (measured).
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    arguments = build_parser().parse_args(argv)
    run: Run = arguments.run
    if run in _READERS:
        finder.not_found.add("numpy")
    if argv is None and run in _LOADERS:
        keep_heap_small()
        # So Arrow is imported without numpy, which only a landing needs.
        finder.not_found.add("numpy")
        importlib.import_module("pyarrow.parquet")
        finder.not_found.discard("numpy")
    try:
        return run(arguments)
    except PipelineError as error:
        print(f"pipeline: {naming_places(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("pipeline: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough, as in `pipeline sql … | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"pipeline: {what}", file=sys.stderr)
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
    sandbox.add_demo(commands)
    sync.add_sync(commands)
    sync.add_watch(commands)
    loading.add_fetch(commands)
    loading.add_retry(commands)
    loading.add_load(commands)
    loading.add_rebuild(commands)
    reporting.add_report(commands)
    dashboard.add_dashboard(commands)
    asking.add_sql(commands)
    asking.add_status(commands)
    check.add_check(commands)
    export.add_export(commands)
    erasing.add_forget(commands)
    erasing.add_prune(commands)
    sandbox.add_sandbox(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
