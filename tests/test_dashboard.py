"""The dashboard in a real browser: it renders, tells no error, asks for nothing, and its numbers are the world's.

The steady lake is made by hand: each of 35 days, from 2026-10-05 to 2026-11-08, has a classify run of 4 credits and an
extract run of 6. In the last seven days every extract run failed; one classify run of the last day is not finished.
"""

import json
import re
import socket
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline import cli
from pipeline.catalog import Lake
from pipeline.dashboard.facts import Facts, gather_facts
from pipeline.dashboard.page import render_page
from pipeline.dashboard.series import kind_label, make_series
from pipeline.errors import UsageError
from pipeline.kinds import KINDS
from pipeline.lake import LakeFiles
from pipeline.loads import Load
from pipeline.sandbox.world import World
from tests.browsing import Visit, open_browser
from tests.conftest import classify, land

pytestmark = pytest.mark.long

FIRST, DAYS = date(2026, 10, 5), 35
LATER = datetime(2026, 11, 20, 12, tzinfo=UTC)
BAD_NAME = '<img src=x onerror="hacked=1"></script><script>hacked=1</script>\u2028\'"&.pdf'
CHARTS = ("credits", "rates", "reasons", "forecast", "changes", "latency", "processors", "unknown")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dashboard")


def steady_payloads() -> Iterator[dict[str, Any]]:
    for number in range(DAYS):
        created = f"{FIRST + timedelta(days=number)}T12:00:00Z"
        times = {"createdAt": created, "updatedAt": created.replace("12:00:00", "12:00:30")}
        yield classify(f"clr_{number}", usage={"credits": 4}, **times)
        ends = {"status": "FAILED", "failureReason": "PARSING_ERROR"} if number >= DAYS - 7 else {}
        yield classify(f"exr_{number}", object="extract_run", usage={"credits": 6}, **times, **ends)
    yield classify("clr_last", status="PENDING", createdAt="2026-11-08T13:00:00Z", updatedAt="2026-11-08T13:00:00Z")


@pytest.fixture(scope="module")
def steady(folder: Path) -> LakeFiles:
    lake = LakeFiles(folder / "steady")
    land(lake, *steady_payloads(), fetched_at=LATER)
    return lake


def read_ids(world: World) -> list[str]:
    return world.run_ids()[1::2]


@pytest.fixture(scope="module")
def world_lake(world: World, folder: Path) -> LakeFiles:
    """Every other run of the world, as the list and as the by-ID endpoints tell it."""
    lake = LakeFiles(folder / "world")
    load = Load(lake, command="load", source="test")
    for run_id in read_ids(world):
        run = world.run(run_id)
        told = [(world.summary(run_id), False)] if run.kind.listed else []
        for payload, is_detail in [*told, (world.detail(run_id), True)]:
            load.take_run(
                run_id, json.dumps(payload).encode(), fetched_at=LATER, is_detail=is_detail, workspace_id=run.workspace
            )
    load.finish()
    load.close()
    return lake


def facts_of(lake: LakeFiles, **asked: Any) -> Facts:
    with Lake(lake.folder) as catalog:
        return gather_facts(catalog, **asked)


def write_page(lake: LakeFiles, **asked: Any) -> Path:
    path = lake.folder.with_name(f"{lake.folder.name}{len(asked)}.html")
    path.write_text(render_page(facts_of(lake, **asked)))
    return path


@pytest.fixture(scope="module")
def steady_page(steady: LakeFiles) -> Path:
    return write_page(steady)


@pytest.fixture(scope="module")
def world_page(world_lake: LakeFiles) -> Path:
    return write_page(world_lake)


@pytest.fixture(scope="module")
def world_visit(browser: Any, world_page: Path) -> Iterator[Visit]:
    """The world's page, opened once; in the end it must have told no error and asked for nothing."""
    opened = Visit(browser, world_page)
    yield opened
    opened.close()
    assert (opened.told, opened.asked) == ([], [])


@pytest.fixture(scope="module")
def still(browser: Any, steady_page: Path) -> Iterator[Visit]:
    """The steady lake's page, opened once for tests that choose nothing."""
    opened = Visit(browser, steady_page)
    yield opened
    opened.close()
    assert (opened.told, opened.asked) == ([], [])


