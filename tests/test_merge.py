"""Merge: newer wins, null never erases; neither order nor grouping nor storing in between changes what comes out."""

import io
import itertools
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.arrow_schemas import RUNS_FILE_SCHEMA
from pipeline.merge import day_of, merge_rows, same_content

Row = dict[str, Any]

# Written by hand from the issue; test_schema holds the schema against the same list.
COLUMNS = (
    "run_id kind workspace_id status failure_reason failure_message credits total_credits breakdown created_at "
    "updated_at initial_run_at started_at ended_at reviewed_at processor_id processor_name processor_version_id "
    "processor_version base_processor base_version file_id file_name file_type file_pages file_created_at file_count "
    "parse_run_id batch_id source source_id reviewed edited output_type output_confidence initial_output_type "
    "reviewed_output_type risk_level processing_ms page_count metadata dashboard_url is_detail fetched_at load_id "
    "deleted_at"
).split()


def at(hour: int, minute: int = 0, day: int = 3) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC)


TEN_US = 1_793_700_000_000_000  # 2026-11-03T10:00:00Z, by `date`
HOUR_US = 3_600_000_000


def payload_row(**columns: Any) -> Row:
    """Return the row of one payload: a list summary received at 12:00, unless the columns say otherwise."""
    row: Row = dict.fromkeys(COLUMNS)
    row |= {"run_id": "clr_1", "kind": "classify_run", "status": "PROCESSED"}
    row |= {"is_detail": False, "fetched_at": at(12), "load_id": "L1"}
    assert set(columns) <= set(COLUMNS)
    return row | columns


def stored(row: Row) -> Row:
    """Return a row as it comes back from a day's Parquet file."""
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row], schema=RUNS_FILE_SCHEMA), file, compression="zstd")
    rows: list[Row] = pq.read_table(file).to_pylist()
    assert len(rows) == 1
    return rows[0]


def merged_any_way(*rows: Row) -> Row:
    """Merge rows in every order, at once and one after the other by way of the disk, and see that nothing differs."""
    results = []
    for order in itertools.permutations(rows):
        results.append(merge_rows(order))
        one_by_one = merge_rows(order[:1])
        for row in order[1:]:
            one_by_one = merge_rows([stored(one_by_one), row])
        results.append(one_by_one)
    assert all(result == results[0] for result in results)
    return results[0]


def told(row: Row, names: str) -> tuple[Any, ...]:
    return tuple(row[name] for name in names.split())


# ---------------------------------------------------------------------------------------------------------------------
# One payload


def test_one_payload_is_its_row_and_needs_no_bookkeeping() -> None:
    row = payload_row(updated_at=at(10), credits=Decimal("1.5"), is_detail=True)
    assert merge_rows([row]) == row | {"_sources": None}
    assert list(merge_rows([row])) == [*COLUMNS, "_sources"]


def test_the_same_payload_again_changes_nothing_but_when_and_by_what_it_was_received() -> None:
    first = payload_row(updated_at=at(10), credits=Decimal("1.5"), fetched_at=at(12), load_id="L1")
    again = first | {"fetched_at": at(13), "load_id": "L2"}
    merged = merged_any_way(first, again)
    assert merged == again | {"_sources": None}
    assert same_content(merged, first)


# ---------------------------------------------------------------------------------------------------------------------
# Newer wins


def test_the_later_updated_at_wins_though_it_was_received_earlier() -> None:
    newer = payload_row(updated_at=at(11), status="CANCELLED", file_name="new.pdf", fetched_at=at(12), load_id="L1")
    older = payload_row(updated_at=at(10), status="PENDING", file_name="old.pdf", fetched_at=at(14), load_id="L2")
    merged = merged_any_way(newer, older)
    assert told(merged, "status file_name updated_at") == ("CANCELLED", "new.pdf", at(11))
    assert told(merged, "fetched_at load_id") == (at(14), "L2")


