"""One load from its beginning to its end: its raw log, its landings, its row in `loads`.

`recover` does the rest for a load whose process died.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import __version__, durable, raw, telemetry
from pipeline.arrow_schemas import LOADS_SCHEMA
from pipeline.at_work import at_rest, load_lock, load_lock_path
from pipeline.erased import read_erased
from pipeline.errors import LakeError
from pipeline.intake import Intake
from pipeline.lake import LakeFiles, UnlandedLog
from pipeline.parts import adopt_parts, iter_lines, logs_with_parts, remove_parts
from pipeline.values import time_value

if TYPE_CHECKING:
    from pipeline.bucket.logs import Shipping
    from pipeline.staging import Landing

Tell = Callable[[str], None]
"""Where a sentence for the user goes."""


_JSON_FIELDS = (
    "load_id", "requested", "landed", "unchanged", "skipped", "missing", "failed", "invalid",
    "requests", "retries", "rate_limited", "seconds", "lake",
)  # fmt: skip


@dataclass(slots=True)
class LoadResult:
    """What came of a load. Each distinct ID that was asked for is counted in exactly one of `landed` (new or changed),
    `unchanged`, `skipped` (the lake had it finished, in detail), `missing` (404), `failed` and `invalid`.

    `requests` counts HTTP requests, retries included, `rate_limited` answers of 429. `error` is why the load stopped
    before its end, null where it did not, and `interrupted` whether that was the user's wish. `failed_reasons` counts
    missing and failed by reason, `field_problems` values of an unexpected type by column.
    """

    load_id: str
    lake: str
    requested: int = 0
    landed: int = 0
    unchanged: int = 0
    skipped: int = 0
    missing: int = 0
    failed: int = 0
    invalid: int = 0
    requests: int = 0
    retries: int = 0
    rate_limited: int = 0
    seconds: float = 0.0
    failed_reasons: Counter[str] = field(default_factory=Counter)
    field_problems: Counter[str] = field(default_factory=Counter)
    error: str | None = None
    interrupted: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether everything that was asked for is in the lake."""
        return not (self.missing or self.failed or self.invalid or self.error)

    def as_json(self) -> dict[str, Any]:
        """Return the summary that `--json` prints."""
        return {name: getattr(self, name) for name in _JSON_FIELDS}


MOST_ROWS = 250_000
"""How many runs a long load lands at once: what a landing holds grows with them, by some ten bytes each."""

_LANDING_HERE = threading.BoundedSemaphore(os.cpu_count() or 1)
"""Held by a landing: each keeps a processor busy, and the many loads of one process that land at once, each in a thread
of its own, would only take it from one another, and from those that ask.
"""


