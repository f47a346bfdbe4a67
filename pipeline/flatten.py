"""Turn one payload of the API into one row of `runs`. Pure: nothing is read, asked or written here.

A field of an unexpected type becomes null and is reported; it never loses the run.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from pipeline.kinds import BY_OBJECT, Kind, kind_of
from pipeline.schema import RUN_COLUMNS

Row = dict[str, Any]

_MICRO = Decimal("0.000001")
_CREDITS_BOUND = Decimal(10) ** 12
_INT_BOUND = 2**63
_EMPTY: Row = dict.fromkeys(RUN_COLUMNS)
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(slots=True)
class Flattened:
    """A row, and the columns whose values were not of the expected type (each became null)."""

    row: Row
    problems: list[str] = field(default_factory=list)


def flatten_run(
    payload: Mapping[str, Any],
    *,
    fetched_at: datetime,
    load_id: str,
    workspace_id: str | None = None,
    is_detail: bool,
) -> Flattened:
    """Return the row of one run's payload, by-ID detail or list summary.

    Every column of `schema.RUNS` is there; what the payload does not carry is null. The payload's `id` must be text:
    it is what the row is filed under.

    >>> flat = flatten_run(
    ...     {"object": "classify_run", "id": "clr_1", "status": "PROCESSED", "usage": {"credits": 0.3},
    ...      "classifier": {"id": "cl_9", "name": "Invoices"}, "createdAt": "2026-11-02T09:30:00Z", "reviewed": "no"},
    ...     fetched_at=datetime(2026, 11, 3, tzinfo=UTC), load_id="L", is_detail=False)
    >>> row = flat.row
    >>> row["run_id"], row["kind"], row["credits"], row["processor_name"], row["created_at"].isoformat()
    ('clr_1', 'classify_run', Decimal('0.300000'), 'Invoices', '2026-11-02T09:30:00+00:00')
    >>> row["reviewed"], flat.problems
    (None, ['reviewed'])
    """
    row = _EMPTY.copy()
    row["run_id"] = text_value(payload["id"])
    row["workspace_id"], row["is_detail"], row["fetched_at"], row["load_id"] = (
        workspace_id, is_detail, fetched_at, load_id,
    )  # fmt: skip
    read = _Reader(payload, row)
    kind = _kind(payload, read)
    row["kind"] = kind.object if kind else read.unknown_kind()
    read.fields(payload, _PAYLOAD)
    usage, file = read.object("usage"), read.first_file()
    read.fields(usage, _USAGE)
    row["breakdown"] = read.breakdown(usage)
    read.fields(read.object("config"), _CONFIG)
    read.fields(read.object("metrics"), _METRICS)
    read.fields(file, _FILE)
    read.fields(read.object("metadata", file, "file_pages"), _FILE_METADATA)
    row["file_count"], row["metadata"] = read.file_count(), read.metadata()
    if kind is not None and kind.processor is not None:
        read.fields(read.object(kind.processor), _PROCESSOR)
        read.fields(read.object(f"{kind.processor}Version"), _PROCESSOR_VERSION)
    if kind is not None and kind.object == "classify_run":
        read.fields(read.object("output"), _OUTPUT)
        read.fields(read.object("initialOutput"), _INITIAL_OUTPUT)
        read.fields(read.object("reviewedOutput"), _REVIEWED_OUTPUT)
    return Flattened(row, read.problems)


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


def _kind(payload: Mapping[str, Any], read: _Reader) -> Kind | None:
    named = payload.get("object")
    kind = BY_OBJECT.get(named) if isinstance(named, str) else None
    if kind is None:
        kind = kind_of(payload["id"])
        if kind is not None:
            read.problems.append("kind")
    return kind


def text_value(value: str) -> str:
    """Return text that every store can hold: a lone surrogate, which is no character, is written out as `\\udc80`."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def time_value(value: str) -> datetime:
    """Return an RFC 3339 time in UTC; a time without a zone is taken as UTC. Raise ValueError for anything else."""
    if len(value) < 19 or value[10] not in "Tt ":
        raise ValueError(value)
    parsed = datetime.fromisoformat(value.upper())
    if parsed.tzinfo is UTC:
        return parsed
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def decimal_value(value: int | float | Decimal) -> Decimal:
    """Return a number with six decimals, free of binary noise. Raise ValueError where 18 digits cannot hold it."""
    exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not exact.is_finite() or exact.copy_abs() >= _CREDITS_BOUND:
        raise ValueError(value)
    rounded = exact.quantize(_MICRO)
    if rounded.copy_abs() >= _CREDITS_BOUND:
        raise ValueError(value)
    return rounded


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(value)
    return value if value.isascii() else text_value(value)


