"""What a sync will ask for, and what became of it, as a person reads it and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from pipeline.progress import duration
from pipeline.render import shown, write_table
from pipeline.sync import KindOutcome, WorkspaceOutcome
from pipeline.sync_plan import total


def write_plan(outcomes: Sequence[WorkspaceOutcome], qps: float, stream: TextIO) -> None:
    """Write what a sync will ask for of each kind, and how many requests and how long that is, at least and at most."""
    several = len(outcomes) > 1
    rows = [
        (
            *((outcome.workspace_id,) if several else ()),
            kind.object,
            each.plan.walk,
            _range(*_pages(each)),
            _by_id(each),
        )
        for outcome in outcomes
        for kind, each in outcome.kinds.items()
    ]
    write_table([*(("workspace",) if several else ()), "plan", "walk its list", "pages", "by ID"], rows, stream=stream)
    least, most = _requests(outcomes)
    stream.write(f"at least {shown(least)} request{'s' * (least != 1)}, {duration(least / qps)} at {qps:g} a second; ")
    if most is None:
        stream.write("at most nobody knows: no endpoint tells how many runs there are\n")
    else:
        stream.write(f"at most {shown(most)}, {duration(most / qps)}\n")


def write_outcomes(outcomes: Sequence[WorkspaceOutcome], lake: str, stream: TextIO) -> None:
    """Write what became of each kind, beside what was planned, and the sums."""
    several = len(outcomes) > 1
    rows = [
        (*_named(outcome, several), kind.object, *_outcome_cells(each))
        for outcome in outcomes
        if outcome.has_asked
        for kind, each in outcome.kinds.items()
    ]
    names = ["done", "pages", "planned", "listed", "new or changed", "by ID", "planned", "deleted"]
    if rows:
        write_table([*(("workspace",) if several else ()), *names], rows, stream=stream)
    for outcome in outcomes:
        if outcome.has_asked:
            stream.write(f"{_sums(outcome, several=several)}\n")
    if any(outcome.load is not None and outcome.load.failed for outcome in outcomes):
        stream.write(f"why: pipeline sql 'FROM dead_letters' --lake {lake}    the next sync asks again\n")


def problems(outcomes: Sequence[WorkspaceOutcome]) -> Iterator[str]:
    """Yield what went wrong, a sentence each; what several lists of a workspace failed for, once."""
    for outcome in outcomes:
        where = f"{outcome.workspace_id}: " if outcome.workspace_id and len(outcomes) > 1 else ""
        if outcome.error is not None:
            yield where + outcome.error
        errors = [each.error for each in outcome.kinds.values() if each.error is not None]
        for reason in dict.fromkeys(error.reason for error in errors):
            first, *others = (error for error in errors if error.reason == reason)
            beside = f" (and {len(others)} more lists)" if others else ""
            yield f"{where}{first}{beside}"


def plan_as_json(outcomes: Sequence[WorkspaceOutcome], qps: float) -> dict[str, Any]:
    """Return what `--dry-run --json` prints. `most_…` is null where nobody knows; `seconds` are at the given rate."""
    least, most = _requests(outcomes)
    return {
        "least_requests": least,
        "most_requests": most,
        "least_seconds": least / qps,
        "most_seconds": None if most is None else most / qps,
        "workspaces": [
            {"workspace_id": outcome.workspace_id, "kinds": [_plan_json(each) for each in outcome.kinds.values()]}
            for outcome in outcomes
        ],
    }


def as_json(outcomes: Sequence[WorkspaceOutcome], lake: str) -> dict[str, Any]:
    """Return what `--json` prints: for each workspace its load's summary, and what became of each kind."""
    return {
        "lake": lake,
        "workspaces": [
            {
                "workspace_id": outcome.workspace_id,
                "error": outcome.error,
                "inferred": outcome.inferred,
                "load": None if outcome.load is None else outcome.load.as_json(),
                "kinds": [
                    {
                        **_plan_json(each),
                        **{name: getattr(each, name) for name in _COUNTS},
                        "error": None if each.error is None else str(each.error),
                    }
                    for each in outcome.kinds.values()
                ],
            }
            for outcome in outcomes
        ],
    }


_COUNTS = ("pages", "listed", "changed", "by_id", "gone")


def _plan_json(outcome: KindOutcome) -> dict[str, Any]:
    plan = outcome.plan
    names = ("least_pages", "most_pages", "least_by_id", "most_by_id")
    values = (plan.least_pages, plan.most_pages, plan.by_id, plan.most_by_id)
    return {"kind": plan.kind.object, "walk": plan.walk, **dict(zip(names, values, strict=True))}


def _requests(outcomes: Sequence[WorkspaceOutcome]) -> tuple[int, int | None]:
    plans = [each.plan for outcome in outcomes for each in outcome.kinds.values()]
    return sum(plan.least_requests for plan in plans), total(plan.most_requests for plan in plans)


def _named(outcome: WorkspaceOutcome, several: bool) -> tuple[str | None, ...]:
    return (outcome.workspace_id,) if several else ()


def _pages(outcome: KindOutcome) -> tuple[int, int | None]:
    return outcome.plan.least_pages, outcome.plan.most_pages


def _by_id(outcome: KindOutcome) -> str:
    return _range(outcome.plan.by_id, outcome.plan.most_by_id)


def _range(least: int, most: int | None) -> str:
    if least == most:
        return shown(least)
    return f"{shown(least)} or more" if most is None else f"{shown(least)} to {shown(most)}"


def _outcome_cells(outcome: KindOutcome) -> tuple[Any, ...]:
    if outcome.is_removed or outcome.error is not None:
        pages: Any = "no list" if outcome.is_removed else f"{shown(outcome.pages)}, then failed"
    else:
        pages = outcome.pages
    counts = (outcome.listed, outcome.changed, outcome.by_id)
    return (pages, _range(*_pages(outcome)), *counts, _by_id(outcome), outcome.gone)


def _sums(outcome: WorkspaceOutcome, *, several: bool) -> str:
    load = outcome.load
    if load is None:
        return ""
    where = f"{outcome.workspace_id}: " if several else ""
    parts = [f"{shown(load.landed)} landed", f"{shown(load.unchanged)} unchanged", f"{shown(load.failed)} failed"]
    if load.invalid:
        parts.append(f"{shown(load.invalid)} invalid")
    retries = f"{shown(load.retries)} {'retry' if load.retries == 1 else 'retries'}"
    requests = f"{shown(load.requests)} request{'s' * (load.requests != 1)}"
    text = f"{where}{', '.join(parts)} in {duration(load.seconds)} ({requests}, {retries}, {load.rate_limited:,} 429s)"
    if outcome.inferred:
        text += f"\n{where}{shown(outcome.inferred)} charges are inferred: a run told its total, and not for what"
    return text
