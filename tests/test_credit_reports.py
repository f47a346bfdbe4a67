"""Reports on credits: dimensions, windows, conditions, rates, comparisons, unknown runs by why, what was wasted."""

import json
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog import Lake
from pipeline.errors import UsageError
from pipeline.lake import LakeFiles
from pipeline.loads import Load
from tests.conftest import NOON, land
from tests.test_credit_ledger import Arrival, charge, detail, entry, summary, usage

NOVEMBER_2 = date(2026, 11, 2)


def land_arrivals(lake: LakeFiles, *arrivals: Arrival) -> None:
    load = Load(lake, command="load", source="test")
    for arrival in arrivals:
        body = json.dumps(arrival.payload).encode()
        load.take_run(arrival.payload["id"], body, fetched_at=NOON, is_detail=arrival.is_detail, workspace_id="ws_1")
    load.finish()


def rows(lake: LakeFiles, *names: str, **options: Any) -> list[tuple[Any, ...]]:
    """Return columns of `Lake.credits`, in its own order."""
    with Lake(lake.folder) as catalog:
        relation = catalog.credits(**options)
        return [tuple(row[relation.columns.index(name)] for name in names) for row in relation.fetchall()]


INVOICES = {"extractor": {"id": "ex_1", "name": "Invoices"}, "extractorVersion": {"id": "exv_1", "version": "1.0"}}
PDF = {"object": "file", "id": "file_1", "name": "a.pdf", "type": "PDF", "createdAt": "2026-11-02T09:00:00Z"}


# Whose a line is


def test_a_charge_belongs_to_the_processor_file_and_metadata_of_the_run_that_caused_it(lake: LakeFiles) -> None:
    caused = usage(3, 5, entry("exr_1", 3), entry("pr_1", 2))
    land_arrivals(lake, detail("exr_1", caused, **INVOICES, file=PDF, metadata={"team": "ops"}))
    expected = ("ex_1", "Invoices", "1.0", "file_1", "a.pdf", "PDF", '{"team":"ops"}', "ws_1")
    names = "processor_id, processor_name, processor_version, file_id, file_name, file_type, metadata, workspace_id"
    with Lake(lake.folder) as catalog:
        query = f"SELECT resource_id, {names} FROM credit_ledger ORDER BY ALL"
        assert catalog.sql(query).fetchall() == [("exr_1", *expected), ("pr_1", *expected)]
    # The parse run's own row tells its file and metadata, and still no processor.
    other = {**PDF, "id": "file_2", "name": "b.docx", "type": "DOCX"}
    land_arrivals(lake, summary("pr_1", usage(2), file=other, metadata={"team": "it"}))
    with Lake(lake.folder) as catalog:
        (line,) = catalog.sql(f"SELECT {names} FROM credit_ledger WHERE resource_id = 'pr_1'").fetchall()
    assert line == ("ex_1", "Invoices", "1.0", "file_2", "b.docx", "DOCX", '{"team":"it"}', "ws_1")


def test_a_child_that_only_its_workflow_tells_of_belongs_to_the_workflow_and_others_to_their_own(
    lake: LakeFiles,
) -> None:
    flow = {"workflow": {"id": "wf_1", "name": "Onboarding"}, "workflowVersion": {"id": "wfv_1", "version": "3"}}
    told = usage(6, 6, entry("exr_1", 3), entry("pr_1", 2), entry("clr_1", 1))
    land_arrivals(
        lake,
        detail("workflow_run_1", told, created=None, **flow),
        detail("exr_1", usage(3, 5, entry("exr_1", 3), entry("pr_1", 2)), **INVOICES),
    )
    with Lake(lake.folder) as catalog:
        query = "SELECT resource_id, processor_name, processor_version, basis, caused_by_kind FROM credit_ledger"
        assert sorted(catalog.sql(query).fetchall()) == [
            ("clr_1", "Onboarding", "3", "workflow", "workflow_run"),
            ("exr_1", "Invoices", "1.0", "own", "workflow_run"),
            ("pr_1", "Invoices", "1.0", "breakdown", "extract_run"),
        ]