@pytest.fixture
def visit(browser: Any, steady_page: Path) -> Iterator[Visit]:
    """The steady lake's page, opened; in the end it must have told no error and asked for nothing."""
    opened = Visit(browser, steady_page)
    yield opened
    opened.close()
    assert (opened.told, opened.asked) == ([], [])


# What it shows


def test_every_chart_is_drawn_without_a_word_on_the_console_and_without_a_request(
    world_visit: Visit, world_page: Path
) -> None:
    marks = {name: world_visit.page.locator(f"#chart-{name} svg path").count() for name in CHARTS}
    assert all(count > 3 for count in marks.values()), marks
    assert (world_visit.told, world_visit.asked) == ([], [])
    assert world_page.stat().st_size < 5_000_000


def test_credits_by_day_and_kind_are_the_worlds(world_visit: Visit, world: World) -> None:
    world_visit.click("button[data-grain=day]")
    header, *rows, foot = world_visit.table("credits")
    total = world_visit.text("#sum-credits")
    kinds = {kind_label(kind.object): kind.object for kind in KINDS}
    found = {
        (None if row[0] == "not known" else date.fromisoformat(row[0]), kinds[name]): Decimal(cell.replace(",", ""))
        for row in rows
        for name, cell in zip(header[1:-2], row[1:-2], strict=True)
        if cell
    }
    answers = world.answers(known="both", run_ids=read_ids(world))
    assert found == {place: credits for place, credits in answers.credits.items() if credits}
    assert Decimal(total.removesuffix(" credits").replace(",", "")) == answers.total
    assert Decimal(foot[-2].replace(",", "")) == answers.total
    assert int(foot[-1]) == sum(answers.unknown.values())


def test_failures_by_reason_and_kind_and_unknown_runs_are_the_worlds(world_visit: Visit, world: World) -> None:
    header, *rows, _ = world_visit.table("reasons")
    rate = world_visit.table("rates")[-1]
    silent = {row[0]: int(row[-1]) for row in world_visit.table("unknown")[1:-1]}
    big = world_visit.text(".tile:nth-child(4) .big")
    answers = world.answers(known="both", run_ids=read_ids(world))
    expected = Counter(
        {(kind_label(kind), reason or "(none given)"): number for (kind, reason), number in answers.failures.items()}
    )
    found = {
        (kind, row[0].removesuffix(" *")): int(cell)
        for row in rows
        for kind, cell in zip(header[1:-1], row[1:-1], strict=True)
        if cell
    }
    assert found == expected
    processed = sum(number for (_, status), number in answers.statuses.items() if status == "PROCESSED")
    assert rate[1:3] == [str(expected.total()), str(processed + expected.total())]
    assert silent == {kind_label(kind): number for kind, number in answers.unknown.items()}
    assert big == str(sum(answers.unknown.values()))


def test_the_big_numbers_are_the_months_credits_its_forecast_the_failure_rate_and_unknown_runs(still: Visit) -> None:
    # November: eight days of 10 so far, 22 to come, and every week was like every other. 7 of the last 60 runs failed:
    # p = 0.116667, z²/2n = 0.032012, 1 + z²/n = 1.064024: middle 0.139732, margin 1.959964 √(0.103056/60 +
    # 3.841459/14400) / 1.064024 = 0.082066.
    tiles = [still.text(f".tile:nth-child({number})") for number in (1, 2, 3, 4)]
    assert tiles[0].startswith("Credits, November 2026 80 80 credits to 2026-11-08")
    # October had no credits before its fifth day.
    assert "+100.0 % beside the same days of October (40)" in tiles[0]
    assert tiles[1].startswith("Forecast, all of November 300 90 % sure: 300 to 300")
    assert tiles[2].startswith(
        "Failure rate, last 30 days 11.7 % 95 % interval: 5.8 % to 22.2 % 7 of 60 ended runs failed"
    )
    assert tiles[3].startswith("Runs with unknown credits 1 ")


