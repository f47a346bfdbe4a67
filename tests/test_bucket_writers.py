"""Two machines that write one lake in a bucket, a store that fails, one without conditional writes, and readers."""

from __future__ import annotations

import json
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.bucket import lease
from pipeline.checks.lake import check_lake
from pipeline.errors import LakeConflictError, LakeLockedError, StoreError
from pipeline.lake import LakeFiles
from pipeline.loads import Load, recover
from pipeline.opening import open_lake
from tests.bucket import Asked, Bucket, Spoilt
from tests.conftest import NOON, classify, land
from tests.test_bucket import rows_of

ROUNDS = 2


def on_machine(bucket: Bucket, machine: str) -> LakeFiles:
    """Return the lake as a machine has it."""
    with bucket.on(machine) as url:
        return open_lake(url)


def expect(bucket: Bucket, run_ids: set[str], machine: str = "reader") -> dict[str, Any]:
    """Read the lake on another machine: these runs and no others, each once."""
    with bucket.on(machine) as url:
        rows = rows_of(url)
    assert set(rows) == run_ids
    return rows


def unless_again(name: str, act: Callable[[], object]) -> Callable[[Asked], None]:
    """Return a plan that does something once, just before an object that is called so is written."""
    waiting = [act]

    def plan(asked: Asked) -> None:
        if asked.method == "PUT" and asked.name.startswith(name) and waiting:
            waiting.pop()()

    return plan


