"""Render what only the by-ID detail carries: configurations and outputs, drawn from the run's own seed when asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .dice import Dice
from .model import Run

Payload = dict[str, Any]

_TYPES = ("invoice", "receipt", "bill_of_lading", "claim", "other")
_BASE_OF = {
    "classify_run": "classification_performance",
    "extract_run": "extraction_performance",
    "split_run": "splitting_performance",
}
_OUTPUT_SALT, _RISK_SALT, _CHUNK_SALT = 0x5EED, 0x0515, 0xC4
_WORDS = "Total due net of VAT 19 % payable within thirty days to the account named overleaf — Überweisung 請求 № 4711 "
_SIGNALS = ("FILE_FORMAT_AND_PDF_STRUCTURE", "DIGITAL_SIGNATURE_INTEGRITY", "AI_GENERATED_CONTENT")


def config_of(run: Run) -> Payload:
    """Return the configuration that the run had; processors name `baseProcessor` and `baseVersion`."""
    return _CONFIGS[run.kind.object](run)


def _processor_config(run: Run) -> Payload:
    base = run.version.base_processor if run.version and run.version.base_processor else _BASE_OF[run.kind.object]
    version = run.version.base_version if run.version else "4.6.0"
    config: Payload = {"baseProcessor": base, "baseVersion": version, "parseConfig": {"target": "markdown"}}
    classes = [{"id": f"class_{name}", "type": name, "description": f"Any {name}"} for name in _TYPES]
    if run.kind.object == "classify_run":
        return {**config, "classifications": classes, "advancedOptions": {"context": "default"}}
    if run.kind.object == "split_run":
        return {**config, "splitClassifications": classes, "splitRules": "One document per cover sheet"}
    if run.legacy_config:
        field = {"id": "f1", "name": "total", "type": "currency", "description": "Total amount"}
        return {**config, "fields": [field]}
    schema = {"type": "object", "properties": {"total": {"type": "number"}, "vendor": {"type": "string"}}}
    return {
        **config,
        "schema": schema,
        "advancedOptions": {"citationsEnabled": True, "reviewAgent": {"enabled": False}},
    }


def _parse_config(run: Run) -> Payload:
    light = any(charge.product == "parse_light" for charge in run.charges or ())
    return {
        "target": "markdown",
        "chunkingStrategy": {"type": "page"},
        "engine": "parse_light" if light else "parse_performance",
        "engineVersion": "2.0.1",
    }


def _edit_schema() -> Payload:
    return {
        "type": "object",
        "properties": {"full_name": {"type": "string", "extend_edit:field_type": "text", "extend_edit:page_index": 0}},
        "required": ["full_name"],
    }


def _edit_config(run: Run) -> Payload:
    return {"engineVersion": "1.2.0", "schema": _edit_schema(), "advancedOptions": {"flattenPdf": bool(run.seed & 1)}}


def _verify_config(run: Run) -> Payload:
    light = any(charge.product == "verify_light" for charge in run.charges or ())
    engine = "verify_light" if light else "verify_agentic"
    return {"engine": engine, "engineVersion": "1.0.3", "advancedOptions": {"requireParsing": bool(run.caused)}}


def _form_config(run: Run) -> Payload:
    return {"engineVersion": "1.2.0", "instructions": "Name the fields in English"}


_CONFIGS = {
    "classify_run": _processor_config,
    "extract_run": _processor_config,
    "split_run": _processor_config,
    "parse_run": _parse_config,
    "edit_run": _edit_config,
    "verify_run": _verify_config,
    "form_detection_run": _form_config,
}


def output_of(run: Run, *, edited: bool) -> Payload:
    """Return the result of a processed run; `edited` asks for it as a reviewer left it."""
    return _OUTPUTS[run.kind.object](run, Dice(run.seed ^ _OUTPUT_SALT), edited)


def _classify_output(run: Run, dice: Dice, edited: bool) -> Payload:
    place = dice.between(0, len(_TYPES) - 1)
    name = _TYPES[(place + edited) % len(_TYPES)]
    confidence = dice.pick((0, 1, 0.5, round(dice.share(), 3)))
    insights = [{"type": "reasoning", "content": f"The title says “{name}”."}] if dice.chance(0.7) else []
    return {"id": f"class_{name}", "type": name, "confidence": confidence, "insights": insights}


def _extract_output(run: Run, dice: Dice, edited: bool) -> Payload:
    total = dice.between(100, 900_000) / 100 + edited
    if run.legacy_config:
        page = {"id": "r1", "fieldName": "total", "page": 1, "boundingBoxes": []}
        return {"total": {"id": "f1", "type": "currency", "value": total, "confidence": 0.97, "references": [page]}}
    citation = {"page": {"number": 1, "width": 612, "height": 792}, "referenceText": f"Total: {total}"}
    return {
        "value": {"total": total, "vendor": dice.pick(("Acme GmbH", "株式会社サンプル", "=1+1")), "lines": [{"n": 1}]},
        "metadata": {
            "total": {"ocrConfidence": 0.99, "logprobsConfidence": 0.93, "citations": [citation]},
            "vendor": {"reviewAgentScore": dice.between(1, 5)},
        },
    }


def _split_output(run: Run, dice: Dice, edited: bool) -> Payload:
    splits = []
    for place in range(dice.between(1, 4)):
        name = dice.pick(_TYPES)
        splits.append({
            "id": f"split_{run.seed:08x}{place}", "type": name, "classificationId": f"class_{name}",
            "identifier": f"{name}-{place}", "observation": "A cover sheet", "name": f"{name} {place + edited}.pdf",
            "startPage": place + 1, "endPage": place + 1, "fileId": f"file_{run.seed:08x}{place}",
        })  # fmt: skip
    return {"splits": splits}


def _edit_output(run: Run, dice: Dice, edited: bool) -> Payload:
    link = f"https://files.example.com/edited/{run.run_id}.pdf?X-Expires=900"
    edited_file = {"id": f"file_{run.seed:08x}", "presignedUrl": link}
    return {"editedFile": edited_file, "filledValues": {"full_name": dice.pick(("Ana Lima", "=1+1", ""))}}


def _verify_output(run: Run, dice: Dice, edited: bool) -> Payload:
    level = verify_risk(run) or "LOW"
    return {"riskLevel": level, "summary": f"Risk is {level.lower()}.", "signals": [_verify_signal(dice, level)]}


def _verify_signal(dice: Dice, level: str) -> Payload:
    evidence = {
        "type": "validation",
        "evidenceId": "ev_1",
        "data": {"findings": [{"code": "XREF_REBUILT", "values": [{"name": "revisions", "raw": "3"}]}]},
        "locations": [{"locationId": "loc_1", "page": {"number": 1}}],
    }
    return {
        "id": "sig_1",
        "type": dice.pick(_SIGNALS),
        "riskAssessment": {"type": "LEVEL", "level": level},
        "summary": "The file was saved three times.",
        "evidence": [evidence],
    }


def _form_output(run: Run, dice: Dice, edited: bool) -> Payload:
    return {"schema": _edit_schema()}


_OUTPUTS = {
    "classify_run": _classify_output,
    "extract_run": _extract_output,
    "split_run": _split_output,
    "edit_run": _edit_output,
    "verify_run": _verify_output,
    "form_detection_run": _form_output,
}


def edits_of(run: Run) -> Payload:
    """Return what a reviewer changed in an extract run, by field."""
    initial, final = output_of(run, edited=False), output_of(run, edited=True)
    if run.legacy_config:
        before, after = initial["total"]["value"], final["total"]["value"]
    else:
        before, after = initial["value"]["total"], final["value"]["total"]
    return {"total": {"originalValue": before, "editedValue": after, "notes": "misread 7", "page": 1}}


def verify_risk(run: Run) -> str | None:
    """Return the risk level that a processed verify run found, or None before it is processed."""
    return (
        Dice(run.seed ^ _RISK_SALT).pick(("LOW", "LOW", "LOW", "MEDIUM", "HIGH")) if run.status == "PROCESSED" else None
    )


def parse_output(run: Run) -> Payload:
    """Return the whole output of a parse run: for a huge one that is tens of megabytes."""
    return {"chunks": list(iter_parse_chunks(run))}


def iter_parse_chunks(run: Run) -> Iterator[Payload]:
    """Yield the chunks of a parse run's output, one a page, each made when it is asked for."""
    dice = Dice(run.seed ^ _CHUNK_SALT)
    text = (_WORDS * (run.chunk_chars // len(_WORDS) + 1))[: run.chunk_chars]
    for page in range(1, run.result_chunks + 1):
        block = {
            "object": "block",
            "id": f"blk_{run.seed:08x}{page:05d}",
            "type": "text",
            "content": text[:80],
            "details": {"type": "text_details"},
            "metadata": {"page": {"number": page, "width": 612, "height": 792}},
            "polygon": [{"x": 10, "y": 10}, {"x": 600.5, "y": 10}, {"x": 600.5, "y": 90}, {"x": 10, "y": 90}],
            "boundingBox": {"left": 10, "top": 10, "right": 600.5, "bottom": 90},
        }
        yield {
            "object": "chunk",
            "type": "page",
            "content": f"# Page {page}\n\n{text}",
            "metadata": {"pageRange": {"start": page, "end": page}, "minOcrConfidence": round(dice.share(), 3)},
            "blocks": [block],
        }