# By what


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> LakeFiles:
    """A lake with runs of several kinds, days, products and metadata; tests only read it."""
    lake = LakeFiles(tmp_path_factory.mktemp("many") / "lake")
    by_many(lake)
    return lake


def by_many(lake: LakeFiles) -> None:
    both = (charge("extraction_performance", 3), charge("review_agent", 1))
    land_arrivals(
        lake,
        detail("exr_1", usage(4, 4, entry("exr_1", 4, *both)), **INVOICES, file=PDF, metadata={"a/b~": "x"}),
        detail("exr_2", usage(5), created="2026-11-08T23:59:59Z", metadata={"a/b~": 7}),
        detail("exr_3", usage(6), created="2026-11-09T00:00:00Z"),
        detail("clr_1", usage(7), created="2026-12-01T00:00:00Z", status="PROCESSED"),
        detail("pr_1", usage(8), created=None),
    )


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        # 2 November 2026 is a Monday.
        (("day",), [("2026-11-02", 4, 1), ("2026-11-08", 5, 1), ("2026-11-09", 6, 1), ("2026-12-01", 7, 1),
                    (None, 8, 1)]),
        (("week",), [("2026-11-02", 9, 2), ("2026-11-09", 6, 1), ("2026-11-30", 7, 1), (None, 8, 1)]),
        ("month", [("2026-11-01", 15, 3), ("2026-12-01", 7, 1), (None, 8, 1)]),
        ("kind", [("classify_run", 7, 1), ("extract_run", 15, 3), ("parse_run", 8, 1)]),
        ("processor", [("Invoices", 4, 1), (None, 26, 4)]),
        ("version", [("1.0", 4, 1), (None, 26, 4)]),
        ("product", [("extraction_performance", 3, 1), ("review_agent", 1, 1), (None, 26, 4)]),
        ("workspace", [("ws_1", 30, 5)]),
        ("file-type", [("PDF", 4, 1), (None, 26, 4)]),
        ("source", [(None, 30, 5)]),
        ("metadata.a/b~", [("7", 5, 1), ("x", 4, 1), (None, 21, 3)]),
        ("metadata.absent", [(None, 30, 5)]),
        ("all", [("all", 30, 5)]),
    ],
)  # fmt: skip
def test_credits_by_one_dimension(many: LakeFiles, by: Any, expected: list[Any]) -> None:
    name = (by if isinstance(by, str) else by[0]).replace("file-type", "file_type")
    found = rows(many, name, "credits", "charged_runs", by=by)
    assert [(str(place) if isinstance(place, date) else place, *rest) for place, *rest in found] == expected


def test_several_dimensions_are_columns_in_the_order_in_which_they_were_named(many: LakeFiles) -> None:
    with Lake(many.folder) as catalog:
        relation = catalog.credits(["kind", "month", "metadata.a/b~"])
        assert relation.columns[:4] == ["kind", "month", "metadata.a/b~", "credits"]
        assert relation.fetchall()[1][:4] == ("extract_run", date(2026, 11, 1), "7", 5)


HOSTILE = ["x') OR true --", 'x" AS y, 1/0 AS "z', "$.a", "$since", "*", "é 日本"]


def test_a_key_of_metadata_is_only_ever_a_key(lake: LakeFiles) -> None:
    land_arrivals(
        lake, *(detail(f"clr_{number}", usage(number + 1), metadata={key: "v"}) for number, key in enumerate(HOSTILE))
    )
    # 1 to 6 credits, 21 in all.
    with Lake(lake.folder) as catalog:
        for number, key in enumerate(HOSTILE):
            question = catalog.credits_question([f"metadata.{key}"], since="2026-11-01")
            expected = [("v", number + 1), (None, 20 - number)]
            assert catalog.answer(question).columns[0] == f"metadata.{key}"
            assert [row[:2] for row in catalog.answer(question).fetchall()] == expected
            assert [row[:2] for row in catalog.sql(question.as_sql()).fetchall()] == expected


@pytest.mark.parametrize("by", ["", "nothing", "credits", "metadata.", "metadata.a\nb", ("kind", "kind"), ()])
def test_a_dimension_that_is_not_there_is_refused(many: LakeFiles, by: Any) -> None:
    with Lake(many.folder) as catalog, pytest.raises(UsageError, match="--by"):
        catalog.credits(by)


