"""Runs commands as they are typed: in this process, or, where the process itself is what is tested, in one of its own.

A process of its own takes most of a second to import what a command needs, which this one has imported already.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO
from unittest import mock

from pipeline import cli
from pipeline.sandbox.server import SandboxServer

ROOT = Path(__file__).parent.parent


def environment_of(server: SandboxServer | None = None, **more: str) -> dict[str, str]:
    """Return this process's environment without what the pipeline reads of it, with the way to a served world."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("EXTEND_", "PIPELINE_"))}
    if server is not None:
        known |= {"EXTEND_BASE_URL": server.base_url, "EXTEND_API_KEY": server.key}
    return {**known, "PYTHONPATH": str(ROOT), **more}


def run_here(
    *arguments: str, folder: Path, environment: Mapping[str, str], stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, in a folder and with no more of an environment, and return what it printed."""
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, environment, clear=True),
        _file(stdin) as typed,
        _file() as told,
        _file() as warned,
        mock.patch.object(sys, "stdin", typed),
        contextlib.redirect_stdout(told),
        contextlib.redirect_stderr(warned),
    ):
        try:
            code = cli.main(arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
        return subprocess.CompletedProcess(arguments, code, _content(told), _content(warned))


def run_apart(
    *arguments: str, folder: Path, environment: Mapping[str, str], stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, and return what it printed."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        cwd=folder, env=environment, input=stdin, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@contextlib.contextmanager
def _file(content: str = "") -> Iterator[IO[str]]:
    """Open a real file, since commands look at the number and the bytes below their standard ones."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as file:
        file.write(content)
        file.seek(0)
        yield file


def _content(file: IO[str]) -> str:
    file.flush()
    file.seek(0)
    return file.read()
