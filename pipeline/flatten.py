"""Turn payloads of the API into rows of `runs`. Pure: nothing is read, asked or written here.

A field of an unexpected type becomes null and is reported; it never loses the run. Many payloads are flattened at once,
column by column: what a hundred values of one field are is seen in one look, where they are what they should be.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import NoneType
from typing import Any

import msgspec

from pipeline.kinds import BY_OBJECT, Kind, kind_of
from pipeline.schema import RUN_COLUMNS
from pipeline.values import (
    ALL_NULL,
    DECIMAL,
    FINITE,
    FLAG,
    INT_BOUND,
    INTEGER,
    ROUNDED,
    TEXT,
    TIME,
    ColumnType,
    text_value,
)

Row = dict[str, Any]
Payload = Mapping[str, Any]

_SURROGATE = re.compile("[\ud800-\udfff]")
_NOTHING: Payload = {}


@dataclass(frozen=True, slots=True)
class Flattened:
    """Rows by column, and of each column how many values were not of the expected type (each became null)."""

    columns: dict[str, list[Any]]
    problems: Counter[str]

    def row(self, at: int = 0) -> Row:
        """Return one of the rows."""
        return {name: values[at] for name, values in self.columns.items()}


def flatten_runs(
    payloads: Sequence[Payload],
    *,
    fetched_at: Sequence[datetime],
    load_id: str,
    workspace_ids: Sequence[str | None],
    are_details: Sequence[bool],
) -> Flattened:
    """Return the rows of runs' payloads, by-ID details or list summaries, in their order.

    Every column of `schema.RUNS` is there; what a payload does not carry is null. The `id` of each payload must be
    text: it is what the row is filed under.

    >>> flat = flatten_runs(
    ...     [{"object": "classify_run", "id": "clr_1", "status": "PROCESSED", "usage": {"credits": 0.3},
    ...       "classifier": {"id": "cl_9", "name": "Invoices"}, "createdAt": "2026-11-02T09:30:00Z", "reviewed": "no"}],
    ...     fetched_at=[datetime(2026, 11, 3, tzinfo=UTC)], load_id="L", workspace_ids=[None], are_details=[False])
    >>> row = flat.row()
    >>> row["run_id"], row["kind"], row["credits"], row["processor_name"], row["created_at"].isoformat()
    ('clr_1', 'classify_run', Decimal('0.300000'), 'Invoices', '2026-11-02T09:30:00+00:00')
    >>> row["reviewed"], dict(flat.problems)
    (None, {'reviewed': 1})
    """
    read = _Reader(payloads)
    columns = read.columns
    columns["run_id"] = [text_value(payload["id"]) for payload in payloads]
    columns["workspace_id"], columns["is_detail"] = list(workspace_ids), list(are_details)
    columns["fetched_at"], columns["load_id"] = list(fetched_at), [load_id] * len(payloads)
    kinds = read.kinds()
    read.fields(payloads, _PAYLOAD)
    usages, files = read.objects("usage"), read.first_files()
    read.fields(usages, _USAGE)
    columns["breakdown"] = read.breakdowns(usages)
    read.fields(read.objects("config"), _CONFIG)
    read.fields(read.objects("metrics"), _METRICS)
    read.fields(files, _FILE)
    read.fields(read.objects("metadata", files, "file_pages"), _FILE_METADATA)
    columns["metadata"] = read.metadata()
    processors = [kind.processor if kind else None for kind in kinds]
    read.fields(read.named_objects(processors), _PROCESSOR)
    read.fields(read.named_objects([name and f"{name}Version" for name in processors]), _PROCESSOR_VERSION)
    for name, fields in _OF_CLASSIFY_RUNS.items():
        names = [name if kind is _CLASSIFY else None for kind in kinds]
        read.fields(read.named_objects(names), fields)
    return Flattened(columns, read.problems)


def flatten_run(
    payload: Payload, *, fetched_at: datetime, load_id: str, workspace_id: str | None = None, is_detail: bool
) -> Flattened:
    """Return the row of one run's payload, as `flatten_runs` does."""
    return flatten_runs(
        [payload], fetched_at=[fetched_at], load_id=load_id, workspace_ids=[workspace_id], are_details=[is_detail]
    )


def is_detail_payload(payload: Mapping[str, Any]) -> bool:
    """Tell whether a saved payload is a by-ID detail: it has a field that no list summary of its kind carries."""
    kind = BY_OBJECT.get(payload["object"]) if isinstance(payload.get("object"), str) else None
    if kind is None:
        return False
    if not kind.listed:
        return True
    usage = payload.get("usage")
    has_breakdown = isinstance(usage, Mapping) and "breakdown" in usage
    return any(name in payload or (name == "usage.breakdown" and has_breakdown) for name in kind.detail_only)


