"""Flatten: every field of the reference lands in its column, and no value of a wrong type loses the run."""

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_kinds import carried_by_reference

from pipeline.arrow_schemas import RUNS_SCHEMA
from pipeline.flatten import flatten_run, is_detail_payload
from pipeline.values import decimal_value, text_value, time_value

Json = dict[str, Any]
Row = dict[str, Any]

FETCHED_AT = datetime(2026, 11, 5, 6, 7, 8, 901234, tzinfo=UTC)

# Written by hand from the issue; test_schema holds the schema against the same list.
COLUMNS = (
    "run_id kind workspace_id status failure_reason failure_message credits total_credits breakdown created_at "
    "updated_at initial_run_at started_at ended_at reviewed_at processor_id processor_name processor_version_id "
    "processor_version base_processor base_version file_id file_name file_type file_pages file_created_at file_count "
    "parse_run_id batch_id source source_id reviewed edited output_type output_confidence initial_output_type "
    "reviewed_output_type risk_level processing_ms page_count metadata dashboard_url is_detail fetched_at load_id "
    "deleted_at"
).split()

PREFIXES = {
    "classify": "clr_",
    "extract": "exr_",
    "split": "splr_",
    "parse": "pr_",
    "workflow": "workflow_run_",
    "edit": "edr_",
    "verify": "vr_",
    "form_detection": "sgr_",
}


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


@dataclass(frozen=True)
class Flat:
    row: Row
    problems: list[str]


def flat(payload: Json, *, is_detail: bool = True) -> Flat:
    found = flatten_run(payload, fetched_at=FETCHED_AT, load_id="L1", workspace_id="ws_1", is_detail=is_detail)
    return Flat(found.row(), list(found.problems.elements()))


def bare_payload(kind: str) -> Json:
    return {"object": f"{kind}_run", "id": f"{PREFIXES[kind]}1", "status": "PROCESSED"}


def bare_row(kind: str, /, *, is_detail: bool = True, **columns: Any) -> Row:
    """Return the whole row of a run that carries nothing but what every run does, and the given columns."""
    row: Row = dict.fromkeys(COLUMNS)
    row |= {"run_id": f"{PREFIXES[kind]}1", "kind": f"{kind}_run", "status": "PROCESSED", "workspace_id": "ws_1"}
    row |= {"is_detail": is_detail, "fetched_at": FETCHED_AT, "load_id": "L1"}
    return row | columns


def assert_whole_row(flattened: Flat, row: Row) -> None:
    assert flattened.row == row
    assert list(flattened.row) == COLUMNS
    assert flattened.problems == []


# ---------------------------------------------------------------------------------------------------------------------
# Each row of the table "Fields by endpoint": what it looks like on the wire, and what becomes of it.


@dataclass(frozen=True)
class Case:
    """A row of the table: which kinds carry it in which shapes, a payload that has it, and the columns it fills."""

    field: str
    carried: str
    payload: Json
    columns: Row

    def __str__(self) -> str:
        return self.field.replace(" ", "+")


FILE = {
    "object": "file",
    "id": "file_9",
    "name": "Rechnung №7 – Köln.pdf",
    "type": "PDF",
    "parentFileId": "file_1",
    "metadata": {"pageCount": 12},
    "createdAt": "2026-11-01T23:59:59.999Z",
    "updatedAt": "2026-11-02T00:00:00Z",
}
FILE_COLUMNS = {
    "file_id": "file_9",
    "file_name": "Rechnung №7 – Köln.pdf",
    "file_type": "PDF",
    "file_pages": 12,
    "file_created_at": at(2026, 11, 1, 23, 59, 59, 999000),
}
BREAKDOWN = [
    {
        "object": "extract_run",
        "id": "exr_1",
        "credits": 4.5,
        "charges": [
            {"product": "extraction_performance", "unit": "page", "quantity": 1, "credits": 3, "pages": [1]},
            {"product": "agent_usage", "unit": "usd", "quantity": 0.0125, "credits": 1.5},
        ],
    },
    {"object": "parse_run", "id": "pr_7", "credits": 0.3},
]
BREAKDOWN_ROWS = [
    {
        "object": "extract_run",
        "id": "exr_1",
        "credits": Decimal("4.5"),
        "charges": [
            {
                "product": "extraction_performance",
                "unit": "page",
                "quantity": Decimal(1),
                "credits": Decimal(3),
                "pages": [1],
            },
            {
                "product": "agent_usage",
                "unit": "usd",
                "quantity": Decimal("0.0125"),
                "credits": Decimal("1.5"),
                "pages": None,
            },
        ],
    },
    {"object": "parse_run", "id": "pr_7", "credits": Decimal("0.3"), "charges": None},
]


def processor_case(name: str, kind: str) -> Case:
    payload = {
        name: {
            "object": name,
            "id": "p_5",
            "name": "Invoices <EU>",
            "createdAt": "2026-01-02T03:04:05Z",
            "updatedAt": "2026-01-03T03:04:05Z",
        },
        f"{name}Version": {
            "object": f"{name}_version",
            "id": "v_6",
            "version": "1.0",
            "description": "first",
            f"{name}Id": "p_5",
            "createdAt": "2026-01-02T03:04:05Z",
        },
    }
    columns = {
        "processor_id": "p_5",
        "processor_name": "Invoices <EU>",
        "processor_version_id": "v_6",
        "processor_version": "1.0",
    }
    return Case(f"{name} {name}Version", f"{kind}:LD", payload, columns)


