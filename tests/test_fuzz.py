"""Payloads of the sandbox, broken in every way a seeded die can think of, against a table of columns made by hand.

Each payload has a number, and the same number gives the same payload: a failure names it.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.arrow_schemas import RUNS_FILE_SCHEMA, RUNS_SCHEMA
from pipeline.catalog import Lake
from pipeline.flatten import Flattened, flatten_run, flatten_runs, is_detail_payload
from pipeline.lake import LakeFiles
from pipeline.loads import Load
from pipeline.merge import merge_rows
from pipeline.sandbox.world import World
from pipeline.strict import parse_json
from tests.conftest import NOON
from tests.worlds import make_squeezed_world

Json = dict[str, Any]
Row = dict[str, Any]

# ---------------------------------------------------------------------------------------------------------------------
# What a row should be, by hand: from the vendor's reference ("Fields by endpoint") and the data dictionary.

PREFIXES = {
    "classify_run": "clr_", "extract_run": "exr_", "split_run": "splr_", "parse_run": "pr_",
    "workflow_run": "workflow_run_", "edit_run": "edr_", "verify_run": "vr_", "form_detection_run": "sgr_",
}  # fmt: skip
PROCESSORS = {
    "classify_run": "classifier", "extract_run": "extractor", "split_run": "splitter", "workflow_run": "workflow",
}  # fmt: skip

# column: the one place in a payload that it may come from, and what it holds
PLACES = {
    "status": ("status", "text"),
    "failure_reason": ("failureReason", "text"),
    "failure_message": ("failureMessage", "text"),
    "credits": ("usage.credits", "decimal"),
    "total_credits": ("usage.totalCredits", "decimal"),
    "created_at": ("createdAt", "time"),
    "updated_at": ("updatedAt", "time"),
    "initial_run_at": ("initialRunAt", "time"),
    "started_at": ("startTime", "time"),
    "ended_at": ("endTime", "time"),
    "reviewed_at": ("reviewedAt", "time"),
    "base_processor": ("config.baseProcessor", "text"),
    "base_version": ("config.baseVersion", "text"),
    "parse_run_id": ("parseRunId", "text"),
    "batch_id": ("batchId", "text"),
    "source": ("source", "text"),
    "source_id": ("sourceId", "text"),
    "reviewed": ("reviewed", "flag"),
    "edited": ("edited", "flag"),
    "risk_level": ("riskLevel", "text"),
    "processing_ms": ("metrics.processingTimeMs", "rounded"),
    "page_count": ("metrics.pageCount", "whole"),
    "dashboard_url": ("dashboardUrl", "text"),
}
OF_CLASSIFY = {
    "output_type": ("output.type", "text"),
    "output_confidence": ("output.confidence", "number"),
    "initial_output_type": ("initialOutput.type", "text"),
    "reviewed_output_type": ("reviewedOutput.type", "text"),
}
OF_PROCESSOR = {
    "processor_id": ("{}.id", "text"),
    "processor_name": ("{}.name", "text"),
    "processor_version_id": ("{}Version.id", "text"),
    "processor_version": ("{}Version.version", "text"),
}
OF_FILE = {
    "file_id": ("id", "text"),
    "file_name": ("name", "text"),
    "file_type": ("type", "text"),
    "file_pages": ("metadata.pageCount", "whole"),
    "file_created_at": ("createdAt", "time"),
}


class _Unsure:
    """Equal to whatever may become of a time that RFC 3339 does not know and ISO 8601 may."""

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, datetime)

    __hash__ = None  # it is equal to things of different hashes


UNSURE = _Unsure()
TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?(?:[Zz]|([+-])(\d\d):(\d\d))?", re.ASCII
)
DIGITS = re.compile(r"\d", re.ASCII)


def text(value: Any) -> Any:
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", value) if type(value) is str else None


def flag(value: Any) -> Any:
    return value if type(value) is bool else None


def exact(value: Any) -> Fraction | None:
    if type(value) not in (int, float) or not (type(value) is int or math.isfinite(value)):
        return None
    return Fraction(repr(value)) if type(value) is float else Fraction(value)


def decimal(value: Any) -> Any:
    number = exact(value)
    if number is None or abs(number) > 10**12:
        return None
    millionths = round(number * 10**6)
    return Decimal(millionths) / 10**6 if abs(millionths) < 10**18 else None


def whole(value: Any) -> Any:
    number = exact(value)
    return int(number) if number is not None and number.denominator == 1 and -(2**63) <= number < 2**63 else None


def rounded(value: Any) -> Any:
    number = exact(value)
    return None if number is None else whole(round(number))


def number(value: Any) -> Any:
    found = exact(value)
    return float(value) if found is not None and abs(found) < 2**1024 else None


def time(value: Any) -> Any:
    if type(value) is not str:
        return None
    match = TIME.fullmatch(value)
    if match is None:
        return UNSURE if len(value) >= 19 and DIGITS.search(value) else None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    try:
        found = datetime(year, month, day, hour, minute, second, int((match[7] or "").ljust(6, "0")), tzinfo=UTC)
        east = timedelta(hours=int(match[9] or 0), minutes=int(match[10] or 0))
        if east >= timedelta(days=1):
            return None
        return found + east if match[8] == "-" else found - east
    except (ValueError, OverflowError):
        return UNSURE if hour == 24 else None


READ: dict[str, Callable[[Any], Any]] = {
    "text": text, "flag": flag, "decimal": decimal, "whole": whole, "rounded": rounded, "number": number, "time": time,
}  # fmt: skip


def at(payload: Any, place: str) -> Any:
    for name in place.split("."):
        payload = payload.get(name) if isinstance(payload, dict) else None
    return payload


def kind_by_hand(payload: Json) -> str | None:
    if isinstance(payload.get("object"), str) and payload["object"] in PREFIXES:
        return str(payload["object"])
    for kind, prefix in PREFIXES.items():
        if re.fullmatch(f"{prefix}[A-Za-z0-9_-]{{1,128}}", payload["id"]):
            return kind
    named: str | None = text(payload.get("object"))
    return named


def file_by_hand(payload: Json) -> tuple[Any, int | None]:
    file, files = payload.get("file"), payload.get("files")
    one = 1 if isinstance(file, dict) else None
    if not isinstance(files, list):
        return file, one
    return file if isinstance(file, dict) and file else next((each for each in files if isinstance(each, dict)), {}), (
        max(len(files), one or 0)
    )


def breakdown_by_hand(entries: Any) -> Any:
    if not isinstance(entries, list):
        return None
    return [
        {
            "object": text(entry.get("object")), "id": text(entry.get("id")), "credits": decimal(entry.get("credits")),
            "charges": charges_by_hand(entry.get("charges")),
        }
        for entry in entries if isinstance(entry, dict)
    ]  # fmt: skip


def charges_by_hand(charges: Any) -> Any:
    if not isinstance(charges, list):
        return None
    return [
        {
            "product": text(charge.get("product")), "unit": text(charge.get("unit")),
            "quantity": decimal(charge.get("quantity")), "credits": decimal(charge.get("credits")),
            "pages": pages_by_hand(charge.get("pages")),
        }
        for charge in charges if isinstance(charge, dict)
    ]  # fmt: skip


def pages_by_hand(pages: Any) -> Any:
    is_whole = isinstance(pages, list) and all(type(page) is int and -(2**63) <= page < 2**63 for page in pages)
    return pages if is_whole else None


def row_by_hand(payload: Json, *, is_detail: bool, load_id: str = "L") -> Row:
    """Return the row that a payload should give, but for `metadata`, which is compared as a value."""
    kind = kind_by_hand(payload)
    file, file_count = file_by_hand(payload)
    row: Row = {name: None for name in RUNS_SCHEMA.names if name != "metadata"}
    row |= {"run_id": text(payload["id"]), "kind": kind, "file_count": file_count, "is_detail": is_detail}
    row |= {"fetched_at": NOON, "load_id": load_id, "breakdown": breakdown_by_hand(at(payload, "usage.breakdown"))}
    places = PLACES | (OF_CLASSIFY if kind == "classify_run" else {})
    if kind in PROCESSORS:
        places = places | {column: (place.format(PROCESSORS[kind]), type_) for column, (place, type_) in
                           OF_PROCESSOR.items()}  # fmt: skip
    row |= {column: READ[type_](at(payload, place)) for column, (place, type_) in places.items()}
    return row | {column: READ[type_](at(file, place)) for column, (place, type_) in OF_FILE.items()}


def plain(value: Any) -> Any:
    """Return a value of JSON as any store can hold it: half surrogate pairs written out."""
    if isinstance(value, dict):
        return {text(name): plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return text(value) if isinstance(value, str) else value


def is_metadata_of(found: str | None, payload: Json) -> bool:
    """Tell whether the metadata column says what the payload does; where JSON cannot say it, the column is null."""
    value = payload.get("metadata")
    if not isinstance(value, dict):
        return found is None
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return found is None
    return found is not None and bool(json.loads(found) == plain(value))


# ---------------------------------------------------------------------------------------------------------------------
# How payloads are broken

ODD_NUMBERS = [
    0, -1, -0.0, -2.5, 1.5, 0.1 + 0.2, 1e-7, 5e-7, 1.6e-6, 1e308, 5e-324, math.nan, math.inf, -math.inf, 2**53 + 1,
    2**63 - 1, 2**63, -(2**63), -(2**64), 10**12, 999_999_999_999.9999, 999_999_999_999, 10**400, 40123.5, 40124.5,
    2.0**63,
]  # fmt: skip
ODD_TIMES = [
    "2026-11-02", "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-11-02T24:00:00Z", "2026-11-02T23:59:60Z",
    "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999999-23:59", "2026-11-02T09:30:00+99:00", " 2026-11-02T09:30Z",
    "2026-W45-1T09:30:00", "20261102T093000.000Z", "2026-11-02 09:30:00", "2026-11-02t09:30:00z",
    "0000-01-01T00:00:00Z",
    "2026-11-02T09:30:00,5Z", "2026-11-02T09:30:00.123456789Z", "2026-11-02T09:30:00Z\0", "２０２６-11-02T09:30:00Z",
    "2026-11-02T09:30:00.5-07:00", "2026-11-02T09:30:00+00:00:01", "1730540000", "yesterday", "2026-11-02T09:30:00",
]  # fmt: skip
ODD_TEXTS = [
    "", " ", "\0", "a\0b", "\ud800", "x\udc80y", "\ud83d\ude00", "😀", "e\u0301", "\u202egnp.exe", "\ufeff", "\r\n",
    "NaN", "null", "true", "1.5", "1e9", '"', "\\ud800", "{}", "\u2028", "\U0010ffff",
    "\ufffe", "'; DROP TABLE runs; --", "x" * 5_000, "\x1b[31m", "classify_run", "pr_1", "PROCESSED",
]  # fmt: skip
ODD_OTHERS: list[Any] = [
    None, True, False, [], {}, [[]], [{}], [None], {"id": []}, {"": None}, {"credits": 1}, {"pageCount": True},
    [1, "1"], {"object": {"object": {}}}, [[[[[[]]]]]], {"credits": {"credits": 7}}, [{"id": "x"}, 5],
]  # fmt: skip
NAMES = sorted(
    {name for place, _ in [*PLACES.values(), *OF_CLASSIFY.values(), *OF_FILE.values()] for name in place.split(".")}
    | {"object", "usage", "breakdown", "charges", "pages", "product", "unit", "quantity", "file", "files", "metadata",
       "classifier", "extractor", "splitter", "workflow", "classifierVersion", "extractorVersion", "version"}
)  # fmt: skip
DEEP = (5, 60, 115)
TOO_DEEP = (400, 3_000)


class Breaking:
    """Breaks one payload, by its number. What has been broken holds no value that stands in two places (`mark`)."""

    def __init__(self, number: int, *, odd_times: bool = True) -> None:
        self.dice = random.Random(number)
        self._odd_times = odd_times

    def broken(self, payload_text: str) -> Json:
        payload: Json = json.loads(payload_text)
        for _ in range(self.dice.choice((1, 1, 2, 3, 5, 9))):
            self._break_one(payload)
        payload["id"] = json.loads(payload_text)["id"]
        return payload

    def odd(self, value: Any = None) -> Any:
        """Return anything; where a value is given, more often than not something odd of its type."""
        pick = self.dice.random()
        if pick < 0.01:
            return nest(self.dice.choice(DEEP), as_list=self.dice.random() < 0.5)
        odd_times = ODD_TIMES if self._odd_times else ODD_TEXTS
        if pick < 0.6 and value is not None:
            odd: list[Any] = ODD_OTHERS
            if type(value) in (int, float):
                odd = ODD_NUMBERS
            elif isinstance(value, str):
                odd = odd_times if TIME.fullmatch(value) else ODD_TEXTS
        else:
            odd = self.dice.choice((ODD_NUMBERS, ODD_TEXTS, odd_times, ODD_OTHERS))
        return json.loads(json.dumps(self.dice.choice(odd)))

    def _break_one(self, payload: Json) -> None:
        places = list(iter_places(payload))
        told = [each for each in places if each[1] in NAMES]
        parent, name = self.dice.choice(told if told and self.dice.random() < 0.6 else places)
        value = parent[name]
        how = self.dice.randrange(9)
        if how == 0:
            del parent[name]
        elif how == 1 and isinstance(parent, dict):  # renamed, perhaps to another field's name
            parent[self._name(name)] = parent.pop(name)
        elif how == 2:  # told a second time, elsewhere
            other, _ = self.dice.choice(places)
            if isinstance(other, dict):
                other[self.dice.choice(NAMES)] = json.loads(json.dumps(value))
        elif how == 3:
            parent[name] = other_type(value)
        elif how == 4:
            parent[name] = [value]
        elif how == 5 and isinstance(parent, list):
            parent.insert(self.dice.randrange(len(parent) + 1), self.odd())
        elif how == 6 and isinstance(value, dict):
            value[self.dice.choice(NAMES)] = self.odd()
        else:
            parent[name] = self.odd(value)

    def _name(self, name: Any) -> str:
        others: list[Any] = [f"{name}s", str(name).upper(), re.sub("[A-Z]", lambda big: f"_{big[0].lower()}", name), ""]
        return str(self.dice.choice([*others, *(self.dice.choice(NAMES) for _ in range(4)), "\ud800", "a\0"]))


def iter_places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each place within a value as what it is in and its name or number there. The deepest are left out."""
    level = [value]
    for _ in range(9):
        below = []
        for each in level:
            for name in each if isinstance(each, dict) else range(len(each)):
                yield each, name
                if isinstance(each[name], dict | list):
                    below.append(each[name])
        level = below


