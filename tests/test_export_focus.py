"""The FOCUS dataset: rows worked out by hand, the world's total to the last digit, and what must be refused."""

import csv
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.cli import main
from pipeline.errors import UsageError
from pipeline.export.focus import Terms, export_focus, read_terms
from pipeline.lake import LakeFiles
from pipeline.sandbox.world import World
from tests.conftest import classify, land
from tests.worlds import make_squeezed_world

pytestmark = pytest.mark.long

Row = dict[str, Any]

MANDATORY = (
    "BilledCost BillingAccountId BillingAccountName BillingCurrency BillingPeriodEnd BillingPeriodStart ChargeCategory "
    "ChargeClass ChargeDescription ChargePeriodEnd ChargePeriodStart ContractedCost EffectiveCost InvoiceIssuerName "
    "ListCost PricingQuantity PricingUnit ProviderName PublisherName ServiceCategory ServiceName"
).split()
"""The 21 columns that FOCUS 1.2 wants of everybody."""
VIRTUAL_CURRENCY = (
    "ConsumedQuantity ConsumedUnit ContractedUnitPrice ListUnitPrice PricingCategory PricingCurrency "
    "PricingCurrencyContractedUnitPrice PricingCurrencyEffectiveCost PricingCurrencyListUnitPrice SkuId SkuMeter "
    "SkuPriceDetails SkuPriceId SubAccountId SubAccountName Tags ChargeFrequency InvoiceId ServiceSubcategory "
    "CommitmentDiscountStatus ResourceId ResourceType"
).split()
PAYG = Terms(Decimal("0.0125"), Decimal("0.015"))
NULLABLE = {"ChargeClass", "CommitmentDiscountStatus", "InvoiceId", "ResourceId", "ResourceType", "SubAccountId",
            "SubAccountName", "Tags"}  # fmt: skip


def entry(run_id: str, kind: str, credits: float, *charges: tuple[str, str, float, float]) -> Row:
    lines = [dict(zip(("product", "unit", "quantity", "credits"), each, strict=True)) for each in charges]
    return {"object": kind, "id": run_id, "credits": credits, "charges": lines} if lines else {
        "object": kind, "id": run_id, "credits": credits}  # fmt: skip


def usage(credits: float, total: float, *entries: Row) -> Row:
    return {"credits": credits, "totalCredits": total, "breakdown": list(entries)}


def dataset(lake: LakeFiles, tmp_path: Path, terms: Terms = PAYG) -> list[Row]:
    path = tmp_path / "focus.parquet"
    export_focus(lake.folder, path, terms, force=True)
    rows: list[Row] = pq.read_table(path).to_pylist()
    return rows


def only(rows: list[Row], **wanted: Any) -> Row:
    (row,) = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return row


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# Rows worked out by hand


