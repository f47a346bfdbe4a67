"""What the benchmarks found: lines of a table, kept as JSON beside them, from which the README's table is made.

    {"questions": {"by_id": {"measured_on": …, "machine": …, "versions": {…}, "lines": [{…}, …]}, …}}

A question that was measured again replaces its own entry; the others stay, each with its date and machine.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

QUESTIONS = ("by_id", "memory", "rate_limit", "sync", "landing", "asking", "start", "growth")
"""All questions, each a module of its own, in the order in which they are told of."""
RESULTS = Path(__file__).parent / "results.json"
_PACKAGES = ("extend-pipeline", "duckdb", "pyarrow", "pandas", "httpx", "httptools", "dlt", "extend-ai")
_HEADER = ("what", "`pipeline`", "beside it", "ratio", "to reach", "")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table, with the numbers behind it.

    `reached` says whether the aim is; null where there is none. `figures` are in the order in which they were taken.
    """

    what: str
    ours: str
    beside: str = ""
    ratio: str = ""
    aim: str = ""
    reached: bool | None = None
    figures: dict[str, list[float]] = field(default_factory=dict)


def save(found: dict[str, Sequence[Line]], path: Path = RESULTS) -> None:
    """Keep what was found of each question, in place of what was found before."""
    questions = _read(path)
    about = {"measured_on": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine(), "versions": _versions()}
    for name, lines in found.items():
        questions[name] = {**about, "lines": [_kept(line) for line in lines]}
    path.write_text(json.dumps({"questions": questions}, indent=1, ensure_ascii=False) + "\n")


def _kept(line: Line) -> dict[str, Any]:
    figures = {name: [round(value, 4) for value in values] for name, values in line.figures.items()}
    return {**asdict(line), "figures": figures}


def _read(path: Path) -> dict[str, Any]:
    questions: dict[str, Any] = json.loads(path.read_text())["questions"] if path.exists() else {}
    return questions


def table(lines: Sequence[Line]) -> str:
    """Return lines as a Markdown table."""
    rows = [_HEADER, ("---",) * len(_HEADER)]
    rows += [(each.what, each.ours, each.beside, each.ratio, each.aim, _verdict(each.reached)) for each in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _verdict(reached: bool | None) -> str:
    return {True: "reached", False: "**not reached**", None: ""}[reached]


def saved_table(path: Path = RESULTS) -> str:
    """Return all that was kept as a Markdown table, with the date, the machine and the versions.

    What was measured in another sitting, or elsewhere, has a table of its own.
    """
    questions = _read(path)
    sittings: dict[str, list[Line]] = {}
    for name in QUESTIONS:
        if name in questions:
            sittings.setdefault(_about(questions[name]), []).extend(Line(**line) for line in questions[name]["lines"])
    if not sittings:
        return "Not measured yet."
    return "\n\n".join(f"{about}\n\n{table(lines)}" for about, lines in sittings.items())


def _about(question: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in question["versions"].items())
    return f"Measured on {question['measured_on']} on {question['machine']}, with {versions}."


def machine() -> str:
    """Return what this machine is: its processor, cores, memory and system."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    return (
        f"{cores} cores of {_processor()}{memory}, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or "an unnamed processor"


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