def other_type(value: Any) -> Any:
    """Return a value as it would be in another type."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list):
        return {str(number): each for number, each in enumerate(value)}
    return False


def nest(depth: int, *, as_list: bool) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if as_list else {"a": value}
    return value


def mark(payload: Json) -> None:
    """Put a value of its own, of the same type, in each place, so that none can be taken for that of another."""
    kept = {(id(payload), "id"), (id(payload), "object")}
    for number, (parent, name) in enumerate(list(iter_places(payload)), 1):
        value = parent[name]
        if (id(parent), name) in kept:
            continue
        if isinstance(value, str):
            is_time = TIME.fullmatch(value) is not None
            parent[name] = f"2026-11-02T00:00:00.{number:06d}Z" if is_time else f"{value[:40]}«{number}»"
        elif type(value) is int and abs(value) < 2**60:
            parent[name] = number * 1_000
        elif type(value) is float and math.isfinite(value) and 1e-6 < abs(value) < 1e12:
            parent[name] = number + 0.25


# ---------------------------------------------------------------------------------------------------------------------
# Flattening, and merging


@pytest.fixture(scope="module")
def payloads() -> list[str]:
    return payload_texts(make_squeezed_world(seed=23, runs=600, days=1))


def payload_texts(world: World) -> list[str]:
    """Return every run's detail and summary, but for those too long to be broken quickly."""
    found = [json.dumps(world.detail(run_id, "url")) for run_id in world.run_ids()]
    found += [json.dumps(summary) for run_id in world.run_ids() if (summary := world.summary(run_id))]
    return [each for each in found if len(each) < 12_000]