# In `carried`, L is the list summary and D the by-ID detail, as the table says for each kind.
CASES = [
    Case(
        "object id status",
        "classify:LD extract:LD split:LD parse:LD workflow:LD edit:LD verify:LD form_detection:D",
        {"status": "FAILED"},
        {"status": "FAILED"},
    ),
    Case(
        "failureReason failureMessage",
        "classify:LD extract:LD split:LD parse:LD workflow:D edit:LD verify:LD form_detection:D",
        {"status": "FAILED", "failureReason": "CORRUPT_FILE", "failureMessage": "Page 3 cannot be read\n\t(±1)"},
        {"status": "FAILED", "failure_reason": "CORRUPT_FILE", "failure_message": "Page 3 cannot be read\n\t(±1)"},
    ),
    Case(
        "usage",
        "classify:LD extract:LD split:LD parse:LD workflow:LD edit:LD verify:LD form_detection:D",
        {"usage": {"credits": 4.5, "totalCredits": 4.8}},
        {"credits": Decimal("4.5"), "total_credits": Decimal("4.8")},
    ),
    Case(
        "usage.breakdown",
        "classify:D extract:D split:D parse:D workflow:D edit:D verify:LD form_detection:D",
        {"usage": {"credits": 4.5, "totalCredits": 4.8, "breakdown": BREAKDOWN}},
        {"credits": Decimal("4.5"), "total_credits": Decimal("4.8"), "breakdown": BREAKDOWN_ROWS},
    ),
    Case(
        "createdAt updatedAt",
        "classify:LD extract:LD split:LD parse:L workflow:L edit:L verify:LD",
        {"createdAt": "2026-11-02T09:30:00Z", "updatedAt": "2026-11-03T10:31:01.5Z"},
        {"created_at": at(2026, 11, 2, 9, 30), "updated_at": at(2026, 11, 3, 10, 31, 1, 500000)},
    ),
    Case(
        "initialRunAt startTime endTime reviewedAt reviewedByUser rejectionNote",
        "workflow:LD",
        {
            "initialRunAt": "2026-11-02T09:30:00.123456Z",
            "startTime": "2026-11-02T09:30:01Z",
            "endTime": "2026-11-02T09:32:00Z",
            "reviewedAt": "2026-11-04T08:00:00Z",
            "reviewedByUser": "ann@example.com",
            "rejectionNote": "Wrong total",
        },
        {
            "initial_run_at": at(2026, 11, 2, 9, 30, 0, 123456),
            "started_at": at(2026, 11, 2, 9, 30, 1),
            "ended_at": at(2026, 11, 2, 9, 32),
            "reviewed_at": at(2026, 11, 4, 8),
        },
    ),
    Case(
        "metadata",
        "classify:LD extract:LD split:LD parse:LD workflow:D verify:LD",
        {"metadata": {"customer": "Müller", "a": [1, 2.5, None, True]}},
        {"metadata": '{"a":[1,2.5,null,true],"customer":"Müller"}'},
    ),
    processor_case("classifier", "classify"),
    processor_case("extractor", "extract"),
    processor_case("splitter", "split"),
    processor_case("workflow", "workflow"),
    Case(
        "config",
        "classify:D extract:D split:D verify:LD",
        {"config": {"baseProcessor": "classification_performance", "baseVersion": "3.2.0", "parseConfig": {"x": 1}}},
        {"base_processor": "classification_performance", "base_version": "3.2.0"},
    ),
    Case("config", "parse:D edit:D form_detection:D", {"config": {"target": "markdown", "chunkingStrategy": {}}}, {}),
    Case(
        "output",
        "classify:D",
        {"output": {"id": "c1", "type": "invoice", "confidence": 0.875, "insights": [{"type": "why", "content": "…"}]}},
        {"output_type": "invoice", "output_confidence": 0.875},
    ),
    Case(
        "output",
        "extract:D split:D parse:D edit:D verify:D form_detection:D",
        {"output": {"type": "not a class", "confidence": 1, "value": {"total": 3}, "chunks": [{"content": "x"}]}},
        {},
    ),
    Case(
        "initialOutput reviewedOutput",
        "classify:D",
        {"initialOutput": {"type": "receipt", "confidence": 0.5}, "reviewedOutput": {"type": "invoice"}},
        {"initial_output_type": "receipt", "reviewed_output_type": "invoice"},
    ),
    Case(
        "initialOutput reviewedOutput",
        "extract:D split:D",
        {"initialOutput": {"type": "x", "value": {}}, "reviewedOutput": {"type": "y", "value": {}}},
        {},
    ),
    Case(
        "reviewed edited",
        "classify:LD extract:LD split:LD",
        {"reviewed": True, "edited": False},
        {"reviewed": True, "edited": False},
    ),
    Case("reviewed", "workflow:D", {"reviewed": False}, {"reviewed": False}),
    Case(
        "file",
        "classify:LD extract:LD split:LD parse:LD edit:LD verify:LD form_detection:D",
        {"file": FILE},
        {**FILE_COLUMNS, "file_count": 1},
    ),
    Case("files", "extract:LD workflow:LD", {"files": [FILE, {**FILE, "id": "f2"}]}, {**FILE_COLUMNS, "file_count": 2}),
    Case("parseRunId", "classify:LD extract:LD split:LD", {"parseRunId": "pr_7"}, {"parse_run_id": "pr_7"}),
    Case("batchId", "parse:LD workflow:LD", {"batchId": "batch_3"}, {"batch_id": "batch_3"}),
    Case(
        "metrics",
        "parse:LD edit:LD verify:LD form_detection:D",
        {"metrics": {"processingTimeMs": 40123.6, "pageCount": 12, "fieldCount": 3}},
        {"processing_ms": 40124, "page_count": 12},
    ),
    Case(
        "dashboardUrl",
        "classify:LD extract:LD split:LD workflow:LD",
        {"dashboardUrl": "https://dashboard.extend.ai/runs/1"},
        {"dashboard_url": "https://dashboard.extend.ai/runs/1"},
    ),
    Case("source sourceId", "verify:LD", {"source": "API", "sourceId": "s_1"}, {"source": "API", "source_id": "s_1"}),
    Case("riskLevel", "verify:L", {"riskLevel": "HIGH"}, {"risk_level": "HIGH"}),
    Case(
        "stepRuns",
        "workflow:D",
        {"stepRuns": [{"object": "workflow_step_run", "id": "s", "result": {"usage": {"credits": 9}, "status": "X"}}]},
        {},
    ),
    Case("edits", "extract:D", {"edits": {"total": {"originalValue": 1, "editedValue": 2}}}, {}),
    Case("outputUrl", "parse:D", {"outputUrl": "https://files.example.com/x?sig=1"}, {}),
]


def shapes(case: Case) -> list[tuple[str, bool]]:
    """Return the kinds that carry a case's fields, once for each shape: whether that is the by-ID detail."""
    pairs = [entry.split(":") for entry in case.carried.split()]
    return [(kind, shape == "D") for kind, letters in pairs for shape in letters]


@pytest.mark.parametrize(
    ("case", "kind", "is_detail"),
    [
        pytest.param(case, kind, is_detail, id=f"{case}-{kind}-{'detail' if is_detail else 'summary'}")
        for case in CASES
        for kind, is_detail in shapes(case)
    ],
)
def test_a_field_of_the_reference_lands_in_its_column(case: Case, kind: str, is_detail: bool) -> None:
    flattened = flat(bare_payload(kind) | case.payload, is_detail=is_detail)
    assert_whole_row(flattened, bare_row(kind, is_detail=is_detail, **case.columns))


