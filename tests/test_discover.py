"""Walking the lists: against organizations made by hand, whose runs change between any two pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Literal

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.client import Page
from pipeline.discover import OVERLAP, QUIET_PAGES, Bounds, Walk, iter_pages, row_times
from pipeline.errors import AccessError, ListError, ListRemovedError, TokenRefusedError
from pipeline.kinds import BY_OBJECT, Kind
from pipeline.sync_state import KindState
from tests.simulated import run_simulated
from tests.test_client import error, make_client

NOON = datetime(2026, 11, 3, 12, 0, tzinfo=UTC)
CLASSIFY, PARSE = BY_OBJECT["classify_run"], BY_OBJECT["parse_run"]

Summary = dict[str, Any]
Paging = Literal["keyset", "offset"]
PAGINGS: tuple[Paging, ...] = ("keyset", "offset")


def at(minutes: float) -> datetime:
    """Return so many minutes after noon; before noon they are negative."""
    return NOON + timedelta(minutes=minutes)


def summary(number: int, minutes: float | None, *, created: float | None = None, kind: Kind = CLASSIFY) -> Summary:
    """Return a run's summary, updated so many minutes after noon, and created then if not told otherwise."""
    times = {"createdAt": minutes if created is None else created, "updatedAt": minutes}
    told = {name: at(each).isoformat() for name, each in times.items() if each is not None}
    return {"object": kind.object, "id": f"{kind.prefix}{number}", "status": "PROCESSED", **told}


def by_update(row: Summary) -> Any:
    """Sort the latest change first, as the API is asked to."""
    return [-datetime.fromisoformat(row["updatedAt"]).timestamp(), row["id"]]


def by_number(row: Summary) -> Any:
    """Sort in an order that has nothing to do with time."""
    return int(row["id"].split("_")[1])


@dataclass
class Organization:
    """Serves a list of runs made by hand. A token is a place in the order (keyset) or a count of rows (offset).

    `before_page` is called before each page is made, with its number from 0 on: what it changes, the page shows. Each
    page takes a second of `now`, which the Date header tells.
    """

    rows: dict[str, Summary] = field(default_factory=dict)
    size: int = 2
    paging: Paging = "keyset"
    order: Callable[[Summary], Any] = by_update
    now: datetime = NOON
    before_page: Callable[[int], object] = lambda number: None
    refuse: Callable[[str | None, int], httpx.Response | None] = lambda token, number: None
    asked: list[dict[str, str]] = field(default_factory=list)

    def put(self, *rows: Summary) -> None:
        self.rows.update({row["id"]: row for row in rows})

    def __call__(self, request: httpx.Request) -> httpx.Response:
        number, query = len(self.asked), dict(request.url.params)
        self.before_page(number)
        self.asked.append(query)
        token = query.get("nextPageToken")
        if (refusal := self.refuse(token, number)) is not None:
            return refusal
        ordered = sorted(self.rows.values(), key=self.order)
        start = 0 if token is None else self._start(ordered, token)
        shown = ordered[start : start + self.size]
        answer: dict[str, Any] = {"object": "list", "data": shown}
        if start + self.size < len(ordered):
            place = start + self.size if self.paging == "offset" else self.order(shown[-1])
            answer["nextPageToken"] = json.dumps(place)
        date = format_datetime(self.now, usegmt=True)
        self.now += timedelta(seconds=1)
        return httpx.Response(200, json=answer, headers={"date": date})

    def _start(self, ordered: list[Summary], token: str) -> int:
        if self.paging == "offset":
            return int(token)
        after = json.loads(token)
        return sum(self.order(row) <= after for row in ordered)


def pages(*contents: list[Summary], tokens: Iterable[str | None] | None = None) -> Callable[..., httpx.Response]:
    """Serve these pages in turn, whatever is asked; all but the last with a token."""
    left = list(zip(contents, tokens or [*(f"t{n}" for n in range(1, len(contents))), None], strict=True))

    def handler(request: httpx.Request) -> httpx.Response:
        rows, token = left.pop(0)
        more = {} if token is None else {"nextPageToken": token}
        date = format_datetime(NOON, usegmt=True)
        return httpx.Response(200, json={"object": "list", "data": rows, **more}, headers={"date": date})

    return handler


@dataclass
class Walked:
    """What came of a walk: how it stands, what was told, the error it ended with, the pages asked for."""

    walk: Walk
    told: list[str]
    error: Exception | None = None

    @property
    def state(self) -> KindState:
        return self.walk.state