def _time(value: Any) -> datetime:
    if type(value) is not str:
        raise ValueError(value)
    return time_value(value)


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(value)
    return value


def _decimal(value: Any) -> Decimal:
    if type(value) not in (int, float, Decimal):
        raise ValueError(value)
    return decimal_value(value) if type(value) is Decimal else _known_decimal(value)


_known_decimal = lru_cache(maxsize=4_096, typed=True)(decimal_value)
"""What runs are charged repeats: mostly it is known already."""


def _integer(value: Any) -> int:
    whole = int(_number(value))
    if whole != value or not -_INT_BOUND <= whole < _INT_BOUND:
        raise ValueError(value)
    return whole


def _rounded(value: Any) -> int:
    return _integer(round(_number(value)))


def _finite(value: Any) -> float:
    number = float(_number(value))
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def _number(value: Any) -> int | float:
    if type(value) is int or type(value) is float:
        return value
    raise ValueError(value)


_Fields = tuple[tuple[str, str, Callable[[Any], Any]], ...]
"""Of one object of a payload: column, the field's name, and what makes the column's value of it, or raises ValueError
(OverflowError too, as of an infinite number) where it is not of its type."""

_PAYLOAD: _Fields = (
    ("status", "status", _text),
    ("failure_reason", "failureReason", _text),
    ("failure_message", "failureMessage", _text),
    ("created_at", "createdAt", _time),
    ("updated_at", "updatedAt", _time),
    ("initial_run_at", "initialRunAt", _time),
    ("started_at", "startTime", _time),
    ("ended_at", "endTime", _time),
    ("reviewed_at", "reviewedAt", _time),
    ("parse_run_id", "parseRunId", _text),
    ("batch_id", "batchId", _text),
    ("source", "source", _text),
    ("source_id", "sourceId", _text),
    ("reviewed", "reviewed", _flag),
    ("edited", "edited", _flag),
    ("risk_level", "riskLevel", _text),
    ("dashboard_url", "dashboardUrl", _text),
)
_USAGE: _Fields = (("credits", "credits", _decimal), ("total_credits", "totalCredits", _decimal))
_CONFIG: _Fields = (("base_processor", "baseProcessor", _text), ("base_version", "baseVersion", _text))
_METRICS: _Fields = (("processing_ms", "processingTimeMs", _rounded), ("page_count", "pageCount", _integer))
_FILE: _Fields = (
    ("file_id", "id", _text),
    ("file_name", "name", _text),
    ("file_type", "type", _text),
    ("file_created_at", "createdAt", _time),
)
_FILE_METADATA: _Fields = (("file_pages", "pageCount", _integer),)
_PROCESSOR: _Fields = (("processor_id", "id", _text), ("processor_name", "name", _text))
_PROCESSOR_VERSION: _Fields = (("processor_version_id", "id", _text), ("processor_version", "version", _text))
_OUTPUT: _Fields = (("output_type", "type", _text), ("output_confidence", "confidence", _finite))
_INITIAL_OUTPUT: _Fields = (("initial_output_type", "type", _text),)
_REVIEWED_OUTPUT: _Fields = (("reviewed_output_type", "type", _text),)