def test_every_row_of_the_reference_has_its_case() -> None:
    covered = {
        (f"{kind}_run", field, is_detail)
        for case in CASES
        for kind, is_detail in shapes(case)
        for field in case.field.split()
    }
    carried = {
        (kind, field, is_detail)
        for kind, fields in carried_by_reference().items()
        for field, where in fields.items()
        for is_detail in (False, True)
        if where in ("both", "detail" if is_detail else "list")
    }
    assert covered == carried


@pytest.mark.parametrize("case", CASES, ids=str)
def test_null_says_no_more_than_absence(case: Case) -> None:
    for kind, is_detail in shapes(case):
        nulls = dict.fromkeys(case.payload) | bare_payload(kind)
        assert_whole_row(flat(nulls, is_detail=is_detail), bare_row(kind, is_detail=is_detail))


def test_nulls_within_objects_say_no_more_than_absence() -> None:
    payload = bare_payload("classify") | {
        "usage": {"credits": None, "totalCredits": None, "breakdown": None},
        "classifier": {"id": None, "name": None},
        "classifierVersion": {"id": None, "version": None},
        "config": {"baseProcessor": None, "baseVersion": None},
        "output": {"type": None, "confidence": None},
        "file": {"id": None, "name": None, "type": None, "metadata": {"pageCount": None}, "createdAt": None},
        "metrics": {"processingTimeMs": None, "pageCount": None},
    }
    assert_whole_row(flat(payload), bare_row("classify", file_count=1))


def test_a_payload_with_nothing_but_its_id_is_a_row() -> None:
    flattened = flat({"id": "clr_1"})
    assert flattened.row == bare_row("classify", status=None)
    assert flattened.problems == ["kind"]


def test_a_form_detection_run_has_no_creation_time_of_its_own() -> None:
    row = flat(bare_payload("form_detection") | {"file": FILE}).row
    assert (row["created_at"], row["updated_at"]) == (None, None)
    assert row["file_created_at"] == at(2026, 11, 1, 23, 59, 59, 999000)


def test_what_the_call_says_is_in_the_row() -> None:
    flattened = flatten_run({"id": "pr_1"}, fetched_at=at(2026, 1, 2), load_id="L9", is_detail=False)
    assert {name: flattened.row()[name] for name in ("workspace_id", "fetched_at", "load_id", "is_detail")} == {
        "workspace_id": None,
        "fetched_at": at(2026, 1, 2),
        "load_id": "L9",
        "is_detail": False,
    }


# ---------------------------------------------------------------------------------------------------------------------
# Outputs that nothing is read from


@pytest.mark.parametrize("kind", ["extract", "split", "parse", "edit", "verify", "form_detection"])
@pytest.mark.parametrize("output", ["https://files.example.com/x?sig=1", [1, 2], 5, {}], ids=repr)
def test_an_output_that_no_column_comes_from_is_no_problem_whatever_its_type(kind: str, output: Any) -> None:
    assert_whole_row(flat(bare_payload(kind) | {"output": output}), bare_row(kind))


def test_unknown_fields_do_not_disturb() -> None:
    payload = bare_payload("classify") | {"brandNew": {"deep": [1]}, "credits": 7, "kind": "x", "run_id": "y"}
    assert_whole_row(flat(payload), bare_row("classify"))


# ---------------------------------------------------------------------------------------------------------------------
# Values of a wrong type

FULL_CLASSIFY: Json = {
    "object": "classify_run",
    "id": "clr_1",
    "status": "FAILED",
    "failureReason": "CORRUPT_FILE",
    "failureMessage": "broken",
    "usage": {"credits": 1.5, "totalCredits": 2, "breakdown": [{"object": "parse_run", "id": "pr_7", "credits": 0.5}]},
    "createdAt": "2026-11-02T09:30:00Z",
    "updatedAt": "2026-11-02T09:31:00Z",
    "metadata": {"a": 1},
    "classifier": {"id": "cl_5", "name": "Invoices"},
    "classifierVersion": {"id": "clv_6", "version": "draft"},
    "config": {"baseProcessor": "classification_light", "baseVersion": "3.2.0"},
    "output": {"type": "invoice", "confidence": 0.875},
    "initialOutput": {"type": "receipt"},
    "reviewedOutput": {"type": "invoice"},
    "reviewed": True,
    "edited": False,
    "file": {
        "id": "file_9",
        "name": "a.pdf",
        "type": "PDF",
        "metadata": {"pageCount": 3},
        "createdAt": "2026-11-01T00:00:00Z",
    },
    "parseRunId": "pr_7",
    "dashboardUrl": "https://dashboard.extend.ai/1",
    # Not carried by a classify run, and read all the same if the API should begin to carry them.
    "initialRunAt": "2026-11-02T09:30:02Z",
    "startTime": "2026-11-02T09:30:03Z",
    "endTime": "2026-11-02T09:30:04Z",
    "reviewedAt": "2026-11-02T09:30:05Z",
    "batchId": "batch_3",
    "source": "API",
    "sourceId": "s_1",
    "riskLevel": "HIGH",
    "metrics": {"processingTimeMs": 1200, "pageCount": 3},
}
FULL_ROW = bare_row(
    "classify",
    status="FAILED",
    failure_reason="CORRUPT_FILE",
    failure_message="broken",
    credits=Decimal("1.5"),
    total_credits=Decimal(2),
    breakdown=[{"object": "parse_run", "id": "pr_7", "credits": Decimal("0.5"), "charges": None}],
    created_at=at(2026, 11, 2, 9, 30),
    updated_at=at(2026, 11, 2, 9, 31),
    initial_run_at=at(2026, 11, 2, 9, 30, 2),
    started_at=at(2026, 11, 2, 9, 30, 3),
    ended_at=at(2026, 11, 2, 9, 30, 4),
    reviewed_at=at(2026, 11, 2, 9, 30, 5),
    processor_id="cl_5",
    processor_name="Invoices",
    processor_version_id="clv_6",
    processor_version="draft",
    base_processor="classification_light",
    base_version="3.2.0",
    file_id="file_9",
    file_name="a.pdf",
    file_type="PDF",
    file_pages=3,
    file_created_at=at(2026, 11, 1),
    file_count=1,
    parse_run_id="pr_7",
    batch_id="batch_3",
    source="API",
    source_id="s_1",
    reviewed=True,
    edited=False,
    output_type="invoice",
    output_confidence=0.875,
    initial_output_type="receipt",
    reviewed_output_type="invoice",
    risk_level="HIGH",
    processing_ms=1200,
    page_count=3,
    metadata='{"a":1}',
    dashboard_url="https://dashboard.extend.ai/1",
)


