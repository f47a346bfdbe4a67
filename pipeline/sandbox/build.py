"""Make the runs of a world from its seed: families of runs that caused one another, until there are enough."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import ClassVar

from pipeline.kinds import BY_OBJECT

from .dice import Dice
from .material import (
    FILE_STEMS,
    HOSTILE_NAMES,
    SUFFIXES,
    UNDOCUMENTED_REASONS,
    UNDOCUMENTED_STATUSES,
    Workspace,
    build_workspace,
    draw_charges,
    draw_message,
    draw_version,
)
from .model import END, FIRST_DAY, LAST_DAY, Batch, Charge, File, Run
from .wishes import PROCESSORS, RANDOM_REASON, Wish, all_wishes, reasons_of, wish_for

_DAYS = [FIRST_DAY + timedelta(days=n) for n in range((LAST_DAY - FIRST_DAY).days + 1)]
_WEEKDAY = (1.0, 1.15, 1.1, 1.05, 0.9, 0.3, 0.2)
_HOURS = [(hour, 6.0 if 8 <= hour < 18 else 1.0) for hour in range(24)]
FAMILIES = (
    ("classify_run", 26.0), ("extract_run", 27.0), ("split_run", 6.0), ("parse_run", 15.0), ("workflow_run", 11.0),
    ("edit_run", 6.0), ("verify_run", 6.0), ("form_detection_run", 3.0),
)  # fmt: skip
_LARGEST_FAMILY = 8
_BATCH_PREFIXES = {
    "parse_run": "bpar_", "workflow_run": "batch_", "classify_run": "bpr_", "extract_run": "bpr_", "split_run": "bpr_",
}  # fmt: skip
_SOURCES = {
    "classify_run": ("API", "STUDIO", "PLAYGROUND", "ADMIN"),
    "extract_run": ("API", "API", "STUDIO", "WORKFLOW_CONFIGURATION"),
    "split_run": ("API", "STUDIO"),
    "parse_run": ("API", "STUDIO"),
    "workflow_run": ("API",),
    "edit_run": ("API", "STUDIO", "ADMIN"),
    "verify_run": ("API", "STUDIO"),
    "form_detection_run": ("API",),
}


class Builder:
    """Make families of runs in one stream of chance; `runs` holds them all by ID, the deleted ones too.

    `like` is another builder whose workspaces, processors and batches are this one's too.
    """

    end: ClassVar[datetime] = END
    """No run is made later."""

    def __init__(self, seed: int, *, like: Builder | None = None) -> None:
        self.dice = Dice(seed)
        self.runs: dict[str, Run] = {}
        self.batches: dict[str, Batch] = like.batches if like else {}
        self.workspaces: tuple[Workspace, ...] = (
            like.workspaces if like else tuple(build_workspace(self.dice) for _ in range(2))
        )
        self._open: dict[tuple[str, str], list[Batch]] = like._open if like else {}
        self._parsed: dict[str, list[Run]] = {space.workspace_id: [] for space in self.workspaces}
        self._living = 0
        grown = [1 + 2.5 * n / len(_DAYS) for n in range(len(_DAYS))]
        self._days = [(day, grown[n] * _WEEKDAY[day.weekday()]) for n, day in enumerate(_DAYS)]
        self._weight = sum(weight for _, weight in self._days)
        for space in () if like else self.workspaces:
            self._add_batches(space)

    def fill(self, runs: int) -> None:
        """Add families until exactly this many runs exist (deleted ones are not counted): odd cases come first."""
        for wish in all_wishes(runs):
            if self._living + _LARGEST_FAMILY <= runs:
                self._add_family(wish)
        while self._living + _LARGEST_FAMILY <= runs:
            self._add_family(Wish(self.dice.weighted(FAMILIES)))
        while self._living < runs:
            self._add_family(wish_for("parse_run", "plain"))

    # One family each

    def _add_family(self, wish: Wish) -> None:
        wished = bool(wish.tags or wish.status)
        space = self.workspaces[0 if wished or self.dice.chance(0.85) else 1]
        at = self._draw_time(wish)
        family = self._family(wish, space, at)
        for run in family:
            gone = ("deleted" in wish.tags and run is family[0]) or (not wished and self.dice.chance(0.012))
            run.deleted = run.deleted or gone
            self._keep(run)

    def _family(self, wish: Wish, space: Workspace, at: datetime) -> list[Run]:
        if wish.kind in PROCESSORS:
            family = self._processor_family(wish, space, at)
        else:
            family = self._FAMILY_OF[wish.kind](self, wish, space, at)
        self._set_legacy(family, space, wish)
        return family

    def _keep(self, run: Run) -> None:
        self.runs[run.run_id] = run
        self._living += not run.deleted
        if run.kind.object == "parse_run" and run.status == "PROCESSED" and not run.deleted and not run.tags:
            self._parsed[run.workspace].append(run)

    def _set_legacy(self, family: list[Run], space: Workspace, wish: Wish) -> None:
        second = space is self.workspaces[1] and family[0].day < date(2026, 2, 1)
        chance = 0.0 if wish.tags else 0.02
        if second or "legacy billing" in wish.tags or self.dice.chance(chance):
            for run in family:
                run.legacy_billing = True

    def _parse_family(self, wish: Wish, space: Workspace, at: datetime) -> list[Run]:
        run = self._run("parse_run", wish, space, at, self._draw_file(at))
        if "huge" in wish.tags:
            pages = self.dice.between(900, 1400)
            run.files = (replace(run.files[0], name="huge archive.pdf", type="PDF", pages=pages),)
            run.result_chunks, run.chunk_chars = pages, 22_000
            self._charge(run, pages)
        if run.failure_reason == "UNABLE_TO_DOWNLOAD_FILE" and self.dice.chance(0.5):
            run.files = ()
        return [run]

    def _processor_family(
        self, wish: Wish, space: Workspace, at: datetime, *, file: File | None = None, workflow: str | None = None
    ) -> list[Run]:
        mode = self._parse_mode(wish)
        pool = self._parsed[space.workspace_id]
        shared = self.dice.pick(pool) if mode == "reused" and pool and file is None else None
        if shared is not None:
            at = min(max(at, shared.created_at) if wish.day else self._after(shared.created_at, 5 * 86_400), self.end)
        file = file or (shared.files[0] if shared else self._draw_file(at))
        run = self._run(wish.kind, wish, space, at, file)
        run.workflow_run_id = workflow
        self._dress(run, wish)
        if shared is not None:
            run.parse_run_id = shared.run_id
            return [run]
        if mode == "none":
            return [run]
        return [run, self._caused_parse(run, wish, space, file)]

    def _parse_mode(self, wish: Wish) -> str:
        if wish.tags & {"reused", "plain"}:
            return "reused" if "reused" in wish.tags else "none"
        if wish.tags:
            return "caused"
        return self.dice.weighted((("caused", 60.0), ("reused", 26.0), ("none", 14.0)))

    def _caused_parse(self, cause: Run, wish: Wish, space: Workspace, file: File) -> Run:
        broken = cause.failure_reason in ("FAILED_TO_PROCESS_FILE", "PARSING_ERROR", "PARSE_FAILED")
        status = "FAILED" if broken else "PROCESSED" if cause.status == "PROCESSED" or self.dice.chance(0.8) else None
        parse = self._run("parse_run", Wish("parse_run", status=status), space, self._after(cause.created_at, 4), file)
        parse.source, parse.source_id = "DOCUMENT_PROCESSOR_RUN", cause.run_id
        parse.workflow_run_id = cause.workflow_run_id
        parse.tags = tuple(sorted(wish.tags))
        parse.deleted = "parse deleted" in wish.tags or "no breakdown, parse deleted" in wish.tags
        parse.usage_hidden = "parse hides usage" in wish.tags
        cause.caused = (parse.run_id,)
        if "parseRunId" in cause.kind.carries:
            cause.parse_run_id = parse.run_id
        return parse

    def _dress(self, run: Run, wish: Wish) -> None:
        """Give a processor run what only some have: a review, no version of its own, several files, gaps in usage."""
        dice = self.dice
        done = run.status == "PROCESSED"
        run.reviewed = done and ("reviewed" in wish.tags or "edited" in wish.tags or dice.chance(0.07))
        run.edited = run.reviewed and ("edited" in wish.tags or ("reviewed" not in wish.tags and dice.chance(0.5)))
        if run.reviewed:
            run.updated_at = self._after(run.updated_at, 9 * 86_400)
        run.legacy_config = wish.kind == "extract_run" and ("legacy config" in wish.tags or dice.chance(0.02))
        if "inline config" in wish.tags or (not run.legacy_config and dice.chance(0.08)):
            run.version = None
        run.breakdown_hidden = bool(wish.tags & {"no breakdown", "no breakdown, parse deleted"})
        if done and ("zero credits" in wish.tags or dice.chance(0.004)):
            product = run.charges[0].product if run.charges else "none"
            run.charges = (Charge(product, "page", Decimal(1), Decimal(0)),)
        if "no file" in wish.tags or (run.status == "FAILED" and dice.chance(0.1)):
            run.files = ()
        if wish.kind == "extract_run" and ("several files" in wish.tags or dice.chance(0.02)):
            run.multifile = True
            run.files = tuple(self._draw_file(run.created_at) for _ in range(dice.between(2, 4)))

    def _edit_family(self, wish: Wish, space: Workspace, at: datetime) -> list[Run]:
        run = self._run("edit_run", wish, space, at, self._draw_file(at, only="PDF"))
        wished = wish.tags & {"form detection", "form detection deleted"}
        if run.failure_reason == "UNABLE_TO_DOWNLOAD_FILE" and self.dice.chance(0.5):
            run.files = ()
            return [run]
        if not wished and (wish.tags or self.dice.chance(0.6)):
            return [run]
        form = self._caused_form(run, space)
        form.deleted = "form detection deleted" in wish.tags
        run.caused = (form.run_id,)
        return [run, form]

    def _caused_form(self, cause: Run, space: Workspace) -> Run:
        at = self._after(cause.created_at, 3)
        form = self._run("form_detection_run", Wish("form_detection_run", "PROCESSED"), space, at, cause.files[0])
        form.tags = ("caused",)
        return form

    def _form_family(self, wish: Wish, space: Workspace, at: datetime) -> list[Run]:
        return [self._run("form_detection_run", wish, space, at, self._draw_file(at, only="PDF"))]

    def _verify_family(self, wish: Wish, space: Workspace, at: datetime) -> list[Run]:
        file = self._draw_file(at)
        run = self._run("verify_run", wish, space, at, file)
        run.zero_retention = run.status == "PROCESSED" and ("zero retention" in wish.tags or self.dice.chance(0.3))
        parse = None
        if "caused" in wish.tags or (not wish.tags and self.dice.chance(0.25)) or run.failure_reason == "PARSE_FAILED":
            parse = self._caused_parse(run, wish, space, file)
        if "no file" in wish.tags or self.dice.chance(0.03):
            run.files = ()
        return [run, parse] if parse else [run]

    def _workflow_family(self, wish: Wish, space: Workspace, at: datetime) -> list[Run]:
        tags, dice = wish.tags, self.dice
        count = 0 if "no files" in tags else 3 if "several files" in tags else dice.weighted(((1, 8.0), (2, 1.0)))
        run = self._run("workflow_run", wish, space, at, None)
        run.files = tuple(self._draw_file(at) for _ in range(count))
        run.reviewed = (
            run.status == "REJECTED" or (run.status == "PROCESSED" and dice.chance(0.15)) or "reviewed" in tags
        )
        if run.reviewed:
            run.updated_at = self._after(run.updated_at, 6 * 86_400)
        if not run.files or run.status == "PENDING" or "plain" in tags:
            return [run]
        children = self._children(run, wish, space)
        run.steps = tuple(child.run_id for child in children if child.kind.object != "form_detection_run")
        listed = sorted((child for child in children if child.charges is not None), key=lambda c: c.created_at)
        run.caused = tuple(child.run_id for child in listed)
        return [run, *children]

    def _children(self, run: Run, wish: Wish, space: Workspace) -> list[Run]:
        tags, dice, file = wish.tags, self.dice, run.files[0]
        at = self._after(run.created_at, 20)
        children: list[Run] = []
        parse_first = bool(tags & {"parse step", "parse step, parse deleted"}) or (not tags and dice.chance(0.35))
        if parse_first:
            children.append(self._run("parse_run", Wish("parse_run", "PROCESSED"), space, at, file))
            children[0].tags = tuple(sorted(tags))
            children[0].deleted = "parse step, parse deleted" in tags
        kinds = dice.pick((("classify_run", "extract_run"), ("split_run", "extract_run", "extract_run"),
                           ("extract_run",), ("classify_run", "extract_run", "extract_run")))  # fmt: skip
        for number, kind in enumerate(kinds):
            at = self._after(at, 60)
            last = number == len(kinds) - 1
            fails = last and run.status == "FAILED" and ("child failed" in tags or dice.chance(0.7))
            parse_now = not parse_first and number == 0
            child_wish = Wish(
                kind, "FAILED" if fails else "PROCESSED", tags=frozenset({"caused" if parse_now else "plain"})
            )
            made = self._processor_family(child_wish, space, at, file=file, workflow=run.run_id)
            if not parse_now:
                made[0].parse_run_id = next(child.run_id for child in children if child.kind.object == "parse_run")
            children += made
        for child in children:
            child.source, child.source_id = "WORKFLOW_RUN", run.run_id
            child.workflow_run_id = run.run_id
        children[0].deleted = children[0].deleted or "child deleted" in tags
        children[0].usage_hidden = "child hides usage" in tags
        if "form detection" in tags:
            children.append(self._caused_form(run, space))
        return children

    _FAMILY_OF: ClassVar[dict[str, Callable[[Builder, Wish, Workspace, datetime], list[Run]]]] = {
        "parse_run": _parse_family,
        "edit_run": _edit_family,
        "verify_run": _verify_family,
        "form_detection_run": _form_family,
        "workflow_run": _workflow_family,
    }

    # Single runs

    def _run(self, kind: str, wish: Wish, space: Workspace, at: datetime, file: File | None) -> Run:
        dice = self.dice
        precision = dice.weighted(((3, 6.0), (0, 3.0), (6, 1.0)))
        spec = BY_OBJECT[kind]
        run = Run(
            run_id=dice.identifier(spec.prefix), kind=spec, workspace=space.workspace_id, status=wish.status or "",
            created_at=at, updated_at=at, seed=dice.bits(), precision=precision, files=(file,) if file else (),
            source=dice.pick(_SOURCES[kind]), tags=tuple(sorted(wish.tags - {"plain", "caused", "reused"})),
        )  # fmt: skip
        if spec.processor is not None:
            run.version = draw_version(dice, space, spec.processor, at)
        run.status = wish.status or self._draw_status(run)
        self._join_batch(run, wish)
        run.created_at = at = _cut(run.created_at, precision)
        if run.status != "PENDING":
            run.updated_at = _cut(self._after(at, 600), precision)
        if run.status == "FAILED":
            self._fail(run, wish)
        elif run.status == "PROCESSED" and spec.charged:
            self._charge(run, file.pages if file else 1)
        if kind == "parse_run":
            run.result_chunks = min(file.pages if file else 1, 30)
        return run

    def _charge(self, run: Run, pages: int) -> None:
        run.charges = draw_charges(self.dice, run, pages)

    def _fail(self, run: Run, wish: Wish) -> None:
        reason = wish.reason
        if reason is RANDOM_REASON:
            rare = self.dice.chance(0.06)
            reason = self.dice.pick((*UNDOCUMENTED_REASONS, None) if rare else reasons_of(run.kind.object))
        run.failure_reason = reason if isinstance(reason, str) else None
        run.failure_message = draw_message(self.dice, run.failure_reason, run.files[0].name if run.files else "")

    def _draw_status(self, run: Run) -> str:
        dice, version = self.dice, run.version
        worse = version is not None and version.fails_more_from is not None and run.day >= version.fails_more_from
        if dice.chance(0.34 if worse else 0.08):
            return "FAILED"
        if (LAST_DAY - run.day).days <= 1 and dice.chance(0.12):
            return dice.pick([name for name in run.kind.statuses if name in ("PENDING", "PROCESSING")])
        if dice.chance(0.05) and run.kind.object == "workflow_run":
            return dice.pick(("NEEDS_REVIEW", "REJECTED", "CANCELLED"))
        if dice.chance(0.01):
            return dice.pick((*run.kind.statuses, *UNDOCUMENTED_STATUSES[run.kind.object]))
        return "PROCESSED"

    def _draw_time(self, wish: Wish) -> datetime:
        day = wish.day or self._draw_day()
        clock = time(self.dice.weighted(_HOURS), self.dice.between(0, 59), self.dice.between(0, 59))
        return datetime.combine(day, clock, UTC) + timedelta(microseconds=self.dice.between(0, 999_999))

    def _draw_day(self) -> date:
        rest = self.dice.share() * self._weight
        for day, weight in self._days:
            rest -= weight
            if rest < 0:
                return day
        return LAST_DAY

    def _after(self, at: datetime, most_s: int) -> datetime:
        """Return a time up to so many seconds later, never after the end of the world."""
        return min(at + timedelta(seconds=self.dice.share() * most_s), self.end)

    def _draw_file(self, at: datetime, *, only: str | None = None) -> File:
        dice = self.dice
        suffix, kind = dice.weighted([((suffix, kind), weight) for suffix, kind, weight in SUFFIXES])
        if only is not None:
            suffix, kind = "pdf", only
        hostile = dice.chance(0.02)
        template = dice.pick(HOSTILE_NAMES) if hostile else f"{dice.pick(FILE_STEMS)}.{suffix}"
        pages = dice.weighted(((1, 6.0), (2, 4.0), (dice.between(3, 12), 6.0), (dice.between(13, 120), 1.0)))
        return File(
            file_id=dice.identifier("file_"),
            name=template.format(n=dice.between(1000, 99_999), m=dice.between(1, 12)),
            type=kind,
            pages=1 if kind == "IMG" and suffix == "png" else pages,
            created_at=_cut(at - timedelta(seconds=dice.share() * 90_000), dice.pick((0, 3))),
            parent_file_id=dice.identifier("file_") if dice.chance(0.03) else None,
        )

    # Batches

    def _add_batches(self, space: Workspace) -> None:
        for kind, prefix in _BATCH_PREFIXES.items():
            made = [
                Batch(self.dice.identifier(prefix), space.workspace_id, status, self._draw_time(Wish(kind)))
                for status in ("PROCESSED", "PROCESSED", "PROCESSED", "FAILED")
            ]
            self._open[space.workspace_id, kind] = made
            self.batches.update((batch.batch_id, batch) for batch in made)

    def _join_batch(self, run: Run, wish: Wish) -> None:
        if wish.tags or wish.day or run.kind.object not in _BATCH_PREFIXES or not self.dice.chance(0.05):
            return
        batch = self.dice.pick(self._open[run.workspace, run.kind.object])
        if batch.created_at > run.created_at:
            return
        run.batch_id = batch.batch_id
        run.source = "BATCH_PARSER_RUN" if run.kind.object == "parse_run" else "BATCH_PROCESSOR_RUN"


def _cut(at: datetime, precision: int) -> datetime:
    step: int = 10 ** (6 - precision)
    return at.replace(microsecond=at.microsecond // step * step)


def build(seed: int, runs: int) -> tuple[Builder, list[Run]]:
    """Return the builder of this world and its runs in order of creation, the deleted ones among them."""
    builder = Builder(seed)
    builder.fill(runs)
    everything: Iterable[Run] = builder.runs.values()
    return builder, sorted(everything, key=lambda run: (run.created_at, run.run_id))
