"""The command line: all commands together, and what becomes of their errors."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from pipeline import __version__
from pipeline.commands.heap import collect_seldom, keep_heap_small
from pipeline.commands.parser import Parser
from pipeline.durable import naming_places
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    import argparse

    from pipeline.commands.options import Run

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


_NEEDLESS = ("pandas", "pyarrow._azurefs", "pyarrow._gcsfs", "pyarrow._hdfs", "pyarrow._s3fs", "httpx._main")
"""What others import if they can, and no command needs: pyarrow pandas at the first value that it makes or reads, which
takes a quarter of a second and 35 MB for as long as the process lives, and its own ways to clouds; httpx a command line
of its own."""

_COMMANDS = {
    "demo": "sandbox",
    "sync": "sync",
    "watch": "sync",
    "fetch": "loading",
    "retry": "loading",
    "load": "loading",
    "rebuild": "loading",
    "report": "reporting",
    "dashboard": "dashboard",
    "sql": "asking",
    "status": "asking",
    "check": "check",
    "export": "export",
    "forget": "erasing",
    "prune": "erasing",
    "sandbox": "sandbox",
}
"""The commands in the order of `--help`, each with the module of `pipeline.commands` that has its `add_…`. Where one is
asked for, it alone is imported and has a parser: all of them take a twentieth of a second."""

_READERS = frozenset({"sql", "status", "report"})
"""The commands that do without numpy as well, which pyarrow imports if it can: a tenth of a second."""

_LOADERS = frozenset({"fetch", "retry", "load", "rebuild", "sync", "watch"})


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
    return _run(_prepare(argv))


def _prepare(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return what a command is told, once what it needs no part of is out of its way."""
    finder = _Finder()
    if argv is None:
        collect_seldom()
        sys.meta_path.insert(0, finder)
    # Arrow's own allocator keeps what a landing has used: 65 MB more at its peak, and no faster (measured).
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    words = sys.argv[1:] if argv is None else argv
    command = words[0] if words and words[0] in _COMMANDS else None
    arguments = build_parser(command).parse_args(argv)
    if command in _READERS:
        finder.not_found.add("numpy")
    if argv is None and command in _LOADERS:
        keep_heap_small()
        # So Arrow is imported without numpy, which only a landing needs.
        finder.not_found.add("numpy")
        importlib.import_module("pyarrow.parquet")
        finder.not_found.discard("numpy")
    return arguments


def _run(arguments: argparse.Namespace) -> int:
    run: Run = arguments.run
    try:
        code = run(arguments)
        print(end="", flush=True)
        return code
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
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        print(f"pipeline: {what}", file=sys.stderr)
        return 1


def run_and_leave() -> NoReturn:
    """Run the process's own command, and end the process as soon as all is done."""
    arguments = _prepare(None)
    code = _run(arguments)
    threading = sys.modules.get("threading")
    if threading is None or threading.active_count() == 1:
        # Taking apart every module, as Python does at its end, takes a sixth of what a short question does; closing the
        # lake that `arguments` may hold, a thirtieth.
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError):
            print(end="", flush=True)
        os._exit(code)
    sys.exit(code)


def build_parser(command: str | None = None) -> Parser:
    """Return the parser of the whole command line, or of this command alone."""
    parser = Parser(prog="pipeline", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"pipeline {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module in _COMMANDS.items():
        if command in (None, name):
            getattr(importlib.import_module(f"pipeline.commands.{module}"), f"add_{name}")(commands)
    return parser


if __name__ == "__main__":
    run_and_leave()
