"""What the notebooks share: which lake they ask, and how values from outside look in a plot."""

from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from pipeline.errors import UsageError
from pipeline.lake import LakeFiles
from pipeline.notebook import as_label, lake_or_demo, month_labels
from tests.conftest import classify, land


def test_the_lake_that_the_environment_names_is_asked_and_no_other_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    land(LakeFiles(own), classify("clr_mine"))
    with lake_or_demo(tmp_path / "demo", env={"PIPELINE_LAKE": str(own)}) as lake:
        assert lake.sql("SELECT run_id FROM runs").fetchall() == [("clr_mine",)]
    assert not (tmp_path / "demo").exists()
    assert str(tmp_path) not in capsys.readouterr().out, "a notebook's saved output would name the folder"


def test_a_lake_of_ones_own_that_is_not_there_is_an_error_and_not_the_demo(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no lake here"):
        lake_or_demo(tmp_path / "demo", env={"PIPELINE_LAKE": str(tmp_path / "own")})


def test_a_demo_lake_that_is_there_is_asked_as_it_is(tmp_path: Path) -> None:
    land(LakeFiles(tmp_path / "demo"), classify("clr_kept"))
    with lake_or_demo(tmp_path / "demo", env={}) as lake:
        assert lake.sql("SELECT run_id FROM runs").fetchall() == [("clr_kept",)]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="left alone"):
        lake_or_demo(tmp_path / "demo", env={})
    assert (tmp_path / "demo" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("Invoices", "Invoices"),
        (None, "not known"),
        (float("nan"), "not known"),
        (pd.NA, "not known"),
        ("Überweisung 📎", "Überweisung ▯"),
        ("red\x1b[31m\u202e", "red\\x1b[31m\\u202e"),
        ("x" * 40, "x" * 31 + "…"),
        ("$5 an $x", "$5 an $x"),
    ],
)
def test_a_label_can_be_drawn_whatever_it_comes_from(value: object, label: str) -> None:
    assert as_label(value) == label


def test_months_are_labelled_with_the_year_where_one_begins() -> None:
    assert month_labels([date(2025, 11, 1), date(2025, 12, 1), date(2026, 1, 1)]) == ["Nov\n2025", "Dec", "Jan\n2026"]


def test_of_many_months_the_first_of_each_quarter_is_labelled() -> None:
    months = [date(2024 + n // 12, n % 12 + 1, 1) for n in range(24)]
    assert [label for label in month_labels(months) if label] == [
        "Jan\n2024", "Apr", "Jul", "Oct", "Jan\n2025", "Apr", "Jul", "Oct",
    ]  # fmt: skip
