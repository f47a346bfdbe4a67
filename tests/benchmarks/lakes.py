"""Lakes of millions of runs, made in minutes: written column by column through the pipeline's own writer of day files.

All runs are extract runs, read in detail. Each tells in its breakdown of two charged resources, itself and a parse run
of its own, so the credit ledger has two lines a run. A run's number says all of it: `number % days` is its day and
`number // days` its place in it, so that every day has runs of the same kind. `payload` is the same run as the API
would give it, changed since the lake was made.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrow_schemas import CHARGE, CREDITS, RUNS_FILE_SCHEMA
from pipeline.lake import LakeFiles
from tests.benchmarks.measuring import say

DAYS = 365
FIRST_DAY = date(2025, 11, 1)
FAILED_EVERY = 20
PROCESSORS = 11
SECONDS = 86_000
"""The runs of a day are created within so many seconds of it."""
SMALL_DAY = 2_740
"""How many runs the last day of every lake has: as many as each day of a lake of a million."""
_REASONS = ("INTERNAL_ERROR", "PARSING_ERROR", "OUT_OF_CREDITS", "FAILED_TO_PROCESS_FILE")
_OWN_CREDITS = tuple(Decimal(each) for each in ("0.5", "1", "1.5", "2", "4"))
_PARSE_CREDITS = tuple(Decimal(each) for each in ("0.3", "0.6", "2.7"))
_LOAD_ID = "20261101T000000000Z-0000aa"
_FETCHED_AT = datetime(2026, 11, 1, tzinfo=UTC)
_FINISHED_AFTER = timedelta(seconds=40)
_HEX_OF_BYTE = np.array([f"{each:02x}".encode() for each in range(256)])
_FILLER = 1_700  # as long as what the fast server's runs say of their output


@dataclass(frozen=True, slots=True)
class MadeLake:
    """A lake, and how many runs each of its days has."""

    folder: Path
    sizes: tuple[int, ...]

    @property
    def runs(self) -> int:
        """How many runs it has."""
        return sum(self.sizes)

    def numbers(self, place: int) -> range:
        """Return the numbers of a day's runs."""
        return range(place, self.sizes[place] * len(self.sizes), len(self.sizes))

    def copied(self, folder: Path) -> Path:
        """Return a copy that can be written to: files are replaced, never changed, so hard links will do."""
        shutil.copytree(self.folder, folder, copy_function=lambda source, to: Path(to).hardlink_to(source))
        return folder


def make_lake(folder: Path, sizes: Sequence[int]) -> MadeLake:
    """Make a lake whose first day has the first of these numbers of runs, and so on."""
    lake = LakeFiles(folder)
    say(f"  making a lake of {sum(sizes):,} runs of {len(sizes)} days")
    with lake.writing():  # notes the schema's version, so that nobody brings the files up to date
        for place, size in enumerate(sizes):
            lake.write_day(day_name(place), _rows(place, size, len(sizes)))
        times = dict.fromkeys(("started_at", "ended_at"), _FETCHED_AT)
        lake.write_load(
            {"load_id": _LOAD_ID, "command": "load", "state": "complete", "landed": sum(sizes), "raw_file": None,
             "raw_bytes": None, **times}
        )  # fmt: skip
    return MadeLake(folder, tuple(sizes))


