"""What changed: Fisher's exact test and Holm's correction, worked out by hand, and who carries a change."""

import pytest

from pipeline.reports.changes import find_changes, fisher_exact, holm


@pytest.mark.parametrize(
    ("table", "p"),
    [
        # All tables of 4 failures among 4 and 4 runs: 1, 16, 36, 16, 1 of 70. As improbable as 3 and 1: all but the 36.
        ((3, 4, 1, 4), 34 / 70),
        # Only the two outermost of 252.
        ((0, 5, 5, 5), 2 / 252),
        # 2 failures among 2 and 3 runs: 3 + 6 + 1 of 10; as improbable as none before and 2 after: 3 + 1.
        ((0, 2, 2, 3), 4 / 10),
        # The table that the literature works out most: 1 of 12 and 9 of 12.
        ((1, 12, 9, 12), 0.002759456185220083),
        ((5, 10, 5, 10), 1.0),
        ((0, 10, 0, 20), 1.0),
        ((10, 10, 20, 20), 1.0),
        ((0, 0, 3, 10), 1.0),
        ((0, 0, 0, 0), 1.0),
    ],
)
def test_fishers_exact_test(table: tuple[int, int, int, int], p: float) -> None:
    assert fisher_exact(*table) == pytest.approx(p, rel=1e-9)
    failed_before, ended_before, failed_after, ended_after = table
    assert fisher_exact(failed_after, ended_after, failed_before, ended_before) == pytest.approx(p, rel=1e-9)


def test_a_great_change_among_many_runs_is_quick_to_tell() -> None:
    assert fisher_exact(20_000, 400_000, 30_000, 400_000) < 1e-100


def test_holm_multiplies_the_smallest_by_all_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_value_that_carries_a_change_comes_first_with_its_part_of_it() -> None:
    rows = [
        ("all", "all", 10, 200, 40, 200),
        ("processor", "a", 5, 100, 35, 100),
        ("processor", "b", 5, 100, 5, 100),
        ("reason", "OCR_ERROR", 0, 0, 30, 30),
        ("reason", "ABORTED", 10, 10, 10, 10),
        ("reason", None, 0, 190, 0, 160),
    ]
    whole, *values = find_changes(rows)
    assert (whole.dimension, whole.carried, whole.p_corrected) == ("all", pytest.approx(0.15), None)
    assert [(change.dimension, change.value) for change in values] == [
        ("reason", "OCR_ERROR"), ("processor", "a"), ("processor", "b"), ("reason", "ABORTED"),
    ]  # fmt: skip
    assert [change.carried for change in values] == pytest.approx([0.15, 0.15, 0.0, 0.0])
    # A reason is held against all that ended, not against the runs that failed with it.
    assert (values[0].ended_before, values[0].ended_after) == (200, 200)
    assert [change.is_significant for change in (whole, *values)] == [True, True, True, False, False]


def test_looking_at_many_makes_one_small_p_no_finding() -> None:
    # Alone, 6 of 50 after 0 of 50 has p = 0.027; among twenty it has 0.53.
    rows = [("all", "all", 0, 1000, 6, 1000), ("processor", "a", 0, 50, 6, 50)]
    rows += [("processor", f"b{number}", 0, 50, 0, 50) for number in range(19)]
    _whole, first, *_rest = find_changes(rows)
    assert first.p == pytest.approx(0.02666, abs=1e-4)
    assert first.p_corrected == pytest.approx(20 * first.p)
    assert not first.is_significant


def test_a_window_without_runs_carries_nothing() -> None:
    (whole,) = find_changes([])
    assert (whole.carried, whole.p, whole.is_significant) == (None, 1.0, False)
