"""Commands in a process of their own that tells all it can: every log, dev mode, and tracebacks with every local.

    python -m tests.canary_child '{"commands": [["status"]], "crash": "landing"}'

Prints each command's exit code, and reads `crash` as where an exception nobody foresaw comes from.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from types import TracebackType
from typing import Any, NoReturn
from unittest.mock import patch

import rich.console
import rich.traceback

from pipeline import cli
from pipeline.client import ExtendClient


def crash(*_arguments: Any, **_options: Any) -> NoReturn:
    """Fail as a bug would."""
    raise ZeroDivisionError("a bug, injected")


def crash_at(place: str | None) -> None:
    """Let that place fail: where a payload is taken, below the HTTP client, or where the key has been read."""
    import pipeline.config
    import pipeline.connections
    import pipeline.loads

    if place == "taking":
        patch.object(pipeline.loads.Load, "take_run", crash).start()
    elif place == "transport":
        patch.object(pipeline.connections.PooledTransport, "_connect", crash).start()
    elif place == "workspace":
        pipeline.config._read_workspace = crash


def show_all(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show a traceback with locals, as rich does and as the standard library does, cut nowhere."""
    shown = rich.traceback.Traceback.from_exception(
        kind, error, trace, show_locals=True, locals_max_length=None, locals_max_string=None,
        locals_hide_dunder=False, locals_hide_sunder=False, width=10_000,
    )  # fmt: skip
    rich.console.Console(file=sys.stderr, width=10_000).print(shown)
    found = traceback.TracebackException(kind, error, trace, capture_locals=True)
    sys.stderr.write("".join(found.format()))


def main() -> None:
    """Run the commands."""
    order = json.loads(sys.argv[1])
    sys.argv[1:] = []
    logging.basicConfig(level=logging.DEBUG)
    sys.excepthook = show_all
    patch.object(os, "fsync").start()  # a killed machine is another test's
    kept = ExtendClient.__init__.__kwdefaults__
    kept["max_outage_s"] = kept["timeout_s"] = 0.5
    kept["max_attempts"] = 2
    crash_at(order.get("crash"))
    for command in order["commands"]:
        try:
            code = cli.main(command)
        except SystemExit as left:
            code = left.code
        print("exit", code, *command, flush=True)


if __name__ == "__main__":
    main()
