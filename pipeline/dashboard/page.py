"""The page: its parts in order, as one HTML file that loads nothing and may connect to nothing.

Only the two scripts whose hashes stand in its policy run; what comes from data is text, escaped for where it stands.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

from pipeline import __version__
from pipeline.dashboard.charts import all_charts
from pipeline.dashboard.facts import MOST, Facts
from pipeline.dashboard.first import first_tables, kind_names, reason_names
from pipeline.dashboard.library import bundle_library, name_library
from pipeline.dashboard.rows import fixed_rows
from pipeline.dashboard.sections import KIND_COLOURS, TITLE, main_part
from pipeline.dashboard.series import Series, make_series, undocumented, usual_grain
from pipeline.dashboard.tables import fixed_tables
from pipeline.render import printable


def render_page(facts: Facts) -> str:
    """Return the whole page. Raises UsageError where the charts' package is not installed."""
    series = make_series(facts)
    grain = usual_grain(facts)
    tables = {**first_tables(facts, series, grain), **fixed_tables(facts)}
    scripts = [bundle_library(), _read("page.js")]
    data = _for_script(_data(facts, series, grain))
    return "".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">\n',
            '<meta name="referrer" content="no-referrer">\n<link rel="icon" href="data:,">\n',
            f"<title>{TITLE}</title>\n<style>\n{_read('page.css')}</style>\n</head>\n<body>\n",
            main_part(facts, series, grain, tables),
            f"<footer><p>Made by pipeline {escape(__version__)}. Charts: {escape(name_library())}.</p></footer>\n",
            '<div id="tip" hidden></div>\n',
            f'<script type="application/json" id="facts">{data}</script>\n',
            *(f"<script>{_inert(script)}</script>\n" for script in scripts),
            "</body>\n</html>\n",
        ]
    )


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _inert(script: str) -> str:
    """Return a script in which nothing ends or comments out the element that it stands in."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _policy(scripts: Sequence[str]) -> str:
    digests = [hashlib.sha256(_inert(script).encode()).digest() for script in scripts]
    sources = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def _for_script(value: Any) -> str:
    """Return JSON that can stand in a script element: no `<`, `&` or `>`, and nothing beyond ASCII (U+2028, U+2029)."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _data(facts: Facts, series: Series, grain: str) -> dict[str, Any]:
    specs, rows = all_charts(), fixed_rows(facts, series.kinds)
    marked = {printable(reason) for reason in undocumented(facts)}
    return {
        "kinds": kind_names(series),
        "kindColours": [KIND_COLOURS.get(kind or "", -1) for kind in series.kinds.values],
        "products": series.products.labels("product not told"),
        "reasons": [f"{name} *" if name in marked else name for name in reason_names(series)],
        "times": [str(day) for day in series.times],
        "grain": facts.grain,
        "usualGrain": grain,
        "lastDay": None if facts.last_day is None else str(facts.last_day),
        "mostBars": MOST + 2,
        "credits": series.credits,
        "unknown": series.unknown,
        "ended": series.ended,
        "failed": series.failed,
        "charts": {name: {"spec": spec, "rows": rows.get(name, {})} for name, spec in specs.items()},
    }