def test_between_equal_updated_at_the_later_received_wins() -> None:
    first = payload_row(updated_at=at(10), file_name="a.pdf", fetched_at=at(12))
    second = payload_row(updated_at=at(10), file_name="b.pdf", fetched_at=at(13))
    assert merged_any_way(first, second)["file_name"] == "b.pdf"


def test_a_change_back_to_an_earlier_value_is_a_change() -> None:
    reviewed = [
        payload_row(updated_at=at(8 + number), reviewed=value, fetched_at=at(12 + number))
        for number, value in enumerate([False, True, False])
    ]
    assert merged_any_way(*reviewed)["reviewed"] is False


def test_false_and_zero_are_values_and_win() -> None:
    older = payload_row(updated_at=at(9), edited=True, file_count=3, credits=Decimal(2), metadata='{"a":1}')
    newer = payload_row(updated_at=at(10), edited=False, file_count=0, credits=Decimal(0), metadata="{}")
    merged = merged_any_way(older, newer)
    assert told(merged, "edited file_count credits metadata") == (False, 0, Decimal(0), "{}")


# ---------------------------------------------------------------------------------------------------------------------
# Null never erases

BREAKDOWN = [{"object": "classify_run", "id": "clr_1", "credits": Decimal(1), "charges": None}]


def test_a_newer_summary_keeps_what_only_the_detail_carries() -> None:
    detail = payload_row(
        updated_at=at(10), is_detail=True, breakdown=BREAKDOWN, output_type="invoice", base_processor="c", credits=None
    )
    summary = payload_row(updated_at=at(11), credits=Decimal(1), reviewed=True, fetched_at=at(13), load_id="L2")
    merged = merged_any_way(detail, summary)
    assert told(merged, "breakdown output_type base_processor credits reviewed updated_at") == (
        BREAKDOWN,
        "invoice",
        "c",
        Decimal(1),
        True,
        at(11),
    )


def test_a_later_summary_brings_the_creation_time_that_a_parse_detail_has_not() -> None:
    detail = payload_row(run_id="pr_1", kind="parse_run", is_detail=True, credits=Decimal(2), fetched_at=at(12))
    summary = payload_row(
        run_id="pr_1", kind="parse_run", created_at=at(9), updated_at=at(10), fetched_at=at(13), batch_id="b"
    )
    merged = merged_any_way(detail, summary)
    assert told(merged, "created_at updated_at credits batch_id is_detail") == (at(9), at(10), Decimal(2), "b", True)


def test_what_is_stored_of_a_mixed_row_says_which_field_came_from_which_payload() -> None:
    detail = payload_row(run_id="pr_1", kind="parse_run", is_detail=True, credits=Decimal(2), fetched_at=at(12))
    summary = payload_row(run_id="pr_1", kind="parse_run", created_at=at(9), updated_at=at(10), fetched_at=at(13))
    assert json.loads(merged_any_way(detail, summary)["_sources"]) == [
        [
            TEN_US + 2 * HOUR_US,
            TEN_US + 2 * HOUR_US,
            ["kind", "status", "failure_reason", "failure_message", "credits", "is_detail"],
        ],
        [TEN_US, TEN_US + 3 * HOUR_US, ["created_at", "updated_at"]],
    ]


def test_a_payload_between_two_that_were_merged_before_finds_its_place() -> None:
    oldest = payload_row(updated_at=at(8), file_name="a.pdf", source="API", fetched_at=at(12))
    newest = payload_row(updated_at=at(10), file_name="c.pdf", fetched_at=at(14))
    between = payload_row(updated_at=at(9), file_name="b.pdf", source="STUDIO", source_id="s", fetched_at=at(13))
    merged = merged_any_way(oldest, newest, between)
    assert told(merged, "file_name source source_id") == ("c.pdf", "STUDIO", "s")