def flat(payload: Json, *, is_detail: bool) -> Flattened:
    return flatten_run(payload, fetched_at=NOON, load_id="L", is_detail=is_detail)


def broken_payload(number: int, payloads: list[str]) -> tuple[Json, str, random.Random]:
    """Return a payload that was broken, the text that it was made of, and dice to go on with."""
    breaking = Breaking(number)
    original_text = breaking.dice.choice(payloads)
    payload = breaking.broken(original_text)
    dice = breaking.dice
    if dice.random() < 0.6:
        mark(payload)
    if dice.random() < 0.02:
        payload[dice.choice([name for name in NAMES if name != "id"])] = nest(
            dice.choice(TOO_DEEP), as_list=dice.random() < 0.5
        )
    if dice.random() < 0.1:
        payload["id"] = dice.choice([each for each in ODD_TEXTS if len(each) < 100])
    return payload, original_text, dice


def try_payload(number: int, payloads: list[str]) -> None:
    """Break a payload, flatten it and merge it with what it was; raise AssertionError where anything is not as told."""
    payload, original_text, dice = broken_payload(number, payloads)
    is_detail = dice.random() < 0.5
    is_detail_payload(payload)
    found = flat(payload, is_detail=is_detail)
    expected = row_by_hand(payload, is_detail=is_detail)
    row = found.row()
    assert list(row) == RUNS_SCHEMA.names
    assert is_metadata_of(row.pop("metadata"), payload), "metadata"
    assert {name: (row[name], expected[name]) for name in row if expected[name] != row[name]} == {}
    assert {
        name for name in row if type(row[name]) is not type(expected[name]) and expected[name] is not UNSURE
    } == set()
    lost = {name for name, (place, _) in PLACES.items() if row[name] is None and at(payload, place) is not None}
    assert lost <= set(found.problems)
    try_merge(found.row(), flat(json.loads(original_text), is_detail=not is_detail).row(), later=dice.random() < 0.5)


