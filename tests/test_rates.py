"""Rates: one number, or a file of them by date; nothing is guessed where it says anything else."""

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.reports.rates import read_rates


@pytest.mark.parametrize("text", ["0.0125", Decimal("0.0125"), 0.0125, " 0.0125"])
def test_a_number_is_the_rate_of_all_days(text: str | Decimal | float) -> None:
    rates = read_rates(text)
    assert (rates.since, rates.usd) == ((date(1, 1, 1),), (Decimal("0.0125"),))


def test_a_file_has_rates_by_date_in_any_order_with_comments_and_a_header(tmp_path: Path) -> None:
    path = tmp_path / "rates.csv"
    path.write_text("\ufeffdate,usd\n# our contract\n2026-07-01, 0.01\n\n2026-01-01,0.0125\n", encoding="utf-8")
    rates = read_rates(str(path))
    assert rates.since == (date(2026, 1, 1), date(2026, 7, 1))
    assert rates.usd == (Decimal("0.0125"), Decimal("0.01"))


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e9", "0.0000000001", "absent.csv", ""])
def test_anything_else_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--rate"):
        read_rates(text)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no rates"),
        ("2026-01-01\n", "rates.csv:1: needs one positive number"),
        ("2026-01-01,0.01,EUR\n", "rates.csv:1: needs one positive number"),
        ("2026-01-01,0\n", "rates.csv:1: needs one positive number"),
        ("date,usd\n1.1.2026,0.01\n", "rates.csv:2: '1.1.2026' is not a day"),
        ("2026-01-01,0.01\n2026-01-01,0.02\n", "rates.csv:2: 2026-01-01 has a rate already"),
    ],
)
def test_a_wrong_line_is_named(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "rates.csv").write_text(content)
    with pytest.raises(UsageError, match=words):
        read_rates(str(tmp_path / "rates.csv"))