def test_a_line_is_priced_by_its_unit_and_stands_in_its_hour_and_month(lake: LakeFiles, tmp_path: Path) -> None:
    run = classify(
        "clr_1", createdAt="2026-11-02T09:47:13.250Z", metadata={"costCenter": "CC-7", "urgent": True, "n": 1.5},
        classifier={"id": "cl_1", "name": "Mailroom"}, classifierVersion={"id": "clv_1", "version": "2.0"},
        file={"object": "file", "id": "file_1", "name": "a.pdf", "type": "PDF"},
        usage=usage(0.9, 0.9, entry("clr_1", "classify_run", 0.9, ("classification_light", "page", 3, 0.9))),
    )  # fmt: skip
    land(lake, run)
    (row,) = dataset(lake, tmp_path)
    # 0.9 credits on 3 pages are 0.3 a page; at 0.0125 USD a credit 0.00375 USD a page and 0.01125 USD together.
    assert row == {
        "BilledCost": Decimal("0.011250000000"), "EffectiveCost": Decimal("0.011250000000"),
        "ContractedCost": Decimal("0.011250000000"), "ContractedUnitPrice": Decimal("0.003750000000"),
        "ListCost": Decimal("0.013500000000"), "ListUnitPrice": Decimal("0.004500000000"),
        "PricingQuantity": Decimal("3.000000"), "PricingUnit": "Pages",
        "ConsumedQuantity": Decimal("3.000000"), "ConsumedUnit": "Pages",
        "PricingCurrency": "Credits", "BillingCurrency": "USD",
        "PricingCurrencyContractedUnitPrice": Decimal("0.300000000000"),
        "PricingCurrencyListUnitPrice": Decimal("0.300000000000"),
        "PricingCurrencyEffectiveCost": Decimal("0.900000"),
        "ChargePeriodStart": at("2026-11-02T09:00:00"), "ChargePeriodEnd": at("2026-11-02T10:00:00"),
        "BillingPeriodStart": at("2026-11-01"), "BillingPeriodEnd": at("2026-12-01"),
        "ChargeCategory": "Usage", "ChargeClass": None, "ChargeFrequency": "Usage-Based",
        "ChargeDescription": "classification_light of classify_run",
        "BillingAccountId": "extend", "BillingAccountName": "extend", "SubAccountId": None, "SubAccountName": None,
        "InvoiceId": None, "InvoiceIssuerName": "Extend", "ProviderName": "Extend", "PublisherName": "Extend",
        "CommitmentDiscountStatus": None, "PricingCategory": "Standard",
        "ServiceCategory": "AI and Machine Learning", "ServiceSubcategory": "Other (AI and Machine Learning)",
        "ServiceName": "classify_run", "ResourceId": "clr_1", "ResourceType": "classify_run",
        "SkuId": "classification_light/page", "SkuMeter": "classification_light per page",
        "SkuPriceId": "classification_light/page@0.3", "SkuPriceDetails": '{"x_CreditsPerUnit":0.3}',
        "Tags": '{"costCenter":"CC-7","n":1.5,"urgent":true}',
        "x_Basis": "own", "x_CausedByRunId": None, "x_ChargePeriodBasis": "created", "x_FileId": "file_1",
        "x_FileName": "a.pdf", "x_FileType": "PDF", "x_Line": 1, "x_ProcessorId": "cl_1",
        "x_ProcessorName": "Mailroom", "x_ProcessorVersion": "2.0", "x_Product": "classification_light",
        "x_Source": None, "x_Status": "PROCESSED", "x_Unit": "page",
    }  # fmt: skip


def test_a_price_that_12_decimals_cannot_hold_is_a_price_by_the_credit(lake: LakeFiles, tmp_path: Path) -> None:
    land(lake, classify("clr_1", usage=usage(1, 1, entry("clr_1", "classify_run", 1, ("sheet", "cell", 3, 1)))))
    (row,) = dataset(lake, tmp_path)
    assert (row["PricingQuantity"], row["PricingUnit"]) == (Decimal("1.000000"), "Credits")
    assert (row["ContractedUnitPrice"], row["ContractedCost"]) == (Decimal("0.0125"), Decimal("0.0125"))
    assert (row["ConsumedQuantity"], row["ConsumedUnit"]) == (Decimal("3.000000"), "Cells")
    assert (row["SkuId"], row["SkuPriceId"]) == ("sheet/cell", "sheet/cell@credit")


def test_a_price_in_credits_that_12_decimals_cannot_hold_counts_even_where_the_one_in_dollars_is_exact(
    lake: LakeFiles, tmp_path: Path
) -> None:
    land(lake, classify("clr_1", usage=usage(1, 1, entry("clr_1", "classify_run", 1, ("sheet", "cell", 3, 1)))))
    # A third of a credit at 0.03 USD is 0.01 USD to the last digit, and 0.333333333333 credits, which times 3 is not 1.
    (row,) = dataset(lake, tmp_path, Terms(Decimal("0.03"), Decimal("0.06")))
    assert (row["PricingUnit"], row["PricingCurrencyContractedUnitPrice"]) == ("Credits", Decimal(1))


