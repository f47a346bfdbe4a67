"""Make a lake of millions of runs, through the pipeline's own writer, and raw logs of runs that have changed in it.

    python -m tests.benchmarks.big_lake /tmp/lake5 --runs 5000000               # ten million take about eleven minutes
    python -m tests.benchmarks.big_lake /tmp/lake5 --change 100000              # log changes spread over all days
    python -m tests.benchmarks.big_lake /tmp/lake5 --change 1000 --of-day 17    # … of one day

The same numbers give the same runs. A day's runs are of all kinds; 5 % failed, for one of ten reasons; 40 processors;
the ledger has about two lines a run: an extract run tells of its own two charges and of its parse run's two, which
count once; a split run has four; a workflow run tells of an extract run of that day and is not charged itself; of a
failed run the credits are unknown. What is logged is not landed: the next command does that, or `landing.land_log`.
"""

from __future__ import annotations

import argparse
import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import raw
from pipeline.kinds import BY_OBJECT
from pipeline.lake import LakeFiles, UnlandedLog
from pipeline.schema import BREAKDOWN, CHARGE, CREDITS, INT, LOADS_SCHEMA, RUNS_FILE_SCHEMA, TEXT, TIME

FIRST_DAY = date(2025, 11, 1)
LOAD_ID = "20261101T000000000Z-b16b16"
SHARES = {
    "classify_run": 0.18, "extract_run": 0.34, "split_run": 0.10, "parse_run": 0.22, "workflow_run": 0.10,
    "edit_run": 0.02, "verify_run": 0.03, "form_detection_run": 0.01,
}  # fmt: skip
FAILED_SHARE = 0.05
REASONS = (
    "INTERNAL_ERROR", "FAILED_TO_PROCESS_FILE", "OUT_OF_CREDITS", "PARSING_ERROR", "ABORTED", "OCR_ERROR",
    "CORRUPT_FILE", "INVALID_CONFIGURATION", "MODEL_OVERLOADED", "REGION_UNAVAILABLE",
)  # fmt: skip
PROCESSORS = {"classify_run": 8, "extract_run": 20, "split_run": 4, "workflow_run": 8}
_TEAMS = ("billing", "claims", "credit", "legal", "logistics", "risk")
_PRODUCTS = {
    "classify_run": "classification", "extract_run": "extraction", "split_run": "splitting", "parse_run": "parsing",
    "edit_run": "editing", "verify_run": "verification", "form_detection_run": "form_detection",
}  # fmt: skip
_LATER = timedelta(days=3)
_FRAME_LINES = 1_000


@dataclass(frozen=True)
class BigLake:
    """What a lake of this module is made of."""

    runs: int
    days: int = 365
    seed: int = 1

    def day(self, number: int) -> str:
        """Return the name of a day, counted from 0."""
        return (FIRST_DAY + timedelta(days=number)).isoformat()

    def count(self, number: int) -> int:
        """Return how many runs a day has."""
        return self.runs * (number + 1) // self.days - self.runs * number // self.days

    def table(self, number: int) -> pa.Table:
        """Return a day's runs, in the order in which they are drawn."""
        return make_day(
            FIRST_DAY + timedelta(days=number), self.count(number), np.random.default_rng([self.seed, number])
        )

    def write(self, folder: Path | str) -> LakeFiles:
        """Write it into a folder that has no lake yet, and return it."""
        lake = LakeFiles(folder)
        with lake.writing():
            for number in range(self.days):
                lake.write_day(self.day(number), self.table(number))
            lake.write_load(_load_row(self.runs))
        return lake