def test_what_changed_names_the_kind_that_carries_it(still: Visit) -> None:
    # 0 of 7 extract runs failed, then 7 of 7: p = 2 / C(14, 7) = 2 / 3432 = 0.0006.
    kind = next(row for row in still.table("changes") if row[0] == "kind extract")
    assert kind[1:7] == ["0 of 7", "0.0 %", "7 of 7", "100.0 %", "+50.00", "0.0006"]
    assert kind[8] == "yes"
    assert "changed more than chance would do" in still.text("#newest-title ~ .grid .card:nth-child(2) .note")


def test_a_rate_prices_the_month_the_forecast_and_the_chart(browser: Any, steady: LakeFiles) -> None:
    visit = Visit(browser, write_page(steady, rate="0.0125"))
    assert "1.00 USD" in visit.text(".tile:nth-child(1)")
    assert "3.75 USD at 0.0125 USD a credit" in visit.text(".tile:nth-child(2)")
    visit.click("button[data-unit=usd]")
    assert visit.text("#sum-credits") == "4.38 USD"  # 350 × 0.0125 = 4.375
    visit.close()


def test_since_and_until_narrow_the_page_and_the_forecast_is_as_of_then(browser: Any, steady: LakeFiles) -> None:
    visit = Visit(browser, write_page(steady, since="2026-10-20", until="2026-11-01"))
    assert visit.text("#sum-credits") == "120 credits"
    assert visit.text(".tile:nth-child(1)").startswith("Credits, October 2026 270 270 credits to 2026-10-31")
    assert visit.text("#sum-rates") == "0.0 %"
    visit.close()


# Pointing and choosing


def test_pointing_at_a_bar_shows_its_day_and_its_amounts(still: Visit) -> None:
    assert still.hover("credits", at=0.99) == (
        "2026-11-08 | extract | 6 | classify | 4 | total | 10 | unknown credits | 1 run"
    )
    # p = 0.5, n = 2: middle 0.5, margin 1.959964 √(0.125 + 3.841459/16) / 2.920730 = 0.405470.
    assert still.hover("rates", at=0.99) == (
        "2026-11-08 | failure rate | 50.0 % | 95 % interval | 9.5 % to 90.5 % | failed | 1 of 2"
    )
    assert still.hover("reasons", at=0.5) == "PARSING_ERROR | extract | 7"
    assert still.hover("forecast", at=0.9) == "end of November | expected | 300 | 90 % sure | 300 to 300"
    assert still.hover("latency", at=0.5, height=0.25).startswith(
        "classify | half within | 30.0 s | 90 % within | 30.0 s"
    )


def test_leaving_a_kind_out_changes_sums_bars_rates_and_tables(visit: Visit) -> None:
    bars = "#chart-credits svg .mark-rect path"
    before = visit.page.locator(bars).count()
    visit.click("button[data-kind='1']")
    assert visit.text("#sum-credits") == "140 credits"
    assert visit.text("#sum-rates") == "0.0 %"
    assert visit.page.locator(bars).count() == before - DAYS
    assert visit.table("credits")[-1] == ["total", "140", "140", "1"]
    assert visit.text("#chosen") == "Shown: 1 of 2 kinds, all days, by day."
    assert visit.page.is_hidden("#chart-reasons")
    visit.click("button[data-kind='1']")
    assert visit.page.locator(bars).count() == before


def test_choosing_a_period_and_a_grain_changes_sums_bars_and_tables(visit: Visit) -> None:
    visit.click("button[data-days='7']")
    assert visit.text("#sum-credits") == "70 credits"
    # p = 0.5, n = 14: margin 1.959964 √(0.25/14 + 3.841459/784) / 1.274390 = 0.232008.
    assert visit.text("#note-rates") == "7 of 14 ended runs failed; 95 % interval 26.8 % to 73.2 %."
    days = [str(date(2026, 11, 2) + timedelta(days=number)) for number in range(7)]
    assert [row[0] for row in visit.table("credits")] == ["day", *days, "total"]
    visit.click("button[data-days=all]")
    visit.click("button[data-grain=month]")
    assert visit.table("credits") == [
        ["month", "classify", "extract", "credits", "unknown runs"],
        ["2026-10-01", "108", "162", "270", ""],
        ["2026-11-01", "32", "48", "80", "1"],
        ["total", "140", "210", "350", "1"],
    ]
    visit.page.fill("#from", "2026-11-01")
    visit.page.fill("#to", "2026-11-02")
    visit.wait_until_drawn()
    assert visit.text("#sum-credits") == "20 credits"
    assert visit.text("#chosen") == "Shown: 2 of 2 kinds, 2026-11-01 to 2026-11-02, by month."