@pytest.mark.parametrize(
    ("quantity", "credits", "unit", "expected"),
    [
        # Quantity, unit, price in credits and in USD.
        (0.05, 4, "usd", ("0.05", "USD", "80", "1")),
        (0, 0.5, "page", ("0.5", "Credits", "1", "0.0125")),
        (2, 0, "page", ("2", "Pages", "0", "0")),
        (2, -1, "page", ("-1", "Credits", "1", "0.0125")),
        (-2, -1, "page", ("-1", "Credits", "1", "0.0125")),
        (7, 7, "furlong", ("7", "furlong", "1", "0.0125")),
        (3, 999_999_999.999999, "page", ("999999999.999999", "Credits", "1", "0.0125")),
    ],
)
def test_odd_quantities_are_priced_so_that_the_product_is_the_cost(
    lake: LakeFiles, tmp_path: Path, quantity: float, credits: float, unit: str, expected: tuple[str, ...]
) -> None:
    charged = entry("clr_1", "classify_run", credits, ("p", unit, quantity, credits))
    land(lake, classify("clr_1", usage=usage(credits, credits, charged)))
    (row,) = dataset(lake, tmp_path)
    found = (row["PricingQuantity"], row["PricingCurrencyContractedUnitPrice"], row["ContractedUnitPrice"])
    assert (found[0], row["PricingUnit"], *found[1:]) == (
        Decimal(expected[0]), expected[1], Decimal(expected[2]), Decimal(expected[3])
    )  # fmt: skip
    assert row["ContractedUnitPrice"] * row["PricingQuantity"] == row["ContractedCost"]
    assert row["ContractedCost"] == Decimal(str(credits)) * Decimal("0.0125")


def test_a_line_without_a_product_is_a_charge_by_the_credit(lake: LakeFiles, tmp_path: Path) -> None:
    land(lake, classify("clr_1", usage={"credits": 0.3}))
    row = only(dataset(lake, tmp_path), ResourceId="clr_1")
    assert (row["SkuId"], row["SkuMeter"], row["ConsumedQuantity"], row["ConsumedUnit"], row["PricingUnit"]) == (
        "classify_run/credit", "classify_run per credit", Decimal("0.300000"), "Credits", "Credits",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("created", "period", "month"),
    [
        ("2026-11-30T23:59:59.999999Z", "2026-11-30T23:00:00", "2026-11-01"),
        ("2026-12-01T00:00:00Z", "2026-12-01T00:00:00", "2026-12-01"),
        ("2026-12-01T00:30:00+01:00", "2026-11-30T23:00:00", "2026-11-01"),
        ("2024-02-29T12:00:00Z", "2024-02-29T12:00:00", "2024-02-01"),
    ],
)
def test_periods_are_half_open_hours_and_calendar_months_in_utc(
    lake: LakeFiles, tmp_path: Path, created: str, period: str, month: str
) -> None:
    land(lake, classify("clr_1", createdAt=created, usage={"credits": 1}))
    (row,) = dataset(lake, tmp_path)
    assert row["ChargePeriodStart"] == at(period)
    assert row["ChargePeriodEnd"] == at(period) + timedelta(hours=1)
    assert row["BillingPeriodStart"] == at(month)
    following = (at(month) + timedelta(days=31)).replace(day=1)
    assert row["BillingPeriodEnd"] == following
    assert row["ChargePeriodEnd"] <= row["BillingPeriodEnd"]


def test_a_charge_without_a_known_time_stands_near_it_and_says_on_what(lake: LakeFiles, tmp_path: Path) -> None:
    file = {"object": "file", "id": "file_1", "name": "a.png", "createdAt": "2026-10-31T23:59:59Z"}
    parse = {"object": "parse_run", "status": "PROCESSED", "usage": {"credits": 2}}
    workflow = {"object": "workflow_run", "id": "workflow_run_1", "status": "PROCESSED",
                "initialRunAt": "2026-09-03T04:05:06Z", "files": [],
                "usage": usage(3, 3, entry("exr_8", "extract_run", 3))}  # fmt: skip
    land(lake, {**parse, "id": "pr_1", "file": file}, {**parse, "id": "pr_2"}, workflow)
    rows = dataset(lake, tmp_path)
    # The third was fetched at noon of 2026-11-03 (see conftest), which is the last time that it can be of.
    found = {row["ResourceId"]: (row["x_ChargePeriodBasis"], row["ChargePeriodStart"]) for row in rows}
    assert found == {
        "pr_1": ("file", at("2026-10-31T23:00:00")),
        "pr_2": ("fetched", at("2026-11-03T12:00:00")),
        "exr_8": ("first run", at("2026-09-03T04:00:00")),
    }