_Fields = tuple[tuple[str, str, ColumnType], ...]
"""Of one object of a payload: column, the field's name, and what type the column's values are of."""

_PAYLOAD: _Fields = (
    ("status", "status", TEXT),
    ("failure_reason", "failureReason", TEXT),
    ("failure_message", "failureMessage", TEXT),
    ("created_at", "createdAt", TIME),
    ("updated_at", "updatedAt", TIME),
    ("initial_run_at", "initialRunAt", TIME),
    ("started_at", "startTime", TIME),
    ("ended_at", "endTime", TIME),
    ("reviewed_at", "reviewedAt", TIME),
    ("parse_run_id", "parseRunId", TEXT),
    ("batch_id", "batchId", TEXT),
    ("source", "source", TEXT),
    ("source_id", "sourceId", TEXT),
    ("reviewed", "reviewed", FLAG),
    ("edited", "edited", FLAG),
    ("risk_level", "riskLevel", TEXT),
    ("dashboard_url", "dashboardUrl", TEXT),
)
_USAGE: _Fields = (("credits", "credits", DECIMAL), ("total_credits", "totalCredits", DECIMAL))
_CONFIG: _Fields = (("base_processor", "baseProcessor", TEXT), ("base_version", "baseVersion", TEXT))
_METRICS: _Fields = (("processing_ms", "processingTimeMs", ROUNDED), ("page_count", "pageCount", INTEGER))
_FILE: _Fields = (
    ("file_id", "id", TEXT),
    ("file_name", "name", TEXT),
    ("file_type", "type", TEXT),
    ("file_created_at", "createdAt", TIME),
)
_FILE_METADATA: _Fields = (("file_pages", "pageCount", INTEGER),)
_PROCESSOR: _Fields = (("processor_id", "id", TEXT), ("processor_name", "name", TEXT))
_PROCESSOR_VERSION: _Fields = (("processor_version_id", "id", TEXT), ("processor_version", "version", TEXT))
_OF_CLASSIFY_RUNS: dict[str, _Fields] = {
    "output": (("output_type", "type", TEXT), ("output_confidence", "confidence", FINITE)),
    "initialOutput": (("initial_output_type", "type", TEXT),),
    "reviewedOutput": (("reviewed_output_type", "type", TEXT),),
}
_CLASSIFY = BY_OBJECT["classify_run"]


