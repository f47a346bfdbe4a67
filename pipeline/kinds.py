"""The kinds of run: the one place that knows ID prefixes, paths, and what each endpoint carries.

Source: the vendor's reference for API version 2026-02-09, and its published clients.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

API_VERSION = "2026-02-09"

FINISHED = frozenset({"PROCESSED", "FAILED", "CANCELLED", "REJECTED"})
"""Statuses after which a run does no more work (a review may still edit it). An unknown status is not finished."""

PAGE_SIZE = 100
"""How many runs to ask a list for at once. The largest page is not documented: fewer may come."""

Carried = Literal["both", "list", "detail"]

_PROCESSOR_REASONS = frozenset(
    "ABORTED INTERNAL_ERROR FAILED_TO_PROCESS_FILE INVALID_PROCESSOR INVALID_CONFIGURATION PARSING_ERROR "
    "PRE_PROCESSING_FAILURE POST_PROCESSING_FAILURE OUT_OF_CREDITS".split()
)
_PARSE_REASONS = frozenset(
    "UNABLE_TO_DOWNLOAD_FILE FILE_TYPE_NOT_SUPPORTED FILE_SIZE_TOO_LARGE CORRUPT_FILE OCR_ERROR "
    "PASSWORD_PROTECTED_FILE FAILED_TO_CONVERT_TO_PDF FAILED_TO_CONVERT_TO_JPEG "
    "FAILED_TO_GENERATE_TARGET_FORMAT CHUNKING_ERROR INTERNAL_ERROR INVALID_CONFIG_OPTIONS OUT_OF_CREDITS".split()
)
_FORM_REASONS = frozenset(
    "UNABLE_TO_DOWNLOAD_FILE FILE_TYPE_NOT_SUPPORTED FILE_SIZE_TOO_LARGE CORRUPT_FILE PASSWORD_PROTECTED_FILE "
    "FAILED_TO_CONVERT_TO_PDF FIELD_DETECTION_ERROR EMPTY_SCHEMA INVALID_OPTIONS INTERNAL_ERROR OUT_OF_CREDITS".split()
)
_EDIT_REASONS = _FORM_REASONS | {"SCHEMA_VALIDATION_ERROR"}
_VERIFY_REASONS = frozenset(
    "FILE_TYPE_NOT_SUPPORTED NO_APPLICABLE_SIGNALS PARSE_FAILED REQUEST_ABORTED INTERNAL_ERROR".split()
)

_PROCESSOR_STATUSES = ("PENDING", "PROCESSING", "PROCESSED", "FAILED", "CANCELLED")

# The table "Fields by endpoint": which payload fields come with both shapes, with the list summary alone, or with
# the by-ID detail alone. What is not named here for a kind, that kind does not carry.
_EVERY: dict[str, Carried] = {"object": "both", "id": "both", "status": "both", "usage": "both"}
_BREAKDOWN: dict[str, Carried] = {"usage.breakdown": "detail"}
_FAILURE: dict[str, Carried] = {"failureReason": "both", "failureMessage": "both"}
_TIMES: dict[str, Carried] = {"createdAt": "both", "updatedAt": "both"}
_LIST_TIMES: dict[str, Carried] = {"createdAt": "list", "updatedAt": "list"}
_CONFIG: dict[str, Carried] = {"config": "detail", "output": "detail"}


def _processor_fields(name: str) -> dict[str, Carried]:
    return {
        **_EVERY, **_BREAKDOWN, **_FAILURE, **_TIMES, **_CONFIG,
        "metadata": "both", name: "both", f"{name}Version": "both",
        "initialOutput": "detail", "reviewedOutput": "detail", "reviewed": "both", "edited": "both",
        "file": "both", "parseRunId": "both", "dashboardUrl": "both",
    }  # fmt: skip


_SORTED_PAGES: Mapping[str, str] = MappingProxyType(
    {"sortBy": "updatedAt", "sortDir": "desc", "maxPageSize": str(PAGE_SIZE)}
)


def _all_detail(fields: Mapping[str, Carried]) -> dict[str, Carried]:
    return dict.fromkeys(fields, "detail")


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """One kind of run.

    `object` is the API's own name for it, `path` its collection's path, `processor` the payload key of what
    processed the document (null where there is none), `query` what a by-ID request must ask for, `list_query` what a
    list request must (most recently updated first, where the list can be sorted at all),
    `carries` which endpoint carries which payload field, `reading_can_destroy` whether the first read by ID may purge
    the result, `charged` whether a run of this kind is ever charged itself.
    """

    object: str
    prefix: str
    path: str
    statuses: tuple[str, ...]
    failure_reasons: frozenset[str]
    carries: Mapping[str, Carried]
    listed: bool = True
    processor: str | None = None
    query: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    list_query: Mapping[str, str] = field(default_factory=lambda: _SORTED_PAGES)
    reading_can_destroy: bool = False
    charged: bool = True

    @property
    def name(self) -> str:
        """The short name that people type: `classify`, `form_detection`."""
        return self.object.removesuffix("_run")

    @property
    def sortable(self) -> bool:
        """Whether its list can be asked for in an order."""
        return self.listed and "sortBy" in self.list_query

    @property
    def detail_only(self) -> frozenset[str]:
        """Payload fields that only the by-ID detail carries."""
        return frozenset(name for name, where in self.carries.items() if where == "detail")


KINDS: tuple[Kind, ...] = (
    Kind(
        "classify_run", "clr_", "/classify_runs", _PROCESSOR_STATUSES, _PROCESSOR_REASONS,
        _processor_fields("classifier"), processor="classifier",
    ),
    Kind(
        "extract_run", "exr_", "/extract_runs", _PROCESSOR_STATUSES, _PROCESSOR_REASONS | {"SCHEMA_GENERATION_FAILED"},
        {**_processor_fields("extractor"), "files": "both", "edits": "detail"}, processor="extractor",
    ),
    Kind(
        "split_run", "splr_", "/split_runs", _PROCESSOR_STATUSES, _PROCESSOR_REASONS,
        _processor_fields("splitter"), processor="splitter",
    ),
    Kind(
        "parse_run", "pr_", "/parse_runs", ("PENDING", "PROCESSING", "PROCESSED", "FAILED"), _PARSE_REASONS,
        {
            **_EVERY, **_BREAKDOWN, **_FAILURE, **_LIST_TIMES, **_CONFIG,
            "metadata": "both", "file": "both", "batchId": "both", "metrics": "both",
            "outputUrl": "detail",
        },
        query=MappingProxyType({"responseType": "url"}),
        # One client says `maxPageSize`, another `limit`; the wrong one is ignored in silence.
        list_query=MappingProxyType({"maxPageSize": str(PAGE_SIZE), "limit": str(PAGE_SIZE)}),
    ),
    Kind(
        "workflow_run", "workflow_run_", "/workflow_runs",
        ("PENDING", "PROCESSING", "NEEDS_REVIEW", "REJECTED", "PROCESSED", "FAILED", "CANCELLED", "CANCELLING"),
        frozenset(),
        {
            **_EVERY, **_BREAKDOWN, **_LIST_TIMES,
            "failureReason": "detail", "failureMessage": "detail",
            "initialRunAt": "both", "startTime": "both", "endTime": "both",
            "reviewedAt": "both", "reviewedByUser": "both", "rejectionNote": "both",
            "metadata": "detail", "workflow": "both", "workflowVersion": "both", "reviewed": "detail",
            "files": "both", "batchId": "both", "dashboardUrl": "both", "stepRuns": "detail",
        },
        processor="workflow", charged=False,
    ),
    Kind(
        "edit_run", "edr_", "/edit_runs", ("PROCESSING", "PROCESSED", "FAILED"), _EDIT_REASONS,
        {**_EVERY, **_BREAKDOWN, **_FAILURE, **_LIST_TIMES, **_CONFIG, "file": "both", "metrics": "both"},
    ),
    Kind(
        "verify_run", "vr_", "/verify_runs", ("PROCESSING", "PROCESSED", "FAILED", "CANCELLED"), _VERIFY_REASONS,
        {
            **_EVERY, **_FAILURE, **_TIMES, "usage.breakdown": "both",
            "metadata": "both", "config": "both", "output": "detail", "file": "both", "metrics": "both",
            "source": "both", "sourceId": "both", "riskLevel": "list",
        },
        reading_can_destroy=True,
    ),
    Kind(
        "form_detection_run", "sgr_", "/form_detection_runs", ("PROCESSING", "PROCESSED", "FAILED"), _FORM_REASONS,
        _all_detail({**_EVERY, **_BREAKDOWN, **_FAILURE, **_CONFIG, "file": "detail", "metrics": "detail"}),
        listed=False,
    ),
)  # fmt: skip

BY_OBJECT: Mapping[str, Kind] = MappingProxyType({kind.object: kind for kind in KINDS})

_BY_PREFIX = {kind.prefix: kind for kind in KINDS}
_ID = re.compile(f"({'|'.join(sorted(_BY_PREFIX, key=len, reverse=True))})[A-Za-z0-9_-]{{1,128}}")


def kind_of(run_id: str) -> Kind | None:
    """Return the kind that an ID belongs to, or None where it is no ID of a run.

    Only letters, digits, `_` and `-` may follow the prefix: anything else could leave its URL path or its folder.
    """
    found = _ID.fullmatch(run_id)
    return _BY_PREFIX[found[1]] if found else None