def with_value(payload: Json, path: str, value: Any) -> Json:
    """Return a copy of a payload with another value at a path such as `file.metadata.pageCount`."""
    copy = json.loads(json.dumps(payload))
    *parents, name = path.split(".")
    place = copy
    for parent in parents:
        place = place[parent]
    place[name] = value
    return copy


TEXTS = {
    "status": "status",
    "failureReason": "failure_reason",
    "failureMessage": "failure_message",
    "classifier.id": "processor_id",
    "classifier.name": "processor_name",
    "classifierVersion.id": "processor_version_id",
    "classifierVersion.version": "processor_version",
    "config.baseProcessor": "base_processor",
    "config.baseVersion": "base_version",
    "file.id": "file_id",
    "file.name": "file_name",
    "file.type": "file_type",
    "parseRunId": "parse_run_id",
    "batchId": "batch_id",
    "source": "source",
    "sourceId": "source_id",
    "output.type": "output_type",
    "initialOutput.type": "initial_output_type",
    "reviewedOutput.type": "reviewed_output_type",
    "riskLevel": "risk_level",
    "dashboardUrl": "dashboard_url",
}
TIMES = {
    "createdAt": "created_at",
    "updatedAt": "updated_at",
    "initialRunAt": "initial_run_at",
    "startTime": "started_at",
    "endTime": "ended_at",
    "reviewedAt": "reviewed_at",
    "file.createdAt": "file_created_at",
}
DECIMALS = {"usage.credits": "credits", "usage.totalCredits": "total_credits"}
WHOLE_NUMBERS = {
    "file.metadata.pageCount": "file_pages",
    "metrics.processingTimeMs": "processing_ms",
    "metrics.pageCount": "page_count",
}
FLAGS = {"reviewed": "reviewed", "edited": "edited"}

NO_TEXT = [5, 1.5, True, ["x"], {"a": 1}, math.nan]
NO_TIME = [
    5,
    1762162200,
    True,
    ["2026-11-02T09:30:00Z"],
    {},
    "",
    "yesterday",
    "2026-11-02",
    "09:30:00",
    "2026-13-02T09:30:00Z",
    "2026-02-30T09:30:00Z",
    "2026-11-02T25:00:00Z",
    "2026-11-02T09:61:00Z",
    "2026-11-02T09:30:00+25:00",
    "2026-11-02T09:30:00 o'clock",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+01:00",
    "9999-12-31T23:59:59-01:00",
    "12026-11-02T09:30:00Z",
    "2026-11-02T09:30:00Z\n",
    "2026-11-02T09:30:00\udc80",
    "2026-11-0\ud800T09:30:00Z",
]
NO_DECIMAL = ["3", "", True, [1], {}, math.nan, math.inf, -math.inf, 1e400, 10**12, -(10**12), 10**30, 10**400, 1e300]
NO_WHOLE_NUMBER = ["3", True, [1], {}, math.nan, math.inf, -math.inf, 2**63, -(2**63) - 1, 10**400, 1e300, float(2**63)]
NO_NUMBER = ["0.9", True, [1], {}, math.nan, math.inf, -math.inf, 10**400]
NO_FLAG = ["true", "", 0, 1, 1.0, [True], {}]
NO_OBJECT = ["x", "", 5, 0, True, False, ["x"], [], math.nan]

WRONG = [
    (path, column, value)
    for paths, values in (
        (TEXTS, NO_TEXT),
        (TIMES, NO_TIME),
        (DECIMALS, NO_DECIMAL),
        (WHOLE_NUMBERS, NO_WHOLE_NUMBER),
        ({"output.confidence": "output_confidence"}, NO_NUMBER),
        (FLAGS, NO_FLAG),
        ({"metadata": "metadata"}, NO_OBJECT),
        ({"usage.breakdown": "breakdown"}, ["x", 5, True, {}, {"credits": 1}, math.nan]),
    )
    for path, column in paths.items()
    for value in values
]


def test_a_payload_with_every_field_fills_every_column_that_payloads_fill() -> None:
    assert_whole_row(flat(FULL_CLASSIFY), FULL_ROW)
    # Whether the API still has a run, no payload tells.
    assert [name for name, value in FULL_ROW.items() if value is None] == ["deleted_at"]


@pytest.mark.parametrize(("path", "column", "value"), WRONG, ids=lambda value: ascii(value)[:40])
def test_a_value_of_a_wrong_type_nulls_its_column_alone_and_is_named(path: str, column: str, value: Any) -> None:
    flattened = flat(with_value(FULL_CLASSIFY, path, value))
    assert flattened.row == FULL_ROW | {column: None}
    assert list(flattened.row) == COLUMNS
    assert flattened.problems == [column]


@pytest.mark.parametrize("value", NO_OBJECT, ids=repr)
@pytest.mark.parametrize(
    ("path", "named", "columns"),
    [
        ("usage", "usage", "credits total_credits breakdown"),
        ("config", "config", "base_processor base_version"),
        ("metrics", "metrics", "processing_ms page_count"),
        ("output", "output", "output_type output_confidence"),
        ("initialOutput", "initialOutput", "initial_output_type"),
        ("reviewedOutput", "reviewedOutput", "reviewed_output_type"),
        ("classifier", "classifier", "processor_id processor_name"),
        ("classifierVersion", "classifierVersion", "processor_version_id processor_version"),
        ("file", "file_id", "file_id file_name file_type file_pages file_created_at file_count"),
        ("file.metadata", "file_pages", "file_pages"),
    ],
    ids=lambda value: value.replace(" ", "+"),
)
def test_what_should_be_an_object_and_is_none_nulls_its_columns_and_is_named_once(
    path: str, named: str, columns: str, value: Any
) -> None:
    flattened = flat(with_value(FULL_CLASSIFY, path, value))
    assert flattened.row == FULL_ROW | dict.fromkeys(columns.split())
    assert flattened.problems == [named]


def test_two_bad_values_are_both_named() -> None:
    payload = with_value(with_value(FULL_CLASSIFY, "reviewed", "no"), "usage.credits", "1")
    flattened = flat(payload)
    assert flattened.row == FULL_ROW | {"reviewed": None, "credits": None}
    assert sorted(flattened.problems) == ["credits", "reviewed"]


