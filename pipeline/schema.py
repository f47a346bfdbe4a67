"""The declared tables: every column, its type and what it means.

Nothing here is inferred from data. The README's data dictionary and the field metadata of every Parquet file come from
these descriptions. Types are as DuckDB names them; `arrow_schemas` has the tables as Arrow does, which takes longer to
import than a question to be answered.
"""

from __future__ import annotations

from typing import NamedTuple

SCHEMA_VERSION = 3
"""1: the first. 2: `deleted_at`. 3: a checksum in every file, `raw_sha256`."""

TEXT = "VARCHAR"
INT = "BIGINT"
FLOAT = "DOUBLE"
FLAG = "BOOLEAN"
TIME = "TIMESTAMP WITH TIME ZONE"
CREDITS = "DECIMAL(18, 6)"


class List(NamedTuple):
    """A list of values of one type."""

    of: Type

    def __str__(self) -> str:
        return f"{self.of}[]"


class Struct(NamedTuple):
    """Named fields, each of its own type."""

    fields: tuple[tuple[str, Type], ...]

    def __str__(self) -> str:
        fields = ", ".join(f'"{name}" {type_}' for name, type_ in self.fields)
        return f"STRUCT({fields})"


class Map(NamedTuple):
    """Values of one type by keys of one type."""

    key: Type
    value: Type

    def __str__(self) -> str:
        return f"MAP({self.key}, {self.value})"


Type = str | List | Struct | Map
"""A type; as text it is what SQL calls it."""

CHARGE = Struct((("product", TEXT), ("unit", TEXT), ("quantity", CREDITS), ("credits", CREDITS), ("pages", List(INT))))
BREAKDOWN = List(Struct((("object", TEXT), ("id", TEXT), ("credits", CREDITS), ("charges", List(CHARGE)))))


class Column(NamedTuple):
    """One column: its name, its type, and what it and its null mean."""

    name: str
    type: Type
    description: str


RUNS: tuple[Column, ...] = (
    Column("run_id", TEXT, "The run's ID; one row each. Its prefix tells the kind."),
    Column("kind", TEXT, "The API's `object`: classify_run, extract_run, split_run, parse_run, workflow_run, …"),
    Column("workspace_id", TEXT, "The workspace it was asked for in; null where the key alone decides."),
    Column("status", TEXT, "As the API said it, unknown values included."),
    Column("failure_reason", TEXT, "The API's code for why it failed, as it said it; null where it gave none."),
    Column("failure_message", TEXT, "The API's sentence on why it failed; null where it gave none."),
    Column("credits", CREDITS, "`usage.credits`: the run's own line (a workflow run's: the sum of its children, "
           "charged there). Null is unknown, never zero. Sum `credit_ledger` instead of this column."),
    Column("total_credits", CREDITS, "`usage.totalCredits`: own line and every run that this one caused. Null before "
           "2026-05-14 or where usage is unknown."),
    Column("breakdown", BREAKDOWN, "`usage.breakdown`: the charged resources behind total_credits and their charges. "
           "Null where the API gave none; the view `charges` has it flat."),
    Column("created_at", TIME, "When the run was created, by the API's word. Null where only an endpoint that does "
           "not say it was read (parse, workflow, edit and form-detection runs by ID)."),
    Column("updated_at", TIME, "When the run last changed (a review moves it). Null as for created_at."),
    Column("initial_run_at", TIME, "Workflow runs: when it was first run. Null for other kinds."),
    Column("started_at", TIME, "Workflow runs: when it began to execute. Null for other kinds, or not begun."),
    Column("ended_at", TIME, "Workflow runs: when it finished executing. Null for other kinds, or not finished."),
    Column("reviewed_at", TIME, "Workflow runs: when a person reviewed it. Null for other kinds, or not reviewed."),
    Column("processor_id", TEXT, "The classifier, extractor, splitter or workflow. Null for an inline config."),
    Column("processor_name", TEXT, "Its name. Null as for processor_id."),
    Column("processor_version_id", TEXT, "The ID of the version that ran. Null as for processor_id."),
    Column("processor_version", TEXT, "The version's own name: `draft`, `1.0`, … Null as for processor_id."),
    Column("base_processor", TEXT, "`config.baseProcessor`: the model family. Null where only a summary was read."),
    Column("base_version", TEXT, "`config.baseVersion`. Null where only a summary was read."),
    Column("file_id", TEXT, "The file (of several, the first). Null where the file could not be read."),
    Column("file_name", TEXT, "Its name, as it was uploaded: text from outside."),
    Column("file_type", TEXT, "Its type, as the API names it. Null where unknown."),
    Column("file_pages", INT, "Pages of the file (PDF and DOCX only), else null."),
    Column("file_created_at", TIME, "When the file came, which is not when the run was made."),
    Column("file_count", INT, "How many files the run has. Null where the payload names none."),
    Column("parse_run_id", TEXT, "The parse run whose text this run used; several runs may share one. Null if none."),
    Column("batch_id", TEXT, "The batch it was created in. Null if none."),
    Column("source", TEXT, "What created it (API, STUDIO, WORKFLOW_RUN, …), where the payload says so."),
    Column("source_id", TEXT, "The ID of what created it. Null if none."),
    Column("reviewed", FLAG, "Whether a person reviewed it. Null where the endpoint does not say."),
    Column("edited", FLAG, "Whether the review changed the output. Null where the endpoint does not say."),
    Column("output_type", TEXT, "Classify runs: the class found, after review if there was one. Null for other kinds."),
    Column("output_confidence", FLOAT, "Classify runs: 0 to 1. Null for other kinds."),
    Column("initial_output_type", TEXT, "Classify runs: the class found before the review. Null if not reviewed."),
    Column("reviewed_output_type", TEXT, "Classify runs: the class set by the review. Null if not reviewed."),
    Column("risk_level", TEXT, "Verify runs: from the list summary alone. Null for other kinds."),
    Column("processing_ms", INT, "`metrics.processingTimeMs`, in milliseconds. Null where the API gives no metrics."),
    Column("page_count", INT, "`metrics.pageCount`: pages processed. Null where the API gives no metrics."),
    Column("metadata", TEXT, "What was given when the run was created, as JSON text with sorted keys. Null if none."),
    Column("dashboard_url", TEXT, "Where to look at it in the vendor's dashboard. Null for kinds without one."),
    Column("is_detail", FLAG, "Whether the by-ID detail of this very version has been read, not a list summary alone."),
    Column("fetched_at", TIME, "When its newest payload was received (of a replayed file: when that was saved)."),
    Column("load_id", TEXT, "The load that last wrote the row; see `loads`."),
    Column("deleted_at", TIME, "When the API said that it has this run no more (404); the row stays as it last was. "
           "Null while the API has it."),
)  # fmt: skip