def walk(
    handler: Callable[..., httpx.Response],
    lake: dict[str, Summary] | None = None,
    before: KindState | None = None,
    *,
    kind: Kind = CLASSIFY,
    stop_after: int | None = None,
    **bounds: Any,
) -> Walked:
    """Walk a list into a lake (a dict of rows), and stop after so many pages if told to."""
    lake = {} if lake is None else lake
    told: list[str] = []
    taken = 0

    async def take(page: Page, rows: list[Summary]) -> int:
        nonlocal taken
        taken += 1
        changed = [row for row in rows if lake.get(row["id"]) != row]
        lake.update({row["id"]: row for row in changed})
        return len(changed)

    async def main() -> Walked:
        async with make_client(handler) as client:
            each = Walk(
                client, kind, before or KindState(), Bounds(**bounds), take=take, tell=told.append,
                is_stopping=lambda: stop_after is not None and taken >= stop_after,
            )  # fmt: skip
            try:
                await each.run()
            except (ListError, AccessError) as failure:
                return Walked(each, told, failure)
            return Walked(each, told)

    walked: Walked = run_simulated(main())
    return walked


def organization(count: int, **options: Any) -> Organization:
    """Return one of so many runs, run 1 updated a minute before noon, run 2 two minutes before, and so on."""
    made = Organization(**options)
    made.put(*(summary(number, -number) for number in range(1, count + 1)))
    return made


# --- how far a walk goes, and what it notes ---------------------------------------------------------------------------


def test_the_first_walk_goes_to_the_end_and_asks_for_the_latest_change_first() -> None:
    org, lake = organization(5), dict[str, Summary]()
    walked = walk(org, lake)
    assert lake == org.rows
    sorting = {"sortBy": "updatedAt", "sortDir": "desc", "maxPageSize": "100"}
    assert [{**query, "nextPageToken": ""} for query in org.asked] == [{**sorting, "nextPageToken": ""}] * 3
    assert ["nextPageToken" in query for query in org.asked] == [False, True, True]
    assert (walked.walk.pages, walked.walk.rows, walked.walk.taken) == (3, 5, 5)
    assert walked.walk.is_complete
    assert walked.walk.covers_all


def test_it_notes_the_newest_change_and_when_the_api_served_the_first_page() -> None:
    walked = walk(organization(5))
    # Not the last page's time, two seconds after noon; nor this machine's, which is in another year.
    assert walked.state == KindState(watermark=at(-1), walked_at=NOON, back_to=None, gap=None, runs=5)


def test_without_a_date_this_machines_clock_stands_for_the_apis() -> None:
    def handler(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"object": "list", "data": []})

    assert walk(handler).state.walked_at == datetime.fromtimestamp(1_800_000_000, UTC)


def test_the_next_walk_stops_at_the_watermark_where_that_is_older_than_the_overlap() -> None:
    # The last walk began at 11:30: what was updated before 11:25 had become visible by then. Its newest was of 11:20.
    before = KindState(watermark=at(-40), walked_at=at(-30), runs=9)
    org = organization(0)
    org.put(*(summary(number, -10 * number) for number in range(1, 10)))
    lake: dict[str, Summary] = {}
    walked = walk(org, lake, before)
    # Pages: -10 -20, -30 -40, -50 -60: the third is the first that goes beyond -40, and none of it is taken.
    assert [row["id"] for row in lake.values()] == ["clr_1", "clr_2", "clr_3", "clr_4"]
    assert len(org.asked) == 3
    assert walked.state == KindState(watermark=at(-10), walked_at=NOON, runs=13)
    assert not walked.walk.covers_all


def test_the_next_walk_stops_at_the_overlap_where_the_watermark_is_newer() -> None:
    before = KindState(watermark=at(-1), walked_at=at(-0.5))
    org, lake = organization(20), dict[str, Summary]()
    walk(org, lake, before)
    # 11:59:30 less five minutes is 11:54:30: runs 1 to 5.
    assert set(lake) == {"clr_1", "clr_2", "clr_3", "clr_4", "clr_5"}
    assert len(org.asked) == 3
    assert timedelta(minutes=5) == OVERLAP


def test_another_overlap_may_be_given() -> None:
    org, lake = organization(20), dict[str, Summary]()
    walk(org, lake, KindState(watermark=at(-1), walked_at=at(-1)), overlap=timedelta(minutes=7))
    assert len(lake) == 8


def test_runs_of_the_very_time_at_which_a_walk_stops_are_all_taken() -> None:
    org, lake = Organization(size=2), dict[str, Summary]()
    org.put(summary(1, -5), *(summary(number, -20) for number in range(2, 8)), *(summary(n, -30) for n in (8, 9, 10)))
    walk(org, lake, KindState(watermark=at(-20), walked_at=at(-10)))
    assert set(lake) == {f"clr_{number}" for number in range(1, 8)}
    assert len(org.asked) == 4


