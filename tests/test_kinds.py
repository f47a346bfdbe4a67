"""The table of kinds: it says what the vendor's reference says, and takes nothing for an ID that is none."""

import pytest

from pipeline.kinds import BY_OBJECT, FINISHED, KINDS, kind_of

# Copied by hand from extend-api.md, "The kinds of run".
REFERENCE = {
    "classify_run": ("clr_", "/classify_runs", True, "PENDING PROCESSING PROCESSED FAILED CANCELLED"),
    "extract_run": ("exr_", "/extract_runs", True, "PENDING PROCESSING PROCESSED FAILED CANCELLED"),
    "split_run": ("splr_", "/split_runs", True, "PENDING PROCESSING PROCESSED FAILED CANCELLED"),
    "parse_run": ("pr_", "/parse_runs", True, "PENDING PROCESSING PROCESSED FAILED"),
    "workflow_run": (
        "workflow_run_",
        "/workflow_runs",
        True,
        "PENDING PROCESSING NEEDS_REVIEW REJECTED PROCESSED FAILED CANCELLED CANCELLING",
    ),
    "edit_run": ("edr_", "/edit_runs", True, "PROCESSING PROCESSED FAILED"),
    "verify_run": ("vr_", "/verify_runs", True, "PROCESSING PROCESSED FAILED CANCELLED"),
    "form_detection_run": ("sgr_", "/form_detection_runs", False, "PROCESSING PROCESSED FAILED"),
}

# Copied by hand from extend-api.md, "Failure reasons documented so far"; where it says "the parse ones that fit", and
# for form detection, from the field's description in the vendor's client (extend-ai 1.20).
PROCESSOR_REASONS = {
    "ABORTED",
    "INTERNAL_ERROR",
    "FAILED_TO_PROCESS_FILE",
    "INVALID_PROCESSOR",
    "INVALID_CONFIGURATION",
    "PARSING_ERROR",
    "PRE_PROCESSING_FAILURE",
    "POST_PROCESSING_FAILURE",
    "OUT_OF_CREDITS",
}
PARSE_REASONS = {
    "UNABLE_TO_DOWNLOAD_FILE",
    "FILE_TYPE_NOT_SUPPORTED",
    "FILE_SIZE_TOO_LARGE",
    "CORRUPT_FILE",
    "OCR_ERROR",
    "PASSWORD_PROTECTED_FILE",
    "FAILED_TO_CONVERT_TO_PDF",
    "FAILED_TO_CONVERT_TO_JPEG",
    "FAILED_TO_GENERATE_TARGET_FORMAT",
    "CHUNKING_ERROR",
    "INTERNAL_ERROR",
    "INVALID_CONFIG_OPTIONS",
    "OUT_OF_CREDITS",
}
FORM_REASONS = {
    "UNABLE_TO_DOWNLOAD_FILE",
    "FILE_TYPE_NOT_SUPPORTED",
    "FILE_SIZE_TOO_LARGE",
    "CORRUPT_FILE",
    "FIELD_DETECTION_ERROR",
    "PASSWORD_PROTECTED_FILE",
    "FAILED_TO_CONVERT_TO_PDF",
    "EMPTY_SCHEMA",
    "INTERNAL_ERROR",
    "INVALID_OPTIONS",
    "OUT_OF_CREDITS",
}
REASONS = {
    "classify_run": PROCESSOR_REASONS,
    "extract_run": PROCESSOR_REASONS | {"SCHEMA_GENERATION_FAILED"},
    "split_run": PROCESSOR_REASONS,
    "parse_run": PARSE_REASONS,
    "workflow_run": set(),
    "edit_run": FORM_REASONS | {"SCHEMA_VALIDATION_ERROR"},
    "verify_run": {
        "FILE_TYPE_NOT_SUPPORTED",
        "NO_APPLICABLE_SIGNALS",
        "PARSE_FAILED",
        "REQUEST_ABORTED",
        "INTERNAL_ERROR",
    },
    "form_detection_run": FORM_REASONS,
}