RUN_COLUMNS: tuple[str, ...] = tuple(column.name for column in RUNS)

DAY = Column(
    "day",
    TEXT,
    "Where the row is stored, YYYY-MM-DD: the UTC day of `created_at`, else of `initial_run_at`, else of "
    "`file_created_at`; `unknown` where the API told none. A condition on it spares opening the files of other days.",
)
"""Not a column of the files: the name of the folder that a day's file is in, and so a column of the view `runs`."""

STORED_DAY = r"day=([^/\\]+)[/\\][^/\\]*$"
"""A pattern that finds it in the path of a day's file."""

SOURCES = Column(
    "_sources",
    TEXT,
    "Bookkeeping of the merge, not part of the table: which columns came from which payload, as JSON. Null where the "
    "whole row came from one payload.",
)
"""Where each field came from: without it a late payload could not be put in its right place (see `merge`)."""

RUNS_FILE = (*RUNS, SOURCES)
"""The columns of the files of runs."""

LOADS: tuple[Column, ...] = (
    Column("load_id", TEXT, "Names the load; begins with its time, so IDs sort by age."),
    Column("command", TEXT, "What was run: fetch, retry, sync, load, or spark for a load by `pipeline.spark`."),
    Column("source", TEXT, "Where the IDs or payloads came from: arguments, standard input, file names."),
    Column("base_url", TEXT, "Which API was asked. Null where none was."),
    Column("workspace_id", TEXT, "The workspace that was asked for. Null where the key alone decides."),
    Column("state", TEXT, "complete; stopped (Ctrl-C, or the API refused to go on); interrupted (the process died, and "
           "a later command landed what it had logged)."),
    Column("error", TEXT, "Why it stopped. Null where it did not."),
    Column("started_at", TIME, "When it began."),
    Column("ended_at", TIME, "When it ended; of an interrupted load, when its last record was logged."),
    Column("seconds", FLOAT, "How long it took, in seconds."),
    Column("requested", INT, "Distinct IDs asked for, or payloads given."),
    Column("landed", INT, "Runs that were new or changed."),
    Column("unchanged", INT, "Runs that came and were as the lake had them."),
    Column("skipped", INT, "IDs not asked for, since the lake had them finished and in detail, or forgot them."),
    Column("missing", INT, "IDs that the API does not have (404)."),
    Column("failed", INT, "IDs that did not come, for another reason; they are in dead_letters."),
    Column("invalid", INT, "IDs or payloads that could not be used; each was named on standard error."),
    Column("failed_reasons", Map(TEXT, INT), "How many of missing and failed, by reason."),
    Column("field_problems", Map(TEXT, INT), "How many values were not of the expected type and became null, by "
           "column."),
    Column("requests", INT, "HTTP requests made, retries included."),
    Column("retries", INT, "Requests made again."),
    Column("rate_limited", INT, "Answers of 429 met."),
    Column("version", TEXT, "The version of this package."),
    Column("raw_file", TEXT, "The load's raw log, relative to the lake. Null where it was not kept."),
    Column("raw_bytes", INT, "How much of the raw log has landed, in bytes."),
    Column("raw_sha256", TEXT, "The SHA-256 of so much of the raw log. Null while the load runs, and without a log."),
)  # fmt: skip

DEAD_LETTERS: tuple[Column, ...] = (
    Column("run_id", TEXT, "The ID that did not come; one row each."),
    Column("kind", TEXT, "The kind that its prefix tells."),
    Column("workspace_id", TEXT, "The workspace it was asked for in. Null where the key alone decides."),
    Column("reason", TEXT, "Why, as a code: NOT_FOUND, the API's own code, HTTP_500, TIMEOUT, BROKEN_BODY, NOT_ASKED "
           "(the load stopped before its turn), …"),
    Column("message", TEXT, "Why, as a sentence."),
    Column("http_status", INT, "The last answer's status. Null where none came."),
    Column("request_id", TEXT, "The API's request ID, for its support. Null where none came."),
    Column("attempts", INT, "Requests made for it in the load that failed last."),
    Column("failed_at", TIME, "When it failed last."),
    Column("load_id", TEXT, "The load in which it failed last."),
)  # fmt: skip