def test_a_walk_with_nothing_new_takes_one_page() -> None:
    org, lake = organization(50, size=10), dict[str, Summary]()
    first = walk(org, lake)
    org.now, asked = at(60), len(org.asked)
    again = walk(org, lake, first.state)
    assert len(org.asked) - asked == 1
    assert (again.walk.rows, again.walk.taken) == (5, 0)  # those of the overlap
    assert again.state == KindState(watermark=at(-1), walked_at=at(60), runs=50)


def test_an_empty_list_is_walked_and_its_next_walk_finds_what_came_since() -> None:
    org, lake = Organization(), dict[str, Summary]()
    first = walk(org, lake)
    assert first.state == KindState(watermark=None, walked_at=NOON)
    org.put(summary(1, 0.1))
    org.now = at(10)
    assert walk(org, lake, first.state).state.watermark == at(0.1)
    assert lake == org.rows


def test_an_empty_first_page_with_a_token_is_not_the_last() -> None:
    lake: dict[str, Summary] = {}
    walked = walk(pages([], [summary(1, -1), summary(2, -2)], [], [summary(3, -3)]), lake)
    assert set(lake) == {"clr_1", "clr_2", "clr_3"}
    # The newest is that of the first page with rows.
    assert walked.state == KindState(watermark=at(-1), walked_at=NOON, runs=3)


def test_a_full_walk_of_short_pages_goes_on_while_there_is_a_token() -> None:
    lake: dict[str, Summary] = {}
    walked = walk(pages([summary(1, -1)], [summary(2, -2), summary(3, -3)], [summary(4, -4)], []), lake)
    assert len(lake) == 4
    assert walked.walk.covers_all


def test_an_empty_token_ends_a_list_like_none() -> None:
    handler = pages([summary(1, -1)], tokens=[""])
    assert walk(handler).walk.pages == 1


def test_a_repeated_row_is_taken_once() -> None:
    lake: dict[str, Summary] = {}
    one, two, three = (summary(number, -number) for number in (1, 2, 3))
    walked = walk(pages([one, two], [two, three]), lake)
    assert (walked.walk.rows, walked.walk.taken) == (4, 3)


def test_runs_without_a_time_of_change_are_taken_and_stop_nothing() -> None:
    lake: dict[str, Summary] = {}
    bare, odd = summary(2, None), {**summary(4, None), "updatedAt": 17}
    broken = {**summary(7, None), "updatedAt": "yesterday"}
    handler = pages([summary(1, -1), bare], [odd, broken], [summary(5, -60)], [summary(6, -70)])
    walked = walk(handler, lake, KindState(watermark=at(-30), walked_at=at(-20)))
    assert set(lake) == {"clr_1", "clr_2", "clr_4", "clr_7"}
    assert walked.walk.pages == 3
    assert walked.state.watermark == at(-1)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-03T12:00:00Z", NOON),
        ("2026-11-03T13:00:00.5+01:00", NOON + timedelta(milliseconds=500)),
        ("2026-11-03", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("", None),
        (None, None),
        (1_790_000_000, None),
        (["2026-11-03T12:00:00Z"], None),
    ],
)
def test_a_time_that_is_none_is_null(text: object, time: datetime | None) -> None:
    assert row_times([{"updatedAt": text}], "updatedAt") == [time]


# --- while a list is walked, runs go on being created and changed -----------------------------------------------------


def touch(org: Organization, number: int) -> None:
    """Let a run change now, or appear."""
    minutes = (org.now - NOON) / timedelta(minutes=1)
    created = org.rows.get(f"clr_{number}", {}).get("createdAt")
    org.put({**summary(number, minutes), **({"createdAt": created} if created else {})})


@pytest.mark.parametrize("paging", PAGINGS)
@pytest.mark.parametrize("moment", range(5))
@pytest.mark.parametrize("number", [1, 3, 4, 7, 8])
def test_what_happens_between_two_pages_is_found_by_the_next_walk(paging: Paging, moment: int, number: int) -> None:
    # Seven runs on four pages; run 1 is the newest, 7 the oldest, 8 is not there yet. Moment 4 is after the last page.
    org, lake = organization(7, paging=paging), dict[str, Summary]()
    org.before_page = lambda page: touch(org, number) if page == moment else None
    first = walk(org, lake)
    assert set(lake) >= {f"clr_{each}" for each in range(1, 8)} - {f"clr_{number}"}
    if moment == 4:
        touch(org, number)
    walk(org, lake, first.state)
    assert lake == org.rows


