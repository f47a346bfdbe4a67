"""The charts, as Vega-Lite specifications without data: the page's script puts rows into the named data sets.

Colours are parameters (`ink`, `accent`, …) or a row's own `colour`, so that the script can follow the reader's theme;
what a pointer sees is a row's `head` and `tip`, made with the row.
"""

from __future__ import annotations

from typing import Any

Spec = dict[str, Any]

_UTC = {"type": "utc", "domainMin": {"expr": "begin"}, "domainMax": {"expr": "end"}}
_WHOLE_ROW = {"content": "data"}
_ROW_STEP = 26
_TICKS = "max(2, min(width / 90, slotCount))"


def all_charts() -> dict[str, Spec]:
    """Return the specifications, by the name of the chart."""
    return {
        "credits": _credits(),
        "rates": _rates(),
        "reasons": _ranking("failed runs"),
        "forecast": _forecast(),
        "changes": _changes(),
        "latency": _latency(),
        "processors": _ranking("credits"),
        "unknown": _ranking("runs with unknown credits"),
    }


def _chart(layers: list[Spec], *names: str, height: int | None = None) -> Spec:
    """Return a chart as wide as its place; without a height, the script makes it as high as its rows are many."""
    return {
        "width": "container",
        **({"height": height} if height else {"usermeta": {"rowStep": _ROW_STEP}}),
        "autosize": {"type": "fit-x", "contains": "padding"},
        "datasets": {name: [] for name in names},
        "layer": layers,
    }


def _time(field: str = "t", **axis: Any) -> Spec:
    shown = {"title": None, "labelOverlap": "greedy", "tickCount": {"expr": _TICKS}, **axis}
    return {"field": field, "type": "temporal", "scale": _UTC, "axis": shown}


def _number(field: str, **axis: Any) -> Spec:
    shown = {"title": None, "tickCount": 4, "domain": False, "ticks": False, **axis}
    return {"field": field, "type": "quantitative", "axis": shown}


def _place() -> Spec:
    axis = {"title": None, "domain": False, "ticks": False, "labelPadding": 10, "labelLimit": {"expr": "labelLimit"}}
    return {"field": "label", "type": "nominal", "sort": None, "axis": axis}


def _pointed(name: str, data: str, *, x: Spec, x2: Spec | None = None, y: Spec | None = None) -> Spec:
    """Return a layer that is seen only under the pointer, and that carries what is told there."""
    encoding: Spec = {
        "x": x,
        "fillOpacity": {"condition": {"param": name, "empty": False, "value": 0.1}, "value": 0},
    }
    encoding |= ({"x2": x2} if x2 else {}) | ({"y": y} if y else {})
    return {
        "data": {"name": data},
        "params": [{"name": name, "select": {"type": "point", "on": "pointerover", "clear": "pointerout"}}],
        "mark": {"type": "rect", "fill": {"expr": "ink"}, "tooltip": _WHOLE_ROW},
        "encoding": encoding,
    }


def _credits() -> Spec:
    bars = {
        "data": {"name": "bars"},
        "mark": {"type": "rect", "stroke": {"expr": "surface"}, "strokeWidth": {"expr": "barGap"}},
        "encoding": {
            "x": _time(),
            "x2": {"field": "t2"},
            "y": _number("y0", format="~s"),
            "y2": {"field": "y1"},
            "fill": {"field": "colour", "type": "nominal", "scale": None},
        },
    }
    return _chart([bars, _pointed("at", "slots", x=_time(), x2={"field": "t2"})], "bars", "slots", height=260)


def _rates() -> Spec:
    shares: Spec = {"format": "~%"}
    interval = {
        "data": {"name": "slots"},
        "mark": {"type": "rule", "stroke": {"expr": "bad"}, "strokeOpacity": 0.3, "strokeWidth": {"expr": "ruleWidth"}},
        "encoding": {"x": _time("mid"), "y": _number("low", **shares), "y2": {"field": "high"}},
    }
    line = {
        "data": {"name": "slots"},
        "mark": {
            "type": "line", "stroke": {"expr": "bad"}, "strokeWidth": 1.5,
            "point": {"fill": {"expr": "bad"}, "size": 26, "filled": True},
        },
        "encoding": {"x": _time("mid"), "y": _number("rate", **shares)},
    }  # fmt: skip
    return _chart([interval, line, _pointed("at", "slots", x=_time(), x2={"field": "t2"})], "slots", height=300)


