"""The sections of the page as HTML: what the filters change, the newest days, cost and time, how sure it all is."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from html import escape

from pipeline.dashboard.facts import Facts
from pipeline.dashboard.first import kind_names, total_credits
from pipeline.dashboard.quality import quality_facts
from pipeline.dashboard.series import Series
from pipeline.dashboard.tiles import tiles
from pipeline.dashboard.words import days_text, p_text
from pipeline.kinds import KINDS
from pipeline.layout import percent
from pipeline.render import shown
from pipeline.reports.dimensions import TIMES

KIND_COLOURS = {kind.object: number for number, kind in enumerate(KINDS)}
TITLE = "Extend runs: credits and failures"
Tables = Mapping[str, str]


def made_of(facts: Facts) -> str:
    """Return how fresh the data is, and which days it is of."""
    as_of = (
        f"Data as of {shown(facts.data_as_of)} UTC."
        if facts.data_as_of
        else "No load says when the data was asked for."
    )
    return f"{as_of} Days are UTC."


def main_part(facts: Facts, series: Series, grain: str, tables: Tables) -> str:
    """Return the page's header and main part; of a lake without runs in the window, only that."""
    head = (
        '<a class="skip" href="#over-time">Skip to the charts</a>\n<header><h1>'
        f'{TITLE}</h1><p class="lead">{escape(_lead(facts))}</p>'
        '<noscript><p class="alert">The charts need JavaScript; the tables below them hold the same numbers.</p>'
        "</noscript>"
        "</header>\n"
    )
    if not facts.span["runs"] and not facts.credits:
        return f"{head}<main>{_nothing(facts, tables)}</main>\n"
    sections = (
        tiles(facts), _over_time(facts, series, grain, tables), _newest(facts, tables), _time_and_cost(facts, tables),
        _quality(facts, tables),
    )  # fmt: skip
    return f"{head}<main>\n{''.join(sections)}</main>\n"


def _lead(facts: Facts) -> str:
    first, last, runs = facts.span["first_day"], facts.span["last_day"], facts.span["runs"]
    days = f"{first} to {last}" if first else "no run tells its day"
    return f"{runs:,} runs, {days}. {made_of(facts)}" if runs else made_of(facts)


def _nothing(facts: Facts, tables: Tables) -> str:
    asked = facts.window.since or facts.window.until
    told = f"No runs in this window ({days_text(facts.window)})." if asked else "No runs yet."
    how = "" if asked else " Pull some with pipeline fetch, or see the demo: pipeline demo."
    letters = _folded("IDs that did not come", tables["dead-letters"]) if facts.dead_letters else ""
    return f'<h2 id="over-time">{escape(told)}</h2><p>{escape(how)}</p>{letters}'


def _chart(name: str, description: str, table: str, *, summary: str = "The numbers as a table") -> str:
    return (
        f'<figure><div role="img" aria-label="{escape(description)} The table below has the numbers.">'
        f'<div class="chart" id="chart-{name}"></div></div>'
        f'<p class="empty" id="empty-{name}" hidden>Nothing to show here.</p></figure>'
        f"{_folded(summary, table)}"
    )