@pytest.mark.parametrize("paging", PAGINGS)
@pytest.mark.parametrize("moment", range(4))
def test_so_it_is_during_a_later_walk(paging: Paging, moment: int) -> None:
    org, lake = organization(9, paging=paging), dict[str, Summary]()
    state = walk(org, lake).state
    org.now = at(30)
    for number in (9, 8, 7, 2):
        touch(org, number)
        org.now += timedelta(seconds=10)
    begun = len(org.asked)
    org.before_page = lambda page: [touch(org, each) for each in (6, 9, 20)] if page - begun == moment else None
    state = walk(org, lake, state).state
    walk(org, lake, state)
    assert lake == org.rows


def test_a_run_that_lists_show_late_is_found_within_the_overlap() -> None:
    org, lake = organization(9), dict[str, Summary]()
    state = walk(org, lake).state
    org.put(summary(10, -4.9))  # updated before that walk began, visible only now
    org.now = at(3)
    state = walk(org, lake, state).state
    assert lake == org.rows


def test_the_watermark_is_never_one_that_came_in_mid_walk() -> None:
    org = organization(7)
    org.before_page = lambda page: org.put(summary(9, 99)) if page == 2 else None
    assert walk(org).state.watermark == at(-1)


Round = tuple[int | None, list[tuple[int, Literal["touch", "late"], int]]]
ROUNDS = st.lists(
    st.tuples(
        st.none() | st.integers(1, 4),  # stop after so many pages
        st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["touch", "late"]), st.integers(1, 15)), max_size=6),
    ),
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(
    count=st.integers(0, 9),
    size=st.integers(1, 4),
    paging=st.sampled_from(PAGINGS),
    rounds=ROUNDS,
    refused=st.sets(st.integers(1, 40), max_size=3),
)
def test_whatever_happens_in_mid_walk_a_quiet_walk_leaves_nothing_missing(
    count: int, size: int, paging: Paging, rounds: list[Round], refused: set[int]
) -> None:
    org, lake, state = organization(count, size=size, paging=paging), dict[str, Summary](), KindState()
    org.refuse = lambda token, page: error(400) if token is not None and page in refused else None
    for stop_after, events in rounds:
        begun = len(org.asked)

        def live(page: int, begun: int = begun, events: Any = events) -> None:
            for moment, what, number in events:
                if page - begun == moment and (what == "touch" or f"clr_{number}" not in org.rows):
                    late = timedelta(minutes=4 if what == "late" else 0)
                    org.now -= late
                    touch(org, number)
                    org.now += late

        org.before_page = live
        state = walk(org, lake, state, stop_after=stop_after).state
        org.now += timedelta(minutes=1)
    org.before_page, org.refuse = (lambda page: None), (lambda token, page: None)
    last = walk(org, lake, state)
    assert last.error is None
    assert lake == org.rows
    assert last.state.gap is None


# --- walks that are cut short -----------------------------------------------------------------------------------------


def test_a_walk_that_is_stopped_notes_where_it_is_to_go_on_and_no_watermark() -> None:
    org, lake = organization(9), dict[str, Summary]()
    stopped = walk(org, lake, stop_after=2)
    assert set(lake) == {"clr_1", "clr_2", "clr_3", "clr_4"}
    assert stopped.state.watermark is None
    assert stopped.state.walked_at is None
    gap = stopped.state.gap
    assert gap is not None
    assert (gap.watermark, gap.walked_at, gap.down_to) == (at(-1), NOON, None)
    assert stopped.state.runs == 4
    assert not stopped.walk.is_complete
    assert not stopped.walk.covers_all


def test_it_takes_what_is_new_first_and_then_goes_on_by_the_token() -> None:
    org, lake = organization(9), dict[str, Summary]()
    stopped = walk(org, lake, stop_after=2)
    gap = stopped.state.gap
    assert gap is not None
    org.now = at(60)
    org.put(summary(10, 30), summary(11, 31), summary(12, 32))
    asked = len(org.asked)
    resumed = walk(org, lake, stopped.state)
    # Pages: 12 11, 10 1, 2 3 (and so on, down to the overlap before noon), 4 5, 6 7; then by the token: 5 6, 7 8, 9.
    tokens = [query.get("nextPageToken") for query in org.asked[asked:]]
    assert tokens[0] is None
    assert tokens.index(gap.token) == len(tokens) - 3
    assert lake == org.rows
    # Twelve runs, of which 5 was counted on both ways.
    assert resumed.state == KindState(watermark=at(32), walked_at=at(60), back_to=None, gap=None, runs=13)
    assert resumed.walk.is_complete