def test_an_old_version_received_late_does_not_make_the_newer_one_look_fresher() -> None:
    newest = payload_row(updated_at=at(11), file_name="a.pdf", fetched_at=at(12))
    late = payload_row(updated_at=at(10), file_name="old.pdf", fetched_at=at(14))
    same_version = payload_row(updated_at=at(11), file_name="b.pdf", fetched_at=at(13))
    merged = merged_any_way(newest, late, same_version)
    assert told(merged, "file_name fetched_at") == ("b.pdf", at(14))


# ---------------------------------------------------------------------------------------------------------------------
# Payloads without updatedAt


def test_a_payload_without_updated_at_counts_as_of_when_it_was_received() -> None:
    detail = payload_row(run_id="pr_1", status="PROCESSED", is_detail=True, fetched_at=at(12))
    earlier = payload_row(run_id="pr_1", status="PROCESSING", updated_at=at(11), fetched_at=at(13))
    later = payload_row(run_id="pr_1", status="FAILED", updated_at=at(12, 30), fetched_at=at(13))
    assert merged_any_way(detail, earlier)["status"] == "PROCESSED"
    assert merged_any_way(detail, later)["status"] == "FAILED"


def test_of_two_payloads_without_updated_at_the_later_received_wins() -> None:
    first = payload_row(run_id="pr_1", status="PROCESSING", is_detail=True, fetched_at=at(12))
    second = payload_row(run_id="pr_1", status="FAILED", is_detail=True, fetched_at=at(13), failure_reason="OCR_ERROR")
    merged = merged_any_way(first, second)
    assert told(merged, "status failure_reason is_detail") == ("FAILED", "OCR_ERROR", True)


# ---------------------------------------------------------------------------------------------------------------------
# A status that rules a field out


@pytest.mark.parametrize("status", ["PENDING", "PROCESSING", "PROCESSED", "NEEDS_REVIEW"])
def test_a_newer_status_that_is_no_failure_clears_the_failure(status: str) -> None:
    failed = payload_row(updated_at=at(9), status="FAILED", failure_reason="OCR_ERROR", failure_message="bad page")
    newer = payload_row(updated_at=at(10), status=status)
    merged = merged_any_way(failed, newer)
    assert told(merged, "status failure_reason failure_message") == (status, None, None)


@pytest.mark.parametrize("status", ["FAILED", "CANCELLED", "CANCELLING", "REJECTED", "BRAND_NEW", None])
def test_a_newer_status_that_may_go_with_a_failure_keeps_it(status: str | None) -> None:
    failed = payload_row(updated_at=at(9), status="FAILED", failure_reason="OCR_ERROR", failure_message="bad page")
    newer = payload_row(updated_at=at(10), status=status)
    merged = merged_any_way(failed, newer)
    assert told(merged, "status failure_reason failure_message") == (status or "FAILED", "OCR_ERROR", "bad page")


def test_an_older_processed_does_not_clear_a_newer_failure() -> None:
    processed = payload_row(updated_at=at(9), status="PROCESSED", fetched_at=at(14))
    failed = payload_row(updated_at=at(10), status="FAILED", failure_reason="OCR_ERROR", fetched_at=at(12))
    assert told(merged_any_way(processed, failed), "status failure_reason") == ("FAILED", "OCR_ERROR")


def test_a_failure_between_two_successes_is_cleared_by_the_later_one_alone() -> None:
    rows = [
        payload_row(updated_at=at(9), status="PROCESSED"),
        payload_row(updated_at=at(10), status="FAILED", failure_reason="OCR_ERROR", fetched_at=at(13)),
        payload_row(updated_at=at(11), status="PROCESSED", fetched_at=at(14)),
    ]
    assert merged_any_way(*rows)["failure_reason"] is None
    assert merged_any_way(*rows[:2])["failure_reason"] == "OCR_ERROR"


