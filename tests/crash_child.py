"""A command in a process of its own that ends at a place told by name: killed, or with the power of its disk cut.

It wraps the functions of the writing stages, and counts how often each is passed. Light to import, so that the process
starts in milliseconds.
"""

from __future__ import annotations

import functools
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

from pipeline import (
    cli,
    deletion,
    durable,
    landing,
    ledger,
    ledger_work,
    loads,
    raw,
    replay,
    session,
    staging,
    sync_state,
)
from pipeline.bucket import index, lease, logs, mirror, pulling, store
from pipeline.checks import repair
from pipeline.lake import LakeFiles

PRELOADED = [
    "duckdb", "pandas", "pipeline.client", "pipeline.connections", "pipeline.commands.check", "pipeline.rebuild",
    "pipeline.sync", "pipeline.sync_summary", "pyarrow.compute", "pyarrow.pandas_compat", "pyarrow.parquet", "pytest",
    "zoneinfo", __name__,
]  # fmt: skip
"""What the server that forks such processes should have imported."""

PLACES: dict[str, tuple[Any, str]] = {
    "checkpoint a frame": (raw.RawWriter, "_write_frame"),
    "write a file": (durable, "write_file"),
    "remove a file": (durable, "remove_file"),
    "cut a file": (durable, "cut_file"),
    "make a folder": (durable, "make_folder"),
    "flush": (os, "fsync"),
    "flush a folder": (durable, "sync_folder"),
    "replace": (pathlib.Path, "replace"),
    "rename": (pathlib.Path, "rename"),
    "unlink": (pathlib.Path, "unlink"),
    "remove a tree": (shutil, "rmtree"),
    "stage a log": (staging.Staging, "read"),
    "land logs": (landing, "land_logs"),
    "write a day": (LakeFiles, "write_packed_day"),
    "write a load": (LakeFiles, "write_load"),
    "write dead letters": (LakeFiles, "write_dead_letters"),
    "settle dead letters": (landing, "_settle_dead_letters"),
    "mark what is gone": (deletion, "mark_deleted"),
    "note moves": (LakeFiles, "write_moves"),
    "finish moves": (landing, "finish_moves"),
    "recover a log": (loads, "_recover_one"),
    "note a sync's state": (sync_state.SyncFiles, "_write"),
    "write a ledger's IDs": (ledger_work._Work, "write_ids"),
    "write a ledger's lines": (ledger_work._Work, "write_lines"),
    "put a ledger in force": (ledger.LedgerFiles, "write_manifest"),
    "remove old ledgers": (ledger.LedgerFiles, "_remove_others"),
    "set aside": (repair, "_set_aside"),
    "write again": (repair, "_rewrite"),
    "settle runs": (repair, "_settle"),
    "put an object": (store.Store, "put"),
    "write an object": (store.Store, "put_always"),
    "delete objects": (store.Store, "delete"),
    "take a turn": (lease.Lease, "take"),
    "give a turn back": (lease.Lease, "give_back"),
    "pull": (pulling.Copy, "apply"),
    "note an object": (index.Index, "note"),
    "send a part of a log": (logs.Shipping, "ship"),
    "publish a log": (mirror.Mirror, "publish"),
    "remove a log's parts": (mirror.Mirror, "settle"),
}
"""The places in the writing stages: the function that is passed there, by its owner and name."""

BUCKET_LEASE_S = 3.0
"""So that who comes after a killed writer of a bucket does not wait for long."""
_SHUTDOWN_IOCTL, _NO_LOG_FLUSH = 0x8004587D, 2


