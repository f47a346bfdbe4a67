"""Work out what a pipeline that reads this world should find, from the charges of the runs themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Literal

from .model import Run

Known = Literal["detail", "both"]
Resource = tuple[str, str]


@dataclass(frozen=True)
class Answers:
    """What the reports must say.

    `credits` is by the UTC day that the charge belongs to (null where no payload tells it) and the kind of the charged
    resource, each resource once; `unknown` counts by kind the runs whose credits nothing tells; `failures` counts
    FAILED runs by kind and reason; `statuses` counts all runs by kind and status. Kinds are named as `object` does.
    """

    credits: dict[tuple[date | None, str], Decimal]
    total: Decimal
    unknown: dict[str, int]
    failures: dict[tuple[str, str | None], int]
    statuses: dict[tuple[str, str], int]


@dataclass(slots=True)
class _Told:
    """What the payloads say of charged resources, by resource: how many credits, and which run's payload says so."""

    own: dict[Resource, tuple[Decimal, Run]] = field(default_factory=dict)
    by_cause: dict[Resource, tuple[Decimal, Run]] = field(default_factory=dict)
    by_workflow: dict[Resource, tuple[Decimal, Run]] = field(default_factory=dict)
    by_excess: dict[Resource, tuple[Decimal, Run]] = field(default_factory=dict)


def work_out(read: Iterable[Run], runs: Mapping[str, Run], known: Known) -> Answers:
    """Return the answers for a pipeline that read these runs: by ID alone (`detail`), or summaries as well (`both`).

    `runs` is everything there is, the deleted runs too: they are never read, but the breakdowns of others name them.
    A charge is taken from the resource's own payload, else from the run that caused it, else from the workflow run
    above both, else (where a run shows a total and no breakdown) as that run's excess, for its parse run. Its day is
    the creation of the resource, else of the run whose breakdown lists it (a workflow run last), else null.
    """
    read = list(read)
    by_id = {run.run_id: run for run in read}
    told = _listen(read, runs)
    ledger = {**told.by_excess, **told.by_workflow, **told.by_cause, **told.own}
    credits: dict[tuple[date | None, str], Decimal] = {}
    for resource, (amount, _) in ledger.items():
        tellers = [by_id.get(resource[1])]
        tellers += [says[resource][1] for says in (told.by_cause, told.by_workflow) if resource in says]
        if resource not in told.own and len(tellers) == 1:
            tellers.append(told.by_excess[resource][1])
        key = (_first_day(tellers, known), resource[0])
        credits[key] = credits.get(key, Decimal(0)) + amount
    silent = [run for run in read if not run.shows_usage and (run.kind.object, run.run_id) not in ledger]
    failed = [run for run in read if run.status == "FAILED"]
    return Answers(
        credits=credits,
        total=sum(credits.values(), Decimal(0)),
        unknown=dict(Counter(run.kind.object for run in silent)),
        failures=dict(Counter((run.kind.object, run.failure_reason) for run in failed)),
        statuses=dict(Counter((run.kind.object, run.status) for run in read)),
    )


def _listen(read: list[Run], runs: Mapping[str, Run]) -> _Told:
    told = _Told()
    for run in read:
        if not run.shows_usage:
            continue
        if run.kind.charged:
            told.own[run.kind.object, run.run_id] = (run.own_credits, run)
        others = [runs[other] for other in run.caused if runs[other].charges is not None]
        if run.shows_breakdown:
            says = told.by_cause if run.kind.charged else told.by_workflow
            says.update(((other.kind.object, other.run_id), (other.own_credits, run)) for other in others)
        elif run.shows_totals and run.parse_run_id is not None and others:
            excess = sum((other.own_credits for other in others), Decimal(0))
            told.by_excess["parse_run", run.parse_run_id] = (excess, run)
    return told


def _first_day(tellers: Iterable[Run | None], known: Known) -> date | None:
    return next((run.day for run in tellers if run is not None and _tells_creation(run, known)), None)


def _tells_creation(run: Run, known: Known) -> bool:
    where = run.kind.carries.get("createdAt")
    return where in ("both", "detail") or (where == "list" and known == "both")