def test_it_may_be_stopped_again_and_again() -> None:
    org, lake, state = organization(12), dict[str, Summary](), KindState()
    org.now = at(60)  # the overlap is empty
    walks = 0
    while state.walked_at is None and walks < 20:
        state = walk(org, lake, state, stop_after=2).state
        org.now += timedelta(hours=1)
        walks += 1
    # Six pages: two the first time, then each time one at the top and one further on.
    assert walks == 5
    assert lake == org.rows
    assert state.runs == 12


def test_stopped_before_it_reaches_the_token_it_keeps_the_gap_as_it_was() -> None:
    org, lake = organization(12), dict[str, Summary]()
    stopped = walk(org, lake, stop_after=2)
    org.put(*(summary(number, number) for number in range(20, 29)))
    org.now = at(60)
    again = walk(org, lake, stopped.state, stop_after=1)
    assert again.state == stopped.state
    assert not again.walk.is_complete
    walk(org, lake, again.state)
    assert lake == org.rows


def test_a_later_walk_that_is_stopped_keeps_the_old_watermark() -> None:
    org, lake = organization(9), dict[str, Summary]()
    state = walk(org, lake).state
    org.put(*(summary(number, number) for number in range(20, 29)))
    org.now = at(60)
    stopped = walk(org, lake, state, stop_after=2).state
    assert (stopped.watermark, stopped.walked_at) == (at(-1), NOON)
    gap = stopped.gap
    assert gap is not None
    assert (gap.watermark, gap.walked_at, gap.down_to) == (at(28), at(60), at(-5))
    ended = walk(org, lake, stopped).state
    assert lake == org.rows
    assert (ended.watermark, ended.walked_at, ended.gap) == (at(28), at(60) + timedelta(seconds=2), None)


def test_an_error_in_mid_walk_leaves_what_was_reached() -> None:
    org, lake = organization(9), dict[str, Summary]()
    org.refuse = lambda token, number: error(500) if number >= 2 else None
    failed = walk(org, lake)
    assert "HTTP 500 (told) after 6 attempts" in str(failed.error)
    assert failed.state.gap is not None
    assert len(lake) == 4
    org.refuse = lambda token, number: None
    walk(org, lake, failed.state)
    assert lake == org.rows


def test_a_full_walk_does_not_go_on_from_a_gap() -> None:
    org, lake = organization(9), dict[str, Summary]()
    stopped = walk(org, lake, stop_after=2)
    org.put(summary(4, -4, created=-70))  # changed without a later time of change
    whole = walk(org, lake, stopped.state, full=True)
    assert lake == org.rows
    assert whole.walk.pages == 5
    assert whole.walk.covers_all


@pytest.mark.parametrize("stop_after", [None, 2])
def test_runs_that_the_lake_had_before_count_too(stop_after: int | None) -> None:
    org = organization(9)
    lake = dict(org.rows)  # such as by `fetch`, before the first sync
    state = walk(org, lake, stop_after=stop_after).state
    assert state.runs == (9 if stop_after is None else 4)
    org.now = at(60)
    state = walk(org, lake, state).state
    assert state.runs == 9
    org.put(summary(10, 70))
    assert walk(org, lake, state, full=True).state.runs == 10


# --- since, until -----------------------------------------------------------------------------------------------------


def test_the_first_walk_goes_back_to_since_and_says_how_far_it_went() -> None:
    org, lake = organization(9), dict[str, Summary]()
    walked = walk(org, lake, since=at(-4))
    assert set(lake) == {"clr_1", "clr_2", "clr_3", "clr_4"}
    assert len(org.asked) == 3
    assert walked.state == KindState(watermark=at(-1), walked_at=NOON, back_to=at(-4), runs=4)
    assert not walked.walk.covers_all


def test_a_later_walk_goes_further_back_only_where_none_has_been() -> None:
    org, lake = organization(30, size=5), dict[str, Summary]()
    state = walk(org, lake, since=at(-14)).state
    org.now = at(10)
    nearer = walk(org, lake, state, since=at(-10))
    assert nearer.walk.pages == 2  # down to the overlap, 11:55, and no further than any other
    assert nearer.state.back_to == at(-14)
    further = walk(org, lake, nearer.state, since=at(-18))
    assert set(lake) == {f"clr_{number}" for number in range(1, 19)}
    assert further.state.back_to == at(-18)
    whole = walk(org, lake, further.state, full=True)
    assert lake == org.rows
    assert whole.state.back_to is None
    # Everything has been seen down to the beginning, so `since` is no further: one page.
    assert walk(org, lake, whole.state, since=at(-20)).walk.pages == 1


def test_a_first_walk_cut_short_goes_on_only_as_far_as_it_was_to_go() -> None:
    org, lake = organization(12), dict[str, Summary]()
    stopped = walk(org, lake, since=at(-7), stop_after=2)
    org.now = at(60)
    resumed = walk(org, lake, stopped.state, since=at(-7))
    assert len(lake) == 7
    assert resumed.state.back_to == at(-7)