# ---------------------------------------------------------------------------------------------------------------------
# Times


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-02T09:30:00Z", at(2026, 11, 2, 9, 30)),
        ("2026-11-02T09:30:00.1Z", at(2026, 11, 2, 9, 30, 0, 100000)),
        ("2026-11-02T09:30:00.123Z", at(2026, 11, 2, 9, 30, 0, 123000)),
        ("2026-11-02T09:30:00.123456Z", at(2026, 11, 2, 9, 30, 0, 123456)),
        ("2026-11-02T09:30:00.1234567Z", at(2026, 11, 2, 9, 30, 0, 123456)),
        ("2026-11-02T09:30:00.123456789Z", at(2026, 11, 2, 9, 30, 0, 123456)),
        ("2026-11-02T09:30:00", at(2026, 11, 2, 9, 30)),
        ("2026-11-02 09:30:00.5", at(2026, 11, 2, 9, 30, 0, 500000)),
        ("2026-11-02T09:30:00+00:00", at(2026, 11, 2, 9, 30)),
        ("2026-11-02T09:30:00-00:00", at(2026, 11, 2, 9, 30)),
        ("2026-11-02T00:30:00+01:00", at(2026, 11, 1, 23, 30)),
        ("2026-11-02T09:30:00-05:30", at(2026, 11, 2, 15, 0)),
        ("2026-11-02t09:30:00Z", at(2026, 11, 2, 9, 30)),
        ("2026-11-02T09:30:00z", at(2026, 11, 2, 9, 30)),
        ("2024-02-29T09:30:00Z", at(2024, 2, 29, 9, 30)),
        ("0001-01-01T00:00:00Z", at(1, 1, 1)),
        ("9999-12-31T23:59:59.999999Z", at(9999, 12, 31, 23, 59, 59, 999999)),
    ],
)
def test_a_time_is_read_as_utc(text: str, time: datetime) -> None:
    assert time_value(text) == time
    flattened = flat(with_value(FULL_CLASSIFY, "createdAt", text))
    assert_whole_row(flattened, FULL_ROW | {"created_at": time})
    assert flattened.row["created_at"].utcoffset() == timedelta(0)


@pytest.mark.parametrize("text", ["", "2026-11-02", "2026-11-02X09:30:00Z", "2026-W45-1", "soon " * 10, "\udc80" * 30])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 — the message is the text itself
        time_value(text)


def test_times_go_through_arrow_without_loss() -> None:
    first, last = at(1, 1, 1), at(9999, 12, 31, 23, 59, 59, 999999)
    payload = with_value(FULL_CLASSIFY, "createdAt", "0001-01-01T00:00:00Z") | {
        "updatedAt": "9999-12-31T23:59:59.999999Z"
    }
    read = pa.Table.from_pylist([flat(payload).row], schema=RUNS_SCHEMA).to_pylist()[0]
    assert (read["created_at"], read["updated_at"]) == (first, last)


# ---------------------------------------------------------------------------------------------------------------------
# Credits


@pytest.mark.parametrize(
    ("value", "exact"),
    [
        (0.1 + 0.2, "0.300000"),
        (0.7 * 3, "2.100000"),
        (1.1 + 2.2, "3.300000"),
        (0.3, "0.300000"),
        (0, "0.000000"),
        (0.0, "0.000000"),
        (3, "3.000000"),
        (3.0, "3.000000"),
        (-1.5, "-1.500000"),
        (1e-7, "0.000000"),
        (1.2e-6, "0.000001"),
        (1.23456789, "1.234568"),
        (2.0000004, "2.000000"),
        (1.0000015, "1.000002"),
        (1.0000005, "1.000000"),
        (1e11, "100000000000.000000"),
        (999_999_999_999, "999999999999.000000"),
        (-999_999_999_999, "-999999999999.000000"),
        (Decimal("0.70"), "0.700000"),
        (Decimal("999999999999.999999"), "999999999999.999999"),
        (Decimal("1E+3"), "1000.000000"),
    ],
    ids=repr,
)
def test_credits_are_decimals_of_six_places_without_binary_noise(value: Any, exact: str) -> None:
    assert str(decimal_value(value)) == exact
    payload = bare_payload("classify") | {"usage": {"credits": value, "totalCredits": value}}
    flattened = flat(payload)
    assert_whole_row(flattened, bare_row("classify", credits=Decimal(exact), total_credits=Decimal(exact)))
    read = pa.Table.from_pylist([flattened.row], schema=RUNS_SCHEMA).to_pylist()[0]
    assert str(read["credits"]) == exact


