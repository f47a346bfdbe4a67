"""Hold a value against the vendor's types as strictly as they are written.

The vendor's client builds its objects without checking anything, so this walks the annotations itself: no field that is
required may be missing, no field may be unknown, and each value must be what its annotation says.
"""

from __future__ import annotations

import enum
import types
import typing
from datetime import datetime

import pydantic

from pipeline.kinds import KINDS

Problem = tuple[str, str]
"""Where (`ClassifyRun.status`) and what is wrong there."""

MODELS = {kind.object: "".join(part.capitalize() for part in kind.object.split("_")) for kind in KINDS}

DELIBERATE = {
    # Undocumented statuses: the API calls its statuses an open set.
    "ClassifyRun.status", "ExtractRun.status", "SplitRun.status", "ParseRun.status", "WorkflowRun.status",
    "EditRun.status", "VerifyRun.status", "FormDetectionRun.status",
    "ClassifyRunSummary.status", "ExtractRunSummary.status", "SplitRunSummary.status", "ParseRunSummary.status",
    "WorkflowRunSummary.status", "EditRunSummary.status", "VerifyRunSummary.status",
    # A verify run has a line of its own, but the client's list of chargeable objects does not name it.
    "RunUsageBreakdownEntry.object",
    # Its types say that these always have a file. The client's own text says that a verify run's is null once the
    # file was deleted; the other two have none where it could not be downloaded.
    "VerifyRun.file", "VerifyRunSummary.file", "ParseRun.file", "ParseRunSummary.file", "EditRun.file",
    "EditRunSummary.file", "FileSummary",
}  # fmt: skip
"""Where the sandbox deliberately goes beyond what the client's types know. There is nothing else."""

MISREAD_BY_CLIENT = {
    "ExtractRun.output", "ExtractRun.initial_output", "ExtractRun.reviewed_output", "ExtractConfigJson",
}  # fmt: skip
"""Of a run with a legacy config, the client takes config and output for the newer shape, though its types hold both."""


def unexpected(found: list[Problem]) -> list[Problem]:
    """Leave out what the sandbox does on purpose."""
    return [problem for problem in found if problem[0] not in DELIBERATE]


def problems(value: object, annotation: object, where: str = "") -> list[Problem]:
    """Return what is wrong with a value, either JSON or what the client made of it, held against its annotation."""
    origin = typing.get_origin(annotation)
    if annotation is typing.Any or annotation is object:
        return []
    if origin is typing.Annotated:
        return problems(value, typing.get_args(annotation)[0], where)
    if origin in (typing.Union, types.UnionType):
        return _of_union(value, typing.get_args(annotation), where)
    if origin is typing.Literal:
        return [] if value in typing.get_args(annotation) else [(where, f"{value!r} is not {annotation}")]
    if origin is list:
        return _of_list(value, typing.get_args(annotation)[0], where)
    if origin is dict:
        return _of_dict(value, typing.get_args(annotation)[1], where)
    assert isinstance(annotation, type), annotation
    if issubclass(annotation, pydantic.BaseModel):
        return _of_model(value, annotation)
    if issubclass(annotation, enum.Enum):
        return _of_enum(value, annotation, where)
    return _of_plain(value, annotation, where)


def _of_union(value: object, arms: tuple[object, ...], where: str) -> list[Problem]:
    found = [problems(value, arm, where) for arm in arms if arm is not type(None) or value is None]
    if value is None and type(None) in arms:
        return []
    return min(found, key=len)


def _of_list(value: object, inner: object, where: str) -> list[Problem]:
    if not isinstance(value, list):
        return [(where, f"{value!r} is no list")]
    return [problem for item in value for problem in problems(item, inner, where)]


def _of_dict(value: object, inner: object, where: str) -> list[Problem]:
    if not isinstance(value, dict):
        return [(where, f"{value!r} is no dict")]
    return [problem for item in value.values() for problem in problems(item, inner, where)]


def _of_model(value: object, model: type[pydantic.BaseModel]) -> list[Problem]:
    name = model.__name__
    hints = _hints(model)
    if isinstance(value, model):
        extra = [(name, f"unknown field {field}") for field in value.model_extra or {}]
        return extra + [
            problem
            for field in model.model_fields
            for problem in problems(getattr(value, field), hints[field], f"{name}.{field}")
        ]
    if not isinstance(value, dict):
        return [(name, f"{str(value)[:60]!r} is no object")]
    by_alias = {info.alias or field: (field, info) for field, info in model.model_fields.items()}
    found = [(name, f"unknown field {field}") for field in value.keys() - by_alias.keys()]
    for alias, (field, info) in by_alias.items():
        if alias in value:
            found += problems(value[alias], hints[field], f"{name}.{field}")
        elif info.is_required() or info.default is not None:  # a constant such as `object` is always sent
            found.append((f"{name}.{field}", "is missing"))
    return found


_HINTS: dict[type, dict[str, object]] = {}


def _hints(model: type[pydantic.BaseModel]) -> dict[str, object]:
    """Return the annotations with names such as `List["Block"]` looked up where the model was written."""
    if model not in _HINTS:
        _HINTS[model] = typing.get_type_hints(model, include_extras=True)
    return _HINTS[model]


def _of_enum(value: object, kind: type[enum.Enum], where: str) -> list[Problem]:
    known = {member.value for name, member in kind.__members__.items() if name != "_UNKNOWN"}
    if isinstance(value, kind) and value.name == "_UNKNOWN":
        return [(where, "is outside what the client knows")]
    return [] if (value.value if isinstance(value, kind) else value) in known else [(where, f"{value!r} is not known")]


def _of_plain(value: object, kind: type, where: str) -> list[Problem]:
    if kind is datetime:
        if isinstance(value, str):
            return [] if datetime.fromisoformat(value).utcoffset() is not None else [(where, "has no zone")]
        return [] if isinstance(value, datetime) else [(where, f"{value!r} is no time")]
    allowed: tuple[type, ...] = (int, float) if kind is float else (kind,)
    fits = isinstance(value, allowed) and (kind is bool or not isinstance(value, bool))
    return [] if fits else [(where, f"{value!r} is no {kind.__name__}")]
