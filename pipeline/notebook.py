"""What the notebooks share: a lake to ask, and plots that most people can read.

The plots need matplotlib, which `pip install 'extend-pipeline[notebook]'` brings.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.catalog import Lake
from pipeline.errors import UsageError
from pipeline.render import printable

COLORS = {
    "parse_run": "#E69F00", "extract_run": "#0072B2", "classify_run": "#56B4E9", "split_run": "#009E73",
    "verify_run": "#D55E00", "edit_run": "#CC79A7", "form_detection_run": "#F0E442", "workflow_run": "#000000",
}  # fmt: skip
"""A colour for each kind of run: Okabe and Ito's, which the colour-blind can tell apart."""
BLUE = "#0072B2"
ACCENT = "#D55E00"
QUIET = "#6B7280"
UNKNOWN = {"facecolor": "none", "edgecolor": QUIET, "hatch": "////", "linewidth": 0.8}
"""How a bar of what is not known looks: an outline, so that it is read neither as a kind nor as nothing."""

_DEMO_LAKE = "../data/demo"
_SEED, _RUNS = 7, 3_000
_FONT = "DejaVu Sans"
_NO_GLYPH = "▯"
_MOST_MONTHS = 18
_STYLE: dict[str, Any] = {
    "figure.figsize": (8, 4),
    "figure.dpi": 90,
    "figure.constrained_layout.use": True,
    "font.family": [_FONT],
    "font.size": 10,
    # A processor's name may hold `$`, which would make a formula of it.
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.edgecolor": QUIET,
    "axes.axisbelow": True,
    "grid.color": "#E5E7EB",
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
}


def lake_or_demo(demo: Path | str = _DEMO_LAKE, *, env: Mapping[str, str] | None = None) -> Lake:
    """Return the lake that `PIPELINE_LAKE` names; without one that of a made-up organization, made now if need be.

    Beside a large lake of one's own the credit ledger is kept, as by the reports: the first call may take a while. The
    demo's lake takes some seconds to make, needs neither key nor network, and is the same everywhere.
    """
    own = (os.environ if env is None else env).get("PIPELINE_LAKE")
    if own:
        print("your own lake, the one that PIPELINE_LAKE names")
        lake = Lake(own)
        lake.keep_ledger()
        return lake
    print(f"the lake of a made-up organization, in {demo}; set PIPELINE_LAKE to ask your own")
    try:
        return Lake(demo)
    except UsageError:
        _make_demo(demo)
        return Lake(demo)


def _make_demo(folder: Path | str) -> None:
    from pipeline.demo import run_demo
    from pipeline.progress import Silent

    run_demo(str(folder), seed=_SEED, runs=_RUNS, progress=Silent(), stream=io.StringIO())


def use_plot_style() -> None:
    """Set how matplotlib draws from now on."""
    from matplotlib import style

    style.use(_STYLE)


def as_label(value: Any, *, most: int = 32) -> str:
    """Return what a plot may write for a value from outside; of null, `not known`.

    Control characters become visible, what the font cannot draw becomes `▯`, and long text is cut.
    """
    if pd.isna(value):
        return "not known"
    drawable = _drawable()
    text = "".join(char if ord(char) in drawable else _NO_GLYPH for char in printable(str(value)))
    return text if len(text) <= most else text[: most - 1] + "…"


def month_labels(months: Iterable[date]) -> list[str]:
    """Return what an axis writes below the first days of months: the year where one begins; of many, quarters."""
    each = list(months)
    every = 1 if len(each) <= _MOST_MONTHS else 3
    labels = [f"{month:%b}" if (month.month - 1) % every == 0 else "" for month in each]
    return [
        f"{text}\n{month:%Y}" if place == 0 or month.month == 1 else text
        for place, (month, text) in enumerate(zip(each, labels, strict=True))
    ]


@cache
def _drawable() -> frozenset[int]:
    from matplotlib import font_manager

    return frozenset(font_manager.get_font(font_manager.findfont(_FONT)).get_charmap())