def test_credits_can_be_coloured_by_product(visit: Visit) -> None:
    visit.click("button[data-colour=product]")
    assert visit.table("credits")[0] == ["day", "product not told", "credits", "unknown runs"]
    assert visit.text("#legend") == "product not told"


# Data that means ill


def test_a_hostile_name_stays_text_wherever_it_stands(browser: Any, folder: Path) -> None:
    lake = LakeFiles(folder / "hostile")
    name = {"id": "cl_1", "name": BAD_NAME, "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"}
    file = {"object": "file", "id": "file_1", "name": BAD_NAME, "type": "PDF"}
    fields = {"classifier": name, "file": file, "failureReason": BAD_NAME, "failureMessage": BAD_NAME}
    product = {"product": BAD_NAME, "unit": "page", "quantity": 1, "credits": 2}
    entry = {"object": "classify_run", "id": "clr_ok", "credits": 2, "charges": [product]}
    land(
        lake,
        classify("clr_ok", **fields, usage={"credits": 2, "totalCredits": 2, "breakdown": [entry]},
                 dashboardUrl="javascript:hacked=1"),
        classify("clr_bad", status="FAILED", dashboardUrl="https://dashboard.example/clr_bad", **fields),
        classify("odd_1", object=f"{BAD_NAME}_run", status="FAILED", **fields),
    )  # fmt: skip
    visit = Visit(browser, write_page(lake))
    shown = BAD_NAME.replace("\u2028", "\\u2028")
    visit.click("button[data-colour=product]")
    tip = visit.hover("credits", at=0.99)
    reason = visit.hover("reasons", at=0.5)
    chart = visit.page.locator("#chart-reasons svg").text_content()
    told = [row[3] for row in visit.table("runs")[1:]]
    kinds = visit.page.locator("button[data-kind]").all_text_contents()
    links = visit.page.eval_on_selector_all("a[href]", "links => links.map(link => link.href)")
    strange = visit.page.evaluate("[typeof hacked, document.querySelectorAll('img, iframe, object, embed').length]")
    visit.close()
    assert (visit.told, visit.asked, strange) == ([], [], ["undefined", 0])
    assert shown in tip
    assert shown in reason
    assert "<img src=x onerror" in chart
    assert told == [shown]
    assert shown.replace("_run", "") in " ".join(kinds)
    assert not [link for link in links if link.startswith("javascript")]


