"""The notebooks run, say what the made-up organization's own books say, and are saved as they run.

Each is run once, whatever the number of processes that the tests are spread over.
"""

from __future__ import annotations

import json
import math
import os
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import filelock
import nbformat
import pytest

from pipeline.kinds import FINISHED
from pipeline.sandbox.model import LAST_DAY, Run
from pipeline.sandbox.world import Answers, World
from tests import notebooks

pytestmark = pytest.mark.long

_PROBES = {
    "getting_started": """{
        "counts": {name: getattr(result, name) for name in counts},
        "statuses": [[*place, int(runs)] for place, runs in by_sql.items()],
        "statuses_by_pandas": [[*place, int(runs)] for place, runs in by_pandas.items()],
        "drawn": sum(bar.get_width() for bar in ax.patches),
        "rows": len(frame),
        "credits": lake.sql("SELECT sum(credits) FROM credit_ledger").fetchall()[0][0],
    }""",
    "credit_usage": """{
        "total": by_sql.sum(),
        "total_by_pandas": by_pandas.sum(),
        "is_exact": str(ledger["credits"].dtype).startswith("decimal"),
        "kinds": {kind: row.credits for kind, row in by_kind.iterrows()},
        "unknown": {kind: int(row.unknown_runs) for kind, row in by_kind.iterrows()},
        "undated": {kind: credits for kind, credits in undated.items()},
        "months_drawn": [[f"{month:%Y-%m}", sum(bar.get_height() for bar in upper.patches if round(bar.get_center()[0])
                          == place)] for place, month in enumerate(credits.index)],
        "unknown_drawn": sum(bar.get_height() for bar in lower.patches),
        "question_marks": [f"{credits.index[round(text.xy[0])]:%Y-%m}" for text in upper.texts],
        "so_far": forecast.so_far,
        "so_far_drawn": so_far.iloc[-1],
        "costliest": [[row.run_id, row.credits] for row in costliest.itertuples()],
    }""",
    "failure_analysis": """{
        "rates": {row.kind: [row.failed, row.ended, row.rate_low, row.rate_high] for row in by_kind.itertuples()},
        "rates_by_pandas": {kind: [int(row.failed), int(row.ended), row.rate_low, row.rate_high]
                            for kind, row in by_pandas.iterrows()},
        "trend": {f"{row.month:%Y-%m}": [row.failed, row.ended] for row in dated.itertuples()},
        "reasons": {"" if pd.isna(row.reason) else row.reason: row.failed
                    for row in lake.failures("reason").df().itertuples() if not row.is_total},
        "window": [window.since, window.until],
        "first": list(changes.iloc[1][["dimension", "value"]]),
        "suspect": [int(each) for each in changes[changes["value"] == suspect].iloc[0][
            ["failed_before", "ended_before", "failed_after", "ended_after"]]],
        "suspect_name": suspect,
        "is_any_significant": bool(changes["is_significant"].any()),
        "suspect_months": {f"{row.month:%Y-%m}": [row.failed, row.ended] for row in months.itertuples()},
        "p50": latency.set_index("kind")["p50"]["classify_run"],
    }""",
}


@dataclass(frozen=True)
class Ran:
    """A notebook as it ran: with its outputs, and what its probe gave."""

    notebook: Any
    found: dict[str, Any]


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ran]:
    """Give a notebook as it ran; by the first process that asks, and the others wait for it."""
    root = tmp_path_factory.getbasetemp()
    root = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "notebooks-ran"
    root.mkdir(exist_ok=True)

    def run(name: str) -> Ran:
        path, found = root / f"{name}.ipynb", root / f"{name}.json"
        with filelock.FileLock(root / "lock"):
            if not found.exists():
                notebook, answer = notebooks.executed(name, root, probe=_PROBES[name])
                path.write_text(nbformat.writes(notebook))
                found.write_text(json.dumps(answer))
        return Ran(nbformat.read(path, as_version=4), json.loads(found.read_text()))

    return run


@pytest.fixture(scope="session")
def demo_world() -> World:
    """The organization that `pipeline demo` makes up."""
    return World(seed=7, runs=3000)


@pytest.fixture(scope="session")
def demo_runs(demo_world: World) -> list[Run]:
    """Its runs, of the workspace that the demo reads."""
    return list(demo_world.iter_runs(demo_world.workspaces[0]))


@pytest.fixture(scope="session")
def demo_answers(demo_world: World) -> Answers:
    """What its own books say."""
    return demo_world.answers(demo_world.workspaces[0])


# As they run