# Windows and conditions


@pytest.mark.parametrize(
    ("options", "credits"),
    [
        ({"since": "2026-11-08"}, 18),
        ({"since": date(2026, 11, 9)}, 13),
        ({"until": "2026-11-08"}, 4),
        ({"since": "2026-11-02", "until": "2026-11-09"}, 9),
        ({"since": "2026-11", "until": "2026-12"}, 15),
        ({"where": "kind = 'extract_run'"}, 15),
        ({"where": "charged_on IS NULL OR product = 'review_agent'"}, 9),
        ({"where": "resource_id LIKE 'exr%' OR true", "since": "2026-12"}, 7),
    ],
)
def test_a_window_is_from_a_day_to_before_another_and_a_condition_narrows_it(
    many: LakeFiles, options: dict[str, Any], credits: int
) -> None:
    assert rows(many, "credits", by="all", **options) == [(credits,)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"since": "yesterday"}, "--since yesterday: not a day"),
        ({"until": "2026-02-30"}, "--until 2026-02-30: not a day"),
        ({"since": "2026-11-02", "until": "2026-11-02"}, "must be before"),
        ({"compare": "next"}, "--compare next"),
        ({"compare": "previous", "rate": "0.01"}, "do not go together"),
    ],
)
def test_a_wrong_window_is_refused(many: LakeFiles, options: dict[str, Any], words: str) -> None:
    with Lake(many.folder) as catalog, pytest.raises(UsageError, match=words):
        catalog.credits(**options)


# What is unknown, and why


def unknown_why(lake: LakeFiles) -> dict[str, str]:
    with Lake(lake.folder) as catalog:
        return dict(catalog.sql("SELECT run_id, why FROM unknown_credits").fetchall())


def test_runs_with_unknown_credits_are_told_apart_by_why(lake: LakeFiles) -> None:
    old, new = "2025-10-06T23:59:59.999999Z", "2025-10-07T00:00:00Z"
    file = {**PDF, "createdAt": old}
    land_arrivals(
        lake,
        detail("clr_1", status="PENDING"),
        detail("clr_2", status="NEW_STATUS", created=old),
        detail("clr_3", status=None),
        detail("workflow_run_4", status="NEEDS_REVIEW", created=None),
        detail("clr_5", status="FAILED", created=old),
        detail("clr_6", status="CANCELLED"),
        detail("clr_7", created=old),
        detail("clr_8", created=new),
        detail("workflow_run_9", status="REJECTED"),
        # Neither tells its creation: one has a first run, the other only a file.
        detail("workflow_run_10", created=None, initialRunAt=old),
        detail("pr_11", created=None, file=file),
        detail("pr_12", created=None),
        # Charged by another's breakdown, so known; and charged itself.
        detail("exr_13", usage(1, 2, entry("exr_13", 1), entry("pr_14", 1))),
        detail("pr_14", created=None),
        detail("workflow_run_15", usage(0, 0), created=None),
    )
    assert unknown_why(lake) == {
        "clr_1": "not finished", "clr_2": "not finished", "clr_3": "not finished", "workflow_run_4": "not finished",
        "clr_5": "failed or cancelled", "clr_6": "failed or cancelled",
        "clr_7": "created before reporting began", "clr_8": "processed but not reported",
        "workflow_run_9": "processed but not reported", "workflow_run_10": "created before reporting began",
        "pr_11": "created before reporting began", "pr_12": "processed but not reported",
    }  # fmt: skip
    names = ("unknown_runs", "unknown_unfinished", "unknown_failed", "unknown_before_reporting", "unknown_not_reported")
    assert rows(lake, "credits", *names, by="all") == [(2, 12, 4, 2, 3, 3)]
    assert rows(lake, "credits", *names, by="all", where="status = 'FAILED'") == [(None, 1, 0, 1, 0, 0)]


# Rates and comparisons