class _Reader:
    """Takes typed values out of payloads into columns, and counts what was not of its type."""

    def __init__(self, payloads: Sequence[Payload]) -> None:
        self.payloads = payloads
        self.columns: dict[str, list[Any]] = {name: [None] * len(payloads) for name in RUN_COLUMNS}
        self.problems: Counter[str] = Counter()
        # Payloads that came together have mostly the same few fields: what none of them has need not be looked for.
        self._names = {name for names in {*map(tuple, payloads)} for name in names}
        self._no_objects: list[Payload] = [_NOTHING] * len(payloads)

    def fields(self, objects: Sequence[Payload], fields: _Fields) -> None:
        """Read the fields of an object of each payload; a value is null where there is none of its type."""
        for column, name, type_ in () if objects is self._no_objects else fields:
            if objects is not self.payloads or name in self._names:
                self.columns[column] = self.column(column, [each.get(name) for each in objects], type_)

    def column(self, column: str, values: list[Any], type_: ColumnType) -> list[Any]:
        found, problems = type_.column(values)
        if problems:
            self.problems[column] += problems
        return found

    def objects(self, name: str, within: Sequence[Payload] | None = None, column: str | None = None) -> list[Payload]:
        """Return an object of each payload, or of what is `within` it, an empty one where there is none."""
        if within is self._no_objects or (within is None and name not in self._names):
            return self._no_objects
        values = [each.get(name) for each in (self.payloads if within is None else within)]
        return self._objects(values, [column or name] * len(values))

    def named_objects(self, names: Sequence[str | None]) -> list[Payload]:
        """Return an object of each payload, of each by a name of its own; an empty one where there is no name."""
        if len(distinct := {*names}) == 1:
            (name,) = distinct
            return self._no_objects if name is None else self.objects(name)
        values = [name and each.get(name) for each, name in zip(self.payloads, names, strict=True)]
        return self._objects(values, names)

    def _objects(self, values: list[Any], columns: Sequence[str | None]) -> list[Payload]:
        types = {*map(type, values)}
        if not types <= _OBJECT_OR_NULL:
            self.problems.update(
                column for value, column in zip(values, columns, strict=True)
                if column is not None and value is not None and not isinstance(value, dict)
            )  # fmt: skip
            return [value if isinstance(value, dict) else _NOTHING for value in values]
        return values if NoneType not in types else [_NOTHING if value is None else value for value in values]

    def kinds(self) -> list[Kind | None]:
        """Return the kind of each payload, by its `object`, else by its ID, null where neither tells; fill `kind`."""
        names = [payload.get("object") for payload in self.payloads]
        kinds = [BY_OBJECT.get(name) if isinstance(name, str) else None for name in names]
        column = self.columns["kind"] = [kind.object if kind else None for kind in kinds]
        for at, kind in enumerate(kinds) if None in kinds else ():
            if kind is None:
                kinds[at], column[at] = self._odd_kind(self.payloads[at]["id"], names[at])
        return kinds

    def _odd_kind(self, run_id: str, name: Any) -> tuple[Kind | None, str | None]:
        kind = kind_of(run_id)
        if kind is not None or name is None:
            self.problems["kind"] += 1
            return kind, kind.object if kind else None
        return None, self.column("kind", [name], TEXT)[0]

    def first_files(self) -> list[Payload]:
        """Return the file of each payload, else the first of its files; fill `file_count`."""
        alone = [*self.objects("file", column="file_id")]
        lists = [payload.get("files") for payload in self.payloads] if "files" in self._names else [None]
        counts: list[int | None] = [None if file is _NOTHING else 1 for file in alone]
        self.columns["file_count"] = counts
        for at, files in enumerate(lists) if {*map(type, lists)} != ALL_NULL else ():
            if isinstance(files, list):
                counts[at] = max(len(files), counts[at] or 0)
                if not all(isinstance(each, dict | None) for each in files):
                    self.problems["file_id"] += 1
                alone[at] = alone[at] or next((each for each in files if isinstance(each, dict)), _NOTHING)
            elif files is not None:
                self.problems["file_count"] += 1
        return alone

    def metadata(self) -> list[str | None]:
        """Return what was given when each run was created, as JSON text."""
        return [None if value is _NOTHING else self._json_text(value) for value in self.objects("metadata")]

    def _json_text(self, value: Payload) -> str | None:
        if _PLAIN.issuperset(map(type, value.values())):
            with contextlib.suppress(UnicodeEncodeError):  # half of a surrogate pair
                return _PLAIN_JSON.encode(value).decode()
        try:
            text = _JSON.encode(value)
        except (ValueError, RecursionError):
            self.problems["metadata"] += 1
            return None
        # Not as an escape of JSON: DuckDB takes no text for JSON that holds half a surrogate pair.
        return text if text.isascii() else _SURROGATE.sub(lambda lone: f"\\\\u{ord(lone[0]):04x}", text)

    def breakdowns(self, usages: Sequence[Payload]) -> list[list[Row] | None]:
        """Return what each run was charged for, entry by entry."""
        if usages is self._no_objects:
            return [None] * len(usages)
        entries = [usage.get("breakdown") for usage in usages]
        if {*map(type, entries)} <= ALL_NULL:
            return entries
        return [None if entry is None else self._breakdown(entry) for entry in entries]

    def _breakdown(self, entries: Any) -> list[Row] | None:
        if not isinstance(entries, list):
            self.problems["breakdown"] += 1
            return None
        return [self._entry(entry) for entry in entries if self._is_object(entry)]

    def _entry(self, entry: Payload) -> Row:
        charges = entry.get("charges")
        if charges is not None and not isinstance(charges, list):
            self.problems["breakdown"] += 1
            charges = None
        return {
            "object": self._value(entry, "object", TEXT),
            "id": self._value(entry, "id", TEXT),
            "credits": self._value(entry, "credits", DECIMAL),
            "charges": None if charges is None else [self._charge(each) for each in charges if self._is_object(each)],
        }

    def _charge(self, charge: Payload) -> Row:
        pages = charge.get("pages")
        if pages is not None and not (isinstance(pages, list) and all(_is_page(page) for page in pages)):
            self.problems["breakdown"] += 1
            pages = None
        return {
            "product": self._value(charge, "product", TEXT),
            "unit": self._value(charge, "unit", TEXT),
            "quantity": self._value(charge, "quantity", DECIMAL),
            "credits": self._value(charge, "credits", DECIMAL),
            "pages": pages,
        }

    def _value(self, where: Payload, name: str, type_: ColumnType) -> Any:
        value = where.get(name)
        if value is None:
            return None
        try:
            return type_.one(value)
        except (ValueError, OverflowError):
            self.problems["breakdown"] += 1
            return None

    def _is_object(self, value: Any) -> bool:
        if isinstance(value, dict):
            return True
        self.problems["breakdown"] += 1
        return False


_JSON = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
_PLAIN_JSON = msgspec.json.Encoder(order="sorted")
"""Writes an object of `_PLAIN` values as `_JSON` does, in a tenth of the time; numbers with a point it would not."""
_PLAIN = frozenset({str, int, bool, NoneType})
_OBJECT_OR_NULL = frozenset({dict, NoneType})


def _is_page(value: Any) -> bool:
    return type(value) is int and -INT_BOUND <= value < INT_BOUND