def test_tags_are_one_flat_object_of_scalars(lake: LakeFiles, tmp_path: Path) -> None:
    nested = {"a": {"b": [1, "x"]}, "list": [1, 2], "n": None, 'quo"te.[0]': "v\n", "number": 12345678901234567890}
    land(lake, classify("clr_1", metadata=nested, usage={"credits": 1}),
         classify("clr_2", metadata={}, usage={"credits": 1}),
         classify("clr_3", metadata={"k": "[not nested] {"}, usage={"credits": 1}))  # fmt: skip
    tags = {row["ResourceId"]: row["Tags"] for row in dataset(lake, tmp_path)}
    assert tags == {
        "clr_1": '{"a":"{\\"b\\":[1,\\"x\\"]}","list":"[1,2]","n":null,"number":12345678901234567890,'
                 '"quo\\"te.[0]":"v\\n"}',
        "clr_2": None,
        "clr_3": '{"k":"[not nested] {"}',
    }  # fmt: skip


def test_prepaid_usage_bills_nothing_and_costs_the_same(lake: LakeFiles, tmp_path: Path) -> None:
    land(lake, classify("clr_1", usage={"credits": 4}))
    (row,) = dataset(lake, tmp_path, Terms(Decimal("0.01"), Decimal("0.0125"), "prepaid", "Acme"))
    assert (row["BilledCost"], row["EffectiveCost"], row["ListCost"]) == (0, Decimal("0.04"), Decimal("0.05"))
    assert (row["BillingAccountId"], row["BillingAccountName"]) == ("Acme", "Acme")


# The whole of it


@pytest.fixture(scope="module")
def world() -> World:
    """A world with all kinds of run, of few days."""
    return make_squeezed_world(seed=11, runs=600)


@pytest.fixture(scope="module")
def world_lake(world: World, tmp_path_factory: pytest.TempPathFactory) -> LakeFiles:
    lake = LakeFiles(tmp_path_factory.mktemp("focus") / "lake")
    land(lake, *(world.detail(run_id) for run_id in world.run_ids()))
    return lake


@pytest.mark.parametrize("rate", ["0.0125", "0.012345"])
def test_the_total_is_the_worlds_and_every_cost_is_price_times_quantity(
    world: World, world_lake: LakeFiles, tmp_path: Path, rate: str
) -> None:
    terms = Terms(Decimal(rate), Decimal("0.0137"))
    path = tmp_path / "focus.parquet"
    totals = export_focus(world_lake.folder, path, terms)
    table = pq.read_table(path)
    assert table.column_names[:43] == sorted([*MANDATORY, *VIRTUAL_CURRENCY])
    assert all(name.startswith("x_") for name in table.column_names[43:])
    rows = table.to_pylist()
    expected = world.answers()
    by_kind: dict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        by_kind[row["ServiceName"]] += row["PricingCurrencyEffectiveCost"]
        assert row["ContractedUnitPrice"] * row["PricingQuantity"] == row["ContractedCost"] == row["BilledCost"]
        assert row["ListUnitPrice"] * row["PricingQuantity"] == row["ListCost"]
        credits = row["PricingCurrencyEffectiveCost"]
        assert row["PricingCurrencyContractedUnitPrice"] * row["PricingQuantity"] == credits
        assert row["EffectiveCost"] == credits * terms.rate
        assert row["ListCost"] == credits * terms.list_rate
        assert {name for name in table.column_names[:43] if row[name] is None} <= NULLABLE
        assert row["ChargePeriodStart"] < row["ChargePeriodEnd"] <= row["BillingPeriodEnd"]
        assert row["BillingPeriodStart"] <= row["ChargePeriodStart"]
        assert row["SkuPriceId"].startswith(row["SkuId"])
    kinds: dict[str, Decimal] = defaultdict(Decimal)
    for (_day, kind), credits in expected.credits.items():
        kinds[kind] += credits
    assert by_kind == kinds
    assert (totals.charges, totals.credits, totals.effective_cost) == (
        len(rows), expected.total, expected.total * terms.rate,
    )  # fmt: skip
    undated = sum((credits for (day, _kind), credits in expected.credits.items() if day is None), Decimal(0))
    assert sum(totals.undated.values()) == undated > 0
    starts = [row["ChargePeriodStart"] for row in rows]
    assert starts == sorted(starts)


