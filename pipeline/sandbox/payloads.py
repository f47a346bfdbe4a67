"""Render a run as the API answers it: the by-ID detail and the list summary, with the fields that each carries."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from .dice import Dice
from .material import draw_metadata, draw_reviewer
from .model import END, File, Run, Version, instant
from .results import config_of, edits_of, output_of, parse_output, verify_risk

Payload = dict[str, Any]

DASHBOARD = "https://dashboard.extend.ai"

# Fields of the by-ID detail that the vendor's client names and the table of kinds does not.
_ALSO_DETAIL = {"outputUrl", "edits"}


def number(value: Decimal) -> int | float:
    """Return a JSON number that prints as the decimal does: 3, 0.3, 2.1."""
    return int(value) if value == value.to_integral_value() else float(value)


def render_detail(run: Run, runs: Mapping[str, Run], *, response_type: str | None = None) -> Payload:
    """Return the payload of a read by ID; `response_type` `url` puts a link where a parse output would be."""
    full = {**_common(run, runs, "detail"), **_details(run, runs, response_type)}
    carries = run.kind.carries
    return {name: value for name, value in full.items() if name in _ALSO_DETAIL or carries.get(name, "list") != "list"}


def render_summary(run: Run, runs: Mapping[str, Run], *, purged: bool = False) -> Payload:
    """Return the run as an entry of its list endpoint; `purged` says that its result is gone for good."""
    full = _common(run, runs, "list")
    if run.kind.object == "verify_run":
        full["riskLevel"] = None if purged else verify_risk(run)
    carries = run.kind.carries
    return {name: value for name, value in full.items() if carries.get(name, "detail") != "detail"}


def _common(run: Run, runs: Mapping[str, Run], shape: str) -> Payload:
    """Return the fields that come with both shapes, and what the table of kinds may yet take away."""
    dice = Dice(run.seed)
    metadata = draw_metadata(dice)
    nulls = dice.chance(0.5)  # the API answers null for some runs where it leaves the field out for others
    payload: Payload = {"object": run.kind.object, "id": run.run_id, "status": run.status}
    optional: Payload = {
        "failureReason": run.failure_reason,
        "failureMessage": run.failure_message,
        "metadata": metadata,
        "usage": _usage(run, runs, shape),
        "batchId": run.batch_id if "batchId" in run.kind.carries else None,
        "parseRunId": run.parse_run_id,
        "metrics": _metrics(run, dice),
    }
    payload.update(optional if nulls else {name: value for name, value in optional.items() if value is not None})
    payload.update(_processor(run))
    payload["createdAt"] = instant(run.created_at, run.precision)
    payload["updatedAt"] = _last_change(run)
    payload["reviewed"], payload["edited"] = run.reviewed, run.edited
    payload["dashboardUrl"] = f"{DASHBOARD}/{run.kind.path.strip('/')}/{run.run_id}"
    if "files" in run.kind.carries and (run.multifile or run.kind.object == "workflow_run"):
        payload["files"] = [render_file(file) for file in run.files]
    elif nulls:
        payload["files"] = None
    payload["file"] = render_file(run.files[0]) if run.files and not run.multifile else None
    if run.kind.object == "workflow_run":
        payload.update(_workflow(run, dice))
        payload["metadata"] = metadata or {}
    if run.kind.object == "verify_run":
        payload.update({"source": run.source, "sourceId": run.source_id, "config": config_of(run)})
    return payload


def _last_change(run: Run) -> str:
    return instant(run.updated_at, run.precision if run.updated_precision is None else run.updated_precision)


def _details(run: Run, runs: Mapping[str, Run], response_type: str | None) -> Payload:
    if run.kind.object == "workflow_run":
        return {"stepRuns": _steps(run, runs)}
    payload: Payload = {"config": config_of(run)}
    if run.status != "PROCESSED":
        return payload
    if run.kind.object == "parse_run":
        if response_type == "url":
            link = f"https://files.example.com/parse-output/{run.run_id}.json?X-Expires=900&X-Signature={run.seed:08x}"
            return {**payload, "outputUrl": link}
        return {**payload, "output": parse_output(run)}
    payload["output"] = output_of(run, edited=run.edited)
    if run.reviewed:
        payload["initialOutput"] = output_of(run, edited=False)
        payload["reviewedOutput"] = output_of(run, edited=run.edited)
    if run.edited and run.kind.object == "extract_run":
        payload["edits"] = edits_of(run)
    return payload


def render_file(file: File) -> Payload:
    """Return a file's summary; `metadata.pageCount` is there for PDF and DOCX only."""
    payload: Payload = {
        "object": "file",
        "id": file.file_id,
        "name": file.name,
        "metadata": {"pageCount": file.pages} if file.type in ("PDF", "DOCX") else {},
        "createdAt": instant(file.created_at, 3),
        "updatedAt": instant(file.created_at, 3),
    }
    if file.type is not None:
        payload["type"] = file.type
    if file.parent_file_id is not None:
        payload["parentFileId"] = file.parent_file_id
    return payload


def usage_lines(run: Run, runs: Mapping[str, Run]) -> list[Run]:
    """Return the runs whose lines make up this one's `totalCredits`: itself where it is chargeable, then the caused."""
    own = [run] if run.charges is not None else []
    return own + [runs[caused] for caused in run.caused if runs[caused].charges is not None]


def _usage(run: Run, runs: Mapping[str, Run], shape: str) -> Payload | None:
    if not run.shows_usage:
        return None
    lines = usage_lines(run, runs)
    total = sum((line.own_credits for line in lines), Decimal(0))
    usage: Payload = {"credits": number(run.own_credits if run.kind.charged else total)}
    if run.shows_totals:
        usage["totalCredits"] = number(total)
    if run.shows_breakdown and (shape == "detail" or run.kind.carries["usage.breakdown"] == "both"):
        usage["breakdown"] = [_line(line, with_charges=run.shows_charges) for line in lines]
    return usage