def test_one_that_is_to_go_further_than_the_gap_begins_at_the_top() -> None:
    org, lake = organization(12), dict[str, Summary]()
    stopped = walk(org, lake, since=at(-7), stop_after=2)
    asked = len(org.asked)
    further = walk(org, lake, stopped.state, since=at(-10))
    assert stopped.state.gap is not None
    assert stopped.state.gap.token not in [query.get("nextPageToken") for query in org.asked[asked : asked + 2]]
    assert len(lake) == 10
    assert further.state.back_to == at(-10)


def test_until_leaves_out_what_was_created_then_or_later_and_notes_nothing() -> None:
    org, lake = organization(9), dict[str, Summary]()
    org.put(summary(2, -2, created=-50), summary(5, -5, created=-60))
    walked = walk(org, lake, until=at(-6))
    assert set(lake) == {"clr_2", "clr_5", "clr_7", "clr_8", "clr_9"}
    assert walked.state == KindState()
    assert walked.walk.is_complete
    assert not walked.walk.covers_all
    assert walk(org, lake, until=at(-6), stop_after=2).state == KindState()


def test_until_leaves_a_gap_as_it_was() -> None:
    org, lake = organization(9), dict[str, Summary]()
    stopped = walk(org, lake, stop_after=1).state
    assert walk(org, {}, stopped, until=at(-6)).state == stopped


# --- what an endpoint may do ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 404, 405, 410, 422])
def test_a_refused_token_begins_the_walk_again(status: int) -> None:
    org, lake = organization(9), dict[str, Summary]()
    org.refuse = lambda token, number: error(status) if number == 2 else None
    walked = walk(org, lake)
    assert lake == org.rows
    assert [query.get("nextPageToken") is None for query in org.asked] == [True, False, False, True, *[False] * 4]
    assert walked.told == ["list /classify_runs: a page token was refused at page 2; from the top again"]
    assert walked.state == KindState(watermark=at(-1), walked_at=at(0) + timedelta(seconds=2), runs=9)


def test_a_walk_begins_again_twice_and_then_fails() -> None:
    org = organization(9)
    org.refuse = lambda token, number: error(400, "INVALID_REQUEST") if token else None
    walked = walk(org)
    assert isinstance(walked.error, TokenRefusedError)
    assert str(walked.error) == "list /classify_runs: page token refused (HTTP 400 INVALID_REQUEST)"
    assert [query.get("nextPageToken") is None for query in org.asked] == [True, False] * 3
    assert len(walked.told) == 2
    assert not walked.walk.is_complete


def test_the_refused_token_of_an_earlier_walk_begins_it_again() -> None:
    org, lake = organization(12), dict[str, Summary]()
    stopped = walk(org, {}, since=at(-7), stop_after=2).state
    gap, refused = stopped.gap, list[str]()
    assert gap is not None

    def refuse_once(token: str | None, number: int) -> httpx.Response | None:
        if token != gap.token or refused:
            return None
        refused.append(gap.token)
        return error(410)

    org.refuse, org.now = refuse_once, at(60)
    walked = walk(org, lake, stopped)
    assert refused
    assert walked.told == ["list /classify_runs: the page token of an earlier walk was refused; from the top again"]
    assert set(lake) == {f"clr_{number}" for number in range(1, 8)}
    # Two pages towards the overlap, and the token that was refused; the walk began where it began again.
    assert walked.state == KindState(at(-1), at(60) + timedelta(seconds=2), at(-7), None, None, walked.state.runs)


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "NOT_FOUND"), (404, ""), (405, ""), (410, "ENDPOINT_REMOVED"), (410, ""), (400, "ENDPOINT_REMOVED"),
     (501, "ENDPOINT_REMOVED")],
)  # fmt: skip
def test_an_endpoint_that_is_gone_is_said_to_be(status: int, code: str) -> None:
    walked = walk(lambda request: error(status, code, retryable=False))
    assert isinstance(walked.error, ListRemovedError)
    assert f"list /classify_runs: the API has no such list (HTTP {status} " in str(walked.error)
    assert walked.state == KindState()


def test_an_endpoint_may_go_in_mid_walk() -> None:
    org = organization(9)
    org.refuse = lambda token, number: error(410, "ENDPOINT_REMOVED") if number == 2 else None
    assert isinstance(walk(org).error, ListRemovedError)


@pytest.mark.parametrize("status", [400, 422])
def test_a_first_page_that_is_refused_fails_at_once(status: int) -> None:
    requests = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return error(status, "INVALID_REQUEST")

    walked = walk(handler)
    assert type(walked.error) is ListError
    assert len(requests) == 1


