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
from typing import Any

from pipeline.kinds import BY_OBJECT, Kind, kind_of

Row = dict[str, Any]

_MICRO = Decimal("0.000001")
_CREDITS_BOUND = Decimal(10) ** 12
_INT_BOUND = 2**63
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
    read = _Reader(payload)
    kind = _kind(payload, read)
    processor = kind.processor if kind else None
    version = f"{processor}Version"
    file = read.first_file()
    usage, config, metrics = read.object("usage"), read.object("config"), read.object("metrics")
    is_classify = kind is not None and kind.object == "classify_run"
    output, initial, reviewed = (
        read.object(name) if is_classify else {} for name in ("output", "initialOutput", "reviewedOutput")
    )
    row: Row = {
        "run_id": text_value(payload["id"]),
        "kind": kind.object if kind else read.unknown_kind(),
        "workspace_id": workspace_id,
        "status": read.text("status", payload, "status"),
        "failure_reason": read.text("failure_reason", payload, "failureReason"),
        "failure_message": read.text("failure_message", payload, "failureMessage"),
        "credits": read.decimal("credits", usage, "credits"),
        "total_credits": read.decimal("total_credits", usage, "totalCredits"),
        "breakdown": read.breakdown(usage),
        "created_at": read.time("created_at", payload, "createdAt"),
        "updated_at": read.time("updated_at", payload, "updatedAt"),
        "initial_run_at": read.time("initial_run_at", payload, "initialRunAt"),
        "started_at": read.time("started_at", payload, "startTime"),
        "ended_at": read.time("ended_at", payload, "endTime"),
        "reviewed_at": read.time("reviewed_at", payload, "reviewedAt"),
        "processor_id": None,
        "processor_name": None,
        "processor_version_id": None,
        "processor_version": None,
        "base_processor": read.text("base_processor", config, "baseProcessor"),
        "base_version": read.text("base_version", config, "baseVersion"),
        "file_id": read.text("file_id", file, "id"),
        "file_name": read.text("file_name", file, "name"),
        "file_type": read.text("file_type", file, "type"),
        "file_pages": read.integer("file_pages", read.object("metadata", file, "file_pages"), "pageCount"),
        "file_created_at": read.time("file_created_at", file, "createdAt"),
        "file_count": read.file_count(),
        "parse_run_id": read.text("parse_run_id", payload, "parseRunId"),
        "batch_id": read.text("batch_id", payload, "batchId"),
        "source": read.text("source", payload, "source"),
        "source_id": read.text("source_id", payload, "sourceId"),
        "reviewed": read.flag("reviewed", payload, "reviewed"),
        "edited": read.flag("edited", payload, "edited"),
        "output_type": read.text("output_type", output, "type"),
        "output_confidence": read.number("output_confidence", output, "confidence"),
        "initial_output_type": read.text("initial_output_type", initial, "type"),
        "reviewed_output_type": read.text("reviewed_output_type", reviewed, "type"),
        "risk_level": read.text("risk_level", payload, "riskLevel"),
        "processing_ms": read.rounded("processing_ms", metrics, "processingTimeMs"),
        "page_count": read.integer("page_count", metrics, "pageCount"),
        "metadata": read.metadata(),
        "dashboard_url": read.text("dashboard_url", payload, "dashboardUrl"),
        "is_detail": is_detail,
        "fetched_at": fetched_at,
        "load_id": load_id,
        "deleted_at": None,
    }
    if processor is not None:
        used, used_version = read.object(processor), read.object(version)
        row["processor_id"] = read.text("processor_id", used, "id")
        row["processor_name"] = read.text("processor_name", used, "name")
        row["processor_version_id"] = read.text("processor_version_id", used_version, "id")
        row["processor_version"] = read.text("processor_version", used_version, "version")
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


class _Reader:
    """Takes typed values out of one payload and notes what was not of its type."""

    def __init__(self, payload: Mapping[str, Any]) -> None:
        self.payload = payload
        self.problems: list[str] = []

    def _value(
        self, column: str, where: Mapping[str, Any], name: str, types: tuple[type, ...], make: Callable[[Any], Any]
    ) -> Any:
        value = where.get(name)
        if value is None:
            return None
        if type(value) in types:
            try:
                return make(value)
            except (ValueError, OverflowError):
                pass
        self.problems.append(column)
        return None

    def object(self, name: str, where: Mapping[str, Any] | None = None, column: str | None = None) -> Mapping[str, Any]:
        value = (self.payload if where is None else where).get(name)
        if isinstance(value, dict):
            return value
        if value is not None:
            self.problems.append(column or name)
        return {}

    def text(self, column: str, where: Mapping[str, Any], name: str) -> Any:
        return self._value(column, where, name, (str,), text_value)

    def unknown_kind(self) -> Any:
        if self.payload.get("object") is None:
            self.problems.append("kind")
        return self.text("kind", self.payload, "object")

    def flag(self, column: str, where: Mapping[str, Any], name: str) -> Any:
        return self._value(column, where, name, (bool,), bool)

    def time(self, column: str, where: Mapping[str, Any], name: str) -> Any:
        return self._value(column, where, name, (str,), time_value)

    def decimal(self, column: str, where: Mapping[str, Any], name: str) -> Any:
        return self._value(column, where, name, (int, float, Decimal), decimal_value)

    def integer(self, column: str, where: Mapping[str, Any], name: str) -> Any:
        return self._value(column, where, name, (int, float), _integer_value)

    def rounded(self, column: str, where: Mapping[str, Any], name: str) -> Any:
        return self._value(column, where, name, (int, float), lambda value: _integer_value(round(value)))

    def number(self, column: str, where: Mapping[str, Any], name: str) -> Any:
        return self._value(column, where, name, (int, float), _finite_value)

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
            "object": self.text("breakdown", entry, "object"),
            "id": self.text("breakdown", entry, "id"),
            "credits": self.decimal("breakdown", entry, "credits"),
            "charges": None if charges is None else [self._charge(each) for each in charges if self._is_object(each)],
        }

    def _charge(self, charge: Mapping[str, Any]) -> Row:
        pages = charge.get("pages")
        if pages is not None and not (isinstance(pages, list) and all(_is_page(page) for page in pages)):
            self.problems.append("breakdown")
            pages = None
        return {
            "product": self.text("breakdown", charge, "product"),
            "unit": self.text("breakdown", charge, "unit"),
            "quantity": self.decimal("breakdown", charge, "quantity"),
            "credits": self.decimal("breakdown", charge, "credits"),
            "pages": pages,
        }

    def _is_object(self, value: Any) -> bool:
        if isinstance(value, dict):
            return True
        self.problems.append("breakdown")
        return False


def _json_text(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    # Not as an escape of JSON: DuckDB takes no text for JSON that holds half a surrogate pair.
    return _SURROGATE.sub(lambda lone: f"\\\\u{ord(lone[0]):04x}", text)


def _is_page(value: Any) -> bool:
    return type(value) is int and -_INT_BOUND <= value < _INT_BOUND


def _integer_value(value: float) -> int:
    whole = int(value)
    if whole != value or not -_INT_BOUND <= whole < _INT_BOUND:
        raise ValueError(value)
    return whole


def _finite_value(value: float) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number
