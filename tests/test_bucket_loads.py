"""What becomes of loads over a bucket: on their way there, of machines that vanish and come back, beside erasures."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.at_work import running_loads
from pipeline.bucket import lease, logs, store
from pipeline.bucket.mirror import Mirror
from pipeline.errors import LakeConflictError, LakeLockedError, StoreError
from pipeline.forget import forget_runs
from pipeline.lake import LakeFiles
from pipeline.loads import Load, recover
from pipeline.opening import open_lake
from pipeline.sync_state import DetailState, SyncFiles
from tests.bucket import Asked, Bucket, Spoilt
from tests.conftest import NOON, classify, land
from tests.logged import logged
from tests.test_bucket import rows_of

BRIEF_S = 2.0


def machine(bucket: Bucket, name: str) -> LakeFiles:
    """Return the lake as a machine has it."""
    with bucket.on(name) as url:
        return open_lake(url)


def begin(lake: LakeFiles, *run_ids: str, keep_raw: bool = True) -> Load:
    """Begin a load, and take payloads of these runs."""
    load = Load(lake, command="load", source="test", keep_raw=keep_raw)
    take(load, *run_ids)
    return load


def take(load: Load, *run_ids: str) -> None:
    for run_id in run_ids:
        body = b'{"object": "classify_run", "id": "%s", "status": "PROCESSED", "createdAt": "2026-11-02T09:30:00Z"}'
        load.take_run(run_id, body % run_id.encode(), fetched_at=NOON, is_detail=True, workspace_id=None)
    load.checkpoint()


def vanish(load: Load) -> None:
    """Let a load's process die without a word, and its machine's signs of life with it."""
    shipping = load._shipping
    assert shipping is not None
    shipping._ended.set()
    if shipping._thread is not None:
        shipping._thread.join()
    load._writer.close()
    load._lock.release()


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a machine that was not heard of for a moment for dead; send logs every moment."""
    monkeypatch.setattr(lease, "LEASE_S", BRIEF_S)
    monkeypatch.setattr(logs, "SHIP_EVERY_S", 0.05)


def test_what_a_load_received_reaches_the_bucket_while_it_runs_and_lands_once_its_machine_has_vanished(
    bucket: Bucket, brief: None
) -> None:
    load = begin(machine(bucket, "a"), "clr_1")
    until(lambda: any(logs.list_loading(load.lake.mirror.store)[0].parts))
    take(load, "clr_2", "clr_3")
    size = load._writer.safe_bytes
    until(lambda: logs.list_loading(load.lake.mirror.store)[0].end == size)
    theirs = machine(bucket, "b")
    assert running_loads(theirs) == {load.result.load_id}
    assert recover(theirs) == 0  # it is at work
    vanish(load)
    time.sleep(BRIEF_S + 2)
    told: list[str] = []
    assert recover(theirs, tell=told.append) == 1
    assert told == [f"load {load.result.load_id} had been interrupted: 3 runs landed from its log"]
    with bucket.on("c"):
        assert set(rows_of(bucket.url)) == {"clr_1", "clr_2", "clr_3"}
        (path,) = open_lake(bucket.url).fetch_logs()
        assert set(logged(path)) == {"clr_1", "clr_2", "clr_3"}
    assert not [name for name in bucket.names() if name.startswith("loading/")]


def test_no_row_is_in_the_bucket_before_its_payload(bucket: Bucket) -> None:
    load = begin(machine(bucket, "a"), "clr_1")
    shipped: list[int] = []

    def plan(asked: Asked) -> None:
        if asked.method == "PUT" and asked.name.startswith("runs/"):
            names = [name.split("/") for name in bucket.names() if name.startswith("loading/")]
            shipped.extend(int(last) for _, _, last in names if last.isdigit())

    bucket.proxy.plan = plan
    load.land()
    load.finish()
    assert shipped == [0]


def test_a_machine_that_was_taken_for_dead_comes_back_with_more_and_nothing_is_lost(
    bucket: Bucket, brief: None
) -> None:
    mine = machine(bucket, "a")
    load = begin(mine, "clr_1")
    load._shipping.ship(load._writer.safe_bytes)
    vanish(load)
    with load._writer.path.open("ab") as file:  # what its disk has, and the bucket has not
        from pipeline import raw

        body = b'{"object": "classify_run", "id": "clr_2", "status": "PROCESSED", "createdAt": "2026-11-02T09:30:00Z"}'
        line = raw.run_record("clr_2", body, fetched_at=NOON, is_detail=True, workspace_id=None)
        file.write(raw.pack_frame([line.rstrip(b"\n")]))
    time.sleep(BRIEF_S + 2)
    assert recover(machine(bucket, "b")) == 1
    with bucket.on("c"):
        assert set(rows_of(bucket.url)) == {"clr_1"}
    assert recover(machine(bucket, "a")) == 1
    with bucket.on("c"):
        assert set(rows_of(bucket.url)) == {"clr_1", "clr_2"}
        (path,) = open_lake(bucket.url).fetch_logs()
        assert set(logged(path)) == {"clr_1", "clr_2"}