# Copied by hand from extend-api.md, "Fields by endpoint": B both, S list summary only, D by-ID detail only, - neither.
# `usage` comes with both shapes (in the summary without its breakdown); `classifier` and its siblings have rows of
# their own. `edits` and `outputUrl` are not in that table; the vendor's client (extend-ai 1.20) names them in the
# details of an extract run and of a parse run.
FIELDS = """
                    classify  extract  split  parse  workflow  edit  verify  form_detection
object              B         B        B      B      B         B     B       D
id                  B         B        B      B      B         B     B       D
status              B         B        B      B      B         B     B       D
failureReason       B         B        B      B      D         B     B       D
failureMessage      B         B        B      B      D         B     B       D
usage               B         B        B      B      B         B     B       D
usage.breakdown     D         D        D      D      D         D     B       D
createdAt           B         B        B      S      S         S     B       -
updatedAt           B         B        B      S      S         S     B       -
initialRunAt        -         -        -      -      B         -     -       -
startTime           -         -        -      -      B         -     -       -
endTime             -         -        -      -      B         -     -       -
reviewedAt          -         -        -      -      B         -     -       -
reviewedByUser      -         -        -      -      B         -     -       -
rejectionNote       -         -        -      -      B         -     -       -
metadata            B         B        B      B      D         -     B       -
classifier          B         -        -      -      -         -     -       -
classifierVersion   B         -        -      -      -         -     -       -
extractor           -         B        -      -      -         -     -       -
extractorVersion    -         B        -      -      -         -     -       -
splitter            -         -        B      -      -         -     -       -
splitterVersion     -         -        B      -      -         -     -       -
workflow            -         -        -      -      B         -     -       -
workflowVersion     -         -        -      -      B         -     -       -
config              D         D        D      D      -         D     B       D
output              D         D        D      D      -         D     D       D
initialOutput       D         D        D      -      -         -     -       -
reviewedOutput      D         D        D      -      -         -     -       -
reviewed            B         B        B      -      D         -     -       -
edited              B         B        B      -      -         -     -       -
file                B         B        B      B      -         B     B       D
files               -         B        -      -      B         -     -       -
parseRunId          B         B        B      -      -         -     -       -
batchId             -         -        -      B      B         -     -       -
metrics             -         -        -      B      -         B     B       D
dashboardUrl        B         B        B      -      B         -     -       -
source              -         -        -      -      -         -     B       -
sourceId            -         -        -      -      -         -     B       -
riskLevel           -         -        -      -      -         -     S       -
stepRuns            -         -        -      -      D         -     -       -
edits               -         D        -      -      -         -     -       -
outputUrl           -         -        -      D      -         -     -       -
"""


def carried_by_reference() -> dict[str, dict[str, str]]:
    header, *rows = FIELDS.strip().splitlines()
    names = header.split()
    kinds: dict[str, dict[str, str]] = {f"{name}_run": {} for name in names}
    for row in rows:
        field, *marks = row.split()
        for name, mark in zip(names, marks, strict=True):
            if mark != "-":
                kinds[f"{name}_run"][field] = {"B": "both", "S": "list", "D": "detail"}[mark]
    return kinds


def test_there_are_the_eight_kinds_of_the_reference_and_no_other() -> None:
    assert {kind.object for kind in KINDS} == set(REFERENCE)
    assert len(KINDS) == 8
    assert {name: kind.object for name, kind in BY_OBJECT.items()} == {name: name for name in REFERENCE}


@pytest.mark.parametrize("name", REFERENCE)
def test_prefix_path_list_endpoint_and_statuses_are_those_of_the_reference(name: str) -> None:
    kind = BY_OBJECT[name]
    prefix, path, listed, statuses = REFERENCE[name]
    assert (kind.prefix, kind.path, kind.listed, set(kind.statuses)) == (prefix, path, listed, set(statuses.split()))
    assert len(kind.statuses) == len(statuses.split())


@pytest.mark.parametrize("name", REASONS)
def test_failure_reasons_are_those_documented(name: str) -> None:
    assert set(BY_OBJECT[name].failure_reasons) == REASONS[name]


