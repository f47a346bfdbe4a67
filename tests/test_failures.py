"""The report on failures: rates with their counts and intervals, reasons as they came, unfinished runs apart.

The intervals are worked out here by hand, with z = 1.959964 and z² = 3.841459, as

    (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)
"""

from itertools import count
from typing import Any

import pytest

from pipeline.catalog import Lake
from pipeline.lake import LakeFiles
from tests.conftest import classify, land

COLUMNS = [
    "kind", "reason", "is_total", "documented", "failed", "ended", "rate", "rate_low", "rate_high",
    "rejected", "cancelled", "unfinished",
]  # fmt: skip
_NUMBERS = count()


def runs(number: int, status: str | None, prefix: str = "clr", **fields: Any) -> list[dict[str, Any]]:
    """Return so many runs of a status, each with an ID of its own."""
    name = {"clr": "classify_run", "pr": "parse_run", "workflow_run": "workflow_run", "trr": "transcribe_run"}[prefix]
    return [classify(f"{prefix}_{next(_NUMBERS)}", object=name, status=status, **fields) for _ in range(number)]


def report(lake: LakeFiles, *names: str) -> list[tuple[Any, ...]]:
    """Return columns of the report, in its own order."""
    with Lake(lake.folder) as catalog:
        relation = catalog.failures()
        assert relation.columns == COLUMNS
        return [tuple(row[COLUMNS.index(name)] for name in names) for row in relation.fetchall()]


@pytest.mark.parametrize(
    ("failed", "ended", "rate", "low", "high"),
    [
        # p = 0.333333, z²/2n = 0.640243, 1 + z²/n = 2.280486: middle 0.973576 / 2.280486 = 0.426916
        # z √(0.222222/3 + 3.841459/36) = 1.959964 √0.180781 = 0.833345: margin 0.833345 / 2.280486 = 0.365424
        (1, 3, 0.333333, 0.061492, 0.792340),
        # p = 0: both halves are z²/2n, so 0 to z²/(n + z²) = 3.841459 / 13.841459
        (0, 10, 0.0, 0.0, 0.277533),
        # p = 1: n/(n + z²) = 10 / 13.841459 to 1
        (10, 10, 1.0, 0.722467, 1.0),
        # p = 0.05, z²/2n = 0.019207, 1 + z²/n = 1.038415: middle 0.069207 / 1.038415 = 0.066647
        # z √(0.0475/100 + 3.841459/40000) = 1.959964 √0.000571037 = 0.046836: margin 0.046836 / 1.038415 = 0.045103
        (5, 100, 0.05, 0.021544, 0.111750),
    ],
)
def test_the_rate_is_failed_of_ended_with_its_wilson_interval(
    lake: LakeFiles, failed: int, ended: int, rate: float, low: float, high: float
) -> None:
    land(lake, *runs(failed, "FAILED", failureReason="ABORTED"), *runs(ended - failed, "PROCESSED"))
    total, *reasons = report(lake, "is_total", "failed", "ended", "rate", "rate_low", "rate_high")
    expected = (failed, ended, *(pytest.approx(number, abs=2e-6) for number in (rate, low, high)))
    assert total == (True, *expected)
    assert reasons == ([(False, *expected)] if failed else [])
    assert 0 <= total[4] <= total[3] <= total[5] <= 1


def test_each_reason_has_its_share_of_the_ended_runs_of_its_kind(lake: LakeFiles) -> None:
    land(
        lake,
        *runs(2, "FAILED", failureReason="ABORTED"),
        *runs(1, "FAILED", failureReason="OUT_OF_CREDITS"),
        *runs(5, "PROCESSED"),
        *runs(1, "FAILED", "pr", failureReason="OCR_ERROR"),
        *runs(3, "PROCESSED", "pr"),
    )
    assert report(lake, "kind", "reason", "is_total", "failed", "ended", "rate") == [
        ("classify_run", None, True, 3, 8, 0.375),
        ("classify_run", "ABORTED", False, 2, 8, 0.25),
        ("classify_run", "OUT_OF_CREDITS", False, 1, 8, 0.125),
        ("parse_run", None, True, 1, 4, 0.25),
        ("parse_run", "OCR_ERROR", False, 1, 4, 0.25),
    ]
    # Of the reason's own share: p = 0.25, n = 8: middle (0.25 + 0.240091) / 1.480182 = 0.331102,
    # margin 1.959964 √(0.1875/8 + 3.841459/256) / 1.480182 = 0.384289 / 1.480182 = 0.259623
    low, high = report(lake, "rate_low", "rate_high")[1]
    assert (low, high) == (pytest.approx(0.071479, abs=2e-6), pytest.approx(0.590725, abs=2e-6))