@pytest.mark.parametrize("run_ids", [(), ("clr_1",)], ids=["nothing came", "a run came"])
def test_no_part_of_a_log_is_sent_after_its_parts_are_gone(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, run_ids: tuple[str, ...]
) -> None:
    """Whichever moment the sending thread awakes in."""
    load = begin(machine(bucket, "a"), *run_ids)
    settle, settled = Mirror.settle, []

    def awaking(mirror: Mirror, load_id: str) -> None:
        settle(mirror, load_id)
        load._shipping.ship(load._writer.safe_bytes)
        settled.append(load_id)

    monkeypatch.setattr(Mirror, "settle", awaking)
    load.finish()
    assert settled == [load.result.load_id]
    assert not [name for name in bucket.names() if name.startswith("loading/")]


@pytest.mark.long
def test_what_a_machine_sends_after_it_was_taken_for_dead_lands_though_it_vanishes_then(
    bucket: Bucket, brief: None
) -> None:
    load = begin(machine(bucket, "a"), "clr_1")
    load._shipping.ship(load._writer.safe_bytes)
    load._shipping._ended.set()  # cut off from the bucket, and then not any more
    load._shipping._thread.join()
    time.sleep(BRIEF_S + 2)
    assert recover(machine(bucket, "b")) == 1
    take(load, "clr_2", "clr_3")
    load._shipping.ship(load._writer.safe_bytes)
    vanish(load)
    time.sleep(BRIEF_S + 2)
    assert recover(machine(bucket, "c")) == 1
    with bucket.on("d"):
        assert set(rows_of(bucket.url)) == {"clr_1", "clr_2", "clr_3"}
        (path,) = open_lake(bucket.url).fetch_logs()
        assert set(logged(path)) == {"clr_1", "clr_2", "clr_3"}
    assert not [name for name in bucket.names() if name.startswith("loading/")]


def test_a_log_that_was_edited_elsewhere_is_not_replaced_by_the_one_that_comes_back(
    bucket: Bucket, brief: None
) -> None:
    load = begin(machine(bucket, "a"), "clr_1", "clr_2")
    load._shipping.ship(load._writer.safe_bytes)
    vanish(load)
    time.sleep(BRIEF_S + 2)
    theirs = machine(bucket, "b")
    recover(theirs)
    assert forget_runs(theirs, ["clr_1"]).search.is_clean
    mine = machine(bucket, "a")
    recover(mine)
    with bucket.on("c"):
        assert set(rows_of(bucket.url)) == {"clr_2"}
        (path,) = open_lake(bucket.url).fetch_logs()
        assert set(logged(path)) == {"clr_2"}
    assert mine.raw_logs() == []