def test_a_tenth_of_a_credit_a_million_times_is_exact() -> None:
    tenth = flat(bare_payload("parse") | {"usage": {"credits": 0.1}}).row["credits"]
    assert tenth * 1_000_000 == Decimal(100_000)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        10**12,
        -(10**12),
        Decimal("999999999999.9999996"),
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("-Infinity"),
        Decimal("1E+999999"),
        Decimal("1E+1000000"),
        Decimal("-1E+999999999"),
    ],
    ids=repr,
)
def test_a_number_that_eighteen_digits_cannot_hold_is_refused_and_never_rounded_in(value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 — the message is the number itself
        decimal_value(value)
    flattened = flat(bare_payload("classify") | {"usage": {"credits": value, "totalCredits": 1}})
    assert flattened.row == bare_row("classify", total_credits=Decimal(1))
    assert flattened.problems == ["credits"]


def test_absent_usage_is_unknown_and_zero_is_zero() -> None:
    assert flat(bare_payload("classify")).row["credits"] is None
    assert flat(bare_payload("classify") | {"usage": {}}).row["credits"] is None
    assert flat(bare_payload("classify") | {"usage": {"credits": 0}}).row["credits"] == 0


# ---------------------------------------------------------------------------------------------------------------------
# Numbers and flags


@pytest.mark.parametrize(
    ("path", "column", "value", "stored"),
    [
        ("metrics.pageCount", "page_count", 2**63 - 1, 2**63 - 1),
        ("metrics.pageCount", "page_count", -(2**63), -(2**63)),
        ("metrics.pageCount", "page_count", 12.0, 12),
        ("file.metadata.pageCount", "file_pages", 0, 0),
        ("metrics.processingTimeMs", "processing_ms", 812.6, 813),
        ("metrics.processingTimeMs", "processing_ms", 0.2, 0),
        ("metrics.processingTimeMs", "processing_ms", 1e15, 10**15),
        ("output.confidence", "output_confidence", 1, 1.0),
        ("output.confidence", "output_confidence", 0, 0.0),
        ("reviewed", "reviewed", False, False),
        ("edited", "edited", True, True),
    ],
)
def test_a_number_that_the_column_can_hold_is_kept(path: str, column: str, value: Any, stored: Any) -> None:
    flattened = flat(with_value(FULL_CLASSIFY, path, value))
    assert_whole_row(flattened, FULL_ROW | {column: stored})
    assert type(flattened.row[column]) is type(stored)


@pytest.mark.parametrize("value", [1.5, 0.1, -2.25])
def test_a_page_count_with_a_fraction_is_none(value: float) -> None:
    flattened = flat(with_value(FULL_CLASSIFY, "metrics.pageCount", value))
    assert flattened.row == FULL_ROW | {"page_count": None}
    assert flattened.problems == ["page_count"]


# ---------------------------------------------------------------------------------------------------------------------
# Open sets and unknown kinds


@pytest.mark.parametrize("text", ["EXPIRED", "processed", "", "NOCH ÄLTER", "A" * 10_000, "\x00\x1b[31m"])
def test_an_unknown_status_or_reason_is_kept_verbatim(text: str) -> None:
    flattened = flat(bare_payload("classify") | {"status": text, "failureReason": text})
    assert_whole_row(flattened, bare_row("classify", status=text, failure_reason=text))


@pytest.mark.parametrize("named", ["brand_new_run", "", 5, None, ["classify_run"], {"a": 1}], ids=repr)
def test_an_unknown_object_with_a_known_prefix_is_of_the_prefix_and_named(named: Any) -> None:
    flattened = flat({**FULL_CLASSIFY, "object": named})
    assert flattened.row == FULL_ROW
    assert flattened.problems == ["kind"]


def test_an_unknown_object_with_an_unknown_prefix_is_kept_verbatim() -> None:
    flattened = flat({"object": "brand_new_run", "id": "bnr_1", "status": "PROCESSED", "usage": {"credits": 2}})
    assert_whole_row(
        flattened, bare_row("classify", run_id="bnr_1", kind="brand_new_run", status="PROCESSED", credits=Decimal(2))
    )


@pytest.mark.parametrize("named", [5, None, True, ["classify_run"], {"a": 1}], ids=repr)
def test_without_any_word_on_its_kind_a_run_has_none_and_that_is_named_once(named: Any) -> None:
    flattened = flat({"object": named, "id": "bnr_1", "status": "PROCESSED"})
    assert flattened.row == bare_row("classify", run_id="bnr_1", kind=None)
    assert flattened.problems == ["kind"]


def test_the_object_goes_before_the_prefix() -> None:
    flattened = flat({"object": "split_run", "id": "weird-1", "status": "X", "splitter": {"id": "s"}})
    assert_whole_row(flattened, bare_row("split", run_id="weird-1", status="X", processor_id="s"))


# ---------------------------------------------------------------------------------------------------------------------
# Text that is none, and metadata


def test_a_lone_surrogate_is_written_out_so_that_every_store_can_hold_the_text() -> None:
    assert text_value("a\udc80\ud83db") == "a\\udc80\\ud83db"
    assert text_value("plain ✓ \U0001f600") == "plain ✓ \U0001f600"
    flattened = flat({"object": "classify_run", "id": "clr_\udc80", "status": "A\ud800", "failureMessage": "\udfff!"})
    row = bare_row("classify", run_id="clr_\\udc80", status="A\\ud800", failure_message="\\udfff!")
    assert_whole_row(flattened, row)


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ({}, "{}"),
        ({"b": 1, "a": 2}, '{"a":2,"b":1}'),
        ({"": 1, "extend:usage_tags": ["x"], "a.b": 1, " ": None}, '{"":1," ":null,"a.b":1,"extend:usage_tags":["x"]}'),
        ({"Größe": "日本語 \U0001f600"}, '{"Größe":"日本語 \U0001f600"}'),
        ({"quote": 'a"b\\c\n'}, '{"quote":"a\\"b\\\\c\\n"}'),
        ({"big": 2**80, "small": 1e-9}, '{"big":1208925819614629174706176,"small":1e-09}'),
        ({"nul": "\x00"}, '{"nul":"\\u0000"}'),
        ({"deep": {"z": {"y": 1, "x": 2}}}, '{"deep":{"z":{"x":2,"y":1}}}'),
    ],
    ids=ascii,
)
def test_metadata_is_json_text_with_sorted_keys(metadata: Json, text: str) -> None:
    flattened = flat(bare_payload("classify") | {"metadata": metadata})
    assert_whole_row(flattened, bare_row("classify", metadata=text))
    assert json.loads(text) == metadata