def test_reasons_are_shown_as_they_came_with_the_documented_ones_of_their_kind_marked(lake: LakeFiles) -> None:
    land(
        lake,
        *runs(6, "FAILED", failureReason="PARSING_ERROR"),
        *runs(5, "FAILED", failureReason="parsing_error"),
        *runs(4, "FAILED", failureReason="OCR_ERROR"),
        *runs(3, "FAILED", failureReason="QUOTA é <b>"),
        *runs(2, "FAILED"),
        *runs(1, "FAILED", failureReason=""),
        *runs(1, "FAILED", "pr", failureReason="OCR_ERROR"),
        *runs(1, "FAILED", "workflow_run", failureReason="PARSING_ERROR"),
    )
    assert report(lake, "kind", "reason", "is_total", "documented", "failed") == [
        ("classify_run", None, True, False, 21),
        ("classify_run", "PARSING_ERROR", False, True, 6),
        ("classify_run", "parsing_error", False, False, 5),
        ("classify_run", "OCR_ERROR", False, False, 4),
        ("classify_run", "QUOTA é <b>", False, False, 3),
        ("classify_run", None, False, False, 2),
        ("classify_run", "", False, False, 1),
        ("parse_run", None, True, False, 1),
        ("parse_run", "OCR_ERROR", False, True, 1),
        ("workflow_run", None, True, False, 1),
        ("workflow_run", "PARSING_ERROR", False, False, 1),
    ]


def test_rejected_and_cancelled_runs_stand_beside_the_rate_and_unfinished_ones_apart(lake: LakeFiles) -> None:
    name = "workflow_run"
    land(
        lake,
        *runs(3, "PROCESSED", name),
        *runs(1, "FAILED", name),
        *runs(5, "REJECTED", name),
        *runs(4, "CANCELLED", name),
        *runs(1, "PENDING", name),
        *runs(1, "PROCESSING", name),
        *runs(1, "NEEDS_REVIEW", name),
        *runs(1, "CANCELLING", name),
    )
    counts = (1, 4, 0.25, 5, 4, 4)
    assert report(lake, "is_total", "failed", "ended", "rate", "rejected", "cancelled", "unfinished") == [
        (True, *counts),
        (False, *counts),
    ]


def test_a_status_that_is_not_known_or_not_there_counts_as_unfinished(lake: LakeFiles) -> None:
    land(lake, *runs(2, "EXPIRED"), *runs(3, "failed"), *runs(1, None), *runs(1, "PROCESSED"))
    assert report(lake, "is_total", "failed", "ended", "rate", "unfinished") == [(True, 0, 1, 0.0, 6)]


def test_a_kind_with_no_ended_run_has_no_rate(lake: LakeFiles) -> None:
    land(lake, *runs(2, "PENDING"))
    assert report(lake, "kind", "failed", "ended", "rate", "rate_low", "rate_high", "unfinished") == [
        ("classify_run", 0, 0, None, None, None, 2)
    ]


def test_a_reason_left_on_a_run_that_did_not_fail_is_no_failure(lake: LakeFiles) -> None:
    land(lake, *runs(1, "CANCELLED", failureReason="ABORTED"), *runs(1, "PROCESSED"))
    assert report(lake, "is_total", "failed", "ended", "cancelled") == [(True, 0, 1, 1)]


def test_a_kind_that_is_not_known_yet_is_reported_like_the_others(lake: LakeFiles) -> None:
    land(lake, *runs(1, "FAILED", "trr", failureReason="NEW"), *runs(1, "PROCESSED", "trr"))
    assert report(lake, "kind", "reason", "is_total", "documented", "failed", "ended") == [
        ("transcribe_run", None, True, False, 1, 2),
        ("transcribe_run", "NEW", False, False, 1, 2),
    ]


def test_runs_whose_kind_nothing_tells_are_reported_too(lake: LakeFiles) -> None:
    land(lake, {"id": "odd_1", "status": "FAILED", "failureReason": "NEW"})
    assert report(lake, "kind", "reason", "is_total", "failed") == [(None, None, True, 1), (None, "NEW", False, 1)]


def test_a_lake_without_runs_has_no_failures(lake: LakeFiles) -> None:
    lake.runs_folder.mkdir(parents=True)
    assert report(lake, "kind") == []