@pytest.mark.parametrize("name", REFERENCE)
def test_a_kind_carries_the_fields_of_the_reference_and_no_other(name: str) -> None:
    assert dict(BY_OBJECT[name].carries) == carried_by_reference()[name]


def test_detail_only_fields_are_those_that_no_summary_has() -> None:
    assert BY_OBJECT["classify_run"].detail_only == {
        "usage.breakdown",
        "config",
        "output",
        "initialOutput",
        "reviewedOutput",
    }
    assert BY_OBJECT["verify_run"].detail_only == {"output"}


def test_finished_is_what_does_no_more_work() -> None:
    assert {"PROCESSED", "FAILED", "CANCELLED", "REJECTED"} == FINISHED


def test_only_reading_a_verify_run_can_destroy_its_result() -> None:
    assert [kind.object for kind in KINDS if kind.reading_can_destroy] == ["verify_run"]


def test_only_a_workflow_run_is_never_charged_itself() -> None:
    assert [kind.object for kind in KINDS if not kind.charged] == ["workflow_run"]


def test_only_a_parse_run_is_asked_for_with_a_link_in_place_of_its_output() -> None:
    assert {kind.object: dict(kind.query) for kind in KINDS if kind.query} == {"parse_run": {"responseType": "url"}}


def test_processors_are_the_payload_keys_of_the_reference() -> None:
    assert {kind.object: kind.processor for kind in KINDS if kind.processor} == {
        "classify_run": "classifier",
        "extract_run": "extractor",
        "split_run": "splitter",
        "workflow_run": "workflow",
    }


def test_short_names_are_what_people_type() -> None:
    assert [kind.name for kind in KINDS] == [
        "classify",
        "extract",
        "split",
        "parse",
        "workflow",
        "edit",
        "verify",
        "form_detection",
    ]


@pytest.mark.parametrize(
    ("run_id", "name"),
    [
        ("clr_Xj8mK2pL9nR4vT7qY5wZ", "classify_run"),
        ("exr_1", "extract_run"),
        ("splr_1", "split_run"),
        ("pr_1", "parse_run"),
        ("workflow_run_1", "workflow_run"),
        ("edr_1", "edit_run"),
        ("vr_1", "verify_run"),
        ("sgr_1", "form_detection_run"),
        ("pr_splr_1", "parse_run"),
        ("vr_workflow_run_1", "verify_run"),
        ("clr_a-b_C-9", "classify_run"),
        ("clr_" + "a" * 128, "classify_run"),
    ],
)
def test_the_prefix_tells_the_kind(run_id: str, name: str) -> None:
    kind = kind_of(run_id)
    assert kind is not None
    assert kind.object == name


@pytest.mark.parametrize("prefix", [prefix for prefix, *_ in REFERENCE.values()])
@pytest.mark.parametrize(
    "rest",
    [
        "",
        "../x",
        "..",
        "a/b",
        "a\\b",
        "%2f",
        "a%2e",
        "a?responseType=url",
        "a#b",
        "a\0",
        "a\n",
        "\na",
        "a\r",
        " ",
        " a",
        "a ",
        "a b",
        "a\tb",
        "a.b",
        "a:b",
        "a;b",
        "a&b",
        "a" * 129,
        "ä",
        "１",
        "\N{CYRILLIC SMALL LETTER A}",
        "\udc80",
        "\u202ea",
    ],
)
def test_what_could_leave_its_path_is_no_id(prefix: str, rest: str) -> None:
    assert kind_of(prefix + rest) is None


@pytest.mark.parametrize(
    "text",
    ["", "clr", "clr-1", "_1", "CLR_1", "Clr_1", " clr_1", "\nclr_1", "xclr_1", "file_1", "workflow_1", "ws_1", "lr_1"],
)
def test_a_text_without_a_known_prefix_is_no_id(text: str) -> None:
    assert kind_of(text) is None


def test_no_prefix_begins_as_another_does() -> None:
    """So what begins with a kind's prefix is of no other kind, whatever follows (see `discover.is_entry`)."""
    prefixes = [kind.prefix for kind in KINDS]
    assert not [(one, other) for one in prefixes for other in prefixes if one != other and one.startswith(other)]