def make_day(day: date, count: int, rng: np.random.Generator) -> pa.Table:
    """Return the rows of one day's runs."""
    kinds = _in_shares(count)
    kind_names = np.array(list(SHARES))
    kind = kind_names[kinds]
    prefixes = np.array([BY_OBJECT[name].prefix for name in SHARES])[kinds]
    run_id = np.char.add(prefixes, _random_ids(rng, count))
    failed = rng.random(count) < FAILED_SHARE
    start_us = (day - date(1970, 1, 1)).days * 86_400_000_000
    created_us = start_us + np.sort(rng.integers(0, 86_400_000, count)) * 1_000
    rng.shuffle(created_us)
    updated_us = created_us + rng.integers(5_000, 600_000, count) * 1_000
    # A file comes up to a few hours before its run, for a few of them on the day before.
    is_undated = kinds == 7  # no endpoint tells when a form detection was made: it stands under its file's day
    before_us = rng.integers(1_000, 7_200_000, count) * 1_000
    file_us = np.where(is_undated, created_us, created_us - before_us)
    pages = rng.integers(1, 41, count)
    per_line = np.where(kinds == 2, 4, np.where(kinds == 4, 0, 2))
    own_micro = np.where(failed, 0, per_line * pages * 500_000)
    breakdown, total_micro = _breakdowns(kinds, run_id, failed, pages, own_micro)
    parse_run_id, _ = _parents(kinds, run_id)
    processor = [_processor_of(name, rng, count) for name in SHARES]
    has_processor = np.isin(kind, list(PROCESSORS))
    processor_number = np.choose(kinds, processor)
    of_processor = {
        column: pa.array(
            np.char.add(
                np.char.add(text, np.char.add(np.char.replace(kind, "_run", ""), "_")), processor_number.astype("U2")
            ),
            mask=~has_processor,
        )
        for column, text in (("processor_id", "proc_"), ("processor_name", "The "), ("processor_version_id", "ver_"))
    }
    is_workflow = kinds == 4
    columns: dict[str, pa.Array] = {
        "run_id": pa.array(run_id),
        "kind": pa.array(kind),
        "status": pa.array(np.where(failed, "FAILED", "PROCESSED")),
        "failure_reason": pa.array(np.array(REASONS)[rng.integers(0, len(REASONS), count)], mask=~failed),
        "failure_message": pa.array(
            np.char.add("Page could not be read: ", rng.integers(1, 41, count).astype("U2")), mask=~failed
        ),
        "credits": _decimals(np.where(is_workflow, total_micro, own_micro), failed),
        "total_credits": _decimals(total_micro, failed),
        "breakdown": breakdown,
        "created_at": _times(created_us, is_undated),
        "updated_at": _times(updated_us, is_undated),
        "initial_run_at": _times(created_us + 1_000_000, ~is_workflow),
        "started_at": _times(created_us + 2_000_000, ~is_workflow),
        "ended_at": _times(updated_us, ~is_workflow),
        **of_processor,
        "processor_version": pa.array(
            np.array(["1.0", "1.1", "2.0", "draft"])[processor_number % 4], mask=~has_processor
        ),
        "base_processor": pa.array(np.where(kinds % 2, "performance", "light")),
        "base_version": pa.array(np.array(["3.4.0", "4.0.0"])[(kinds % 3 == 0).astype(int)]),
        "file_id": pa.array(np.char.add("file_", _random_ids(rng, count))),
        "file_name": pa.array(np.char.add(np.char.add("scan-", rng.integers(0, 10**9, count).astype("U9")), ".pdf")),
        "file_type": pa.array(np.array(["PDF", "DOCX", "IMG"])[rng.choice(3, count, p=(0.8, 0.1, 0.1))]),
        "file_pages": pa.array(pages),
        "file_created_at": _times(file_us),
        "file_count": pa.array(np.ones(count, np.int64)),
        "parse_run_id": parse_run_id,
        "source": pa.array(np.array(["API", "STUDIO"])[(rng.random(count) < 0.1).astype(int)]),
        "reviewed": pa.array(np.zeros(count, bool)),
        "edited": pa.array(np.zeros(count, bool)),
        "processing_ms": pa.array(rng.integers(1_000, 90_000, count)),
        "page_count": pa.array(pages),
        "metadata": pa.array(np.array([json.dumps({"team": team}, separators=(",", ":")) for team in _TEAMS])[
            rng.integers(0, len(_TEAMS), count)
        ]),
        "dashboard_url": pa.array(np.char.add("https://dashboard.extend.ai/runs/", run_id)),
        "is_detail": pa.array(np.ones(count, bool)),
        "fetched_at": _times(updated_us + 3_600_000_000),
        "load_id": pa.array(np.full(count, LOAD_ID)),
    }  # fmt: skip
    return pa.table(
        [columns[field.name].cast(field.type) if field.name in columns else pa.nulls(count, field.type)
         for field in RUNS_FILE_SCHEMA],
        schema=RUNS_FILE_SCHEMA,
    )  # fmt: skip


def _in_shares(count: int) -> np.ndarray:
    """Return the number of each run's kind, those of a kind one after another."""
    ends = np.round(np.cumsum(list(SHARES.values())) * count).astype(int)
    return np.searchsorted(ends, np.arange(count), side="right").clip(0, len(SHARES) - 1)


def _random_ids(rng: np.random.Generator, count: int) -> np.ndarray:
    text = base64.urlsafe_b64encode(rng.bytes(15 * count)).decode()
    return np.array([text[at : at + 20] for at in range(0, 20 * count, 20)], dtype="U20")


def _processor_of(kind: str, rng: np.random.Generator, count: int) -> np.ndarray:
    """Return the numbers of processors; the first of a kind have the most runs."""
    most = PROCESSORS.get(kind, 1)
    return np.minimum(rng.geometric(2 / (most + 1), count) - 1, most - 1)


def _places(kinds: np.ndarray, number: int) -> np.ndarray:
    return np.flatnonzero(kinds == number)