def test_a_rate_prices_every_credit_to_the_last_digit(lake: LakeFiles) -> None:
    # In binary floats 0.3 × 0.0125 summed ten times is 0.0375 and a little.
    land_arrivals(
        lake, *(detail(f"clr_{number}", usage(0.3)) for number in range(10)), detail("pr_1", usage(1), created=None)
    )
    assert rows(lake, "credits", "usd", "unpriced_credits", by="all", rate="0.0125") == [
        (Decimal(4), Decimal("0.05"), Decimal(0))
    ]


def test_rates_by_date_hold_from_their_day_on_and_what_has_none_is_told(lake: LakeFiles, tmp_path: Path) -> None:
    (tmp_path / "rates.csv").write_text("2026-11-02,0.0125\n2026-11-09,0.01\n")
    by_many(lake)
    land_arrivals(lake, detail("clr_9", usage(100), created="2026-11-01T23:59:59Z"))
    # 4 and 5 at 0.0125, 6 and 7 at 0.01; the 100 before the first rate and the 8 of no day have none.
    assert rows(lake, "credits", "usd", "unpriced_credits", by="all", rate=str(tmp_path / "rates.csv")) == [
        (Decimal(130), Decimal("0.2425"), Decimal(108))
    ]


def test_a_window_is_compared_with_the_one_of_the_same_length_before(lake: LakeFiles) -> None:
    land_arrivals(
        lake,
        detail("clr_1", usage(1), created="2026-10-31T23:59:59Z"),
        detail("clr_2", usage(2), created="2026-11-01T00:00:00Z"),
        detail("exr_3", usage(3), created="2026-11-02T00:00:00Z"),
        detail("clr_4", usage(7), created="2026-11-03T00:00:00Z"),
        detail("clr_5", usage(9), created="2026-11-05T00:00:00Z"),
        detail("clr_6", created="2026-11-04T00:00:00Z"),
        detail("clr_7", created="2026-11-01T00:00:00Z"),
    )
    asked = {"compare": "previous", "since": "2026-11-03", "until": "2026-11-05"}
    names = ("credits", "credits_before", "change", "unknown_runs", "unknown_runs_before")
    assert rows(lake, "kind", *names, by="kind", **asked) == [
        ("classify_run", 7, 2, 5, 1, 1),
        ("extract_run", 0, 3, -3, 0, 0),
    ]
    # Day stands beside day.
    assert rows(lake, "day", *names[:3], by="day", **asked) == [
        (date(2026, 11, 3), 7, 2, 5),
        (date(2026, 11, 4), 0, 3, -3),
    ]
    # Without a window: the 30 days to the newest run, 7 October to 5 November, and those before.
    assert rows(lake, *names[:2], by="all", compare="previous") == [(22, 0)]


# The forecast, the costliest, the wasted


def test_the_forecast_is_for_the_month_of_the_newest_run_without_credits_of_no_day(lake: LakeFiles) -> None:
    first = date(2026, 11, 2) - timedelta(weeks=2)
    land_arrivals(
        lake,
        *(detail(f"clr_{n}", usage(2), created=f"{first + timedelta(days=n)}T10:00:00Z") for n in range(14)),
        detail("clr_99", status="PENDING", created="2026-11-02T00:10:00Z"),
        detail("pr_1", usage(500), created=None),
    )
    with Lake(lake.folder) as catalog:
        found = catalog.forecast()
        assert found is not None
        # Received on the 3rd, so the 2nd is whole: without credits. The two weeks to then are 2 each day but for that
        # Monday: Mondays are 1 on average. To come: the 3rd to the 30th, four weeks of 13.
        assert (found.month, found.last_day, found.so_far, found.weeks) == (date(2026, 11, 1), NOVEMBER_2, 2, 2)
        assert found.expected == 2 + 4 * 13
        scaled = catalog.forecast(where="resource_id = 'clr_13'")
        assert scaled is not None
        assert scaled.so_far == 2


def test_a_lake_without_runs_has_no_forecast_and_no_rows(lake: LakeFiles) -> None:
    lake.runs_folder.mkdir(parents=True)
    with Lake(lake.folder) as catalog:
        assert catalog.forecast() is None
        assert catalog.credits().fetchall() == []
        assert catalog.credits(rate="0.01").fetchall() == []
        assert catalog.credits(compare="previous").fetchall() == []
        assert catalog.costliest_runs().fetchall() == []
        assert catalog.wasted_credits().fetchall() == []