def _line(run: Run, *, with_charges: bool) -> Payload:
    line: Payload = {"object": run.kind.object, "id": run.run_id, "credits": number(run.own_credits)}
    if with_charges:
        line["charges"] = [
            {
                "product": charge.product,
                "unit": charge.unit,
                "quantity": number(charge.quantity),
                "credits": number(charge.credits),
                **({"pages": list(charge.pages)} if charge.pages else {}),
            }
            for charge in run.charges or ()
        ]
    return line


def _metrics(run: Run, dice: Dice) -> Payload | None:
    if run.status != "PROCESSED" or "metrics" not in run.kind.carries:
        return None
    pages = run.files[0].pages if run.files else 1
    metrics: Payload = {"processingTimeMs": number(Decimal(dice.between(4000, 900_000)) / 10)}
    if run.kind.object != "verify_run" or dice.chance(0.8):
        metrics["pageCount"] = pages
    if run.kind.object in ("edit_run", "form_detection_run"):
        fields = dice.between(3, 60)
        metrics.update(
            fieldCount=fields, fieldsDetectedCount=fields, fieldsAnnotatedCount=fields - 1,
            fieldDetectionTimeMs=812.5, fieldAnnotationTimeMs=420,
        )  # fmt: skip
    if run.kind.object == "edit_run":
        metrics["fieldFillingTimeMs"] = 93.25
    return metrics


def _processor(run: Run) -> Payload:
    key, version = run.kind.processor, run.version
    if key is None or version is None:
        return {}
    summary: Payload = {
        "object": key,
        "id": version.processor_id,
        "name": version.name,
        "createdAt": instant(version.processor_created_at, 3),
        "updatedAt": instant(version.created_at, 3),
    }
    return {key: summary, f"{key}Version": _version(key, version)}


def _version(key: str, version: Version) -> Payload:
    payload: Payload = {
        "object": f"{key}_version",
        "id": version.version_id,
        "version": version.version,
        "createdAt": instant(version.created_at, 3),
    }
    if key == "workflow":
        payload["name"] = version.description
    else:
        payload["description"] = version.description
        payload[f"{key}Id"] = version.processor_id
    if version.created_by is not None:
        payload["createdBy"] = {"type": "user", "email": version.created_by}
    return payload


def _workflow(run: Run, dice: Dice) -> Payload:
    latest = run.created_at if run.live else END

    def later(than: datetime, most_s: int) -> datetime:
        return min(than + timedelta(seconds=dice.share() * most_s), latest)

    # Some that never had a step began long after they were created: the two times are not the same thing.
    initial = later(run.created_at, 172_800 if not run.steps and run.seed % 4 == 0 else 2)
    started = later(initial, 30)
    began = run.status != "PENDING"
    ended_at = _last_change(run) if run.updated_at >= started else instant(started, run.precision)
    reviewed = began and run.reviewed
    times = {
        "initialRunAt": instant(initial, run.precision) if began else None,
        "startTime": instant(started, run.precision) if began else None,
        "endTime": ended_at if run.status in ("PROCESSED", "FAILED", "REJECTED", "CANCELLED") else None,
        "reviewedAt": _last_change(run) if reviewed else None,
        "reviewedByUser": draw_reviewer(dice) if reviewed else None,
    }
    return {**times, "rejectionNote": "Invalid invoice format; see <note>" if run.status == "REJECTED" else None}


_STEP_OF = {"parse_run": "PARSE", "classify_run": "CLASSIFY", "extract_run": "EXTRACT", "split_run": "SPLIT"}


def _steps(run: Run, runs: Mapping[str, Run]) -> list[Payload]:
    """Return a step for each child that a step made (a child's own parse run has none), and steps without a run."""
    steps: list[Payload] = []
    for number_, child_id in enumerate(run.steps):
        child = runs[child_id]
        if child.kind.object == "parse_run" and number_ > 0:
            continue
        name = _STEP_OF[child.kind.object]
        key = child.kind.object.replace("_run", "Run")
        done = child.status in ("PROCESSED", "FAILED", "CANCELLED")
        result = {key: render_detail(child, runs, response_type="url")} if done and not child.deleted else None
        steps.append(_step(run, number_, name, child.status if done else "PROCESSING", result))
    if run.steps:
        rules = {
            "rules": [{"name": "total > 0", "valid": True}, {"name": "due date", "valid": True}],
            "allPassed": True,
        }
        waiting = run.status == "NEEDS_REVIEW"
        steps.append(
            _step(run, 90, "RULE_VALIDATION", "WAITING" if waiting else "PROCESSED", None if waiting else rules)
        )
        branch = {
            "matchedBranch": {"id": "br_1", "name": "default"},
            "branches": [{"id": "br_1", "name": "default", "matched": True}],
        }
        if run.seed % 5 == 0:
            steps.append(_step(run, 91, "ROUTER", "PROCESSED", branch))
    return steps


def _step(run: Run, place: int, kind: str, status: str, result: Payload | None) -> Payload:
    return {
        "object": "workflow_step_run",
        "id": f"workflow_step_run_{run.seed:08x}{place:02d}",
        "workflowRunId": run.run_id,
        "status": status,
        "files": [render_file(file) for file in run.files[:1]],
        "stepType": kind,
        "step": {"object": "workflow_step", "id": f"step_{place:02d}", "name": f"{kind.title()} {place}", "type": kind},
        "result": result,
    }