def _folded(summary: str, content: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def _card(title: str, content: str, *, wide: bool = False, beside: str = "", below: str = "") -> str:
    return (
        f'<article class="card{" wide" if wide else ""}"><div class="top"><div><h3>{escape(title)}</h3>{below}</div>'
        f"{beside}</div>{content}</article>\n"
    )


def _note(text: str, name: str | None = None) -> str:
    identified = f' id="{name}"' if name else ""
    return f'<p class="note"{identified}>{escape(text)}</p>'


def _buttons(legend: str, name: str, choices: Mapping[str, str], pressed: str) -> str:
    made = "".join(
        f'<button type="button" data-{name}="{value}" aria-pressed="{str(value == pressed).lower()}">'
        f"{escape(text)}</button>"
        for value, text in choices.items()
    )
    return f"<fieldset><legend>{escape(legend)}</legend>{made}</fieldset>"


def _over_time(facts: Facts, series: Series, grain: str, tables: Tables) -> str:
    switches = _buttons("Colour", "colour", {"kind": "Kind", "product": "Product"}, "kind")
    if facts.rates:
        switches += _buttons("Unit", "unit", {"credits": "Credits", "usd": "USD"}, "credits")
    credits = _card(
        "Credits", '<ul id="legend" aria-label="Products" hidden></ul>'
        + _chart("credits", "Credits over time, stacked.", tables["credits"]),
        wide=True, beside=f'<div class="switches">{switches}</div>',
        below=f'<p class="sum" id="sum-credits">{shown(total_credits(series))} credits</p>{_note("", "note-credits")}',
    )  # fmt: skip
    rates = _card(
        "Failure rate", _chart("rates", "Failure rate over time, with its 95 % interval.", tables["rates"]),
        below=f'<p class="sum" id="sum-rates"></p>{_note("", "note-rates")}',
    )  # fmt: skip
    reasons = _card(
        "Reasons", _chart("reasons", "Failed runs by reason, coloured by kind.", tables["reasons"])
        + _note("* not among the reasons that the vendor documents"),
        below=_note("", "note-reasons"),
    )  # fmt: skip
    return (
        f'<section id="over-time" aria-labelledby="over-time-title"><h2 id="over-time-title">Over time</h2>'
        f'{_filters(facts, series, grain)}<div class="grid">{credits}{rates}{reasons}</div></section>\n'
    )


def _filters(facts: Facts, series: Series, grain: str) -> str:
    order = list(TIMES)
    grains = {each: each.capitalize() for each in order[order.index(facts.grain) :]}
    first, last = facts.span["first_day"], facts.span["last_day"]
    limits = f' min="{first}" max="{last}"' if first else ""
    days = (
        "<fieldset><legend>Days</legend>"
        f'<label class="note" for="from">from</label><input type="date" id="from"{limits}>'
        f'<label class="note" for="to">to</label><input type="date" id="to"{limits}></fieldset>'
    )
    chips = "".join(
        f'<button type="button" data-kind="{number}" aria-pressed="true"><span class="swatch {_swatch(kind)}"></span>'
        f"{escape(name)}</button>"
        for number, (kind, name) in enumerate(zip([*series.kinds.values, None], kind_names(series), strict=False))
    )
    return (
        '<div id="filters" role="group" aria-label="Filters of the charts below"><div class="row">'
        + _buttons("Period", "days", {"all": "All", "90": "90 days", "30": "30 days", "7": "7 days"}, "all")
        + days
        + _buttons("By", "grain", grains, grain)
        + f'</div><div class="row"><fieldset><legend>Kinds</legend>{chips}'
        '<button type="button" data-kinds="all">All or none</button></fieldset></div>'
        '<p class="note" id="chosen" role="status"></p></div>'
    )


def _swatch(kind: str | None) -> str:
    return f"k{KIND_COLOURS.get(kind or '', 'other')}"


def _newest(facts: Facts, tables: Tables) -> str:
    title = "The month" if facts.forecast is None else f"{facts.forecast.month:%B %Y} and its forecast"
    how = (
        "Each day to come costs what its weekday did on average in the weeks before; the range is that of a thousand "
        "months played with those weeks, less the outer 5 % on each side."
    )
    drawn = _chart("forecast", "Credits of the month, summed up day by day, with the forecast.", tables["forecast"])
    month = _card(title, drawn, below=_note(f"All kinds. {how}"))
    drawn = _chart("changes", "Failure rates before and after.", tables["changes"])
    changed = _card("What changed in failures", drawn, below=_note(_changed(facts)))
    return (
        '<section aria-labelledby="newest-title"><h2 id="newest-title">The newest days</h2>'
        f'<div class="grid">{month}{changed}</div></section>\n'
    )


def _changed(facts: Facts) -> str:
    if facts.changes_window is None or not facts.changes:
        return "No day to compare."
    whole, *values = facts.changes
    before, after = days_text(facts.changes_window.before()), days_text(facts.changes_window)
    rates = [percent(failed / ended) if ended else "none" for failed, ended in (
        (whole.failed_before, whole.ended_before), (whole.failed_after, whole.ended_after))]  # fmt: skip
    if not whole.ended_before or not whole.ended_after:
        return f"{before}: {rates[0]}. {after}: {rates[1]}. Without ended runs in both there is nothing to compare."
    sure = [change for change in values if change.is_significant]
    verdict = (
        f"Of {len(values)} looked at, {len(sure)} changed more than chance would do (coloured; Fisher's exact test, "
        "corrected for their number)."
        if sure
        else f"None of {len(values)} kinds, processors, versions, file types and reasons changed more than chance does."
    )
    return f"{before}: {rates[0]}. {after}: {rates[1]} (p {p_text(whole.p)}). {verdict}"


def _time_and_cost(facts: Facts, tables: Tables) -> str:
    processors = _card(
        "Costliest processors", _chart("processors", "Credits by processor.", tables["processors"]),
        below=_note("A parse run counts for the processor that had it made."),
    )  # fmt: skip
    slow = _card(
        "How long runs take",
        _chart("latency", "Seconds from created to finished, by kind.", tables["latency"])
        + _folded("The slowest processors", tables["slow-processors"])
        + _folded("The slowest runs", tables["slowest"]),
        below=_note(_left_out(facts)),
    )
    wasted = sum((row["credits"] for row in facts.wasted), Decimal())
    lists = _card(
        "Costliest runs and files",
        tables["runs"] + _folded("The costliest files", tables["files"])
        + _folded(f"Credits that brought nothing new: {shown(wasted)}", tables["wasted"]),
        wide=True,
    )  # fmt: skip
    return (
        '<section aria-labelledby="cost-title"><h2 id="cost-title">Costliest and slowest</h2>'
        f'<div class="grid">{processors}{slow}{lists}</div></section>\n'
    )


def _left_out(facts: Facts) -> str:
    reviewed = sum(row["reviewed_left_out"] for row in facts.latency_by_kind)
    untimed = sum(row["untimed"] for row in facts.latency_by_kind)
    return (
        "From created to finished: half, 90 % and 99 % of runs within. Left out: "
        f"{reviewed:,} reviewed runs, which waited for a person; {untimed:,} whose times no answer told."
    )


def _strong(number: str) -> str:
    return f"<b>{escape(number)}</b> " if number else ""


def _quality(facts: Facts, tables: Tables) -> str:
    listed = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{_strong(number)}{escape(text)}</dd></div>"
        for name, number, text in quality_facts(facts)
    )
    known = _card("What the numbers stand on", f'<dl class="facts">{listed}</dl>', wide=True)
    unknown = _card(
        "Runs with unknown credits", _chart("unknown", "Runs with unknown credits, by why.", tables["unknown"]),
        below=_note("Unknown is not zero: nothing tells their credits, and they are in no sum."),
    )  # fmt: skip
    letters = _card(
        "IDs that did not come", tables["dead-letters"] if facts.dead_letters else _note("None."),
        below=_note("pipeline retry asks for them again."),
    )  # fmt: skip
    return (
        '<section aria-labelledby="quality-title"><h2 id="quality-title">How sure this is</h2>'
        f'<div class="grid">{known}{unknown}{letters}</div></section>\n'
    )