def _ranking(what: str) -> Spec:
    """Return bars that lie, one under the other, each in parts, with its sum written at its end."""
    place = _place()
    bars = {
        "data": {"name": "bars"},
        "mark": {"type": "bar", "height": {"band": 0.66}, "stroke": {"expr": "surface"}, "strokeWidth": 1},
        "encoding": {
            "y": place,
            "x": _number("x0", format="~s", title=what),
            "x2": {"field": "x1"},
            "fill": {"field": "colour", "type": "nominal", "scale": None},
        },
    }
    sums = {
        "data": {"name": "rows"},
        "mark": {"type": "text", "align": "left", "dx": 5, "fill": {"expr": "ink"}, "fontSize": 12},
        "encoding": {"y": place, "x": {"field": "sum", "type": "quantitative"}, "text": {"field": "text"}},
    }
    # Room for the sum behind the longest bar.
    room = {
        "data": {"name": "rows"},
        "mark": {"type": "rule", "opacity": 0},
        "encoding": {"x": {"field": "room", "type": "quantitative"}},
    }
    pointed = _pointed("at", "rows", x={"value": 0}, x2={"value": "width"}, y=place)
    return _chart([bars, sums, room, pointed], "bars", "rows")


def _forecast() -> Spec:
    accent = {"expr": "accent"}
    days: Spec = {"labelExpr": "utcdate(datum.value)", "tickCount": {"expr": "max(4, width / 40)"}}
    so_far = {
        "data": {"name": "days"},
        "mark": {"type": "line", "stroke": accent, "strokeWidth": 2.5},
        "encoding": {"x": _time(**days), "y": _number("sum", format="~s")},
    }
    under = {
        "data": {"name": "days"},
        "mark": {"type": "area", "fill": accent, "fillOpacity": 0.15},
        "encoding": {"x": _time(**days), "y": _number("sum", format="~s")},
    }
    cone = {
        "data": {"name": "cone"},
        "mark": {"type": "area", "fill": accent, "fillOpacity": 0.28},
        "encoding": {"x": _time(**days), "y": _number("low", format="~s"), "y2": {"field": "high"}},
    }
    expected = {
        "data": {"name": "cone"},
        "mark": {"type": "line", "stroke": accent, "strokeWidth": 2, "strokeDash": [5, 4]},
        "encoding": {"x": _time(**days), "y": _number("expected", format="~s")},
    }
    pointed = _pointed("at", "slots", x=_time(**days), x2={"field": "t2"})
    return _chart([under, cone, expected, so_far, pointed], "days", "cone", "slots", height=300)


def _changes() -> Spec:
    place = _place()
    colour = {"field": "colour", "type": "nominal", "scale": None}
    share: Spec = {"format": "~%", "title": "failure rate: ring before, dot after"}
    data = {"name": "rows"}
    between = {
        "data": data,
        "mark": {"type": "rule", "strokeWidth": 2.5, "strokeOpacity": 0.55},
        "encoding": {"y": place, "x": _number("before", **share), "x2": {"field": "after"}, "stroke": colour},
    }
    before = {
        "data": data,
        "mark": {"type": "point", "size": 70, "strokeWidth": 2, "fill": {"expr": "surface"}},
        "encoding": {"y": place, "x": _number("before", **share), "stroke": colour},
    }
    after = {
        "data": data,
        "mark": {"type": "point", "size": 80, "filled": True, "opacity": 1},
        "encoding": {"y": place, "x": _number("after", **share), "fill": colour},
    }
    pointed = _pointed("at", "rows", x={"value": 0}, x2={"value": "width"}, y=place)
    return _chart([between, before, after, pointed], "rows")


def _latency() -> Spec:
    place = _place()
    colour = {"field": "colour", "type": "nominal", "scale": None}

    def seconds(field: str) -> Spec:
        shown = _number(field, title="seconds: half, 90 % and 99 % of runs within", format="~s")
        return {**shown, "scale": {"zero": True}}

    data = {"name": "rows"}
    layers = [
        {
            "data": data,
            "mark": {"type": "bar", "height": {"band": band}, "opacity": opacity},
            "encoding": {"y": place, "x": seconds(upper), "fill": colour},
        }
        for upper, band, opacity in (("p99", 0.2, 0.45), ("p90", 0.42, 0.6), ("p50", 0.66, 1.0))
    ]
    pointed = _pointed("at", "rows", x={"value": 0}, x2={"value": "width"}, y=place)
    return _chart([*layers, pointed], "rows")
