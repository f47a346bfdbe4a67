"""What the made-up organization is called and worded with: processors, files, messages, metadata, prices."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from .dice import Dice
from .model import Charge, Run, Version

UNDOCUMENTED_STATUSES = {
    "classify_run": ("QUEUED", "EXPIRED"),
    "extract_run": ("EXPIRED",),
    "split_run": ("QUEUED",),
    "parse_run": ("SKIPPED",),
    "workflow_run": ("PAUSED",),
    "edit_run": ("NEEDS_SIGNATURE",),
    "verify_run": ("ESCALATED",),
    "form_detection_run": ("QUEUED",),
}
UNDOCUMENTED_REASONS = ("MODEL_OVERLOADED", "REGION_UNAVAILABLE", "TENANT_QUOTA_EXCEEDED", "policy_violation: pii")

WORKFLOW_REASONS = ("WORKFLOW_STEP_FAILED", "INTERNAL_ERROR", "OUT_OF_CREDITS")
"""None is documented for workflow runs."""

PRICES = {
    "parse_performance": Decimal("2"),
    "parse_light": Decimal("0.3"),
    "extraction_performance": Decimal("3"),
    "extraction_light": Decimal("0.7"),
    "splitting_performance": Decimal("2"),
    "splitting_light": Decimal("0.5"),
    "classification_performance": Decimal("1"),
    "classification_light": Decimal("0.3"),
    "edit": Decimal("2"),
    "form_detection": Decimal("1"),
    "verify_agentic": Decimal("4"),
    "verify_light": Decimal("0.9"),
}
"""Credits a page. Published: parse, extract, split, classify, edit; made up: form detection and verify."""

CREDITS_PER_USD = Decimal(80)
CREDITS_PER_CELL = Decimal("0.000125")

_PROCESSORS: dict[str, tuple[tuple[str, str], ...]] = {
    "classifier": (
        ("Mailroom triage", "classification_performance"),
        ("Claims intake", "classification_light"),
        ("Überweisung / Quittung 📎", "classification_light"),
    ),
    "extractor": (
        ("Invoices", "extraction_performance"),
        ("Receipts", "extraction_light"),
        ("Bills of lading", "extraction_performance"),
        ('Contracts "2026", EU', "extraction_performance"),
    ),
    "splitter": (("Scanned batches", "splitting_performance"), ("Loan packets", "splitting_light")),
    "workflow": (("Accounts payable", ""), ("Onboarding", ""), ("Freight audit <EMEA>", "")),
}
_PREFIXES = {"classifier": "cl_", "extractor": "ex_", "splitter": "spl_", "workflow": "workflow_"}
_VERSIONS = (("draft", 0), ("1.0", 0), ("1.1", 150), ("2.1", 330))
_FAILS_MORE = ("Invoices", "2.1", date(2026, 9, 14))

FILE_STEMS = (
    "invoice_{n}", "INV-{n}", "receipt {n}", "claim-{n}-signed", "statement_2026-{m:02d}", "contract_v{m}", "scan{n}",
    "BOL_{n}", "W-9 ({m})", "passport_{n}", "packing-list_{n}",
)  # fmt: skip
HOSTILE_NAMES = (
    "<script>alert('{n}')</script>.pdf",
    "=cmd|' /C calc'!A{m}.csv",
    "+SUM(1+{m})*{n}.xlsx",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07_{n}.pdf",
    "invoice\u202efdp.{n}.exe",
    "請求書_{n}_№✓🧾.pdf",
    "a,b;\"c\"\n'd'\t{n}.pdf",
    "../../etc/passwd_{n}.pdf",
    "x" * 900 + "_{n}.pdf",
    " .pdf",
)
SUFFIXES = (("pdf", "PDF", 60), ("docx", "DOCX", 9), ("png", "IMG", 9), ("tiff", "IMG", 4), ("xlsx", "EXCEL", 8),
            ("csv", "CSV", 4), ("txt", "TXT", 3), ("html", "HTML", 2), ("bin", None, 1))  # fmt: skip

_PEOPLE = ("ana.lima@example.com", "j.o'neil@example.com", "李雷@example.com", "ops+bot@example.com")

_MESSAGES = {
    "OUT_OF_CREDITS": ("Insufficient credits: {n} needed, {m} left", "Insufficient credits"),
    "OCR_ERROR": ("OCR failed on page {m} after {n} ms", "OCR failed on page {m}"),
    "CORRUPT_FILE": ('File "{file}" is corrupt at byte {n}', "Unexpected end of file {id}"),
    "PASSWORD_PROTECTED_FILE": ('File "{file}" is password protected',),
    "FILE_SIZE_TOO_LARGE": ("File is {n} MB; the limit is {m} MB",),
    "FILE_TYPE_NOT_SUPPORTED": ('Type of "{file}" is not supported',),
    "UNABLE_TO_DOWNLOAD_FILE": ("GET https://files.example.com/{id} answered 40{digit}", "Timed out after {n} ms"),
    "INTERNAL_ERROR": ("An unexpected internal error occurred (request {id})", "Internal error", ""),
    "PARSING_ERROR": ("Model output is no JSON: line {m} column {digit}", "Parse run {id} did not finish"),
    "POST_PROCESSING_FAILURE": ("Field total_{digit} has no value of type number", "Post-processing step {m} failed"),
    "SCHEMA_VALIDATION_ERROR": ("Value at $.fields[{m}].amount is not a number",),
    "ABORTED": ("Aborted by {who}",),
}
_ANY_MESSAGE = (
    "{reason} while handling {file} (attempt {digit} of 5)",
    "Failed after {n} ms for file {id}",
    "step {m}: " + "very " * 40 + "long message, run {id}",
    '<b>Failed</b>\n  at step {m}\n  =HYPERLINK("http://example.com/{n}")',
)


@dataclass(frozen=True, slots=True)
class Workspace:
    """A workspace of the organization and the processors that it has, by the payload key of their kind."""

    workspace_id: str
    versions: dict[str, tuple[tuple[Version, ...], ...]]


def build_workspace(dice: Dice) -> Workspace:
    """Return a workspace with every processor and version; every workspace has the same ones, under its own IDs."""
    return Workspace(
        dice.identifier("ws_"),
        {
            key: tuple(_build_versions(dice, key, name, base) for name, base in processors)
            for key, processors in _PROCESSORS.items()
        },
    )


def _build_versions(dice: Dice, key: str, name: str, base: str) -> tuple[Version, ...]:
    processor_id = dice.identifier(_PREFIXES[key])
    born = datetime(2025, 6, 2, 8, tzinfo=UTC) + timedelta(minutes=dice.between(0, 90_000))
    return tuple(
        Version(
            processor_id=processor_id,
            name=name,
            version_id=dice.identifier(_PREFIXES[key] + "v_"),
            version=label,
            description=dice.pick((None, "", f"{name} {label}: stricter rules", "hotfix — see ticket #4711")),
            base_processor=base or None,
            base_version=dice.pick(("3.4.0", "4.1.1", "4.6.0")) if base else None,
            created_at=born + timedelta(days=days),
            processor_created_at=born,
            created_by=dice.pick((*_PEOPLE, None)),
            fails_more_from=_FAILS_MORE[2] if (name, label) == _FAILS_MORE[:2] else None,
        )
        for label, days in _VERSIONS
    )


def draw_version(dice: Dice, workspace: Workspace, key: str, at: datetime) -> Version:
    """Return a version that was there at that time: mostly the newest, sometimes the draft or an older one."""
    versions = dice.weighted([(versions, 5 - 1.3 * n) for n, versions in enumerate(workspace.versions[key])])
    if dice.chance(0.08):
        return versions[0]
    there = [version for version in versions[1:] if version.created_at <= at] or [versions[1]]
    return there[-1] if dice.chance(0.85) else dice.pick(there)


def draw_reviewer(dice: Dice) -> str:
    """Return the mail address of somebody who reviews runs."""
    return dice.pick(_PEOPLE)


def draw_message(dice: Dice, reason: str | None, file_name: str) -> str | None:
    """Return a failure message of the kind that differs between runs in numbers, IDs and names only, or None."""
    if dice.chance(0.03):
        return None
    template = dice.pick(_MESSAGES.get(reason or "", ())) if reason in _MESSAGES else dice.pick(_ANY_MESSAGE)
    return template.format(
        n=dice.between(100, 99_999), m=dice.between(1, 60), digit=dice.between(1, 9), reason=reason or "Failed",
        file=file_name[:60], id=dice.identifier("file_"), who=draw_reviewer(dice),
    )  # fmt: skip


def draw_metadata(dice: Dice) -> dict[str, object] | None:
    """Return what a customer may hang onto a run: often nothing, mostly plain labels, sometimes a nuisance."""
    if dice.chance(0.3):
        return None
    plain: dict[str, object] = {
        "costCenter": dice.pick(("CC-100", "CC-200", "CC-310", "cc-100 ")),
        "customer": dice.pick(("Acme GmbH", "Ærø Shipping", "株式会社サンプル", "O'Neil & Sons, Ltd.")),
    }
    if dice.chance(0.85):
        return plain
    odd: tuple[dict[str, object], ...] = (
        {},
        {"a.b": 1, "a": {"b": 2}, "": "empty key", 'weird "key"': "quoted", "🧾": "emoji", "x\ny": "line\nbreak"},
        {"=1+1": "=1+1", "amount": 12.50, "count": 9_007_199_254_740_993, "ok": True, "none": None},
        {"nested": {"list": [1, "two", {"three": [3, None]}], "deep": {"deeper": {"deepest": "x"}}}},
        {"Cost Center": "CC-100", "costcenter": "cc", "COSTCENTER": "CC", "costCenter": dice.between(1, 9)},
        {"id": dice.between(1, 9), "status": "mine", "usage": {"credits": 999}, "object": "not a run"},
        {"long": "l" * 3000, "html": "<img src=x onerror=alert(1)>", "ansi": "\x1b[2J", "rtl": "\u202eabc"},
    )  # fmt: skip
    return dice.pick(odd)


def product_of(run: Run, dice: Dice) -> str:
    """Return the base product that a run of this kind, on this version, is charged for."""
    if run.version is not None and run.version.base_processor is not None:
        return run.version.base_processor
    light = dice.chance(0.35)
    return {
        "parse_run": "parse_light" if light else "parse_performance",
        "classify_run": "classification_performance",
        "extract_run": "extraction_performance",
        "split_run": "splitting_performance",
        "edit_run": "edit",
        "verify_run": "verify_light" if light else "verify_agentic",
        "form_detection_run": "form_detection",
    }[run.kind.object]


def draw_charges(dice: Dice, run: Run, pages: int) -> tuple[Charge, ...]:
    """Return what a processed run was charged: the base price a page, and the add-ons that it used."""
    product = product_of(run, dice)
    charges = [_by_page(product, PRICES[product], pages)]
    if run.kind.object in ("extract_run", "classify_run") and dice.chance(0.15):
        charges.append(_by_page("review_agent", Decimal(1 if run.kind.object == "extract_run" else "0.5"), pages))
    if run.kind.object == "parse_run":
        charges += _parse_extras(dice, run, pages)
    if run.kind.object == "extract_run" and dice.chance(0.03):
        dollars = Decimal(dice.between(1, 400)) / 100
        charges.append(Charge("agent_usage", "usd", dollars, dollars * CREDITS_PER_USD))
    return tuple(charges)


def _by_page(product: str, price: Decimal, pages: int) -> Charge:
    return Charge(product, "page", Decimal(pages), price * pages)


def _parse_extras(dice: Dice, run: Run, pages: int) -> list[Charge]:
    extras = []
    for product in ("agentic_text_correction", "agentic_table_correction"):
        if dice.chance(0.08):
            hit = tuple(page for page in range(1, pages + 1) if dice.chance(0.5)) or (1,)
            extras.append(Charge(product, "page", Decimal(len(hit)), Decimal(len(hit)), hit))
    if run.files and run.files[0].type in ("EXCEL", "CSV"):
        cells = Decimal(dice.between(11, 60_001))
        extras.append(Charge("advanced_excel_parsing", "cell", cells, cells * CREDITS_PER_CELL))
    return extras
