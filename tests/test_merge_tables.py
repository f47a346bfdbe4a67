"""Merging many runs at once comes to what merging them one by one does."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.arrow_schemas import RUNS_FILE_SCHEMA
from pipeline.merge import merge_rows, same_content
from pipeline.merge_tables import is_same_content, is_same_row, merge_runs, merge_tables
from pipeline.schema import SOURCES
from tests.test_merge import Row, at, payload_row, payload_rows, some_rows


def table_of(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=RUNS_FILE_SCHEMA)


some_made = st.lists(payload_rows, min_size=1, max_size=4).map(merge_rows)
some_deleted = st.tuples(some_made, st.sampled_from([None, at(9), at(11), at(13)])).map(
    lambda pair: {**pair[0], "deleted_at": pair[1]}
)
some_pairs = st.lists(st.tuples(payload_rows | some_deleted, some_deleted), min_size=0, max_size=6)


def assert_merged_alike(pairs: list[tuple[Row, Row]]) -> None:
    ones, others = table_of([one for one, _ in pairs]), table_of([other for _, other in pairs])
    expected = [merge_rows([one, other]) for one, other in zip(ones.to_pylist(), others.to_pylist(), strict=True)]
    merged = merge_tables(ones, others)
    assert merged.to_pylist() == expected
    assert merged.schema == RUNS_FILE_SCHEMA
    assert merge_tables(others, ones).to_pylist() == expected
    merged.validate(full=True)


@settings(max_examples=60, deadline=None)
@given(pairs=some_pairs)
def test_many_pairs_come_to_what_each_comes_to_by_itself(pairs: list[tuple[Row, Row]]) -> None:
    assert_merged_alike(pairs)


@pytest.mark.long
@settings(max_examples=600, deadline=None)
@given(pairs=some_pairs)
def test_very_many_pairs_come_to_what_each_comes_to_by_itself(pairs: list[tuple[Row, Row]]) -> None:
    assert_merged_alike(pairs)


@settings(max_examples=60, deadline=None)
@given(rows=some_rows)
def test_rows_merged_one_after_the_other_come_to_the_one_row(rows: list[Row]) -> None:
    merged = table_of(rows[:1])
    for row in rows[1:]:
        merged = merge_tables(table_of([row]), merged)
    assert merged.to_pylist() == [merge_rows(table_of(rows).to_pylist())]


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(payload_rows, max_size=8), data=st.data())
def test_several_rows_of_several_runs_come_to_one_row_each(rows: list[Row], data: st.DataObject) -> None:
    run_ids = data.draw(st.lists(st.sampled_from(["clr_3", "clr_1", "clr_2"]), min_size=len(rows), max_size=len(rows)))
    rows = [{**row, "run_id": run_id} for row, run_id in zip(rows, run_ids, strict=True)]
    by_run = {run_id: [row for row in rows if row["run_id"] == run_id] for run_id in sorted(set(run_ids))}
    assert merge_runs(table_of(rows)).to_pylist() == [
        merge_rows(table_of(its).to_pylist()) if len(its) > 1 else table_of(its).to_pylist()[0]
        for its in by_run.values()
    ]


@settings(max_examples=60, deadline=None)
@given(pairs=some_pairs)
def test_what_is_the_same_is_told_as_row_by_row(pairs: list[tuple[Row, Row]]) -> None:
    ones, others = table_of([one for one, _ in pairs]), table_of([other for _, other in pairs])
    rows = list(zip(ones.to_pylist(), others.to_pylist(), strict=True))
    assert is_same_content(ones, others).tolist() == [same_content(one, other) for one, other in rows]
    assert is_same_row(ones, others).tolist() == [one == other for one, other in rows]
    assert is_same_row(ones, ones).all()


def test_a_summary_over_a_detail_says_what_came_from_which_as_worked_out_by_hand() -> None:
    detail = payload_row(updated_at=at(10), file_name="a.pdf", credits=None, is_detail=True, fetched_at=at(11))
    summary = payload_row(updated_at=at(10, 30), file_name=None, status="REVIEWED", fetched_at=at(12))
    (row,) = merge_tables(table_of([summary]), table_of([detail])).to_pylist()
    ten = 1_793_700_000_000_000  # 2026-11-03T10:00:00Z, by `date`
    half, hour = 1_800_000_000, 3_600_000_000
    assert row["status"] == "REVIEWED"
    assert (row["file_name"], row["is_detail"]) == ("a.pdf", False)
    # The detail was PROCESSED, which says that it has no failure reason or message.
    assert row[SOURCES.name] == (
        f'[[{ten + half},{ten + 2 * hour},["kind","status","updated_at"]],'
        f'[{ten},{ten + hour},["failure_reason","failure_message","file_name","is_detail"]]]'
    )


def test_thousands_of_pairs_are_merged_each_with_its_own() -> None:
    count = 5_000
    stored = [
        payload_row(run_id=f"clr_{number}", updated_at=at(10), source=f"s{number}", fetched_at=at(11))
        for number in range(count)
    ]
    newer = [
        {**row, "updated_at": at(10) + timedelta(seconds=1), "source": None, "fetched_at": at(12)} for row in stored
    ]
    merged = merge_tables(table_of(newer), table_of(stored))
    assert merged["source"].to_pylist() == [f"s{number}" for number in range(count)]
    assert set(merged["updated_at"].to_pylist()) == {at(10) + timedelta(seconds=1)}
    assert not np.any(is_same_content(merged, table_of(stored)))