@pytest.mark.parametrize("name", notebooks.NAMES)
def test_the_saved_outputs_are_those_of_running_it(name: str, ran: Callable[[str], Ran]) -> None:
    saved, made = notebooks.read(name), ran(name).notebook
    assert notebooks.texts(saved) == notebooks.texts(made), "run: python -m tests.notebooks"
    plots, plots_made = notebooks.images(saved), notebooks.images(made)
    assert plots.keys() == plots_made.keys()
    changed = [cell for cell in plots if not notebooks.look_alike(plots[cell], plots_made[cell])]
    assert changed == [], "run: python -m tests.notebooks"


def test_getting_started_gives_each_id_its_outcome_and_lands_what_the_service_has(ran: Callable[[str], Ran]) -> None:
    world = World(seed=7, runs=600)
    run_ids = world.run_ids(world.workspaces[0])
    verify = [run_id for run_id in run_ids if run_id.startswith("vr_")]
    read = [run_id for run_id in run_ids if not run_id.startswith("vr_")]
    answers = world.answers(world.workspaces[0], run_ids=read)
    found = ran("getting_started").found
    assert found["counts"] == {
        "requested": len(run_ids) + 2, "landed": len(read), "unchanged": 0, "skipped": 0, "missing": 2, "failed": 0,
        "invalid": len(verify),
    }  # fmt: skip
    statuses = sorted([kind, status, runs] for (kind, status), runs in answers.statuses.items())
    assert found["statuses"] == found["statuses_by_pandas"] == statuses
    assert found["drawn"] == found["rows"] == len(read)
    assert Decimal(found["credits"]) == answers.total


def test_credit_usage_says_what_the_books_say(ran: Callable[[str], Ran], demo_answers: Answers) -> None:
    found = ran("credit_usage").found
    assert Decimal(found["total"]) == Decimal(found["total_by_pandas"]) == demo_answers.total
    assert found["is_exact"]
    kinds, undated = defaultdict(Decimal), defaultdict(Decimal)
    for (day, kind), credits in demo_answers.credits.items():
        kinds[kind] += credits
        undated[kind] += credits if day is None else 0
    known = {kind: credits for kind, credits in found["kinds"].items() if not math.isnan(credits)}
    assert known == pytest.approx({kind: float(credits) for kind, credits in kinds.items()})
    assert found["unknown"] == {kind: demo_answers.unknown.get(kind, 0) for kind in found["kinds"]}
    assert found["undated"] == pytest.approx({kind: float(undated[kind]) for kind in found["undated"]})


def test_credit_usage_draws_the_credits_of_each_month_and_a_question_mark_where_none_is_known(
    ran: Callable[[str], Ran], demo_answers: Answers, demo_runs: list[Run]
) -> None:
    found = ran("credit_usage").found
    months: dict[str, float] = defaultdict(float)
    for (day, _kind), credits in demo_answers.credits.items():
        if day is not None:
            months[f"{day:%Y-%m}"] += float(credits)
    drawn = dict(found["months_drawn"])
    assert {month: credits for month, credits in drawn.items() if credits} == pytest.approx(months)
    assert (
        found["question_marks"] == [month for month, credits in drawn.items() if not credits] == ["2025-08", "2025-09"]
    )
    assert 0 < found["unknown_drawn"] < sum(demo_answers.unknown.values())
    november = sum(
        credits for (day, _), credits in demo_answers.credits.items() if day is not None and day >= date(2026, 11, 1)
    )
    assert Decimal(found["so_far"]) == november
    assert found["so_far_drawn"] == pytest.approx(float(november))


def test_credit_usage_names_the_costliest_runs(ran: Callable[[str], Ran], demo_runs: list[Run]) -> None:
    (first, first_credits), (second, second_credits), *_ = ran("credit_usage").found["costliest"]
    huge = {run.run_id: float(run.own_credits) for run in demo_runs if "huge" in run.tags and run.shows_usage}
    assert {first: first_credits, second: second_credits} == huge


def test_failure_analysis_says_what_the_books_say(ran: Callable[[str], Ran], demo_answers: Answers) -> None:
    found = ran("failure_analysis").found
    ended: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for (kind, status), runs in demo_answers.statuses.items():
        ended[kind] += runs if status in ("PROCESSED", "FAILED") else 0
        failed[kind] += runs if status == "FAILED" else 0
    for rates in (found["rates"], found["rates_by_pandas"]):
        assert {kind: rate[:2] for kind, rate in rates.items()} == {kind: [failed[kind], ended[kind]] for kind in ended}
        for failures, of, low, high in rates.values():
            # What makes it Wilson's: the rate lies as far from both ends as they themselves would let 95 % stray.
            for end in (low, high):
                assert abs(failures / of - end) / math.sqrt(end * (1 - end) / of) == pytest.approx(1.959964, abs=1e-5)
    reasons: Counter[str] = Counter()
    for (_kind, reason), runs in demo_answers.failures.items():
        reasons[reason or ""] += runs
    assert found["reasons"] == reasons