@settings(max_examples=300, deadline=None)
@given(metadata=st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()))
def test_metadata_of_plain_values_is_written_as_python_writes_json(metadata: Json) -> None:
    flattened = flat(bare_payload("classify") | {"metadata": metadata})
    text = json.dumps(metadata, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    assert_whole_row(flattened, bare_row("classify", metadata=text))


def test_half_a_surrogate_pair_in_metadata_is_written_out_as_in_other_text() -> None:
    flattened = flat(bare_payload("classify") | {"metadata": {"\ud800": "é\udc80"}})
    assert_whole_row(flattened, bare_row("classify", metadata='{"\\\\ud800":"é\\\\udc80"}'))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_metadata_that_json_cannot_say_is_null_and_named(value: float) -> None:
    flattened = flat(bare_payload("classify") | {"metadata": {"a": [value]}})
    assert flattened.row == bare_row("classify")
    assert flattened.problems == ["metadata"]


def test_metadata_too_deep_to_write_is_null_and_named() -> None:
    deep: Json = {}
    for _ in range(100_000):
        deep = {"a": deep}
    flattened = flat(bare_payload("classify") | {"metadata": deep})
    assert flattened.row == bare_row("classify")
    assert flattened.problems == ["metadata"]


# ---------------------------------------------------------------------------------------------------------------------
# Files

TWO = {"id": "file_2", "name": "b.docx"}
TWO_COLUMNS = {"file_id": "file_2", "file_name": "b.docx"}


@pytest.mark.parametrize(
    ("payload", "columns"),
    [
        ({}, {}),
        ({"file": None}, {}),
        ({"files": None}, {}),
        ({"file": None, "files": None}, {}),
        ({"files": []}, {"file_count": 0}),
        ({"files": [FILE]}, {**FILE_COLUMNS, "file_count": 1}),
        ({"files": [FILE, TWO]}, {**FILE_COLUMNS, "file_count": 2}),
        ({"files": [TWO, FILE, FILE]}, {**TWO_COLUMNS, "file_count": 3}),
        ({"files": [None, TWO]}, {**TWO_COLUMNS, "file_count": 2}),
        ({"files": [None, None]}, {"file_count": 2}),
        ({"file": None, "files": [TWO]}, {**TWO_COLUMNS, "file_count": 1}),
        ({"file": TWO, "files": None}, {**TWO_COLUMNS, "file_count": 1}),
        ({"file": TWO, "files": []}, {**TWO_COLUMNS, "file_count": 1}),
        ({"file": TWO, "files": [FILE, TWO]}, {**TWO_COLUMNS, "file_count": 2}),
        ({"file": {}}, {"file_count": 1}),
        ({"file": {"metadata": {}}}, {"file_count": 1}),
    ],
    ids=repr,
)
def test_the_first_file_is_told_and_all_are_counted(payload: Json, columns: Row) -> None:
    assert_whole_row(flat(bare_payload("extract") | payload), bare_row("extract", **columns))


@pytest.mark.parametrize("files", ["x", 5, True, {"id": "file_2"}], ids=repr)
def test_files_that_are_no_list_are_named_once_and_the_one_file_stays(files: Any) -> None:
    flattened = flat(bare_payload("extract") | {"files": files})
    assert flattened.row == bare_row("extract")
    assert flattened.problems == ["file_count"]
    flattened = flat(bare_payload("extract") | {"files": files, "file": TWO})
    assert flattened.row == bare_row("extract", file_count=1, **TWO_COLUMNS)
    assert flattened.problems == ["file_count"]


@pytest.mark.parametrize("entry", ["file_2", 5, True, [TWO]], ids=repr)
def test_an_entry_of_files_that_is_no_object_is_counted_and_named(entry: Any) -> None:
    flattened = flat(bare_payload("extract") | {"files": [entry, TWO]})
    assert flattened.row == bare_row("extract", file_count=2, **TWO_COLUMNS)
    assert flattened.problems == ["file_id"]


# ---------------------------------------------------------------------------------------------------------------------
# The breakdown

GOOD = {"object": "parse_run", "id": "pr_1", "credits": 0.3}
GOOD_ROW = {"object": "parse_run", "id": "pr_1", "credits": Decimal("0.3"), "charges": None}
NO_ENTRY = {"object": None, "id": None, "credits": None, "charges": None}
NO_CHARGE = {"product": None, "unit": None, "quantity": None, "credits": None, "pages": None}


def flat_breakdown(entries: list[Any]) -> tuple[Any, list[str]]:
    flattened = flat(bare_payload("classify") | {"usage": {"credits": 1, "breakdown": entries}})
    assert flattened.row | {"breakdown": None} == bare_row("classify", credits=Decimal(1))
    assert pa.Table.from_pylist([flattened.row], schema=RUNS_SCHEMA).to_pylist() == [flattened.row]
    return flattened.row["breakdown"], flattened.problems


@pytest.mark.parametrize(
    ("entries", "rows", "bad"),
    [
        ([], [], 0),
        ([GOOD], [GOOD_ROW], 0),
        ([{}], [NO_ENTRY], 0),
        ([GOOD, None, "x", 5, [GOOD], True], [GOOD_ROW], 5),
        ([{**GOOD, "credits": "0.3"}], [{**GOOD_ROW, "credits": None}], 1),
        ([{**GOOD, "credits": math.nan}, GOOD], [{**GOOD_ROW, "credits": None}, GOOD_ROW], 1),
        ([{**GOOD, "id": 7, "object": []}], [{**GOOD_ROW, "id": None, "object": None}], 2),
        ([{**GOOD, "id": "\udc80"}], [{**GOOD_ROW, "id": "\\udc80"}], 0),
        ([{**GOOD, "charges": None}], [GOOD_ROW], 0),
        ([{**GOOD, "charges": []}], [{**GOOD_ROW, "charges": []}], 0),
        ([{**GOOD, "charges": {"a": 1}}], [GOOD_ROW], 1),
        ([{**GOOD, "charges": [None, "x", {}]}], [{**GOOD_ROW, "charges": [NO_CHARGE]}], 2),
        (
            [{**GOOD, "charges": [{"product": 1, "unit": 2, "quantity": "3", "credits": "4", "pages": "5"}]}],
            [{**GOOD_ROW, "charges": [NO_CHARGE]}],
            5,
        ),
    ],
    ids=repr,
)
def test_a_bad_entry_of_the_breakdown_costs_itself_alone(entries: list[Any], rows: list[Row], bad: int) -> None:
    assert flat_breakdown(entries) == (rows, ["breakdown"] * bad)


@pytest.mark.parametrize(
    ("pages", "kept", "bad"),
    [
        (None, None, 0),
        ([], [], 0),
        ([1, 2, 2**63 - 1], [1, 2, 2**63 - 1], 0),
        ([1, 2**63], None, 1),
        ([1, True], None, 1),
        ([1, "2"], None, 1),
        ([1.5], None, 1),
        ([math.nan], None, 1),
        ([None], None, 1),
        ([[1]], None, 1),
        ({"1": 1}, None, 1),
        ("1-3", None, 1),
        (3, None, 1),
    ],
    ids=repr,
)
def test_pages_of_a_charge_are_whole_numbers_or_none(pages: Any, kept: Any, bad: int) -> None:
    charge = {"product": "parse_performance", "unit": "page", "quantity": 2, "credits": 4, "pages": pages}
    row = {"product": "parse_performance", "unit": "page", "quantity": Decimal(2), "credits": Decimal(4), "pages": kept}
    assert flat_breakdown([{**GOOD, "charges": [charge]}]) == ([{**GOOD_ROW, "charges": [row]}], ["breakdown"] * bad)


# ---------------------------------------------------------------------------------------------------------------------
# Telling a detail from a summary

USAGE = {"credits": 1, "totalCredits": 1}
USAGE_DETAIL = {"credits": 1, "totalCredits": 1, "breakdown": []}
TIMES_OF = {"createdAt": "2026-11-02T09:30:00Z", "updatedAt": "2026-11-02T09:30:00Z"}
PROCESSOR_SUMMARY = {**TIMES_OF, "usage": USAGE, "metadata": {}, "reviewed": False, "edited": False, "file": FILE}


@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        ("classify", {**PROCESSOR_SUMMARY, "classifier": {"id": "c"}, "classifierVersion": {"id": "v"}}),
        ("extract", {**PROCESSOR_SUMMARY, "extractor": {"id": "e"}, "files": [FILE], "parseRunId": "pr_1"}),
        ("split", {**PROCESSOR_SUMMARY, "splitter": {"id": "s"}, "failureReason": "ABORTED", "failureMessage": "x"}),
        ("parse", {**TIMES_OF, "usage": USAGE, "metadata": {}, "file": FILE, "batchId": "b", "metrics": {}}),
        ("workflow", {**TIMES_OF, "usage": USAGE, "initialRunAt": "2026-11-02T09:30:00Z", "files": [], "batchId": "b"}),
        ("edit", {**TIMES_OF, "usage": USAGE, "file": FILE, "metrics": {}, "failureReason": "EMPTY_SCHEMA"}),
        ("verify", {**TIMES_OF, "usage": USAGE_DETAIL, "config": {}, "metadata": {}, "riskLevel": "LOW"}),
    ],
)
def test_a_list_summary_is_told_as_such(kind: str, extra: Json) -> None:
    assert not is_detail_payload(bare_payload(kind))
    assert not is_detail_payload(bare_payload(kind) | extra)