def test_forgetting_waits_for_the_load_of_another_machine_and_takes_the_run_out_of_its_log(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.forget._POLL_S", 0.1)
    land(machine(bucket, "a"), classify("clr_0"))
    load = begin(machine(bucket, "a"), "clr_1", "clr_2")
    told: list[str] = []
    theirs = machine(bucket, "b")
    forgetting = threading.Thread(target=lambda: forget_runs(theirs, ["clr_1"], tell=told.append))
    forgetting.start()
    until(lambda: bool(told))
    assert told == [f"loads at work may hold these runs; waiting for their end: {load.result.load_id}"]
    load.finish()
    forgetting.join()
    with bucket.on("c"):
        assert set(rows_of(bucket.url)) == {"clr_0", "clr_2"}
        assert set().union(*map(logged, open_lake(bucket.url).fetch_logs())) == {"clr_0", "clr_2"}
    late = begin(machine(bucket, "a"), "clr_1", "clr_3")
    assert late.left_out == 1
    late.finish()


def test_a_load_that_begins_sees_what_was_forgotten_since_its_machine_looked_last(bucket: Bucket) -> None:
    mine = machine(bucket, "a")
    land(mine, classify("clr_1"))
    forget_runs(machine(bucket, "b"), ["clr_1"])
    load = begin(mine, "clr_1", "clr_2")
    assert load.left_out == 1
    load.finish()


@pytest.mark.parametrize("keep_raw", [True, False])
def test_a_log_is_kept_in_the_bucket_or_not_at_all(bucket: Bucket, keep_raw: bool) -> None:
    load = begin(machine(bucket, "a"), "clr_1", keep_raw=keep_raw)
    load.land()
    load.finish()
    kept = [name for name in bucket.names() if name.startswith(("raw/", "loading/"))]
    assert len(kept) == keep_raw


def test_a_raw_log_that_no_command_has_needed_for_a_day_stays_in_the_bucket_alone(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = machine(bucket, "a")
    land(lake, classify("clr_1"))
    waiting = begin(lake, "clr_2")
    monkeypatch.setattr("pipeline.bucket.mirror._LOGS_KEPT_S", -1.0)
    machine(bucket, "a")
    assert [path.name for path in lake.raw_logs()] == [waiting._writer.path.name]
    assert len(lake.fetch_logs()) == 2
    waiting.finish()


def test_two_machines_do_not_sync_one_workspace_at_once_and_go_on_from_each_others_state(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = (SyncFiles(machine(bucket, name), "ws_1", "https://api") for name in "ab")
    state = DetailState(all=NOON)
    with mine.locked():
        mine.write_details(state)
        monkeypatch.setattr(lease, "LEASE_S", 1.0)
        monkeypatch.setattr(lease.Lease, "_other", lambda _lease, _found: "host, process 7")
        with (
            pytest.raises(LakeLockedError, match="another machine's sync of workspace ws_1 is at work"),
            theirs.locked(),
        ):
            pass
        monkeypatch.undo()
    with theirs.locked():
        assert theirs.read_details(tell=print) == state
        theirs.write_details(DetailState(all=NOON + timedelta(days=1)))
    with mine.locked():
        assert mine.read_details(tell=print) == DetailState(all=NOON + timedelta(days=1))


def test_nothing_of_a_load_is_left_where_the_bucket_cannot_be_written(bucket: Bucket, tmp_path: Path) -> None:

    lake = machine(bucket, "a")
    bucket.proxy.plan = lambda asked: Spoilt(403, "AccessDenied") if asked.method == "PUT" else None
    with pytest.raises(StoreError, match="no permission, or wrong credentials"):
        Load(lake, command="load", source="test")
    assert lake.raw_logs() == []


@pytest.mark.parametrize("bound", ["one request, with a condition", "several requests"])
def test_a_large_log_goes_up_whole_and_not_over_one_that_was_edited_elsewhere(
    bucket: Bucket, brief: None, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(store, "_LARGE_BYTES", 1_000)
    if bound == "several requests":
        monkeypatch.setattr(store, "ONE_PUT_BYTES", 1_000)
    # Bytes of chance, which nothing makes smaller: more than one part of a put in parts, which has 5 MiB.
    noise = random.Random(1).randbytes(4 << 20).hex()
    body = b'{"object": "classify_run", "id": "clr_1", "status": "PROCESSED", "createdAt": "2026-11-02T09:30:00Z", '
    body += b'"failureMessage": "%s"}' % noise.encode()
    lake = machine(bucket, "a")
    load = begin(lake, "clr_0")
    for number in (1, 2):
        run_id = f"clr_{number}"
        load.take_run(
            run_id, body.replace(b"clr_1", run_id.encode()), fetched_at=NOON, is_detail=True, workspace_id=None
        )
    load.checkpoint()
    bucket.proxy.asked.clear()
    load.finish()
    size = load.log_path.stat().st_size
    assert size > 5 << 20
    conditions = [
        each.is_conditional for each in bucket.proxy.asked if each.method == "PUT" and each.name[:4] == "raw/"
    ]
    assert conditions == ([True] if bound == "one request, with a condition" else [False] * (size // (5 << 20) + 1))
    with bucket.on("c"):
        (path,) = open_lake(bucket.url).fetch_logs()
        assert path.stat().st_size == size
        assert set(logged(path)) == {"clr_0", "clr_1", "clr_2"}
    # Another machine takes a run out of it; this one, which has the whole one still, does not bring that back.
    assert forget_runs(machine(bucket, "b"), ["clr_1"]).search.is_clean
    assert not lake.mirror.publish(load.log_path)
    with pytest.raises(LakeConflictError):
        lake.mirror._put(f"raw/{path.parent.name}/{path.name}", load.log_path)
    with bucket.on("c"):
        (path,) = open_lake(bucket.url).fetch_logs()
        assert set(logged(path)) == {"clr_0", "clr_2"}