def test_the_policy_lets_no_other_script_run_and_nothing_connect(browser: Any, steady_page: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        visit = Visit(browser, steady_page)
        visit.page.evaluate(
            """address => {
                const script = document.createElement("script");
                script.textContent = "window.hacked = 1";
                document.body.append(script);
                const image = document.createElement("img");
                image.src = address;
                document.body.append(image);
                return fetch(address, { signal: AbortSignal.timeout(2000) }).then(() => "came", () => "refused");
            }""",
            address,
        )
        assert visit.page.evaluate("typeof hacked") == "undefined"
        with pytest.raises(TimeoutError):
            server.accept()
        refused = [message for message in visit.told if "Content Security Policy" in message]
        visit.close()
    assert len(refused) >= 3, visit.told


def test_only_plain_web_addresses_become_links(folder: Path) -> None:
    urls = [
        "https://dashboard.example/x",
        "http://plain.example/",
        "JavaScript:alert(1)",
        "https://a@b.example/",
        "//x",
        "",
    ]
    lake = LakeFiles(folder / "links")
    land(lake, *(classify(f"clr_{n}", usage={"credits": 9 - n}, dashboardUrl=url) for n, url in enumerate(urls)))
    assert re.findall(r'<a href="([^#"]+)"', render_page(facts_of(lake))) == [urls[0]] * 2


# Lakes of all sizes


@pytest.mark.parametrize(
    ("name", "payloads", "shown"),
    [
        ("empty", [], "No runs yet."),
        ("one day", [classify("clr_1", usage={"credits": 1.5})], "too little to go by: 0 of at least 2 whole weeks"),
        ("no day", [{"object": "parse_run", "id": "pr_1", "status": "PROCESSED", "usage": {"credits": 2}}],
         "no run tells when it was created"),
        ("nothing ended", [classify("clr_1", status="PENDING")], "no run has ended"),
    ],
)  # fmt: skip
def test_a_lake_with_little_in_it_makes_a_page_that_says_so(
    browser: Any, folder: Path, name: str, payloads: list[dict[str, Any]], shown: str
) -> None:
    lake = LakeFiles(folder / name.replace(" ", "-"))
    lake.runs_folder.mkdir(parents=True)
    if payloads:
        land(lake, *payloads)
    visit = Visit(browser, write_page(lake), width=390)
    text = visit.text("main")
    visit.close()
    assert (visit.told, visit.asked) == ([], [])
    assert shown in text


def test_400_days_of_all_kinds_products_and_reasons_fit_into_the_file(browser: Any, steady: LakeFiles) -> None:
    facts = facts_of(steady)
    times = [date(2025, 11, 1) + timedelta(days=number) for number in range(400)]
    credit, failure = facts.credits[0], next(row for row in facts.failures if not row["is_total"])
    amount = Decimal("1234567.654321")
    credits = [
        {**credit, "day": day, "kind": kind.object, "product": f"product {number}", "credits": amount}
        for day in times for kind in KINDS for number in range(8)
    ]  # fmt: skip
    failures = [
        {**failure, "day": day, "kind": kind.object, "is_total": reason is None, "reason": reason, "failed": 123,
         "ended": 9876}
        for day in times for kind in KINDS for reason in (None, *sorted(kind.failure_reasons))
    ]  # fmt: skip
    span = {**facts.span, "first_day": times[0], "last_day": times[-1], "runs": 10_000_000}
    full = replace(facts, credits=credits, failures=failures, span=span, last_day=times[-1])
    path = steady.folder.with_name("full.html")
    path.write_text(render_page(full))
    assert path.stat().st_size < 3_000_000
    visit = Visit(browser, path)
    total = visit.text("#sum-credits")
    visit.close()
    # 400 × 8 × 8 lines of 1,234,567.654321.
    assert total == "31,604,931,950.6176 credits"
    assert visit.told == []


def test_a_set_without_end_is_cut_to_its_largest_members_and_no_amount_is_lost(steady: LakeFiles) -> None:
    facts = facts_of(steady)
    credit = facts.credits[0]
    credits = [
        {**credit, "product": f"product {number}", "kind": f"kind {number}_run", "credits": Decimal(number)}
        for number in range(1, 5001)
    ]
    series = make_series(replace(facts, credits=credits))
    assert series.products.labels()[:2] == ["product 5000", "product 4999"]
    assert series.products.labels()[-1] == "other products"
    assert len(series.kinds.labels()) <= len(KINDS) + 4
    assert len(series.credits["c"]) <= 20
    assert sum(series.credits["c"]) == 5000 * 5001 // 2 * 1_000_000


# Every reader


def test_without_scripts_the_tables_hold_the_same(browser: Any, world_page: Path) -> None:
    found: dict[bool, dict[str, list[list[str]]]] = defaultdict(dict)
    for scripts in (True, False):
        visit = Visit(browser, world_page, scripts=scripts)
        found[scripts] = {name: visit.table(name) for name in ("credits", "rates", "reasons")}
        assert (visit.page.locator("noscript p").count() > 0) is not scripts
        visit.close()
    reasons = [[row[0].removesuffix(" *"), *row[1:]] for row in found[True]["reasons"]]
    assert {**found[True], "reasons": reasons} == found[False]


def test_each_chart_has_a_name_and_a_table_behind_it_and_headings_are_in_order(still: Visit) -> None:
    for name in CHARTS:
        chart = still.page.locator(f"[role=img]:has(> #chart-{name})")
        assert chart.get_attribute("role") == "img"
        assert len(chart.get_attribute("aria-label")) > 20
        table = still.page.locator(f"article:has(#chart-{name}) details table").first
        assert table.locator("caption").count() == 1
        assert table.locator("thead th[scope=col]").count() > 1
        assert table.locator("tbody th[scope=row]").count() > 0
    levels = still.page.eval_on_selector_all("h1, h2, h3, h4", "all => all.map(each => Number(each.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    name = "each.textContent.trim() || each.ariaLabel || each.labels?.length"
    nameless = f"all => all.filter(each => !({name})).map(each => each.outerHTML)"
    assert still.page.eval_on_selector_all("button, input, a, [role]:not(svg *)", nameless) == []
    assert still.page.get_attribute("html", "lang") == "en"


@pytest.mark.parametrize("width", [1440, 820, 390])
def test_nothing_is_wider_than_the_screen_and_charts_follow_its_width(world_visit: Visit, width: int) -> None:
    page = world_visit.page
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    page.set_viewport_size({"width": width, "height": 900})
    # Drawing waits a little, until a window that is being dragged has come to rest.
    page.wait_for_timeout(300)
    world_visit.wait_until_drawn()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    chart, place = (page.locator(f"#chart-credits{part}").bounding_box()["width"] for part in (" svg", ""))
    assert abs(chart - place) <= 1


def test_a_dark_theme_is_followed_by_page_and_charts_also_when_it_changes(browser: Any, steady_page: Path) -> None:
    visit = Visit(browser, steady_page)
    seen = []
    for scheme in ("light", "dark"):
        visit.page.emulate_media(color_scheme=scheme)
        visit.page.wait_for_timeout(50)
        visit.wait_until_drawn()
        background = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        label = visit.page.locator("#chart-credits svg text").first.get_attribute("fill")
        bar = visit.page.locator("#chart-credits svg .mark-rect path").first.get_attribute("fill")
        seen.append((background, label, bar))
    visit.close()
    assert seen == [("rgb(244, 245, 247)", "#5a6473", "#c27803"), ("rgb(18, 21, 26)", "#a7b0be", "#e3a32e")]


def test_text_and_colours_stand_out_from_what_is_behind_them() -> None:
    """WCAG 2.2: 4.5 to 1 for text, 3 to 1 for what a chart is made of."""
    style = (Path(cli.__file__).parent / "dashboard" / "page.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    for theme in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", theme))
        assert len(colours) == 18
        for behind in ("page", "surface"):
            low = {name: contrast(colours[name], colours[behind]) for name in ("ink", "muted", "accent", "bad", "good")}
            assert min(low.values()) >= 4.5, low
        parts = {name: contrast(value, colours["surface"]) for name, value in colours.items() if "series" in name}
        assert min(parts.values()) >= 3, parts


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, as WCAG defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


# The command


def test_the_command_writes_one_file_and_opens_it(
    steady: LakeFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or True)
    path = tmp_path / "new" / "page.html"
    assert cli.main(["dashboard", "--lake", str(steady.folder), "--output", str(path), "--open"]) == 0
    assert re.fullmatch(r".*page\.html: 71 runs on one page, 1\.\d MB\n", capsys.readouterr().out)
    assert opened == [path.as_uri()]
    assert [each.name for each in path.parent.iterdir()] == ["page.html"]
    assert path.read_text().startswith("<!DOCTYPE html>")


def test_without_the_charts_package_the_message_says_what_to_install(
    steady: LakeFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.dashboard import library

    library.bundle_library.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "vl_convert", None)
    path = tmp_path / "page.html"
    assert cli.main(["dashboard", "--lake", str(steady.folder), "--output", str(path)]) == 2
    assert "pip install vl-convert-python" in capsys.readouterr().err
    assert not path.exists()
    with pytest.raises(UsageError, match=r"pip install 'extend-pipeline\[dashboard\]'"):
        library.bundle_library()