def test_failure_analysis_counts_the_months_in_which_runs_tell_their_creation(
    ran: Callable[[str], Ran], demo_runs: list[Run]
) -> None:
    months: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for run in demo_runs:
        # By ID these three do not tell when they were created.
        if run.kind.object not in ("parse_run", "edit_run", "form_detection_run"):
            months[f"{run.day:%Y-%m}"][0] += run.status == "FAILED"
            months[f"{run.day:%Y-%m}"][1] += run.status in ("PROCESSED", "FAILED")
    assert ran("failure_analysis").found["trend"] == months


def test_failure_analysis_finds_the_version_that_the_organization_made_worse_and_is_not_sure_of_it(
    ran: Callable[[str], Ran], demo_runs: list[Run]
) -> None:
    found = ran("failure_analysis").found
    worse = {
        (run.version.name, run.version.version, run.version.fails_more_from)
        for run in demo_runs
        if run.version is not None and run.version.fails_more_from is not None
    }
    ((name, version, since),) = worse
    assert found["first"] == ["version", f"{name} {version}"]
    assert found["suspect_name"] == f"{name} {version}"
    assert since == date(2026, 9, 14)
    assert not found["is_any_significant"]

    turn, end = LAST_DAY - timedelta(days=69), LAST_DAY + timedelta(days=1)
    assert found["window"] == [str(turn), str(end)]
    counts = [0, 0, 0, 0]
    months: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for run in demo_runs:
        if run.version is None or (run.version.name, run.version.version) != (name, version):
            continue
        is_ended, is_failed = run.status in ("PROCESSED", "FAILED"), run.status == "FAILED"
        months[f"{run.day:%Y-%m}"][0] += is_failed
        months[f"{run.day:%Y-%m}"][1] += is_ended
        if run.day >= turn - timedelta(days=70):
            counts[2 if run.day >= turn else 0] += is_failed
            counts[3 if run.day >= turn else 1] += is_ended
    assert found["suspect"] == counts
    assert found["suspect_months"] == months


def test_failure_analysis_times_the_runs_that_no_person_touched(
    ran: Callable[[str], Ran], demo_runs: list[Run]
) -> None:
    seconds = [
        (run.updated_at - run.created_at).total_seconds()
        for run in demo_runs
        if run.kind.object == "classify_run" and run.status in FINISHED and not run.reviewed
    ]
    assert ran("failure_analysis").found["p50"] == pytest.approx(statistics.median(seconds), abs=1.0)


# As they are saved


@pytest.mark.parametrize("name", notebooks.NAMES)
def test_a_saved_notebook_is_small_whole_and_free_of_errors(name: str) -> None:
    path = notebooks.FOLDER / f"{name}.ipynb"
    notebook = notebooks.read(name)
    nbformat.validate(notebook)
    assert path.stat().st_size < 150 * 1024
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "execute_result", "display_data"}
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert notebooks.images(notebook)


@pytest.mark.parametrize("name", notebooks.NAMES)
def test_a_saved_notebook_tells_nothing_of_the_machine_that_ran_it(name: str) -> None:
    notebook = notebooks.read(name)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert all(cell.metadata == {} for cell in notebook.cells)
    text = "\n".join([*(cell.source for cell in notebook.cells), *(text for _, text in notebooks.texts(notebook))])
    absolute = r"(?<![\w.<>/])(?:/(?:home|root|tmp|usr|opt|var|etc|work|Users|private)\b|[A-Z]:\\)[^\s<]*"
    assert re.findall(absolute, text) == []
    assert not re.findall(r"(?i)bearer |127\.0\.0\.1|localhost|\bsk[-_]\w|api_key\"?\s*[:=]\s*[\"'][^\"']", text)
    times = {date.fromisoformat(day) for day in re.findall(r"\b20\d\d-\d\d-\d\d\b", text)}
    assert max(times) <= LAST_DAY, "the made-up organization ends there: a later day is that of running the notebook"
    assert not re.search(r"\d{8}T\d{9}Z", text), "the ID of a load begins with the time of running the notebook"


def test_what_would_differ_is_seen() -> None:
    notebook = notebooks.read("credit_usage")
    (first, one), (second, other), *_ = notebooks.images(notebook).items()
    assert first != second
    assert notebooks.look_alike(one, one)
    assert not notebooks.look_alike(one, other)
    texts = notebooks.texts(notebook)
    notebook.cells[1].outputs[0]["text"] += "more"
    assert notebooks.texts(notebook) != texts


def test_the_folders_readme_names_every_notebook() -> None:
    text = (notebooks.FOLDER / "README.md").read_text()
    assert set(re.findall(r"\((\w+)\.ipynb\)", text)) == {path.stem for path in notebooks.FOLDER.glob("*.ipynb")}
    assert {path.stem for path in Path(notebooks.FOLDER).glob("*.ipynb")} == set(notebooks.NAMES)