def test_two_machines_that_write_at_once_lose_no_row_of_each_other(bucket: Bucket) -> None:
    machines = {name: on_machine(bucket, name) for name in ("a", "b")}

    def write(name: str) -> None:
        for number in range(ROUNDS):
            at = NOON + timedelta(minutes=number, seconds=name == "b")
            shared = classify("clr_shared", updatedAt=at.isoformat(), processorVersion=f"{number}{name}")
            land(machines[name], classify(f"clr_{name}{number}"), shared, fetched_at=at)

    threads = [threading.Thread(target=write, args=(name,)) for name in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = expect(bucket, {"clr_shared", *(f"clr_{name}{number}" for name in "ab" for number in range(ROUNDS))})
    assert rows["clr_shared"]["updated_at"] == NOON + timedelta(minutes=ROUNDS - 1, seconds=1)
    assert len(open_lake(bucket.url).read_loads()) == 2 * ROUNDS


@pytest.mark.parametrize("name", ["runs/day=2026-11-02", "loads/"])
def test_a_write_between_anothers_read_and_put_is_merged_with_and_not_lost(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The other machine takes this one for dead, and the conditions of its puts are all that is left."""
    machines = {each: on_machine(bucket, each) for each in ("a", "b")}
    expected: set[str] = set()

    def land_on(machine: str, number: int) -> None:
        lake = machines[machine]
        load = Load(lake, command="load", source="test")
        run_id = f"clr_{machine}{number}"
        body = b'{"object": "classify_run", "id": "%s", "status": "PROCESSED", "createdAt": "2026-11-02T09:30:00Z"}'
        load.take_run(run_id, body % run_id.encode(), fetched_at=NOON, is_detail=False, workspace_id=None)
        load.take_failure(missing(f"clr_gone{machine}{number}"), workspace_id=None)
        load.finish()
        expected.add(run_id)

    def take_over(number: int) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(lease.Lease, "_other", lambda _lease, _found: None)
            land_on("b", number)

    land_on("a", 0)
    for number in range(1, ROUNDS):
        before = len([each for each in bucket.proxy.asked if each.name.startswith(name) and each.method == "PUT"])
        bucket.proxy.plan = unless_again(name, lambda number=number: take_over(number))
        land_on("a", number)
        puts = len([each for each in bucket.proxy.asked if each.name.startswith(name) and each.method == "PUT"])
        assert puts - before >= 3  # the one that was refused, the other machine's, and that of the second try
        expect(bucket, expected)
    letters = open_lake(bucket.url).read_dead_letters()["run_id"].to_pylist()
    assert set(letters) == {run_id.replace("clr_", "clr_gone") for run_id in expected}
    assert set(open_lake(bucket.url).read_loads()["state"].to_pylist()) == {"complete"}


@pytest.mark.long
def test_a_write_at_each_put_of_another_machine_loses_nothing_and_leaves_a_whole_lake(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs land, move from day to day and stay away, on both machines; the second comes in before each put in turn."""
    machines = {each: on_machine(bucket, each) for each in ("a", "b")}
    expected: set[str] = set()
    places: set[str] = set()

    def land_on(machine: str, number: int) -> None:
        at = NOON + timedelta(hours=number)
        load = Load(machines[machine], command="load", source="test")
        for run_id, created in (
            (f"clr_{machine}{number}", None),
            (f"clr_{machine}{number - 1}", "2026-11-02T09:30:00Z"),
        ):
            body = json.dumps(classify(run_id, createdAt=created)).encode()
            load.take_run(run_id, body, fetched_at=at, is_detail=True, workspace_id=None)
            expected.add(run_id)
        load.take_failure(missing(f"clr_gone{machine}{number}"), workspace_id=None)
        load.finish()

    def take_over(number: int) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(lease.Lease, "_other", lambda _lease, _found: None)
            land_on("b", number)

    reached = True
    number = 0
    while reached:
        number += 1
        reached = False
        puts = 0

        def plan(asked: Asked, number: int = number) -> None:
            nonlocal puts, reached
            if asked.method == "PUT" and not reached:
                puts += 1
                if puts == number:
                    reached = True
                    places.add(asked.name.partition("/")[0])
                    take_over(number)

        bucket.proxy.plan = plan
        land_on("a", number)
        bucket.proxy.plan = lambda _asked: None
        expect(bucket, expected)
    assert {"runs", "loads", "raw", "loading", "moving.json", "dead_letters.parquet", ".turn"} <= places
    with bucket.on("reader"):
        lake = open_lake(bucket.url)
        assert [each for each in check_lake(lake).findings if each.state == "broken"] == []
    assert len(lake.read_dead_letters()) == 2 * number - 1
    assert set(lake.read_loads()["state"].to_pylist()) == {"complete"}


def missing(run_id: str) -> Any:
    from pipeline.errors import RunMissingError

    return RunMissingError(f"run {run_id}: not there", run_id=run_id, reason="NOT_FOUND", http_status=404)


def test_a_put_whose_answer_is_lost_counts_as_the_writers_own(bucket: Bucket) -> None:
    lake = on_machine(bucket, "a")
    land(lake, classify("clr_1"))
    lost = Counter[str]()

    def plan(asked: Asked) -> Spoilt | None:
        if asked.method == "PUT" and asked.is_conditional and not lost[asked.name]:
            lost[asked.name] += 1
            return Spoilt(0, is_done=True)
        return None

    bucket.proxy.plan = plan
    told: list[str] = []
    load = Load(lake, command="load", source="test", tell=told.append)
    load.take_failure(missing("clr_2"), workspace_id=None)
    load.finish()
    assert len(lost) >= 4
    assert told == []  # nothing was taken for another writer's
    assert open_lake(bucket.url).read_dead_letters()["run_id"].to_pylist() == ["clr_2"]


@pytest.mark.parametrize("status", [409, 500])
def test_what_passes_by_itself_is_tried_again(bucket: Bucket, status: int) -> None:
    lake, failed = on_machine(bucket, "a"), Counter[str]()

    def plan(asked: Asked) -> Spoilt | None:
        if asked.method in ("PUT", "GET", "LIST") and not failed[asked.name]:
            failed[asked.name] += 1
            return Spoilt(status)
        return None

    bucket.proxy.plan = plan if status != 409 else lambda asked: plan(asked) if asked.is_conditional else None
    land(lake, classify("clr_1"))
    assert len(failed) >= 3
    bucket.proxy.plan = lambda _asked: None
    expect(bucket, {"clr_1"})


def test_a_store_that_goes_down_in_a_load_is_told_and_what_was_logged_lands_with_the_next_command(
    bucket: Bucket,
) -> None:
    lake = on_machine(bucket, "a")
    land(lake, classify("clr_1"))
    load = Load(lake, command="load", source="test")
    body = b'{"object": "classify_run", "id": "clr_2", "status": "PROCESSED", "createdAt": "2026-11-02T09:30:00Z"}'
    load.take_run("clr_2", body, fetched_at=NOON, is_detail=False, workspace_id=None)
    bucket.proxy.plan = lambda _asked: Spoilt(503, "SlowDown")
    with pytest.raises(StoreError, match=r"not as it should \(HTTP 503, SlowDown\)") as told:
        load.land()
    load.close()
    text = "".join(traceback.format_exception(told.value))
    assert not [secret for secret in bucket.secrets if secret in text]
    with pytest.raises(StoreError):
        open_lake(bucket.url)
    bucket.proxy.plan = lambda _asked: None
    assert recover(on_machine(bucket, "a")) == 1
    expect(bucket, {"clr_1", "clr_2"})


def test_a_store_without_conditional_writes_says_so_and_refuses_a_second_writer(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.proxy.ignores_conditions = True
    told: list[str] = []
    mine = on_machine(bucket, "a")
    with mine.writing(tell=told.append):
        pass
    assert told[0].endswith("this store has no conditional writes; only one machine may write here at a time")
    land(mine, classify("clr_1"))
    load = Load(mine, command="load", source="test")
    theirs = on_machine(bucket, "b")
    with pytest.raises(LakeLockedError, match=rf"load {load.result.load_id} is at work on another machine"):
        Load(theirs, command="load", source="test")
    with mine.locked(), pytest.raises(LakeLockedError, match="this store has no conditional writes"):
        land(theirs, classify("clr_2"))
    load.finish()
    land(theirs, classify("clr_2"))
    expect(bucket, {"clr_1", "clr_2"})


def test_a_writer_waits_for_the_turn_of_another_machine_and_takes_over_from_one_that_died(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 2.0)
    mine, theirs = on_machine(bucket, "a"), on_machine(bucket, "b")
    dying = theirs.mirror.turn(wait_s=0, tell=print)
    dying.__enter__()
    held = theirs.mirror._turn
    held._ended.set()  # it renews its lease no more
    held._thread.join()
    told: list[str] = []
    with mine.writing(tell=told.append):
        with pytest.raises(LakeConflictError):
            theirs.write_moves([("clr_1", "2026-11-01", "2026-11-02")])
        with pytest.raises(LakeLockedError, match="has been writing for too long"):
            theirs.mirror._lease(".turn", print).take(wait_s=0, tell=print)
    assert "moving.json" not in bucket.names()


def test_readers_on_another_machine_see_every_run_once_while_runs_land_and_move(bucket: Bucket) -> None:
    lake = on_machine(bucket, "a")
    land(lake, *(classify(f"clr_{number}", createdAt=None) for number in range(6)))
    problems: list[str] = []
    answers = 0
    stop = threading.Event()
    with bucket.on("reader"):
        open_lake(bucket.url)

    def read() -> None:
        nonlocal answers
        seen: set[str] = set()
        with bucket.on("reader"):
            while not stop.is_set():
                rows = rows_of(bucket.url)
                if not seen <= rows.keys():
                    problems.append(f"lost: {seen - rows.keys()}")
                seen |= rows.keys()
                answers += 1

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(6):
            day = f"2026-11-{number + 1:02d}"
            later = NOON + timedelta(hours=number + 1)
            land(lake, classify(f"clr_{number}", createdAt=f"{day}T09:00:00Z"), fetched_at=later)
    finally:
        stop.set()
        reader.join()
    assert not problems
    assert answers >= 2
    assert lake.days() == [f"2026-11-{number:02d}" for number in range(1, 7)] + ["unknown"]
    expect(bucket, {f"clr_{number}" for number in range(6)})


def meanwhile(bucket: Bucket, method: str, name: str, act: Callable[[], object], *, times: int) -> None:
    """Have something done just before a request of a reader is passed on, so many times."""
    left = [act] * times

    def plan(asked: Asked) -> None:
        if asked.method == method and asked.name.startswith(name) and left:
            bucket.proxy.plan = lambda _asked: None
            left.pop()()
            bucket.proxy.plan = plan

    bucket.proxy.plan = plan


def test_a_run_that_moves_between_a_readers_list_and_its_downloads_is_there_once(bucket: Bucket) -> None:
    lake = on_machine(bucket, "a")
    land(lake, classify("clr_1", createdAt=None), classify("clr_2", createdAt=None))
    later = NOON + timedelta(hours=1)
    meanwhile(bucket, "GET", "runs/day=unknown", lambda: land(lake, classify("clr_1"), fetched_at=later), times=1)
    rows = expect(bucket, {"clr_1", "clr_2"})
    assert rows["clr_1"]["created_at"] is not None


def test_a_reader_gets_its_answer_though_files_are_replaced_all_the_while(bucket: Bucket) -> None:
    lake = on_machine(bucket, "a")
    land(lake, classify("clr_0"))
    landed = ["clr_0"]

    def land_another() -> None:
        landed.append(f"clr_{len(landed)}")
        land(lake, classify(landed[-1]))

    meanwhile(bucket, "LIST", "", land_another, times=100)
    with bucket.on("reader"):
        rows = rows_of(bucket.url)
    assert {"clr_0", "clr_1", "clr_2"} <= rows.keys() < set(landed)


def test_the_credentials_stand_in_no_file_message_or_repr(bucket: Bucket, tmp_path: Path) -> None:
    lake = on_machine(bucket, "a")
    land(lake, classify("clr_1"))
    told = [repr(lake.mirror), repr(lake.mirror.store), str(vars(lake.mirror))]
    for status, code in ((403, "InvalidAccessKeyId"), (400, "AuthorizationHeaderMalformed"), (401, "Unauthorized")):
        bucket.proxy.plan = lambda _asked, status=status, code=code: Spoilt(status, code)
        with pytest.raises(StoreError) as refused:
            open_lake(bucket.url)
        told += [str(refused.value), repr(refused.value)]
        assert code in told[-1]
    bucket.proxy.plan = lambda _asked: None
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    stored = [bytes(read(bucket, name)) for name in bucket.names()]
    for secret in bucket.secrets:
        assert not [text for text in told if secret in text]
        assert not [content for content in (*written, *stored) if secret.encode() in content]
    assert len(written) > 5


def read(bucket: Bucket, name: str) -> bytes:
    import obstore

    return bytes(obstore.get(bucket.store(), name).bytes())


@pytest.mark.long
def test_landings_that_take_longer_than_a_lease_hold_it_all_the_same(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 3.0)
    machines = [on_machine(bucket, name) for name in "ab"]
    days = [f"2026-11-{number:02d}T09:00:00Z" for number in range(1, 9)]
    bucket.proxy.delay_s = 0.3

    def write(number: int) -> None:
        land(machines[number], *(classify(f"clr_{number}{place}", createdAt=day) for place, day in enumerate(days)))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bucket.proxy.delay_s = 0.0
    expect(bucket, {f"clr_{number}{place}" for number in range(2) for place in range(8)})