def made_once(lakes: Path, runs: int, days: int = DAYS) -> MadeLake:
    """Return the lake of about so many runs, made if it is not there yet; what is in it must stay as it is.

    The last day has SMALL_DAY runs in every lake; all the others have the rest in equal parts.
    """
    folder = lakes / f"lake-{runs}-{days}"
    size = max(1, (runs - SMALL_DAY) // (days - 1))
    sizes = [size] * (days - 1) + [SMALL_DAY]
    return MadeLake(folder, tuple(sizes)) if folder.exists() else make_lake(folder, sizes)


def credits_by_day_and_kind(lake: MadeLake) -> dict[tuple[str, str], Decimal]:
    """Return the credits of each day and kind of resource, worked out from what `payload` says of each run."""
    found = {}
    for place, size in enumerate(lake.sizes):
        for kind, values in (("extract_run", _OWN_CREDITS), ("parse_run", _PARSE_CREDITS)):
            whole, rest = divmod(size, len(values))
            more = (values[(place + each) % len(values)] for each in range(rest))
            found[day_name(place), kind] = whole * sum(values, Decimal()) + sum(more, Decimal())
    return found


def failures(lake: MadeLake, by: Callable[[int], str]) -> Counter[str]:
    """Return how many runs failed, by what is known of their turn: `reason_of`, `processor_of`."""
    days = (range(place, place + size) for place, size in enumerate(lake.sizes))
    return Counter(by(turn) for turns in days for turn in turns[-turns.start % FAILED_EVERY :: FAILED_EVERY])


def reason_of(turn: int) -> str:
    """Return why the run of a turn failed, if it did."""
    return _REASONS[turn // FAILED_EVERY % len(_REASONS)]


def processor_of(turn: int) -> str:
    """Return the name of its processor."""
    return f"Extractor {turn % PROCESSORS}"


def day_name(place: int) -> str:
    """Return a day by its place."""
    return (FIRST_DAY + timedelta(days=place)).isoformat()


def created_at(number: int, days: int) -> datetime:
    """Return when a run was created."""
    start = datetime.combine(FIRST_DAY + timedelta(days=number % days), datetime.min.time(), UTC)
    return start + timedelta(seconds=second_of(number // days))


def second_of(place: int) -> int:
    """Return the second of its day in which the run of a place in the day was created."""
    return place * 7 % SECONDS


def payload(number: int, days: int) -> dict[str, Any]:
    """Return a run's detail as it is an hour after it was made: edited by a review."""
    created = created_at(number, days)
    turn = number // days + number % days
    is_failed = turn % FAILED_EVERY == 0
    own, parse = _OWN_CREDITS[turn % len(_OWN_CREDITS)], _PARSE_CREDITS[turn % len(_PARSE_CREDITS)]
    processor = turn % PROCESSORS
    breakdown = [
        {"object": "extract_run", "id": run_id(number), "credits": float(own),
         "charges": [{"product": "extraction", "unit": "page", "quantity": 1, "credits": float(own)}]},
        {"object": "parse_run", "id": _parse_id(number), "credits": float(parse),
         "charges": [{"product": "parsing", "unit": "page", "quantity": 1, "credits": float(parse)}]},
    ]  # fmt: skip
    return {
        "object": "extract_run", "id": run_id(number), "status": "FAILED" if is_failed else "PROCESSED",
        "failureReason": reason_of(turn) if is_failed else None,
        "failureMessage": "It did not work." if is_failed else None,
        "createdAt": created.isoformat(), "updatedAt": (created + timedelta(hours=1)).isoformat(),
        "extractor": {"object": "extractor", "id": f"ex_{processor}", "name": f"Extractor {processor}"},
        "extractorVersion": {"object": "extractor_version", "id": f"exv_{processor}", "version": "1.0"},
        "config": {"baseProcessor": "extraction_performance", "baseVersion": "4.1.0"},
        "file": {"object": "file", "id": f"file_{_scattered(number)}", "name": f"invoice-{number}.pdf", "type": "PDF",
                 "metadata": {"pageCount": 3}, "createdAt": created.isoformat()},
        "parseRunId": _parse_id(number), "reviewed": True, "edited": True, "metadata": {"team": f"t{turn % 5}"},
        "output": {"value": {"text": "x" * _FILLER}},
        "usage": {"credits": float(own), "totalCredits": float(own + parse), "breakdown": breakdown},
        "dashboardUrl": f"https://dashboard.example/runs/{run_id(number)}",
    }  # fmt: skip


def write_payloads(path: Path, numbers: Sequence[int], days: int) -> None:
    """Write such payloads to a file, one a line."""
    with path.open("w") as file:
        for number in numbers:
            file.write(json.dumps(payload(number, days)) + "\n")


def run_id(number: int) -> str:
    """Return the ID of a run by its number."""
    return f"exr_{_scattered(number)}"


def _parse_id(number: int) -> str:
    return f"pr_{_scattered(number)}"


def _scattered(number: int) -> str:
    text: str = _all_scattered(np.array([number]))[0].as_py()
    return text


def _all_scattered(numbers: Any) -> pa.Array:
    """Return for each number 16 hexadecimal digits of its own, which compress as badly as those of real IDs.

    It is the end of SplitMix64, which maps no two numbers to the same.
    """
    mixed = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    digits = _HEX_OF_BYTE[mixed.view(np.uint8)].view("S16")
    return pa.array(digits).cast(pa.string())


def _rows(place: int, size: int, days: int) -> pa.Table:
    """Return a day's rows."""
    numbers = np.arange(size, dtype=np.int64) * days + place
    scattered = _all_scattered(numbers)
    run_ids, parse_ids = _joined("exr_", scattered), _joined("pr_", scattered)
    turns = np.arange(size, dtype=np.int64) + place  # `number // days + number % days`
    own, parse = _taken(_OWN_CREDITS, turns, CREDITS), _taken(_PARSE_CREDITS, turns, CREDITS)
    is_failed = pa.array(turns % FAILED_EVERY == 0)
    start = np.datetime64(FIRST_DAY + timedelta(days=place), "us")
    created = start + (np.arange(size) * 7 % SECONDS).astype("timedelta64[s]")
    updated = created + np.timedelta64(_FINISHED_AFTER)
    text = pa.array(numbers).cast(pa.string())
    columns: dict[str, Any] = {
        "run_id": run_ids,
        "kind": _same("extract_run", size),
        "status": pc.if_else(is_failed, "FAILED", "PROCESSED"),
        "failure_reason": _unless(is_failed, _taken(_REASONS, turns // FAILED_EVERY)),
        "failure_message": _unless(is_failed, _same("It did not work.", size)),
        "credits": own,
        "total_credits": pc.add(own, parse).cast(CREDITS),
        "breakdown": _breakdown(run_ids, parse_ids, own, parse),
        "created_at": _times(created),
        "updated_at": _times(updated),
        "processor_id": _taken([f"ex_{each}" for each in range(PROCESSORS)], turns),
        "processor_name": _taken([f"Extractor {each}" for each in range(PROCESSORS)], turns),
        "processor_version_id": _taken([f"exv_{each}" for each in range(PROCESSORS)], turns),
        "processor_version": _same("1.0", size),
        "base_processor": _same("extraction_performance", size),
        "base_version": _same("4.1.0", size),
        "file_id": _joined("file_", scattered),
        "file_name": _joined("invoice-", text, ".pdf"),
        "file_type": _same("PDF", size),
        "file_pages": pa.array(np.full(size, 3)),
        "file_created_at": _times(created),
        "file_count": pa.array(np.full(size, 1)),
        "parse_run_id": parse_ids,
        "reviewed": pa.array(np.full(size, False)),
        "edited": pa.array(np.full(size, False)),
        "metadata": _taken([f'{{"team": "t{each}"}}' for each in range(5)], turns),
        "dashboard_url": _joined("https://dashboard.example/runs/", run_ids),
        "is_detail": pa.array(np.full(size, True)),
        "fetched_at": pa.repeat(pa.scalar(_FETCHED_AT, pa.timestamp("us", tz="UTC")), size),
        "load_id": _same(_LOAD_ID, size),
    }
    return pa.table(
        [columns[field.name] if field.name in columns else pa.nulls(size, field.type) for field in RUNS_FILE_SCHEMA],
        schema=RUNS_FILE_SCHEMA,
    )


def _breakdown(run_ids: Any, parse_ids: Any, own: Any, parse: Any) -> pa.Array:
    """Return for each run a list of itself and its parse run, each with one charge."""
    size = len(run_ids)
    in_turn = pa.array(np.arange(2 * size).reshape(2, size).T.ravel())  # run, its parse run, next run, …
    credits = pa.concat_arrays([own, parse]).take(in_turn)
    products = pa.array(["extraction", "parsing"]).take(pa.array(np.tile([0, 1], size)))
    charges = pa.StructArray.from_arrays(
        [products, _same("page", 2 * size), _same(Decimal(1), 2 * size, CREDITS), credits,
         pa.nulls(2 * size, pa.list_(pa.int64()))],
        fields=list(CHARGE),
    )  # fmt: skip
    entries = pa.StructArray.from_arrays(
        [pa.array(["extract_run", "parse_run"]).take(pa.array(np.tile([0, 1], size))),
         pa.concat_arrays([run_ids, parse_ids]).take(in_turn), credits,
         pa.ListArray.from_arrays(pa.array(np.arange(2 * size + 1, dtype=np.int32)), charges)],
        fields=list(RUNS_FILE_SCHEMA.field("breakdown").type.value_type),
    )  # fmt: skip
    return pa.ListArray.from_arrays(pa.array(np.arange(0, 2 * size + 1, 2, dtype=np.int32)), entries)


def _same(value: object, size: int, type_: pa.DataType | None = None) -> pa.Array:
    return pa.repeat(pa.scalar(value, type_ or pa.string()), size)


def _taken(values: Sequence[object], numbers: Any, type_: pa.DataType | None = None) -> pa.Array:
    """Return for each number one of the values, in turn."""
    return pa.array(values, type_ or pa.string()).take(pa.array(numbers % len(values)))


def _unless(is_there: pa.Array, values: pa.Array) -> pa.Array:
    return pc.if_else(is_there, values, pa.scalar(None, values.type))


def _joined(*parts: Any) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")


def _times(times: Any) -> pa.Array:
    return pa.array(times.astype("datetime64[us]"), pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))