def try_merge(row: Row, original: Row, *, later: bool) -> None:
    other = {**original, "run_id": row["run_id"], "load_id": "M"}
    other["fetched_at"] += timedelta(seconds=later)
    merged = merge_rows([row, other])
    assert merged == merge_rows([other, row])
    assert merged == merge_rows([merged, row, other])
    assert list(merged) == RUNS_FILE_SCHEMA.names
    for column in RUNS_SCHEMA.names:
        if column not in ("is_detail", "load_id"):
            assert merged[column] in (row[column], other[column]), column


def try_payloads(numbers: range, payloads: list[str]) -> None:
    for number in numbers:
        try:
            try_payload(number, payloads)
        except Exception as error:
            raise AssertionError(f"payload {number}: {error!r}"[:2_000]) from error


def test_a_broken_payload_is_a_row_with_each_value_in_its_column(payloads: list[str]) -> None:
    try_payloads(range(1_000), payloads)


@pytest.mark.parametrize("together", [2, 7, 300])
def test_what_is_flattened_beside_a_payload_does_not_matter_to_it(payloads: list[str], together: int) -> None:
    broken = [broken_payload(number, payloads)[0] for number in range(2_000_000, 2_000_300)]
    whole = [json.loads(text) for text in payloads[:300]]
    mixed = [each for pair in zip(broken, whole, strict=True) for each in pair]
    for start in range(0, len(mixed), together):
        batch = mixed[start : start + together]
        times = [NOON + timedelta(seconds=at) for at in range(len(batch))]
        found = flatten_runs(
            batch, fetched_at=times, load_id="L", workspace_ids=[None] * len(batch), are_details=[True] * len(batch)
        )
        alone = [
            flatten_run(each, fetched_at=time, load_id="L", is_detail=True)
            for each, time in zip(batch, times, strict=True)
        ]
        for at, each in enumerate(alone):
            assert found.row(at) == each.row()
            assert [*map(type, found.row(at).values())] == [*map(type, each.row().values())]
        assert found.problems == sum((each.problems for each in alone), Counter())