def _half_a_frame(writer: raw.RawWriter, content: bytes) -> None:
    frame = writer._compressor.compress(content)
    writer._file.write(frame[: len(frame) // 2])


def _half_a_file(path: Path, content: bytes) -> None:
    durable.make_folder(path.parent)
    name = f".{path.name}.{os.getpid()}-half{durable.TEMPORARY_SUFFIX}"
    path.with_name(name).write_bytes(content[: len(content) // 2])


HALVES: dict[str, Callable[..., None]] = {"checkpoint a frame": _half_a_frame, "write a file": _half_a_file}
"""What is done of a passing that ends in its middle. The others' middles are the places that they pass in turn."""


@dataclass(frozen=True, slots=True)
class End:
    """Where a command ends: before, in the middle of, or after which passing of a place, counted from 1."""

    place: str
    passing: int
    when: str


@dataclass(frozen=True, slots=True)
class Order:
    """What a process is to do; what it says, and leaves lying about when it is killed, goes `beside` the lake.

    With a `disk`, a mounted folder, its power is cut at the end, and what is to be flushed is; else the end is a
    kill alone, which loses nothing that was written.
    """

    arguments: list[str]
    lake: str
    beside: str
    base_url: str
    key: str
    end: End | None = None
    disk: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    """Of a lake in a bucket, the way to it."""


@dataclass(slots=True)
class _Trace:
    order: Order
    pipe: Connection
    counts: Counter[str] = field(default_factory=Counter)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def install(self) -> None:
        for place, (owner, name) in PLACES.items():
            original = getattr(owner, name)
            wrapper = self._wrapped(place, original)
            setattr(owner, name, wrapper)
            for module in [module for key, module in sys.modules.items() if key.startswith("pipeline")]:
                for each in [key for key, value in vars(module).items() if value is original]:
                    setattr(module, each, wrapper)

    def tell(self, what: str, value: object) -> None:
        with self.lock:
            self.pipe.send((what, value))

    def _wrapped(self, place: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def passing(*args: Any, **kwargs: Any) -> Any:
            if place == "note moves" and args[1]:
                self.tell("moving", {run_id for run_id, _old, _new in args[1]})
            with self.lock:
                self.counts[place] += 1
                end = self.order.end
                ends = end is not None and (end.place, end.passing) == (place, self.counts[place])
            if ends and end.when == "before":
                self._end()
            if ends and end.when == "middle":
                HALVES[place](*args, **kwargs)
                self._end()
            result = None
            if place != "flush" or self.order.disk is not None:
                result = original(*args, **kwargs)
            if ends:
                self._end()
            return result

        return passing

    def _end(self) -> None:
        if self.order.disk is not None:
            import fcntl
            import struct

            handle = os.open(self.order.disk, os.O_RDONLY)
            fcntl.ioctl(handle, _SHUTDOWN_IOCTL, struct.pack("I", _NO_LOG_FLUSH))
        os.kill(os.getpid(), signal.SIGKILL)

    def tell_checkpoints(self) -> None:
        """Tell, whenever a checkpoint has returned, which payloads are promised to be safe."""
        checkpoint, write_frame = raw.RawWriter.checkpoint, raw.RawWriter._write_frame
        framed: list[bytes] = []

        @functools.wraps(write_frame)
        def writing(writer: raw.RawWriter, content: bytes) -> None:
            write_frame(writer, content)
            framed.append(content)

        @functools.wraps(checkpoint)
        def telling(writer: raw.RawWriter) -> int:
            size = checkpoint(writer)
            lines, framed[:] = b"".join(framed).splitlines(), []
            records = [record for record in raw.iter_records(lines) if record and record["record"] == "run"]
            self.tell("promised", {record["run_id"] for record in records})
            return size

        # For this process alone, to its end.
        mock.patch.object(raw.RawWriter, "_write_frame", new=writing).start()
        mock.patch.object(raw.RawWriter, "checkpoint", new=telling).start()


def run(order: Order, pipe: Connection) -> None:
    """Run the command, telling over the pipe what is noted as moving, what is promised to be safe, and the counts."""
    tempfile.tempdir = order.beside
    os.environ |= {"EXTEND_BASE_URL": order.base_url, "EXTEND_API_KEY": order.key, **order.environment}
    output = os.open(Path(order.beside) / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    # So that there is something to be cut short: many frames in a log, and landings while it goes on.
    session._CHECKPOINT_BYTES, session._LAND_EVERY_S, session._LANDING_SHARE = 40_000, 0.05, 1
    replay._CHECKPOINT_BYTES = 40_000
    logs.SHIP_EVERY_S, lease.LEASE_S = 0.1, BUCKET_LEASE_S
    trace = _Trace(order, pipe)
    trace.install()
    trace.tell_checkpoints()
    if order.arguments[0] == "ledger":
        ledger.LedgerFiles(LakeFiles(order.lake)).refresh()
        code = 0
    else:
        code = cli.main([*order.arguments, "--lake", order.lake])
    trace.tell("counts", dict(trace.counts))
    sys.stdout.flush()
    os._exit(code)