def test_csv_says_what_parquet_says(world_lake: LakeFiles, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("focus.parquet", "focus.csv")]
    totals = [export_focus(world_lake.folder, path, PAYG) for path in paths]
    assert totals[0] == totals[1]
    rows = pq.read_table(paths[0]).to_pylist()
    with paths[1].open(newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert len(written) == len(rows)
    for row, cells in zip(rows, written, strict=True):
        for name, value in row.items():
            if isinstance(value, datetime):
                value = f"{value:%Y-%m-%dT%H:%M:%SZ}"
            shown = "" if value is None else str(value) if not isinstance(value, Decimal) else f"{value:f}"
            assert cells[name].removeprefix("'") == shown.removeprefix("'"), name


def test_the_same_lake_gives_the_same_file(world_lake: LakeFiles, tmp_path: Path) -> None:
    contents = set()
    for number in range(2):
        path = tmp_path / f"{number}.csv"
        export_focus(world_lake.folder, path, PAYG)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_an_empty_lake_gives_the_columns_and_no_rows(lake: LakeFiles, tmp_path: Path) -> None:
    lake.runs_folder.mkdir(parents=True)
    assert dataset(lake, tmp_path) == []
    assert len(pq.read_schema(tmp_path / "focus.parquet").names) == 57


# What is refused


@pytest.mark.parametrize(
    ("rate", "list_rate", "words"),
    [
        (None, None, "FOCUS allows no charge without its cost, and 0 would be false"),
        (None, "0.0125", "no rate"),
        ("0", None, "--rate 0: not what a credit can cost"),
        ("-0.01", None, "--rate -0.01: not what"),
        ("cheap", None, "--rate cheap: not what"),
        ("nan", None, "not what a credit can cost"),
        ("Infinity", None, "not what a credit can cost"),
        ("1000000", None, "not what a credit can cost"),
        ("0.01", "1e-7", "--list-rate 1e-7: at most 6 decimals"),
        ("0.0000001", None, "--rate 0.0000001: at most 6 decimals"),
    ],
)
def test_rates_that_cannot_be_are_refused(rate: str | None, list_rate: str | None, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_terms(rate, list_rate, "payg", "extend")


def test_the_list_rate_is_the_rate_where_none_is_given() -> None:
    assert read_terms("0.0125", None, "payg", "x") == Terms(Decimal("0.0125"), Decimal("0.0125"), "payg", "x")


def test_without_a_rate_nothing_is_written(lake: LakeFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    land(lake, classify(usage={"credits": 1}))
    output = tmp_path / "focus.parquet"
    assert main(["export", "focus", "--lake", str(lake.folder), "--output", str(output)]) == 2
    assert "0 would be false" in capsys.readouterr().err
    assert not output.exists()


def test_the_command_says_what_it_wrote_and_what_is_not_known(
    lake: LakeFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parse = {"object": "parse_run", "id": "pr_1", "status": "PROCESSED", "usage": {"credits": 2.5}}
    land(lake, classify("clr_1", usage={"credits": 1}), classify("clr_2"), parse)
    output = tmp_path / "focus.csv"
    arguments = ["export", "focus", "--rate", "0.0125", "--lake", str(lake.folder), "--output", str(output)]
    assert main(arguments) == 0
    told = capsys.readouterr()
    # 3.5 credits at 0.0125 are 0.04375.
    assert (
        told.out == f"{output}: 2 charges of 2026-11, 3.5 credits, 0.04375 USD, of which 0.04375 USD billed as used\n"
    )
    assert told.err.splitlines() == [
        "2.5 credits have no known time and stand near it: 2.5 at the time they were fetched (x_ChargePeriodBasis)",
        "1 run has unknown credits and is not in it: pipeline report credits says why",
    ]
    assert main(arguments) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0


def test_a_name_without_a_known_ending_is_refused(lake: LakeFiles, tmp_path: Path) -> None:
    land(lake, classify())
    with pytest.raises(UsageError, match=r"ends in \.csv or \.parquet"):
        export_focus(lake.folder, tmp_path / "focus.xlsx", PAYG)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lake"]