class Load(Intake):
    """One load under way. Payloads and failures go to the raw log first; `land` brings them into the lake.

    With `most_rows` it does so in parts of not much more than so many: a run that comes twice may be counted twice.
    """

    def __init__(
        self,
        lake: LakeFiles,
        *,
        command: str,
        source: str,
        requested: int = 0,
        base_url: str | None = None,
        workspace_id: str | None = None,
        keep_raw: bool = True,
        most_rows: int | None = None,
        tell: Tell = lambda _message: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        lake.is_current()  # raises where it must not be written: before anything is asked for
        self.lake, self._tell = lake, tell
        self.started_at = now()
        self.result = LoadResult(raw.new_load_id(self.started_at), lake.name, requested=requested)
        self._keep_raw, self._most_rows = keep_raw, most_rows
        self._landed_bytes = self._taken_at_landing = 0
        self._head = {
            "load_id": self.result.load_id,
            "command": command,
            "source": source,
            "base_url": base_url,
            "workspace_id": workspace_id,
            "started_at": self.started_at,
            "requested": requested,
            "version": __version__,
        }
        path = raw.raw_path(lake.raw_folder, self.result.load_id)
        lake.make_folder()
        durable.make_folder(path.parent)
        self._lock = load_lock(lake, self.result.load_id)
        self._lock.acquire(timeout=0)
        self._shipping: Shipping | None = None
        try:
            if lake.mirror is not None:
                self._shipping = lake.mirror.begin_load(self.result.load_id, path)
            # Not before others can see that this load is at work: who erases waits for its end.
            erased = read_erased(lake)
            super().__init__(raw.RawWriter.create(path), erased, now=now)
        except (OSError, LakeError):
            self._lock.release()
            raise
        self._writer.append(raw.other_record("load", {**self._head, "keep_raw": keep_raw}))
        try:
            self._writer.checkpoint()
        except OSError:
            self.close()
            raise
        if self._shipping is not None:
            self._shipping.follow(lambda: self._writer.safe_bytes)

    def take_part(self, part: Path) -> None:
        """Take all that another process has put into a part of this load's log (see `parts`), and make it safe."""
        for lines in iter_lines(part):
            for line in lines:
                self._writer.append(line + b"\n")
            self._taken += len(lines)
            self._writer.checkpoint()

    def land(self, *, while_asking: bool = False) -> None:
        """Bring all that was taken into the lake; `while_asking` in smaller portions, since the asking has its own."""
        taken = self._taken
        if taken == self._taken_at_landing:
            return
        size = self._writer.checkpoint()
        if self._shipping is not None:
            self._shipping.ship(size)
        while not self._land_part(while_asking=while_asking):
            pass
        self._taken_at_landing = taken

    def _land_part(self, *, while_asking: bool) -> bool:
        """Bring the next part of what was taken into the lake; tell whether it was the last."""
        from pipeline import staging  # here, since a sync with nothing new does without
        from pipeline.landing import land_log

        portions = staging.SMALL if while_asking else staging.LARGE
        log = UnlandedLog(self._writer.path, self.result.load_id, self._landed_bytes)
        before = replace(
            self.result,
            failed_reasons=Counter(self.result.failed_reasons), field_problems=Counter(self.result.field_problems),
        )  # fmt: skip

        def step() -> bool:
            # One that goes to a bucket waits for the network most of the time.
            with _LANDING_HERE if self.lake.mirror is None else contextlib.nullcontext():
                landing = land_log(self.lake, log, most_rows=self._most_rows, portions=portions)
            _set_landing(self.result, before, landing)
            self._landed_bytes = landing.raw_bytes
            self.lake.write_load(self._row("running"))
            return landing.is_all

        return self.lake.write(step, tell=self._tell)

    def finish(self) -> LoadResult:
        """Land the rest, write the load's row and close its log; return what came of it.

        A log without a payload or failure is not kept.
        """
        self.land()
        keep_raw = self._keep_raw and not self.is_empty
        self.result.seconds = round(max(0.0, (self._now() - self.started_at).total_seconds()), 3)
        row = self._row("stopped" if self.result.error else "complete")
        self._writer.append(raw.other_record("end", row))
        row["raw_bytes"] = self._writer.checkpoint()
        if not keep_raw:
            row |= {"raw_file": None, "raw_bytes": None}
        if self._shipping is not None:
            self._shipping.send_no_more()

        def step() -> None:
            if keep_raw and self.lake.mirror is not None:
                self.lake.mirror.publish(self._writer.path)
            self.lake.write_load(row)
            if not keep_raw:
                durable.remove_file(self._writer.path)
            elif self.lake.mirror is not None:
                self.lake.mirror.settle(self.result.load_id)

        self.lake.write(step, tell=self._tell)
        self.close()
        telemetry.runs_landed.add(self.result.landed, {"command": row["command"]})
        telemetry.load_seconds.add(self.result.seconds, {"command": row["command"]})
        return self.result

    @property
    def log_path(self) -> Path:
        """Where the load's raw log is."""
        return self._writer.path

    def close(self) -> None:
        """Let go of the log, finished or not; what had been checkpointed lands with the next command."""
        if self._shipping is not None:
            self._shipping.end()
        self._writer.close()
        self._lock.release()
        with contextlib.suppress(OSError):
            load_lock_path(self.lake, self.result.load_id).unlink(missing_ok=True)

    def _row(self, state: str) -> dict[str, Any]:
        row = _load_row(self._head, self.result, state)
        row |= {"ended_at": self._now(), "raw_bytes": self._landed_bytes}
        row["raw_file"] = self._writer.path.relative_to(self.lake.folder).as_posix()
        return row


def recover(lake: LakeFiles, *, tell: Tell = lambda _message: None) -> int:
    """Land what loads whose process died had logged, asking the API for nothing; return how many such loads there were.

    An erasure that was cut short is finished first.
    A load that is still running is left alone. `tell` gets a sentence for each one landed and each damage met.
    """
    lake.is_current()  # raises where it must not be written
    erased = read_erased(lake)
    if erased.unfinished:
        from pipeline.erasure import finish_erasure  # here, since it brings in DuckDB

        finish_erasure(lake, erased, tell=tell)
    lake.fetch_unlanded()
    _remove_stray_parts(lake)
    if not lake.unlanded_logs():
        return 0

    def step() -> int:
        recovered = 0
        for log in lake.unlanded_logs():
            with at_rest(lake, log.load_id) as is_at_rest:
                if is_at_rest:
                    recovered += _recover_one(lake, log, tell)
        return recovered

    return lake.write(step, tell=tell)


def _remove_stray_parts(lake: LakeFiles) -> None:
    """Remove the parts of loads that have ended: an attempt that did not count wrote them afterwards."""
    logs = logs_with_parts(lake.raw_folder)
    unlanded = {log.path for log in lake.unlanded_logs()} if logs else set()
    for log in logs:
        if log not in unlanded:
            remove_parts(log)


def _recover_one(lake: LakeFiles, log: UnlandedLog, tell: Tell) -> int:
    from pipeline.landing import land_log  # here: see above

    before = _known_row(lake, log.load_id)
    if before is not None and before["raw_file"] is None:
        durable.remove_file(log.path)  # all of it has landed, and it is not to be kept
        return 0
    adopt_parts(log.path)
    size = log.path.stat().st_size
    landing = land_log(lake, log)
    for damage in landing.damaged:
        what = "torn at its end, as by a crash" if damage.is_tail else "damaged in the middle"
        tell(f"{log.path}: {what}; bytes {damage.start} to {damage.end} are lost")
    if before is None and landing.header is None and landing.end is None and landing.last_record_at is None:
        durable.remove_file(log.path)
        return 0
    row = _recovered_row(lake, log, landing, before)
    row["raw_bytes"] = size = _whole_size(log, landing, size)
    is_kept = _is_kept(log)
    if not is_kept:
        row |= {"raw_file": None, "raw_bytes": None}
    elif lake.mirror is not None and not lake.mirror.publish(log.path):
        return _take_leave(lake, log, before, tell)
    lake.write_load(row)
    if not is_kept:
        durable.remove_file(log.path)
    elif size < log.path.stat().st_size:
        durable.cut_file(log.path, size)
    if lake.mirror is not None:
        lake.mirror.settle(log.load_id)
    if row["state"] != "interrupted":
        return 0
    tell(f"load {log.load_id} had been interrupted: {landing.landed} runs landed from its log")
    return 1


def _take_leave(lake: LakeFiles, log: UnlandedLog, before: dict[str, Any] | None, tell: Tell) -> int:
    """Drop a log here that the bucket has otherwise: another machine landed the first part of it, and has taken out
    since what was forgotten or pruned. The rest has landed now, too.
    """
    tell(
        f"{lake.name}: load {log.load_id}: another machine has changed its log; what it lacks landed from the one here"
    )
    log.path.unlink()
    if before is not None and lake.mirror is not None:
        lake.mirror.settle(log.load_id)
    return 1


def _is_kept(log: UnlandedLog) -> bool:
    """Return whether a log is to be kept, as its first record says; one that does not say so is."""
    first = next(raw.iter_frames(log.path), None)
    records = raw.iter_records(first.lines) if isinstance(first, raw.Frame) else iter(())
    return (next(records, None) or {}).get("keep_raw") is not False


def _whole_size(log: UnlandedLog, landing: Landing, size: int) -> int:
    """Return how much of a log that had this size is to be kept: all but what is torn at its end.

    Where no frame ends there, it is another log than the one that had landed so far, and nothing of it is torn.
    """
    last = landing.damaged[-1] if landing.damaged else None
    if last is None or not last.is_tail:
        return size
    is_whole = last.start == 0 or any(part.end == last.start for part in raw.iter_frames(log.path))
    return last.start if is_whole else size


def _recovered_row(
    lake: LakeFiles, log: UnlandedLog, landing: Landing, before: dict[str, Any] | None
) -> dict[str, Any]:
    if landing.end is not None:
        row = {name: landing.end.get(name) for name in LOADS_SCHEMA.names}
        row |= {name: [tuple(pair) for pair in row[name] or ()] for name in ("failed_reasons", "field_problems")}
        return row | {name: _time(row[name]) for name in ("started_at", "ended_at")}
    if before is not None and before["state"] != "running" and landing.last_record_at is None:
        return before  # nothing came, but for what is torn
    result = LoadResult(log.load_id, lake.name)
    for name in ("landed", "unchanged", "missing", "failed", "invalid"):
        setattr(result, name, (before or {}).get(name) or 0)
    _set_landing(result, result, landing)
    head = before or {**(landing.header or {}), "load_id": log.load_id}
    row = _load_row(head, result, "interrupted")
    row["requested"] = head.get("requested")
    row |= {"started_at": _time(head.get("started_at")), "ended_at": landing.last_record_at}
    row["raw_file"] = log.path.relative_to(lake.folder).as_posix()
    return row


def _known_row(lake: LakeFiles, load_id: str) -> dict[str, Any] | None:
    return next((row for row in lake.read_loads().to_pylist() if row["load_id"] == load_id), None)


def _set_landing(result: LoadResult, before: LoadResult, landing: Landing) -> None:
    """Set a result's counts to what they were before, and a landing's."""
    for name in ("landed", "unchanged", "missing", "failed", "invalid"):
        setattr(result, name, getattr(before, name) + getattr(landing, name))
    result.failed_reasons = before.failed_reasons + landing.failed_reasons
    result.field_problems = before.field_problems + landing.field_problems


def _load_row(head: dict[str, Any], result: LoadResult, state: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(LOADS_SCHEMA.names)
    row |= {name: head.get(name) for name in ("load_id", "command", "source", "base_url", "workspace_id", "version")}
    row |= {name: getattr(result, name) for name in row if hasattr(result, name)}
    row |= {"state": state, "started_at": head.get("started_at")}
    row["failed_reasons"] = sorted(result.failed_reasons.items())
    row["field_problems"] = sorted(result.field_problems.items())
    return row


def _time(value: datetime | str | None) -> datetime | None:
    return time_value(value) if isinstance(value, str) else value
