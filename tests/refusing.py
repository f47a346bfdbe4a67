"""Commands run where the machine refuses: little room for files, few descriptors, no right to write."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.sandbox.server import SandboxServer

_ROOT = Path(__file__).parent.parent
_PR_CAPBSET_DROP = 24
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2


def small_files(most_bytes: int) -> Callable[[], None]:
    """Return what lets a process write no file beyond a size: also root is bound by that."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))


def few_files(most: int) -> Callable[[], None]:
    """Return what lets a process have few files open, connections included."""
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def bound_by_permissions() -> None:
    """Take from a root process, once it runs its program, the right to pass over the permissions of files."""
    if os.geteuid() == 0:
        prctl = ctypes.CDLL(None).prctl
        for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
            prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def start(
    *arguments: str, folder: Path, server: SandboxServer, before: Callable[[], None] | None = None
) -> subprocess.Popen[str]:
    """Start a command in a folder, against a served world; `before` is called in its process before it begins."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("EXTEND_", "PIPELINE_"))}
    known |= {"EXTEND_BASE_URL": server.base_url, "EXTEND_API_KEY": server.key, "PYTHONPATH": str(_ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        cwd=folder, env=known, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=before,
    )  # fmt: skip


def run_refused(
    *arguments: str, folder: Path, server: SandboxServer, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run such a command to its end."""
    process = start(*arguments, folder=folder, server=server, before=before)
    told, warned = process.communicate(timeout=120)
    return subprocess.CompletedProcess(arguments, process.returncode, told, warned)