@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        *((kind, {"usage": USAGE_DETAIL}) for kind in ("classify", "extract", "split", "parse", "workflow", "edit")),
        *((kind, {"config": {}}) for kind in ("classify", "extract", "split", "parse", "edit")),
        *((kind, {"output": None}) for kind in ("classify", "extract", "split", "parse", "edit", "verify")),
        *((kind, {"initialOutput": None}) for kind in ("classify", "extract", "split")),
        *((kind, {"reviewedOutput": {}}) for kind in ("classify", "extract", "split")),
        ("workflow", {"stepRuns": []}),
        ("workflow", {"failureReason": None}),
        ("workflow", {"failureMessage": "x"}),
        ("workflow", {"metadata": {}}),
        ("workflow", {"reviewed": False}),
        ("form_detection", {}),
        ("form_detection", {"config": {}, "output": {}}),
    ],
)
def test_a_field_that_no_summary_of_its_kind_has_tells_a_detail(kind: str, extra: Json) -> None:
    assert is_detail_payload(bare_payload(kind) | extra)


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"id": "clr_1", "output": {}},
        {"object": "brand_new_run", "id": "clr_1", "output": {}},
        {"object": ["classify_run"], "output": {}},
        {"object": None, "output": {}},
        {"object": "classify_run", "usage": "breakdown"},
        {"object": "classify_run", "usage": ["breakdown"]},
        {"object": "classify_run", "usage": None},
    ],
    ids=repr,
)
def test_what_tells_nothing_is_taken_for_a_summary(payload: Json) -> None:
    assert not is_detail_payload(payload)


# ---------------------------------------------------------------------------------------------------------------------
# Anything at all

FULL_PAYLOADS: list[Json] = [
    FULL_CLASSIFY,
    {
        **bare_payload("extract"),
        **PROCESSOR_SUMMARY,
        "usage": {"credits": 4.5, "totalCredits": 4.8, "breakdown": BREAKDOWN},
        "extractor": {"id": "ex_1", "name": "x"},
        "extractorVersion": {"id": "exv_1", "version": "1.0"},
        "config": {"baseProcessor": "extraction_performance", "schema": {"type": "object"}},
        "output": {"value": {"total": 12.5}, "metadata": {"total": {"ocrConfidence": 0.9}}},
        "files": [FILE, None, TWO],
    },
    {**bare_payload("split"), **PROCESSOR_SUMMARY, "splitter": {"id": "s"}, "output": {"splits": [{"type": "a"}]}},
    {
        **bare_payload("parse"),
        "config": {},
        "outputUrl": "https://x",
        "metrics": {"processingTimeMs": 1.5},
        "file": FILE,
    },
    {
        **bare_payload("workflow"),
        **TIMES_OF,
        "initialRunAt": "2026-11-02T09:30:00Z",
        "workflow": {"id": "workflow_1", "name": "w"},
        "workflowVersion": {"id": "wv", "version": "3"},
        "files": [FILE],
        "stepRuns": [{"id": "s", "result": {}}],
        "usage": {"credits": 5, "breakdown": BREAKDOWN},
    },
    {**bare_payload("edit"), "config": {}, "output": {"filledValues": {}}, "metrics": {"pageCount": 2}, "file": FILE},
    {**bare_payload("verify"), **TIMES_OF, "source": "API", "sourceId": "s", "riskLevel": "LOW", "config": {}},
    {**bare_payload("form_detection"), "output": {"schema": {}}, "file": FILE, "metrics": {"pageCount": 1}},
]

odd_texts = st.sampled_from(
    ["", "\ud800", "a\udc80b", "\x00", "2026-11-02T09:30:00Z", "0001-01-01T00:00:00+23:59", "1.5"]
)
odd_numbers = st.sampled_from([math.nan, math.inf, -math.inf, 2**63, -(2**64), 10**400, 10**12, 1e308, -0.0, 5e-324])
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | odd_texts | odd_numbers
)  # fmt: skip
keys = st.sampled_from(["id", "object", "credits", "charges", "pages", "pageCount", "type", "\ud800"]) | st.text(
    max_size=5
)
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
)


@st.composite
def nested(draw: st.DrawFn) -> Any:
    """Draw any JSON value, some of them wrapped up to fifty deep."""
    value = draw(trees)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 5, 50]))):
        value = [value] if draw(st.booleans()) else {"a": value}
    return value


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value within a payload but that of its ID."""
    found = [path] if path and path != ("id",) else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [each for key, below in inner for each in places(below, (*path, key))]


@st.composite
def mutated(draw: st.DrawFn) -> Json:
    """Draw a payload of the API with up to four of its subtrees replaced by anything, removed, or added."""
    payload: Json = json.loads(json.dumps(draw(st.sampled_from(FULL_PAYLOADS))))
    for _ in range(draw(st.integers(1, 4))):
        *parents, name = draw(st.sampled_from(places(payload)))
        place: Any = payload
        for parent in parents:
            place = place[parent]
        if draw(st.integers(0, 9)) == 0:
            del place[name]
        else:
            place[name] = draw(nested())
    if draw(st.booleans()):
        payload["id"] = draw(st.text(max_size=20) | odd_texts)
    return payload


@settings(max_examples=300, deadline=None)
@given(payload=mutated(), is_detail=st.booleans())
def test_whatever_the_payload_the_run_is_a_whole_row_that_arrow_holds(payload: Json, is_detail: bool) -> None:
    flattened = flat(payload, is_detail=is_detail)
    assert list(flattened.row) == COLUMNS
    assert flattened.row["run_id"] is not None
    assert pa.Table.from_pylist([flattened.row], schema=RUNS_SCHEMA).to_pylist() == [flattened.row]
    assert all(isinstance(name, str) for name in flattened.problems)
    is_detail_payload(payload)


def test_a_time_of_another_zone_is_stored_in_utc() -> None:
    text = datetime(2026, 11, 2, 1, 0, tzinfo=timezone(timedelta(hours=9))).isoformat()
    assert text == "2026-11-02T01:00:00+09:00"
    assert flat(bare_payload("classify") | {"createdAt": text}).row["created_at"] == at(2026, 11, 1, 16)