def test_a_key_that_is_refused_ends_more_than_the_walk() -> None:
    assert isinstance(walk(lambda request: error(401, "UNAUTHORIZED")).error, AccessError)


def test_a_page_that_fails_for_a_passing_reason_is_tried_again() -> None:
    org, lake = organization(9), dict[str, Summary]()
    # Ten failures: more than the six attempts that the client makes by itself.
    org.refuse = lambda token, number: error(503) if 2 <= number < 12 else None
    walked = walk(org, lake)
    assert walked.error is None
    assert lake == org.rows
    assert len(org.asked) == 5 + 10


def test_a_page_is_given_up_after_three_times_six_attempts() -> None:
    org = organization(9)
    org.refuse = lambda token, number: error(503) if number >= 1 else None
    assert type(walk(org).error) is ListError
    assert len(org.asked) == 1 + 18


@pytest.mark.parametrize("status", [408, 409])
def test_a_passing_refusal_is_not_taken_for_that_of_the_token(status: int) -> None:
    org = organization(9)
    org.refuse = lambda token, number: error(status) if token is not None else None
    assert type(walk(org).error) is ListError
    assert [query.get("nextPageToken") is None for query in org.asked] == [True, *[False] * 18]


def test_a_page_that_names_itself_as_the_next_one_ends_the_walk() -> None:
    walked = walk(pages([summary(1, -1)], [summary(2, -2)], [summary(3, -3)], tokens=["t1", "t1", None]))
    assert type(walked.error) is ListError
    told = "list /classify_runs: a page names itself or an earlier one as the next; try again later"
    assert str(walked.error) == told
    assert walked.walk.pages == 2


def test_so_do_pages_in_a_ring() -> None:
    contents = [[summary(number, -number)] for number in range(1, 9)]
    walked = walk(pages(*contents, tokens=["t1", "t2", "t3", "t1", *["never"] * 4]))
    assert type(walked.error) is ListError
    assert walked.walk.pages == 4


def test_iter_pages_takes_filters_and_a_token() -> None:
    org = organization(5)

    async def main() -> list[Page]:
        async with make_client(org) as client:
            return [page async for page in iter_pages(client, CLASSIFY, filters={"status": "FAILED"}, token=None)]

    found: list[Page] = run_simulated(main())
    assert [len(page.rows) for page in found] == [2, 2, 1]
    assert {query["status"] for query in org.asked} == {"FAILED"}
    token = found[0].next_page_token

    async def rest() -> list[Page]:
        async with make_client(org) as client:
            return [page async for page in iter_pages(client, CLASSIFY, token=token)]

    assert [[row["id"] for row in page.rows] for page in run_simulated(rest())] == [["clr_3", "clr_4"], ["clr_5"]]


# --- lists in no order ------------------------------------------------------------------------------------------------


def parses(count: int, **options: Any) -> Organization:
    """Return an organization of parse runs, whose list is by number: in no order of time."""
    made = Organization(order=by_number, **options)
    made.put(*(summary(number, -((number * 37) % 100) - 1, kind=PARSE) for number in range(1, count + 1)))
    return made


def test_parse_runs_are_walked_to_the_end_the_first_time() -> None:
    org, lake = parses(9), dict[str, Summary]()
    walked = walk(org, lake, kind=PARSE)
    assert lake == org.rows
    assert {(query["maxPageSize"], query["limit"], "sortBy" in query) for query in org.asked} == {("100", "100", False)}
    assert walked.state == KindState(watermark=None, walked_at=NOON, runs=9)
    assert walked.walk.covers_all


def test_later_they_are_walked_until_two_pages_bring_nothing_new() -> None:
    org, lake = parses(20), dict[str, Summary]()
    state = walk(org, lake, kind=PARSE).state
    asked = len(org.asked)
    org.put(summary(0, 1, kind=PARSE), summary(5, 2, kind=PARSE), summary(18, 3, kind=PARSE))
    again = walk(org, lake, state, kind=PARSE)
    # Pages: 0 1 (new), 2 3, 4 5 (new), 6 7, 8 9: so 18 is missed, as the help says.
    assert len(org.asked) - asked == 5
    assert again.walk.taken == 2
    assert lake["pr_18"] != org.rows["pr_18"]
    assert not again.walk.covers_all
    assert QUIET_PAGES == 2
    whole = walk(org, lake, again.state, kind=PARSE, full=True)
    assert lake == org.rows
    assert whole.walk.covers_all


