"""A sync in a process of its own, that a test can kill: light to import, so that the process starts in milliseconds."""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta
from pathlib import Path
from unittest import mock

from pipeline.config import read_connection
from pipeline.lake import LakeFiles
from pipeline.sync import SyncOptions, run_sync

PRELOADED = [
    "duckdb", "pipeline.client", "pipeline.connections", "pipeline.sync", "pyarrow.compute", "pyarrow.parquet",
    "pytest", __name__,
]  # fmt: skip
"""What the server that forks such processes should have imported."""


def sync(folder: str, base_url: str, key: str, overlap: timedelta, full: bool) -> None:
    """Sync a lake. What is left lying about when it is killed is beside the lake."""
    tempfile.tempdir = str(Path(folder).parent)
    # A killed process loses nothing that it has written.
    mock.patch.object(os, "fsync").start()
    connection = read_connection(base_url=base_url, env={"EXTEND_API_KEY": key})
    run_sync(LakeFiles(folder), [connection], SyncOptions(qps=10_000, overlap=overlap, full=full))
