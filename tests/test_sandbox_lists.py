"""Lists of a world that changes while they are walked, and how they misbehave on request."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from sandbox_organization import START, Clock, Organization, organization, read_time

from pipeline.kinds import BY_OBJECT, KINDS
from pipeline.sandbox.life import Life, living
from pipeline.sandbox.listing import Listing
from pipeline.sandbox.world import World

LISTED = [kind for kind in KINDS if kind.listed]


@pytest.fixture
def org() -> Iterator[Organization]:
    with organization() as made:
        yield made


@pytest.mark.parametrize("parse_order", ["scattered", "newest"])
def test_lists_that_followed_every_change_are_those_that_are_made_anew(parse_order: Any) -> None:
    world, clock = World(seed=8, runs=300), Clock()
    life = Life(world, seed=8, now=clock)
    followed = Listing(world, largest_page=1000, short_pages=False, parse_order=parse_order)
    queries = [{}, {"sortBy": "createdAt", "sortDir": "asc"}, {"status": "PROCESSING"}, {"source": "WORKFLOW_RUN"},
               {"fileNameContains": "inv"}]  # fmt: skip
    size = {"maxPageSize": "1000", "limit": "1000"}
    for _ in range(12):
        fresh = Listing(world, largest_page=1000, short_pages=False, parse_order=parse_order)
        for kind in LISTED:
            for query in queries:
                asked = (kind, world.workspaces[0], {**size, **query})
                assert followed.page(*asked) == fresh.page(*asked)
        for _ in range(25):
            life.step()
            clock.pass_s(1)


def test_a_walk_while_the_organization_lives_meets_every_run_that_stays_once_and_in_order() -> None:
    kind = BY_OBJECT["extract_run"]
    with organization(seed=8, runs=600) as org, living(org.world, seed=3, events_a_second=300):
        workspace = org.world.workspaces[0]
        before = set(org.world.run_ids(workspace, kind.object))
        walks = 0
        # As often as it takes, on a fast machine, until enough has happened meanwhile.
        while walks < 3 or (org.world.version <= 20 and walks < 100):
            by = ("createdAt", "updatedAt")[walks % 2]
            walks += 1
            rows = org.rows(kind, workspace, sortBy=by, sortDir="asc", maxPageSize="7")
            times = [read_time(row[by]).replace(microsecond=0) for row in rows]
            assert times == sorted(times)
            seen = Counter(row["id"] for row in rows)
            if by == "createdAt":
                assert max(seen.values()) == 1
            assert before & set(org.world.run_ids()) <= set(seen)
        assert org.world.version > 20
    after = org.world.version
    time.sleep(0.05)
    assert org.world.version == after  # it ends with the block


def test_no_page_shows_a_run_at_a_place_that_it_has_left() -> None:
    """Such a page would show a later change than one that is yet to come: who stops at it would miss that."""
    world = World(seed=8, runs=0)
    life, stop = Life(world, seed=8), threading.Event()
    for _ in range(150):
        life.create("classify_run")

    def live() -> None:
        while not stop.is_set():
            life.finish() or life.review()

    before, thread = sys.getswitchinterval(), threading.Thread(target=live)
    sys.setswitchinterval(0.00002)
    thread.start()
    try:
        listing = Listing(world, short_pages=False)
        for _ in range(60):
            page = listing.page(BY_OBJECT["classify_run"], world.workspaces[0], {"maxPageSize": "100"})
            times = [row["updatedAt"] for row in page["data"]]
            assert times == sorted(times, reverse=True)
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(before)
    assert world.version > 200


# What lists do on request


def test_pages_are_full_but_for_the_last_where_short_ones_are_not_wanted() -> None:
    with organization(runs=400, short_pages=False) as org:
        for kind in LISTED:
            token: dict[str, str] = {}
            lengths = []
            while True:
                answer = org.get(kind.path, org.world.workspaces[0], maxPageSize="4", limit="4", **token).json()
                lengths.append(len(answer["data"]))
                if "nextPageToken" not in answer:
                    break
                token = {"nextPageToken": answer["nextPageToken"]}
            whole = len(org.world.run_ids(org.world.workspaces[0], kind.object))
            assert lengths == [4] * (len(lengths) - 1) + [whole - 4 * (len(lengths) - 1)]
            assert 1 <= lengths[-1] <= 4


def test_parse_runs_come_newest_created_first_where_that_is_wanted() -> None:
    with organization(runs=300, parse_order="newest") as org:
        kind, workspace = BY_OBJECT["parse_run"], org.world.workspaces[0]
        while (run_id := org.life.create("parse_run")[0]) not in org.world.run_ids(workspace):
            pass
        org.clock.pass_s(9)
        org.life.settle()  # it does not go by what changed last
        created = [org.world.run(row["id"]).created_at for row in org.rows(kind, workspace, sortDir="asc")]
        assert created == sorted(created, reverse=True)
        assert created[0] == org.world.run(run_id).created_at
    with pytest.raises(ValueError, match="scattered, newest"):
        Listing(org.world, parse_order="oldest")  # what the type forbids


def test_a_token_expires_once_so_many_pages_were_served_after_its_own() -> None:
    with organization(token_life=3) as org:
        workspace = org.world.workspaces[0]
        asked = {"maxPageSize": "5"}

        def page(**more: str) -> httpx.Response:
            return org.get("/extract_runs", workspace, **asked, **more)

        token = page().json()["nextPageToken"]
        for _ in range(2):
            assert page(nextPageToken=token).status_code == 200
        assert org.get("/classify_runs", workspace, sortBy="name").status_code == 400  # serves no page
        assert org.get("/batch_runs/none", workspace).status_code == 404
        assert org.get("/classify_runs", workspace).status_code == 200
        expired = page(nextPageToken=token)
        assert (expired.status_code, expired.json()["code"]) == (400, "INVALID_REQUEST")
        assert "expired" in expired.json()["message"]
        assert page(nextPageToken=page().json()["nextPageToken"]).status_code == 200
        assert org.server.asked_lists == {"/extract_runs": 6, "/classify_runs": 2}


def test_list_requests_are_counted_by_path_whatever_comes_of_them(org: Organization) -> None:
    workspace = org.world.workspaces[0]
    for path in ("/parse_runs", "/parse_runs", "/form_detection_runs", "/nothing", "/classify_runs/clr_1"):
        org.get(path, workspace)
    assert org.client.post("/parse_runs").status_code == 405
    assert org.server.asked_lists == {"/parse_runs": 2, "/form_detection_runs": 1}
    assert org.server.asked == {"clr_1": 1}


def test_a_list_can_be_removed_and_come_back_while_it_is_served(org: Organization) -> None:
    workspace = org.world.workspaces[0]
    assert org.server.removed_lists == frozenset()
    assert org.get("/edit_runs", workspace).status_code == 200
    org.server.removed_lists = ["edit_run"]
    gone = org.get("/edit_runs", workspace)
    assert (gone.status_code, gone.json()["code"]) == (410, "ENDPOINT_REMOVED")
    assert org.get("/verify_runs", workspace).status_code == 200
    org.server.removed_lists = ()
    assert org.get("/edit_runs", workspace).status_code == 200


def test_a_hook_changes_the_world_between_two_pages_of_a_walk(org: Organization) -> None:
    """A run on the second page that changes before that is asked for is on neither: it has moved to the front."""
    workspace, kind = org.world.workspaces[0], BY_OBJECT["extract_run"]
    ids = [row["id"] for row in org.rows(kind, workspace)]
    paths: list[str] = []

    def hook(path: str) -> None:
        paths.append(path)
        if len(paths) == 2:
            org.world.change(replace(org.world.run(ids[-1]), updated_at=START))

    org.server.on_request = hook
    walked = [row["id"] for row in org.rows(kind, workspace, maxPageSize="6")]
    assert walked == ids[:-1]
    assert set(paths) == {"/extract_runs"}
    assert len(paths) >= 2
    org.detail(ids[0])
    assert paths[-1] == f"/extract_runs/{ids[0]}"
    org.server.on_request = None
    assert org.rows(kind, workspace)[0]["id"] == ids[-1]