def test_a_failure_that_comes_with_a_success_is_kept_as_it_was_said() -> None:
    odd = payload_row(updated_at=at(10), status="PROCESSED", failure_reason="PARTIAL")
    assert merge_rows([odd])["failure_reason"] == "PARTIAL"


@pytest.mark.parametrize(
    ("status", "ended_at"), [("PENDING", None), ("PROCESSING", None), ("PROCESSED", at(9)), ("NEEDS_REVIEW", at(9))]
)
def test_a_run_that_runs_again_has_not_ended(status: str, ended_at: datetime | None) -> None:
    ended = payload_row(updated_at=at(9), status="FAILED", ended_at=at(9))
    newer = payload_row(updated_at=at(10), status=status, fetched_at=at(13))
    assert merged_any_way(ended, newer)["ended_at"] == ended_at


# ---------------------------------------------------------------------------------------------------------------------
# is_detail


def test_a_summary_that_shows_a_later_change_makes_the_detail_out_of_date() -> None:
    detail = payload_row(updated_at=at(10), is_detail=True, output_type="invoice")
    summary = payload_row(updated_at=at(11), fetched_at=at(13))
    merged = merged_any_way(detail, summary)
    assert told(merged, "is_detail output_type") == (False, "invoice")


def test_a_summary_of_the_same_version_leaves_the_detail_current() -> None:
    detail = payload_row(updated_at=at(10), is_detail=True)
    summary = payload_row(updated_at=at(10), fetched_at=at(13))
    assert merged_any_way(detail, summary)["is_detail"] is True


def test_an_older_detail_received_later_does_not_count_for_the_newer_version() -> None:
    summary = payload_row(updated_at=at(11), fetched_at=at(12))
    detail = payload_row(updated_at=at(10), is_detail=True, fetched_at=at(13))
    assert merged_any_way(summary, detail)["is_detail"] is False


def test_a_detail_is_current_again_once_the_new_version_is_read() -> None:
    rows = [
        payload_row(updated_at=at(10), is_detail=True),
        payload_row(updated_at=at(11), fetched_at=at(13)),
        payload_row(updated_at=at(11), is_detail=True, fetched_at=at(14)),
    ]
    assert merged_any_way(*rows)["is_detail"] is True


def test_a_detail_without_updated_at_is_current_until_a_summary_shows_a_change_after_it_was_read() -> None:
    detail = payload_row(is_detail=True, fetched_at=at(12))
    assert merged_any_way(detail, payload_row(updated_at=at(12), fetched_at=at(13)))["is_detail"] is True
    assert merged_any_way(detail, payload_row(updated_at=at(12, 1), fetched_at=at(13)))["is_detail"] is False


def test_summaries_alone_are_no_detail() -> None:
    assert merged_any_way(payload_row(updated_at=at(10)), payload_row(fetched_at=at(13)))["is_detail"] is False


# ---------------------------------------------------------------------------------------------------------------------
# A row that was made before, of payloads of which some are lost


def test_what_was_made_of_a_lost_payload_stays_as_new_as_that_was() -> None:
    kept = payload_row(updated_at=at(10), status="PROCESSED", source="STUDIO", fetched_at=at(12))
    lost_newer = payload_row(updated_at=at(11), status="FAILED", fetched_at=at(14), load_id="L9")
    lost_older = payload_row(updated_at=at(9), status="PENDING", batch_id="b", fetched_at=at(11))
    before = stored(merge_rows([kept, lost_newer, lost_older]))
    merged = merge_rows([kept], made_before=before)
    assert told(merged, "updated_at status source batch_id") == (at(11), "FAILED", "STUDIO", "b")
    assert told(merged, "fetched_at load_id") == (at(14), "L9")


def test_what_was_made_of_a_payload_that_is_there_is_made_anew() -> None:
    payload = payload_row(updated_at=at(10), status="PROCESSED", fetched_at=at(12))
    wrong = payload_row(updated_at=at(10), status="WRONG", source="WRONG", fetched_at=at(12), load_id="L9")
    merged = merge_rows([payload], made_before=wrong)
    assert told(merged, "status source load_id") == ("PROCESSED", None, payload["load_id"])