@pytest.mark.long
def test_ten_thousand_broken_payloads_are_rows_with_each_value_in_its_column(payloads: list[str]) -> None:
    try_payloads(range(100_000, 110_000), payloads)


@pytest.mark.soak
def test_three_hundred_thousand_broken_payloads_are_rows_with_each_value_in_its_column(payloads: list[str]) -> None:
    try_payloads(range(1_000_000, 1_300_000), payloads)


# ---------------------------------------------------------------------------------------------------------------------
# Landing, and reading back


def land_broken(lake: LakeFiles, numbers: range, payloads: list[str]) -> dict[str, Json]:
    """Land broken payloads under IDs of their own; return them as a reader of their JSON understands them, by ID."""
    load = Load(lake, command="load", source="test")
    landed: dict[str, Json] = {}
    for number in numbers:
        breaking = Breaking(number, odd_times=False)
        payload = breaking.broken(breaking.dice.choice(payloads))
        if breaking.dice.random() < 0.5:
            mark(payload)
        payload["id"] = f"{payload['id'].partition('_')[0]}_{number}"
        body = json.dumps(payload, ensure_ascii=True)
        if breaking.dice.random() < 0.1:  # of a key that stands twice the last counts
            body = body.replace("{", '{"status": "FIRST", "usage": {"credits": 7}, ', 1)
        try:
            landed[payload["id"]] = parse_json(body.encode())
        except ValueError:  # too deep: refused before it is logged
            continue
        load.take_run(payload["id"], body.encode(), fetched_at=NOON, is_detail=number % 2 == 0, workspace_id=None)
    result = load.finish()
    assert (result.landed, result.invalid, len(landed) / len(numbers) > 0.95) == (len(landed), 0, True)
    return landed