def _parents(kinds: np.ndarray, run_id: np.ndarray) -> tuple[pa.Array, np.ndarray]:
    """Return the parse run of each extract run, as IDs and as places (−1: none); several may share one."""
    extracts, parses = _places(kinds, 1), _places(kinds, 3)
    place = np.full(len(kinds), -1)
    if len(parses):
        place[extracts] = parses[np.arange(len(extracts)) % len(parses)]
    return pa.array(run_id[place], mask=place < 0), place


def _breakdowns(
    kinds: np.ndarray, run_id: np.ndarray, failed: np.ndarray, pages: np.ndarray, own_micro: np.ndarray
) -> tuple[pa.Array, np.ndarray]:
    """Return each run's breakdown and total: its own entry, then that of its parse run; a workflow's: a run it made."""
    count = len(kinds)
    _, parse = _parents(kinds, run_id)
    extracts, workflows = _places(kinds, 1), _places(kinds, 4)
    child = np.full(count, -1)
    if len(extracts):
        child[workflows] = extracts[np.arange(len(workflows)) % len(extracts)]
    other = np.maximum(parse, child)
    has_other = (other >= 0) & ~failed[other] & ~failed
    has_own = (kinds != 4) & ~failed
    # Entries, in the order of runs: (run, the resource's place).
    runs = np.concatenate([np.flatnonzero(has_own), np.flatnonzero(has_other)])
    places = np.concatenate([np.flatnonzero(has_own), other[has_other]])
    order = np.argsort(runs, kind="stable")
    runs, places = runs[order], places[order]
    lines = np.where(kinds[places] == 2, 4, 2)
    charges = _charges(np.repeat(places, lines), kinds, pages)
    offsets = np.concatenate([[0], np.cumsum(lines)]).astype(np.int32)
    entries = pa.StructArray.from_arrays(
        [
            pa.array(np.array(list(SHARES))[kinds[places]], TEXT), pa.array(run_id[places], TEXT),
            _decimals(own_micro[places]), pa.ListArray.from_arrays(pa.array(offsets), charges),
        ],
        fields=list(BREAKDOWN.value_type),
    )  # fmt: skip
    ends = np.cumsum(np.bincount(runs, minlength=count))
    starts = pa.array(np.concatenate([[0], ends]).astype(np.int32), mask=np.append(failed, False))
    total = np.bincount(runs, weights=own_micro[places], minlength=count).astype(np.int64)
    return pa.ListArray.from_arrays(starts, entries), total


def _charges(places: np.ndarray, kinds: np.ndarray, pages: np.ndarray) -> pa.Array:
    """Return the charges of resources: half a credit a page each."""
    product = np.array([_PRODUCTS.get(name, "") for name in SHARES])[kinds[places]]
    # The second, third, … of a resource are products of their own.
    first = np.concatenate([[True], places[1:] != places[:-1]]) if len(places) else np.zeros(0, bool)
    number = np.arange(len(places)) - np.maximum.accumulate(np.where(first, np.arange(len(places)), 0))
    product = np.char.add(product, np.array(["", "_advanced", "_memory", "_review"])[number % 4])
    return pa.StructArray.from_arrays(
        [
            pa.array(product, TEXT), pa.array(np.full(len(places), "page"), TEXT),
            _decimals(pages[places] * 1_000_000), _decimals(pages[places] * 500_000),
            pa.nulls(len(places), pa.list_(INT)),
        ],
        fields=list(CHARGE),
    )  # fmt: skip


def _decimals(micro: np.ndarray, mask: np.ndarray | None = None) -> pa.Array:
    whole = pa.array(micro.astype(np.int64), mask=mask).cast(pa.decimal128(19, 0))
    return pc.multiply(whole, pa.scalar(Decimal("0.000001"), pa.decimal128(7, 6))).cast(CREDITS)


def _times(microseconds: np.ndarray, mask: np.ndarray | None = None) -> pa.Array:
    return pa.array(microseconds.astype(np.int64), mask=mask).cast(TIME)


def _load_row(runs: int) -> dict[str, Any]:
    at = datetime(2026, 11, 1, tzinfo=UTC)
    numbers = {"seconds": 3600.0, "requested": runs, "landed": runs, "version": "0"}
    counts = dict.fromkeys(("unchanged", "skipped", "missing", "failed", "invalid", "retries", "rate_limited"), 0)
    told = {"load_id": LOAD_ID, "command": "fetch", "source": "made up", "state": "complete"}
    times = {"started_at": at, "ended_at": at + timedelta(hours=1)}
    return dict.fromkeys(LOADS_SCHEMA.names) | told | times | numbers | counts | {"requests": runs}


# Changes