# ---------------------------------------------------------------------------------------------------------------------
# The day, and what counts as a change


@pytest.mark.parametrize(
    ("columns", "day"),
    [
        ({"created_at": at(9, day=1), "initial_run_at": at(9, day=2), "file_created_at": at(9)}, "2026-11-01"),
        ({"initial_run_at": at(9, day=2), "file_created_at": at(9)}, "2026-11-02"),
        ({"file_created_at": at(9)}, "2026-11-03"),
        ({}, "unknown"),
        ({"updated_at": at(9), "started_at": at(9), "reviewed_at": at(9)}, "unknown"),
        ({"created_at": at(0, day=1)}, "2026-11-01"),
        ({"created_at": datetime(2026, 11, 1, 23, 59, 59, 999999, tzinfo=UTC)}, "2026-11-01"),
        ({"created_at": datetime(1, 1, 1, tzinfo=UTC)}, "0001-01-01"),
        ({"created_at": datetime(9999, 12, 31, tzinfo=UTC)}, "9999-12-31"),
    ],
)
def test_the_day_is_that_of_creation_else_of_the_first_run_else_of_the_file(columns: Row, day: str) -> None:
    assert day_of(payload_row(**columns)) == day
    assert day_of(stored(payload_row(**columns))) == day


def test_when_and_by_what_a_run_was_received_is_no_change_of_it_and_all_else_is() -> None:
    row = payload_row(updated_at=at(10), credits=Decimal(1))
    assert same_content(row, row | {"fetched_at": at(20), "load_id": "L9", "_sources": "[]"})
    for column in COLUMNS:
        if column not in ("fetched_at", "load_id"):
            assert not same_content(row, row | {column: "other"}), column


# ---------------------------------------------------------------------------------------------------------------------
# Whatever the payloads


def maybe(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([None, *values])


some_times = [at(9), at(10), at(11)]
statuses = ["PENDING", "PROCESSING", "PROCESSED", "FAILED", "NEEDS_REVIEW", "CANCELLED", "REJECTED", "ODD"]
breakdowns = [
    [],
    BREAKDOWN,
    [
        {
            "object": None,
            "id": "pr_2",
            "credits": Decimal("0.300000"),
            "charges": [
                {"product": "p", "unit": None, "quantity": Decimal(2), "credits": Decimal("0.3"), "pages": [1, 2]}
            ],
        }
    ],
]
payload_rows = st.fixed_dictionaries(
    {
        "fetched_at": st.sampled_from([at(10), at(11), at(12)]),
        "load_id": st.sampled_from(["L1", "L2", "L3"]),
        "is_detail": st.booleans(),
        "status": maybe(*statuses),
        "updated_at": maybe(*some_times),
        "created_at": maybe(*some_times, datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)),
        "ended_at": maybe(*some_times),
        "failure_reason": maybe("OCR_ERROR", "ABORTED"),
        "failure_message": maybe("x", "y'\"\\ü"),
        "credits": maybe(Decimal("0.000000"), Decimal("0.300000"), Decimal(3)),
        "breakdown": maybe(*breakdowns),
        "workspace_id": maybe("ws_1", "ws_2"),
        "file_pages": maybe(0, 9, 10),
        "reviewed": maybe(False, True),
        "output_confidence": maybe(0.0, 0.5, 1.0),
        "metadata": maybe("{}", '{"a":"ü"}'),
    }
).map(lambda columns: payload_row(**columns))
versions = st.fixed_dictionaries(
    {
        "fetched_at": st.sampled_from([at(12), at(13), at(14)]),
        "updated_at": st.sampled_from([at(10), at(11)]),
        "is_detail": st.booleans(),
        "file_name": st.sampled_from(["a.pdf", "b.pdf"]),
    }
).map(lambda columns: payload_row(**columns))
some_rows = st.lists(payload_rows, min_size=2, max_size=6) | st.lists(versions, min_size=2, max_size=6)