class _Reader:
    """Takes typed values out of one payload into a row, and notes what was not of its type."""

    def __init__(self, payload: Mapping[str, Any], row: Row) -> None:
        self.payload = payload
        self.row = row
        self.problems: list[str] = []

    def fields(self, where: Mapping[str, Any], fields: _Fields) -> None:
        """Read the fields of one object into the row; a column stays null where there is no value of its type."""
        row, get = self.row, where.get
        for column, name, read in fields:
            value = get(name)
            if value is not None:
                try:
                    row[column] = read(value)
                except (ValueError, OverflowError):
                    self.problems.append(column)

    def value(self, column: str, where: Mapping[str, Any], name: str, read: Callable[[Any], Any]) -> Any:
        """Return one field's value, null where there is none of its type."""
        value = where.get(name)
        if value is None:
            return None
        try:
            return read(value)
        except (ValueError, OverflowError):
            self.problems.append(column)
            return None

    def object(self, name: str, where: Mapping[str, Any] | None = None, column: str | None = None) -> Mapping[str, Any]:
        value = (self.payload if where is None else where).get(name)
        if isinstance(value, dict):
            return value
        if value is not None:
            self.problems.append(column or name)
        return {}

    def unknown_kind(self) -> Any:
        if self.payload.get("object") is None:
            self.problems.append("kind")
        return self.value("kind", self.payload, "object", _text)

    def files(self) -> list[Any] | None:
        files = self.payload.get("files")
        if files is None or isinstance(files, list):
            return files
        if "file_count" not in self.problems:
            self.problems.append("file_count")
        return None

    def first_file(self) -> Mapping[str, Any]:
        file = self.object("file", column="file_id")
        files = self.files() or []
        if not all(isinstance(each, dict | None) for each in files):
            self.problems.append("file_id")
        return file or next((each for each in files if isinstance(each, dict)), {})

    def file_count(self) -> int | None:
        single = 1 if isinstance(self.payload.get("file"), dict) else None
        files = self.files()
        return single if files is None else max(len(files), single or 0)

    def metadata(self) -> str | None:
        value = self.payload.get("metadata")
        if value is None:
            return None
        if not isinstance(value, dict):
            self.problems.append("metadata")
            return None
        try:
            return _json_text(value)
        except (ValueError, RecursionError):
            self.problems.append("metadata")
            return None

    def breakdown(self, usage: Mapping[str, Any]) -> list[Row] | None:
        entries = usage.get("breakdown")
        if entries is None:
            return None
        if not isinstance(entries, list):
            self.problems.append("breakdown")
            return None
        return [self._entry(entry) for entry in entries if self._is_object(entry)]

    def _entry(self, entry: Mapping[str, Any]) -> Row:
        charges = entry.get("charges")
        if charges is not None and not isinstance(charges, list):
            self.problems.append("breakdown")
            charges = None
        return {
            "object": self.value("breakdown", entry, "object", _text),
            "id": self.value("breakdown", entry, "id", _text),
            "credits": self.value("breakdown", entry, "credits", _decimal),
            "charges": None if charges is None else [self._charge(each) for each in charges if self._is_object(each)],
        }

    def _charge(self, charge: Mapping[str, Any]) -> Row:
        pages = charge.get("pages")
        if pages is not None and not (isinstance(pages, list) and all(_is_page(page) for page in pages)):
            self.problems.append("breakdown")
            pages = None
        return {
            "product": self.value("breakdown", charge, "product", _text),
            "unit": self.value("breakdown", charge, "unit", _text),
            "quantity": self.value("breakdown", charge, "quantity", _decimal),
            "credits": self.value("breakdown", charge, "credits", _decimal),
            "pages": pages,
        }

    def _is_object(self, value: Any) -> bool:
        if isinstance(value, dict):
            return True
        self.problems.append("breakdown")
        return False


_JSON = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _json_text(value: Mapping[str, Any]) -> str:
    text = _JSON.encode(value)
    # Not as an escape of JSON: DuckDB takes no text for JSON that holds half a surrogate pair.
    return _SURROGATE.sub(lambda lone: f"\\\\u{ord(lone[0]):04x}", text)


def _is_page(value: Any) -> bool:
    return type(value) is int and -_INT_BOUND <= value < _INT_BOUND