def iter_changed(
    big: BigLake, count: int, *, of_day: int | None = None, kinds: tuple[str, ...] = tuple(SHARES)
) -> Iterator[tuple[str, bytes]]:
    """Yield the IDs and payloads of runs of the lake that a person has reviewed since, spread over all days or of one.

    They are as lists give them: without a breakdown, and of form detections, which no list shows, as by ID.
    """
    days = range(big.days) if of_day is None else [of_day]
    for place, number in enumerate(days):
        wanted = count * (place + 1) // len(days) - count * place // len(days)
        table = big.table(number)
        is_wanted = pc.is_in(table["kind"], value_set=pa.array(kinds))
        table = table.filter(is_wanted)
        picked = np.linspace(0, len(table) - 1, min(wanted, len(table))).astype(int)
        for row in table.take(pa.array(np.unique(picked))).to_pylist():
            yield row["run_id"], json.dumps(changed_payload(row)).encode()


def changed_payload(row: dict[str, Any]) -> dict[str, Any]:
    """Return a run's payload as it is once it was reviewed, three days after it ended."""
    kind = BY_OBJECT[row["kind"]]
    usage = (
        None
        if row["credits"] is None
        else {"credits": float(row["credits"]), "totalCredits": float(row["total_credits"])}
    )
    file = {
        "object": "file", "id": row["file_id"], "name": row["file_name"], "type": row["file_type"],
        "createdAt": row["file_created_at"].isoformat(), "metadata": {"pageCount": row["file_pages"]},
    }  # fmt: skip
    told = {
        "object": row["kind"], "id": row["run_id"], "status": row["status"], "usage": usage,
        "failureReason": row["failure_reason"], "failureMessage": row["failure_message"],
        "createdAt": row["created_at"] and row["created_at"].isoformat(),
        "updatedAt": row["updated_at"] and (row["updated_at"] + _LATER).isoformat(),
        "file": file, "files": [file], "metadata": json.loads(row["metadata"]), "parseRunId": row["parse_run_id"],
        "metrics": {"processingTimeMs": row["processing_ms"], "pageCount": row["page_count"]},
        "source": row["source"], "reviewed": True, "edited": True, "dashboardUrl": row["dashboard_url"],
        "initialRunAt": row["initial_run_at"] and row["initial_run_at"].isoformat(),
        "startTime": row["started_at"] and row["started_at"].isoformat(),
        "endTime": row["ended_at"] and row["ended_at"].isoformat(),
    }  # fmt: skip
    if kind.processor:
        told[kind.processor] = {"object": kind.processor, "id": row["processor_id"], "name": row["processor_name"]}
        told[f"{kind.processor}Version"] = {"id": row["processor_version_id"], "version": row["processor_version"]}
    shape = "list" if kind.listed else "detail"
    return {name: value for name, value in told.items() if kind.carries.get(name) in ("both", shape)}


def log_changes(lake: LakeFiles, changed: Iterator[tuple[str, bytes]], *, now: datetime | None = None) -> UnlandedLog:
    """Write a raw log of payloads, as a load does that has not landed them yet."""
    fetched_at = now or datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
    load_id = raw.new_load_id(fetched_at)
    path = raw.raw_path(lake.raw_folder, load_id)
    writer = raw.RawWriter.create(path)
    try:
        head = {"load_id": load_id, "command": "sync", "source": "lists", "base_url": None, "workspace_id": None}
        writer.append(raw.other_record("load", {**head, "started_at": fetched_at, "requested": 0, "version": "0"}))
        for number, (run_id, body) in enumerate(changed):
            is_detail = run_id.startswith("sgr_")
            line = raw.run_record(run_id, body, fetched_at=fetched_at, is_detail=is_detail, workspace_id=None)
            writer.append(line)
            if number % _FRAME_LINES == 0:
                writer.checkpoint()
        writer.checkpoint()
    finally:
        writer.close()
    return UnlandedLog(path, load_id, 0)


def main() -> None:
    """Make a lake, or log changes to one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=1_000_000, help="how many runs the lake has (%(default)s)")
    parser.add_argument("--days", type=int, default=365, help="over how many days (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--change", type=int, help="log so many changed runs of the lake that was made so before")
    parser.add_argument("--of-day", type=int, help="all of one day, counted from 0, not spread over all")
    parser.add_argument("--kind", action="append", choices=list(SHARES), help="of this kind; may be repeated")
    arguments = parser.parse_args()
    big = BigLake(arguments.runs, arguments.days, arguments.seed)
    if arguments.change is None:
        big.write(arguments.folder)
        return
    kinds = tuple(arguments.kind or SHARES)
    changed = iter_changed(big, arguments.change, of_day=arguments.of_day, kinds=kinds)
    print(log_changes(LakeFiles(arguments.folder), changed).path)


if __name__ == "__main__":
    main()
