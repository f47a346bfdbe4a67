"""The vendor's own client reads every answer of the sandbox, and finds in it what its types promise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import extend_ai
import httpx
import pytest
from extend_ai import types as vendor
from extend_ai.core.api_error import ApiError
from sandbox_strict import MISREAD_BY_CLIENT, MODELS, problems, unexpected

from pipeline.kinds import KINDS, Kind
from pipeline.sandbox.server import SandboxServer, serve
from pipeline.sandbox.world import World


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=11, runs=2400)


@pytest.fixture(scope="module")
def server(world: World) -> Iterator[SandboxServer]:
    with serve(world) as running:
        yield running


@pytest.fixture
def client(server: SandboxServer) -> Iterator[extend_ai.Extend]:
    with httpx.Client(timeout=20) as transport:
        yield extend_ai.Extend(token=server.key, base_url=server.base_url, httpx_client=transport)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_payload_holds_to_the_types_that_the_client_declares(world: World, kind: Kind) -> None:
    detail = getattr(vendor, MODELS[kind.object])
    for run_id in world.run_ids(kind=kind.object):
        url = "url" if "huge" in world.run(run_id).tags else None
        assert unexpected(problems(world.detail(run_id, url), detail)) == [], run_id
        if kind.listed:
            summary = getattr(vendor, f"{MODELS[kind.object]}Summary")
            assert unexpected(problems(world.summary(run_id), summary)) == [], run_id


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_client_reads_by_id_what_was_served(world: World, client: extend_ai.Extend, kind: Kind) -> None:
    resource = getattr(client, f"{kind.object}s")
    read: Counter[str] = Counter()
    ids = world.run_ids(world.workspaces[0], kind.object)
    step = max(4, len(ids) // 40)
    for run_id in [*ids[::step], *(run_id for run_id in ids if world.run(run_id).tags)]:
        run = world.run(run_id)
        if run.zero_retention and read[run_id]:
            continue
        more = {"response_type": "url"} if "huge" in run.tags else {}
        model = resource.retrieve(run_id, **more)
        read[run_id] += 1
        assert type(model).__name__ == MODELS[kind.object]
        legacy = any(world.run(part).legacy_config for part in (run_id, *run.steps))
        found = unexpected(problems(model, type(model)))
        assert [problem for problem in found if not (legacy and problem[0] in MISREAD_BY_CLIENT)] == [], run_id
        assert model.id == run_id
        assert (model.usage is not None) == run.shows_usage
    assert len(read) >= 15


@pytest.mark.long
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.listed], ids=lambda kind: kind.name)
def test_client_lists_every_run_once(world: World, client: extend_ai.Extend, kind: Kind) -> None:
    resource = getattr(client, f"{kind.object}s")
    seen: Counter[str] = Counter()
    token: str | None = None
    while True:
        page = resource.list(max_page_size=100, **({"next_page_token": token} if token else {}))
        for model in page.data:
            assert unexpected(problems(model, type(model))) == [], model.id
            seen[model.id] += 1
        token = page.next_page_token
        if token is None:
            break
    assert seen == Counter(world.run_ids(world.workspaces[0], kind.object))


def test_client_reads_a_batch_run(world: World, client: extend_ai.Extend) -> None:
    ours = [batch_id for batch_id in world.batch_ids if world.batch(batch_id, world.workspaces[0])]
    for batch_id in ours:
        batch = client.batch_runs.get(batch_id)
        assert unexpected(problems(batch, type(batch))) == []
        assert batch.run_count == sum(run.batch_id == batch_id for run in world.iter_runs()) + sum(
            world.run(run_id).batch_id == batch_id for run_id in world.deleted_ids()
        )


def test_client_raises_its_own_errors_for_the_errors_served(world: World, server: SandboxServer) -> None:
    run_id = world.run_ids(world.workspaces[0], "classify_run")[0]
    gone = next(run_id for run_id in world.deleted_ids(world.workspaces[0]) if run_id.startswith("clr_"))
    with httpx.Client() as transport:
        made = extend_ai.Extend(token=server.key, base_url=server.base_url, httpx_client=transport)
        with pytest.raises(extend_ai.NotFoundError) as missing:
            made.classify_runs.retrieve(gone)
        assert missing.value.body == {
            "code": "NOT_FOUND",
            "message": "Classify run not found",
            "retryable": False,
            "requestId": missing.value.body["requestId"],
        }
        stranger = extend_ai.Extend(token="wrong", base_url=server.base_url, httpx_client=transport)
        with pytest.raises(extend_ai.UnauthorizedError):
            stranger.classify_runs.retrieve(run_id)
        owner = extend_ai.Extend(token=server.org_key, base_url=server.base_url, httpx_client=transport)
        with pytest.raises(extend_ai.BadRequestError):
            owner.classify_runs.retrieve(run_id)
        assert owner.classify_runs.retrieve(run_id, extend_workspace_id=world.workspaces[0]).id == run_id
        with pytest.raises(ApiError) as refused:
            made.classify_runs.retrieve(run_id, extend_workspace_id=world.workspaces[1])
        assert refused.value.status_code == 403


def test_strict_check_would_notice() -> None:
    """The check that the other tests stand on finds what it must find."""
    entry = {"object": "parse_run", "id": "pr_1", "credits": 1}
    assert problems(entry, vendor.RunUsageBreakdownEntry) == []
    assert problems({**entry, "more": 1}, vendor.RunUsageBreakdownEntry) == [
        ("RunUsageBreakdownEntry", "unknown field more")
    ]
    assert problems({**entry, "credits": "1"}, vendor.RunUsageBreakdownEntry) == [
        ("RunUsageBreakdownEntry.credits", "'1' is no float")
    ]
    assert problems({"object": "verify_run", "id": "vr_1", "credits": 1}, vendor.RunUsageBreakdownEntry) == [
        ("RunUsageBreakdownEntry.object", "'verify_run' is not known")
    ]
    assert problems({"credits": 2}, vendor.RunUsage) == []
    assert problems({"totalCredits": 2}, vendor.RunUsage) == [("RunUsage.credits", "is missing")]