def test_with_nothing_new_that_is_two_pages() -> None:
    org, lake = parses(20), dict[str, Summary]()
    state = walk(org, lake, kind=PARSE).state
    asked = len(org.asked)
    walk(org, lake, state, kind=PARSE)
    assert len(org.asked) - asked == 2


def test_an_empty_page_says_nothing_of_whether_there_is_more_that_is_new() -> None:
    old, new = summary(1, -1, kind=PARSE), summary(2, 5, kind=PARSE)
    lake = {"pr_1": old}
    handler = pages([old], [], [], [new], [old], [], [old], [summary(3, 6, kind=PARSE)])
    walked = walk(handler, lake, KindState(walked_at=NOON), kind=PARSE)
    assert "pr_2" in lake
    assert "pr_3" not in lake
    assert walked.walk.pages == 7


def test_a_page_whose_runs_are_all_left_out_says_nothing_of_that_either() -> None:
    org, lake = Organization(order=by_number), dict[str, Summary]()
    # The newest first, as it happens: six runs of today, then two of yesterday that are new, then old ones.
    org.put(*(summary(number, -number, kind=PARSE) for number in range(1, 7)))
    org.put(*(summary(number, -1_000 - number, kind=PARSE) for number in range(7, 9)))
    walk(org, lake, KindState(walked_at=at(-2_000)), kind=PARSE, until=at(-720))
    assert set(lake) == {"pr_7", "pr_8"}


def test_since_leaves_out_older_parse_runs_and_walks_all_the_same() -> None:
    org, lake = parses(9), dict[str, Summary]()
    walked = walk(org, lake, kind=PARSE, since=at(-50))
    # The minutes before noon are 37 n mod 100, and 1: 38, 75, 12, 49, 86, 23, 60, 97, 34.
    assert set(lake) == {"pr_1", "pr_3", "pr_4", "pr_6", "pr_9"}
    assert walked.walk.pages == 5
    assert walked.state.back_to == at(-50)
    assert not walked.walk.covers_all


def test_the_rest_of_a_cut_walk_of_parse_runs_is_walked_to_the_end() -> None:
    org, lake = parses(20), dict[str, Summary]()
    stopped = walk(org, lake, kind=PARSE, stop_after=3)
    assert stopped.state.gap is not None
    assert stopped.state.gap.watermark is None
    org.put(summary(0, 5, kind=PARSE))
    resumed = walk(org, lake, stopped.state, kind=PARSE)
    assert lake == org.rows
    # The top until two pages bring nothing new (0 1, 2 3, 4 5), then 7 8 to 19 20.
    assert resumed.walk.pages == 3 + 7
    assert resumed.state.gap is None


def test_so_it_is_where_that_rest_brings_nothing_new_for_pages() -> None:
    org, lake = parses(20), dict[str, Summary]()
    state = walk(org, lake, kind=PARSE).state
    org.put(summary(19, 5, kind=PARSE))
    stopped = walk(org, lake, state, kind=PARSE, full=True, stop_after=3).state
    assert stopped.gap is not None
    walk(org, lake, stopped, kind=PARSE)
    assert lake == org.rows


@pytest.mark.parametrize("stop_after", [None, 1, 2, 3])
def test_a_list_that_is_not_in_the_order_asked_for_is_told_and_walked_to_the_end(stop_after: int | None) -> None:
    org, lake = organization(9, order=lambda row: row["updatedAt"]), dict[str, Summary]()  # the oldest first
    state = walk(org, lake, stop_after=stop_after).state
    org.now = at(60)
    touch(org, 10)
    walked = walk(org, lake, state)
    assert lake == org.rows
    assert walked.told == ["list /classify_runs: not in the order asked for, so it is walked to its end"]
    assert walked.state.watermark is None
    assert walked.state.walked_at is not None


def test_one_run_out_of_place_is_enough() -> None:
    # By creation, as it happens: run 3 was reviewed late, and so may have been any run further down.
    rows = [summary(1, -1), summary(2, -2), summary(3, -0.5, created=-3), summary(4, -40)]
    lake: dict[str, Summary] = {}
    before = KindState(watermark=at(-30), walked_at=at(-30))
    walk(pages(rows, [summary(5, -50), summary(6, -0.2, created=-60)], [summary(7, -70)]), lake, before)
    assert "clr_6" in lake


def test_fractions_of_a_second_that_are_not_told_are_no_disorder() -> None:
    whole, half = summary(1, -1), {**summary(2, -1), "updatedAt": (at(-1) + timedelta(milliseconds=700)).isoformat()}
    walked = walk(pages([whole, half], [summary(3, -2)]))  # run 1 may have changed 0.9 s after the minute
    assert walked.told == []
    assert walked.state.watermark == at(-1) + timedelta(milliseconds=700)