def test_the_costliest_run_is_the_one_with_what_it_caused_and_a_workflows_children_count_as_themselves(
    lake: LakeFiles,
) -> None:
    told = usage(20, 20, entry("exr_1", 3), entry("pr_1", 9), entry("clr_1", 8))
    land_arrivals(
        lake,
        detail("workflow_run_1", told, created=None),
        detail("exr_1", usage(3, 12, entry("exr_1", 3), entry("pr_1", 9)), file=PDF, **INVOICES),
        detail("clr_2", usage(10), file={**PDF, "id": "file_2"}),
        detail("pr_3", usage(11), file=PDF),
    )
    with Lake(lake.folder) as catalog:
        runs = catalog.costliest_runs(3).fetchall()
        assert [(row[0], row[1], row[3], row[5]) for row in runs] == [
            ("exr_1", "extract_run", 12, "Invoices"), ("pr_3", "parse_run", 11, None),
            ("clr_2", "classify_run", 10, None),
        ]  # fmt: skip
        files = catalog.costliest_files(2)
        assert files.columns[:3] == ["file_id", "file_name", "file_type"]
        # The parse run that the extraction caused was of the same file.
        assert [(row[0], row[3], row[5]) for row in files.fetchall()] == [("file_1", 23, 3), ("file_2", 10, 1)]


def test_wasted_credits_are_those_of_failed_work_and_of_the_same_work_again(lake: LakeFiles) -> None:
    other = {"extractor": {"id": "ex_1", "name": "Invoices"}, "extractorVersion": {"id": "exv_2", "version": "2.0"}}
    land_arrivals(
        lake,
        # A failed run that was charged, and one whose parse run was.
        detail("exr_1", usage(1), status="FAILED"),
        detail("exr_2", status="FAILED", parseRunId="pr_2"),
        summary("pr_2", usage(2)),
        # A parse run that a second, good run used is not wasted.
        detail("exr_3", status="FAILED", parseRunId="pr_4"),
        detail("exr_4", usage(4), parseRunId="pr_4"),
        summary("pr_4", usage(8)),
        # The same file again: by the same version, by another, in another kind, and once more without a charge.
        detail("exr_5", usage(16), file=PDF, created="2026-11-03T00:00:00Z", **INVOICES),
        detail("exr_6", usage(32), file=PDF, created="2026-11-02T00:00:00Z", **INVOICES),
        detail("exr_7", usage(64), file=PDF, created="2026-11-04T00:00:00Z", **other),
        detail("splr_8", usage(128), file=PDF, created="2026-11-04T00:00:00Z"),
        detail("exr_9", file=PDF, created="2026-11-05T00:00:00Z", **INVOICES),
    )
    with Lake(lake.folder) as catalog:
        assert catalog.wasted_credits("kind").fetchall() == [
            ("failed", "parse_run", 2, 1), ("failed", "extract_run", 1, 1), ("repeated", "extract_run", 16, 1),
        ]  # fmt: skip
        # What was first stays first, though it lies before the window.
        assert catalog.wasted_credits("all", since="2026-11-03").fetchall() == [("repeated", "all", 16, 1)]


# The query itself


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"by": ["metadata.a/b~", "product"], "since": "2026-11", "where": "file_name <> '$since'"},
        {"by": "month", "rate": "0.0125"},
        {"by": "kind", "compare": "previous"},
    ],
)
def test_the_query_with_its_values_written_in_answers_the_same(many: LakeFiles, options: dict[str, Any]) -> None:
    with Lake(many.folder) as catalog:
        written = catalog.credits_question(**options).as_sql()
        bound = catalog.credits(**options).fetchall()
        assert len(bound) > 0
        assert catalog.sql(written).fetchall() == bound


def test_credits_say_of_when_the_data_is(lake: LakeFiles) -> None:
    found = land(lake, detail("clr_1", usage(1)).payload)
    with Lake(lake.folder) as catalog:
        ((as_of,),) = catalog.sql("SELECT ended_at FROM loads WHERE load_id = $id", id=found.load_id).fetchall()
        assert [row[-1] for row in catalog.credits().fetchall()] == [as_of]