@settings(max_examples=200, deadline=None)
@given(rows=some_rows, data=st.data())
def test_no_order_of_arrival_changes_the_row(rows: list[Row], data: st.DataObject) -> None:
    assert merge_rows(data.draw(st.permutations(rows))) == merge_rows(rows)


@settings(max_examples=200, deadline=None)
@given(rows=some_rows, data=st.data())
def test_no_grouping_changes_the_row(rows: list[Row], data: st.DataObject) -> None:
    whole = merge_rows(rows)
    parts = data.draw(st.permutations(rows))
    while len(parts) > 1:
        taken = data.draw(st.integers(2, len(parts)))
        parts = data.draw(st.permutations([merge_rows(parts[:taken]), *parts[taken:]]))
    assert merge_rows(parts) == whole


@settings(max_examples=60, deadline=None)
@given(rows=some_rows, cut=st.integers(1, 5))
def test_storing_in_between_does_not_change_the_row(rows: list[Row], cut: int) -> None:
    whole = merge_rows(rows)
    assert stored(whole) == whole
    left, right = rows[:cut], rows[cut:]
    if right:
        assert merge_rows([stored(merge_rows(left)), stored(merge_rows(right))]) == whole
    one_by_one = merge_rows(rows[:1])
    for row in rows[1:]:
        one_by_one = merge_rows([row, stored(one_by_one)])
    assert stored(one_by_one) == whole


@settings(max_examples=200, deadline=None)
@given(rows=some_rows, data=st.data())
def test_what_has_been_merged_can_be_merged_again(rows: list[Row], data: st.DataObject) -> None:
    whole = merge_rows(rows)
    assert merge_rows([whole]) == whole
    assert merge_rows([whole, whole]) == whole
    assert merge_rows([*rows, *rows]) == whole
    assert merge_rows([whole, data.draw(st.sampled_from(rows))]) == whole


def clock(row: Row) -> tuple[datetime, datetime]:
    """Say how new a payload is, as the design says it: by `updatedAt`, then by when it was fetched."""
    return (row["updated_at"] or row["fetched_at"], row["fetched_at"])


@settings(max_examples=200, deadline=None)
@given(rows=some_rows)
def test_each_field_is_that_of_the_newest_payload_that_says_it(rows: list[Row]) -> None:
    whole = merge_rows(rows)
    for column in (
        "status",
        "updated_at",
        "created_at",
        "credits",
        "breakdown",
        "workspace_id",
        "file_pages",
        "reviewed",
    ):
        said = [row for row in rows if row[column] is not None]
        newest = [row[column] for row in said if clock(row) == max(map(clock, said))]
        assert whole[column] in newest if said else whole[column] is None, column
    assert whole["fetched_at"] == max(row["fetched_at"] for row in rows)
    assert whole["load_id"] == max(row["load_id"] for row in rows)


@settings(max_examples=100, deadline=None)
@given(kept=st.lists(payload_rows, min_size=1, max_size=3), lost=st.lists(payload_rows, max_size=3))
def test_a_row_made_anew_is_the_one_that_all_payloads_make_though_some_are_lost(
    kept: list[Row], lost: list[Row]
) -> None:
    # A lost payload is told from a kept one by when it was received.
    lost = [{**row, "fetched_at": row["fetched_at"] + timedelta(minutes=7)} for row in lost]
    whole = merge_rows([*kept, *lost])
    made_anew = merge_rows(kept, made_before=stored(whole))
    for column in COLUMNS:
        if column != "load_id":
            assert made_anew[column] == whole[column], column


def test_the_clock_of_the_tests_is_the_one_they_say() -> None:
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=TEN_US) == at(10)