def tidy(value: Any) -> Any:
    """Return a value of pandas as Python has it."""
    if isinstance(value, np.ndarray | list):
        return [tidy(each) for each in value]
    if isinstance(value, dict):
        return {name: tidy(each) for name, each in value.items()}
    return None if value is None or pd.isna(value) else value


def by_id(rows: Iterable[Row]) -> dict[str, Row]:
    found = list(rows)
    made = {row["run_id"]: {name: row[name] for name in RUNS_SCHEMA.names} for row in found}
    assert len(made) == len(found)
    return made


def read_with_pandas(lake: LakeFiles, **options: Any) -> dict[str, Row]:
    frame = pd.read_parquet(lake.runs_folder, **options)
    columns = {name: [tidy(each) for each in frame[name].tolist()] for name in RUNS_SCHEMA.names}
    return by_id({name: columns[name][row] for name in columns} for row in range(len(frame)))


def read_with_duckdb(lake: LakeFiles) -> dict[str, Row]:
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        found = con.read_parquet(str(lake.runs_folder / "*" / "*.parquet"), hive_partitioning=False)
        return by_id(dict(zip(found.columns, row, strict=True)) for row in found.fetchall())


def as_floats(rows: dict[str, Row]) -> dict[str, Row]:
    """Return rows with whole numbers as pandas has them where a column has nulls, unless told to keep Arrow's types."""
    whole_columns = [field.name for field in RUNS_SCHEMA if field.type == pa.int64()]
    return {
        run_id: row | {name: None if row[name] is None else float(row[name]) for name in whole_columns}
        for run_id, row in rows.items()
    }


def try_landing(lake: LakeFiles, numbers: range, payloads: list[str]) -> None:
    landed = land_broken(lake, numbers, payloads)
    (load_id,) = lake.read_loads()["load_id"].to_pylist()
    tables = [pq.ParquetFile(path).read() for path in lake.day_paths()]
    rows = by_id(row for table in tables for row in table.to_pylist())
    assert rows.keys() == landed.keys()
    for run_id, payload in landed.items():
        is_detail = int(run_id.rpartition("_")[2]) % 2 == 0
        expected = row_by_hand(payload, is_detail=is_detail, load_id=load_id)
        assert {name: rows[run_id][name] for name in expected} == expected
        assert is_metadata_of(rows[run_id]["metadata"], payload)
    assert read_with_duckdb(lake) == rows
    assert read_with_pandas(lake, dtype_backend="pyarrow") == rows
    assert read_with_pandas(lake) == as_floats(rows)
    with Lake(lake.folder) as catalog:
        relation = catalog.sql("FROM runs")
        assert by_id(dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()) == rows
        as_json = "SELECT count(*) FROM runs WHERE metadata IS NOT NULL AND NOT json_valid(metadata)"
        assert catalog.sql(as_json).fetchall() == [(0,)]


def test_broken_payloads_land_and_read_back_equal_through_every_reader(lake: LakeFiles, payloads: list[str]) -> None:
    try_landing(lake, range(600), payloads)


@pytest.mark.long
def test_thousands_of_broken_payloads_land_and_read_back_equal(lake: LakeFiles, payloads: list[str]) -> None:
    try_landing(lake, range(10_000, 14_000), payloads)
